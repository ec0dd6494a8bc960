"""Images and what networks make of them: samples, reconstructions, captions, filters, mistakes, attributions."""

import numpy as np

from .._arguments import array, positive
from ._figure import axes_of, reals, require, several_axes, strings, tiles


def as_images(images, name="images"):
    """float32 [N,Y,X] or [N,Y,X,3] in [0,1] of images [N,Y,X], [N,Y,X,C], or rows [N,V] with V a square number."""
    a = array(name, images)
    if a.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers; got {a.dtype}")
    if a.ndim == 2 and int(a.shape[1] ** 0.5) ** 2 == a.shape[1] > 0:
        side = int(a.shape[1] ** 0.5)
        a = a.reshape(len(a), side, side)
    if a.ndim == 4 and a.shape[-1] == 1:
        a = a[..., 0]
    if a.ndim == 0 or len(a) == 0 or not (a.ndim == 3 or (a.ndim == 4 and a.shape[-1] == 3)):
        raise ValueError(
            f"{name}: expected images [N,Y,X], [N,Y,X,1], [N,Y,X,3] or rows of square images; got shape {list(np.shape(images))}"
        )
    a = a.astype(np.float32) / 255 if a.dtype == np.uint8 else a.astype(np.float32)
    return np.clip(a, 0.0, 1.0)


def _columns(columns, n, wider=1.0):
    """Of a sheet of n tiles: as asked for, or about a square."""
    return int(np.ceil(n**0.5 * wider)) if columns is None else positive("columns", columns)


def _show(ax, sheet, cmap):
    if sheet.ndim == 3:
        ax.imshow(np.nan_to_num(sheet, nan=1.0))
    else:
        ax.imshow(sheet, cmap=cmap, vmin=0.0, vmax=1.0)
    ax.set_axis_off()
    return ax


def samples(images, ax=None, columns=None, title=None, cmap="gray"):
    """A sheet of images: what a model has sampled, or data.

    Parameters
    ----------
    images : array [N,Y,X], [N,Y,X,C] or [N,V]
        uint8, or values that are shown from 0 to 1; C is 1 or 3, V a square number.
    ax : matplotlib Axes, optional
    columns : int, optional
        Of the sheet; about a square if left out.
    title, cmap : str

    Returns
    -------
    matplotlib Axes
    """
    a = as_images(images)
    ax = _show(axes_of(ax), tiles(a, _columns(columns, len(a)), 1), cmap)
    if title is not None:
        ax.set_title(title, fontsize=10)
    return ax


def reconstructions(images, *others, names=None, ax=None, count=12, cmap="gray"):
    """Images in the first line, below each what a model made of it, a line for each array given.

    Parameters
    ----------
    images, *others : arrays [N,Y,X], [N,Y,X,C] or [N,V]
        Originals, then reconstructions, corrupted images, another model's reconstructions, ...
    names : sequence of str, optional
        Of the lines; drawn at their left.
    ax : matplotlib Axes, optional
    count : int
        The first so many.
    cmap : str

    Returns
    -------
    matplotlib Axes
    """
    positive("count", count)
    lines = [as_images(a, "images" if i == 0 else f"others[{i - 1}]")[:count] for i, a in enumerate((images, *others))]
    for i, line in enumerate(lines):
        if line.shape != lines[0].shape:
            raise ValueError(f"others[{i - 1}]: expected shape {list(lines[0].shape)}; got {list(line.shape)}")
    names = () if names is None else strings("names", names, len(lines), "one a line")
    n, side = lines[0].shape[:2]
    ax = _show(axes_of(ax), tiles(np.concatenate(lines), n, 1), cmap)
    for i, name in enumerate(names):
        ax.text(-2, i * (side + 1) + side / 2, name, ha="right", va="center", fontsize=9)
    return ax


