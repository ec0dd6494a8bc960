"""The doctor is right on planted cases and silent on healthy networks."""

import math

import numpy as np
import pytest

from fastdl import init, nn, ops
from fastdl.data import Vocabulary, parse_trees
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
from fastdl.models import (
    CNN,
    MLP,
    RBM,
    RNTN,
    Autoencoder,
    Captioner,
    RNNClassifier,
    SoftmaxRegression,
)
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


def growing(first):
    """Forty linear layers, each of which makes numbers ten times as large, behind one that makes them so small."""
    x, y = table()
    net = built(dense(40, "none", init=lambda s, r: init.normal(s, r, std=2.0)), x)
    net[0].w.data[...] *= np.float32(first)
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
    "outputs that grow beyond all numbers": (lambda: growing(1.0), "exploding"),
    "a gradient that grows beyond all numbers": (lambda: growing(1e-30), "exploding"),
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


# Where numbers stop being finite: behind that on the way to the loss, before it on the way back, all are NaN or infinite.
OVERFLOWS = {
    "a product that overflows": "not finite at layers.1: its outputs hold",
    "outputs that grow beyond all numbers": "the outputs grow from layer to layer until they are no longer finite",
    "a gradient that grows beyond all numbers": "the gradient grows until it is no longer finite",
}


@pytest.mark.parametrize("name", PLANTED)
def test_planted_cases_are_found(name):
    make, verdict = PLANTED[name]
    net, x, y = make()
    with np.errstate(all="ignore"):
        report = examine(net, x, y)
    assert report.verdict == verdict, str(report)
    if name in OVERFLOWS:
        assert OVERFLOWS[name] in str(report.findings[0])
    assert not report.healthy and report.remedy and report.findings[0].what
    assert f"verdict: {verdict}" in str(report) and report.remedy in str(report)


@pytest.mark.parametrize("n", [1, 2, 15])
def test_few_samples_cannot_tell_dead_units_from_idle_ones(n):
    x, y = table()
    for net in (dead_units()[0], built(dense(12, "relu"), x)):  # of either, more than half may be 0
        report = examine(net, x[:n], y[:n])
        assert report.healthy, str(report)
        assert all(math.isnan(r.dead) for r in report.layers[:-1]) and "nan" not in str(report)
    report = examine(dead_units()[0], x[:n], y[:n])
    said = {1: "1 sample is", 2: "2 samples are", 15: "15 samples are"}[n]
    remark = f"1: 100% of its units are 0; {said} too few to tell dead units from idle ones, 16 or more do."
    assert report.remarks == [f"layers.{remark}"] and f"remark: layers.{remark}" in str(report)
    watch = Watch(every=2, sample=x[:n])
    MLP((16,), seed=1).fit(x, y, epochs=2, on_step=[watch])
    assert np.isnan(watch.dead["layers.0"]).all() and len(watch.dead["layers.0"]) == 2
    assert watch.report().remarks == [f"sample: {said} too few to tell dead units from idle ones, 16 or more do."]
    again = Watch()
    again.set_state(watch.get_state())
    assert again.report().remarks == watch.report().remarks
    assert examine(dead_units()[0], x[:16], y[:16]).verdict == "dead"


def test_one_sample_is_not_unlike_others():
    x, y = table()
    report = examine(built(dense(20, "sigmoid"), x), x[:1], y[:1])
    assert report.verdict == "vanishing" and "alike" not in str(report)
    assert all(math.isnan(r.variety) for r in report.layers)
    net = built(nn.Sequential(nn.Dense(8), nn.BatchNorm(), nn.ReLU(), nn.Dense(4)), x)
    with pytest.raises(ValueError, match="X: expected two samples or more, for batch normalisation, .*; got 1"):
        examine(net, x[:1], y[:1])
    images = np.random.default_rng(0).random((1, 8, 8, 1))
    assert examine(CNN(width=4).build((8, 8, 1), 4), images, y[:1]).layers  # whose pixels are many


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


