"""Each kernel of the table, on each target, against its definition in float64."""

import inspect
import os
import re
import types
import warnings
import zlib

import numpy as np
import pytest

from cases import ROWS, row_id
from conftest import LOADED
from fastdl import backend


def rows(keep=lambda case, sizes: True):
    """Parametrize a test over the rows that it says something about."""
    return pytest.mark.parametrize("row", [row for row in ROWS if keep(*row)], ids=row_id)


def accumulates(case, sizes):
    return "beta" in backend.cpu.SPECS[case.kernel] and case.kernel not in ("adam", "put_columns")


def cast(inputs, dtype=np.float32):
    """Inputs as the kernel takes them: float64 arrays in float32, the rest as it is."""
    return {k: v.astype(dtype) if isinstance(v, np.ndarray) and v.dtype.kind == "f" else v for k, v in inputs.items()}


def parameters(kernel):
    return list(inspect.signature(kernel).parameters)


def output_names(module, name):
    """Names of the outputs in the kernel's line."""
    spec = module.SPECS[name].split(";")[1]
    return [t.split(">")[0] for t in spec.split() if ">" in t.split("[")[0]]


def updated_names(module, name):
    """Names of the arrays that the kernel updates in place."""
    return [t.split("&")[0] for t in module.SPECS[name].split(";")[1].split() if "&" in t.split("[")[0]]


def prepare(case, sizes, rng):
    inputs = cast(case.make(rng, **sizes))
    expected = case.define(
        **{
            k: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v
            for k, v in inputs.items()
        }
    )
    yardstick = case.define(**inputs)
    return inputs, expected, yardstick


# What kernels write to lies between bytes that must stay as they are, what they read between NaN, which must not come in.
# AddressSanitizer has fences of its own.
FENCE, FENCE_BYTE, POISON = 256, 0xA5, 0xFF
SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")


def fenced(array, shift=0, byte=FENCE_BYTE):
    """A copy of an array, a fence on both sides, that begins `shift` bytes beyond a multiple of 64."""
    array = np.ascontiguousarray(array)
    if SANITIZED:  # memory of its own to the last byte
        inside = np.empty(array.nbytes + shift, np.uint8)[shift:].view(array.dtype).reshape(array.shape)
        inside[...] = array
        return inside
    block = np.full(array.nbytes + 2 * FENCE + 64 + shift, byte, np.uint8)
    begin = FENCE + shift + -(block.ctypes.data + FENCE) % 64
    inside = block[begin : begin + array.nbytes].view(array.dtype).reshape(array.shape)
    inside[...] = array
    return inside


def check_fences(kernel, arrays):
    for name, array in arrays.items():
        block = array.base if isinstance(array, np.ndarray) else None
        if block is None or block.dtype != np.uint8 or block.size < array.nbytes + 2 * FENCE:
            continue
        begin = array.ctypes.data - block.ctypes.data
        assert (block[:begin] == FENCE_BYTE).all(), f"{kernel}: written before {name}"
        assert (block[begin + array.nbytes :] == FENCE_BYTE).all(), f"{kernel}: written behind {name}"


def shifts(arrays, sizes):
    """{name: bytes beyond a multiple of 16}: of all arrays of a call one, another in every row, or none."""
    names, chosen = list(arrays), zlib.crc32(repr(sizes).encode())
    return {names[chosen % (len(names) + 1)]: 8} if chosen % (len(names) + 1) < len(names) else {}


def scratch(kernel, arguments):
    """Poisoned scratch of just the size that a call with these arguments wants; no matter how it is aligned."""
    inside = next((a for a in arguments.values() if getattr(a, "dtype", None) == np.float32 and a.size), None)
    if inside is None:
        return {}
    try:
        kernel(**arguments, work=inside.reshape(-1)[:1])  # is refused: too small, or part of another array
    except ValueError as error:
        said = re.search(r"work: expected at least (\d+) floats", str(error))
        if said is None and "overlap" not in str(error):
            raise
        size = int(said[1]) if said else 1
    return {"work": fenced(np.full(size, np.nan, np.float32), 4 * (size % 2))}


def buffers(case, module, inputs, expected, fill):
    """An array for every output that the reference defines, filled by fill(shape); what is updated starts from its input."""
    updated = updated_names(module, case.kernel)
    made, outputs = {}, named(case, module, expected)
    shift = shifts(outputs, sorted((k, np.size(v)) for k, v in inputs.items()))
    for name, value in outputs.items():
        if name in updated:
            made[name] = fenced(inputs[name], shift.get(name, 0))
            continue
        value = np.asarray(value)
        start = np.zeros_like(value) if value.dtype.kind in "iu" else fill(value.shape).astype(np.float32)
        made[name] = fenced(start, shift.get(name, 0))
    return made


def close(got, expected, yardstick, what, extra=0.0):
    """Error at most 4 times that of the same formula in float32 NumPy, plus 1e-6 of the scale."""
    expected, yardstick = np.asarray(expected, np.float64), np.asarray(yardstick, np.float64)
    assert got.shape == expected.shape, what
    if not got.size:
        return
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=0.0)
    bound = 4 * np.abs(yardstick - expected).max() + 1e-6 * scale + extra
    error = np.abs(got.astype(np.float64) - expected).max()
    assert error <= bound, f"{what}: error {error:.3g}, bound {bound:.3g}, scale {scale:.3g}"


