"""Layers: shapes, formulas against plain NumPy, gradients along random directions, modes, arguments."""

import numpy as np
import pytest

from fastdl import nn
from fastdl.tensor import Tensor


def array(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


LAYERS = {
    "dense": (lambda: nn.Dense(5, "tanh"), (4,), (5,)),
    "dense-time": (lambda: nn.Dense(5, bias=False), (7, 4), (7, 5)),
    "conv2d": (lambda: nn.Conv2d(6, 3, "tanh", stride=2, padding="same"), (9, 8, 3), (5, 4, 6)),
    "conv2d-groups": (lambda: nn.Conv2d(6, (3, 2), groups=3, dilation=2), (9, 8, 3), (5, 6, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 3, "sigmoid", padding="same"), (11, 2), (11, 4)),
    "conv1d-stride": (lambda: nn.Conv1d(4, 4, stride=2, padding=1), (11, 2), (5, 4)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(3, 4, stride=2, padding=1), (5, 4, 2), (10, 8, 3)),
    "conv_transpose2d-out": (
        lambda: nn.ConvTranspose2d(3, 3, stride=2, padding=1, out_padding=1),
        (5, 4, 2),
        (10, 8, 3),
    ),
    "max_pool": (lambda: nn.MaxPool2d(2), (7, 6, 3), (3, 3, 3)),
    "avg_pool": (lambda: nn.AvgPool2d(3, stride=2, padding=1, count_padding=False), (7, 6, 3), (4, 3, 3)),
    "global": (lambda: nn.GlobalAvgPool2d(), (7, 6, 3), (3,)),
    "batch_norm": (lambda: nn.BatchNorm(), (4, 4, 3), (4, 4, 3)),
    "layer_norm": (lambda: nn.LayerNorm(), (6,), (6,)),
    "flatten": (lambda: nn.Flatten(), (4, 3, 2), (24,)),
    "tanh": (lambda: nn.Tanh(), (4,), (4,)),
    "sigmoid": (lambda: nn.Sigmoid(), (4,), (4,)),
    "gelu": (lambda: nn.GELU(), (4,), (4,)),
    "softmax": (lambda: nn.Softmax(), (4,), (4,)),
    "sequential": (lambda: nn.Sequential(nn.Dense(6, "gelu"), nn.LayerNorm(), nn.Dense(2)), (4,), (2,)),
    "residual": (lambda: nn.Residual(nn.Sequential(nn.Dense(4, "tanh"), nn.Dense(4))), (4,), (4,)),
    "residual-projection": (lambda: nn.Residual(nn.Dense(5, "tanh"), nn.Dense(5, bias=False), "tanh"), (4,), (5,)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_output_shape(name):
    make, before, after = LAYERS[name]
    layer = make().build(before, seed=1)
    for n in (1, 3):
        assert layer(Tensor(np.ones((n, *before), np.float32))).shape == (n, *after)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_agree_with_differences(name, rng):
    """d/dt sum(c * layer(x + t v; p + t u)) from the tape and from the loss itself, in a random direction."""
    make, before, _ = LAYERS[name]
    layer = make().build(before, seed=1)
    x = Tensor(array(rng, 3, *before), wants_grad=True)
    for p in layer.parameters():
        p.data[...] += 0.1 * array(rng, *p.shape)
    flat = layer.flatten()
    flat.zero_grad()
    y = layer(x)
    c = array(rng, *y.shape)
    y.backward(c)
    flat.settle()
    v, u = array(rng, *x.shape), array(rng, *flat.data.shape)
    slope = float((x.grad.astype(np.float64) * v).sum() + (flat.grad.astype(np.float64) * u).sum())
    x0, p0 = x.data.copy(), flat.snapshot()

    def value(t):
        flat.restore((p0 + t * u).astype(np.float32))
        return float((layer(Tensor((x0 + t * v).astype(np.float32))).data.astype(np.float64) * c).sum())

    h = 1e-3
    difference = (8 * (value(h) - value(-h)) - (value(2 * h) - value(-2 * h))) / (12 * h)
    flat.restore(p0)
    # float32 values: rounding of the sum over a step of 1e-3 leaves about 1e-3 of its size
    size = float(np.abs(c).sum()) * 6e-8 / h * 4 + 1e-6
    assert abs(slope - difference) <= 2e-3 * abs(slope) + 4 * size


def test_dense_is_its_formula(rng):
    layer, x = nn.Dense(3, "relu").build((4,), 0), array(rng, 5, 4)
    want = np.maximum(x.astype(np.float64) @ layer.w.data + layer.b.data, 0)
    np.testing.assert_allclose(layer(Tensor(x)).data, want, rtol=1e-5, atol=1e-6)


def test_same_padding_keeps_the_size_and_centres():
    layer = nn.Conv2d(1, 3, padding="same", channels=1).initialise(0)
    layer.w.data[...] = 0.0
    layer.w.data[1, 1] = 1.0  # the identity filter
    x = np.arange(20, dtype=np.float32).reshape(1, 4, 5, 1)
    np.testing.assert_array_equal(layer(Tensor(x)).data, x)


def test_conv1d_is_a_moving_filter():
    layer = nn.Conv1d(1, 3, channels=1).initialise(0)
    layer.w.data[...] = np.array([1, 10, 100], np.float32).reshape(3, 1, 1)
    y = layer(Tensor(np.arange(5, dtype=np.float32).reshape(1, 5, 1))).data
    np.testing.assert_array_equal(y.ravel(), [210, 321, 432])


def test_batch_norm_uses_the_batch_then_the_running_statistics(rng):
    layer, x = nn.BatchNorm(momentum=0.5).build((2,), 0), 3 + 2 * array(rng, 50, 2)
    y = layer(Tensor(x)).data
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(y.std(0), 1, atol=1e-3)
    np.testing.assert_allclose(layer.running_mean, 0.5 * x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(layer.running_var, 0.5 + 0.5 * x.var(0, ddof=1), rtol=1e-4)
    kept = layer.running_mean.copy()
    y = layer.eval()(Tensor(x)).data
    np.testing.assert_array_equal(layer.running_mean, kept)
    np.testing.assert_allclose(y, (x - kept) / np.sqrt(layer.running_var + 1e-5), rtol=1e-4, atol=1e-4)
    layer.initialise(0)
    np.testing.assert_array_equal(layer.running_mean, [0, 0])


def test_dropout_keeps_the_mean_and_passes_in_evaluation():
    layer = nn.Dropout(0.25).build((1000,), 3)
    x = Tensor(np.ones((100, 1000), np.float32), wants_grad=True)
    y = layer(x)
    share = (y.data == 0).mean()
    assert abs(share - 0.25) < 6 * np.sqrt(0.25 * 0.75 / 1e5)
    np.testing.assert_allclose(y.data[y.data != 0], 1 / 0.75, rtol=1e-6)
    dropped = y.data == 0
    y.backward(np.ones_like(y.data))
    np.testing.assert_array_equal(x.grad == 0, dropped)
    assert layer.eval()(x) is x
    with pytest.raises(RuntimeError, match="initialised"):
        nn.Dropout(0.5)(x)


def test_embedding_rows_and_gradient():
    layer = nn.Embedding(5, 3).initialise(0)
    index = np.array([[1, 1, 4]])
    y = layer(index)
    np.testing.assert_array_equal(y.data, layer.table.data[index])
    y.backward(np.ones((1, 3, 3), np.float32))
    np.testing.assert_array_equal(layer.table.grad[:, 0], [0, 2, 0, 0, 1])
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Dense(2)).build((4,), dtype=np.int64)
    assert net(np.zeros((2, 4), np.int64)).shape == (2, 2)


def test_sequential_is_a_sequence():
    a, b, c = nn.Dense(1), nn.Flatten(), nn.Tanh()
    s = nn.Sequential(a, b, c)
    assert len(s) == 3
    assert s[1] is b
    assert list(s[1:]) == [b, c]
    with pytest.raises(TypeError, match=r"layers\[1\]: expected a Module; got function"):
        nn.Sequential(a, lambda x: x)


def _zeros(*shape, **options):
    return Tensor(np.zeros(shape, np.float32), **options)


def _transposed(**options):
    return nn.ConvTranspose2d(2, 3, **options)(_zeros(1, 4, 4, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Dense(0), "outputs: expected at least 1; got 0"),
        (lambda: nn.Dense(3, "rleu"), "act: expected one of none, relu"),
        (lambda: nn.Conv2d(4, 2, padding="same"), "padding: expected an odd filter size"),
        (lambda: nn.Conv2d(4, 3, padding="full"), 'padding: expected "valid", "same" or integers'),
        (lambda: nn.Conv2d(4, (3, 3, 3)), "size: expected an integer of at least 1, or two"),
        (lambda: nn.Conv2d(4, 3, groups=3), "groups: expected a divisor of 4 filters; got 3"),
        (lambda: nn.Conv2d(4, 3, groups=2).build((5, 5, 3)), "x: expected a multiple of 2 channels; got 3"),
        (lambda: nn.Conv2d(4, 3).build((5, 5)), r"x: expected an array \[N,Y,X,C\]; got shape \[1, 5, 5\]"),
        (lambda: nn.Dropout(1.0), "p: expected 0 <= p < 1"),
        (lambda: nn.Dropout("x"), "p: expected 0 <= p < 1; got 'x'"),
        (lambda: nn.BatchNorm(momentum=2), "momentum: expected 0 to 1"),
        (lambda: nn.BatchNorm(eps=-1), "eps: expected 0 or more; got -1"),
        (lambda: nn.LayerNorm(eps=-1), "eps: expected 0 or more; got -1"),
        (lambda: nn.Dense(3).build((-1,)), r"input_shape: expected the sizes of one sample, whole numbers; got \(-1,\)"),
        (lambda: nn.Dense(3).build("a"), "input_shape: expected the sizes of one sample, whole numbers; got 'a'"),
        (lambda: nn.Dense(3).build((2.5,)), "input_shape: expected the sizes of one sample"),
        (lambda: nn.Dense(3).build(4).summary(None), "input_shape: expected the sizes of one sample"),
        (lambda: nn.Conv1d(2, 3, channels=2)(_zeros(1, 4, 4, 2)), r"x: expected shape \[N,T,C\]; got \[1, 4, 4, 2\]"),
        (lambda: nn.Conv1d(2, 3, channels=2)(_zeros(4)), r"x: expected shape \[N,T,C\]; got \[4\]"),
        (lambda: nn.ConvTranspose2d(2, 3, channels=2)(_zeros(4)), r"x: expected shape \[N,P,Q,F\]; got \[4\]"),
        (lambda: _transposed(out_padding=1), "out_padding: expected less than the stride, 1; got 1"),
        (lambda: _transposed(stride=2, dilation=3, out_padding=(1, 2)), "out_padding: expected less than the stride, 2; got 2"),
        (lambda: _transposed(padding=(0, 9)), r"padding: expected less, for an image of 6x6 without it; got \[0, 9\]"),
        (lambda: nn.GlobalAvgPool2d()(_zeros(4, 4, 2)), r"x: expected shape \[N,Y,X,C\]; got \[4, 4, 2\]"),
        (lambda: nn.MaxPool2d()(_zeros(4, 4, 2, wants_grad=True)), r"x: expected shape \[N,Y,X,C\]; got \[4, 4, 2\]"),
        (lambda: nn.Residual(nn.Dense(4)).build(3), r"branch: expected the shape of what is added, \[1, 3\]; got \[1, 4\]"),
        (lambda: nn.Residual(nn.Dense(3), nn.Dense(4)).build(3), r"branch: expected the shape .*, \[1, 4\]; got \[1, 3\]"),
        # As many samples as steps: the last output of a sequence would be added to every step of another.
        (
            lambda: nn.Residual(nn.LSTM(2, output="last", inputs=2).initialise(0))(_zeros(5, 5, 2)),
            r"branch: expected the shape of what is added, \[5, 5, 2\]; got \[5, 2\]",
        ),
        (lambda: nn.Flatten()(_zeros()), "x: expected one axis or more; got a single number"),
        (lambda: nn.Reshape(1)(_zeros()), "x: expected one axis or more; got a single number"),
        (lambda: nn.Dense(2)(_zeros()), "x: expected one axis or more; got a single number"),
        (lambda: nn.BatchNorm()(_zeros()), "x: expected one axis or more; got a single number"),
        (lambda: nn.LayerNorm()(_zeros()), "x: expected one axis or more; got a single number"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_float_is_no_size():
    with pytest.raises(TypeError, match="outputs: expected an integer; got float"):
        nn.Dense(2.5)
