"""Checkpoints: going on is as if never stopped, whatever stopped it, and wrong files are refused by name."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from fastdl import backend, io, models, nn, optim, schedules, train
from fastdl.checkpoint import Checkpoint
from fastdl.data import Augment
from fastdl.models import (
    CNN,
    DBM,
    GAN,
    MLP,
    RBM,
    CNNRegressor,
    Forecaster,
    Perceptron,
    RNNRegressor,
    SoftmaxRegression,
    WordLM,
)
from fastdl.rows import Rows
from test_models import blobs, stripes

# Every family, with all that has a state of its own: dropout, running statistics, momenta, augmentation, schedules,
# early stopping. A new family adds its row here.
FAMILIES = {
    "softmax": (lambda: SoftmaxRegression(seed=1), blobs, dict(lr=0.02, optimizer="rmsprop")),
    "perceptron": (lambda: Perceptron(seed=1), lambda: blobs(spread=2.0), {}),
    "perceptron-average": (lambda: Perceptron(average=True, seed=1), lambda: blobs(spread=2.0), {}),
    "mlp": (
        lambda: MLP((16, 8), "tanh", 0.2, "batch", 0.1, seed=1),
        blobs,
        dict(lr=0.01, clip=1.0, weight_decay=1e-3, optimizer="adamw", validation=0.2, schedule=schedules.cosine(0.1)),
    ),
    "mlp-early": (
        lambda: MLP((8,), seed=2),
        lambda: blobs(spread=2.0),
        dict(lr=0.05, optimizer="sgd", validation=0.3, patience=3, schedule=schedules.plateau(0.5, 1)),
    ),
    "cnn": (
        lambda: CNN("small", width=4, seed=3),
        lambda: stripes(60),
        dict(lr=1e-3, batch_size=16, augment=Augment(shift=1, rotate=5), optimizer="adagrad"),
    ),
    "cnn-regressor": (
        lambda: CNNRegressor(width=4, dropout=0.2, seed=4),
        lambda: brightness(60),
        dict(lr=1e-3, batch_size=16, augment=Augment(flip=True), validation=0.2, schedule=schedules.cosine(0.1)),
    ),
    "rnn-regressor": (
        lambda: RNNRegressor(units=6, dropout=0.2, seed=5),
        lambda: sums(90),
        dict(lr=0.01, batch_size=16, clip=1.0, schedule=schedules.cosine(0.1)),
    ),
    "forecaster": (
        lambda: Forecaster(window=6, units=4, dropout=0.2, seed=6),
        lambda: (np.sin(np.arange(110) / 4) + np.arange(110) % 5,),
        dict(lr=0.01, batch_size=16, optimizer="adamw", weight_decay=1e-3, validation=20),
    ),
    "words": (
        lambda: WordLM(most=8, units=6, embedding=6, tied=True, dropout=0.2, seed=7),
        lambda: ("the cat sat on the mat and the dog sat on the log " * 60,),
        dict(lr=0.02, batch_size=2, window=10, schedule=schedules.cosine(0.1)),
    ),
}
EPOCHS = 5


def brightness(n):
    X, y = stripes(n)
    return X, X.mean((1, 2)) / 255 + y


def sums(n):
    X = np.random.default_rng(3).standard_normal((n, 5, 2))
    return X, X.sum((1, 2))


def answers(model, data):
    """What the model says of its data, in numbers."""
    if isinstance(model, WordLM):
        return np.array(model.nats(*data))
    if isinstance(model, Forecaster):
        return model.rolling(*data)
    return (model.decision_function if hasattr(model, "decision_function") else model.predict)(data[0])


def options_of(name):
    """Fresh ones: a schedule may have a state."""
    make, data, options = FAMILIES[name]
    if "plateau" in str(type(options.get("schedule"))):
        options = options | {"schedule": schedules.plateau(0.5, 1)}
    return make, data(), dict(options)


def outcome(model):
    history = {k: v for k, v in model.history_.items() if k != "seconds"}
    return model.get_weights(), history


def assert_same(a, b):
    assert a[1] == b[1]
    for name, w in a[0].items():
        np.testing.assert_array_equal(w, b[0][name])


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("stop_at", [1, 3])
def test_going_on_is_as_if_never_stopped(name, stop_at, tmp_path):
    make, data, options = options_of(name)
    want = outcome(make().fit(*data, epochs=EPOCHS, **options))
    path = tmp_path / "run.ckpt"

    def stop(state):
        state.stop = state.epoch == stop_at

    # The length of the run is part of it: a schedule knows how long it is.
    make, _, options = options_of(name)
    half = make().fit(*data, epochs=EPOCHS, checkpoint=path, callbacks=[stop], **options)
    assert len(half.history_["epoch"]) == stop_at
    make, _, options = options_of(name)
    model = make().fit(*data, epochs=EPOCHS, checkpoint=path, resume=path, **options)
    assert_same(outcome(model), want)
    # And a finished run is finished.
    make, _, options = options_of(name)
    assert_same(outcome(make().fit(*data, epochs=EPOCHS, checkpoint=path, resume=True, **options)), want)


@pytest.mark.parametrize("name", [n for n in FAMILIES if not n.startswith("perceptron")])
@pytest.mark.parametrize("at", [2, 7, 9])
def test_inside_an_epoch(name, at, tmp_path):
    make, data, options = options_of(name)
    options["batch_size"] = 20
    want = outcome(make().fit(*data, epochs=3, **options))

    class Killed(BaseException):
        pass

    def kill(state):
        if state.step == at:
            raise Killed

    make, _, options = options_of(name)
    options["batch_size"] = 20
    with pytest.raises(Killed):
        make().fit(*data, epochs=3, checkpoint=Checkpoint(tmp_path / "c", every=1), on_step=[kill], **options)
    make, _, options = options_of(name)
    options["batch_size"] = 20
    model = make().fit(*data, epochs=3, resume=tmp_path / "c", **options)
    assert_same(outcome(model), want)


BITS = (np.random.default_rng(8).random((70, 6)) < 0.4).astype(np.float32)
# Those with loops of their own: what to make, data, options of a fit.
OWN_LOOPS = {
    "perceptron": (lambda: Perceptron(seed=1), lambda: blobs(n=700, spread=2.0), {}),
    "perceptron-average": (lambda: Perceptron(average=True, seed=1), lambda: blobs(n=700, spread=2.0), dict(validation=0.2)),
    "rbm-pcd": (lambda: RBM(4, seed=1), lambda: (BITS,), dict(momentum=0.5, centre=True, sparsity=0.2, batch_size=16)),
    "rbm-cd": (lambda: RBM(4, seed=1), lambda: (BITS,), dict(algorithm="cd", k=2, stochastic=True, batch_size=16)),
    "rbm-fpcd": (
        lambda: RBM(4, seed=1), lambda: (BITS,), dict(algorithm="fpcd", schedule=schedules.cosine(0.1), batch_size=16),
    ),
    "rbm-tempering": (lambda: RBM(4, seed=1), lambda: (BITS,), dict(algorithm="tempering", temperatures=3, batch_size=16)),
    "dbm": (lambda: DBM((4, 3), seed=1), lambda: (BITS,), dict(batch_size=16)),
    "gan": (lambda: GAN(latent=2, hidden=(8,), average=0.9, seed=1), lambda: (BITS,), dict(batch_size=8, on_collapse="ignore")),
    "gan-two": (
        lambda: GAN(latent=2, hidden=(8,), steps_d=2, spectral_norm=True, batch_norm=True, seed=1), lambda: (BITS,),
        dict(batch_size=8, on_collapse="ignore", schedule=schedules.cosine(0.1)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OWN_LOOPS)
@pytest.mark.parametrize("at", [1, 2, 6])
def test_inside_an_epoch_of_a_loop_of_its_own(name, at, tmp_path, monkeypatch):
    make, data, options = OWN_LOOPS[name]
    data = data()
    want = outcome(make().fit(*data, epochs=3, **options))
    written = []

    class Killed(BaseException):
        pass

    def save(path, kind, state):
        io.save_state(path, kind, state)
        written.append(state["state"]["begin"])
        if len(written) == at:
            raise Killed

    monkeypatch.setattr("fastdl.checkpoint.save_state", save)
    with pytest.raises(Killed):
        make().fit(*data, epochs=3, checkpoint=Checkpoint(tmp_path / "c", every=1), **options)
    assert written[0] > 0  # not only between epochs
    monkeypatch.undo()
    of_then = models.load(tmp_path / "c")
    assert all(np.isfinite(w).all() for w in of_then.get_weights().values())
    assert_same(outcome(make().fit(*data, epochs=3, resume=tmp_path / "c", **options)), want)


@pytest.mark.parametrize("name", OWN_LOOPS)
def test_ctrl_c_leaves_a_state_of_a_loop_of_its_own(name, tmp_path, monkeypatch):
    make, data, options = OWN_LOOPS[name]
    data = data()
    want, calls, epochs = outcome(make().fit(*data, epochs=3, **options)), [], []
    original = Rows.take

    def take(self, index):
        calls.append(len(epochs))
        if calls.count(1) == 2:  # in the second epoch
            signal.raise_signal(signal.SIGINT)
        return original(self, index)

    monkeypatch.setattr(Rows, "take", take)
    model = make().fit(*data, epochs=3, checkpoint=tmp_path / "c", callbacks=[epochs.append], **options)
    assert model.history_["stopped"] == "interrupted" and len(model.history_["epoch"]) == 2
    monkeypatch.undo()
    assert io.load_state(tmp_path / "c", "checkpoint")["state"]["begin"] > 0
    assert_same(outcome(make().fit(*data, epochs=3, resume=tmp_path / "c", **options)), want)


def test_a_gan_that_was_stopped_inside_an_epoch_does_the_rest_of_it(tmp_path):
    want = outcome(GAN(latent=2, hidden=(8,)).fit(BITS, epochs=3, batch_size=8, on_collapse="ignore"))

    def stop(state):
        state.stop = state.step == 11

    GAN(latent=2, hidden=(8,)).fit(BITS, epochs=3, batch_size=8, on_collapse="ignore", on_step=stop, checkpoint=tmp_path / "c")
    again = GAN(latent=2, hidden=(8,)).fit(BITS, epochs=3, batch_size=8, on_collapse="ignore", resume=tmp_path / "c")
    assert_same(outcome(again), want)


def test_more_epochs_than_before(tmp_path):
    X, y = blobs()
    want = outcome(MLP((8,), dropout=0.2).fit(X, y, epochs=6))
    MLP((8,), dropout=0.2).fit(X, y, epochs=2, checkpoint=tmp_path / "c")
    assert_same(outcome(MLP((8,), dropout=0.2).fit(X, y, epochs=6, resume=tmp_path / "c")), want)


def test_a_number_of_steps(tmp_path):
    X, y = blobs()
    want = outcome(MLP((8,)).fit(X, y, steps=13))
    MLP((8,)).fit(X, y, steps=7, checkpoint=tmp_path / "c")
    assert_same(outcome(MLP((8,)).fit(X, y, steps=13, resume=tmp_path / "c")), want)
    MLP((8,)).fit(X, y, steps=13, checkpoint=tmp_path / "d")
    assert_same(outcome(MLP((8,)).fit(X, y, steps=13, resume=tmp_path / "d")), want)


def test_ctrl_c_leaves_a_state(tmp_path):
    X, y = blobs()
    want = outcome(MLP((8,), dropout=0.3).fit(X, y, epochs=3))

    def interrupt(state):
        if state.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    half = MLP((8,), dropout=0.3).fit(X, y, epochs=3, checkpoint=tmp_path / "c", on_step=[interrupt])
    assert half.history_["stopped"] == "interrupted"
    assert_same(outcome(MLP((8,), dropout=0.3).fit(X, y, epochs=3, resume=tmp_path / "c")), want)


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_ctrl_c_while_an_epoch_is_judged_loses_none_of_it(epoch, tmp_path):
    X, y = blobs()

    def run(interrupted=False, **how):
        network, seen = MLP((8,), dropout=0.3).build((len(X[0]),), 3).module_, []
        x, codes = X.astype(np.float32), y.astype(np.int64)

        def validation():
            seen.append(1)
            if interrupted and len(seen) == epoch:
                os.kill(os.getpid(), signal.SIGINT)
            return train.evaluate(network, x, codes, loss="softmax_cross_entropy")

        validation.fingerprint = "all"
        history = train.fit(
            network, x, codes, loss="softmax_cross_entropy", optimizer=optim.Adam(network), epochs=3, validation=validation, **how
        )
        return network.get_weights(), {k: v for k, v in history.items() if k != "seconds"}

    want = run()
    _, history = run(True, checkpoint=tmp_path / "c")
    assert history["stopped"] == "interrupted" and history["epoch"] == list(range(1, epoch + 1))
    went_on = run(resume=tmp_path / "c")
    assert_same(went_on, want)
    assert io.load_state(tmp_path / "c", "checkpoint")["state"]["epoch"] == epoch + 1


def test_callbacks_with_a_state_go_on(tmp_path):
    class Count:
        n = 0

        def __call__(self, state):
            self.n += 1
            state.stop = state.epoch == 2

        def get_state(self):
            return {"n": self.n}

        def set_state(self, state):
            self.n = state["n"]

    X, y = blobs()
    MLP((4,)).fit(X, y, epochs=5, checkpoint=tmp_path / "c", callbacks=[Count()])
    again = Count()
    MLP((4,)).fit(X, y, epochs=5, resume=tmp_path / "c", callbacks=[again])
    assert again.n == 5
    with pytest.raises(ValueError, match="callbacks: expected the same as in the checkpoint's run"):
        MLP((4,)).fit(X, y, epochs=5, resume=tmp_path / "c")


def test_a_module_of_your_own(tmp_path):
    X, y = blobs()
    x, codes = X.astype(np.float32), y.astype(np.int64)

    def run(epochs, **more):
        net = nn.Sequential(nn.Dense(8), nn.BatchNorm(), nn.ReLU(), nn.Dropout(0.5), nn.Dense(3)).build((8,), seed=1)
        history = train.fit(net, x, codes, loss="softmax_cross_entropy", optimizer=optim.Adam(net), epochs=epochs, **more)
        return net.get_weights(), {k: v for k, v in history.items() if k != "seconds"}

    want = run(4)
    run(2, checkpoint=tmp_path / "c")
    assert_same(run(4, resume=tmp_path / "c"), want)


def test_arrays_of_a_gpu(tmp_path):
    """A state that was written with arrays of a GPU (its stand-in) is the CPU's, and the other way round."""
    import fake_cuda

    X, y = blobs()
    options = dict(epochs=4, patience=4, validation=0.2)

    def model():
        return MLP((8,), dropout=0.2, norm="batch", seed=1)

    with fake_cuda.as_cuda(fake_cuda.HostKernels(backend.cpu)):
        want = outcome(model().build((8,), 3).to("cuda").fit(X, y, warm_start=True, **options))

        def stop(state):
            state.stop = state.epoch == 2

        more = options | dict(callbacks=[stop], checkpoint=tmp_path / "c", warm_start=True)
        model().build((8,), 3).to("cuda").fit(X, y, **more)
        there = model().build((8,), 3).to("cuda").fit(X, y, resume=tmp_path / "c", warm_start=True, **options)
        assert_same(outcome(there), want)
    assert_same(outcome(model().fit(X, y, resume=tmp_path / "c", **options)), want)


