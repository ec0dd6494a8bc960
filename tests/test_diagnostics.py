"""The doctor is right on planted cases and silent on healthy networks; attributions keep their axioms."""

import math

import numpy as np
import pytest

from fastdl import init, nn, ops
from fastdl.data import parse_trees
from fastdl.diagnostics import (
    Watch,
    cap_depth,
    check_gradient,
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
from fastdl.models import CNN, MLP, RBM, RNTN, Autoencoder, RNNClassifier, SoftmaxRegression
from fastdl.tensor import Tensor, record
from test_models import blobs, stripes


def table(scale=1.0, inputs=20, n=128):
    rng = np.random.default_rng(3)
    y = rng.integers(0, 4, n)
    x = rng.standard_normal((n, inputs)) + 1.5 * np.random.default_rng(9).standard_normal((4, inputs))[y]
    return (scale * x / x.std()).astype(np.float32), y


def dense(depth, act, width=32, classes=4, **more):
    return nn.Sequential(*(nn.Dense(width, act, **more) for _ in range(depth)), nn.Dense(classes))


def built(net, x, seed=1):
    return net.build(x.shape[1:], seed=seed)


def blocks(count, last, width=32):
    return nn.Sequential(
        nn.Dense(width),
        *(nn.Residual(nn.Sequential(nn.Dense(width, "relu"), nn.Dense(width, init=last))) for _ in range(count)),
        nn.Dense(4),
    )


def with_nan():
    x, y = table()
    x[7, 3] = np.nan
    return built(dense(2, "relu"), x), x, y


def dead_units():
    x, y = table()
    net = built(dense(3, "relu"), x)
    net[1].b.data[...] = -50.0  # as one wild update leaves it
    return net, x, y


def forgotten_layer():
    class Net(nn.Module):
        def __init__(self):
            self.used, self.forgotten, self.out = nn.Dense(8, "relu"), nn.Dense(8, inputs=20), nn.Dense(4)

        def forward(self, x):
            self.forgotten(x)
            return self.out(self.used(x))

    x, y = table()
    return built(Net(), x), x, y


def of(make, scale=1.0, wrong=None):
    def case():
        x, y = table(scale)
        if wrong is not None:
            x[:, 2] *= wrong
        return built(make(), x), x, y

    return case


def overflowing():
    x, y = table()
    net = built(dense(2, "none"), x)
    net[1].w.data[...] = 3e38
    return net, x, y


PLANTED = {
    "sigmoids, twenty layers": (of(lambda: dense(20, "sigmoid")), "vanishing"),
    "tanh with weights too small": (of(lambda: dense(12, "tanh", init=lambda s, r: init.normal(s, r, std=0.02))), "vanishing"),
    "a thousand layers as they come": (of(lambda: dense(1000, "tanh", 16)), "vanishing"),
    "relu with weights too large": (
        of(lambda: dense(12, "relu", init=lambda s, r: init.normal(s, r, std=1.0))),
        "exploding",
    ),
    "residual branches that add up": (of(lambda: blocks(60, "he_normal")), "exploding"),
    "a wild update killed the units": (dead_units, "dead"),
    "tanh at its flat ends": (of(lambda: dense(3, "tanh", init=lambda s, r: init.normal(s, r, std=2.0))), "saturated"),
    "sigmoid at its flat ends": (of(lambda: dense(2, "sigmoid", init=lambda s, r: init.normal(s, r, std=4.0))), "saturated"),
    "inputs a thousand times too large": (of(lambda: dense(2, "relu"), 1000.0), "input scale"),
    "one column in other units": (of(lambda: dense(2, "relu"), wrong=20000.0), "input scale"),
    "equal first weights": (of(lambda: dense(2, "relu", init=0.1)), "symmetric"),
    "a layer without effect": (forgotten_layer, "disconnected"),
    "missing values": (with_nan, "input not finite"),
    "a product that overflows": (overflowing, "not finite"),
    "a last layer far too large": (
        of(lambda: nn.Sequential(nn.Dense(32, "relu"), nn.Dense(4, init=lambda s, r: init.normal(s, r, std=60.0)))),
        "output scale",
    ),
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_cases_are_found(name):
    make, verdict = PLANTED[name]
    net, x, y = make()
    with np.errstate(all="ignore"):
        report = examine(net, x, y)
    assert report.verdict == verdict, str(report)
    assert not report.healthy and report.remedy and report.findings[0].what
    assert f"verdict: {verdict}" in str(report) and report.remedy in str(report)


@pytest.mark.parametrize(
    ("optimizer", "lr", "verdict"),
    [
        ("sgd", 30.0, "learning rate too high"),
        ("adam", 1e-9, "learning rate too low"),
        ("adam", 1e-3, "healthy"),
        ("sgd", 0.1, "healthy"),
    ],
)
def test_learning_rates(optimizer, lr, verdict):
    watch = Watch(every=2)
    try:
        MLP((32,), seed=100).fit(
            *table(), epochs=10, lr=lr, batch_size=32, optimizer=optimizer, on_step=[watch]
        )
    except FloatingPointError:
        assert verdict == "learning rate too high"
    assert watch.report().verdict == verdict
    assert set(watch.ratios) == {"layers.0.w", "layers.1.w"}
    assert len(watch.steps) == len(watch.ratios["layers.0.w"]) > 5


def fixup(count):
    return blocks(count, "zeros")


HEALTHY = {
    "softmax regression": lambda: nn.Sequential(nn.Dense(4, init="zeros")),
    "relu": lambda: dense(2, "relu"),
    "relu, six layers": lambda: dense(6, "relu", 64),
    "gelu": lambda: dense(3, "gelu"),
    "leaky relu": lambda: dense(4, "leaky_relu"),
    "tanh": lambda: dense(3, "tanh"),
    "sigmoid, one layer": lambda: dense(1, "sigmoid"),
    "sigmoid, two layers": lambda: dense(2, "sigmoid"),
    "orthogonal tanh, 200 layers": lambda: dense(200, "tanh", init="orthogonal"),
    "residual from zero, 200 blocks": lambda: fixup(200),
    "batch normalisation": lambda: nn.Sequential(
        *(m for _ in range(8) for m in (nn.Dense(32, bias=False), nn.BatchNorm(), nn.ReLU())), nn.Dense(4)
    ),
    "layer normalisation": lambda: nn.Sequential(
        *(m for _ in range(8) for m in (nn.Dense(32), nn.LayerNorm(), nn.Tanh())), nn.Dense(4)
    ),
    "dropout": lambda: nn.Sequential(nn.Dense(64, "relu"), nn.Dropout(0.5), nn.Dense(4)),
    "last layer from zero": lambda: nn.Sequential(nn.Dense(32, "relu"), nn.Dense(32, "relu"), nn.Dense(4, init="zeros")),
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("seed", range(3))
def test_silent_on_healthy_networks(name, seed):
    x, y = table()
    net = built(HEALTHY[name](), x, seed)
    report = examine(net, x, y)
    assert report.healthy and report.verdict == "healthy" and report.remedy == "", str(report)


@pytest.mark.parametrize("trained", [False, True])
def test_silent_on_the_models(trained):
    for model, data in (
        (SoftmaxRegression(), blobs()),
        (MLP((32, 16), "tanh", 0.1, "batch", 0.1), blobs()),
        (MLP((128,)), blobs()),
        (CNN("small", width=8), stripes(96)),
        (CNN("lenet5"), stripes(96)),
    ):
        model.fit(*data, epochs=4 if trained else 1, lr=2e-3, batch_size=16)
        if not trained:
            model.build(model.input_shape_, model.classes_)
        report = examine(model, *data)
        assert report.healthy, f"{model}\n{report}"
        assert len(report.layers) >= 1 and math.isfinite(report.loss)


def test_an_examination_changes_nothing():
    X, y = blobs()
    a, b = (MLP((16,), dropout=0.3, norm="batch", seed=2).fit(X, y, epochs=1) for _ in range(2))
    examine(a, X, y)
    cap_depth(a)
    integrated_gradients(a, X[:3])
    for m in (a, b):
        m.fit(X, y, epochs=2, warm_start=True)
    for k, v in a.get_weights().items():
        np.testing.assert_array_equal(v, b.get_weights()[k])
    assert not a.module_.training


def test_figures_of_a_layer_are_what_they_say():
    x, y = table(n=40)
    net = built(nn.Sequential(nn.Dense(8, "tanh"), nn.Dense(4)), x)
    report = examine(net, x, y)
    h = np.tanh(x.astype(np.float64) @ net[0].w.data + net[0].b.data)
    z = h @ net[1].w.data
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    p[np.arange(40), y] -= 1
    first, last = report.layers
    assert first.output == pytest.approx(np.sqrt((h**2).mean()), rel=1e-5)
    assert first.variety == pytest.approx(np.sqrt(((h - h.mean(0)) ** 2).mean()) / np.sqrt((h**2).mean()), rel=1e-5)
    assert last.gradient == pytest.approx(np.linalg.norm(p / 40), rel=1e-4)
    assert first.gradient == pytest.approx(np.linalg.norm(p / 40 @ net[1].w.data.T), rel=1e-4)
    want = math.hypot(np.linalg.norm(h.T @ p / 40), np.linalg.norm(p.sum(0) / 40))
    assert last.weight_gradient == pytest.approx(want, rel=1e-4)
    assert first.saturated == pytest.approx((abs(h) > 0.95).mean(), abs=0.01)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x, y: examine(MLP(), x, y), ValueError, "model: expected one that was built or fitted.*; got MLP"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x, y[:3]), ValueError, "y: expected 128 targets.*; got 3"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x[:0], y[:0]), ValueError, "X: expected one sample or more"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x, y, "nll"), ValueError, "loss: expected one of .*; got 'nll'"),
        (lambda x, y: Watch(every=0), ValueError, "every: expected a number of updates of at least 1; got 0"),
        (lambda x, y: cap_depth(dense(1, "relu")), ValueError, "input_shape: expected the shape of one sample"),
        (lambda x, y: cap_depth(dense(1, "relu"), (3,), steps=0), ValueError, "steps: expected at least 1; got 0"),
        (lambda x, y: occlusion(built(dense(1, "relu"), x), x), ValueError, r"images: expected shape \[N,Y,X,C\]"),
        (lambda x, y: most_exciting(built(dense(1, "relu"), x), x, "layers.9", 0), ValueError, "layer: expected one of lay"),
        (lambda x, y: most_exciting(built(dense(1, "relu"), x), x, "layers.0", 99), ValueError, "unit: expected 0 to 31"),
        (lambda x, y: gradient_times_input(built(dense(1, "relu"), x), x, 7), ValueError, "target: expected a column"),
        (lambda x, y: integrated_gradients(built(dense(1, "relu"), x), x, steps=0), ValueError, "steps: expected at least 1"),
    ],
)
def test_errors_name_the_argument(call, kind, message):
    with pytest.raises(kind, match=message):
        call(*table())


