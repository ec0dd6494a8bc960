"""Boltzmann machines with labels: their probabilities and gradients against sums over every state; they learn and last."""

import numpy as np
import pytest

from fastdl import data, models
from fastdl.models import ClassificationRBM
from fastdl.tensor import Tensor


def bits(n):
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def log_joint(weights, x):
    """log of the sum over h of e^-E(y, x, h), float64 [N,C], state by state."""
    w, u, b, c, d = (weights[name].astype(np.float64) for name in "wubcd")
    h = bits(len(c))
    energy = -(x @ b)[:, None, None] - d[:, None] - (x @ w @ h.T)[:, None] - (h @ c) - (u @ h.T)
    return np.logaddexp.reduce(-energy, axis=2)


def log_softmax(a):
    return a - np.logaddexp.reduce(a, axis=1, keepdims=True)


@pytest.fixture
def model():
    """Of 5 inputs, 4 hidden units and 3 classes, with weights that matter."""
    rng = np.random.default_rng(0)
    net = ClassificationRBM(4, seed=1).build((5,), 3)
    return net.set_weights({k: rng.standard_normal(a.shape).astype(np.float32) for k, a in net.get_weights().items()})


def test_probabilities_are_sums_over_hidden_states(model):
    x = bits(5)
    joint = log_joint(model.get_weights(), x)
    np.testing.assert_allclose(model.predict_proba(x), np.exp(log_softmax(joint)), rtol=1e-4, atol=1e-6)
    y = np.arange(len(x)) % 3
    np.testing.assert_allclose(model.free_energy(x, y), -joint[np.arange(len(x)), y], rtol=1e-4, atol=1e-4)


def test_gradient_of_the_exact_log_probability(model):
    """What backpropagation gives for -log p(y | x) against differences of the sum over states."""
    rng = np.random.default_rng(1)
    x, y = rng.random((7, 5)), np.arange(7) % 3
    net = model.module_.train()
    net.flatten().zero_grad()
    model.objective, net.share, net.discriminative = "discriminative", 0.0, True
    loss = model._objective(0.0)(net(Tensor(x.astype(np.float32))), y)
    loss.backward()
    weights = {k: a.astype(np.float64) for k, a in model.get_weights().items()}
    at = lambda w: -log_softmax(log_joint(w, x))[np.arange(7), y].mean()
    assert loss.item() == pytest.approx(at(weights), rel=1e-5)
    for name, p in net.named_parameters():
        way = rng.standard_normal(p.data.shape)
        step = lambda e: at(weights | {name: weights[name] + e * way})  # noqa: B023
        slope = (step(1e-4) - step(-1e-4)) / 2e-4
        got = 0.0 if p.grad is None or p.beta == 0.0 else float((p.grad * way).sum())
        assert got == pytest.approx(slope, rel=2e-3, abs=2e-5), name


def test_generative_gradient_is_data_less_model(model):
    """-dF/dw of the samples less that of the states the chain went to, summed over hidden states one by one."""
    rng = np.random.default_rng(2)
    x, y = bits(5)[:6], np.arange(6) % 3
    net = model.module_.train()
    net.share, net.discriminative, net.k = 1.0, False, 2
    net.flatten().zero_grad()
    went = {}
    inner = net.gibbs
    net.gibbs = lambda v, *more: (inner(v, *more), went.update(v=v.copy()))
    loss = net.objective(None, net(Tensor(x.astype(np.float32))), y)
    del net.gibbs
    loss.backward()
    weights = {k: a.astype(np.float64) for k, a in model.get_weights().items()}
    other, label = went["v"][:, :5].astype(np.float64), went["v"][:, 5:].argmax(1)
    assert set(np.unique(other)) <= {0, 1} and (went["v"][:, 5:].sum(1) == 1).all()

    def at(w):
        each = np.arange(6)
        return (log_joint(w, other)[each, label] - log_joint(w, x)[each, y]).mean()

    assert loss.item() == pytest.approx(at(weights), rel=1e-4, abs=1e-5)
    for name, p in net.named_parameters():
        way = rng.standard_normal(p.data.shape)
        slope = (at(weights | {name: weights[name] + 1e-4 * way}) - at(weights | {name: weights[name] - 1e-4 * way})) / 2e-4
        assert float((p.grad * way).sum()) == pytest.approx(slope, rel=2e-3, abs=2e-5), name


