"""Weights of PyTorch and Keras: the same network gives the same outputs, and what goes out comes in again."""

from pathlib import Path

import numpy as np
import pytest

from fastdl import interop, models, nn, train
from fastdl.data import parse_trees
from fastdl.data.text import Vocabulary
from fastdl.models import CNN, MLP
from fastdl.tensor import Tensor, inference

SEQUENCES = ("keras-text", "keras-lstm", "keras-gru", "keras-rnn")  # read the images' first channel as steps
GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "interop.npz"))


def stored(name):
    """(arrays by name, input, output) of a network in the file."""
    arrays = {k.removeprefix(f"{name}/"): v for k, v in GOLDEN.items() if k.startswith(f"{name}/")}
    x = GOLDEN["rows"] if name.endswith("mlp") else GOLDEN["images"]
    return arrays, np.ascontiguousarray(x[..., 0]) if name in SEQUENCES else x, arrays.pop("out")


def odd():
    return nn.Sequential(
        nn.Conv2d(6, (3, 5), "tanh", stride=2, groups=3), nn.ConvTranspose2d(4, 3, stride=2, groups=2), nn.Flatten(),
        nn.BatchNorm(), nn.Dense(5), nn.LayerNorm(), nn.Dense(4),
    )  # fmt: skip


def keras_cnn():
    return nn.Sequential(
        nn.Conv2d(4, 3, "relu"), nn.BatchNorm(), nn.MaxPool2d(2), nn.ConvTranspose2d(3, 3, "tanh", stride=2),
        nn.Flatten(), nn.Dense(6, "relu"), nn.Dropout(0.2), nn.Dense(4),
    )  # fmt: skip


def recurrent(kind):
    return lambda: nn.Sequential(kind(5, bidirectional=True), kind(4), nn.Dense(2))


NETWORKS = {
    "torch-cnn": lambda: CNN("small", width=2).build((12, 10, 3), 4),
    "torch-odd": odd,
    "torch-mlp": lambda: MLP((6, 5), "tanh").build((7,), 3),
    "keras-cnn": keras_cnn,
    "keras-mlp": lambda: MLP((6, 5), "tanh").build((7,), 3),
    "keras-text": lambda: nn.Sequential(nn.Conv1d(4, 3, "relu"), nn.LayerNorm(), nn.Flatten(), nn.Dense(2)),
    **{f"keras-{kind.__name__.lower()}": recurrent(kind) for kind in (nn.LSTM, nn.GRU, nn.RNN)},
}


def ready(name):
    """(network, its input shape or None, how to run it, arrays, input, output)."""
    arrays, x, out = stored(name)
    net = NETWORKS[name]()
    shape = None
    if isinstance(net, nn.Module):
        shape = x.shape[1:]
        net.build(shape, seed=1).eval()
    module = net if shape else net.module_

    def run():
        with inference():
            return module(Tensor(x)).data

    return net, shape, run, arrays, out


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_network_gives_the_same_outputs(name):
    net, shape, run, arrays, out = ready(name)
    torch = name.startswith("torch")
    if torch:
        assert interop.from_torch(net, arrays, shape) is net
    else:
        assert interop.from_keras(net, [arrays[k] for k in sorted(arrays)], shape) is net
    np.testing.assert_allclose(run(), out, rtol=2e-5, atol=2e-5)
    if torch:
        back = interop.to_torch(net, shape)
        assert list(back) == [k for k in arrays if not k.endswith("num_batches_tracked")]
        for k, v in back.items():
            np.testing.assert_array_equal(v, arrays[k])
    else:
        for a, b in zip(interop.to_keras(net, shape), [arrays[k] for k in sorted(arrays)], strict=True):
            if name == "keras-gru" and b.ndim == 2 and len(b) == 2:  # the two biases of z and r come back as their sum
                gates = 2 * b.shape[1] // 3
                a, b = (np.concatenate([v[:, :gates].sum(0), v[:, gates:].reshape(-1)]) for v in (a, b))
            np.testing.assert_array_equal(a, b)


def test_the_golden_files_are_small():
    assert sum(p.stat().st_size for p in (Path(__file__).parent / "golden").glob("*.npz")) < 200_000


