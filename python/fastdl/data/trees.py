"""Labelled trees in the brackets of the Penn Treebank, ``(3 (2 quite) (3 (2 a) (3 treat)))``, and batches of them as arrays."""

import os
import re
from pathlib import Path

import numpy as np

from .._arguments import array, function
from .errors import DataError, MissingDataError
from .readers import open_unpacked, read_up_to

_TOKEN = re.compile(r"\(|\)|[^\s()]+", re.ASCII)  # a non-breaking space may stand inside a word
_SST = ("train", "dev", "test")


class Tree:
    """A node with everything below it.

    Parameters
    ----------
    label : str
    word : str, optional
        Of a leaf.
    children : sequence of Tree
        Of any other node.
    """

    __slots__ = ("children", "label", "word")

    def __init__(self, label, word=None, children=()):
        if not hasattr(children, "__iter__"):
            raise TypeError(f"children: expected Tree objects, one after another; got {type(children).__name__}")
        self.label, self.word, self.children = label, word, tuple(children)
        for child in self.children:
            if not isinstance(child, Tree):
                raise TypeError(f"children: expected Tree objects; got {type(child).__name__}")

    def nodes(self):
        """All nodes, children before their parents, left before right; the tree itself is last."""
        found, todo = [], [self]
        while todo:
            node = todo.pop()
            found.append(node)
            todo.extend(node.children)
        return found[::-1]  # parents before children, right before left, read backwards

    def words(self):
        """The sentence, a list of words."""
        return [node.word for node in self.nodes() if not node.children]

    def as_tuple(self, labels=None):
        """``(label, word)`` or ``(label, child, ...)``, as `fastdl.plot.tree` takes it.

        Parameters
        ----------
        labels : sequence, optional
            Of the nodes in the order of `nodes`, instead of their own.
        """
        nodes = self.nodes()
        if labels is None:
            labels = [node.label for node in nodes]
        if not hasattr(labels, "__len__") or len(labels) != len(nodes):
            got = len(labels) if hasattr(labels, "__len__") else type(labels).__name__
            raise ValueError(f"labels: expected {len(nodes)}, one for each node; got {got}")
        made = []
        for i, below in enumerate(_children(nodes)):
            made.append((labels[i], *(made[c] for c in below)) if below else (labels[i], nodes[i].word))
        return made[-1]

    def __str__(self):
        parts, todo = [], [self]
        while todo:
            node = todo.pop()
            if isinstance(node, str):
                parts.append(node)
            elif node.children:
                parts.append(f" ({node.label}")
                todo.append(")")
                todo.extend(reversed(node.children))
            else:
                parts.append(f" ({node.label} {node.word})")
        return "".join(parts)[1:]

    def __repr__(self):
        return f"Tree({str(self)!r})"


def _children(nodes):
    """Places of each node's children among `nodes`, children before their parents; a Tree may stand there more than once."""
    found, open_places = [], []
    for i, node in enumerate(nodes):
        first = len(open_places) - len(node.children)
        found.append(open_places[first:])
        open_places[first:] = [i]
    return found


def parse_trees(text, path="text"):
    r"""Read trees from text.

    Parameters
    ----------
    text : str
        Trees one after another, ``(label word)`` or ``(label tree tree ...)``; blanks and lines may stand anywhere between.
        The treebank's ``\/`` and ``\*`` become ``/`` and ``*``; ``-LRB-`` and ``-RRB-`` stay.
    path : str
        What errors call it.

    Returns
    -------
    list of Tree

    Raises
    ------
    DataError
        The message names line and column.

    Examples
    --------
    >>> from fastdl.data import parse_trees
    >>> parse_trees("(3 (2 quite) (3 nice))")[0].words()
    ['quite', 'nice']
    """
    if not isinstance(text, str):
        raise TypeError(f"text: expected a string; got {type(text).__name__}")
    trees, open_nodes = [], []  # of an open node: [label or None, word or None, children, place of its bracket]

    def fail(place, expected, got):
        line = text.count("\n", 0, place) + 1
        column = place - (text.rfind("\n", 0, place) + 1) + 1
        raise DataError(path, expected, f"{got} at line {line}, column {column}") from None

    for match in _TOKEN.finditer(text):
        token, place = match.group(), match.start()
        here = open_nodes[-1] if open_nodes else None
        if token == "(":
            if here is not None and here[0] is None:
                fail(place, "a label behind '('", "'('")
            if here is not None and here[1] is not None:
                fail(place, "')' behind a word", "'('")
            open_nodes.append([None, None, [], place])
        elif token == ")":
            if here is None:
                fail(place, "'(' or the end", "')'")
            label, word, children, _ = open_nodes.pop()
            if label is None or (word is None and not children):
                fail(place, "a label, then a word or a tree, between brackets", "none" if label is None else "a label")
            tree = Tree(label, word, children)
            (open_nodes[-1][2] if open_nodes else trees).append(tree)
        elif here is None:
            fail(place, "'('", repr(token))
        elif here[0] is None:
            here[0] = token
        elif here[1] is not None or here[2]:
            fail(place, "')'" if here[1] is not None else "'(' or ')'", repr(token))
        else:
            here[1] = token.replace("\\/", "/").replace("\\*", "*")
    if open_nodes:
        fail(open_nodes[-1][3], "')' for every '('", "the end of the text; open is '('")
    return trees


