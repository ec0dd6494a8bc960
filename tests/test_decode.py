"""Decoding, on models small enough to list all their sequences."""

import collections
import itertools

import numpy as np
import pytest

from fastdl import decode

V, END, T = 4, 3, 4


@pytest.fixture
def model():
    """A model with memory: logits depend on the last two tokens. state: the token before the last, [B,1]."""
    table = np.random.default_rng(5).standard_normal((V, V, V)).astype(np.float32) * 1.5

    def step(tokens, state):
        logits = table[state[0][:, 0], tokens]
        return logits, (tokens[:, None],)

    def log_prob(text):
        before, last, total = 0, 0, 0.0
        for token in text:
            logits = table[before, last].astype(np.float64)
            total += logits[token] - np.log(np.exp(logits).sum())
            before, last = last, token
        return total

    def everything():
        for n in range(1, T + 1):
            for text in itertools.product(range(V), repeat=n):
                if END in text[:-1] or (text[-1] != END and n < T):
                    continue
                yield list(text)

    return step, log_prob, list(everything())


def first(batch):
    return (np.zeros((batch, 1), np.int64),)


@pytest.mark.parametrize("penalty", [0.0, 0.7, 2.0])
def test_a_wide_beam_finds_the_best_sequences(model, penalty):
    step, log_prob, everything = model
    assert abs(sum(np.exp(log_prob(t)) for t in everything) - 1) < 1e-9
    best = sorted(everything, key=lambda t: -log_prob(t) / ((5 + len(t)) / 6) ** penalty)
    (found,) = decode.beam_search(step, [0], END, T, first(1), width=V**T, length_penalty=penalty)
    # (sequences with the same steps in another order are equally probable: their order is a matter of rounding)
    assert sorted(h.tokens for h in found) == sorted(everything) and found[0].tokens == best[0]
    np.testing.assert_allclose([h.log_prob for h in found], [log_prob(t) for t in best], rtol=1e-9)
    for h in found:
        assert abs(h.log_prob - log_prob(h.tokens)) < 1e-6
        assert abs(h.score - h.log_prob / ((5 + len(h.tokens)) / 6) ** penalty) < 1e-9


def test_a_beam_of_one_never_beats_a_wider_one_and_states_follow_their_beams(model):
    step, log_prob, _ = model
    scores = []
    for width in (1, 2, 3, 8):
        (found,) = decode.beam_search(step, [0], END, T, first(1), width=width)
        assert len(found) <= width
        assert all(abs(h.log_prob - log_prob(h.tokens)) < 1e-6 for h in found)
        scores.append(found[0].score)
    assert scores == sorted(scores)


def test_sequences_of_a_batch_are_decoded_as_alone(model):
    step, *_ = model
    together = decode.beam_search(step, [0, 1, 2], END, T, first(3), width=3)
    for i, found in enumerate(together):
        (alone,) = decode.beam_search(step, [i], END, T, first(1), width=3)
        assert [h.tokens for h in alone] == [h.tokens for h in found]
    drawn = decode.sample(step, [0, 0, 0], END, T, first(3), seed=9)
    assert drawn[:2] == decode.sample(step, [0, 0], END, T, first(2), seed=9)


def test_greedy_takes_the_best_token_each_time(model):
    step, *_ = model
    (text,) = decode.greedy(step, [0], END, T, first(1))
    state, token = first(1), np.array([0])
    for expected in text:
        logits, state = step(token, state)
        token = logits.argmax(-1)
        assert token[0] == expected
    assert decode.sample(step, [0], END, T, first(1), temperature=1e-4, seed=3) == [text]
    assert decode.sample(step, [0], END, T, first(1), top_k=1, seed=3) == [text]


def test_samples_have_the_models_frequencies(model):
    step, log_prob, everything = model
    n = 20000
    drawn = decode.sample(step, [0] * n, END, T, first(n), seed=1)
    counts = {}
    for text in drawn:
        counts[tuple(text)] = counts.get(tuple(text), 0) + 1
    expected = np.array([np.exp(log_prob(t)) for t in everything]) * n
    seen = np.array([counts.get(tuple(t), 0) for t in everything])
    assert seen.sum() == n
    chi2 = ((seen - expected) ** 2 / expected)[expected > 5].sum()
    freedom = (expected > 5).sum() - 1
    assert chi2 < freedom + 5 * np.sqrt(2 * freedom)


