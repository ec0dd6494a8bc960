"""Modules, flat parameters, saving."""

import copy
import gc
import os
import pickle
import re
import weakref

import numpy as np
import pytest

from fastdl import io, nn, optim
from fastdl.flat import Flat
from fastdl.tensor import Tensor


def net(seed=0):
    return nn.Sequential(nn.Dense(5, "tanh"), nn.BatchNorm(), nn.Dropout(0.5), nn.Dense(3)).build((4,), seed)


def shares(flat, module):
    return all(np.shares_memory(p.data, flat.data) and np.shares_memory(p.grad, flat.grad) for p in module.parameters())


def test_parameters_come_in_declaration_order_with_their_path():
    names = [name for name, _ in net().named_parameters()]
    assert names == ["layers.0.w", "layers.0.b", "layers.1.gamma", "layers.1.shift", "layers.3.w", "layers.3.b"]
    assert [name for name, _ in net().named_buffers()] == ["layers.1.running_mean", "layers.1.running_var"]


def test_tied_parameters_are_counted_and_trained_once():
    class Tied(nn.Module):
        def __init__(self):
            self.a = nn.Dense(4, inputs=4)
            self.b = nn.Dense(4, inputs=4)
            self.b.w = self.a.w

        def forward(self, x):
            return self.b(self.a(x))

    m = Tied().initialise(0)
    assert m.count() == 16 + 4 + 4
    flat = m.flatten()
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    m(Tensor(x)).backward(np.ones((3, 4), np.float32))
    flat.settle()
    # d/dW of sum((x W) W) = x^T (1 W^T) + (x W)^T 1
    w = m.a.w.data.astype(np.float64)
    one = np.ones((3, 4))
    expected = x.T @ (one @ w.T) + (x @ w).T @ one
    np.testing.assert_allclose(m.a.w.grad, expected, rtol=1e-5, atol=1e-5)


def test_sizes_are_found_or_given():
    given = nn.Sequential(nn.Dense(5, inputs=4), nn.Dense(3, inputs=5)).initialise(7)
    found = nn.Sequential(nn.Dense(5), nn.Dense(3)).build((4,), seed=7)
    for a, b in zip(given.parameters(), found.parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data)


def test_a_module_that_was_never_initialised_shows():
    m = nn.Dense(2, inputs=3)
    assert np.isnan(m(Tensor(np.zeros((1, 3), np.float32))).data).all()


@pytest.mark.parametrize("kept", [lambda a: {"_a": a}, lambda a: {"parts": {"a": a}}, lambda a: {"call": lambda x: a(x)}])
def test_a_layer_that_is_kept_where_nobody_looks_is_told(kept):
    """Nothing would fill its weights, nor train them."""

    class Net(nn.Module):
        def __init__(self):
            a = nn.Dense(3)
            self.__dict__.update(kept(a))
            self.apply, self.last = (lambda x: a(x)), [nn.Dense(2)]

        def forward(self, x):
            return self.last[0](self.apply(x))

    with pytest.raises(ValueError, match="Net: expected layers as attributes, or in .*; got a Dense that is kept elsewhere"):
        Net().build((5,))


def test_one_seed_decides_all_weights():
    a, b, c = net(1).get_weights(), net(1).get_weights(), net(2).get_weights()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(a["layers.0.w"], c["layers.0.w"])


def test_the_seed_decides_what_dropout_drops():
    x = Tensor(np.ones((4, 50), np.float32))
    masks = [nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5)).build((50,), seed)(x).data for seed in (1, 1, 2)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[0], masks[2])
    assert 0.1 < (masks[0] != 0).mean() < 0.4  # two layers draw different numbers: a quarter is left


def test_train_and_eval_reach_every_part():
    m = net()
    assert all(part.training for _, part in m.named_modules())
    m.eval()
    assert not any(part.training for _, part in m.named_modules())
    x = Tensor(np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32))
    np.testing.assert_array_equal(m(x).data, m(x).data)  # dropout is off
    m.train()
    assert not np.array_equal(m(x).data, m(x).data)


def test_build_leaves_the_mode_and_statistics_alone():
    m = net()
    assert m.training
    np.testing.assert_array_equal(m.layers[1].running_mean, np.zeros(5))
    np.testing.assert_array_equal(m.layers[1].running_var, np.ones(5))


