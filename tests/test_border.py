"""What callers can do to the border besides wrong shapes: strange objects, strange numbers, the interpreter's end."""

import gc
import subprocess
import sys

import numpy as np
import pytest

import fastdl
from fastdl import kernels

f32 = np.float32


@pytest.fixture
def x():
    return np.arange(12, dtype=f32).reshape(3, 4)


# ------------------------------------------------------------------------------------------------------ arrays


@pytest.mark.parametrize("axes", [0, 1, 32, 33, 64])
def test_any_number_of_axes(axes):
    """NumPy's arrays have up to 64, and so may outputs that are made."""
    y = kernels.activation_forward(np.full((1,) * axes, -2, f32), "relu")
    assert y.shape == (1,) * axes and y.sum() == 0
    y, mean, rstd = kernels.layer_norm_forward(np.ones((1,) * max(axes, 1), f32), None, None)
    assert mean.shape == rstd.shape == y.shape[:-1]


def test_more_axes_than_numpy_has():
    with pytest.raises(ValueError, match="y: expected at most 64 axes; got 65"):
        kernels.embedding_forward(np.ones((2, 3), f32), np.zeros((1,) * 64, np.int64))


def test_an_array_that_is_not_aligned():
    memory = np.zeros(64, np.uint8)
    for offset in (1, 2, 3):
        off = np.ndarray(12, f32, buffer=memory.data, offset=offset)
        with pytest.raises(TypeError, match=r"x: expected an aligned array; got an address .* \(x.copy\(\) makes one\)"):
            kernels.activation_forward(off, "relu")
        with pytest.raises(TypeError, match="y: expected an aligned array"):
            kernels.activation_forward(np.zeros(12, f32), "relu", out=off)
        kernels.activation_forward(off.copy(), "relu")


def test_a_mask_is_not_overlooked(x):
    masked = np.ma.masked_greater(x, 3)
    with pytest.raises(TypeError, match="x: expected an array without a mask; got one with a mask"):
        kernels.activation_forward(masked, "relu")
    with pytest.raises(TypeError, match="y: expected an array without a mask"):
        kernels.activation_forward(x, "relu", out=masked)
    assert kernels.activation_forward(masked.filled(0), "relu").sum() == 6


def test_subclasses_are_arrays(x, tmp_path):
    class Own(np.ndarray):
        @property
        def shape(self):  # what Python code says of an array does not count
            return (10**6,)

    expected = kernels.activation_forward(x, "relu")
    for array in (x.view(Own), x.view(np.matrix), x.view(np.recarray)):
        np.testing.assert_array_equal(kernels.activation_forward(array, "relu"), expected)
    mapped = np.memmap(tmp_path / "x", f32, "w+", shape=(3, 4))
    assert kernels.activation_forward(x, "relu", out=mapped) is mapped
    np.testing.assert_array_equal(mapped, expected)


def test_array_makes_what_kernels_take(x):
    """`fastdl.array` is the one converter."""
    off = np.frombuffer(bytes(49), f32, 12, offset=1)
    for odd in (off, x.T, x.astype(">f4"), x.astype(int), x[::-1], np.ma.array(x), x.view(np.matrix), x.tolist()):
        assert (kernels.activation_forward(fastdl.array(odd), "relu") == np.asarray(odd)).all()
    assert fastdl.array(x) is x
    with pytest.raises(TypeError, match=r"expected an array without masked elements; got a masked array \(its filled"):
        fastdl.array(np.ma.masked_greater(x, 3))
    with pytest.raises(TypeError, match="expected an array or what makes one; got None"):
        fastdl.array(None)


