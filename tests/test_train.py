"""The training loop: golden losses, reproducibility, stopping, interruption, explanations of what went wrong."""

import importlib.util
import json
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl import nn, optim, schedules, train
from fastdl.rows import Rows
from fastdl.tensor import Tensor

GOLDEN = Path(__file__).parent / "golden"


def golden_script():
    spec = importlib.util.spec_from_file_location("make_losses", GOLDEN / "make_losses.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def problem(n=200, inputs=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    x = rng.standard_normal((classes, inputs))[y] * 1.5 + rng.standard_normal((n, inputs))
    return x.astype(np.float32), y


def mlp(seed=0, dropout=0.0):
    layers = [nn.Dense(16, "relu"), *([nn.Dropout(dropout)] if dropout else []), nn.Dense(3)]
    return nn.Sequential(*layers).build((6,), seed)


def fit(m, x, y, lr=0.05, **options):
    opt = options.pop("optimizer", None) or optim.SGD(m, lr=lr, momentum=0.9)
    return train.fit(
        m, x, y, **{"loss": "softmax_cross_entropy", "optimizer": opt, "epochs": 3, "batch_size": 32} | options
    )


# ------------------------------------------------------------------------------------------------ ten golden losses


@pytest.mark.parametrize("rule", ["sgd", "adamw"])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_ten_losses(name, rule):
    script = golden_script()
    if name == "mlp":
        m = nn.Sequential(nn.Dense(12, "tanh"), nn.Dense(3)).build((20,))
    else:
        conv = nn.Conv2d(5, 3, padding="same", bias=False)
        m = nn.Sequential(conv, nn.BatchNorm(), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(3)).build((6, 6, 2))
    m.set_weights(script.weights(name) | dict(m.named_buffers()))
    x, y = script.batches(name)
    if rule == "sgd":
        opt = optim.SGD(m, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    else:
        opt = optim.AdamW(m, lr=0.01, weight_decay=0.1)
    losses = []
    fit(m, x.reshape(-1, *x.shape[2:]), y.reshape(-1), optimizer=opt, epochs=1, batch_size=script.N, shuffle=False,
        on_step=[lambda state: losses.append(state.loss)])  # fmt: skip
    assert len(losses) == script.STEPS
    np.testing.assert_allclose(losses, json.loads((GOLDEN / "losses.json").read_text())[f"{name}-{rule}"], rtol=2e-5)


def test_the_golden_file_is_what_its_script_makes():
    made, stored = golden_script().make(), json.loads((GOLDEN / "losses.json").read_text())
    assert made.keys() == stored.keys()
    for key in made:
        np.testing.assert_allclose(made[key], stored[key], rtol=1e-10)


# ------------------------------------------------------------------------------------------------ reproducibility


def weights_after(seed, threads, dropout=0.3):
    before = fastdl.get_num_threads()
    fastdl.set_num_threads(threads)
    try:
        m = nn.Sequential(
            nn.Conv2d(8, 3, padding="same"), nn.BatchNorm(), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
            nn.Dense(64, "relu"), nn.Dropout(dropout), nn.Dense(4),
        ).build((12, 12, 3), seed)  # fmt: skip
        rng = np.random.default_rng(5)
        x, y = rng.standard_normal((150, 12, 12, 3)).astype(np.float32), rng.integers(0, 4, 150)
        fit(m, x, y, optimizer=optim.Adam(m), epochs=2, seed=seed)
        return m.get_weights()
    finally:
        fastdl.set_num_threads(before)


def test_one_seed_gives_one_result_with_any_number_of_threads():
    one, two, again, other = weights_after(1, 1), weights_after(1, 2), weights_after(1, 2), weights_after(2, 2)
    for name, w in one.items():
        np.testing.assert_array_equal(w, two[name], err_msg=name)
        np.testing.assert_array_equal(w, again[name], err_msg=name)
    assert not np.array_equal(one["layers.5.w"], other["layers.5.w"])


def test_every_epoch_sees_every_sample_once_in_another_order():
    seen = []

    class Spy(nn.Module):
        def __init__(self):
            self.dense = nn.Dense(3, inputs=1)

        def forward(self, x):
            if self.training:
                seen.append(x.data.ravel().copy())
            return self.dense(x)

    x, y = np.arange(50, dtype=np.float32)[:, None] / 50, np.arange(50) % 3
    fit(Spy().initialise(0), x, y, epochs=2, batch_size=16)
    assert [len(b) for b in seen] == [16, 16, 16, 2] * 2
    first, second = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    for order in (first, second):
        np.testing.assert_array_equal(np.sort(order), x.ravel())
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, x.ravel())
    seen.clear()
    fit(Spy().initialise(0), x, y, epochs=1, batch_size=16, shuffle=False)
    np.testing.assert_array_equal(np.concatenate(seen), x.ravel())


def test_files_on_disk_train_like_arrays_in_memory(tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (90, 6), np.uint8), rng.integers(0, 3, 90)
    np.save(tmp_path / "u8.npy", x)
    np.save(tmp_path / "f32.npy", x.astype(np.float32) * np.float32(1 / 255))
    results = []
    for source in (x, np.load(tmp_path / "u8.npy", mmap_mode="r"), np.load(tmp_path / "f32.npy", mmap_mode="r")):
        m = mlp()
        fit(m, source, y, seed=3)
        results.append(m.flatten().snapshot())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])


