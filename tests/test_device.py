"""Networks on CUDA arrays. The arrays of `fake_cuda` stand in for CuPy's, so that all paths are walked without a GPU; where
there is one, the same tests run on it with CuPy."""

import copy
import importlib
import importlib.util
import inspect
import pickle

import numpy as np
import pytest

import fake_cuda
import fastdl
from conftest import LOADED
from fastdl import Tensor, backend, kernels, nn, ops, optim, train
from fastdl.models import (
    CNN,
    DBM,
    GAN,
    MLP,
    RBM,
    Autoencoder,
    CharLM,
    ClassificationRBM,
    ConvolutionalRBM,
    Forecaster,
    Perceptron,
    RNNClassifier,
    SoftmaxRegression,
)

KERNELS = {"host": fake_cuda.HostKernels(backend.cpu)}
if importlib.util.find_spec("fastdl._emu_cuda"):  # CUDA's kernels and border, in the emulator
    KERNELS["emu"] = importlib.import_module("fastdl._emu_cuda")


@pytest.fixture(params=list(KERNELS))
def fake(request):
    """Arrays of `fake_cuda` are CUDA arrays; their kernels are those of the CPU, or CUDA's in the emulator."""
    with fake_cuda.as_cuda(KERNELS[request.param]):
        yield fake_cuda


@pytest.fixture(params=[*KERNELS, *(["cuda"] if "cuda" in LOADED else [])])
def library(request):
    """The array library behind the device "cuda": `fake_cuda` as in `fake`, or CuPy on a GPU."""
    if request.param == "cuda":
        import cupy

        yield cupy
    else:
        with fake_cuda.as_cuda(KERNELS[request.param]):
            yield fake_cuda


def address(a):
    return a.__cuda_array_interface__["data"][0]


def blobs(rng, n=120, shape=(6,), classes=3):
    """Samples around a centre for each class, float32, and their labels."""
    labels = np.arange(n) % classes
    centres = rng.normal(size=(classes, *shape))
    return (centres[labels] + 0.3 * rng.normal(size=(n, *shape))).astype(np.float32), labels.astype(np.int64)


def nets():
    return {
        "mlp": ((6,), nn.Sequential(nn.Dense(16, "gelu"), nn.LayerNorm(), nn.Dropout(0.2), nn.Dense(3))),
        "cnn": (
            (9, 9, 2),
            nn.Sequential(
                nn.Conv2d(4, 3, "relu", padding="same"), nn.BatchNorm(), nn.MaxPool2d(2), nn.Conv2d(5, 3, "gelu"),
                nn.AvgPool2d(2), nn.Flatten(), nn.Dense(8, "leaky_relu"), nn.Dense(3),
            ),
        ),
        "recurrent": (
            (4, 3),
            nn.Sequential(
                nn.LSTM(5, bidirectional=True, peephole=True, zoneout=0.1, recurrent_dropout=0.1),
                nn.GRU(4, layers=2, dropout=0.1), nn.RNN(6, output="last"), nn.Dense(3),
            ),
        ),
        "all": (
            (8, 8, 2),
            nn.Sequential(
                nn.Residual(nn.Conv2d(2, 3, padding="same")), nn.ConvTranspose2d(3, 3, "gelu", stride=2),
                nn.GlobalAvgPool2d(), nn.Dense(3),
            ),
        ),
    }  # fmt: skip


def run(net, x, y, optimizer, device, **options):
    net.to(device)
    history = train.fit(net, x, y, loss="softmax_cross_entropy", optimizer=optimizer, seed=3, **options)
    return history


