"""Ten-step losses of small networks, computed in float64 NumPy from the formulas alone, for tests/test_train.py.

Run it to write losses.json again; nothing of fastdl is used here.
"""

import json
from pathlib import Path

import numpy as np

STEPS, N, CLASSES = 10, 16, 3


# ------------------------------------------------------------------------------------------------ layers
# Each returns its output and a function from dy to (dx, gradients by name).


def dense(x, w, b):
    return x @ w + b, lambda dy: (dy @ w.T, x.T @ dy, dy.sum(0))


def relu(x):
    return np.maximum(x, 0), lambda dy: dy * (x > 0)


def tanh(x):
    y = np.tanh(x)
    return y, lambda dy: dy * (1 - y * y)


def conv(x, w, pad):
    n, rows, columns, c = x.shape
    r, s, _, f = w.shape
    xp = np.zeros((n, rows + 2 * pad, columns + 2 * pad, c))
    xp[:, pad : pad + rows, pad : pad + columns] = x
    p, q = rows + 2 * pad - r + 1, columns + 2 * pad - s + 1
    y = np.zeros((n, p, q, f))
    for i in range(r):
        for j in range(s):
            y += xp[:, i : i + p, j : j + q] @ w[i, j]

    def back(dy):
        dw, dxp = np.zeros_like(w), np.zeros_like(xp)
        for i in range(r):
            for j in range(s):
                dw[i, j] = np.einsum("npqc,npqf->cf", xp[:, i : i + p, j : j + q], dy)
                dxp[:, i : i + p, j : j + q] += dy @ w[i, j].T
        return dxp[:, pad : pad + rows, pad : pad + columns], dw

    return y, back


def batch_norm(x, gamma, shift, eps=1e-5):
    axes = tuple(range(x.ndim - 1))
    n = x.size // x.shape[-1]
    rstd = 1 / np.sqrt(x.var(axes) + eps)
    xhat = (x - x.mean(axes)) * rstd

    def back(dy):
        dgamma, dshift = (dy * xhat).sum(axes), dy.sum(axes)
        return gamma * rstd * (dy - dshift / n - xhat * dgamma / n), dgamma, dshift

    return gamma * xhat + shift, back


def max_pool(x):
    n, rows, columns, c = x.shape
    windows = (
        x.reshape(n, rows // 2, 2, columns // 2, 2, c)
        .transpose(0, 1, 3, 5, 2, 4)
        .reshape(n, rows // 2, columns // 2, c, 4)
    )
    at = windows.argmax(-1)[..., None]

    def back(dy):
        d = np.zeros_like(windows)
        np.put_along_axis(d, at, dy[..., None], -1)
        return d.reshape(n, rows // 2, columns // 2, c, 2, 2).transpose(0, 1, 4, 2, 5, 3).reshape(x.shape)

    return np.take_along_axis(windows, at, -1)[..., 0], back


def cross_entropy(z, labels):
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    rows = np.arange(len(z))
    one_hot = np.zeros_like(p)
    one_hot[rows, labels] = 1
    return -np.log(p[rows, labels]).mean(), (p - one_hot) / len(z)


# ------------------------------------------------------------------------------------------------ networks


def mlp(p, x, labels):
    a, back_a = dense(x, p["layers.0.w"], p["layers.0.b"])
    h, back_h = tanh(a)
    z, back_z = dense(h, p["layers.1.w"], p["layers.1.b"])
    loss, dz = cross_entropy(z, labels)
    g = {}
    dh, g["layers.1.w"], g["layers.1.b"] = back_z(dz)
    _, g["layers.0.w"], g["layers.0.b"] = back_a(back_h(dh))
    return loss, g


def cnn(p, x, labels):
    a, back_a = conv(x, p["layers.0.w"], 1)
    b, back_b = batch_norm(a, p["layers.1.gamma"], p["layers.1.shift"])
    c, back_c = relu(b)
    d, back_d = max_pool(c)
    flat = d.reshape(len(d), -1)
    z, back_z = dense(flat, p["layers.5.w"], p["layers.5.b"])
    loss, dz = cross_entropy(z, labels)
    g = {}
    dflat, g["layers.5.w"], g["layers.5.b"] = back_z(dz)
    db, g["layers.1.gamma"], g["layers.1.shift"] = back_b(back_c(back_d(dflat.reshape(d.shape))))
    _, g["layers.0.w"] = back_a(db)
    return loss, g


def weights(name):
    """Initial weights by name, from a generator that is not fastdl's."""
    rng = np.random.default_rng(7)
    if name == "mlp":
        shapes = {"layers.0.w": (20, 12), "layers.0.b": (12,), "layers.1.w": (12, CLASSES), "layers.1.b": (CLASSES,)}
    else:
        shapes = {"layers.0.w": (3, 3, 2, 5), "layers.1.gamma": (5,), "layers.1.shift": (5,)}
        shapes |= {"layers.5.w": (3 * 3 * 5, CLASSES), "layers.5.b": (CLASSES,)}
    p = {}
    for key, shape in shapes.items():
        scale = 0.1 if len(shape) == 1 else (2.0 / np.prod(shape[:-1])) ** 0.5
        p[key] = (key.endswith("gamma") + scale * rng.standard_normal(shape)).astype(np.float32)
    return p


def batches(name):
    """Ten batches of float32 samples and int64 labels."""
    rng = np.random.default_rng(11)
    shape = (20,) if name == "mlp" else (6, 6, 2)
    labels = rng.integers(0, CLASSES, (STEPS, N))
    centres = rng.standard_normal((CLASSES, *shape))
    return (centres[labels] + rng.standard_normal((STEPS, N, *shape))).astype(np.float32), labels


# ------------------------------------------------------------------------------------------------ training


def decayed(key):
    return key.endswith(".w")


def train(name, rule):
    """Losses before each of ten updates, in float64."""
    p = {k: v.astype(np.float64) for k, v in weights(name).items()}
    m = {k: np.zeros_like(v) for k, v in p.items()}
    v = {k: np.zeros_like(v) for k, v in p.items()}
    losses = []
    for t, (x, labels) in enumerate(zip(*batches(name), strict=True), 1):
        loss, g = {"mlp": mlp, "cnn": cnn}[name](p, x.astype(np.float64), labels)
        losses.append(loss)
        for k in p:
            if rule == "sgd":  # momentum 0.9, Nesterov, L2 penalty 0.01
                d = g[k] + (0.01 * p[k] if decayed(k) else 0)
                m[k] = 0.9 * m[k] + d
                p[k] -= 0.1 * (d + 0.9 * m[k])
            else:  # AdamW, decay 0.1
                m[k] = 0.9 * m[k] + 0.1 * g[k]
                v[k] = 0.999 * v[k] + 0.001 * g[k] ** 2
                update = (m[k] / (1 - 0.9**t)) / (np.sqrt(v[k] / (1 - 0.999**t)) + 1e-8)
                p[k] -= 0.01 * (update + (0.1 * p[k] if decayed(k) else 0))
    return losses


def make():
    return {f"{name}-{rule}": train(name, rule) for name in ("mlp", "cnn") for rule in ("sgd", "adamw")}


if __name__ == "__main__":
    path = Path(__file__).with_name("losses.json")
    path.write_text(json.dumps(make(), indent=1) + "\n")
    print(f"wrote {path}")
