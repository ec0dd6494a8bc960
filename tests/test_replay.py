"""Replayed steps (python/fastdl/replay.py): the same bits as steps called one kernel at a time, and the same refusals."""

import inspect

import numpy as np
import pytest

import fastdl
from fastdl import backend, nn, optim, replay, train
from fastdl.tensor import Tensor
from replayed import BATCH, NETWORKS, batches, eager, network, only_replay, pair, same, state

# ------------------------------------------------------------------------------------------------------ the same bits


def test_every_class_that_can_be_replayed_is_tried():
    names = {n for n, c in vars(nn).items() if inspect.isclass(c) and vars(c).get("replayable", False)}
    assert names == NETWORKS.keys()


@pytest.mark.parametrize("size", [BATCH, 2, 1, 0])  # small arrays take each other's places more often
@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_bits(name, size):
    nets, (step, plain) = pair(lambda: network(name))
    data = list(batches(name, size=size))
    expected = []
    for x, y in data:
        expected.append((plain(x, y), state(nets[1])))
    first = step(*data[0])
    assert first == expected[0][0]
    only_replay(step)
    for (x, y), (loss, values) in zip(data[1:], expected[1:], strict=True):
        assert step(x, y) == loss
        assert same(state(nets[0]), values)


def test_constants_that_are_made_on_the_way_back():
    nets, (step, plain) = pair(lambda: nn.Sequential(nn.Dense(4), nn.BatchNorm(), nn.Dense(3)).build((6,), 0).train())
    for net in nets:
        net.layers[1].eval()  # its way back begins with one, of a size that gradients have had by then
    data = list(batches("Dense", size=2))
    assert step(*data[0]) == plain(*data[0])
    only_replay(step)
    for x, y in data[1:]:
        assert step(x, y) == plain(x, y)
    assert same(state(nets[0]), state(nets[1]))


@pytest.mark.parametrize("loss", sorted(replay.LOSSES))
def test_every_loss(loss):
    nets, (step, plain) = pair(lambda: network("Dense"), loss)
    rng = np.random.default_rng(0)
    for k, (x, y) in enumerate(batches("Dense")):
        target = y
        if loss != "softmax_cross_entropy":
            target = np.float32(rng.standard_normal((BATCH, 3)) if loss not in ("binary_cross_entropy", "hinge") else
                                rng.integers(0, 2, (BATCH, 3)))  # fmt: skip
        if k == 1:
            only_replay(step)
        assert step(x, target) == plain(x, target)
    assert same(state(nets[0]), state(nets[1]))


def test_batches_of_several_shapes():
    nets, (step, plain) = pair()
    data = [b for size in (5, 12, 1) for b in batches("Dense", 2, size)]
    order = [0, 2, 4, 1, 3, 5, 0, 4, 2]
    expected = [plain(*data[i]) for i in order]
    got = []
    for k, i in enumerate(order):
        if k == 3:
            only_replay(step)
        got.append(step(*data[i]))
    assert got == expected
    assert same(state(nets[0]), state(nets[1]))


def test_gradients_that_grow_without_bound_stop_at_the_clip():
    nets = network("Dense"), network("Dense")
    steps = [train.Step(n, "softmax_cross_entropy", optim.SGD(n, lr=0.1, clip=0.01)) for n in nets]
    eager(steps[1])
    for x, y in batches("Dense"):
        assert steps[0](x, y) == steps[1](x, y)
    assert same(state(nets[0]), state(nets[1]))


@pytest.mark.parametrize("threads", [(1, 2), (2, 1)])
def test_another_number_of_threads(threads):
    before = fastdl.get_num_threads()
    nets, (step, plain) = pair(lambda: network("Conv2d"))
    try:
        for n in threads * 2:
            fastdl.set_num_threads(n)
            for x, y in batches("Conv2d", 3, 64):
                assert step(x, y) == plain(x, y)
    finally:
        fastdl.set_num_threads(before)
    assert same(state(nets[0]), state(nets[1]))


def test_fit_gives_the_same_weights_and_history(monkeypatch):
    def run():
        net = nn.Sequential(nn.Conv2d(4, 3, "relu"), nn.BatchNorm(), nn.Flatten(), nn.Dropout(0.3), nn.Dense(3))
        net.build((8, 8, 3), seed=4)
        x, y = next(batches("Conv2d", 1, 70))
        history = train.fit(
            net, x, y, loss="softmax_cross_entropy", optimizer=optim.Adam(net), epochs=3, batch_size=16, validation=(x, y),
            augment=fastdl.data.Augment(shift=1),
        )  # fmt: skip
        del history["seconds"]
        return history, state(net)

    replayed = run()
    monkeypatch.setattr(train.Step, "_streams", lambda self, x: None)
    plain = run()
    assert replayed[0] == plain[0]
    assert same(replayed[1], plain[1])


