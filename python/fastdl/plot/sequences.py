"""Sequences and trees: what gates do over time, what a network says at every node of a sentence."""

import numpy as np

from ._figure import axes_of, reals, strings


def gates(activity, tokens=None, ax=None, title=None):
    """Activity of gates or units over time: time to the right, a line for each unit.

    Parameters
    ----------
    activity : array [T,H]
        Gates from 0 to 1, or states, whose colours then run from minus to plus the largest.
    tokens : sequence of str [T], optional
        What was read at each step.
    ax : matplotlib Axes, optional
    title : str

    Returns
    -------
    matplotlib Axes
    """
    a = reals("activity", activity)
    if a.ndim != 2 or 0 in a.shape:
        raise ValueError(f"activity: expected shape [T,H], neither of them 0; got {list(a.shape)}")
    if not np.isfinite(a).all():
        raise ValueError("activity: expected finite numbers; got NaN or infinity")
    tokens = tokens if tokens is None else strings("tokens", tokens, len(a), "one a step")
    ax, signed = axes_of(ax), a.min() < 0
    most = np.abs(a).max() if signed else 1.0
    limits = dict(cmap="RdBu_r", vmin=-most, vmax=most) if signed else dict(cmap="viridis", vmin=0.0, vmax=1.0)
    image = ax.imshow(a.T, aspect="auto", interpolation="nearest", **limits)
    ax.figure.colorbar(image, ax=ax, fraction=0.03)
    ax.set_ylabel("unit")
    if tokens is None:
        ax.set_xlabel("time step")
    else:
        ax.set_xticks(range(len(a)), tokens, rotation=90 if max(map(len, tokens)) > 1 else 0, fontsize=8, parse_math=False)
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


_SENTIMENT = ("--", "-", "0", "+", "++")
_RED_TO_GREEN = ("#c0392b", "#e59866", "#d5d8dc", "#7dcea0", "#1e8449")


def tree(root, ax=None, names=_SENTIMENT, colours=_RED_TO_GREEN):
    """A tree over a sentence, words below, the class of every node in its circle.

    Parameters
    ----------
    root : tuple or fastdl.data.Tree
        ``(label, word)`` for a leaf, ``(label, child, child, ...)`` for a node above; labels are classes from 0, as numbers or
        as the digits that trees and `RNTN` have. A label ``(predicted, true)`` shows the prediction, with a black rim where it
        is wrong.
    ax : matplotlib Axes, optional
    names, colours : sequence of str
        Of the classes; by default the five of sentiment, from very negative to very positive.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> from fastdl import plot
    >>> ax = plot.tree((3, (2, "quite"), (3, (2, "a"), (3, "treat"))))  # doctest: +SKIP
    """
    if hasattr(root, "as_tuple"):
        root = root.as_tuple()
    ax = axes_of(ax)
    words, nodes = [], []

    def number(label):
        try:
            return int(label)
        except (TypeError, ValueError):
            raise ValueError(f"root: expected labels from 0 on; got {label!r}") from None

    def place(node):
        """(x, height, label) of a node, its parts drawn first."""
        if not isinstance(node, (tuple, list)) or len(node) < 2:
            raise ValueError(f"root: expected (label, word) or (label, child, ...); got {node!r}")
        label, *parts = node
        if len(parts) == 1 and isinstance(parts[0], str):
            words.append(parts[0])
            at = (float(len(words) - 1), 0.0)
        else:
            below = [place(p) for p in parts]
            at = (float(np.mean([x for x, _ in below])), 1.0 + max(y for _, y in below))
            for x, y in below:
                ax.plot((at[0], x), (at[1], y), "-", color="0.6", linewidth=1, zorder=1)
        nodes.append((at, label))
        return at

    place(root)
    for (x, y), label in nodes:
        pair = label if isinstance(label, (tuple, list)) else (label, label)
        if len(pair) != 2:
            raise ValueError(f"root: expected a label or (predicted, true); got {label!r}")
        predicted, true = map(number, pair)
        if not 0 <= predicted < min(len(names), len(colours)):
            raise ValueError(f"root: expected labels from 0 to {min(len(names), len(colours)) - 1}; got {predicted}")
        rim = "k" if predicted != true else colours[predicted]
        ax.plot(
            [x], [y], "o", markersize=13, color=colours[predicted], markeredgecolor=rim, markeredgewidth=1.5, zorder=2
        )
        ax.text(x, y, names[predicted], ha="center", va="center", fontsize=7, zorder=3)
    for x, word in enumerate(words):
        ax.text(x, -0.45, word, ha="center", va="top", fontsize=8, rotation=0 if len(words) <= 12 else 60, parse_math=False)
    ax.margins(0.05, 0.12)
    ax.set_ylim(bottom=-1.2)
    ax.set_axis_off()
    return ax
