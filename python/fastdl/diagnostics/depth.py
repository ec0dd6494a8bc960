"""How deep a network is: the longest path along which credit must be assigned."""

import math

import numpy as np

from .. import backend, nn
from .._arguments import number, positive
from ..module import Parameter, observing, shape_of
from ..tensor import Tensor
from ._network import is_undirected, module_of, opened, undisturbed


def cap_depth(model, input_shape=None, steps=None, dtype=np.float32):
    """Depth of the longest credit assignment path: layers with trained weights from the input to the output.

    Of a feedforward network that is the number of hidden layers and the output layer. A recurrent network passes its weights
    once a time step, so its depth has no bound; unrolled over a given number of steps it has. Of recurrent layers on top of one
    another that is steps + layers - 1, as no path leads back in time; where they read in both directions, steps times layers.

    Parameters
    ----------
    model : model, fitted estimator or Module
    input_shape : tuple of int, optional
        Of one sample; needed for a Module.
    steps : int, optional
        Time steps over which a recurrent network is unrolled.
    dtype : dtype
        Of the input: int64 for a network that begins with an embedding.

    Returns
    -------
    int, or math.inf for a recurrent network without `steps`

    Raises
    ------
    ValueError
        A Boltzmann machine: its links have no direction, and credit takes no path.

    Notes
    -----
    Counted on the recorded operations of one sample: weights are what weight decay applies to, so biases and the gains of
    normalisations are no layers of their own. A layer is recurrent if its class says ``recurrent = True``; one that the input
    alone does not reach counts as if it stood behind the rest. The path of a `Captioner` ends at the word that it chooses.

    References
    ----------
    Schmidhuber, "Deep learning in neural networks: an overview" (2015), section 3.

    Examples
    --------
    >>> from fastdl.diagnostics import cap_depth
    >>> from fastdl.models import MLP
    >>> cap_depth(MLP((32, 16)).build((8,), classes=3))
    3
    """
    from ..models.captioner import _CaptionNet

    model, _, _ = opened(model)
    module = module_of(model)
    if is_undirected(model):
        raise ValueError(
            f"model: expected a network trained by backpropagation; got {type(model).__name__}, an undirected model, in which "
            "no path leads from an input to an output"
        )
    shape = input_shape if input_shape is not None else getattr(model, "input_shape_", None)
    if hasattr(model, "vocabulary_") and not hasattr(model, "input_shape_"):
        raise TypeError(
            f"model: expected a network of one depth; got {type(model).__name__}, as deep as the trees it reads"
        )
    if shape is None:
        raise ValueError("input_shape: expected the shape of one sample, for a Module; got None")
    if steps is not None:
        steps = positive("steps", steps)
    owners = {}
    for _, m in module.named_modules():
        for _, child in m._children():
            owners.setdefault(id(child), m)
    # order of a tensor -> depth, of sequences at each of the time steps; without `steps` there is one, as good as any
    longest, times = {}, 1 if steps is None else steps
    made_of = {}  # order of a tensor that is nothing but weights in another form -> those

    x = backend.zeros((1, *shape_of(shape)), module.any_array(), dtype)
    with undisturbed(module), observing(lambda m, inputs: m.forward(*inputs)):
        module.eval()
        flags = [(p, p.wants_grad) for p in module.parameters()]
        for p, _ in flags:
            p.wants_grad = True  # frozen layers are deep as well
        try:
            out = module(Tensor(x) if dtype == np.float32 else x)
            if isinstance(module, _CaptionNet):  # the call alone only looks at the image
                out = module.logits(out, backend.to_device(np.zeros((1, 1), np.int64), out.data))
        finally:
            for p, flag in flags:
                p.wants_grad = flag
        if out.step is None and module is not model:
            raise ValueError(f"model: expected a network trained by backpropagation; got {type(model).__name__}")
        nodes, todo = {out.order: out}, [out]
        while todo:
            for p in todo.pop().parents:
                if p.order not in nodes:
                    nodes[p.order] = p
                    if p.step is not None:
                        todo.append(p)
        for order in sorted(nodes):
            t = nodes[order]
            below = np.zeros(times)
            for p in t.parents:
                below = np.maximum(below, longest.get(p.order, 0.0))
            weights = [w for p in t.parents if (w := p if getattr(p, "decay", False) else made_of.get(p.order)) is not None]
            alone = bool(weights) and len(weights) == len(t.parents)
            if alone and t.data.size == weights[0].data.size and not _looks_up(owners, weights[0]):
                made_of[order] = weights[0]  # the same weights in another shape, or scaled: no layer yet
                continue
            recurrent = [p for p in weights if getattr(owners.get(id(p)), "recurrent", False)]
            if recurrent and steps is None:
                below = below + math.inf
            elif recurrent:
                below = _through_time(below, owners[id(recurrent[0])], recurrent)
            elif weights or below.min() < below.max():
                by_itself = all(isinstance(owners.get(id(p)), nn.Dense) for p in weights)
                if not (by_itself and _keeps_steps(t)):
                    below = np.full(times, below.max())
                below = below + bool(weights)
            longest[order] = below
    met = {id(p) for t in nodes.values() for p in t.parents}
    beside = 0
    for _, m in module.named_modules():
        own = [c for _, c in m._children() if isinstance(c, Parameter)]
        if getattr(m, "recurrent", False) and own and not any(id(p) in met for p in own):
            layers = getattr(m, "layers", 1)
            layers = layers if isinstance(layers, int) else 1
            both_ways = getattr(m, "bidirectional", False)
            beside += math.inf if steps is None else steps * layers if both_ways else steps + layers - 1
    depth = float(longest[out.order].max()) + beside
    return depth if math.isinf(depth) else int(depth)


def _through_time(below, layer, weights):
    """Depth at each step behind a recurrent layer: one more than at the step before, or than what it reads there."""
    at, places = np.arange(len(below)), getattr(layer, "w", None)
    place = next((i for i, p in enumerate(places) if p is weights[0]), None) if isinstance(places, list) else None
    if place is None:  # of which nobody knows the way it goes
        return np.full(len(below), below.max() + len(below))
    backwards = getattr(layer, "bidirectional", False) and place % 2 == 1
    below = below[::-1] if backwards else below
    depth = np.maximum.accumulate(below - at) + at + 1
    return depth[::-1] if backwards else depth


def _looks_up(owners, weight):
    """Whether a layer takes rows of its weights, by indices that are no tensors."""
    return isinstance(owners.get(id(weight)), nn.Embedding)


def _keeps_steps(t):
    """Whether a tensor [N,T,...] has a value for each step of those that it was made of."""
    steps = {p.data.shape[:2] for p in t.parents if not getattr(p, "decay", False) and p.data is not None and p.data.ndim > 2}
    return t.data.ndim > 2 and steps == {t.data.shape[:2]}


def is_deep(model, input_shape=None, more_than=2, **options):
    """Whether the longest credit assignment path has more than two layers, the usual border.

    Parameters
    ----------
    model, input_shape, **options : as in `cap_depth`
    more_than : int
    """
    number("more_than", more_than)
    return cap_depth(model, input_shape, **options) > more_than