@pytest.mark.parametrize("name", ["mlp", "cnn", "all", "recurrent"])
@pytest.mark.parametrize("data", ["on the device", "on the host"])
def test_training_is_that_of_the_cpu(library, name, data, rng):
    shape, net = nets()[name]
    x, y = blobs(rng, shape=shape)
    options = dict(epochs=3, batch_size=32, validation=(x[:30], y[:30]), metrics={"accuracy": train.accuracy})
    there = copy.deepcopy(net)
    for n in (net, there):
        n.build(shape, seed=5)
    here = run(net, x, y, optim.Adam(net, 0.01, clip=1.0), "cpu", **options)
    if data == "on the device":
        x, y = library.asarray(x), library.asarray(y)
    gone = run(there, x, y, optim.Adam(there, 0.01, clip=1.0), "cuda", **options)
    for key in ("loss", "val_loss", "val_accuracy"):
        np.testing.assert_allclose(gone[key], here[key], rtol=1e-4, atol=1e-5, err_msg=key)
    assert all(type(p.data) is library.ndarray for p in there.parameters())
    for key, value in net.get_weights().items():
        np.testing.assert_allclose(there.get_weights()[key], value, rtol=1e-3, atol=1e-4, err_msg=key)


@pytest.mark.parametrize("Optimizer", [optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.AdaGrad])
def test_a_network_moves_in_the_middle_of_training(library, Optimizer, rng):
    """cpu -> cuda -> cpu, its optimiser's state with it: the steps of a network that stayed."""
    x, y = blobs(rng)
    options = {"momentum": 0.9} if Optimizer is optim.SGD else {}
    nets = [nn.Sequential(nn.Dense(8, "tanh"), nn.BatchNorm(), nn.Dense(3)).build((6,), seed=1) for _ in range(2)]
    opts = [Optimizer(net, 0.01, weight_decay=0.01, **options) for net in nets]
    for device in ("cpu", "cuda", "cpu", "cuda"):
        for net, opt, where in zip(nets, opts, ("cpu", device), strict=True):
            run(net, x, y, opt, where, epochs=1)
    assert type(opts[1].flat.data) is library.ndarray
    for net in nets:
        assert net.flatten() is opts[nets.index(net)].flat  # still one vector
    for key, value in nets[0].get_weights().items():
        np.testing.assert_allclose(nets[1].get_weights()[key], value, rtol=1e-4, atol=1e-5, err_msg=key)
    a, b = (opt.get_state() for opt in opts)
    assert a["t"] == b["t"]
    for key in opts[0].state:
        np.testing.assert_allclose(b[key], a[key], rtol=1e-3, atol=1e-5, err_msg=key)


def test_checkpoints_move_freely(library, rng, tmp_path):
    x, y = blobs(rng)
    first = MLP(hidden=(8,), norm="batch").to("cuda").fit(x, y, epochs=2)
    first.save(tmp_path / "cuda.safetensors")
    second = MLP.load(tmp_path / "cuda.safetensors")
    assert type(second.module_.parameters()[0].data) is np.ndarray
    np.testing.assert_allclose(second.predict_proba(x), first.predict_proba(x), rtol=1e-4, atol=1e-6)
    second.save(tmp_path / "cpu.safetensors")
    third = MLP.load(tmp_path / "cpu.safetensors").to("cuda")
    assert type(third.module_.parameters()[0].data) is library.ndarray
    np.testing.assert_allclose(third.predict_proba(x), first.predict_proba(x), rtol=1e-4, atol=1e-6)


def test_optimiser_states_move_freely(library):
    net = nn.Sequential(nn.Dense(3)).build((4,), 0)
    opt = optim.Adam(net)
    net.flatten().grad[...] = 1.0
    net.parameters()[0].beta = net.parameters()[1].beta = 1.0
    opt.step()
    state = opt.get_state()
    other = nn.Sequential(nn.Dense(3)).build((4,), 0).to("cuda")
    there = optim.Adam(other)
    there.set_state(state)
    assert type(there.state["m"]) is library.ndarray
    for key, value in there.get_state().items():
        np.testing.assert_array_equal(value, state[key])


