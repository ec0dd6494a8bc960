"""Weights in and out of the layouts of PyTorch and Keras.

    torch_model.load_state_dict({k: torch.from_numpy(v) for k, v in to_torch(model).items()})
    from_torch(model, {k: v.numpy() for k, v in torch_model.state_dict().items()})
    keras_model.set_weights(to_keras(model));  from_keras(model, keras_model.get_weights())

Layers are matched in order; activations, pooling and dropout have no weights and do not matter. PyTorch keeps channels
first, so filters change their axes and the rows of a dense layer behind a `Flatten` change their order; Keras keeps
channels last, as fastdl does. Neither library is needed here: arrays in, arrays out.

The architectures must be the same: both libraries' batch normalisation has its own defaults for eps and momentum (Keras:
eps 0.001), which are settings of the layer, not weights.
"""

import math

import numpy as np

from . import backend, nn

# For each layer: (attribute, name in PyTorch, axes of PyTorch's array in fastdl's order). Keras has fastdl's own axes, and
# the order of its arrays is the order here.
_LAYOUTS = {
    "Dense": (("w", "weight", (1, 0)), ("b", "bias", None)),
    "Conv2d": (("w", "weight", (2, 3, 1, 0)), ("b", "bias", None)),
    "Conv1d": (("w", "weight", (2, 1, 0)), ("b", "bias", None)),
    "ConvTranspose2d": (("w", "weight", (2, 3, 1, 0)), ("b", "bias", None)),
    "BatchNorm": (
        ("gamma", "weight", None),
        ("shift", "bias", None),
        ("running_mean", "running_mean", None),
        ("running_var", "running_var", None),
    ),
    "LayerNorm": (("gamma", "weight", None), ("shift", "bias", None)),
    "Embedding": (("table", "weight", None),),
}


def register(layer, *arrays):
    """Teach the layout of a layer of your own.

    Parameters
    ----------
    layer : str
        Name of the class.
    *arrays : (str, str, tuple of int or None)
        Attribute, name in PyTorch's state dict, and axes: ``fastdl = torch.transpose(axes)``. In Keras' order.
    """
    _LAYOUTS[layer] = tuple(arrays)


def _network(model, input_shape):
    """(module, input shape) of a model or a module."""
    if isinstance(model, nn.Module):
        if input_shape is None:
            raise ValueError("input_shape: expected the shape of one sample, for a Module; got None")
        return model, tuple(int(s) for s in np.atleast_1d(input_shape))
    if not hasattr(model, "module_"):
        raise ValueError(f"model: expected one that was built or fitted, or a Module; got {type(model).__name__}")
    return model.module_, model.input_shape_


def _layers(module, input_shape):
    """(name, layer, (Y, X, C) or None) of every layer with weights, in order; the sizes where its inputs are a
    flattened image."""
    result, image, seen = [], None, set()
    for name, m, before, _ in module.trace(input_shape):
        kind = type(m).__name__
        if kind == "Flatten" and len(before) == 3:
            image = before
        if not any(isinstance(c, nn.Parameter) for _, c in m._children()) or id(m) in seen:
            continue
        seen.add(id(m))
        if kind not in _LAYOUTS:
            raise ValueError(f"model: expected layers among {', '.join(_LAYOUTS)}; got {name} ({kind}); see register")
        flat = image if len(before) == 1 and image is not None and before[0] == math.prod(image) else None
        result.append((name, m, flat))
        if kind in ("Dense", "Conv2d", "ConvTranspose2d"):
            image = None
    return result


def _arrays(layer):
    """(attribute, name in PyTorch, axes, array) of a layer's own weights; left out where it has none (no bias)."""
    for attribute, name, axes in _LAYOUTS[type(layer).__name__]:
        value = getattr(layer, attribute)
        if value is not None:
            yield attribute, name, axes, backend.to_host(value.data if isinstance(value, nn.Parameter) else value)


def _order(image):
    """For each place in a channels-first flattened image: its place in ours."""
    y, x, c = image
    return np.arange(y * x * c).reshape(y, x, c).transpose(2, 0, 1).reshape(-1)


def _per_input(layer, attribute):
    """Whether the first axis of an array runs over the layer's inputs, and so changes its order behind a Flatten."""
    return type(layer).__name__ in ("BatchNorm", "LayerNorm") or attribute == "w"


def _sequence_names(module):
    """Names in the equivalent ``torch.nn.Sequential``, where a fused activation is a module of its own; None where the
    network is no plain sequence."""
    if not isinstance(module, nn.Sequential):
        return None
    names, at = {}, 0
    for layer in module:
        if any(isinstance(c, nn.Module) for _, c in layer._children()):
            return None
        names[id(layer)] = str(at)
        fused = getattr(layer, "act", "none") != "none" and not isinstance(layer, nn.Activation)
        at += 2 if fused else 1
    return names


