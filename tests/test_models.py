"""Models: each learns, converts at its door, names what is wrong, and survives a file."""

import copy
import pickle

import numpy as np
import pytest

from fastdl import models, nn, optim
from fastdl.models import CNN, MLP, CNNRegressor, MLPRegressor, Perceptron, SoftmaxRegression
from fastdl.models.mlp import train_by_hand


def blobs(n=300, inputs=8, classes=3, seed=0, spread=0.7):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((classes, inputs)) * 1.5
    y = rng.integers(0, classes, n)
    return centres[y] + spread * rng.standard_normal((n, inputs)), y


def stripes(n=120, size=12, seed=0):
    """uint8 images of horizontal, vertical or no stripes, with noise and a random phase: no single pixel tells."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    phase = rng.integers(0, 4, n)
    rows = np.arange(size)[None, :] + phase[:, None]
    wave = (rows % 4 < 2).astype(float)
    flat = np.full((n, size, size), 0.5)
    x = np.where((y == 0)[:, None, None], wave[:, :, None], np.where((y == 1)[:, None, None], wave[:, None, :], flat))
    x = 0.25 + 0.5 * x + 0.08 * rng.standard_normal((n, size, size))
    return (255 * np.clip(x, 0, 1)).astype(np.uint8), y


FAMILIES = {
    "softmax": (lambda: SoftmaxRegression(seed=1), dict(epochs=30, lr=0.05), 0.97),
    "perceptron": (lambda: Perceptron(average=True, seed=1), dict(epochs=10), 0.95),
    "mlp": (lambda: MLP((32,), seed=1), dict(epochs=20, lr=0.01), 0.97),
    "mlp-all": (lambda: MLP((32, 16), "tanh", 0.1, "batch", 0.05, seed=1), dict(epochs=25, lr=0.01), 0.95),
    "mlp-layer-norm": (lambda: MLP((32,), "gelu", norm="layer", seed=1), dict(epochs=20, lr=0.01), 0.97),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_tables_are_learned(name):
    make, options, least = FAMILIES[name]
    model = make().fit(*blobs(), validation=blobs(seed=1), **options)
    assert model.score(*blobs(seed=2)) >= least
    assert model.history_["val_accuracy"][-1] == model.score(*blobs(seed=1))


@pytest.mark.parametrize("architecture", ["small", "lenet5"])
def test_images_are_learned(architecture):
    model = CNN(architecture, width=8, seed=1).fit(*stripes(size=12), epochs=12, batch_size=16, lr=3e-3)
    assert model.score(*stripes(seed=5, size=12)) >= 0.95


def test_xor_needs_the_hidden_layer():
    X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 1, 1, 0])
    assert MLP((16,), "tanh").fit(X, y, epochs=300, lr=0.05).score(X, y) == 1.0
    assert SoftmaxRegression().fit(X, y, epochs=300, lr=0.05).score(X, y) < 1.0
    assert Perceptron().fit(X, y, epochs=50).score(X, y) < 1.0


def test_the_hand_written_twin_agrees_bit_for_bit():
    X, y = blobs(160)
    x = X.astype(np.float32)
    losses = []
    model = MLP((32,), seed=3).build((8,), classes=3)
    w = model.get_weights()
    model.fit(X, y, warm_start=True, epochs=4, batch_size=64, optimizer="sgd", lr=0.1, shuffle=False,
              on_step=[lambda s: losses.append(s.loss)])  # fmt: skip
    by_hand = [w[k] for k in ("layers.0.w", "layers.0.b", "layers.1.w", "layers.1.b")]
    assert train_by_hand(x, y, *by_hand, steps=12, batch_size=64, lr=0.1) == losses
    np.testing.assert_array_equal(by_hand[0], model.get_weights()["layers.0.w"])


# ------------------------------------------------------------------------------------------------ the perceptron's rule


def test_perceptron_follows_rosenblatts_rule():
    X, y = blobs(60, spread=2.0)
    from fastdl import random
    from fastdl.random import Stream

    model = Perceptron(seed=4).fit(X, y, epochs=3, lr=0.5)
    w, b = np.zeros((8, 3)), np.zeros(3)
    stream, x = Stream(4).split("shuffle"), X.astype(np.float32).astype(np.float64)
    mean_w, mean_b, n = np.zeros((8, 3)), np.zeros(3), 0
    for _ in range(3):
        for i in random.permutation(60, *stream.take(120)):
            c = int(np.argmax(x[i] @ w + b))
            if c != y[i]:
                w[:, y[i]] += 0.5 * x[i]
                b[y[i]] += 0.5
                w[:, c] -= 0.5 * x[i]
                b[c] -= 0.5
            mean_w, mean_b, n = mean_w + w, mean_b + b, n + 1
    got = model.get_weights()
    np.testing.assert_allclose(got["layers.0.w"], w, atol=1e-4)
    np.testing.assert_allclose(got["layers.0.b"], b, atol=1e-4)
    got = Perceptron(average=True, seed=4).fit(X, y, epochs=3, lr=0.5).get_weights()
    np.testing.assert_allclose(got["layers.0.w"], mean_w / n, atol=1e-4)
    np.testing.assert_allclose(got["layers.0.b"], mean_b / n, atol=1e-4)


def test_perceptron_shows_callbacks_what_the_training_loop_shows():
    rng = np.random.default_rng(5)
    X, y = rng.standard_normal((60, 3)), rng.integers(0, 3, 60)
    seen, kept = [], []

    def look(state):
        seen.append((state.epoch, state.step, state.loss, state.epochs, state.total))
        assert state.history is model.history_ and state.module is model.module_
        if state.epoch == 1:
            state.keep()
            kept.append(model.get_weights())
        state.stop = state.epoch == 3

    model = Perceptron()
    model.fit(X, y, epochs=9, callbacks=[look])
    assert model.history_["stopped"] == "callback"
    assert seen == [(e, 60 * e, model.history_["errors"][e - 1], 9, 540) for e in (1, 2, 3)]

    def back(state):
        look(state)
        if state.stop:
            state.restore()

    model = Perceptron()
    model.fit(X, y, epochs=9, callbacks=[back])
    for name, w in model.get_weights().items():
        np.testing.assert_array_equal(w, kept[0][name])


def test_an_architecture_of_your_own_is_shown_by_its_name():
    def tiny(classes):
        return nn.Sequential(nn.Flatten(), nn.Dense(classes))

    assert repr(CNN(tiny)) == "CNN(architecture=tiny, seed=0)"


def test_perceptron_stops_when_nothing_is_wrong():
    model = Perceptron().fit(*blobs(spread=0.05), epochs=100)
    assert model.history_["stopped"] == "no mistakes"
    assert model.history_["errors"][-1] == 0.0
    assert model.score(*blobs(spread=0.05)) == 1.0
    assert not hasattr(Perceptron, "nothing")
    with pytest.raises(AttributeError, match="no probabilities"):
        model.predict_proba(blobs()[0])


# ------------------------------------------------------------------------------------------------ the door


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int32, np.int64, np.uint16, ">f4", ">i8"])
def test_any_real_dtype_comes_in(dtype):
    X, y = np.random.default_rng(0).integers(0, 5, (60, 4)), np.arange(60) % 2
    want = MLP((4,)).fit(X.astype(np.float32), y, epochs=2).get_weights()
    got = MLP((4,)).fit(X.astype(dtype), y, epochs=2).get_weights()
    for name, w in want.items():
        np.testing.assert_array_equal(w, got[name])


def test_bytes_are_images_from_zero_to_one():
    X, y = stripes(40)
    a = CNN("lenet5").fit(X, y, epochs=1)
    b = CNN("lenet5").fit(X.astype(np.float32) * np.float32(1 / 255), y, epochs=1)
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X[..., None] * np.float32(1 / 255)))
    assert MLP((4,)).fit(np.eye(4, dtype=bool), [0, 1, 0, 1], epochs=1).predict(np.eye(4, dtype=bool)).shape == (4,)


def test_non_contiguous_input_is_accepted():
    X, y = blobs(80)
    a, b = MLP((4,)).fit(X, y, epochs=2), MLP((4,)).fit(np.asfortranarray(X), y, epochs=2)
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(X[::-1])[::-1])


@pytest.mark.parametrize(
    "labels",
    [
        np.array(["cat", "dog", "eel"]),
        np.array(["b", "a", "c"], object),
        np.array([7, -3, 1000]),
        np.array([3, 1, 2], np.uint8),
    ],
)
def test_any_labels_come_back(labels):
    X, y = blobs()
    model = MLP((16,)).fit(X, labels[y], epochs=15, lr=0.01, validation=(X[:50], labels[y][:50]))
    assert sorted(set(labels.tolist())) == model.classes_.tolist()
    assert (model.predict(X) == labels[y]).mean() > 0.95
    assert model.score(X, labels[y]) > 0.95
    p = model.predict_proba(X)
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(model.classes_[p.argmax(1)], model.predict(X))


def test_memory_mapped_file_is_not_copied(tmp_path):
    X, y = stripes(64)
    np.save(tmp_path / "x.npy", X)
    disk = np.load(tmp_path / "x.npy", mmap_mode="r")
    from fastdl.models._door import as_input

    assert as_input(disk) is disk
    a, b = CNN("lenet5").fit(disk, y, epochs=1), CNN("lenet5").fit(X, y, epochs=1)
    np.testing.assert_array_equal(a.predict_proba(X), b.predict_proba(disk))


def test_no_samples_give_no_predictions():
    X, y = stripes(24)
    for model in (MLP((4,)), CNN("lenet5")):
        model.fit(X, y, epochs=1)
        assert model.predict(X[:0]).shape == (0,)
        assert model.predict_proba(X[:0]).shape == (0, 3)


def test_image_shapes():
    X, y = stripes(32)
    whole = CNN("lenet5").fit(X, y, epochs=1).predict_proba(X)
    flat = CNN("lenet5", image_shape=(12, 12, 1)).fit(X.reshape(32, -1), y, epochs=1).predict_proba(X.reshape(32, -1))
    np.testing.assert_array_equal(whole, flat)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m, X, y: m.predict(X[:, :5]), ValueError, r"X: expected samples of shape \[8\].*; got \[5\]"),
        (lambda m, X, y: m.fit(X, y[:10]), ValueError, r"y: expected shape \[300\].*; got \[10\]"),
        (lambda m, X, y: m.fit(X, y + 0.5), TypeError, "y: expected integer or string labels; got float64"),
        (lambda m, X, y: m.fit(X, np.zeros(300, int)), ValueError, "y: expected two classes or more; got 1"),
        (lambda m, X, y: m.fit(X[:0], y[:0]), ValueError, "X: expected one sample or more; got none"),
        (
            lambda m, X, y: m.fit(X.astype(complex), y),
            TypeError,
            "X: expected an array of real numbers; got complex128",
        ),
        (lambda m, X, y: m.fit([["a"]], [0]), TypeError, "X: expected an array of real numbers"),
        (
            lambda m, X, y: m.fit(X, y, validation=(X[:, :3], y)),
            ValueError,
            r"validation X: expected samples of shape \[8\]",
        ),
        (
            lambda m, X, y: m.fit(X, y, validation=(X, y + 5)),
            ValueError,
            r"validation y: expected labels from \[0, 1, 2\]",
        ),
        (lambda m, X, y: m.fit(X, y, validation=(X, y.astype(str))), ValueError, "validation y: expected labels from"),
        (lambda m, X, y: m.fit(X, y, validation=1.5), ValueError, "validation: expected .X, y. or a share"),
        (lambda m, X, y: m.fit(X, y, optimizer="adams"), ValueError, "optimizer: expected one of"),
        (lambda m, X, y: m.fit(X, y, epochs=0), ValueError, "epochs: expected at least 1"),
        (lambda m, X, y: MLP().predict(X), RuntimeError, "MLP: expected a model that was built or fitted"),
        (lambda m, X, y: MLP(norm="group"), ValueError, "norm: expected None"),
        (lambda m, X, y: CNN("vgg"), ValueError, "architecture: expected 'small', 'lenet5' or a function; got 'vgg'"),
        (lambda m, X, y: CNN().fit(X, y), ValueError, r"X: expected images \[N,Y,X\]"),
    ],
)
def test_errors_name_the_argument(call, kind, message):
    X, y = blobs()
    model = MLP((4,)).fit(X, y, epochs=1)
    with pytest.raises(kind, match=message):
        call(model, X, y)


# ------------------------------------------------------------------------------------------------ fitting again


def test_fit_starts_afresh_unless_asked_to_go_on():
    X, y = blobs()
    model = MLP((8,), seed=2).fit(X, y, epochs=2)
    first = model.get_weights()
    again = model.fit(X, y, epochs=2).get_weights()
    on = model.fit(X, y, epochs=2, warm_start=True).get_weights()
    np.testing.assert_array_equal(first["layers.0.w"], again["layers.0.w"])
    assert not np.array_equal(on["layers.0.w"], again["layers.0.w"])
    assert model.fit(X[:, :3], y, epochs=1).predict(X[:, :3]).shape == (300,)


def test_a_share_is_set_aside_for_validation():
    X, y = blobs(100)
    seen = []
    model = MLP((4,)).fit(X, y, epochs=1, batch_size=10, validation=0.25, on_step=[lambda s: seen.append(s.step)])
    assert len(seen) == 8  # 75 samples
    assert len(model.history_["val_loss"]) == 1


def test_smoothing_is_for_training_only():
    X, y = blobs()
    model = MLP((16,)).fit(X, y, epochs=30, lr=0.01, smoothing=0.3, validation=(X, y))
    assert model.history_["loss"][-1] > 0.5  # at least the entropy of the smoothed targets
    assert model.history_["val_loss"][-1] < 0.4
    assert model.predict_proba(X).max() < 0.97


def test_an_optimiser_of_your_own():
    X, y = blobs()
    model = MLP((8,)).fit(X, y, epochs=5, optimizer=lambda m: optim.SGD(m, lr=0.1, momentum=0.9, nesterov=True))
    assert model.score(X, y) > 0.9


# ------------------------------------------------------------------------------------------------ summaries and files


def test_lenet5_has_its_known_size():
    model = CNN("lenet5").build((28, 28, 1), classes=10)
    text = model.summary()
    assert "61,706 parameters" in text
    row = next(line for line in text.splitlines() if line.startswith("layers.0 Conv2d"))
    assert row.split()[-2:] == ["156", f"{(784 + 1) * 28 * 28 * 6:,}"]
    assert MLP((128,)).build((784,), 10).module_.count() == 784 * 128 + 128 + 1280 + 10


@pytest.mark.parametrize("name", [*FAMILIES, "cnn"])
def test_save_and_load(name, tmp_path):
    X, y = stripes(48) if name == "cnn" else blobs()
    labels = np.array(["one", "two", "three"])[y]
    model = (CNN("small", width=4, dropout=0.1, seed=5) if name == "cnn" else FAMILIES[name][0]()).fit(
        X, labels, epochs=2
    )
    model.save(tmp_path / "m.safetensors")
    for other in (models.load(tmp_path / "m.safetensors"), type(model).load(tmp_path / "m.safetensors")):
        assert repr(other) == repr(model)
        np.testing.assert_array_equal(other.decision_function(X), model.decision_function(X))
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    with pytest.raises(ValueError, match="expected a"):
        (MLP if name == "cnn" else CNN).load(tmp_path / "m.safetensors")


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_predict_alike_and_train_apart(duplicate):
    X, y = blobs()
    model = MLP((8,), dropout=0.2).fit(X, y, epochs=2)
    other = duplicate(model)
    before = model.predict_proba(X)
    np.testing.assert_array_equal(other.predict_proba(X), before)
    other.fit(X, y, epochs=3, warm_start=True)
    assert not np.array_equal(other.predict_proba(X), before)
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_weights_go_out_and_in():
    X, y = blobs()
    model = MLP((8,)).fit(X, y, epochs=2)
    other = MLP((8,), seed=9).build((8,), classes=[0, 1, 2]).set_weights(model.get_weights())
    np.testing.assert_array_equal(other.predict_proba(X), model.predict_proba(X))


# ------------------------------------------------------------------------------------------------ quantities


def waves(n=300, seed=0, targets=1):
    rng = np.random.default_rng(seed)
    X = rng.uniform(-2, 2, (n, 3))
    y = np.stack([50 + 20 * np.sin(X[:, 0]) + 5 * X[:, 1] ** 2, 1e-3 * X[:, 2]], 1)
    return X, y[:, 0] if targets == 1 else y


@pytest.mark.parametrize("targets", [1, 2])
def test_quantities_are_learned(targets):
    model = MLPRegressor((64,), "tanh", seed=1).fit(
        *waves(targets=targets), epochs=60, lr=0.01, validation=waves(seed=1, targets=targets)
    )
    X, y = waves(seed=2, targets=targets)
    assert model.score(X, y) > 0.95
    assert model.predict(X).shape == y.shape and model.predict(X).dtype == np.float64
    assert model.history_["val_r2"][-1] == pytest.approx(model.score(*waves(seed=1, targets=targets)), abs=1e-4)
    want = 1 - ((model.predict(X) - y) ** 2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)
    assert model.score(X, y) == pytest.approx(np.mean(want))


def test_quantities_from_images():
    X, y = stripes(80)
    bright = X.astype(float).mean((1, 2)) / 255 + y
    model = CNNRegressor(width=4, dropout=0.0, seed=1).fit(X, bright, epochs=20, batch_size=16, lr=5e-3)
    assert model.score(X, bright) > 0.9
    assert model.predict(X[:0]).shape == (0,)


def test_regressors_are_saved_and_go_on(tmp_path):
    X, y = waves(targets=2)
    model = MLPRegressor((8,), seed=1).fit(X, y, epochs=4)
    model.save(tmp_path / "m")
    for other in (models.load(tmp_path / "m"), MLPRegressor.load(tmp_path / "m"), pickle.loads(pickle.dumps(model))):
        np.testing.assert_array_equal(other.predict(X), model.predict(X))
    MLPRegressor((8,), seed=1).fit(X, y, epochs=2, checkpoint=tmp_path / "c")
    on = MLPRegressor((8,), seed=1).fit(X, y, epochs=4, resume=tmp_path / "c")
    np.testing.assert_array_equal(on.predict(X), model.predict(X))
    one = MLPRegressor((8,)).fit(X, y[:, 0], epochs=1, validation=0.2)
    one.save(tmp_path / "m")
    assert models.load(tmp_path / "m").predict(X).shape == (300,)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m, X, y: m.fit(X, y[:9]), ValueError, r"y: expected shape \[300\] or \[300,K\].*; got \[9\]"),
        (lambda m, X, y: m.fit(X, np.full(300, "a")), TypeError, "y: expected an array of real numbers; got <U1"),
        (lambda m, X, y: m.fit(X, np.where(y > 50, np.nan, y)), ValueError, "y: expected finite numbers; got nan"),
        (lambda m, X, y: m.fit(X, y, loss="hinge"), ValueError, "loss: expected 'mse', 'mae' or 'huber'; got 'hinge'"),
        (lambda m, X, y: m.score(X, np.stack([y, y, y], 1)), ValueError, "y: expected 1 targets a sample; got 3"),
        (
            lambda m, X, y: m.fit(X, y, validation=(X, np.stack([y, y], 1))),
            ValueError,
            "validation y: expected 1 targets a",
        ),
        (lambda m, X, y: MLPRegressor().predict(X), RuntimeError, "MLPRegressor: expected a model that was built"),
        (lambda m, X, y: MLPRegressor().build((3,), 0), ValueError, "outputs: expected at least 1; got 0"),
    ],
)
def test_errors_of_regressors_name_the_argument(call, kind, message):
    X, y = waves()
    with pytest.raises(kind, match=message):
        call(MLPRegressor((4,)).fit(X, y, epochs=1), X, y)


def test_a_constant_target():
    X, _ = waves()
    model = MLPRegressor((4,)).fit(X, np.full(300, 7.0), epochs=30, lr=0.02)
    np.testing.assert_allclose(model.predict(X), 7.0, atol=0.3)