@pytest.mark.parametrize("kind", ["float32", "uint8"])
@pytest.mark.parametrize("where", ["host", "device"])
def test_models(library, kind, where, rng):
    x, y = blobs(rng, n=60, shape=(8, 8))
    x = (255 / (1 + np.exp(-x))).astype(np.uint8) if kind == "uint8" else x
    names = np.array(["a", "b", "c"])[y]
    data = library.asarray(x) if where == "device" else x
    for make in (lambda: MLP(hidden=(8,)), lambda: CNN(width=4), lambda: SoftmaxRegression(), lambda: Perceptron()):
        model, twin = make().to("cuda"), make()
        for m, samples in ((model, data), (twin, x)):
            m.fit(samples, names, epochs=2, validation=0.2)
        assert type(model.module_.parameters()[0].data) is library.ndarray
        np.testing.assert_allclose(model.decision_function(data), twin.decision_function(x), rtol=1e-3, atol=1e-3)
        assert model.score(data, names) == pytest.approx(twin.score(x, names), abs=0.05)
        assert type(model.predict(data)) is np.ndarray


def test_augmentation(library, rng):
    from fastdl.data import Augment

    augment = Augment(shift=2, rotate=10, elastic=(2.0, 3.0))
    for x in (rng.random((4, 8, 8, 1), np.float32), rng.integers(0, 255, (4, 8, 8, 1)).astype(np.uint8)):
        there = augment(library.asarray(x), 7)
        assert type(there) is library.ndarray
        np.testing.assert_allclose(library.asnumpy(there), augment(x, 7), rtol=1e-5, atol=1e-5)
        labels = np.arange(4) % 2
        CNN(width=2).to("cuda").fit(library.asarray(x), labels, epochs=1, augment=augment)
        CNN(width=2).to("cuda").fit(x, labels, epochs=1, augment=augment)


def test_copies_keep_their_device(library):
    net = nn.Sequential(nn.Dense(3), nn.BatchNorm()).build((4,), 0).to("cuda")
    optim.SGD(net)
    for twin in (net.clone(), pickle.loads(pickle.dumps(net))):
        assert all(type(p.data) is library.ndarray for p in twin.parameters())
        twin.flatten().data[...] = 0.0
        assert not twin.get_weights()["0.w" if "0.w" in twin.get_weights() else next(iter(twin.get_weights()))].any()
    assert net.get_weights()[next(iter(net.get_weights()))].any()


def test_a_loss_that_is_not_finite_is_explained(library, rng):
    x, y = blobs(rng)
    x[7, 2] = np.nan
    net = nn.Sequential(nn.Dense(3), nn.BatchNorm()).build((6,), 0).to("cuda")
    before = net.get_weights()
    with pytest.raises(FloatingPointError, match="input is not finite .first in row 7 of the batch"):
        train.fit(net, x, y, loss="softmax_cross_entropy", optimizer=optim.SGD(net), shuffle=False)
    for key, value in net.get_weights().items():
        np.testing.assert_array_equal(value, before[key])


def test_best_weights_come_back(library, rng):
    x, y = blobs(rng)
    net = nn.Sequential(nn.Dense(3)).build((6,), 0).to("cuda")
    kept = []

    def spoil(state):
        kept.append(net.get_weights())
        net.set_weights({key: -value for key, value in kept[0].items()})

    train.fit(net, x, y, loss="softmax_cross_entropy", optimizer=optim.SGD(net, 0.1), epochs=3, restore_best=True,
              schedule=lambda t, total: 1.0 if t < total / 3 else 0.0, callbacks=[spoil])  # fmt: skip
    assert len(kept) == 3 and not any(np.array_equal(kept[2][key], kept[0][key]) for key in kept[0])
    for key, value in net.get_weights().items():
        np.testing.assert_array_equal(value, kept[0][key])


def test_moving_keeps_the_flat_vector_one(library):
    net = nn.Sequential(nn.Dense(5), nn.Dense(3)).build((4,), 0)
    flat, weights = net.flatten(), net.get_weights()
    net.to("cuda")
    assert net.flatten() is flat and type(flat.data) is library.ndarray
    for p in net.parameters():
        for part, whole in ((p.data, flat.data), (p.grad, flat.grad)):
            assert 0 <= address(part) - address(whole) <= 4 * (whole.size - part.size)
    same = flat.data
    assert net.to("cuda").flatten().data is same  # there already
    net.to("cpu")
    for key, value in net.get_weights().items():
        np.testing.assert_array_equal(value, weights[key])


