"""Restricted Boltzmann machines as models: learning, likelihood, files, going on bit for bit, bad input."""

import numpy as np
import pytest

from fastdl import models, schedules
from fastdl.models import RBM

RNG = np.random.default_rng(0)
PATTERNS = np.array([[1, 1, 0, 0, 1, 0], [0, 0, 1, 1, 0, 1]], np.float32)
X = np.abs(np.tile(PATTERNS, (100, 1)) - (RNG.random((200, 6)) < 0.1)).astype(np.float32)
BEST = np.log(0.5) + 6 * (0.9 * np.log(0.9) + 0.1 * np.log(0.1))  # entropy of what X was drawn from
Y = RNG.normal(size=(300, 3)) * [0.5, 1, 2] + [1, 2, 3]


@pytest.mark.parametrize("algorithm", ["cd", "pcd"])
@pytest.mark.parametrize("value", [0.0, 5.0])
def test_a_constant_column_does_no_harm_where_the_variance_is_given(value, algorithm):
    rng = np.random.default_rng(7)
    plain = rng.standard_normal((600, 3)) * 0.5 + rng.integers(0, 2, (600, 1)) * [2, -2, 1]
    plain = (plain - plain.mean(0)) / plain.std(0)

    def machine(x):
        return RBM(5, "gaussian", seed=1).fit(x, epochs=60, batch_size=20, lr=0.01, algorithm=algorithm)

    both = np.column_stack([plain, np.full(600, value)])
    without, rbm = machine(plain), machine(both)
    off, off_without = (m.reconstruct(x)[:, :3] - plain for m, x in ((rbm, both), (without, plain)))
    assert (off_without**2).mean() < 0.6  # it has learned something; the means alone leave 1
    assert (off**2).mean() == pytest.approx((off_without**2).mean(), rel=0.1)
    # The unit's values are drawn with the variance that was given, about the column's value.
    assert np.abs(rbm.reconstruct(both)[:, 3] - value).max() < 0.2
    drawn = rbm.sample(2000, 100, seed=3, start=np.repeat(both[:1], 2000, 0))[:, 3]
    assert abs(drawn.mean() - value) < 0.2 and abs(drawn.std() - 1) < 0.1


@pytest.mark.parametrize("algorithm", ["cd", "pcd", "fpcd", "tempering"])
def test_every_algorithm_learns_the_distribution(algorithm):
    rbm = RBM(4, seed=100).fit(X, epochs=80, batch_size=20, lr=0.1, algorithm=algorithm, temperatures=4, momentum=0.5,
                               schedule=lambda t, total: 1 - t / total)  # fmt: skip
    # independent units would have -6 log 2 = -4.16
    assert rbm.log_likelihood(X).mean() > BEST - 0.35
    assert rbm.history_["error"][-1] < 0.12


@pytest.mark.parametrize("options", [{"centre": True}, {"sparsity": 0.3}, {"weight_decay": 1e-3}, {"k": 5}])
def test_options_learn(options):
    rbm = RBM(4, seed=100).fit(X, epochs=60, batch_size=20, lr=0.1, algorithm="cd", momentum=0.5, **options)
    assert rbm.log_likelihood(X).mean() > BEST - 0.7
    if "sparsity" in options:
        free = RBM(4, seed=100).fit(X, epochs=60, batch_size=20, lr=0.1, algorithm="cd", momentum=0.5)
        aim = options["sparsity"]
        assert abs(rbm.transform(X).mean() - aim) < abs(free.transform(X).mean() - aim)


def test_annealing_meets_the_exact_sum():
    rbm = RBM(6, seed=100).fit(X, epochs=30, batch_size=20, lr=0.1)
    z, exact = rbm.anneal(100, 1000, seed=1), rbm.log_z()
    assert abs(z.log_z - exact) < 0.1 and abs(z.reverse - exact) < 0.1 and z.error < 0.1
    assert z.low < z.log_z < z.high
    total = np.exp(rbm.log_likelihood(((np.arange(64)[:, None] >> np.arange(6)) & 1).astype(np.float32))).sum()
    assert abs(total - 1) < 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"visible": "gaussian", "variance": "data"},
        {"visible": "gaussian", "variance": "learned"},
        {"visible": "softmax", "visible_group": 3},
        {"hidden_units": "gaussian"},
        {"hidden_units": "relu"},
        {"hidden_units": "softmax", "hidden_group": 2},
    ],
)
def test_units(settings):
    x = Y if settings.get("visible") == "gaussian" else X
    if settings.get("visible") == "softmax":
        x = np.eye(3, dtype=np.float32)[RNG.integers(0, 3, (200, 2)) * [1, 0]].reshape(200, 6)
    rbm = RBM(4, seed=100, **settings).fit(x, epochs=20, batch_size=20, lr=0.005, algorithm="cd")
    assert np.isfinite(rbm.history_["error"]).all() and rbm.history_["error"][-1] <= x.var() + 0.2
    z = rbm.anneal(50, 300)
    assert abs(z.log_z - z.reverse) < 0.5
    if settings.get("hidden_units") in (None, "gaussian"):
        assert abs(z.log_z - rbm.log_z()) < 0.2
    assert rbm.sample(3, 5).shape == (3, x.shape[1])