# ------------------------------------------------------------------------------------------------ flat vectors


def test_flat_vectors_hold_all_parameters_aligned_decayed_first():
    m = net()
    before = m.get_weights()
    flat = m.flatten()
    assert flat is m.flatten()
    assert shares(flat, m)
    for name, values in m.get_weights().items():
        np.testing.assert_array_equal(values, before[name])
    address = flat.data.__array_interface__["data"][0]
    assert address % 64 == 0
    assert all((address + 4 * at) % 64 == 0 for _, at, _ in flat.table)
    decays = [p.decay for p in flat.parameters]
    assert decays == sorted(decays, reverse=True)
    assert {name for name, p in flat.named if p.decay} == {"layers.0.w", "layers.3.w"}
    assert [decay for _, _, decay in flat.ranges()] == [True, False]
    covered = np.zeros(flat.data.size, bool)
    for _, at, shape in flat.table:
        covered[at : at + int(np.prod(shape))] = True
    assert not flat.data[~covered].any()  # padding


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), nn.Module.clone])
def test_a_copy_shares_memory_with_its_own_flat_vector(duplicate):
    m = net()
    flat = m.flatten()
    other = duplicate(m)
    assert shares(other._flat, other)
    assert other.flatten() is other._flat
    assert not np.shares_memory(other._flat.data, flat.data)
    np.testing.assert_array_equal(other._flat.data, flat.data)
    other._flat.data[...] = 3.0
    assert (other.layers[0].w.data == 3.0).all()
    assert not (m.layers[0].w.data == 3.0).any()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_network_and_its_optimiser_are_copied_together(duplicate):
    m = net()
    pair = duplicate((m, optim.Adam(m, lr=0.1)))
    other, opt = pair
    assert opt.flat is other._flat
    other(Tensor(np.ones((4, 4), np.float32))).backward(np.ones((4, 3), np.float32))
    before = other.layers[3].b.data.copy()
    opt.step()
    assert not np.array_equal(other.layers[3].b.data, before)


def test_a_larger_network_takes_over_the_parameters_of_its_parts():
    part = nn.Dense(3, inputs=2).initialise(0)
    inner = part.flatten()
    whole = nn.Sequential(part, nn.Dense(2, inputs=3).initialise(1))
    flat = whole.flatten()
    assert shares(flat, whole)
    assert not inner.holds(part.named_parameters())
    assert part.flatten() is not inner


def test_gradients_overwrite_first_and_add_later():
    m = nn.Dense(2, inputs=3).initialise(0)
    flat = m.flatten()
    x, dy = np.ones((1, 3), np.float32), np.ones((1, 2), np.float32)
    flat.grad[...] = 99.0
    flat.zero_grad()
    m(Tensor(x)).backward(dy)
    np.testing.assert_array_equal(m.w.grad, np.ones((3, 2)))
    m(Tensor(x)).backward(dy)
    np.testing.assert_array_equal(m.w.grad, np.full((3, 2), 2.0))
    flat.zero_grad()
    flat.settle()  # nothing has flowed
    assert not m.w.grad.any()
    assert not m.b.grad.any()


def test_frozen_parameters_stay():
    m = nn.Sequential(nn.Dense(4, "relu"), nn.Dense(2)).build((3,), 0)
    m.layers[0].freeze()
    opt = optim.AdamW(m, lr=0.1, weight_decay=0.5)
    before = m.get_weights()
    for _ in range(3):
        opt.zero_grad()
        m(Tensor(np.ones((2, 3), np.float32))).backward(np.ones((2, 2), np.float32))
        opt.step()
    after = m.get_weights()
    np.testing.assert_array_equal(after["layers.0.w"], before["layers.0.w"])
    np.testing.assert_array_equal(after["layers.0.b"], before["layers.0.b"])
    assert not np.array_equal(after["layers.1.w"], before["layers.1.w"])


def test_snapshot_and_restore():
    flat = net().flatten()
    kept = flat.snapshot()
    flat.data[...] = 0.0
    flat.restore(kept)
    np.testing.assert_array_equal(flat.data, kept)


# ------------------------------------------------------------------------------------------------ weights


