"""Every argument of every kernel, wrong in dtype, layout, shape or kind: the error names it and changes nothing."""

import re

import numpy as np
import pytest

from cases import CASES
from test_kernels import accepted, buffers, cast, named, output_names, prepare, run


def largest(case):
    return max(
        case.sizes, key=lambda s: np.prod([v for v in s.values() if isinstance(v, int) and not isinstance(v, bool)])
    )


@pytest.fixture(params=CASES, ids=str)
def case(request):
    return request.param


def call(module, case, inputs, out):
    return getattr(module, case.kernel)(**accepted(module, case, inputs), **out)


def takes_any_shape(module, case, name):
    """Whether an argument may have any number of axes and no other array must agree with it."""
    line = module.SPECS[case.kernel].split(";")[1]
    arrays = [t for t in line.split() if "n..." in t]
    return len(arrays) == 1 and re.match(r"\w+", arrays[0])[0] == name


def test_every_kernel_has_a_row(target):
    listed = {case.kernel for case in CASES}
    assert sorted(set(target.SPECS) - listed) == []
    assert sorted(listed - set(target.SPECS)) == []


def test_inputs_are_checked(target, case, rng):
    inputs, expected, _ = prepare(case, largest(case), rng)
    out = buffers(case, target, inputs, expected, np.zeros)
    for name, array in accepted(target, case, inputs).items():
        if not isinstance(array, np.ndarray):
            continue
        wrong = {
            "dtype": (array.astype(np.float64 if array.dtype != np.int64 else np.int32), TypeError),
            "byte order": (array.astype(array.dtype.newbyteorder()), TypeError),
            "list": (array.tolist(), TypeError),
            "None": (None, (TypeError, ValueError)),
        }
        if array.dtype == np.uint8:
            del wrong["byte order"]
        if array.ndim and array.shape[-1] > 1:
            wrong["layout"] = (np.repeat(array, 2, axis=-1)[..., ::2], TypeError)
            if not takes_any_shape(target, case, name):
                wrong["shape"] = (np.ascontiguousarray(np.moveaxis(array[None], 0, -1).repeat(3, -1)), ValueError)
        optional = f" {name}?" in " " + target.SPECS[case.kernel] or f" {name}&?" in target.SPECS[case.kernel]
        for what, (value, error) in wrong.items():
            if what == "None" and optional:
                continue
            before = {k: v.copy() for k, v in out.items()}
            try:
                call(target, case, {**inputs, name: value}, out)
            except error as e:
                assert ": expected " in str(e), (name, what, str(e))
                assert what == "shape" or str(e).startswith(name + ":"), (name, what, str(e))
            else:
                pytest.fail(f"{name}: {what} was accepted")
            for k in out:
                np.testing.assert_array_equal(out[k], before[k])


def test_outputs_are_checked(target, case, rng):
    inputs, expected, _ = prepare(case, largest(case), rng)
    for name, array in buffers(case, target, inputs, expected, np.zeros).items():
        frozen = array.copy()
        frozen.flags.writeable = False
        wrong = {"read-only": (frozen, ValueError), "dtype": (array.astype(np.float64), TypeError)}
        if not takes_any_shape(target, case, name):
            wrong["shape"] = (np.zeros((*array.shape, 2, 3), array.dtype), ValueError)
        out = buffers(case, target, inputs, expected, np.zeros)
        for value, error in wrong.values():
            with pytest.raises(error, match=rf"(?s)^{name}: expected |^\w+: expected "):
                call(target, case, inputs, {**out, name: value})


