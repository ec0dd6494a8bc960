"""Estimators: scikit-learn's own checks, all of them, and the tools that people use estimators with."""

import pickle
import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.exceptions import ConvergenceWarning, NotFittedError  # noqa: E402
from sklearn.linear_model import LogisticRegression  # noqa: E402
from sklearn.model_selection import GridSearchCV, cross_val_score  # noqa: E402
from sklearn.neural_network import BernoulliRBM  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import MinMaxScaler, StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import check_estimator  # noqa: E402

from fastdl.sklearn import (  # noqa: E402
    RBM,
    Autoencoder,
    CNNClassifier,
    CNNRegressor,
    DBNClassifier,
    MLPClassifier,
    MLPRegressor,
    RNNClassifier,
    RNNRegressor,
)
from test_models import blobs, stripes  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = {
    "mlp classifier": MLPClassifier(),
    "mlp regressor": MLPRegressor(),
    "cnn classifier": CNNClassifier(width=8),
    "cnn regressor": CNNRegressor(width=8),
    "rnn classifier": RNNClassifier(units=16),
    "rnn regressor": RNNRegressor(units=16),
    "autoencoder": Autoencoder((8,), n_components=2),
    "rbm": RBM(8),
    "dbn classifier": DBNClassifier((16,), pretrain_iter=3),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_scikit_learns_own_checks(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the checks look for those that matter
        results = check_estimator(ESTIMATORS[name], on_fail=None)
    failed = {r["check_name"]: repr(r["exception"])[:300] for r in results if r["status"] not in ("passed", "skipped")}
    assert failed == {}
    assert len(results) > 45
    skipped = [str(r["exception"]) for r in results if r["status"] == "skipped"]
    # what another package's absence skips, never a tag of ours
    assert all("pandas" in s or "SCIPY_ARRAY_API" in s for s in skipped), skipped


def test_pipeline_search_and_cross_validation():
    X, y = blobs(200, spread=1.0)
    X = X * 50 + 1000
    labels = np.array(["red", "green", "blue"])[y]
    pipe = make_pipeline(StandardScaler(), MLPClassifier((16,), max_iter=30, learning_rate_init=0.01, random_state=0))
    assert cross_val_score(pipe, X, labels, cv=3).mean() > 0.9
    search = GridSearchCV(pipe, {"mlpclassifier__alpha": [1e-4, 1e3]}, cv=2).fit(X, labels)
    assert search.best_params_ == {"mlpclassifier__alpha": 1e-4}
    assert set(search.predict(X)) == {"red", "green", "blue"}
    images, kinds = stripes(90, 8)
    rows = images.reshape(90, 64)
    net = CNNClassifier((8, 8), width=8, max_iter=20, random_state=0)
    assert cross_val_score(net, rows, kinds, cv=2).min() > 0.85


def test_parallel_workers_read_a_memory_mapped_file(tmp_path):
    joblib = pytest.importorskip("joblib")
    X, y = blobs(150)
    rows = X.astype(np.float32)
    joblib.dump(rows, tmp_path / "x.joblib")
    mapped = joblib.load(tmp_path / "x.joblib", mmap_mode="r")
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable
    net = MLPClassifier((8,), max_iter=5, random_state=1)
    want = clone(net).fit(rows, y).predict_proba(rows)
    with joblib.parallel_config(backend="threading"):
        got = joblib.Parallel(n_jobs=2)(joblib.delayed(clone(net).fit)(mapped, y) for _ in range(2))
    for one in got:
        np.testing.assert_array_equal(one.predict_proba(mapped), want)


@pytest.mark.slow
def test_parallel_processes_give_the_same_search():
    X, y = blobs(150)
    net = MLPClassifier((8,), max_iter=10, learning_rate_init=0.01, random_state=1)
    grid = {"alpha": [1e-4, 1e2]}
    alone, together = (GridSearchCV(net, grid, cv=2, n_jobs=n).fit(X, y) for n in (1, 2))
    np.testing.assert_array_equal(alone.cv_results_["mean_test_score"], together.cv_results_["mean_test_score"])


def test_predictions_are_float64_and_independent_of_the_batch():
    X, y = blobs(120)
    net = MLPClassifier((16,), max_iter=5, random_state=0).fit(X, y)
    p = net.predict_proba(X)
    assert p.dtype == np.float64 and net.predict_log_proba(X).dtype == np.float64
    np.testing.assert_allclose(p.sum(1), 1.0, rtol=1e-14)
    for part in (slice(0, 1), slice(3, 50), slice(119, 120)):
        np.testing.assert_array_equal(net.predict_proba(X[part]), p[part])
    reg = MLPRegressor((16,), max_iter=5, random_state=0).fit(X, np.stack([X[:, 0], 1e6 * X[:, 1]], 1))
    q = reg.predict(X)
    assert q.dtype == np.float64 and q.shape == (120, 2)
    np.testing.assert_array_equal(reg.predict(X[7:9]), q[7:9])


def test_partial_fit_goes_on_with_its_optimiser():
    X, y = blobs(200)
    net = MLPClassifier((16,), learning_rate_init=0.01, random_state=0)
    with pytest.raises(ValueError, match="classes: expected all labels"):
        net.partial_fit(X, y)
    for _ in range(15):
        for part in (slice(0, 100), slice(100, 200)):
            net.partial_fit(X[part], y[part], classes=[0, 1, 2])
    assert net.n_iter_ == 30 and net._optimizer.t == 30 and len(net.loss_curve_) == 30
    assert net.score(*blobs(seed=1)) > 0.95
    with pytest.raises(ValueError, match=r"classes: expected \[0, 1, 2\]"):
        net.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"y: expected labels from \[0, 1, 2\]; got 7"):
        net.partial_fit(X, np.full(200, 7))
    reg = MLPRegressor((16,), learning_rate_init=0.01, random_state=0)
    for _ in range(60):
        reg.partial_fit(X, 1000 + 100 * X[:, 0])
    assert reg.score(X, 1000 + 100 * X[:, 0]) > 0.95


@pytest.mark.filterwarnings("ignore:max_iter")
def test_parameters_set_in_between_count_for_what_goes_on():
    X, y = blobs(100)
    more = {
        "fit": lambda net: net.fit(X, y),
        "partial_fit": lambda net: net.partial_fit(X, y),
    }
    for go_on in more.values():
        net = MLPClassifier((8,), max_iter=1, learning_rate_init=0.1, random_state=0, warm_start=True).fit(X, y)
        before, moments = net.model_.get_weights(), net._optimizer
        go_on(net.set_params(learning_rate_init=1e-9))
        for name, w in net.model_.get_weights().items():
            np.testing.assert_allclose(w, before[name], atol=1e-6)
        assert net._optimizer is moments and moments.t == 2  # which a learning rate leaves alone
        go_on(net.set_params(solver="sgd", momentum=0.5, learning_rate_init=0.2))
        assert net._optimizer.settings()["optimizer"] == "SGD" and net._optimizer.momentum == 0.5 and net._optimizer.lr == 0.2
        sgd, before = net._optimizer, net.model_.get_weights()
        with pytest.raises(ValueError, match="momentum: expected a number of 0 to 1; got 2"):
            go_on(net.set_params(momentum=2))
        assert net._optimizer is sgd
        for name, w in net.model_.get_weights().items():
            np.testing.assert_array_equal(w, before[name])
    net = Autoencoder(4, 2, learning_rate_init=0.1, random_state=0).partial_fit(X)
    before = net.transform(X)
    np.testing.assert_allclose(net.set_params(learning_rate_init=1e-9).partial_fit(X).transform(X), before, atol=1e-5)


def test_a_pickled_estimator_predicts_the_same_and_goes_on():
    X, y = blobs(100)
    net = MLPClassifier((16,), max_iter=5, random_state=0).fit(X, y)
    twin = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(twin.predict_proba(X), net.predict_proba(X))
    for one in (net, twin):
        one.partial_fit(X, y)
    np.testing.assert_array_equal(twin.predict_proba(X), net.predict_proba(X))


def test_seeds_warm_start_and_early_stopping():
    X, y = blobs(150)
    same = [MLPClassifier((8,), max_iter=3, random_state=s).fit(X, y).predict_proba(X) for s in (0, 0, 1)]
    assert np.array_equal(same[0], same[1]) and not np.array_equal(same[0], same[2])
    net = MLPClassifier((8,), max_iter=3, random_state=0, warm_start=True).fit(X, y)
    first = net.loss_
    assert net.fit(X, y).loss_ < first
    stopped = MLPClassifier((16,), learning_rate_init=0.02, early_stopping=True, random_state=0, n_iter_no_change=3).fit(X, y)
    assert stopped.n_iter_ < 200 and len(stopped.validation_scores_) == stopped.n_iter_
    assert stopped.best_validation_score_ == max(stopped.validation_scores_)
    for plan in ("cosine", "adaptive"):
        for solver in ("sgd", "adamw", "rmsprop", "adagrad"):
            MLPClassifier((4,), solver=solver, learning_rate=plan, max_iter=2, random_state=0).fit(X, y)
    with pytest.warns(ConvergenceWarning, match="max_iter: 2 passes"):
        MLPClassifier((8,), max_iter=2).fit(X, y)


def test_images_may_be_bytes():
    images, y = stripes(60, 8)
    rows = images.reshape(60, 64)
    a = CNNClassifier((8, 8), width=4, max_iter=2, random_state=0).fit(rows, y)
    b = CNNClassifier((8, 8), width=4, max_iter=2, random_state=0).fit(rows.astype(np.float32) * np.float32(1 / 255), y)
    np.testing.assert_array_equal(a.predict_proba(rows), b.predict_proba(rows.astype(np.float32) * np.float32(1 / 255)))


def test_rows_may_be_sequences():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((150, 12))
    y = X[:, 9:].sum(1) > 0  # the last of four steps
    net = RNNClassifier(4, units=8, cell="gru", max_iter=40, learning_rate_init=0.02, random_state=0).fit(X, y)
    assert net.model_.input_shape_ == (4, 3) and net.score(X, y) > 0.9
    np.testing.assert_array_equal(net.predict_proba(X[5:6]), net.predict_proba(X)[5:6])
    with pytest.raises(ValueError, match="n_steps: expected a divisor of 12"):
        RNNClassifier(5).fit(X, y)


def test_codes_restore_rows():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 2)) @ rng.standard_normal((2, 10))
    net = Autoencoder((32,), n_components=2, learning_rate_init=0.01, random_state=0).fit(X)
    codes = net.transform(X)
    assert codes.shape == (300, 2) and codes.dtype == np.float64
    assert np.mean((net.inverse_transform(codes) - X) ** 2) < 0.1 * X.var()
    assert net.score(X) > net.score(5.0 * rng.standard_normal((50, 10)))
    assert net.get_feature_names_out().tolist() == ["autoencoder0", "autoencoder1"]
    pipe = make_pipeline(StandardScaler(), Autoencoder((16,), 2, max_iter=5), MLPClassifier((8,), max_iter=5))
    assert pipe.fit(X, X[:, 0] > 0).predict(X).shape == (300,)