def test_gaussian_units_find_mean_and_variance():
    rbm = RBM(2, visible="gaussian", variance="learned", seed=100).fit(Y, epochs=40, batch_size=30, lr=0.01)
    drawn = rbm.sample(2000, 50, seed=3)
    np.testing.assert_allclose(drawn.mean(0), [1, 2, 3], atol=0.35)
    np.testing.assert_allclose(drawn.std(0), [0.5, 1, 2], rtol=0.25)


def test_a_variance_may_be_any_real_number(tmp_path):
    rbm = RBM(2, visible="gaussian", variance=np.float32(2), seed=1).fit(Y, epochs=1)
    np.testing.assert_array_equal(rbm.module_.variance, np.float32(2))
    rbm.save(tmp_path / "rbm")
    np.testing.assert_array_equal(RBM.load(tmp_path / "rbm").transform(Y), rbm.transform(Y))


def test_missing_values_are_filled_in():
    rbm = RBM(4, seed=100).fit(X, epochs=60, batch_size=20, lr=0.1)
    broken = PATTERNS.copy()
    broken[:, 3:] = np.nan
    full = rbm.impute(broken)
    np.testing.assert_array_equal(full[:, :3], PATTERNS[:, :3])
    assert np.abs(full - PATTERNS).max() < 0.35
    np.testing.assert_array_equal(rbm.impute(PATTERNS), PATTERNS)
    np.testing.assert_array_equal(rbm.impute((255 * PATTERNS).astype(np.uint8)), PATTERNS)


@pytest.mark.parametrize("algorithm", ["cd", "pcd", "fpcd", "tempering"])
def test_going_on_gives_the_bits_of_a_run_that_never_stopped(algorithm, tmp_path):
    options = {"batch_size": 30, "algorithm": algorithm, "momentum": 0.5, "temperatures": 3, "centre": True, "sparsity": 0.2}
    whole = RBM(5, seed=4).fit(X, epochs=6, **options)
    file = tmp_path / "run.ckpt"

    def stop(state):
        state.stop = state.epoch == 3

    RBM(5, seed=4).fit(X, epochs=6, checkpoint=file, callbacks=[stop], **options)
    again = RBM(5, seed=4).fit(X, epochs=6, checkpoint=file, resume=True, **options)
    for name, array in whole.get_weights().items():
        np.testing.assert_array_equal(array, again.get_weights()[name], err_msg=name)
    assert whole.history_["error"] == again.history_["error"]
    assert isinstance(models.load(file), RBM)


def test_file_keeps_the_chains(tmp_path):
    rbm = RBM(5, seed=4).fit(X, epochs=2)
    rbm.save(tmp_path / "m")
    again = RBM.load(tmp_path / "m")
    np.testing.assert_array_equal(rbm.sample(4, 10), again.sample(4, 10))
    np.testing.assert_array_equal(rbm.free_energy(X), again.free_energy(X))
    assert "6 bernoulli visible units" in again.summary()


def test_partial_fit_goes_on():
    rbm = RBM(4, seed=100)
    for _ in range(100):
        for at in range(0, 200, 20):
            rbm.partial_fit(X[at : at + 20], lr=0.05)
    assert rbm.log_likelihood(X).mean() > BEST - 0.7
    assert rbm.score(X) > -6 * np.log(2)
    speed = rbm._trainer
    rbm.partial_fit(X[:50], lr=0.05)  # a larger batch moves the same chains
    assert rbm._trainer is speed and len(rbm.module_.chain_v) == 20


