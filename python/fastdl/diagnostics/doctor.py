"""One batch through a network and back: norms, dead and saturated units, a verdict and its remedy."""

import contextlib
import math
from dataclasses import dataclass, field

import numpy as np

from .. import backend, nn, train
from ..models._base import Model
from ..models._door import REAL, array_of
from ..module import observing
from ..tensor import Tensor, record
from ._network import host, input_of, module_of, opened, steps_of, undisturbed

# Where a figure stops being harmless. Gradient norms of neighbouring layers differ by small factors in a sound network;
# over its whole depth they stay within three powers of ten.
FADED, GROWN = 1e-3, 1e3
MANY = 0.5  # share of a layer's units
# Over time it is another matter: the weights are the same at every step, and learn from the near steps whatever the far ones
# say. A recurrent layer gets the sum of all steps' shares, in float32: one below half a unit in the last place of the nearest
# steps' is rounded away and changes no weight, whatever the optimiser. That is the verdict; a lesser loss is a remark.
ROUNDED_AWAY = 2.0**-24
# Gates can learn to hold what they forget at first, so their fading is a remark too, as long as they pass half of it on at
# each step, which gates at rest do (sigmoid(0)): to a hundredth in 6.6 steps. What forgets faster has its gates shut.
SHUT = math.log(100.0) / math.log(2.0)
FEWEST_STEPS = 8  # fewer say nothing of a trend
# A sound unit may be on for one sample in twenty: it is 0 for all of 16 in less than half the cases, for one nearly always.
FEWEST_SAMPLES = 16
SATURATED = {"tanh": lambda y: np.abs(y) > 0.95, "sigmoid": lambda y: np.abs(y - 0.5) > 0.45}
RECTIFIED = ("relu", "leaky_relu", "gelu")

REMEDIES = {
    "input not finite": "Remove or fill in the missing values before training.",
    "input scale": "Standardise each column: subtract its mean, divide by its standard deviation (images: to [0,1]).",
    "not finite": "Lower the learning rate, clip the gradient (clip=1.0), and look for a logarithm or a division of 0.",
    "symmetric": "Draw the first weights at random (init=None chooses by the activation): equal units stay equal for ever.",
    "disconnected": "Let the loss depend on this layer, or freeze it.",
    "vanishing": "Use relu or gelu units with He's initialisation, or tanh with orthogonal weights of gain 1; for many layers "
    "put residual connections around them or normalise (BatchNorm, LayerNorm).",
    "exploding": "Scale the first weights to the fan-in (He's or Glorot's initialisation); in residual networks begin every "
    "branch at zero; normalise, and clip the gradient.",
    "vanishing over time": "Use gates (LSTM, GRU) with the forget gate's bias at 1 or more, so that they begin by remembering; "
    "or shorten the sequences (truncated backpropagation) where the far steps do not matter.",
    "exploding over time": "Clip the gradient (clip=1.0), scale the recurrent weights down (orthogonal, of gain 1), use gates "
    "(LSTM, GRU), or shorten the sequences (truncated backpropagation).",
    "dead": "Lower the learning rate and start biases at 0; leaky_relu or gelu units cannot die.",
    "saturated": "Draw smaller first weights (Glorot's), standardise the inputs, or use relu units.",
    "output scale": "Draw smaller weights for the last layer: its first outputs should be about 1 or less.",
    "learning rate too high": "Divide the learning rate by ten, or begin with a warm-up (schedules.cosine(warmup=...)).",
    "learning rate too low": "Multiply the learning rate by ten.",
}
ORDER = tuple(REMEDIES)


@dataclass
class Finding:
    """One thing that ails a network.

    Attributes
    ----------
    kind : str
        A key of `REMEDIES`.
    where : str
        Name of a layer, or "" for all of it.
    what : str
        The figures.
    """

    kind: str
    where: str
    what: str

    @property
    def remedy(self):
        """What to do about it."""
        return REMEDIES[self.kind]

    def __str__(self):
        return f"{self.kind}{f' at {self.where}' if self.where else ''}: {self.what}. {self.remedy}"


