"""Sequences from any model that gives the next token's logits: greedy, sampled, by beam search; and paths of CTC.

A model is a function ``step(tokens, state) -> (logits, state)``: tokens int64 [B], the last ones written; logits float32
[B,V], of the next; state whatever it wants back next time, arrays [B,...] in tuples, lists and dicts (None is none).

Examples
--------
>>> import numpy as np
>>> from fastdl import decode
>>> chain = np.log(np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8], [0.3, 0.3, 0.4]], np.float32))
>>> decode.greedy(lambda tokens, state: (chain[tokens], state), [0], end=2, max_length=5)
[[1, 2]]
"""

import math
from dataclasses import dataclass

import numpy as np

from . import backend, random
from ._arguments import array, function, integer, not_negative, number, positive
from .tensor import Tensor

__all__ = ["Hypothesis", "beam_search", "consensus", "ctc_greedy", "greedy", "sample"]


def _host(name, a):
    """A NumPy array of numbers from an array or a Tensor anywhere."""
    try:
        a = backend.to_host(backend.array(a, None) if a is None else a.data if isinstance(a, Tensor) else a)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers; got {a.dtype}")
    return a


def _check(start, max_length):
    start = array("start", start)
    if start.ndim != 1:
        raise ValueError(f"start: expected a token for each sequence, [B]; got shape {list(start.shape)}")
    if start.size and start.dtype.kind not in "iu":
        raise TypeError(f"start: expected whole numbers; got {start.dtype}")
    positive("max_length", max_length)
    return start.astype(np.int64)


def _end(step, end):
    function("step", step)
    return None if end is None else integer("end", end)


def _logits(step, tokens, state, live=slice(None)):
    """Logits in float64, and the state; those of the rows that are `live` must allow a choice."""
    result = step(tokens, state)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise TypeError(f"step: expected a function that returns (logits, state); got {type(result).__name__}")
    logits, state = _host("step", result[0]), result[1]
    if logits.ndim != 2 or len(logits) != len(tokens):
        raise ValueError(f"step: expected logits of shape [{len(tokens)},V]; got {list(logits.shape)}")
    if not logits.shape[1]:
        raise ValueError("step: expected logits of one token or more; got none")
    best = logits[live].max(-1)
    if not np.isfinite(best).all():
        raise ValueError(f"step: expected logits of which the highest is finite; got {best[~np.isfinite(best)][0]}")
    return logits.astype(np.float64), state


def _log_softmax(x):
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def _run(choose, step, start, end, max_length, state):
    tokens, end = _check(start, max_length), _end(step, end)
    written, live = [[] for _ in tokens], np.ones(len(tokens), bool)
    for t in range(max_length):
        if not live.any():
            break
        logits, state = _logits(step, tokens, state, live)
        tokens = choose(logits, t)
        for i in np.flatnonzero(live):
            written[i].append(int(tokens[i]))
        live &= tokens != end
    return written


def greedy(step, start, end=None, max_length=100, state=None):
    """The most probable token, again and again.

    Parameters
    ----------
    step : callable
        See the module's docstring.
    start : sequence of int [B]
        First token of each sequence; not part of the result.
    end : int, optional
        The token that ends a sequence; it is part of the result.
    max_length : int
        Tokens at most.
    state : optional
        What step gets first.

    Returns
    -------
    list of B lists of int
    """
    return _run(lambda logits, t: logits.argmax(-1), step, start, end, max_length, state)


