"""Scores of two classes: whether they can be trusted as probabilities, and what a threshold trades."""

import numpy as np

from .._arguments import array, positive
from ._figure import axes_of, reals


def _checked(p, y):
    p, y = reals("p", p), array("y", y)
    if p.ndim != 1 or p.shape != y.shape or len(p) == 0:
        raise ValueError(f"p: expected scores [N] and labels [N]; got {list(p.shape)} and {list(y.shape)}")
    if not np.isfinite(p).all():
        raise ValueError("p: expected finite numbers; got NaN or infinity")
    if not np.isin(y, (0, 1)).all() or not 0 < y.sum() < len(y):
        raise ValueError("y: expected labels 0 and 1, both of them; got others")
    return p, y


def calibration(p, y, ax=None, bins=8):
    """Share of ones against the mean score, in groups of equal size; a trusted score lies on the diagonal.

    Parameters
    ----------
    p : array [N]
        Scores 0 to 1.
    y : array [N]
        Labels 0 and 1.
    ax : matplotlib Axes, optional
    bins : int

    Returns
    -------
    matplotlib Axes
    """
    p, y = _checked(p, y)
    positive("bins", bins)
    ax = axes_of(ax)
    groups = [g for g in np.array_split(np.argsort(p, kind="stable"), bins) if len(g)]
    mean, share = np.array([p[g].mean() for g in groups]), np.array([y[g].mean() for g in groups])
    error = np.array([np.sqrt(max(s * (1 - s), 0.01) / len(g)) for s, g in zip(share, groups, strict=True)])
    ax.plot([0, 1], [0, 1], color="0.7")
    ax.errorbar(mean, share, error, fmt="o-")
    ax.set_xlabel("score")
    ax.set_ylabel("share that is so")
    return ax


def roc(p, y, ax=None):
    """True positives against false ones, for every threshold.

    Parameters
    ----------
    p, y : as in `calibration`
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    p, y = _checked(p, y)
    ax = axes_of(ax)
    order = np.argsort(-p, kind="stable")
    last = np.append(np.diff(p[order]) != 0, True)  # no threshold parts equal scores
    hits, alarms = np.cumsum(y[order]) / y.sum(), np.cumsum(1 - y[order]) / (1 - y).sum()
    ax.plot(np.concatenate([[0.0], alarms[last]]), np.concatenate([[0.0], hits[last]]))
    ax.plot([0, 1], [0, 1], color="0.7")
    ax.set_xlabel("false alarms")
    ax.set_ylabel("found")
    return ax
