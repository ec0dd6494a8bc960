"""Models over sequences, and the data tools that feed them: text, sound, padding."""

import inspect
import struct

import numpy as np
import pytest

from fastdl import data, models, ops, optim
from fastdl.models import CharLM, Forecaster, RNNClassifier, RNNRegressor, WordLM, load

# ------------------------------------------------------------------------------------------------------------- data


def test_padding_and_back(rng):
    some = [rng.standard_normal((n, 3)) for n in (4, 0, 2)]
    x, lengths = data.pad(some, value=7)
    assert x.shape == (3, 4, 3) and x.dtype == np.float32 and lengths.tolist() == [4, 0, 2]
    assert (x[2, 2:] == 7).all()
    for a, b in zip(data.unpad(x, lengths), some, strict=True):
        np.testing.assert_array_equal(a, b.astype(np.float32))
    assert data.pad([[1, 2], [3]], length=5)[0].dtype == np.int64


@pytest.mark.parametrize(
    "bad, message",
    [
        ([], "sequences: expected one or more"),
        ([np.zeros((2, 3)), np.zeros((2, 4))], r"sequences\[1\]: expected steps of shape \[3\]; got \[4\]"),
        ([np.float32(1)], r"sequences\[0\]: expected an axis of steps"),
    ],
)
def test_what_cannot_be_padded(bad, message):
    with pytest.raises(ValueError, match=message):
        data.pad(bad)
    with pytest.raises(ValueError, match=r"sequences\[0\]: expected at most 1 steps; got 2"):
        data.pad([[1, 2]], length=1)


