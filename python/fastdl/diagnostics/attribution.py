"""What a decision rests on, and what a unit looks for."""

import math

import numpy as np

from .. import backend, nn, random
from .._arguments import array, chance, number, positive
from ..module import observing, shape_of
from ..random import Stream
from ..tensor import Tensor, frozen, inference
from ._network import input_of, is_undirected, module_of, opened, steps_of, undisturbed


def _float_input(model, X):
    module_of(model)  # says first what was not built
    # A ClassificationRBM gives scores of its classes, which an input can be asked about; the others give hidden units.
    if is_undirected(model) and not hasattr(model, "_codes"):
        raise ValueError(
            f"model: expected a network that gives scores of its input; got {type(model).__name__}, an undirected model"
        )
    x = input_of(model, X)
    if x.dtype != np.float32:
        raise TypeError(f"X: expected numbers whose change means something; got {x.dtype} (indices)")
    steps = steps_of(model, x)
    if steps is x:
        return x
    # The network reads lengths beside the steps, and no gradient goes through that; of whole sequences it takes the steps.
    if (backend.to_host(x)[:, -1] != steps.shape[1]).any():
        raise ValueError(f"X: expected sequences of one length, {steps.shape[1]} steps here; got shorter ones")
    return backend.array(steps)


def _targets(model, target, n, width):
    """For each sample the column of the output that is explained; -1: the largest."""
    if target is None:
        return np.full(n, -1)
    labels = array("target", target)
    if labels.ndim == 0:
        labels = np.full(n, labels)
    if hasattr(model, "_codes"):
        return model._codes(labels, n, "target")
    if labels.shape != (n,) or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= width:
        raise ValueError(f"target: expected a column from 0 to {width - 1}, or one for each of {n} samples; got {target!r}")
    return labels.astype(np.int64)


def _must_be_scores(model, shape):
    if len(shape) != 2:
        raise ValueError(f"model: expected outputs [N,classes]; got shape {list(shape)} from {type(model).__name__}")


def _must_have_a_gradient(model, out):
    """Zeros would look like an answer where the outputs came without a tape."""
    if out.step is None:
        raise ValueError(
            f"model: expected outputs with a gradient, by recorded operations; got {type(model).__name__}, whose have none"
        )


def _slopes(model, x, target):
    """(d output[target] / d x, output) in evaluation mode."""
    module = module_of(model)
    with frozen(module.parameters()):
        t = Tensor(x, wants_grad=True)
        out = module(t)
        y = backend.to_host(out.data)
        _must_be_scores(model, y.shape)
        _must_have_a_gradient(model, out)
        columns = np.where(target < 0, y.argmax(1), target)
        seed = np.zeros(y.shape, np.float32)
        seed[np.arange(len(y)), columns] = 1.0
        out.backward(backend.to_device(seed, out.data))
    grad = np.zeros(x.shape, np.float32) if t.grad is None else np.array(backend.to_host(t.grad))
    return grad, y, columns


def _width(module, x):
    with inference():
        return module(Tensor(x[:1])).data.shape[-1]


def gradient_times_input(model, X, target=None):
    """Gradient x input: x[i] dy/dx[i], the share of each input in a linear approximation of the output.

    Parameters
    ----------
    model : model, fitted estimator or Module
    X : array [N,...]
    target : label, or array of labels [N], optional
        Which output (for a Module its column) is explained; the largest if left out.

    Returns
    -------
    float32 array of X's shape, as the network sees it
        Of a recurrent model's sequences, which must be of one length, [N,T,I].

    References
    ----------
    Shrikumar, Greenside, Shcherbina & Kundaje, "Not just a black box" (2016).
    """
    model, X, target = opened(model, X, target, "target")
    x, module = _float_input(model, X), module_of(model)
    with undisturbed(module):
        module.eval()
        grad, _, _ = _slopes(model, x, _targets(model, target, len(x), _width(module, x)))
    return grad * backend.to_host(x)


