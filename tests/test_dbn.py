"""Deep belief networks: greedy training, up-down training, the bound, the classifier, files."""

import inspect

import numpy as np
import pytest

from fastdl import models, schedules, train
from fastdl.checkpoint import Checkpoint
from fastdl.models import DBN, RBM
from fastdl.models._boltzmann import Trainer
from fastdl.models._supervised import Classifier
from fastdl.recipes import Config

RNG = np.random.default_rng(0)
PATTERNS = np.array([[1, 1, 0, 0, 1, 0, 1, 0], [0, 0, 1, 1, 0, 1, 0, 1]], np.float32)
X = np.abs(np.tile(PATTERNS, (100, 1)) - (RNG.random((200, 8)) < 0.1)).astype(np.float32)
LABELS = np.tile([3, 7], 100)
BEST = np.log(0.5) + 8 * (0.9 * np.log(0.9) + 0.1 * np.log(0.1))


@pytest.fixture(scope="module")
def stack():
    return DBN((6, 4), seed=100).pretrain(X, epochs=40, batch_size=20, lr=0.1, momentum=0.5)


def exact(dbn):
    """log p(v) of X, adding up all states of both hidden layers."""
    low, top = (r.get_weights() for r in dbn.stack_)
    every = ((np.arange(64)[:, None] >> np.arange(6)) & 1).astype(np.float64)
    log_top = -dbn.stack_[1].free_energy(every.astype(np.float32)).astype(np.float64) - dbn.stack_[1].log_z()
    p = 1 / (1 + np.exp(-(low["b"] + every @ low["w"].T)))
    log_v = X @ np.log(p).T + (1 - X) @ np.log1p(-p).T
    return np.logaddexp.reduce(log_v + log_top, axis=1)


def test_the_bound_is_below_the_exact_value(stack):
    bound, z = stack.lower_bound(X, 50, 500, samples=20)
    truth = exact(stack).mean()
    assert abs(z.log_z - stack.stack_[1].log_z()) < 0.1
    assert truth - 1.5 < bound < truth + 0.05
    assert truth > -8 * np.log(2) + 0.5


def test_up_down_training_raises_the_likelihood():
    dbn = DBN((6, 4), seed=101).pretrain(X, epochs=8, batch_size=20, lr=0.1)
    before = exact(dbn).mean()
    dbn.fine_tune(X, epochs=60, batch_size=20, lr=0.1)
    assert exact(dbn).mean() > before + 0.1


def test_callbacks_of_up_down_training_see_its_state():
    dbn, seen = DBN((6, 4), seed=101).pretrain(X, epochs=8, batch_size=20, lr=0.1), []
    begin = dbn.get_weights()

    def look(state):
        assert isinstance(state, train.State)
        seen.append((state.epoch, state.step, state.total, state.loss))
        if state.epoch == 1:
            state.keep()
            seen.append(dbn.get_weights())
        if state.epoch == 3:
            state.restore()
            state.stop = True

    dbn.fine_tune(X, epochs=5, batch_size=20, lr=0.1, callbacks=look)
    first = seen.pop(1)
    history = dbn.fine_tune_history_
    assert seen == [(e, 10 * e, 50, history["error"][e - 1]) for e in (1, 2, 3)]
    assert history["epoch"] == [1, 2, 3] and len(history["seconds"]) == 3 and history["stopped"] == "callback"
    for name, a in dbn.get_weights().items():  # as they were after the first epoch, the recognition weights included
        np.testing.assert_array_equal(a, first[name], err_msg=name)
        assert np.array_equal(a, begin[name]) == (name.endswith(("chain_v", "chain_h", "base")) or name == "machine0.c"), name
    back = dbn.stack_[0].inverse_transform(dbn.stack_[1].reconstruct(dbn._up(X)[0][0]))
    assert history["error"][0] == pytest.approx(np.mean((X - back) ** 2), rel=1e-6)


def test_samples_look_like_the_data(stack):
    drawn = stack.sample(200, 100, seed=5) > 0.5
    assert (np.abs(drawn[:, None] - PATTERNS).sum(-1).min(1) <= 2).mean() > 0.75
    assert stack.transform(X).shape == (200, 4)