def test_only_the_rows_of_a_batch_are_read(tmp_path):
    """A file much larger than what its batches need: pages that no batch touches stay out of memory."""
    shape = (1 << 18, 1024)  # 1 GiB, sparse on disk
    big = np.lib.format.open_memmap(tmp_path / "big.npy", "w+", np.float32, shape)
    rows = Rows(big, "x")
    before = resident()
    batch = rows.take(np.arange(0, shape[0], shape[0] // 64))
    assert batch.shape == (64, 1024)
    assert resident() - before < 64 << 20


def resident():
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        pytest.skip("resident memory is read from /proc")


# ------------------------------------------------------------------------------------------------ the run


def test_it_learns_and_records():
    x, y = problem()
    m = mlp()
    history = fit(m, x, y, epochs=20, validation=problem(seed=0), metrics={"accuracy": train.accuracy})
    assert history["epoch"] == list(range(1, 21))
    assert {len(history[k]) for k in ("loss", "lr", "seconds", "val_loss", "val_accuracy")} == {20}
    assert history["loss"][-1] < 0.3 * history["loss"][0]
    assert history["val_accuracy"][-1] > 0.9
    assert history["stopped"] == "done"
    assert not m.training
    result = train.evaluate(m, *problem(), loss="softmax_cross_entropy", metrics={"accuracy": train.accuracy})
    assert result["accuracy"] == history["val_accuracy"][-1]
    assert result["loss"] == history["val_loss"][-1]


def test_the_loss_of_an_epoch_weighs_samples_alike():
    x, y = problem(33)
    losses = []
    history = fit(mlp(), x, y, epochs=1, on_step=[lambda s: losses.append(s.loss)])
    assert history["loss"][0] == pytest.approx((32 * losses[0] + losses[1]) / 33)


def test_steps_instead_of_epochs():
    x, y = problem(100)
    taken = []
    history = fit(mlp(), x, y, steps=6, on_step=[lambda s: taken.append((s.epoch, s.step))])
    assert taken == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6)]
    assert history["epoch"] == [1, 2]


def test_schedule_sets_the_learning_rate():
    x, y = problem(64)
    rates = []
    m = mlp()
    opt = optim.SGD(m, lr=0.2)
    fit(
        m,
        x,
        y,
        optimizer=opt,
        epochs=2,
        schedule=schedules.step([2], 0.5),
        on_step=[lambda s: rates.append(s.optimizer.lr)],
    )
    assert rates == [0.2, 0.2, 0.1, 0.1]
    assert opt.lr == 0.2


