"""Replayed steps (python/fastdl/replay.py, csrc/replay.cpp): the same bits as steps called one kernel at a time, and nothing
replayed that has changed."""

import copy
import gc
import inspect
import pickle
import threading
import weakref
from functools import partial

import numpy as np
import pytest

import fastdl
from fastdl import _runtime, backend, kernels, nn, ops, optim, replay, train
from fastdl.random import Stream
from fastdl.tensor import Tensor, frozen

BATCH = 12
IMAGE = (8, 8, 3)

# Layers of every class that says it can be replayed, in networks that begin with this input.
NETWORKS = {
    "Dense": ((6,), lambda: [nn.Dense(7, act) for act in ("relu", "leaky_relu", "sigmoid", "tanh", "gelu")]),
    "Sequential": ((6,), lambda: [nn.Sequential(nn.Dense(5, "tanh"), nn.Sequential(nn.Dense(4)))]),
    "Residual": ((6,), lambda: [nn.Residual(nn.Dense(6, "tanh"), act="relu"), nn.Residual(nn.Dense(4), nn.Dense(4))]),
    "Dropout": ((6,), lambda: [nn.Dropout(0.2), nn.Dense(9, "relu"), nn.Dropout(0.5), nn.Dense(5)]),
    "Embedding": ((5,), lambda: [nn.Embedding(11, 3), nn.Flatten()]),
    "Flatten": (IMAGE, lambda: [nn.Flatten(), nn.Dense(4)]),
    "Reshape": ((12,), lambda: [nn.Dense(24, "tanh"), nn.Reshape(2, 4, 3), nn.Conv2d(2, 1), nn.Flatten()]),
    "TiedDense": ((6,), lambda: tied()),
    "Activation": ((6,), lambda: [nn.Dense(5), nn.Activation("tanh"), nn.Dense(5), nn.Activation("gelu")]),
    "ReLU": ((6,), lambda: [nn.Dense(5), nn.ReLU()]),
    "LeakyReLU": ((6,), lambda: [nn.Dense(5), nn.LeakyReLU(0.2)]),
    "Sigmoid": ((6,), lambda: [nn.Dense(5), nn.Sigmoid()]),
    "Tanh": ((6,), lambda: [nn.Dense(5), nn.Tanh()]),
    "GELU": ((6,), lambda: [nn.Dense(5), nn.GELU()]),
    "Softmax": ((6,), lambda: [nn.Dense(5), nn.Softmax()]),
    "BatchNorm": (IMAGE, lambda: [nn.BatchNorm(), nn.Conv2d(4, 3), nn.BatchNorm(), nn.ReLU(), nn.Flatten()]),
    "LayerNorm": ((6,), lambda: [nn.LayerNorm(), nn.Dense(5, "relu"), nn.LayerNorm()]),
    "MaxPool2d": (IMAGE, lambda: [nn.Conv2d(4, 3, padding="same"), nn.MaxPool2d(2), nn.MaxPool2d(3, 1, 1), nn.Flatten()]),
    "AvgPool2d": (IMAGE, lambda: [nn.Conv2d(4, 3, "relu"), nn.AvgPool2d(2), nn.AvgPool2d(3, 1, 1, False), nn.Flatten()]),
    "GlobalAvgPool2d": (IMAGE, lambda: [nn.Conv2d(4, 3, "relu"), nn.GlobalAvgPool2d()]),
    "Conv1d": ((9, 3), lambda: [nn.Conv1d(4, 3, "gelu"), nn.Conv1d(4, 3, "relu", groups=2), nn.Flatten()]),
    "Conv2d": (IMAGE, lambda: [nn.Conv2d(8, 3, "relu"), nn.Conv2d(8, 3, "gelu", stride=2), nn.Conv2d(4, 1), nn.Flatten()]),
    "ConvTranspose2d": (IMAGE, lambda: [nn.ConvTranspose2d(4, 3, "relu", stride=2), nn.ConvTranspose2d(2, 2), nn.Flatten()]),
}  # fmt: skip


