"""Augmentation: the kernels against their definition, and what each parameter does to an image."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference_augment as reference
from fastdl import Tensor, kernels
from fastdl.data import Augment
from fastdl.random import uniform

IDENTITY = np.float32([1, 0, 0, 0, 1, 0])


def close(got, exact, rough, scale):
    """The kernel's error is at most 4 times that of the same formula in float32 NumPy."""
    allowed = 4 * np.abs(rough - exact).max(initial=0) + 1e-6 * scale
    assert np.abs(got - exact).max(initial=0) <= allowed


# ---------------------------------------------------------------------------------------------------- kernels


@settings(max_examples=80, deadline=None)
@given(
    n=st.sampled_from([0, 1, 2, 5]),
    source=st.tuples(st.integers(1, 13), st.integers(1, 17)),
    size=st.tuples(st.sampled_from([1, 7, 8, 28]), st.sampled_from([1, 7, 8, 9, 15, 16, 17, 28, 33])),
    channels=st.integers(1, 4),
    with_field=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_warp(n, source, size, channels, with_field, seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, *source, channels)).astype(np.float32)
    pixels = random.integers(0, 256, (n, *source, channels), np.uint8)
    # Maps that turn, stretch and move by about as much as an image is large: inside, across the edge and far outside.
    spread = [1, 1, source[0], 1, 1, source[1]]
    matrix = (random.normal(size=(n, 6)) * spread + IDENTITY).astype(np.float32)
    field = random.normal(size=(n, *size, 2)).astype(np.float32) * 2 if with_field else None
    fill = float(np.float32(random.normal()))
    out = np.full((n, *size, channels), np.nan, np.float32)

    assert kernels.warp(x, matrix, field, fill=fill, out=out) is out
    exact = reference.warp(x, matrix, field, size, fill)
    rough = reference.warp(x, matrix, field, size, fill, np.float32)
    close(out, exact, rough, np.abs(x).max(initial=1))
    # No fma in it, so the order of operations alone decides the bits.
    np.testing.assert_array_equal(out, rough)

    bytes_out = np.full_like(out, np.nan)
    kernels.warp_u8(pixels, matrix, field, fill=fill, scale=1 / 255, out=bytes_out)
    np.testing.assert_array_equal(bytes_out, reference.warp_u8(pixels, matrix, field, size, fill, 1 / 255, np.float32))

    if n:
        alone = np.empty((1, *size, channels), np.float32)
        kernels.warp(x[-1:], matrix[-1:], None if field is None else field[-1:], fill=fill, out=alone)
        np.testing.assert_array_equal(alone[0], out[-1])


def test_warp_identity_is_exact_even_beside_nan():
    x = np.random.default_rng(0).normal(size=(2, 5, 9, 3)).astype(np.float32)
    x[0, 2, 4, 0], x[1, 4, 8, 2] = np.nan, np.inf
    out = np.empty_like(x)
    kernels.warp(x, np.tile(IDENTITY, (2, 1)), fill=np.nan, out=out)
    np.testing.assert_array_equal(out, x)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e9, -3e9, 1e38])
def test_warp_at_coordinates_that_no_integer_holds(value):
    x = np.ones((2, 4, 9, 1), np.float32)
    matrix = np.tile(IDENTITY, (2, 1))
    matrix[0, 2] = value
    field = np.zeros((2, 4, 9, 2), np.float32)
    field[1, 3, 8, 1] = value
    out = np.empty_like(x)
    kernels.warp(x, matrix, field, fill=7.0, out=out)
    outside = np.nan if np.isnan(value) else 7.0
    np.testing.assert_array_equal(out[0], np.full((4, 9, 1), outside))
    expected = np.ones((4, 9, 1))
    expected[3, 8] = outside
    np.testing.assert_array_equal(out[1], expected)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.sampled_from([0, 1, 3]), st.integers(1, 20), st.integers(1, 20), st.integers(1, 3)),
    sigma=st.sampled_from([0.01, 0.2, 0.5, 1.0, 2.3, 4.0, 20.0, 85.0]),
    seed=st.integers(0, 1000),
)
def test_blur(shape, sigma, seed):
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    exact = reference.blur(x, np.float64(np.float32(sigma)))
    got = kernels.blur(x, sigma)
    close(got, exact, reference.blur(x, np.float64(np.float32(sigma)), np.float32), 1.0)
    if sigma == 0.01:  # the neighbours' weights vanish
        np.testing.assert_array_equal(got, x)
    if shape[0] == 3:
        np.testing.assert_array_equal(kernels.blur(x[2:], sigma)[0], got[2])


