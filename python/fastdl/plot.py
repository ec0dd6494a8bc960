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


def doctor(report, ax=None):
    """The chart of an examination: norms of outputs, gradients and weights by layer, the verdict as title.

    Parameters
    ----------
    report : fastdl.diagnostics.Report
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    if not report.layers:
        raise ValueError("report: expected one with layers, as from diagnostics.examine; got none")
    ax = _axes(ax)
    places = np.arange(len(report.layers))
    for values, label, style in (
        ([r.output for r in report.layers], "outputs (root mean square)", "o-"),
        ([r.gradient for r in report.layers], "gradient by outputs (norm)", "s-"),
        ([r.weight_gradient for r in report.layers], "gradient by weights (norm)", "^:"),
    ):
        values = np.array(values, float)
        shown = np.isfinite(values) & (values > 0)
        if shown.any():
            ax.plot(places[shown], values[shown], style, label=label, markersize=4 if len(places) < 60 else 0)
    ax.set_yscale("log")
    ax.set_xlabel("layer, from the input to the output")
    if len(places) <= 16:
        ax.set_xticks(places, [r.name.removeprefix("layers.") or r.kind for r in report.layers])
    ax.set_title(f"verdict: {report.verdict}")
    ax.legend(frameon=False)
    return ax


def updates(watch, ax=None):
    """Updates against weights while training, one line a parameter; the grey band is what is usual.

    Parameters
    ----------
    watch : fastdl.diagnostics.Watch
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    if not watch.steps:
        raise ValueError("watch: expected one measurement or more; got none (a step callback: on_step=[watch])")
    ax = _axes(ax)
    ax.axhspan(1e-4, 1e-2, color="0.92", zorder=0)
    for name, values in watch.ratios.items():
        ax.plot(watch.steps, values, label=name)
    ax.set_yscale("log")
    ax.set_xlabel("update")
    ax.set_ylabel("update / weights (norms)")
    if len(watch.ratios) <= 10:
        ax.legend(frameon=False, fontsize=8)
    return ax


def attribution(image, shares, ax=None):
    """Shares of the pixels in a decision over the image: red for, blue against.

    Parameters
    ----------
    image : array [Y,X] or [Y,X,C]
    shares : array [Y,X] or [Y,X,C]
        As from `fastdl.diagnostics`; summed over channels, enlarged to the image where smaller.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    image, shares = np.asarray(image), np.asarray(shares, np.float64)
    if shares.ndim == 3:
        shares = shares.sum(-1)
    if image.ndim not in (2, 3) or shares.ndim != 2:
        raise ValueError(f"image, shares: expected [Y,X] or [Y,X,C] each; got {list(image.shape)} and {list(shares.shape)}")
    ax = _axes(ax)
    extent = (-0.5, image.shape[1] - 0.5, image.shape[0] - 0.5, -0.5)
    grey = image.mean(-1) if image.ndim == 3 else image
    ax.imshow(grey, cmap="gray", extent=extent)
    most = np.abs(shares).max() or 1.0
    ax.imshow(shares, cmap="RdBu_r", vmin=-most, vmax=most, alpha=0.6, extent=extent)
    ax.set_axis_off()
    return ax


def hierarchy(model, images, layers=None, units=6, patches=4, axes=None):
    """What the layers of a convolutional network look for: edges, parts, wholes.

    For each layer a row, for each of its most selective filters the patches of the images that excite it most, cut out as
    far as the filter can see.

    Parameters
    ----------
    model : model or Module
    images : array [N,Y,X,C] or [N,Y,X]
        Real images; a few hundred show the idea.
    layers : sequence of str, optional
        Names; by default every convolution (at most four, evenly chosen).
    units, patches : int
        Filters a layer; patches a filter.
    axes : sequence of matplotlib Axes, optional
        One for each layer; a new figure if left out.

    Returns
    -------
    list of matplotlib Axes
    """
    from .diagnostics import most_exciting, receptive_fields
    from .diagnostics._network import input_of, module_of
    from .diagnostics.attribution import _outputs_of

    x = input_of(model, images)
    if x.ndim != 4:
        raise ValueError(f"images: expected shape [N,Y,X,C]; got {list(x.shape)}")
    fields = {name: rest for name, *rest in receptive_fields(model, x.shape[1:])}
    known = dict(module_of(model).named_modules())
    if layers is None:
        found = [n for n in fields if type(known[n]).__name__ == "Conv2d"]
        layers = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(4, len(found))).astype(int))]
    if not layers or any(n not in fields for n in layers):
        raise ValueError(f"layers: expected names among {', '.join(fields) or 'no layer'}; got {list(layers)}")
    if axes is None:
        axes = require().subplots(len(layers), 1, squeeze=False, figsize=(9, 1.9 * len(layers)))[1][:, 0]
    from . import backend

    pictures = np.asarray(backend.to_host(x))
    for ax, name in zip(axes, layers, strict=True):
        size, jump, start = fields[name]
        outputs = _outputs_of(model, name, x)
        best = outputs.reshape(len(outputs), -1, outputs.shape[-1]).max(1)
        # A filter that answers strongly to few images has something to show.
        choice = np.argsort(-(best.max(0) - best.mean(0)) / (best.std(0) + 1e-6), kind="stable")[:units]
        tiles = []
        for unit in choice:
            index, _, place = most_exciting(model, images, name, int(unit), patches)
            for i, (p, q) in zip(index, place, strict=True):
                patch = np.zeros((*size, pictures.shape[-1]), np.float32)
                top, left = start[0] + p * jump[0], start[1] + q * jump[1]
                y0, y1 = max(top, 0), min(top + size[0], pictures.shape[1])
                x0, x1 = max(left, 0), min(left + size[1], pictures.shape[2])
                patch[y0 - top : y1 - top, x0 - left : x1 - left] = pictures[i, y0:y1, x0:x1]
                low, high = patch.min(), patch.max()
                tiles.append((patch - low) / max(high - low, 1e-6))
        sheet = _tiles(np.stack(tiles), patches * 2 if len(choice) > 2 else patches, 1)
        ax.imshow(sheet[..., 0] if sheet.shape[-1] == 1 else np.nan_to_num(sheet, nan=1.0), cmap="gray")
        ax.set_title(f"{name or 'network'}: sees {size[0]}x{size[1]} pixels", fontsize=9)
        ax.set_axis_off()
    return list(axes)