def test_a_watch_looks_at_units_once_an_epoch():
    X, y = table()
    watch, plain = Watch(every=2, sample=(X[:50], y[:50])), Watch(every=2)
    net, same = (
        MLP((16,), dropout=0.3, norm="batch", seed=1).fit(X, y, epochs=4, batch_size=32, on_step=[w]) for w in (watch, plain)
    )
    for k, v in net.get_weights().items():  # looking changes nothing
        np.testing.assert_array_equal(v, same.get_weights()[k])
    assert watch.epochs == [1, 2, 3, 4] and watch.report().healthy
    assert watch.dead and not watch.saturated and all(len(v) == 4 for v in watch.dead.values())
    assert not plain.epochs and not plain.dead
    net.fit(X, y, epochs=1, warm_start=True, on_step=[watch])
    assert watch.epochs == [1, 2, 3, 4, 1]
    again = Watch()
    again.set_state(watch.get_state())
    assert again.dead == watch.dead and again.epochs == watch.epochs
    again.set_state(plain.get_state())
    assert again.dead == {}

    net = MLP((16, 16), seed=1).fit(X, y, epochs=1)
    layer = next(m for _, m in net.module_.named_modules() if isinstance(m, nn.Dense))
    layer.b.data[:12] = -50.0
    watch = Watch(every=2, sample=X)
    net.fit(X, y, epochs=2, warm_start=True, on_step=[watch])
    assert watch.dead["layers.0"][-1] == 0.75 and watch.report().verdict == "dead"

    net = MLP((16,), "tanh", seed=1).fit(X, y, epochs=1)
    next(m for _, m in net.module_.named_modules() if isinstance(m, nn.Dense)).w.data[...] *= 20.0
    watch = Watch(every=2, sample=X)
    net.fit(X, y, epochs=2, warm_start=True, on_step=[watch])
    assert watch.saturated["layers.0"][-1] > 0.5 and watch.report().verdict == "saturated", watch.saturated


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


PICTURES = np.random.default_rng(5).random((4, 12, 12, 1)).astype(np.float32)


