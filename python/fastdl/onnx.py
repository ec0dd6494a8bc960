"""Networks as ONNX files, for ONNX Runtime and whatever else reads them; it needs the extra ``onnx``.

    fastdl.onnx.export(model, "digits.onnx")
    onnxruntime.InferenceSession("digits.onnx").run(None, {"x": images})

The file's input is the network's: float32 [N,...] with channels last (uint8 images divided by 255), N free; sequences [N,T,I]
and their `lengths` int32 [N], both free. ONNX has channels first, so filters, the rows of a dense layer behind a
`Flatten`, and the units of one in front of a `Reshape` to an image, change their order here; images are turned once, at
the entrance, and where they are what comes out, at the exit.
"""

import math
import os

import numpy as np

from . import backend, nn
from ._exchange import begins_with_tokens, channels_first, images_around, shape_of, unwrapped
from .interop import must_be_built
from .io import replace_file

OPSET = 17  # has all operators used here; read by ONNX Runtime from 1.12 on


class _Value:
    """A tensor of the graph: its name, its shape in fastdl's order without the batch, and how it lies there."""

    def __init__(self, name, shape, first=False, image=None, lengths=None):
        self.name, self.shape, self.first, self.image, self.lengths = name, tuple(shape), first, image, lengths


class _Graph:
    """Nodes and weights as they gather."""

    def __init__(self, onnx, shapes, becomes):
        self.onnx, self.shapes, self.nodes, self.weights, self.count = onnx, shapes, [], [], 0
        self.becomes = becomes  # by id of a layer: the image (Y, X, C) that its flat outputs turn into

    def add(self, kind, *inputs, outputs=1, name=None, **attributes):
        """A node; returns the name of its output, or a list of names. Arrays among the inputs become weights."""
        self.count += 1
        names = [i if isinstance(i, str) else self.weight(i) for i in inputs]
        stem = f"{kind.lower()}_{self.count}"
        given = [name or stem] if outputs == 1 else [f"{stem}_{i}" for i in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, names, given, f"{kind}_{self.count}", **attributes))
        return given[0] if outputs == 1 else given

    def weight(self, array):
        """A stored array; returns its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    # --------------------------------------------------------------------------------------------- how values lie

    def first(self, v):
        """The value with channels first (axis 1)."""
        if v.first or len(v.shape) < 2:
            return v
        axes = (0, len(v.shape), *range(1, len(v.shape)))
        return _Value(self.add("Transpose", v.name, perm=axes), v.shape, first=True)

    def last(self, v):
        """The value as fastdl has it: channels last, and flat pixels in that order."""
        if v.image is not None:
            y, x, c = v.image
            turned = self.add("Reshape", v.name, np.array([0, c, y, x], np.int64))
            turned = self.add("Transpose", turned, perm=(0, 2, 3, 1))
            return _Value(self.add("Reshape", turned, np.array([0, math.prod(v.image)], np.int64)), v.shape)
        if not v.first:
            return v
        return _Value(self.add("Transpose", v.name, perm=(0, *range(2, len(v.shape) + 1), 1)), v.shape)

    def act(self, v, act, slope=0.01):
        """An activation; it does not matter how the value lies."""
        if act == "none":
            return v
        if act == "gelu":  # x/2 (1 + erf(x / sqrt 2)): Gelu itself is younger than the opset
            half = np.array(0.5, np.float32)
            erf = self.add("Erf", self.add("Mul", v.name, np.array(math.sqrt(0.5), np.float32)))
            name = self.add("Mul", self.add("Mul", v.name, half), self.add("Add", erf, np.array(1.0, np.float32)))
        elif act == "leaky_relu":
            name = self.add("LeakyRelu", v.name, alpha=float(slope))
        else:
            name = self.add({"relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh"}[act], v.name)
        return _Value(name, v.shape, v.first, v.image)

    # ----------------------------------------------------------------------------------------------------- layers

    def run(self, layer, v):
        """The nodes of a layer, by the name of its class or of one that it is derived from."""
        return _LAYERS[_known_as(layer)](self, layer, v)

    def shape_after(self, layer):
        """Shape of what a layer gave when it was traced."""
        return self.shapes[id(layer)]


def _known_as(layer):
    """The name in _LAYERS of a layer."""
    for cls in type(layer).__mro__:
        if cls.__name__ in _LAYERS:
            return cls.__name__
    known = ", ".join(sorted(k for k in _LAYERS if not k.startswith("_")))
    raise TypeError(
        f"model: expected layers among {known} (fastdl.onnx.register teaches another); got {type(layer).__name__}"
    )


def _host(t):
    return None if t is None else np.array(backend.to_host(t.data))


def _dense(g, layer, v):
    w, b, image = _host(layer.w), _host(layer.b), None
    if v.image is not None:  # the pixels lie channels first: so shall the rows of the weights
        w = w[channels_first(v.image)]
        v = _Value(v.name, v.shape)
    v = g.last(v)
    if len(v.shape) == 1 and (image := g.becomes.get(id(layer))) is not None:  # and so shall units that become pixels
        w, b = w[:, channels_first(image)], None if b is None else b[channels_first(image)]
    if len(v.shape) == 1:
        name = g.add("Gemm", v.name, w, *(() if b is None else (b,)))
    else:
        name = g.add("MatMul", v.name, w)
        name = name if b is None else g.add("Add", name, b)
    return g.act(_Value(name, (*v.shape[:-1], w.shape[-1]), image=image, lengths=v.lengths), layer.act, layer.slope)


def _tied(g, layer, v):
    v = g.last(v)
    w = _host(layer.partner.w).T
    name = g.add("Gemm", v.name, w, _host(layer.b))
    return g.act(_Value(name, (w.shape[1],)), layer.act)


def _pads(padding):
    return [*padding, *padding]


def _conv(g, layer, v):
    v, b = g.first(v), _host(layer.b)
    w = _host(layer.w).transpose(3, 2, 0, 1)
    name = g.add("Conv", v.name, w, *(() if b is None else (b,)), strides=layer.stride, pads=_pads(layer.padding),
                 dilations=layer.dilation, group=layer.groups)  # fmt: skip
    return g.act(_Value(name, g.shape_after(layer), first=True), layer.act, layer.slope)


def _conv1d(g, layer, v):
    v, b = g.first(v), _host(layer.b)
    w = _host(layer.w).transpose(2, 1, 0)
    name = g.add("Conv", v.name, w, *(() if b is None else (b,)), strides=[layer.stride], pads=[layer.padding] * 2,
                 dilations=[layer.dilation], group=layer.groups)  # fmt: skip
    return g.act(_Value(name, g.shape_after(layer), first=True), layer.act, layer.slope)


def _conv_transpose(g, layer, v):
    v, b = g.first(v), _host(layer.b)
    w = _host(layer.w).transpose(3, 2, 0, 1)
    name = g.add("ConvTranspose", v.name, w, *(() if b is None else (b,)), strides=layer.stride, pads=_pads(layer.padding),
                 dilations=layer.dilation, group=layer.groups, output_padding=layer.out_padding)  # fmt: skip
    return g.act(_Value(name, g.shape_after(layer), first=True), layer.act, layer.slope)


def _max_pool(g, layer, v):
    v = g.first(v)
    name = g.add("MaxPool", v.name, kernel_shape=layer.size, strides=layer.stride, pads=_pads(layer.padding))
    return _Value(name, g.shape_after(layer), first=True)


def _avg_pool(g, layer, v):
    v = g.first(v)
    name = g.add("AveragePool", v.name, kernel_shape=layer.size, strides=layer.stride, pads=_pads(layer.padding),
                 count_include_pad=int(layer.count_padding))  # fmt: skip
    return _Value(name, g.shape_after(layer), first=True)


def _global_pool(g, layer, v):
    name = g.add("Flatten", g.add("GlobalAveragePool", g.first(v).name), axis=1)
    return _Value(name, g.shape_after(layer))


def _batch_norm(g, layer, v):
    v = g.first(v)
    arrays = (layer.gamma.data, layer.shift.data, layer.running_mean, layer.running_var)
    arrays = [np.array(backend.to_host(a)) for a in arrays]
    if v.image is not None:  # numbers of each pixel, which lie channels first
        arrays = [a[channels_first(v.image)] for a in arrays]
    return _Value(g.add("BatchNormalization", v.name, *arrays, epsilon=layer.eps), v.shape, v.first, v.image)


def _layer_norm(g, layer, v):
    v = g.last(v)
    name = g.add("LayerNormalization", v.name, _host(layer.gamma), _host(layer.shift), axis=-1, epsilon=layer.eps)
    return _Value(name, v.shape)


def _flatten(g, layer, v):
    size = (math.prod(v.shape),)
    if v.first and len(v.shape) == 3:
        return _Value(g.add("Flatten", v.name, axis=1), size, image=v.shape)
    return _Value(g.add("Flatten", g.last(v).name, axis=1), size)


def _reshape(g, layer, v):
    if v.image is not None and v.image == layer.shape:
        y, x, c = v.image
        return _Value(g.add("Reshape", v.name, np.array([0, c, y, x], np.int64)), layer.shape, first=True)
    return _Value(g.add("Reshape", g.last(v).name, np.array([0, *layer.shape], np.int64)), layer.shape)


def _embedding(g, layer, v):
    return _Value(g.add("Gather", _host(layer.table), v.name, axis=0), (*v.shape, layer.table.shape[1]), lengths=v.lengths)


def _softmax(g, layer, v):
    v = g.last(v)
    return _Value(g.add("Softmax", v.name, axis=-1), v.shape)


def _sequential(g, layer, v):
    for part in layer.layers:
        v = g.run(part, v)
    return v


def _residual(g, layer, v):
    short = v if layer.projection is None else g.run(layer.projection, v)
    long = g.run(layer.branch, v)
    if (short.first, short.image) != (long.first, long.image):
        short, long = g.last(short), g.last(long)
    name = g.add("Add", long.name, short.name)
    return g.act(_Value(name, long.shape, long.first, long.image), layer.act)


def _gates(a, order, units, axis=0):
    """Gates side by side on an axis, in another order."""
    parts = np.split(a, range(units, a.shape[axis], units), axis)
    return np.concatenate([parts[i] for i in order], axis)


def _recurrent(g, layer, v):
    kind, d, h = type(layer).__name__, layer.directions, layer.units
    order = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}[kind]  # ONNX: i o f g; z r n
    if kind == "LSTM" and any(layer.zoneout):
        raise ValueError("model: expected an LSTM without zoneout, which ONNX does not have; got zoneout")
    if kind == "LSTM" and layer.layer_norm:
        raise ValueError("model: expected an LSTM without layer normalisation, which ONNX does not have; got one with it")
    x, steps = g.add("Transpose", g.last(v).name, perm=(1, 0, 2)), v.lengths or ""
    for at in range(layer.layers):
        parts = range(at * d, at * d + d)
        w, u = (np.stack([_gates(_host(p[k]).T, order, h) for k in parts]) for p in (layer.w, layer.u))
        b = np.zeros((d, 2 * len(order) * h), np.float32)
        for i, k in enumerate(parts):
            if layer.bias:
                b[i, : len(order) * h] = _gates(_host(layer.b[k]), order, h)
                if kind == "GRU":
                    b[i, -h:] = _host(layer.bn[k])
        more = {"hidden_size": h, "direction": "bidirectional" if d == 2 else "forward"}
        inputs = [x, w, u, b, steps]
        if kind == "GRU":
            more["linear_before_reset"] = 1
        if kind == "RNN":
            more["activations"] = [layer.act.capitalize()] * d
        if kind == "LSTM" and layer.peephole:
            inputs += ["", "", np.stack([_host(layer.p[k])[[0, 2, 1]].reshape(-1) for k in parts])]  # i o f
        y, last, *_ = g.add(kind, *inputs, outputs=3 if kind == "LSTM" else 2, **more)
        # [T,d,N,H] to [T,N,d H]
        x = g.add("Reshape", g.add("Transpose", y, perm=(0, 2, 1, 3)), np.array([0, 0, d * h], np.int64))
    if layer.output == "all":
        return _Value(g.add("Transpose", x, perm=(1, 0, 2)), (*v.shape[:-1], d * h), lengths=v.lengths)
    last = g.add("Reshape", g.add("Transpose", last, perm=(1, 0, 2)), np.array([0, d * h], np.int64))
    return _Value(last, (d * h,))


def _reader(g, layer, v):
    if layer.rows.embedding is not None:
        v = g.run(layer.rows.embedding, v)
    return g.run(layer.head, g.run(layer.recurrent, v))


def _normal(g, layer, v):
    for part in layer.layers:
        v = g.run(part, v)
    return g.run(layer.mean, v)


def _same(g, layer, v):
    return v


_LAYERS = {
    "Activation": lambda g, layer, v: g.act(v, layer.act, layer.slope),
    "AvgPool2d": _avg_pool,
    "BatchNorm": _batch_norm,
    "Checkpoint": lambda g, layer, v: g.run(layer.module, v),
    "Conv1d": _conv1d,
    "Conv2d": _conv,
    "ConvTranspose2d": _conv_transpose,
    "Dense": _dense,
    "Dropout": _same,
    "Embedding": _embedding,
    "Flatten": _flatten,
    "GRU": _recurrent,
    "GlobalAvgPool2d": _global_pool,
    "LSTM": _recurrent,
    "LayerNorm": _layer_norm,
    "MaxPool2d": _max_pool,
    "Noise": _same,
    "RNN": _recurrent,
    "Reader": _reader,
    "Reshape": _reshape,
    "Residual": _residual,
    "Sequential": _sequential,
    "Softmax": _softmax,
    "TiedDense": _tied,
    "_Normal": _normal,
}


def register(layer, make):
    """Teach the nodes of a layer of your own.

    Parameters
    ----------
    layer : str
        Name of the class.
    make : callable
        ``make(graph, layer, value) -> value``; see the functions of this file.
    """
    _LAYERS[layer] = make


def _need_onnx():
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ImportError("onnx: expected the package onnx to be installed (pip install 'fastdl-nn[onnx]'); got none") from error
    return onnx


def export(model, path=None, input_shape=None):
    """Write a trained network as an ONNX file.

    Parameters
    ----------
    model : model or Module
        `MLP`, `CNN` and their regressors, `SoftmaxRegression`, `Perceptron`, `Autoencoder`, `RNNClassifier`, `RNNRegressor`, or
        a built Module made of layers of `fastdl.nn`. An estimator of `fastdl.sklearn` counts as the model in it: the
        file takes images where the estimator takes their rows.
    path : path, optional
        Where to write, whole or not at all; nowhere if left out.
    input_shape : tuple of int, optional
        Of one sample, without the batch; needed for a Module. Sequences: (steps, values); the number of steps stays free.

    Returns
    -------
    onnx.ModelProto
        Input ``x`` (for sequences also ``lengths``). Outputs: of a classifier ``probabilities`` and ``logits``, of a
        `Perceptron` ``logits`` alone; of a regressor ``prediction``, scaled back; of an autoencoder ``reconstruction``
        and ``code``; of a Module ``y``.

    Raises
    ------
    ImportError
        The package onnx is not installed.
    TypeError
        A layer that is not known here; a path or shape of another kind.
    ValueError
        A model that was not built.
    FileNotFoundError, IsADirectoryError
        No folder to write into; a folder instead of a file.

    Examples
    --------
    >>> from fastdl.models import MLP
    >>> from fastdl import onnx
    >>> model = MLP((8,)).build((4,), classes=3)
    >>> proto = onnx.export(model)  # doctest: +SKIP
    >>> [o.name for o in proto.graph.output]  # doctest: +SKIP
    ['probabilities', 'logits']
    """
    onnx = _need_onnx()
    path = _place(path)
    given, model = model, unwrapped(model)
    if isinstance(model, nn.Module):
        module, shape = model, shape_of(input_shape)
    elif hasattr(model, "module_") and hasattr(model, "input_shape_"):
        module, shape = model.module_, tuple(model.input_shape_)
    else:
        raise ValueError(f"model: expected one that was built or fitted, over arrays, or a Module; got {type(model).__name__}")
    must_be_built(module)
    if not any(isinstance(part, nn.Module) for _, part in module._children()):
        _known_as(module)  # before it runs: a Boltzmann machine's input need not be its model's
    tokens = getattr(model, "vocabulary", None) is not None or begins_with_tokens(module)
    with np.errstate(all="ignore"):
        rows = module.trace(shape, np.int64 if tokens and type(module).__name__ != "Reader" else np.float32)
    images, _ = images_around(rows)
    becomes = {layer: after for layer, (_, after) in images.items() if after is not None and len(after) == 3}
    g = _Graph(onnx, {id(part): after for _, part, _, after in rows}, becomes)
    sequences = type(module).__name__ == "Reader"
    free = ("N", "T", *shape[1:]) if sequences or (tokens and len(shape) == 1) else ("N", *shape)
    types = onnx.TensorProto
    inputs = [onnx.helper.make_tensor_value_info("x", types.INT64 if tokens else types.FLOAT, free)]
    v = _Value("x", shape)
    if sequences:
        inputs.append(onnx.helper.make_tensor_value_info("lengths", types.INT32, ("N",)))
        v.lengths = "lengths"
    outputs = _finish(g, model, module, v)
    for name, value in outputs.items():
        g.add("Identity", value.name, name=name)
    made = [
        onnx.helper.make_tensor_value_info(name, types.FLOAT, ("N", *("T" if s is None else s for s in value.shape)))
        for name, value in outputs.items()
    ]
    graph = onnx.helper.make_graph(g.nodes, type(model).__name__, inputs, made, g.weights)
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], producer_name="fastdl")
    proto.ir_version = 8
    if hasattr(model, "classes_"):
        import json

        classes = getattr(given, "classes_", model.classes_)  # an estimator's own labels: its model has their numbers
        # JSON has neither bytes nor dates, which labels may be
        text = json.dumps(classes.tolist(), default=lambda v: v.decode("latin-1") if isinstance(v, bytes) else str(v))
        onnx.helper.set_model_props(proto, {"classes": text})
    onnx.checker.check_model(proto)
    if path is not None:
        replace_file(path, proto.SerializeToString())
    return proto


def _place(path):
    """A path to write to, or None; known to be wrong before the work is done."""
    if path is None:
        return None
    try:
        path = os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path: expected the name of a file or None; got {type(path).__name__}") from None
    folder = os.path.dirname(path)
    if folder and not os.path.isdir(folder):
        raise FileNotFoundError(f"path: expected a file in a folder that exists; got {folder!r}, which does not")
    if os.path.isdir(path):
        raise IsADirectoryError(f"path: expected a file; got the folder {path!r}")
    return path


def _finish(g, model, module, v):
    """The named outputs of a model."""
    if type(module).__name__ == "_Network" and hasattr(module, "encoder"):
        if isinstance(module.encoder, nn.Sequential) and type(module.encoder[0]).__name__ == "Dense" and len(v.shape) > 1:
            v = _flatten(g, None, v)
        code = g.last(g.run(module.encoder, v))
        out = g.last(g.run(module.decoder, code))
        if getattr(model, "loss", "") == "binary_cross_entropy":
            out = g.act(out, "sigmoid")
        return {"reconstruction": out, "code": code}
    y = g.last(g.run(module, v))
    if hasattr(model, "classes_"):
        from .models import Perceptron  # here, since models need much that a Module does not

        outputs = {} if isinstance(model, Perceptron) else {"probabilities": _softmax(g, None, y)}
        return outputs | {"logits": y}
    if hasattr(model, "spread_"):
        scaled = g.add("Mul", y.name, model.spread_.astype(np.float32))
        return {"prediction": _Value(g.add("Add", scaled, model.mean_.astype(np.float32)), y.shape)}
    return {"y": y}
