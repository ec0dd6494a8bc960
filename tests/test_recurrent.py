"""Recurrent operations and layers: the tape, lengths, directions, state carried from piece to piece."""

import pickle
import re

import numpy as np
import pytest

import reference_recurrent as ref
from conftest import LOADED
from fastdl import nn, ops
from fastdl.random import Stream
from fastdl.tensor import Tensor, inference

LAYERS = {
    "rnn": lambda **how: nn.RNN(7, **how),
    "relu": lambda **how: nn.RNN(7, "relu", **how),
    "gru": lambda **how: nn.GRU(7, **how),
    "lstm": lambda **how: nn.LSTM(7, **how),
    "peephole": lambda **how: nn.LSTM(7, peephole=True, **how),
    "odd": lambda **how: nn.LSTM(7, zoneout=(0.2, 0.3), recurrent_dropout=0.25, **how),
    "layer norm": lambda **how: nn.LSTM(7, layer_norm=True, **how),
}
HOW = [{}, {"layers": 2}, {"bidirectional": True}, {"layers": 2, "bidirectional": True, "output": "last"}]


def data(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def built(make, **how):
    return make(inputs=5, **how).initialise(3)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_gradients_of_a_layer(name, how, rng):
    if name == "relu":
        pytest.skip("a step across its kink; the kernel's own gradient is checked in float64")
    layer, x, lengths = built(LAYERS[name], **how), data(rng, 4, 6, 5), np.array([6, 0, 3, 4])
    layer.eval()
    weights = data(rng, *layer(Tensor(x), lengths).shape)

    def loss(a):
        return ops.sum(ops.multiply(layer(a, lengths), Tensor(weights)))

    xt = Tensor(x, True)
    loss(xt).backward()
    parameters = [p for p in layer.parameters() if p.grad is not None]
    assert len(parameters) == len(layer.parameters())
    for t in [xt, *parameters]:
        before, direction, step = t.data.copy(), data(rng, *t.shape), 3e-3
        with inference():
            t.data[...] = before + step * direction
            up = loss(xt).item()
            t.data[...] = before - step * direction
            down = loss(xt).item()
            t.data[...] = before
        numeric, analytic = (up - down) / (2 * step), float(np.sum(t.grad * direction))
        scale = np.sqrt(np.sum(t.grad.astype(float) ** 2) * np.sum(direction**2.0)) + 0.1
        assert abs(numeric - analytic) <= 0.02 * scale, (t, numeric, analytic)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_padding_is_not_seen(name, how, rng):
    layer, x, lengths = built(LAYERS[name], **how).eval(), data(rng, 3, 6, 5), np.array([2, 6, 4])
    whole = layer(Tensor(x), lengths).data
    x[0, 2:] = x[2, 4:] = np.nan
    np.testing.assert_array_equal(layer(Tensor(x), lengths).data, whole)
    for n, length in enumerate(lengths):
        alone = layer(Tensor(np.ascontiguousarray(x[n : n + 1, :length]))).data[0]
        np.testing.assert_array_equal(whole[n] if whole.ndim == 2 else whole[n, :length], alone)
        if whole.ndim == 3:
            assert not whole[n, length:].any()


@pytest.mark.parametrize("name", LAYERS)
def test_state_carries_on(name, rng):
    layer, x = built(LAYERS[name], layers=2).eval(), data(rng, 3, 8, 5)
    whole, end = layer.sequence(Tensor(x))
    first, state = layer.sequence(Tensor(np.ascontiguousarray(x[:, :3])))
    second, last = layer.sequence(Tensor(np.ascontiguousarray(x[:, 3:])), state=layer.detached(state))
    np.testing.assert_array_equal(np.concatenate([first.data, second.data], 1), whole.data)
    for a, b in zip(end, last, strict=True):
        for s, t in zip(a, b, strict=True):
            np.testing.assert_array_equal(s.data, t.data)


def test_reverse_is_forward_on_the_reversed(rng):
    layer, x = built(LAYERS["lstm"]), data(rng, 2, 5, 5)
    args = layer.w[0], layer.u[0], layer.b[0]
    backward = ops.lstm(Tensor(x), *args, reverse=True)[0].data
    forward = ops.lstm(Tensor(np.ascontiguousarray(x[:, ::-1])), *args)[0].data
    np.testing.assert_array_equal(backward, forward[:, ::-1])


def test_gradient_through_states(rng):
    # Two pieces joined by their states are the whole sequence, gradients too.
    layer, x = built(LAYERS["lstm"]), data(rng, 3, 6, 5)
    a = Tensor(x, True)
    layer(a).sum().backward()
    wanted = [p.grad.copy() for p in layer.parameters()]
    for p in layer.parameters():
        p.grad = None
    first, second = (Tensor(np.ascontiguousarray(x[:, s]), True) for s in (slice(0, 2), slice(2, 6)))
    y0, state = layer.sequence(first)
    y1, _ = layer.sequence(second, state=state)
    (y0.sum() + y1.sum()).backward()
    np.testing.assert_allclose(np.concatenate([first.grad, second.grad], 1), a.grad, rtol=1e-4, atol=1e-5)
    for p, w in zip(layer.parameters(), wanted, strict=True):
        np.testing.assert_allclose(p.grad, w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_any_output_may_be_used(which, rng):
    layer, x = built(LAYERS["lstm"]), data(rng, 2, 4, 5)
    t = Tensor(x, True)
    outputs = ops.lstm(t, layer.w[0], layer.u[0], layer.b[0])
    total = outputs[which[0]].sum()
    for k in which[1:]:
        total = total + outputs[k].sum()
    total.backward()
    inputs = {"x": x.astype(float)} | {k: getattr(layer, k)[0].data.astype(float) for k in "wub"}
    y = ref.lstm_saved(**inputs)
    ones = {"dy": np.ones_like(y["y"]), "dhn": np.ones((2, 7)), "dcn": np.ones((2, 7))}
    given = {k: ones[k] for k in (list(ones)[i] for i in which)}
    np.testing.assert_allclose(t.grad, ref.lstm_backward(**inputs, **given)["dx"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_cells_are_sequences_of_one_step(cell, rng):
    layer, x = built(LAYERS[cell]), data(rng, 3, 4, 5)
    y = layer(Tensor(x)).data
    h = c = Tensor(np.zeros((3, 7), np.float32))
    for t in range(4):
        xt = Tensor(np.ascontiguousarray(x[:, t]))
        if cell == "lstm":
            h, c = ops.lstm_cell(xt, h, c, layer.w[0], layer.u[0], layer.b[0])
        elif cell == "gru":
            h = ops.gru_cell(xt, h, layer.w[0], layer.u[0], layer.b[0], layer.bn[0])
        else:
            h = ops.rnn_cell(xt, h, layer.w[0], layer.u[0], layer.b[0])
        np.testing.assert_array_equal(h.data, y[:, t])
    h.sum().backward()
    assert all(np.abs(p.grad).sum() > 0 for p in layer.parameters())


def test_dropout_and_zoneout_follow_the_seed(rng):
    x = Tensor(data(rng, 2, 5, 5))
    runs = []
    for seed in (1, 1, 2):
        layer = nn.LSTM(7, layers=2, dropout=0.3, zoneout=0.2, recurrent_dropout=0.2, inputs=5).initialise(3).train()
        layer.stream = Stream(seed)
        runs.append(layer(x).data)
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0
    layer.eval()
    np.testing.assert_array_equal(layer(x).data, layer(x).data)


def test_lengths_and_states_are_checked(rng):
    layer, x = built(LAYERS["lstm"]), Tensor(data(rng, 2, 4, 5))
    with pytest.raises(ValueError, match=r"lengths: expected .*5"):
        layer(x, np.array([4, 5]))
    with pytest.raises(ValueError, match="lengths: expected"):
        layer(x, np.array([-1, 2]))
    with pytest.raises(TypeError, match="lengths: expected int64"):
        layer(x, np.array([1, 2], np.int32))
    with pytest.raises(ValueError, match="state: expected 1 states"):
        layer.sequence(x, state=[])
    with pytest.raises(TypeError, match="state: expected a list, one state a layer and direction; got int"):
        layer.sequence(x, state=5)
    h = Tensor(np.zeros((2, 7), np.float32))
    for wrong, got in (((h,), r"\(Tensor\)"), (h, "Tensor"), ((h, h.data), r"\(Tensor, ndarray\)"), (5, "int")):
        with pytest.raises(TypeError, match=rf"state\[0\]: expected Tensors \(h, c\); got {got}$"):
            layer.sequence(x, state=[wrong])
    with pytest.raises(ValueError, match=r"x: expected an array \[N,T,I\]"):
        layer(Tensor(data(rng, 2, 5)))
    for bad in ({"units": 0}, {"units": 3, "layers": 0}, {"units": 3, "dropout": 1.0}, {"units": 3, "output": "some"}):
        with pytest.raises(ValueError, match=": expected"):
            nn.LSTM(**bad)
    odd = ("dropout", "a"), ("recurrent_dropout", None), ("zoneout", "a"), ("zoneout", (0.1,)), ("zoneout", (0.1, 1))
    for name, wrong in odd:
        with pytest.raises(ValueError, match=f"{name}: expected"):
            nn.LSTM(3, **{name: wrong})
    with pytest.raises(ValueError, match="act: expected 'tanh' or 'relu'"):
        nn.RNN(3, "gelu")


def test_sequences_of_no_steps(rng):
    layer = built(LAYERS["lstm"], output="last")
    assert not layer(Tensor(data(rng, 2, 4, 5)), np.zeros(2, np.int64)).data.any()
    assert layer(Tensor(data(rng, 2, 0, 5))).shape == (2, 7)


def test_layers_survive_pickling_and_copies(rng):
    layer, x = nn.GRU(6, layers=2, bidirectional=True).build((4, 3), seed=1), Tensor(data(rng, 2, 4, 3))
    for other in (pickle.loads(pickle.dumps(layer)), layer.clone()):
        np.testing.assert_array_equal(other(x).data, layer(x).data)
    assert "GRU(6, 2 layers, bidirectional, all)" in repr(layer)
    assert [n for n, _ in layer.named_parameters()][:2] == ["bn.0", "bn.1"]


def test_an_lstm_learns_to_remember():
    # The first of ten numbers is the label: a network without memory stays at one half.
    rng = np.random.default_rng(0)
    x = rng.standard_normal((256, 10, 1)).astype(np.float32)
    y = (x[:, 0, 0] > 0).astype(np.int64)
    from fastdl import optim, train

    net = nn.Sequential(nn.LSTM(12, output="last"), nn.Dense(2)).build((10, 1), seed=1)
    train.fit(net, x, y, loss="softmax_cross_entropy", optimizer=optim.get("adam", net, lr=0.02), epochs=25, batch_size=32)
    assert train.accuracy(train.predict(net, x), y) > 0.95


def test_gru_gradients_stay_within_their_scratch(rng):
    """A shape whose product for dw, 3 H columns wide, goes in more parts than one of 4 H columns would."""
    emu = LOADED.get("emu")
    if emu is None:
        pytest.skip("the emulator is not built")
    n, i, h = 53 * 256, 18, 25
    arrays = [data(rng, *shape) for shape in ((n, i), (n, h), (i, 3 * h), (h, 3 * h), (n, 4 * h), (n, h))]
    only_dw = dict(dx=None, dh=None, du=None, db=None, dbn=None)
    with pytest.raises(ValueError, match="work: expected at least") as error:
        emu.gru_cell_backward(*arrays, np.empty(0, np.float32), **only_dw)
    size = int(re.search(r"at least (\d+)", str(error.value))[1])
    scratch = np.full(size + (1 << 16), 7, np.float32)
    emu.gru_cell_backward(*arrays, scratch[:size], **only_dw)
    assert (scratch[size:] == 7).all()


def test_chrono_biases_hold_what_was_seen_for_so_many_steps():
    """The cell after t steps without input is sigmoid(log T)^t of what it was: about e^-1 after T steps, T of every size."""
    layer = nn.LSTM(1000, inputs=2, chrono=301).initialise(0)
    b = layer.b[0].data
    forget = 1 / (1 + np.exp(-b[1000:2000].astype(float)))
    steps = 1 / -np.log(forget)  # until e^-1
    assert np.array_equal(b[:1000], -b[1000:2000]) and not b[2000:].any()
    assert steps.min() > 1 and steps.max() < 302 and abs(np.median(steps) - 151) < 15 and np.quantile(steps, 0.1) < 45
    other = nn.LSTM(1000, inputs=2, chrono=301).initialise(1)
    assert not np.array_equal(other.b[0].data, b)
    pickle.loads(pickle.dumps(layer))


@pytest.mark.parametrize("how", [{"chrono": 1}, {"chrono": 9, "bias": False}, {"chrono": 9, "layer_norm": True}], ids=str)
def test_chrono_wants_biases(how):
    with pytest.raises(ValueError, match="chrono: expected at least 2 steps"):
        nn.LSTM(4, **how)


def test_models_take_chrono_for_an_lstm():
    from fastdl.models import RNNClassifier, RNNRegressor

    model = RNNClassifier(8, chrono=50).build((20, 1), 2)
    assert model.module_.recurrent.b[0].data[8:16].min() > 0 and model.module_.recurrent.b[0].data[:8].max() < 0
    assert RNNRegressor(8, chrono=50).build((20, 1)).module_.recurrent.chrono == 50
    with pytest.raises(ValueError, match="chrono: expected at least 2 steps, for cell 'lstm'; got 50 for 'gru'"):
        RNNClassifier(8, cell="gru", chrono=50)