def test_machines_make_features_and_begin_classifiers():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 200)
    X = (rng.random((200, 16)) < np.where(y[:, None], np.tile([0.9, 0.1], 8), np.tile([0.1, 0.9], 8))).astype(float)
    machine = RBM(8, n_iter=20, learning_rate=0.1, random_state=0).fit(X)
    assert machine.visible_ == "bernoulli" and machine.transform(X).dtype == np.float64
    np.testing.assert_array_equal(machine.transform(X[3:5]), machine.transform(X)[3:5])
    assert machine.score_samples(X).mean() > machine.score_samples(rng.integers(0, 2, X.shape).astype(float)).mean()
    assert np.abs(machine.inverse_transform(machine.transform(X)) - X).mean() < 0.3
    more = RBM(8, random_state=0)
    for _ in range(3):
        more.partial_fit(X[:50])
    assert more.n_iter_ == 3
    judge = MLPClassifier((8,), max_iter=30, learning_rate_init=0.02, random_state=0)
    pipe = make_pipeline(RBM(8, n_iter=10, random_state=0), judge)
    assert pipe.fit(X, y).score(X, y) > 0.9
    np.testing.assert_allclose(machine.free_energy(X), machine.model_.free_energy(X))
    wide = RBM(4, n_iter=2, random_state=0).fit(1000 * X + 7)
    assert not hasattr(wide, "score_samples") and wide.free_energy(1000 * X + 7).shape == (200,)
    with pytest.raises(AttributeError, match="score_samples"):
        wide.score_samples(1000 * X + 7)
    assert wide.visible_ == "gaussian" and wide.inverse_transform(wide.transform(1000 * X + 7)).mean() > 100
    net = DBNClassifier((16, 8), pretrain_iter=5, max_iter=30, learning_rate_init=0.01, random_state=0).fit(X, y)
    assert net.score(X, y) > 0.9 and len(net.model_.stack_) == 2
    with pytest.raises(ValueError, match="visible: expected one of 'auto', 'bernoulli', 'gaussian'; got 'softmax'"):
        RBM(4, visible="softmax").fit(X)
    with pytest.raises(ValueError, match="algorithm: expected one of 'pcd'"):
        RBM(4, algorithm="gibbs").fit(X)


