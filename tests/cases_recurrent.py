"""Rows of the recurrent kernels."""

import numpy as np

import reference_recurrent as ref
from case import Case, normal


def sequences(rng, N, T, I, H, parts, bias=True, state=True, lengths=False, reverse=False, **more):
    """Inputs of a forward kernel with `parts` gates."""
    scale = max(H, 1) ** -0.5
    some = {"x": normal(rng, N, T, I), "w": normal(rng, I, parts * H) * max(I, 1) ** -0.5}
    some["u"] = normal(rng, H, parts * H) * scale
    if bias:
        some["b"] = normal(rng, parts * H)
    if state:
        some["h0"] = normal(rng, N, H) * 0.5
    if lengths:
        counts = rng.integers(0, T + 1, N)
        counts[:1] = T  # where a NaN is looked for
        some["lengths"] = counts
    return some | {"reverse": reverse} | more


def make_lstm(rng, N, T, I, H, options=False, **how):
    inputs = sequences(rng, N, T, I, H, 4, **how)
    if "h0" in inputs:
        inputs["c0"] = normal(rng, N, H)
    if options:
        inputs["p"] = normal(rng, 3, H) * 0.5
        inputs["drop"] = (rng.random((N, T, H)) > 0.3) / 0.7
        inputs["keep_h"] = (rng.random((N, T, H)) < 0.3) * 1.0
        inputs["keep_c"] = rng.random((N, T, H)) * 0.5
    return inputs


def make_lstm_norm(rng, N, T, I, H, **how):
    inputs = sequences(rng, N, T, I, H, 4, bias=False, **how)
    inputs |= {"gain": 1 + normal(rng, 5, H) * 0.3, "b": normal(rng, 5, H) * 0.5}
    if "h0" in inputs:
        inputs["c0"] = normal(rng, N, H)
    return inputs


def make_gru(rng, N, T, I, H, **how):
    inputs = sequences(rng, N, T, I, H, 3, **how)
    if "b" in inputs:
        inputs["bn"] = normal(rng, H)
    return inputs


def make_rnn(rng, N, T, I, H, act="tanh", **how):
    return sequences(rng, N, T, I, H, 1, **how) | {"act": act}


def backward(make, saved, final):
    """Inputs of a backward kernel: those of the forward kernel, what it saved, and gradients of y and the last states."""

    def build(rng, dy=True, **sizes):
        inputs = make(rng, **sizes)
        N, T, _ = inputs["x"].shape
        H = len(inputs["u"])
        inputs |= saved(**inputs)
        if dy:
            inputs["dy"] = normal(rng, N, T, H)
        for name in final:
            inputs[name] = normal(rng, N, H)
        return inputs

    return build


def through(forward, names):
    """For the gradient check: <dy, y> + <dhn, hn> + ... as a function of the inputs."""

    def gradient_of(wide):
        def f(**given):
            ends = {k: given.pop(k, None) for k in ("dy", "dhn", "dcn")}
            for k in ("y", "gates", "cells", "states", "normed", "scales"):
                given.pop(k, None)
            out = forward(**given)
            dys = {"y": wide_dy, "hn": ends["dhn"], "cn": ends["dcn"]}
            return np.array(sum(np.sum(out[k] * d) for k, d in dys.items() if d is not None))

        wide_dy = wide.pop("dy", None)
        return f, {f"d{n}": n for n in names if n in wide}

    return gradient_of


SIZES = [
    dict(N=1, T=1, I=1, H=1),
    dict(N=3, T=4, I=5, H=7),
    dict(N=1, T=9, I=6, H=17),
    dict(N=2, T=5, I=3, H=8, bias=False, state=False),
    dict(N=13, T=6, I=10, H=33, lengths=True),
    dict(N=5, T=7, I=4, H=16, lengths=True, reverse=True),
    dict(N=29, T=3, I=19, H=16, reverse=True, state=False),
    dict(N=0, T=3, I=2, H=4),
    dict(N=2, T=0, I=2, H=4),
    dict(N=3, T=2, I=2, H=0),
]
GRADIENT_SIZES = [s for s in SIZES if s["N"] < 20]
NORM_SIZES = [s for s in SIZES if "bias" not in s and s["H"]]  # no mean of no units
# The last two have more units, and more sequences, than go by a block a sequence on a GPU.
LONG = [dict(N=3, T=100, I=2, H=3, lengths=True), dict(N=7, T=2, I=3, H=70),
        dict(N=2, T=3, I=2, H=130, lengths=True), dict(N=260, T=2, I=2, H=3, lengths=True)]
OPTIONS = [
    dict(N=4, T=5, I=3, H=9, options=True),
    dict(N=5, T=4, I=3, H=8, options=True, lengths=True, reverse=True, bias=False),
    dict(N=1, T=4, I=3, H=8, options=True, state=False),
]
CELL_SIZES = [dict(N=1, I=1, H=1), dict(N=1, I=9, H=20), dict(N=7, I=5, H=16), dict(N=0, I=2, H=3)]