# --------------------------------------------------------------------------------------------------------- arrays


def test_public_kernels_go_where_the_arrays_are(library, rng):
    x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((5, 3), (3, 4)))
    there = [library.asarray(a) for a in (x, w)]
    y = kernels.dense_forward(*there, act="relu")
    assert type(y) is library.ndarray
    np.testing.assert_allclose(library.asnumpy(y), kernels.dense_forward(x, w, act="relu"), rtol=1e-5, atol=1e-6)
    out = library.empty((5, 4), np.float32)
    assert kernels.matmul(*there, out=out) is out
    z = library.empty((100,), np.float32)
    kernels.uniform(seed=3, y=z)
    np.testing.assert_array_equal(library.asnumpy(z), kernels.uniform(seed=3, y=np.empty(100, np.float32)))
    for mixed in ((x, there[1]), (there[0], w)):
        with pytest.raises(TypeError, match="expected a CUDA array"):
            kernels.matmul(*mixed)


@pytest.mark.skipif(importlib.util.find_spec("fastdl._cuda") is not None, reason="a build with CUDA")
def test_without_cuda_a_cuda_array_says_what_is_missing():
    with pytest.raises(ImportError, match="cuda: expected a build with CUDA kernels; got one without"):
        kernels.activation_forward(fake_cuda.zeros((2, 3), np.float32), "relu")


def test_array_goes_where_it_is_told(fake):
    a = fastdl.array([[1, 2], [3, 4]], device="cuda")
    assert type(a) is fake.ndarray and a.dtype == np.float32 and a.device.id == 0
    assert fastdl.array(a) is a
    b = fastdl.array(a, np.int64, device="cpu")
    assert type(b) is np.ndarray and b.tolist() == [[1, 2], [3, 4]]
    assert fastdl.array(b, np.int64) is b
    assert fastdl.array(b, device="cuda:1").device.id == 1
    assert fastdl.array(fastdl.array(b, device="cuda:1"), device="cuda:0").device.id == 0
    assert fastdl.array(a, np.int64).dtype == np.int64
    for wrong in ("gpu", "cuda:", "cuda:x", "cpu:0", 3):
        with pytest.raises(ValueError, match="device: expected 'cpu', 'cuda' or 'cuda:N'; got"):
            fastdl.array(b, device=wrong)


def test_values_go_from_one_gpu_to_another(fake):
    a, b = (fastdl.array([[1.0, 2.0]], device=f"cuda:{i}") for i in range(2))
    assert backend.to_device(a, a) is a
    moved = backend.to_device(b, a)
    assert moved.device.id == 0 and fake.asnumpy(moved).tolist() == [[1, 2]]
    a[...] = 0.0
    backend.assign(a, b)
    assert a.device.id == 0 and fake.asnumpy(a).tolist() == [[1, 2]]


class Foreign:
    """An array of some other library."""

    def __init__(self, host, kind, number=0):
        self.host, self.device, self._where = host, fake_cuda.Device(number), (kind, number)

    def __dlpack_device__(self):
        return self._where

    def __dlpack__(self, **options):
        return self.host.__dlpack__(**options)


def test_dlpack(fake):
    host = np.arange(6, dtype=np.float32)
    assert np.shares_memory(fastdl.array(Foreign(host, 1)), host)
    a = fastdl.array(Foreign(host, 2, 1))
    assert type(a) is fake.ndarray and a.device.id == 1
    with pytest.raises(BufferError, match="expected an array on a CPU or a CUDA GPU; got one on DLPack device 10"):
        fastdl.array(Foreign(host, 10))


def test_torch_tensors():
    torch = pytest.importorskip("torch")
    t = torch.arange(6.0).reshape(2, 3)
    assert np.shares_memory(fastdl.array(t), t.numpy())
    assert fastdl.array(t.T).flags.c_contiguous


