"""Trees: the reader, batches, the operation, the model; and CTC against a list of all alignments."""

import itertools
import threading

import numpy as np
import pytest

import reference_trees as reference
from conftest import LOADED
from fastdl import data, models, nn, ops
from fastdl.data import DataError, Forest, Tree, Vocabulary, parse_trees
from fastdl.models import RNTN
from fastdl.tensor import Tensor

TOY = """
(3 (2 a) (3 (4 fine) (2 day)))
(1 (2 the) (1 (1 dull) (2 day)))
(2 word)
(0 (0 awful) (1 (1 dull) (2 (2 the) (2 rain))))
(4 (4 (4 fine) (3 (2 a) (3 sun))) (3 (2 and) (3 warm)))
"""


@pytest.fixture
def trees():
    return parse_trees(TOY)


def test_trees_are_read_and_written(trees):
    assert len(trees) == 5 and trees[0].words() == ["a", "fine", "day"]
    assert str(trees[0]) == "(3 (2 a) (3 (4 fine) (2 day)))"
    assert [node.label for node in trees[0].nodes()] == ["2", "4", "2", "3", "3"]
    assert trees[0].as_tuple() == ("3", ("2", "a"), ("3", ("4", "fine"), ("2", "day")))
    again = parse_trees("\n".join(map(str, trees)))
    assert [str(t) for t in again] == [str(t) for t in trees]
    assert parse_trees(r"(2 (2 and\/or) (2 \*))")[0].words() == ["and/or", "*"]
    assert parse_trees("(2 (2 2\u00a01\\/2) (2 hours))")[0].words() == ["2\u00a01/2", "hours"]


def test_a_deep_tree_needs_no_recursion():
    text = "(1 a)"
    for _ in range(5000):
        text = f"(1 (1 b) {text})"
    (tree,) = parse_trees(text)
    assert len(tree.words()) == 5001 and str(tree) == text
    model = RNTN(width=2).build(Vocabulary(["a", "b"], "<unknown>"), ["0", "1"])
    assert len(model.predict([tree])[0]) == 10001


@pytest.mark.parametrize(
    "text, message",
    [
        ("(2 (3 a) (1 b)", r"expected '\)' for every '\('; got the end of the text; open is '\(' at line 1, column 1"),
        ("(2 a)\n  (3 b))", r"expected '\(' or the end; got '\)' at line 2, column 8"),
        ("(2 a)\nword", r"expected '\('; got 'word' at line 2, column 1"),
        ("((2 a))", r"expected a label behind '\('; got '\(' at line 1, column 2"),
        ("(2 ())", r"expected a label, .*; got none at line 1, column 5"),
        ("(2)", r"expected a label, then a word or a tree, between brackets; got a label at line 1, column 3"),
        ("()", "got none at line 1, column 2"),
        ("(2 a b)", r"expected '\)'; got 'b' at line 1, column 6"),
        ("(2 a (3 b))", r"expected '\)' behind a word; got '\(' at line 1, column 6"),
        ("(2 (3 a) b)", r"expected '\(' or '\)'; got 'b' at line 1, column 10"),
    ],
)
def test_malformed_trees_are_named_with_their_place(text, message, tmp_path):
    with pytest.raises(DataError, match=message):
        parse_trees(text)
    (tmp_path / "trees.txt").write_text(text)
    with pytest.raises(DataError, match=f"trees.txt: .*{message}"):
        data.read_trees(tmp_path / "trees.txt")


def test_a_file_without_trees_is_an_error(tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="expected at least one tree; got none"):
        data.read_trees(tmp_path / "empty.txt")
    with pytest.raises(data.MissingDataError, match="sst/train.txt.gz"):
        data.load_sst(tmp_path)