def test_scores_of_a_machine_are_those_of_scikit_learns():
    """Both give the pseudo-likelihood, one unit of each row flipped: their means over many draws of the unit agree."""
    X = (np.random.default_rng(0).random((4, 6)) < 0.4).astype(float)
    machine = RBM(5, n_iter=30, learning_rate=0.1, random_state=0).fit(X)
    np.testing.assert_array_equal(machine.score_samples(X), machine.model_.pseudo_likelihood(X))
    theirs = BernoulliRBM(5, n_iter=1, random_state=0).fit(X)
    weights = machine.model_.get_weights()
    theirs.components_, theirs.intercept_visible_ = weights["w"].T, weights["b"]
    theirs.intercept_hidden_ = weights["c"]
    many = np.repeat(X, 2000, 0)
    ours, wanted = (m.score_samples(many).reshape(4, 2000).mean(1) for m in (machine, theirs))
    np.testing.assert_allclose(ours, wanted, rtol=0.1)


def test_rows_a_little_beyond_those_of_the_fit_are_clipped():
    """MinMaxScaler, fitted to other rows, gives them."""
    X, y = blobs(150, spread=1.0)
    pipe = make_pipeline(MinMaxScaler(), RBM(4, n_iter=1, random_state=0), LogisticRegression())
    assert cross_val_score(pipe, X, y, cv=3, error_score="raise").shape == (3,)
    inside = MinMaxScaler().fit_transform(X)
    machine = RBM(4, n_iter=1, random_state=0).fit(inside)
    for judge in (machine.transform, machine.score_samples, machine.free_energy):
        np.testing.assert_array_equal(judge(inside * 1.2 - 0.1), judge(np.clip(inside * 1.2 - 0.1, 0, 1)))
    with pytest.raises(ValueError, match="X: expected values from 0 to 1"):
        RBM(4, visible="bernoulli").fit(inside * 1.2 - 0.1)
    with pytest.raises(ValueError, match="X: expected values from 0 to 1"):
        machine.partial_fit(inside * 1.2 - 0.1)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (dict(activation="swish"), "activation: expected one of 'identity'"),
        (dict(solver="lbfgs"), "solver: expected one of 'sgd'"),
        (dict(learning_rate="falling"), "learning_rate: expected one of 'constant'"),
        (dict(hidden_layer_sizes=(8, 0)), "hidden_layer_sizes: expected a whole number of at least 1; got 0"),
        (dict(max_iter=0), "max_iter: expected a whole number of at least 1; got 0"),
        (dict(batch_size=2.5), "batch_size: expected a whole number of at least 1; got 2.5"),
        (dict(alpha=-1), "alpha: expected a number of 0 to inf; got -1"),
        (dict(learning_rate_init=0), "learning_rate_init: expected a number of more than 0; got 0"),
        (dict(early_stopping=True, validation_fraction=1.0), "validation_fraction: expected a number of 0 to 1; got 1.0"),
        (dict(dropout=1.0), "dropout: expected a number of 0 to 0.999; got 1.0"),
        (dict(norm="group"), "norm: expected one of None, 'batch', 'layer'; got 'group'"),
    ],
)
def test_wrong_parameters_are_named(wrong, message):
    X, y = blobs(30)
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**wrong).fit(X, y)


