"""What the table of kernels does not say: known answers, special values, kernels that update their arguments."""

import numpy as np
import pytest

import reference

f32 = np.float32


def test_philox_known_answers():
    """Random123's published answers for Philox4x32-10 (kat_vectors)."""
    ones = 0xFFFFFFFF
    for counter, key, answer in (
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ones,) * 4, (ones,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0),
         (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
    ):  # fmt: skip
        assert tuple(int(w) for w in reference.philox(counter, key)) == answer


def test_first_block_is_the_known_answer(target):
    words = np.empty(4, np.uint32)
    target.random_words(seed=0, offset=0, y=words)
    assert words.tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("offset", [2**64 - 1, 2**63, 2**34 - 1, 2**34 - 30])
def test_offsets_carry(target, offset):
    if offset >= 2**63:
        pytest.skip("beyond what a stream can be given")
    words = np.empty(70, np.uint32)
    target.random_words(seed=7, offset=offset, y=words)
    np.testing.assert_array_equal(words, reference.random_words(70, 7, offset))


def test_a_stream_is_cut_anywhere(target):
    whole = np.empty(500, np.float32)
    target.normal(seed=3, offset=11, y=whole)
    for cut in (1, 2, 3, 17, 64, 499):
        parts = np.empty(cut, np.float32), np.empty(500 - cut, np.float32)
        target.normal(seed=3, offset=11, y=parts[0])
        target.normal(seed=3, offset=11 + cut, y=parts[1])
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_random_moments(target):
    n = 400_000
    u, z = np.empty(n, f32), np.empty(n, f32)
    target.uniform(seed=5, offset=0, y=u)
    target.normal(seed=6, offset=0, y=z)
    assert u.min() >= 0 and u.max() < 1
    bound = 5 / np.sqrt(n)
    assert abs(u.mean(dtype=np.float64) - 0.5) < bound * 0.29 and abs(u.var(dtype=np.float64) - 1 / 12) < bound * 0.075
    assert abs(z.mean(dtype=np.float64)) < bound and abs(z.var(dtype=np.float64) - 1) < bound * 1.42
    assert abs(np.mean(np.abs(z) > 1.959964) - 0.05) < bound * 0.22


def ulps(got, exact):
    """Error in units in the last place of the float32 nearest to the exact value."""
    exact = exact.astype(np.float64)
    with np.errstate(over="ignore"):
        nearest = exact.astype(f32)
    return np.abs(got.astype(np.float64) - exact) / np.spacing(np.abs(nearest)).astype(np.float64)


def sweep(low, high, count=200_000):
    """Floats spread evenly over bit patterns, so all magnitudes are seen."""
    bits = np.linspace(*np.array([low, high], f32).view(np.uint32).astype(np.int64), count).astype(np.uint32)
    return bits.view(f32)


def applied(target, kind, name, x):
    y = np.empty_like(x)
    if kind == "act":
        target.activation_forward(x=x, act=name, y=y)
    else:
        target.unary_forward(x=x, op=name, y=y)
    return y


@pytest.mark.parametrize(
    "kind, name, exact, low, high, both_signs, bound",
    [
        ("op", "exp", np.exp, 1e-30, 86.9, True, 1.5),
        ("op", "exp", np.exp, 86.0, 88.7228, False, 1.5),
        ("op", "log", np.log, 1e-44, 3.4e38, False, 0.8),
        ("op", "softplus", lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))), 1e-30, 86.9, True, 1.6),
        ("op", "sin", np.sin, 1e-30, 3e38, True, 2.5),
        ("op", "cos", np.cos, 1e-30, 3e38, True, 2.5),
        ("act", "sigmoid", lambda x: 1 / (1 + np.exp(-x)), 1e-30, 86.9, True, 2.4),
        ("act", "tanh", np.tanh, 1e-37, 1e30, True, 2.5),
    ],
)
def test_stated_error(target, kind, name, exact, low, high, both_signs, bound):
    x = sweep(low, high)
    if both_signs:
        x = np.concatenate([x, -x])
    assert ulps(applied(target, kind, name, x), exact(x.astype(np.float64))).max() <= bound


