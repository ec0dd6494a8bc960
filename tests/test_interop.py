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