def test_other_wrong_input_is_named():
    X, y = blobs(30, inputs=6)
    with pytest.raises(ValueError, match="image_shape: expected a shape of 6 values, as a row of X has; got"):
        CNNClassifier((2, 2)).fit(X, y)
    with pytest.raises(ValueError, match=r"image_shape: expected \(rows, columns\)"):
        CNNClassifier(6).fit(X, y)
    with pytest.raises(ValueError, match="architecture: expected 'small'"):
        CNNClassifier(architecture="vgg").fit(X, y)
    with pytest.raises(ValueError, match="float32's range"):
        MLPClassifier().fit(X * 1e300, y)
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)
    with pytest.raises(ValueError, match="got 1 class"):
        MLPClassifier().fit(X, np.zeros(30, int))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda X, y: MLPClassifier().fit(X, np.array(["a", 1] * 15, object)), TypeError, "y: expected labels of one.*int, str"),
        (lambda X, y: MLPClassifier().fit(X, np.array(["a", None] * 15, object)), TypeError, "y: expected labels.*NoneType, str"),
        (
            lambda X, y: MLPClassifier(max_iter=1).partial_fit(X, y, [0, 1, 2]).partial_fit(X, np.array(["a"] * 30, object)),
            (TypeError, ValueError),
            r"y: expected labels from \[0, 1, 2\]; got",
        ),
        (lambda X, y: MLPClassifier().fit(np.ma.masked_greater(X, 0), y), TypeError, "X: expected an array without mask"),
        (lambda X, y: MLPClassifier().fit(X, np.ma.masked_equal(y, 1)), TypeError, "y: expected an array without mask"),
        (lambda X, y: MLPRegressor().fit(X, np.ma.masked_equal(y, 1)), TypeError, "y: expected an array without mask"),
        (lambda X, y: RBM(2).fit(np.ma.masked_greater(X, 0)), TypeError, "X: expected an array without mask"),
        (lambda X, y: MLPRegressor().fit(X, y * 1e300), ValueError, "y: expected numbers whose squares are below 1e308"),
        (lambda X, y: RBM(2, n_iter=1).fit(X).inverse_transform(X), ValueError, "X: expected 2 columns.*got 6"),
        (lambda X, y: RBM(2, n_iter=1).fit(X).inverse_transform([[np.nan, 1]]), ValueError, "Input X contains NaN"),
        (lambda X, y: Autoencoder(3, 2, max_iter=1).fit(X).inverse_transform(X), ValueError, "X: expected 2 columns.*got 6"),
        (lambda X, y: Autoencoder(3, 2, max_iter=1).fit(X).inverse_transform([1.0, 2.0]), ValueError, "Expected 2D array"),
    ],
)
@pytest.mark.filterwarnings("ignore:max_iter")
def test_data_that_are_none_are_named(call, kind, message):
    X, y = blobs(30, inputs=6)
    with pytest.raises(kind, match=message):
        call(X, y)