def test_plateau_is_told_about_every_epoch():
    x, y = problem(64)
    rates = []
    m = mlp()
    fit(m, x, y, optimizer=optim.SGD(m, lr=0.0), epochs=4, schedule=schedules.plateau(0.5, patience=0),
        callbacks=[lambda s: rates.append(s.step)])  # fmt: skip
    assert rates == [2, 4, 6, 8]


def test_early_stopping_restores_the_best_weights():
    x, y = problem()
    m = nn.Sequential(nn.Dense(16), nn.BatchNorm(), nn.ReLU(), nn.Dense(3)).build((6,), 0)
    wrong = problem()[0], (problem()[1] + 1) % 3  # learning makes this validation worse from the start
    kept = {}

    def remember(state):
        kept[state.epoch] = m.get_weights()

    history = fit(m, x, y, epochs=50, validation=wrong, patience=3, callbacks=[remember])
    best = int(np.argmin(history["val_loss"])) + 1
    assert history["stopped"] == "early"
    assert history["epoch"][-1] == best + 3
    for name, w in m.get_weights().items():  # running statistics among them
        np.testing.assert_array_equal(w, kept[best][name], err_msg=name)
    assert not np.array_equal(kept[best]["layers.0.w"], kept[best + 3]["layers.0.w"])


def test_watching_a_metric_means_larger_is_better():
    x, y = problem()
    m = mlp()
    history = fit(m, x, y, epochs=6, validation=problem(), metrics={"score": lambda out, t: -float(len(history_of))},
                  watch="val_score", patience=2, callbacks=[lambda s: history_of.append(1)])  # fmt: skip
    assert history["stopped"] == "early"
    assert history["epoch"] == [1, 2, 3]
    with pytest.raises(ValueError, match="watch: expected one of loss; got 'val_loss'"):
        fit(mlp(), x, y, watch="val_loss")


history_of = []


def test_a_callback_can_stop():
    x, y = problem(64)
    history = fit(mlp(), x, y, epochs=9, callbacks=[lambda s: setattr(s, "stop", s.epoch == 2)])
    assert history["epoch"] == [1, 2]
    assert history["stopped"] == "callback"


class Shift:
    """Stands for an augmentation: adds a random constant."""

    def __init__(self):
        self.calls = []

    def draws(self, n, height, width):
        return n

    def __call__(self, images, seed, offset):
        self.calls.append((seed, offset))
        return images.astype(np.float32) / np.float32(255) + np.float32(0.25)


def test_augmentation_sees_training_batches_only():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (40, 4, 4, 1), np.uint8), rng.integers(0, 3, 40)
    m = nn.Sequential(nn.Flatten(), nn.Dense(3)).build((4, 4, 1))
    augment = Shift()
    fit(m, x, y, epochs=2, augment=augment, validation=(x, y))
    assert len(augment.calls) == 4
    assert len({offset for _, offset in augment.calls}) == 4
    assert len({seed for seed, _ in augment.calls}) == 1


# ------------------------------------------------------------------------------------------------ interruption


def test_ctrl_c_ends_after_the_update():
    x, y = problem()
    m = mlp()
    before = signal.getsignal(signal.SIGINT)

    def interrupt(state):
        if state.step == 3:
            os.kill(os.getpid(), signal.SIGINT)

    history = fit(m, x, y, epochs=50, on_step=[interrupt])
    assert history["stopped"] == "interrupted"
    assert len(history["loss"]) == 1
    assert signal.getsignal(signal.SIGINT) is before
    same = mlp()
    fit(same, x, y, steps=3)
    np.testing.assert_array_equal(m.flatten().data, same.flatten().data)  # exactly three updates


