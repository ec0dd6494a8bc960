"""How deep a network is, and what its outputs come from."""

import math

import numpy as np
import pytest

from fastdl import init, nn, ops
from fastdl.diagnostics import (
    Watch,
    cap_depth,
    examine,
    excite,
    grad_cam,
    gradient_times_input,
    integrated_gradients,
    is_deep,
    most_exciting,
    occlusion,
    receptive_fields,
)
from fastdl.models import (
    CNN,
    DBM,
    MLP,
    RBM,
    Autoencoder,
    Captioner,
    ClassificationRBM,
    ConvolutionalRBM,
    SoftmaxRegression,
)
from fastdl.tensor import Tensor
from test_diagnostics import PICTURES, dense, fixup
from test_models import blobs

# ------------------------------------------------------------------------------------------------ depth


def test_depth_is_that_of_the_longest_path():
    assert cap_depth(dense(4, "relu").build((5,)), (5,)) == 5
    assert cap_depth(MLP((8, 8), norm="batch").build((5,), 3)) == 3  # normalisation and bias are no layers
    assert cap_depth(CNN("lenet5").build((28, 28, 1), 10)) == 5
    assert cap_depth(fixup(10).build((5,)), (5,)) == 22
    assert cap_depth(SoftmaxRegression().build((5,), 3)) == 1
    assert cap_depth(dense(3, "relu").build((5,)).freeze(), (5,)) == 4
    assert cap_depth(nn.Sequential(nn.Flatten()), (5, 2)) == 0
    assert not is_deep(MLP((8,)).build((5,), 3)) and is_deep(MLP((8, 8)).build((5,), 3))


def test_recurrent_depth_has_no_bound():
    class Elman(nn.Module):
        recurrent = True

        def __init__(self):
            self.w = nn.Parameter((3, 3), init.glorot_uniform)

        def forward(self, x):
            return ops.dense(x, self.w)

    net = nn.Sequential(Elman(), nn.Flatten(), nn.Dense(2)).build((7, 3))
    assert cap_depth(net, (7, 3)) == math.inf and is_deep(net, (7, 3))
    assert cap_depth(net, (7, 3), steps=7) == 8


def test_a_recurrent_part_that_the_input_does_not_reach_counts():
    captioner = Captioner(filters=(4,), features=6, units=5, embedding=3).fit(PICTURES, ["a b", "c"] * 2, epochs=1)
    assert cap_depth(captioner) == math.inf and is_deep(captioner)
    assert cap_depth(captioner, steps=7) == 3 + 1 + 7 + 1  # convolutions and features, first state, words, choice of one
    assert cap_depth(captioner.module_.look, (12, 12, 1)) == 3


@pytest.mark.parametrize("machine", [
    lambda: RBM(3).build((5,)),
    lambda: DBM((4, 3)).build((5,)),
    lambda: ClassificationRBM(4).build((5,), 2),
    lambda: ConvolutionalRBM(2, 3).build((12, 12, 1)),
])  # fmt: skip
def test_undirected_models_have_no_depth(machine):
    machine = machine()
    for ask in (cap_depth, is_deep):
        with pytest.raises(ValueError, match=f"trained by backpropagation; got {type(machine).__name__}, an undirected model"):
            ask(machine)
        with pytest.raises(ValueError, match="an undirected model"):
            ask(machine.module_, machine.input_shape_)


# ------------------------------------------------------------------------------------------------ attribution


@pytest.mark.parametrize("explain", [gradient_times_input, integrated_gradients, grad_cam, occlusion])
def test_what_gives_no_scores_is_not_explained(explain):
    for machine, x in (
        (RBM(3).build((5,)), np.ones((2, 5))),
        (DBM((4, 3)).build((5,)), np.ones((2, 5))),
        (ConvolutionalRBM(2, 3).build((12, 12, 1)), PICTURES),
    ):
        with pytest.raises(ValueError, match=f"model: expected a network that gives scores.*; got {type(machine).__name__}"):
            explain(machine, x)
    images = Autoencoder((4, 4), code=3, kind="conv").build((12, 12, 1))
    with pytest.raises(ValueError, match=r"model: expected outputs \[N,classes\]; got shape .4, 12, 12, 1. from Autoencoder"):
        explain(images, PICTURES)

    class Untaped(nn.Module):
        def forward(self, x):
            return Tensor(x.data.reshape(len(x.data), -1).copy())

    if explain is not occlusion:
        with pytest.raises(ValueError, match="model: expected outputs with a gradient|layer: expected a network with a conv"):
            explain(Untaped(), PICTURES)