def test_weights_go_out_and_in():
    a, b = net(0), net(1)
    flat = b.flatten()
    b.set_weights(a.get_weights())
    x = Tensor(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32))
    np.testing.assert_array_equal(a.eval()(x).data, b.eval()(x).data)
    assert shares(flat, b)


def test_wrong_weights_are_refused_and_nothing_changes():
    m = net()
    before, bad = m.get_weights(), m.get_weights()
    bad["layers.3.b"] = np.zeros(4)
    with pytest.raises(ValueError, match=r"weights\['layers.3.b'\]: expected shape \[3\]; got \[4\]"):
        m.set_weights(bad)
    for name, values in m.get_weights().items():
        np.testing.assert_array_equal(values, before[name])
    del bad["layers.3.b"]
    with pytest.raises(ValueError, match=r"weights: expected the names .*; got no layers.3.b"):
        m.set_weights(bad)


def test_repr_and_summary():
    m = nn.Sequential(nn.Conv2d(6, 5, "relu", padding="same"), nn.MaxPool2d(2), nn.Flatten(), nn.Dense(10)).build(
        (28, 28, 1)
    )
    assert repr(m).splitlines()[1] == "  (layers.0): Conv2d(6, 5x5, relu)"
    lines = m.summary((28, 28, 1)).splitlines()
    assert lines[0].split("  ")[0] == "layer"
    assert lines[2].split()[-2:] == ["156", f"{(28 * 28 + 1) * 28 * 28 * 6:,}"]
    assert lines[-1].startswith(f"{156 + 14 * 14 * 6 * 10 + 10:,} parameters")


# ------------------------------------------------------------------------------------------------ files


class Inner(nn.Module):
    """Parts that are never called themselves, and one within another that is."""

    def __init__(self):
        self.part, self.after = nn.Dense(3), nn.Sequential(nn.Dense(2), nn.Dense(1))

    def forward(self, x):
        return self.after.forward(self.part.forward(x))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: nn.SpectralNorm(nn.Dense(3)), ["SpectralNorm"]),
        (lambda: nn.Sequential(nn.SpectralNorm(nn.Dense(3)), nn.Dense(2)), ["layers.0 SpectralNorm", "layers.1 Dense"]),
        (Inner, ["Inner", "after.layers.0 Dense", "after.layers.1 Dense"]),
        (lambda: nn.Residual(nn.Dense(4)), ["branch Dense"]),
    ],
)
def test_the_rows_of_a_summary_add_up(make, names):
    net = make().build((4,))
    rows = [re.split("  +", line.strip()) for line in net.summary((4,)).split("\n")[2:-2]]
    assert [row[0] for row in rows] == names
    assert sum(int(row[2]) for row in rows) == net.count()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nn.Dense(2).build((3,), dtype=np.float64), ValueError, "dtype: expected float32 or int64; got float64"),
        (lambda: nn.Dense(2).build((3,), dtype="x"), TypeError, "dtype: expected float32 or int64; got 'x'"),
        (lambda: nn.Dense(2, init=lambda *_: np.zeros(2)).build(3), ValueError, r"init: expected .* shape \[3, 2\]; got \[2\]"),
        (lambda: nn.Dense(2, init=lambda *_: None).build(3), ValueError, r"init: expected .* shape \[3, 2\]; got None"),
        (lambda: nn.Reshape("a"), TypeError, "shape: expected an integer; got str"),
        (lambda: nn.Reshape(2.5), TypeError, "shape: expected an integer; got float"),
        (lambda: nn.Residual("x"), TypeError, "branch: expected a Module or a function; got str"),
        (lambda: nn.Residual(nn.Dense(1), 3), TypeError, "projection: expected a Module, a function or None; got int"),
        (lambda: nn.SpectralNorm(nn.ReLU()), TypeError, "layer: expected a layer with weights w; got ReLU"),
        (lambda: nn.TiedDense(3), TypeError, "partner: expected a layer with weights w; got int"),
        (lambda: nn.Dense(2, slope="a"), TypeError, "slope: expected 0 or more; got 'a'"),
        (lambda: nn.Conv2d(2, 3, slope=-1), ValueError, "slope: expected 0 or more; got -1"),
        (lambda: nn.LeakyReLU(float("nan")), ValueError, "slope: expected 0 or more; got nan"),
    ],
)  # fmt: skip
def test_what_a_layer_cannot_be_made_of_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_dtype_may_be_a_word():
    assert nn.Dense(2).build((3,), dtype="float32").count() == 8
    assert nn.Embedding(3, 2).build((4,), dtype="int64").count() == 6