def test_batches_hold_the_trees(trees):
    forest = Forest(trees, lambda word: sum(map(ord, word)), int)
    batch = forest.batch([4, 2, 0, 3])
    leaves, nodes = len(batch.words), len(batch.labels)
    assert nodes == leaves + len(batch.children) == 9 + 1 + 5 + 7
    # every node's height is one more than the higher of its children's, and heights are in order
    height = np.zeros(nodes, int)
    for i, (left, right) in enumerate(batch.children):
        height[leaves + i] = 1 + max(height[left], height[right])
    assert (np.diff(height) >= 0).all() and np.searchsorted(height[leaves:], [2, 3]).tolist() == batch.ends[:2].tolist()
    assert batch.ends[-1] == len(batch.children)
    assert [int(batch.labels[r]) for r in batch.roots] == [4, 2, 3, 0]

    def words_below(row):
        if row < leaves:
            return [int(batch.words[row])]
        left, right = batch.children[row - leaves]
        return words_below(left) + words_below(right)

    for root, tree in zip(batch.roots, (trees[i] for i in (4, 2, 0, 3)), strict=True):
        assert words_below(root) == [sum(map(ord, word)) for word in tree.words()]
    whole = forest.by_tree(forest.labels)
    assert [part.tolist() for part in whole] == [[int(n.label) for n in t.nodes()] for t in trees]
    assert len(forest.batch([]).labels) == 0


def test_a_tree_may_stand_in_several_places():
    leaf = data.Tree("1", "a")
    pair = data.Tree("2", children=[leaf, leaf])
    whole = data.Tree("3", children=[pair, pair])
    again = parse_trees(str(whole))[0]
    assert whole.as_tuple() == again.as_tuple()
    batches = [Forest([tree], len, int).batch([0]) for tree in (whole, again)]
    for name in data.trees.Batch.__slots__:
        np.testing.assert_array_equal(*(getattr(b, name) for b in batches), err_msg=name)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda t: data.Tree("1", children=["a"]), TypeError, "children: expected Tree objects; got str"),
        (lambda t: data.Tree("1", children=5), TypeError, "children: expected Tree objects, one after another; got int"),
        (lambda t: t[0].as_tuple(["a"]), ValueError, "labels: expected 5, one for each node; got 1"),
        (lambda t: t[0].as_tuple(5), ValueError, "labels: expected 5, one for each node; got int"),
        (lambda t: Forest(5, len, int), TypeError, "trees: expected Tree objects, one after another; got int"),
        (lambda t: Forest(t, {"a": 1}, int), TypeError, "word: expected a function; got dict"),
        (lambda t: Forest(t, len, None), TypeError, "label: expected a function; got NoneType"),
        (lambda t: Forest(t, lambda word: 1.5, int), TypeError, "word: expected a function that gives integers; got float"),
        (lambda t: Forest(t, len, str), TypeError, "label: expected a function that gives integers; got str"),
        (lambda t: Forest(t, len, int).by_tree(np.zeros(9)), ValueError, r"values: expected 27, one for each node; .* \[9\]"),
        (lambda t: data.read_trees(None), TypeError, "path: expected a path; got NoneType"),
        (lambda t: data.load_sst(5), TypeError, "data_dir: expected a path; got int"),
    ],
)
def test_odd_arguments_are_named(trees, call, kind, message):
    with pytest.raises(kind, match=message):
        call(trees)


def test_places_in_a_forest_are_checked(trees):
    forest = Forest(trees, lambda word: 0, int)
    np.testing.assert_array_equal(forest.batch(np.array([4, 0], np.int32)).labels, forest.batch([4, 0]).labels)
    for wrong, got in (([0, 5], "5"), ([-1], "-1"), ([2**40], "1099511627776")):
        with pytest.raises(ValueError, match=f"index: expected integers from 0 to 4; got {got}$"):
            forest.batch(wrong)
    for wrong in ([0.5], ["a"], [None], [True, False, True, False, False]):
        with pytest.raises(TypeError, match="index: expected an array of integers; got .* of (float64|<U1|object|bool)"):
            forest.batch(wrong)
    for wrong, got in ((2, r"\[\]"), ([[0, 1]], r"\[1, 2\]")):
        with pytest.raises(ValueError, match=rf"index: expected shape \[trees\]; got {got}"):
            forest.batch(wrong)


def tree_calls(target, leaves, children, ends):
    """Calls of every kernel over trees, with all else right."""
    n, (m, d) = len(children), leaves.shape
    h, w = np.zeros((m + n, d), np.float32), np.zeros((2 * d, 5 * d), np.float32)
    plain, gates = np.zeros((2 * d, d), np.float32), np.zeros((n, 5 * d), np.float32)
    return [
        lambda: target.rntn_forward(leaves, children, ends, None, plain),
        lambda: target.rntn_backward(h, children, ends, None, plain, h),
        lambda: target.tree_lstm_forward(leaves, leaves, children, ends, w),
        lambda: target.tree_lstm_backward(h, h, gates, children, ends, w, h),
    ]


