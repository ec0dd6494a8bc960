"""Each differentiable operation: value and gradients against float64 NumPy, with the input used twice so that gradients add."""

import re

import numpy as np
import pytest

import reference
from fastdl import Tensor, inference, nn, ops, train
from fastdl.random import Stream

LABELS = np.array([2, 0, -1, 1], np.int64)
INDEX = np.array([[0, 3], [3, 1]], np.int64)


def sigmoid_bce(x, t):
    return np.maximum(x, 0) - x * t + np.log1p(np.exp(-np.abs(x)))


def cross_entropy(x, labels):
    x = x - x.max(-1, keepdims=True)
    logp = x - np.log(np.exp(x).sum(-1, keepdims=True))
    counted = labels >= 0
    return -logp[np.arange(len(labels)), np.maximum(labels, 0)] * counted


def norm(x, axis, gamma, shift):
    mean, var = x.mean(axis, keepdims=True), x.var(axis, keepdims=True)
    return gamma * (x - mean) / np.sqrt(var + 1e-5) + shift


def layer(act):
    return (
        lambda x, w, b: ops.dense(x, w, b, act),
        lambda x, w, b: reference.dense_forward(x, w, b, act)["y"],
        [(4, 5), (5, 3), (3,)],
    )


def conv(act="none", **kw):
    pad = kw.get("padding", 0)
    full = {
        "stride_y": kw.get("stride", 1),
        "stride_x": kw.get("stride", 1),
        "pad_y": pad,
        "pad_x": pad,
        "groups": kw.get("groups", 1),
    }

    def expected(x, w, b):
        z = reference.conv2d_forward(x, w, b, **full, act=act)
        return z["y"] if isinstance(z, dict) else z

    return lambda x, w, b: ops.conv2d(x, w, b, act=act, **kw), expected