SWITCHES = {  # taken by their truth
    "shuffle", "verbose", "warm_start", "nesterovs_momentum", "early_stopping", "bidirectional", "tied", "variational",
}  # fmt: skip


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("wrong", ["x", -1])
def test_every_wrong_parameter_is_named(name, wrong):
    X, y = blobs(30, inputs=4)
    for parameter in ESTIMATORS[name].get_params().keys() - SWITCHES:
        net = clone(ESTIMATORS[name])
        known = net.get_params()
        # what makes the parameter one that is used
        needs = {"momentum": {"solver": "sgd"}, "power_t": {"learning_rate": "invscaling"}, "noise_level": {"noise": "mask"},
                 "validation_fraction": {"early_stopping": True}}  # fmt: skip
        net.set_params(**{k: v for k, v in needs.get(parameter, {}).items() if k in known}, **{parameter: wrong})
        with pytest.raises((ValueError, TypeError), match=f"^{parameter}: expected "):
            net.fit(X, y)


@pytest.mark.parametrize("wrong", [dict(beta_1=2), dict(beta_2=1.0), dict(solver="sgd", momentum=1.0)])
def test_shares_below_1_go_by_their_own_names(wrong):
    with pytest.raises(ValueError, match=f"^{[*wrong][-1]}: expected a number of 0 to 1; got"):
        MLPClassifier(**wrong).fit(*blobs(30))