def test_classifier_begins_with_the_stack_and_learns(stack, tmp_path):
    stack.save(tmp_path / "stack")
    dbn = models.load(tmp_path / "stack")
    dbn.build((8,), [3, 7])
    np.testing.assert_array_equal(dbn.module_.get_weights()["layers.0.w"], stack.stack_[0].get_weights()["w"])
    dbn.fit(X, LABELS, epochs=10, batch_size=20, lr=0.01)
    assert dbn.score(X, LABELS) > 0.97
    dbn.save(tmp_path / "all")
    again = DBN.load(tmp_path / "all")
    np.testing.assert_array_equal(again.predict_proba(X), dbn.predict_proba(X))
    np.testing.assert_array_equal(again.sample(3, 10), dbn.sample(3, 10))


def test_going_on(tmp_path):
    whole = DBN((6, 4), seed=2).pretrain(X, epochs=3, batch_size=20).fit(X, LABELS, epochs=3)
    place = tmp_path / "run"
    DBN((6, 4), seed=2).pretrain(X, epochs=[3, 1], batch_size=20, checkpoint=place)
    again = DBN((6, 4), seed=2).pretrain(X, epochs=3, batch_size=20, checkpoint=place, resume=place)
    again.fit(X, LABELS, epochs=2, checkpoint=tmp_path / "net")
    assert isinstance(models.load(tmp_path / "net"), DBN)
    again.fit(X, LABELS, epochs=3, checkpoint=tmp_path / "net", resume=True)
    for name, a in whole.get_weights().items():
        np.testing.assert_array_equal(a, again.get_weights()[name], err_msg=name)


def test_going_on_for_longer(tmp_path):
    """The lower machine learns on, so that what the upper one learned from is no more: it begins anew."""
    place = tmp_path / "run"
    DBN((6, 4), seed=2).pretrain(X, epochs=2, batch_size=20, checkpoint=place)
    longer = DBN((6, 4), seed=2).pretrain(X, epochs=3, batch_size=20, checkpoint=place, resume=True)
    whole = DBN((6, 4), seed=2).pretrain(X, epochs=3, batch_size=20)
    for name, a in whole.get_weights().items():
        np.testing.assert_array_equal(a, longer.get_weights()[name], err_msg=name)
    with pytest.raises(ValueError, match="resume: expected a path, or True together with checkpoint"):
        DBN((6, 4)).pretrain(X, resume=True)


class Killed(BaseException):
    pass


def kill_at(count):
    """A callback that ends a run at its call of that number, before what it did is written."""
    calls = []

    def callback(state):
        calls.append(state)
        if len(calls) == count:
            raise Killed

    return callback


@pytest.mark.parametrize("asked", ["True", "path"])
@pytest.mark.parametrize(("at", "left"), [(2, 50), (5, 20), (8, 0)])  # in either machine, in the classifier
def test_fit_goes_on_where_its_pretraining_was(at, left, asked, tmp_path, monkeypatch):
    place, stop = tmp_path / "run", kill_at(at)
    how = {"batch_size": 20, "momentum": 0.5, "algorithm": "pcd"}

    def fit(pretrain, **options):
        return DBN((6, 4), dropout=0.2, seed=2).fit(X, LABELS, pretrain={"epochs": 3, **how, **pretrain}, epochs=3, **options)

    whole = fit({})
    with pytest.raises(Killed):
        fit({"callbacks": stop}, checkpoint=place, callbacks=stop)
    updates, update = [], Trainer.update
    monkeypatch.setattr(Trainer, "update", lambda *args: (updates.append(1), update(*args)))
    again = fit({}, checkpoint=Checkpoint(place, every=1), resume=True if asked == "True" else place)
    assert len(updates) == left
    for name, a in whole.get_weights().items():
        np.testing.assert_array_equal(a, again.get_weights()[name], err_msg=name)
    assert {**whole.history_, "seconds": 0} == {**again.history_, "seconds": 0}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["run", "run.0", "run.1"]


