"""Pictures: what was drawn is read back from the axes; impossible requests are named."""

import numpy as np
import pytest

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("agg")
pyplot = pytest.importorskip("matplotlib.pyplot")

from fastdl import plot  # noqa: E402

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def closed():
    yield
    pyplot.close("all")


@pytest.fixture
def ax():
    return plot.canvas((3, 3)).subplots()


def shown(ax):
    """The array of the only image on the axes."""
    (image,) = ax.images
    return np.asarray(image.get_array())


def words(ax):
    return [t.get_text() for t in ax.texts]


@pytest.mark.parametrize("shape", [(5, 4, 6), (5, 4, 6, 1), (5, 4, 6, 3), (5, 16)])
def test_samples_lie_side_by_side(ax, shape):
    x = RNG.random(shape).astype(np.float32)
    assert plot.samples(x, ax, columns=3, title="epoch 1") is ax
    sheet = shown(ax)
    y, c = (4, 4) if len(shape) == 2 else shape[1:3]
    assert sheet.shape[:2] == (2 * y + 1, 3 * c + 2)
    last = x.reshape(5, y, c, -1)[4]
    np.testing.assert_allclose(sheet.reshape(*sheet.shape[:2], -1)[y + 1 :, c + 1 : 2 * c + 1], last, rtol=1e-6)
    assert ax.get_title() == "epoch 1"


def test_bytes_are_scaled_and_all_else_is_cut_to_0_and_1(ax):
    plot.samples(np.array([[[0, 255]]], np.uint8), ax)
    assert shown(ax).tolist() == [[0.0, 1.0]]
    assert shown(plot.samples(np.array([[[-1.0, 2.0]]]))).tolist() == [[0.0, 1.0]]


def test_reconstructions_stand_below_their_originals(ax):
    x = RNG.random((5, 4, 4))
    assert plot.reconstructions(x, 1 - x, x / 2, names=("data", "model", "PCA"), ax=ax, count=3) is ax
    sheet = shown(ax)
    assert sheet.shape == (3 * 4 + 2, 3 * 4 + 2)
    np.testing.assert_allclose(sheet[5:9, 5:9], 1 - x[1], rtol=1e-5)
    assert words(ax) == ["data", "model", "PCA"]


def test_captions_show_text_and_truth():
    used = plot.captions(RNG.random((3, 4, 4, 3)), ["a red thing", "two", "three"], ["red", "2", "3"], columns=2)
    assert [a.get_title() for a in used] == ["a red thing", "two", "three"]
    assert [words(a) for a in used] == [["red"], ["2"], ["3"]]


def test_dollars_in_a_text_are_no_formula():
    price = r"$5 \or $6"
    axes = [
        *plot.captions(np.zeros((1, 4, 4)), [price], [price]),
        plot.gates(np.ones((1, 2)), [price]),
        plot.tree((3, (2, price), (3, "fair"))),
        plot.embeddings([[0.0, 1.0]], texts=[price]),
    ]
    for ax in axes:
        ax.figure.canvas.draw()  # reads what is taken for a formula, and fails where it is none
    for ax in axes:
        plot.require().close(ax.figure)


def test_confusion_counts(ax):
    plot.confusion([0, 0, 1, 2, 2, 2], [0, 1, 1, 2, 2, 0], ax=ax)
    np.testing.assert_allclose(shown(ax), [[0.5, 0.5, 0], [0, 1, 0], [1 / 3, 0, 2 / 3]])
    assert words(ax) == ["1", "1", "1", "1", "2"]
    named = plot.confusion([0, 0], [0, 0], names=("cat", "dog"))
    assert shown(named).shape == (2, 2) and [t.get_text() for t in named.get_xticklabels()] == ["cat", "dog"]


