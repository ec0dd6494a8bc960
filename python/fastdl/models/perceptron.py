"""The perceptron: the first learning rule, for two classes or more."""

import time
from numbers import Real

import numpy as np

from .. import backend, nn, random, train
from .._arguments import functions, positive
from .._interrupts import interruptible, unless_begun
from ..checkpoint import Run, fingerprint, parts_state, set_parts_state
from ..random import Stream
from ..rows import Rows
from ._supervised import Classifier


class Perceptron(Classifier):
    """Linear units that learn from mistakes only.

    For each sample x of class y whose largest output x w + b is at another class c:

        w[:, y] += lr x,  b[y] += lr        w[:, c] -= lr x,  b[c] -= lr

    If a linear rule separates the classes, a finite number of mistakes finds one (Novikoff 1962); otherwise the
    weights go on moving, and the average over all updates is the better classifier.

    Parameters
    ----------
    average : bool
        Use the average of the weights after every sample (Freund & Schapire 1999).
    seed : int
        Decides the order of samples.

    References
    ----------
    Rosenblatt, "The perceptron" (1958); several classes: Duda & Hart (1973); averaging: Freund & Schapire, "Large
    margin classification using the perceptron algorithm" (1999).

    Examples
    --------
    >>> import numpy as np
    >>> from fastdl.models import Perceptron
    >>> X, y = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]), np.array([0, 0, 0, 1])
    >>> Perceptron().fit(X, y, epochs=20).predict(X).tolist()
    [0, 0, 0, 1]
    """

    def __init__(self, average=False, seed=0):
        self.average, self.seed = average, seed

    def _make(self, input_shape, outputs):
        return nn.Sequential(nn.Dense(outputs, init="zeros"))

    @unless_begun
    def fit(
        self,
        X,
        y,
        *,
        epochs=10,
        lr=1.0,
        validation=None,
        warm_start=False,
        callbacks=(),
        checkpoint=None,
        resume=None,
    ):
        """Learn from samples one by one, in a new random order each epoch; stops when an epoch has no mistake.

        Parameters
        ----------
        X : array [N,...]
            Any real dtype; uint8 images are read as values in [0,1].
        y : array [N]
            Integer or string labels.
        epochs : int
        lr : float
            Scales the weights; from zero weights it does not change a prediction.
        validation : (X, y) or float, optional
        warm_start : bool
            Go on from the weights of now.
        callbacks : sequence of callables
            ``f(state)`` after every epoch; see `fastdl.train.State` (its `optimizer` is None here).
        checkpoint, resume : path, optional
            As in `fastdl.train.fit`. Updates are samples here, and what `Checkpoint` wants inside an epoch is written once in
            256 of them at most.

        Returns
        -------
        The model itself. `history_` has, for each epoch, `errors` (share of samples that were mistaken when they came
        by), `seconds` and, with validation, `val_accuracy`.

        Raises
        ------
        FloatingPointError
            The weights became infinite.
        """
        epochs = positive("epochs", epochs)
        callbacks = functions("callbacks", callbacks)
        if not isinstance(lr, Real) or not 0.0 < lr < np.inf:
            raise (ValueError if isinstance(lr, Real) else TypeError)(f"lr: expected a number above 0; got {lr!r}")
        x, codes, validation = self._prepare(X, y, validation, warm_start)
        layer = self.module_[0]
        # Classes first, so that an update runs along rows; the bias is one more weight of an input that is always 1.
        w = np.ascontiguousarray(np.concatenate([backend.to_host(a) for a in (layer.w.data, layer.b.data[None])]).T)
        total = np.zeros(w.shape, np.float64)
        k, scores, place = backend.kernels(w), np.empty((1, len(w)), np.float32), np.empty((1, 1), np.int64)
        shuffling, rows = Stream(self.seed).split("shuffle"), Rows(x, "X", w)
        self.history_ = history = {"epoch": [], "errors": [], "seconds": [], "stopped": "done"}
        n, count = len(x), 0
        state = train.State(self.module_, None, history, epochs, epochs * n)
        run = Run(
            self._checkpoint(checkpoint, resume),
            resume,
            {"X": fingerprint(x), "y": fingerprint(codes), "lr": lr, "average": self.average, "seed": self.seed},
        )
        first, begin, errors = 1, 0, 0
        if run.state is not None:
            then = run.state
            first, count, shuffling.offset = then["epoch"], then["count"], then["shuffle_offset"]
            begin, errors = then.get("begin", 0), then.get("errors", 0)  # files of older versions have none
            w[...], total[...] = then["w"], then["total"]
            self.module_.set_weights(then["module"]["weights"])
            state.set_state(then["state"])
            set_parts_state(callbacks, then.get("parts", {}))
            if history["epoch"] and history["errors"][-1] == 0:
                history["stopped"], first = "no mistakes", epochs + 1
        def learn(batch, labels, before):
            """Correct the mistakes among the rows of a batch, which come after so many samples; how many there were."""
            errors = 0
            for i, label in enumerate(labels):
                k.matmul(batch[i : i + 1], w, False, True, 0.0, scores)
                guess = k.argmax(scores[..., None], place).item()
                if guess != label:
                    errors += 1
                    one = batch[i]
                    k.axpby(lr, one, 1.0, w[label])
                    k.axpby(-lr, one, 1.0, w[guess])
                    if self.average:
                        # A change made after so many samples is missing from that many of the summed weights.
                        late = (before + i) * lr * one.astype(np.float64)
                        total[label] += late
                        total[guess] -= late
            return errors

        def settle():
            """The weights of now into the network."""
            with np.errstate(over="ignore", invalid="ignore"):
                final = (w - total / count).astype(np.float32) if self.average else w
            if not np.isfinite(final).all():
                raise FloatingPointError(
                    f"weights: expected finite numbers; got infinite ones in epoch {state.epoch + 1}: a smaller lr than {lr:g} "
                    "may help, or a smaller X"
                )
            backend.assign(layer.w.data, final.T[:-1])
            backend.assign(layer.b.data, final.T[-1])

        def state_of(epoch, begin, shuffle_offset):
            """All that later samples depend on, at row `begin` of an epoch whose order is drawn at that offset."""
            return {
                "epoch": epoch,
                "begin": begin,
                "errors": errors if begin else 0,
                "count": count,
                "shuffle_offset": shuffle_offset,
                "w": w,
                "total": total,
                "state": state.get_state(),
                "module": {"weights": self.module_.get_weights()},
                "parts": parts_state(callbacks),
            }

        with interruptible(history) as interrupts:
            for epoch in range(first, epochs + 1):
                begun, drawn_at, done = time.perf_counter(), shuffling.offset, begin
                order = random.permutation(n, *shuffling.take(2 * n))
                for start in range(begin, n, 256):
                    index = order[start : start + 256]
                    batch = np.ones((len(index), w.shape[1]), np.float32)
                    batch[:, :-1] = rows.take(index)
                    if not np.isfinite(batch).all():
                        raise ValueError("X: expected finite numbers; got NaN or infinity")
                    errors += learn(batch, codes[index].tolist(), count)
                    count, done = count + len(index), start + len(index)
                    if interrupts.asked or (run.due(count) and done < n):
                        settle()
                        run.write(lambda: state_of(epoch, done, drawn_at), count)  # noqa: B023
                    if interrupts.asked:
                        break
                settle()
                history["epoch"].append(epoch)
                history["errors"].append(errors / done)
                if validation is not None:
                    accuracy = train.accuracy(train.predict(self.module_, validation[0]), validation[1])
                    history.setdefault("val_accuracy", []).append(accuracy)
                history["seconds"].append(time.perf_counter() - begun)
                if interrupts.asked:
                    raise KeyboardInterrupt
                state.epoch, state.step, state.loss = epoch, count, errors / n
                for f in callbacks:
                    f(state)
                run.write(lambda: state_of(epoch + 1, 0, shuffling.offset), count)  # noqa: B023
                if errors == 0:
                    history["stopped"] = "no mistakes"
                    break
                begin = errors = 0
                if state.stop:
                    history["stopped"] = "callback"
                    break
        return self

    def predict_proba(self, X):
        """Not defined: a perceptron has outputs, no probabilities.

        Raises
        ------
        AttributeError
            Always.
        """
        raise AttributeError("predict_proba: a perceptron gives no probabilities; decision_function gives its outputs")
