"""Image augmentation in plain float64 NumPy: the definition that the kernels are tested against.

`warp` maps every output pixel (p, q) to the source position M (p, q, 1) + field[p, q] and interpolates bilinearly
between the four pixels around it; a pixel outside the image counts as `fill`, and a pixel of weight zero does not count
at all (so the identity returns the image exactly, whatever it holds).

`blur` is the separable Gaussian, cut off at ceil(3 sigma) pixels and normalised, with edges mirrored so that the edge
pixel occurs twice (... b a | a b c ... y z | z y ...): the mean of the image is kept.
"""

import numpy as np


def warp(x, matrix, field=None, size=None, fill=0.0, dtype=np.float64):
    """Bilinear resampling along an affine map and a displacement field.

    Parameters
    ----------
    x : array [N,Y,X,C]
    matrix : array [N,6]
        Rows (m0..m5): source y = m0 p + m1 q + m2, source x = m3 p + m4 q + m5.
    field : array [N,P,Q,2], optional
        Displacement (y, x) added to the source position, in source pixels.
    size : (P, Q), optional
        Output size; from `field`, else that of `x`, when not given.
    fill : float
        Value of every pixel outside `x`.
    dtype : numpy dtype
        float64 is the definition; float32 shows the rounding error of the formula itself.

    Returns
    -------
    array [N,P,Q,C] of `dtype`
    """
    x, matrix = np.asarray(x, dtype), np.asarray(matrix, dtype)
    n, height, width, channels = x.shape
    if size is None:
        size = x.shape[1:3] if field is None else field.shape[1:3]
    p, q = np.meshgrid(np.arange(size[0], dtype=dtype), np.arange(size[1], dtype=dtype), indexing="ij")
    m = matrix.T[:, :, None, None]
    position = [m[0] * p + m[2] + m[1] * q, m[3] * p + m[5] + m[4] * q]
    if field is not None:
        position = [position[i] + np.asarray(field, dtype)[..., i] for i in (0, 1)]
    unknown = np.isnan(position[0]) | np.isnan(position[1])
    sy = np.clip(np.where(unknown, -2, position[0]), -2, height + 1)
    sx = np.clip(np.where(unknown, -2, position[1]), -2, width + 1)
    fy, fx = (sy - np.floor(sy))[..., None], (sx - np.floor(sx))[..., None]
    y0, x0 = np.floor(sy).astype(int), np.floor(sx).astype(int)
    image = np.arange(n)[:, None, None]

    def pixel(i, j):
        inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
        if height == 0 or width == 0:
            return np.full((*inside.shape, channels), fill, dtype)
        values = x[image, np.clip(i, 0, height - 1), np.clip(j, 0, width - 1)]
        return np.where(inside[..., None], values, dtype(fill))

    def mix(a, b, f):
        with np.errstate(invalid="ignore"):
            return np.where(f == 0, a, a + f * (b - a))

    top = mix(pixel(y0, x0), pixel(y0, x0 + 1), fx)
    bottom = mix(pixel(y0 + 1, x0), pixel(y0 + 1, x0 + 1), fx)
    return np.where(unknown[..., None], dtype(np.nan), mix(top, bottom, fy))


def warp_u8(x, matrix, field=None, size=None, fill=0.0, scale=1.0 / 255.0, dtype=np.float64):
    """`warp` of the image x * scale, for uint8 pixels; `fill` is in units of the result."""
    return warp(np.asarray(x, dtype) * dtype(scale), matrix, field, size, fill, dtype)


def blur(x, sigma, dtype=np.float64):
    """Gaussian blur along Y and X.

    Parameters
    ----------
    x : array [N,Y,X,C]
    sigma : float
        Standard deviation in pixels, 0 to 85; 0 returns `x`.

    Returns
    -------
    array [N,Y,X,C] of `dtype`
    """
    x = np.asarray(x, dtype)
    radius = int(np.ceil(3 * sigma))
    k = np.arange(-radius, radius + 1)
    weight = np.exp(-0.5 * k**2 / sigma**2) if radius else np.ones(1)
    weight = (weight / weight.sum()).astype(dtype)

    def along(a, axis):
        size = a.shape[axis]
        total = np.zeros_like(a)
        for shift, w in zip(k, weight, strict=True):
            i = (np.arange(size) + shift) % (2 * size)
            total += w * np.take(a, np.where(i < size, i, 2 * size - 1 - i), axis=axis)
        return total

    return along(along(x, 1), 2) if x.size else x
