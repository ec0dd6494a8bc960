"""Recurrent operations: one record on the tape for a whole batch of sequences."""

from ..backend import kernels
from ..tensor import DY, Tensor, record, record_kernel, recording
from ._common import absent_or, data_of, parents


class _Ends:
    """What flows back into a sequence operation from its outputs, gathered until its own step runs."""

    __slots__ = ("given",)

    def __init__(self):
        self.given = {}

    def output(self, core, data, name):
        """An output of the operation behind `core` as a tensor of its own."""

        def step(dy):
            self.given[name] = dy
            core.grad = dy  # anything: tells the tape that the operation is wanted

        return record(data, (core,), step)


def _outputs(inputs, arrays, backward):
    """Tensors for the named outputs of one operation; backward(**gradients) gets None for those that nothing flowed into."""
    first = next(iter(arrays.values()))
    if not (recording() and any(p.wants_grad for p in inputs)):
        return tuple(Tensor(a) for a in arrays.values())
    ends = _Ends()
    core = record(first, inputs, lambda _: backward(**{f"d{n}": ends.given.get(n) for n in arrays}))
    return tuple(ends.output(core, a, n) for n, a in arrays.items())


def lstm(x, w, u, b=None, h0=None, c0=None, lengths=None, p=None, drop=None, keep_h=None, keep_c=None, reverse=False):
    """Long short-term memory over whole sequences, gates in the order i f g o.

    Parameters
    ----------
    x : Tensor [N,T,I]
    w, u : Tensor [I,4H], [H,4H]
    b : Tensor [4H], optional
    h0, c0 : Tensor [N,H], optional
        States before the first step; zero if left out.
    lengths : int64 array [N], optional
        Steps of each sequence, 0 to T; all T if left out. Beyond them y is 0 and nothing is computed.
    p : Tensor [3,H], optional
        Peepholes of i, f and o.
    drop, keep_h, keep_c : float32 array [N,T,H], optional
        Factor on the candidate (recurrent dropout), and shares of the old output and cell that are kept (zoneout).
    reverse : bool
        From the last step of each sequence to the first.

    Returns
    -------
    y [N,T,H], hn [N,H], cn [N,H] : Tensors
        All outputs, and the states after each sequence's last step.
    """
    k, xd, wd, ud = kernels(x.data), x.data, w.data, u.data
    start = data_of(h0), data_of(c0), lengths, data_of(p), drop, keep_h, keep_c
    y, hn, cn, gates, cells = k.lstm_forward(xd, wd, ud, data_of(b), *start, reverse)

    def backward(dy, dhn, dcn):
        k.lstm_backward(
            xd, wd, ud, *start, y, gates, cells, dy, dhn, dcn, reverse, None, *x.slot(), *w.slot(), *u.slot(),
            *absent_or(b).slot(), *absent_or(p).slot(), *absent_or(h0).slot(), *absent_or(c0).slot()
        )  # fmt: skip

    return _outputs(parents(x, w, u, b, p, h0, c0), {"y": y, "hn": hn, "cn": cn}, backward)


def lstm_norm(x, w, u, gain, b, h0=None, c0=None, lengths=None, eps=1e-5, reverse=False):
    """Long short-term memory with layer normalisation, gates in the order i f g o.

        z_k = norm(x_t w_k + h_{t-1} u_k) gain_k + b_k;   h_t = sigmoid(z_o) tanh(norm(c_t) gain_c + b_c)

    Parameters
    ----------
    x, w, u, h0, c0, lengths, reverse
        As in `lstm`.
    gain, b : Tensor [5,H]
        Of the gates i f g o and of the cell.
    eps : float
        norm(v) = (v - mean) / sqrt(var + eps), over the units.

    Returns
    -------
    y [N,T,H], hn [N,H], cn [N,H] : Tensors

    References
    ----------
    Ba, Kiros & Hinton, "Layer normalization" (2016).
    """
    k, xd, wd, ud = kernels(x.data), x.data, w.data, u.data
    start = gain.data, b.data, data_of(h0), data_of(c0), lengths
    y, hn, cn, *saved = k.lstm_norm_forward(xd, wd, ud, *start, eps, reverse)

    def backward(dy, dhn, dcn):
        k.lstm_norm_backward(
            xd, wd, ud, *start, y, *saved, dy, dhn, dcn, reverse, None, *x.slot(), *w.slot(), *u.slot(), *gain.slot(),
            *b.slot(), *absent_or(h0).slot(), *absent_or(c0).slot()
        )  # fmt: skip

    return _outputs(parents(x, w, u, gain, b, h0, c0), {"y": y, "hn": hn, "cn": cn}, backward)