def test_a_file_holds_transposed_arrays_as_they_read(tmp_path):
    a = np.arange(6, dtype=np.float32).reshape(2, 3).T
    io.save(tmp_path / "w.safetensors", {"a": a}, {"k": [1, 2]})
    weights, config = io.load(tmp_path / "w.safetensors")
    np.testing.assert_array_equal(weights["a"], a)
    assert config == {"k": [1, 2]}


def test_damaged_foreign_and_newer_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    io.save(path, {"a": np.zeros((30, 4), np.float32)})
    whole = path.read_bytes()
    for cut in (0, 5, 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            ValueError, match=r"w.safetensors: expected a whole safetensors file; got one that is damaged"
        ):
            io.load(path)
    monkeypatch.setattr(io, "FORMAT", io.FORMAT + 1)
    io.save(path, {"a": np.zeros(1, np.float32)})
    monkeypatch.undo()
    with pytest.raises(ValueError, match=f"expected format {io.FORMAT} or older; got {io.FORMAT + 1}, written by a newer fastdl"):
        io.load(path)
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1, np.float32)}, path)
    with pytest.raises(ValueError, match="expected weights saved by fastdl"):
        io.load(path)
    with pytest.raises(FileNotFoundError, match="nothing there"):
        io.load(tmp_path / "none")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "w.safetensors"
    io.save(path, {"a": np.zeros(3, np.float32)})
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        io.save(path, {"a": np.ones(3, np.float32)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["w.safetensors"]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(OSError, match="pipe: expected a file; got a device or a pipe"):
        io.save(path, {"a": np.zeros(3)})
    assert path.is_fifo() and [p.name for p in tmp_path.iterdir()] == ["pipe"]


def test_text_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    io.write_text(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        io.write_text(path, "new")
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_flat_counts_a_repeated_parameter_once():
    layer = nn.Dense(3, inputs=2).initialise(0)
    flat = Flat([("a", layer.w), ("b", layer.w), ("c", layer.b)])
    assert [name for name, _ in flat.named] == ["a", "c"]


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (None, TypeError, "weights: expected a dict of arrays by name; got NoneType"),
        ([1], TypeError, "weights: expected a dict of arrays by name; got list"),
        ({"w": None}, TypeError, r"weights\['w'\]: expected an array or what makes one; got None"),
        ({"w": "abc"}, TypeError, r"weights\['w'\]: expected real numbers; got <U3"),
        ({"w": np.ones((2, 3), complex)}, TypeError, r"weights\['w'\]: expected real numbers; got complex128"),
        ({"w": np.full((2, 3), 1e39)}, ValueError, r"weights\['w'\]: expected numbers within float32's range, up to 3.4e38"),
        ({"w": [[1.0], [1.0, 2.0]]}, ValueError, r"weights\['w'\]: expected an array of numbers; got .*inhomogeneous"),
    ],
)
def test_weights_that_are_none_are_named(weights, error, message):
    layer = nn.Dense(3, inputs=2).initialise(0)
    before = layer.get_weights()
    with pytest.raises(error, match=message):
        layer.set_weights(before | weights if isinstance(weights, dict) else weights)
    np.testing.assert_array_equal(layer.w.data, before["w"])


@pytest.mark.parametrize("layer", [nn.Dense(2), nn.Sequential(nn.Flatten(), nn.Dense(2)), nn.ReLU()])
def test_an_array_instead_of_a_tensor_is_told(layer):
    with pytest.raises(TypeError, match=r"expected a Tensor \(fastdl.Tensor\(x\) makes one\); got an array"):
        layer(np.ones((3, 4), np.float32))


@pytest.mark.parametrize("given", [[[1.0, 2.0]], (1.0,), None, 3, "x"], ids=repr)
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Dense(2), lambda: nn.Conv2d(2, 3), lambda: nn.Conv1d(2, 3), lambda: nn.ConvTranspose2d(2, 3), nn.MaxPool2d,
        nn.AvgPool2d, nn.GlobalAvgPool2d, nn.BatchNorm, nn.LayerNorm, nn.Flatten, nn.ReLU, nn.Softmax,
        lambda: nn.Reshape(2), lambda: nn.Residual(nn.Dense(2)), lambda: nn.Sequential(nn.Flatten(), nn.Dense(2)),
        lambda: nn.Checkpoint(nn.Dense(2)), lambda: nn.SpectralNorm(nn.Dense(2)), lambda: nn.LSTM(2),
        lambda: nn.Dense(2, inputs=2).initialise(0), lambda: nn.Conv2d(2, 3, channels=1).initialise(0),
    ],
)  # fmt: skip
def test_what_is_no_tensor_is_told(make, given):
    with pytest.raises(TypeError, match=rf"Tensor.*; got (a |an )?{type(given).__name__}"):
        make()(given)


