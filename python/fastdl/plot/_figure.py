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
    return require().subplots()[1] if ax is None else ax


def tiles(images, columns, gap):
    """Images [N,Y,X] or [N,Y,X,C] beside and below one another; NaN between."""
    n, y, x = images.shape[:3]
    lines = -(-n // columns)
    sheet = np.full((lines * (y + gap) - gap, columns * (x + gap) - gap, *images.shape[3:]), np.nan, np.float32)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * (y + gap) : row * (y + gap) + y, column * (x + gap) : column * (x + gap) + x] = image
    return sheet