# ------------------------------------------------------------------------------------------------ the model of a checkpoint


@pytest.mark.parametrize("name", FAMILIES)
def test_a_checkpoint_is_a_model_too(name, tmp_path):
    make, data, options = options_of(name)
    options.pop("patience", None)
    model = make().fit(*data, epochs=2, checkpoint=tmp_path / "c", **options)
    other = models.load(tmp_path / "c")
    assert repr(other) == repr(model)
    np.testing.assert_array_equal(answers(other, data), answers(model, data))
    assert type(type(model).load(tmp_path / "c")) is type(model)


def test_a_network_from_a_program_has_no_model_file(tmp_path):
    X, y = stripes(30)

    def tiny(classes):
        return nn.Sequential(nn.Flatten(), nn.Dense(classes))

    model = CNN(tiny).fit(X, y, epochs=1, checkpoint=tmp_path / "c")
    with pytest.raises(ValueError, match="got the checkpoint of a network that only a program can make"):
        models.load(tmp_path / "c")
    with pytest.raises(ValueError, match="architecture: expected a name, to save a whole model; got a function"):
        model.save(tmp_path / "m")


def test_a_network_of_a_recipe_has_one(tmp_path):
    """Who trains image-folder on own pictures wants to ask the network afterwards."""
    from fastdl.recipes import cifar_cnn

    X = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    model = CNN(cifar_cnn.network, seed=1).fit(X, np.arange(8) % 2, epochs=1, checkpoint=tmp_path / "c")
    model.save(tmp_path / "m")
    for path in (tmp_path / "m", tmp_path / "c"):
        again = models.load(path)
        assert again.architecture is cifar_cnn.network and again.scale_ == "bytes"
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    weights, config = io.load(tmp_path / "m")
    for place in ("os.network", "fastdl.recipes.mnist_cnn.run", "fastdl.recipes._common.save", "fastdl.recipes.cifar_cnn.none"):
        config["params"]["architecture"] = {"function": place}
        io.save(tmp_path / "other", weights, config)
        with pytest.raises(ValueError, match=f"function: expected a network of a recipe; got '{place}'"):
            models.load(tmp_path / "other")
    io.save(tmp_path / "weights", weights, {"recipe": "cifar-resnet"})
    with pytest.raises(ValueError, match="expected a model; got the weights alone of recipe 'cifar-resnet'"):
        models.load(tmp_path / "weights")