# ------------------------------------------------------------------------------------------------ gradient check


def test_gradient_check():
    x, w = (np.random.default_rng(s).uniform(0.5, 1.5, (3, 4)).astype(np.float32) for s in (0, 1))
    assert check_gradient(lambda a, b: ops.multiply(ops.tanh(a), b), x, w)

    def wrong(a):  # forgets the factor 2
        return record(a.data**2, (a,), lambda dy: a.slot()[0].__setitem__(..., a.data * dy))

    def right(a):
        return record(a.data**2, (a,), lambda dy: a.slot()[0].__setitem__(..., 2 * a.data * dy))

    bad, good = check_gradient(wrong, x), check_gradient(right, x)
    assert good and good.errors[0] < 1e-2
    assert not bad and bad.errors[0] == pytest.approx(0.5, abs=0.02)
    assert "DISAGREES" in str(bad) and "agrees" in str(good)
    # Only the input that is wrong is blamed.
    half = check_gradient(lambda a, b: ops.add(right(a), wrong(b)), x, w)
    assert half.errors[0] < 1e-2 < half.errors[1]
    with pytest.raises(TypeError, match="f: expected a function that returns a Tensor; got ndarray"):
        check_gradient(lambda a: a.data, x)
    with pytest.raises(ValueError, match="f: expected a result that depends on its inputs"):
        check_gradient(lambda a: Tensor(a.data), x)


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


