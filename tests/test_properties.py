"""Kernels at shapes that nobody chose: hypothesis draws sizes and attributes, the definition says what must come out."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cases import ACTS, BY_NAME
from test_kernels import buffers, close, named, prepare, run

some = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def dims(most, least=0):
    return st.integers(least, most)


def products():
    return st.fixed_dictionaries(
        {"M": dims(40), "N": dims(70), "K": st.one_of(dims(40), st.integers(250, 520)), "trans_a": st.booleans(),
         "trans_b": st.booleans(), "B": st.one_of(st.none(), dims(3))}
    )  # fmt: skip


def dense():
    return st.fixed_dictionaries({"N": dims(30), "I": dims(40), "O": dims(40), "act": st.sampled_from(ACTS)})


@st.composite
def convolutions(draw):
    """An image and a filter that fits into it."""
    groups = draw(st.integers(1, 3))
    r, s = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    pad = (draw(st.integers(0, 3)), draw(st.integers(0, 3)))
    y = draw(st.integers(max(1, dilation[0] * (r - 1) + 1 - 2 * pad[0]), 14))
    x = draw(st.integers(max(1, dilation[1] * (s - 1) + 1 - 2 * pad[1]), 14))
    return {
        "N": draw(dims(3)), "Y": y, "X": x, "C": groups * draw(st.integers(1, 9)), "R": r, "S": s,
        "F": groups * draw(st.integers(1, 20)), "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))), "pad": pad,
        "dilation": dilation, "groups": groups,
    }  # fmt: skip


@st.composite
def pools(draw):
    size = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    pad = draw(st.integers(0, size[0] // 2)), draw(st.integers(0, size[1] // 2))
    return {
        "N": draw(dims(3)), "Y": draw(st.integers(max(1, size[0] - 2 * pad[0]), 12)),
        "X": draw(st.integers(max(1, size[1] - 2 * pad[1]), 12)), "C": draw(dims(40, 1)), "size_y": size[0],
        "size_x": size[1], "stride_y": draw(st.integers(1, 3)), "stride_x": draw(st.integers(1, 3)), "pad_y": pad[0],
        "pad_x": pad[1],
    }  # fmt: skip


def matrix(columns=70, rows=60, **more):
    return st.fixed_dictionaries({"n": dims(rows, 2), "C": dims(columns, 2), **more})


def slabs():
    return st.fixed_dictionaries(
        {"A": dims(9), "B": dims(300, 1), "C": dims(40), "op": st.sampled_from(["sum", "mean", "max", "min"])}
    )


DRAWN = {
    "matmul": products(),
    "dense_forward": dense(),
    "dense_backward": dense(),
    "conv2d_forward": convolutions(),
    "conv2d_backward_data": convolutions(),
    "conv2d_backward_weight": convolutions(),
    "conv_transpose2d_forward": convolutions(),
    "max_pool2d_forward": pools(),
    "max_pool2d_backward": pools(),
    "avg_pool2d_forward": pools(),
    "avg_pool2d_backward": pools(),
    "layer_norm_forward": matrix(),
    "batch_norm_forward": matrix(),
    "softmax_cross_entropy_forward": matrix(weighted=st.booleans(), smoothing=st.sampled_from([0.0, 0.125])),
    "reduce_forward": slabs(),
}


@pytest.mark.parametrize("name", DRAWN)
def test_any_shape(target, name):
    case = BY_NAME[name]

    @some
    @given(sizes=DRAWN[name], seed=st.integers(0, 2**32 - 1))
    def check(sizes, seed):
        inputs, expected, yardstick = prepare(case, sizes, np.random.default_rng(seed))
        got = run(target, case, inputs, buffers(case, target, inputs, expected, lambda s: np.full(s, np.nan)))
        expected, yardstick = named(case, target, expected), named(case, target, yardstick)
        for key, array in got.items():
            if array.dtype.kind in "iu":
                np.testing.assert_array_equal(array, yardstick[key], err_msg=key)
            else:
                # one draw's yardstick may be exact by luck: a few roundings of the largest value are allowed beside it
                extra = 8 * np.finfo(np.float32).eps * np.abs(expected[key]).max(initial=0.0)
                close(array, expected[key], yardstick[key], key, extra)

    check()
