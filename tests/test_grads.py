"""Each backward kernel against central differences of the float64 definition of its forward kernel."""

import numpy as np
import pytest

from cases import CASES, ROWS, row_id
from test_kernels import buffers, named, prepare, run

with_gradient = [row for row in ROWS if row[0].gradient_of]


@pytest.mark.parametrize("row", with_gradient, ids=row_id)
def test_kernel_against_differences(target, row, rng):
    case, sizes = row
    inputs, expected, _ = prepare(case, sizes, rng)
    got = run(target, case, inputs, buffers(case, target, inputs, expected, np.zeros))
    wide = {
        k: v.astype(np.float64) if isinstance(v, np.ndarray) and v.dtype == np.float32 else v for k, v in inputs.items()
    }
    f, pairs = case.gradient_of(wide)
    dy = wide.pop("dy") if "dy" in wide else 1.0
    for gradient, name in pairs.items():
        if not wide[name].size:
            continue
        direction = rng.standard_normal(wide[name].shape)
        step = 1e-6

        def along(t, name=name, direction=direction):
            return np.sum(dy * f(**{**wide, name: wide[name] + t * direction}))

        numeric = (along(step) - along(-step)) / (2 * step)
        analytic = np.sum(got[gradient].astype(np.float64) * direction)
        scale = np.sqrt(np.sum(got[gradient].astype(np.float64) ** 2) * np.sum(direction**2)) + 1e-3
        assert abs(numeric - analytic) <= 2e-5 * scale, f"{gradient}: differences {numeric}, kernel {analytic}"


def test_every_backward_kernel_is_checked():
    import cases

    backward = {c.kernel for c in CASES if c.kernel.endswith(("_backward", "_backward_data", "_backward_weight"))}
    missing = sorted(name for name in backward if not cases.BY_NAME[name].gradient_of)
    assert not missing


def test_named_is_total(target):
    for case in CASES:
        assert named(case, target, {None: 1})
