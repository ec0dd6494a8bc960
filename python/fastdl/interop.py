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
# Recurrent layers split and join gates and biases: they have functions of their own, below.
_RECURRENT = ("RNN", "LSTM", "GRU")


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
        if kind not in _LAYOUTS and kind not in _RECURRENT:
            known = ", ".join((*_LAYOUTS, *_RECURRENT))
            raise ValueError(f"model: expected layers among {known}; got {name} ({kind}); see register")
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


# ------------------------------------------------------------------------------------------------ recurrent layers
# PyTorch: weight_ih [gates H,I], weight_hh [gates H,H] and two biases, gates i f g o and r z n as here. Keras: kernel
# [I,gates H], recurrent_kernel [H,gates H], bias; gates i f c o as here, but z r h, and two rows of biases, for the GRU.


def _plain(layer):
    """(w, u, b, bn) of each layer and direction, as host arrays; biases of zeros where it has none."""
    if getattr(layer, "p", None):
        raise ValueError("model: expected an LSTM without peepholes, which the other libraries lack; got one with them")
    if getattr(layer, "layer_norm", False):
        raise ValueError("model: expected an LSTM without layer normalisation, which the other libraries lack; got one with it")
    for k, (w, u) in enumerate(zip(layer.w, layer.u, strict=True)):
        b = layer.b[k].data if layer.bias else np.zeros(u.shape[1], np.float32)
        bn = layer.bn[k].data if layer.bias and hasattr(layer, "bn") else np.zeros(layer.units, np.float32)
        yield tuple(np.array(backend.to_host(a)) for a in (w.data, u.data, b, bn))


def _recurrent_to_torch(layer):
    fields = {}
    for k, (w, u, b, bn) in enumerate(_plain(layer)):
        end = f"l{k // layer.directions}" + ("_reverse" if k % layer.directions else "")
        fields |= {f"weight_ih_{end}": w.T, f"weight_hh_{end}": u.T}
        if layer.bias:
            other = np.zeros_like(b)
            if hasattr(layer, "bn"):
                other[-layer.units :] = bn
            fields |= {f"bias_ih_{end}": b, f"bias_hh_{end}": other}
    return {name: np.array(a, np.float32, order="C") for name, a in fields.items()}


def _recurrent_from_torch(layer, fields):
    new, h = {}, layer.units
    for k in range(len(layer.w)):
        end = f"l{k // layer.directions}" + ("_reverse" if k % layer.directions else "")
        new |= {f"w.{k}": fields[f"weight_ih_{end}"].T, f"u.{k}": fields[f"weight_hh_{end}"].T}
        if layer.bias:
            b, other = fields[f"bias_ih_{end}"].copy(), fields[f"bias_hh_{end}"]
            if hasattr(layer, "bn"):
                new[f"bn.{k}"] = other[-h:]
                b[:-h] += other[:-h]
            else:
                b += other
            new[f"b.{k}"] = b
    return {name: np.ascontiguousarray(a) for name, a in new.items()}


def _swapped(a, units):
    """Columns of the gates r z n as z r n, and back."""
    return np.concatenate([a[..., units : 2 * units], a[..., :units], a[..., 2 * units :]], -1)


def _recurrent_to_keras(layer):
    arrays, h = [], layer.units
    for w, u, b, bn in _plain(layer):
        if hasattr(layer, "bn"):
            other = np.concatenate([np.zeros(2 * h, np.float32), bn])
            w, u, b = _swapped(w, h), _swapped(u, h), np.stack([_swapped(b, h), other])
        arrays += [w, u, b] if layer.bias else [w, u]
    return [np.array(a, np.float32, order="C") for a in arrays]


