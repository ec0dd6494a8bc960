"""Recurrent kernels in plain NumPy: the definitions that the kernels are tested against.

One sequence and one step at a time, as the papers write them; see `csrc/kernels.h` for the letters.
"""

import numpy as np

import reference


def sigmoid(z):
    return reference.act(z, "sigmoid")


def steps_of(n, T, lengths, reverse):
    """The time steps of sequence n in the order in which they are computed."""
    length = T if lengths is None else int(lengths[n])
    return range(length - 1, -1, -1) if reverse else range(length)


def lstm_step(x, h, c, w, u, b=None, p=None, drop=1.0, keep_h=0.0, keep_c=0.0):
    """(output, cell, gates i f g o) of one step of one sequence (or of rows of them)."""
    one = x.dtype.type(1)
    z = x @ w + h @ u
    if b is not None:
        z = z + b
    zi, zf, zg, zo = np.split(z, 4, axis=-1)
    if p is not None:
        zi, zf = zi + p[0] * c, zf + p[1] * c
    i, f, g = sigmoid(zi), sigmoid(zf), np.tanh(zg)
    m = f * c + i * (g * drop)
    o = sigmoid(zo if p is None else zo + p[2] * m)
    h = keep_h * h + (one - keep_h) * o * np.tanh(m)
    c = keep_c * c + (one - keep_c) * m
    return h.astype(x.dtype), c.astype(x.dtype), np.concatenate([i, f, g, o], axis=-1)


def run(x, H, h0, c0, lengths, reverse, step):
    """(y, hn, cn, gates, cells) with step(n, t, h, c) -> (h, c, gates); the last two by sample and time, a list."""
    N, T, _ = x.shape
    y = np.zeros((N, T, H), x.dtype)
    hn, cn = np.zeros((N, H), x.dtype), np.zeros((N, H), x.dtype)
    gates, cells = {}, {}
    for n in range(N):
        h = np.zeros(H, x.dtype) if h0 is None else h0[n]
        c = np.zeros(H, x.dtype) if c0 is None else c0[n]
        for s, t in enumerate(steps_of(n, T, lengths, reverse)):
            h, c, gates[n, s] = step(n, t, h, c)
            y[n, t], cells[n, s] = h, c
        hn[n], cn[n] = h, c
    return y, hn, cn, gates, cells


def packed(rows, N, T, width, lengths, dtype):
    """Rows by (sequence, step) in the packed order: step by step, sequences by descending length."""
    out = np.zeros((N, T, width), dtype)
    flat, at = out.reshape(N * T, width), 0
    order = sorted(range(N), key=lambda n: -(T if lengths is None else int(lengths[n])))
    for s in range(T):
        for n in order:
            if (n, s) in rows:
                flat[at], at = rows[n, s], at + 1
    return out


def _lstm(x, w, u, b, h0, c0, lengths, p, drop, keep_h, keep_c, reverse):
    def step(n, t, h, c):
        some = {k: v[n, t] for k, v in (("drop", drop), ("keep_h", keep_h), ("keep_c", keep_c)) if v is not None}
        return lstm_step(x[n, t], h, c, w, u, b, p, **some)

    return run(x, len(u), h0, c0, lengths, reverse, step)


def lstm_forward(x, w, u, b=None, h0=None, c0=None, lengths=None, p=None, drop=None, keep_h=None, keep_c=None,
                 reverse=False):  # fmt: skip
    y, hn, cn, _, _ = _lstm(x, w, u, b, h0, c0, lengths, p, drop, keep_h, keep_c, reverse)
    return {"y": y, "hn": hn, "cn": cn}


def lstm_saved(x, w, u, b=None, h0=None, c0=None, lengths=None, p=None, drop=None, keep_h=None, keep_c=None,
               reverse=False):  # fmt: skip
    """What the backward kernel takes: y, gates, cells."""
    (N, T, _), H = x.shape, len(u)
    y, _, _, gates, cells = _lstm(x, w, u, b, h0, c0, lengths, p, drop, keep_h, keep_c, reverse)
    return {
        "y": y,
        "gates": packed(gates, N, T, 4 * H, lengths, x.dtype),
        "cells": packed(cells, N, T, H, lengths, x.dtype),
    }


def _norm(v, eps):
    r = 1 / np.sqrt(v.var() + v.dtype.type(eps))
    return (v - v.mean()) * r, r


