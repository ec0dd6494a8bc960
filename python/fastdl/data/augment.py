"""Random changes to training images that leave their class as it is: shift, rotate, scale, shear, elastic, flip, crop.

All of it is one affine map and, if wanted, one displacement field an image, applied in a single bilinear pass by the
kernels `warp` and `warp_u8`: an image is resampled once, however many changes are on.
"""

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np

from .._arguments import pair

_DRAWS = 9  # random numbers for the affine map of one image

_FLIPS = {
    None: (False, False),
    False: (False, False),
    True: (False, True),
    "horizontal": (False, True),
    "vertical": (True, False),
    "both": (True, True),
}


def _limits(name: str, value) -> tuple:
    """(for y, for x) from one number or two."""
    limits = pair(name, value, kind=float)
    if not all(0 <= v < math.inf for v in limits):
        raise ValueError(f"{name}: expected finite numbers, 0 or more; got {value!r}")
    return limits


@dataclass(frozen=True)
class Augment:
    """Random affine and elastic changes to a batch of images.

    Every image gets its own draw, uniform within the stated limits. In the order in which a source pixel meets them:
    crop, flip, shear, rotation, scale, shift (all about the centre of the image), then the elastic displacement.

    Parameters
    ----------
    shift : float or (float, float)
        Largest shift in pixels (y, x), either way.
    rotate : float
        Largest rotation in degrees, either way.
    scale : float or (float, float)
        Largest change of size: 0.1 draws a factor from 1/1.1 to 1.1, evenly in its logarithm. One number keeps the
        proportions; two, for y and x, are drawn on their own.
    shear : float
        Largest shear angle in degrees, either way: rows slide sidewise by tan(angle) pixels a row.
    elastic : (float, float), optional
        (alpha, sigma) of elastic distortion: every pixel is displaced by alpha pixels times uniform noise from -1 to 1
        that was blurred by a Gaussian of `sigma` pixels. Typical for 28x28 digits: (34, 4).
    flip : bool or {"horizontal", "vertical", "both"}
        Mirror every second image on average; True is "horizontal".
    crop : int or (int, int), optional
        Size (P, Q) of the output: a window of the image at a random whole-pixel place. When not given, the output has
        the size of the image.
    whole_pixels : bool
        Round shifts to whole pixels; with no other change than flip and crop the images are then copied exactly.
    fill : float
        Value of pixels from outside the image, in units of the result.

    Raises
    ------
    ValueError
        A limit that is negative, not finite or out of range.

    References
    ----------
    Simard, Steinkraus, Platt (2003), Best practices for convolutional neural networks applied to visual document
    analysis.

    Examples
    --------
    >>> from fastdl.data import Augment, load_mnist
    >>> augment = Augment(shift=2, rotate=10, elastic=(34, 4))
    >>> batch = load_mnist().x_train[:64]
    >>> augment(batch, seed=0, offset=0).shape
    (64, 28, 28, 1)
    """

    shift: float | tuple[float, float] = 0.0
    rotate: float = 0.0
    scale: float | tuple[float, float] = 0.0
    shear: float = 0.0
    elastic: tuple[float, float] | None = None
    flip: bool | str | None = False
    crop: int | tuple[int, int] | None = None
    whole_pixels: bool = False
    fill: float = 0.0

    def __post_init__(self):
        _limits("shift", self.shift)
        _limits("scale", self.scale)
        for name, limit in (("rotate", 180.0), ("shear", 80.0)):
            value = getattr(self, name)
            if not isinstance(value, Real) or not 0 <= value <= limit:
                raise ValueError(f"{name}: expected degrees from 0 to {limit:g}; got {value!r}")
        if self.elastic is not None:
            _, sigma = _limits("elastic", self.elastic)
            if not isinstance(self.elastic, (tuple, list)) or not 0 < sigma <= 85:
                raise ValueError(f"elastic: expected (alpha, sigma) with 0 < sigma <= 85; got {self.elastic!r}")
        if not isinstance(self.flip, (bool, str, type(None))) or self.flip not in _FLIPS:
            raise ValueError(f"flip: expected a bool, 'horizontal', 'vertical' or 'both'; got {self.flip!r}")
        if self.crop is not None and min(pair("crop", self.crop)) < 1:
            raise ValueError(f"crop: expected sizes of 1 or more; got {self.crop!r}")

    def output_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (P, Q) of the result for images of `height` x `width` pixels.

        Raises
        ------
        ValueError
            The crop is larger than the image.
        """
        if self.crop is None:
            return height, width
        p, q = pair("crop", self.crop)
        if p > height or q > width:
            raise ValueError(f"crop: expected at most {height} x {width}, the size of the images; got {p} x {q}")
        return p, q

    def draws(self, n: int, height: int, width: int) -> int:
        """How many elements of the random stream a call on `n` images uses: the next call's offset is this much on."""
        p, q = self.output_size(height, width)
        return _DRAWS * n + (0 if self.elastic is None else 2 * n * p * q)

    def matrices(self, draws: np.ndarray, height: int, width: int) -> np.ndarray:
        """Affine maps from output to source pixels.

        Parameters
        ----------
        draws : array [N,9]
            Numbers from 0 to 1, a row an image: shift y, x; rotation; scale y, x; shear; flip; crop y, x.
        height, width : int
            Size of the images.

        Returns
        -------
        float32 [N,6]
            Row m: source y = m0 p + m1 q + m2, source x = m3 p + m4 q + m5 for the output pixel (p, q).
        """
        draws = np.asarray(draws, np.float64)
        p, q = self.output_size(height, width)
        either_way = 2.0 * draws - 1.0

        shift = np.array(_limits("shift", self.shift)) * either_way[:, 0:2]
        if self.whole_pixels:
            # Every whole number within the limit is as likely as any other.
            most = np.floor(_limits("shift", self.shift))
            shift = np.minimum(np.floor(draws[:, 0:2] * (2 * most + 1)), 2 * most) - most
        angle = math.radians(self.rotate) * either_way[:, 2]
        log_scale = np.log1p(_limits("scale", self.scale)) * either_way[:, 3:5]
        if not isinstance(self.scale, (tuple, list)):
            log_scale[:, 1] = log_scale[:, 0]
        slide = np.tan(math.radians(self.shear) * either_way[:, 5])
        mirror = np.where(draws[:, 6] < 0.5, -1.0, 1.0)
        flip_y, flip_x = (mirror if on else np.ones_like(mirror) for on in _FLIPS[self.flip])

        # The map runs from the output to its source, so every change appears as its inverse: un-scale, un-rotate, ...
        cos, sin = np.cos(angle), np.sin(angle)
        unscale_y, unscale_x = np.exp(-log_scale[:, 0]), np.exp(-log_scale[:, 1])
        # Rotation, seen with y downwards, then the shear x += slide * y, then the mirror.
        yy, yx = cos * unscale_y, sin * unscale_x
        xy, xx = -sin * unscale_y, cos * unscale_x
        xy, xx = xy + slide * yy, xx + slide * yx
        yy, yx, xy, xx = flip_y * yy, flip_y * yx, flip_x * xy, flip_x * xx

        # Centre on centre, but for the crop's window, whose place is a whole number of pixels from the corner.
        places = np.array([height - p, width - q])
        place = np.minimum(np.floor(draws[:, 7:9] * (places + 1)), places)
        from_y, from_x = (p - 1) / 2 + shift[:, 0], (q - 1) / 2 + shift[:, 1]
        to_y, to_x = place[:, 0] + (p - 1) / 2, place[:, 1] + (q - 1) / 2
        maps = [yy, yx, to_y - yy * from_y - yx * from_x, xy, xx, to_x - xy * from_y - xx * from_x]
        return np.stack(maps, axis=1).astype(np.float32)

    def __call__(
        self,
        x: np.ndarray,
        seed: int,
        offset: int = 0,
        pixel_scale: float = 1.0 / 255.0,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """Augment a batch.

        Parameters
        ----------
        x : uint8 or float32 [N,Y,X,C]
            The result is on its device; the maps are made on the CPU.
        seed, offset : int
            Where in the random stream to draw: the same values give the same images. See `draws`.
        pixel_scale : float
            Factor for uint8 pixels; float32 images are taken as they are.
        out : float32 [N,P,Q,C], optional
            Receives the result.

        Returns
        -------
        float32 [N,P,Q,C]

        Raises
        ------
        TypeError
            Images of another dtype.
        ValueError
            Images of another number of axes, or smaller than the crop.
        """
        # Here, not above: the readers of this package must work before the compiled module is loaded.
        from .. import backend
        from ..random import uniform

        if not hasattr(x, "dtype"):
            raise TypeError(f"x: expected an array [N,Y,X,C]; got {type(x).__name__}")
        if x.ndim != 4:
            raise ValueError(f"x: expected shape [N,Y,X,C]; got {list(x.shape)}")
        if x.dtype not in (np.uint8, np.float32):
            raise TypeError(f"x: expected uint8 or float32; got {x.dtype}")
        n, height, width, channels = x.shape
        p, q = self.output_size(height, width)
        if out is None:
            out = backend.empty((n, p, q, channels), x)
        elif out.shape != (n, p, q, channels):
            raise ValueError(f"out: expected shape {[n, p, q, channels]}; got {list(out.shape)}")
        kernels = backend.kernels(x)
        matrix = self.matrices(uniform((n, _DRAWS), 0.0, 1.0, seed, offset), height, width)
        matrix = backend.to_device(matrix, x)
        field = None
        if self.elastic is not None:
            alpha, sigma = _limits("elastic", self.elastic)
            # Blurring is linear: noise from -alpha to alpha needs no later multiplication.
            noise = kernels.uniform(-alpha, alpha, seed, offset + _DRAWS * n, backend.empty((n, p, q, 2), x))
            field = kernels.blur(noise, sigma)
        if x.dtype == np.uint8:
            return kernels.warp_u8(x, matrix, field, fill=self.fill, scale=pixel_scale, out=out)
        return kernels.warp(x, matrix, field, fill=self.fill, out=out)
