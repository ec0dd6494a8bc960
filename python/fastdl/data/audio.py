"""Sound: a reader of WAV files, and the features that speech recognition begins with."""

import struct
from pathlib import Path

import numpy as np

from .._arguments import file_name, not_negative, number, positive, reals
from .errors import DataError, MissingDataError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE


def read_wav(path):
    """Samples of a WAV file: PCM of 8, 16, 24 or 32 bits, or floats of 32 or 64.

    Returns
    -------
    samples : float32 array [T] or [T,channels]
        In [-1, 1].
    rate : int
        Samples a second.

    Raises
    ------
    MissingDataError
        No such file.
    DataError
        Not such a file, or cut off.
    """
    if not Path(file_name("path", path)).is_file():
        raise MissingDataError(path, "a file", "a folder" if Path(path).is_dir() else "nothing there")
    raw = Path(path).read_bytes()
    if raw[:4] != b"RIFF" or raw[8:12] != b"WAVE":
        raise DataError(path, "a WAV file, which begins with RIFF and WAVE", repr(raw[:12]))
    at, form, data = 12, None, None
    whole = struct.unpack_from("<I", raw, 4)[0] == len(raw) - 8
    while at + 8 <= len(raw) and data is None:
        name, size = raw[at : at + 4], struct.unpack_from("<I", raw, at + 4)[0]
        body = raw[at + 8 : at + 8 + size]
        if name == b"fmt " and len(body) >= 16:
            form = struct.unpack_from("<HHIIHH", body)
            if form[0] == _EXTENSIBLE and len(body) >= 26:
                form = (struct.unpack_from("<H", body, 24)[0], *form[1:])
        elif name == b"data":
            # Recorders that were cut off, or wrote to a pipe, leave 0 or -1 here: the rest of the file is meant.
            endless = size == 0xFFFFFFFF or (size == 0 and not whole)
            data = raw[at + 8 :] if endless else body
            if not endless and len(body) < size:
                raise DataError(path, f"{size} bytes of samples", f"{len(body)}")
        at += 8 + size + size % 2
    if form is None or data is None:
        raise DataError(path, "the chunks 'fmt ' and 'data'", "no " + ("'fmt '" if form is None else "'data'"))
    kind, channels, rate, _, block, bits = form
    if channels < 1 or rate < 1:
        raise DataError(path, "one channel or more and a rate", f"{channels} channels at {rate} a second")
    width = bits // 8
    if block not in (0, width * channels):  # samples in wider boxes, such as 24 bits in 4 bytes
        raise DataError(path, f"{width * channels} bytes for {channels} samples of {bits} bits", f"{block}")
    data = data[: len(data) - len(data) % max(width * channels, 1)]
    if kind == _PCM and bits == 8:
        x = (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / 128.0
    elif kind == _PCM and bits in (16, 32):
        x = np.frombuffer(data, f"<i{width}").astype(np.float64) / 2.0 ** (bits - 1)
    elif kind == _PCM and bits == 24:
        b = np.frombuffer(data, np.uint8).reshape(-1, 3).astype(np.int32)
        x = ((b[:, 0] | b[:, 1] << 8 | b[:, 2] << 16) ^ 0x800000) - 0x800000
        x = x / 2.0**23
    elif kind == _FLOAT and bits in (32, 64):
        x = np.frombuffer(data, f"<f{width}")
    else:
        raise DataError(path, "PCM of 8, 16, 24 or 32 bits, or floats of 32 or 64", f"format {kind} of {bits} bits")
    x = np.ascontiguousarray(x, np.float32)
    return (x if channels == 1 else x.reshape(-1, channels)), rate


def _mel(hertz):
    return 2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0)


def mel_filters(bands, size, rate, low=0.0, high=None):
    """Triangular filters [size // 2 + 1, bands], equally wide on the mel scale from `low` to `high` Hz (half the rate).

    Source: Davis & Mermelstein, "Comparison of parametric representations for monosyllabic word recognition" (1980).
    """
    positive("bands", bands), positive("size", size), number("rate", rate, more_than=0.0), not_negative("low", low)
    high = number("high", rate / 2 if high is None else high, more_than=low)
    edges = 700.0 * (10.0 ** (np.linspace(_mel(low), _mel(high), bands + 2) / 2595.0) - 1.0)
    at = np.arange(size // 2 + 1) * rate / size
    up = (at[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    down = (edges[2:] - at[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(up, down))


def log_mel(samples, rate, bands=40, window=0.025, step=0.010, emphasis=0.97, floor=1e-6):
    """Logarithm of the energy in mel bands.

    Parameters
    ----------
    samples : array [T]
    rate : int
        Samples a second.
    bands : int
    window, step : float
        Seconds: length of a frame (Hamming) and distance of frames.
    emphasis : float
        Of high frequencies: x_t - emphasis x_{t-1}; 0: none.
    floor : float
        Added to energies, so that silence has a logarithm.

    Returns
    -------
    float32 array [frames,bands]
        At least one frame: a shorter sound is filled up with silence.
    """
    x = reals("samples", samples)
    if x.ndim != 1:
        raise ValueError(f"samples: expected shape [T], one channel; got {list(x.shape)}")
    for name, value in (("rate", rate), ("window", window), ("step", step), ("floor", floor)):
        number(name, value, more_than=0.0)
    number("emphasis", emphasis)
    wide, hop = max(round(window * rate), 1), max(round(step * rate), 1)
    x = np.append(x[:1], x[1:] - emphasis * x[:-1])
    x = np.pad(x, (0, max(wide - len(x), 0)))
    size = 1 << (wide - 1).bit_length()
    frames = x[np.arange((len(x) - wide) // hop + 1)[:, None] * hop + np.arange(wide)]
    power = np.abs(np.fft.rfft(frames * np.hamming(wide), size)) ** 2 / size
    return np.log(power @ mel_filters(bands, size, rate) + floor).astype(np.float32)


def mfcc(samples, rate, coefficients=13, bands=40, **options):
    """Mel-frequency cepstral coefficients: the orthonormal cosine transform of `log_mel`, float32 [frames,coefficients]."""
    energy = log_mel(samples, rate, bands, **options)
    if positive("coefficients", coefficients) > bands:
        raise ValueError(f"coefficients: expected at most one a band, {bands}; got {coefficients}")
    k, j = np.arange(coefficients)[:, None], np.arange(bands)
    basis = np.cos(np.pi * k * (2 * j + 1) / (2 * bands)) * np.where(k == 0, 1.0, 2.0**0.5) / bands**0.5
    return (energy @ basis.T).astype(np.float32)


def deltas(features, reach=2):
    """Slope of features [T,K] over time by least squares on `reach` steps to each side; edges are repeated."""
    f = reals("features", features)
    if f.ndim != 2 or not len(f):
        raise ValueError(f"features: expected shape [T,K], one step or more; got {list(f.shape)}")
    positive("reach", reach)
    p = np.pad(f, ((reach, reach), (0, 0)), "edge")
    total = sum(n * (p[reach + n : len(p) - reach + n] - p[reach - n : len(p) - reach - n]) for n in range(1, reach + 1))
    return (total / (2 * sum(n * n for n in range(1, reach + 1)))).astype(np.float32)