@pytest.mark.parametrize(
    ("children", "ends", "limit", "row", "got"),
    [
        ([[0, 1], [2, 4]], [1, 2], 3, 1, 4),  # itself
        ([[4, 1], [3, 2]], [1, 2], 2, 0, 4),  # a later one
        ([[0, 1], [3, 2]], [2], 2, 1, 3),  # one of its own height
        ([[0, 1], [3, 2]], [0, 2], 2, 1, 3),
        ([[0, 1], [3, 3], [2, 5]], [1], 3, 2, 5),  # what ends leaves out is one height
        ([[3, 1]], [], 2, 0, 3),
    ],
)
def test_children_stand_before_their_height(target, children, ends, limit, row, got):
    """A child that is not computed yet would be read as whatever was in memory."""
    if "cuda" in LOADED and target is LOADED["cuda"]:
        pytest.skip("what lies on a GPU is not looked at")
    children, ends = np.array(children, np.int64), np.array(ends, np.int64)
    for call in tree_calls(target, np.zeros((3, 2), np.float32), children, ends):
        with pytest.raises(ValueError, match=f"children: expected integers from 0 to {limit}, .*, in row {row}; got {got}$"):
            call()
    for call in tree_calls(target, np.zeros((3, 2), np.float32), np.array([[0, 1], [3, 2]]), np.array([1, 2])):
        call()


@pytest.mark.parametrize(
    ("children", "ends", "got", "rows"),
    [
        ([[0, 1], [3, 1]], [1, 2], 1, (0, 1)),  # a leaf of two nodes
        ([[0, 1], [3, 2], [2, 4]], [1, 2, 3], 2, (1, 2)),
        ([[0, 1], [3, 2], [3, 4]], [1, 2, 3], 3, (1, 2)),  # an inner node of two
        ([[0, 0]], [1], 0, (0, 0)),  # twice the child of one
        ([[0, 1], [1, 2]], [2], 1, (0, 1)),  # of one height, which threads go through together
    ],
)
def test_a_row_is_the_child_of_one_node(target, children, ends, got, rows):
    """Its gradient has one writer; with two it would depend on who comes first."""
    if "cuda" in LOADED and target is LOADED["cuda"]:
        pytest.skip("what lies on a GPU is not looked at")
    children, ends = np.array(children, np.int64), np.array(ends, np.int64)
    message = rf"children: expected every integer once; got {got} in row {rows[0]} and in row {rows[1]}$"
    for call in tree_calls(target, np.zeros((3, 2), np.float32), children, ends):
        with pytest.raises(ValueError, match=message):
            call()
    leaves, w = Tensor(np.zeros((3, 2), np.float32)), np.zeros((4, 10), np.float32)
    with pytest.raises(ValueError, match=message):
        ops.rntn(leaves, children, ends, None, Tensor(w[:, :2].copy()))
    with pytest.raises(ValueError, match=message):
        ops.tree_lstm(leaves, leaves, children, ends, Tensor(w))