def test_wrong_pretraining_or_a_missing_checkpoint_is_named_before_any_machine_is_trained(tmp_path):
    for wrong, kind in (("3", "str"), (2.5, "float"), (True, "bool")):
        with pytest.raises(TypeError, match=f"pretrain: expected a number of epochs or a dict of options; got {kind}"):
            DBN((6, 4)).fit(X, LABELS, pretrain=wrong)
    with pytest.raises(ValueError, match="pretrain: expected 0 or more; got -1"):
        DBN((6, 4)).fit(X, LABELS, pretrain=-1)
    with pytest.raises(TypeError, match="pretrain: expected options among .*batch_size.*momentum.*; got 'epoch'"):
        DBN((6, 4)).fit(X, LABELS, pretrain={"epoch": 10**9})
    with pytest.raises(TypeError, match="resume: expected a path; got float"):
        DBN((6, 4)).fit(X, LABELS, pretrain={"epochs": 10**9}, resume=1.5)
    with pytest.raises(FileNotFoundError, match="run"):
        DBN((6, 4)).fit(X, LABELS, pretrain={"epochs": 10**9}, resume=tmp_path / "run")


def test_a_number_says_the_epochs_of_pretraining():
    model = DBN((6, 4), seed=2).fit(X, LABELS, pretrain=2, epochs=1)
    assert [len(rbm.history_["epoch"]) for rbm in model.stack_] == [2, 2]
    same = DBN((6, 4), seed=2).fit(X, LABELS, pretrain={"epochs": 2}, epochs=1)
    for name, a in model.get_weights().items():
        np.testing.assert_array_equal(a, same.get_weights()[name], err_msg=name)
    for none in (None, 0, False):
        assert not hasattr(DBN((6, 4)).fit(X, LABELS, pretrain=none, epochs=1), "stack_")


def test_machines_learn_nothing_from_samples_that_are_only_judged():
    def fit(x):
        return DBN((6, 4), seed=2).fit(x, LABELS, pretrain=2, epochs=1, validation=0.25)

    model = fit(X)
    _, held = model._shares(len(X), 0.25)
    other = X.copy()
    other[held] = 1 - other[held]
    assert len(held) == 50 and fit(other).history_["val_loss"] != model.history_["val_loss"]
    for name, a in fit(other).get_weights().items():
        np.testing.assert_array_equal(a, model.get_weights()[name], err_msg=name)
    with pytest.raises(ValueError, match="validation: expected .X, y. or a share between 0 and 1 of 200 samples; got 2.0"):
        DBN((6, 4)).fit(X, LABELS, pretrain=1, validation=2.0)  # before any machine is trained


def test_a_run_that_goes_on_wants_the_pretraining_that_it_had(tmp_path):
    """Its weights come from the file: what other machines learned would be lost on it."""
    place = tmp_path / "run"

    def fit(pretrain, epochs=2, **options):
        return DBN((6, 4), seed=2).fit(X, LABELS, pretrain=pretrain, epochs=epochs, checkpoint=place, **options)

    first = fit({"epochs": 3, "momentum": np.float32(0.5)})
    held = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    for other, got in ((5, "{'epochs': 5}"), ({"epochs": [3, 4], "momentum": 0.5}, r"{'epochs': \[3, 4\], 'momentum': 0.5}")):
        for resume in (True, place):
            message = f"pretrain: expected {{'epochs': 3, 'momentum': 0.5}}, as in the checkpoint .*run; got {got}"
            with pytest.raises(ValueError, match=message):
                fit(other, resume=resume)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == held  # no machine was trained
    same = fit({"epochs": 3, "momentum": 0.5, "callbacks": lambda state: None}, resume=True)
    np.testing.assert_array_equal(same.predict_proba(X), first.predict_proba(X))
    assert not hasattr(fit(None, resume=True, epochs=3), "stack_")  # the classifier goes on by itself
    with pytest.raises(ValueError, match="pretrain: expected {'epochs': 3"):
        fit(5, resume=True)  # and its file still says what it began with
    fit(None)
    with pytest.raises(ValueError, match="pretrain: expected None, as in the checkpoint .*run; got {'epochs': 5}"):
        fit(5, resume=True)


def test_each_machine_has_a_schedule_of_its_own():
    """One that follows the error of the machine below would begin where that ended."""
    options = lambda: {"epochs": 3, "batch_size": 20, "schedule": schedules.plateau(0.5, 0, 10.0)}  # never contented
    model = DBN((6, 4), seed=2).pretrain(X, **options())
    below = model.stack_[0].transform(X)
    alone = RBM(4, seed=3).fit(below, lr=0.05, algorithm="cd", stochastic=True, **options())
    np.testing.assert_array_equal(model.stack_[1].get_weights()["w"], alone.get_weights()["w"])