def test_blur_keeps_the_mean_and_passes_nan():
    x = np.random.default_rng(0).normal(size=(1, 9, 11, 2)).astype(np.float32)
    np.testing.assert_allclose(kernels.blur(x, 3.0).mean((1, 2)), x.mean((1, 2)), atol=1e-6)
    x[0, 0, 0, 1] = np.nan
    blurred = kernels.blur(x, 0.3)
    assert np.isnan(blurred[0, :2, :2, 1]).all()
    assert not np.isnan(blurred[..., 0]).any()


# ---------------------------------------------------------------------------------------------------- parameters


def photo(n=40, height=11, width=13, channels=2):
    return np.random.default_rng(0).integers(1, 256, (n, height, width, channels), np.uint8)


def rows(augment, draws, height=11, width=13):
    """The map of one image from its nine draws, 0.5 where not given."""
    values = np.full((1, 9), 0.5)
    for at, value in draws.items():
        values[0, at] = value
    return augment.matrices(values, height, width)[0].reshape(2, 3)


def test_nothing_asked_for_changes_nothing():
    x = photo()
    np.testing.assert_array_equal(Augment()(x, seed=1), x * np.float32(1 / 255))
    floats = x.astype(np.float32)
    np.testing.assert_array_equal(Augment()(floats, seed=1), floats)


def test_the_middle_of_every_draw_is_the_identity():
    augment = Augment(shift=3, rotate=20, scale=0.2, shear=10)
    np.testing.assert_allclose(rows(augment, {6: 0.7}), IDENTITY.reshape(2, 3), atol=1e-6)


def test_same_seed_and_offset_same_images():
    x = photo()
    augment = Augment(shift=2, rotate=15, scale=0.1, shear=5, elastic=(8, 3), flip=True, crop=(9, 8))
    one = augment(x, seed=3, offset=8)
    out = np.empty_like(one)
    assert augment(x, 3, 8, out=out) is out
    np.testing.assert_array_equal(one, out)
    assert one.shape == (40, 9, 8, 2)
    for other in (augment(x, 4, 8), augment(x, 3, 12)):
        assert np.abs(one - other).mean() > 0.05


def test_draws_of_consecutive_batches_do_not_overlap():
    augment = Augment(shift=2, elastic=(8, 3))
    assert augment.draws(4, 11, 13) == 4 * 9 + 4 * 11 * 13 * 2
    assert Augment(crop=5).draws(4, 11, 13) == 36


def test_shift_moves_by_so_many_pixels():
    turned = rows(Augment(shift=(2, 3)), {0: 1.0, 1: 0.0})
    np.testing.assert_allclose(turned, [[1, 0, -2], [0, 1, 3]])
    fractional = Augment(shift=2).matrices(np.random.default_rng(0).random((4000, 9)), 11, 13)[:, [2, 5]]
    assert np.abs(fractional).max() <= 2
    assert np.abs(fractional.mean(0)).max() < 0.1
    np.testing.assert_allclose(fractional.std(0), 2 / math.sqrt(3), rtol=0.05)


def test_whole_pixel_shifts_copy_pixels_and_are_equally_likely():
    augment = Augment(shift=2, whole_pixels=True)
    moves = augment.matrices(np.random.default_rng(0).random((5000, 9)), 11, 13)[:, 2]
    values, counts = np.unique(moves, return_counts=True)
    np.testing.assert_array_equal(values, [-2, -1, 0, 1, 2])
    assert counts.min() > 880  # 1000 each, and four standard deviations
    x = photo()
    moved = augment(x, seed=0, pixel_scale=1.0)
    assert set(np.unique(moved)) <= {0.0, *np.unique(x).astype(float)}
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for before, after in zip(padded, moved, strict=True):
        assert any(np.array_equal(before[i : i + 11, j : j + 13], after) for i in range(5) for j in range(5))
    # The draw 1 (which float32 rounding could bring) stays within the limit.
    assert rows(augment, {0: 1.0})[0, 2] == -2


