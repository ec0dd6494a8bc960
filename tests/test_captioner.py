"""The captioner on drawn squares: it learns their names, says new combinations, and comes back from its files."""

import itertools

import numpy as np
import pytest

from fastdl import data, models
from fastdl.models import Captioner
from fastdl.models.captioner import _overlap
from fastdl.recipes import emoji_captions

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}
PLACES = {"above": (0, slice(None)), "below": (1, slice(None)), "left": (slice(None), 0), "right": (slice(None), 1)}


def squares(copies, seed=0):
    """8x8 images, one half coloured, with noise; captions such as 'red half above'."""
    rng = np.random.default_rng(seed)
    images, captions = [], []
    for colour, place in list(itertools.product(COLOURS, PLACES)) * copies:
        image = rng.integers(200, 255, (2, 4, 2, 4, 3))
        rows, columns = PLACES[place]
        image[rows, :, columns] = np.array(COLOURS[colour]) + rng.integers(0, 30, 3)
        images.append(image.reshape(8, 8, 3))
        captions.append(f"{colour} half {place}")
    return np.array(images, np.uint8), captions


def make(**more):
    return Captioner(**{"filters": (8,), "features": 16, "units": 16, "embedding": 8, "dropout": 0.1, "seed": 1} | more)


@pytest.fixture(scope="module")
def trained():
    x, captions = squares(12)
    held = squares(2, seed=1)
    return make().fit(x, captions, epochs=25, batch_size=16, lr=0.01, validation=held)


def test_it_learns_to_describe(trained):
    x, captions = squares(3, seed=2)
    for how in ({}, {"consensus": False}, {"width": 1, "consensus": False}):
        said = trained.caption(x, **how)
        assert np.mean([a == b for a, b in zip(said, captions, strict=True)]) > 0.9, how
    assert trained.history_["val_loss"][-1] < 0.3
    assert trained.transform(x).shape == (36, 16)
    best = trained.hypotheses(x[:2], width=4)
    assert [len(found) for found in best] == [4, 4] and best[0][0].score >= best[0][1].score


def test_neighbours_vote(trained):
    x, captions = squares(2, seed=5)
    known, _ = squares(1, seed=6)
    others = [f"{c} word" for c in squares(1)[1]]  # what the network cannot say
    assert trained.caption(x, known=(known, others), share=0.0) == trained.caption(x)
    near = trained.caption(x, known=(known, others), neighbours=1, share=1.0)
    assert np.mean([s == c for s, c in zip(near, captions, strict=True)]) > 0.9  # unknown words are not said
    with pytest.raises(ValueError, match="known captions: expected 12, one for each image; got 11"):
        trained.caption(x, known=(known, others[1:]))


def test_sharpness_weighs_the_nearest(trained):
    x, captions = squares(1, seed=5)
    one, other = captions[0], next(c for c in captions if c != captions[0])
    far = [i for i, c in enumerate(captions) if c == other][:1]
    known = x[[0, *far, *far]], [one, other, other]  # the image itself, and twice another

    def say(sharpness):
        return trained.caption(x[:1], known=known, neighbours=3, share=1.0, sharpness=sharpness)

    assert say(0.0) == [other] and say(1000.0) == [one]
    with pytest.raises(ValueError, match="sharpness: expected 0 or more; got -1"):
        say(-1)


def test_an_image_is_described_as_alone(trained):
    x, _ = squares(1, seed=3)
    assert trained.caption(x) == [trained.caption(x[i : i + 1])[0] for i in range(len(x))]


def test_it_comes_back_from_its_files(trained, tmp_path):
    x, captions = squares(1, seed=4)
    trained.save(tmp_path / "words.safetensors")
    again = models.load(tmp_path / "words.safetensors")
    np.testing.assert_array_equal(again.transform(x), trained.transform(x))
    assert again.caption(x) == trained.caption(x)

    def fit(epochs, **more):
        return make(word_dropout=0.2, bag=0.5).fit(x, captions, epochs=epochs, batch_size=5, lr=0.01, **more)

    whole = fit(4)
    fit(2, checkpoint=tmp_path / "run.ckpt")
    resumed = fit(4, checkpoint=tmp_path / "run.ckpt", resume=True)
    for name, a in whole.get_weights().items():
        np.testing.assert_array_equal(a, resumed.get_weights()[name], err_msg=name)


def test_rare_and_unseen_words_are_never_said():
    x, captions = squares(2)
    captions[0] = "very red half above"
    model = make(at_least=2).fit(x, captions, epochs=2, validation=(x[:1], ["never seen"]))
    assert "very" not in model.vocabulary_ and "half" in model.vocabulary_
    assert not any("<" in s or "very" in s for s in model.caption(x))


def test_a_word_that_is_written_as_unknown_is_one():
    """Not something to learn to say."""
    x, captions = squares(2)
    one, other = (
        make(at_least=2).fit(x, [captions[0].replace("half", word), *captions[1:]], epochs=2) for word in ("rare", "<unknown>")
    )
    for name, a in one.get_weights().items():
        np.testing.assert_array_equal(other.get_weights()[name], a)


def test_bad_arguments_are_named():
    x, captions = squares(1)
    with pytest.raises(ValueError, match="captions: expected 12, one for each image; got 11"):
        make().fit(x, captions[1:])
    with pytest.raises(ValueError, match=r"X: expected images \[N,Y,X,C\]; got shape \[12, 192\]"):
        make().fit(x.reshape(12, -1), captions)
    with pytest.raises(RuntimeError, match="Captioner: expected a model that was built or fitted"):
        make().caption(x)