def test_rntn_gradients_through_the_tape(trees, rng):
    batch = Forest(trees, lambda word: 0, int).batch(np.arange(5))
    d, leaves = 3, len(batch.words)
    make = lambda *shape: rng.standard_normal(shape).astype(np.float32) * 0.5
    arrays = [make(leaves, d), make(2 * d, 2 * d, d), make(2 * d, d), make(d)]
    tensors = [Tensor(a, wants_grad=True) for a in arrays]
    h = ops.rntn(tensors[0], batch.children, batch.ends, *tensors[1:])
    dh = make(*h.shape)
    h.backward(dh)
    x, v, w, b = (a.astype(np.float64) for a in arrays)
    wide = reference.rntn_forward(x, batch.children, batch.ends, w, v, b)
    np.testing.assert_allclose(h.data, wide, atol=1e-6)
    expected = reference.rntn_backward(wide, batch.children, dh.astype(np.float64), w, v)
    for tensor, name in zip(tensors, ("dleaves", "dv", "dw", "db"), strict=True):
        np.testing.assert_allclose(tensor.grad, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_heights_that_are_left_out_are_visited_all_the_same(target, rng):
    """Wrong ends cannot make the kernel leave rows out or read beyond its arrays."""
    leaves, w = rng.standard_normal((3, 2), np.float32), rng.standard_normal((4, 2), np.float32)
    children = np.array([[0, 1], [3, 2]])
    right = target.rntn_forward(leaves, children, np.array([1, 2]), None, w)
    np.testing.assert_array_equal(right, target.rntn_forward(leaves, children, np.array([1]), None, w))
    np.testing.assert_array_equal(right, target.rntn_forward(leaves, children, np.array([1, 0, 2, 1]), None, w))
    if target is LOADED.get("cuda"):
        return  # indices on a GPU are not looked at: that would wait for it
    with pytest.raises(ValueError, match="children"):
        target.rntn_forward(leaves, np.array([[0, 5]]), np.array([1]), None, w)
    with pytest.raises(ValueError, match="ends"):
        target.rntn_forward(leaves, children, np.array([1, 3]), None, w)


def test_more_inner_nodes_than_nodes_are_refused(target, rng):
    h, w = rng.standard_normal((2, 3), np.float32), rng.standard_normal((6, 3), np.float32)
    with pytest.raises(ValueError, match="h: expected M>=n"):
        target.rntn_backward(h, np.zeros((5, 2), np.int64), np.array([5]), None, w, h, dleaves=None, dv=None)


def test_gradient_of_a_tensor_that_is_not_there(target, rng):
    """Without v its gradient is that at v = 0, and not whatever the memory held."""
    leaves, w = rng.standard_normal((3, 2), np.float32), rng.standard_normal((4, 2), np.float32)
    children, ends = np.array([[0, 1], [3, 2]]), np.array([1, 2])
    h = target.rntn_forward(leaves, children, ends, None, w)
    dh, held = rng.standard_normal(h.shape, np.float32), np.ones((4, 4, 2), np.float32)
    results = []
    for v, dv in ((np.zeros_like(held), held.copy()), (None, held)):
        results.append(target.rntn_backward(h, children, ends, v, w, dh, dv=dv, beta_dv=0.5))
    for with_v, without in zip(*results, strict=True):
        np.testing.assert_allclose(without, with_v, rtol=1e-6, atol=1e-7)


def test_a_node_does_not_depend_on_the_other_trees(trees):
    model = RNTN(width=6, seed=3).build(Vocabulary(["a", "fine", "day"], "?"), list("01234"))
    together = model.predict_proba(trees)
    for tree, p in zip(trees, together, strict=True):
        np.testing.assert_array_equal(model.predict_proba([tree])[0], p)
        np.testing.assert_allclose(p.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize("cell", ["rntn", "plain", "treelstm"])
def test_model_learns_and_comes_back_from_its_file(trees, cell, tmp_path):
    model = RNTN(width=8, cell=cell, seed=1).fit(trees, epochs=80, lr=0.03, batch_size=2, validation=trees)
    assert model.score(trees) == 1.0 and model.history_["val_accuracy"][-1] == 1.0
    assert model.history_["val_root_accuracy"][-1] == 1.0
    model.save(tmp_path / "trees.safetensors")
    again = models.load(tmp_path / "trees.safetensors")
    assert isinstance(again, RNTN) and again.classes_.tolist() == list("01234")
    for a, b in zip(model.predict_proba(trees), again.predict_proba(trees), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "compose.w" in again.summary()
    assert again.sketch(trees[0]).split("\n")[:2] == ["3", "|- 2 a"]


def test_unseen_words_and_one_word_trees(trees):
    model = RNTN(width=4).fit(trees, epochs=2)
    (p,) = model.predict_proba(parse_trees("(2 quite)"))
    assert p.shape == (1, 5)
    strange = model.predict_proba(parse_trees("(2 (2 never) (2 seen))"))[0]
    other = model.predict_proba(parse_trees("(0 (1 not) (1 ever))"))[0]
    np.testing.assert_array_equal(strange, other)
    assert model.predict_proba([]) == [] and model.predict([]) == []


def test_tree_lstm_gradients_through_the_tape(trees, rng):
    batch = Forest(trees, lambda word: 0, int).batch(np.arange(5))
    d, leaves = 3, len(batch.words)
    make = lambda *shape: rng.standard_normal(shape).astype(np.float32) * 0.5
    arrays = [make(leaves, d), make(leaves, d), make(2 * d, 5 * d), make(5 * d)]
    tensors = [Tensor(a, wants_grad=True) for a in arrays]
    h = ops.tree_lstm(tensors[0], tensors[1], batch.children, batch.ends, *tensors[2:])
    dh = make(*h.shape)
    h.backward(dh)
    x, cells, w, b = (a.astype(np.float64) for a in arrays)
    wide = reference.tree_lstm_forward(x, cells, batch.children, batch.ends, w, b)
    np.testing.assert_allclose(h.data, wide["h"], atol=1e-6)
    expected = reference.tree_lstm_backward(**wide, children=batch.children, dh=dh.astype(np.float64), w=w)
    for tensor, name in zip(tensors, ("dleaves", "dcells", "dw", "db"), strict=True):
        np.testing.assert_allclose(tensor.grad, expected[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_bad_trees_are_named(trees):
    with pytest.raises(ValueError, match="cell: expected one of rntn, plain, treelstm; got 'gru'"):
        RNTN(cell="gru")
    with pytest.raises(ValueError, match=r"expected two children a node; got 3 in tree 1: \(2 \(2 a\)"):
        RNTN().fit([trees[0], *parse_trees("(2 (2 a) (2 b) (2 c))")])
    with pytest.raises(ValueError, match=r"expected two children a node; got 1 in tree 0"):
        RNTN().fit(parse_trees("(2 (1 a))"))
    for first in (trees[0], Tree("1", "word")):
        with pytest.raises(ValueError, match=r"trees: expected a word at every leaf; got none in tree 1: \(2 \(0 None\)"):
            RNTN().fit([first, Tree("2", children=(Tree("0"), Tree("1", "b")))])
    with pytest.raises(ValueError, match="trees: expected one tree or more; got none"):
        RNTN().fit([])
    with pytest.raises(TypeError, match="expected Tree objects .*; got str"):
        RNTN().build(Vocabulary(["a"], "?"), ["0", "1"]).predict(["(2 a)"])
    with pytest.raises(ValueError, match="classes: expected two or more; got 1"):
        RNTN().fit(parse_trees("(2 a)"))
    with pytest.raises(RuntimeError, match="RNTN: expected a model that was built or fitted; got a fresh one"):
        RNTN().score(trees)
    model = RNTN(width=3).fit(trees, epochs=1)
    with pytest.raises(ValueError, match=r"validation: expected labels from .*; got '7'"):
        model.fit(trees, epochs=1, warm_start=True, validation=parse_trees("(7 a)"))
    assert model.module_._forest is None  # nor does a fit that never began leave its trees
    with pytest.raises(ValueError, match=r"trees: expected labels from .*; got '9'"):
        model.score(parse_trees("(9 a)"))
    with pytest.raises(ValueError, match="vocabulary: expected one with a symbol for unknown words; got none"):
        RNTN().build(Vocabulary(["a"]), ["0", "1"])
    with pytest.raises(RuntimeError, match="RNTN: expected a model that was built or fitted"):
        RNTN().predict(trees)


def test_training_goes_on_bit_for_bit_from_a_checkpoint(trees, tmp_path):
    def fit(epochs, **more):
        return RNTN(width=5, dropout=0.2, seed=2).fit(trees, epochs=epochs, batch_size=2, lr=0.02, **more)

    whole = fit(6)
    fit(3, checkpoint=tmp_path / "run.ckpt")
    resumed = fit(6, checkpoint=tmp_path / "run.ckpt", resume=True)
    for name, a in whole.get_weights().items():
        np.testing.assert_array_equal(a, resumed.get_weights()[name], err_msg=name)
    assert isinstance(models.load(tmp_path / "run.ckpt"), RNTN)
    with pytest.raises(ValueError, match="y: expected"):
        RNTN(width=5, dropout=0.2, seed=2).fit(
            trees[::-1], epochs=8, batch_size=2, lr=0.02, checkpoint=tmp_path / "run.ckpt", resume=True
        )


# ------------------------------------------------------------------------------------------------------------- CTC


@pytest.mark.parametrize("labels, blank", [([1, 2], 0), ([1, 1], 0), ([], 0), ([0, 2, 0], 1), ([0], 2)])
def test_ctc_is_the_sum_over_all_alignments(target, labels, blank, rng):
    T, C = 5, 3
    x = rng.standard_normal((1, T, C)).astype(np.float32)
    p = np.exp(x[0].astype(np.float64))
    p /= p.sum(-1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(C), repeat=T):
        if [k for k, _ in itertools.groupby(path) if k != blank] == labels:
            total += np.prod(p[np.arange(T), path])
    y = np.array([labels or [0]], np.int64)
    loss, _ = target.ctc_forward(x, y, np.array([T]), np.array([len(labels)]), blank)
    np.testing.assert_allclose(loss[0], -np.log(total), rtol=1e-5)


def test_ctc_without_an_alignment_is_infinite_and_pulls_at_nothing(target, rng):
    x = rng.standard_normal((4, 3, 4)).astype(np.float32)
    labels = np.array([[1, 1, 0], [1, 2, 3], [1, 2, 1], [0, 0, 0]])
    lengths, label_lengths = np.array([2, 3, 0, 0]), np.array([2, 3, 1, 0])  # no; just; no; nothing
    loss, logp = target.ctc_forward(x, labels, lengths, label_lengths, 0)
    assert np.isinf(loss[[0, 2]]).all() and (loss[[0, 2]] > 0).all() and np.isfinite(loss[1]) and loss[3] == 0
    np.testing.assert_allclose(loss[1], -logp[1, np.arange(3), [1, 2, 3]].sum(), rtol=1e-5)
    dx = target.ctc_backward(logp, labels, lengths, label_lengths, np.ones(4, np.float32))
    assert not dx[[0, 2, 3]].any() and dx[1].any() and np.isfinite(dx).all()


def test_ctc_labels_are_not_blank(target, rng):
    if "cuda" in LOADED and target is LOADED["cuda"]:
        pytest.skip("what lies on a GPU is not looked at")
    x, lengths = np.zeros((2, 6, 4), np.float32), np.array([6, 4])
    for labels, label_lengths, blank, sample, at in (
        ([[1, 2, 0], [3, 0, 2]], [2, 2], 0, 1, 1),
        ([[1, 2, 0], [3, 1, 2]], [3, 2], 0, 0, 2),
        ([[3, 2, 1], [0, 0, 0]], [3, 0], 3, 0, 0),
    ):
        labels, label_lengths = np.array(labels), np.array(label_lengths)
        match = f"labels: expected classes other than blank, {blank}, among the first .* in row {sample}; got it at {at}$"
        with pytest.raises(ValueError, match=match):
            target.ctc_forward(x, labels, lengths, label_lengths, blank)
        with pytest.raises(ValueError, match=match):
            target.ctc_backward(x, labels, lengths, label_lengths, np.ones(2, np.float32), blank)


def test_ctc_loss_through_the_tape(rng):
    x = Tensor(rng.standard_normal((2, 6, 4)).astype(np.float32), wants_grad=True)
    labels, lengths, label_lengths = np.array([[1, 2], [3, 0]]), np.array([6, 4]), np.array([2, 1])
    grads = {}
    for reduction, seed in (("none", np.full(2, 0.5, np.float32)), ("mean", None), ("sum", np.full(1, 0.5, np.float32))):
        x.grad = None
        loss = ops.ctc_loss(x, labels, lengths, label_lengths, reduction=reduction)
        loss.backward(seed)
        grads[reduction] = x.grad
    np.testing.assert_array_equal(grads["none"], grads["mean"])
    np.testing.assert_array_equal(grads["none"], grads["sum"])
    assert not grads["none"][1, 4:].any()
    with pytest.raises(ValueError, match="reduction: expected"):
        ops.ctc_loss(x, labels, lengths, label_lengths, reduction="max")
    with pytest.raises(ValueError, match="labels"):
        ops.ctc_loss(x, np.array([[1, 4], [3, 0]]), lengths, label_lengths)


# --------------------------------------------------------------------------------------------------------- recipe


def test_sentiment_figures_by_hand():
    from fastdl.recipes.sentiment_rntn import accuracies

    trees = parse_trees("(4 (2 a) (3 fine)) (0 word)")
    p = [np.eye(5)[[2, 0, 3]], np.eye(5)[[1]]]  # right, wrong side, wrong shade; wrong shade
    # three nodes are not neutral: one on the wrong side
    expected = {"fine_all": 25.0, "fine_root": 0.0, "binary_all": 100 * 2 / 3, "binary_root": 100.0}
    assert accuracies(trees, p) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sentiment-rntn", "sentence-tags", "emoji-captions"])
def test_recipes_say_what_they_need(name, monkeypatch):
    from fastdl import recipes

    monkeypatch.delenv("FASTDL_DATA", raising=False)
    with pytest.raises(data.MissingDataError, match="expected a folder of data sets"):
        recipes.run(name)


def test_phrases_of_a_tree():
    from fastdl.recipes.sentence_tags import phrases, sentences

    trees = parse_trees("(3 (3 (2 a) (4 fine)) (1 day)) (2 (2 a) (0 word)) (0 bad)")
    assert phrases(trees) == [
        (("fine",), 1), (("a", "fine"), 1), (("day",), 0), (("a", "fine", "day"), 1), (("word",), 0), (("bad",), 0),
    ]  # fmt: skip
    assert sentences(trees) == [(("a", "fine", "day"), 1), (("bad",), 0)]


def test_trees_on_device_arrays(trees):
    import fake_cuda
    from fastdl import backend

    def fit(device):
        return RNTN(width=4, dropout=0.1, seed=1).to(device).fit(trees, epochs=3, batch_size=2, validation=trees)

    here = fit("cpu")
    with fake_cuda.as_cuda(fake_cuda.HostKernels(backend.cpu)):
        there = fit("cuda")
        assert isinstance(there.module_.compose.v.data, fake_cuda.ndarray)
        for a, b in zip(here.predict_proba(trees), there.predict_proba(trees), strict=True):
            assert type(b) is np.ndarray
            np.testing.assert_array_equal(a, b)
        x = fake_cuda.asarray(np.random.default_rng(0).standard_normal((2, 6, 4)).astype(np.float32))
        x = Tensor(x, wants_grad=True)
        whole = [fake_cuda.asarray(a) for a in (np.array([[1, 2], [3, 0]]), np.array([6, 4]), np.array([2, 1]))]
        ops.ctc_loss(x, *whole).backward()
        assert isinstance(x.grad, fake_cuda.ndarray)


def test_labels_words_and_weights_are_checked(trees, rng):
    how = dict(epochs=1)
    with pytest.raises(ValueError, match="validation: expected a label at one node or more; got none"):
        RNTN(width=3).fit(trees, validation=parse_trees("(-1 a)"), **how)
    with pytest.raises(TypeError, match="root_weight: expected 0 or more; got 'a'"):
        RNTN(width=3).fit(trees, root_weight="a", **how)
    with pytest.raises(TypeError, match="vocabulary: expected a fastdl.data.Vocabulary; got list"):
        RNTN().build(["a"], ["0", "1"])
    with pytest.raises(TypeError, match="text: expected a string; got bytes"):
        parse_trees(b"(1 a)")
    for layer in (nn.RNTN, nn.TreeLSTM):
        with pytest.raises(TypeError, match="width: expected an integer; got float"):
            layer(2.5)
    model = RNTN(width=3).fit(trees, **how)
    with pytest.raises(ValueError, match=r"trees: expected a word at every leaf; got none in tree 0: \(1 None\)"):
        model.predict([data.Tree("1")])
    number = data.Tree(int(model.predict(parse_trees("(0 quite)"))[0][0]), "quite")
    assert model.sketch(number) == f"{number.label} quite"
    model.set_weights({k: np.full_like(v, np.nan) for k, v in model.get_weights().items()})
    with pytest.raises(ValueError, match="trees: expected trees for which the network gives numbers; got NaN"):
        model.predict(trees)


def test_several_threads_may_ask_one_model(monkeypatch):
    """The second call begins when the first is inside the network, and is there until the first has ended."""
    trees = parse_trees("(1 (1 a) (0 b)) (0 (0 c) (0 (1 a) (0 d))) (0 (0 d) (0 a))")
    model = RNTN(width=4).fit(trees, epochs=1)
    parts = [trees[:1], trees[1:]]
    alone = [np.concatenate(model.predict_proba(part)) for part in parts]
    inside, done, tanh, together = [threading.Event(), threading.Event()], threading.Event(), ops.tanh, {}

    def waiting(x):
        first = threading.current_thread() is threads[0]
        inside[not first].set()
        (inside[1] if first else done).wait(60)
        return tanh(x)

    def ask(i):
        together[i] = np.concatenate(model.predict_proba(parts[i]))

    threads = [threading.Thread(target=ask, args=(i,)) for i in (0, 1)]
    monkeypatch.setattr(ops, "tanh", waiting)
    threads[0].start()
    inside[0].wait(60)
    threads[1].start()
    threads[0].join()
    done.set()
    threads[1].join()
    for i, expected in enumerate(alone):
        np.testing.assert_array_equal(together[i], expected)
