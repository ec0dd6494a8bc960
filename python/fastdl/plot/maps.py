"""Tables and maps: which class is taken for which, where codes and embeddings lie."""

import numpy as np

from ._figure import axes_of, reals, strings


def confusion(truth, predicted, names=None, ax=None):
    """The confusion matrix: a line for each true class, a column for each predicted one, counts in the cells.

    Colours are shares of the true class, so that small classes show as clearly as large ones.

    Parameters
    ----------
    truth, predicted : array [N]
        Integer or string labels.
    names : sequence of str, optional
        What the classes, sorted, are called.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    from ..models._door import as_labels

    shape, other = np.shape(truth), np.shape(predicted)
    if len(shape) != 1 or shape != other or shape == (0,):
        raise ValueError(
            f"truth, predicted: expected one shape [N] for both, N at least 1; got {list(shape)} and {list(other)}"
        )
    truth, predicted = as_labels(truth, *shape, "truth"), as_labels(predicted, *shape, "predicted")
    if (truth.dtype.kind in "US") != (predicted.dtype.kind in "US"):
        raise TypeError(f"truth, predicted: expected labels of one kind; got {truth.dtype} and {predicted.dtype}")
    classes = np.union1d(truth, predicted)
    if names is None:
        names = [str(c) for c in classes]
    elif classes.dtype.kind in "iu" and classes.min() >= 0 and classes.max() < len(names):
        classes = np.arange(len(names))  # also those that never occur
    names = strings("names", names, len(classes), "one a class")
    table = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(table, (np.searchsorted(classes, truth), np.searchsorted(classes, predicted)), 1)
    share = table / np.maximum(table.sum(1, keepdims=True), 1)
    ax = axes_of(ax)
    ax.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0)
    if len(classes) <= 20:
        for (i, j), n in np.ndenumerate(table):
            if n:
                ax.text(j, i, str(n), ha="center", va="center", fontsize=7, color="w" if share[i, j] > 0.5 else "k")
    ax.set_xticks(range(len(classes)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    ax.set_yticks(range(len(classes)), names)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    return ax


def embeddings(points, labels=None, names=None, texts=None, ax=None):
    """Codes or embeddings as points, coloured by class or written as words.

    Parameters
    ----------
    points : array [N,D]
        D at least 2; of more than two axes the two principal ones are shown, with their shares of the variance.
    labels : array [N], optional
        Integers or strings.
    names : sequence of str, optional
        Of the classes 0, 1, ...; of labels that are no such numbers, in sorted order.
    texts : sequence of str [N], optional
        Written instead of points.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    x = reals("points", points)
    if x.ndim != 2 or x.shape[1] < 2 or not len(x):
        raise ValueError(f"points: expected shape [N,D], N at least 1 and D at least 2; got {list(x.shape)}")
    if not np.isfinite(x).all():
        raise ValueError("points: expected finite numbers; got NaN or infinity")
    for name, given in (("labels", labels), ("texts", texts)):
        if given is not None and np.shape(given) != (len(x),):
            raise ValueError(f"{name}: expected {len(x)}, one a point; got shape {list(np.shape(given))}")
    ax, about = axes_of(ax), ("", "")
    if x.shape[1] > 2:
        x = x - x.mean(0)
        # one point is taken twice: two axes need two rows
        _, spread, axes = np.linalg.svd(np.resize(x, (max(len(x), 2), x.shape[1])), full_matrices=False)
        x, share = x @ axes[:2].T, spread**2 / max((spread**2).sum(), 1e-300)
        about = [f"principal axis {i + 1}, {share[i]:.0%} of the variance" for i in (0, 1)]
    labels = np.zeros(len(x), int) if labels is None else np.asarray(labels)
    classes = np.unique(labels)
    several = len(classes) > 1
    counted = classes.dtype.kind in "iu" and classes.min() >= 0
    need = int(classes.max()) + 1 if counted else len(classes)
    if names is not None and len(names) < need:
        raise ValueError(f"names: expected {need} or more, one a class; got {len(names)}")
    for i, c in enumerate(classes):
        here, place = x[labels == c], int(c) if counted else i
        colour = f"C{place % 10}"
        if texts is None:
            name = str(c) if names is None else names[place]
            ax.plot(here[:, 0], here[:, 1], ".", color=colour, markersize=3, label=name if several else None)
        else:
            for (a, b), text in zip(here, np.asarray(texts)[labels == c], strict=True):
                ax.text(a, b, text, color=colour, fontsize=7, ha="center", va="center", parse_math=False)
    if texts is not None:  # text alone does not move the limits
        ax.update_datalim(x)
        ax.autoscale_view()
    elif several:
        ax.legend(frameon=False, fontsize=8, markerscale=3, ncols=2)
    ax.set_xlabel(about[0])
    ax.set_ylabel(about[1])
    return ax
