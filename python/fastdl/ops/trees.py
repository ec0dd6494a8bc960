"""Operations on trees and on sequences without alignment."""

from ..backend import kernels, zeros
from ..tensor import DY, record, record_kernel
from ._common import absent_or, data_of


def rntn(leaves, children, ends, v, w, b=None):
    """A batch of binary trees by a recursive neural tensor network: one operation, nodes of one height together.

        h[leaf] = leaves;  h[node] = tanh(x^T v x + x w + b),  x = (h[left], h[right])

    Parameters
    ----------
    leaves : Tensor [L,D]
    children : int64 array [n,2]
        Rows of h of each inner node's children, a row the child of one node at most; inner nodes are sorted by height.
        `fastdl.data.Forest` makes them.
    ends : int64 array [H]
        Before which inner node each height ends.
    v : Tensor [2D,2D,D] or None
        None: a plain recursive network.
    w : Tensor [2D,D]
    b : Tensor [D], optional

    Returns
    -------
    Tensor [L+n,D]
        Leaves, then inner nodes.

    References
    ----------
    Socher, Perelygin, Wu, Chuang, Manning, Ng & Potts (2013).
    """
    k, vd, wd = kernels(leaves.data), data_of(v), w.data
    h = k.rntn_forward(leaves.data, children, ends, vd, wd, data_of(b))
    inputs = leaves, absent_or(v), w, absent_or(b)
    return record_kernel(h, k.rntn_backward, h, children, ends, vd, wd, DY, None, *inputs)


def tree_lstm(leaves, cells, children, ends, w, b=None):
    """A batch of binary trees by a tree LSTM: one operation, nodes of one height together.

        h[leaf], c[leaf] = leaves, cells;   i l r g o = (h[left], h[right]) w + b
        c[node] = sigmoid(i) tanh(g) + sigmoid(l) c[left] + sigmoid(r) c[right];   h[node] = sigmoid(o) tanh(c[node])

    Parameters
    ----------
    leaves, cells : Tensor [L,D]
        Outputs and cells of the leaves.
    children : int64 array [n,2]
    ends : int64 array [H]
        As in `rntn`.
    w : Tensor [2D,5D]
    b : Tensor [5D], optional

    Returns
    -------
    Tensor [L+n,D]
        h: leaves, then inner nodes.

    References
    ----------
    Tai, Socher & Manning, "Improved semantic representations from tree-structured long short-term memory networks" (2015).
    """
    k, wd = kernels(leaves.data), w.data
    h, c, gates = k.tree_lstm_forward(leaves.data, cells.data, children, ends, wd, data_of(b))
    inputs = leaves, cells, w, absent_or(b)
    return record_kernel(h, k.tree_lstm_backward, h, c, gates, children, ends, wd, DY, None, None, *inputs)


def ctc_loss(x, labels, lengths, label_lengths, blank=0, reduction="mean"):
    """Loss of label sequences whose places in time are not known, in nats.

    Parameters
    ----------
    x : Tensor [N,T,C]
        Logits.
    labels : int64 array [N,S]
        Without blanks; what stands behind a sample's length is not read but must be a class.
    lengths, label_lengths : int64 array [N]
        Steps and labels of each sample.
    blank : int
        The class of "no label".
    reduction : {'mean', 'sum', 'none'}
        Over the samples.

    Returns
    -------
    Tensor [1], or [N] for 'none'
        Infinite for a sample that has too few steps for its labels (one each, and one between equal neighbours); no gradient
        flows into it.

    References
    ----------
    Graves, Fernandez, Gomez & Schmidhuber, "Connectionist temporal classification" (2006).
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction: expected 'mean', 'sum' or 'none'; got {reduction!r}")
    k = kernels(x.data)
    rows, logp = k.ctc_forward(x.data, labels, lengths, label_lengths, blank)
    n = rows.shape[0]
    loss = rows if reduction == "none" else k.reduce_forward(rows.reshape(1, n, 1), reduction).reshape(1)

    def step(dy):
        d = dy
        if reduction != "none":
            spread = zeros((1, n, 1), rows)
            k.reduce_backward(rows.reshape(1, n, 1), loss.reshape(1, 1), dy.reshape(1, 1), reduction, spread)
            d = spread.reshape(n)
        k.ctc_backward(logp, labels, lengths, label_lengths, d, blank, None, *x.slot())

    return record(loss, (x,), step)
