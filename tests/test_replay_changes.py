"""Replayed steps (python/fastdl/replay.py): nothing is replayed that has changed, or that cannot be replayed at all."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest

import fastdl
from fastdl import nn, ops, optim, replay, train
from fastdl.random import Stream
from fastdl.tensor import Tensor, frozen
from replayed import BATCH, batches, eager, network, only_replay, pair, same, state


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