def tied():
    first = nn.Dense(5, "tanh")
    return [first, nn.TiedDense(first, "sigmoid")]


def network(name, dropout_seed=0):
    shape, layers = NETWORKS[name]
    return nn.Sequential(*layers(), nn.Dense(3)).build(shape, dropout_seed, **integers(name)).train()


def integers(name):
    return {"dtype": np.int64} if name == "Embedding" else {}


def batches(name, count=6, size=BATCH):
    rng = np.random.default_rng(1)
    for _ in range(count):
        shape = (size, *NETWORKS[name][0])
        x = rng.integers(0, 11, shape) if name == "Embedding" else rng.standard_normal(shape, np.float32)
        yield x, rng.integers(0, 3, size)


def eager(step):
    """The same step, never recorded."""
    step._streams = lambda x: None
    return step


def state(net):
    return [net.flatten().data.copy(), *(b.copy() for _, b in net.named_buffers())]


def same(a, b):
    return all(np.array_equal(p, q, equal_nan=True) for p, q in zip(a, b, strict=True))


def pair(make=lambda: network("Dense"), loss="softmax_cross_entropy", lr=0.05):
    """Two equal networks and their steps, the second one never recorded."""
    nets = make(), make()
    steps = [train.Step(net, loss, optim.Adam(net, lr=lr)) for net in nets]
    return nets, (steps[0], eager(steps[1]))


def only_replay(step):
    """From now on the step fails where it is not replayed."""

    def first(*_):
        raise AssertionError("expected a replay")

    step._first = first


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


# ------------------------------------------------------------------------------------- what has changed is not replayed


def add_layer(net):
    net.layers.append(nn.Dense(3, "tanh", inputs=3))
    net.layers[-1].w.data = np.eye(3, dtype=np.float32)
    net.layers[-1].b.data = np.zeros(3, np.float32)