def accepted(module, case, inputs):
    """Those of a row's inputs that the kernel has a parameter for; the rest is for the reference alone."""
    known = parameters(getattr(module, case.kernel))
    updated = updated_names(module, case.kernel)
    return {k: v for k, v in inputs.items() if k in known and k not in updated}


def run(module, case, inputs, out):
    kernel, arguments = getattr(module, case.kernel), accepted(module, case, inputs)
    outputs = {id(a) for a in out.values()}  # in place, an input is one
    arrays = {k: a for k, a in arguments.items() if isinstance(a, np.ndarray) and id(a) not in outputs}
    shift = shifts(arrays, [a.shape for a in arrays.values()])
    arguments |= {name: fenced(a, shift.get(name, 0), POISON) for name, a in arrays.items()}
    arguments |= out
    # (Copies to a GPU and back have no fences.)
    work = scratch(kernel, arguments) if isinstance(module, types.ModuleType) and "work" in parameters(kernel) else {}
    kernel(**arguments, **work)
    check_fences(case.kernel, {**out, **work})
    return out


def named(case, module, result):
    names = output_names(module, case.kernel) or updated_names(module, case.kernel)
    return {names[0] if k is None else k: v for k, v in result.items()}


@rows()
def test_parity(target, row, rng):
    case, sizes = row
    inputs, expected, yardstick = prepare(case, sizes, rng)
    # beta is 0, so NaN in the buffers must not be read
    got = run(
        target,
        case,
        inputs,
        buffers(case, target, inputs, expected, lambda s: np.full(s, np.nan if not case.exact else 0)),
    )
    expected, yardstick = named(case, target, expected), named(case, target, yardstick)
    for name, array in got.items():
        if case.exact or array.dtype.kind in "iu":
            np.testing.assert_array_equal(array, yardstick[name], err_msg=name)
        else:
            close(array, expected[name], yardstick[name], name)


def may_be_left_out(name):
    """Outputs that may be None; without them a kernel may take another way. (The size of filters stands in dw alone.)"""
    there = {"dw"} if name == "conv2d_backward_weight" else set()
    return [n for n in output_names(backend.cpu, name) if f" {n}>?" in backend.cpu.SPECS[name] and n not in there]


