"""Weights of PyTorch and Keras: the same network gives the same outputs, and what goes out comes in again."""

from pathlib import Path

import numpy as np
import pytest

from fastdl import interop, nn
from fastdl.models import CNN, MLP
from fastdl.tensor import Tensor, inference

GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "interop.npz"))


def stored(name):
    """(arrays by name, input, output) of a network in the file."""
    arrays = {k.removeprefix(f"{name}/"): v for k, v in GOLDEN.items() if k.startswith(f"{name}/")}
    x = GOLDEN["rows"] if name.endswith("mlp") else GOLDEN["images"]
    return arrays, np.ascontiguousarray(x[..., 0]) if name == "keras-text" else x, arrays.pop("out")


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


NETWORKS = {
    "torch-cnn": lambda: CNN("small", width=2).build((12, 10, 3), 4),
    "torch-odd": odd,
    "torch-mlp": lambda: MLP((6, 5), "tanh").build((7,), 3),
    "keras-cnn": keras_cnn,
    "keras-mlp": lambda: MLP((6, 5), "tanh").build((7,), 3),
    "keras-text": lambda: nn.Sequential(nn.Conv1d(4, 3, "relu"), nn.LayerNorm(), nn.Flatten(), nn.Dense(2)),
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
            np.testing.assert_array_equal(a, b)


def test_the_golden_file_is_small():
    assert (Path(__file__).parent / "golden" / "interop.npz").stat().st_size < 200_000


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


def test_peepholes_have_no_place_elsewhere():
    net = nn.LSTM(3, peephole=True).build((4, 2))
    with pytest.raises(ValueError, match="without peepholes"):
        interop.to_torch(net, (4, 2))
    net = nn.LSTM(3, layer_norm=True).build((4, 2))
    with pytest.raises(ValueError, match="without layer normalisation"):
        interop.to_torch(net, (4, 2))