def integrated_gradients(model, X, target=None, baseline=0.0, steps=32):
    """(x - x0) times the mean gradient on the straight line from the baseline x0 to x.

    The shares of a sample add up to output(x) - output(x0), the more exactly the more steps.

    Parameters
    ----------
    model, X, target : as in `gradient_times_input`
    baseline : float or array of one sample's shape
        What counts as "nothing there".
    steps : int

    Returns
    -------
    float32 array of X's shape, as the network sees it

    References
    ----------
    Sundararajan, Taly & Yan, "Axiomatic attribution for deep networks" (2017).
    """
    steps = positive("steps", steps)
    model, X, target = opened(model, X, target, "target")
    x, module = _float_input(model, X), module_of(model)
    start = array("baseline", baseline)
    if start.dtype.kind not in "fiub":
        raise TypeError(f"baseline: expected a number or an array of numbers; got {baseline!r}")
    start = start.astype(np.float32)
    if start.ndim and start.shape != x.shape[1:]:
        raise ValueError(f"baseline: expected a number or shape {list(x.shape[1:])}; got {list(start.shape)}")
    with undisturbed(module):
        module.eval()
        target = _targets(model, target, len(x), _width(module, x))
        at_end = backend.to_host(x)
        _, _, target = _slopes(model, x, target)  # the largest output is that of the sample itself
        total = np.zeros(at_end.shape, np.float64)
        for i in range(steps):
            point = (start + (at_end - start) * np.float32((i + 0.5) / steps)).astype(np.float32)
            total += _slopes(model, backend.to_device(np.ascontiguousarray(point), x), target)[0]
    return (total / steps * (at_end - start)).astype(np.float32)


def occlusion(model, images, target=None, size=4, stride=2, fill=0.0):
    """How much the output falls when a square of the image is covered, for every place of the square.

    Parameters
    ----------
    model, target : as in `gradient_times_input`
    images : array [N,Y,X,C] or [N,Y,X]
    size, stride : int
        Of the square and between places, in pixels.
    fill : float
        What the square is covered with, as the network sees it (0 to 1 for images).

    Returns
    -------
    float32 array [N,P,Q]
        P = (Y - size) / stride + 1, rounded down.

    References
    ----------
    Zeiler & Fergus, "Visualizing and understanding convolutional networks" (2014).
    """
    model, images, target = opened(model, images, target, "target")
    x, module = _float_input(model, images), module_of(model)
    if x.ndim != 4:
        raise ValueError(f"images: expected shape [N,Y,X,C]; got {list(x.shape)}")
    positive("size", size), positive("stride", stride), number("fill", fill)
    if size > min(x.shape[1:3]):
        raise ValueError(f"size: expected a square inside {list(x.shape[1:3])}; got {size}")
    from ..train import predict

    whole = backend.to_host(predict(module, x))
    _must_be_scores(model, whole.shape)
    columns = _targets(model, target, len(x), whole.shape[1])
    columns = np.where(columns < 0, whole.argmax(1), columns)
    rows = np.arange(len(x))
    ys, xs = (range(0, n - size + 1, stride) for n in x.shape[1:3])
    result = np.empty((len(x), len(ys), len(xs)), np.float32)
    for p, at in enumerate(ys):
        for q, left in enumerate(xs):
            covered = x.copy()
            covered[:, at : at + size, left : left + size] = fill
            result[:, p, q] = (whole - backend.to_host(predict(module, covered)))[rows, columns]
    return result


def _find(module, layer):
    """The module of a name; what is wrong with it is told."""
    known = dict(module.named_modules())
    if not isinstance(layer, str) or layer not in known:
        raise ValueError(f"layer: expected one of {', '.join(n for n in known if n)}; got {layer!r}")
    return known[layer]


def grad_cam(model, images, target=None, layer=None):
    """Where in the image the evidence for a class lies: relu(sum_f mean(dy/da_f) a_f) over the maps a_f of a convolution.

    Parameters
    ----------
    model, target : as in `gradient_times_input`
    images : array [N,Y,X,C] or [N,Y,X]
    layer : str, optional
        Name of a layer with outputs [N,P,Q,F]; the last such layer with weights if left out.

    Returns
    -------
    float32 array [N,Y,X]
        Enlarged to the image's size, each image's largest value 1 (all 0 where nothing speaks for the class).

    References
    ----------
    Selvaraju, Cogswell, Das, Vedantam, Parikh & Batra, "Grad-CAM" (2017).
    """
    model, images, target = opened(model, images, target, "target")
    x, module = _float_input(model, images), module_of(model)
    if x.ndim != 4:
        raise ValueError(f"images: expected shape [N,Y,X,C]; got {list(x.shape)}")
    names = {id(m): n for n, m in module.named_modules()}
    wanted = None if layer is None else _find(module, layer)
    seen = []

    def observe(part, inputs):
        out = part.forward(*inputs)
        if wanted is None:
            fits = out.data.ndim == 4 and any(isinstance(c, nn.Parameter) for _, c in part._children())
            fits = fits and out.data.shape[1] * out.data.shape[2] > 1
        else:
            fits = part is wanted
        if not fits:
            return out
        # A leaf of the tape from here on: what is before it needs no gradient.
        leaf = Tensor(out.data, wants_grad=True)
        seen.append((names.get(id(part), "?"), leaf))
        return leaf

    with undisturbed(module):
        module.eval()
        with frozen(module.parameters()), observing(observe):
            out = module(Tensor(x))
            y = backend.to_host(out.data)
            _must_be_scores(model, y.shape)
            if not seen and wanted is not None:
                raise ValueError(f"layer: expected a layer that the network calls; got {layer!r}")
            if not seen:
                raise ValueError("layer: expected a network with a convolution; got none")
            name, leaf = seen[-1]
            if leaf.data.ndim != 4:
                raise ValueError(f"layer: expected outputs [N,P,Q,F]; got {list(leaf.shape)} from {name}")
            _must_have_a_gradient(model, out)
            columns = _targets(model, target, len(x), y.shape[-1])
            columns = np.where(columns < 0, y.argmax(1), columns)
            seed = np.zeros(y.shape, np.float32)
            seed[np.arange(len(y)), columns] = 1.0
            out.backward(backend.to_device(seed, out.data))
    maps = backend.to_host(leaf.data)
    slopes = np.zeros_like(maps) if leaf.grad is None else backend.to_host(leaf.grad)
    cam = np.maximum((slopes.mean((1, 2), keepdims=True) * maps).sum(-1), 0.0)
    cam = np.stack([_enlarge(c, x.shape[1:3]) for c in cam])
    top = cam.max((1, 2), keepdims=True)
    return (cam / np.where(top > 0, top, 1.0)).astype(np.float32)