def test_rotation_turns_about_the_centre():
    turned = rows(Augment(rotate=90), {2: 1.0}, 9, 9)
    out = np.empty((1, 9, 9, 1), np.float32)
    x = np.random.default_rng(0).normal(size=(1, 9, 9, 1)).astype(np.float32)
    kernels.warp(x, turned.reshape(1, 6), fill=0.0, out=out)
    quarter_turns = [np.abs(out[0] - np.rot90(x[0], k)).max() < 1e-4 for k in (1, 3)]
    assert sum(quarter_turns) == 1
    angles = Augment(rotate=30).matrices(np.random.default_rng(0).random((2000, 9)), 9, 9)
    degrees = np.degrees(np.arctan2(angles[:, 1], angles[:, 0]))
    assert 29 < degrees.max() <= 30.001
    assert -29 > degrees.min() >= -30.001


def test_scale_and_its_proportions():
    larger = rows(Augment(scale=1.0), {3: 1.0, 4: 0.0}, 9, 9)
    np.testing.assert_allclose(larger, [[0.5, 0, 2], [0, 0.5, 2]], atol=1e-6)
    stretched = rows(Augment(scale=(1.0, 3.0)), {3: 1.0, 4: 0.0}, 9, 9)
    np.testing.assert_allclose(stretched, [[0.5, 0, 2], [0, 4, -12]], atol=1e-5)


def test_shear_slides_rows():
    slid = rows(Augment(shear=45), {5: 1.0}, 9, 9)
    np.testing.assert_allclose(slid, [[1, 0, 0], [1, 1, -4]], atol=1e-6)


@pytest.mark.parametrize("flip", ["both", "horizontal", "vertical"])
def test_all_together_are_the_product_of_each_in_the_stated_order(flip):
    augment = Augment(shift=(2, 1), rotate=40, scale=(0.5, 0.2), shear=20, flip=flip, crop=(7, 6))
    draws = np.random.default_rng(0).random((50, 9))

    def move(y, x):
        return np.array([[1, 0, y], [0, 1, x], [0, 0, 1]])

    for d, got in zip(draws, augment.matrices(draws, 11, 13), strict=True):
        u = 2 * d - 1
        angle, slide = math.radians(40) * u[2], math.tan(math.radians(20) * u[5])
        cos, sin, mirror = math.cos(angle), math.sin(angle), -1 if d[6] < 0.5 else 1
        expected = (
            move(int(d[7] * 5) + 3, int(d[8] * 8) + 2.5)
            @ np.diag([mirror if flip != "horizontal" else 1, mirror if flip != "vertical" else 1, 1])
            @ np.array([[1, 0, 0], [slide, 1, 0], [0, 0, 1]])
            @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]])
            @ np.diag([1.5 ** -u[3], 1.2 ** -u[4], 1])
            @ move(-3 - 2 * u[0], -2.5 - u[1])
        )
        np.testing.assert_allclose(got.reshape(2, 3), expected[:2], atol=1e-5)


@pytest.mark.parametrize(
    ("flip", "axes"),
    [(True, (2,)), ("horizontal", (2,)), ("vertical", (1,)), ("both", (1, 2)), (None, ()), (False, ())],
)
def test_flip_mirrors_about_half_of_the_images(flip, axes):
    x = photo(200)
    flipped = Augment(flip=flip)(x, seed=2, pixel_scale=1.0)
    mirrored = np.flip(x, axes)
    same = (flipped == x).all((1, 2, 3))
    other = (flipped == mirrored).all((1, 2, 3))
    assert (same | other).all()
    if axes:
        assert 70 < other.sum() < 130


def test_crop_is_a_window_of_the_image():
    x = photo(300, 6, 5)
    cropped = Augment(crop=(4, 3))(x, seed=2, pixel_scale=1.0)
    found = np.zeros((3, 3), int)
    for before, after in zip(x, cropped, strict=True):
        places = [(i, j) for i in range(3) for j in range(3) if np.array_equal(before[i : i + 4, j : j + 3], after)]
        assert len(places) == 1
        found[places[0]] += 1
    assert found.min() > 12  # 33 each
    mirrored = Augment(crop=(4, 3), flip=True)(x, seed=2, pixel_scale=1.0)
    assert all(
        any(
            np.array_equal(w, after) or np.array_equal(w[:, ::-1], after)
            for i in range(3)
            for j in range(3)
            for w in [before[i : i + 4, j : j + 3]]
        )
        for before, after in zip(x, mirrored, strict=True)
    )


