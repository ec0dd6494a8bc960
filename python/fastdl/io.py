"""Weights and training states on disk: safetensors, with a JSON description in the metadata. Opening a file runs no code.

A file carries a digest of all that it holds, so damage anywhere in it is noticed. (A digest is no signature: it does not
tell who wrote the file.)
"""

import contextlib
import hashlib
import json
import os
import stat
import tempfile

import numpy as np

FORMAT = 2  # raised when a file of the new form can't be read by older versions; 1 had no digest
_DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")


def save(path, weights, config=None):
    """Write arrays and a description to a safetensors file; it appears under its name only when it is whole.

    Parameters
    ----------
    path : str or path
    weights : dict of str to array
    config : dict, optional
        Anything JSON can hold; NumPy's numbers are written as numbers.

    Raises
    ------
    TypeError
        No path, a key that is no string, an array of other than real numbers or booleans, or a description that is no dict or
        holds what JSON can't. Nothing is written.
    """
    from safetensors.numpy import save as pack

    path = _path(path)
    if not isinstance(weights, dict):
        raise TypeError(f"weights: expected a dict of arrays; got {type(weights).__name__}")
    arrays = {name: _packable(name, a) for name, a in weights.items()}
    if config is not None and not isinstance(config, dict):
        raise TypeError(f"config: expected a dict; got {type(config).__name__}")
    try:
        text = json.dumps(config or {}, default=_plain)
    except TypeError as error:
        raise TypeError(f"config: expected what JSON can hold; got {error}") from error
    about = {"fastdl_format": str(FORMAT), "config": text, "digest": _digest(arrays, text)}
    replace_file(path, pack(arrays, metadata=about))


def _path(path):
    """The path as a string."""
    try:
        return os.fsdecode(path)
    except TypeError:
        raise TypeError(f"path: expected a path; got {type(path).__name__}") from None


def _packable(name, a):
    """The array as a file holds it: row by row, the low byte first."""
    if not isinstance(name, str):
        raise TypeError(f"weights: expected strings as keys; got {name!r}")
    a = np.asarray(a)
    if a.dtype.name not in _DTYPES:
        raise TypeError(f"weights: expected real numbers or booleans of at most 8 bytes; got {a.dtype} in {name!r}")
    # A transposed view would be written as its memory lies, so the file would hold another matrix. The digest is over the
    # bytes that will be read, and those are of this order on every machine.
    # (ascontiguousarray would turn a number into an array of one axis.)
    return np.asarray(a, a.dtype.newbyteorder("<"), order="C")


def _plain(value):
    """A NumPy number as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a {type(value).__name__}")


def _digest(arrays, text):
    """BLAKE2b over the description and every array: name, dtype, shape, bytes; in the order of names."""
    h = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(arrays):
        a = arrays[name]
        h.update(f"\n{name} {a.dtype.str} {a.shape}\n".encode())
        h.update(a.reshape(-1).view(np.uint8).data if a.size else b"")
    return h.hexdigest()


def replace_file(path, blob):
    """Put bytes under a name at once: whoever reads sees the old file or the new one, whenever the process dies. Who may read it
    stays as it was; where the name is a link, the file that it leads to is written."""
    path = os.path.realpath(path)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{os.fspath(path)}: expected a file in a folder that exists; got {folder!r}, which does not")
    if os.path.isdir(path):
        raise IsADirectoryError(f"{os.fspath(path)}: expected a file; got a folder")
    if os.path.exists(path) and not os.path.isfile(path):  # /dev/null itself would be replaced
        raise OSError(f"{os.fspath(path)}: expected a file; got a device or a pipe")
    descriptor, part = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        try:
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except FileNotFoundError:  # mkstemp's files are private; weights get what any new file gets
            umask = os.umask(0)
            os.umask(umask)
            mode = 0o666 & ~umask
        os.chmod(part, mode)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise
    # The name itself must outlive a power cut as well.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path, text):
    """Put text under a name, whole or not at all; a pipe or a device such as /dev/stdout gets it as it is."""
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "w") as stream:
            stream.write(text)
    else:
        replace_file(path, text.encode())


def load(path):
    """Read a file that `save` wrote.

    Returns
    -------
    weights : dict of str to array
    config : dict

    Raises
    ------
    TypeError
        No path.
    FileNotFoundError
        No such file.
    ValueError
        The file is damaged, changed or cut short, is no file of fastdl, or is of a newer format.
    """
    from safetensors import SafetensorError, safe_open

    path = _path(path)
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
    if version >= 2 and "digest" not in about:
        raise ValueError(f"{path}: expected a digest, as every file of format 2 or newer has; got none")
    # One that is there counts whatever format the file claims: that number is outside of what the digest is over.
    if "digest" in about and about["digest"] != _digest(weights, about["config"]):
        raise ValueError(f"{path}: expected contents that match the file's digest; got a file that was changed or damaged")
    if not isinstance(config, dict):
        raise ValueError(f"{path}: expected a JSON object as config; got {type(config).__name__}")
    return weights, config


# ------------------------------------------------------------------------------------------------ nested states


def save_state(path, kind, state):
    """Write a nested state: dicts and lists of arrays, numbers, strings, None; whole or not at all.

    Parameters
    ----------
    path : str or path
    kind : str
        What the state is of; `load_state` refuses another.
    state : dict
        Keys are strings. Arrays of any dtype of safetensors.
    """
    arrays = {}

    def strip(value, name):
        if isinstance(value, np.ndarray):
            while name in arrays:  # {"a/b": ..., "a": {"b": ...}}
                name += "'"
            arrays[name] = value
            return {"array": name}
        if isinstance(value, dict):
            return {"dict": {k: strip(v, f"{name}/{k}" if name else k) for k, v in value.items()}}
        if isinstance(value, (list, tuple)):
            if not any(isinstance(v, (np.ndarray, dict, list, tuple)) for v in value):
                return {"plain": list(value)}
            return {"list": [strip(v, f"{name}/{i}") for i, v in enumerate(value)]}
        return {"plain": value}

    described = strip(state, "")
    save(path, arrays, {"kind": kind, "state": described})


def load_state(path, kind):
    """What `save_state` wrote.

    Raises
    ------
    FileNotFoundError, ValueError
        As `load`; or the file holds something else.
    """
    arrays, config = load(path)
    if config.get("kind") != kind:
        what = config.get("kind") or (f"a model, {config['model']}" if "model" in config else "none")
        raise ValueError(f"{path}: expected a state of kind {kind!r}; got {what}")

    def fill(part):
        (form, value), *more = part.items()
        if more or form not in ("array", "dict", "list", "plain"):
            raise KeyError(form)
        if form == "array":
            return arrays[value]
        if form == "dict":
            return {k: fill(v) for k, v in value.items()}
        return [fill(v) for v in value] if form == "list" else value

    try:
        return fill(config["state"])
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a state as fastdl writes it; got one that lacks {error}") from error
