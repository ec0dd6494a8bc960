"""What only a GPU can show: streams, other libraries' arrays, arrays beyond 2^31 elements, graphs, a user's own CUDA code.

The tables of kernels run on the GPU, too (test_kernels.py and others, target "cuda"), and so do the networks (test_device.py).
"""

import re

import numpy as np
import pytest

import fastdl
from conftest import LOADED
from fastdl import data, kernels
from fastdl.models import CNN
from test_below_python import GUIDE, installed

pytestmark = pytest.mark.skipif("cuda" not in LOADED, reason="no GPU, or no build with CUDA kernels and CuPy")
if "cuda" in LOADED:
    import cupy


def pointer(a):
    return a.__cuda_array_interface__["data"][0]


def test_kernels_run_on_the_current_stream():
    """What was queued before on that stream comes first, even where other streams do not wait for it."""
    x = cupy.zeros((3000, 3000), cupy.float32)
    y = cupy.empty_like(x)
    cupy.cuda.Device().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        for _ in range(50):
            x += 1  # milliseconds of work
        kernels.activation_forward(x, "relu", out=y)
    assert not stream.done  # nor did the call wait
    stream.synchronize()
    assert (y == 50).all()
    with stream:
        for _ in range(50):
            x += 1
    kernels.activation_forward(x, "relu", out=y, stream=stream.ptr)
    stream.synchronize()
    assert (y == 100).all()


def test_a_call_can_be_captured_in_a_graph(rng):
    a, b = (cupy.asarray(rng.standard_normal((40, 40)).astype(np.float32)) for _ in range(2))
    c = cupy.empty_like(a)
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        kernels.matmul(a, b, out=c)
        stream.begin_capture()
        kernels.matmul(a, b, out=c)
        kernels.axpby(1.0, a, 1.0, c)
        graph = stream.end_capture()
        c[...] = 0
        graph.launch(stream)
    stream.synchronize()
    expected = cupy.asnumpy(a) @ cupy.asnumpy(b) + cupy.asnumpy(a)
    np.testing.assert_allclose(cupy.asnumpy(c), expected, rtol=1e-4, atol=1e-4)


def test_arrays_of_pytorch():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch without CUDA")
    t = torch.randn(6, 4, device="cuda")
    y = kernels.activation_forward(t, "tanh")
    assert isinstance(y, cupy.ndarray)
    torch.testing.assert_close(torch.from_dlpack(y), torch.tanh(t), rtol=1e-5, atol=1e-6)
    out = torch.empty_like(t)
    assert kernels.activation_forward(t, "tanh", out=out) is out
    torch.testing.assert_close(out, torch.from_dlpack(y), rtol=0, atol=0)
    a = fastdl.array(t)
    assert isinstance(a, cupy.ndarray) and pointer(a) == t.data_ptr()
    with pytest.raises(TypeError, match="y: expected a C-contiguous array; got strides"):
        kernels.activation_forward(t.T.contiguous(), "tanh", out=out.T)


def test_arrays_of_jax():
    jax = pytest.importorskip("jax")
    if jax.default_backend() != "gpu":
        pytest.skip("JAX without CUDA")
    j = jax.numpy.arange(6.0).reshape(2, 3)
    a = fastdl.array(j)
    assert isinstance(a, cupy.ndarray) and pointer(a) == j.unsafe_buffer_pointer()
    np.testing.assert_allclose(cupy.asnumpy(kernels.activation_forward(a, "relu")), np.arange(6.0).reshape(2, 3))


def test_the_guides_own_cuda_code():
    if not installed():
        pytest.skip("a source tree on the path, not an installation")
    code = next(c for c in re.findall(r"```py\n(.*?)```", GUIDE.read_text(), re.S) if "RawModule" in c)
    space = {}
    exec(compile(code, str(GUIDE), "exec"), space)
    x, y = cupy.asnumpy(space["x"]), cupy.asnumpy(space["y"])
    np.testing.assert_array_equal(y, x * kernels.activation_forward(x, "sigmoid"))


def test_digits_are_learned():
    digits = data.load("mnist-embedded")
    model = CNN(width=16, seed=0).to("cuda").fit(digits.x_train, digits.y_train, epochs=6, batch_size=64, lr=1e-2)
    assert model.score(digits.x_test, digits.y_test) > 0.88  # 0.92 on a CPU


# --------------------------------------------------------------------------------- more elements than 32 bits can count

MANY = 2**31 + 12_345
PART = 20_000


@pytest.fixture
def room():
    """Free memory, given back to the GPU by CuPy before and after."""
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    yield cupy.cuda.runtime.memGetInfo()[0]
    pool.free_all_blocks()


def need(room, gigabytes):
    if room < gigabytes * 1e9:
        pytest.skip(f"{gigabytes} GB of memory on the GPU; {room / 1e9:.0f} are free")


