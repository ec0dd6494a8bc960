"""The scratch that a caller hands to a kernel, `work`: an array like the others of the call."""

import importlib
import importlib.util
import re

import numpy as np
import pytest

import fake_cuda


def call(kernels, array, **change):
    """The gradients of a dense layer, whose scratch holds dz and parts of sums; `array` makes arrays from NumPy's."""
    arguments = {
        "x": array(np.ones((300, 3), np.float32)), "w": array(np.ones((3, 4), np.float32)),
        "saved": array(np.ones((300, 4), np.float32)), "dy": array(np.ones((300, 4), np.float32)), "act": "relu",
        "dx": array(np.zeros((300, 3), np.float32)), "dw": array(np.zeros((3, 4), np.float32)),
    }  # fmt: skip
    return kernels.dense_backward(**{**arguments, **change})


def wanted(kernels, array):
    with pytest.raises(ValueError, match="work: expected at least") as error:
        call(kernels, array, work=array(np.zeros(0, np.float32)))
    return int(re.search(r"at least (\d+) floats; got 0", str(error.value))[1])


def itself(a):
    return a


def test_scratch_is_checked(target):
    n = wanted(target, itself)
    call(target, itself, work=np.zeros(n, np.float32))
    with pytest.raises(ValueError, match=f"work: expected at least {n} floats; got {n - 1}"):
        call(target, itself, work=np.zeros(n - 1, np.float32))
    with pytest.raises(TypeError, match="work: expected float32 in native byte order; got float64"):
        call(target, itself, work=np.zeros(n))
    frozen = np.zeros(n, np.float32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="work: expected a writeable array; got a read-only array"):
        call(target, itself, work=frozen)


@pytest.mark.parametrize("name", ["x", "w", "dy", "dx", "dw"])
def test_scratch_lies_apart(target, name):
    block = np.ones(wanted(target, itself) + 1200, np.float32)
    sizes = {"x": (300, 3), "w": (3, 4), "dy": (300, 4), "dx": (300, 3), "dw": (3, 4)}[name]
    other = block[: np.prod(sizes)].reshape(sizes)
    words = "expected an array that does not overlap"
    with pytest.raises(ValueError, match=rf"work: {words} {name}; got|{name}: {words} work; got"):
        call(target, itself, **{name: other, "work": block[other.size - 1 :]})
    call(target, itself, **{name: other, "work": block[other.size :]})


@pytest.fixture
def emu():
    if importlib.util.find_spec("fastdl._emu_cuda") is None:
        pytest.skip("no emulator (built with FASTDL_TEST_TARGETS=ON)")
    module = importlib.import_module("fastdl._emu_cuda")
    with fake_cuda.as_cuda(module):
        yield module
    module.memory_is_on(0, 0, 0)
    module.take_waits()


def test_scratch_is_on_the_gpu_of_the_others(emu):
    def there(a):
        emu.memory_is_on(a.ctypes.data, a.nbytes, 1)
        return fake_cuda.ndarray(a, fake_cuda.Device(1))

    work = fake_cuda.ndarray(np.zeros(wanted(emu, there), np.float32), fake_cuda.Device(0))
    with pytest.raises(TypeError, match="work: expected an array on GPU 1, as the others of this call; got GPU 0"):
        call(emu, there, work=work)
    with pytest.raises(TypeError, match="work: expected a CUDA array of float32; got "):
        call(emu, there, work=work.host)


def test_the_stream_of_scratch_is_waited_for(emu):
    def there(a):
        return fake_cuda.ndarray(a, fake_cuda.Device(0))

    host = np.zeros(wanted(emu, there), np.float32)
    emu.take_waits()
    with fake_cuda.Stream(5):
        call(emu, there, work=fake_cuda.Foreign(host, fake_cuda.Device(0), {"stream": 7}))
    assert emu.take_waits() == [(5, 7)]
