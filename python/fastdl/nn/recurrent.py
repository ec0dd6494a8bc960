"""Recurrent layers: RNN, LSTM and GRU over batches of sequences, stacked, bidirectional, with lengths and carried state."""

from functools import partial

import numpy as np

from .. import backend, ops
from .. import init as _init
from .._arguments import chance, pair, positive
from ..module import Module, Parameter
from ..random import uniform
from ..tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN"]


def _parts(shape, stream, fans=None, each=None):
    """A weight of several gates side by side: each is drawn as a matrix of its own."""
    rows, columns = shape
    units = each.units
    return np.concatenate([each.init((rows, units), stream) for _ in range(columns // units)], axis=1)


class _Gates:
    """How one gate's matrix is drawn; a class, so that a layer can be pickled."""

    def __init__(self, init, units):
        self.init, self.units = init, units


def _forget_bias(shape, stream, fans=None, units=1):
    b = np.zeros(shape, np.float32)
    b[units : 2 * units] = 1.0
    return b


def _chrono_bias(shape, stream, fans=None, units=1, longest=2):
    b = np.zeros(shape, np.float32)
    steps = np.log(uniform(units, 1.0, longest - 1.0, *stream.take(units)))
    b[:units], b[units : 2 * units] = -steps, steps
    return b


def _forget_row(shape, stream, fans=None):
    b = np.zeros(shape, np.float32)
    b[1] = 1.0
    return b


class _Recurrent(Module):
    """What the recurrent layers share."""

    gates = 1
    states = ("h",)
    recurrent = True  # its weights are passed once a step: see diagnostics.cap_depth

    def __init__(self, units, layers=1, bidirectional=False, dropout=0.0, output="all", bias=True, inputs=None,
                 init="glorot_uniform", recurrent_init="orthogonal"):  # fmt: skip
        if output not in ("all", "last"):
            raise ValueError(f"output: expected 'all' or 'last'; got {output!r}")
        self.units, self.layers = positive("units", units), positive("layers", layers)
        self.bidirectional, self.output, self.bias = bool(bidirectional), output, bool(bias)
        self.dropout, self.stream = float(chance("dropout", dropout)), None
        self._init = _init.get(init), _init.get(recurrent_init)
        self.w, self.u, self.b = [], [], []
        if inputs is not None:
            self._size(positive("inputs", inputs))

    @property
    def directions(self):
        """1, or 2 where bidirectional."""
        return 2 if self.bidirectional else 1

    def _size(self, inputs):
        w, u = (partial(_parts, each=_Gates(f, self.units)) for f in self._init)
        for layer in range(self.layers):
            for _ in range(self.directions):
                rows = inputs if layer == 0 else self.units * self.directions
                self.w.append(Parameter((rows, self.gates * self.units), w))
                self.u.append(Parameter((self.units, self.gates * self.units), u))
                self._more()

    def _more(self):
        """Parameters of one layer and direction besides w and u."""
        if self.bias:
            self.b.append(Parameter((self.gates * self.units,), self._first_bias(), decay=False))

    def _first_bias(self):
        return _init.zeros

    def _op(self, k, x, state, lengths, reverse):
        """(y, state after the last step) of layer-and-direction k."""
        raise NotImplementedError

    def _bias(self, k):
        return self.b[k] if self.b else None

    def forward(self, x, lengths=None, state=None):
        y, last = self.sequence(x, lengths, state)
        if self.output == "all":
            return y
        ends = last[-self.directions :]
        return ends[0][0] if len(ends) == 1 else ops.concatenate([e[0] for e in ends])

    def sequence(self, x, lengths=None, state=None):
        """All outputs and the states after each sequence's last step.

        Parameters
        ----------
        x : Tensor [N,T,I]
        lengths : int64 array [N], optional
            Steps of each sequence, 0 to T; all T if left out.
        state : list, optional
            States before the first step, as this method returns them; zero if left out.

        Returns
        -------
        y : Tensor [N,T,units * directions]
        state : list of tuples of Tensors [N,units]
            One a layer and direction, in the order layer 0 forward, layer 0 backward, layer 1 forward, ...; (h,), for an
            LSTM (h, c). `detached` cuts them off for truncated backpropagation.
        """
        x = x if isinstance(x, Tensor) else Tensor(x)
        if len(x.shape) != 3:
            raise ValueError(f"x: expected an array [N,T,I]; got shape {list(x.shape)}")
        if not self.w:
            self._size(x.shape[-1])
        if state is not None:
            self._check_state(state)
        last, d = [], self.directions
        for layer in range(self.layers):
            if layer and self.training and self.dropout:
                x = ops.dropout(x, self.dropout, self._random())
            outputs = []
            for k in range(layer * d, layer * d + d):
                y, end = self._op(k, x, None if state is None else state[k], lengths, k % d == 1)
                outputs.append(y)
                last.append(end)
            x = outputs[0] if d == 1 else ops.concatenate(outputs)
        return x, last

    def _check_state(self, state):
        if not isinstance(state, (tuple, list)):
            raise TypeError(f"state: expected a list, one state a layer and direction; got {type(state).__name__}")
        if len(state) != len(self.w):
            raise ValueError(f"state: expected {len(self.w)} states, one a layer and direction; got {len(state)}")
        for i, one in enumerate(state):
            parts = one if isinstance(one, (tuple, list)) else ()
            if len(parts) != len(self.states) or not all(isinstance(t, Tensor) for t in parts):
                got = f"({', '.join(type(t).__name__ for t in parts)})" if parts else type(one).__name__
                raise TypeError(f"state[{i}]: expected Tensors ({', '.join(self.states)}); got {got}")

    def _random(self):
        if self.stream is None:
            raise RuntimeError(
                f"{type(self).__name__}: expected a network that was initialised (Module.initialise gives the random stream)"
            )
        return self.stream

    @staticmethod
    def detached(state):
        """The same states, cut off from what made them: where truncated backpropagation stops."""
        return None if state is None else [tuple(t.detach() for t in one) for one in state]

    def describe(self):
        words = [str(self.units)]
        if self.layers > 1:
            words.append(f"{self.layers} layers")
        if self.bidirectional:
            words.append("bidirectional")
        return ", ".join([*words, self.output])


class RNN(_Recurrent):
    """Elman's network: h_t = act(x_t w + h_{t-1} u + b), x [N,T,I].

    A call may be told the lengths of the sequences and their first states.

    Parameters
    ----------
    units : int
        H.
    act : {'tanh', 'relu'}
    layers : int
        Stacked: each reads the outputs of the one below.
    bidirectional : bool
        A second set of weights runs from the end to the beginning; outputs are [forward, backward].
    dropout : float
        Between layers.
    output : {'all', 'last'}
        Whether calling the layer gives all outputs [N,T,H] or the last of each sequence [N,H]; `sequence` gives both.
    bias : bool
    inputs : int, optional
        I; from the first input if left out.
    init, recurrent_init : str or function
        Of each gate's part of w [I,H] and u [H,H]; b starts at 0.

    Source: Elman, "Finding structure in time" (1990).
    """

    def __init__(self, units, act="tanh", layers=1, bidirectional=False, dropout=0.0, output="all", bias=True,
                 inputs=None, init="glorot_uniform", recurrent_init="orthogonal"):  # fmt: skip
        if act not in ("tanh", "relu"):
            raise ValueError(f"act: expected 'tanh' or 'relu'; got {act!r}")
        self.act = act
        super().__init__(units, layers, bidirectional, dropout, output, bias, inputs, init, recurrent_init)

    def _op(self, k, x, state, lengths, reverse):
        h0 = None if state is None else state[0]
        y, h = ops.rnn(x, self.w[k], self.u[k], self._bias(k), h0, lengths, self.act, reverse)
        return y, (h,)


class GRU(_Recurrent):
    """Gated recurrent units, reset gate after the product (as in PyTorch, cuDNN and Keras); gates in the order r z n.

    Parameters as in `RNN`, but for act. w is [I,3H], u [H,3H], b [3H] and bn [H], the bias of the candidate's recurrent
    share. Source: Cho et al., "Learning phrase representations using RNN encoder-decoder" (2014).
    """

    gates = 3

    def __init__(self, units, layers=1, bidirectional=False, dropout=0.0, output="all", bias=True, inputs=None,
                 init="glorot_uniform", recurrent_init="orthogonal"):  # fmt: skip
        self.bn = []
        super().__init__(units, layers, bidirectional, dropout, output, bias, inputs, init, recurrent_init)

    def _more(self):
        super()._more()
        if self.bias:
            self.bn.append(Parameter((self.units,), _init.zeros, decay=False))

    def _op(self, k, x, state, lengths, reverse):
        h0 = None if state is None else state[0]
        bn = self.bn[k] if self.bias else None
        y, h = ops.gru(x, self.w[k], self.u[k], self._bias(k), bn, h0, lengths, reverse)
        return y, (h,)


class LSTM(_Recurrent):
    """Long short-term memory, gates in the order i f g o.

    Parameters as in `RNN`, but for act, and:

    Parameters
    ----------
    peephole : bool
        The gates i, f and o also see the cell, through weights p [3,H].
    recurrent_dropout : float
        While training, candidates are dropped with this probability: the memory itself is never lost.
    zoneout : float or (float, float)
        Probability that a unit keeps its old output and its old cell; in evaluation their expectation.
    layer_norm : bool
        Each gate's sums over inputs and outputs, and the cell on its way out, are normalised over the units, with gains and
        biases [5,H] (i f g o, cell); not together with the three above.
    chrono : int, optional
        Steps over which something may have to be remembered. The biases then begin at log t for the forget gate and -log t for
        the input gate, t drawn between 1 and chrono - 1 for each unit: what it holds lasts some t steps. For sequences of
        hundreds of steps; with biases, and without layer_norm.

    w is [I,4H], u [H,4H], b [4H] (the forget gate's part starts at 1, or as chrono says). Source: Hochreiter & Schmidhuber,
    "Long short-term memory" (1997); Gers & Schmidhuber (2000); Semeniuta, Severyn & Barth (2016); Krueger et al. (2017); Ba,
    Kiros & Hinton (2016); chrono: Tallec & Ollivier, "Can recurrent neural networks warp time?" (2018), eq. 16.
    """

    gates = 4
    states = ("h", "c")

    def __init__(self, units, layers=1, bidirectional=False, dropout=0.0, output="all", bias=True, inputs=None,
                 init="glorot_uniform", recurrent_init="orthogonal", peephole=False, recurrent_dropout=0.0,
                 zoneout=0.0, layer_norm=False, chrono=None):  # fmt: skip
        self.p, self.peephole = [], bool(peephole)
        self.gain, self.layer_norm = [], bool(layer_norm)
        self.recurrent_dropout = float(chance("recurrent_dropout", recurrent_dropout))
        self.zoneout = tuple(chance("zoneout", z) for z in pair("zoneout", zoneout, kind=float))
        if layer_norm and (peephole or recurrent_dropout or any(self.zoneout) or not bias):
            raise ValueError("layer_norm: expected no peephole, recurrent_dropout or zoneout, and a bias, beside it; got one")
        self.chrono = None if chrono is None else positive("chrono", chrono)
        if chrono is not None and (chrono < 2 or layer_norm or not bias):
            raise ValueError(
                "chrono: expected at least 2 steps, with bias and without layer_norm; "
                f"got {chrono}, bias={bool(bias)}, layer_norm={bool(layer_norm)}"
            )
        super().__init__(units, layers, bidirectional, dropout, output, bias, inputs, init, recurrent_init)

    def _first_bias(self):
        if self.chrono is not None:
            return partial(_chrono_bias, units=self.units, longest=self.chrono)
        return partial(_forget_bias, units=self.units)

    def _more(self):
        if self.layer_norm:
            self.gain.append(Parameter((5, self.units), _init.constant(1.0), decay=False))
            self.b.append(Parameter((5, self.units), _forget_row, decay=False))
            return
        super()._more()
        if self.peephole:
            self.p.append(Parameter((3, self.units), _init.zeros, decay=False))

    def _masks(self, x):
        """Recurrent dropout and zoneout for every unit and step, None where there is none."""
        shape, k = (*x.shape[:2], self.units), backend.kernels(x.data)
        drop, keep = None, [None, None]
        if self.training and self.recurrent_dropout:
            n = shape[0] * shape[1] * shape[2]
            drop = k.dropout_forward(backend.full(shape, x.data, 1.0), self.recurrent_dropout, *self._random().take(n))
        for i, z in enumerate(self.zoneout):
            if z:
                keep[i] = backend.full(shape, x.data, z)
                if self.training:
                    keep[i] = k.bernoulli(keep[i], *self._random().take(shape[0] * shape[1] * shape[2]))
        return drop, *keep

    def _op(self, k, x, state, lengths, reverse):
        h0, c0 = (None, None) if state is None else state
        if self.layer_norm:
            y, h, c = ops.lstm_norm(x, self.w[k], self.u[k], self.gain[k], self.b[k], h0, c0, lengths, reverse=reverse)
            return y, (h, c)
        p = self.p[k] if self.peephole else None
        y, h, c = ops.lstm(x, self.w[k], self.u[k], self._bias(k), h0, c0, lengths, p, *self._masks(x), reverse)
        return y, (h, c)