def test_ctrl_c_while_validating():
    x, y = problem()

    def metric(outputs, targets):
        os.kill(os.getpid(), signal.SIGINT)
        return 0.5

    history = fit(mlp(), x, y, epochs=9, validation=(x, y), metrics={"accuracy": metric})
    assert history["stopped"] == "interrupted"
    assert {k: len(v) for k, v in history.items() if k != "stopped"} == dict.fromkeys(
        ("epoch", "loss", "lr", "seconds", "val_loss", "val_accuracy"), 1
    )
    assert history["val_accuracy"] == [0.5]


def test_ctrl_c_before_validation():
    x, y = problem()

    def interrupt(state):
        if state.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    history = fit(mlp(), x, y, epochs=9, validation=(x, y), on_step=[interrupt])
    assert [np.isnan(v) for v in history["val_loss"]] == [False, True]


def test_ctrl_c_keeps_the_best_weights():
    x, y = problem()
    m = mlp()
    best = {}

    def after(state):
        if state.epoch == 1:
            best.update(m.get_weights())
        if state.epoch == 3:
            raise KeyboardInterrupt

    wrong = problem()[0], (problem()[1] + 1) % 3
    history = fit(m, x, y, epochs=9, validation=wrong, restore_best=True, callbacks=[after])
    assert history["stopped"] == "interrupted"
    assert int(np.argmin(history["val_loss"])) == 0
    for name, w in m.get_weights().items():
        np.testing.assert_array_equal(w, best[name])


def test_other_errors_pass_and_leave_things_in_order():
    x, y = problem()
    m = mlp()
    before = signal.getsignal(signal.SIGINT)
    opt = optim.SGD(m, lr=0.1)

    def fail(state):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fit(m, x, y, optimizer=opt, schedule=schedules.cosine(), on_step=[fail])
    assert signal.getsignal(signal.SIGINT) is before
    assert opt.lr == 0.1
    assert not m.training


# ------------------------------------------------------------------------------------------------ not finite


def failing(m, x, y, **options):
    with pytest.raises(FloatingPointError) as error:
        fit(m, x, y, **options)
    return str(error.value)


def test_a_nan_in_the_input_is_found():
    x, y = problem(64)
    x[40, 2] = np.nan
    m = mlp()
    before = m.get_weights()
    text = failing(m, x, y, epochs=2, shuffle=False, lr=0.0)
    assert text == (
        "loss: expected a finite number; got nan at epoch 1, step 2."
        " The input is not finite (first in row 8 of the batch)"
    )
    np.testing.assert_array_equal(m.get_weights()["layers.0.w"], before["layers.0.w"])


def test_a_layer_that_overflows_is_found():
    x, y = problem(64)
    m = nn.Sequential(nn.Dense(16, "relu"), nn.Sequential(nn.Dense(8), nn.Dense(3))).build((6,), 0)
    m.layers[1].layers[0].w.data[...] = 3e38
    text = failing(m, x, y)
    assert text.endswith("at epoch 1, step 1. The first output that is not finite is that of layers.1.layers.0 (Dense)")


def test_a_batch_that_is_not_finite_changes_nothing():
    x, y = problem(128)
    x[100] = np.nan
    m = nn.Sequential(nn.Dense(8), nn.BatchNorm(), nn.Dense(3)).build((6,), 0)
    same = m.clone()
    assert "The input is not finite (first in row 4 of the batch)" in failing(m, x, y, shuffle=False)
    fit(same, x[:96], y[:96], steps=3, shuffle=False)  # the batches before
    for (name, now), (_, expected) in zip(m.get_weights().items(), same.get_weights().items(), strict=True):
        np.testing.assert_array_equal(now, expected, err_msg=name)
    assert np.isfinite(train.predict(m, x[:96])).all()


def test_training_goes_on_while_another_thread_predicts():
    x, y = problem()
    served = mlp(seed=1)
    inside, leave = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def forward(self, x):
            inside.set()
            assert leave.wait(60)
            return x

    thread = threading.Thread(target=train.predict, args=(nn.Sequential(served, Waiting()), x))
    thread.start()
    assert inside.wait(60)
    try:
        history = fit(mlp(), x, y)
    finally:
        leave.set()
        thread.join()
    assert history["loss"][-1] < history["loss"][0]


