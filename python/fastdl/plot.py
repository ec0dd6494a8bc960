"""Pictures of a training: learning curve, first-layer filters, worst mistakes. They need matplotlib, extra ``plot``."""

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


def _axes(ax):
    return require().subplots()[1] if ax is None else ax


def learning_curve(history, ax=None):
    """Loss and, where there was validation, its loss and accuracy, over the epochs.

    Parameters
    ----------
    history : dict
        As from `fastdl.train.fit`.
    ax : matplotlib Axes, optional
        Where to draw; a new figure if left out.

    Returns
    -------
    matplotlib Axes
    """
    epochs = history.get("epoch", [])
    if not epochs:
        raise ValueError("history: expected one epoch or more; got none")
    ax = _axes(ax)
    curves = {"loss": "training loss", "errors": "mistakes while training", "val_loss": "validation loss"}
    for name, label in curves.items():
        if name in history:
            # a run that was interrupted has an epoch without validation
            ax.plot(epochs[: len(history[name])], history[name], label=label)
    ax.set_xlabel("epoch")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_ylim(bottom=0)
    handles = list(ax.get_lines())
    accuracy = history.get("val_accuracy")
    if accuracy:
        right = ax.twinx()
        handles += right.plot(epochs[: len(accuracy)], accuracy, color="tab:green", label="validation accuracy")
        right.set_ylim(min(0.9, min(accuracy)), 1.0)
        right.set_ylabel("accuracy")
    ax.set_ylabel("loss")
    ax.legend(handles=handles, loc="center right", frameon=False)
    return ax


def _tiles(images, columns, gap):
    """Images [N,Y,X] or [N,Y,X,C] beside and below one another; NaN between."""
    n, y, x = images.shape[:3]
    lines = -(-n // columns)
    sheet = np.full((lines * (y + gap) - gap, columns * (x + gap) - gap, *images.shape[3:]), np.nan, np.float32)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        sheet[row * (y + gap) : row * (y + gap) + y, column * (x + gap) : column * (x + gap) + x] = image
    return sheet


def filters(weights, ax=None, columns=None):
    """The filters of a first convolution, or the rows of pixels behind the first units of a dense layer.

    Parameters
    ----------
    weights : array [R,S,C,F]
        With three channels they are drawn in colour, otherwise as the mean over channels: blue negative, red positive.
        A matrix [I,O] with I a square number is taken as O images.
    ax : matplotlib Axes, optional
    columns : int, optional

    Returns
    -------
    matplotlib Axes
    """
    w = np.asarray(weights, np.float32)
    if w.ndim == 2 and int(len(w) ** 0.5) ** 2 == len(w):
        side = int(len(w) ** 0.5)
        w = w[:, :64].reshape(side, side, 1, -1)
    if w.ndim != 4:
        raise ValueError(f"weights: expected filters [R,S,C,F] or a matrix of square images; got shape {list(w.shape)}")
    ax, images = _axes(ax), w.transpose(3, 0, 1, 2)
    columns = columns or int(np.ceil(len(images) ** 0.5 * 1.3))
    if images.shape[-1] == 3:
        low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
        sheet = _tiles((images - low) / np.maximum(high - low, 1e-12), columns, 1)
        ax.imshow(np.nan_to_num(sheet, nan=1.0))
    else:
        sheet = _tiles(images.mean(-1), columns, 1)
        most = np.nanmax(np.abs(sheet))
        ax.imshow(sheet, cmap="RdBu_r", vmin=-most, vmax=most)
    ax.set_axis_off()
    return ax


def mistakes(images, truth, predicted, probabilities, axes=None, count=12, names=None):
    """The mistakes of which a classifier was surest, the worst first.

    Parameters
    ----------
    images : array [N,Y,X,C]
        uint8, or float in [0,1].
    truth, predicted : int array [N]
    probabilities : array [N,classes]
    axes : sequence of matplotlib Axes, optional
        One for each mistake; a new figure if left out.
    count : int
    names : sequence of str, optional
        What the classes are called.

    Returns
    -------
    list of matplotlib Axes
        Those that hold a mistake; fewer than `count` where there were fewer.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if not len(images) == len(truth) == len(predicted) == len(probabilities):
        raise ValueError(
            "images: expected as many as truth, predicted and probabilities; got "
            f"{len(images)}, {len(truth)}, {len(predicted)}, {len(probabilities)}"
        )
    if axes is None:
        pyplot = require()
        lines = -(-count // 6)
        axes = pyplot.subplots(lines, min(count, 6), squeeze=False, figsize=(9, 1.8 * lines))[1].reshape(-1)
    axes = list(axes)[:count]
    for ax in axes:
        ax.set_axis_off()
    wrong = np.flatnonzero(truth != predicted)
    sure = np.asarray(probabilities)[wrong, predicted[wrong]]
    wrong = wrong[np.argsort(-sure, kind="stable")][: len(axes)]
    names = names or [str(c) for c in range(np.shape(probabilities)[1])]
    used = []
    for ax, i in zip(axes, wrong, strict=False):
        image = np.asarray(images[i])
        ax.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray_r")
        share = float(np.asarray(probabilities)[i, predicted[i]])
        ax.set_title(f"{names[truth[i]]} as {names[predicted[i]]}\n{share:.0%} sure", fontsize=8)
        used.append(ax)
    return used


def mnist_cnn_picture(path, history, weights, images, truth, probabilities, title="", names=None):
    """Learning curve, first-layer filters and worst mistakes in one PNG (or what the path's suffix says).

    Parameters
    ----------
    path : path
    history : dict
    weights : array [R,S,C,F]
        Of the first layer.
    images : array [N,Y,X,C]
    truth : int array [N]
    probabilities : array [N,classes]
    title : str
    names : sequence of str, optional

    Returns
    -------
    matplotlib Figure
    """
    require()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # No window system is needed, and no global state is left behind.
    figure = Figure(figsize=(11, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.35, 1))
    left, right = top.subplots(1, 2, width_ratios=(1.6, 1))
    learning_curve(history, left)
    left.set_title("learning curve")
    filters(weights, right)
    right.set_title("filters of the first layer")
    cells = bottom.subplots(2, 8, squeeze=False).reshape(-1)
    predicted = np.argmax(probabilities, axis=1)
    mistakes(images, truth, predicted, probabilities, cells, count=16, names=names)
    wrong = int(np.sum(predicted != np.asarray(truth)))
    bottom.suptitle(f"worst of {wrong} mistakes among {len(images)} test images", fontsize=10)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
    return figure


def report_picture(path, report):
    """`mnist_cnn_picture` of a recipe's report.

    Parameters
    ----------
    path : path
    report : fastdl.recipes.Report

    Returns
    -------
    matplotlib Figure
    """
    images, truth = report.test
    model = report.model
    # a perceptron has outputs and no probabilities
    outputs = model.predict_proba(images) if report.probabilistic else _softmax(model.decision_function(images))
    first = next(w for w in model.get_weights().values() if w.ndim in (2, 4))
    title = f"{report.recipe}: test accuracy {report.metrics['test_accuracy']:.2%}"
    return mnist_cnn_picture(path, model.history_, first, images, truth, outputs, title, report.names)


def _softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