ONES = Tensor(np.ones((6, 7), np.float32))
CHANGES = {
    "an option": ("Dropout", lambda net: setattr(net.layers[0], "p", 0.7)),
    "an activation": ("Dense", lambda net: setattr(net.layers[0], "act", "tanh")),
    "the mode": ("Dropout", lambda net: net.eval()),
    "the mode of a layer": ("BatchNorm", lambda net: net.layers[2].eval()),
    "a frozen layer": ("Dense", lambda net: setattr(net.layers[1].w, "wants_grad", False)),
    "a layer more": ("Dense", add_layer),
    "a layer less": ("Dense", lambda net: net.layers.pop(1)),
    "another layer": ("ReLU", lambda net: net.layers.__setitem__(1, nn.Tanh())),
    "running statistics": ("BatchNorm", lambda net: setattr(net.layers[0], "running_mean", np.ones(3, np.float32))),
    "another stream": ("Dropout", lambda net: net.initialise(5)),
    "a stream set back": ("Dropout", lambda net: net.layers[0].stream.set_state({"seed": 9, "offset": 3})),
    "a stream moved on": ("Dropout", lambda net: net.layers[0].stream.take(1000)),
    "a forward of its own": ("Dense", lambda net: setattr(net.layers[0], "forward", partial(ops.dense, w=ONES))),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_not_replayed(change):
    name, alter = CHANGES[change]
    if change == "a layer less":
        def make():
            return nn.Sequential(nn.Dense(6, "tanh"), nn.Dense(6, "tanh"), nn.Dense(3)).build((6,), seed=0).train()
    else:
        make = partial(network, name)
    nets, (step, plain) = pair(make)
    data = list(batches(name))
    for x, y in data[:3]:
        assert step(x, y) == plain(x, y)
    for net in nets:
        alter(net)
    for x, y in data[3:]:
        assert step(x, y) == plain(x, y)
    assert same(state(nets[0]), state(nets[1]))


def test_gradients_flow_through_what_is_frozen_for_a_while():
    nets, (step, plain) = pair()
    data = list(batches("Dense"))
    for k, (x, y) in enumerate(data):
        if k in (2, 3):
            with frozen(nets[0].layers[0].parameters()):
                got = step(x, y)
            with frozen(nets[1].layers[0].parameters()):
                assert plain(x, y) == got
        else:
            assert step(x, y) == plain(x, y)
    assert same(state(nets[0]), state(nets[1]))


def test_gradients_cleared_by_somebody_else():
    nets, (step, plain) = pair()
    for x, y in batches("Dense"):
        step._optimizer.zero_grad()  # replaying, nobody would set again that they were written
        assert step(x, y) == plain(x, y)
    assert same(state(nets[0]), state(nets[1]))


def test_a_way_back_of_its_own_between_steps():
    nets, (step, plain) = pair()
    for x, y in batches("Dense"):
        for net, own in zip(nets, (step, plain), strict=True):
            own._optimizer.zero_grad()
            ops.softmax_cross_entropy(net(Tensor(x)), y).backward()
            own._optimizer.step()
        assert step(x, y) == plain(x, y)
    assert same(state(nets[0]), state(nets[1]))


def test_weights_that_were_set():
    nets, (step, plain) = pair()
    for x, y in batches("Dense"):
        for net in nets:
            net.set_weights({k: v * np.float32(0.5) for k, v in net.get_weights().items()})
        assert step(x, y) == plain(x, y)


class Doubling(nn.Dense):
    """Does with NumPy what could not be replayed."""

    def forward(self, x):
        return super().forward(Tensor(x.data * np.float32(2.0)))


def custom_loss(output, target):
    return ops.softmax_cross_entropy(output, np.minimum(target, 1))


@pytest.mark.parametrize(
    ("make", "loss"),
    [
        (lambda: nn.Sequential(Doubling(5), nn.Dense(3)), "softmax_cross_entropy"),
        (lambda: nn.Sequential(nn.Noise("gaussian", 0.1), nn.Dense(3)), "softmax_cross_entropy"),
        (lambda: nn.Sequential(nn.Dense(3)), custom_loss),
    ],
)
def test_what_cannot_be_replayed(make, loss):
    nets, (step, plain) = pair(lambda: make().build((6,), seed=0).train(), loss)
    for x, y in batches("Dense"):
        assert step(x, y) == plain(x, y)
    assert not step._programs
    assert same(state(nets[0]), state(nets[1]))


class Masked(nn.Module):
    """Has its random numbers where nobody finds them."""

    replayable = True

    def __init__(self):
        self.streams = [Stream(5)]

    def forward(self, x):
        return ops.dropout(x, 0.5, self.streams[0])


class Least(nn.Sequential):
    """A loss that says nothing of itself, of a class that does."""

    def forward(self, output, target):
        return ops.softmax_cross_entropy(output, np.minimum(target, 1))


class Aside(nn.Module):
    """Keeps a layer where nobody looks for it."""

    replayable = True

    def __init__(self):
        self._layer = nn.Noise("gaussian", 0.1)

    def forward(self, x):
        return self._layer(x)


def squashed(output, target):
    y = ops.reshape(ops.add(ops.mean(output), ops.softmax_cross_entropy(output, target)), (1, 1, 1, 1))
    return ops.conv2d(y, Tensor(np.full((1, 1, 1, 1), 0.5, np.float32)), act="tanh")  # whose way back writes over where it begins


squashed.replayable = True


def doubled(x):
    return Tensor(x.data * np.float32(2.0))


class Twice:
    forward = staticmethod(doubled)


@pytest.mark.parametrize(
    ("alter", "loss"),
    [
        (lambda net: net.layers.insert(0, nn.Residual(doubled)), "softmax_cross_entropy"),
        (lambda net: net.layers.insert(0, Twice()), "softmax_cross_entropy"),
        (lambda net: setattr(net.layers[0], "b", Tensor(net.layers[0].b.data)), "softmax_cross_entropy"),
        (lambda net: net.layers.insert(1, Masked()), "softmax_cross_entropy"),
        (lambda net: net.layers.insert(0, Aside()), "softmax_cross_entropy"),
        (lambda net: None, Least()),
        (lambda net: None, squashed),
    ],
)
def test_what_only_seems_to_be_replayable(alter, loss):
    def make():
        net = network("Dense")
        alter(net)
        return net

    nets, (step, plain) = pair(make, loss)
    for x, y in batches("Dense"):
        assert step(x, y) == plain(x, y)
    assert not any(step._programs.values())
    assert same(state(nets[0]), state(nets[1]))


def test_a_batch_that_lies_in_the_weights():
    nets, (step, plain) = pair(lambda: nn.Sequential(nn.Dense(6, "tanh"), nn.BatchNorm(), nn.Dense(3)).build((6,), 0).train())
    labels = np.array([0, 1, 2, 0, 1, 2])
    for x, _ in batches("Dense", size=6):
        assert step(nets[0].layers[0].w.data, labels) == plain(nets[1].layers[0].w.data, labels)
        assert step(x, labels) == plain(x, labels)
    assert same(state(nets[0]), state(nets[1]))


def heads():
    """Two networks with a layer in common, and an optimiser of them together."""
    body, *ends = nn.Dense(5, "tanh"), nn.Dense(3), nn.Dense(3)
    nets = [nn.Sequential(body, end).build((6,), seed=k).train() for k, end in enumerate(ends)]
    return nets, optim.SGD(nn.Sequential(body, *ends), lr=0.1)


def test_gradients_that_another_step_has_left():
    results = []
    for never in (False, True):
        nets, optimizer = heads()
        steps = [train.Step(net, "softmax_cross_entropy", optimizer) for net in nets]
        if never:
            steps = [eager(step) for step in steps]
        results.append([step(x, y) for x, y in batches("Dense") for step in steps])
        results[-1].append(optimizer.flat.data.copy())
        assert never or all(program for step in steps for program in step._programs.values())
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


def test_gradients_that_nobody_clears_are_added_up():
    results = []
    for never in (False, True):
        net = network("Dense")
        step = train.Step(net, "softmax_cross_entropy", optim.SGD(net.layers[-1], lr=0.1))
        for x, y in batches("Dense"):
            (eager(step) if never else step)(x, y)
        results.append([p.grad for p in net.parameters()])
    assert same(*results)


class Counting(nn.Dense):
    replayable = True

    def forward(self, x):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x)