# ------------------------------------------------------------------------------------------------ attribution


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


# ------------------------------------------------------------------------------------------------ models of all families


def waves(n=24, steps=1500):
    x = np.random.default_rng(4).standard_normal((n, steps, 1)).astype(np.float32)
    return x, np.arange(n) % 2


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_recurrent_models_are_examined_without_their_lengths(cell):
    x, y = waves()
    report = examine(RNNClassifier(units=4, cell=cell).build((1500, 1), 2), x, y)
    assert report.layers and all(f.kind != "input scale" for f in report.findings)
    x, y = waves(steps=12)
    assert examine(RNNClassifier(units=4, cell=cell).build((12, 1), 2), list(x), y).healthy


def test_autoencoders_are_examined_by_their_own_loss():
    x = np.random.default_rng(4).random((32, 9))
    report = examine(Autoencoder((8,), code=3).build((9,)), x, None)
    assert report.healthy and 0 < report.loss < 9


def test_what_has_no_loss_over_samples_says_so():
    trees = parse_trees("(0 (1 a) (0 b))")
    machine, net = RBM(3).build((5,)), RNTN(4).fit(trees, epochs=1)
    for model in (machine, net):
        with pytest.raises(TypeError, match="model: expected a classifier, a regressor"):
            examine(model, np.zeros((2, 5)), [0, 1])
    with pytest.raises(ValueError, match="model: expected a network trained by backpropagation; got RBM"):
        cap_depth(machine)
    with pytest.raises(TypeError, match="as deep as the trees it reads"):
        cap_depth(net)


def test_attributions_of_sequences_are_those_of_their_steps():
    x, y = waves(steps=12)
    model = RNNClassifier(units=4).fit(x, y, epochs=1)
    shares = gradient_times_input(model, x, 1)
    assert shares.shape == x.shape and np.abs(shares).max() > 0
    total = integrated_gradients(model, x, 1, steps=100).sum((1, 2))
    rise = model.decision_function(x)[:, 1] - model.decision_function(np.zeros_like(x))[:, 1]
    assert np.allclose(total, rise, atol=1e-2)
    with pytest.raises(ValueError, match="X: expected sequences of one length"):
        gradient_times_input(model, [x[0], x[1, :5]])


def test_an_operation_is_checked_along_one_direction_at_least():
    with pytest.raises(ValueError, match="directions: expected at least 1; got 0"):
        check_gradient(ops.tanh, np.ones((2, 2), np.float32), directions=0)