@pytest.mark.parametrize(
    ("obj", "dtype", "kind", "message"),
    [
        (fastdl.tensor([1.0, 2.0]), f32, TypeError, r"expected an array or what makes one; got a Tensor \(its data is one\)"),
        (np.ones(3) + 1j, f32, TypeError, "expected real numbers; got complex128"),
        (["1", "2"], f32, TypeError, "expected real numbers; got <U1"),
        (np.array(["2020"], "M8[D]"), np.int64, TypeError, r"expected real numbers; got datetime64\[D\]"),
        ([1.0, 2.5], np.int64, ValueError, "expected whole numbers that int64 holds; got 2.5"),
        ([1.0, np.nan], np.int64, ValueError, "expected whole numbers that int64 holds; got nan"),
        ([-1, 3], np.uint8, ValueError, "expected whole numbers that uint8 holds; got -1"),
        (np.array([2**63], np.uint64), np.int64, ValueError, "expected whole numbers that int64 holds; got 9223372036854775808"),
    ],
)
def test_array_changes_no_number(obj, dtype, kind, message):
    with pytest.raises(kind, match=message):
        fastdl.array(obj, dtype)
    with pytest.raises(kind, match=message):
        fastdl.array(obj, dtype, device="cpu")
    assert fastdl.array([1.0, 2.0, 1e6], np.int64).tolist() == [1, 2, 10**6]
    assert fastdl.array(["a"], None).tolist() == ["a"]


def test_a_dtype_that_numpy_lacks_is_named():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="expected an array of a dtype that NumPy has; got torch.bfloat16"):
        fastdl.array(torch.ones(3, dtype=torch.bfloat16))
    assert fastdl.array(torch.ones(3, dtype=torch.float16)).dtype == f32


class Raises:
    """As a tensor of PyTorch on a GPU that wants a gradient: it says itself what to do."""

    __array_interface__ = property(lambda self: 1 / 0)

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("call detach() first")

    def __dlpack__(self, **_):
        raise RuntimeError


def test_an_array_that_will_not_be_taken():
    with pytest.raises(RuntimeError, match=r"call detach\(\) first"):
        kernels.activation_forward(Raises(), "relu")


@pytest.mark.parametrize("object_", [f32(2), [1.0], "x", memoryview(b"abcd"), np.float32], ids=lambda o: type(o).__name__)
def test_what_is_no_array(object_):
    with pytest.raises(TypeError, match="x: expected a NumPy array of float32; got"):
        kernels.activation_forward(object_, "relu")


# ----------------------------------------------------------------------------------------------------- numbers


def test_flags_are_true_or_false(x):
    """Kernels take flags as C's int, which the upper half of a larger number would not survive."""
    both = kernels.matmul(x, x, trans_b=True)
    for flag in (1, np.True_, np.int8(1)):
        np.testing.assert_array_equal(kernels.matmul(x, x, trans_b=flag), both)
    for wrong in (2, -1, 2**32, 2**33 + 1):
        with pytest.raises(ValueError, match=f"trans_b: expected True or False; got {wrong}"):
            kernels.matmul(x, x, trans_b=wrong)
    for wrong in ("yes", 1.0, None, x):
        with pytest.raises(TypeError, match="trans_b: expected True or False; got"):
            kernels.matmul(x, x, trans_b=wrong)


def test_seeds_are_64_bits_without_sign(x):
    y = np.zeros(12, f32)
    calls = {
        "random_words": lambda **s: kernels.random_words(y=np.zeros(12, np.uint32), **s),
        "uniform": lambda **s: kernels.uniform(y=y, **s),
        "normal": lambda **s: kernels.normal(y=y, **s),
        "bernoulli": lambda **s: kernels.bernoulli(x / 12, **s),
        "dropout": lambda **s: kernels.dropout_forward(x, 0.5, **s),
    }
    for name, call in calls.items():
        for wrong in (-1, -(2**63), -(2**70), 2**64):
            for field, right in (("seed", {}), ("offset", {"seed": 0})):
                with pytest.raises(ValueError, match=rf"^{field}: expected an integer from 0 to 2\*\*64 - 1; got {wrong}$"):
                    call(**right, **{field: wrong})
        assert not y.any(), name
    for right in (0, 2**63, 2**64 - 1):
        kernels.uniform(seed=right, offset=right, y=y)
    with pytest.raises(ValueError, match=f"t: expected a 64-bit integer; got {2**63}"):
        kernels.adam(x, lr=0.1, t=2**63, w=x.copy(), m=x.copy(), v=x.copy())


