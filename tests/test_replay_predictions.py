"""Predictions that are replayed: the bits of a forward pass, as long as the network is what it was."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

import fake_cuda
import fastdl
from fastdl import backend, models, nn, ops, optim, replay, train
from fastdl.module import observing
from fastdl.random import Stream
from fastdl.tensor import Tensor, inference
from replayed import NETWORKS, batches, network


def usual(net, x):
    with train.evaluating(net), inference():
        return net(Tensor(x) if x.dtype == np.float32 else x).data


def dense(*widths, seed=0):
    return nn.Sequential(*(nn.Dense(w, "tanh") for w in widths[1:])).build(widths[:1], seed).eval()


def data(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def is_replayed(net, x):
    return type(net._walked().programs.get(x.shape)) is tuple


def settled(net, x):
    """The network, having predicted for such batches until they are replayed."""
    for _ in range(replay._SEEN + 2):
        train.predict(net, x)
    assert is_replayed(net, x)
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits(name):
    net = network(name).eval()
    for i, (x, _) in enumerate(batches(name, 8)):
        np.testing.assert_array_equal(train.predict(net, x), usual(net, x))
        assert is_replayed(net, x) == (i >= replay._SEEN)


def test_a_model_of_images():
    model = models.CNN("lenet5", seed=0).build((28, 28, 1), 10)
    x = data(1, 28, 28, 1)
    first = model.predict_proba(x)
    settled(model.module_, x)
    np.testing.assert_array_equal(model.predict_proba(x), first)
    other = data(1, 28, 28, 1, seed=1)
    np.testing.assert_array_equal(model.decision_function(other), usual(model.module_, other))


def test_what_was_given_stays():
    net, x = dense(4, 5, 3), data(2, 4)
    settled(net, x)
    first = train.predict(net, x)
    kept = first.copy()
    train.predict(net, data(2, 4, seed=1))
    np.testing.assert_array_equal(first, kept)
    assert first.flags.owndata
    assert first.flags.writeable


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.layers[0].w.data.__setitem__(0, 3.0),
        lambda net: setattr(net.layers[0].w, "data", net.layers[0].w.data * 2),
        lambda net: setattr(net.layers[1], "act", "relu"),
        lambda net: net.layers.append(nn.Activation("sigmoid")),
        lambda net: net.train(),
        lambda net: net.train().eval(),
        lambda net: fastdl.set_num_threads(2 if fastdl.get_num_threads() == 1 else 1),
    ],
    ids=["weights written", "weights replaced", "activation", "layer", "training", "training and back", "threads"],
)
def test_changes_are_seen(change):
    before = fastdl.get_num_threads()
    try:
        net, x = settled(dense(4, 5, 3), data(2, 4)), data(2, 4, seed=1)
        change(net)
        for _ in range(replay._SEEN + 2):
            np.testing.assert_array_equal(train.predict(net, x), usual(net, x))
    finally:
        fastdl.set_num_threads(before)


def test_steps_between_predictions_are_seen():
    net = nn.Sequential(nn.Dense(6, "relu"), nn.BatchNorm(), nn.Dropout(0.5), nn.Dense(3)).build((4,), seed=0).eval()
    x, y = data(8, 4), np.arange(8) % 3
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net, lr=0.1))
    for _ in range(12):
        net.train()
        step(x, y)
        net.eval()
        for _ in range(2):
            np.testing.assert_array_equal(train.predict(net, x), usual(net, x))
    settled(net, x)
    net.layers[1].running_mean += 1.0  # in place
    np.testing.assert_array_equal(train.predict(net, x), usual(net, x))


def test_a_network_that_was_on_a_gpu_is_replayed_again():
    net, x = settled(dense(4, 5, 3), data(2, 4)), data(2, 4)
    first = train.predict(net, x)
    with fake_cuda.as_cuda(fake_cuda.HostKernels(backend.cpu)):
        net.to("cuda")
        for _ in range(replay._SEEN + 2):
            there = train.predict(net, x)
            assert backend.home(there).name == "cuda"
            np.testing.assert_array_equal(backend.to_host(there), first)
        net.to("cpu")
    settled(net, x)
    np.testing.assert_array_equal(train.predict(net, x), first)


def test_modes_are_left_alone():
    net, x = settled(dense(4, 5, 3), data(2, 4)), data(2, 4)
    net.train()
    for _ in range(replay._SEEN + 2):
        train.predict(net, x)
        assert all(m.training for _, m in net.named_modules())
        assert not is_replayed(net, x)


def test_an_input_that_comes_out_again_is_not_replayed():
    net = nn.Sequential(nn.Flatten()).build((2, 3), seed=0).eval()
    for seed in range(replay._SEEN + 3):
        x = data(2, 2, 3, seed=seed)
        np.testing.assert_array_equal(train.predict(net, x), x.reshape(2, 6))
        assert not is_replayed(net, x)


def test_a_batch_among_the_weights_is_not_replayed():
    net = dense(4, 4)
    x = net.layers[0].w.data[:2]
    for _ in range(replay._SEEN + 3):
        np.testing.assert_array_equal(train.predict(net, x), usual(net, x))
    assert not is_replayed(net, x)


class Halves(nn.Module):
    """Its result is made by two kernels, and begins as zeros."""

    replayable = True

    def forward(self, x):
        out = np.zeros((4, x.shape[1]), np.float32)
        k = fastdl.kernels
        k.unary_forward(x.data[:2], "square", out=out[:2])
        return Tensor(out)


def test_a_result_that_no_kernel_makes_alone_is_not_replayed():
    net = nn.Sequential(Halves())
    net.eval()
    for seed in range(replay._SEEN + 3):
        x = data(4, 3, seed=seed)
        np.testing.assert_array_equal(train.predict(net, x)[:2], x[:2] ** 2)
    assert not is_replayed(net, x)


class Noisy(nn.Module):
    """Draws in evaluation mode as well."""

    replayable = True

    def __init__(self):
        self.stream = Stream(0)

    def forward(self, x):
        return ops.dropout(x, 0.5, self.stream)


def test_what_draws_is_not_replayed():
    net = nn.Sequential(Noisy())
    net.eval()
    x = np.ones((4, 16), np.float32)
    for _ in range(replay._SEEN):
        train.predict(net, x)
    net.layers[0].stream.offset = net.layers[0].stream.seed = 0  # where a program that draws nothing begins
    masks = [train.predict(net, x) for _ in range(3)]
    assert not is_replayed(net, x)
    assert not np.array_equal(masks[0], masks[1])
    assert not np.array_equal(masks[1], masks[2])


class Unsure(nn.Dense):
    """Says nothing of what it calls."""


def test_layers_that_say_nothing_are_not_replayed():
    net = nn.Sequential(Unsure(3)).build((4,), seed=0).eval()
    x = data(2, 4)
    for _ in range(replay._SEEN + 3):
        np.testing.assert_array_equal(train.predict(net, x), usual(net, x))
    assert not is_replayed(net, x)


class Chosen(nn.Module):
    """An activation whose name lies somewhere in what it was made with."""

    replayable = True

    def __init__(self, choice):
        self.choice = choice

    def forward(self, x):
        act = self.choice
        while not isinstance(act, str):
            act = act[0]
        return fastdl.ops.activation(x, act)


@pytest.mark.parametrize(
    "choice, expected",
    [
        (["relu"], True),
        (("relu", (("tanh",),)), True),
        ({0: "relu"}, False),
        ([["relu"]], False),
        (((["relu"],),), False),
        ([({0: "relu"},)], False),
    ],
    ids=str,
)
def test_what_changes_inside_an_attribute_is_seen_or_not_replayed(choice, expected):
    net, x = nn.Sequential(nn.Dense(4), Chosen(choice)).build((4,), seed=0).eval(), data(2, 4)
    for _ in range(replay._SEEN + 2):
        train.predict(net, x)
    assert is_replayed(net, x) == expected
    while not isinstance(choice[0], str):
        choice = choice[0]
    if not isinstance(choice, tuple):
        choice[0] = "tanh"
        np.testing.assert_array_equal(train.predict(net, x), usual(net, x))


def test_whoever_watches_sees_every_call():
    net, x = settled(dense(4, 5, 3), data(2, 4)), data(2, 4)
    seen = []

    def observer(module, inputs):
        seen.append(type(module).__name__)
        return module.forward(*inputs)

    with observing(observer):
        train.predict(net, x)
    assert seen == ["Sequential", "Dense", "Dense"]


def test_other_kinds_of_the_same_shape():
    net, x = settled(dense(4, 5, 3), data(2, 4)), data(2, 4)
    with pytest.raises(TypeError, match="x: expected float32, uint8 or int64; got float64"):
        train.predict(net, x.astype(np.float64))
    with pytest.raises(TypeError, match="C-contiguous"):
        train.predict(net, data(4, 2).T)
    bytes_ = np.arange(8, dtype=np.uint8).reshape(2, 4)
    np.testing.assert_array_equal(train.predict(net, bytes_), usual(net, bytes_ * np.float32(1 / 255)))
    with pytest.raises(ValueError, match="batch_size: expected at least 1; got 0"):
        train.predict(net, x, 0)


def test_large_batches_and_many_shapes_are_not_held():
    net = dense(64, 8)
    x = data(1 << 11, 64)
    for _ in range(replay._SEEN + 3):
        train.predict(net, x, len(x))
    assert not net._walked().programs
    for n in range(1, 4 * replay._MOST_SHAPES):
        for _ in range(replay._SEEN + 2):
            train.predict(net, data(n, 64))
    assert len(net._walked().programs) <= replay._MOST_SHAPES


def test_shapes_that_came_once_leave_room():
    net = dense(4, 3)
    for n in range(1, 4 * replay._MOST_SHAPES):
        train.predict(net, data(n, 4))
    settled(net, data(n + 1, 4))


def test_what_was_forgotten_is_recorded_anew():
    net = dense(4, 3)
    batches = [data(n + 1, 4) for n in range(replay._MOST_SHAPES)]
    for x in batches:
        settled(net, x)
    net.layers[0].w.data = net.layers[0].w.data * 2
    for x in batches:
        settled(net, x)
        np.testing.assert_array_equal(train.predict(net, x), usual(net, x))


@pytest.mark.parametrize("bad", ["another dtype", "strided", "no such row", "among the weights"])
def test_a_batch_that_cannot_be_recorded_does_not_stand_for_its_shape(bad):
    net = nn.Sequential(nn.Embedding(12, 3), nn.Flatten()).build((3,), seed=0, dtype=np.int64).eval()
    x = np.arange(12).reshape(4, 3)
    others = {
        "another dtype": x.astype(np.uint8),
        "strided": np.arange(12).reshape(3, 4).T,
        "no such row": x + 1,
        "among the weights": net.layers[0].table.data[:4],
    }
    for _ in range(replay._SEEN):
        train.predict(net, x)
    with pytest.raises((TypeError, ValueError), match="index: expected|x: expected a C-contiguous array") as error:
        train.predict(net, others[bad])
    with pytest.raises(error.type) as usually:
        train.predict(net, others[bad])
    assert str(error.value) == str(usually.value)
    settled(net, x)


def test_what_needs_much_memory_is_not_kept(monkeypatch):
    monkeypatch.setattr(replay, "_MOST_PREDICTED", 64)
    net, x = dense(2, 50, 50, 2), data(2, 2)
    for _ in range(replay._SEEN + 3):
        np.testing.assert_array_equal(train.predict(net, x), usual(net, x))
    assert not is_replayed(net, x)


def test_threads_at_once():
    net = dense(8, 16, 4)
    settled(net, data(2, 8))
    inputs = [data(2, 8, seed=s) for s in range(4)]
    expected = [usual(net, x) for x in inputs]
    wrong = []

    def work(i):
        for _ in range(500):
            if not np.array_equal(train.predict(net, inputs[i]), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert not wrong


def test_what_a_replay_reads_is_held_with_it():
    """Another thread may bring new arrays while it runs."""
    net, x = nn.Sequential(nn.Dense(4), nn.BatchNorm()).build((4,), seed=0).eval(), data(2, 4)
    settled(net, x)
    program = net._walked().programs[x.shape]
    arrays = [net.layers[0].w.data, net.layers[1].running_mean]
    gone = [weakref.ref(a) for a in arrays]
    net.layers[0].w.data, net.layers[1].running_mean = (a.copy() for a in arrays)
    del arrays
    train.predict(net, x)
    assert all(a() is not None for a in gone)
    del program
    assert all(a() is None for a in gone)


def test_a_size_of_batches_is_heeded():
    net, x = dense(4, 3), data(8, 4)
    sizes = []

    class Sized(nn.Module):
        replayable = True

        def forward(self, x):
            sizes.append(len(x.data))
            return x

    net.layers.append(Sized().eval())
    for _ in range(replay._SEEN + 3):
        train.predict(net, x, 3)
    assert max(sizes) == 3


def test_copies_begin_without():
    net, x = settled(dense(4, 5, 3), data(2, 4)), data(2, 4)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert not is_replayed(other, x)
        other.layers[0].w.data[:] = 0.5
        settled(other, x)
        np.testing.assert_array_equal(train.predict(other, x), usual(other, x))
    np.testing.assert_array_equal(train.predict(net, x), usual(net, x))


def test_networks_are_freed():
    net = settled(dense(4, 5, 3), data(2, 4))
    gone = weakref.ref(net)
    gc.disable()
    try:
        del net
        assert gone() is None
    finally:
        gc.enable()


def test_an_error_on_the_way_leaves_nothing_recorded():
    net, x = dense(4, 3), data(2, 4)
    for _ in range(replay._SEEN):
        train.predict(net, x)
    weight = net.layers[0].w.data
    net.layers[0].w.data = data(5, 3)
    with pytest.raises(ValueError, match="expected"):
        train.predict(net, x)
    net.layers[0].w.data = weight
    net.layers[0].note = "so that it is looked at anew"
    settled(net, x)
    np.testing.assert_array_equal(train.predict(net, x), usual(net, x))
