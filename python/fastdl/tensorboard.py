"""Curves for TensorBoard; it needs the extra ``tensorboard``::

    with TensorBoard("runs/first") as board:
        model.fit(X, y, callbacks=[board], on_step=[board.step])

and then, in a shell, ``tensorboard --logdir runs``.
"""

import math
import os
import time

import numpy as np

from . import backend

__all__ = ["TensorBoard"]


class TensorBoard:
    """A callback that writes what training records as TensorBoard's event files.

    Parameters
    ----------
    folder : path
        One for each run; made where it is not there.
    every : int
        `step` writes the loss of every so many updates.
    histograms : bool
        Also the distribution of every parameter, after every epoch.

    Notes
    -----
    Called after an epoch it writes all that the history holds: ``epoch/loss``, ``epoch/val_loss``, ``epoch/lr``, ... at the
    number of the epoch. `step` writes ``step/loss`` and ``step/lr`` at the number of the update.

    Raises
    ------
    ImportError
        The package tensorboard is not installed.
    """

    def __init__(self, folder, every=10, histograms=False):
        if isinstance(every, bool) or not hasattr(every, "__index__") or every < 1:
            raise ValueError(f"every: expected a number of updates of at least 1; got {every!r}")
        try:
            folder = os.fspath(folder)
        except TypeError:
            raise TypeError(f"folder: expected a path; got {type(folder).__name__}") from None
        if os.path.exists(folder) and not os.path.isdir(folder):
            raise ValueError(f"folder: expected a folder; got the file {folder!r}")
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError as error:
            raise ImportError(
                "tensorboard: expected the package tensorboard to be installed (pip install 'fastdl-nn[tensorboard]'); got none"
            ) from error
        self.folder, self.every, self.histograms = folder, int(every), bool(histograms)
        self._event, self._summary, self._writer = event_pb2.Event, summary_pb2, EventFileWriter(folder)

    def __call__(self, state):
        epoch = state.history["epoch"][-1]
        values = [
            self._scalar(f"epoch/{name}", series[-1])
            for name, series in state.history.items()
            if name != "epoch" and isinstance(series, list) and series and math.isfinite(series[-1])
        ]
        if self.histograms:
            values += [self._histogram(name, p) for name, p in state.module.named_parameters()]
        self._write(values, epoch)

    def step(self, state):
        """To be called after every update, as ``on_step=[board.step]``."""
        if state.step % self.every == 0 or state.step == 1:
            values = [self._scalar("step/loss", state.loss)]
            if state.optimizer is not None:
                values.append(self._scalar("step/lr", state.optimizer.lr))
            self._write(values, state.step)

    def scalar(self, name, value, at):
        """A number of your own."""
        self._write([self._scalar(name, value)], at)

    def close(self):
        """Write what is still waiting."""
        self._writer.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _scalar(self, name, value):
        return self._summary.Summary.Value(tag=name, simple_value=float(value))

    def _histogram(self, name, parameter):
        a = backend.to_host(parameter.data).reshape(-1).astype(np.float64)
        counts, edges = np.histogram(a, bins=40)
        made = self._summary.HistogramProto(
            min=a.min(), max=a.max(), num=len(a), sum=a.sum(), sum_squares=np.square(a).sum(),
            bucket_limit=edges[1:].tolist(), bucket=counts.tolist(),
        )  # fmt: skip
        return self._summary.Summary.Value(tag=f"weights/{name}", histo=made)

    def _write(self, values, at):
        event = self._event(wall_time=time.time(), step=int(at), summary=self._summary.Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()
