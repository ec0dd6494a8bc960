"""Gibbs sampling: the distributions that chains settle in, against exact sums; bits that depend on no batch or path."""

import numpy as np
import pytest

import reference_gibbs as reference
from cases_gibbs import LAYERS, SEED, kinds, machine, states

ROW = reference.ROW


def f32(m):
    return {k: v.astype(np.float32) for k, v in m.items()}


def all_states(width, units="bernoulli", group=1):
    """Every state of a layer of Bernoulli or softmax units."""
    if units == "softmax":
        places = np.stack(np.meshgrid(*[np.arange(group)] * (width // group), indexing="ij"), -1).reshape(-1, width // group)
        return np.eye(group)[places].reshape(-1, width)
    return ((np.arange(2**width)[:, None] >> np.arange(width)) & 1).astype(np.float64)


def rectified_transitions(m, v):
    """p(v' | v) through one noisy rectified unit, its noise summed over a fine grid."""
    noise = np.linspace(-8, 8, 801)
    weight = np.exp(-(noise**2) / 2)
    z = m["c"] + v @ m["w"]
    h = np.maximum(z + np.sqrt(reference.sigmoid(z)) * noise, 0)  # [states,noise]
    p = reference.sigmoid(m["b"] + h[..., None] * m["w"][:, 0])
    each = np.exp((v[:, None, None] * np.log(p) + (1 - v[:, None, None]) * np.log1p(-p)).sum(-1))
    return (each * weight).sum(-1).T / weight.sum()


def exact(m, visible, hidden, variance):
    """Probabilities of all states of the layer that is counted: the hidden one under Gaussian units, else the visible."""
    if visible[0] == "gaussian":
        h = all_states(len(m["c"]))
        z = m["b"] + h @ m["w"].T
        log = h @ m["c"] + (z**2 / (2 * variance)).sum(1)
        return h, np.exp(log - np.logaddexp.reduce(log))
    v = all_states(len(m["b"]), *visible)
    if hidden[0] == "relu":
        return v, np.linalg.matrix_power(rectified_transitions(m, v), 200)[0]
    kind = {"visible": visible[0], "hidden": hidden[0], "hidden_group": hidden[1]}
    log = -reference.gibbs_free_energy(v, m["w"], m["b"], m["c"], **kind)
    return v, np.exp(log - np.logaddexp.reduce(log))


@pytest.mark.parametrize(
    "visible, hidden, sizes",
    [
        (LAYERS[0], LAYERS[0], (3, 2)),
        (LAYERS[0], LAYERS[1], (3, 2)),
        (LAYERS[0], LAYERS[2], (3, 1)),
        (LAYERS[0], LAYERS[3], (3, 6)),
        (LAYERS[3], LAYERS[0], (6, 2)),
        (LAYERS[1], LAYERS[0], (3, 3)),
    ],
    ids=lambda x: x[0] if isinstance(x[0], str) else None,
)
def test_chains_settle_in_the_exact_distribution(target, visible, hidden, sizes):
    rng = np.random.default_rng(1)
    v_size, h_size = sizes
    m = f32(machine(rng, v_size, h_size, 0.8))
    variance = np.array([0.5, 1.0, 2.0], np.float32) if visible[0] == "gaussian" else None
    n = 1500
    v = states(rng, n, v_size, *visible).astype(np.float32)
    h = np.zeros((n, h_size), np.float32)
    target.gibbs_chain(
        **m, variance=variance, steps=12, **kinds(visible, hidden), seed=7, offset=0, v=v, h=h
    )
    every, p = exact({k: a.astype(np.float64) for k, a in m.items()}, visible, hidden, variance)
    seen = h if visible[0] == "gaussian" else v
    place = (seen[:, None] == every.astype(np.float32)).all(-1).argmax(1)
    count = np.bincount(place, minlength=len(every))
    chi2 = ((count - n * p) ** 2 / (n * p)).sum()
    freedom = len(every) - 1
    # Wilson and Hilferty: 4.3 standard deviations
    assert (chi2 / freedom) ** (1 / 3) < 1 - 2 / (9 * freedom) + 4.3 * np.sqrt(2 / (9 * freedom)), chi2


def test_units_differ_from_the_definition_only_at_ties(target):
    rng = np.random.default_rng(2)
    n, v_size, h_size = 20, 200, 300
    m = f32(machine(rng, v_size, h_size))
    v = states(rng, n, v_size).astype(np.float32)
    got = np.zeros((n, h_size), np.float32)
    target.gibbs_sample_hidden(v, m["w"], m["c"], seed=SEED, sample=got)
    p = reference.sigmoid(m["c"].astype(np.float64) + v.astype(np.float64) @ m["w"].astype(np.float64))
    u = reference.uniforms(n, h_size, SEED, 0)
    other = got != (u < p)
    assert not (other & (np.abs(u - p) > 1e-5)).any()
    assert other.sum() <= 2


def chain(target, m, v, h, steps, offset, **options):
    v, h = v.copy(), h.copy()
    target.gibbs_chain(**m, steps=steps, seed=SEED, offset=offset, v=v, h=h, **options)
    return v, h


def test_batch_and_steps_can_be_cut(target):
    rng = np.random.default_rng(3)
    n, v_size, h_size = 7, 30, 21
    m = f32(machine(rng, v_size, h_size))
    v, h = states(rng, n, v_size).astype(np.float32), np.zeros((n, h_size), np.float32)
    whole = chain(target, m, v, h, 5, 8)
    for first, last in ((0, 1), (1, 3), (3, 7)):
        part = chain(target, m, v[first:last], h[first:last], 5, 8 + first * ROW)
        for a, b in zip(part, whole, strict=True):
            np.testing.assert_array_equal(a, b[first:last])
    begun = chain(target, m, v, h, 2, 8)
    used = reference.used(h_size) + 2 * (reference.used(v_size) + reference.used(h_size))
    ended = chain(target, m, *begun, 3, 8 + used, from_hidden=True)
    for a, b in zip(ended, whole, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("grey", [False, True])
def test_skipping_zeros_changes_no_bit(target, grey):
    rng = np.random.default_rng(4)
    v_size, h_size = 700, 530
    m = f32(machine(rng, v_size, h_size))
    v = rng.standard_normal((3, v_size)).astype(np.float32) if grey else states(rng, 3, v_size, density=0.9).astype(np.float32)
    v[0] *= rng.random(v_size) < 0.1
    v[1, :256] = 0
    out, alone = np.zeros((3, h_size), np.float32), np.zeros((1, h_size), np.float32)
    target.gibbs_sample_hidden(v, m["w"], m["c"], seed=0, mean=out)
    for i in range(3):
        target.gibbs_sample_hidden(v[i : i + 1], m["w"], m["c"], seed=0, mean=alone)
        np.testing.assert_array_equal(alone[0], out[i])


def test_many_steps_are_single_steps(target):
    """Calls that copy the weights into panels give the bits of those that do not; layers wider than two panels."""
    rng = np.random.default_rng(8)
    n, v_size, h_size, steps = 30, 300, 270, 8
    m = f32(machine(rng, v_size, h_size))
    m["b"] -= 3  # most units are off
    m["c"] -= 3
    v, h = states(rng, n, v_size, density=0.1).astype(np.float32), np.zeros((n, h_size), np.float32)
    whole = chain(target, m, v, h, steps, 0)
    used, offset = reference.used(v_size) + reference.used(h_size), reference.used(h_size)
    v, h = chain(target, m, v, h, 0, 0)
    for _ in range(steps):
        v, h = chain(target, m, v, h, 1, offset, from_hidden=True)
        offset += used
    assert 0.02 < v.mean() < 0.4 and 0.02 < h.mean() < 0.4
    for a, b in zip((v, h), whole, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("density", [0.1, 0.9])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_statistics_are_products(target, density, beta):
    """What skips zeros gives the bits of the dense product, through more chains than a chunk of a sum has."""
    rng = np.random.default_rng(9)
    n, v_size, h_size = 300, 90, 71
    m = f32(machine(rng, v_size, h_size))
    v, h = states(rng, n, v_size, density=density).astype(np.float32), np.zeros((n, h_size), np.float32)
    dw = rng.standard_normal((v_size, h_size)).astype(np.float32)
    db, dc = np.ones(v_size, np.float32), np.ones(h_size, np.float32)
    wanted = dw.copy()
    mean = np.zeros((n, h_size), np.float32)
    target.gibbs_sample_hidden(v, m["w"], m["c"], seed=0, mean=mean)
    mean *= np.float32(0.5)
    target.matmul(v, mean, True, False, beta, wanted)
    target.gibbs_chain(**m, steps=0, factor=0.5, seed=SEED, v=v, h=h, dw=dw, db=db, dc=dc, beta=beta)
    np.testing.assert_array_equal(dw, wanted)
    np.testing.assert_allclose(db, 0.5 * v.sum(0) + beta, rtol=1e-5)
    np.testing.assert_allclose(dc, mean.sum(0) + beta, rtol=1e-5)


def test_tempering_keeps_the_distribution(target):
    """Chains at temperature 1 settle in the exact distribution with exchanges, too."""
    rng = np.random.default_rng(6)
    m, temperatures, n = f32(machine(rng, 3, 2, 1.5)), 3, 600
    betas = np.array([1.0, 0.5, 0.0], np.float32)
    v = states(rng, temperatures * n, 3).astype(np.float32)
    h, gain = np.zeros((temperatures * n, 2), np.float32), np.repeat(betas, n)
    target.gibbs_chain(**m, gain=gain, steps=0, seed=1, v=v, h=h)
    swapped = 0
    for i in range(8):
        target.gibbs_chain(**m, gain=gain, steps=1, from_hidden=True, seed=1, offset=64 * i + 64, v=v, h=h)
        accepted = target.gibbs_swap(**m, betas=betas, parity=i % 2, seed=2, offset=4 * i, v=v, h=h)
        swapped += accepted.mean()
    assert swapped > 1
    every, p = exact({k: a.astype(np.float64) for k, a in m.items()}, LAYERS[0], LAYERS[0], None)
    count = np.bincount((v[:n, None] == every.astype(np.float32)).all(-1).argmax(1), minlength=8)
    assert ((count - n * p) ** 2 / (n * p)).sum() < 30  # 7 degrees of freedom: p = 1e-4


def test_a_sample_is_made_where_none_is_given(target):
    rng = np.random.default_rng(0)
    v, w = rng.random((4, 3)).astype(np.float32), rng.standard_normal((3, 5)).astype(np.float32)
    b, c, mean = np.zeros(3, np.float32), np.zeros(5, np.float32), np.empty((4, 5), np.float32)
    h = target.gibbs_sample_hidden(v, w, c, seed=SEED)
    out = np.empty_like(h)
    target.gibbs_sample_hidden(v, w, c, seed=SEED, mean=mean, out=out)
    np.testing.assert_array_equal(out, h)
    assert set(np.unique(h)) <= {0, 1} and mean.min() > 0 and mean.max() < 1
    again = target.gibbs_sample_visible(h, w, b, seed=SEED)
    assert again.shape == (4, 3)
    assert target.gibbs_sample_visible(h, w, b, seed=SEED, out=np.empty_like(v)).tolist() == again.tolist()
    assert target.gibbs_sample_visible(h, w, b, seed=SEED, mean=np.empty_like(v), sample=None) is None