def without(case, sizes, outputs):
    """Names of outputs to leave out: of several once one, once all but one, others in every row."""
    optional = [n for n in may_be_left_out(case.kernel) if n in outputs]
    chosen = zlib.crc32(repr(sizes).encode())
    one = {optional[chosen % len(optional)]} if optional else set()
    sets = [one, set(optional) - {optional[chosen // 8 % len(optional)]} if len(optional) > 1 else one]
    return [s for i, s in enumerate(sets) if s and s not in sets[:i]]


@rows(lambda case, sizes: may_be_left_out(case.kernel))
def test_outputs_that_are_not_wanted_change_no_other(target, row, rng):
    case, sizes = row
    inputs, expected, _ = prepare(case, sizes, rng)
    made = lambda: buffers(case, target, inputs, expected, lambda s: np.full(s, np.nan))
    whole = run(target, case, inputs, made())
    for left_out in without(case, sizes, whole):
        got = run(target, case, inputs, {n: None if n in left_out else a for n, a in made().items()})
        for name in got.keys() - left_out:
            np.testing.assert_array_equal(got[name], whole[name], f"{name} without {', '.join(sorted(left_out))}")


@rows(accumulates)
def test_beta_accumulates(target, row, rng):
    case, sizes = row
    names = parameters(getattr(target, case.kernel))
    inputs, expected, yardstick = prepare(case, sizes, rng)
    out = buffers(case, target, inputs, expected, lambda s: rng.standard_normal(s))
    factors = {n: f"beta_{n}" if f"beta_{n}" in names else "beta" for n in out}
    factors = {n: f for n, f in factors.items() if f in names and n not in updated_names(target, case.kernel)}
    old = {n: a.astype(np.float64) for n, a in out.items()}
    got = run(target, case, {**inputs, **dict.fromkeys(factors.values(), 0.5)}, out)
    expected, yardstick = named(case, target, expected), named(case, target, yardstick)
    for name in factors:
        before = 0.5 * old[name]
        close(
            got[name], expected[name] + before, (yardstick[name] + before.astype(np.float32)).astype(np.float64), name
        )


@rows()
def test_threads_do_not_change_bits(target, row, rng):
    case, sizes = row
    inputs, expected, _ = prepare(case, sizes, rng)
    results = []
    for threads in (1, 2, 3):
        before = target.get_num_threads()
        target.set_num_threads(threads)
        try:
            results.append(run(target, case, inputs, buffers(case, target, inputs, expected, np.zeros)))
        finally:
            target.set_num_threads(before)
    for other in results[1:]:
        for name, array in results[0].items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


@rows(lambda case, sizes: case.rowwise)
def test_batch_does_not_change_a_row(target, row, rng):
    case, sizes = row
    inputs, expected, _ = prepare(case, sizes, rng)
    n = len(inputs[case.rowwise[0]])
    if n < 2:
        pytest.skip("one row")
    whole = run(target, case, inputs, buffers(case, target, inputs, expected, np.zeros))
    for at, count in ((0, 1), (n // 2, 1), (n // 3, n - n // 3)):
        part = {k: np.ascontiguousarray(v[at : at + count]) if k in case.rowwise else v for k, v in inputs.items()}
        result = run(target, case, part, {k: np.zeros_like(v[at : at + count]) for k, v in whole.items()})
        for name, array in result.items():
            np.testing.assert_array_equal(array, whole[name][at : at + count], err_msg=name)


@rows(lambda case, sizes: case.nan)
def test_nan_is_not_hidden(target, row, rng):
    case, sizes = row
    inputs, expected, _ = prepare(case, sizes, rng)
    name = next(iter(k for k, v in inputs.items() if isinstance(v, np.ndarray) and v.dtype == np.float32), None)
    name = name if case.nan == "first" else case.nan
    if name is None or not inputs[name].size or not any(np.size(v) for v in expected.values()):
        pytest.skip("nothing to poison")
    inputs[name][...] = np.nan
    got = run(target, case, inputs, buffers(case, target, inputs, expected, np.zeros))
    assert any(np.isnan(a).any() for a in got.values() if a.dtype.kind == "f" and a.size)


def rows_with_a_zero(kernel):
    """Of every size of the kernel its smallest row, with that size zero."""
    smallest = {}
    for case, sizes in (row for row in ROWS if row[0].kernel == kernel):
        numbers = {k: n for k, n in sizes.items() if type(n) is int}
        for name in numbers:
            size = np.prod([float(n) for k, n in numbers.items() if k != name])
            if name not in smallest or size < smallest[name][0]:
                smallest[name] = size, case, {**sizes, name: 0}
    return [(case, sizes) for _, case, sizes in smallest.values()]


@pytest.mark.parametrize("kernel", sorted({case.kernel for case, _ in ROWS}))
def test_sizes_of_zero(target, kernel, rng):
    """They are refused by name, or there is nothing to do: on a GPU no empty launch, on the host no division by them."""
    for case, sizes in rows_with_a_zero(kernel):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                inputs, expected, _ = prepare(case, sizes, rng)
            except (ValueError, IndexError, ZeroDivisionError):
                continue  # NumPy cannot make it
            try:
                got = run(target, case, inputs, buffers(case, target, inputs, expected, np.zeros))
            except ValueError as error:
                assert "expected" in str(error)
                continue
        for name, value in named(case, target, expected).items():
            np.testing.assert_allclose(got[name], value, rtol=1e-3, atol=1e-4, err_msg=f"{name} {sizes}")


# No sum in them whose order a target chooses, and no fused multiply-add: formulas, copies, draws, updates, plain sums.
SAME_BITS = """
    activation_forward activation_backward unary_forward unary_backward binary axpby get_columns put_columns argmax
    reduce_forward reduce_backward max_pool2d_forward max_pool2d_backward avg_pool2d_forward avg_pool2d_backward
    batch_norm_inference embedding_forward embedding_backward gather_u8 random_words uniform normal bernoulli
    dropout_forward dropout_backward sgd adam rmsprop adagrad warp warp_u8 blur
"""


@rows(lambda case, sizes: case.kernel in SAME_BITS.split())
def test_same_bits_on_every_target(row, rng):
    case, sizes = row
    inputs, expected, _ = prepare(case, sizes, rng)
    first, *others = (
        run(module, case, inputs, buffers(case, module, inputs, expected, np.zeros)) for module in LOADED.values()
    )
    for other in others:
        for name, array in first.items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)


def test_an_infinite_norm_clips_nothing(target):
    g = np.array([np.inf, 1, -2], np.float32)
    for values in (g, g[1:] * np.float32(1e38)):
        clipped = values.copy()
        norm = target.clip_norm(1.0, g=clipped)
        assert np.isinf(norm).all()
        np.testing.assert_array_equal(clipped, values)


def test_batch_norm_of_no_rows_has_no_gradient(target):
    x, nan = np.empty((0, 3), np.float32), np.full(3, np.nan, np.float32)
    dgamma, dshift = np.full((2, 3), 7, np.float32)
    target.batch_norm_backward(x, None, nan, nan, x, dgamma=dgamma, dshift=dshift)
    assert not dgamma.any() and not dshift.any()


def test_what_cannot_be_spelt_has_no_gradient(target):
    """Two equal labels need three steps."""
    logp = np.log(np.full((1, 2, 3), 1 / 3, np.float32))
    count, labels = np.array([2], np.int64), np.ones((1, 2), np.int64)
    loss, _ = target.ctc_forward(logp, labels, count, count)
    assert np.isposinf(loss).all()
    dx = np.full_like(logp, np.nan)
    target.ctc_backward(logp, labels, count, count, np.ones(1, np.float32), dx=dx)
    assert not dx.any()
