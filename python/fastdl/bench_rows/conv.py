"""Convolutions: forward, gradient for the image, gradient for the filters. Ours is channels last; PyTorch runs in both
layouts."""

import numpy as np

from .. import kernels
from ..bench import Case, Row


def _array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


class _Shape:
    """One convolution: N images of Y x X x C, F filters of R x R, stride and padding."""

    def __init__(self, n, c, y, f, r, stride=1, pad=0):
        self.n, self.c, self.y, self.f, self.r, self.stride, self.pad = n, c, y, f, r, stride, pad
        self.p = (y + 2 * pad - r) // stride + 1
        self.flops = 2.0 * n * self.p**2 * r**2 * c * f
        self.at = (stride, stride, pad, pad, 1, 1, 1)

    def arrays(self):
        """x [N,Y,X,C], w [R,S,C,F], dy [N,P,Q,F]."""
        x = _array(1, self.n, self.y, self.y, self.c)
        w = _array(2, self.r, self.r, self.c, self.f) / np.float32(self.r**2 * self.c) ** 0.5
        return x, w, _array(3, self.n, self.p, self.p, self.f)

    # ---- the ordinary way in NumPy: patches as rows of a matrix, and one product

    def patches(self, x):
        """[N P Q, R S C]."""
        if self.pad:
            x = np.pad(x, ((0, 0), (self.pad, self.pad), (self.pad, self.pad), (0, 0)))
        if self.r == 1 and self.stride == 1:
            return x.reshape(-1, self.c)
        view = np.lib.stride_tricks.sliding_window_view(x, (self.r, self.r), axis=(1, 2))
        view = view[:, :: self.stride, :: self.stride].transpose(0, 1, 2, 4, 5, 3)
        return view.reshape(self.n * self.p**2, -1)

    def numpy_forward(self, x, w):
        """y [N,P,Q,F]."""
        return (self.patches(x) @ w.reshape(-1, self.f)).reshape(self.n, self.p, self.p, self.f)

    def numpy_backward_weight(self, x, dy):
        """dw [R,S,C,F]."""
        return (self.patches(x).T @ dy.reshape(-1, self.f)).reshape(self.r, self.r, self.c, self.f)

    def numpy_backward_data(self, dy, w):
        """dx [N,Y,X,C]."""
        side = self.y + 2 * self.pad
        d = (dy.reshape(-1, self.f) @ w.reshape(-1, self.f).T).reshape(self.n, self.p, self.p, self.r, self.r, self.c)
        dx = np.zeros((self.n, side, side, self.c), np.float32)
        last = self.stride * (self.p - 1) + 1
        for i in range(self.r):
            for j in range(self.r):
                dx[:, i : i + last : self.stride, j : j + last : self.stride] += d[:, :, :, i, j]
        return dx[:, self.pad : side - self.pad, self.pad : side - self.pad]


def _torch_cases(call, x, w, dy, transposed=False):
    """``call(torch, x, w, dy)`` in PyTorch's two layouts."""
    import torch

    result = {}
    for label, layout in (("torch", torch.contiguous_format), ("torch (channels last)", torch.channels_last)):
        tx, tdy = (
            torch.from_numpy(np.ascontiguousarray(v.transpose(0, 3, 1, 2))).to(memory_format=layout) for v in (x, dy)
        )
        # filters [F,C,R,S]; of a transposed convolution [in,out,R,S], which is the same here
        tw = torch.from_numpy(np.ascontiguousarray(w.transpose(3, 2, 0, 1))).to(memory_format=layout)

        def run(tx=tx, tw=tw, tdy=tdy):
            with torch.no_grad():
                call(torch, tx, tw, tdy)

        result[label] = Case(run)
    return result


def _forward(s):
    def setup(peers):
        x, w, dy = s.arrays()
        cases = {"fastdl": Case(kernels.conv2d_forward, (x, w, None, *s.at, "none", 0.0, None, np.empty_like(dy)))}
        if "torch" in peers:
            cases |= _torch_cases(
                lambda t, a, f, _: t.nn.functional.conv2d(a, f, stride=s.stride, padding=s.pad), x, w, dy
            )
        if "numpy" in peers:
            cases["numpy"] = Case(s.numpy_forward, (x, w))
        return cases

    return setup


def _torch_backward(s, mask):
    stride, pad = [s.stride] * 2, [s.pad] * 2

    def call(t, a, f, d):
        t.ops.aten.convolution_backward(d, a, f, None, stride, pad, [1, 1], False, [0, 0], 1, mask)

    return call