@pytest.mark.parametrize(
    "settings, x, options, message",
    [
        ({}, X * 2, {}, "X: expected values from 0 to 1, for Bernoulli units; got 2"),
        ({}, X - 0.5, {}, "X: expected values from 0 to 1"),
        ({}, np.where(X > 0, np.nan, X), {}, "X: expected finite numbers; got nan"),
        ({"visible": "gaussian", "variance": "data"}, np.ones((5, 2)), {}, "X: expected columns that vary.*column 0 constant"),
        ({"visible": "gaussian", "variance": "learned"}, np.column_stack([Y, Y[:, 0] * 0 + 5]), {},
         r"X: expected columns that vary.*\(a number as variance takes constant ones\); got column 3 constant"),
        ({"visible": "softmax", "visible_group": 3}, X, {}, "X: expected groups of 3 values that add up to 1"),
        ({"visible": "softmax", "visible_group": 4}, X, {}, "visible_group: expected a divisor of 6 units"),
        ({"visible": "poisson"}, X, {}, "visible: expected one of bernoulli, gaussian, softmax"),
        ({"hidden": 0}, X, {}, "hidden: expected at least 1; got 0"),
        ({"variance": -1.0}, X, {}, "variance: expected a number above 0"),
        ({}, X, {"k": 0}, "k: expected at least 1; got 0"),
        ({}, X, {"algorithm": "cd9"}, "algorithm: expected one of cd, pcd"),
        ({}, X, {"sparsity": 1.5}, "sparsity: expected 0 < sparsity < 1"),
        ({}, X, {"chains": 0}, "chains: expected at least 1"),
        ({}, X[:0], {}, "X: expected one sample or more; got none"),
    ],
)
def test_bad_input_is_named(settings, x, options, message):
    with pytest.raises(ValueError, match=message):
        RBM(**settings).fit(x, epochs=1, **options)


class Counter:
    """A callback with a state."""

    def __init__(self):
        self.count = 0

    def __call__(self, state):
        self.count += 1

    def get_state(self):
        return {"count": self.count}

    def set_state(self, state):
        self.count = state["count"]


def test_a_schedule_may_follow_the_error(tmp_path):
    follow = lambda: schedules.plateau(0.5, patience=0, min_delta=10.0)  # never contented
    seen = []
    rbm = RBM(8, seed=1)
    rbm.fit(X, epochs=4, batch_size=20, schedule=follow(), callbacks=lambda state: seen.append(rbm._trainer.optimizer.lr))
    assert seen == [0.05, 0.05, 0.025, 0.0125]
    place, counts = tmp_path / "c", (Counter(), Counter())
    RBM(8, seed=1).fit(X, epochs=2, batch_size=20, schedule=follow(), callbacks=counts[0], checkpoint=place)
    again = RBM(8, seed=1).fit(X, epochs=4, batch_size=20, schedule=follow(), callbacks=counts[1], resume=place)
    np.testing.assert_array_equal(again.transform(X), rbm.transform(X))
    assert [c.count for c in counts] == [2, 4]


def test_a_fresh_machine_says_so():
    with pytest.raises(RuntimeError, match="RBM: expected a model that was built or fitted; got a fresh one"):
        RBM().free_energy(X)


def test_divergence_is_reported():
    rbm = RBM(8, visible="gaussian", hidden_units="gaussian")
    with pytest.raises(FloatingPointError, match="RBM: weights became infinite or NaN in epoch"):
        rbm.fit(Y * 100, epochs=50, batch_size=20, lr=10.0)


@pytest.mark.parametrize("params, x, lr", [({}, X, 1e4), ({"visible": "gaussian", "variance": "learned"}, None, 1.0)])
def test_finite_divergence_is_reported(params, x, lr):
    x = np.random.default_rng(0).standard_normal((200, 6)) if x is None else x
    with pytest.warns(RuntimeWarning, match=rf"the training has diverged; a smaller lr than {lr:g} may help"):
        RBM(20, seed=1, **params).fit(x, epochs=5, lr=lr)


@pytest.mark.parametrize(
    "params, x",
    [
        ({}, np.concatenate([np.zeros((1000, 6)), RNG.integers(0, 2, (1000, 6))])),
        ({}, np.ones((1, 6))),
        ({"visible": "gaussian"}, np.repeat([0.01, 5.0], 1000)[:, None] * RNG.standard_normal((2000, 6))),
        ({"visible": "gaussian"}, np.ones((50, 6))),
    ],
)
def test_odd_data_are_not_taken_for_divergence(params, x):
    RBM(8, seed=1, **params).fit(x, epochs=2, lr=1e-4)  # a warning is an error here


def test_weights_come_with_the_chains_that_they_had():
    with_chains = RBM(4, seed=1).fit(X, epochs=2, algorithm="pcd", chains=7)
    fresh = RBM(4, seed=2).build(6).set_weights(with_chains.get_weights())
    np.testing.assert_array_equal(fresh.sample(7, 3), with_chains.sample(7, 3))
    without = RBM(4, seed=1).fit(X, epochs=2, algorithm="cd")
    with_chains.set_weights(without.get_weights())  # of another number, here none
    np.testing.assert_array_equal(with_chains.sample(7, 3), without.sample(7, 3))
    weights = fresh.get_weights()
    weights["chain_h"] = weights["chain_h"][:, :3]
    with pytest.raises(ValueError, match=r"weights\['chain_h'\]: expected shape \[N,4\], N at least 1; got \[7, 3\]"):
        with_chains.set_weights(weights)
    weights["chain_h"] = fresh.get_weights()["chain_h"][:3]
    with pytest.raises(ValueError, match=r"weights\['chain_h'\]: expected 7 rows, as weights\['chain_v'\] has; got 3"):
        with_chains.set_weights(weights)
    del weights["chain_h"]
    with pytest.raises(ValueError, match=r"weights\['chain_h'\]: expected 7 rows, as weights\['chain_v'\] has; got 0"):
        with_chains.set_weights(weights)
    np.testing.assert_array_equal(with_chains.sample(7, 3), without.sample(7, 3))


