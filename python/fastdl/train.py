"""The training loop.

    for every epoch:  shuffle;  for every batch:  gather - forward - loss - backward - update;  validate;  look after

Everything random comes from (seed, offset), so the same seed gives the same weights bit for bit, with any number of
threads.
"""

import inspect
import math
import time
import warnings
from dataclasses import dataclass, field

import numpy as np

from . import backend, random
from ._arguments import functions, number, positive, schedule_or_none, scheduled
from ._interrupts import interruptible
from ._training import (
    figures_of,
    must_be_metrics,
    must_be_module,
    must_be_samples,
    must_be_watchable,
    must_take_images_of,
    number_of,
)
from .checkpoint import Run, called, fingerprint, module_state, parts_state, set_module_state, set_parts_state
from .random import Stream
from .replay import LOSSES, Step, loss_of, predicted
from .rows import AugmentedRows, Rows, must_be_array
from .tensor import Tensor, inference

__all__ = ["LOSSES", "State", "Step", "accuracy", "argmax", "evaluate", "evaluating", "fit", "predict", "r2"]


@dataclass
class State:
    """What callbacks see; setting `stop` ends training after the epoch (a step callback: after the step)."""

    module: object
    optimizer: object
    history: dict
    epochs: int
    total: int  # updates in all
    epoch: int = 0  # from 1
    step: int = 0  # updates done
    loss: float = math.nan  # of the last batch; in an epoch's callback, the mean of the epoch
    stop: bool = False
    best: float = math.inf
    best_epoch: int = 0
    _kept: list = field(default_factory=list)

    def _flat(self):
        return self.module.flatten() if self.optimizer is None else self.optimizer.flat

    def keep(self):
        """Remember the weights and buffers of now."""
        self._kept = [self._flat().snapshot(), [b.copy() for _, b in self.module.named_buffers()]]

    def get_state(self):
        """What a training that goes on needs of it, for a checkpoint."""
        kept = None
        if self._kept:
            values, buffers = self._kept
            kept = {"values": backend.to_host(values), "buffers": [backend.to_host(b) for b in buffers]}
        return {
            "step": self.step,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "kept": kept,
            "history": {k: list(v) if isinstance(v, list) else v for k, v in self.history.items()},
        }

    def set_state(self, state):
        """Go on from what `get_state` gave."""
        self.step, self.best, self.best_epoch = state["step"], state["best"], state["best_epoch"]
        self._kept = [state["kept"]["values"], state["kept"]["buffers"]] if state["kept"] else []
        self.history.update(state["history"], stopped="done")

    def restore(self):
        """Go back to the weights that were kept last, if any were."""
        if self._kept:
            self._flat().restore(self._kept[0])
            for (_, now), then in zip(self.module.named_buffers(), self._kept[1], strict=True):
                backend.assign(now, then)


class _Buffers:
    """The buffers of a module as they were before a batch: the forward pass writes them before its loss is known."""

    def __init__(self, module):
        self._arrays = [a for _, a in module.named_buffers()]
        self._copies = [a.copy() for a in self._arrays]

    def keep(self):
        for copy, a in zip(self._copies, self._arrays, strict=True):
            copy[...] = a

    def restore(self):
        for a, copy in zip(self._arrays, self._copies, strict=True):
            a[...] = copy


