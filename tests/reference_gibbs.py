"""Gibbs sampling in restricted Boltzmann machines in plain NumPy: the definition that the kernels are tested against.

Written from Hinton (2002), Nair & Hinton (2010), Cho, Ilin & Raiko (2011), Salakhutdinov & Murray (2008). Everything is
computed in the dtype of the weights.
"""

import math

import numpy as np

import reference

ROW = 1 << 40  # elements of the random stream from one row's draws to the next row's


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def words(rows, width, seed, offset):
    """Words [rows,width]: those of row n begin 2^40 elements after those of row n - 1."""
    begin = (offset + 3) & ~3
    return np.stack([reference.random_words(width, seed, begin + n * ROW) for n in range(rows)]) if rows else np.zeros(
        (0, width), np.uint32
    )


def uniforms(rows, width, seed, offset):
    return (words(rows, width, seed, offset) >> 8) * 2.0**-24


def normals(rows, width, seed, offset):
    begin = (offset + 3) & ~3
    drawn = [reference.normal(width, seed, begin + n * ROW) for n in range(rows)]
    return np.stack(drawn) if rows else np.zeros((0, width))


def used(width):
    """Elements of the stream that a layer takes."""
    return (width + 3) & ~3


def softmax(z, group):
    g = z.reshape(len(z), -1, group)
    e = np.exp(g - g.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True)).reshape(z.shape)


def mean_of(z, units, group=1):
    """Expected value of units with inputs z."""
    if units == "bernoulli":
        return sigmoid(z)
    if units == "gaussian":
        return z
    if units == "softmax":
        return softmax(z, group)
    s = np.sqrt(sigmoid(z))
    erf = np.vectorize(math.erf, otypes=[z.dtype])
    return z * (1 + erf(z / s / np.sqrt(2.0))) / 2 + s * np.exp(-((z / s) ** 2) / 2) / np.sqrt(2 * np.pi)


def draw(z, units, group, variance, seed, offset):
    """Units with inputs z [N,width]."""
    rows, width = z.shape
    if units == "bernoulli":
        return (uniforms(rows, width, seed, offset) < sigmoid(z)).astype(z.dtype)
    if units == "softmax":
        u = uniforms(rows, width, seed, offset)[:, ::group]
        below = softmax(z, group).reshape(rows, -1, group).cumsum(-1)
        place = np.minimum((u[..., None] >= below).sum(-1), group - 1)
        return np.eye(group, dtype=z.dtype)[place].reshape(z.shape)
    noise = normals(rows, width, seed, offset).astype(z.dtype)
    if units == "relu":
        return np.maximum(z + np.sqrt(sigmoid(z)) * noise, 0)
    return z + noise * (1 if variance is None else np.sqrt(variance))


def layer(z, units, group, variance, seed, offset):
    return {"mean": mean_of(z, units, group), "sample": draw(z, units, group, variance, seed, offset)}


def gained(z, gain):
    return z if gain is None else gain[:, None] * z


def gibbs_sample_hidden(v, w, c, gain=None, variance=None, units="bernoulli", group=1, seed=0, offset=0):
    a = gained(c + (v if variance is None else v / variance) @ w, gain)
    return layer(a, units, group, None, seed, offset)


def gibbs_sample_visible(h, w, b, base=None, gain=None, variance=None, units="bernoulli", group=1, seed=0, offset=0):
    z = gained(b + h @ w.T, gain)
    if base is not None and gain is not None:
        z = z + (1 - gain)[:, None] * base
    return layer(z, units, group, variance, seed, offset)