@dataclass
class Layer:
    """Figures of one layer, from one batch.

    Attributes
    ----------
    name, kind : str
    output : float
        Root mean square of its outputs.
    variety : float
        How much outputs differ between samples: root mean square of their deviation from the batch's mean over that of
        the outputs, 0 (all samples alike) to 1; NaN of one sample.
    gradient : float
        Norm of the loss's gradient by its outputs.
    weight, weight_gradient : float
        Norm of its weights and of their gradient; NaN without weights.
    dead, saturated : float
        Share of units that are 0 for every sample, NaN where fewer than 16 can't tell; of outputs at the flat ends of tanh
        or sigmoid.
    """

    name: str
    kind: str
    output: float
    variety: float
    gradient: float
    weight: float = math.nan
    weight_gradient: float = math.nan
    dead: float = 0.0
    saturated: float = 0.0
    trunk: bool = True
    module: object = field(default=None, repr=False)


@dataclass
class Report:
    """What an examination gave.

    Attributes
    ----------
    findings : list of Finding
        The most basic first: what comes later may follow from it.
    layers : list of Layer
    loss : float
    remarks : list of str
        What is worth knowing of a healthy network as well: over how many steps a recurrent layer's gradient fades.
    """

    findings: list
    layers: list
    loss: float = math.nan
    remarks: list = field(default_factory=list)

    @property
    def verdict(self):
        """'healthy', or the kind of the first finding: 'vanishing', 'exploding', 'dead', 'saturated', ..."""
        return self.findings[0].kind if self.findings else "healthy"

    @property
    def healthy(self):
        """Whether nothing was found."""
        return not self.findings

    @property
    def remedy(self):
        """What to do first; empty where nothing is wrong."""
        return self.findings[0].remedy if self.findings else ""

    def plot(self, ax=None):
        """The chart of norms by layer; see `fastdl.plot.doctor`."""
        from .. import plot

        return plot.doctor(self, ax)

    def __str__(self):
        head = ("layer", "output", "variety", "gradient", "weights", "their gradient", "dead", "saturated")
        shown = self.layers
        if len(shown) > 24:
            shown = [shown[i] for i in np.unique(np.linspace(0, len(shown) - 1, 24).astype(int))]
        rows = [
            (
                f"{r.name} {r.kind}".strip(),
                *("" if math.isnan(v) else f"{v:.2g}" for v in (r.output, r.variety, r.gradient, r.weight, r.weight_gradient)),
                f"{r.dead:.0%}" if r.dead > 0 else "",
                f"{r.saturated:.0%}" if r.saturated else "",
            )
            for r in shown
        ]  # fmt: skip
        widths = [max(len(r[i]) for r in (head, *rows)) for i in range(len(head))]
        lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True)))
                 for r in (head, *rows)]  # fmt: skip
        if len(shown) < len(self.layers):
            lines.append(f"({len(shown)} of {len(self.layers)} layers)")
        told = [f"verdict: {self.verdict}", *map(str, self.findings), *(f"remark: {r}" for r in self.remarks)]
        return "\n".join([*(line.rstrip() for line in lines), "", *told])