def test_recipes(monkeypatch):
    """On the embedded digits, short: the figures are there, and the estimate is near the exact value."""
    from fastdl import recipes
    from fastdl.recipes import mnist_rbm, rbm_exact

    monkeypatch.delenv("FASTDL_DATA", raising=False)
    for module in (mnist_rbm, rbm_exact):
        monkeypatch.setattr(module, "TEMPERATURES", 300)
        monkeypatch.setattr(module, "CHAINS", 20)
    monkeypatch.setattr(mnist_rbm, "HIDDEN", 16)
    found = recipes.run("rbm-exact", recipes.Config(epochs=2, seed=100)).metrics
    assert abs(found["log_z_ais"] - found["log_z_exact"]) < 1.0
    assert found["test_ll"] > -300
    report = recipes.run("mnist-rbm", recipes.Config(epochs=1, seed=100, long=True))
    assert report.settings["k"] == mnist_rbm.LONG
    report = recipes.run("mnist-rbm", recipes.Config(epochs=2, seed=100))
    assert report.settings["k"] == mnist_rbm.STEPS
    assert {"test_ll", "log_z", "log_z_err", "log_z_upper", "converged"} <= set(report.metrics)
    assert report.metrics["test_ll"] > -300


def test_centring_leaves_the_gradient_of_the_variances_alone():
    def variances(centre):
        rbm = RBM(4, visible="gaussian", variance="learned", seed=3).fit(Y, epochs=0)
        for p in (rbm.module_.w, rbm.module_.b, rbm.module_.c):
            p.data[...] += np.random.default_rng(0).normal(size=p.data.shape)
        options = dict(epochs=1, batch_size=300, algorithm="cd", lr=0.01, centre=centre, warm_start=True)
        return rbm.fit(Y, **options).module_.variance

    np.testing.assert_array_equal(variances(True), variances(False))


def test_groups_are_missing_as_a_whole():
    x = np.eye(3, dtype=np.float32)[RNG.integers(0, 3, (40, 2))].reshape(40, 6)
    rbm = RBM(4, visible="softmax", visible_group=3).fit(x, epochs=1)
    filled = rbm.impute([[np.nan] * 3 + [0, 1, 0]])
    np.testing.assert_allclose(filled.reshape(2, 3).sum(1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match="X: expected groups of 3 values, all known or all NaN; got a part"):
        rbm.impute([[np.nan, 1, 0, 0, 1, 0]])
    with pytest.raises(ValueError, match="X: expected groups of 3 values that add up to 1"):
        rbm.impute([[np.nan] * 3 + [2, 3, 4]])


def test_wrong_use_is_named():
    rbm = RBM(3).fit(X, epochs=1)
    for name, use in (
        ("steps", lambda: rbm.gibbs(X, 1.5)),
        ("steps", lambda: rbm.sample(2, 1.5)),
        ("burn_in", lambda: rbm.impute(X * np.nan, burn_in=1.5)),
        ("temperatures", lambda: rbm.anneal(4, 10.5)),
        ("reverse_steps", lambda: rbm.anneal(4, 10, reverse_steps=1.5)),
        ("sparsity_cost", lambda: rbm.fit(X, sparsity_cost="1")),
    ):
        with pytest.raises(TypeError, match=f"^{name}: expected"):
            use()
    for scale in (1e-25, 1e25):  # variances beyond float32
        with pytest.raises(ValueError, match="X: expected columns that vary.* got column 0 of variance"):
            RBM(3, visible="gaussian", variance="data").fit(Y * scale, epochs=1)


@pytest.mark.parametrize("settings", [{"hidden_units": "relu"}, {"hidden_units": "softmax", "hidden_group": 2}])
def test_few_visible_units_have_an_exact_sum(settings):
    rbm = RBM(4, **settings).fit(X, epochs=1)
    rbm.module_.w.data[...] = np.random.default_rng(0).normal(size=(6, 4))
    every = ((np.arange(64)[:, None] >> np.arange(6)) & 1).astype(np.float32)
    assert rbm.log_z() == pytest.approx(np.logaddexp.reduce(-rbm.free_energy(every).astype(np.float64)), abs=1e-5)