def test_names_of_your_own_and_nested_networks():
    mlp = MLP((6, 5), "tanh").build((7,), 3)
    assert list(interop.to_torch(mlp, names=["fc1", "fc2", "out"]))[:2] == ["fc1.weight", "fc1.bias"]
    net = nn.Sequential(nn.Dense(4), nn.Residual(nn.Dense(4, "tanh"))).build((3,))
    state = interop.to_torch(net, (3,))
    assert list(state) == ["layers.0.weight", "layers.0.bias", "layers.1.branch.weight", "layers.1.branch.bias"]
    other = nn.Sequential(nn.Dense(4), nn.Residual(nn.Dense(4, "tanh"))).build((3,), seed=5)
    interop.from_torch(other, state, (3,))
    for k, v in net.get_weights().items():
        np.testing.assert_array_equal(v, other.get_weights()[k])


class Scale(nn.Module):
    """A layer that this library does not know."""

    def __init__(self, n):
        self.factor = nn.Parameter((n,), lambda shape, stream: np.full(shape, 2, np.float32))

    def forward(self, x):
        from fastdl import ops

        return ops.mul(x, self.factor) if hasattr(ops, "mul") else x


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m, s: interop.to_torch(m.module_), ValueError, "input_shape: expected the shape of one sample"),
        (lambda m, s: interop.to_torch(MLP()), ValueError, "model: expected one that was built or fitted.*got MLP"),
        (lambda m, s: interop.to_torch(m, names=["a"]), ValueError, "names: expected 3, one for each layer.*; got 1"),
        (lambda m, s: interop.from_torch(m, dict(list(s.items())[:4])), ValueError, "state: expected 3 layers"),
        (
            lambda m, s: interop.from_torch(m, {k: v for k, v in s.items() if k != "2.bias"}),
            ValueError,
            r"state\['2'\]: expected weight, bias for layers.1 .Dense.; got weight",
        ),
        (
            lambda m, s: interop.from_torch(m, s | {"2.weight": s["2.weight"].T}),
            ValueError,
            r"state\['2.weight'\]: expected shape \[5, 6\]; got \[6, 5\]",
        ),
        (
            lambda m, s: interop.from_torch(m, s | {"2.weight": [["a"]]}),
            TypeError,
            r"state\['2.weight'\]: expected an array of real numbers; got list",
        ),
        (lambda m, s: interop.to_torch(m.module_, [[1], [1, 2]]), TypeError, "input_shape: expected .* integers; got"),
        (lambda m, s: interop.to_torch(m, names=5), TypeError, "names: expected a sequence of strings; got 5"),
        (lambda m, s: interop.to_torch(m, names="abc"), TypeError, "names: expected a sequence of strings; got 'abc'"),
        (lambda m, s: interop.to_torch(m, names=["a", 2, "c"]), TypeError, r"names\[1\]: expected a string; got int"),
        (lambda m, s: interop.to_torch(m, names=["a", "b", "a"]), ValueError, r"names\[2\]: expected another name.*'a' again"),
        (
            lambda m, s: interop.from_torch(m, s | {"2.bias": np.full(5, 1j)}),
            TypeError,
            r"state\['2.bias'\]: expected an array of real numbers; got ndarray of complex128",
        ),
        (
            lambda m, s: interop.from_torch(m, s | {"2.bias": np.array(["1"] * 5)}),
            TypeError,
            r"state\['2.bias'\]: expected an array of real numbers; got ndarray of <U1",
        ),
        (
            lambda m, s: interop.from_torch(m, s | {"2.bias": np.full(5, 1e300)}),
            ValueError,
            r"state\['2.bias'\]: expected numbers within float32's range, up to 3.4e38; got a larger one",
        ),
        (lambda m, s: interop.from_keras(m, interop.to_keras(m)[1:]), ValueError, "weights: expected 6 arrays.*; got 5"),
        (
            lambda m, s: interop.from_keras(m, [w.T for w in interop.to_keras(m)]),
            ValueError,
            r"weights\[0\]: expected shape \[7, 6\] for layers.0.w; got \[6, 7\]",
        ),
    ],
)
def test_wrong_weights_are_named_and_nothing_changes(call, kind, message):
    model = MLP((6, 5), "tanh").build((7,), 3)
    before = model.get_weights()
    with pytest.raises(kind, match=message):
        call(model, interop.to_torch(model))
    for k, v in model.get_weights().items():
        np.testing.assert_array_equal(v, before[k])