def test_out_overlapping_an_input(target, case, rng):
    inputs, expected, _ = prepare(case, largest(case), rng)
    spec = target.SPECS[case.kernel]
    for name, array in buffers(case, target, inputs, expected, np.zeros).items():
        for other, source in accepted(target, case, inputs).items():
            if not isinstance(source, np.ndarray) or source.dtype != array.dtype or source.size < 2 or not array.size:
                continue
            # one block of memory that holds both, shifted by one element
            block = np.zeros(max(source.size, array.size) + 1, array.dtype)
            a = block[: source.size].reshape(source.shape)
            a[...] = source
            shifted = block[1 : 1 + array.size].reshape(array.shape)
            out = {**buffers(case, target, inputs, expected, np.zeros), name: shifted}
            with pytest.raises(ValueError, match=f"expected an array that does not overlap {other}"):
                call(target, case, {**inputs, other: a}, out)
            if f" {name}>~" not in spec and source.shape == array.shape:
                same = source.copy()
                with pytest.raises(ValueError, match="overlap"):
                    call(target, case, {**inputs, other: same}, {**out, name: same})


def test_in_place_where_promised(target, case, rng):
    spec = target.SPECS[case.kernel]
    names = [n for n in output_names(target, case.kernel) if f" {n}>~" in spec]
    if not names:
        pytest.skip("not in place")
    for sizes in case.sizes:
        inputs, expected, _ = prepare(case, sizes, rng)
        apart = run(target, case, inputs, buffers(case, target, inputs, expected, np.zeros))
        for source in ("dy", "x", "p"):
            if source in inputs and inputs[source].shape == apart[names[0]].shape:
                same = inputs[source].copy()
                run(target, case, {**inputs, source: same}, {names[0]: same})
                np.testing.assert_array_equal(same, apart[names[0]])
                break


def test_outputs_left_out_are_made(target, case, rng):
    """out= and a fresh result hold the same bits, and a given array is the one that comes back."""
    kernel = getattr(target, case.kernel)
    inputs, expected, _ = prepare(case, largest(case), rng)
    out = buffers(case, target, inputs, expected, np.zeros)
    given = run(target, case, inputs, out)
    inputs = accepted(target, case, inputs)
    try:
        fresh = kernel(**inputs)
    except TypeError as e:
        assert "expected a" in str(e)  # its size does not follow from the inputs
        return
    if fresh is None:
        return
    fresh = fresh if isinstance(fresh, tuple) else (fresh,)
    names = [
        t.split(">")[0]
        for t in target.SPECS[case.kernel].split(";")[1].split()
        if ">" in t.split("[")[0] and "??" not in t.split("[")[0]
    ]
    for name, array in zip(names, fresh, strict=True):
        if name in given:  # what only the backward kernel reads has no definition
            np.testing.assert_array_equal(array, given[name], err_msg=name)
    if set(names) <= set(out):
        arrays = tuple(np.zeros_like(out[n]) for n in names)
        back = kernel(**inputs, out=arrays if len(names) > 1 else arrays[0])
        back = back if isinstance(back, tuple) else (back,)
        assert all(a is b for a, b in zip(arrays, back, strict=True))


def test_unknown_and_missing_arguments(target, case, rng):
    kernel = getattr(target, case.kernel)
    inputs = accepted(target, case, cast(case.make(rng, **largest(case))))
    with pytest.raises(TypeError, match="unexpected argument nonsense"):
        kernel(**inputs, nonsense=1)
    with pytest.raises(TypeError, match="expected a"):
        kernel()


def scalars(target, case, kind):
    """Names of the kernel's scalar arguments of a kind: i integers, f numbers."""
    line = target.SPECS[case.kernel].split(";")[1]
    return [t.split(":")[0] for t in line.split() if re.fullmatch(rf"\w+:{kind}(=.*)?!?", t)]


def test_huge_integers(target, case, rng):
    """Arithmetic over sizes may not wrap: what is far too large is refused before a kernel sees it."""
    for name in scalars(target, case, "i"):
        inputs, expected, _ = prepare(case, largest(case), rng)
        for huge in (2**31, 2**61, 2**62, 2**63 - 1):
            with pytest.raises(ValueError, match="expected"):
                call(target, case, {**inputs, name: huge}, buffers(case, target, inputs, expected, np.zeros))
        with pytest.raises(ValueError, match=f"{name}: expected a 64-bit integer"):
            call(target, case, {**inputs, name: 2**70}, {})
        with pytest.raises(TypeError, match=f"{name}: expected an integer; got float"):
            call(target, case, {**inputs, name: 1.0}, {})