def examine(model, X, y, loss=None):
    """Send a batch through a network and back, and say what ails its signals and gradients.

    Parameters
    ----------
    model : model, fitted estimator or Module
        As it is: fresh or trained.
    X : array [N,...]
        A few dozen to a few hundred samples, as for training. Of fewer than 16 nothing is said about dead units: those that
        are 0 for all of them may only be idle.
    y : array [N]
        Labels or targets, as for training; None for an autoencoder.
    loss : str or callable, optional
        As in `fastdl.train.fit`; a model's own, for a Module 'softmax_cross_entropy'.

    Returns
    -------
    Report

    Raises
    ------
    ValueError, TypeError
        X or y do not fit the network.

    Notes
    -----
    The network runs in training mode. Afterwards it is what it was, except that gradients it held are forgotten. Norms,
    not means, are compared between layers: backwards through a sound layer the norm of the gradient stays, whatever the
    widths. A residual block counts as one layer, since its branch may rightly begin at zero. Of recurrent layers the gradient
    by their inputs is followed back through the steps, from the end of each sequence (from the nearer end, where they read in
    both directions): what the loss at the last step asks of the first. With a loss at every step each has a share of its own,
    and fading between them does not show.

    References
    ----------
    Glorot & Bengio, "Understanding the difficulty of training deep feedforward neural networks" (2010); Hochreiter, diploma
    thesis (1991); over time: Bengio, Simard & Frasconi, "Learning long-term dependencies with gradient descent is difficult"
    (1994).
    """
    model, X, y = opened(model, X, y)
    module = module_of(model)
    if module is not model and (not hasattr(model, "_loss") or type(model)._targets is Model._targets):
        raise TypeError(
            f"model: expected a classifier, a regressor, an autoencoder or a Module; got a {type(model).__name__}, which is not "
            "trained by one loss from samples"
        )
    x = input_of(model, X)
    if module is not model:
        target = model._targets(y, len(x))
    else:
        target = array_of(y, "y")
        if target.dtype.kind not in REAL:
            raise TypeError(f"y: expected labels or targets of a Module, numbers; got {target.dtype}")
        target = backend.array(target, np.float32 if target.dtype.kind == "f" else np.int64)
        if target.ndim == 0 or len(target) != len(x):
            got = len(target) if target.ndim else "a single number"
            raise ValueError(f"y: expected {len(x)} targets, as many as samples in X; got {got}")
    loss = loss or getattr(model, "_loss", "softmax_cross_entropy")
    loss_of = train.loss_of(loss)
    findings = _of_input(steps_of(model, x))
    if findings and findings[0].kind == "input not finite":
        return Report(findings, [])

    calls, outputs, slopes, passes = [], {}, {}, []

    def observe(part, inputs):
        if isinstance(part, nn.BatchNorm) and inputs and math.prod(inputs[0].shape[:-1]) == 1:
            raise ValueError("X: expected two samples or more, for batch normalisation, to which one is like any other; got 1")
        at = len(calls)
        calls.append(part)
        if getattr(part, "recurrent", False) and not hasattr(part, "sequence") and inputs:
            inputs = (_probed(part, inputs[0], None, passes), *inputs[1:])
        out = part.forward(*inputs)
        outputs[at] = host(out.data)

        def step(dy):
            slopes[at] = host(dy)
            buffer, beta = out.slot()
            if buffer is not None:
                backend.kernels(dy).axpby(1.0, dy, beta, buffer)

        return record(out.data, (out,), step) if out.wants_grad else out

    with undisturbed(module):
        module.train()
        for p in module.parameters():
            p.beta = 0.0
        with observing(observe), _sequences_probed(module, passes):
            out = module(Tensor(x) if x.dtype == np.float32 else x)
        value = loss_of(out, backend.to_device(target, out.data))
        result = value.item()
        if value.step is not None:
            value.backward()
        reached = {id(p): p.beta != 0.0 for p in module.parameters()}
        layers = _layers(module, calls, outputs, slopes, reached)
        over_time, remarks = _over_time(module, passes)
        findings += _of_layers(module, layers, result, reached, len(x), remarks)
        for r in layers:
            if len(x) < FEWEST_SAMPLES and getattr(r.module, "act", "none") in RECTIFIED:
                r.dead = math.nan
        if any(f.kind == "exploding over time" for f in over_time):  # of which infinities in the layers before are the end
            findings = [f for f in findings if f.kind != "not finite"]
        findings += over_time
    findings.sort(key=lambda f: ORDER.index(f.kind))
    return Report(findings, layers, result, remarks)


# -------------------------------------------------------------------------------------------------- through the steps