def test_temperature_and_top_k():
    logits = np.array([[2.0, 1.0, 0.0, -1.0]], np.float32)

    def step(tokens, state):
        return np.repeat(logits, len(tokens), 0), state

    n = 20000
    drawn = np.array(decode.sample(step, [0] * n, None, 1, temperature=2.0, top_k=3, seed=4)).ravel()
    p = np.exp(logits[0, :3] / 2)
    np.testing.assert_allclose(np.bincount(drawn, minlength=4)[:3] / n, p / p.sum(), atol=0.015)
    assert 3 not in drawn


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda s: decode.sample(s, [0], temperature=0.0), "temperature: expected a finite number of more than 0; got 0.0"),
        (lambda s: decode.sample(s, [0], top_k=0), "top_k: expected at least 1; got 0"),
        (lambda s: decode.beam_search(s, [0], 1, width=0), "width: expected at least 1; got 0"),
        (lambda s: decode.beam_search(s, [0], 1, length_penalty=-1.0), "length_penalty: expected 0 or more; got -1.0"),
        (lambda s: decode.greedy(s, 0), r"start: expected a token for each sequence, \[B\]; got shape \[\]"),
        (lambda s: decode.greedy(s, [0], max_length=0), "max_length: expected at least 1; got 0"),
        (lambda s: decode.greedy(s, [0, 0]), r"step: expected logits of shape \[2,V\]; got \[1, 3\]"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(lambda tokens, state: (np.zeros((1, 3), np.float32), state))


def test_the_consensus_is_what_most_agree_on():
    found = [decode.Hypothesis(t, s, s) for t, s in (([9, 9], -0.9), ([1, 2], -1.0), ([1, 3], -1.1), ([1, 4], -1.2))]
    overlap = lambda a, b: len(set(a) & set(b))
    assert decode.consensus(found, overlap).tokens == [1, 2]
    assert decode.consensus(found[:1], overlap).tokens == [9, 9]


def test_ctc_paths_are_joined():
    path = [[0, 1, 1, 0, 1, 2, 2, 0], [2, 2, 0, 0, 0, 1, 1, 1]]
    logits = np.eye(3, dtype=np.float32)[path]
    assert decode.ctc_greedy(logits) == [[1, 1, 2], [2, 1]]
    assert decode.ctc_greedy(logits, np.array([2, 0])) == [[1], []]
    assert decode.ctc_greedy(logits[:0], []) == []  # an empty list is one of no kind of number


NAN, PATH = np.full((1, 2, 3), np.nan, np.float32), np.zeros((2, 4, 3), np.float32)
UNSURE = decode.Hypothesis([1], 0.0, np.nan)


@pytest.mark.parametrize("worst", [np.nan, -np.inf, np.inf])
def test_logits_that_allow_no_choice_are_refused(worst):
    step = lambda tokens, state: (np.full((len(tokens), 3), worst, np.float32), state)
    for call in (decode.greedy, decode.sample, lambda *a, **k: decode.beam_search(*a, end=1, **k)):
        with pytest.raises(ValueError, match="step: expected logits of which the highest is finite; got"):
            call(step, [0], max_length=2)


def test_a_sequence_that_has_ended_may_get_anything():
    def step(tokens, state):
        return np.where((tokens == 1)[:, None], np.nan, np.eye(3, dtype=np.float32)[state + 1]), state

    assert decode.greedy(step, [0, 0], 1, 2, np.array([0, 1])) == [[1], [2, 2]]


def test_no_temperature_is_too_low():
    step = lambda tokens, state: (np.array([[1.0, 3.0, -np.inf]] * len(tokens)), state)
    assert decode.sample(step, [0], max_length=3, temperature=5e-324) == [[1, 1, 1]]


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda s: decode.sample(s, [0], temperature=np.inf), ValueError, "temperature: expected a finite number"),
        (lambda s: decode.sample(s, [0], top_k=1.5), TypeError, "top_k: expected an integer; got float"),
        (lambda s: decode.beam_search(s, [0], 1, width=1.5), TypeError, "width: expected an integer; got float"),
        (lambda s: decode.greedy(s, [0.5]), TypeError, "start: expected whole numbers; got float64"),
        (lambda s: decode.consensus([], len), ValueError, "hypotheses: expected one or more; got none"),
        (lambda s: decode.ctc_greedy(PATH, np.array([5, 1])), ValueError, "lengths: expected 2 whole numbers from 0 to 4"),
        (lambda s: decode.ctc_greedy(PATH, np.array([-1, 1])), ValueError, "lengths: expected 2 whole numbers from 0 to 4"),
        (lambda s: decode.ctc_greedy(PATH[0]), ValueError, r"logits: expected shape \[N,T,C\]; got \[4, 3\]"),
        (lambda s: decode.ctc_greedy(PATH, blank=3), ValueError, "blank: expected a class from 0 to 2; got 3"),
        (lambda s: decode.ctc_greedy(NAN), ValueError, "logits: expected numbers within the lengths; got NaN in sample 0"),
        (lambda s: decode.ctc_greedy(PATH.tolist()), TypeError, "logits: expected a NumPy or CuPy array .*; got list"),
        (lambda s: decode.ctc_greedy(PATH.astype(str)), TypeError, "logits: expected real numbers; got <U"),
        (lambda s: decode.ctc_greedy(PATH, [[1], [1, 2]]), ValueError, "lengths: expected an array, or lists of equal lengths"),
        (lambda s: decode.ctc_greedy(PATH, blank=0.5), TypeError, "blank: expected an integer; got float"),
        (lambda s: decode.greedy(None, [0]), TypeError, "step: expected a function; got NoneType"),
        (lambda s: decode.greedy(lambda t, _: PATH, [0]), TypeError, r"step: .* returns \(logits, state\); got ndarray"),
        (lambda s: decode.greedy(lambda t, _: ([[1.0]], None), [0]), TypeError, "step: expected a NumPy or CuPy .*; got list"),
        (lambda s: decode.greedy(s, [[0], [1, 2]]), ValueError, "start: expected an array, or lists of equal lengths"),
        (lambda s: decode.greedy(s, [0], end="2"), TypeError, "end: expected an integer; got str"),
        (lambda s: decode.sample(s, [0], end=2.0), TypeError, "end: expected an integer; got float"),
        (lambda s: decode.sample(s, [0], seed=-1), ValueError, "seed: expected an integer from 0 to .*; got -1"),
        (lambda s: decode.beam_search(s, [0], [2]), TypeError, "end: expected an integer; got list"),
        (lambda s: decode.beam_search(s, [0], 2, state=5), TypeError, "state: expected arrays .*, lists and dicts; got int"),
        (lambda s: decode.beam_search(s, [0], 2, state=PATH[:0]), ValueError, r"state: expected a row for .* \[0, 4, 3\]"),
        (lambda s: decode.consensus(5, len), TypeError, "hypotheses: expected some, one after another; got int"),
        (lambda s: decode.consensus(["a"], len), TypeError, r"hypotheses\[0\]: expected a Hypothesis; got str"),
        (lambda s: decode.consensus([UNSURE], None), TypeError, "similarity: expected a function; got NoneType"),
        (lambda s: decode.consensus([UNSURE], len), ValueError, r"hypotheses\[0\]: expected a finite score; got nan"),
    ],
)
def test_more_bad_arguments_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call(lambda tokens, state: (np.zeros((len(tokens), 3), np.float32), state))


def test_a_state_may_be_a_named_tuple():
    State = collections.namedtuple("State", "last count")

    def step(tokens, state):
        assert type(state) is State
        return np.zeros((len(tokens), 3), np.float32), State(tokens, state.count + 1)

    (best,) = decode.beam_search(step, [0], 2, 3, State(np.zeros(1, np.int64), np.zeros((1, 2))), width=4)
    assert len(best) == 4


def test_no_logits_are_named():
    with pytest.raises(TypeError, match="logits: expected an array or what makes one; got None"):
        decode.ctc_greedy(None)