def test_stated_error_of_gelu(target):
    x = np.linspace(-1, 20, 100_000).astype(f32)
    assert ulps(applied(target, "act", "gelu", x), reference.act(x.astype(np.float64), "gelu"))[x != 0].max() <= 4.5


@pytest.mark.parametrize(
    "kind, name, pairs",
    [
        ("op", "exp", [(np.inf, np.inf), (-np.inf, 0), (88.73, np.inf), (-200, 0), (0, 1)]),
        ("op", "log", [(np.inf, np.inf), (0, -np.inf), (-0.0, -np.inf), (-1, np.nan), (-np.inf, np.nan), (1, 0)]),
        ("op", "softplus", [(np.inf, np.inf), (-np.inf, 0), (1000, 1000)]),
        ("op", "sin", [(np.inf, np.nan), (0, 0)]),
        ("act", "sigmoid", [(np.inf, 1), (-np.inf, 0), (0, 0.5), (1000, 1), (-1000, 0)]),
        ("act", "tanh", [(np.inf, 1), (-np.inf, -1), (0, 0), (1e-40, 1e-40), (100, 1)]),
        ("act", "gelu", [(np.inf, np.inf), (0, 0), (-30, 0)]),
        ("act", "relu", [(np.inf, np.inf), (-np.inf, 0)]),
        ("act", "leaky_relu", [(-np.inf, -np.inf)]),
    ],
)
def test_special_values(target, kind, name, pairs):
    x, y = (np.array(v, f32) for v in zip(*pairs, strict=True))
    np.testing.assert_array_equal(applied(target, kind, name, x), y)
    # A NaN with any payload stays one, in every lane and in the tail.
    payloads = np.array([0x7FC00000, 0x7F800001, 0xFFC00123, 0x7FFFFFFF] * 5, np.uint32).view(f32)
    assert np.isnan(applied(target, kind, name, payloads)).all()


@pytest.mark.parametrize("name", ["exp", "log", "softplus", "sin", "cos"])
@pytest.mark.parametrize("n", range(1, 20))
def test_tail_has_the_bits_of_the_body(target, name, n, rng):
    x = np.abs(rng.standard_normal(64)).astype(f32)
    np.testing.assert_array_equal(applied(target, "op", name, x[:n].copy()), applied(target, "op", name, x)[:n])


def test_formulas_have_the_same_bits_on_every_target():
    from conftest import LOADED

    x = np.concatenate([sweep(1e-38, 3e38, 5000), -sweep(1e-38, 3e38, 5000)])
    for kind, names in (("op", ["exp", "log", "softplus", "sin", "cos"]), ("act", ["sigmoid", "tanh", "gelu"])):
        for name in names:
            first, *others = (applied(t, kind, name, x) for t in LOADED.values())
            for other in others:
                np.testing.assert_array_equal(first, other, err_msg=name)


def test_max_pool_gives_the_place_of_the_first_maximum_and_nan_wins(target):
    x = np.array([1, 5, 5, 2], f32).reshape(1, 2, 2, 1)
    y, where = np.empty((1, 1, 1, 1), f32), np.empty((1, 1, 1, 1), np.uint8)
    target.max_pool2d_forward(x=x, y=y, where=where)
    assert y.item() == 5 and where.item() == 1
    for place in range(4):
        x = np.full((1, 2, 2, 9), np.inf, f32)
        x.reshape(4, 9)[place] = np.nan
        y, where = np.empty((1, 1, 1, 9), f32), np.empty((1, 1, 1, 9), np.uint8)
        target.max_pool2d_forward(x=x, y=y, where=where)
        assert np.isnan(y).all() and (where == place).all()
        target.max_pool2d_forward(x=x, y=y)
        assert np.isnan(y).all()
    x[:] = -np.inf
    target.max_pool2d_forward(x=x, y=y, where=where)
    assert (y == -np.inf).all() and (where == 0).all()


def test_argmax_takes_the_first_and_nan(target):
    index = np.empty((1, 1), np.int64)
    for row, answer in (
        ([1, 3, 3], 1),
        ([np.nan, 3, np.nan], 0),
        ([5, 3, np.nan], 2),
        ([-np.inf, -np.inf, -np.inf], 0),
    ):
        target.argmax(x=np.array(row, f32).reshape(1, 3, 1), index=index)
        assert index.item() == answer