def _lstm_norm(x, w, u, gain, b, h0, c0, lengths, eps, reverse):
    """As `run` gives it, with (gates, norms, scales) in the place of gates."""

    def step(n, t, h, c):
        z = x[n, t] @ w + h @ u
        parts = [_norm(part, eps) for part in np.split(z, 4)]
        zi, zf, zg, zo = (part * gain[k] + b[k] for k, (part, _) in enumerate(parts))
        i, f, g, o = sigmoid(zi), sigmoid(zf), np.tanh(zg), sigmoid(zo)
        c = (f * c + i * g).astype(x.dtype)
        parts.append(_norm(c, eps))
        h = (o * np.tanh(parts[4][0] * gain[4] + b[4])).astype(x.dtype)
        saved = np.concatenate([i, f, g, o]), np.concatenate([part for part, _ in parts]), np.array([r for _, r in parts])
        return h, c, saved

    return run(x, len(u), h0, c0, lengths, reverse, step)


def lstm_norm_forward(x, w, u, gain, b, h0=None, c0=None, lengths=None, eps=1e-5, reverse=False):
    y, hn, cn, _, _ = _lstm_norm(x, w, u, gain, b, h0, c0, lengths, eps, reverse)
    return {"y": y, "hn": hn, "cn": cn}


def lstm_norm_saved(x, w, u, gain, b, h0=None, c0=None, lengths=None, reverse=False):
    (N, T, _), H = x.shape, len(u)
    y, _, _, saved, cells = _lstm_norm(x, w, u, gain, b, h0, c0, lengths, 1e-5, reverse)
    widths = {"gates": 4 * H, "normed": 5 * H, "scales": 5}
    rows = {
        name: packed({k: v[i] for k, v in saved.items()}, N, T, width, lengths, x.dtype)
        for i, (name, width) in enumerate(widths.items())
    }
    return {"y": y, "cells": packed(cells, N, T, H, lengths, x.dtype), **rows}


def lstm_cell_forward(x, h, c, w, u, b=None):
    y, c_new, gates = lstm_step(x, h, c, w, u, b)
    return {"y": y, "c_new": c_new, "gates": gates}


def gru_step(x, h, w, u, b=None, bn=None):
    """(output, gates r z n q) of one step."""
    H = len(u)
    a, s = x @ w, h @ u
    if b is not None:
        a = a + b
    r = sigmoid(a[..., :H] + s[..., :H])
    z = sigmoid(a[..., H : 2 * H] + s[..., H : 2 * H])
    q = s[..., 2 * H :] + (0 if bn is None else bn)
    n = np.tanh(a[..., 2 * H :] + r * q)
    one = x.dtype.type(1)
    return ((one - z) * n + z * h).astype(x.dtype), np.concatenate([r, z, n, q], axis=-1)


def _gru(x, w, u, b, bn, h0, lengths, reverse):
    def step(n, t, h, c):
        h, gates = gru_step(x[n, t], h, w, u, b, bn)
        return h, c, gates

    return run(x, len(u), h0, None, lengths, reverse, step)


def gru_forward(x, w, u, b=None, bn=None, h0=None, lengths=None, reverse=False):
    y, hn, _, _, _ = _gru(x, w, u, b, bn, h0, lengths, reverse)
    return {"y": y, "hn": hn}


def gru_saved(x, w, u, b=None, bn=None, h0=None, lengths=None, reverse=False):
    (N, T, _), H = x.shape, len(u)
    y, _, _, gates, _ = _gru(x, w, u, b, bn, h0, lengths, reverse)
    return {"y": y, "gates": packed(gates, N, T, 4 * H, lengths, x.dtype)}


def gru_cell_forward(x, h, w, u, b=None, bn=None):
    y, gates = gru_step(x, h, w, u, b, bn)
    return {"y": y, "gates": gates}


def rnn_cell_forward(x, h, w, u, b=None, act="tanh"):
    z = x @ w + h @ u
    return reference.act(z if b is None else z + b, act)


def _rnn(x, w, u, b, h0, lengths, act, reverse):
    def step(n, t, h, c):
        h = rnn_cell_forward(x[n, t], h, w, u, b, act)
        return h, c, h

    return run(x, len(u), h0, None, lengths, reverse, step)


def rnn_forward(x, w, u, b=None, h0=None, lengths=None, act="tanh", reverse=False):
    y, hn, _, _, _ = _rnn(x, w, u, b, h0, lengths, act, reverse)
    return {"y": y, "hn": hn}