def cell(make, names, extra=()):
    """Inputs of a single step's kernel."""

    def build(rng, N, I, H, **how):
        inputs = make(rng, N=N, T=1, I=I, H=H, **how)
        cell_inputs = {"x": inputs["x"][:, 0]} | {k: inputs[f"{k}0"] for k in names} | {
            k: inputs[k] for k in ("w", "u", "b", "bn", "act") if k in inputs
        }
        return cell_inputs | {k: normal(rng, N, H) for k in extra}

    return build


def cell_backward(make, names, forward, extra=("dy",)):
    build_forward = cell(make, names)

    def build(rng, N, I, H, **how):
        inputs = build_forward(rng, N, I, H, **how)
        out = forward(**inputs)
        out = out if isinstance(out, dict) else {"y": out}
        inputs |= {k: v for k, v in out.items() if k != "y" or "act" in inputs}
        return inputs | {k: normal(rng, N, H) for k in extra}

    return build


def cell_through(forward, names):
    def gradient_of(wide):
        dy = wide.pop("dy")

        def f(**given):
            dc = given.pop("dc_new", None)
            for k in ("gates", "c_new", "y"):
                given.pop(k, None)
            out = forward(**given)
            out = out if isinstance(out, dict) else {"y": out}
            total = np.sum(out["y"] * dy)
            return np.array(total if dc is None else total + np.sum(out["c_new"] * dc))

        return f, {f"d{n}": n for n in names}

    return gradient_of


CASES = [
    Case("lstm_forward", make_lstm, SIZES + LONG + OPTIONS, reference=ref.lstm_forward,
         rowwise=("x", "h0", "c0", "lengths", "drop", "keep_h", "keep_c")),
    Case("lstm_backward", backward(make_lstm, ref.lstm_saved, ("dhn", "dcn")),
         [*GRADIENT_SIZES, *LONG, *OPTIONS, dict(N=3, T=4, I=2, H=5, dy=False)], reference=ref.lstm_backward, nan="dhn",
         gradient_of=through(ref.lstm_forward, ("x", "w", "u", "b", "h0", "c0", "p"))),
    Case("lstm_norm_forward", make_lstm_norm, [*NORM_SIZES, LONG[1]], reference=ref.lstm_norm_forward,
         rowwise=("x", "h0", "c0", "lengths")),
    Case("lstm_norm_backward", backward(make_lstm_norm, ref.lstm_norm_saved, ("dhn", "dcn")),
         [*[s for s in NORM_SIZES if s["N"] < 20 and s["H"] != 1], LONG[1], dict(N=3, T=4, I=2, H=5, dy=False)],
         reference=ref.lstm_norm_backward, nan="dhn",
         gradient_of=through(ref.lstm_norm_forward, ("x", "w", "u", "gain", "b", "h0", "c0"))),
    Case("lstm_cell_forward", cell(make_lstm, ("h", "c")), CELL_SIZES, reference=ref.lstm_cell_forward,
         rowwise=("x", "h", "c")),
    Case("lstm_cell_backward", cell_backward(make_lstm, ("h", "c"), ref.lstm_cell_forward, ("dy", "dc_new")), CELL_SIZES,
         reference=ref.lstm_cell_backward, nan="dy",
         gradient_of=cell_through(ref.lstm_cell_forward, ("x", "h", "c", "w", "u", "b"))),
    Case("gru_forward", make_gru, SIZES + LONG, reference=ref.gru_forward, rowwise=("x", "h0", "lengths")),
    Case("gru_backward", backward(make_gru, ref.gru_saved, ("dhn",)),
         [*GRADIENT_SIZES, *LONG, dict(N=3, T=4, I=2, H=5, dy=False)], reference=ref.gru_backward, nan="dhn",
         gradient_of=through(ref.gru_forward, ("x", "w", "u", "b", "bn", "h0"))),
    Case("gru_cell_forward", cell(make_gru, ("h",)), CELL_SIZES, reference=ref.gru_cell_forward, rowwise=("x", "h")),
    Case("gru_cell_backward", cell_backward(make_gru, ("h",), ref.gru_cell_forward), CELL_SIZES,
         reference=ref.gru_cell_backward, nan="dy",
         gradient_of=cell_through(ref.gru_cell_forward, ("x", "h", "w", "u", "b", "bn"))),
    Case("rnn_forward", make_rnn, SIZES + LONG + [dict(N=4, T=3, I=5, H=9, act="relu")], reference=ref.rnn_forward,
         rowwise=("x", "h0", "lengths")),
    Case("rnn_backward", backward(make_rnn, ref.rnn_saved, ("dhn",)),
         [*GRADIENT_SIZES, *LONG, dict(N=4, T=3, I=5, H=9, act="relu")], reference=ref.rnn_backward, nan="dhn",
         gradient_of=through(ref.rnn_forward, ("x", "w", "u", "b", "h0"))),
    Case("rnn_cell_forward", cell(make_rnn, ("h",)), [*CELL_SIZES, dict(N=5, I=3, H=9, act="relu")],
         reference=ref.rnn_cell_forward, rowwise=("x", "h")),
    Case("rnn_cell_backward", cell_backward(make_rnn, ("h",), ref.rnn_cell_forward),
         [*CELL_SIZES, dict(N=5, I=3, H=9, act="relu")], reference=ref.rnn_cell_backward, nan="dy",
         gradient_of=cell_through(ref.rnn_cell_forward, ("x", "h", "w", "u", "b"))),
]  # fmt: skip