def test_a_diverging_update_is_found():
    x, y = problem(64)
    text = failing(mlp(), x, y, lr=1e38, epochs=3)
    assert "at epoch 1, step 2" in text
    assert "layers." in text


def test_a_loss_that_is_finite_but_has_grown_is_warned_of():
    from fastdl.models import MLPRegressor

    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    with pytest.warns(RuntimeWarning, match=r"the training has diverged; a smaller lr than 1e\+06 may help"):
        MLPRegressor((8,), seed=1).fit(x, x[:, 0], epochs=2, lr=1e6)


def test_a_loss_that_had_grown_before_is_warned_of_by_the_run_that_goes_on(tmp_path):
    from fastdl.models import MLPRegressor

    x = np.random.default_rng(0).standard_normal((64, 3)).astype(np.float32)
    options = dict(lr=1e6, checkpoint=tmp_path / "c")
    with pytest.warns(RuntimeWarning, match="diverged"):
        MLPRegressor((8,), seed=1).fit(x, x[:, 0], epochs=2, **options)
    with pytest.warns(RuntimeWarning, match=r"after 3 epochs, and \d\.?\d* at first"):
        MLPRegressor((8,), seed=1).fit(x, x[:, 0], epochs=3, resume=True, **options)
    MLPRegressor((8,), seed=1).fit(x, x[:, 0], epochs=2, lr=1e6, restore_best=True, watch="loss")


def test_weights_that_were_never_filled_are_found():
    x, y = problem(64)
    m = nn.Sequential(nn.Dense(3, inputs=6))
    assert "Parameter layers.0.w is not finite (never initialised?" in failing(m, x, y)


def test_a_layer_that_was_never_filled_is_found_where_it_has_no_name():
    x, y = problem(64)

    class Net(nn.Module):
        def __init__(self):
            self.known, self._hidden = nn.Dense(3, inputs=6), nn.Dense(6, inputs=6)

        def forward(self, x):
            return self.known(self._hidden(x))

    assert "The first output that is not finite is that of ? (Dense)" in failing(Net().initialise(), x, y)


# ------------------------------------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"x": np.zeros((4, 6))}, TypeError, "x: expected float32, uint8 or int64; got float64"),
        ({"x": np.zeros((6, 4), np.float32).T}, TypeError, "x: expected a C-contiguous array"),
        ({"x": np.zeros((3, 6), np.float32)}, ValueError, "y: expected 3 targets, as many as samples in x; got 4"),
        ({"x": np.zeros((0, 6), np.float32), "y": np.zeros(0, np.int64)}, ValueError, "x: expected one sample or more"),
        ({"epochs": 0}, ValueError, "epochs: expected at least 1; got 0"),
        ({"batch_size": 0}, ValueError, "batch_size: expected at least 1"),
        ({"loss": "mean"}, ValueError, "loss: expected one of softmax_cross_entropy"),
        ({"loss": lambda output, target: 1.0}, TypeError, "loss: expected a function that gives a Tensor; got one that gives a"),
        ({"loss": lambda output, target: output}, ValueError, r"loss: expected a function that gives one number; got .4, 3"),
        ({"y": np.array([0, 1, 2, 3])}, ValueError, "labels: expected integers from -1 to 2; got 3"),
    ],
)
def test_bad_arguments_are_named(change, kind, message):
    given = {"x": np.zeros((4, 6), np.float32), "y": np.zeros(4, np.int64)} | change
    with pytest.raises(kind, match=message):
        fit(mlp(), given.pop("x"), given.pop("y"), **given)


def test_an_optimiser_of_other_parameters_is_refused():
    x, y = problem(8)
    with pytest.raises(ValueError, match="optimizer: expected one that was made for this module"):
        fit(mlp(), x, y, optimizer=optim.SGD(mlp()))


# ------------------------------------------------------------------------------------------------ prediction