# name -> (operation on Tensors, the same in float64 NumPy, shapes of its inputs)
OPERATIONS = {
    **{f"dense {a}": layer(a) for a in ("none", "relu", "sigmoid", "tanh", "gelu", "leaky_relu")},
    "dense without bias": (lambda x, w: ops.dense(x, w), lambda x, w: x @ w, [(2, 3, 5), (5, 4)]),
    "matmul": (lambda a, b: ops.matmul(a, b), lambda a, b: a @ b, [(2, 3, 4), (2, 4, 5)]),
    "matmul ta": (lambda a, b: ops.matmul(a, b, True), lambda a, b: a.T @ b, [(4, 3), (4, 5)]),
    "matmul tb": (lambda a, b: ops.matmul(a, b, False, True), lambda a, b: a @ b.T, [(3, 4), (5, 4)]),
    "matmul ta tb": (lambda a, b: ops.matmul(a, b, True, True), lambda a, b: a.T @ b.T, [(4, 3), (5, 4)]),
    "conv2d": (*conv(padding=1), [(2, 6, 5, 3), (3, 3, 3, 4), (4,)]),
    "conv2d stride relu": (*conv("relu", stride=2, padding=1), [(2, 6, 6, 3), (3, 3, 3, 4), (4,)]),
    "conv2d groups gelu": (*conv("gelu", groups=2), [(2, 5, 5, 4), (3, 3, 2, 6), (6,)]),
    "conv_transpose2d": (
        lambda x, w, b: ops.conv_transpose2d(x, w, b, 2, 1, out_padding=1, act="tanh"),
        lambda x, w, b: np.tanh(transposed(x, w, 2, 1, 1) + b),
        [(2, 3, 3, 4), (3, 3, 5, 4), (5,)],
    ),
    "conv1d": (
        lambda x, w, b: ops.conv1d(x, w, b, padding=1),
        lambda x, w, b: reference_of(reference.conv2d_forward(x[:, None], w[None], b, pad_x=1))[:, 0],
        [(2, 7, 3), (3, 3, 4), (4,)],
    ),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 2), lambda x: windows(x, 2).max((2, 4)), [(2, 4, 6, 3)]),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 2), lambda x: windows(x, 2).mean((2, 4)), [(2, 4, 6, 3)]),
    "global_avg_pool2d": (ops.global_avg_pool2d, lambda x: x.mean((1, 2)), [(2, 3, 5, 4)]),
    "global_max_pool2d": (ops.global_max_pool2d, lambda x: x.max((1, 2)), [(2, 3, 5, 4)]),
    "layer_norm": (ops.layer_norm, lambda x, g, s: norm(x, -1, g, s), [(3, 4, 6), (6,), (6,)]),
    "batch_norm training": (
        lambda x, g, s: ops.batch_norm(x, g, s, np.zeros(5, np.float32), np.ones(5, np.float32), True),
        lambda x, g, s: norm(x, (0, 1), g, s),
        [(6, 3, 5), (5,), (5,)],
    ),
    "batch_norm inference": (
        lambda x, g, s: ops.batch_norm(x, g, s, np.full(5, 0.3, np.float32), np.full(5, 2.0, np.float32), False),
        lambda x, g, s: g * (x - np.float32(0.3)) / np.sqrt(2 + 1e-5) + s,
        [(6, 5), (5,), (5,)],
    ),
    "relu": (ops.relu, lambda x: np.maximum(x, 0), [(3, 4)]),
    "leaky_relu": (lambda x: ops.leaky_relu(x, 0.2), lambda x: np.where(x > 0, x, 0.2 * x), [(3, 4)]),
    "sigmoid": (ops.sigmoid, lambda x: 1 / (1 + np.exp(-x)), [(3, 4)]),
    "tanh": (ops.tanh, np.tanh, [(3, 4)]),
    "gelu": (ops.gelu, lambda x: reference.act(x, "gelu"), [(3, 4)]),
    "exp": (ops.exp, np.exp, [(3, 4)]),
    "log of square": (lambda x: ops.log(ops.square(x) + 1.0), lambda x: np.log(x * x + 1), [(3, 4)]),
    "sqrt": (lambda x: ops.sqrt(ops.exp(x)), lambda x: np.exp(x / 2), [(3, 4)]),
    "add": (ops.add, np.add, [(3, 4), (3, 4)]),
    "add vector": (ops.add, np.add, [(2, 3, 4), (4,)]),
    "add to vector": (ops.add, np.add, [(4,), (2, 3, 4)]),
    "subtract": (ops.subtract, np.subtract, [(3, 4), (4,)]),
    "multiply": (ops.multiply, np.multiply, [(3, 4), (4,)]),
    "divide": (lambda x, y: x / (ops.exp(y)), lambda x, y: x / np.exp(y), [(3, 4), (4,)]),
    "numbers": (lambda x: 2.0 - (1.0 - x) * 3.0 / 2.0 + 1.0 / ops.exp(x),
                lambda x: 2 - (1 - x) * 1.5 + np.exp(-x), [(3, 4)]),
    "negate": (lambda x: -x, lambda x: -x, [(3, 4)]),
    "sum": (ops.sum, lambda x: x.sum(keepdims=True).reshape(1), [(3, 4)]),
    "mean over an axis": (lambda x: ops.mean(x, 1), lambda x: x.mean(1), [(3, 4, 5)]),
    "max over an axis": (lambda x: ops.reduce(x, "max", -1), lambda x: x.max(-1), [(3, 4, 5)]),
    "reshape": (lambda x: ops.reshape(x, (4, 3)) * 1.0, lambda x: x.reshape(4, 3), [(3, 4)]),
    "flatten": (ops.flatten, lambda x: x.reshape(2, -1), [(2, 3, 4)]),
    "concatenate": (lambda x, y: ops.concatenate([x, y, x]), lambda x, y: np.concatenate([x, y, x], -1), [(2, 3), (2, 4)]),
    "concatenate rows": (lambda x, y: ops.concatenate([x, y], 0), lambda x, y: np.concatenate([x, y], 0), [(2, 3), (4, 3)]),
    "embedding": (lambda t: ops.embedding(t, INDEX), lambda t: t[INDEX], [(5, 3)]),
    "softmax": (ops.softmax, lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True), [(3, 5)]),
    "log_softmax": (ops.log_softmax, lambda x: x - np.log(np.exp(x).sum(-1, keepdims=True)), [(3, 5)]),
    "cross entropy": (lambda x: ops.softmax_cross_entropy(x, LABELS),
                      lambda x: cross_entropy(x, LABELS).sum(keepdims=True) / 3, [(4, 3)]),
    "cross entropy rows": (lambda x: ops.softmax_cross_entropy(x, LABELS, reduction="none"),
                           lambda x: cross_entropy(x, LABELS), [(4, 3)]),
    "bce": (lambda x: ops.binary_cross_entropy(x, np.full((3, 4), 0.3, np.float32)),
            lambda x: sigmoid_bce(x, 0.3).mean(keepdims=True).reshape(1), [(3, 4)]),
    "mse": (lambda x: ops.mse(x, np.ones((3, 4), np.float32)), lambda x: ((x - 1) ** 2).mean(keepdims=True).reshape(1), [(3, 4)]),
    "mae sum": (lambda x: ops.mae(x, np.ones((3, 4), np.float32), reduction="sum"),
                lambda x: np.abs(x - 1).sum(keepdims=True).reshape(1), [(3, 4)]),
    "huber": (lambda x: ops.huber(x, np.zeros((3, 4), np.float32), 0.7, reduction="none"),
              lambda x: np.where(np.abs(x) <= 0.7, x * x / 2, 0.7 * (np.abs(x) - 0.35)), [(3, 4)]),
    "hinge": (lambda x: ops.hinge(x, np.ones((3, 4), np.float32), reduction="none"),
              lambda x: np.maximum(0, 1 - x), [(3, 4)]),
}  # fmt: skip