class Unused(nn.Module):
    def __init__(self):
        self.net, self.aside = nn.Sequential(nn.Conv2d(3, 3), nn.Flatten(), nn.Dense(2)), nn.Dense(2, inputs=1)

    def forward(self, x):
        return self.net(x)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x, y: examine(MLP(), x, y), ValueError, "model: expected one that was built or fitted.*; got MLP"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x, y[:3]), ValueError, "y: expected 128 targets.*; got 3"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x[:0], y[:0]), ValueError, "X: expected one sample or more"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x, y, "nll"), ValueError, "loss: expected one of .*; got 'nll'"),
        (lambda x, y: examine(built(dense(1, "relu"), x), None, y), TypeError, "X: expected an array .*; got None"),
        (lambda x, y: examine(built(dense(1, "relu"), x), [[1], [1, 2]], y), ValueError, "X: expected samples of one shape"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x, None), TypeError, "y: expected an array .*; got None"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x, ["a"] * 128), TypeError, "y: expected labels .*numbers; got <U1"),
        (lambda x, y: cap_depth(built(dense(1, "relu"), x), "ab"), ValueError, "input_shape: expected the sizes .*; got 'ab'"),
        (
            lambda x, y: excite(built(dense(1, "relu"), x), "layers.0", 0, input_shape="ab"),
            ValueError,
            "input_shape: expected the sizes of one sample, whole numbers; got 'ab'",
        ),
        (lambda x, y: examine(built(dense(1, "relu"), x), 3.0, y), ValueError, "X: expected an array with samples first"),
        (lambda x, y: examine(built(dense(1, "relu"), x), x, 3), ValueError, "y: expected 128 targets.*got a single number"),
        (
            lambda x, y: gradient_times_input(built(dense(1, "relu"), x), x, [[1], [1, 2]]),
            ValueError,
            "target: expected an array, or lists of equal lengths",
        ),
        (
            lambda x, y: integrated_gradients(built(dense(1, "relu"), x), x, baseline=[[1], [1, 2]]),
            ValueError,
            "baseline: expected an array, or lists of equal lengths",
        ),
        (lambda x, y: most_exciting(built(dense(1, "relu"), x), x, ["layers.0"], 0), ValueError, r"layer: .* got \['layers.0'\]"),
        (lambda x, y: most_exciting(built(dense(1, "relu"), x), x, "layers.0", np.zeros(2, int)), ValueError, "unit: expected 0"),
        (lambda x, y: receptive_fields(built(dense(1, "relu"), x), 3.5), ValueError, "input_shape: .* got 3.5"),
        (lambda x, y: Watch(every=np.ones(2, int)), ValueError, "every: expected a number of updates of at least 1"),
        (lambda x, y: Watch(every=0), ValueError, "every: expected a number of updates of at least 1; got 0"),
        (lambda x, y: cap_depth(dense(1, "relu")), ValueError, "input_shape: expected the shape of one sample"),
        (lambda x, y: cap_depth(dense(1, "relu"), (3,), steps=0), ValueError, "steps: expected at least 1; got 0"),
        (lambda x, y: occlusion(built(dense(1, "relu"), x), x), ValueError, r"images: expected shape \[N,Y,X,C\]"),
        (lambda x, y: most_exciting(built(dense(1, "relu"), x), x, "layers.9", 0), ValueError, "layer: expected one of lay"),
        (lambda x, y: most_exciting(built(dense(1, "relu"), x), x, "layers.0", 99), ValueError, "unit: expected 0 to 31"),
        (lambda x, y: gradient_times_input(built(dense(1, "relu"), x), x, 7), ValueError, "target: expected a column"),
        (lambda x, y: integrated_gradients(built(dense(1, "relu"), x), x, steps=0), ValueError, "steps: expected at least 1"),
        (lambda x, y: cap_depth(dense(1, "relu"), (3,), steps="3"), TypeError, "steps: expected an integer; got str"),
        (lambda x, y: cap_depth(dense(1, "relu"), (3,), steps=2.5), TypeError, "steps: expected an integer; got float"),
        (lambda x, y: is_deep(dense(1, "relu"), (3,), more_than="2"), TypeError, "more_than: expected a finite number; got '2'"),
        (
            lambda x, y: occlusion(built(nn.Sequential(nn.Flatten(), nn.Dense(2)), PICTURES), PICTURES, fill="a"),
            TypeError,
            "fill: expected a finite number; got 'a'",
        ),
        (
            lambda x, y: integrated_gradients(built(dense(1, "relu"), x), x, baseline="black"),
            TypeError,
            "baseline: expected a number or an array of numbers; got 'black'",
        ),
        (lambda x, y: excite(built(dense(1, "relu"), x), "layers.1", 0, lr="a", input_shape=(20,)), TypeError, "lr: expected"),
        (
            lambda x, y: excite(built(dense(1, "relu"), x), "layers.1", 0, lr=-1.0, input_shape=(20,)),
            ValueError,
            "lr: expected a finite number of more than 0; got -1.0",
        ),
        (
            lambda x, y: excite(built(dense(1, "relu"), x), "layers.1", 0, steps=-1, input_shape=(20,)),
            ValueError,
            "steps: expected at least 1; got -1",
        ),
        (
            lambda x, y: excite(built(dense(1, "relu"), x), "layers.1", 0, decay=2, input_shape=(20,)),
            ValueError,
            "decay: expected 0 <= decay < 1; got 2",
        ),
        (
            lambda x, y: most_exciting(built(dense(1, "relu"), x), x, "layers.0", 0, count="9"),
            TypeError,
            "count: expected an integer; got str",
        ),
        (
            lambda x, y: grad_cam(Unused().build((12, 12, 1)), PICTURES, layer="aside"),
            ValueError,
            "layer: expected a layer that the network calls; got 'aside'",
        ),
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


def through_time(cell, steps, scale=1.0, seed=0, units=16, ragged=False, act=None, **more):
    """A report on a fresh recurrent classifier of noise, by its last output."""
    x, y = np.random.default_rng(seed).standard_normal((32, steps, 1)).astype(np.float32), np.arange(32) % 2
    model = RNNClassifier(units, cell=cell, seed=seed, **more).build((steps, 1), 2)
    layer = model.module_.recurrent
    if act is not None:
        layer.act = act
    for u in layer.u:
        u.data[...] *= scale
    lengths = np.random.default_rng(1).integers(steps // 2, steps + 1, 32)
    return model, (lambda: examine(model, [a[:n] for a, n in zip(x, lengths, strict=True)] if ragged else x, y))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("more", [{}, {"ragged": True}, {"bidirectional": True}, {"layers": 2}])
def test_a_plain_recurrent_net_forgets(more, seed):
    _, look = through_time("rnn", 400 if "bidirectional" in more else 200, seed=seed, **more)
    report = look()
    assert report.verdict == "vanishing over time", str(report)
    assert report.findings[0].where == "recurrent" and "LSTM" in report.remedy
    reach = int(report.findings[0].what.split("to a hundredth in ")[1].split()[0])
    assert 10 <= reach <= 40  # each step passes on 0.63 to 0.89


@pytest.mark.parametrize(
    ("steps", "scale", "act"), [(200, 3.0, None), (100, 3.0, None), (100, 2.5, "relu"), (2000, 3.0, "relu"), (3000, 3.0, None)]
)
def test_large_recurrent_weights_explode(steps, scale, act):
    _, look = through_time("rnn", steps, scale, act=act)
    with np.errstate(all="ignore"):
        report = look()
    assert report.verdict == "exploding over time", str(report)
    assert "clip" in report.remedy.lower()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("cell", "steps"), [("lstm", 20), ("lstm", 50), ("gru", 20), ("gru", 50), ("rnn", 20), ("lstm", 200)])