def test_elastic_is_smoothed_noise_of_the_stated_size():
    x = np.zeros((64, 28, 28, 1), np.float32)
    x[...] = np.arange(28)[None, None, :, None]  # each pixel tells its column, so the result tells the displacement
    got = Augment(elastic=(34, 4), fill=np.nan)(x, seed=5)
    moved = (got - x)[:, 8:20, 8:20]
    # Blurring white noise of variance alpha^2 / 3 by a Gaussian leaves 1 / (4 pi sigma^2) of it.
    expected = 34 / math.sqrt(3) / math.sqrt(4 * math.pi * 16)
    assert abs(np.nanstd(moved) - expected) < 0.15 * expected
    roughness = np.nanstd(np.diff(moved, axis=2))
    assert roughness < 0.3 * expected  # neighbours move together: std / (sqrt(2) sigma) for a Gaussian
    noise = uniform((64, 28, 28, 2), -34.0, 34.0, 5, 64 * 9)
    field = reference.blur(noise, 4.0)
    np.testing.assert_allclose(got, reference.warp(x, np.tile(IDENTITY, (64, 1)), field, fill=np.nan), atol=1e-3)


def test_fill():
    x = np.full((1, 5, 5, 1), 255, np.uint8)
    shifted = Augment(shift=4, whole_pixels=True, fill=-2.0)
    values = {float(v) for seed in range(20) for v in np.unique(shifted(x, seed))}
    assert values == {-2.0, 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shift": -1}, "shift: expected finite numbers, 0 or more; got -1"),
        ({"shift": (1, 2, 3)}, "shift: expected one number or two"),
        ({"shift": "far"}, "shift: expected one number or two"),
        ({"scale": math.inf}, "scale: expected finite numbers"),
        ({"rotate": 200}, "rotate: expected degrees from 0 to 180; got 200"),
        ({"shear": 90}, "shear: expected degrees from 0 to 80; got 90"),
        ({"elastic": (3, 0)}, "elastic: expected .*0 < sigma <= 85"),
        ({"elastic": 3}, "elastic: expected"),
        ({"elastic": (3, 86)}, "elastic: expected"),
        ({"flip": "diagonal"}, "flip: expected .*; got 'diagonal'"),
        ({"rotate": "x"}, "rotate: expected degrees from 0 to 180; got 'x'"),
        ({"flip": []}, "flip: expected .*; got \\[\\]"),
        ({"crop": 0}, "crop: expected sizes of 1 or more; got 0"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        Augment(**arguments)


def test_bad_images():
    with pytest.raises(ValueError, match=r"crop: expected at most 11 x 13.*; got 12 x 12"):
        Augment(crop=12)(photo(), seed=0)
    with pytest.raises(ValueError, match=r"x: expected shape \[N,Y,X,C\]; got \[11, 13\]"):
        Augment()(photo()[0, :, :, 0], seed=0)
    with pytest.raises(TypeError, match="x: expected uint8 or float32; got float64"):
        Augment()(np.ones((1, 2, 2, 1)), seed=0)
    with pytest.raises(TypeError, match=r"x: expected an array .*; got list"):
        Augment()([[[[1]]]], seed=0)
    with pytest.raises(TypeError, match=r"x: expected an array .*; got Tensor"):
        Augment()(Tensor(np.ones((1, 2, 2, 1), np.float32)), seed=0)


@pytest.mark.parametrize("shape", [(1, 10, 13, 1), (1, 11, 14, 1), (2, 11, 13, 1)])
def test_the_place_of_a_result_has_its_shape(shape):
    with pytest.raises(ValueError, match=r"out: expected shape \[1, 11, 13, 1\]; got"):
        Augment(shift=1)(photo(1, channels=1), seed=0, out=np.zeros(shape, np.float32))
