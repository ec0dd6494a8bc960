"""Weights on disk: safetensors, with a JSON description in the file's metadata. Opening a file runs no code."""

import contextlib
import json
import os
import tempfile

import numpy as np

FORMAT = 1  # raised when a file of the new form can't be read by older versions


def save(path, weights, config=None):
    """Write arrays and a description to a safetensors file; it appears under its name only when it is whole.

    Parameters
    ----------
    path : str or path
    weights : dict of str to array
    config : dict, optional
        Anything JSON can hold.
    """
    from safetensors.numpy import save as pack

    # A transposed view would be written as its memory lies, so the file would hold another matrix.
    arrays = {name: np.ascontiguousarray(a) for name, a in weights.items()}
    blob = pack(arrays, metadata={"fastdl_format": str(FORMAT), "config": json.dumps(config or {})})
    folder = os.path.dirname(os.path.abspath(path))
    descriptor, part = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)  # mkstemp's files are private; weights get what any new file gets
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


def load(path):
    """Read a file that `save` wrote.

    Returns
    -------
    weights : dict of str to array
    config : dict

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        The file is damaged or cut short, is no weights file of fastdl, or is of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: expected a file; got {'a folder' if os.path.isdir(path) else 'nothing there'}"
        )
    try:
        with safe_open(path, framework="np") as file:
            about = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except SafetensorError as error:
        raise ValueError(
            f"{path}: expected a whole safetensors file; got one that is damaged or cut short ({error})"
        ) from error
    if "fastdl_format" not in about:
        raise ValueError(f"{path}: expected weights saved by fastdl; got a safetensors file without fastdl_format")
    try:
        version, config = int(about["fastdl_format"]), json.loads(about["config"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: expected a format number and a JSON config in the metadata; got {about}") from error
    if version > FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT} or older; got {version}, written by a newer fastdl")
    return weights, config
