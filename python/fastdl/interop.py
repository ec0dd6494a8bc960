"""Weights in and out of the layouts of PyTorch and Keras.

    torch_model.load_state_dict({k: torch.from_numpy(v) for k, v in to_torch(model).items()})
    from_torch(model, {k: v.numpy() for k, v in torch_model.state_dict().items()})
    keras_model.set_weights(to_keras(model));  from_keras(model, keras_model.get_weights())

Layers are matched in order: as the network calls them, and those that it does not call by itself (a GAN's generator)
where they stand among its attributes. Activations, pooling and dropout have no weights and do not matter. PyTorch keeps
channels first, so filters change their axes, the rows of a dense layer behind a `Flatten` change their order, and so do
the units of one in front of a `Reshape` to an image (``Unflatten(1, (C, Y, X))``); Keras keeps channels last, as fastdl
does. Neither library is needed here: arrays in, arrays out.

The architectures must be the same: both libraries' batch normalisation has its own defaults for eps and momentum (Keras:
eps 0.001), which are settings of the layer, not weights. Keras' GRU is the one with ``reset_after=True``, its default: of the
other kind a bias does not fit, but where it has none the weights do, and mean something else.
"""


import numpy as np

from . import backend, nn
from ._exchange import begins_with_tokens, channels_first, has_weights, images_around, shape_of, unwrapped

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
    "_TiedHead": (("w", "weight", None), ("b", "bias", None)),  # a Linear whose weight is the embedding's
}
# Recurrent layers split and join gates and biases: they have functions of their own, below.
_RECURRENT = ("RNN", "LSTM", "GRU")
_SIZED = {kind: arrays[0][0] for kind, arrays in _LAYOUTS.items()}  # what is there once a layer knows its sizes


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


def must_be_built(module):
    """An error where weights have no size or were never initialised."""
    for name, m in module.named_modules():
        where = f"{name} ({type(m).__name__})" if name else type(m).__name__
        if _unsized(m):
            raise ValueError(f"model: expected a Module that was built (Module.build); got {where} without weights")
        for part, p in m._children():
            if isinstance(p, nn.Parameter) and p.data.size and np.isnan(a := backend.to_host(p.data)).all():
                # what a parameter holds until it is initialised
                raise ValueError(
                    "model: expected a Module that was built (Module.build); "
                    f"got {part} of {where}, {list(a.shape)}, all NaN"
                )


def _unsized(m):
    """Whether a layer waits for its first input."""
    kind = type(m).__name__
    if kind in _RECURRENT:
        return not m.w
    return kind in _SIZED and getattr(m, _SIZED[kind]) is None


def _network(model, input_shape):
    """(module, input shape) of a model or a module whose layers are all known here."""
    model = unwrapped(model)
    if isinstance(model, nn.Module):
        module, shape = model, shape_of(input_shape)
    elif isinstance(getattr(model, "module_", None), nn.Module):
        module, shape = model.module_, getattr(model, "input_shape_", None)
    else:
        raise ValueError(f"model: expected one that was built or fitted, or a Module; got {type(model).__name__}")
    for name, m in module.named_modules():
        kind = type(m).__name__
        if has_weights(m) and kind not in _LAYOUTS and kind not in _RECURRENT:
            known = ", ".join(k for k in (*_LAYOUTS, *_RECURRENT) if not k.startswith("_"))
            where = f"{name} ({kind})" if name else kind
            raise ValueError(f"model: expected layers among {known}; got {where}; see register")
    if shape is None:
        raise ValueError(f"model: expected one over arrays, or a Module; got {type(model).__name__}")
    return module, shape