@pytest.fixture(scope="module")
def corner():
    """A network that tells in which corner a bright square is, and pictures of it."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 240)
    x = 0.1 * rng.random((240, 12, 12, 1))
    at = rng.integers(0, 3, (240, 2))
    for i, (a, b) in enumerate(at):
        top, left = a + 6 * (y[i] // 2), b + 6 * (y[i] % 2)
        x[i, top : top + 4, left : left + 4] += 0.9
    x = x.astype(np.float32)
    model = CNN(
        lambda classes: nn.Sequential(
            nn.Conv2d(8, 3, "relu", padding="same"), nn.MaxPool2d(2), nn.Conv2d(8, 3, "relu", padding="same"),
            nn.Flatten(), nn.Dense(classes),
        ),
        seed=100,
    )  # fmt: skip
    model.fit(x, np.array(["ul", "ur", "ll", "lr"])[y], epochs=8, lr=5e-3, batch_size=32)
    assert model.score(x, np.array(["ul", "ur", "ll", "lr"])[y]) > 0.97
    return model, x, y


def test_attributions_are_complete(corner):
    model, x, _ = corner
    shares = integrated_gradients(model, x[:5], "ul", steps=128)
    column = model.classes_.tolist().index("ul")
    rise = (model.decision_function(x[:5]) - model.decision_function(np.zeros_like(x[:1])))[:, column]
    np.testing.assert_allclose(shares.sum((1, 2, 3)), rise, rtol=0.03, atol=0.03)
    linear = SoftmaxRegression().fit(*blobs(), epochs=3)
    X = blobs()[0][:4]
    w = linear.get_weights()["layers.0.w"]
    want = X.astype(np.float32) * w[:, linear.predict(X)].T
    np.testing.assert_allclose(gradient_times_input(linear, X), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(integrated_gradients(linear, X, steps=3), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", [gradient_times_input, integrated_gradients, occlusion])
def test_attributions_point_at_the_square(method, corner):
    model, x, y = corner
    right = 0
    for i in range(24):
        shares = np.asarray(method(model, x[i : i + 1]))[0]
        shares = shares.sum(-1) if shares.ndim == 3 else shares
        p, q = np.unravel_index(np.argmax(shares), shares.shape)
        middle = (shares.shape[0] - 1) / 2, (shares.shape[1] - 1) / 2
        right += (p > middle[0]) * 2 + (q > middle[1]) == y[i]
    assert right >= 20
    assert np.isfinite(shares).all()


def test_grad_cam_points_at_the_stripes():
    """Which way the stripes of a small square run decides; the network averages over all places."""
    rng = np.random.default_rng(1)
    y, at = rng.integers(0, 2, 300), rng.integers(0, 10, (300, 2))
    x = (0.2 * rng.random((300, 16, 16, 1))).astype(np.float32)
    wave = np.where(np.arange(6) % 2, 1.0, 0.0)
    for i, (a, b) in enumerate(at):
        x[i, a : a + 6, b : b + 6, 0] += wave[:, None] if y[i] else wave[None, :]
    model = CNN(
        lambda classes: nn.Sequential(
            nn.Conv2d(8, 3, "relu", padding="same"), nn.Conv2d(8, 3, "relu", padding="same"), nn.GlobalAvgPool2d(),
            nn.Dense(classes),
        ),
        seed=100,
    ).fit(x, y, epochs=12, lr=1e-2, batch_size=32)  # fmt: skip
    assert model.score(x, y) > 0.97
    inside = 0.0
    for i, cam in enumerate(grad_cam(model, x[:50])):
        a, b = at[i]
        assert cam.shape == (16, 16) and cam.max() == 1.0
        inside += cam[max(a - 1, 0) : a + 7, max(b - 1, 0) : b + 7].sum() / cam.sum() / 50
    assert inside > 0.7  # the square and what the maps see of it from beside it are a quarter of the image
    # With one layer of weights behind the maps, the maps' mean and the slopes' mean say it all.
    w, maps = model.get_weights()["layers.3.w"], None
    from fastdl.diagnostics.attribution import _outputs_of

    maps = _outputs_of(model, "layers.0", x[:2])
    assert grad_cam(model, x[:2], layer="layers.0").shape == (2, 16, 16) and maps.shape == (2, 16, 16, 8)
    last = _outputs_of(model, "layers.1", x[:2])
    want = np.maximum((last * w[:, model.predict(x[:2])].T[:, None, None] / 256).sum(-1), 0)
    np.testing.assert_allclose(
        grad_cam(model, x[:2]), want / want.max((1, 2), keepdims=True), rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match=r"layer: expected outputs .N,P,Q,F.; got .2, 2. from layers.3"):
        grad_cam(model, x[:2], layer="layers.3")


def test_what_excites_a_unit(corner):
    model, x, _ = corner
    index, value, place = most_exciting(model, x, "layers.2", 3, count=5)
    from fastdl.diagnostics.attribution import _outputs_of

    outputs = _outputs_of(model, "layers.2", x)
    assert value[0] == outputs[..., 3].max() and list(value) == sorted(value, reverse=True)
    assert outputs[index[0], place[0][0], place[0][1], 3] == value[0]
    column = model.classes_.tolist().index("lr")
    dream = excite(model, "layers.4", column, steps=40)
    assert dream.shape == (12, 12, 1)
    assert model.predict(dream[None]).tolist() == ["lr"]
    assert model.decision_function(dream[None])[0, column] > model.decision_function(x)[:, column].max()


def test_receptive_fields(corner):
    model, x, _ = corner
    fields = {name: rest for name, *rest in receptive_fields(model)}
    assert fields["layers.0"] == [(3, 3), (1, 1), (-1, -1)]
    assert fields["layers.1"] == [(4, 4), (2, 2), (-1, -1)]
    assert fields["layers.2"] == [(8, 8), (2, 2), (-3, -3)]
    # What lies outside the field has no effect.
    a = x[:1].copy()
    b = a.copy()
    b[0, 6:] = 0.5
    from fastdl.diagnostics.attribution import _outputs_of

    ya, yb = (_outputs_of(model, "layers.2", v)[0, 0] for v in (a, b))
    np.testing.assert_array_equal(ya, yb)  # rows -3 to 4
    assert not np.array_equal(_outputs_of(model, "layers.2", a)[0, 1], _outputs_of(model, "layers.2", b)[0, 1])


def test_receptive_fields_of_both_paths_of_a_block():
    """Against what happens to the outputs where a row or a column of pixels changes; all weights are positive."""
    from fastdl.diagnostics.attribution import _outputs_of

    branch = nn.Sequential(nn.Conv2d(2, 3, stride=2, padding=1), nn.Conv2d(2, (5, 3), padding=(2, 1)))
    net = nn.Sequential(
        nn.Conv2d(2, 3, padding=1), nn.Residual(branch, nn.Conv2d(2, 1, stride=2), "relu"),
        nn.Residual(nn.Conv2d(2, 3, padding=1)), nn.MaxPool2d(2), nn.Conv2d(1, 2), nn.ConvTranspose2d(1, 2, stride=2),
        nn.Conv2d(1, 2),
    ).build((24, 24, 1), seed=0)  # fmt: skip
    for p in net.parameters():
        p.data[...] = np.abs(p.data) + 0.1
    fields = receptive_fields(net, (24, 24, 1))
    assert [name for name, *_ in fields] == [
        "layers.0", "layers.1.projection", "layers.1.branch.layers.0", "layers.1.branch.layers.1", "layers.2.branch", "layers.3",
        "layers.4",
    ]  # fmt: skip
    x = np.ones((25, 24, 24, 1), np.float32)
    for axis in (0, 1):
        changed = x.copy()
        for i in range(24):
            changed[(i + 1, i) if axis == 0 else (i + 1, slice(None), i)] = 9.0
        for name, size, jump, start in fields:
            y = _outputs_of(net, name, changed)[..., 0].max(2 - axis)  # rows (columns) of outputs, for each row changed
            for p in range(y.shape[1]):
                seen = np.flatnonzero(y[1:, p] != y[0, p])
                first = start[axis] + p * jump[axis]
                assert seen.tolist() == [i for i in range(24) if first <= i < first + size[axis]], (name, axis, p)
    flat = nn.Sequential(nn.Conv2d(2, 3), nn.Reshape(3, 12, 2), nn.Conv2d(2, 2)).build((8, 8, 1))
    assert [name for name, *_ in receptive_fields(flat, (8, 8, 1))] == ["layers.0"]


def test_charts(corner):
    pytest.importorskip("matplotlib")
    import matplotlib

    matplotlib.use("agg")
    from fastdl import plot

    model, x, y = corner
    ax = examine(model, x[:32], model.classes_[np.zeros(32, int)]).plot()
    assert ax.get_title().startswith("verdict") and ax.get_yscale() == "log" and len(ax.get_lines()) == 3
    watch = Watch(every=1)
    MLP((4,)).fit(*blobs(), epochs=1, on_step=[watch])
    assert len(watch.plot().get_lines()) == 2
    assert len(plot.attribution(x[0], grad_cam(model, x[:1])[0]).images) == 2
    assert len(plot.hierarchy(model, x[:50], units=3, patches=3)) == 2
    with pytest.raises(ValueError, match="layers: expected names among layers.0"):
        plot.hierarchy(model, x[:50], layers=["layers.9"])
    with pytest.raises(ValueError, match="watch: expected one measurement or more"):
        Watch().plot()