def test_a_prediction_does_not_depend_on_its_batch():
    m, x = mlp(dropout=0.5), problem(100)[0]
    whole = train.predict(m, x, batch_size=100)
    for size in (1, 7, 64):
        np.testing.assert_array_equal(train.predict(m, x, batch_size=size), whole)
    assert m.training  # the mode is put back
    assert train.predict(m, x[:0]).shape == (0, 3)


def test_other_losses_and_targets():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 4)).astype(np.float32)
    y = x @ rng.standard_normal((4, 2)).astype(np.float32)
    for loss in ("mse", "mae", "huber", lambda out, t: fastdl.ops.mse(out, t)):
        m = nn.Sequential(nn.Dense(2)).build((4,))
        history = fit(m, x, y, loss=loss, optimizer=optim.Adam(m, lr=0.05), epochs=60)
        assert history["loss"][-1] < 0.1
    m = nn.Sequential(nn.Dense(2)).build((4,))
    history = fit(
        m, x, (y > 0).astype(np.float32), loss="binary_cross_entropy", optimizer=optim.Adam(m, lr=0.1), epochs=40
    )
    assert history["loss"][-1] < 0.2


def test_output_is_a_tensor():
    assert isinstance(mlp()(Tensor(problem(3)[0])), Tensor)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (dict(schedule="cosine"), TypeError, "schedule: expected a function .fastdl.schedules makes some.; got 'cosine'"),
        (dict(schedule=lambda t, total: "1"), TypeError, "schedule: expected 0 or more; got '1'"),
        (dict(schedule=lambda t, total: np.nan), ValueError, "schedule: expected 0 or more; got nan"),
        (dict(callbacks=3), TypeError, "callbacks: expected a function or a sequence of functions; got 3 in it"),
        (dict(on_step=[print, "a"]), TypeError, "on_step: expected a function .*; got 'a' in it"),
        (dict(augment=3), TypeError, "augment: expected a fastdl.data.Augment; got int"),
        (dict(augment=fastdl.data.Augment(shift=1)), ValueError, r"x: expected images \[N,Y,X,C\], to augment them; got"),
        (dict(min_delta="x"), TypeError, "min_delta: expected a finite number; got 'x'"),
        (dict(optimizer=None), TypeError, "optimizer: expected an Optimizer made for this module; got NoneType"),
    ],
)
def test_options_that_cannot_work_are_named_before_a_weight_changes(options, error, message):
    m, (x, y) = mlp(), problem(50)
    before = m.get_weights()
    given = dict(loss="softmax_cross_entropy", optimizer=optim.SGD(m), epochs=1) | options
    with pytest.raises(error, match=message):
        train.fit(m, x, y, **given)
    for name, value in m.get_weights().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(x=[[0.0] * 6] * 50), TypeError, r"x: expected an array \(fastdl.array makes one\); got list"),
        (dict(y=[0] * 50), TypeError, "y: expected an array .*; got list"),
        (dict(validation=3), TypeError, r"validation: expected \(x, y\) or a function; got int"),
        (dict(validation=([1], [2])), TypeError, "validation x: expected an array .*; got list"),
        (dict(validation=(problem(9)[0], problem(8)[1])), ValueError, "validation y: expected 9 targets, .*; got 8"),
        (dict(metrics=[train.accuracy]), TypeError, "metrics: expected a dict of functions by name; got list"),
        (dict(metrics={"share": 3}), TypeError, r"metrics\['share'\]: expected a function; got int"),
        (dict(metrics={"loss": train.accuracy}), ValueError, "metrics: expected names other than 'loss', .*; got 'loss'"),
        (dict(validation=(problem(9)[0].astype(float), problem(9)[1])), TypeError, "validation x: expected float32,.*float64"),
        (dict(x=np.float32(1)), ValueError, "x: expected one axis or more; got a single number"),
        (dict(loss=["mse"]), ValueError, r"loss: expected one of .* or a function; got \['mse'\]"),
    ],
    ids=lambda v: next(iter(v)) if isinstance(v, dict) else "",
)
def test_data_of_no_use_are_named_before_a_weight_changes(change, error, message):
    m, (x, y) = mlp(), problem(50)
    before = m.get_weights()
    given = dict(x=x, y=y, loss="softmax_cross_entropy", optimizer=optim.SGD(m), epochs=1) | change
    with pytest.raises(error, match=message):
        train.fit(m, **given)
    for name, value in m.get_weights().items():
        np.testing.assert_array_equal(value, before[name])