def read_trees(path):
    """Trees of a file in UTF-8, plain or gzip-compressed; see `parse_trees`.

    Raises
    ------
    MissingDataError
        No such file.
    DataError
        A bracket or label that is wrong (line and column are named), not UTF-8, or no tree at all.
    """
    with open_unpacked(path) as stream:
        raw = bytes(read_up_to(stream, 1 << 62, path))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, "UTF-8 text", f"byte {raw[error.start]:02x} at {error.start}") from error
    trees = parse_trees(text, os.fspath(path))
    if not trees:
        raise DataError(path, "at least one tree", "none")
    return trees


def load_sst(data_dir=None):
    """The Stanford Sentiment Treebank: labels 0 (very negative) to 4 (very positive) on every node.

    Parameters
    ----------
    data_dir : path, optional
        Folder with ``sst/train.txt.gz``, ``dev.txt.gz`` and ``test.txt.gz`` (or plain); else FASTDL_DATA.

    Returns
    -------
    dict of str to list of Tree
        'train', 'dev', 'test'.

    Raises
    ------
    MissingDataError, DataError

    References
    ----------
    Socher, Perelygin, Wu, Chuang, Manning, Ng & Potts (2013), Recursive deep models for semantic compositionality over a
    sentiment treebank.
    """
    from .sets import data_directory

    root = data_directory(data_dir)
    if root is None:
        raise MissingDataError("sst", "a folder of data sets, in data_dir or in FASTDL_DATA", "neither")
    parts = {}
    for part in _SST:
        candidates = [Path(root) / folder / f"{part}{end}" for folder in ("sst", ".") for end in (".txt.gz", ".txt")]
        found = next((p for p in candidates if p.is_file()), None)
        if found is None:
            raise MissingDataError(root, "sst/train.txt.gz, dev.txt.gz and test.txt.gz, or .txt", f"no {part}")
        parts[part] = read_trees(found)
    return parts