def test_embeddings_are_coloured_by_class_and_projected(ax):
    x = RNG.standard_normal((30, 2))
    plot.embeddings(x, np.arange(30) % 3, ("a", "b", "c"), ax=ax)
    assert [line.get_label() for line in ax.get_lines()] == ["a", "b", "c"]
    np.testing.assert_array_equal(ax.get_lines()[1].get_xydata(), x[1::3])
    many = np.outer(np.arange(8.0), [3.0, 4.0, 0.0])
    other = plot.embeddings(many)
    assert other.get_xlabel() == "principal axis 1, 100% of the variance"
    assert np.ptp(other.get_lines()[0].get_xdata()) == pytest.approx(35.0)
    written = plot.embeddings(x[:4], texts=["one", "two", "three", "four"])
    assert words(written) == ["one", "two", "three", "four"] and not written.get_lines()


def test_gates_over_time(ax):
    a = RNG.random((5, 3))
    plot.gates(a, list("abcde"), ax, "input gate")
    np.testing.assert_array_equal(shown(ax), a.T)
    assert ax.images[0].get_clim() == (0.0, 1.0) and [t.get_text() for t in ax.get_xticklabels()] == list("abcde")
    states = plot.gates(np.array([[0.5], [-2.0]]))
    assert states.images[0].get_clim() == (-2.0, 2.0)


def test_tree_of_a_sentence(ax):
    root = (3, (2, "not"), ((4, 3), (2, "very"), (0, "bad")))
    assert plot.tree(root, ax) is ax
    assert words(ax) == ["0", "0", "--", "++", "+", "not", "very", "bad"]
    branches = [line for line in ax.get_lines() if line.get_linestyle() == "-"]
    circles = [line for line in ax.get_lines() if line.get_marker() == "o"]
    assert len(branches) == 4 and len(circles) == 5
    assert [c.get_markeredgecolor() == "k" for c in circles] == [False, False, False, True, False]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: plot.samples(np.zeros((2, 5))), "images: expected images"),
        (lambda: plot.samples(np.zeros((0, 4, 4))), "images: expected images"),
        (lambda: plot.reconstructions(np.zeros((2, 4, 4)), np.zeros((2, 3, 4))), r"others\[0\]: expected shape"),
        (lambda: plot.reconstructions(np.zeros((2, 4)), names=("a", "b")), "names: expected 1, one a line; got 2"),
        (lambda: plot.captions(np.zeros((2, 4)), ["a"]), "texts: expected 2"),
        (lambda: plot.confusion([0], [0, 1]), "truth, predicted: expected one shape"),
        (lambda: plot.confusion(["a", "b"], ["a", "a"], names=("one",)), "names: expected 2"),
        (lambda: plot.embeddings(np.zeros((3, 1))), "points: expected shape"),
        (lambda: plot.embeddings(np.zeros((3, 2)), labels=[0]), "labels: expected 3"),
        (lambda: plot.gates(np.zeros(3)), "activity: expected shape"),
        (lambda: plot.gates(np.zeros((3, 2)), ["a"]), "tokens: expected 3"),
        (lambda: plot.tree((0,)), "root: expected"),
        (lambda: plot.tree((7, "word")), "root: expected labels from 0 to 4; got 7"),
    ],
)
def test_impossible_pictures_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_axes_are_made_where_none_are_given(tmp_path):
    figure = plot.canvas()
    plot.samples(np.zeros((2, 4)), figure.subplots())
    figure.savefig(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert plot.gates(np.zeros((2, 2))).figure.number


def test_a_tree_is_drawn_as_it_was_read():
    from fastdl.data import parse_trees

    tree = parse_trees("(3 (2 a) (4 treat))")[0]
    assert words(plot.tree(tree)) == words(plot.tree((3, (2, "a"), (4, "treat"))))
    with pytest.raises(ValueError, match="root: expected labels from 0 on; got 'good'"):
        plot.tree(("good", "a"))


def test_a_loss_below_zero_is_in_the_picture(ax):
    plot.learning_curve({"epoch": [1, 2], "loss": [-1.0, -5.0], "val_accuracy": [0.5, float("nan")]}, ax)
    assert ax.get_ylim()[0] < -5


def test_classes_may_be_words(ax):
    plot.embeddings(RNG.random((6, 2)), ["cat", "dog"] * 3, ax=ax)
    assert {line.get_label() for line in ax.get_lines()} == {"cat", "dog"}


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plot.samples("abc"), TypeError, "images: expected an array of real numbers"),
        (lambda: plot.samples(3.0), ValueError, "images: expected images"),
        (lambda: plot.reconstructions(RNG.random((2, 3, 3)), count=0), ValueError, "count: expected at least 1; got 0"),
        (lambda: plot.captions(RNG.random((2, 3, 3)), ["a", "b"], axes=[None]), ValueError, "axes: expected 2, one an image"),
        (lambda: plot.embeddings(RNG.random((6, 2)), [0, 1] * 3, names=["a"]), ValueError, "names: expected 2 or more"),
        (lambda: plot.embeddings(np.full((6, 3), np.nan)), ValueError, "points: expected finite numbers"),
        (lambda: plot.learning_curve(None), TypeError, "history: expected a dict"),
        (lambda: plot.mistakes(np.ones((2, 3, 3)), ["a", "b"], [0, 1], np.ones((2, 2))), TypeError, "truth: expected columns"),
    ],
)
def test_what_cannot_be_drawn_is_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


