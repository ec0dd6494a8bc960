"""Initial values: variance as the sources say, orthogonality, reproducibility."""

import math

import numpy as np
import pytest

from fastdl import init, nn
from fastdl.random import Stream

SHAPE, FILTERS = (300, 200), (3, 3, 40, 80)


def fans(shape):
    return math.prod(shape[:-1]), math.prod(shape[:-2]) * shape[-1]


@pytest.mark.parametrize("shape", [SHAPE, FILTERS])
@pytest.mark.parametrize(
    ("name", "variance"),
    [
        ("glorot_uniform", lambda i, o: 2 / (i + o)),
        ("glorot_normal", lambda i, o: 2 / (i + o)),
        ("he_uniform", lambda i, o: 2 / i),
        ("he_normal", lambda i, o: 2 / i),
        ("lecun_uniform", lambda i, o: 1 / i),
        ("lecun_normal", lambda i, o: 1 / i),
    ],
)
def test_variance(name, variance, shape):
    w = init.get(name)(shape, Stream(3)).astype(np.float64)
    expected = variance(*fans(shape))
    n = w.size
    # The estimate of a variance from n values is off by sqrt(2/n) (normal; less for uniform): six of those.
    assert abs(w.var() / expected - 1) < 6 * math.sqrt(2 / n)
    assert abs(w.mean()) < 6 * math.sqrt(expected / n)
    if "uniform" in name:
        assert np.abs(w).max() <= math.sqrt(3 * expected) * (1 + 1e-6)
        assert np.abs(w).max() > math.sqrt(3 * expected) * 0.999


@pytest.mark.parametrize("shape", [(7, 7), (5, 9), (9, 5), (3, 3, 4, 8), (1, 6), (6, 1), (4,)])
def test_orthogonal(shape):
    w = init.orthogonal(shape, Stream(1), gain=2.0).reshape(-1, shape[-1]).astype(np.float64)
    small = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(small, 4.0 * np.eye(len(small)), atol=2e-6)


def test_orthogonal_signs_are_fixed():
    # Without the fix the diagonal of q, averaged over draws, has a definite sign.
    diagonals = [np.diagonal(init.orthogonal((4, 4), Stream(seed))) for seed in range(300)]
    assert np.abs(np.mean(diagonals, axis=0)).max() < 6 * 0.5 / math.sqrt(300)


def test_a_stream_gives_each_parameter_numbers_of_its_own():
    stream = Stream(0)
    a, b = init.he_normal((8, 8), stream), init.he_normal((8, 8), stream)
    assert not np.array_equal(a, b)
    np.testing.assert_array_equal(a, init.he_normal((8, 8), Stream(0)))


def test_transposed_convolution_counts_its_inputs_on_the_last_axis():
    layer = nn.ConvTranspose2d(4, 3, channels=256, init="he_normal").initialise(0)
    assert layer.w.shape == (3, 3, 4, 256)
    assert abs(layer.w.data.var() / (2 / (9 * 256)) - 1) < 0.1


def test_defaults_follow_the_activation():
    assert init.get(None, "relu") is init.he_normal
    assert init.get(None, "tanh") is init.glorot_uniform
    for half in (0.5, np.float32(0.5)):
        np.testing.assert_array_equal(init.get(half)((2,), None), [0.5, 0.5])
    for wrong in ("hee", ["he_normal"]):
        with pytest.raises(ValueError, match=r"init: expected one of .*; got"):
            init.get(wrong)
    with pytest.raises(ValueError, match="shape: expected two axes"):
        init.glorot_uniform((3,), Stream(0))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda s: init.he_normal((3, 4), 0), TypeError, "stream: expected a fastdl.random.Stream; got int"),
        (lambda s: init.glorot_uniform("ab", s), TypeError, "shape: expected an integer; got str"),
        (lambda s: init.lecun_normal((3, -4), s), ValueError, r"shape: expected sizes from 0 on; got \(3, -4\)"),
        (lambda s: init.glorot_normal((3, 4), s, gain="1"), TypeError, "gain: expected a finite number; got '1'"),
        (lambda s: init.orthogonal((3, 4), s, gain=np.nan), ValueError, "gain: expected a finite number; got nan"),
        (lambda s: init.he_uniform((3, 4), s, slope=None), TypeError, "slope: expected a finite number; got None"),
        (lambda s: init.normal((3, 4), s, std=[1]), TypeError, r"std: expected a finite number; got \[1\]"),
        (lambda s: init.uniform((3, 4), s, limit=np.inf), ValueError, "limit: expected a finite number; got inf"),
        (lambda s: init.constant("1"), TypeError, "value: expected a finite number; got '1'"),
    ],
)
def test_wrong_arguments_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call(Stream(0))