def filled(n, seed=0):
    """n uniform numbers in [-1, 1), by CuPy from a short period: fast, and other than our own kernels."""
    period = cupy.asarray(np.random.default_rng(seed).uniform(-1, 1, 1_000_003).astype(np.float32))
    x = cupy.empty(n, cupy.float32)
    for at in range(0, n, 1_000_003):
        x[at : at + 1_000_003] = period[: min(1_000_003, n - at)]
    return x


def same(part, expected):
    np.testing.assert_array_equal(cupy.asnumpy(part), expected)


def test_many_elements_by_formulas(room):
    need(room, 45)
    x = filled(MANY)
    y = kernels.activation_forward(x, "gelu")
    tail = cupy.asnumpy(x[-PART:])
    same(y[-PART:], kernels.activation_forward(tail, "gelu"))
    same(kernels.binary(x.reshape(1, -1), y, "mul")[0, -PART:], tail * cupy.asnumpy(y[-PART:]))
    kernels.axpby(0.5, x, 2.0, y)
    same(y[-PART:], kernels.axpby(0.5, tail, 2.0, kernels.activation_forward(tail, "gelu")))
    x[:-PART] = 0
    assert float(kernels.sum_squares(x)[0]) == pytest.approx(float((tail.astype(float) ** 2).sum()), rel=1e-5)


def test_many_random_numbers(room):
    need(room, 20)
    x = kernels.uniform(seed=5, y=cupy.empty(MANY, cupy.float32))
    same(x[-PART:], kernels.uniform(seed=5, offset=MANY - PART, y=np.empty(PART, np.float32)))
    y = kernels.dropout_forward(x, 0.25, seed=9)
    kept = float((y != 0).mean(dtype=cupy.float64))
    assert kept == pytest.approx(0.75, abs=1e-4)


def test_a_step_of_adam_over_many_weights(room):
    need(room, 36)
    arrays = {"w": filled(MANY), "g": filled(MANY, 1), "m": cupy.zeros(MANY, cupy.float32), "v": cupy.zeros(MANY, cupy.float32)}
    tails = {k: cupy.asnumpy(a[-PART:]) for k, a in arrays.items()}
    for to in (arrays, tails):
        kernels.adam(to["g"], lr=0.1, t=1, w=to["w"], m=to["m"], v=to["v"])
    for k, tail in tails.items():
        same(arrays[k][-PART:], tail)


def test_a_product_of_many_elements(room):
    need(room, 12)
    a, b = filled(70_001 * 20).reshape(70_001, 20), filled(20 * 31_000, 1).reshape(20, 31_000)
    c = kernels.matmul(a, b)
    np.testing.assert_allclose(cupy.asnumpy(c[-3:]), cupy.asnumpy(a[-3:]) @ cupy.asnumpy(b), rtol=1e-4, atol=1e-5)
    d = kernels.matmul(c, b, trans_b=True)[-3:]
    np.testing.assert_allclose(cupy.asnumpy(d), cupy.asnumpy(c[-3:]) @ cupy.asnumpy(b).T, rtol=1e-3, atol=1e-2)


def test_rows_of_a_large_batch_are_those_of_a_small_one(room):
    """Convolution, pooling, normalisation, softmax and embedding over more than 2^31 elements."""
    need(room, 45)
    x = filled(2_200 * 1_000 * 1_000).reshape(2_200, 1_000, 1_000, 1)
    w = filled(9, 2).reshape(3, 3, 1, 1)
    last = x[-1:].copy()
    y = kernels.conv2d_forward(x, w, pad_y=1, pad_x=1)
    same(y[-1:], cupy.asnumpy(kernels.conv2d_forward(last, w, pad_y=1, pad_x=1)))
    dx = kernels.conv2d_backward_data(y, w, pad_y=1, pad_x=1)
    same(dx[-1:], cupy.asnumpy(kernels.conv2d_backward_data(y[-1:].copy(), w, pad_y=1, pad_x=1)))
    del dx
    same(kernels.max_pool2d_forward(x)[-1:], cupy.asnumpy(kernels.max_pool2d_forward(last)))
    # Of dy only the last image counts, so only that of x does.
    y[:-1] = 0
    dw, alone = cupy.empty((2, 3, 3, 1, 1), cupy.float32)
    kernels.conv2d_backward_weight(x, y, pad_y=1, pad_x=1, dw=dw)
    kernels.conv2d_backward_weight(last, y[-1:].copy(), pad_y=1, pad_x=1, dw=alone)
    np.testing.assert_allclose(cupy.asnumpy(dw), cupy.asnumpy(alone), rtol=1e-4, atol=1e-2)
    del y
    rows = x.reshape(-1, 1_000)
    same(kernels.softmax_forward(rows)[-2:], cupy.asnumpy(kernels.softmax_forward(rows[-2:].copy())))
    index = cupy.asarray([0, len(rows) - 1, 5])
    same(kernels.embedding_forward(rows, index), cupy.asnumpy(rows[index]))