MISTAKES = np.ones((2, 3, 3)), [0, 1], [1, 0], np.full((2, 2), 0.5)


def changed(**other):
    return {**dict(zip(("images", "truth", "predicted", "probabilities"), MISTAKES, strict=True)), **other}


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda: plot.samples(np.ones((2, 4)), columns=-1), ValueError, "columns: expected at least 1; got -1"),
        (lambda: plot.samples(np.ones((2, 4)), columns="a"), TypeError, "columns: expected an integer; got str"),
        (lambda: plot.reconstructions(np.ones((2, 4)), names=[3]), TypeError, "names: expected strings; got int"),
        (lambda: plot.captions(np.ones((1, 4)), ["a"], columns=0), ValueError, "columns: expected at least 1; got 0"),
        (lambda: plot.captions(np.ones((1, 4)), ["a"], width=0), ValueError, "width: expected at least 1; got 0"),
        (lambda: plot.captions(np.ones((1, 4)), [3]), TypeError, "texts: expected strings; got int"),
        (lambda: plot.captions(np.ones((1, 4)), 3), TypeError, "texts: expected a sequence of strings; got int"),
        (lambda: plot.captions(np.ones((1, 4)), ["a"], axes=3), TypeError, "axes: expected a sequence of matplotlib Axes"),
        (lambda: plot.captions(np.ones((1, 4)), ["a"], axes=[3]), TypeError, r"axes\[0\]: expected matplotlib Axes; got int"),
        (lambda: plot.filters(np.ones((3, 3, 1, 0))), ValueError, "weights: expected filters .* got shape .3, 3, 1, 0"),
        (lambda: plot.filters("abc"), TypeError, "weights: expected an array of real numbers"),
        (lambda: plot.filters(np.ones((3, 3, 1, 2)), columns=0), ValueError, "columns: expected at least 1; got 0"),
        (lambda: plot.hierarchy(None, None, units=0), ValueError, "units: expected at least 1; got 0"),
        (lambda: plot.hierarchy(None, None, patches=0), ValueError, "patches: expected at least 1; got 0"),
        (lambda: plot.mistakes(*MISTAKES, count=0), ValueError, "count: expected at least 1; got 0"),
        (lambda: plot.mistakes(*MISTAKES, names=["a"]), ValueError, "names: expected 2, one a class; got 1"),
        (lambda: plot.mistakes(**changed(truth=[0, 2])), ValueError, "truth: expected columns of .*, 0 to 1; got 2"),
        (lambda: plot.mistakes(**changed(predicted=[-1, 1])), ValueError, "predicted: expected columns of .*, 0 to 1; got -1"),
        (lambda: plot.mistakes(**changed(probabilities=[1, 1])), ValueError, "probabilities: expected shape .N,classes"),
        (lambda: plot.attribution(np.ones((0, 3)), np.ones((0, 3))), ValueError, "image, shares: expected"),
        (lambda: plot.confusion([0, 1], ["a", "b"]), TypeError, "truth, predicted: expected labels of one kind"),
        (lambda: plot.confusion([0, "a"], [0, 1]), TypeError, "truth: expected integer or string labels; got some of both"),
        (lambda: plot.confusion([0, 1], [0, 1], names=[3, 4]), TypeError, "names: expected strings; got int"),
        (lambda: plot.embeddings(np.ones((2, 2)), labels=3), ValueError, "labels: expected 2, one a point"),
        (lambda: plot.calibration([0.1, 0.9], [0, 1], bins=0), ValueError, "bins: expected at least 1; got 0"),
        (lambda: plot.calibration([0.1, np.nan], [0, 1]), ValueError, "p: expected finite numbers; got NaN"),
        (lambda: plot.roc([0.1, np.nan], [0, 1]), ValueError, "p: expected finite numbers; got NaN"),
        (lambda: plot.gates(np.full((2, 2), np.nan)), ValueError, "activity: expected finite numbers; got NaN"),
        (lambda: plot.gates(np.ones((2, 2)), [1, 2]), TypeError, "tokens: expected strings; got int"),
        (lambda: plot.tree(((1, 2, 3), "word")), ValueError, r"root: expected a label or \(predicted, true\)"),
        (lambda: plot.doctor(MISTAKES), TypeError, "report: expected one as from diagnostics.examine; got tuple"),
        (lambda: plot.updates(MISTAKES), TypeError, "watch: expected a fastdl.diagnostics.Watch; got tuple"),
        (lambda: plot.report_picture("a.png", 3), TypeError, "report: expected a fastdl.recipes.Report; got int"),
        (lambda: plot.samples(np.ones((2, 4)), ax=3), TypeError, "ax: expected matplotlib Axes; got int"),
        (lambda: plot.samples([[1], [1, 2]]), ValueError, "images: expected an array, or lists of equal lengths"),
        (lambda: plot.filters(np.zeros((0, 3))), ValueError, "weights: expected filters"),
        (lambda: plot.roc([0.1, 0.9], [[1], [1, 2]]), ValueError, "y: expected an array, or lists of equal lengths"),
        (lambda: plot.mistakes(None, [0], [1], [[1, 0]]), TypeError, "images: expected an array .*; got NoneType"),
        (lambda: plot.mistakes(np.ones((1, 2, 2)), [0], [1], 3), TypeError, "probabilities: expected an array .*; got int"),
        (lambda: plot.roc([0.1, 0.9], [0, 1], ax=3), TypeError, "ax: expected matplotlib Axes; got int"),
    ],
)
def test_odd_arguments_are_named(call, kind, message):
    with pytest.raises(kind, match="^" + message):
        call()


def test_one_point_lies_in_the_middle(ax):
    plot.embeddings([[3.0, 4.0, 5.0]], ax=ax)
    assert ax.get_lines()[0].get_xydata().tolist() == [[0.0, 0.0]]
    assert ax.get_xlabel() == "principal axis 1, 0% of the variance"


def test_no_threshold_parts_equal_scores():
    """The order of the samples decided what came of them: scores that are all alike looked perfect."""
    p, y = np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1]), np.array([1, 1, 1, 0, 0, 0])
    for order in (np.arange(6), np.array([0, 3, 4, 1, 2, 5])):
        x, hits = plot.roc(p[order], y[order]).get_lines()[0].get_data()
        np.testing.assert_allclose(x, [0, 0, 2 / 3, 1])
        np.testing.assert_allclose(hits, [0, 1 / 3, 1, 1])
    x, hits = plot.roc(np.full(6, 0.5), y).get_lines()[0].get_data()
    assert x.tolist() == hits.tolist() == [0, 1]