def test_a_plan_that_waits_is_checked_without_a_fit():
    X, y = blobs(30)
    with pytest.raises(ValueError, match="^n_iter_no_change: expected"):
        MLPClassifier(learning_rate="adaptive", n_iter_no_change="x").partial_fit(X, y, classes=[0, 1, 2])


def test_inverse_scaling_is_scikit_learns(monkeypatch):
    from sklearn.neural_network import MLPClassifier as Theirs
    from sklearn.neural_network._stochastic_optimizers import SGDOptimizer

    from fastdl.optim import SGD

    X, y = blobs(90)
    settings = dict(solver="sgd", learning_rate="invscaling", learning_rate_init=0.1, power_t=0.4, batch_size=40, random_state=0)
    used = {SGDOptimizer: [], SGD: []}

    def note(kind, step, rate):
        plain = getattr(kind, step)

        def noted(self, *args):
            used[kind].append(getattr(self, rate))
            return plain(self, *args)

        monkeypatch.setattr(kind, step, noted)

    note(SGDOptimizer, "update_params", "learning_rate"), note(SGD, "step", "lr")
    for make in (Theirs, MLPClassifier):
        net = make((4,), max_iter=3, **settings).fit(X, y)
        net.partial_fit(X[:50], y[:50]).partial_fit(X, y)
        assert net.t_ == 3 * 90 + 50 + 90
    assert len(used[SGD]) == 3 * 3 + 2 + 3
    np.testing.assert_allclose(used[SGD], used[SGDOptimizer], rtol=1e-12)
    # the optimiser of a warm start goes on, and so does its rate
    net = MLPClassifier((4,), max_iter=2, warm_start=True, **settings).fit(X, y)
    used[SGD].clear()
    assert net.fit(X, y).t_ == 4 * 90 and net._optimizer.lr == 0.1
    np.testing.assert_allclose(used[SGD], np.repeat([0.1 * 181**-0.4, 0.1 * 271**-0.4], 3), rtol=1e-12)
    assert net.set_params(warm_start=False).fit(X, y).t_ == 2 * 90
    for kind in (MLPRegressor((4,)), CNNClassifier(width=2), RNNClassifier(units=2), DBNClassifier((4,), pretrain_iter=1)):
        assert kind.set_params(learning_rate="invscaling", max_iter=1).fit(X, y).t_ == 90