def _probed(part, x, lengths, passes):
    """The same steps x [N,T,I], at which the gradient that comes back is kept: passes get [part, lengths, gradient]."""
    if not isinstance(x, Tensor) or x.data.ndim != 3:
        return x
    # A layer that reads the data themselves would be told that nobody wants their gradient.
    source = x if x.wants_grad else Tensor(x.data, wants_grad=True)
    seen = [part, None if lengths is None else backend.to_host(lengths), None]
    passes.append(seen)

    def step(dy):
        seen[2] = host(dy)
        if x.wants_grad:
            buffer, beta = x.slot()
            backend.kernels(dy).axpby(1.0, dy, beta, buffer)

    return record(x.data, (source,), step)


@contextlib.contextmanager
def _sequences_probed(module, passes):
    """Recurrent layers are often asked for their states by `sequence`, which no observer of calls sees."""
    parts = [m for _, m in module.named_modules() if getattr(m, "recurrent", False) and hasattr(m, "sequence")]

    def watched(part):
        sequence = part.sequence

        def probed(x, lengths=None, state=None):
            return sequence(_probed(part, x, lengths, passes), lengths, state)

        return probed

    try:
        for part in parts:
            part.__dict__["sequence"] = watched(part)
        yield
    finally:
        for part in parts:
            part.__dict__.pop("sequence", None)


