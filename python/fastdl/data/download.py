"""Fetching data sets over HTTP: checked, resumed, and never half there."""

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path

from .._arguments import file_name
from .errors import DataError, FetchError
from .idx import open_unpacked

# The usual public mirrors of the four files, in the order they are tried. The addresses are the widely published ones;
# fastdl's own tests fetch from a local server only.
MNIST_MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)
_CHUNK = 1 << 16
_TRIES = 5  # of one address, as long as each brings at least a byte


@dataclass(frozen=True)
class RemoteFile:
    """What a fetched file must hold: mirrors compress differently, so the uncompressed bytes are what counts."""

    name: str
    size: int  # uncompressed bytes
    sha256: str  # of the uncompressed bytes


MNIST_FILES = (
    RemoteFile(
        "train-images-idx3-ubyte.gz",
        47040016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    RemoteFile(
        "train-labels-idx1-ubyte.gz",
        60008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    RemoteFile(
        "t10k-images-idx3-ubyte.gz",
        7840016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    RemoteFile(
        "t10k-labels-idx1-ubyte.gz",
        10008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)


class _Refused(Exception):
    """This address cannot give the file; the text says why."""


def _problem(path: Path, wanted: RemoteFile) -> str | None:
    """What is wrong with the content of a file, or None."""
    digest, size = hashlib.sha256(), 0
    try:
        with open_unpacked(path) as stream:
            while size <= wanted.size and (piece := stream.read(_CHUNK)):
                digest.update(piece)
                size += len(piece)
    except (OSError, EOFError, zlib.error, DataError) as error:
        return f"not a whole gzip file ({error})"
    except Exception as error:
        if type(error).__name__ != "LZMAError":  # its module may be missing
            raise
        return f"not a whole xz file ({error})"
    if size != wanted.size:
        more = "more than " if size > wanted.size else ""
        return f"{more}{min(size, wanted.size)} uncompressed bytes, not {wanted.size}"
    if digest.hexdigest() != wanted.sha256:
        return f"sha256 {digest.hexdigest()} of the uncompressed bytes, not {wanted.sha256}"
    return None


class _Bar:
    """A progress bar by tqdm, if it can be imported and is wanted."""

    def __init__(self, name: str, progress: bool | None):
        self.bar = None
        if progress or (progress is None and sys.stderr.isatty()):
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self.bar = tqdm(desc=name, unit="B", unit_scale=True, unit_divisor=1024)

    def at(self, done: int, total: int | None) -> None:
        if self.bar is not None:
            self.bar.total = total
            self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def _receive(url: str, part: Path, timeout: float, limit: int, bar: _Bar) -> bool:
    """Append to `part` what it still lacks. True if it continued bytes that were there before.

    Raises OSError or HTTPException when the connection fails (what came is kept), _Refused when asking again is no use
    (what was there is kept: another mirror may go on from it).
    """
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "fastdl", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = urllib.request.urlopen(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # nothing beyond what we have: the check of the content decides
                return True
            if error.code >= 500 or error.code == 429:
                raise OSError(f"HTTP {error.code} {error.reason}") from error
            raise _Refused(f"HTTP {error.code} {error.reason}") from error
    with response:
        length = response.headers.get("Content-Length", "")
        length = int(length) if length.isdecimal() else None
        if response.status != 206:
            have = 0  # the server ignores Range and sends all of it
        # A 206 from another place than we asked for is not looked for: the check of the content finds it, and resumed
        # bytes that fail that check are fetched again from the start.
        total = None if length is None else have + length
        done = have
        with open(part, "ab" if have else "wb") as file:
            while piece := response.read(_CHUNK):
                file.write(piece)
                done += len(piece)
                bar.at(done, total)
                if done > limit:
                    break
            file.flush()
            os.fsync(file.fileno())
        if done > limit:
            part.unlink()
            raise _Refused(f"more than {limit} bytes")
        # read(n) of a response cut short returns what came and no error.
        if total is not None and done < total:
            raise OSError(f"connection lost after {done} of {total} bytes")
    return have > 0


def _from_mirror(url: str, part: Path, wanted: RemoteFile, timeout: float, bar: _Bar) -> None:
    """Fill `part` with the right content, or raise _Refused."""
    # A compressed file is not longer than what it holds, but for a header and a few bytes a block.
    limit = wanted.size + wanted.size // 1000 + 4096
    lost = ""
    for _ in range(_TRIES):
        before = part.stat().st_size if part.exists() else 0
        try:
            resumed = _receive(url, part, timeout, limit, bar)
        except (OSError, http.client.HTTPException) as error:
            lost = str(getattr(error, "reason", None) or error) or type(error).__name__
            after = part.stat().st_size if part.exists() else 0
            if after == before:
                raise _Refused(lost) from error
            continue
        problem = _problem(part, wanted)
        if problem is None:
            return
        part.unlink(missing_ok=True)
        if not resumed:
            raise _Refused(problem)
        # The beginning may have been another mirror's file, compressed otherwise: once more, from the start.
        lost = problem
    raise _Refused(f"{lost} (tried {_TRIES} times)")


def _scheme(url):
    try:
        return urllib.parse.urlsplit(url).scheme
    except (ValueError, TypeError, AttributeError):
        return ""


def _must_be_addresses(name, values):
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise TypeError(f"{name}: expected addresses, one after another; got {type(values).__name__}")


def fetch_file(
    urls: list[str],
    path: str | os.PathLike,
    wanted: RemoteFile,
    timeout: float = 30.0,
    progress: bool | None = None,
) -> bool:
    """Fetch one file, unless it is there and right already.

    Parameters
    ----------
    urls : list of str
        http or https addresses, tried in this order.
    path : path of the file
        Bytes are collected in ``path + ".part"``, checked, and renamed. What an interrupted call leaves there, the next
        one resumes.
    wanted : RemoteFile
        Size and checksum of the uncompressed content.
    timeout : float
        Seconds of silence after which a connection counts as lost.
    progress : bool, optional
        Show a bar (tqdm, if importable); when not given, if the error output is a terminal.

    Returns
    -------
    bool
        False if nothing had to be fetched.

    Raises
    ------
    FetchError
        No address gave the right content. A file that was at `path` before stays.
    """
    path = Path(file_name("path", path))
    _must_be_addresses("urls", urls)
    if path.is_file() and _problem(path, wanted) is None:
        return False
    if path.is_dir():
        raise FetchError(f"{path}: expected a place for a file; got a folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = []
    bar = _Bar(path.name, progress)
    try:
        for url in urls:
            try:
                if _scheme(url) not in ("http", "https"):
                    raise _Refused("not an http or https address")
                _from_mirror(url, part, wanted, timeout, bar)
            except _Refused as error:
                if path.is_file() and _problem(path, wanted) is None:  # another process has fetched it meanwhile
                    return False
                failures.append(f"{url}: {error}")
                continue
            os.replace(part, path)
            return True
    finally:
        bar.close()
    raise FetchError(f"{path}: expected a good copy from one of {len(urls)} addresses; got\n  " + "\n  ".join(failures))


def fetch(
    name: str,
    directory: str | os.PathLike,
    mirrors: tuple[str, ...] | None = None,
    timeout: float = 30.0,
    progress: bool | None = None,
) -> Path:
    """Fetch a data set into ``directory/name``, where `load` finds it.

    Parameters
    ----------
    name : {"mnist"}
    directory : path
        Folder of the data sets (the later `data_dir`); made if absent.
    mirrors : tuple of str, optional
        Addresses of folders that hold the files, instead of the usual public ones.
    timeout : float
        Seconds of silence after which a connection counts as lost.
    progress : bool, optional
        Show bars (tqdm, if importable); when not given, if the error output is a terminal.

    Returns
    -------
    pathlib.Path
        The folder of the set.

    Raises
    ------
    ValueError
        A name without known mirrors.
    FetchError
        No mirror gave a file with the right checksum; every address and its failure is listed.
    """
    if name != "mnist":
        raise ValueError(f"name: expected 'mnist', the set with known mirrors; got {name!r}")
    folder = Path(os.path.expanduser(file_name("directory", directory))) / name
    if mirrors is not None:
        _must_be_addresses("mirrors", mirrors)
    bases = [mirror if mirror.endswith("/") else mirror + "/" for mirror in mirrors or MNIST_MIRRORS]
    for wanted in MNIST_FILES:
        fetch_file([base + wanted.name for base in bases], folder / wanted.name, wanted, timeout, progress)
    return folder
