"""Rows of the kernels of Boltzmann machines. Sizes: one, primes, more than a chunk of 256, a batch that makes every path run."""

import numpy as np

import reference_gibbs
from case import Case, normal

SEED = 0x0123456789ABCDEF
LAYERS = [("bernoulli", 1), ("gaussian", 1), ("relu", 1), ("softmax", 3)]


def machine(rng, V, H, scale=0.3):
    return {"w": scale * normal(rng, V, H), "b": scale * normal(rng, V), "c": scale * normal(rng, H)}


def states(rng, n, width, units="bernoulli", group=1, density=0.5):
    """States as a layer has them."""
    if units == "softmax":
        return np.eye(group)[rng.integers(0, group, (n, width // group))].reshape(n, width)
    if units == "bernoulli":
        return (rng.random((n, width)) < density).astype(np.float64)
    return np.maximum(normal(rng, n, width), 0) if units == "relu" else normal(rng, n, width)


def make_hidden(rng, N, V, H, units="bernoulli", group=1, gain=False, variance=False, density=0.5, grey=False, offset=0):
    m = machine(rng, V, H)
    return {
        "v": rng.random((N, V)) if grey else states(rng, N, V, density=density),
        "w": m["w"], "c": m["c"],
        "gain": rng.random(N) if gain else None,
        "variance": 0.5 + rng.random(V) if variance else None,
        "units": units, "group": group, "seed": SEED, "offset": offset,
    }  # fmt: skip


def make_visible(rng, N, V, H, units="bernoulli", group=1, gain=False, variance=False, offset=0):
    m = machine(rng, V, H)
    return {
        "h": states(rng, N, H), "w": m["w"], "b": m["b"],
        "base": normal(rng, V) if gain else None,
        "gain": rng.random(N) if gain else None,
        "variance": 0.5 + rng.random(V) if variance else None,
        "units": units, "group": group, "seed": SEED, "offset": offset,
    }  # fmt: skip


def kinds(visible, hidden):
    (v, vg), (h, hg) = visible, hidden
    return {"visible": v, "visible_group": vg, "hidden": h, "hidden_group": hg}


def make_chain(rng, N, V, H, steps, visible=LAYERS[0], hidden=LAYERS[0], gain=False, variance=False, fixed=False,
               from_hidden=False, offset=0):  # fmt: skip
    return {
        **machine(rng, V, H),
        "gain": rng.random(N) if gain else None,
        "variance": 0.5 + rng.random(V) if variance else None,
        "fixed": (rng.random((N, V)) < 0.5).astype(np.uint8) if fixed else None,
        "steps": steps, "from_hidden": from_hidden, **kinds(visible, hidden), "factor": -0.25, "seed": SEED, "offset": offset,
        "v": states(rng, N, V, *visible), "h": states(rng, N, H, *hidden),
    }  # fmt: skip


def make_energy(rng, N, V, H, visible=LAYERS[0], hidden=LAYERS[0], variance=False):
    names = kinds(visible, hidden)
    del names["visible_group"]
    v = states(rng, N, V, *visible)
    return {"v": v, **machine(rng, V, H), "variance": 0.5 + rng.random(V) if variance else None, **names}


def make_anneal(rng, N, V, H, K, visible=LAYERS[0], hidden=LAYERS[0], base=True, variance=False):
    return {
        **machine(rng, V, H),
        "base": 0.3 * normal(rng, V) if base else None,
        "variance": 0.5 + rng.random(V) if variance else None,
        "betas": np.linspace(0.25, 0.75, K), **kinds(visible, hidden), "seed": SEED, "offset": 4,
        "v": states(rng, N, V, *visible),
    }  # fmt: skip


def make_swap(rng, N, V, H, T, parity=0, variance=False):
    return {
        **machine(rng, V, H),
        "variance": 0.5 + rng.random(V) if variance else None,
        "betas": np.linspace(1.0, 0.0, T), "parity": parity, "seed": SEED, "offset": 8,
        "v": states(rng, N, V), "h": states(rng, N, H),
    }  # fmt: skip


HALF = [
    dict(N=1, V=1, H=1), dict(N=5, V=7, H=3), dict(N=2, V=40, H=13), dict(N=0, V=3, H=5), dict(N=3, V=9, H=16, offset=5),
    dict(N=19, V=37, H=70), dict(N=4, V=300, H=530), dict(N=33, V=21, H=18, gain=True),
    *[dict(N=7, V=12, H=12, units=u, group=g, variance=u == "gaussian", gain=u == "relu") for u, g in LAYERS[1:]],
]  # fmt: skip
PAIRS = [(LAYERS[0], LAYERS[i]) for i in range(4)] + [(LAYERS[i], LAYERS[0]) for i in (1, 3)] + [(LAYERS[1], LAYERS[2])]

CASES = [
    Case(
        "gibbs_sample_hidden",
        make_hidden,
        [*HALF, dict(N=9, V=600, H=31, density=0.05), dict(N=3, V=270, H=600, density=0.1), dict(N=6, V=20, H=9, grey=True)],
        reference=reference_gibbs.gibbs_sample_hidden,
    ),
    Case("gibbs_sample_visible", make_visible, HALF, reference=reference_gibbs.gibbs_sample_visible),
    Case(
        "gibbs_chain",
        make_chain,
        [dict(N=3, V=11, H=6, steps=k, from_hidden=f, offset=3 * k) for k in (0, 1, 5) for f in (False, True)]
        + [dict(N=4, V=12, H=9, steps=2, visible=a, hidden=b, variance=a[0] == "gaussian") for a, b in PAIRS]
        + [
            dict(N=1, V=50, H=20, steps=3),
            dict(N=5, V=30, H=70, steps=4, gain=True, fixed=True),
        ],
        reference=reference_gibbs.gibbs_chain,
    ),
    Case(
        "gibbs_free_energy",
        make_energy,
        [dict(N=1, V=1, H=1), dict(N=5, V=17, H=300), dict(N=0, V=2, H=2)]
        + [dict(N=6, V=12, H=15, visible=a, hidden=b, variance=a[0] == "gaussian") for a, b in PAIRS],
        reference=reference_gibbs.gibbs_free_energy,
        rowwise=("v",),
    ),
    Case(
        "gibbs_anneal",
        make_anneal,
        [dict(N=3, V=11, H=6, K=k) for k in (1, 2, 4)]
        + [dict(N=4, V=12, H=9, K=3, visible=a, hidden=b, variance=a[0] == "gaussian") for a, b in PAIRS]
        + [dict(N=2, V=9, H=20, K=3, base=False), dict(N=2, V=5, H=150, K=2), dict(N=0, V=3, H=2, K=3)],
        reference=reference_gibbs.gibbs_anneal,
        nan="v",
    ),
    Case(
        "gibbs_swap",
        make_swap,
        [dict(N=12, V=7, H=5, T=4, parity=p) for p in (0, 1)]
        + [dict(N=3, V=5, H=4, T=1), dict(N=6, V=9, H=8, T=3, variance=True)]
        + [dict(N=4, V=170, H=100, T=2), dict(N=0, V=3, H=2, T=2)],
        reference=reference_gibbs.gibbs_swap,
        nan="v",
    ),
]