def test_jax_arrays():
    jax = pytest.importorskip("jax")
    assert fastdl.array(jax.numpy.arange(6.0)).tolist() == [0, 1, 2, 3, 4, 5]


def test_operations_on_mixed_devices_are_refused(library):
    with pytest.raises(TypeError, match="CUDA array"):
        ops.dense(Tensor(library.zeros((2, 3), np.float32)), Tensor(np.zeros((3, 4), np.float32)))
    with pytest.raises(TypeError, match="expected a NumPy or CuPy array .fastdl.array makes one.; got list"):
        backend.home([1.0])
    with pytest.raises(TypeError, match="data: expected a NumPy or CUDA array .*; got list"):
        backend.kernels([1.0])


# ------------------------------------------------------------------------------------------ the border of CUDA arrays


@pytest.fixture
def emu():
    """The CUDA module's border over the emulator, arrays of `fake_cuda` in front of it."""
    if "emu" not in KERNELS:
        pytest.skip("no emulator (built with FASTDL_TEST_TARGETS=ON)")
    module = KERNELS["emu"]
    with fake_cuda.as_cuda(module):
        yield module
    module.memory_is_on(0, 0, 0)
    module.take_waits()


def floats(*shape, **interface):
    n = int(np.prod(shape))
    host = np.arange(n, dtype=np.float32).reshape(shape)
    return fake_cuda.Foreign(host, fake_cuda.Device(0), interface or None)


def test_border_takes_whatever_has_the_interface(emu):
    class Other:  # no CuPy array, as PyTorch's tensors are none
        def __init__(self, a):
            self.__cuda_array_interface__ = a.__cuda_array_interface__ | {"typestr": "<f4"}
            self.keep = a

    x = floats(3, 4)
    y = emu.activation_forward(Other(x), "relu")
    assert type(y) is fake_cuda.ndarray
    np.testing.assert_array_equal(y.host, x.host)
    out = floats(3, 4)
    assert emu.activation_forward(x, "relu", out=out) is out


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(mask=floats(2, 2)), TypeError, "x: expected an array without a mask; got one with a mask"),
        (dict(typestr="<f8"), TypeError, "x: expected float32 in native byte order; got float"),
        (dict(typestr=">f4"), TypeError, "x: expected float32 in native byte order; got"),
        (dict(strides=(4, 8)), TypeError, r"x: expected a C-contiguous array; got strides \(4, 8\)"),
        (dict(data=(4097, False)), TypeError, "x: expected an aligned array; got an address that is not a multiple"),
        *(
            (change, TypeError, "x: expected a CUDA array of float32; got Foreign")
            for change in (dict(shape=None), dict(shape=(-2, -2)), dict(shape=(2.0, 2)), dict(typestr=3),
                           dict(strides=(8,)), dict(strides=()), dict(strides=[8, 4]))
        ),
    ],
)
def test_border_refuses(emu, change, error, words):
    with pytest.raises(error, match=words):
        emu.activation_forward(floats(2, 2, **change), "relu")


def test_border_refuses_host_memory_and_read_only_outputs(emu):
    for wrong in (np.zeros((2, 2), np.float32), [1.0]):
        with pytest.raises(TypeError, match="x: expected a CUDA array of float32; got"):
            emu.activation_forward(wrong, "relu")
    x, y = floats(2, 2), floats(2, 2)
    y.host.flags.writeable = False
    with pytest.raises(ValueError, match="expected a writeable array; got a read-only array"):
        emu.activation_forward(x, "relu", out=y)
    emu.memory_is_on(x.host.ctypes.data, x.host.nbytes, -1)
    with pytest.raises(TypeError, match="x: expected memory of a GPU; got memory of the host"):
        emu.activation_forward(x, "relu")