def reference_of(result):
    return result["y"] if isinstance(result, dict) else result


def windows(x, size):
    n, rows, columns, c = x.shape
    return x.reshape(n, rows // size, size, columns // size, size, c)


def transposed(x, w, stride, pad, more):
    """Transposed convolution by scattering: each input pixel adds its filter to the output."""
    n, p, q, f = x.shape
    r, s, c, _ = w.shape
    y = np.zeros((n, (p - 1) * stride + r + more, (q - 1) * stride + s + more, c))
    for i in range(p):
        for j in range(q):
            y[:, i * stride : i * stride + r, j * stride : j * stride + s] += np.einsum("nf,rscf->nrsc", x[:, i, j], w)
    return y[:, pad : y.shape[1] - pad, pad : y.shape[2] - pad]


@pytest.mark.parametrize("name", OPERATIONS)
def test_value_and_gradients(name, rng):
    operation, expected, shapes = OPERATIONS[name]
    arrays = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    wide = [a.astype(np.float64) for a in arrays]
    tensors = [Tensor(a, wants_grad=True) for a in arrays]
    y = operation(*tensors)
    value = expected(*wide)
    assert y.shape == value.shape
    np.testing.assert_allclose(y.data, value, rtol=2e-5, atol=2e-5)
    dy = rng.standard_normal(y.shape).astype(np.float32)
    twice = operation(*tensors)  # the second use must add to the first
    y.backward(dy)
    twice.backward(dy)
    for i, t in enumerate(tensors):
        direction = rng.standard_normal(t.shape)

        def along(step, i=i, direction=direction):
            moved = [a + step * direction if k == i else a for k, a in enumerate(wide)]
            return np.sum(dy * expected(*moved))

        numeric = 2 * (along(1e-6) - along(-1e-6)) / 2e-6
        scale = np.linalg.norm(t.grad) * np.linalg.norm(direction) + 1e-3
        assert abs(np.sum(t.grad * direction) - numeric) <= 5e-5 * scale


def test_dropout_uses_the_same_mask_backward(rng):
    x = Tensor(np.ones((50, 40), np.float32), wants_grad=True)
    y = ops.dropout(x, 0.25, Stream(7))
    kept = y.data != 0
    assert 0.6 < kept.mean() < 0.9
    np.testing.assert_allclose(y.data[kept], 1 / 0.75, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)


def test_inputs_that_want_no_gradient_cost_none(rng):
    x = Tensor(rng.standard_normal((3, 8, 8, 2)).astype(np.float32))
    w = Tensor(rng.standard_normal((3, 3, 2, 4)).astype(np.float32), wants_grad=True)
    y = ops.max_pool2d(ops.conv2d(x, w), 2)
    y.sum().backward()
    assert x.grad is None
    assert w.grad is not None


@pytest.mark.parametrize("op", [ops.add, ops.subtract, ops.multiply, ops.divide])
@pytest.mark.parametrize(
    ("x", "y"), [((0, 3), (0, 3)), ((0, 3), (3,)), ((2, 0), (0,)), ((0,), (0,)), ((2, 0, 3), (0, 3)), ((0, 3), (1,))]
)
def test_arithmetic_on_no_elements(op, x, y):
    x, y = (Tensor(np.ones(shape, np.float32), wants_grad=True) for shape in (x, y))
    z = op(x, y)
    assert z.shape == x.shape
    z.backward()
    assert x.grad.shape == x.shape
    np.testing.assert_array_equal(y.grad, np.zeros(y.shape, np.float32))  # a sum of nothing


def test_a_residual_network_predicts_no_samples():
    net = nn.Sequential(nn.Residual(nn.Dense(4, "relu")), nn.Dense(2)).build((4,))
    assert train.predict(net, np.zeros((0, 4), np.float32)).shape == (0, 2)


@pytest.mark.parametrize("loss", [ops.mse, ops.mae, ops.huber, ops.hinge, ops.binary_cross_entropy])
def test_losses_refuse_a_target_whose_gradient_they_would_drop(loss, rng):
    x, t = (Tensor(rng.random((3, 2)).astype(np.float32), wants_grad=True) for _ in range(2))
    with pytest.raises(ValueError, match=r"target: expected values without a gradient \(Tensor.detach\)"):
        loss(x, t)
    with pytest.raises(ValueError, match="target: expected values without a gradient"):
        loss(x, t * 2.0)
    with inference():  # no gradients here, so none to drop
        expected = loss(x, t).item()
    found = loss(x, t.detach())
    found.backward()
    assert found.item() == expected == loss(x, t.data).item()
    assert t.grad is None


def _image():
    return Tensor(np.ones((1, 4, 4, 4), np.float32), wants_grad=True)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: ops.add(x, Tensor(np.ones(3, np.float32))), r"y: expected shape \[2, 4\]"),
        (lambda x: ops.reduce(x, "sum", 2), "axis: expected -2 to 1; got 2"),
        (lambda x: ops.concatenate([]), "tensors: expected at least one; got none"),
        (lambda x: ops.concatenate([x, Tensor(np.ones((3, 4), np.float32))], 1), r"tensors\[1\]: expected shape"),
        (lambda x: ops.max_pool2d(x, (1, 2, 3)), "size: expected an integer or two"),
        (lambda x: ops.max_pool2d(_image(), 2, 0), "stride_y: expected stride_y>=1; got 0"),
        (lambda x: ops.max_pool2d(_image(), 0), "stride_y: expected stride_y>=1; got 0|size_y: expected size_y>=1; got 0"),
        (lambda x: ops.conv_transpose2d(_image(), _image(), stride=2, out_padding=-1), "out_padding: expected 0 or more; got -1"),
        (lambda x: ops.global_max_pool2d(x), r"x: expected shape \[N,Y,X,C\]; got \[2, 4\]"),
        (lambda x: ops.conv1d(x, _image()), r"x: expected shape \[N,T,C\]; got \[2, 4\]"),
        (lambda x: ops.reshape(x, (3, -1)), r"shape: expected 8 elements, as x \[2, 4\] has; got \[3, -1\]"),
        (lambda x: ops.mse(x, x.data, reduction="x"), "reduction: expected one of mean, sum, none; got 'x'"),
        (
            lambda x: ops.softmax_cross_entropy(x, np.zeros(2, np.int64), reduction="x"),
            "reduction: expected one of mean, sum, none; got 'x'",
        ),
        (
            lambda x: ops.dense(x, Tensor(np.ones((5, 2), np.float32))),
            r"w: expected shape \[I,O\], I=4 from x; got \[5,2\]",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(Tensor(np.ones((2, 4), np.float32)))


@pytest.mark.parametrize("reduction", ["avg", None, ["mean"]])
def test_a_reduction_that_is_none_is_told_all_that_are(reduction):
    x, y = Tensor(np.ones((3, 4), np.float32)), np.zeros((3, 4), np.float32)
    message = rf"reduction: expected one of mean, sum, none; got {re.escape(repr(reduction))}"
    with pytest.raises(ValueError, match=message):
        ops.softmax_cross_entropy(x, np.zeros(3, np.int64), reduction=reduction)
    with pytest.raises(ValueError, match=message):
        ops.mse(x, y, reduction=reduction)