def test_what_changes_while_a_step_is_recorded_is_not_replayed():
    def make():
        return nn.Sequential(Counting(5, "tanh"), nn.Dense(3)).build((6,), seed=0).train()

    nets, (step, plain) = pair(make)
    for x, y in batches("Dense"):
        assert step(x, y) == plain(x, y)
    assert nets[0].layers[0].calls == nets[1].layers[0].calls


class Accumulating(optim.SGD):
    """Adds up the gradients of two batches."""

    def zero_grad(self):
        if self.t % 2 == 0:
            super().zero_grad()


class Wrapper:
    def __init__(self, optimizer):
        self.optimizer, self.flat, self.t = optimizer, optimizer.flat, 0

    def zero_grad(self):
        self.t += 1
        if self.t % 2:
            self.optimizer.zero_grad()

    def step(self):
        self.optimizer.step()


class Bare:
    def __init__(self, optimizer):
        self.zero_grad, self.step = optimizer.zero_grad, optimizer.step


def patched(optimizer):
    optimizer.zero_grad = Wrapper(optim.SGD(optimizer.flat)).zero_grad
    return optimizer


@pytest.mark.parametrize(
    "make",
    [Accumulating, lambda net: Wrapper(optim.SGD(net)), lambda net: Bare(optim.SGD(net)), lambda net: patched(optim.SGD(net))],
)
def test_optimisers_that_clear_gradients_in_their_own_way(make):
    nets = network("Dense"), network("Dense")
    step, plain = (train.Step(net, "softmax_cross_entropy", make(net)) for net in nets)
    eager(plain)
    for x, y in batches("Dense"):
        assert step(x, y) == plain(x, y)
    assert same(state(nets[0]), state(nets[1]))