def test_border_wants_one_gpu_and_makes_it_current(emu):
    x, w, other = floats(2, 3), floats(3, 4), floats(3, 4)
    for a in (x, w):
        emu.memory_is_on(a.host.ctypes.data, a.host.nbytes, 1)
    with pytest.raises(TypeError, match="w: expected an array on GPU 1, as the others of this call; got GPU 0"):
        emu.dense_forward(x, other)
    asked = []

    def make(shape, dtype, device, stream):
        asked.append((device, stream))
        a = fake_cuda.empty(shape, dtype)
        emu.memory_is_on(a.host.ctypes.data, a.host.nbytes, device)
        return a

    def stream(device):
        asked.append((device, emu.current_device()))
        return 0

    emu.set_array_library(make, stream)
    np.testing.assert_allclose(emu.dense_forward(x, w).host, x.host @ w.host)
    assert asked == [(1, None), (1, 1)]  # the output is made there; the stream is asked for when that GPU is current
    assert emu.current_device() == 0


def test_border_waits_for_the_streams_of_arrays(emu):
    emu.take_waits()
    x = floats(2, 3, stream=7)
    with fake_cuda.Stream(7):
        emu.activation_forward(x, "relu")
    assert emu.take_waits() == []  # all on one stream
    with fake_cuda.Stream(5):
        emu.activation_forward(x, "relu")
    assert emu.take_waits() == [(5, 7)]
    emu.activation_forward(x, "relu", stream=9)
    assert emu.take_waits() == [(9, 7)]


def test_the_default_stream_goes_by_two_names(emu):
    emu.take_waits()
    emu.activation_forward(floats(2, 3, stream=1), "relu")
    emu.activation_forward(floats(2, 3, stream=1), "relu", stream=1)
    assert emu.take_waits() == []


def test_arrays_of_the_library_are_taken_by_their_attributes(emu, monkeypatch):
    x, w = fake_cuda.asarray(np.ones((2, 3), np.float32)), fake_cuda.asarray(np.ones((3, 4), np.float32))
    expected = emu.dense_forward(x, w).host
    monkeypatch.delattr(fake_cuda.ndarray, "__cuda_array_interface__")
    y = emu.dense_forward(x, w)
    assert type(y) is fake_cuda.ndarray
    np.testing.assert_array_equal(y.host, expected)


def test_arrays_of_the_library_are_checked(emu):
    x = fake_cuda.asarray(np.ones((2, 3), np.float32))
    for wrong, error, words in (
        (fake_cuda.asarray(np.ones((2, 3))), TypeError, "x: expected float32 in native byte order; got float64"),
        (fake_cuda.asarray(np.ones((2, 6), np.float32))[:, ::2], TypeError, "x: expected a C-contiguous array; got strides"),
        (fake_cuda.asarray(np.ones((2, 4), np.float32)), ValueError, r"w: expected shape \[I,O\], I=4 from x; got \[3,2\]"),
    ):
        with pytest.raises(error, match=words):
            emu.dense_forward(wrong, fake_cuda.asarray(np.ones((3, 2), np.float32)))
    with fake_cuda.Device(1):
        w = fake_cuda.asarray(np.ones((3, 2), np.float32))
    emu.memory_is_on(w.host.ctypes.data, w.host.nbytes, 1)
    with pytest.raises(TypeError, match="w: expected an array on GPU 0, as the others of this call; got GPU 1"):
        emu.dense_forward(x, w)
    assert emu.dense_forward(fake_cuda.zeros((0, 3), np.float32), fake_cuda.zeros((3, 2), np.float32)).shape == (0, 2)


def test_scratch_belongs_to_the_stream_of_the_kernel(emu):
    asked = []

    def make(shape, dtype, device, stream):
        asked.append(stream)
        return fake_cuda.empty(shape, dtype)

    emu.set_array_library(make, lambda device: 3)
    emu.activation_forward(floats(2, 3), "relu")
    emu.activation_forward(floats(2, 3), "relu", stream=11)
    assert asked == [None, 11]