def sample(step, start, end=None, max_length=100, state=None, temperature=1.0, top_k=None, seed=0, offset=0):
    """Tokens drawn from softmax(logits / temperature).

    Parameters
    ----------
    step, start, end, max_length, state : as in `greedy`
    temperature : float
        Above 0; towards 0 the most probable token wins.
    top_k : int, optional
        Only the k most probable tokens are drawn (of equals those with lower numbers).
    seed, offset : int
        Token t of sequence i uses element offset + i max_length + t of the stream: a sequence does not depend on its batch.

    Returns
    -------
    list of B lists of int

    References
    ----------
    top_k: Fan, Lewis & Dauphin, "Hierarchical neural story generation" (2018).
    """
    number("temperature", temperature, more_than=0.0)
    if top_k is not None:
        positive("top_k", top_k)
    draws = random.uniform((len(_check(start, max_length)), max_length), seed=seed, offset=offset)

    def choose(logits, t):
        logits = cooled(logits, temperature)
        if top_k is not None and top_k < logits.shape[1]:
            out = np.argsort(-logits, axis=-1, kind="stable")[:, top_k:]
            np.put_along_axis(logits, out, -np.inf, -1)
        p = np.exp(_log_softmax(logits))
        below = np.cumsum(p, -1)
        # The first token whose cumulated share is above the draw; rounding must not lead past the last possible one.
        last = logits.shape[1] - 1 - np.argmax(p[:, ::-1] > 0, -1)
        return np.minimum((below <= draws[:, t : t + 1] * below[:, -1:]).sum(-1), last)

    return _run(choose, step, start, end, max_length, state)


def cooled(logits, temperature):
    """logits / temperature but for a constant, so that no temperature is too low for the numbers."""
    with np.errstate(over="ignore", invalid="ignore"):  # of rows whose sequence has ended
        return (logits - logits.max(-1, keepdims=True)) / temperature


@dataclass
class Hypothesis:
    """A sequence that beam search found.

    Attributes
    ----------
    tokens : list of int
        The end token included, if it was reached.
    log_prob : float
        Sum of the tokens' log probabilities, in nats.
    score : float
        log_prob over the length penalty: what is maximised.
    """

    tokens: list
    log_prob: float
    score: float


def take_state(state, index):
    """Rows of every array of a state."""
    if state is None:
        return None
    if isinstance(state, dict):
        return {k: take_state(v, index) for k, v in state.items()}
    if isinstance(state, (tuple, list)):
        parts = [take_state(v, index) for v in state]
        return type(state)(*parts) if hasattr(state, "_fields") else type(state)(parts)  # a named tuple takes them apart
    if isinstance(state, Tensor):
        return Tensor(take_state(state.data, index))
    if not hasattr(state, "shape"):
        raise TypeError(f"state: expected arrays [B,...] in tuples, lists and dicts; got {type(state).__name__}")
    if not state.shape or state.shape[0] <= index.max(initial=0):
        raise ValueError(f"state: expected a row for each sequence, [B,...]; got shape {list(state.shape)}")
    return backend.take(state, backend.to_device(index, state))