class Forest:
    """Binary trees as flat arrays, from which batches are cut.

    Parameters
    ----------
    trees : sequence of Tree
    word : callable
        A word's number.
    label : callable
        A label's number.

    Raises
    ------
    ValueError
        A node with one child or more than two, a leaf without a word, or what `label` raises.

    Attributes
    ----------
    words : int64 [all leaves]
    labels : int64 [all nodes]
        Tree by tree; of a tree its leaves first, then its inner nodes from low to high.
    """

    def __init__(self, trees, word, label):
        if not hasattr(trees, "__iter__"):
            raise TypeError(f"trees: expected Tree objects, one after another; got {type(trees).__name__}")
        function("word", word), function("label", label)
        words, children, heights, labels, order = [], [], [], [], []
        leaves, inner = [0], [0]
        for number, tree in enumerate(trees):
            if not isinstance(tree, Tree):
                raise TypeError(f"trees: expected Tree objects; got {type(tree).__name__}")
            nodes = tree.nodes()
            height, low, high, below = [], [], [], _children(nodes)
            for i, node in enumerate(nodes):
                if not node.children:
                    if node.word is None:
                        raise ValueError(f"trees: expected a word at every leaf; got none in tree {number}: {str(tree)[:60]}")
                    height.append(0)
                    low.append(i)
                    continue
                if len(node.children) != 2:
                    raise ValueError(
                        f"trees: expected two children a node; got {len(node.children)} in tree {number}: {str(tree)[:60]}"
                    )
                height.append(1 + max(height[c] for c in below[i]))
                high.append(i)
            high.sort(key=height.__getitem__)
            place = {i: k for k, i in enumerate(low + high)}
            words += [word(nodes[i].word) for i in low]
            children += [[place[c] for c in below[i]] for i in high]
            heights += [height[i] for i in high]
            labels += [label(nodes[i].label) for i in low + high]
            order += low + high
            leaves.append(len(words))
            inner.append(len(children))
        self.words, self.labels = _numbers("word", words), _numbers("label", labels)
        self._children = np.array(children, np.int64).reshape(-1, 2)
        self._heights, self._order = np.array(heights, np.int64), np.array(order, np.int64)
        self._leaves, self._inner = np.array(leaves, np.int64), np.array(inner, np.int64)

    def __len__(self):
        return len(self._leaves) - 1

    def batch(self, index):
        """The trees at these places as one batch.

        Parameters
        ----------
        index : int64 [trees]

        Returns
        -------
        Batch

        Raises
        ------
        TypeError, ValueError
            What are no places of trees.
        """
        index = self._places(index)
        tree_of_leaf, leaf = _ranges(self._leaves, index)
        tree_of_inner, inner = _ranges(self._inner, index)
        height = self._heights[inner]
        by_height = np.argsort(height, kind="stable")
        counts, inner_counts = np.diff(self._leaves)[index], np.diff(self._inner)[index]
        leaf_start, inner_start = _starts(counts), _starts(inner_counts)
        total = len(leaf)
        place = np.empty(len(inner), np.int64)  # of an inner node among those sorted by height
        place[by_height] = np.arange(len(inner))
        # A child's number within its tree is its row, once its tree's other nodes are counted.
        tree = tree_of_inner[by_height]
        local, of_tree = self._children[inner[by_height]], counts[tree][:, None]
        is_leaf = local < of_tree
        at = np.where(is_leaf, 0, inner_start[tree][:, None] + local - of_tree)
        # (an empty batch has nothing to look at)
        rows = total + place[at] if len(place) else at
        children = np.where(is_leaf, leaf_start[tree][:, None] + local, rows)
        ends = np.searchsorted(height[by_height], np.arange(1, height.max(initial=0) + 1), "right").astype(np.int64)
        # Places in self.labels: nodes of earlier trees, then of this one.
        before = self._leaves + self._inner
        of_leaf = before[index[tree_of_leaf]] + leaf - self._leaves[index[tree_of_leaf]]
        of_inner = before[index[tree]] + counts[tree] + inner[by_height] - self._inner[index[tree]]
        nodes = np.concatenate([of_leaf, of_inner])
        roots = np.where(inner_counts > 0, 0, leaf_start)
        last = inner_start + inner_counts - 1
        roots[inner_counts > 0] = total + place[last[inner_counts > 0]]
        return Batch(self.words[leaf], children, ends, self.labels[nodes], roots, nodes)

    def _places(self, index):
        index = array("index", index)
        if index.ndim != 1:
            raise ValueError(f"index: expected shape [trees]; got {list(index.shape)}")
        if index.size and index.dtype.kind not in "iu":
            raise TypeError(f"index: expected an array of integers; got one of {index.dtype}")
        wrong = index[(index < 0) | (index >= len(self))]
        if wrong.size:
            raise ValueError(f"index: expected integers from 0 to {len(self) - 1}; got {wrong[0]}")
        return index.astype(np.int64)

    def by_tree(self, values):
        """Values of all nodes, in the order of `labels`, as a list with an array for each tree, in the order of `Tree.nodes`."""
        values = array("values", values)
        if values.shape[:1] != self.labels.shape:
            raise ValueError(f"values: expected {len(self.labels)}, one for each node; got shape {list(values.shape)}")
        result, begin = [], self._leaves + self._inner
        for start, stop in zip(begin[:-1], begin[1:], strict=True):
            part = np.empty((stop - start, *values.shape[1:]), values.dtype)
            part[self._order[start:stop]] = values[start:stop]
            result.append(part)
        return result


class Batch:
    """Some trees together, in the arrays that `fastdl.ops.rntn` takes.

    Attributes
    ----------
    words : int64 [L]
    children : int64 [n,2]
    ends : int64 [H]
    labels : int64 [L + n]
    roots : int64 [trees]
        Rows of the roots.
    nodes : int64 [L + n]
        Where each row stands in the forest's `labels`.
    """

    __slots__ = ("children", "ends", "labels", "nodes", "roots", "words")

    def __init__(self, words, children, ends, labels, roots, nodes):
        self.words, self.children, self.ends = words, np.ascontiguousarray(children), ends
        self.labels, self.roots, self.nodes = labels, roots, nodes


def _numbers(name, values):
    """int64 array of what a function gave for words or labels."""
    for v in values:
        if not hasattr(v, "__index__"):
            raise TypeError(f"{name}: expected a function that gives integers; got {type(v).__name__}")
    return np.array(values, np.int64)


def _starts(counts):
    return np.cumsum(counts) - counts


def _ranges(offsets, index):
    """Which of `index` each element belongs to, and the elements offsets[i] .. offsets[i+1] of all its entries."""
    counts = np.diff(offsets)[index]
    owner = np.repeat(np.arange(len(index)), counts)
    return owner, np.arange(len(owner)) - _starts(counts)[owner] + offsets[index][owner]
