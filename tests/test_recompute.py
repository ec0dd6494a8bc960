"""Activation checkpointing: the same bits in less memory."""

import tracemalloc

import numpy as np
import pytest

from fastdl import diagnostics, nn, ops, optim, train
from fastdl.tensor import Tensor, inference
from test_models import blobs


def stretch(width=16, drop=0.0, norm=False):
    layers = [nn.Dense(width, "tanh"), nn.Dense(width, "gelu")]
    if norm:
        layers.append(nn.BatchNorm())
    if drop:
        layers.append(nn.Dropout(drop))
    return nn.Sequential(*layers)


def chain(wrap, **more):
    return nn.Sequential(*(wrap(stretch(**more)) for _ in range(4)), nn.Dense(3))


def trained(wrap, **more):
    X, y = blobs(96)
    net = chain(wrap, **more).build((8,), seed=2)
    history = train.fit(net, X.astype(np.float32), y.astype(np.int64), loss="softmax_cross_entropy",
                        optimizer=optim.Adam(net, lr=0.01), epochs=3, batch_size=32)  # fmt: skip
    return history["loss"], net.get_weights()


@pytest.mark.parametrize("more", [{}, dict(drop=0.3), dict(norm=True), dict(drop=0.2, norm=True)])
def test_training_is_bit_equal(more):
    plain, kept = trained(lambda m: m, **more), trained(nn.Checkpoint, **more)
    assert plain[0] == kept[0]
    for a, b in zip(plain[1].values(), kept[1].values(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_of_inputs_and_nested_checkpoints():
    x = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    results = []
    for wrap in (lambda m: m, nn.Checkpoint, lambda m: nn.Checkpoint(nn.Checkpoint(m))):
        net = nn.Sequential(nn.Residual(wrap(nn.Sequential(nn.Dense(8, "relu"), nn.Dense(8)))), nn.Dense(1)).build((8,), seed=1)
        t = Tensor(x, wants_grad=True)
        ops.mean(ops.square(ops.add(net(t), net(t)))).backward()
        results.append([t.grad, *(p.grad for p in net.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


class Product(nn.Module):
    """Two inputs, or one twice."""

    def forward(self, a, b):
        return ops.multiply(a, b)


def test_several_inputs_the_same_input_twice_and_one_without_use():
    class First(nn.Module):
        def forward(self, a, b):
            return ops.square(a)

    a, b = (np.random.default_rng(i).standard_normal((3, 4)).astype(np.float32) for i in (0, 1))
    for module, twice in ((Product(), False), (Product(), True), (First(), False)):
        grads = []
        for m in (module, nn.Checkpoint(module)):
            u, v = Tensor(a, wants_grad=True), Tensor(b, wants_grad=True)
            ops.mean(m(u, u if twice else v)).backward()
            grads.append((u.grad, np.zeros_like(b) if v.grad is None else v.grad))
        np.testing.assert_array_equal(grads[0], grads[1])


def test_it_needs_less_memory():
    x = np.random.default_rng(0).standard_normal((256, 128)).astype(np.float32)

    def peak(group):
        layers = [nn.Dense(128, "tanh") for _ in range(36)]
        parts = [nn.Sequential(*layers[i : i + 6]) for i in range(0, 36, 6)]
        net = nn.Sequential(*(nn.Checkpoint(p) if group else p for p in parts)).build((128,), seed=0)
        net.flatten()
        tracemalloc.start()
        ops.mean(net(Tensor(x))).backward()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    plain, less = peak(False), peak(True)
    assert plain > 36 * x.nbytes
    assert less < 0.45 * plain


def test_depth_doctor_inference_and_summary_see_the_layers():
    X, y = blobs(40)
    net = chain(nn.Checkpoint).build((8,), seed=0)
    assert diagnostics.cap_depth(net, (8,)) == 9
    assert len([r for r in diagnostics.examine(net, X, y).layers if r.kind == "Dense"]) == 9
    with inference():
        assert net(Tensor(X.astype(np.float32))).step is None
    assert net.summary((8,)).count("Dense") == 9
    with pytest.raises(TypeError, match="module: expected a Module; got int"):
        nn.Checkpoint(3)