@pytest.mark.parametrize("units", [4, 32])
def test_silent_on_healthy_recurrent_nets(cell, steps, units, seed):
    _, look = through_time(cell, steps, units=units, seed=seed)
    report = look()
    assert report.healthy, str(report)


def test_fading_that_gates_can_mend_is_a_remark():
    _, look = through_time("gru", 200)
    report = look()
    assert report.healthy and len(report.remarks) == 1, str(report)
    assert "over 200 steps" in report.remarks[0] and "gates can learn" in report.remarks[0]
    assert f"remark: {report.remarks[0]}" in str(report)
    assert not through_time("lstm", 20)[1]().remarks
    model, look = through_time("lstm", 200)
    for b in model.module_.recurrent.b:
        b.data[16:32] = -5.0  # the forget gates are shut
    assert look().verdict == "vanishing over time"


@pytest.mark.parametrize("cell", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("units", [8, 32])
def test_with_a_loss_at_every_step_each_has_its_share(cell, units):
    net = nn.Sequential(cell(units), nn.Dense(2)).build((200, 3), seed=0)
    x = np.random.default_rng(0).standard_normal((16, 200, 3)).astype(np.float32)
    report = examine(net, x, np.zeros((16, 200, 2), np.float32) + x[:, :, :1], "mse")
    assert report.healthy and not report.remarks, str(report)


def test_the_way_through_time_is_measured_as_it_is():
    class Asked(nn.Module):  # by `sequence`, past the observer of calls; states of its own
        def __init__(self):
            self.cell, self.head = nn.RNN(1, "relu", bias=False, inputs=1), nn.Dense(2, inputs=1)

        def forward(self, x):
            y, last = self.cell.sequence(x)
            return self.head(last[0][0])

    net = Asked().build((40, 1), seed=0)
    net.cell.w[0].data[...], net.cell.u[0].data[...] = 1.0, 0.5
    x = np.ones((4, 40, 1), np.float32)
    report = examine(net, x, np.arange(4) % 2)
    # 0.5 a step: nearest 1, farthest 2^-36 (the largest of the last four), a hundredth after 6.64 steps.
    assert report.verdict == "vanishing over time" and f"{2.0**-36:.1e}" in report.findings[0].what
    assert "to a hundredth in 7 steps" in report.findings[0].what
    assert "sequence" not in vars(net.cell)
    net.cell.u[0].data[...] = 1.0
    assert examine(net, x, np.arange(4) % 2).healthy
    net.cell.u[0].data[...] = 1.5
    report = examine(net, x, np.arange(4) % 2)
    assert report.verdict == "exploding over time" and f"{1.5**36:.1e}" in report.findings[0].what


def test_the_probe_leaves_gradients_as_they_are(monkeypatch):
    from fastdl.diagnostics import doctor

    x = np.random.default_rng(0).integers(0, 5, (6, 12))
    model = RNNClassifier(4, vocabulary=5, embedding=3).build((12,), 2)
    with_probe = [r.weight_gradient for r in examine(model, x, np.arange(6) % 2).layers]
    monkeypatch.setattr(doctor, "_probed", lambda part, x, lengths, passes: x)
    assert [r.weight_gradient for r in examine(model, x, np.arange(6) % 2).layers] == with_probe
    assert sum(v > 0 for v in with_probe) == 3  # embedding, cell, head


def test_fitted_estimators_are_opened():
    pytest.importorskip("sklearn")
    import warnings

    from fastdl import sklearn as sk

    warnings.simplefilter("ignore")
    X, y = stripes(48)
    X = X.astype(np.float32)
    rows, labels = X.reshape(48, -1), np.array(["b", "a"])[np.unique(y, return_inverse=True)[1] % 2]
    net = sk.MLPClassifier((8,), max_iter=2, random_state=0).fit(rows, labels)
    assert cap_depth(net) == cap_depth(net.model_) == 2 and not is_deep(net)
    assert str(examine(net, rows, labels)) == str(examine(net.model_, rows, (labels == "b").astype(int)))
    for explain in (gradient_times_input, integrated_gradients):
        want = explain(net.model_, rows, 1)
        np.testing.assert_array_equal(explain(net, rows, "b"), want)
        np.testing.assert_array_equal(explain(net, rows, labels)[labels == "b"], want[labels == "b"])
    with pytest.raises(ValueError, match=r"target: expected labels from \['a', 'b'\]; got 'c'"):
        gradient_times_input(net, rows, "c")
    with pytest.raises(ValueError, match="y: expected labels from"):
        examine(net, rows, ["c"] * 48)
    with pytest.raises(ValueError, match="model: expected one that was built or fitted.*; got MLPClassifier"):
        cap_depth(sk.MLPClassifier())
    images = sk.CNNClassifier(image_shape=X.shape[1:], width=2, max_iter=1, random_state=0).fit(rows, labels)
    assert grad_cam(images, rows[:2], "a").shape == (2, *X.shape[1:3])
    np.testing.assert_array_equal(occlusion(images, rows[:2]), occlusion(images, X[:2]))
    name = next(n for n, _ in images.model_.module_.named_modules() if n.endswith("0"))
    assert len(most_exciting(images, rows, name, 0, 3)[0]) == 3
    assert excite(images, name, 0, steps=2).shape == images.model_.input_shape_
    assert receptive_fields(images) == receptive_fields(images.model_)
    waves = sk.RNNClassifier(units=4, max_iter=1, random_state=0).fit(rows[:, :12], labels)
    assert cap_depth(waves) == math.inf and examine(waves, rows[:, :12], labels).layers
    numbers = sk.MLPRegressor((4,), max_iter=1, random_state=0).fit(rows, rows[:, 0])
    assert examine(numbers, rows, rows[:, 0]).layers
    codes = sk.Autoencoder((4,), max_iter=1, random_state=0).fit(rows)
    assert examine(codes, rows, None).layers
    with pytest.raises(ValueError, match="undirected"):
        cap_depth(sk.RBM(3, n_iter=1, random_state=0).fit(rows))


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


def test_a_watch_compares_no_weights_of_two_trainings():
    X, y = np.random.default_rng(0).normal(size=(200, 4)), np.arange(200) % 2
    watch = Watch(every=4)
    for hidden, seed in (((8,), 1), ((8,), 2), ((9, 3), 3)):  # of eight updates each: the last leaves weights to compare with
        MLP(hidden, seed=seed).fit(X, y, epochs=2, batch_size=50, on_step=[watch])
    assert watch.steps == [2, 5] * 3
    assert max(watch.ratios["layers.0.w"]) < 0.1 and len(watch.ratios["layers.0.w"]) == 6
    MLP(()).fit(X, y, epochs=2, batch_size=50, on_step=[watch])
    for kept in (watch.ratios, watch.weights, watch.gradients):  # one a step: the third layer is the third network's alone
        assert np.isnan(kept["layers.2.w"]).tolist() == [True] * 4 + [False] * 2 + [True] * 2
        assert np.isfinite(kept["layers.0.w"]).all()
    pytest.importorskip("matplotlib").use("agg")
    assert len(watch.plot().get_lines()) == 3


@pytest.mark.parametrize(
    ("inputs", "options", "kind", "message"),
    [
        (np.ones(2), dict(tolerance="x"), TypeError, "tolerance: expected a finite number of more than 0; got 'x'"),
        (np.ones(2), dict(tolerance=np.nan), ValueError, "tolerance: expected a finite number of more than 0; got nan"),
        ("abc", {}, TypeError, r"inputs\[0\]: expected real numbers; got <U3"),
        (None, {}, TypeError, r"inputs\[0\]: expected an array or what makes one; got None"),
    ],
)
def test_a_check_that_cannot_be_is_named(inputs, options, kind, message):
    with pytest.raises(kind, match=message):
        check_gradient(ops.tanh, inputs, **options)


def test_an_operation_is_checked_along_one_direction_at_least():
    with pytest.raises(ValueError, match="directions: expected at least 1; got 0"):
        check_gradient(ops.tanh, np.ones((2, 2), np.float32), directions=0)


def longest_by_hand(kinds, steps):
    """The longest path from the first layer's inputs to the last layer's last states, over every edge of the unrolled network: a
    state follows the one before it (after it, in the other direction) and what is below it at the same step."""
    depth = [0] * steps
    for both in kinds:
        ways = []
        for order in (range(steps), reversed(range(steps)))[: 1 + both]:
            before, way = 0, [0] * steps
            for t in order:
                before = way[t] = 1 + max(before, depth[t])
            ways.append(way)
        depth = [max(at) for at in zip(*ways, strict=True)]
    return max(depth)


@pytest.mark.parametrize("kinds", [(0,), (1,), (0, 0), (0, 0, 0), (1, 1), (1, 0), (0, 1), (0, 1, 0)])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_no_path_of_credit_leads_back_in_time(kinds, steps):
    layers = [nn.LSTM(4, bidirectional=bool(both)) for both in kinds[:-1]]
    last = nn.GRU(3, bidirectional=bool(kinds[-1]), output="last")
    net = nn.Sequential(nn.Dense(5, "tanh"), *layers, nn.LayerNorm(), last, nn.Dense(2)).build((6, 3))
    assert cap_depth(net, (6, 3), steps=steps) == longest_by_hand(kinds, steps) + 2
    assert cap_depth(net, (6, 3)) == math.inf
    if len(set(kinds)) == 1:  # the same in one layer
        one = nn.RNN(4, layers=len(kinds), bidirectional=bool(kinds[0]), output="last").build((6, 3))
        by_hand = steps * len(kinds) if kinds[0] else steps + len(kinds) - 1
        assert cap_depth(one, (6, 3), steps=steps) == longest_by_hand(kinds, steps) == by_hand


def test_weights_that_a_layer_brings_into_another_form_are_weights():
    net = nn.Sequential(nn.Conv1d(4, 3), nn.Conv1d(4, 3), nn.Flatten(), nn.Dense(2)).build((7, 3))
    assert cap_depth(net, (7, 3)) == 3
    net = nn.Sequential(nn.SpectralNorm(nn.Dense(4)), nn.SpectralNorm(nn.Dense(3))).build((5,))
    assert cap_depth(net, (5,)) == 2
    net = nn.Sequential(nn.Embedding(6, 3), nn.Flatten(), nn.Dense(2)).build((6,), dtype=np.int64)
    assert cap_depth(net, (6,), dtype=np.int64) == 2


def test_steps_that_are_mixed_are_as_deep_as_the_deepest():
    net = nn.Sequential(nn.LSTM(4), nn.Conv1d(4, 3, padding=1), nn.LSTM(4), nn.Flatten(), nn.Dense(2)).build((6, 3))
    assert cap_depth(net, (6, 3), steps=6) == 6 + 1 + 6 + 1
    net = nn.Sequential(nn.LSTM(4), nn.Dense(3), nn.Residual(nn.GRU(3)), nn.Dense(2)).build((6, 3))
    assert cap_depth(net, (6, 3), steps=6) == (1 + 1 + 6) + 1  # the last of all at the last step


@pytest.mark.parametrize("filters", [(4,), (4, 4)])
@pytest.mark.parametrize("bag", [0.0, 0.5])
def test_a_captioner_is_as_deep_as_the_word_it_chooses(filters, bag):
    net = Captioner(filters, features=6, units=5, embedding=3, bag=bag).build((8, 8, 1), Vocabulary(["<end>"], "<unknown>"))
    # two convolutions a block, features, one of two first states (beside one another), time steps, choice; the words' table
    # is a beginning of its own, and the bag of words is said beside the path
    by_hand = 2 * len(filters) + 1 + 1 + 5 + 1
    assert cap_depth(net, steps=5) == cap_depth(net.module_, (8, 8, 1), steps=5) == by_hand
    assert cap_depth(net) == math.inf
