"""Deep Boltzmann machines against sums over every state of a small one; they learn and last."""

import numpy as np
import pytest

from fastdl import models
from fastdl.models import DBM

V, H1, H2 = 4, 3, 2


def bits(n):
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    net = DBM((H1, H2), mean_field=50, seed=1).build(V)
    m = net.module_
    for p in (m.w, m.b, m.c):
        p.data[...] = 0.8 * rng.standard_normal(p.data.shape)
    return net


def log_joint(model):
    """-E of every (v, h1, h2), float64 [2^V,2^H1,2^H2], written from the energy."""
    w, b, c = (a.astype(np.float64) for a in model.module_.arrays)
    w1, w2, b, c2 = w[:V], w[V:].T, b[:V], b[V:]
    v, h1, h2 = bits(V), bits(H1), bits(H2)
    pairs = (v @ w1 @ h1.T)[:, :, None] + (h1 @ w2 @ h2.T)[None]
    return (v @ b)[:, None, None] + (h1 @ c)[None, :, None] + (h2 @ c2)[None, None] + pairs


def test_partition_function_and_bound(model):
    log = log_joint(model)
    z = np.logaddexp.reduce(log.ravel())
    assert model.log_z() == pytest.approx(z, abs=1e-5)
    assert model.anneal(200, 500, seed=3).log_z == pytest.approx(z, abs=0.05)
    exact = np.logaddexp.reduce(log.reshape(2**V, -1), axis=1) - z
    bound = model.lower_bound(bits(V), model.log_z())
    assert (bound <= exact + 1e-5).all() and (exact - bound).mean() < 0.3
    assert (exact - bound).max() > 1e-4  # mean field is not exact here


def test_chains_have_the_exact_distribution(model):
    log = np.logaddexp.reduce(log_joint(model).reshape(2**V, -1), axis=1)
    p, n = np.exp(log - np.logaddexp.reduce(log)), 4000
    v = model.sample(n, steps=30, seed=2)
    count = np.bincount((v @ (1 << np.arange(V))).astype(int), minlength=2**V)
    chi2, freedom = ((count - n * p) ** 2 / (n * p)).sum(), 2**V - 1
    assert (chi2 / freedom) ** (1 / 3) < 1 - 2 / (9 * freedom) + 4.3 * np.sqrt(2 / (9 * freedom)), chi2


def test_mean_field_is_a_fixed_point(model):
    w, b, c = (a.astype(np.float64) for a in model.module_.arrays)
    x = bits(V)
    m1, m2 = model.transform(x, 1), model.transform(x)
    sigmoid = lambda a: 1 / (1 + np.exp(-a))
    np.testing.assert_allclose(m1, sigmoid(c + x @ w[:V] + m2 @ w[V:]), atol=1e-4)
    np.testing.assert_allclose(m2, sigmoid(b[V:] + m1 @ w[V:].T), atol=1e-4)


def test_it_learns_a_distribution(tmp_path):
    x = np.tile([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0]], (40, 1))
    model = DBM((8, 4), seed=2).fit(x, epochs=60, batch_size=20, lr=0.1)
    bound = model.lower_bound(x[:3], model.log_z())
    assert bound.mean() > -2.2 > -6 * np.log(2)  # log 3 at best; independent units -3.8
    made = model.sample(300, 200, seed=1)
    assert np.mean([any((m == row).all() for row in x[:3]) for m in made]) > 0.5
    assert model.reconstruct(x[:3]).shape == (3, 6)
    assert "6 visible units, 8 and 4 hidden units, 98 parameters" in model.summary()
    model.save(tmp_path / "m")
    again = models.load(tmp_path / "m")
    np.testing.assert_array_equal(again.sample(5, 3), model.sample(5, 3))
    np.testing.assert_array_equal(again.transform(x), model.transform(x))


def test_it_goes_on_bit_for_bit(tmp_path):
    x = (np.random.default_rng(0).random((60, 7)) < 0.3).astype(np.float32)
    new = lambda: DBM((5, 4), seed=2)
    whole = new().fit(x, epochs=3, batch_size=20)
    new().fit(x, epochs=2, batch_size=20, checkpoint=tmp_path / "c")
    resumed = new().fit(x, epochs=3, batch_size=20, resume=tmp_path / "c")
    np.testing.assert_array_equal(resumed.transform(x), whole.transform(x))
    np.testing.assert_array_equal(resumed.sample(4, 3), whole.sample(4, 3))


def test_wrong_use_is_named():
    for hidden in ((3,), 3, (2, 2, 2)):
        with pytest.raises(ValueError, match="hidden: expected two layers; got"):
            DBM(hidden)
    with pytest.raises(ValueError, match="hidden: expected at least 1; got 0"):
        DBM((3, 0))
    with pytest.raises(ValueError, match="mean_field: expected at least 1; got 0"):
        DBM(mean_field=0)
    with pytest.raises(ValueError, match="X: expected values from 0 to 1, for Bernoulli units; got 2"):
        DBM((2, 2)).fit(np.full((4, 3), 2.0))
    with pytest.raises(ValueError, match="layer: expected 1 or 2; got 3"):
        DBM((2, 2)).build(3).transform(np.zeros((1, 3)), 3)
    with pytest.raises(RuntimeError, match="expected a model that was built or fitted"):
        DBM((2, 2)).sample(1)