def test_fit_replays(monkeypatch):
    firsts = []
    first = train.Step._first
    monkeypatch.setattr(train.Step, "_first", lambda self, x, y: firsts.append(x.shape) or first(self, x, y))
    net = network("Dense")
    x, y = next(batches("Dense", 1, 70))
    train.fit(net, x, y, loss="softmax_cross_entropy", optimizer=optim.SGD(net), epochs=5, batch_size=16)
    assert firsts == [(16, 6), (6, 6)]


def test_models_replay(monkeypatch):
    monkeypatch.setattr(train.Step, "_replay", lambda self, x, y: 1 / 0)
    rng = np.random.default_rng(0)
    flat, images, labels = rng.random((40, 6), np.float32), rng.random((40, 8, 8, 1), np.float32), rng.integers(0, 3, 40)
    for model, x, options in (
        (fastdl.models.MLP((8,)), flat, {}),
        (fastdl.models.MLP((8,)), flat, {"smoothing": 0.1}),
        (fastdl.models.CNN(lambda classes: nn.Sequential(nn.Conv2d(2, 3), nn.Flatten(), nn.Dense(classes))), images, {}),
    ):
        with pytest.raises(ZeroDivisionError):
            model.fit(x, labels, epochs=2, **options)


def test_a_fit_inside_a_callback_of_the_same_model(monkeypatch):
    rng = np.random.default_rng(0)
    x, labels = rng.random((40, 6), np.float32), rng.integers(0, 3, 40)

    def run():
        model, nets = fastdl.models.MLP((8,)), []

        def again(state):
            nets.append(state.module)
            if len(nets) == 1:
                model.fit(x, labels, epochs=1)

        model.fit(x, labels, epochs=3, smoothing=0.2, callbacks=again)
        return nets[-1].get_weights()

    replayed = run()
    monkeypatch.setattr(train.Step, "_streams", lambda self, x: None)
    plain = run()
    assert all(np.array_equal(replayed[name], plain[name]) for name in plain)


# ------------------------------------------------------------------------------------------------------------- bad input


def test_a_label_out_of_range_changes_nothing():
    net = network("BatchNorm")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net, lr=0.1))
    (x, y), (x2, y2) = batches("BatchNorm", 2)
    step(x, y)
    before = state(net)
    bad = y2.copy()
    bad[3] = 3
    only_replay(step)
    with pytest.raises(ValueError, match="labels: expected integers from -1 to 2; got 3"):
        step(x2, bad)
    assert same(state(net), before)
    step(x2, y2)
    assert not same(state(net), before)


def test_an_index_out_of_range():
    net = network("Embedding")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    x, y = next(batches("Embedding"))
    step(x, y)
    only_replay(step)
    with pytest.raises(ValueError, match="index: expected integers from 0 to 10; got 11"):
        step(x + 1 + (10 - x.max()), y)


def test_arrays_of_another_kind_are_refused_as_ever():
    net = network("Dense")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    x, y = next(batches("Dense"))
    step(x, y)
    with pytest.raises(TypeError, match="labels: expected int64"):
        step(x, y.astype(np.float32))
    with pytest.raises(TypeError, match="x: expected a C-contiguous array"):
        step(np.asfortranarray(x), y)
    with pytest.raises(ValueError, match="labels: expected shape"):
        step(x, y[:-1])
    assert step(x, y) < 10


def test_a_loss_that_is_not_finite_updates_nothing():
    net = network("Dense")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net, lr=0.1))
    x, y = next(batches("Dense"))
    step(x, y)
    before = state(net)
    only_replay(step)
    assert np.isnan(step(np.full_like(x, np.nan), y))
    assert same(state(net), before)


def test_an_error_ends_the_recording():
    net = network("Dense")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    x, y = next(batches("Dense"))
    with pytest.raises(ValueError, match="labels"):
        step(x, y + 5)
    assert backend.cpu.recorded((x, y), np.zeros(1, np.float32)) is None
    a = np.empty(4)
    assert np._core.multiarray.get_handler_name(a) == "default_allocator"
    assert step(x, y) == step._loss_of(network("Dense")(Tensor(x)), y).item()


def test_an_interrupt_as_a_recording_begins_leaves_nothing(monkeypatch):
    net, enter = network("Dense"), replay.arena_enter

    def interrupted(arena):
        enter(arena)
        raise KeyboardInterrupt

    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    monkeypatch.setattr(replay, "arena_enter", interrupted)
    with pytest.raises(KeyboardInterrupt):
        step(*next(batches("Dense")))
    assert np._core.multiarray.get_handler_name(np.empty(4)) == "default_allocator"
    assert backend._constants.get() is None
    assert backend.cpu.record()
    backend.cpu.recorded()