def test_weights_of_the_optimiser_alone_are_looked_at():
    nets, optimizer = heads()
    step = train.Step(nets[0], "softmax_cross_entropy", optimizer)
    x, y = next(batches("Dense"))
    step(x, y)
    nets[1].layers[1].w.wants_grad = False
    assert step._replay(x, y) is None


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda step: pickle.loads(pickle.dumps(step))])
def test_copies_of_a_step(duplicate):
    net = network("Dropout")
    step = train.Step(net, "softmax_cross_entropy", optim.Adam(net))
    data = list(batches("Dropout", 8))
    for x, y in data[:3]:
        step(x, y)
    assert step._programs
    other, before = duplicate(step), state(net)
    assert not other._programs
    if other._module is not net:
        got = [other(x, y) for x, y in data[3:]]
        assert same(state(net), before)
        assert got == [step(x, y) for x, y in data[3:]]
        assert same(state(net), state(other._module))
    else:
        assert np.isfinite(other(*data[3]))


def test_steps_inside_steps():
    results = []
    for never in (False, True):
        inner, outer = network("Dense"), network("Dense", 1)
        inside = train.Step(inner, "softmax_cross_entropy", optim.SGD(inner, lr=0.1))
        data = list(batches("Dense"))

        def loss(output, target, inside=inside, data=data):
            inside(*data[0])
            return ops.softmax_cross_entropy(output, target)

        loss.replayable = True
        step = train.Step(outer, loss, optim.SGD(outer, lr=0.1))
        for s in (inside, step) if never else ():
            eager(s)
        for x, y in data:
            step(x, y)
        inside(*data[1])
        results.append(state(inner) + state(outer))
    assert same(*results)


@pytest.mark.parametrize("change", ["cleared gradients", "a number", "targets of another shape"])
def test_what_is_forgotten_time_and_again_is_seldom_recorded(monkeypatch, change):
    recordings, new_arena = [], replay.new_arena
    monkeypatch.setattr(replay, "new_arena", lambda most: recordings.append(most) or new_arena(most))
    nets, (step, plain) = pair(lambda: network("Dense"), "mse")
    for k, (x, _) in enumerate(batches("Dense", 100)):
        target = np.zeros((BATCH, 3), np.float32)
        if change == "cleared gradients":
            step._optimizer.zero_grad()
        elif change == "a number":
            nets[0].steps = k
        elif k % 2:
            target = target.reshape(-1)
        try:
            got = step(x, target)
        except ValueError:
            with pytest.raises(ValueError, match="t: expected"):
                plain(x, target)
        else:
            assert got == plain(x, target)
    assert 5 < len(recordings) < 25
    assert same(state(nets[0]), state(nets[1]))


def test_what_cannot_be_replayed_is_seldom_looked_at():
    net = nn.Sequential(nn.Noise("gaussian", 0.1), nn.Dense(3)).build((6,), seed=0).train()
    step, looks = train.Step(net, "softmax_cross_entropy", optim.SGD(net)), []
    look = step._streams
    step._streams = lambda x: looks.append(x) or look(x)
    for x, y in batches("Dense", 100):
        step(x, y)
    assert 5 < len(looks) < 25


def test_two_streams_are_not_replayed():
    net = network("Dropout")
    net.layers[0].stream = Stream(77)
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    for x, y in batches("Dropout", 2):
        step(x, y)
    assert not step._programs