def test_the_options_of_fit_are_those_of_every_classifier(monkeypatch):
    """An option that `Classifier.fit` learns is no unknown one where machines are trained first."""
    fit, seen = Classifier.fit, []

    def longer(self, X, y, *, novelty=None, **options):
        seen.append(novelty)
        return fit(self, X, y, **options)

    own = inspect.signature(fit)
    new = inspect.Parameter("novelty", inspect.Parameter.KEYWORD_ONLY, default=None)
    *known, options = own.parameters.values()
    longer.__signature__ = own.replace(parameters=[*known, new, options])
    monkeypatch.setattr(Classifier, "fit", longer)
    DBN((3,)).fit(X, LABELS, pretrain={"epochs": 1}, novelty=7, epochs=1, smoothing=0.1, optimizer="sgd", lr=0.1)
    assert seen == [7]


def test_a_stack_is_found_again_by_the_files_of_its_machines(tmp_path):
    config = Config(resume=tmp_path / "run")
    assert config.lasting("stack")["resume"] is None  # not begun
    (tmp_path / "run.stack.0").touch()
    assert config.lasting("stack") == {"checkpoint": f"{tmp_path}/run.stack", "resume": f"{tmp_path}/run.stack"}


def test_a_new_stack_may_see_other_data():
    dbn = DBN((3, 2)).pretrain(X, epochs=1)
    assert dbn.pretrain(X[:, :5].copy(), epochs=1).transform(X[:, :5].copy()).shape == (200, 2)


def test_bad_input_is_named(stack):
    with pytest.raises(ValueError, match="hidden: expected one layer or more"):
        DBN(()).pretrain(X)
    with pytest.raises(ValueError, match="epochs: expected one number, or 2; got 3"):
        DBN((3, 2)).pretrain(X, epochs=[1, 2, 3])
    with pytest.raises(ValueError, match="lr: expected one number, or 2; got 1"):
        DBN((3, 2)).pretrain(X, lr=[0.1])
    for wrong, error, message in (
        ({"epochs": [10**9, -1]}, ValueError, "epochs: expected 0 or more; got -1"),
        ({"epochs": 10**9, "lr": [0.1, "a"]}, TypeError, "lr: expected 0 or more; got 'a'"),
    ):
        with pytest.raises(error, match=message):
            DBN((3, 2)).pretrain(X, **wrong)  # before the first machine is trained
    with pytest.raises(ValueError, match=r"X: expected samples of shape \[8\]"):
        stack.fit(X[:, :5], LABELS)
    with pytest.raises(RuntimeError, match="DBN: expected a stack that was trained by pretrain; got none"):
        DBN().sample()
    with pytest.raises(ValueError, match="X: expected values from 0 to 1"):
        DBN((3,)).pretrain(X * 3)


def test_wrong_arguments_cost_neither_what_was_learned_nor_the_time_of_pretraining():
    dbn = DBN((6, 4), seed=2).fit(X, LABELS, pretrain={"epochs": 1}, epochs=1)
    before, hidden = dbn.predict_proba(X), dbn.transform(X)
    for wrong, error in ({"wrong": 1}, TypeError), ({"patience": 0}, ValueError), ({"lr": "high"}, TypeError):
        with pytest.raises(error, match=next(iter(wrong))):
            dbn.fit(X, LABELS, pretrain={"epochs": 10**9}, **wrong)  # before any machine was trained
    for wrong in ({"watch": "nothing"}, {"smoothing": 2.0}):  # found later
        with pytest.raises(ValueError, match=next(iter(wrong))):
            dbn.fit(X, LABELS, pretrain={"epochs": 1}, **wrong)
        np.testing.assert_array_equal(dbn.predict_proba(X), before)
        np.testing.assert_array_equal(dbn.transform(X), hidden)


def test_the_bound_holds_for_values_that_are_all_but_impossible():
    dbn = DBN((6, 4), seed=100).pretrain(X, epochs=1)
    low = dbn.stack_[0].module_
    low.w.data[...], low.b.data[...] = 0, -40
    (bound, _), truth = dbn.lower_bound(np.ones((1, 8)), 20, 100), -8 * 40
    assert bound == pytest.approx(truth, abs=0.5)


def test_wrong_use_of_a_stack_is_named(stack):
    with pytest.raises(ValueError, match="X: expected one sample or more; got none"):
        stack.lower_bound(X[:0])
    with pytest.raises(TypeError, match="lr: expected a finite number; got '1'"):
        stack.fine_tune(X, lr="1")