def _profile(part, lengths, gradient):
    """Root mean square over the samples of the gradient's norm at each distance from the end, nearest first."""
    n, steps, _ = gradient.shape
    lengths = np.full(n, steps) if lengths is None else lengths
    at = np.arange(steps)
    distance = lengths[:, None] - 1 - at
    if getattr(part, "bidirectional", False):
        distance = np.minimum(distance, at)
    inside = at < lengths[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        squares = np.sum(gradient * gradient, 2)[inside]
        return np.sqrt(np.bincount(distance[inside], squares) / np.maximum(np.bincount(distance[inside]), 1))


def _over_time(module, passes):
    """(findings, remarks) about the gradient's way back through the steps: the worst of each kind."""
    names = {id(m): name for name, m in module.named_modules()}
    faded, grown, remarks = [], [], {}
    for part, lengths, gradient in passes:
        if gradient is None:
            continue
        profile = _profile(part, lengths, gradient)
        steps, name = len(profile), names.get(id(part), "?")
        if steps < FEWEST_STEPS:
            continue
        finite = np.isfinite(profile)
        if not finite.all():
            # Where not even the last step is sound the fault lies behind the layer, not in its steps.
            if finite[0]:
                grown.append((math.inf, name, f"{int(finite.argmin())} steps back the gradient is no longer finite"))
            continue
        # A tenth of the steps at each end, since single ones may be quiet.
        few = max(steps // 10, 1)
        near, far, top = profile[:few].max(), profile[-few:].max(), profile.max()
        if near == 0:
            continue
        if top > GROWN * near:
            back = int(profile.argmax())
            grown.append((top / near, name, f"over {back} steps back in time the gradient grows {top / near:.1e} times"))
        elif far < FADED * near:
            # The last distance that still gets a hundredth: what is quiet in between does not count.
            reach = int(np.flatnonzero(profile >= 0.01 * near)[-1]) + 1
            what = (
                f"over {steps} steps back in time the gradient falls to {far / near:.1e} of its norm, "
                f"to a hundredth in {reach} steps"
            )
            gated = getattr(part, "gates", 1) > 1
            if far < ROUNDED_AWAY * near and (not gated or reach < SHUT):
                faded.append((near / far if far else math.inf, name, what))
            else:
                hint = "gates can learn to hold it longer" if gated else "what lies further back is hardly learned"
                remarks.setdefault(name, f"{name}: {what}; {hint}.")
    found = [Finding("vanishing over time", *max(faded)[1:])] if faded else []
    found += [Finding("exploding over time", *max(grown)[1:])] if grown else []
    return found, list(remarks.values())


def _norm(a):
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(np.sum(a * a)))


def _of_input(x):
    if x.dtype != np.float32:
        return []
    a = host(x)
    rows = a.reshape(len(a), -1)
    finite = np.isfinite(rows)
    if not finite.all():
        row, column = np.argwhere(~finite)[0]
        return [Finding("input not finite", "", f"{(~finite).sum()} values, first in row {row}, column {column}")]
    spread = rows.std(0)
    rms = math.sqrt(np.mean(rows * rows))
    if rms > 30.0:
        return [Finding("input scale", "", f"the values' root mean square is {rms:.2g}")]
    live = spread[spread > 0]
    if live.size and rows.ndim == 2 and a.ndim == 2 and live.max() > 1000.0 * np.median(live) and live.max() > 5.0:
        return [Finding("input scale", "", f"one column spreads {live.max() / np.median(live):.2g} times as far as most")]
    return []


def too_few(n):
    """What to say of units that are 0 for so few samples."""
    these = "1 sample is" if n == 1 else f"{n} samples are"
    return f"{these} too few to tell dead units from idle ones, {FEWEST_SAMPLES} or more do"


def _layers(module, calls, outputs, slopes, reached):
    names = {id(m): name for name, m in module.named_modules()}
    inside = {
        id(m)
        for _, block in module.named_modules()
        if isinstance(block, nn.Residual)
        for _, m in block.named_modules()
        if m is not block
    }
    result = []
    for at, part in enumerate(calls):
        children = [c for _, c in part._children()]
        block = isinstance(part, nn.Residual)
        if any(isinstance(c, nn.Module) for c in children) and not block:
            continue  # its parts have rows of their own
        y, own = outputs[at], [c for c in children if isinstance(c, nn.Parameter)]
        with np.errstate(over="ignore", invalid="ignore"):
            output = math.sqrt(np.mean(y * y)) if y.size else 0.0
            scatter = math.sqrt(np.mean((y - y.mean(0)) ** 2)) if y.size else 0.0
        layer = Layer(
            names.get(id(part), "?"),
            type(part).__name__,
            output,
            math.nan if len(y) == 1 else scatter / output if output else 0.0,
            _norm(slopes[at]) if at in slopes else 0.0,
            trunk=id(part) not in inside,
            module=part,
        )
        if own:
            layer.weight = math.hypot(*(_norm(host(p.data)) for p in own))
            layer.weight_gradient = math.hypot(*(_norm(host(p.grad)) if reached[id(p)] else 0.0 for p in own))
        layer.dead, layer.saturated = idle_shares(part, y)
        result.append(layer)
    return result


def idle_shares(part, y):
    """(share of units that are 0 for every sample, share of outputs at the flat ends) of a layer's outputs y, on the host."""
    act = getattr(part, "act", "none")
    if act in RECTIFIED:
        units = np.abs(y.reshape(-1, y.shape[-1])).max(0)
        return float((units == 0 if act == "relu" else units < 1e-6).mean()), 0.0
    return 0.0, float(SATURATED[act](y).mean()) if act in SATURATED else 0.0


def _first_not_finite(layers):
    """What to say of the layer at which numbers stop being finite: on the way to the loss, else on the way back."""
    bad = [r for r in layers if not math.isfinite(r.output)]
    if bad:
        at = bad[0]
        if at.kind == "Residual" and len(bad) > 1 and not bad[1].trunk:  # a part of it is at fault
            at = bad[1]
        if getattr(at.module, "recurrent", False):
            what = "the outputs grow from step to step until they are no longer finite"
            return Finding("exploding over time", at.name, what)
        growth = [r.output for r in layers[: layers.index(bad[0])] if r.output > 0]
        if growth and max(growth) > 1e6 * growth[0]:
            return Finding("exploding", at.name, "the outputs grow from layer to layer until they are no longer finite")
        return Finding("not finite", at.name, "its outputs hold NaN or infinity")
    bad = [r for r in layers if not math.isfinite(r.gradient)]
    if not bad:
        return None
    # What is the matter with the way back begins at the layer that is nearest to the loss.
    growth = [r.gradient for r in layers[layers.index(bad[-1]) + 1 :] if r.gradient > 0]
    if growth and max(growth) > 1e6 * growth[-1]:
        what = "from the output to this layer the gradient grows until it is no longer finite"
        return Finding("exploding", bad[-1].name, what)
    return Finding("not finite", bad[-1].name, "its gradient holds NaN or infinity")


def _of_layers(module, layers, loss, reached, samples, remarks):
    found = []
    overflowing = _first_not_finite(layers)
    if overflowing is not None:
        return [overflowing]

    weighted = [r for r in layers if not math.isnan(r.weight)]
    last = weighted[-1] if weighted else None
    for r in weighted:
        w = getattr(r.module, "w", None)
        if not isinstance(w, nn.Parameter) or r is last or not r.trunk or w.data.ndim < 2 or w.data.shape[-1] < 2:
            continue
        a = host(w.data)
        if np.all(a == a[..., :1]):
            found.append(Finding("symmetric", r.name, f"all {a.shape[-1]} units have the same weights"))
            break
    for r in weighted:
        own = [p for _, p in r.module._children() if isinstance(p, nn.Parameter) and p.wants_grad]
        if own and not any(reached[id(p)] for p in own):
            found.append(Finding("disconnected", r.name, "no gradient reaches its weights"))
            break
    called = {id(r.module) for r in layers}
    for name, m in module.named_modules():
        own = [p for _, p in m._children() if isinstance(p, nn.Parameter) and p.wants_grad]
        if own and id(m) not in called and not found and not any(reached[id(p)] for p in own):
            found.append(Finding("disconnected", name, "it has weights and is not called"))
    if found:
        return found

    quiet = next((r for r in layers if r.dead > MANY), None)
    if samples < FEWEST_SAMPLES:
        if quiet is not None:
            remarks.append(f"{quiet.name}: {quiet.dead:.0%} of its units are 0; {too_few(samples)}.")
    elif quiet is not None:
        found.append(Finding("dead", quiet.name, f"{quiet.dead:.0%} of its units are 0 for every sample"))
    for r in layers:
        if r.saturated > MANY and r is not layers[-1]:
            found.append(Finding("saturated", r.name, f"{r.saturated:.0%} of its outputs are at the flat ends of {r.module.act}"))
            break
    # A layer before units that are off, or before a last layer that begins at 0, gets no gradient for a reason of its own.
    spine = [r for r in layers if r.trunk and (not math.isnan(r.weight) or r.kind == "Residual")]
    zero_after = any(r.weight == 0.0 for r in spine[1:])
    if len(spine) >= 2 and not zero_after and quiet is None:
        gradients = [r.gradient for r in spine]
        first, at_end = gradients[0], gradients[-1]
        top = max(gradients)
        outputs = [r.output for r in spine[:-1]]
        if at_end > 0 and first < FADED * at_end:
            blind = next((r for r in spine if r.variety < 1e-3), None)
            more = f"; from {blind.name} on all samples look alike" if blind is not None else ""
            what = f"from the output to the first layer the gradient falls to {first / at_end:.1e} of its norm{more}"
            found.append(Finding("vanishing", spine[0].name, what))
        elif at_end > 0 and top > GROWN * at_end:
            r = spine[gradients.index(top)]
            found.append(
                Finding("exploding", r.name, f"from the output to this layer the gradient grows {top / at_end:.1e} times")
            )
        elif outputs and max(outputs) > GROWN * max(outputs[0], 1.0):
            r = spine[outputs.index(max(outputs))]
            found.append(Finding("exploding", r.name, f"its outputs are about {r.output:.1e}"))
    if not found and last is not None and math.isfinite(loss) and last.output > 100.0 and loss > 50.0:
        found.append(Finding("output scale", last.name, f"the outputs are about {last.output:.1e}, the loss {loss:.1e}"))
    return found