def test_observed_steps_are_seen_whole():
    from fastdl.module import observing

    net, seen = network("Dense"), []
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    x, y = next(batches("Dense"))
    step(x, y), step(x, y)
    with observing(lambda m, inputs: seen.append(m) or m.forward(*inputs)):
        step(x, y)
    assert len(seen) == 1 + len(net.layers)


def test_an_input_that_is_the_target_too():
    def make():
        return nn.Sequential(nn.Dense(4, "tanh"), nn.Dense(6)).build((6,), seed=0).train()

    nets, (step, plain) = pair(make, "mse")
    data = [x for x, _ in batches("Dense")]
    for x, t in [(data[0], data[0]), (data[1], data[1]), (data[1], data[2]), (data[3], data[3]), (data[3], data[4])]:
        assert step(x, t) == plain(x, t)
    assert same(state(nets[0]), state(nets[1]))


def test_many_shapes_are_not_all_kept():
    net = network("Dense")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    for size in range(1, 20):
        step(*next(batches("Dense", 1, size)))
    assert len(step._programs) == replay._MOST_SHAPES


def test_all_shapes_are_recorded_again_for_another_number_of_threads():
    net, before = network("Dense"), fastdl.get_num_threads()
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    data = [next(batches("Dense", 1, size)) for size in range(1, 1 + replay._MOST_SHAPES)]
    try:
        for threads in (1, 2):
            fastdl.set_num_threads(threads)
            for x, y in data:
                step(x, y)
        only_replay(step)
        for x, y in data:
            step(x, y)
    finally:
        fastdl.set_num_threads(before)


def test_a_step_that_needs_much_memory_is_not_kept(monkeypatch):
    monkeypatch.setattr(replay, "_MOST_BYTES", 1000)
    nets, (step, plain) = pair()
    for x, y in batches("Dense"):
        assert step(x, y) == plain(x, y)
    assert list(step._programs.values()) == [None]


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


# ---------------------------------------------------------------------------------------------------------------- memory


def test_memory_ends_with_the_step():
    gc.collect()
    before = _runtime.pool_statistics()["bytes_in_use"]
    net = nn.Sequential(nn.Dense(300, "relu"), nn.Dense(3)).build((200,), seed=0).train()
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 200), np.float32), rng.integers(0, 3, 64)
    step(x, y)
    held = _runtime.pool_statistics()["bytes_in_use"] - before
    for _ in range(5):
        step(x, y)
    assert held > 64 * 300 * 4
    assert _runtime.pool_statistics()["bytes_in_use"] - before == held
    del step
    gc.collect()
    assert _runtime.pool_statistics()["bytes_in_use"] == before


def test_arrays_of_a_recorded_step_outlive_it():
    kept = []

    def loss(output, target):
        kept.append(output.data)
        return ops.softmax_cross_entropy(output, target)

    loss.replayable = True
    net = network("Dense")
    step = train.Step(net, loss, optim.SGD(net))
    x, y = next(batches("Dense"))
    step(x, y)
    value = kept[0].copy()
    run = weakref.ref(step)
    del step
    gc.collect()
    assert run() is None
    junk = [np.full(kept[0].shape, 7, np.float32) for _ in range(50)]
    assert np.array_equal(kept[0], value)
    del junk


def test_the_weights_of_before_outlive_a_new_flat_vector():
    net = network("Dense")
    step = train.Step(net, "softmax_cross_entropy", optim.SGD(net))
    x, y = next(batches("Dense"))
    step(x, y)
    for layer in net.layers:
        layer.w.data = layer.w.data.copy()  # the vector behind them is another's now
    gc.collect()
    assert np.isfinite(step(x, y))


