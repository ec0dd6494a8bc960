"""What a row of the kernel table is; `cases.py` and `cases_<family>.py` hold the rows."""

from collections.abc import Callable
from dataclasses import dataclass

import reference


@dataclass
class Case:
    """A kernel under test."""

    kernel: str
    make: Callable  # (rng, **sizes) -> dict of inputs and attributes
    sizes: list[dict]
    reference: Callable | None = None  # reference.<kernel> if not said
    gradient_of: Callable | None = (
        None  # inputs -> (f, {gradient output: input}); f(**inputs) float64 array that dy belongs to
    )
    rowwise: tuple[str, ...] = ()  # inputs whose first axis is the batch: a row's result may not depend on the others
    nan: str | None = "first"  # input that gets a NaN: it must show in an output; None: not asked
    exact: bool = False  # bits must agree with the float32 reference (integers, copies, random words)

    def define(self, **inputs):
        result = (self.reference or getattr(reference, self.kernel))(**inputs)
        return result if isinstance(result, dict) else {None: result}

    def __str__(self):
        return self.kernel


def normal(rng, *shape):
    return rng.standard_normal(shape)