def beam_search(step, start, end, max_length=100, state=None, width=5, length_penalty=0.0):
    """The most probable whole sequences that a beam of `width` beginnings at a time comes upon.

    Parameters
    ----------
    step, start, end, max_length, state : as in `greedy`
    width : int
        Beginnings kept. At least V^max_length: the search is complete.
    length_penalty : float
        a >= 0: sequences are compared by log_prob / ((5 + length) / 6)^a; 0 favours short ones.

    Returns
    -------
    list of B lists of Hypothesis
        Best first, up to `width`. Those that max_length cut off count as whole.

    References
    ----------
    The length penalty: Wu et al., "Google's neural machine translation system" (2016), eq. 14.
    """
    start, end = _check(start, max_length), _end(step, end)
    positive("width", width), not_negative("length_penalty", length_penalty)

    def normalised(log_prob, length):
        return log_prob / ((5.0 + length) / 6.0) ** length_penalty

    found = [[] for _ in start]
    beams = [(i, [], 0.0) for i in range(len(start))]  # sequence, tokens, log_prob: rows of the batch
    tokens = start
    for length in range(1, max_length + 1):
        if not beams:
            break
        logits, state = _logits(step, tokens, state)
        logs = _log_softmax(logits) + np.array([b[2] for b in beams])[:, None]
        rows, kept = [], []
        for i in range(len(start)):
            own = [r for r, b in enumerate(beams) if b[0] == i]
            if not own:
                continue
            flat = logs[own].reshape(-1)
            vocabulary = logs.shape[1]
            alive = 0
            # Ends take no place in the beam, so twice its width is looked at, as far as there are candidates.
            for at in np.argsort(-flat, kind="stable")[: width * 2]:
                row, token, log_prob = own[at // vocabulary], int(at % vocabulary), float(flat[at])
                if alive == width or log_prob == -np.inf:
                    break
                text = [*beams[row][1], token]
                if token == end or length == max_length:
                    found[i].append(Hypothesis(text, log_prob, normalised(log_prob, length)))
                else:
                    rows.append(row)
                    kept.append((i, text, log_prob))
                    alive += 1
            found[i] = sorted(found[i], key=lambda h: -h.score)[:width]
        # A beginning can only lose probability; at best it keeps it up to the longest length.
        useful = [
            k
            for k, (i, _, log_prob) in enumerate(kept)
            if len(found[i]) < width or normalised(log_prob, max_length) > found[i][-1].score
        ]
        beams = [kept[k] for k in useful]
        index = np.array([rows[k] for k in useful], np.int64)
        tokens = np.array([b[1][-1] for b in beams], np.int64)
        if beams:
            state = take_state(state, index)
    return found


def consensus(hypotheses, similarity):
    """The hypothesis that is most like all the others, each counted by its probability: least expected risk.

    Parameters
    ----------
    hypotheses : list of Hypothesis
        As `beam_search` gives them for one sequence.
    similarity : callable
        ``similarity(tokens, tokens) -> float``.

    Returns
    -------
    Hypothesis

    References
    ----------
    Kumar & Byrne, "Minimum Bayes-risk decoding for statistical machine translation" (2004).
    """
    if not hasattr(hypotheses, "__iter__"):
        raise TypeError(f"hypotheses: expected some, one after another; got {type(hypotheses).__name__}")
    hypotheses = list(hypotheses)
    function("similarity", similarity)
    for i, h in enumerate(hypotheses):
        if not isinstance(h, Hypothesis):
            raise TypeError(f"hypotheses[{i}]: expected a Hypothesis; got {type(h).__name__}")
        if not math.isfinite(h.score):
            raise ValueError(f"hypotheses[{i}]: expected a finite score; got {h.score}")
    if not hypotheses:
        raise ValueError("hypotheses: expected one or more; got none")
    p = np.exp(_log_softmax(np.array([h.score for h in hypotheses])))
    gain = [sum(w * similarity(h.tokens, o.tokens) for w, o in zip(p, hypotheses, strict=True)) for h in hypotheses]
    return hypotheses[int(np.argmax(gain))]


def ctc_greedy(logits, lengths=None, blank=0):
    """Labels of the most probable class at each step: repeats joined, blanks dropped.

    Parameters
    ----------
    logits : array [N,T,C]
    lengths : int array [N], optional
        Steps of each sample, 0 to T.
    blank : int

    Returns
    -------
    list of N lists of int
    """
    logits = _host("logits", logits)
    if logits.ndim != 3 or not logits.shape[2]:
        raise ValueError(f"logits: expected shape [N,T,C]; got {list(logits.shape)}")
    n, most, classes = logits.shape
    lengths = np.full(n, most) if lengths is None else lengths
    lengths = _host("lengths", backend.array(lengths if hasattr(lengths, "shape") else array("lengths", lengths), None))
    if lengths.shape != (n,) or (n and lengths.dtype.kind not in "iu") or np.any((lengths < 0) | (lengths > most)):
        raise ValueError(f"lengths: expected {n} whole numbers from 0 to {most}; got {lengths.tolist()}")
    if not 0 <= integer("blank", blank) < classes:
        raise ValueError(f"blank: expected a class from 0 to {classes - 1}; got {blank}")
    unknown = np.isnan(logits).any(-1) & (np.arange(most) < lengths[:, None])
    if unknown.any():
        raise ValueError(f"logits: expected numbers within the lengths; got NaN in sample {int(unknown.any(1).argmax())}")
    result = []
    for path, steps in zip(logits.argmax(-1), lengths, strict=True):
        path = path[:steps]
        fresh = np.append(True, path[1:] != path[:-1])[: len(path)]
        result.append([int(c) for c in path[fresh] if c != blank])
    return result