def test_an_arena_gives_its_memory_to_nobody_else():
    arena = _runtime.new_arena()
    outer = _runtime.arena_enter(arena)
    try:
        a = np.empty(1000, np.float32)
        at = a.ctypes.data
        del a
        b = np.empty(1000, np.float32)
        assert b.ctypes.data == at and _runtime.arena_bytes(arena) == 4000
        c = np.zeros(5000, np.uint8)
        assert not c.any()
        c.resize(300_000, refcheck=False)
        c[:] = 1
        del b, c
    finally:
        _runtime.pool_leave(outer)
    with fastdl.pooled():
        others = [np.empty(1000, np.float32) for _ in range(20)]
    assert at not in {o.ctypes.data for o in others}
    with pytest.raises(ValueError, match="PyCapsule"):
        _runtime.arena_bytes(backend.cpu.ADDRESSES["matmul"])


def test_an_array_that_grows_leaves_the_arena():
    arena = _runtime.new_arena()
    outer = _runtime.arena_enter(arena)
    try:
        at = np.empty(1000, np.float32).ctypes.data  # free again, to a replay's use
        kept = np.empty(10, np.float32)
    finally:
        _runtime.pool_leave(outer)
    kept.resize(1000, refcheck=False)
    assert kept.ctypes.data != at


def test_an_arena_that_has_grown_too_large_keeps_nothing():
    arena = _runtime.new_arena(20_000)
    in_use = [_runtime.pool_statistics()["bytes_in_use"]]
    outer = _runtime.arena_enter(arena)
    try:
        for floats in (4000, 5000, 6000):
            a = np.empty(floats, np.float32)
            del a
            in_use.append(_runtime.pool_statistics()["bytes_in_use"])
    finally:
        _runtime.pool_leave(outer)
    assert in_use[0] < in_use[1] == in_use[2] == in_use[3]


# ------------------------------------------------------------------------------------------------------------- recordings


def test_other_threads_are_not_recorded():
    k, x = backend.cpu, np.ones((2, 2), np.float32)
    y = np.empty_like(x)
    k.record()
    thread = threading.Thread(target=lambda: k.unary_forward(x, "square", y))
    thread.start()
    thread.join()
    assert k.recorded((x,), x) is None  # nothing was called


def test_a_recording_by_hand():
    k = backend.cpu
    x, z = np.full((2, 3), 3.0, np.float32), np.empty((2, 3), np.float32)
    k.record()
    y = k.unary_forward(x, "square")
    k.axpby(2.0, y, 0.0, z)
    run = k.recorded((x,), z)
    assert run(x, 0) == 18.0
    other = np.full((2, 3), 5.0, np.float32)
    assert run(other, 0) == 50.0 and (z == 50.0).all()
    for wrong in (other[:1], other.astype(np.float64), other.T, [1.0]):
        assert run(wrong, 0) is None
    with pytest.raises(TypeError, match="expected 1 arrays and an offset; got 1"):
        run(x)
    with pytest.raises(TypeError):
        run(x, "a")


def test_part_of_an_input_follows_it():
    k = backend.cpu
    x, z = np.arange(6, dtype=np.float32).reshape(3, 2), np.empty(2, np.float32)
    k.record()
    k.axpby(1.0, x[1], 0.0, z)
    run = k.recorded((x,), z)
    assert run(x + 10, 0) == 12.0 and z[1] == 13.0


def test_offsets_move_on():
    k, z = backend.cpu, np.empty(5, np.float32)
    k.record()
    k.uniform(0.0, 1.0, 7, 8, z)
    run = k.recorded((), z)
    run(100)
    assert np.array_equal(z, kernels.uniform(0.0, 1.0, 7, 108, np.empty(5, np.float32)))


def test_what_looks_at_values_is_not_replayed():
    k = backend.cpu
    x = np.zeros((2, 1, 3), np.float32)
    k.record()
    k.ctc_forward(np.zeros((1, 2, 3), np.float32), np.array([[1]]), np.array([2]), np.array([1]))
    assert k.recorded((x,), x) is None