def to_torch(model, input_shape=None, names=None):
    """PyTorch's state dict of the same network.

    Parameters
    ----------
    model : model or Module
    input_shape : tuple of int, optional
        Of one sample; needed for a Module.
    names : sequence of str, optional
        What PyTorch calls each layer that has weights, in order. If left out: the numbers in the equivalent
        ``torch.nn.Sequential``, in which every activation is a module of its own; for other networks fastdl's names.

    Returns
    -------
    dict of str to array
        Without ``num_batches_tracked``, which ``load_state_dict(strict=False)`` does not miss.
    """
    module, shape = _network(model, input_shape)
    layers = _layers(module, shape)
    numbers = _sequence_names(module)
    if names is None:
        names = [name if numbers is None else numbers[id(m)] for name, m, _ in layers]
    if len(names) != len(layers):
        raise ValueError(f"names: expected {len(layers)}, one for each layer with weights; got {len(names)}")
    result = {}
    for prefix, (_, layer, image) in zip(names, layers, strict=True):
        for attribute, field, axes, a in _arrays(layer):
            if image is not None and _per_input(layer, attribute):
                a = a[_order(image)]
            b = a if axes is None else a.transpose(np.argsort(axes))
            result[f"{prefix}.{field}" if prefix else field] = np.array(b, np.float32, order="C")
    return result


def from_torch(model, state, input_shape=None):
    """Take over the weights of a PyTorch state dict; returns the model.

    Parameters
    ----------
    model : model or Module
        Built, with the same layers in the same order.
    state : dict of str to array
        ``{k: v.numpy() for k, v in torch_model.state_dict().items()}``, in its own order.

    Raises
    ------
    ValueError
        Another number of layers, a missing array, another shape. Nothing is changed then.
    """
    module, shape = _network(model, input_shape)
    layers, groups = _layers(module, shape), {}
    for key, value in state.items():
        prefix, _, field = str(key).rpartition(".")
        if field != "num_batches_tracked":
            groups.setdefault(prefix, {})[field] = value
    if len(groups) != len(layers):
        raise ValueError(
            f"state: expected {len(layers)} layers with weights, {', '.join(n or type(m).__name__ for n, m, _ in layers)};"
            f" got {len(groups)}: {', '.join(groups)}"
        )
    new = {}
    for (prefix, fields), (name, layer, image) in zip(groups.items(), layers, strict=True):
        wanted = list(_arrays(layer))
        missing = [f for _, f, _, _ in wanted if f not in fields]
        extra = sorted(fields.keys() - {f for _, f, _, _ in wanted})
        if missing or extra:
            raise ValueError(
                f"state[{prefix!r}]: expected {', '.join(f for _, f, _, _ in wanted)} for {name} "
                f"({type(layer).__name__}); got {', '.join(fields)}"
            )
        for attribute, field, axes, a in wanted:
            b = _floats(f"state[{prefix + '.' + field!r}]", fields[field])
            expected = a.shape if axes is None else tuple(a.shape[i] for i in np.argsort(axes))
            if b.shape != expected:
                raise ValueError(
                    f"state[{prefix + '.' + field!r}]: expected shape {list(expected)}; got {list(b.shape)}"
                )
            b = b if axes is None else b.transpose(axes)
            if image is not None and _per_input(layer, attribute):
                b = b[np.argsort(_order(image))]
            new[f"{name}.{attribute}" if name else attribute] = b
    module.set_weights(new)
    return model


def _floats(name, a):
    """A float32 array of a NumPy array or a tensor on the CPU."""
    try:
        return np.asarray(a.detach() if hasattr(a, "detach") else a).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of real numbers; got {type(a).__name__}") from error


def to_keras(model, input_shape=None):
    """The list of arrays that ``keras_model.set_weights`` takes, for the same network with channels last."""
    module, shape = _network(model, input_shape)
    return [
        np.array(a, np.float32, order="C") for _, layer, _ in _layers(module, shape) for _, _, _, a in _arrays(layer)
    ]


def from_keras(model, weights, input_shape=None):
    """Take over what ``keras_model.get_weights()`` gives; returns the model.

    Raises
    ------
    ValueError
        Another number of arrays, or another shape. Nothing is changed then.
    """
    module, shape = _network(model, input_shape)
    places = [
        (f"{name}.{attribute}" if name else attribute, a.shape)
        for name, layer, _ in _layers(module, shape)
        for attribute, _, _, a in _arrays(layer)
    ]
    weights = list(weights)
    if len(weights) != len(places):
        raise ValueError(f"weights: expected {len(places)} arrays, {', '.join(n for n, _ in places)}; got {len(weights)}")
    new = {}
    for i, ((name, expected), a) in enumerate(zip(places, weights, strict=True)):
        b = _floats(f"weights[{i}]", a)
        if b.shape != expected:
            raise ValueError(f"weights[{i}]: expected shape {list(expected)} for {name}; got {list(b.shape)}")
        new[name] = b
    module.set_weights(new)
    return model
