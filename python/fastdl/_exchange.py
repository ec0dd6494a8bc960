"""What weights in the layouts of other libraries (interop.py) and graphs of networks (onnx.py) share: what is meant by a model,
and where images are flattened and made."""

import math

import numpy as np

from . import nn


def unwrapped(model):
    """The model behind a scikit-learn estimator; any other object itself."""
    if isinstance(model, nn.Module) or hasattr(model, "module_"):
        return model
    return getattr(model, "model_", model)


def shape_of(input_shape):
    """A tuple of the sizes of one sample."""
    if input_shape is None:
        raise ValueError("input_shape: expected the shape of one sample, for a Module; got None")
    one = hasattr(input_shape, "__index__") and not getattr(input_shape, "ndim", 0)
    shape = (input_shape,) if one else input_shape
    if isinstance(shape, (str, bytes, dict)) or not hasattr(shape, "__iter__"):
        raise TypeError(f"input_shape: expected the sizes of one sample, integers; got {input_shape!r}")
    shape = tuple(shape)
    if not all(hasattr(size, "__index__") for size in shape):
        raise TypeError(f"input_shape: expected the sizes of one sample, integers; got {input_shape!r}")
    if any(size < 1 for size in shape):
        raise ValueError(f"input_shape: expected sizes of at least 1; got {input_shape!r}")
    return tuple(int(size) for size in shape)


def has_weights(m):
    return any(isinstance(c, nn.Parameter) for _, c in m._children())


def begins_with_tokens(module):
    """Whether a network looks its input up in a table."""
    while isinstance(module, nn.Sequential) and len(module):
        module = module[0]
    return isinstance(module, nn.Embedding)


def channels_first(image):
    """For each place in a channels-first flattened image: its place in ours."""
    return np.moveaxis(np.arange(math.prod(image)).reshape(image), -1, 0).reshape(-1)


def images_around(rows):
    """Where the units of a flat vector are the pixels of an image.

    Parameters
    ----------
    rows : list of (name, module, input shape, output shape)
        As from `Module.trace`.

    Returns
    -------
    dict of int to (image or None, image or None)
        By the id of a layer: the (Y, X, C), or (T, C) of a sequence of channels, that its flat inputs come from, and the
        one that its flat outputs become. Images whose order is the same with channels first are left out.
    list of str
        Places where no order of the weights gives the same network with channels first: what was expected, what came.
    """
    found, problems = {}, []
    residuals = [name for name, m, _, _ in rows if isinstance(m, nn.Residual)]
    weighted = [type(m).__name__ for _, m, _, _ in rows if has_weights(m)]
    image, last, seen = None, None, 0  # of the vector of now; kind of the last layer with weights; how many there were
    makers = []  # [(name, layer)] that the vector of now came through; None: something whose units keep their order
    came_flat = ""  # name of the Flatten

    def matters(shape, kind):
        # two axes are a sequence: only next to Conv1d does PyTorch have its channels first
        pixels = len(shape) == 3 or (len(shape) == 2 and kind == "Conv1d")
        return pixels and shape[-1] > 1 and math.prod(shape[:-1]) > 1

    def left_behind(name, other):
        """Whether a residual block around one place does not hold another: its short path keeps its order then."""
        return any(name.startswith(f"{r}.") and not other.startswith(f"{r}.") for r in residuals)

    for name, m, before, after in rows:
        if any(isinstance(c, nn.Module) for _, c in m._children()):
            continue
        kind, one = type(m).__name__, len(before) == 1
        come = image if one and image is not None and before[0] == math.prod(image) else None
        if kind in ("Flatten", "Reshape") and not one and len(after) == 1:
            image, came_flat = (tuple(before), name) if matters(before, last) else (None, "")
            makers = [] if image else None
        elif kind == "Reshape" and one and len(after) > 1:
            follows = weighted[seen] if seen < len(weighted) else None
            if matters(after, follows) and come != tuple(after):
                if come is not None or makers is None or any(left_behind(n, name) for n, _ in makers):
                    problems.append(
                        f"expected a Dense layer in front of {name} (Reshape to {list(after)}), whose units change "
                        "their order where channels come first; got another one, or a residual block between them"
                    )
                else:
                    for _, layer in makers:
                        found[id(layer)] = (found.get(id(layer), (None, None))[0], tuple(after))
            image, makers = None, []
        elif kind == "Dense" and one:
            if come is not None:
                if left_behind(name, came_flat):
                    problems.append(
                        f"expected a Dense layer behind {came_flat} (Flatten of {list(come)}), whose inputs change "
                        f"their order where channels come first; got {name} in a residual block, whose other path keeps it"
                    )
                found[id(m)] = (come, None)
            image, makers = None, [(name, m)]
        elif kind in ("BatchNorm", "LayerNorm"):
            if come is not None:
                found[id(m)] = (come, None)
            elif one and makers is not None:
                makers.append((name, m))
        elif has_weights(m) or tuple(before) != tuple(after):
            image, makers = None, None
        if has_weights(m):
            last, seen = kind, seen + 1
    return found, problems