def _layers(module, input_shape, channels_first=False):
    """(name, layer, image before, image after) of every layer with weights, in order.

    With channels first: the (Y, X, C) that the layer's flat inputs come from and its flat outputs become, else None.
    """
    rows = module.trace(input_shape, np.int64 if begins_with_tokens(module) else np.float32)
    called = {id(m) for _, m, _, _ in rows}
    flows = [rows]
    everything = module.named_modules()
    for name, m in everything:
        # Parts that the network does not call by itself; where one begins with a dense layer its input shape is known.
        if isinstance(m, nn.Sequential) and not any(id(c) in called for _, c in m.named_modules()):
            first = next((c for _, c in m.named_modules() if has_weights(c)), None)
            if type(first).__name__ == "Dense" and first.w is not None:
                more = [(f"{name}.{n}" if n else name, *row) for n, *row in m.trace((first.w.shape[0],))]
                called |= {id(c) for _, c, _, _ in more}
                flows.append(more)
    images = {}
    for flow in flows:
        found, problems = images_around(flow)
        if problems and channels_first:
            raise ValueError(f"model: {problems[0]}")
        images |= found
    names, order = {id(m): name for name, m in everything}, []
    for _, m, _, _ in rows:
        if has_weights(m) and id(m) not in order:
            order.append(id(m))
    before = None
    for name, m in everything:
        if channels_first and isinstance(m, nn.Flatten) and id(m) not in called:
            raise ValueError(f"model: expected a network that calls each Flatten, which tells its image; got {name}, not called")
        if not has_weights(m):
            continue
        if id(m) not in order:
            order.insert(0 if before is None else order.index(before) + 1, id(m))
        before = id(m)
    by_id = {id(m): m for _, m in everything}
    result = [(names[i], by_id[i], *(images.get(i, (None, None)) if channels_first else (None, None))) for i in order]
    for name, m, _, _ in result:
        if _unsized(m):
            raise ValueError(
                "model: expected a Module that was built (Module.build); "
                f"got {name} ({type(m).__name__}) without weights"
            )
    _must_be_whole(module, result)
    return result


def _must_be_whole(module, layers):
    """An error where some of the weights have no place in another library."""
    held = set()
    for name, m, *_ in layers:
        kind = type(m).__name__
        own = [n for n, _ in m._children()] if kind in _RECURRENT else [n for n, _, _ in _LAYOUTS[kind]]
        held |= {f"{name}.{n}" if name else n for n in own}
    named = module.named_modules()
    # What a network carries from batch to batch is no weight.
    passing = {f"{name}.{n}" if name else n for name, m in named if hasattr(m, "carry") for n in m.buffers}
    state = [n for n, _ in (*module.named_parameters(), *module.named_buffers())]
    missing = [n for n in state if n not in held and n not in passing]
    if missing:
        kind = type(dict(named)[missing[0].rpartition(".")[0]]).__name__
        raise ValueError(
            f"model: expected weights that the other libraries have a place for; got also {', '.join(missing)} ({kind})"
        )


def _set(module, layers, new, source):
    """Copy arrays into a module, by name; a parameter that two layers share must come twice with the same numbers."""
    first = {id(p): name for name, p in module.named_parameters()}
    for name, layer, *_ in layers:
        for attribute, _, _ in _LAYOUTS.get(type(layer).__name__, ()):
            at, p = f"{name}.{attribute}" if name else attribute, getattr(layer, attribute)
            shared = isinstance(p, nn.Parameter) and first[id(p)] != at
            if shared and not np.array_equal(new.pop(at), new[first[id(p)]]):
                other = first[id(p)]
                raise ValueError(f"{source}: expected the same numbers for {at} and {other}, which share them; got others")
    passing = {name: backend.to_host(a) for name, a in module.named_buffers()}
    module.set_weights(passing | new)


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
    if any(getattr(layer, "zoneout", ())):
        raise ValueError(f"model: expected an LSTM without zoneout, which the other libraries lack; got zoneout={layer.zoneout}")
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


def _reordered(layer, attribute, a, before, after, order):
    """A layer's array with its inputs and outputs in the order of the images they are pixels of."""
    norm = type(layer).__name__ in ("BatchNorm", "LayerNorm")
    if before is not None and (norm or attribute == "w"):
        a = a[order(before)]
    return a if after is None else a[..., order(after)]