def _enlarge(a, shape):
    """Bilinear, pixel centres to pixel centres."""
    for axis, n in enumerate(shape):
        at = np.clip((np.arange(n) + 0.5) * a.shape[axis] / n - 0.5, 0, a.shape[axis] - 1)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, a.shape[axis] - 1)
        part = (at - low).reshape([-1 if i == axis else 1 for i in range(2)])
        a = np.take(a, low, axis) * (1 - part) + np.take(a, high, axis) * part
    return a


# -------------------------------------------------------------------------------------------------- what a unit looks for


def _outputs_of(model, layer, x, batch_size=256):
    """Outputs of a layer by name, [N,...] on the host."""
    module, parts = module_of(model), []
    wanted = _find(module, layer)
    with undisturbed(module):
        module.eval()
        for start in range(0, len(x), batch_size):
            caught = []

            def observe(part, inputs, caught=caught):
                out = part.forward(*inputs)
                if part is wanted:
                    caught.append(backend.to_host(out.data))
                return out

            xb = x[start : start + batch_size]
            with inference(), observing(observe):
                module(Tensor(xb) if xb.dtype == np.float32 else xb)
            if not caught:
                raise ValueError(f"layer: expected a layer that the network calls; got {layer!r}")
            parts.append(np.array(caught[-1]))
    return np.concatenate(parts)


def _unit(outputs, unit, layer):
    if not hasattr(unit, "__index__") or np.ndim(unit) or not 0 <= unit < outputs.shape[-1]:
        raise ValueError(f"unit: expected 0 to {outputs.shape[-1] - 1} for {layer}; got {unit!r}")
    return outputs[..., int(unit)].reshape(len(outputs), -1)


def most_exciting(model, X, layer, unit, count=9):
    """The samples to which a unit answers most.

    Parameters
    ----------
    model : model, fitted estimator or Module
    X : array [N,...]
    layer : str
        Name of a layer, as in ``model.module_.named_modules()``.
    unit : int
        Place on the last axis of the layer's outputs: a unit, a filter.
    count : int

    Returns
    -------
    index : int64 array [count]
        Of the samples, strongest first.
    value : float32 array [count]
        The unit's largest output on each.
    place : int64 array [count, axes]
        Where in the layer's output the largest one is: (row, column) for images; no columns for a dense layer.
    """
    count = positive("count", count)
    model, X, _ = opened(model, X)
    outputs = _outputs_of(model, layer, input_of(model, X))
    flat = _unit(outputs, unit, layer)
    best = flat.max(1)
    index = np.argsort(-best, kind="stable")[:count]
    place = np.stack(np.unravel_index(flat[index].argmax(1), outputs.shape[1:-1] or (1,)), 1)
    return index, best[index].astype(np.float32), place[:, : outputs.ndim - 2].astype(np.int64)