def _backward_data(s):
    def setup(peers):
        x, w, dy = s.arrays()
        dx = np.empty_like(x)
        cases = {"fastdl": Case(kernels.conv2d_backward_data, (dy, w, *s.at, None, dx, 0.0))}
        if "torch" in peers:
            cases |= _torch_cases(_torch_backward(s, [True, False, False]), x, w, dy)
        if "numpy" in peers:
            cases["numpy"] = Case(s.numpy_backward_data, (dy, w))
        return cases

    return setup


def _backward_weight(s):
    def setup(peers):
        x, w, dy = s.arrays()
        dw = np.empty_like(w)
        cases = {"fastdl": Case(kernels.conv2d_backward_weight, (x, dy, *s.at, None, dw, 0.0, None, 0.0))}
        if "torch" in peers:
            cases |= _torch_cases(_torch_backward(s, [False, True, False]), x, w, dy)
        if "numpy" in peers:
            cases["numpy"] = Case(s.numpy_backward_weight, (x, dy))
        return cases

    return setup


def _transposed(s, which):
    """A transposed convolution from dy's place to x's: its passes are those of the convolution, exchanged."""

    def setup(peers):
        big, w, small = s.arrays()  # big [N,Y,X,C] is its output, small [N,P,Q,F] its input
        if which == "fwd":
            ours = Case(
                kernels.conv_transpose2d_forward, (small, w, None, *s.at, "none", 0.0, None, np.empty_like(big))
            )
            plain = Case(s.numpy_backward_data, (small, w))
        elif which == "bwd_data":
            ours = Case(kernels.conv2d_forward, (big, w, None, *s.at, "none", 0.0, None, np.empty_like(small)))
            plain = Case(s.numpy_forward, (big, w))
        else:
            ours = Case(kernels.conv2d_backward_weight, (big, small, *s.at, None, np.empty_like(w), 0.0, None, 0.0))
            plain = Case(s.numpy_backward_weight, (big, small))
        cases = {"fastdl": ours}
        stride, pad = [s.stride] * 2, [s.pad] * 2
        mask = [which == "bwd_data", which == "bwd_weight", False]

        def call(t, a, f, d):
            if which == "fwd":
                t.nn.functional.conv_transpose2d(a, f, stride=s.stride, padding=s.pad)
            else:
                t.ops.aten.convolution_backward(d, a, f, None, stride, pad, [1, 1], True, [0, 0], 1, mask)

        if "torch" in peers:
            cases |= _torch_cases(call, small, w, big)
        if "numpy" in peers:
            cases["numpy"] = plain
        return cases

    return setup


def rows():
    """Rows of this area."""
    shapes = {
        "lenet1 64x1x28 6k5p2": (_Shape(64, 1, 28, 6, 5, 1, 2), (1.7, None, 1.3)),
        "lenet2 64x6x14 16k5": (_Shape(64, 6, 14, 16, 5), (1.6, 1.6, 1.6)),
        "mnist1 64x1x28 32k3": (_Shape(64, 1, 28, 32, 3), (1.7, None, 1.3)),
        "mnist2 64x32x26 64k3": (_Shape(64, 32, 26, 64, 3), (1.0, 1.0, 1.3)),
        "vgg 8x64x56 64k3p1": (_Shape(8, 64, 56, 64, 3, 1, 1), (1.0, 1.0, 1.3)),
        "vgg 8x128x28 128k3p1": (_Shape(8, 128, 28, 128, 3, 1, 1), (1.0, 1.0, 1.3)),
        "1x1 8x256x14 64k1": (_Shape(8, 256, 14, 64, 1), (1.2, 1.5, 1.3)),
        "stem 8x3x224 64k7s2p3": (_Shape(8, 3, 224, 64, 7, 2, 3), (None, 1.7, 1.3)),
    }
    result = []
    for name, (s, goals) in shapes.items():
        passes = (("fwd", _forward), ("bwd_data", _backward_data), ("bwd_weight", _backward_weight))
        for (which, make), goal in zip(passes, goals, strict=True):
            result.append(Row("conv", f"{name} {which}", make(s), s.flops, 0.0, {"torch": goal} if goal else {}))
    gan = _Shape(64, 64, 14, 128, 4, 2, 1)
    for which in ("fwd", "bwd_data", "bwd_weight"):
        result.append(
            Row("conv", f"gan-T 64x128x7 64k4s2p1 {which}", _transposed(gan, which), gan.flops, 0.0, {"torch": 1.1})
        )
    return result