def test_extremes_of_nan(target):
    x = np.array([1, np.nan, 2], f32)
    y = np.array([np.nan, 1, 3], f32)
    z = np.empty((1, 3), f32)
    for op in ("maximum", "minimum"):
        target.binary(x=x.reshape(1, 3), y=y, op=op, z=z)
        assert np.isnan(z[0, :2]).all() and np.isfinite(z[0, 2])
    for n in (3, 40):
        for at in (0, n // 2, n - 1):
            x = np.zeros((1, n, 1), f32)
            x[0, at] = np.nan
            for op in ("max", "min", "sum", "mean"):
                out = np.empty((1, 1), f32)
                target.reduce_forward(x=x, op=op, y=out)
                assert np.isnan(out).all()


def test_gradient_of_a_maximum_goes_to_the_first(target):
    x = np.array([1, 3, 3, 0, 0], f32).reshape(1, 5, 1)
    for op, held, place in (("max", 3, 1), ("min", 0, 3)):
        for columns in (1, 9):
            dx = np.full((1, 5, columns), np.nan, f32)
            y, dy = np.full((1, columns), held, f32), np.full((1, columns), 2, f32)
            target.reduce_backward(x=np.repeat(x, columns, axis=2), y=y, dy=dy, op=op, dx=dx)
            assert (dx == 2 * (np.arange(5) == place)[None, :, None]).all()


def test_reductions_of_nothing(target):
    for columns in (1, 3):
        for op, answer in (("sum", 0), ("mean", np.nan), ("max", -np.inf), ("min", np.inf)):
            y = np.zeros((2, columns), f32)
            target.reduce_forward(x=np.empty((2, 0, columns), f32), op=op, y=y)
            np.testing.assert_array_equal(y, np.full((2, columns), answer, f32))


def test_sum_order_is_by_the_axis_alone(target, rng):
    """One column reduced alone, among others and as one of many rows: the same bits."""
    x = (rng.standard_normal((5000,)) * 10.0 ** rng.integers(-3, 3, 5000)).astype(f32)
    for n in (5, 256, 300, 5000):
        alone, among, rows = np.empty((1, 1), f32), np.empty((1, 37), f32), np.empty((20, 1), f32)
        target.reduce_forward(x=x[:n].reshape(1, n, 1), op="sum", y=alone)
        target.reduce_forward(x=np.repeat(x[:n].reshape(1, n, 1), 37, axis=2), op="sum", y=among)
        target.reduce_forward(x=np.repeat(x[:n].reshape(1, n, 1), 20, axis=0), op="sum", y=rows)
        assert (among == alone).all() and (rows == alone).all()


def test_cross_entropy_of_large_logits(target):
    x = np.array([[1000, 0, -1000], [-1000, 1000, 0]], f32)
    loss, p = np.empty(1, f32), np.empty_like(x)
    target.softmax_cross_entropy_forward(x=x, labels=np.array([0, 0]), loss=loss, p=p)
    assert loss.item() == 1000 and np.array_equal(p, [[1, 0, 0], [0, 1, 0]])


def test_nothing_counted(target):
    loss, dx = np.empty(1, f32), np.full((2, 3), np.nan, f32)
    x = np.zeros((2, 3), f32)
    target.softmax_cross_entropy_forward(x=x, labels=np.array([-1, -1]), loss=loss)
    assert loss.item() == 0
    target.softmax_cross_entropy_backward(p=x, labels=np.array([-1, -1]), dloss=np.ones(1, f32), dx=dx)
    assert (dx == 0).all()


def test_batch_norm_far_from_zero(target, rng):
    """No cancellation: the variance of data around 10,000."""
    x = (rng.standard_normal((3000, 9)) + 10_000).astype(f32)
    y, mean, rstd = np.empty_like(x), np.empty(9, f32), np.empty(9, f32)
    target.batch_norm_forward(x=x, eps=0.0, y=y, mean=mean, rstd=rstd)
    np.testing.assert_allclose(rstd, 1 / x.astype(np.float64).std(axis=0), rtol=2e-6)


def test_batch_norm_running_statistics(target, rng):
    x = rng.standard_normal((50, 70)).astype(f32)
    y, mean, rstd = np.empty_like(x), np.empty(70, f32), np.empty(70, f32)
    running = rng.standard_normal((2, 70)).astype(f32)
    old = running.copy()
    target.batch_norm_forward(
        x=x, momentum=0.25, running_mean=running[0], running_var=running[1], y=y, mean=mean, rstd=rstd
    )
    np.testing.assert_allclose(running[0], 0.75 * old[0] + 0.25 * x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(running[1], 0.75 * old[1] + 0.25 * x.var(axis=0, ddof=1), atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 7, 8, 1000, 70001])
@pytest.mark.parametrize(
    "name, state, settings",
    [
        ("sgd", [], {}),
        ("sgd", [], {"weight_decay": 0.1}),
        ("sgd", ["v"], {"momentum": 0.75}),
        ("sgd", ["v"], {"momentum": 0.75, "nesterov": True, "weight_decay": 0.125}),
        ("adam", ["m", "v"], {"t": 1, "beta1": 0.875, "beta2": 1 - 2**-10}),
        ("adam", ["m", "v"], {"t": 10, "beta1": 0.5, "beta2": 0.75, "weight_decay": 0.125}),
        ("adam", ["m", "v"], {"t": 3, "beta1": 0.875, "beta2": 1 - 2**-10, "weight_decay": 0.5, "decoupled": True}),
        ("rmsprop", ["v"], {"weight_decay": 0.125}),
        ("adagrad", ["v"], {"weight_decay": 0.125}),
    ],
)
def test_optimisers(target, name, state, settings, n, rng):
    arrays = {k: rng.standard_normal(n).astype(f32) for k in ("g", "w", *state)}
    if "v" in arrays and name != "sgd":
        arrays["v"] = np.abs(arrays["v"])
    wide = {k: v.astype(np.float64) for k, v in arrays.items()}
    expected = getattr(reference, name)(**wide, lr=0.0625, **settings)
    getattr(target, name)(**arrays, lr=0.0625, **settings)
    for key in ("w", *state):
        np.testing.assert_allclose(arrays[key], expected[key], rtol=3e-6, atol=3e-6, err_msg=key)


def test_clip_norm(target, rng):
    for n in (1, 1000, 200_001):
        g = rng.standard_normal(n).astype(f32)
        for max_norm in (0.5, 1e9):
            expected = reference.clip_norm(g.astype(np.float64), max_norm)
            got, norm = g.copy(), np.empty(1, f32)
            target.clip_norm(max_norm=max_norm, g=got, norm=norm)
            np.testing.assert_allclose(got, expected["g"], rtol=1e-5, atol=1e-7)
            np.testing.assert_allclose(norm, expected["norm"], rtol=1e-5)
    for bad in (np.nan, np.inf):
        g = np.array([1, bad], f32)
        target.clip_norm(max_norm=0.5, g=g, norm=norm)
        assert g[0] == 1 and not np.isfinite(norm).any()


def test_put_columns(target, rng):
    for width, at, total in ((3, 2, 9), (9, 0, 9), (40, 1, 50)):
        x, y = rng.standard_normal((5, width)).astype(f32), rng.standard_normal((5, total)).astype(f32)
        for beta in (0.0, 0.5):
            got = y.copy()
            if beta == 0:
                got[:, at : at + width] = np.nan
            target.put_columns(x=x, at=at, y=got, beta=beta)
            np.testing.assert_array_equal(got, reference.put_columns(x, y, at, f32(beta)))


def test_dropout_backward_uses_the_forward_mask(target, rng):
    x = np.ones(1001, f32)
    y, dx = np.empty_like(x), np.empty_like(x)
    target.dropout_forward(x=x, p=0.5, seed=9, offset=77, y=y)
    target.dropout_backward(dy=x, p=0.5, seed=9, offset=77, dx=dx)
    np.testing.assert_array_equal(y, dx)
    assert 400 < np.count_nonzero(y) < 600
    target.dropout_forward(x=x, p=0.5, seed=9, offset=77, y=x)  # in place
    np.testing.assert_array_equal(x, y)