def excite(model, layer, unit, steps=60, lr=0.1, decay=0.01, input_shape=None, seed=0):
    """An input that excites a unit: gradient ascent from faint noise, held small by decay.

    Parameters
    ----------
    model, layer, unit : as in `most_exciting`
        Take the outputs before the softmax or another flat end.
    steps : int
    lr : float
        Length of a step, in root mean square.
    decay : float
        Share by which the input shrinks at each step.
    input_shape : tuple of int, optional
        Of one sample; needed for a Module.
    seed : int

    Returns
    -------
    float32 array of a sample's shape

    References
    ----------
    Erhan, Bengio, Courville & Vincent, "Visualizing higher-layer features of a deep network" (2009); decay: Simonyan,
    Vedaldi & Zisserman (2014).
    """
    steps = positive("steps", steps)
    number("lr", lr, 0), chance("decay", decay)
    model, _, _ = opened(model)
    module = module_of(model)
    shape = input_shape if input_shape is not None else getattr(model, "input_shape_", None)
    if shape is None:
        raise ValueError("input_shape: expected the shape of one sample, for a Module; got None")
    shape, wanted = shape_of(shape), _find(module, layer)
    x = random.normal((1, *shape), 0.0, 0.1, *Stream(seed).split("excite").take(math.prod(shape)))
    _unit(_outputs_of(model, layer, backend.to_device(x, module.any_array())), unit, layer)

    class Found(Exception):
        pass

    with undisturbed(module), frozen(module.parameters()):
        module.eval()
        for _ in range(steps):
            caught = []

            def observe(part, inputs, caught=caught):
                out = part.forward(*inputs)
                if part is wanted:
                    caught.append(out)
                    raise Found  # what comes after the layer does not matter
                return out

            t = Tensor(backend.to_device(x, module.any_array()), wants_grad=True)
            try:
                with observing(observe):
                    module(t)
            except Found:
                pass
            out = caught[-1]
            seed_of = np.zeros(out.shape, np.float32)
            seed_of[..., int(unit)] = 1.0
            _must_have_a_gradient(model, out)
            out.backward(backend.to_device(seed_of, out.data))
            grad = backend.to_host(t.grad)
            size = float(np.sqrt(np.mean(grad.astype(np.float64) ** 2)))
            if size == 0.0:
                break
            x = ((1.0 - decay) * x + np.float32(lr / size) * grad).astype(np.float32)
    return x[0]


def receptive_fields(model, input_shape=None):
    """For every layer of an image network: which pixels an output sees.

    Returns
    -------
    list of (name, size, jump, start)
        Each a pair (rows, columns): an output at place p sees pixels start + p jump to start + p jump + size - 1; what lies
        outside the image is padding. Behind a residual block it is what both of its paths see. Layers behind a `Flatten`, a
        `Reshape` or a `ConvTranspose2d`, whose outputs do not all see as much, are left out.
    """
    model, _, _ = opened(model)
    module = module_of(model)
    shape = input_shape if input_shape is not None else getattr(model, "input_shape_", None)
    if shape is None or len(shape_of(shape)) != 3:
        raise ValueError(f"input_shape: expected [Y,X,C] of one image; got {shape}")
    result = []
    _follow(module.trace(shape), ((1, 1), (1, 1), (0, 0)), result)
    return result


def _follow(calls, field, result):
    """What outputs behind these calls see, (size, jump, start), where `field` is what those before them do; None where that is
    the same for no two outputs, or for all."""
    calls = list(calls)
    while calls:
        name, m, before, after = calls.pop(0)
        kind = type(m).__name__
        if isinstance(m, nn.Residual):
            inside = f"{name}." if name else ""
            own = [c for c in calls if c[0].startswith(inside)]
            del calls[: len(own)]
            short = [c for c in own if f"{c[0]}.".startswith(f"{inside}projection.")]
            long = [c for c in own if f"{c[0]}.".startswith(f"{inside}branch.")]
            fields = [_follow(part, field, result) for part in (short, long)]
            if None in fields or fields[0][1] != fields[1][1]:
                return None
            start = tuple(min(f[2][a] for f in fields) for a in (0, 1))
            end = [max(f[2][a] + f[0][a] for f in fields) for a in (0, 1)]
            field = tuple(end[a] - start[a] for a in (0, 1)), fields[0][1], start
            continue
        if any(isinstance(c, nn.Module) for _, c in m._children()):
            continue
        moves = kind in ("Conv2d", "MaxPool2d", "AvgPool2d")
        if len(before) != 3 or len(after) != 3 or kind in ("ConvTranspose2d", "Reshape"):
            return None
        if not moves and before[:2] != after[:2]:
            return None
        if moves:
            size, jump, start = map(list, field)
            dilation = getattr(m, "dilation", (1, 1))
            for a in (0, 1):
                start[a] -= m.padding[a] * jump[a]
                size[a] += dilation[a] * (m.size[a] - 1) * jump[a]
                jump[a] *= m.stride[a]
            field = tuple(size), tuple(jump), tuple(start)
        result.append((name, *field))
    return field