def rnn_saved(x, w, u, b=None, h0=None, lengths=None, act="tanh", reverse=False):
    (N, T, _), H = x.shape, len(u)
    _, _, _, states, _ = _rnn(x, w, u, b, h0, lengths, act, reverse)
    return {"states": packed(states, N, T, H, lengths, x.dtype)}


# ---------------------------------------------------------------------------------------------------- gradients
# Through time (Werbos 1990), one sequence at a time: `step_backward(n, t, s, h_before, c_before, dh, dc)` gives the gradients
# of the pre-activations and of the states before, and adds into the weights' gradients itself.


def _through_time(N, T, H, lengths, reverse, y, h0, dy, dhn, dcn, cells, c0, step_backward, dtype):
    dh0, dc0 = np.zeros((N, H), dtype), np.zeros((N, H), dtype)
    zero = np.zeros(H, dtype)
    for n in range(N):
        dh = zero if dhn is None else dhn[n]
        dc = zero if dcn is None else dcn[n]
        steps = list(steps_of(n, T, lengths, reverse))
        for s in range(len(steps) - 1, -1, -1):
            before = y[n, steps[s - 1]] if s else zero if h0 is None else h0[n]
            c_before = None
            if cells is not None:
                c_before = cells[n, s - 1] if s else zero if c0 is None else c0[n]
            if dy is not None:
                dh = dh + dy[n, steps[s]]
            dh, dc = step_backward(n, steps[s], s, before, c_before, dh, dc)
        dh0[n], dc0[n] = dh, dc
    return dh0, dc0


def lstm_backward(x, w, u, h0=None, c0=None, lengths=None, p=None, drop=None, keep_h=None, keep_c=None, dy=None,
                  dhn=None, dcn=None, reverse=False, b=None, **_):  # fmt: skip
    (N, T, _), H, one = x.shape, len(u), x.dtype.type(1)
    y, _, _, gates, cells = _lstm(x, w, u, b, h0, c0, lengths, p, drop, keep_h, keep_c, reverse)
    dx, dw, du = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u)
    db, dp = np.zeros(4 * H, x.dtype), np.zeros((3, H), x.dtype)

    def back(n, t, s, h, c, dh, dc):
        i, f, g, o = np.split(gates[n, s], 4)
        d, kh, kc = (e if m is None else m[n, t] for m, e in ((drop, one), (keep_h, 0 * one), (keep_c, 0 * one)))
        pi, pf, po = np.zeros((3, H), x.dtype) if p is None else p
        m = f * c + i * g * d
        a = (one - kh) * dh
        dzo = a * np.tanh(m) * o * (one - o)
        dm = (one - kc) * dc + a * o * (one - np.tanh(m) ** 2) + dzo * po
        dzi, dzf, dzg = dm * g * d * i * (one - i), dm * c * f * (one - f), dm * i * d * (one - g * g)
        dz = np.concatenate([dzi, dzf, dzg, dzo])
        dx[n, t] = w @ dz
        dw[...] += np.outer(x[n, t], dz)
        du[...] += np.outer(h, dz)
        db[...] += dz
        dp[...] += np.stack([dzi * c, dzf * c, dzo * m])
        return u @ dz + kh * dh, kc * dc + dm * f + dzi * pi + dzf * pf

    dh0, dc0 = _through_time(N, T, H, lengths, reverse, y, h0, dy, dhn, dcn, cells, c0, back, x.dtype)
    return {"dx": dx, "dw": dw, "du": du, "db": db, "dh0": dh0, "dc0": dc0, "dp": dp}