def test_scores_are_of_one_label_or_target_an_output():
    """Numbers that NumPy would have broadcast: a score that looks like one and is none."""
    outputs = np.array([[1, 2], [3, 1], [0, 5]], np.float32)
    assert train.accuracy(outputs, np.array([1, 0, 0])) == pytest.approx(2 / 3)
    assert train.accuracy(outputs[None], np.array([[1, -1, 0]])) == 0.5  # steps of a sequence, one of which has no label
    assert np.isnan(train.accuracy(outputs, np.full(3, -1)))
    with pytest.raises(ValueError, match=r"labels: expected shape \[n...\] for outputs \[n...,C\], \[3, 2\]; got \[3, 1\]"):
        train.accuracy(outputs, np.array([[1], [0], [0]]))
    column = outputs[:, :1]
    assert train.r2(column, column) == 1.0
    with pytest.raises(ValueError, match=r"targets: expected shape \[3, 1\], as outputs; got \[3\]"):
        train.r2(column, column[:, 0])


def test_wrong_arguments_of_a_judgement_are_named():
    m, (x, y) = mlp(), problem(50)
    with pytest.raises(ValueError, match="batch_size: expected at least 1; got 0"):
        train.predict(m, x, 0)
    for judge in (lambda: train.predict(None, x), lambda: train.evaluate(None, x, y, loss="mse")):
        with pytest.raises(TypeError, match="module: expected a Module; got NoneType"):
            judge()
    for score in (train.accuracy, train.r2):
        with pytest.raises(TypeError, match="outputs: expected an array .*; got NoneType"):
            score(None, y)
        with pytest.raises(TypeError, match="(labels|targets): expected an array .*; got list"):
            score(x, [1, 2])
    with pytest.raises(ValueError, match="loss: expected one of .*; got 'cross'"):
        train.evaluate(m, x, y, loss="cross")
    with pytest.raises(ValueError, match="x: expected one sample or more; got none"):
        train.evaluate(m, x[:0], y[:0], loss="softmax_cross_entropy")
    with pytest.raises(TypeError, match="y: expected an array .*; got list"):
        train.evaluate(m, x, y.tolist(), loss="softmax_cross_entropy")
    with pytest.raises(TypeError, match=r"metrics\['share'\]: expected a number; got 'x'"):
        train.evaluate(m, x, y, loss="softmax_cross_entropy", metrics={"share": lambda outputs, labels: "x"})
    with pytest.raises(ValueError, match="metrics: expected names other than 'loss'"):
        train.evaluate(m, x, y, loss="softmax_cross_entropy", metrics={"loss": train.accuracy})
    with pytest.raises(TypeError, match="validation: expected a function that returns a dict of numbers; got int"):
        fit(m, x, y, epochs=1, validation=lambda: 3)
    with pytest.raises(TypeError, match=r"validation\(\)\['loss'\]: expected a number; got 'low'"):
        fit(m, x, y, epochs=1, validation=lambda: {"loss": "low"})


@pytest.mark.parametrize("make", [lambda: mlp().freeze(), nn.ReLU])
def test_nothing_to_train_is_told(make):
    m, (x, y) = make(), problem(50)
    with pytest.raises(ValueError, match="module: expected a parameter that is not frozen; got none"):
        train.fit(m, x, y, loss="softmax_cross_entropy", optimizer=optim.SGD(m), epochs=1)
