"""What ends a training early: Ctrl-C, and wrong arguments, which must cost nothing."""

import contextlib
import contextvars
import functools
import signal
import threading


class _Interrupts:
    """Turns the first Ctrl-C into a flag that the loop reads between updates; a second one interrupts at once."""

    def __enter__(self):
        self.asked = False
        self._before = None
        here = threading.current_thread() is threading.main_thread()
        if here and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


_INTERRUPTS_RAISED = contextvars.ContextVar("interrupts_raised", default=False)


@contextlib.contextmanager
def interrupts_raised():
    """Within this, training that Ctrl-C ended raises KeyboardInterrupt, for callers that have more to do than train."""
    token = _INTERRUPTS_RAISED.set(True)
    try:
        yield
    finally:
        _INTERRUPTS_RAISED.reset(token)


# What objects were like when the methods began that run now; emptied where training begins, which frees the old networks.
_BEFORE = contextvars.ContextVar("before_training", default=())


def unless_begun(fit):
    """A method that leaves its object as it was where it fails before any training has begun: a misspelt argument shall not
    cost what was learned before, nor leave a network that was never trained and predicts all the same."""

    @functools.wraps(fit)
    def method(self, *args, **options):
        before = [self.__dict__.copy()]
        token = _BEFORE.set((*_BEFORE.get(), before))
        try:
            return fit(self, *args, **options)
        except BaseException:
            if before:
                self.__dict__.update(before[0])  # first: other threads may be predicting
                for name in self.__dict__.keys() - before[0].keys():
                    del self.__dict__[name]
            raise
        finally:
            _BEFORE.reset(token)

    return method


@contextlib.contextmanager
def beforehand():
    """What is trained within this only prepares for what the method around it is to train: where that fails before it has
    begun, the object is put back all the same."""
    token = _BEFORE.set(())
    try:
        yield
    finally:
        _BEFORE.reset(token)


@contextlib.contextmanager
def interruptible(history):
    """What every training loop runs in: gives an object whose `asked` says that Ctrl-C came; the loop then finishes the
    update, notes the epoch and raises KeyboardInterrupt, which ends here with history['stopped'] = 'interrupted'. After any other
    error it says 'failed'."""
    for before in _BEFORE.get():
        before.clear()
    with _Interrupts() as interrupts:
        try:
            yield interrupts
        except KeyboardInterrupt:
            history["stopped"] = "interrupted"
        except BaseException:
            history["stopped"] = "failed"
            raise
    if history["stopped"] == "interrupted" and _INTERRUPTS_RAISED.get():
        raise KeyboardInterrupt