def captions(images, texts, truth=None, axes=None, columns=4, width=28):
    """Images with what was said about them, and what should have been said below in grey.

    Parameters
    ----------
    images : array [N,Y,X] or [N,Y,X,C]
    texts : sequence of str [N]
    truth : sequence of str [N], optional
    axes : sequence of matplotlib Axes, optional
        One for each image; a new figure if left out.
    columns : int
    width : int
        Letters a line.

    Returns
    -------
    list of matplotlib Axes
    """
    import textwrap

    a = as_images(images)
    columns, width = positive("columns", columns), positive("width", width)
    texts = strings("texts", texts, len(a), "one an image")
    truth = truth if truth is None else strings("truth", truth, len(a), "one an image")
    if axes is None:
        lines = -(-len(a) // columns)
        axes = require().subplots(lines, columns, squeeze=False, figsize=(2.4 * columns, 2.8 * lines))[1].reshape(-1)
    axes = several_axes(axes, len(a), "one an image")
    for ax in axes:
        ax.set_axis_off()
    used = axes[: len(a)]
    for i, (ax, image) in enumerate(zip(used, a, strict=True)):
        _show(ax, image, "gray")
        ax.set_title(textwrap.fill(texts[i], width), fontsize=8, parse_math=False)
        if truth is not None:
            place = dict(ha="center", va="top", fontsize=7, color="0.4", transform=ax.transAxes, parse_math=False)
            ax.text(0.5, -0.03, textwrap.fill(truth[i], width + 4), **place)
    return used


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
    w = reals("weights", weights, np.float32)
    if w.ndim == 2 and int(len(w) ** 0.5) ** 2 == len(w) > 0:
        side = int(len(w) ** 0.5)
        w = w[:, :64].reshape(side, side, 1, -1)
    if w.ndim != 4 or 0 in w.shape:
        raise ValueError(
            f"weights: expected filters [R,S,C,F] or a matrix of square images; got shape {list(np.shape(weights))}"
        )
    images = w.transpose(3, 0, 1, 2)
    columns, ax = _columns(columns, len(images), 1.3), axes_of(ax)
    if images.shape[-1] == 3:
        low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
        sheet = tiles((images - low) / np.maximum(high - low, 1e-12), columns, 1)
        ax.imshow(np.nan_to_num(sheet, nan=1.0))
    else:
        sheet = tiles(images.mean(-1), columns, 1)
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
        Classes by their columns of `probabilities`.
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
    truth, predicted = array("truth", truth), array("predicted", predicted)
    for name, given in (("images", images), ("probabilities", probabilities)):
        if not hasattr(given, "__len__") or np.ndim(given) == 0:
            raise TypeError(f"{name}: expected an array with samples first; got {type(given).__name__}")
    for name, a in (("truth", truth), ("predicted", predicted)):
        if a.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected columns of probabilities, integers from 0; got {a.dtype}")
        if a.ndim != 1:
            raise ValueError(f"{name}: expected shape [N]; got {list(a.shape)}")
    if not len(images) == len(truth) == len(predicted) == len(probabilities):
        raise ValueError(
            "images: expected as many as truth, predicted and probabilities; got "
            f"{len(images)}, {len(truth)}, {len(predicted)}, {len(probabilities)}"
        )
    shares = reals("probabilities", probabilities)
    if shares.ndim != 2:
        raise ValueError(f"probabilities: expected shape [N,classes]; got {list(shares.shape)}")
    classes = shares.shape[1]
    for name, a in (("truth", truth), ("predicted", predicted)):
        if np.any(strange := (a < 0) | (a >= classes)):
            raise ValueError(f"{name}: expected columns of probabilities, 0 to {classes - 1}; got {a[strange][0]}")
    names = [str(c) for c in range(classes)] if names is None else strings("names", names, classes, "one a class")
    positive("count", count)
    if axes is None:
        pyplot = require()
        lines = -(-count // 6)
        axes = pyplot.subplots(lines, min(count, 6), squeeze=False, figsize=(9, 1.8 * lines))[1].reshape(-1)
    axes = several_axes(axes)[:count]
    for ax in axes:
        ax.set_axis_off()
    wrong = np.flatnonzero(truth != predicted)
    sure = shares[wrong, predicted[wrong]]
    wrong = wrong[np.argsort(-sure, kind="stable")][: len(axes)]
    used = []
    for ax, i in zip(axes, wrong, strict=False):
        image = np.asarray(images[i])
        ax.imshow(image[..., 0] if image.shape[-1] == 1 else image, cmap="gray_r")
        ax.set_title(f"{names[truth[i]]} as {names[predicted[i]]}\n{shares[i, predicted[i]]:.0%} sure", fontsize=8)
        used.append(ax)
    return used


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
    image, shares = reals("image", image), reals("shares", shares)
    if shares.ndim == 3:
        shares = shares.sum(-1)
    if image.ndim not in (2, 3) or shares.ndim != 2 or 0 in image.shape + shares.shape:
        raise ValueError(
            f"image, shares: expected [Y,X] or [Y,X,C] each; got {list(image.shape)} and {list(shares.shape)}"
        )
    ax = axes_of(ax)
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
    from ..diagnostics import most_exciting, receptive_fields
    from ..diagnostics._network import input_of, module_of
    from ..diagnostics.attribution import _outputs_of

    positive("units", units), positive("patches", patches)
    x = input_of(model, images)
    if x.ndim != 4:
        raise ValueError(f"images: expected shape [N,Y,X,C]; got {list(x.shape)}")
    fields = {name: rest for name, *rest in receptive_fields(model, x.shape[1:])}
    known = dict(module_of(model).named_modules())
    if layers is None:
        found = [n for n in fields if type(known[n]).__name__ == "Conv2d"]
        layers = [found[i] for i in np.unique(np.linspace(0, len(found) - 1, min(4, len(found))).astype(int))]
    elif not hasattr(layers, "__iter__"):
        raise TypeError(f"layers: expected a sequence of names; got {type(layers).__name__}")
    if not layers or any(n not in fields for n in layers):
        raise ValueError(f"layers: expected names among {', '.join(fields) or 'no layer'}; got {list(layers)}")
    if axes is None:
        axes = require().subplots(len(layers), 1, squeeze=False, figsize=(9, 1.9 * len(layers)))[1][:, 0]
    axes = several_axes(axes, len(layers), "one a layer")[: len(layers)]
    from .. import backend

    pictures = np.asarray(backend.to_host(x))
    for ax, name in zip(axes, layers, strict=True):
        size, jump, start = fields[name]
        outputs = _outputs_of(model, name, x)
        best = outputs.reshape(len(outputs), -1, outputs.shape[-1]).max(1)
        # A filter that answers strongly to few images has something to show.
        choice = np.argsort(-(best.max(0) - best.mean(0)) / (best.std(0) + 1e-6), kind="stable")[:units]
        patches_of_units = []
        for unit in choice:
            index, _, place = most_exciting(model, images, name, int(unit), patches)
            for i, (p, q) in zip(index, place, strict=True):
                patch = np.zeros((*size, pictures.shape[-1]), np.float32)
                top, left = start[0] + p * jump[0], start[1] + q * jump[1]
                y0, y1 = max(top, 0), min(top + size[0], pictures.shape[1])
                x0, x1 = max(left, 0), min(left + size[1], pictures.shape[2])
                patch[y0 - top : y1 - top, x0 - left : x1 - left] = pictures[i, y0:y1, x0:x1]
                low, high = patch.min(), patch.max()
                patches_of_units.append((patch - low) / max(high - low, 1e-6))
        sheet = tiles(np.stack(patches_of_units), patches * 2 if len(choice) > 2 else patches, 1)
        ax.imshow(sheet[..., 0] if sheet.shape[-1] == 1 else np.nan_to_num(sheet, nan=1.0), cmap="gray")
        ax.set_title(f"{name or 'network'}: sees {size[0]}x{size[1]} pixels", fontsize=9)
        ax.set_axis_off()
    return axes