def test_numbers_that_do_not_fit_are_refused():
    large = "expected numbers within float32's range, up to 3.4e38; got a larger one"
    for call, message in (
        (lambda: data.pad([[1.0], [2.0, 1e300]]), rf"sequences\[1\]: {large}"),
        (lambda: RNNClassifier(units=2).fit([[1.0], [2.0, 1e300]], [0, 1]), rf"X\[1\]: {large}"),
        (lambda: data.windows([1.0, 2.0, -1e300], 1), f"series: {large}"),
        (lambda: data.pad([[1], np.array([2**63], np.uint64)]), r"sequences\[1\]: expected whole numbers below 2\*\*63; got 922"),
        (lambda: data.pad([[1.0], [2.0, 3.0]], value=1e300), f"value: {large}"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    x, _ = data.pad([[1.0, np.inf], []], value=-np.inf)  # infinity is no number that was too large
    assert x.tolist() == [[1, np.inf], [-np.inf, -np.inf]]
    assert data.pad([[1, 2], [3]], value=1e30)[0].dtype == np.float32  # whole, but no int64


def test_masked_sequences_are_refused():
    with pytest.raises(TypeError, match=r"sequences\[1\]: expected an array without masked elements; got a masked array"):
        data.pad([[1.0], np.ma.masked_equal([1.0, -1.0], -1.0)])


def test_windows():
    x, y = data.windows(np.arange(6), 3, 2)
    assert x[..., 0].tolist() == [[0, 1, 2], [1, 2, 3]] and y[..., 0].tolist() == [[3, 4], [4, 5]]
    with pytest.raises(ValueError, match="series: expected 5 values or more for one window; got 4"):
        data.windows(np.arange(4), 3, 2)


def test_vocabulary():
    v = data.Vocabulary.of("hello", "help", least=2, unknown="?")
    assert v.symbols == ["e", "h", "l", "?"] and v.decode(v.encode("hole")) == ["h", "?", "l", "e"]
    strict = data.Vocabulary.of("abc")
    with pytest.raises(ValueError, match=r"sequence\[1\]: expected a symbol of the vocabulary; got 'x'"):
        strict.encode("axb")
    for bad in (lambda: data.Vocabulary([]), lambda: data.Vocabulary.of("")):
        with pytest.raises(ValueError, match="empty vocabulary"):
            bad()
    with pytest.raises(ValueError, match="unknown: expected a symbol"):
        data.Vocabulary.of("aab", most=1)
    with pytest.raises(ValueError, match="got 'a' twice"):
        data.Vocabulary("aba")
    assert data.Vocabulary.of("aaabbc", most=2, unknown="*").symbols == ["a", "*"]


def wav(path, samples, bits, rate=8000, channels=1, kind=1, cut=0):
    body = samples.tobytes()
    head = struct.pack("<HHIIHH", kind, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
    blob = b"WAVE" + b"LIST" + struct.pack("<I", 3) + b"abc\0" + b"fmt " + struct.pack("<I", len(head)) + head
    blob += b"data" + struct.pack("<I", len(body)) + body
    blob = b"RIFF" + struct.pack("<I", len(blob)) + blob
    path.write_bytes(blob[: len(blob) - cut])


@pytest.mark.parametrize("bits, kind", [(8, 1), (16, 1), (24, 1), (32, 1), (32, 3), (64, 3)])
def test_wav_formats(tmp_path, bits, kind):
    wanted = np.array([0.0, 0.5, -0.5, -1.0])
    if kind == 3:
        raw = wanted.astype(f"<f{bits // 8}")
    elif bits == 8:
        raw = (wanted * 128 + 128).astype(np.uint8)
    elif bits == 24:
        raw = (wanted * 2**23).astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].copy()
    else:
        raw = (wanted * 2.0 ** (bits - 1)).astype(f"<i{bits // 8}")
    wav(tmp_path / "a.wav", raw, bits, kind=kind)
    x, rate = data.read_wav(tmp_path / "a.wav")
    assert rate == 8000 and x.dtype == np.float32
    np.testing.assert_array_equal(x, wanted.astype(np.float32))


def test_wav_channels_and_damage(tmp_path):
    path = tmp_path / "a.wav"
    wav(path, np.arange(6, dtype="<i2"), 16, channels=2)
    assert data.read_wav(path)[0].shape == (3, 2)
    wav(path, np.arange(6, dtype="<i2"), 16, cut=4)
    with pytest.raises(data.DataError, match="expected 12 bytes of samples; got 8"):
        data.read_wav(path)
    path.write_bytes(b"RIFX0000WAVE")
    with pytest.raises(data.DataError, match="a WAV file"):
        data.read_wav(path)
    wav(path, np.arange(6, dtype="<i2"), 16, kind=7)
    with pytest.raises(data.DataError, match="got format 7"):
        data.read_wav(path)


def test_wav_without_samples(tmp_path):
    path = tmp_path / "a.wav"
    wav(path, np.arange(0, dtype="<i2"), 16)
    blob = path.read_bytes() + b"LIST" + struct.pack("<I", 4) + b"INFO"
    path.write_bytes(b"RIFF" + struct.pack("<I", len(blob) - 8) + blob[8:])  # a whole file: what follows is no sound
    assert data.read_wav(path)[0].shape == (0,)
    wav(path, np.arange(6, dtype="<i2"), 16)
    blob = path.read_bytes()
    at = blob.index(b"data") + 4
    for size in (0, 0xFFFFFFFF):  # of a recorder that could not come back to it
        path.write_bytes(b"RIFF" + struct.pack("<I", size) + blob[8:at] + struct.pack("<I", size) + blob[at + 4 :])
        assert data.read_wav(path)[0].shape == (6,)


def test_mel_bands_hear_the_right_pitch():
    rate, t = 8000, np.arange(4000) / 8000
    loudest = [data.log_mel(np.sin(2 * np.pi * f * t), rate, bands=20).mean(0).argmax() for f in (300, 1000, 2500)]
    edges = np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 22)[1:-1]
    for band, f in zip(loudest, (300, 1000, 2500), strict=True):
        assert abs(edges[band] - 2595 * np.log10(1 + f / 700)) <= edges[0]
    assert data.log_mel(np.zeros(5), rate).shape == (1, 40)
    with pytest.raises(ValueError, match="samples: expected shape"):
        data.log_mel(np.zeros((5, 2)), rate)


def test_mfcc_is_the_cosine_transform(rng):
    x = rng.standard_normal(2000)
    energy, c = data.log_mel(x, 8000, 12), data.mfcc(x, 8000, 12, 12)
    # orthonormal: with as many coefficients as bands nothing is lost
    np.testing.assert_allclose((c**2).sum(1), (energy**2).sum(1), rtol=1e-4)
    ramp = np.arange(20.0)[:, None] * [1.0, -2.0]
    np.testing.assert_allclose(data.deltas(ramp)[3:-3], np.tile([1.0, -2.0], (14, 1)), rtol=1e-6)


# ------------------------------------------------------------------------------------------------------- classifiers


def counting(rng, n=120):
    """Sequences of unequal length whose class is whether their sum is positive."""
    x = [rng.standard_normal((rng.integers(1, 8), 2)).astype(np.float32) for _ in range(n)]
    return x, np.array([int(s[:, 0].sum() > 0) for s in x])


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_classifier_learns_sums(cell, rng):
    x, y = counting(rng)
    model = RNNClassifier(units=16, cell=cell, seed=1).fit(x, y, epochs=30, lr=0.01, batch_size=16)
    assert model.score(x, y) > 0.9
    padded, lengths = data.pad(x, np.nan, 12)
    np.testing.assert_array_equal(model.predict_proba(padded), model.predict_proba(x))
    np.testing.assert_array_equal(model.predict_proba(x[3:4]), model.predict_proba(x)[3:4])
    assert lengths.max() < 12


def test_classifier_files_and_resume(rng, tmp_path):
    x, y = counting(rng, 60)
    make = dict(units=6, layers=2, bidirectional=True, dropout=0.2, seed=3)
    whole = RNNClassifier(**make).fit(x, y, epochs=4)
    RNNClassifier(**make).fit(x, y, epochs=2, checkpoint=tmp_path / "c")
    rest = RNNClassifier(**make).fit(x, y, epochs=4, resume=tmp_path / "c")
    np.testing.assert_array_equal(rest.predict_proba(x), whole.predict_proba(x))
    whole.save(tmp_path / "m")
    np.testing.assert_array_equal(models.load(tmp_path / "m").predict_proba(x), whole.predict_proba(x))


def test_classifier_of_tokens(rng, tmp_path):
    x = [rng.integers(0, 9, rng.integers(1, 7)).tolist() for _ in range(100)]
    y = ["yes" if 4 in s else "no" for s in x]
    model = RNNClassifier(units=16, vocabulary=9, embedding=8, seed=1).fit(x, y, epochs=40, lr=0.02)
    assert model.score(x, y) > 0.9
    padded, _ = data.pad(x, -1)
    assert (model.predict(padded) == model.predict(x)).all()
    assert model.input_shape_ == (6,)  # the longest, without the length beside it
    model.save(tmp_path / "m")
    assert (models.load(tmp_path / "m").predict(x) == model.predict(x)).all()
    with pytest.raises(ValueError, match="X: expected tokens from 0 to 8; got 9"):
        model.predict([[1, 9]])
    with pytest.raises(TypeError, match="X: expected whole numbers"):
        model.predict([[0.5]])


def test_bytes_are_read_alike_in_arrays_and_lists(rng):
    x = rng.integers(0, 256, (12, 5, 2)).astype(np.uint8)
    model = RNNClassifier(units=4).fit(x, np.arange(12) % 2, epochs=1)
    np.testing.assert_array_equal(model.decision_function(list(x)), model.decision_function(x))


def test_sequences_of_bytes_and_of_numbers_are_not_mixed(rng):
    x = [rng.integers(0, 256, (4, 2)).astype(np.uint8) for _ in range(6)]
    with pytest.raises(ValueError, match="X: expected uint8, .* in all sequences or in none; got float64 as well"):
        RNNClassifier(units=2).fit([*x, np.ones((3, 2))], [0, 1] * 3 + [0], epochs=1)
    model = RNNClassifier(units=2).fit([*x, np.zeros((0, 2))], [0, 1] * 3 + [0], epochs=1)  # of no steps: of any kind
    assert model.scale_ == "bytes"


def test_equally_long_sequences_of_objects(rng):
    """What NumPy makes of a table with columns of several kinds, or of equal lists where objects were asked for."""
    x, y = rng.standard_normal((8, 5, 2)).astype(np.float32), np.arange(8) % 2
    for given in (x, x[..., 0]):
        model = RNNClassifier(units=3).fit(given, y, epochs=1)
        np.testing.assert_array_equal(model.predict_proba(given.astype(object)), model.predict_proba(given))
    with pytest.raises(TypeError, match="X: expected an array of real numbers; got a str, 'a'"):
        model.predict(np.array([[1.0, "a"]], dtype=object))


def test_regressor(rng):
    x, _ = counting(rng)
    y = np.array([s[:, 1].mean() for s in x])
    model = RNNRegressor(units=16, seed=1).fit(x, y, epochs=60, lr=0.01, batch_size=16)
    assert model.score(x, y) > 0.8


def test_networks_are_made_without_data():
    """And what `build` takes is written down where it is."""
    assert RNNClassifier(units=4).build((7, 3), [2, 5, 9]).input_shape_ == (7, 3)
    assert RNNRegressor(units=4).build(7, 2).input_shape_ == (7, 1)
    assert RNNClassifier(units=4, vocabulary=5).build((7,), 2).predict([[1, 2], [3]]).shape == (2,)
    for build in (RNNClassifier.build, RNNRegressor.build):
        names = list(inspect.signature(build).parameters)[1:]
        assert "targets" not in names and all(name in build.__doc__.split("Returns")[0] for name in names)


def test_sequences_are_checked(rng):
    x, y = counting(rng, 20)
    model = RNNClassifier(units=4).fit(x, y, epochs=1)
    with pytest.raises(ValueError, match="X: expected 2 values a step, as the model was made for; got 3"):
        model.predict(np.zeros((2, 4, 3)))
    with pytest.raises(ValueError, match="X: expected sequences"):
        model.predict(np.zeros((2, 4, 3, 1)))
    with pytest.raises(ValueError, match="cell: expected one of lstm, gru, rnn; got 'xyz'"):
        RNNClassifier(cell="xyz")
    with pytest.raises(ValueError, match="units: expected at least 1"):
        RNNClassifier(units=0)


# ------------------------------------------------------------------------------------------------------------- text

VERSE = "the cat sat on the mat and the dog sat on the log " * 40


def test_characters_are_learned_and_written(tmp_path):
    model = CharLM(units=48, embedding=16, seed=1)
    model.fit(VERSE, epochs=12, batch_size=4, window=25, lr=0.02, checkpoint=tmp_path / "c")
    assert model.perplexity(VERSE) < 1.4
    text = model.sample(30, "the ", temperature=0.3, top_k=3, seed=5)
    assert len(text) == 30 and set(text) <= set(VERSE) and text == model.sample(30, "the ", 0.3, 3, 5)
    best = model.next("the cat sat on th")
    assert best[0][0] == "e" and abs(model.predict_proba("the").sum() - 1) < 1e-5
    model.save(tmp_path / "m")
    assert models.load(tmp_path / "m").nats(VERSE) == model.nats(VERSE)
    assert models.load(tmp_path / "c").nats(VERSE) == model.nats(VERSE)
    # a text read in one piece or in many gives the same figure
    assert model.nats(VERSE, window=7) == pytest.approx(model.nats(VERSE), rel=1e-6)


def test_states_flow_on_from_window_to_window():
    """Readers side by side, each from a place of its own, by hand: gradients stop at a window's border, states do not."""
    n, window, how = 3, 8, {"lr": 0.5, "clip": 1.0}
    by_hand = CharLM(units=6, embedding=4, layers=2, seed=5).build(data.Vocabulary.of(VERSE))
    codes, module, state = by_hand.encode(VERSE), by_hand.module_, None
    pieces = (len(codes) - 1) // (n * window)
    x, y = (codes[s : s + n * pieces * window].reshape(n, -1) for s in (0, 1))
    optimizer = optim.get("sgd", module.train(), **how)
    for at in [window * i for i in range(pieces)] * 2:
        logits, state = module.step(x[:, at : at + window].copy(), state)
        state = module.recurrent.detached(state)
        optimizer.zero_grad()
        ops.softmax_cross_entropy(logits, y[:, at : at + window].copy()).backward()
        optimizer.step()
    model = CharLM(units=6, embedding=4, layers=2, seed=5)
    model.fit(VERSE, epochs=2, batch_size=n, window=window, optimizer="sgd", **how)
    for name, a in model.get_weights().items():
        np.testing.assert_array_equal(by_hand.get_weights()[name], a)


def test_training_goes_on_bit_for_bit(tmp_path):
    make, how = dict(units=12, layers=2, dropout=0.2, cell="gru", seed=2), dict(batch_size=3, window=20)
    whole = CharLM(**make).fit(VERSE, epochs=4, **how)
    CharLM(**make).fit(VERSE, epochs=2, checkpoint=tmp_path / "c", **how)
    rest = CharLM(**make).fit(VERSE, epochs=4, resume=tmp_path / "c", **how)
    assert rest.nats(VERSE) == whole.nats(VERSE)


def test_a_model_from_a_checkpoint_is_one_that_was_fitted(tmp_path):
    """The states that training carried along are no weights of it."""
    how = dict(epochs=1, batch_size=3, window=20, checkpoint=tmp_path / "c")
    model, again = CharLM(units=6).fit(VERSE, **how), models.load(tmp_path / "c")
    assert again.get_weights().keys() == model.get_weights().keys()
    assert model.set_weights(again.get_weights()).nats(VERSE) == again.nats(VERSE)


def test_a_fit_that_never_began_leaves_no_states(tmp_path):
    how = dict(epochs=1, batch_size=3, window=20)
    CharLM(units=5).fit(VERSE, checkpoint=tmp_path / "other", **how)
    model = CharLM(units=6).fit(VERSE, **how)
    names = model.get_weights().keys()
    with pytest.raises(ValueError, match="units: expected 5"):
        model.fit(VERSE, warm_start=True, resume=tmp_path / "other", **how)
    assert model.get_weights().keys() == names


def test_a_validation_text_is_read_once():
    text, how = VERSE.split(), dict(epochs=2, batch_size=2, window=4)
    one, other = (WordLM(units=4, embedding=4).fit(text, validation=v, **how) for v in (text[:9], iter(text[:9])))
    assert one.history_["val_loss"] == other.history_["val_loss"]


def test_training_goes_on_with_its_own_vocabulary():
    how, own = dict(epochs=1, batch_size=2, window=5, warm_start=True), data.Vocabulary.of("abc", unknown="?")
    model = CharLM(units=4).fit("abc" * 20, vocabulary=own, **how)
    model.fit("abd" * 20, vocabulary=data.Vocabulary("abc", "?"), **how)
    for other in (data.Vocabulary("abc"), data.Vocabulary("bac", "?")):
        with pytest.raises(ValueError, match="vocabulary: expected the one of the network that is trained on; got another"):
            model.fit("abc" * 20, vocabulary=other, **how)


def test_symbols_are_what_a_file_can_hold(tmp_path):
    how = dict(epochs=1, batch_size=2, window=3)
    for strange in (b"a", ("a", "b")):
        with pytest.raises(TypeError, match=f"vocabulary: expected strings or numbers, .*; got {type(strange).__name__}"):
            WordLM(units=2, embedding=2).fit([strange] * 20, **how)
    model = WordLM(units=2, embedding=2).fit(np.arange(40) % 3, **how)
    model.save(tmp_path / "m")
    assert models.load(tmp_path / "m").vocabulary_.symbols == [0, 1, 2, "<unk>"]


def test_a_callback_reads_the_network_at_rest():
    """What is asked of a model while it is trained has no dropout, and leaves no trace in the training."""
    found = []

    def ask(state):
        model.sample(3, "t"), model.predict_proba("t")
        found.append((model.nats(VERSE), model.nats(VERSE), model.module_.training))

    model = CharLM(units=8, dropout=0.5, seed=3)
    model.fit(VERSE, epochs=2, batch_size=4, window=25, callbacks=[ask])
    assert all(first == second and training for first, second, training in found)
    alone = CharLM(units=8, dropout=0.5, seed=3).fit(VERSE, epochs=2, batch_size=4, window=25)
    assert found[-1][0] == model.nats(VERSE) == alone.nats(VERSE)


def test_words():
    assert data.words("It's half-done; 3.5% left_over") == ["It's", "half-done", ";", "3.5", "%", "left", "_", "over"]
    model = WordLM(most=8, units=24, embedding=12, seed=1).fit(VERSE, epochs=25, batch_size=2, window=10, lr=0.02)
    assert len(model.vocabulary_) == 8 and "<unk>" in model.vocabulary_
    assert model.next(["sat", "on"])[0][0] == "the" and model.next("a zebra on")[0][0] == "the"
    assert all(isinstance(w, str) for w in model.sample(3, "the"))


def test_words_of_other_scripts_stay_whole():
    """Accents and vowel signs that are characters of their own belong to their letter, joiners to their word."""
    hindi, persian = "\u0939\u093f\u0928\u094d\u0926\u0940", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"
    for word in ("cafe\u0301", "e\u0301le\u0300ve's", hindi, persian):
        assert data.words(f"{word}, a {word}!") == [word, ",", "a", word, "!"]
    assert data.words("na\u00efve \u0130stanbul don\u2019t") == ["na\u00efve", "\u0130stanbul", "don\u2019t"]
    assert data.words("a \u0301 b") == ["a", "\u0301", "b"]  # on no letter: a sign


def test_one_table_reads_and_writes(tmp_path):
    how = {"epochs": 25, "batch_size": 2, "window": 10, "lr": 0.02}
    model = WordLM(most=8, units=24, embedding=24, tied=True, dropout=0.1, seed=1).fit(VERSE, **how)
    assert model.module_.head.w is model.module_.embedding.table
    untied = WordLM(most=8, units=24, embedding=24, dropout=0.1, seed=1).build(model.vocabulary_)
    assert untied.module_.count() - model.module_.count() == 8 * 24
    assert model.next(["sat", "on"])[0][0] == "the"
    model.save(tmp_path / "words.safetensors")
    again = models.load(tmp_path / "words.safetensors")
    assert again.perplexity(VERSE) == model.perplexity(VERSE)
    with pytest.raises(ValueError, match="embedding: expected units=24 where tied; got 12"):
        WordLM(units=24, embedding=12, tied=True)


def test_texts_are_checked():
    model = CharLM(units=4)
    with pytest.raises(ValueError, match="text: expected one symbol or more; got an empty text"):
        model.fit("")
    with pytest.raises(TypeError, match="text: expected a string; got int"):
        model.fit(3)
    with pytest.raises(TypeError, match="text: expected symbols such as characters and words; got list"):
        WordLM(units=4).fit([["a"], ["b"]])
    with pytest.raises(ValueError, match="text: expected more than batch_size x window = 2048 symbols; got 3"):
        model.fit("abc")
    model.fit("abc" * 40, epochs=1, batch_size=2, window=5)
    with pytest.raises(ValueError, match=r"sequence\[0\]: expected a symbol of the vocabulary; got 'z'"):
        model.vocabulary_.encode("zebra")
    fit = {"epochs": 1, "batch_size": 2, "window": 5, "warm_start": True}
    for call, message in (
        (lambda: model.nats("zebra"), r"text\[0\]: expected a symbol of the vocabulary; got 'z'"),
        (lambda: model.perplexity("abZ"), r"text\[2\]: expected a symbol of the vocabulary; got 'Z'"),
        (lambda: model.encode("aZ"), r"text\[1\]: expected a symbol of the vocabulary; got 'Z'"),
        (lambda: model.sample(10, "THE"), r"prompt\[0\]: expected a symbol of the vocabulary; got 'T'"),
        (lambda: model.next("aT"), r"prompt\[1\]: expected a symbol of the vocabulary; got 'T'"),
        (lambda: model.fit("abz" * 40, **fit), r"text\[2\]: expected a symbol of the vocabulary; got 'z'"),
        (lambda: model.fit("abc" * 40, validation="äö", **fit), r"validation\[0\]: expected a symbol of the vocabulary; got 'ä'"),
        (lambda: model.sample(1, ""), "prompt: expected one symbol"),
        (lambda: model.sample(1, "a", temperature=0.0), "temperature: expected"),
        (lambda: model.sample(1, "a", top_k=0), "top_k: expected"),
        (lambda: model.nats("a"), "text: expected two symbols"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ------------------------------------------------------------------------------------------------------------ series


def test_forecasts_of_two_waves(tmp_path):
    t = np.arange(400) * 0.3
    s = np.stack([np.sin(t), 5 + 3 * np.cos(t)], 1)
    model = Forecaster(window=12, ahead=2, units=8, seed=1).fit(s[:300], epochs=3, validation=50)
    assert model.score(s, 300) > 0.99
    ahead = model.predict(10, s[:300])
    assert ahead.shape == (10, 2) and np.abs(ahead - s[300:310]).max() < 0.2
    np.testing.assert_allclose(model.rolling(s, 300)[0], model.predict(2, s[:300]), rtol=1e-6)
    model.save(tmp_path / "m")
    np.testing.assert_array_equal(models.load(tmp_path / "m").predict(5), model.predict(5))


def test_a_checkpoint_knows_the_end_of_its_series(tmp_path):
    wave, told = np.sin(np.arange(60) * 0.3), []
    model = Forecaster(window=8, units=2)
    model.fit(wave, epochs=1, checkpoint=tmp_path / "run", callbacks=lambda state: told.append(model.predict(3)))
    for other in (told[0], load(tmp_path / "run").predict(3)):
        np.testing.assert_array_equal(other, model.predict(3))


def test_series_are_checked():
    with pytest.raises(ValueError, match="series: expected 25 values or more to train on; got 10"):
        Forecaster().fit(np.arange(10.0))
    with pytest.raises(ValueError, match="series: expected finite numbers; got nan"):
        Forecaster(window=2).fit([1.0, np.nan, 2.0, 3.0])
    model = Forecaster(window=3, units=4).fit(np.arange(20.0), epochs=1)
    with pytest.raises(ValueError, match="history: expected the last 3 values or more; got 2"):
        model.predict(history=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"series: expected shape \[L\] or \[L,1\]"):
        model.rolling(np.zeros((9, 2)))
    with pytest.raises(ValueError, match="history: expected numbers within float32's range, up to 3.4e38; got a larger one"):
        model.predict(history=[1.0, 1e300, 2.0])
    for how in ({"mean": np.nan}, {"mean": [1.0, 2.0, 3.0]}, {"mean": "a"}, {"spread": [1.0, np.inf]}, {"spread": [1, 2, 3]}):
        with pytest.raises((ValueError, TypeError), match=f"{next(iter(how))}: expected "):
            Forecaster().build(2, **how)


def test_a_series_may_come_as_objects():
    """What NumPy makes of a table with columns of several kinds."""
    s = np.stack([np.sin(np.arange(40)), np.arange(40) % 2 == 0], 1)
    one, other = (Forecaster(window=3, units=4).fit(a, epochs=1) for a in (s, s.astype(object)))
    np.testing.assert_array_equal(one.predict(3), other.predict(3, s.astype(object)))
    with pytest.raises(TypeError, match="series: expected an array of real numbers; got a NoneType"):
        Forecaster(window=3).fit([1.0, None, 2.0] * 4)


# ----------------------------------------------------------------------------------------------------------- recipes


def test_mackey_glass_is_chaotic_and_bounded():
    from fastdl.recipes.forecast_lstm import mackey_glass

    s = mackey_glass(400)
    assert s.shape == (400,) and 0.2 < s.min() < 0.6 and 1.0 < s.max() < 1.5
    assert np.abs(np.diff(s)).max() > 0.1


def test_recipes_without_data_say_what_is_missing(monkeypatch, tmp_path):
    from fastdl import recipes

    monkeypatch.delenv("FASTDL_DATA", raising=False)
    for name in ("vowels-lstm", "shakespeare-lstm", "spoken-digits-lstm", "forecast-lstm", "next-word"):
        with pytest.raises(data.MissingDataError, match="FASTDL_DATA is not set"):
            recipes.run(name)
        with pytest.raises(data.MissingDataError, match="no such file"):
            recipes.run(name, recipes.Config(data_dir=str(tmp_path)))


def test_copy_memory_recipe(monkeypatch):
    from fastdl import recipes
    from fastdl.recipes import copy_memory

    monkeypatch.setattr(copy_memory, "GAPS", (2,))
    metrics = recipes.run("copy-memory", recipes.Config(epochs=6, seed=100)).metrics
    assert metrics["lstm_accuracy"] > 0.5 and set(metrics) == {f"{c}_{k}" for c in copy_memory.CELLS for k in (2, "accuracy")}


def test_digits_by_rows(monkeypatch):
    from fastdl import recipes

    monkeypatch.delenv("FASTDL_DATA", raising=False)
    report = recipes.run("mnist-rows-lstm", recipes.Config(epochs=1, seed=100))
    assert report.metrics["test_accuracy"] > 0.25


def test_long_runs_are_of_recipes_that_have_one():
    from fastdl import recipes

    with pytest.raises(ValueError, match=r"long: expected a recipe with a long run \(.*shakespeare-lstm.*\); got 'mnist-mlp'"):
        recipes.run("mnist-mlp", recipes.Config(long=True))


@pytest.mark.parametrize("variant", ["pixels", "permuted"])
def test_digits_by_pixels(variant, monkeypatch):
    import dataclasses

    from fastdl import recipes

    monkeypatch.delenv("FASTDL_DATA", raising=False)
    digits = data.load("mnist-embedded")
    part = {"x_train": 130, "y_train": 130, "x_test": 20, "y_test": 20}
    few = dataclasses.replace(digits, **{k: getattr(digits, k)[:n] for k, n in part.items()})
    monkeypatch.setattr(data, "load", lambda *args: few)
    report = recipes.run("mnist-rows-lstm", recipes.Config(seed=100, variant=variant))
    assert report.model.input_shape_ == (784, 1) and report.metrics["seconds_an_epoch"] > 0
    assert report.settings["variant"] == variant and report.settings["epochs"] == 1
    assert sorted(report.test[0][3].tolist()) == sorted(few.x_test[3].ravel().tolist())
    assert np.array_equal(report.test[0][3], few.x_test[3].ravel()) == (variant == "pixels")
    with pytest.raises(ValueError, match=r"variant: expected one .*pixels of mnist-rows-lstm.*got 'pixels' of 'mnist-mlp'"):
        recipes.run("mnist-mlp", recipes.Config(variant="pixels"))


def test_moving_digits(monkeypatch, tmp_path):
    from fastdl import recipes
    from fastdl.random import Stream
    from fastdl.recipes import moving_digits as moving

    ones = np.full((3, 28, 28, 1), 200, np.uint8)
    films, labels = moving.clips(ones, np.array([4, 5, 6]), 64, Stream(3))
    films = films.reshape(64, moving.FRAMES, moving.SIDE, moving.SIDE)
    assert (films.sum((2, 3), dtype=np.int64) == 200 * moving.DIGIT**2).all()  # never over the edge
    at = np.stack([films.any(3).argmax(2), films.any(2).argmax(2)], 2)  # [64, frames, (row, column)]
    np.testing.assert_array_equal(np.diff(at, axis=1), np.array(moving.WAYS)[labels % 8][:, None].repeat(7, 1))
    assert set(labels // 8) == {4, 5, 6} and (np.bincount(labels % 8) == 8).all()
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    monkeypatch.setattr(moving, "CLIPS", {"train": 128, "validation": 32, "test": 32})
    report = recipes.run("moving-digits", recipes.Config(epochs=1, seed=100))
    assert {"test_accuracy", "digit_accuracy", "direction_accuracy"} <= set(report.metrics)
    assert report.settings["splits"] == {"train": 128, "validation": 32, "test": 32}
    assert len(report.names) == 80 and report.names[int(labels[0])].startswith(str(labels[0] // 8))
    pytest.importorskip("matplotlib")
    recipes.picture(report, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 5000


# ------------------------------------------------------------------------------------------------------- odd input


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda: data.unpad(np.ones((2, 3)), [1, 5]), ValueError, r"lengths: expected 2 whole numbers from 0 to 3; got \[1, 5\]"),
        (lambda: data.unpad(np.ones((2, 3)), [1, -1]), ValueError, "lengths: expected 2 whole numbers from 0 to 3"),
        (lambda: data.unpad(np.ones((2, 3)), [1]), ValueError, "lengths: expected 2 whole numbers from 0 to 3"),
        (lambda: data.pad(5), TypeError, "sequences: expected a list of sequences; got int"),
        (lambda: data.windows([1, 2, 3], 0), ValueError, "width: expected at least 1; got 0"),
        (lambda: data.windows([1, 2, 3], 1, 0), ValueError, "ahead: expected at least 1; got 0"),
        (lambda: data.windows("abc", 1), TypeError, "series: expected an array of real numbers"),
        (lambda: data.words(None), TypeError, "text: expected a string; got NoneType"),
        (lambda: data.Vocabulary.of("abc", most=0, unknown="?"), ValueError, "most: expected at least 1; got 0"),
        (lambda: data.Vocabulary.of("abc", most=-1, unknown="?"), ValueError, "most: expected at least 1; got -1"),
        (lambda: data.Vocabulary.of(5), TypeError, r"sequences\[0\]: expected a text or a list of words; got int"),
        (lambda: data.Vocabulary("ab").decode([1, -1]), ValueError, r"codes\[1\]: expected a number from 0 to 1; got -1"),
        (lambda: data.Vocabulary("ab").decode([2]), ValueError, r"codes\[0\]: expected a number from 0 to 1; got 2"),
        (lambda: data.Vocabulary("ab").decode(2), TypeError, "codes: expected numbers, one after another; got int"),
        (lambda: data.Vocabulary("ab").decode("a"), ValueError, r"codes\[0\]: expected a number from 0 to 1; got a"),
        (lambda: data.Vocabulary("ab").decode([0, None]), ValueError, r"codes\[1\]: expected a number .*; got None"),
        (lambda: data.Vocabulary("ab").decode([np.nan]), ValueError, r"codes\[0\]: expected a number .*; got nan"),
        (lambda: data.Vocabulary("ab").decode(np.zeros((2, 2), int)), ValueError, r"codes\[0\]: expected .*; got \[0 0\]"),
        (lambda: data.Vocabulary([["a"]]), TypeError, "symbols: expected symbols such as characters and words; got list"),
        (lambda: data.Vocabulary("ab", ["c"]), TypeError, "unknown: expected symbols such as .*; got list"),
        (lambda: data.Vocabulary.of("a", [["b"]]), TypeError, r"sequences\[1\]: expected symbols such as .*; got list"),
        (lambda: data.Vocabulary.of("a", [1]), TypeError, "sequences: expected symbols that have an order; got int and str"),
        (lambda: data.Vocabulary("ab").encode([["a"]]), TypeError, "sequence: expected symbols such as .*; got list"),
        (lambda: data.pad([[1]], "a"), TypeError, "value: expected a number; got str"),
        (lambda: data.pad([[1]], length=np.ones(2)), TypeError, "length: expected an integer; got ndarray"),
        (lambda: data.unpad([[1], [2, 3]], [1, 1]), ValueError, "x: expected an array, or lists of equal lengths"),
        (lambda: data.windows([[1], [2, 3]], 1), ValueError, "series: expected an array, or lists of equal lengths"),
        (lambda: data.windows([1, 2], np.ones(2)), TypeError, "width: expected an integer; got ndarray"),
        (lambda: data.log_mel("abc", 8000), TypeError, "samples: expected real numbers; got <U3"),
        (lambda: data.log_mel([[1], [2, 3]], 8000), ValueError, "samples: expected an array, or lists of equal lengths"),
        (lambda: data.log_mel(np.zeros(9), 8000, emphasis="a"), TypeError, "emphasis: expected a finite number; got 'a'"),
        (lambda: data.deltas(["a"]), TypeError, "features: expected real numbers; got <U1"),
        (lambda: data.read_npz("x.npz", "y"), TypeError, "required: expected names, one after another; got str"),
        (lambda: data.read_cifar10_batch("x.bin", 2.5), TypeError, "images: expected an integer; got float"),
        (lambda: data.read_image_folder(5), TypeError, "directory: expected a path; got int"),
        (lambda: data.split_validation(5), TypeError, r"data: expected a Dataset \(.*\); got int"),
        (lambda: data.read_wav(None), TypeError, "path: expected a path; got NoneType"),
        (lambda: data.read_npz(5), TypeError, "path: expected a path; got int"),
        (lambda: data.load("mnist", 5), TypeError, "data_dir: expected a path; got int"),
        (lambda: data.Vocabulary("ab").encode(iter("az")), ValueError, r"sequence\[1\]: expected a symbol .*; got 'z'"),
        (lambda: data.log_mel(np.zeros(9), 0), ValueError, "rate: expected a finite number of more than 0; got 0"),
        (lambda: data.log_mel(np.zeros(9), 8000, floor=0), ValueError, "floor: expected a finite number of more than 0"),
        (lambda: data.log_mel(np.zeros(9), 8000, 0), ValueError, "bands: expected at least 1; got 0"),
        (lambda: data.mel_filters(4, 64, 8000, low=5000), ValueError, "high: expected a finite number of more than 5000"),
        (lambda: data.mfcc(np.zeros(9), 8000, 50, 40), ValueError, "coefficients: expected at most one a band, 40; got 50"),
        (lambda: data.deltas(np.ones((4, 2)), 0), ValueError, "reach: expected at least 1; got 0"),
        (lambda: data.deltas(np.ones(4)), ValueError, r"features: expected shape \[T,K\]"),
        (lambda: data.read_wav("no-such.wav"), data.MissingDataError, "no-such.wav: expected a file; got nothing there"),
        (lambda: Forecaster(alpha="a"), TypeError, "alpha: expected 0 or more; got 'a'"),
        (lambda: Forecaster().fit(None), TypeError, "series: expected an array or what makes one; got None"),
        (lambda: Forecaster().fit([[1, 2], [3]]), ValueError, "series: expected"),
        (lambda: Forecaster().fit(np.ones((9, 0))), ValueError, r"series: expected shape \[L\] or \[L,K\]; got \[9, 0\]"),
        (lambda: Forecaster().fit(np.arange(60.0), loss=len), ValueError, "loss: expected 'mse', 'mae' or 'huber'"),
        (lambda: Forecaster().build(spread=0.0), ValueError, "spread: expected more than 0; got 0.0"),
        (lambda: WordLM().fit(None), TypeError, "text: expected a string or a list of words; got NoneType"),
    ],
)  # fmt: skip
def test_odd_arguments_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def test_what_fills_up_keeps_its_value():
    np.testing.assert_array_equal(data.pad([[1, 2], [3]], np.nan)[0], [[1, 2], [3, np.nan]])
    assert data.pad([[1, 2], [3]], -1)[0].dtype == np.int64


def test_wav_of_samples_in_wider_boxes(tmp_path):
    wav(tmp_path / "a.wav", np.arange(8, dtype=np.uint8), 24)
    blob = bytearray((tmp_path / "a.wav").read_bytes())
    at = blob.index(b"fmt ") + 8 + 12
    blob[at : at + 2] = struct.pack("<H", 4)
    (tmp_path / "a.wav").write_bytes(blob)
    with pytest.raises(data.DataError, match="expected 3 bytes for 1 samples of 24 bits; got 4"):
        data.read_wav(tmp_path / "a.wav")


def test_no_sequences_and_one_value_a_step(rng):
    x, y = counting(rng, 20)
    model = RNNClassifier(units=4).fit(x, y, epochs=1)
    assert model.predict(np.zeros((0, 5, 2))).shape == (0,)
    assert RNNClassifier(units=4).build((5,), 3).predict(np.ones((2, 7))).shape == (2,)
    tokens = RNNClassifier(units=4, vocabulary=3).build((5,), 3)
    with pytest.raises(ValueError, match="X: expected tokens from 0 to 2; got"):
        tokens.predict(np.array([[2**63]], np.uint64))


def test_bytes_and_wide_floats_are_not_mixed(rng, tmp_path):
    x, y = rng.integers(0, 256, (12, 5, 2)).astype(np.uint8), np.arange(12) % 2
    for given in (x, list(x)):
        model = RNNClassifier(units=4).fit(given, y, epochs=1)
        np.testing.assert_array_equal(model.predict(x / 255.0), model.predict(x))
        model.save(tmp_path / "m")
        for one in (model, models.load(tmp_path / "m")):
            with pytest.raises(ValueError, match="X: expected uint8, as in training, or values from 0 to 1"):
                one.predict(list(x.astype(float)))
    wide = RNNClassifier(units=4).fit(list(x.astype(float)), y, epochs=1)
    with pytest.raises(ValueError, match="X: expected floats on the scale of training, which went beyond 1; got uint8"):
        wide.predict(x)
    short = RNNClassifier(units=4).fit(x[:, :, :1] / 255.0, y, epochs=1)
    assert short.scale_ == "unit" and short.predict(x[:, :, :1]).shape == (12,)


def test_texts_and_series_at_their_ends():
    model = CharLM(units=4, embedding=4).fit("abc" * 20, epochs=1, batch_size=2, window=5)
    assert model.sample(3, "a", temperature=5e-324, top_k=99) == model.sample(3, "a", temperature=1e-300)
    with pytest.raises(ValueError, match="temperature: expected a finite number of more than 0; got inf"):
        model.sample(3, "a", temperature=np.inf)
    with pytest.raises(TypeError, match="prompt: expected a string; got int"):
        model.sample(3, 5)
    assert model.sample(0) == ""
    with pytest.raises(TypeError, match="n: expected an integer; got float"):
        model.sample(0.0)
    with pytest.raises(TypeError, match="validation: expected a string; got float"):
        model.fit("abc" * 20, validation=0.1)
    model.fit("abc" * 20, epochs=1, batch_size=2, window=5)
    weights = model.get_weights()
    model.set_weights({k: v * 1e6 if "head" in k else v for k, v in weights.items()})
    assert model.perplexity("abcacbbca") == np.inf
    model.set_weights({k: np.full_like(v, np.nan) for k, v in weights.items()})
    for call in (lambda: model.sample(3, "a"), lambda: model.next("a")):
        with pytest.raises(ValueError, match="CharLM: expected a network that gives numbers; got nan"):
            call()
    series = Forecaster(window=3, units=4).fit(np.arange(20.0), epochs=1)
    with pytest.raises(ValueError, match="series: expected 81 values or more for one forecast; got 20"):
        series.rolling(np.arange(20.0), 80)
    with pytest.raises(TypeError, match="start: expected an integer; got float"):
        series.rolling(np.arange(20.0), 3.5)
