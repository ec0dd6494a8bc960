"""Activation checkpointing: memory for time in deep networks."""

from ..module import Module, observed
from ..tensor import Tensor, inference, record, recording


class Checkpoint(Module):
    """A module whose inner activations are not kept for the backward pass but computed again during it.

    A chain of L layers keeps L activations. Cut into sqrt(L) checkpoints it keeps about 2 sqrt(L) at a time, for one more
    forward pass: about a third more time.

    Parameters
    ----------
    module : Module
        A stretch of the network, such as ten layers. Its output must depend on its inputs, parameters and random stream
        alone.

    Notes
    -----
    Gradients are the same bits as without it: dropout draws the same numbers again, and batch normalisation's running
    statistics move once. The modes (`train`, `eval`) must not change between the forward and the backward pass.

    References
    ----------
    Chen, Xu, Zhang & Guestrin, "Training deep nets with sublinear memory cost" (2016).

    Examples
    --------
    >>> from fastdl import nn
    >>> stretch = lambda: nn.Checkpoint(nn.Sequential(*(nn.Dense(32, "tanh") for _ in range(10))))
    >>> net = nn.Sequential(*(stretch() for _ in range(10)), nn.Dense(10)).build((784,), seed=0)
    """

    def __init__(self, module):
        if not isinstance(module, Module):
            raise TypeError(f"module: expected a Module; got {type(module).__name__}")
        self.module = module

    def forward(self, *inputs):
        # Who observes a network wants to see its layers once each.
        if not recording() or observed():
            return self.module(*inputs)
        parts = [m for _, m in self.module.named_modules()]
        streams = list({id(s): s for m in parts if (s := getattr(m, "stream", None)) is not None}.values())
        places = [s.get_state() for s in streams]
        with inference():
            y = self.module(*inputs)

        def step(dy):
            now = [s.get_state() for s in streams]
            kept = [(a, a.copy()) for m in parts for name in m.buffers if (a := getattr(m, name)) is not None]
            for s, place in zip(streams, places, strict=True):
                s.set_state(place)
            # Leaves of the inner graph, one for each tensor; they write where the outer inputs' gradients are.
            leaves = {}
            for x in inputs:
                if isinstance(x, Tensor) and id(x) not in leaves:
                    leaves[id(x)] = leaf = Tensor(x.data)
                    if x.wants_grad:
                        leaf.wants_grad = True
                        leaf.grad, leaf.beta = x.slot()
            again = self.module(*(leaves.get(id(x), x) for x in inputs))
            if again.step is not None:
                again.backward(dy)
            for leaf in leaves.values():
                if leaf.wants_grad and leaf.beta == 0.0:
                    leaf.grad[...] = 0.0  # nothing flowed back to it
            for s, place in zip(streams, now, strict=True):
                s.set_state(place)
            for a, values in kept:
                a[...] = values

        tensors = [x for x in inputs if isinstance(x, Tensor)]
        return record(y.data, (*tensors, *self.module.parameters()), step)