def test_a_layer_of_your_own():
    net = nn.Sequential(nn.Dense(3), Scale(3)).build((2,))
    with pytest.raises(ValueError, match=r"got layers.1 .Scale.; see register"):
        interop.to_torch(net, (2,))
    interop.register("Scale", ("factor", "scale", None))
    try:
        state = interop.to_torch(net, (2,))
        np.testing.assert_array_equal(state["1.scale"], [2, 2, 2])
        interop.from_torch(net, state, (2,))
    finally:
        del interop._LAYOUTS["Scale"]


# ------------------------------------------------------------------------------------------------ recurrent layers


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "recurrent.npz") as z:
        return dict(z)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_agree_with_torch(golden, kind):
    own = {k.split("/", 1)[1]: v for k, v in golden.items() if k.startswith(f"{kind}/")}
    state = {k.removeprefix("state/"): v for k, v in own.items() if k.startswith("state/")}
    layer = getattr(nn, kind)(6, layers=2, bidirectional=True).build((5, 4))
    interop.from_torch(layer, state, (5, 4))
    x = Tensor(own["x"], True)
    y, last = layer.sequence(x, golden["lengths"])
    np.testing.assert_allclose(y.data, own["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.stack([s[0].data for s in last]), own["h"], rtol=1e-5, atol=1e-6)
    y.backward(own["dy"])
    np.testing.assert_allclose(x.grad, own["dx"], rtol=1e-4, atol=1e-5)
    for k in range(4):
        end = f"l{k // 2}" + ("_reverse" if k % 2 else "")
        np.testing.assert_allclose(layer.w[k].grad.T, own[f"grad/weight_ih_{end}"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.u[k].grad.T, own[f"grad/weight_hh_{end}"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(layer.b[k].grad, own[f"grad/bias_ih_{end}"], rtol=1e-4, atol=1e-5)
    back = interop.to_torch(layer, (5, 4))
    other = layer.clone().initialise(5)
    interop.from_torch(other, back, (5, 4))
    np.testing.assert_array_equal(other(Tensor(own["x"])).data, layer(Tensor(own["x"])).data)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_agree_with_keras(golden, kind):
    own = {k.split("/", 1)[1]: v for k, v in golden.items() if k.startswith(f"keras-{kind}/")}
    weights, grads = ([own[f"{part}/{i:02d}"] for i in range(9)] for part in ("weight", "grad"))
    net = nn.Sequential(getattr(nn, kind)(6, bidirectional=True), getattr(nn, kind)(6)).build((5, 4))
    interop.from_keras(net, weights, (5, 4))
    x = Tensor(own["x"], True)
    y = net(x)
    np.testing.assert_allclose(y.data, own["y"], rtol=1e-5, atol=1e-6)
    y.backward(own["dy"])
    np.testing.assert_allclose(x.grad, own["dx"], rtol=1e-4, atol=1e-5)
    # Gradients go to Keras' layout as weights do: those of a network that holds them as its weights.
    other = net.clone()
    other.set_weights({name: p.grad for name, p in net.named_parameters()})
    for ours, theirs in zip(interop.to_keras(other, (5, 4)), grads, strict=True):
        if theirs.shape == (2, 18):  # a GRU's two biases of z and r are one here, with one gradient
            np.testing.assert_allclose(theirs[1, :12], theirs[0, :12], rtol=1e-4, atol=1e-5)
            theirs = np.stack([theirs[0], np.concatenate([np.zeros(12, np.float32), theirs[1, 12:]])])
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("bias", [True, False])
def test_recurrent_layers_go_to_keras_and_back(kind, bias, rng):
    def network(seed):
        layers = [getattr(nn, kind)(5, bidirectional=True, bias=bias), nn.Dense(2)]
        return nn.Sequential(*layers).build((4, 3), seed=seed)

    net, other, x = network(1), network(2), Tensor(rng.standard_normal((2, 4, 3)).astype(np.float32))
    weights = interop.to_keras(net, (4, 3))
    if kind == "GRU" and bias:
        assert weights[2].shape == (2, 15)
        # Keras' order is z r h: what keeps the old state comes first
        np.testing.assert_array_equal(weights[0][:, :5], net[0].w[0].data[:, 5:10])
    interop.from_keras(other, weights, (4, 3))
    np.testing.assert_array_equal(other(x).data, net(x).data)
    with pytest.raises(ValueError, match="weights: expected"):
        interop.from_keras(other, weights[:-1], (4, 3))


def test_a_gru_that_resets_before_the_product_is_refused(golden):
    weights = [golden[f"keras-GRU/weight/{i:02d}"] for i in range(6)]
    weights[2] = weights[2].sum(0)  # the one bias that reset_after=False has
    with pytest.raises(ValueError, match=r"weights\[2\]: expected shape \[2, 18\] for .*GRU.*; got \[18\]"):
        interop.from_keras(nn.GRU(6, bidirectional=True).build((5, 4)), weights, (5, 4))


def test_peepholes_have_no_place_elsewhere():
    net = nn.LSTM(3, peephole=True).build((4, 2))
    with pytest.raises(ValueError, match="without peepholes"):
        interop.to_torch(net, (4, 2))
    net = nn.LSTM(3, layer_norm=True).build((4, 2))
    with pytest.raises(ValueError, match="without layer normalisation"):
        interop.to_torch(net, (4, 2))


@pytest.mark.parametrize("zoneout", [0.1, (0.0, 0.2)])
def test_zoneout_has_no_place_elsewhere(zoneout):
    net = nn.LSTM(3, zoneout=zoneout).build((4, 2))  # in evaluation, too, it mixes old and new states
    for call in (
        lambda: interop.to_torch(net, (4, 2)),
        lambda: interop.to_keras(net, (4, 2)),
        lambda: interop.from_torch(net, interop.to_torch(nn.LSTM(3).build((4, 2)), (4, 2)), (4, 2)),
    ):
        with pytest.raises(ValueError, match="model: expected an LSTM without zoneout, which the other libraries lack; got"):
            call()


# ------------------------------------------------------------------------------------------------ images from vectors


def _torch_state(net):
    return {k: v.numpy() for k, v in net.state_dict().items()}


def _agrees_with(torch, other, module, x, shape):
    """The torch network and ours, which took its weights over, give the same for images or rows x."""
    first = np.ascontiguousarray(np.moveaxis(x, -1, 1)) if x.ndim > 2 else x
    with torch.no_grad():
        want = other.eval()(torch.from_numpy(first)).numpy()
    want = np.moveaxis(want, 1, -1) if want.ndim > 2 else want
    np.testing.assert_allclose(train.predict(module, x), want, rtol=1e-4, atol=1e-5)
    state = _torch_state(other)
    for k, v in interop.to_torch(module, shape).items():
        np.testing.assert_array_equal(v, state[k])


def test_units_that_become_an_image_change_their_order(rng):
    torch = pytest.importorskip("torch")
    t = torch.nn
    torch.manual_seed(0)
    net = nn.Sequential(nn.Dense(80, "relu"), nn.Reshape(4, 4, 5), nn.ConvTranspose2d(3, 3)).build((6,))
    other = t.Sequential(t.Linear(6, 80), t.ReLU(), t.Unflatten(1, (5, 4, 4)), t.ConvTranspose2d(5, 3, 3))
    interop.from_torch(net, _torch_state(other), (6,))
    _agrees_with(torch, other, net, rng.standard_normal((3, 6)).astype(np.float32), (6,))
    # image -> units -> image, and a normalisation of the units between
    net = nn.Sequential(
        nn.Conv2d(4, 3), nn.Flatten(), nn.Dense(24, bias=False), nn.BatchNorm(), nn.Sigmoid(), nn.Dropout(0.1),
        nn.Reshape(2, 3, 4), nn.Conv2d(2, 2), nn.Flatten(), nn.Dense(3),
    ).build((5, 6, 2))  # fmt: skip
    other = t.Sequential(
        t.Conv2d(2, 4, 3), t.Flatten(), t.Linear(48, 24, bias=False), t.BatchNorm1d(24), t.Sigmoid(), t.Dropout(0.1),
        t.Unflatten(1, (4, 2, 3)), t.Conv2d(4, 2, 2), t.Flatten(), t.Linear(4, 3),
    )  # fmt: skip
    with torch.no_grad():
        for a in (other[3].weight, other[3].bias, other[3].running_mean, other[3].running_var):
            a.copy_(torch.rand(24) + 0.5)
    interop.from_torch(net.eval(), _torch_state(other), (5, 6, 2))
    _agrees_with(torch, other, net, rng.standard_normal((3, 5, 6, 2)).astype(np.float32), (5, 6, 2))
    # sequences of channels are turned next to Conv1d alone
    net = nn.Sequential(nn.Dense(12), nn.Reshape(4, 3), nn.Conv1d(5, 2), nn.Flatten(), nn.Dense(2)).build((6,))
    other = t.Sequential(t.Linear(6, 12), t.Unflatten(1, (3, 4)), t.Conv1d(3, 5, 2), t.Flatten(), t.Linear(15, 2))
    interop.from_torch(net, _torch_state(other), (6,))
    _agrees_with(torch, other, net, rng.standard_normal((3, 6)).astype(np.float32), (6,))
    net = nn.Sequential(nn.Dense(12), nn.Reshape(4, 3), nn.Dense(5), nn.Flatten(), nn.Dense(2)).build((6,))
    other = t.Sequential(t.Linear(6, 12), t.Unflatten(1, (4, 3)), t.Linear(3, 5), t.Flatten(), t.Linear(20, 2))
    interop.from_torch(net, _torch_state(other), (6,))
    _agrees_with(torch, other, net, rng.standard_normal((3, 6)).astype(np.float32), (6,))


def test_a_convolutional_autoencoder_and_a_generator_in_torch(rng):
    torch = pytest.importorskip("torch")
    t = torch.nn
    torch.manual_seed(0)
    model = models.Autoencoder(kind="conv", hidden=(3, 4), code=5).build((8, 12, 2))
    other = t.Sequential(
        t.Conv2d(2, 3, 3, 2, 1), t.ReLU(), t.Conv2d(3, 4, 3, 2, 1), t.ReLU(), t.Flatten(), t.Linear(24, 5),
        t.Linear(5, 24), t.ReLU(), t.Unflatten(1, (4, 2, 3)), t.ConvTranspose2d(4, 3, 3, 2, 1, 1), t.ReLU(),
        t.ConvTranspose2d(3, 2, 3, 2, 1, 1), t.Sigmoid(),
    )  # fmt: skip
    interop.from_torch(model, _torch_state(other))
    x = rng.random((3, 8, 12, 2), np.float32)
    with torch.no_grad():
        want = other(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(model.reconstruct(x), want, rtol=1e-4, atol=1e-5)
    gan = models.GAN("dcgan", latent=5, width=3).build((9, 8, 2))
    other = t.Sequential(
        t.Linear(5, 24, bias=False), t.BatchNorm1d(24), t.ReLU(), t.Unflatten(1, (6, 2, 2)),
        t.ConvTranspose2d(6, 3, 4, 2, 1, (0, 0), bias=False), t.BatchNorm2d(3), t.ReLU(),
        t.ConvTranspose2d(3, 2, 4, 2, 1, (1, 0)), t.Sigmoid(),
    )  # fmt: skip
    state = interop.to_torch(gan)
    keys = [k for k in state if k.startswith("generator.")]
    own = [k for k in other.state_dict() if not k.endswith("num_batches_tracked")]
    other.load_state_dict({k: torch.from_numpy(state[a]) for k, a in zip(own, keys, strict=True)}, strict=False)
    z = rng.standard_normal((3, 5)).astype(np.float32)
    with torch.no_grad():
        want = other.eval()(torch.from_numpy(z)).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(gan.generate(z), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (
            lambda: nn.Sequential(nn.Dense(80), nn.Residual(nn.Dense(80)), nn.Reshape(4, 4, 5)),
            "expected a Dense layer in front of layers.2 .Reshape to .4, 4, 5..",
        ),
        (
            lambda: nn.Sequential(nn.Reshape(20, 4), nn.LSTM(80, output="last"), nn.Reshape(4, 4, 5), nn.Conv2d(1, 1)),
            "expected a Dense layer in front of layers.2 .Reshape to .4, 4, 5..",
        ),
        (
            lambda: nn.Sequential(nn.Reshape(4, 5, 4), nn.Flatten(), nn.Residual(nn.Dense(80))),
            "expected a Dense layer behind layers.1 .Flatten of .4, 5, 4.*got layers.2.branch in a residual block",
        ),
    ],
)
def test_what_no_order_of_the_weights_can_say_is_refused(net, message):
    net = net().build((80,))
    with pytest.raises(ValueError, match="model: " + message):
        interop.to_torch(net, (80,))
    interop.from_keras(net, interop.to_keras(net, (80,)), (80,))  # channels last there too: nothing to say


# ------------------------------------------------------------------------------------------------ whole models


LETTERS, WORDS = Vocabulary.of("abcde"), Vocabulary(["<end>", "a", "b", "<unknown>"], "<unknown>")
WHOLE = {
    "CharLM": lambda s: models.CharLM(units=6, embedding=4, layers=2, seed=s).build(LETTERS),
    "CharLM tied": lambda s: models.CharLM(units=4, embedding=4, cell="gru", tied=True, seed=s).build(LETTERS),
    "WordLM": lambda s: models.WordLM(units=6, embedding=4, cell="rnn", seed=s).build(WORDS),
    "GAN mlp": lambda s: models.GAN(latent=5, hidden=(7, 8), batch_norm=True, seed=s).build((6,)),
    "GAN dcgan": lambda s: models.GAN("dcgan", latent=5, width=4, average=0.9, seed=s).build((9, 8, 3)),
    "Captioner": lambda s: models.Captioner((3, 4), 5, 6, 7, bag=0.5, seed=s).build((8, 8, 3), WORDS),
    "Autoencoder": lambda s: models.Autoencoder((6,), code=3, noise="mask", seed=s).build((12,)),
    "Autoencoder conv": lambda s: models.Autoencoder((3, 4), 3, "conv", variational=True, seed=s).build((9, 8, 2)),
    "RNNClassifier": lambda s: models.RNNClassifier(units=4, bidirectional=True, seed=s).build((5, 3), 3),
    "RNNClassifier tokens": lambda s: models.RNNClassifier(units=4, vocabulary=9, embedding=3, seed=s).build((5,), 3),
}


def _random(model, rng):
    """The model with weights of which none is at its first value; running variances stay above 0."""
    return model.set_weights({k: rng.random(v.shape).astype(np.float32) + 0.1 for k, v in model.get_weights().items()})


@pytest.mark.parametrize("name", WHOLE)
def test_whole_models_go_out_and_come_in(name, rng):
    model = _random(WHOLE[name](1), rng)
    weights = model.get_weights()
    state = interop.to_torch(model)
    assert sum(a.size for a in state.values()) >= sum(a.size for a in weights.values())
    other = interop.from_torch(WHOLE[name](2), state).get_weights()
    for k, v in weights.items():
        np.testing.assert_array_equal(other[k], v)
    if "tied" in name:
        with pytest.raises(ValueError, match="model: expected a head with weights of its own"):
            interop.to_keras(model)
        with pytest.raises(ValueError, match="state: expected the same numbers for head.w and embedding.table"):
            interop.from_torch(WHOLE[name](2), state | {"head.weight": state["head.weight"] + 1})
        return
    other = interop.from_keras(WHOLE[name](2), interop.to_keras(model)).get_weights()
    for k, v in weights.items():
        np.testing.assert_array_equal(other[k], v)


def test_a_language_model_that_carries_states_keeps_them():
    model, other = WHOLE["CharLM"](1), WHOLE["CharLM"](2)
    other.module_.carry(3)
    interop.from_torch(other, interop.to_torch(model))
    assert other.module_.h.shape == (2, 3, 6)
    np.testing.assert_array_equal(other.module_.head.w.data, model.module_.head.w.data)


def test_weights_without_a_place_are_named():
    model = models.GAN(latent=3, hidden=(4,), spectral_norm=True).build((5,))
    with pytest.raises(ValueError, match="model: .*got also discriminator.layers.1.u, .*SpectralNorm"):
        interop.to_torch(model)
    tied = models.Autoencoder((4,), code=2, tied=True).build((5,))
    with pytest.raises(ValueError, match="model: expected layers among .*got decoder.layers.0 .TiedDense."):
        interop.to_keras(tied)


# ------------------------------------------------------------------------------------------------ what does not fit


def test_models_of_other_kinds_are_named():
    trees = parse_trees("(1 (1 good) (1 (0 a) (0 film))) (2 (2 bad) (2 (0 a) (0 film)))")
    for cell, kind in (("rntn", "RNTN"), ("treelstm", "TreeLSTM")):
        model = models.RNTN(width=3, cell=cell).fit(trees, epochs=1)
        with pytest.raises(ValueError, match=f"model: expected layers among .*; got compose .{kind}."):
            interop.to_torch(model)
    machine = models.DBM((3, 2)).build((4,))
    for call in (interop.to_torch, interop.to_keras, lambda m: interop.from_torch(m, {}), lambda m: interop.from_keras(m, [])):
        with pytest.raises(ValueError, match="model: expected layers among .*; got Machine; see register"):
            call(machine)
    with pytest.raises(ValueError, match="model: expected one that was built or fitted.*got DBM"):
        interop.to_torch(models.DBM((3, 2)))


@pytest.mark.parametrize("weights", [None, 3, "weights.h5", {"w": np.zeros(3)}], ids=repr)
def test_weights_must_be_a_list(weights):
    with pytest.raises(TypeError, match="weights: expected a list of arrays, as from get_weights.*; got"):
        interop.from_keras(MLP((3,)).build((4,), 2), weights)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (lambda: nn.Dense(3), "got Dense without weights"),
        (lambda: nn.Sequential(nn.ReLU(), nn.LSTM(3)), "got layers.1 .LSTM. without weights"),
        (lambda: nn.Sequential(nn.Dense(3, inputs=4)), "got w of layers.0 .Dense., .4, 3., all NaN"),
    ],
)
def test_a_module_must_be_built(net, message):
    for call in (interop.to_torch, interop.to_keras):
        with pytest.raises(ValueError, match="model: expected a Module that was built .Module.build.; " + message):
            call(net(), (4,))


@pytest.mark.parametrize(("shape", "kind"), [("ab", TypeError), ((4.5,), TypeError), (4.0, TypeError), ((0,), ValueError)])
def test_input_shapes_are_integers(shape, kind):
    net = nn.Dense(3).build((4,))
    with pytest.raises(kind, match="input_shape: expected .*sizes .*; got"):
        interop.to_torch(net, shape)
    for right in (4, [4], np.array([4]), np.int64(4)):
        assert interop.to_torch(net, right)["weight"].shape == (3, 4)


def test_a_network_that_begins_with_an_embedding():
    net = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Dense(2)).build((6,), dtype=np.int64)
    state = interop.to_torch(net, (6,))
    np.testing.assert_array_equal(state["2.weight"], net[2].w.data.T)  # no channels first: the table's rows stay as they are


@pytest.mark.filterwarnings("ignore:max_iter")
def test_estimators_count_as_the_models_in_them(rng):
    sk = pytest.importorskip("fastdl.sklearn", exc_type=ImportError)
    X, y = rng.random((20, 6)), np.arange(20) % 2
    fresh, one = sk.MLPClassifier((4,), max_iter=1), sk.MLPClassifier((4,), max_iter=1).fit(X, y)
    with pytest.raises(ValueError, match="model: expected one that was built or fitted.*got MLPClassifier"):
        interop.to_torch(fresh)
    state = interop.to_torch(one)
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    other = interop.from_torch(sk.MLPClassifier((4,), max_iter=1, random_state=3).fit(X, y), state)
    np.testing.assert_array_equal(other.predict_proba(X), one.predict_proba(X))
