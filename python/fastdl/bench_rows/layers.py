"""Layers and updates that are no products: activations, pooling, batch norm, loss, dropout, Adam, random numbers."""

from functools import partial

import numpy as np

from .. import kernels
from ..bench import Case, Row

BIG = (64, 26, 26, 32)  # channels last


def _array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _torch_image(x):
    """[N,Y,X,C] as PyTorch keeps it by default, or a matrix as it is."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if x.ndim == 4 else x.copy())


def _no_grad(torch, f):
    def run():
        with torch.no_grad():
            f()

    return Case(run)


# --------------------------------------------------------------------------------------------------- activations


def _numpy_activation(act, x, y):
    def sigmoid():
        np.negative(x, y)
        np.exp(y, y)
        np.add(y, 1.0, y)
        np.reciprocal(y, y)

    return {
        "relu": Case(partial(np.maximum, x, np.float32(0), out=y)),
        "sigmoid": Case(sigmoid),
        "tanh": Case(np.tanh, (x, y)),
    }[act]


def _activation(act, shape):
    def setup(peers):
        x = _array(1, *shape)
        y = np.empty_like(x)
        cases = {"fastdl": Case(kernels.activation_forward, (x, act, 0.0, y))}
        if "torch" in peers:
            import torch

            tx = _torch_image(x)
            f = getattr(torch, act)
            cases["torch"] = _no_grad(torch, lambda: f(tx))
        if "numpy" in peers:
            cases["numpy"] = _numpy_activation(act, x, np.empty_like(x))
        return cases

    return setup


def _relu_backward(shape):
    def setup(peers):
        y, dy = np.maximum(_array(1, *shape), 0), _array(2, *shape)
        cases = {"fastdl": Case(kernels.activation_backward, (y, dy, "relu", 0.0, np.empty_like(y), 0.0))}
        if "torch" in peers:
            import torch

            ty, td = _torch_image(y), _torch_image(dy)
            cases["torch"] = _no_grad(torch, lambda: torch.ops.aten.threshold_backward(td, ty, 0))
        if "numpy" in peers:
            out = np.empty_like(y)
            cases["numpy"] = Case(lambda: np.multiply(dy, y > 0, out))
        return cases

    return setup


def _bias(shape):
    def setup(peers):
        x, b = _array(1, *shape), _array(2, shape[-1])
        y, rows = np.empty_like(x), x.reshape(-1, shape[-1])
        cases = {"fastdl": Case(kernels.binary, (rows, b, "add", y.reshape(rows.shape)))}
        if "torch" in peers:
            import torch

            tx, tb = _torch_image(x), torch.from_numpy(b)
            tb = tb.reshape(-1, 1, 1) if x.ndim == 4 else tb
            cases["torch"] = _no_grad(torch, lambda: torch.add(tx, tb))
        if "numpy" in peers:
            cases["numpy"] = Case(np.add, (x, b, np.empty_like(x)))
        return cases

    return setup


# ------------------------------------------------------------------------------------------- pooling, batch norm


def _max_pool(shape, backward):
    n, y, x, c = shape

    def numpy_forward(image):
        quarters = image.reshape(n, y // 2, 2, x // 2, 2, c)
        top = np.maximum(quarters[:, :, 0, :, 0], quarters[:, :, 0, :, 1])
        return np.maximum(top, np.maximum(quarters[:, :, 1, :, 0], quarters[:, :, 1, :, 1]))

    def numpy_backward(image, largest, dy):
        quarters, taken = image.reshape(n, y // 2, 2, x // 2, 2, c), np.zeros(largest.shape, bool)
        dx = np.empty(quarters.shape, np.float32)
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            here = (quarters[:, :, i, :, j] == largest) & ~taken
            taken |= here
            dx[:, :, i, :, j] = dy * here
        return dx.reshape(image.shape)

    def setup(peers):
        image, dy = _array(1, *shape), _array(2, n, y // 2, x // 2, c)
        at, largest, where = (2, 2, 2, 2, 0, 0), np.empty_like(dy), np.empty(dy.shape, np.uint8)
        kernels.max_pool2d_forward(image, *at, largest, where)
        if backward:
            cases = {"fastdl": Case(kernels.max_pool2d_backward, (where, dy, *at, np.empty_like(image), 0.0))}
        else:
            cases = {"fastdl": Case(kernels.max_pool2d_forward, (image, *at, largest, where))}
        if "torch" in peers:
            import torch

            for label, layout in (("torch", torch.contiguous_format), ("torch-channels-last", torch.channels_last)):
                ti, td = (_torch_image(v).to(memory_format=layout) for v in (image, dy))
                aten = torch.ops.aten
                if backward:
                    _, place = aten.max_pool2d_with_indices(ti, [2, 2])
                    back = aten.max_pool2d_with_indices_backward
                    cases[label] = _no_grad(
                        torch, lambda b=back, d=td, i=ti, p=place: b(d, i, [2, 2], [2, 2], [0, 0], [1, 1], False, p)
                    )
                else:
                    cases[label] = _no_grad(torch, lambda i=ti, f=aten.max_pool2d_with_indices: f(i, [2, 2]))
        if "numpy" in peers:
            args = (image, largest, dy) if backward else (image,)
            cases["numpy"] = Case(numpy_backward if backward else numpy_forward, args)
        return cases

    return setup


def _batch_norm(shape, backward):
    c = shape[-1]

    def numpy_forward(x, gamma, shift, mean, var):
        flat = x.reshape(-1, c)
        m, v = flat.mean(0), flat.var(0)
        mean += 0.1 * (m - mean)
        var += 0.1 * (v - var)
        rstd = 1.0 / np.sqrt(v + 1e-5)
        scale = gamma * rstd
        return flat * scale + (shift - m * scale)

    def numpy_backward(x, gamma, m, rstd, dy):
        flat, d = x.reshape(-1, c), dy.reshape(-1, c)
        normal = (flat - m) * rstd
        dshift, dgamma = d.sum(0), (d * normal).sum(0)
        return (gamma * rstd) * (d - dshift / len(d) - normal * (dgamma / len(d))), dgamma, dshift

    def setup(peers):
        x, dy = _array(1, *shape), _array(2, *shape)
        gamma, shift, mean, var = (
            np.ones(c, np.float32),
            np.zeros(c, np.float32),
            np.zeros(c, np.float32),
            np.ones(c, np.float32),
        )
        m, rstd, y = np.empty(c, np.float32), np.empty(c, np.float32), np.empty_like(x)
        forward = Case(kernels.batch_norm_forward, (x, gamma, shift, 1e-5, 0.1, None, mean, var, y, m, rstd))
        forward.call(*forward.args)
        cases = {"fastdl": forward}
        if backward:
            out = (np.empty_like(x), 0.0, np.empty(c, np.float32), 0.0, np.empty(c, np.float32), 0.0)
            cases = {"fastdl": Case(kernels.batch_norm_backward, (x, gamma, m, rstd, dy, None, *out))}
        if "torch" in peers:
            import torch

            tg, ts, tm, tv = (torch.from_numpy(v.copy()) for v in (gamma, shift, mean, var))
            layouts = (("torch", torch.contiguous_format), ("torch-channels-last", torch.channels_last))
            for label, layout in layouts if x.ndim == 4 else layouts[:1]:
                tx, td = (_torch_image(v).to(memory_format=layout) for v in (x, dy))
                native = torch.ops.aten.native_batch_norm
                if backward:
                    _, sm, sr = native(tx, tg, ts, tm, tv, True, 0.1, 1e-5)
                    back = torch.ops.aten.native_batch_norm_backward
                    cases[label] = _no_grad(
                        torch,
                        lambda b=back, d=td, i=tx, sm=sm, sr=sr: b(d, i, tg, tm, tv, sm, sr, True, 1e-5, [True] * 3),
                    )
                else:
                    cases[label] = _no_grad(torch, lambda f=native, i=tx: f(i, tg, ts, tm, tv, True, 0.1, 1e-5))
        if "numpy" in peers:
            args = (x, gamma, m, rstd, dy) if backward else (x, gamma, shift, mean.copy(), var.copy())
            cases["numpy"] = Case(numpy_backward if backward else numpy_forward, args)
        return cases

    return setup


# ------------------------------------------------------------------------------------------ loss, dropout, update


def _cross_entropy(n, classes):
    def setup(peers):
        x = _array(1, n, classes)
        labels = np.random.default_rng(2).integers(0, classes, n)
        p, dx, loss, one = np.empty_like(x), np.empty_like(x), np.empty(1, np.float32), np.ones(1, np.float32)
        forward, backward = kernels.softmax_cross_entropy_forward, kernels.softmax_cross_entropy_backward

        def ours():
            forward(x, labels, None, 0.0, "mean", None, loss, None, p)
            backward(p, labels, None, one, 0.0, "mean", False, None, dx, 0.0)

        cases = {"fastdl": Case(ours)}
        if "torch" in peers:
            import torch

            tx, tl = torch.from_numpy(x.copy()).requires_grad_(), torch.from_numpy(labels)

            def torch_loss():
                tx.grad = None
                torch.nn.functional.cross_entropy(tx, tl).backward()

            cases["torch"] = Case(torch_loss)
        if "numpy" in peers:
            each = np.arange(n)

            def numpy_loss():
                e = np.exp(x - x.max(1, keepdims=True))
                q = e / e.sum(1, keepdims=True)
                value = -np.log(q[each, labels]).mean()
                q[each, labels] -= 1.0
                q /= n
                return value, q

            cases["numpy"] = Case(numpy_loss)
        return cases

    return setup


def _dropout(shape):
    def setup(peers):
        x = _array(1, *shape)
        cases = {"fastdl": Case(kernels.dropout_forward, (x, 0.5, 1, 0, np.empty_like(x)))}
        if "torch" in peers:
            import torch

            tx = torch.from_numpy(x)
            cases["torch"] = _no_grad(torch, lambda: torch.nn.functional.dropout(tx, 0.5, True))
        if "numpy" in peers:
            rng = np.random.default_rng(0)
            cases["numpy"] = Case(lambda: x * ((rng.random(shape, np.float32) >= 0.5) * np.float32(2.0)))
        return cases

    return setup


def _adam(peers):
    shapes = ((784, 512), (512,), (512, 512), (512,), (512, 10), (10,))
    n = sum(int(np.prod(s)) for s in shapes)
    g, w, m, v = _array(1, n), _array(2, n), np.zeros(n, np.float32), np.zeros(n, np.float32)
    cases = {"fastdl": Case(kernels.adam, (g, 0.9, 0.999, 1e-8, 0.0, False, 1e-3, 100, w, m, v))}
    if "torch" in peers:
        import torch

        for label, fused in (("torch", False), ("torch-fused", True)):
            parameters = [torch.nn.Parameter(torch.from_numpy(_array(i, *s))) for i, s in enumerate(shapes)]
            for i, q in enumerate(parameters):
                q.grad = torch.from_numpy(_array(10 + i, *q.shape))
            cases[label] = Case(torch.optim.Adam(parameters, 1e-3, fused=fused).step)
    if "numpy" in peers:
        from .plain import Adam

        update = Adam([_array(i, *s) for i, s in enumerate(shapes)])
        cases["numpy"] = Case(update.step, ([_array(10 + i, *s) for i, s in enumerate(shapes)],))
    return cases


def _random(kind, n=50_000):
    def setup(peers):
        p, y = np.random.default_rng(1).random(n, np.float32), np.empty(n, np.float32)
        ours = (kernels.uniform, (0.0, 1.0, 1, 0, y)) if kind == "uniform" else (kernels.bernoulli, (p, 1, 0, y))
        cases = {"fastdl": Case(*ours)}
        if "torch" in peers:
            import torch

            tp = torch.from_numpy(p)
            cases["torch"] = Case(lambda: torch.rand(n)) if kind == "uniform" else Case(lambda: torch.bernoulli(tp))
        if "numpy" in peers:
            rng = np.random.default_rng(0)
            if kind == "uniform":
                cases["numpy"] = Case(lambda: rng.random(n, np.float32))
            else:
                cases["numpy"] = Case(lambda: (rng.random(n, np.float32) < p).astype(np.float32))
        return cases

    return setup


def rows():
    """Rows of this area."""
    result = []

    def add(name, setup, moved, **goals):
        result.append(Row("layers", name, setup, 0.0, moved, goals))

    for shape, name in (((128, 512), "128x512"), (BIG, "64x32x26x26")):
        n = 4.0 * np.prod(shape)
        goals = {"sigmoid": 1.8, "tanh": 5.0} if shape != BIG else {}
        add(f"relu {name}", _activation("relu", shape), 2 * n)
        add(f"relu_bwd {name}", _relu_backward(shape), 3 * n)
        for act in ("sigmoid", "tanh"):
            add(f"{act} {name}", _activation(act, shape), 2 * n, **({"torch": goals[act]} if act in goals else {}))
        add(f"bias_add {name}", _bias(shape), 2 * n)
    for shape, name in (((64, 24, 24, 32), "64x32x24x24"), ((64, 28, 28, 6), "64x6x28x28")):
        n = 4.0 * np.prod(shape)
        add(f"maxpool2 {name}", _max_pool(shape, False), 1.25 * n, torch=6.0, numpy=1.0)
        add(f"maxpool2_bwd {name}", _max_pool(shape, True), 1.25 * n)
    for shape, name in ((BIG, "64x32x26x26"), ((128, 512), "128x512")):
        n, big = 4.0 * np.prod(shape), shape == BIG
        add(f"batchnorm {name}", _batch_norm(shape, False), 3 * n, **({"torch": 2.5, "numpy": 6.0} if big else {}))
        add(f"batchnorm_bwd {name}", _batch_norm(shape, True), 5 * n)
    for n, classes in ((64, 10), (128, 10), (2500, 65), (128, 1000)):
        goals = {"torch": 20.0, "numpy": 10.0} if (n, classes) == (64, 10) else {}
        add(f"softmax+CE fwd+bwd {n}x{classes}", _cross_entropy(n, classes), 0.0, **goals)
    add("dropout 128x512 train fwd", _dropout((128, 512)), 8.0 * 128 * 512, torch=30.0, numpy=8.0)
    add("Adam 669,706 parameters", _adam, 28.0 * 669_706, torch=5.0, numpy=5.0)
    add("uniform 50,000", _random("uniform"), 2e5, torch=10.0, numpy=8.0)
    add("Bernoulli(p) 50,000", _random("Bernoulli"), 4e5, torch=20.0, numpy=8.0)
    return result