def _order_back(image):
    """The inverse of `channels_first`."""
    return np.argsort(channels_first(image))


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
        Built. An estimator of `fastdl.sklearn` counts as the model in it.
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
    must_be_built(module)
    layers = _layers(module, shape, channels_first=True)
    numbers = _sequence_names(module)
    if names is None:
        names = [name if numbers is None else numbers[id(m)] for name, m, _, _ in layers]
    if isinstance(names, str) or not hasattr(names, "__iter__"):
        raise TypeError(f"names: expected a sequence of strings; got {names!r}")
    names = list(names)
    if len(names) != len(layers):
        raise ValueError(f"names: expected {len(layers)}, one for each layer with weights; got {len(names)}")
    for i, name in enumerate(names):
        if not isinstance(name, str):
            raise TypeError(f"names[{i}]: expected a string; got {type(name).__name__}")
        if name in names[:i]:  # whose weights it would take the place of
            raise ValueError(f"names[{i}]: expected another name than those before; got {name!r} again")
    result = {}
    for prefix, (_, layer, before, after) in zip(names, layers, strict=True):
        if type(layer).__name__ in _RECURRENT:
            result |= {f"{prefix}.{f}" if prefix else f: a for f, a in _recurrent_to_torch(layer).items()}
            continue
        for attribute, field, axes, a in _arrays(layer):
            a = _reordered(layer, attribute, a, before, after, channels_first)
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
    input_shape : tuple of int, optional
        As in `to_torch`.

    Raises
    ------
    ValueError
        Another number of layers, a missing array, another shape. Nothing is changed then.
    """
    if not hasattr(state, "items"):
        raise TypeError(f"state: expected a dict of arrays, as from state_dict(); got {type(state).__name__}")
    module, shape = _network(model, input_shape)
    layers, groups = _layers(module, shape, channels_first=True), {}
    for key, value in state.items():
        prefix, _, field = str(key).rpartition(".")
        if field != "num_batches_tracked":
            groups.setdefault(prefix, {})[field] = value
    if len(groups) != len(layers):
        raise ValueError(
            f"state: expected {len(layers)} layers with weights, {', '.join(n or type(m).__name__ for n, m, _, _ in layers)};"
            f" got {len(groups)}: {', '.join(groups)}"
        )
    new = {}
    for (prefix, fields), (name, layer, before, after) in zip(groups.items(), layers, strict=True):
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
            b = _reordered(layer, attribute, b, before, after, _order_back)
            new[f"{name}.{attribute}" if name else attribute] = b
        if type(layer).__name__ in _RECURRENT:
            own = _recurrent_from_torch(layer, found)
            new |= {f"{name}.{attribute}" if name else attribute: b for attribute, b in own.items()}
    _set(module, layers, new, "state")
    return model


def _keras_arrays(layer):
    """(attribute or None, array) in Keras' order."""
    if type(layer).__name__ == "_TiedHead":
        raise ValueError("model: expected a head with weights of its own, as Keras has no tied ones; got a tied one")
    if type(layer).__name__ in _RECURRENT:
        return [(None, a) for a in _recurrent_to_keras(layer)]
    return [(attribute, a) for attribute, _, _, a in _arrays(layer)]


def _floats(name, a):
    """A float32 array of a NumPy array or a tensor on the CPU."""
    try:
        found = np.asarray(a.detach() if hasattr(a, "detach") else a)
    except (TypeError, ValueError) as error:
        kind = f" of {a.dtype}" if hasattr(a, "dtype") else ""
        raise TypeError(f"{name}: expected an array of real numbers; got {type(a).__name__}{kind}") from error
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of real numbers; got {type(a).__name__} of {found.dtype}")
    with np.errstate(over="ignore"):
        made = found.astype(np.float32)
    if (np.isinf(made) & np.isfinite(found)).any():
        raise ValueError(f"{name}: expected numbers within float32's range, up to 3.4e38; got a larger one")
    return made


def to_keras(model, input_shape=None):
    """The list of arrays that ``keras_model.set_weights`` takes, for the same network with channels last.

    Arguments as of `to_torch`.
    """
    module, shape = _network(model, input_shape)
    must_be_built(module)
    arrays = (a for _, layer, *_ in _layers(module, shape) for _, a in _keras_arrays(layer))
    return [np.array(a, np.float32, order="C") for a in arrays]


def from_keras(model, weights, input_shape=None):
    """Take over what ``keras_model.get_weights()`` gives; returns the model. Arguments as of `from_torch`.

    Raises
    ------
    ValueError
        Another number of arrays, or another shape. Nothing is changed then.
    """
    if isinstance(weights, (str, bytes, dict)) or not hasattr(weights, "__iter__"):
        raise TypeError(f"weights: expected a list of arrays, as from get_weights(); got {type(weights).__name__}")
    module, shape = _network(model, input_shape)
    layers = _layers(module, shape)
    places = [
        (f"{name}.{attribute}" if name and attribute else attribute or f"{name} ({type(layer).__name__})", a.shape)
        for name, layer, *_ in layers
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
    for name, layer, *_ in layers:
        count = len(_keras_arrays(layer))
        if type(layer).__name__ in _RECURRENT:
            new.pop(f"{name} ({type(layer).__name__})", None)
            own = _recurrent_from_keras(layer, weights[at : at + count])
            new |= {f"{name}.{attribute}" if name else attribute: b for attribute, b in own.items()}
        at += count
    _set(module, layers, new, "weights")
    return model
