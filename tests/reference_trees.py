"""Trees and CTC in plain NumPy, from Socher et al. (2013) and Graves et al. (2006): one node, one step at a time."""

import numpy as np


def rntn_forward(leaves, children, ends, w, v=None, b=None):
    h = np.zeros((len(leaves) + len(children), leaves.shape[1]), leaves.dtype)
    h[: len(leaves)] = leaves
    for i, (left, right) in enumerate(children):
        x = np.concatenate([h[left], h[right]])
        z = x @ w + (0 if b is None else b)
        if v is not None:
            z = z + np.einsum("i,ijk,j->k", x, v, x)
        h[len(leaves) + i] = np.tanh(z)
    return h


def rntn_backward(h, children, dh, w, v=None, **_):
    n_leaves, d = len(h) - len(children), h.shape[1]
    g, dw, db = dh.copy(), np.zeros_like(w), np.zeros(d, h.dtype)
    dv = np.zeros((2 * d, 2 * d, d), h.dtype)
    for i in range(len(children) - 1, -1, -1):
        left, right = children[i]
        x, at = np.concatenate([h[left], h[right]]), n_leaves + i
        dz = g[at] * (1 - h[at] ** 2)
        db += dz
        dw += np.outer(x, dz)
        dv += np.einsum("i,j,k->ijk", x, x, dz)
        dx = w @ dz
        if v is not None:
            dx = dx + np.einsum("ijk,j,k->i", v, x, dz) + np.einsum("jik,j,k->i", v, x, dz)
        g[left] += dx[:d]
        g[right] += dx[d:]
    gradients = {"dleaves": g[:n_leaves], "dw": dw, "db": db}
    return gradients if v is None else {**gradients, "dv": dv}


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def tree_lstm_forward(leaves, cells, children, ends, w, b=None):
    d = leaves.shape[1]
    h, c = (np.concatenate([a, np.zeros((len(children), d), a.dtype)]) for a in (leaves, cells))
    gates = np.zeros((len(children), 5 * d), h.dtype)
    for k, (left, right) in enumerate(children):
        z = np.concatenate([h[left], h[right]]) @ w + (0 if b is None else b)
        i, l, r, g, o = z.reshape(5, d)
        i, l, r, g, o = _sigmoid(i), _sigmoid(l), _sigmoid(r), np.tanh(g), _sigmoid(o)
        c[len(leaves) + k] = i * g + l * c[left] + r * c[right]
        h[len(leaves) + k] = o * np.tanh(c[len(leaves) + k])
        gates[k] = np.concatenate([i, l, r, g, o])
    return {"h": h, "c": c, "gates": gates}


def tree_lstm_backward(h, c, gates, children, dh, w, dc=None, **_):
    n_leaves, d = len(h) - len(children), h.shape[1]
    gh, gc = dh.copy(), np.zeros_like(c) if dc is None else dc.copy()
    dw, db = np.zeros_like(w), np.zeros(5 * d, h.dtype)
    for k in range(len(children) - 1, -1, -1):
        (left, right), at = children[k], n_leaves + k
        i, l, r, g, o = gates[k].reshape(5, d)
        t = np.tanh(c[at])
        cell = gc[at] + gh[at] * o * (1 - t * t)
        slopes = [i * (1 - i), l * (1 - l), r * (1 - r), 1 - g * g, o * (1 - o)]
        dz = np.concatenate([a * s for a, s in zip([cell * g, cell * c[left], cell * c[right], cell * i, gh[at] * t], slopes)])
        db += dz
        dw += np.outer(np.concatenate([h[left], h[right]]), dz)
        gc[left] += cell * l
        gc[right] += cell * r
        dx = w @ dz
        gh[left] += dx[:d]
        gh[right] += dx[d:]
    return {"dleaves": gh[:n_leaves], "dcells": gc[:n_leaves], "dw": dw, "db": db}


def _log_sum(*terms):
    top = max(terms)
    if top == -np.inf:
        return top
    return top + np.log(sum(np.exp(t - top) for t in terms))


def _states(labels, blank):
    """Labels with a blank before, between and behind them."""
    states = [blank]
    for label in labels:
        states += [int(label), blank]
    return states


def _alphas(logp, states, blank):
    """Log probability of all beginnings of a path that end at step t in state s, [T,W]."""
    never = logp.dtype.type(-np.inf)
    alpha = np.full((len(logp), len(states)), never)
    alpha[0, :2] = logp[0, states[:2]]
    for t in range(1, len(logp)):
        for s, state in enumerate(states):
            skips = s >= 2 and state != blank and state != states[s - 2]
            before = [alpha[t - 1, s], alpha[t - 1, s - 1] if s else never, alpha[t - 1, s - 2] if skips else never]
            alpha[t, s] = _log_sum(*before) + logp[t, state]
    return alpha


def ctc_forward(x, labels, lengths, label_lengths, blank=0):
    loss, logp = np.zeros(len(x), x.dtype), np.zeros_like(x)
    for i, steps in enumerate(lengths):
        z = x[i, :steps] - x[i, :steps].max(-1, keepdims=True, initial=-np.inf)
        logp[i, :steps] = z - np.log(np.exp(z).sum(-1, keepdims=True))
        states = _states(labels[i, : label_lengths[i]], blank)
        if steps == 0:
            loss[i] = 0 if len(states) == 1 else np.inf
            continue
        alpha = _alphas(logp[i, :steps], states, blank)
        loss[i] = -_log_sum(*alpha[-1, -2:])
    return {"loss": loss, "logp": logp}


def ctc_backward(logp, labels, lengths, label_lengths, dloss, blank=0, **_):
    dx = np.zeros_like(logp)
    for i, steps in enumerate(lengths):
        states = _states(labels[i, : label_lengths[i]], blank)
        if steps == 0:
            continue
        lp = logp[i, :steps]
        alpha = _alphas(lp, states, blank)
        # The same from behind, on the sequence read backwards; both count the step itself.
        beta = _alphas(lp[::-1], states[::-1], blank)[::-1, ::-1]
        total = _log_sum(*alpha[-1, -2:])
        if total == -np.inf:
            continue
        share = np.zeros_like(lp)
        for s, state in enumerate(states):
            share[:, state] += np.exp(alpha[:, s] + beta[:, s] - lp[:, state] - total)
        dx[i, :steps] = (np.exp(lp) - share) * dloss[i]
    return dx