# ------------------------------------------------------------------------------------------------ wrong files


@pytest.fixture
def started(tmp_path):
    X, y = blobs()
    MLP((8,)).fit(X, y, epochs=2, checkpoint=tmp_path / "c", schedule=schedules.cosine())
    return tmp_path / "c"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(batch_size=32), "batch_size: expected 64, as in the checkpoint .*c; got 32"),
        (dict(lr=0.5), "lr: expected 0.001, as in the checkpoint"),
        (dict(optimizer="sgd"), "optimizer: expected Adam, as in the checkpoint .*; got SGD"),
        (dict(epochs=4), "steps: expected 10, as in the checkpoint .*; got 20"),
        (dict(schedule=None), "schedule: expected cosine.*; got None"),
        (dict(shuffle=False), "shuffle: expected True"),
        (dict(validation=0.5), "x: expected float32"),
        (dict(resume="nowhere"), "nowhere: expected a file; got nothing there"),
        (dict(checkpoint=None, resume=True), "resume: expected a path, or True together with checkpoint"),
        (dict(checkpoint="/nowhere/at/all"), "checkpoint: expected a file in a folder that exists"),
        (dict(resume=3.5), "resume: expected a path; got float"),
    ],
)
def test_another_run_is_refused(started, change, message):
    X, y = blobs()
    options = dict(epochs=2, checkpoint=started, resume=started, schedule=schedules.cosine()) | change
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        MLP((8,)).fit(X, y, **options)


