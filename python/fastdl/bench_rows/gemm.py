"""Matrix products: squares, and the three products of a Linear layer."""

import numpy as np

from .. import kernels
from ..bench import Case, Row


def _array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _product(m, n, k, trans_a=False, trans_b=False):
    """Contestants of c[m,n] = op(a) op(b), where op transposes."""

    def setup(peers):
        a = _array(1, k, m) if trans_a else _array(1, m, k)
        b = _array(2, n, k) if trans_b else _array(2, k, n)
        c = np.empty((m, n), np.float32)
        va, vb = a.T if trans_a else a, b.T if trans_b else b
        cases = {"fastdl": Case(kernels.matmul, (a, b, trans_a, trans_b, 0.0, c))}
        if "numpy" in peers:
            cases["numpy"] = Case(np.matmul, (va, vb, np.empty_like(c)))
        if "torch" in peers:
            import torch

            ta, tb, tc = torch.from_numpy(va), torch.from_numpy(vb), torch.empty(m, n)
            cases["torch"] = Case(lambda: torch.mm(ta, tb, out=tc))
        if "jax" in peers:
            import jax

            ja, jb, f = jax.numpy.asarray(va), jax.numpy.asarray(vb), jax.jit(jax.numpy.matmul)
            cases["jax"] = Case(lambda: f(ja, jb).block_until_ready())
        return cases

    return setup


def _layer(n, i, o):
    """Contestants of y = x w + b, as each library's layer computes it."""

    def setup(peers):
        x, w, b = _array(1, n, i), _array(2, i, o) / np.float32(i) ** 0.5, _array(3, o)
        y = np.empty((n, o), np.float32)
        cases = {"fastdl": Case(kernels.dense_forward, (x, w, b, "none", 0.0, y))}
        if "numpy" in peers:
            z = np.empty_like(y)

            def numpy_layer():
                np.matmul(x, w, z)
                return np.add(z, b, z)

            cases["numpy"] = Case(numpy_layer)
        if "torch" in peers:
            import torch

            # nn.Linear keeps its weights [out, in]
            tx, tw, tb = torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(w.T)), torch.from_numpy(b)
            linear, off = torch.nn.functional.linear, torch.inference_mode()

            def torch_layer():
                with off:
                    linear(tx, tw, tb)

            cases["torch"] = Case(torch_layer)
        if "jax" in peers:
            import jax

            jx, jw, jb = (jax.numpy.asarray(v) for v in (x, w, b))
            f = jax.jit(lambda p, q, r: p @ q + r)
            cases["jax"] = Case(lambda: f(jx, jw, jb).block_until_ready())
        return cases

    return setup


def rows():
    """Rows of this area."""
    result = []
    for size in (32, 64, 128, 256, 512, 1024, 2048):
        goal = {32: 1.5, 64: 1.2, 128: 1.2}.get(size, 1.0)
        at = () if size >= 256 else (1,)
        result.append(
            Row("gemm", f"{size}x{size}x{size}", _product(size, size, size), 2.0 * size**3, 0.0, {"numpy": goal}, at)
        )
    for batch in (1, 64, 128, 256):
        for i, o in ((784, 512), (512, 512), (512, 10)):
            goals = {"numpy": 1.0}
            if batch == 1:
                goals = {"numpy": 1.0, "torch": 1.5}
            elif o == 10:
                goals = {"numpy": 1.5, "torch": 3.0}
            result.append(Row("gemm", f"fwd B{batch} {i}->{o}", _layer(batch, i, o), 2.0 * batch * i * o, 0.0, goals))
    result.append(Row("gemm", "fwd B64 512->1", _layer(64, 512, 1), 2.0 * 64 * 512, 0.0, {"numpy": 1.0}))
    for batch, i, o in ((64, 784, 128), (128, 784, 512), (128, 512, 10), (64, 512, 1)):
        flops = 2.0 * batch * i * o
        # dx[n,i] = dy w^T and dw[i,o] = x^T dy
        result.append(
            Row("gemm", f"dX B{batch} {i}->{o}", _product(batch, i, o, trans_b=True), flops, 0.0, {"numpy": 1.0})
        )
        result.append(
            Row("gemm", f"dW B{batch} {i}->{o}", _product(i, o, batch, trans_a=True), flops, 0.0, {"numpy": 1.0})
        )
    return result