def gru(x, w, u, b=None, bn=None, h0=None, lengths=None, reverse=False):
    """Gated recurrent units over whole sequences, gates in the order r z n, reset after the product.

    Parameters
    ----------
    x : Tensor [N,T,I]
    w, u : Tensor [I,3H], [H,3H]
    b : Tensor [3H], optional
    bn : Tensor [H], optional
        Bias of the candidate's recurrent share.
    h0, lengths, reverse
        As in `lstm`.

    Returns
    -------
    y [N,T,H], hn [N,H] : Tensors
    """
    k, xd, wd, ud, start = kernels(x.data), x.data, w.data, u.data, data_of(h0)
    y, hn, gates = k.gru_forward(xd, wd, ud, data_of(b), data_of(bn), start, lengths, reverse)

    def backward(dy, dhn):
        k.gru_backward(
            xd, wd, ud, start, lengths, y, gates, dy, dhn, reverse, None, *x.slot(), *w.slot(), *u.slot(), *absent_or(b).slot(),
            *absent_or(bn).slot(), *absent_or(h0).slot()
        )  # fmt: skip

    return _outputs(parents(x, w, u, b, bn, h0), {"y": y, "hn": hn}, backward)


def rnn(x, w, u, b=None, h0=None, lengths=None, act="tanh", reverse=False):
    """Elman's recurrent network over whole sequences: y_t = act(x_t w + y_{t-1} u + b).

    Parameters
    ----------
    x : Tensor [N,T,I]
    w, u : Tensor [I,H], [H,H]
    b : Tensor [H], optional
    h0, lengths, reverse
        As in `lstm`.
    act : {'tanh', 'relu'}

    Returns
    -------
    y [N,T,H], hn [N,H] : Tensors
    """
    k, xd, wd, ud, start = kernels(x.data), x.data, w.data, u.data, data_of(h0)
    y, hn, states = k.rnn_forward(xd, wd, ud, data_of(b), start, lengths, act, reverse)

    def backward(dy, dhn):
        k.rnn_backward(
            xd, wd, ud, start, lengths, states, dy, dhn, act, reverse, None, *x.slot(), *w.slot(), *u.slot(),
            *absent_or(b).slot(), *absent_or(h0).slot()
        )  # fmt: skip

    return _outputs(parents(x, w, u, b, h0), {"y": y, "hn": hn}, backward)


def lstm_cell(x, h, c, w, u, b=None):
    """One step of an LSTM: x [N,I], h and c [N,H] give the new output and cell, Tensors [N,H]; arguments as in `lstm`."""
    k, xd, hd, cd, wd, ud = kernels(x.data), x.data, h.data, c.data, w.data, u.data
    y, c_new, gates = k.lstm_cell_forward(xd, hd, cd, wd, ud, data_of(b))

    def backward(dy, dc_new):
        k.lstm_cell_backward(
            xd, hd, cd, wd, ud, gates, c_new, dy, dc_new, None, *x.slot(), *h.slot(), *c.slot(), *w.slot(), *u.slot(),
            *absent_or(b).slot()
        )  # fmt: skip

    return _outputs(parents(x, h, c, w, u, b), {"y": y, "c_new": c_new}, backward)


def gru_cell(x, h, w, u, b=None, bn=None):
    """One step of a GRU: x [N,I], h [N,H] give the new output, a Tensor [N,H]; arguments as in `gru`."""
    k, xd, hd, wd, ud = kernels(x.data), x.data, h.data, w.data, u.data
    y, gates = k.gru_cell_forward(xd, hd, wd, ud, data_of(b), data_of(bn))
    inputs = x, h, w, u, absent_or(b), absent_or(bn)
    return record_kernel(y, k.gru_cell_backward, xd, hd, wd, ud, gates, DY, None, *inputs)


def rnn_cell(x, h, w, u, b=None, act="tanh"):
    """One step of Elman's network: x [N,I], h [N,H] give the new output, a Tensor [N,H]; arguments as in `rnn`."""
    k, xd, hd, wd, ud = kernels(x.data), x.data, h.data, w.data, u.data
    y = k.rnn_cell_forward(xd, hd, wd, ud, data_of(b), act)
    return record_kernel(y, k.rnn_cell_backward, xd, hd, wd, ud, y, DY, act, None, x, h, w, u, absent_or(b))
