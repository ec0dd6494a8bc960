"""How deep a network is: the longest path along which credit must be assigned."""

import math

import numpy as np

from .. import backend
from ..module import observing
from ..tensor import Tensor
from ._network import module_of, undisturbed


def cap_depth(model, input_shape=None, steps=None, dtype=np.float32):
    """Depth of the longest credit assignment path: layers with trained weights from the input to the output.

    Of a feedforward network that is the number of hidden layers and the output layer. A recurrent network passes its weights
    once a time step, so its depth has no bound; unrolled over a given number of steps it has.

    Parameters
    ----------
    model : model or Module
    input_shape : tuple of int, optional
        Of one sample; needed for a Module.
    steps : int, optional
        Time steps over which a recurrent network is unrolled.
    dtype : dtype
        Of the input: int64 for a network that begins with an embedding.

    Returns
    -------
    int, or math.inf for a recurrent network without `steps`

    Notes
    -----
    Counted on the recorded operations of one sample: weights are what weight decay applies to, so biases and the gains of
    normalisations are no layers of their own. A layer is recurrent if its class says ``recurrent = True``.

    Source
    ------
    Schmidhuber, "Deep learning in neural networks: an overview" (2015), section 3.

    Examples
    --------
    >>> from fastdl.diagnostics import cap_depth
    >>> from fastdl.models import MLP
    >>> cap_depth(MLP((32, 16)).build((8,), classes=3))
    3
    """
    module = module_of(model)
    shape = input_shape if input_shape is not None else getattr(model, "input_shape_", None)
    if hasattr(model, "vocabulary_") and not hasattr(model, "input_shape_"):
        raise TypeError(
            f"model: expected a network of one depth; got {type(model).__name__}, as deep as the trees it reads"
        )
    if shape is None:
        raise ValueError("input_shape: expected the shape of one sample, for a Module; got None")
    if steps is not None and steps < 1:
        raise ValueError(f"steps: expected at least 1; got {steps}")
    owners = {}
    for _, m in module.named_modules():
        for _, child in m._children():
            owners.setdefault(id(child), m)
    longest = {}  # order of a tensor -> depth

    x = backend.zeros((1, *(int(s) for s in np.atleast_1d(shape))), module.any_array(), dtype)
    with undisturbed(module), observing(lambda m, inputs: m.forward(*inputs)):
        module.eval()
        flags = [(p, p.wants_grad) for p in module.parameters()]
        for p, _ in flags:
            p.wants_grad = True  # frozen layers are deep as well
        try:
            out = module(Tensor(x) if dtype == np.float32 else x)
        finally:
            for p, flag in flags:
                p.wants_grad = flag
        if out.step is None and module is not model:
            raise ValueError(f"model: expected a network trained by backpropagation; got {type(model).__name__}")
        if out.step is None:
            return 0
        nodes, todo = {out.order: out}, [out]
        while todo:
            for p in todo.pop().parents:
                if p.order not in nodes:
                    nodes[p.order] = p
                    if p.step is not None:
                        todo.append(p)
        for order in sorted(nodes):
            t = nodes[order]
            below = max((longest.get(p.order, 0) for p in t.parents), default=0)
            weights = [p for p in t.parents if getattr(p, "decay", False)]
            passes = 0
            if weights:
                recurrent = any(getattr(owners.get(id(p)), "recurrent", False) for p in weights)
                passes = (math.inf if steps is None else steps) if recurrent else 1
            longest[order] = below + passes
    return longest[out.order]


def is_deep(model, input_shape=None, more_than=2, **options):
    """Whether the longest credit assignment path has more than two layers, the usual border.

    Parameters
    ----------
    model, input_shape, **options : as in `cap_depth`
    more_than : int
    """
    return cap_depth(model, input_shape, **options) > more_than