@pytest.mark.parametrize("label", [None, 1])
def test_samples_have_the_exact_distribution(model, label):
    weights = {k: 0.7 * a for k, a in model.get_weights().items()}
    model.set_weights(weights)
    n = 4000
    x, y = model.sample(n, label, steps=30, seed=3)
    joint = log_joint(weights, bits(5))
    if label is not None:
        assert (y == label).all()
        joint = joint[:, [label]]
    p = np.exp(joint - np.logaddexp.reduce(joint.ravel())).ravel()
    place = (x @ (1 << np.arange(5))).astype(int)
    place = place * joint.shape[1] + (y if label is None else 0)
    count = np.bincount(place, minlength=p.size)
    few = n * p < 5  # cells for the test of Pearson, small ones together
    observed, expected = np.append(count[~few], count[few].sum()), n * np.append(p[~few], p[few].sum())
    keep = expected > 0
    chi2 = ((observed - expected)[keep] ** 2 / expected[keep]).sum()
    freedom = keep.sum() - 1
    assert (chi2 / freedom) ** (1 / 3) < 1 - 2 / (9 * freedom) + 4.3 * np.sqrt(2 / (9 * freedom)), chi2


@pytest.mark.parametrize("objective, least", [("discriminative", 0.7), ("hybrid", 0.7), ("generative", 0.35)])
def test_digits_are_learned(objective, least):
    d = data.load("mnist-embedded")
    x, y = d.x_train[:1000], d.y_train[:1000]
    net = ClassificationRBM(48, objective, seed=3).fit(x, y, epochs=6, batch_size=50, lr=5e-3)
    assert net.score(d.x_train[2000:2500], d.y_train[2000:2500]) > least


def test_it_lasts(tmp_path):
    d = data.load("mnist-embedded")
    x, y = d.x_train[:200], d.y_train[:200]
    make = lambda: ClassificationRBM(16, seed=2)
    whole = make().fit(x, y, epochs=3, batch_size=50)
    make().fit(x, y, epochs=2, batch_size=50, checkpoint=tmp_path / "c")
    resumed = make().fit(x, y, epochs=3, batch_size=50, resume=tmp_path / "c")
    np.testing.assert_array_equal(resumed.decision_function(x), whole.decision_function(x))
    whole.save(tmp_path / "m")
    again = models.load(tmp_path / "m")
    np.testing.assert_array_equal(again.predict_proba(x), whole.predict_proba(x))
    a, b = again.sample(3, steps=5), whole.sample(3, steps=5)
    assert a[0].shape == (3, 784) and np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1])


@pytest.mark.parametrize(
    "params, message",
    [
        (dict(hidden=0), "hidden: expected at least 1; got 0"),
        (dict(k=0), "k: expected at least 1; got 0"),
        (dict(objective="both"), "objective: expected one of discriminative, generative, hybrid; got 'both'"),
        (dict(weight=-1), "weight: expected 0 or more; got -1"),
    ],
)
def test_impossible_settings_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        ClassificationRBM(**params)


@pytest.mark.parametrize("bad", [1.5, -0.5, np.nan])
def test_values_must_be_chances(bad):
    x = np.full((4, 3), 0.5)
    x[1, 2] = bad
    with pytest.raises(ValueError, match=f"X: expected values from 0 to 1, for Bernoulli units; got {bad:g}"):
        ClassificationRBM(4).fit(x, [0, 1, 0, 1])


def test_steps_are_whole():
    model = ClassificationRBM(4).fit(np.full((4, 3), 0.5), [0, 1, 0, 1], epochs=1)
    with pytest.raises(TypeError, match="steps: expected an integer; got float"):
        model.sample(1, steps=1.5)
