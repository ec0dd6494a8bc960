"""Ctrl-C in the families whose training loops are their own, and in recipes."""

import os
import signal

import numpy as np
import pytest

from fastdl import recipes, train
from fastdl._interrupts import interrupts_raised
from fastdl.models import DBN, GAN, MLP, RBM, Autoencoder, Perceptron

X = (np.random.default_rng(0).uniform(size=(600, 12)) < 0.5).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 2, 600)  # noise: no epoch is without a mistake


def interrupt_in(epoch):
    """A callback that asks for an end after an epoch, as if somebody pressed Ctrl-C early in the next."""

    def callback(state):
        if state.epoch == epoch:
            os.kill(os.getpid(), signal.SIGINT)

    return callback


FAMILIES = {
    "RBM": lambda **how: RBM(5).fit(X, batch_size=100, **how),
    "Perceptron": lambda **how: Perceptron().fit(X, Y, **how),
    "GAN": lambda **how: GAN(latent=3, hidden=(6,)).fit(X, batch_size=100, on_collapse="ignore", **how),
    "MLP": lambda **how: MLP((5,)).fit(X, Y, batch_size=100, **how),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_ctrl_c_ends_a_fit_and_leaves_the_model(family, tmp_path):
    fit, before = FAMILIES[family], signal.getsignal(signal.SIGINT)
    model = fit(epochs=50, callbacks=[interrupt_in(2)], checkpoint=tmp_path / "c")
    assert model.history_["stopped"] == "interrupted" and 2 <= len(model.history_["epoch"]) <= 3
    assert len({len(v) for v in model.history_.values() if isinstance(v, list)}) == 1
    assert signal.getsignal(signal.SIGINT) is before
    weights = model.get_weights()
    assert all(np.isfinite(a).all() for a in weights.values())
    # What goes on from its checkpoint ends where an uninterrupted run does.
    went_on, whole = fit(epochs=4, resume=tmp_path / "c"), fit(epochs=4)
    for name, a in whole.get_weights().items():
        np.testing.assert_array_equal(went_on.get_weights()[name], a)


@pytest.mark.parametrize("family", FAMILIES)
def test_ctrl_c_is_raised_where_training_is_not_all(family):
    with interrupts_raised(), pytest.raises(KeyboardInterrupt):
        FAMILIES[family](epochs=50, callbacks=[interrupt_in(1)])
    model = FAMILIES[family](epochs=50, callbacks=[interrupt_in(1)])
    assert model.history_["stopped"] == "interrupted"


def test_a_stack_is_whole_or_not_there():
    model = DBN((5, 4))
    with pytest.raises(KeyboardInterrupt):
        model.pretrain(X, epochs=50, callbacks=[interrupt_in(2)])
    with pytest.raises(RuntimeError, match="expected a stack that was trained by pretrain"):
        model.transform(X)


def test_ctrl_c_ends_up_down_training_and_leaves_the_model():
    def stack():
        return DBN((5, 4)).pretrain(X, epochs=1)

    model, before = stack(), signal.getsignal(signal.SIGINT)
    assert model.fine_tune(X, epochs=50, callbacks=[interrupt_in(2)]) is model
    history = model.fine_tune_history_
    assert history["stopped"] == "interrupted" and history["epoch"] == [1, 2, 3]
    assert len(history["error"]) == len(history["seconds"]) == 3
    assert signal.getsignal(signal.SIGINT) is before
    # It has every update up to the first of the third epoch, and no part of another.
    updates, up_down = [], DBN._up_down

    def stopped(self, *args):
        if len(updates) == 13:
            raise ZeroDivisionError
        updates.append(up_down(self, *args))

    same = stack()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(DBN, "_up_down", stopped)
        same.fine_tune(X, epochs=50)
    for name, a in same.get_weights().items():
        np.testing.assert_array_equal(model.get_weights()[name], a, err_msg=name)
    with interrupts_raised(), pytest.raises(KeyboardInterrupt):
        stack().fine_tune(X, epochs=50, callbacks=[interrupt_in(1)])


def test_ctrl_c_while_layers_are_trained_one_by_one_ends_them_all(monkeypatch):
    begun, fit = [], train.fit

    def counted(*args, **options):
        begun.append(1)
        return fit(*args, **options | {"callbacks": [interrupt_in(1)]})

    monkeypatch.setattr(train, "fit", counted)
    model = Autoencoder((8, 6), code=2).fit(X, epochs=9, pretrain=9)
    assert len(begun) == 1 and model.history_["stopped"] == "interrupted"
    assert np.isfinite(model.transform(X)).all()


@pytest.mark.parametrize("fit", [
    lambda **how: RBM(4).fit(X, **how), lambda **how: GAN(latent=3, hidden=(6,)).fit(X, on_collapse="ignore", **how),
    lambda **how: Perceptron().fit(X, Y, **how), lambda **how: DBN((4,)).pretrain(X, epochs=1).fine_tune(X, **how),
])  # fmt: skip
def test_a_run_that_failed_is_not_done(fit):
    kept = []

    def fail(state):
        kept.append(state.history)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(epochs=3, callbacks=fail)
    assert kept[0]["epoch"] == [1] and kept[0]["stopped"] == "failed"


def test_a_recipe_of_many_fits_ends_at_the_first(monkeypatch):
    begun, fit = [], train.fit

    def counted(*args, **options):
        begun.append(1)
        return fit(*args, **options | {"callbacks": [*options.get("callbacks", ()), interrupt_in(1)]})

    monkeypatch.setattr(train, "fit", counted)
    pytest.importorskip("sklearn")
    with pytest.raises(KeyboardInterrupt):
        recipes.run("complexity-sweep", recipes.Config(epochs=3))
    assert len(begun) == 1