def fit(
    module,
    x,
    y,
    *,
    loss,
    optimizer,
    epochs=10,
    steps=None,
    batch_size=64,
    validation=None,
    metrics=None,
    schedule=None,
    watch=None,
    patience=None,
    min_delta=0.0,
    restore_best=None,
    augment=None,
    shuffle=True,
    seed=0,
    callbacks=(),
    on_step=(),
    progress=False,
    checkpoint=None,
    resume=None,
):
    """Train a module.

    Parameters
    ----------
    module : Module
        Built and initialised.
    x : array [L,...]
        float32, uint8 (a batch becomes float32 times 1/255) or int64; a memory-mapped file may be larger than memory.
        For a module on a GPU the whole of it goes there once if it takes at most a quarter of the memory that is free;
        else batches are gathered where x lies, and uint8 travels as bytes.
    y : array [L,...]
        Targets: int64 labels or float32.
    loss : str or callable
        One of `LOSSES`, or ``loss(output, target) -> Tensor [1]``, the mean over the batch.
    optimizer : Optimizer
        Made for this module.
    epochs : int
        Passes over the data.
    steps : int, optional
        Number of updates instead of epochs; the last epoch may then be a part of one.
    batch_size : int
        The last batch of an epoch may be smaller.
    validation : (x, y) or callable, optional
        Judged after every epoch: `val_loss` and metrics. A function ``validation() -> dict`` gives the figures itself, 'loss'
        among them; they are recorded as ``val_<name>``.
    metrics : dict of str to callable, optional
        ``metric(outputs, targets) -> float`` on all validation outputs, larger is better; recorded as ``val_<name>``.
    schedule : callable, optional
        ``schedule(t, total) -> factor`` of the learning rate, see `fastdl.schedules`.
    watch : str, optional
        What decides about best weights and stopping: 'loss', 'val_loss' or ``val_<metric>``. 'val_loss' if there is
        validation, else 'loss'.
    patience : int, optional
        Stop after that many epochs without improvement by more than `min_delta`.
    min_delta : float
        0: any improvement counts.
    restore_best : bool, optional
        End with the weights of the best epoch; by default where patience is given.
    augment : callable, optional
        ``augment(images, seed, offset)``, see `fastdl.data.Augment`. Validation is not augmented.
    shuffle : bool
    seed : int
        Decides the order of samples and the augmentation.
    callbacks, on_step : sequence of callables
        ``f(state)`` after every epoch, after every update; see `State`. One alone will do.
    progress : bool
        Show a bar (needs tqdm).
    checkpoint : path or `fastdl.checkpoint.Checkpoint`, optional
        Where the state of the training is written: after every epoch, and on Ctrl-C.
    resume : path or True, optional
        Go on from that file, bit for bit as if the training had never stopped; True: from `checkpoint`, if it is
        there. More epochs than before may be asked for, unless a schedule depends on their number. Callbacks with
        ``get_state`` and ``set_state`` are put back as well.

    Returns
    -------
    dict
        A list for each of epoch, loss, lr, seconds, and with validation val_loss, val_<metric>; and `stopped`: 'done',
        'early', 'callback' or 'interrupted'.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite; the message says where. The last update that was made had a finite loss, and the
        batch at fault has changed nothing: neither weights nor running statistics.

    Warns
    -----
    RuntimeWarning
        The loss of the last epoch is finite, but a thousand times what it was at first, and its weights stay (no restore_best).

    Notes
    -----
    Ctrl-C ends training after the current update: the history is returned, the weights are whole (the best ones where
    restore_best). The loss of a batch is read once, before its update. The module is left in evaluation mode.
    """
    for name, a in (("x", x), ("y", y)):
        must_be_array(name, a)
        if a.ndim < 1:
            raise ValueError(f"{name}: expected one axis or more; got a single number")
    n = len(x)
    if len(y) != n:
        raise ValueError(f"y: expected {n} targets, as many as samples in x; got {len(y)}")
    if n == 0:
        raise ValueError("x: expected one sample or more; got none")
    epochs, batch_size, callbacks, on_step = _checked(
        epochs, batch_size, steps, patience, min_delta, callbacks, on_step, schedule, augment
    )
    if augment is not None and len(x.shape) != 4:
        raise ValueError(f"x: expected images [N,Y,X,C], to augment them; got shape {list(x.shape)}")
    if hasattr(augment, "output_size"):
        must_take_images_of(module, x.shape[1:], (*augment.output_size(*x.shape[1:3]), x.shape[3]))
    if not hasattr(optimizer, "flat"):
        raise TypeError(f"optimizer: expected an Optimizer made for this module; got {type(optimizer).__name__}")
    step = Step(module, loss, optimizer)
    flat = optimizer.flat
    if not flat.holds(module.named_parameters()):
        raise ValueError(
            "optimizer: expected one that was made for this module as it is now; got one for other parameters"
        )

    if not any(p.wants_grad for p in module.parameters()):
        raise ValueError("module: expected a parameter that is not frozen; got none")

    stream = Stream(seed)
    shuffling = stream.split("shuffle")
    inputs, targets = Rows(x, "x", flat.data), Rows(y, "y", flat.data)
    if augment is not None:
        inputs = AugmentedRows(inputs, augment, stream.split("augment"), flat.data)
    per_epoch = -(-n // batch_size)
    total = epochs * per_epoch if steps is None else steps
    epochs = -(-total // per_epoch)
    history = {"epoch": [], "loss": [], "lr": [], "seconds": [], "stopped": "done"}
    state = State(module, optimizer, history, epochs, total)
    watch = watch or ("loss" if validation is None else "val_loss")
    must_be_metrics(metrics)
    judged = [] if validation is None else ["val_loss", *(f"val_{name}" for name in metrics or {})]
    if not callable(validation):
        must_be_samples(validation)
        must_be_watchable(watch, ["loss", *judged])
    restore_best = patience is not None if restore_best is None else restore_best
    first_lr, first_loss, waited, buffers = optimizer.lr, None, 0, _Buffers(module)
    in_order, first, begin, summed, seen = np.arange(n), 1, 0, 0.0, 0
    there = backend.home(inputs.array) is backend.home(targets.array) is not backend.home(in_order)
    run = Run(
        checkpoint,
        resume,
        {
            "x": fingerprint(x),
            "y": fingerprint(y),
            "validation": _name_of(validation),
            "loss": called(loss),
            "batch_size": batch_size,
            "seed": seed,
            "shuffle": bool(shuffle),
            "augment": called(augment),
            "schedule": called(schedule),
            "watch": watch,
            "restore_best": bool(restore_best),
            **({} if schedule is None or hasattr(schedule, "observe") else {"steps": total}),
            **optimizer.settings(),
        },
    )
    parts = [schedule, *callbacks, *on_step]

    def state_of(epoch, begin, shuffle_offset):
        """All that later updates depend on, at row `begin` of an epoch whose order is drawn at that offset."""
        return {
            "epoch": epoch,
            "begin": begin,
            "shuffle_offset": shuffle_offset,
            "augment": inputs.get_state() if augment is not None else None,
            "summed": summed,
            "seen": seen,
            "waited": waited,
            "first_lr": first_lr,
            "first_loss": first_loss,
            "state": state.get_state(),
            "module": module_state(module),
            "optimizer": optimizer.get_state(),
            "parts": parts_state(parts),
        }

    if run.state is not None:
        then = run.state
        first, begin, summed, seen = then["epoch"], then["begin"], then["summed"], then["seen"]
        shuffling.offset, waited, first_lr = then["shuffle_offset"], then["waited"], then["first_lr"]
        first_loss = then.get("first_loss")  # files of older versions have none
        if augment is not None:
            inputs.set_state(then["augment"])
        state.set_state(then["state"])
        set_module_state(module, then["module"])
        optimizer.set_state(then["optimizer"])
        set_parts_state(parts, then["parts"])
        if patience is not None and waited >= patience and state.step < total:
            history["stopped"], first = "early", epochs + 1
        if state.step >= total and begin == 0:
            first = epochs + 1
    bar = _bar(progress, total, state.step)

    module.train()
    with interruptible(history) as interrupts:
        try:
            for epoch in range(first, epochs + 1):
                state.epoch, begun, drawn_at, cut = epoch, time.perf_counter(), shuffling.offset, False
                order = random.permutation(n, *shuffling.take(2 * n)) if shuffle else in_order
                if there:
                    order = backend.to_device(order, targets.array)  # once, instead of in parts that each wait
                for start in range(begin, n if state.step < total else begin, batch_size):
                    if schedule is not None:
                        optimizer.lr = first_lr * scheduled(schedule, state.step, total)
                    index = order[start : start + batch_size]
                    with backend.pooled():
                        xb, yb = inputs.take(index), targets.take(index)
                        buffers.keep()
                        value = step(xb, yb)
                    if not math.isfinite(value):
                        try:
                            raise FloatingPointError(_explain(module, xb, yb, value, epoch, state.step + 1))
                        finally:
                            buffers.restore()
                    state.step, state.loss = state.step + 1, value
                    first_loss = value if first_loss is None else first_loss
                    summed, seen = summed + value * len(index), seen + len(index)
                    if bar is not None:
                        bar.update()
                    for f in on_step:
                        f(state)
                    cut = interrupts.asked or state.stop or (state.step == total and start + batch_size < n)
                    if cut or run.due(state.step):
                        run.write(lambda: state_of(epoch, start + batch_size, drawn_at), state.step)  # noqa: B023
                    if cut or state.step == total:
                        break
                state.loss = summed / seen
                history["epoch"].append(epoch)
                history["loss"].append(state.loss)
                history["lr"].append(optimizer.lr)
                asked = interrupts.asked
                if validation is not None and not asked:
                    if callable(validation):
                        figures = figures_of(validation())
                    else:
                        figures = evaluate(module, *validation, loss=loss, metrics=metrics)
                    for name, value in figures.items():
                        history.setdefault(f"val_{name}", []).append(value)
                history["seconds"].append(time.perf_counter() - begun)
                if bar is not None:
                    bar.set_postfix(
                        {k: f"{v[-1]:.4g}" for k, v in history.items() if k.endswith(("loss", "accuracy")) and v}
                    )
                if asked:
                    for name in (k for k in history if k.startswith("val_")):
                        if len(history[name]) < len(history["epoch"]):
                            history[name].append(math.nan)  # not judged any more
                    raise KeyboardInterrupt
                waited = _judge(state, watch, min_delta, restore_best, waited)
                for f in callbacks:
                    f(state)
                if patience is not None and waited >= patience and state.step < total:
                    history["stopped"] = "early"
                if state.stop:
                    history["stopped"] = "callback"
                if hasattr(schedule, "observe"):
                    schedule.observe(history[watch][-1] if watch.endswith("loss") else -history[watch][-1])
                begin, summed, seen = 0, 0.0, 0
                if not cut:  # else the state inside the epoch, from which more can follow, is written already
                    run.write(lambda: state_of(epoch + 1, 0, shuffling.offset), state.step)  # noqa: B023
                if interrupts.asked:  # while the epoch was judged: all of it counts, and is written
                    raise KeyboardInterrupt
                if history["stopped"] != "done":
                    break
        finally:
            module.eval()
            optimizer.lr = first_lr
            if bar is not None:
                bar.close()
    if restore_best:
        state.restore()
    elif first_loss is not None and state.loss > 1000.0 * max(abs(first_loss), 1.0):
        warnings.warn(
            f"loss: {state.loss:.3g} after {len(history['epoch'])} epochs, and {first_loss:.3g} at first: the training has "
            f"diverged; a smaller lr than {first_lr:g} may help",
            RuntimeWarning,
            stacklevel=2,
        )
    return history


def _checked(
    epochs=1, batch_size=1, steps=None, patience=None, min_delta=0.0, callbacks=(), on_step=(), schedule=None, augment=None
):
    """epochs, batch_size, callbacks and on_step as `fit` takes them, where all of these are right."""
    for name, value in (("steps", steps), ("patience", patience)):
        if value is not None:
            positive(name, value)
    number("min_delta", min_delta)
    schedule_or_none(schedule)
    if augment is not None and not hasattr(augment, "draws"):
        raise TypeError(f"augment: expected a fastdl.data.Augment; got {type(augment).__name__}")
    return (
        positive("epochs", epochs), positive("batch_size", batch_size), functions("callbacks", callbacks),
        functions("on_step", on_step),
    )  # fmt: skip


# Names of all options, and of those that `must_take` looks at.
_OPTIONS, CHECKED = (frozenset(inspect.signature(f).parameters) for f in (fit, _checked))


def must_take(options, own):
    """Options that `fit` does not know, or of values that it refuses, are refused for callers that hand on their users'. What
    they give `fit` themselves, `own` and the data, is no option of theirs."""
    unknown = options.keys() - (_OPTIONS - {"module", "x", "y", *own})
    if unknown:
        raise TypeError(f"fit() got an unexpected keyword argument {sorted(unknown)[0]!r}")
    _checked(**{name: value for name, value in options.items() if name in CHECKED})


def _judge(state, watch, min_delta, keep, waited):
    """Compare the epoch with the best so far; returns for how many epochs there was no improvement."""
    must_be_watchable(watch, [k for k in state.history if k == "loss" or k.startswith("val_")])
    value = state.history[watch][-1]
    value = value if watch.endswith("loss") else -value
    if value < state.best - min_delta:
        state.best, state.best_epoch = value, state.epoch
        if keep:
            state.keep()
        return 0
    return waited + 1


def _name_of(validation):
    """What a run that goes on compares."""
    if validation is None:
        return None
    return getattr(validation, "fingerprint", None) or called(validation) if callable(validation) else fingerprint(validation[0])


def _bar(progress, total, done):
    if not progress:
        return None
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress: expected the package tqdm to be installed; got none") from error
    return tqdm(total=total, initial=done, unit="step")


def _explain(module, xb, yb, value, epoch, step):
    """Say where the first number that is not finite stands."""

    def bad(a):
        return a.dtype.kind == "f" and not np.isfinite(a).all()

    head = f"loss: expected a finite number; got {value} at epoch {epoch}, step {step}"
    for name, p in module.named_parameters():
        if bad(backend.to_host(p.data)):
            untouched = np.isnan(backend.to_host(p.data)).all()
            return f"{head}. Parameter {name} is not finite" + (
                " (never initialised? Module.build and Module.initialise do that)" if untouched else
                " before this batch: the update before was too large (a smaller lr or clip= may help)"
            )  # fmt: skip
    if bad(backend.to_host(xb)):
        row = int(np.argmin(np.isfinite(backend.to_host(xb).reshape(len(xb), -1)).all(axis=1)))
        return f"{head}. The input is not finite (first in row {row} of the batch)"
    if bad(backend.to_host(yb)):
        return f"{head}. The targets are not finite"
    calls = module.run_traced(Tensor(xb) if xb.dtype == np.float32 else xb, evaluate=False)
    inner = [(name, m) for name, m, _, y in calls if y is not None and bad(backend.to_host(y))]
    if not inner:
        return (
            f"{head}. All parameters and layer outputs are finite: the loss itself overflows or has impossible targets"
        )
    # The rows of calls begin with the outermost: the first layer without a part that is bad as well is the culprit.
    parts = [
        name
        for name, m in inner
        if not any(other.startswith(f"{name}." if name else "") and other != name for other, _ in inner)
    ]
    name = parts[0]
    kind = next(type(m).__name__ for other, m in inner if other == name)
    return f"{head}. The first output that is not finite is that of {name or 'the module'} ({kind})"


class evaluating:
    """Evaluation mode inside, the modes of before after it."""

    def __init__(self, module):
        self._module = module

    def __enter__(self):
        self._trained = [m for _, m in self._module.named_modules() if m.training]
        for m in self._trained:
            m.training = False

    def __exit__(self, *_):
        for m in self._trained:
            m.training = True


def predict(module, x, batch_size=256):
    """Outputs of a module in evaluation mode.

    Parameters
    ----------
    module : Module
        Built and initialised.
    x : array [L,...]
        As in `fit`.
    batch_size : int
        Samples at a time; it decides about memory and speed alone.

    Returns
    -------
    array [L,...]
        On the module's device. A row does not depend on the batch it was in.

    Notes
    -----
    Small batches of a shape that comes again and again are predicted for without Python, as steps are replayed (`Step`), where
    the module is in evaluation mode already.
    """
    must_be_module(module)
    batch_size = positive("batch_size", batch_size)
    replayed = predicted(module, x, batch_size)
    if replayed is not None:
        return replayed
    rows = Rows(x, "x", module.any_array())

    def outputs(xb):
        return module(Tensor(xb) if xb.dtype == np.float32 else xb).data

    with evaluating(module), inference():
        if len(x) <= batch_size:  # also of no rows: it gives the output's shape
            with backend.pooled():
                y = outputs(rows.all())
            return y.copy()
        result = None
        for start in range(0, len(x), batch_size):
            index = np.arange(start, min(start + batch_size, len(x)))
            with backend.pooled():
                y = outputs(rows.take(index))
                if result is None:
                    result = backend.empty((len(x), *y.shape[1:]), y)
                result[start : start + len(index)] = y
    return result


def evaluate(module, x, y, *, loss, metrics=None, batch_size=256):
    """Mean loss and metrics of a module in evaluation mode.

    Parameters
    ----------
    module, x, y, loss, metrics : as in `fit`
    batch_size : int
        Samples at a time.

    Returns
    -------
    dict
        'loss' and one entry for each metric.
    """
    must_be_module(module)
    judge = loss_of(loss)
    must_be_metrics(metrics)
    must_be_array("x", x), must_be_array("y", y)
    if len(x) == 0:
        raise ValueError("x: expected one sample or more; got none")
    with evaluating(module), inference():
        outputs = predict(module, x, batch_size)
        result = {"loss": judge(Tensor(outputs), backend.to_device(y, outputs)).item()}
    return result | {name: number_of(f"metrics[{name!r}]", f(outputs, y)) for name, f in (metrics or {}).items()}


def accuracy(outputs, labels):
    """Share of labels [n...] at whose place the largest of the outputs [n...,C] is; labels of -1 do not count, as in the loss."""
    must_be_array("outputs", outputs), must_be_array("labels", labels)
    codes = backend.to_host(labels)
    if codes.shape != outputs.shape[:-1] or outputs.ndim < 2:
        raise ValueError(f"labels: expected shape [n...] for outputs [n...,C], {list(outputs.shape)}; got {list(codes.shape)}")
    right = argmax(outputs) == codes
    return float(right[codes >= 0].mean()) if (codes >= 0).any() else math.nan


def r2(outputs, targets):
    """Coefficient of determination, mean over the columns: 1 - squared error / squared deviation from the mean."""
    must_be_array("outputs", outputs), must_be_array("targets", targets)
    y, t = backend.to_host(outputs).astype(np.float64), backend.to_host(targets).astype(np.float64)
    if y.shape != t.shape:
        raise ValueError(f"targets: expected shape {list(y.shape)}, as outputs; got {list(t.shape)}")
    error, spread = ((y - t) ** 2).sum(0), ((t - t.mean(0)) ** 2).sum(0)
    # of a target that never changes: right or wrong
    return float(np.mean(np.where(spread > 0, 1.0 - error / np.where(spread > 0, spread, 1.0), error == 0)))


def argmax(outputs):
    """Place of the largest of the outputs [n...,C], int64 [n...]."""
    *shape, c = outputs.shape
    return backend.to_host(backend.kernels(outputs).argmax(outputs.reshape(math.prod(shape), c, 1))).reshape(shape)