def lstm_norm_backward(x, w, u, gain, b, h0=None, c0=None, lengths=None, dy=None, dhn=None, dcn=None, reverse=False, **_):
    (N, T, _), H, one = x.shape, len(u), x.dtype.type(1)
    y, _, _, saved, cells = _lstm_norm(x, w, u, gain, b, h0, c0, lengths, 1e-5, reverse)
    dx, dw, du, dgain, db = (np.zeros_like(a) for a in (x, w, u, gain, b))

    def before(k, d, norm, r):
        dgain[k] += d * norm
        db[k] += d
        g = d * gain[k]
        return r * (g - g.mean() - norm * (g * norm).mean())

    def back(n, t, s, h, c, dh, dc):
        gates, norms, scales = saved[n, s]
        (i, f, g, o), norms = np.split(gates, 4), np.split(norms, 5)
        q = np.tanh(norms[4] * gain[4] + b[4])
        d = dc + before(4, dh * o * (one - q * q), norms[4], scales[4])
        behind = [d * g * i * (one - i), d * c * f * (one - f), d * i * (one - g * g), dh * q * o * (one - o)]
        dz = np.concatenate([before(k, part, norms[k], scales[k]) for k, part in enumerate(behind)])
        dx[n, t] = w @ dz
        dw[...] += np.outer(x[n, t], dz)
        du[...] += np.outer(h, dz)
        return u @ dz, d * f

    dh0, dc0 = _through_time(N, T, H, lengths, reverse, y, h0, dy, dhn, dcn, cells, c0, back, x.dtype)
    return {"dx": dx, "dw": dw, "du": du, "dgain": dgain, "db": db, "dh0": dh0, "dc0": dc0}


def gru_backward(x, w, u, h0=None, lengths=None, dy=None, dhn=None, reverse=False, b=None, bn=None, **_):
    (N, T, _), H, one = x.shape, len(u), x.dtype.type(1)
    y, _, _, gates, _ = _gru(x, w, u, b, bn, h0, lengths, reverse)
    dx, dw, du = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u)
    db, dbn = np.zeros(3 * H, x.dtype), np.zeros(H, x.dtype)

    def back(t_n, t, s, h, c, dh, dc):
        r, z, n, q = np.split(gates[t_n, s], 4)
        dn = dh * (one - z) * (one - n * n)
        dz, dr = dh * (h - n) * z * (one - z), dn * q * r * (one - r)
        da, ds = np.concatenate([dr, dz, dn]), np.concatenate([dr, dz, dn * r])
        dx[t_n, t] = w @ da
        dw[...] += np.outer(x[t_n, t], da)
        du[...] += np.outer(h, ds)
        db[...] += da
        dbn[...] += dn * r
        return u @ ds + dh * z, dc

    dh0, _ = _through_time(N, T, H, lengths, reverse, y, h0, dy, dhn, None, None, None, back, x.dtype)
    return {"dx": dx, "dw": dw, "du": du, "db": db, "dbn": dbn, "dh0": dh0}


def rnn_backward(x, w, u, h0=None, lengths=None, dy=None, dhn=None, act="tanh", reverse=False, b=None, **_):
    (N, T, _), H = x.shape, len(u)
    y, _, _, _, _ = _rnn(x, w, u, b, h0, lengths, act, reverse)
    dx, dw, du, db = np.zeros_like(x), np.zeros_like(w), np.zeros_like(u), np.zeros(H, x.dtype)

    def back(n, t, s, h, c, dh, dc):
        dz = dh * reference.act_grad(y[n, t], act)
        dx[n, t] = w @ dz
        dw[...] += np.outer(x[n, t], dz)
        du[...] += np.outer(h, dz)
        db[...] += dz
        return u @ dz, dc

    dh0, _ = _through_time(N, T, H, lengths, reverse, y, h0, dy, dhn, None, None, None, back, x.dtype)
    return {"dx": dx, "dw": dw, "du": du, "db": db, "dh0": dh0}


def _as_sequence(x):
    return x[:, None]


def lstm_cell_backward(x, h, c, w, u, dy=None, dc_new=None, b=None, **_):
    out = lstm_backward(_as_sequence(x), w, u, h, c, dy=None, dhn=dy, dcn=dc_new, b=b)
    return {"dx": out["dx"][:, 0], "dh": out["dh0"], "dc": out["dc0"], "dw": out["dw"], "du": out["du"], "db": out["db"]}


def gru_cell_backward(x, h, w, u, dy, b=None, bn=None, **_):
    out = gru_backward(_as_sequence(x), w, u, h, dhn=dy, b=b, bn=bn)
    return {"dx": out["dx"][:, 0], "dh": out["dh0"], "dw": out["dw"], "du": out["du"], "db": out["db"], "dbn": out["dbn"]}


def rnn_cell_backward(x, h, w, u, dy, act="tanh", b=None, **_):
    out = rnn_backward(_as_sequence(x), w, u, h, dhn=dy, act=act, b=b)
    return {"dx": out["dx"][:, 0], "dh": out["dh0"], "dw": out["dw"], "du": out["du"], "db": out["db"]}