def test_other_data_and_models_are_refused(started, tmp_path):
    X, y = blobs()
    options = dict(epochs=2, resume=started, schedule=schedules.cosine())
    with pytest.raises(ValueError, match="x: expected float32 .300, 8. .*; got float32 .300, 8."):
        MLP((8,)).fit(X + 1, y, **options)
    with pytest.raises(ValueError, match=r"hidden: expected \[8\], as in the checkpoint .*; got \[9\]"):
        MLP((9,)).fit(X, y, **options)
    MLP((8,)).fit(X, y, epochs=1).save(tmp_path / "m")
    with pytest.raises(ValueError, match="expected a state of kind 'checkpoint'; got a model, MLP"):
        MLP((8,)).fit(X, y, epochs=2, resume=tmp_path / "m")
    with pytest.raises(ValueError, match="every: expected a number of updates of at least 1; got 0"):
        Checkpoint(tmp_path / "c", every=0)


def test_every_flipped_byte_is_noticed(started):
    whole = started.read_bytes()
    for at in [*range(0, 400, 7), *range(400, len(whole), len(whole) // 60)]:
        started.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="expected"):
            io.load(started)
    for cut in range(0, len(whole), len(whole) // 20):
        started.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="expected a whole safetensors file"):
            io.load(started)


def repacked(path, change):
    """The file with other metadata."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(path, framework="np") as file:
        about, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(about)
    save_file(arrays, path, metadata=about)


def test_an_old_format_number_hides_no_damage(tmp_path):
    path = tmp_path / "w"
    io.save(path, {"a": np.arange(4, dtype=np.float32)})
    repacked(path, lambda about: about.update(fastdl_format="1"))
    io.load(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="expected contents that match the file's digest"):
        io.load(path)
    path.write_bytes(whole)
    repacked(path, lambda about: about.pop("digest"))
    np.testing.assert_array_equal(io.load(path)[0]["a"], np.arange(4))  # a true file of format 1
    repacked(path, lambda about: about.update(fastdl_format="2"))
    with pytest.raises(ValueError, match="expected a digest, as every file of format 2 or newer has; got none"):
        io.load(path)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({1: np.zeros(2)}, "weights: expected strings as keys; got 1"),
        ({"a": np.zeros(2), ("b", 0): np.zeros(2)}, r"weights: expected strings as keys; got \('b', 0\)"),
        ({"a": np.zeros(2, np.complex64)}, "weights: expected real numbers or booleans .*; got complex64 in 'a'"),
        ({"a": np.zeros(2, complex)}, "weights: expected real numbers or booleans .*; got complex128 in 'a'"),
        ({"a": np.array(["x", "yz"])}, "weights: expected real numbers or booleans .*; got <U2 in 'a'"),
        ({"a": np.array([b"x"])}, "weights: expected real numbers or booleans .*; got .S1 in 'a'"),
        ({"a": None}, "weights: expected real numbers or booleans .*; got object in 'a'"),
        ([np.zeros(2)], "weights: expected a dict of arrays; got list"),
    ],
)
def test_what_a_file_cannot_hold_is_named(tmp_path, weights, message):
    with pytest.raises(TypeError, match=message):
        io.save(tmp_path / "w", weights)
    assert not list(tmp_path.iterdir())


def test_no_path_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = MLP((2,)).build((3,), 2)
    for call in (models.load, MLP.load, model.save, io.load, lambda path: io.save(path, {"a": np.zeros(2)})):
        for path, what in ((None, "NoneType"), (3, "int")):
            with pytest.raises(TypeError, match=f"path: expected a path; got {what}"):
                call(path)
    assert not list(tmp_path.iterdir())
    io.save(b"w", {"a": np.zeros(2)})
    assert io.load("w")[0]["a"].shape == (2,)


@pytest.mark.parametrize("config", [True, "text", [1], np.ones(2)])
def test_a_description_is_a_dict_or_nothing_is_written(config, tmp_path):
    with pytest.raises(TypeError, match="config: expected a dict; got"):
        io.save(tmp_path / "w", {"a": np.ones(2)}, config)  # no load would have taken it
    assert not os.listdir(tmp_path)


def test_a_number_stays_a_number(tmp_path):
    io.save(tmp_path / "w", {"a": np.float32(3), "b": np.zeros((2, 0), np.int8)})
    back, _ = io.load(tmp_path / "w")
    assert back["a"].shape == () and back["a"] == 3 and back["b"].shape == (2, 0)


def test_a_file_that_is_written_again_stays_as_private_as_it_was(tmp_path):
    (tmp_path / "there").mkdir()
    path, link = tmp_path / "there" / "w", tmp_path / "link"
    io.save(path, {"a": np.zeros(3)})
    path.chmod(0o600)
    link.symlink_to(path)
    io.save(link, {"a": np.ones(3)})
    assert link.is_symlink() and path.stat().st_mode & 0o777 == 0o600
    assert io.load(path)[0]["a"].tolist() == [1, 1, 1]
    assert [p.name for p in tmp_path.rglob("*") if ".part" in p.name] == []


def test_the_order_of_bytes_is_the_files(tmp_path):
    for dtype in (">f4", "<f4", ">i8", "?", "f2"):
        a = np.arange(6).reshape(2, 3).astype(dtype)
        io.save(tmp_path / "w", {"a": a})
        back = io.load(tmp_path / "w")[0]["a"]
        np.testing.assert_array_equal(back, a)
        assert back.dtype == a.dtype.newbyteorder("<")


def test_a_model_file_with_other_settings_is_refused(tmp_path):
    MLP((8,)).fit(*blobs(), epochs=1).save(tmp_path / "m")
    weights, config = io.load(tmp_path / "m")
    for change, message in (
        ({"params": {"hidden": [9]}}, "expected the settings and weights of a MLP; got weights"),
        ({"params": {"depth": 3}}, "expected the settings and weights of a MLP; got .*unexpected keyword"),
        ({"classes": [1]}, "expected the settings and weights of a MLP; got classes"),
        ({"model": "Transformer"}, "expected one of .*; got 'Transformer'"),
        ({"input_shape": None}, "expected the settings and weights of a MLP; got"),
    ):
        io.save(tmp_path / "n", weights, config | change)
        with pytest.raises(ValueError, match=message):
            models.load(tmp_path / "n")
    del config["params"]
    io.save(tmp_path / "n", weights, config)
    with pytest.raises(ValueError, match="got no 'params'"):
        models.load(tmp_path / "n")


def test_nested_states_come_back(tmp_path):
    state = {"a": [1, 2.5, None, "x"], "b": {"c": np.arange(6).reshape(2, 3).T, "d": [np.ones(2, np.float32), {}]},
             "b/c": np.zeros(1), "e": float("inf"), "f": np.float64(0.1)}  # fmt: skip
    io.save_state(tmp_path / "s", "thing", state)
    back = io.load_state(tmp_path / "s", "thing")
    np.testing.assert_array_equal(back["b"]["c"], state["b"]["c"])
    np.testing.assert_array_equal(back["b"]["d"][0], [1, 1])
    assert back["a"] == state["a"] and back["b/c"].shape == (1,) and back["e"] == float("inf") and back["f"] == 0.1
    with pytest.raises(TypeError, match="config: expected what JSON can hold; got a set"):
        io.save_state(tmp_path / "s", "thing", {"a": {1, 2}})
    with pytest.raises(ValueError, match="expected a state of kind 'other'; got thing"):
        io.load_state(tmp_path / "s", "other")
    io.save(tmp_path / "s", {}, {"kind": "thing", "state": {"dict": {"x": {"array": "gone"}}}})
    with pytest.raises(ValueError, match="got one that lacks 'gone'"):
        io.load_state(tmp_path / "s", "thing")


# ------------------------------------------------------------------------------------------------ killed at any moment

TRAINING = """
import json, sys
sys.path[:0] = {path!r}
from test_models import blobs
from fastdl.checkpoint import Checkpoint
from fastdl.models import MLP
X, y = blobs()
print("ready", flush=True)
model = MLP((64, 64), dropout=0.2).fit(X, y, epochs={epochs}, batch_size=60, checkpoint=Checkpoint({file!r}, every=1),
                                       resume=True, validation=0.2)
print(json.dumps([model.history_["loss"], float(abs(model.get_weights()["layers.0.w"]).sum())]))
"""


def test_killed_at_random_moments(tmp_path):
    """kill -9, again and again, each time going on from what is there; the end is that of one quiet run."""
    file, epochs = tmp_path / "run.ckpt", 12
    program = TRAINING.format(path=[os.path.dirname(__file__)], file=str(file), epochs=epochs)
    chance, kills, found, out = random.Random(5), 0, 0, ""

    def seen():
        return file.stat().st_mtime_ns if file.exists() else 0

    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        if kills < 4:
            before, patience = seen(), time.monotonic() + 60
            while seen() == before and process.poll() is None and time.monotonic() < patience:
                time.sleep(0.001)  # until this process has written once, so that there is an end to it
            time.sleep(chance.uniform(0.0, 0.03))
            process.kill()
        out = process.communicate(timeout=120)[0]
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL
        kills += 1
        if file.exists():
            models.load(file)  # whole, whatever was going on
            found += 1
    assert kills >= 2 and found >= 2 and out
    X, y = blobs()
    model = MLP((64, 64), dropout=0.2).fit(X, y, epochs=epochs, batch_size=60, validation=0.2)
    loss, total = json.loads(out)
    assert loss == model.history_["loss"]
    assert total == float(abs(model.get_weights()["layers.0.w"]).sum())
    assert [p.name for p in tmp_path.iterdir()] == ["run.ckpt"]  # no litter of the killed


def test_command_line_goes_on(tmp_path):
    """A recipe that is killed between two epochs, and its --resume."""
    from fastdl import cli

    def run(*more):
        return cli.main(["train", "mnist-softmax", "--epochs", "3", "--seed", "100", *more])

    a, b, c = (str(tmp_path / n) for n in ("a", "b", "c.ckpt"))
    assert run("--save", a) == 0

    from fastdl.recipes import Config, _common
    from fastdl.recipes import run as run_recipe

    class Killed(BaseException):
        pass

    class Kill(_common.Table):
        def __call__(self, state):
            if state.epoch == 2:
                raise Killed

    before, _common.Table = _common.Table, Kill
    try:
        with pytest.raises(Killed):
            run_recipe("mnist-softmax", Config(epochs=3, seed=100, checkpoint=c, show=lambda text: None))
    finally:
        _common.Table = before
    assert run("--resume", c, "--save", b) == 0
    for name, w in io.load(a)[0].items():
        np.testing.assert_array_equal(w, io.load(b)[0][name])
    assert cli.main(["train", "mnist-softmax", "--epochs", "3", "--seed", "101", "--resume", c]) == 2
    assert run("--resume", str(tmp_path / "none")) == 2