def test_indices_that_are_made_on_the_way_are_not_there_yet_when_a_replay_looks_at_them():
    k, x, table = backend.cpu, np.eye(3, dtype=np.float32), np.arange(6, dtype=np.float32).reshape(3, 2)
    k.record()
    y = k.embedding_forward(table, k.argmax(x.reshape(3, 3, 1)).reshape(3))
    assert k.recorded((x,), y) is None
    index = np.arange(3)
    k.record()
    y = k.embedding_forward(table, index)  # not of the batch, and there
    run = k.recorded((x,), y)
    index[0] = 2
    assert run(x, 0) == table[2, 0]
    index[1] = 3
    with pytest.raises(ValueError, match="index: expected integers from 0 to 2; got 3"):
        run(x, 0)


def test_a_batch_that_kernels_write_to_is_not_replayed():
    k, x = backend.cpu, np.full((2, 3), 3.0, np.float32)
    k.record()
    y = k.unary_forward(x, "square", x)
    assert k.recorded((x,), y) is None


def test_random_numbers_from_elsewhere():
    k, z = backend.cpu, np.empty(5, np.float32)
    for drawn, found in (((7, 8, 8), True), ((7, 0, 8), True), ((6, 8, 8), False), ((7, 12, 8), False), ((7, 0, 4), False)):
        k.record()
        k.uniform(0.0, 1.0, 7, 8, z)
        assert (k.recorded((), z, *drawn) is not None) == found
    with pytest.raises(TypeError):
        k.recorded((), z, 7, 8)


def test_a_recording_inside_another_one():
    k, x = backend.cpu, np.full((2, 3), 3.0, np.float32)
    assert k.record() and not k.record()
    y = k.unary_forward(x, "square")
    assert k.recorded((x,), y) is None
    k.record()
    run = k.recorded((x,), k.unary_forward(x, "square"))
    k.record()
    run(x, 0)  # not through the border
    assert k.recorded((x,), k.unary_forward(x, "square")) is None


def test_two_threads_do_not_run_one_recording_at_once():
    k, x = backend.cpu, np.ones((500, 500), np.float32)
    k.record()
    between = k.matmul(x, x), np.empty_like(x)
    y = k.matmul(k.matmul(between[0], x, c=between[1]), x)
    run = k.recorded((x,), y)
    got = []
    threads = [threading.Thread(target=lambda: got.extend(run(x, 0) for _ in range(20))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None in got and set(got) == {None, 500.0**3}


def test_snapshots_compare_objects():
    parameter, numbers, own = nn.Dense(2, inputs=3).w, [1.5, 2.5], {"a": 1000.5}
    parameter.data, parameter.beta = np.zeros((3, 2), np.float32), 1.0
    objects = (own, numbers, parameter, (1, 2))
    then = _runtime.snapshot(objects)
    assert _runtime.unchanged(objects, then)
    for change, back in (
        (lambda: own.update(a=float("1000.5")), lambda: own.update(a=then[0][1])),
        (lambda: own.update(b=1), lambda: own.pop("b")),
        (lambda: numbers.append(1), numbers.pop),
        (lambda: numbers.reverse(), lambda: numbers.reverse()),
        (lambda: setattr(parameter, "data", parameter.data.copy()), lambda: setattr(parameter, "data", then[2][0])),
        (lambda: setattr(parameter, "wants_grad", False), lambda: setattr(parameter, "wants_grad", True)),
        (lambda: setattr(parameter, "beta", 0.0), lambda: setattr(parameter, "beta", 1.0)),
    ):
        change()
        assert not _runtime.unchanged(objects, then)
        back()
        assert _runtime.unchanged(objects, then)
    with pytest.raises(TypeError, match="expected dicts, lists, tuples and Tensors; got int"):
        _runtime.snapshot((1,))
    with pytest.raises(TypeError, match="snapshot"):
        _runtime.unchanged((own,), then)