def test_what_was_found_is_voted_on_again_and_again(trained):
    x, captions = squares(2, seed=5)
    known = squares(1, seed=6)
    found = emoji_captions.candidates(trained, *known, x)
    for vote in ((0.0, 0.0), (0.5, 20.0), (0.9, 80.0)):
        again = trained.caption(
            x, 3, known=known if vote[0] else None, neighbours=10, share=vote[0], sharpness=vote[1]
        )
        assert emoji_captions.say(trained, found, *vote) == again
    assert emoji_captions.best_vote(trained, found, captions)[0] in (0.0, *emoji_captions.SHARES)


def test_known_images_and_vocabularies_are_checked(trained):
    x, captions = squares(1)
    for known, message in (
        ((x[:0], []), "known X: expected one sample or more; got none"),
        ((np.zeros((1, 9, 9, 3), np.uint8), ["a"]), r"known X: expected samples of shape \[8, 8, 3\]"),
        ((np.full((1, 8, 8, 3), np.nan), ["a"]), "known X: expected images of finite numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            trained.caption(x, known=known)
    with pytest.raises(ValueError, match="smoothing: expected 0 <= smoothing < 1; got 1.0"):
        make().fit(x, captions, smoothing=1.0)
    with pytest.raises(ValueError, match="vocabulary: expected '<unknown>' among its words; got none"):
        make().build((8, 8, 3), data.Vocabulary(["<end>", "a"]))
    with pytest.raises(TypeError, match="vocabulary: expected a fastdl.data.Vocabulary; got list"):
        make().build((8, 8, 3), ["<end>", "<unknown>"])
    for shape in (8, (8, 8), (8, "8", 3)):
        with pytest.raises(ValueError, match="input_shape: expected"):
            make().build(shape, trained.vocabulary_)
    broken = make().build((8, 8, 3), trained.vocabulary_)
    broken.set_weights({k: np.full_like(v, np.nan) if "choose" in k else v for k, v in broken.get_weights().items()})
    with pytest.raises(ValueError, match="step: expected logits of which the highest is finite; got nan"):
        broken.caption(x[:1])


def test_figures_of_captions():
    truth = ["red half above", "blue half left"]
    perfect = emoji_captions.judge(truth, truth, np.arange(2), draws=20)
    assert [perfect[k] for k in ("bleu2", "f1", "exact", "bleu2_low", "f1_high")] == [100.0] * 5
    # by hand: 4 of 6 words, 2 of 4 pairs, no brevity penalty
    got = emoji_captions.figures(emoji_captions.counts(["red half below", "red half left"], truth))
    np.testing.assert_allclose(got, [100 * np.sqrt(4 / 6 * 2 / 4), 100 * 2 / 3, 0.0])
    # short: 3 words of 6, all right
    got = emoji_captions.figures(emoji_captions.counts(["red half", "blue"], truth))
    np.testing.assert_allclose(got[0], 100 * np.exp(1 - 6 / 3))
    assert emoji_captions.nearest([[0, 0], [3, 3]], [[2.9, 3], [0.1, 0]]).tolist() == [1, 0]
    assert _overlap([1, 2, 3], [1, 2, 3]) == 1.0 and _overlap([1], [2]) == 0.0


def test_bounds_are_of_drawings():
    truth = ["red half above", "blue half left"] * 6
    said = ["red half above"] * 12
    apart = emoji_captions.judge(said, truth, np.arange(12), draws=200)
    together = emoji_captions.judge(said, truth, np.arange(12) // 6, draws=200)
    assert together["f1_low"] == together["f1_high"] == together["f1"] == apart["f1"] > apart["f1_low"]
    ahead = emoji_captions.judge(truth, truth, np.arange(12), [said, ["blue"] * 12], draws=50)
    assert ahead["exact_lead"] == 50.0 and ahead["f1_lead"] == 100.0 - apart["f1"] > ahead["f1_lead_low"] > 0.0


def test_held_out_drawings_have_words_that_are_known():
    captions = ["man cook", "man cook light", "woman cook", "man pilot", "woman pilot", "zebra", "man", "woman light"]
    bases = ["a", "a", "b", "c", "d", "e", "f", "g"]
    part = emoji_captions.split(captions, bases, 2, 1)
    assert part[0] == part[1] and part[5] == 2
    held = [len({b for b, p in zip(bases, part, strict=True) if p == k}) for k in (0, 1)]
    assert held == [2, 1]
    known = {w for c, p in zip(captions, part, strict=True) if p == 2 for w in c.split()}
    assert all(set(c.split()) <= known for c, p in zip(captions, part, strict=True) if p < 2)
    np.testing.assert_array_equal(part, emoji_captions.split(captions, bases, 2, 1))


def test_on_device_arrays():
    import fake_cuda
    from fastdl import backend

    x, captions = squares(1)

    def fit(device):
        return make(word_dropout=0.1, bag=0.5).to(device).fit(x, captions, epochs=2, batch_size=5, validation=(x, captions))

    here = fit("cpu")
    with fake_cuda.as_cuda(fake_cuda.HostKernels(backend.cpu)):
        there = fit("cuda")
        assert isinstance(there.module_.choose.w.data, fake_cuda.ndarray)
        np.testing.assert_array_equal(there.transform(x), here.transform(x))
        assert there.caption(x) == here.caption(x)