def gibbs_chain(w, b, c, v, h, steps, gain=None, variance=None, fixed=None, from_hidden=False, visible="bernoulli",
                visible_group=1, hidden="bernoulli", hidden_group=1, factor=1.0, seed=0, offset=0):  # fmt: skip
    """Every step in turn, and the statistics of the gradient."""
    at = (offset + 3) & ~3

    def up(v):
        nonlocal at
        out = gibbs_sample_hidden(v, w, c, gain, variance, hidden, hidden_group, seed, at)
        at += used(len(c))
        return out

    def down(h, v):
        nonlocal at
        drawn = gibbs_sample_visible(h, w, b, None, gain, variance, visible, visible_group, seed, at)["sample"]
        at += used(len(b))
        return drawn if fixed is None else np.where(fixed != 0, v, drawn)

    h = h if from_hidden else up(v)["sample"]
    for _ in range(steps):
        v = down(h, v)
        h = up(v)["sample"]
    m = gibbs_sample_hidden(v, w, c, gain, variance, hidden, hidden_group)["mean"]
    s = v if variance is None else v / variance
    f = w.dtype.type(factor)
    return {"v": v, "h": h, "dw": f * (s.T @ m), "db": f * s.sum(0), "dc": f * m.sum(0), "dq": f * (s * v).sum(0)}


def dilogarithm(z):
    """The integral of log(1 + e^x) up to z, by Gauss and Legendre's rule in t = e^x between 0 and 1, by inversion above."""
    t = np.exp(-np.abs(z))
    x, weight = np.polynomial.legendre.leggauss(40)
    s = ((x + 1) / 2).astype(z.dtype)
    p = (np.log1p(t[..., None] * s) / s * (weight / 2).astype(z.dtype)).sum(-1)
    return np.where(z > 0, z.dtype.type(np.pi**2 / 6) + z * z / 2 - p, p)


def log_partition(a, units, group=1):
    """log of the sum (integral) over a hidden unit's states, summed over the units: [N]."""
    if units == "softmax":
        g = a.reshape(len(a), -1, group)
        top = g.max(-1)
        return (top + np.log(np.exp(g - top[..., None]).sum(-1))).sum(-1)
    each = {"bernoulli": lambda: np.logaddexp(0, a), "gaussian": lambda: a * a / 2, "relu": lambda: dilogarithm(a)}
    return each[units]().sum(-1)


def gibbs_free_energy(v, w, b, c, variance=None, visible="bernoulli", hidden="bernoulli", hidden_group=1):
    s = 1 if variance is None else variance
    own = ((v - b) ** 2 / (2 * s)).sum(-1) if visible == "gaussian" else -(v * b).sum(-1)
    return own - log_partition(c + v / s @ w, hidden, hidden_group)


def gibbs_anneal(w, b, c, betas, v, base=None, variance=None, visible="bernoulli", visible_group=1, hidden="bernoulli",
                 hidden_group=1, seed=0, offset=0):  # fmt: skip
    at, ratio, s = (offset + 3) & ~3, np.zeros(len(v), w.dtype), 1 if variance is None else variance
    left = np.zeros_like(b) if base is None else base
    for before, now in zip(betas[:-1], betas[1:], strict=True):
        a = c + v / s @ w
        ratio = ratio + (now - before) * ((b - left) * v / s).sum(-1)
        ratio = ratio + log_partition(now * a, hidden, hidden_group) - log_partition(before * a, hidden, hidden_group)
        h = draw(now * a, hidden, hidden_group, None, seed, at)
        at += used(len(c))
        v = draw(now * (b + h @ w.T) + (1 - now) * left, visible, visible_group, variance, seed, at)
        at += used(len(b))
    return {"v": v, "log_ratio": ratio}


def gibbs_swap(w, b, c, betas, v, h, variance=None, parity=0, seed=0, offset=0):
    v, h, s = v.copy(), h.copy(), 1 if variance is None else variance
    u = (b * v / s).sum(-1) + ((c + v / s @ w) * h).sum(-1)
    m, accepted = len(v) // len(betas), np.zeros(len(v), w.dtype)
    for t in range(parity, len(betas) - 1, 2):
        for cold in range(t * m, t * m + m):
            hot = cold + m
            odds = np.exp((betas[t] - betas[t + 1]) * (u[hot] - u[cold]))
            if uniforms(cold + 1, 1, seed, offset)[cold, 0] < odds:
                accepted[[cold, hot]] = 1
                v[[cold, hot]], h[[cold, hot]] = v[[hot, cold]], h[[hot, cold]]
    return {"v": v, "h": h, "accepted": accepted}