def test_nothing_is_kept_of_an_output_that_is_left_out(target, case, rng):
    factors = [n for n in scalars(target, case, "f") if n.startswith("beta") and case.kernel not in ("adam", "sgd")]
    for name in factors:
        inputs, expected, _ = prepare(case, largest(case), rng)
        given = accepted(target, case, inputs)
        with pytest.raises((ValueError, TypeError), match="expected"):
            getattr(target, case.kernel)(**{**given, name: 0.5})


def test_leaky_slope_may_not_be_negative(target, case, rng):
    if "slope" not in scalars(target, case, "f"):
        pytest.skip("no slope")
    inputs, expected, _ = prepare(case, largest(case), rng)
    with pytest.raises(ValueError, match="slope: expected slope>=0; got -0.5"):
        call(target, case, {**inputs, "slope": -0.5}, buffers(case, target, inputs, expected, np.zeros))


def test_an_update_has_a_number(target):
    w = np.ones(3, np.float32)
    with pytest.raises(ValueError, match="t: expected an update's number from 1 on; got 0"):
        target.adam(w.copy(), lr=0.1, t=0, w=w, m=w.copy(), v=w.copy())
    np.testing.assert_array_equal(w, 1)


def test_windows_larger_than_the_image_are_named(target):
    x, w = np.zeros((1, 2, 4, 1), np.float32), np.zeros((3, 3, 1, 2), np.float32)
    with pytest.raises(ValueError, match=r"x: expected Y\+2\*pad_y>=dilation_y\*\(R-1\)\+1, here 3; got 2 \(Y=2, pad_y=0, "):
        target.conv2d_forward(x, w)
    with pytest.raises(ValueError, match=r"x: expected X\+2\*pad_x>=dilation_x\*\(S-1\)\+1, here 5; got 4 \(X=4, pad_x=0, "):
        target.conv2d_forward(x, w, pad_y=1, dilation_x=2)
    with pytest.raises(ValueError, match=r"x: expected Y\+2\*pad_y>=size_y, here 3; got 2 \(Y=2, pad_y=0, size_y=3\)"):
        target.max_pool2d_forward(x, size_y=3)
    with pytest.raises(ValueError, match=r"x: expected X\+2\*pad_x>=size_x, here 5; got 4 \(X=4, pad_x=0, size_x=5\)"):
        target.avg_pool2d_forward(x, size_x=5)
    with pytest.raises(ValueError, match="dy: expected P>=1, here 1; got 0"):
        target.conv2d_backward_data(np.zeros((1, 0, 4, 2), np.float32), w)


def test_sizes_over_32_bits(target):
    """An axis of zero lets the other sizes be huge without memory."""
    x = np.zeros((0, 3_000_000_000), np.float32)
    with pytest.raises(ValueError, match=r"w: expected shape \[I,O\], I=3000000000 from x; got \[4,4\]"):
        target.dense_forward(x, np.zeros((4, 4), np.float32))
    y = target.dense_forward(x, np.zeros((3_000_000_000, 0), np.float32))
    assert y.shape == (0, 0)
    dy = np.zeros((0, 50_000, 50_000, 4), np.float32)
    dx = target.conv2d_backward_data(dy, np.zeros((3, 3, 2, 4), np.float32), stride_y=2, stride_x=2)
    assert dx.shape == (0, 100_001, 100_001, 2)


def test_sizes_over_64_bits(target):
    dy, w = np.zeros((0, 2**60, 1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"sizes: expected numbers that fit in 64 bits; got more in \(P-1\)\*stride_y"):
        target.conv2d_backward_data(dy, w, stride_y=2**31 - 1)


def test_named_outputs(target):
    for case in CASES:
        assert named(case, target, {None: 0})