class Interrupts:
    def __index__(self):
        raise KeyboardInterrupt

    __float__ = __index__


def test_exceptions_of_others_go_through(x):
    with pytest.raises(KeyboardInterrupt):
        kernels.get_columns(x, Interrupts(), np.zeros((3, 1), f32))
    with pytest.raises(KeyboardInterrupt):
        kernels.activation_forward(x, "relu", slope=Interrupts())
    with pytest.raises(ValueError, match="slope: expected a number that a float can hold; got a larger one"):
        kernels.activation_forward(x, "relu", slope=10**400)


def test_words_of_any_length_and_script(x):
    with pytest.raises(ValueError, match="act: expected one of none, relu"):
        kernels.activation_forward(x, "é" * 5000)
    with pytest.raises(TypeError, match="activation_forward: unexpected argument é"):
        kernels.activation_forward(x, "relu", **{"é" * 5000: 1})
    with pytest.raises(TypeError, match="activation_forward: unexpected argument"):
        kernels.activation_forward(x, "relu", **{"\ud800": 1})


def test_stream(x):
    for none in (None, 0):
        kernels.activation_forward(x, "relu", stream=none)
    with pytest.raises(TypeError, match="stream: expected an address, as an integer; got str"):
        kernels.activation_forward(x, "relu", stream="0")


# ------------------------------------------------------------------------------------------------- references


def wrong_calls(x):
    read_only = x.copy()
    read_only.flags.writeable = False
    return [
        lambda: kernels.dense_forward(x.astype(float), x),
        lambda: kernels.dense_forward(x, x),
        lambda: kernels.dense_forward(x, None),
        lambda: kernels.layer_norm_forward(x, None, None, mean=np.zeros(9, f32)),
        lambda: kernels.softmax_cross_entropy_forward(x, np.array([0, 1, 9])),
        lambda: kernels.activation_forward(x, "relu", out=x[:2]),
        lambda: kernels.activation_forward(x, "relu", out=read_only),
        lambda: kernels.activation_forward(x, "relu", slope=-1.0),
        lambda: kernels.activation_forward(x, "relu", unknown=1),
        lambda: kernels.sum_squares(x, work=read_only),
        lambda: kernels.matmul(x, x, trans_b=1, beta=1.0),
        lambda: kernels.matmul(x, x, trans_b=2**70),
    ]


def test_errors_keep_no_references(x):
    gc.collect()  # what other tests have left may have such dtypes
    for k, call in enumerate(wrong_calls(x)):
        counts = []
        for _ in range(2):
            for _ in range(50):
                with pytest.raises((TypeError, ValueError)):
                    call()
            counts.append((sys.getrefcount(x), sys.getrefcount(np.dtype(f32))))
        assert counts[0] == counts[1], k


# ------------------------------------------------------------------------------------------ the interpreter's end

AT_EXIT = """
import atexit, sys, threading, time
import numpy as np
from fastdl import kernels

x = np.ones((400, 400), np.float32)
started = threading.Event()

def compute():  # a daemon thread, in a kernel when the interpreter ends
    while True:
        kernels.matmul(x, x)
        started.set()

class Late:
    def __del__(self):
        print("del", int(matmul(x, x)[0, 0]))

matmul = kernels.matmul
sys.late = Late()
atexit.register(lambda: print("atexit", int(kernels.matmul(x, x)[0, 0])))
threading.Thread(target=compute, daemon=True).start()
started.wait()
"""


def test_a_thread_computes_when_the_interpreter_ends():
    for _ in range(3):
        done = subprocess.run([sys.executable, "-P", "-c", AT_EXIT], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == "atexit 400"
