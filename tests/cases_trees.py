"""Rows for trees and CTC."""

import numpy as np

import reference_trees as reference
from case import Case, normal


def make_trees(rng, leaves, D, tensor=True, bias=True):
    """Random trees with so many leaves each, flattened height by height."""
    total, nodes = sum(leaves), []  # (height, tree, left, right), children as numbers of nodes within all trees
    height, first = {}, 0
    inner = 0
    for tree, count in enumerate(leaves):
        roots = list(range(first, first + count))
        height |= dict.fromkeys(roots, 0)
        first += count
        while len(roots) > 1:
            at = int(rng.integers(0, len(roots) - 1))
            left, right = roots[at], roots.pop(at + 1)
            roots[at] = total + inner
            height[total + inner] = 1 + max(height[left], height[right])
            nodes.append((height[total + inner], tree, left, right))
            inner += 1
    order = sorted(range(len(nodes)), key=lambda i: nodes[i][:2])
    place = {total + old: total + new for new, old in enumerate(order)} | {i: i for i in range(total)}
    children = np.array([[place[c] for c in nodes[i][2:]] for i in order], np.int64).reshape(-1, 2)
    heights = [nodes[i][0] for i in order]
    ends = np.array([sum(h <= e for h in heights) for e in range(1, max(heights, default=0) + 1)], np.int64)
    scale = 1 / np.sqrt(2 * D)
    return {
        "leaves": normal(rng, total, D) * 0.7,
        "children": children,
        "ends": ends,
        "v": normal(rng, 2 * D, 2 * D, D) * scale / 2 if tensor else None,
        "w": normal(rng, 2 * D, D) * scale,
        "b": normal(rng, D) * 0.3 if bias else None,
    }


def make_trees_backward(rng, **sizes):
    forward = make_trees(rng, **sizes)
    h = reference.rntn_forward(**forward)
    return {**forward, "h": h, "dh": normal(rng, *h.shape)}


def trees_gradient(inputs):
    inputs["dy"] = inputs["dh"]

    def f(leaves, children, ends, v, w, b, **_):
        return reference.rntn_forward(leaves, children, ends, w, v, b)

    pairs = {"dleaves": "leaves", "dw": "w"}
    return f, pairs | ({} if inputs["v"] is None else {"dv": "v"}) | ({} if inputs["b"] is None else {"db": "b"})


TREES = [
    dict(leaves=[2], D=1),
    dict(leaves=[1], D=3),
    dict(leaves=[], D=2),
    dict(leaves=[3, 1, 9, 2], D=5),
    dict(leaves=[4, 6, 5], D=8, bias=False),
    dict(leaves=[5] * 30, D=3),
    dict(leaves=[10] * 8, D=25),
    dict(leaves=[90] * 6, D=1),
    dict(leaves=[7, 30, 2], D=17, tensor=False),
    dict(leaves=[11, 12], D=1, tensor=False, bias=False),
]


def make_tree_lstm(rng, leaves, D, bias=True):
    trees = make_trees(rng, leaves, D)
    return {
        "leaves": trees["leaves"],
        "cells": normal(rng, len(trees["leaves"]), D),
        "children": trees["children"],
        "ends": trees["ends"],
        "w": normal(rng, 2 * D, 5 * D) / np.sqrt(2 * D),
        "b": normal(rng, 5 * D) * 0.3 if bias else None,
    }


def make_tree_lstm_backward(rng, cell_gradient=True, **sizes):
    forward = make_tree_lstm(rng, **sizes)
    made = reference.tree_lstm_forward(**forward)
    return {
        **forward,
        **made,
        "dh": normal(rng, *made["h"].shape),
        "dc": normal(rng, *made["c"].shape) if cell_gradient else None,
    }


def tree_lstm_gradient(inputs):
    dc = inputs["dc"]
    inputs["dy"] = np.stack([inputs["dh"], np.zeros_like(inputs["dh"]) if dc is None else dc])

    def f(leaves, cells, children, ends, w, b, **_):
        made = reference.tree_lstm_forward(leaves, cells, children, ends, w, b)
        return np.stack([made["h"], made["c"]])

    pairs = {"dleaves": "leaves", "dcells": "cells", "dw": "w"}
    return f, pairs | ({} if inputs["b"] is None else {"db": "b"})


TREE_LSTM = [
    dict(leaves=[2], D=1),
    dict(leaves=[1], D=3),
    dict(leaves=[], D=2),
    dict(leaves=[3, 1, 9, 2], D=5),
    dict(leaves=[4, 6, 5], D=8, bias=False),
    dict(leaves=[10] * 8, D=25),
    dict(leaves=[2] * 40 + [31], D=33),
]


def make_ctc(rng, lengths, label_lengths, C, T=None, S=None, blank=0, few=None):
    n, t, s = len(lengths), T or max(lengths, default=0), S or max(label_lengths, default=0)
    labels = rng.integers(0, (few or C) - 1, (n, s))
    return {
        "x": normal(rng, n, t, C) * 2,
        "labels": labels + (labels >= blank),  # never blank
        "lengths": np.array(lengths, np.int64),
        "label_lengths": np.array(label_lengths, np.int64),
        "blank": blank,
    }


def make_ctc_backward(rng, **sizes):
    forward = make_ctc(rng, **sizes)
    return {**forward, "logp": reference.ctc_forward(**forward)["logp"], "dloss": normal(rng, len(forward["x"]))}


def ctc_gradient(inputs):
    inputs["dy"] = inputs.pop("dloss")

    def f(x, labels, lengths, label_lengths, blank, **_):
        return reference.ctc_forward(x, labels, lengths, label_lengths, blank)["loss"]

    return f, {"dx": "x"}


CTC = [
    dict(lengths=[1], label_lengths=[1], C=2),
    dict(lengths=[5, 3], label_lengths=[2, 0], C=4),
    dict(lengths=[9, 12, 7], label_lengths=[3, 5, 1], C=11, blank=10),
    dict(lengths=[20, 31], label_lengths=[9, 8], C=3, blank=1),  # many repeats
    dict(lengths=[70, 50], label_lengths=[20, 17], C=29, T=75, S=23),
    dict(lengths=[], label_lengths=[], C=3, T=4, S=2),
]

CASES = [
    Case("rntn_forward", make_trees, TREES, reference=reference.rntn_forward, nan="leaves"),
    Case(
        "rntn_backward",
        make_trees_backward,
        TREES,
        reference=reference.rntn_backward,
        gradient_of=trees_gradient,
        nan="dh",
    ),
    Case("tree_lstm_forward", make_tree_lstm, TREE_LSTM, reference=reference.tree_lstm_forward, nan="leaves"),
    Case(
        "tree_lstm_backward",
        make_tree_lstm_backward,
        [*TREE_LSTM, dict(leaves=[7, 3], D=6, cell_gradient=False)],
        reference=reference.tree_lstm_backward,
        gradient_of=tree_lstm_gradient,
        nan="dh",
    ),
    Case("ctc_forward", make_ctc, CTC, reference=reference.ctc_forward, rowwise=("x", "labels", "lengths", "label_lengths")),
    Case(
        "ctc_backward",
        make_ctc_backward,
        CTC,
        reference=reference.ctc_backward,
        gradient_of=ctc_gradient,
        rowwise=("logp", "labels", "lengths", "label_lengths", "dloss"),
        nan="dloss",
    ),
]