def _recurrent_from_keras(layer, arrays):
    new, h, each = {}, layer.units, 3 if layer.bias else 2
    for k in range(len(layer.w)):
        w, u, *bias = arrays[each * k : each * k + each]
        if hasattr(layer, "bn"):
            w, u = _swapped(w, h), _swapped(u, h)
            if bias:
                b, other = bias[0]
                new[f"bn.{k}"] = other[2 * h :]
                b = b + np.concatenate([other[: 2 * h], np.zeros(h, np.float32)])
                bias = [_swapped(b, h)]
        new |= {f"w.{k}": w, f"u.{k}": u}
        if bias:
            new[f"b.{k}"] = bias[0]
    return {name: np.ascontiguousarray(a) for name, a in new.items()}


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
        fused = getattr(layer, "act", "none") != "none" and not isinstance(layer, (nn.Activation, nn.RNN))
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
        if type(layer).__name__ in _RECURRENT:
            result |= {f"{prefix}.{f}" if prefix else f: a for f, a in _recurrent_to_torch(layer).items()}
            continue
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
    if not hasattr(state, "items"):
        raise TypeError(f"state: expected a dict of arrays, as from state_dict(); got {type(state).__name__}")
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
        if type(layer).__name__ in _RECURRENT:
            wanted = [(None, f, None, a) for f, a in _recurrent_to_torch(layer).items()]
        else:
            wanted = list(_arrays(layer))
        missing = [f for _, f, _, _ in wanted if f not in fields]
        extra = sorted(fields.keys() - {f for _, f, _, _ in wanted})
        if missing or extra:
            raise ValueError(
                f"state[{prefix!r}]: expected {', '.join(f for _, f, _, _ in wanted)} for {name} "
                f"({type(layer).__name__}); got {', '.join(fields)}"
            )
        found = {}
        for attribute, field, axes, a in wanted:
            b = _floats(f"state[{prefix + '.' + field!r}]", fields[field])
            expected = a.shape if axes is None else tuple(a.shape[i] for i in np.argsort(axes))
            if b.shape != expected:
                raise ValueError(
                    f"state[{prefix + '.' + field!r}]: expected shape {list(expected)}; got {list(b.shape)}"
                )
            found[field] = b
            if attribute is None:
                continue
            b = b if axes is None else b.transpose(axes)
            if image is not None and _per_input(layer, attribute):
                b = b[np.argsort(_order(image))]
            new[f"{name}.{attribute}" if name else attribute] = b
        if type(layer).__name__ in _RECURRENT:
            own = _recurrent_from_torch(layer, found)
            new |= {f"{name}.{attribute}" if name else attribute: b for attribute, b in own.items()}
    module.set_weights(new)
    return model


def _keras_arrays(layer):
    """(attribute or None, array) in Keras' order."""
    if type(layer).__name__ in _RECURRENT:
        return [(None, a) for a in _recurrent_to_keras(layer)]
    return [(attribute, a) for attribute, _, _, a in _arrays(layer)]


def _floats(name, a):
    """A float32 array of a NumPy array or a tensor on the CPU."""
    try:
        return np.asarray(a.detach() if hasattr(a, "detach") else a).astype(np.float32)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name}: expected an array of real numbers; got {type(a).__name__}") from error


def to_keras(model, input_shape=None):
    """The list of arrays that ``keras_model.set_weights`` takes, for the same network with channels last."""
    module, shape = _network(model, input_shape)
    return [np.array(a, np.float32, order="C") for _, layer, _ in _layers(module, shape) for _, a in _keras_arrays(layer)]


def from_keras(model, weights, input_shape=None):
    """Take over what ``keras_model.get_weights()`` gives; returns the model.

    Raises
    ------
    ValueError
        Another number of arrays, or another shape. Nothing is changed then.
    """
    module, shape = _network(model, input_shape)
    layers = _layers(module, shape)
    places = [
        (f"{name}.{attribute}" if name and attribute else attribute or f"{name} ({type(layer).__name__})", a.shape)
        for name, layer, _ in layers
        for attribute, a in _keras_arrays(layer)
    ]
    weights = list(weights)
    if len(weights) != len(places):
        raise ValueError(f"weights: expected {len(places)} arrays, {', '.join(n for n, _ in places)}; got {len(weights)}")
    new = {}
    for i, ((name, expected), a) in enumerate(zip(places, weights, strict=True)):
        b = _floats(f"weights[{i}]", a)
        if b.shape != expected:
            raise ValueError(f"weights[{i}]: expected shape {list(expected)} for {name}; got {list(b.shape)}")
        weights[i] = new[name] = b
    at = 0
    for name, layer, _ in layers:
        count = len(_keras_arrays(layer))
        if type(layer).__name__ in _RECURRENT:
            new.pop(f"{name} ({type(layer).__name__})", None)
            own = _recurrent_from_keras(layer, weights[at : at + count])
            new |= {f"{name}.{attribute}" if name else attribute: b for attribute, b in own.items()}
        at += count
    module.set_weights(new)
    return model