def test_tables_run_on_a_device(emu, rng):
    """The adapter by which the table of kernels runs on a GPU (tests/on_device.py)."""
    from on_device import DeviceKernels

    kernels = DeviceKernels(emu, fake_cuda)
    x, w = rng.standard_normal((5, 3)).astype(np.float32), rng.standard_normal((3, 4)).astype(np.float32)
    out = np.zeros((5, 4), np.float32)
    assert kernels.dense_forward(x, w, out=out) is out
    np.testing.assert_allclose(out, x @ w, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(kernels.dense_forward(x, w), out)
    assert kernels.get_num_threads() >= 1 and kernels.SPECS is emu.SPECS
    assert "act" in inspect.signature(kernels.dense_forward).parameters


def test_empty_cuda_arrays(emu):
    x = fake_cuda.ndarray(np.empty((0, 3), np.float32), fake_cuda.Device(0))
    assert emu.dense_forward(x, floats(3, 4)).shape == (0, 4)


def test_a_launch_that_fails_is_an_error(emu):
    assert emu.devices() == [(8, 6), (7, 5)] and emu.runtime_version() == 13000


# ---------------------------------------------------------------------------------------------------- the real CuPy


def test_cupy_has_what_is_used():
    cupy = pytest.importorskip("cupy", reason="no CuPy (.ci/run and make gpu install it)")
    assert cupy.from_dlpack.__doc__.startswith("from_dlpack(array, *,")  # compiled: it has no other signature
    for name in sorted(set(backend.ARRAY_FUNCTIONS) - {"from_dlpack"}):
        mine, theirs = (inspect.signature(getattr(library, name)) for library in (fake_cuda, cupy))
        names = list(theirs.parameters)
        assert list(mine.parameters) == [n for n in names if n in mine.parameters], name  # in their order
        for n in names:  # and no other must be given
            assert n in mine.parameters or theirs.parameters[n].default is not inspect.Parameter.empty, (name, n)
    for name in backend.ARRAY_ATTRIBUTES:
        assert hasattr(cupy.ndarray, name), name
        assert hasattr(fake_cuda.ndarray(np.zeros(1), None), name), name
    for name in ("Device", "ExternalStream", "get_current_stream"):
        assert hasattr(cupy.cuda, name)
    assert hasattr(cupy.cuda.Device, "mem_info")
    for name in ("getDevice", "getDeviceCount", "getDeviceProperties"):
        assert hasattr(cupy.cuda.runtime, name) and hasattr(fake_cuda.cuda.runtime, name)


@pytest.mark.parametrize("params", [
    dict(noise="salt", tied=True), dict(noise="gaussian", variational=True), dict(kind="conv", hidden=(3,), noise="mask"),
    dict(act="tanh", code_act="sigmoid", contraction=0.1, sparsity=0.2),
])  # fmt: skip
def test_autoencoders(library, params, rng):
    x = rng.random((40, 8, 8)).astype(np.float32)
    here, there = (Autoencoder(**{"hidden": (9,)} | params, code=4, seed=2) for _ in range(2))
    options = {} if params.get("kind") or params.get("variational") else {"pretrain": 1}
    there.to("cuda").fit(library.asarray(x), epochs=2, batch_size=16, validation=0.25, **options)
    here.fit(x, epochs=2, batch_size=16, validation=0.25, **options)
    assert type(there.module_.parameters()[0].data) is library.ndarray
    np.testing.assert_allclose(there.history_["loss"], here.history_["loss"], rtol=1e-4)
    np.testing.assert_allclose(there.inverse_transform(there.transform(x)), here.reconstruct(x), rtol=1e-3, atol=1e-4)
    assert there.score(x) == pytest.approx(here.score(x), rel=1e-3)


@pytest.mark.parametrize("params", [
    dict(), dict(loss="hinge", spectral_norm=True), dict(loss="wasserstein"), dict(architecture="dcgan", width=2),
])  # fmt: skip
def test_adversarial_networks(library, params, rng):
    x = (255 * rng.random((48, 8, 8))).astype(np.uint8)
    here, there = (GAN(**{"architecture": "mlp", "hidden": (6,), "latent": 3, "seed": 2} | params) for _ in range(2))
    options = dict(epochs=1, batch_size=16, on_collapse="ignore")
    there.to("cuda").fit(library.asarray(x), **options)
    here.fit(x, **options)
    assert all(type(p.data) is library.ndarray for p in there.module_.parameters())
    np.testing.assert_allclose(there.history_["loss"], here.history_["loss"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(there.sample(5), here.sample(5), rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(there.discriminate(x), here.discriminate(x), rtol=1e-2, atol=1e-3)


def test_models_over_sequences(library, rng):
    x = [rng.standard_normal((n % 5 + 1, 2)).astype(np.float32) for n in range(24)]
    y = [int(s[:, 0].sum() > 0) for s in x]
    tokens = [[int(v > 0) for v in s[:, 0]] for s in x]
    for options, inputs in (({}, x), ({"vocabulary": 4, "cell": "gru"}, tokens)):
        here, there = (RNNClassifier(5, seed=1, **options).to(d).fit(inputs, y, epochs=2) for d in ("cpu", "cuda"))
        np.testing.assert_allclose(there.predict_proba(inputs), here.predict_proba(inputs), rtol=1e-3, atol=1e-4)
        elsewhere = [library.asarray(np.array(s)) for s in inputs]
        np.testing.assert_array_equal(here.predict_proba(elsewhere), here.predict_proba(inputs))
    text, how = "the cat sat on the mat " * 20, {"epochs": 2, "batch_size": 2, "window": 10}
    here, there = (CharLM(6, seed=1).to(d).fit(text, **how) for d in ("cpu", "cuda"))
    assert there.nats(text) == pytest.approx(here.nats(text), rel=1e-4)
    wave = np.sin(np.arange(80) * 0.3)
    here, there = (Forecaster(8, units=4, seed=1).to(d).fit(wave, epochs=2) for d in ("cpu", "cuda"))
    np.testing.assert_allclose(there.predict(4), here.predict(4), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"algorithm": "cd", "momentum": 0.5}, {"algorithm": "fpcd"}, {"algorithm": "tempering"}])
def test_a_machine_that_moves_goes_on_with_batches(library, options, rng):
    x = (rng.random((20, 6)) < 0.4).astype(np.float32)
    here, there = RBM(4, seed=2), RBM(4, seed=2)
    for device in ("cpu", "cuda", "cpu"):
        here.partial_fit(x, **options)
        there.to(device).partial_fit(x, **options)
        assert type(there.module_.w.data) is (library.ndarray if device == "cuda" else np.ndarray)
    np.testing.assert_allclose(there.transform(x), here.transform(x), atol=0.05)
    there.to("cuda").fit(x, epochs=1, centre=True, warm_start=True)
    there.to("cpu").fit(x, epochs=1, centre=True, warm_start=True)


@pytest.mark.parametrize("make", [
    lambda: ClassificationRBM(9, weight=0.1, seed=2), lambda: ConvolutionalRBM(3, 4, sparsity=0.2, seed=2),
    lambda: DBM((6, 4), seed=2),
], ids=["classification", "convolutional", "deep"])  # fmt: skip
def test_machines(library, make, rng):
    x, y = rng.random((24, 6, 6)).astype(np.float32), np.arange(24) % 3
    here, there = make(), make()
    labels = (y,) if isinstance(here, ClassificationRBM) else ()
    use = (lambda m: m.predict_proba(x)) if labels else (lambda m: m.transform(x))
    there.to("cuda").fit(library.asarray(x), *labels, epochs=2, batch_size=12)
    here.fit(x, *labels, epochs=2, batch_size=12)
    assert type(there.module_.w.data) is library.ndarray
    # a unit may be drawn differently where its chance is within rounding of the number drawn
    np.testing.assert_allclose(use(there), use(here), atol=0.02)
    samples = [m.sample(3, steps=4, seed=1) for m in (there, here)]
    samples = [s[0] if labels else s for s in samples]
    assert type(samples[0]) is np.ndarray and samples[0].shape == samples[1].shape
    assert np.mean(samples[0] != samples[1]) < 0.1