def test_an_attribute_that_a_module_lacks_is_named_as_ever():
    class Odd(nn.Module):
        def forward(self, options):
            return options.rate

    with pytest.raises(AttributeError, match="'dict' object has no attribute 'rate'"):
        Odd()({})


@pytest.mark.parametrize(
    ("make", "wrong", "right"),
    [
        (lambda: nn.Sequential(nn.Conv2d(2, 3), nn.MaxPool2d(9), nn.Flatten(), nn.Dense(2)), (3, 12, 12), (12, 12, 3)),
        (lambda: nn.Sequential(nn.BatchNorm(), nn.Dense(4), nn.Residual(nn.Dense(3))), (7,), None),
        (lambda: nn.Sequential(nn.LSTM(4), nn.Conv2d(2, 3)), (5, 2), None),
    ],
)
def test_a_build_that_fails_leaves_the_network_without_sizes(make, wrong, right):
    net = make()
    with pytest.raises(ValueError):
        net.build(wrong)
    assert [n for n, _ in net.named_parameters()] == [n for n, _ in make().named_parameters()]
    assert net.named_buffers() == []
    if right is not None:
        assert net.build(right).count() == make().build(right).count()


# ------------------------------------------------------------------------------------------- what is remembered of a tree


def test_a_changed_tree_is_walked_anew():
    net = nn.Sequential(nn.Dense(3, inputs=2), nn.Dense(1, inputs=3))
    names = [name for name, _ in net.named_parameters()]
    assert names == ["layers.0.w", "layers.0.b", "layers.1.w", "layers.1.b"]
    assert [n for n, _ in net.named_parameters()] == names
    net.layers.append(nn.Dense(4, inputs=1))
    assert [n for n, _ in net.named_modules()] == ["", "layers.0", "layers.1", "layers.2"]
    net.layers[2].more = nn.Sequential(nn.ReLU())
    assert [n for n, _ in net.named_modules()][-2:] == ["layers.2.more", "layers.2.more.layers.0"]
    del net.layers[2].more
    net.layers[0].b = None
    assert "layers.0.b" not in dict(net.named_parameters())
    net.layers[1], net.layers[2] = net.layers[2], net.layers[1]
    assert dict(net.named_parameters())["layers.1.w"].data.shape == (1, 4)
    net.layers = net.layers[:1]
    assert [n for n, _ in net.named_modules()] == ["", "layers.0"]
    net.named_modules().clear()  # a list of the caller's own
    net.named_parameters().clear()
    assert len(net.named_modules()) == 2 and len(net.named_parameters()) == 1


def test_what_is_remembered_keeps_no_module_alive():
    net = nn.Sequential(nn.Dense(3, inputs=2), nn.Sequential(nn.Dense(1, inputs=3)))
    net.named_parameters(), net.layers[1].named_modules()
    gone = weakref.ref(net), weakref.ref(net.layers[1])
    gc.disable()
    try:
        del net
        assert [g() for g in gone] == [None, None]
    finally:
        gc.enable()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_looks_at_its_own_tree(copied):
    net = nn.Sequential(nn.Dense(3, inputs=2))
    net.named_modules()
    other = copied(net)
    other.layers = [*other.layers, nn.Dense(1, inputs=3)]
    assert len(other.named_modules()) == 3 and len(net.named_modules()) == 2
    assert other.named_modules()[0][1] is other
