"""What the pictures share: matplotlib where it is installed, axes, sheets of tiles."""

import numpy as np


def require():
    """The module matplotlib.pyplot.

    Raises
    ------
    ImportError
        matplotlib is not installed; the message names the extra that brings it.
    """
    try:
        import matplotlib.pyplot as pyplot
    except ImportError as error:
        raise ImportError(
            "plot: expected matplotlib to be installed (pip install 'fastdl-nn[plot]'); got none"
        ) from error
    return pyplot


def canvas(figsize=(9, 6)):
    """A figure that needs no window system and leaves no state behind: draw on it, then ``figure.savefig(path)``.

    Parameters
    ----------
    figsize : (float, float)
        Inches.

    Returns
    -------
    matplotlib Figure
    """
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=figsize, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def axes_of(ax):
    """The axes given, or those of a new figure."""
    return require().subplots()[1] if ax is None else _axes("ax", ax)


def _axes(name, ax):
    if not isinstance(ax, require().Axes):
        raise TypeError(f"{name}: expected matplotlib Axes; got {type(ax).__name__}")
    return ax


def several_axes(axes, least=0, each=""):
    """The axes given as a list, of which so many are needed."""
    if not hasattr(axes, "__iter__"):
        raise TypeError(f"axes: expected a sequence of matplotlib Axes; got {type(axes).__name__}")
    axes = list(axes)
    if len(axes) < least:
        raise ValueError(f"axes: expected {least}, {each}; got {len(axes)}")
    return [_axes(f"axes[{i}]", ax) for i, ax in enumerate(axes)]


def reals(name, value, dtype=np.float64):
    """An array of real numbers."""
    try:
        return np.asarray(value, dtype)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of real numbers; got {error}") from None


def strings(name, given, n, each):
    """A list of so many strings."""
    if not hasattr(given, "__len__"):
        raise TypeError(f"{name}: expected a sequence of strings; got {type(given).__name__}")
    if len(given) != n:
        raise ValueError(f"{name}: expected {n}, {each}; got {len(given)}")
    for text in given:
        if not isinstance(text, str):
            raise TypeError(f"{name}: expected strings; got {type(text).__name__}")
    return list(given)


def tiles(images, columns, gap):
    """Images [N,Y,X] or [N,Y,X,C] beside and below one another; NaN between."""
    n, y, x = images.shape[:3]
    lines = -(-n // columns)
    sheet = np.full((lines * (y + gap) - gap, columns * (x + gap) - gap, *images.shape[3:]), np.nan, np.float32)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * (y + gap) : row * (y + gap) + y, column * (x + gap) : column * (x + gap) + x] = image
    return sheet