def test_an_autoencoder_learns_in_parts():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 2)) @ rng.standard_normal((2, 6))
    net, twin, other = (Autoencoder((16,), 2, learning_rate_init=0.01, noise="mask", random_state=s) for s in (0, 0, 1))
    scores = [net.partial_fit(X).score(X) for _ in range(10)]
    assert scores[-1] > 0.5 * scores[0] and net.n_iter_ == len(net.loss_curve_) == 10
    assert net._optimizer.t == 10 * 2 and net.n_features_in_ == 6
    for _ in range(10):
        twin.partial_fit(X), other.partial_fit(X)
    assert twin.score(X) == scores[-1] != other.score(X)
    with pytest.raises(ValueError, match="X has 5 features"):
        net.partial_fit(X[:, :5])
    again = pickle.loads(pickle.dumps(net)).partial_fit(X)
    assert again.score(X) == net.partial_fit(X).score(X)
    fitted = Autoencoder((16,), 2, max_iter=3, random_state=0).fit(X)
    assert fitted.partial_fit(X).n_iter_ == 4 and fitted.fit(X).n_iter_ == 3


def test_bytes_are_values_from_0_to_1_for_fit_and_predict_alike():
    """The same numbers in another dtype would be other samples; scikit-learn's users expect them to be the same."""
    rng = np.random.default_rng(0)
    bits, pixels = rng.integers(0, 2, (40, 6)).astype(np.uint8), rng.integers(0, 256, (40, 6)).astype(np.uint8)
    y = bits[:, 0].astype(int)
    for estimator in (MLPClassifier((4,), max_iter=2), RBM(3, n_iter=1), DBNClassifier((3,), pretrain_iter=1, max_iter=1)):
        use = "predict" if hasattr(estimator, "predict") else "transform"
        with pytest.raises(ValueError, match="X: expected uint8 up to 255"):
            clone(estimator).fit(bits, y)
        with pytest.warns(UserWarning, match="X: uint8 of which none is above 1 is read as values from 0 to 1"):
            getattr(clone(estimator).fit(bits.astype(float), y), use)(bits)
        with pytest.raises(ValueError, match="X: expected floats on the scale of training"):
            getattr(clone(estimator).fit(pixels.astype(float), y), use)(pixels)
        with pytest.raises(ValueError, match="X: expected uint8, as in training, or values from 0 to 1"):
            getattr(clone(estimator).fit(pixels, y), use)(pixels.astype(float))
        getattr(clone(estimator).fit(pixels, y), use)(pixels / 255)


def test_a_wrong_number_is_told_before_a_stack_is_trained():
    X, y = blobs(60)
    model = DBNClassifier((3,), pretrain_iter=1, max_iter=1).fit(X, y)
    with pytest.raises(ValueError, match="learning_rate_init"):
        model.set_params(learning_rate_init=-1).fit(X, y + 5)
    assert set(model.predict(X)) <= set(model.classes_) == set(y) and model.n_iter_ == 1


def test_models_can_be_cloned():
    """Fresh ones with the same settings: scikit-learn asks that the constructor keeps what it is given."""
    from fastdl import models

    for name in models.__all__:
        if name not in ("load", "Forecaster"):
            model = getattr(models, name)()
            assert repr(clone(model)) == repr(model)


@pytest.mark.parametrize("estimator", [MLPClassifier((4,), max_iter=2), RBM(3, n_iter=1), Autoencoder((4,), 2, max_iter=1)])
def test_a_wrong_parameter_leaves_what_was_fitted(estimator):
    x = (np.random.default_rng(0).random((40, 6)) < 0.5).astype(float)
    y = x[:, 0].astype(int)
    fresh, use = clone(estimator).set_params(batch_size=0), "predict" if hasattr(estimator, "predict") else "transform"
    with pytest.raises(ValueError, match="batch_size"):
        fresh.fit(x, y)
    with pytest.raises(NotFittedError):
        getattr(fresh, use)(x)
    fitted = clone(estimator).fit(x, y)
    before = getattr(fitted, use)(x)
    with pytest.raises(ValueError, match="batch_size"):
        fitted.set_params(batch_size=0).fit(x, y)
    np.testing.assert_array_equal(getattr(fitted, use)(x), before)
