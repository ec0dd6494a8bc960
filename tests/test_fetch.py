"""Fetching of data sets, from a local server that fails in many ways."""

import gzip
import hashlib
import http.server
import io
import os
import re
import socket
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from data_files import DATA, fails, idx_set, needs_mnist, no_data_directory  # noqa: F401
from fastdl import data
from fastdl.data import FetchError, RemoteFile, download, sets

CONTENT = np.random.default_rng(5).integers(0, 32, 300_000, np.uint8).tobytes()
PACKED = gzip.compress(CONTENT, 6, mtime=0)
PACKED_OTHERWISE = gzip.compress(CONTENT, 1, mtime=0)
WANTED = RemoteFile("file.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Mirror(http.server.BaseHTTPRequestHandler):
    """A mirror with faults: the first part of the path says which, the rest is the file's name in `server.files`."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        server.seen.append((self.path, self.headers.get("Range")))
        fault, _, name = self.path.strip("/").partition("/")
        body = server.files.get(name)
        if fault == "absent" or body is None:
            return self.send_error(404)
        if fault == "busy":
            return self.send_error(503)
        if fault == "wrong":
            body = gzip.compress(b"something else")
        if fault == "garbage":
            body = b"<html>" * 100
        if fault == "truncated":
            body = body[: len(body) // 2]
        if fault == "other":
            body = PACKED_OTHERWISE
        if fault == "endless":
            body = body * 1000
            self.send_response(200)
            self.end_headers()
            for at in range(0, len(body), 1 << 16):
                self.wfile.write(body[at : at + (1 << 16)])
                server.sent = at
            return None
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if asked and fault not in ("ignores", "ignores-drops"):
            start = int(asked[1])
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                return self.end_headers()
            self.send_response(206)
            at = 0 if fault == "wrong-range" else start
            self.send_header("Content-Range", f"bytes {at}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        body = body[start:]
        if fault != "no-length":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "stalls":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            server.stalled.wait(10)
            return None
        if "drops" in fault and len(body) > server.piece:
            self.wfile.write(body[: server.piece])
            self.wfile.flush()
            if fault == "drops-hard":
                # A reset, not an orderly end.
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.close_connection = True
            return self.connection.close()
        self.wfile.write(body)
        return None


@pytest.fixture
def mirror():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.handle_error = lambda *args: None  # connections broken on purpose
    server.files, server.seen, server.piece = {"file.gz": PACKED}, [], len(PACKED) // 3 + 1
    server.stalled = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stalled.set()
    server.shutdown()
    thread.join()
    server.server_close()


def get(server, path, *faults, timeout=5.0, wanted=WANTED):
    return data.fetch_file(
        [f"{server.url}/{fault}/file.gz" for fault in faults], path, wanted, timeout=timeout, progress=False
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "deep" / "file.gz"


def is_there(path, packed=PACKED):
    assert path.read_bytes() == packed
    assert os.listdir(path.parent) == [path.name]


def test_fetch_file(mirror, path):
    assert get(mirror, path, "fine")
    is_there(path)
    assert mirror.seen == [("/fine/file.gz", None)]
    assert not get(mirror, path, "fine")  # there already: not even asked for
    assert len(mirror.seen) == 1


def test_fetch_plain_content_counts_as_well(mirror, path):
    mirror.files["file.gz"] = CONTENT
    assert get(mirror, path, "fine")
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["drops", "drops-hard"])
def test_fetch_resumes_where_the_connection_was_lost(mirror, path, fault):
    assert get(mirror, path, fault)
    is_there(path)
    piece = mirror.piece
    if fault == "drops":  # after a reset less than was sent may have arrived
        assert [asked for _, asked in mirror.seen] == [None, f"bytes={piece}-", f"bytes={2 * piece}-"]
    assert all(asked for _, asked in mirror.seen[1:])


def test_fetch_resumes_what_an_earlier_call_left(mirror, path):
    path.parent.mkdir()
    part = path.with_name("file.gz.part")
    part.write_bytes(PACKED[:1000])
    assert get(mirror, path, "fine")
    is_there(path)
    assert mirror.seen == [("/fine/file.gz", "bytes=1000-")]


def test_fetch_takes_a_whole_part_file(mirror, path):
    path.parent.mkdir()
    path.with_name("file.gz.part").write_bytes(PACKED)
    assert get(mirror, path, "fine")  # answered by 416
    is_there(path)


@pytest.mark.parametrize("fault", ["ignores", "wrong-range", "fine"])
@pytest.mark.parametrize("left", [b"x" * 500, PACKED[:500], PACKED + b"more", PACKED_OTHERWISE[:5000]])
def test_fetch_with_a_part_file_that_may_not_fit(mirror, path, fault, left):
    path.parent.mkdir()
    path.with_name("file.gz.part").write_bytes(left)
    assert get(mirror, path, fault)
    is_there(path)


def test_fetch_goes_on_with_the_next_mirror(mirror, path):
    assert get(mirror, path, "absent", "busy", "wrong", "garbage", "truncated", "fine")
    is_there(path)
    assert [url.split("/")[1] for url, _ in mirror.seen] == ["absent", "busy", "wrong", "garbage", "truncated", "fine"]


def test_fetch_without_a_length(mirror, path):
    assert get(mirror, path, "no-length")
    is_there(path)


def test_fetch_starts_again_when_mirrors_compress_differently(mirror, path):
    mirror.piece = len(PACKED) // 20  # this one brings a quarter, then we give up on it
    assert get(mirror, path, "drops", "other")
    is_there(path, PACKED_OTHERWISE)
    assert [asked for url, asked in mirror.seen if "other" in url] == [f"bytes={5 * mirror.piece}-", None]


def test_fetch_from_a_server_that_ignores_range_and_drops(mirror, path):
    with pytest.raises(FetchError, match="connection lost after"):
        get(mirror, path, "ignores-drops")
    assert len(mirror.seen) == 2  # the second try brought no more than the first


def test_fetch_stops_reading_an_endless_answer(mirror, path):
    with pytest.raises(FetchError, match=r"endless/file.gz: more than \d+ bytes"):
        get(mirror, path, "endless")
    assert mirror.sent < 100 * len(PACKED)  # of 1000: what the system's buffers take
    assert not os.listdir(path.parent)


def test_fetch_from_a_server_that_stalls(mirror, path):
    with pytest.raises(FetchError, match="timed out"):
        get(mirror, path, "stalls", timeout=0.2)
    mirror.stalled.set()


def test_fetch_finds_what_another_process_has_fetched_meanwhile(path, monkeypatch):
    def taken(url, part, wanted, timeout, bar):
        path.write_bytes(PACKED)  # by the other, whose rename took the bytes that both had collected
        raise download._Refused("connection lost")

    monkeypatch.setattr(download, "_from_mirror", taken)
    assert data.fetch_file(["http://localhost/"], path, WANTED, progress=False) is False
    is_there(path)


def test_fetch_names_what_is_no_address_and_no_place_for_a_file(mirror, path):
    for wrong in ("http://[bad/", 3, "file:///etc/passwd"):
        with pytest.raises(FetchError, match="not an http or https address"):
            data.fetch_file([wrong], path, WANTED, progress=False)
    path.mkdir()
    with pytest.raises(FetchError, match="file.gz: expected a place for a file; got a folder"):
        get(mirror, path, "ok")
    assert mirror.seen == [] and not path.with_name("file.gz.part").exists()


def test_fetch_reports_every_address(mirror, path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}/file.gz"
    urls = [f"{mirror.url}/{fault}/file.gz" for fault in ("absent", "busy", "wrong", "garbage", "truncated")]
    urls += [closed, "file:///etc/passwd"]
    with pytest.raises(FetchError) as caught:
        data.fetch_file(urls, path, WANTED, timeout=5, progress=False)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{path}: expected a good copy from one of 7 addresses; got"
    for line, url, reason in zip(
        lines[1:],
        urls,
        [
            "HTTP 404",
            "HTTP 503",
            f"14 uncompressed bytes, not {len(CONTENT)}",
            "600 uncompressed bytes",
            "not a whole gzip file",
            "refused",
            "not an http or https address",
        ],
        strict=True,
    ):
        assert line.startswith(f"  {url}: ")
        assert reason in line
    assert not path.exists()


def test_fetch_tells_damaged_xz_from_a_mirror(mirror, path):
    mirror.files["file.gz"] = b"\xfd7zXZ\0" + b"no such thing" * 9
    with pytest.raises(FetchError, match="not a whole xz file"):
        get(mirror, path, "fine")
    assert not path.exists()


def test_fetch_checks_the_bytes_not_only_their_number(mirror, path):
    other = bytearray(CONTENT)
    other[1234] ^= 1
    mirror.files["file.gz"] = gzip.compress(bytes(other))
    with pytest.raises(FetchError, match=r"sha256 [0-9a-f]{64} of the uncompressed bytes, not " + WANTED.sha256):
        get(mirror, path, "fine")
    assert not os.listdir(path.parent)


def test_fetch_replaces_a_bad_file_only_by_a_good_one(mirror, path):
    path.parent.mkdir()
    path.write_bytes(b"bad")
    with pytest.raises(FetchError):
        get(mirror, path, "wrong")
    assert path.read_bytes() == b"bad"
    assert get(mirror, path, "fine")
    is_there(path)


def test_fetch_keeps_what_came_when_interrupted(mirror, path, monkeypatch):
    class Bar:
        def __init__(self, *args):
            pass

        def at(self, done, total):
            assert total == len(PACKED)
            raise KeyboardInterrupt

        def close(self):
            self.closed = True

    monkeypatch.setattr(download, "_Bar", Bar)
    with pytest.raises(KeyboardInterrupt):
        get(mirror, path, "fine")
    assert not path.exists()
    assert path.with_name("file.gz.part").stat().st_size > 0
    monkeypatch.undo()
    assert get(mirror, path, "fine")
    is_there(path)
    assert mirror.seen[-1][1] is not None


def test_fetch_shows_progress(mirror, path, monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    shown = io.StringIO()
    original = tqdm.tqdm
    monkeypatch.setattr(tqdm, "tqdm", lambda **kw: original(file=shown, mininterval=0, **kw))
    assert data.fetch_file([f"{mirror.url}/fine/file.gz"], path, WANTED, progress=True)
    assert "file.gz" in shown.getvalue()
    assert "100%" in shown.getvalue()
    monkeypatch.setitem(sys.modules, "tqdm", None)
    path.unlink()
    assert data.fetch_file([f"{mirror.url}/fine/file.gz"], path, WANTED, progress=True)


def test_fetch_mnist(mirror, tmp_path, monkeypatch):
    idx_set(tmp_path / "there", suffix="")
    wanted = []
    for name in sets.IDX_FILES:
        content = (tmp_path / "there" / name).read_bytes()
        mirror.files[f"{name}.gz"] = gzip.compress(content)
        wanted.append(RemoteFile(f"{name}.gz", len(content), hashlib.sha256(content).hexdigest()))
    monkeypatch.setattr(download, "MNIST_FILES", tuple(wanted))
    mirrors = (f"{mirror.url}/absent", f"{mirror.url}/drops/")
    folder = data.fetch("mnist", tmp_path / "data", mirrors=mirrors, progress=False)
    assert sorted(os.listdir(folder)) == sorted(file.name for file in wanted)
    assert data.load("mnist", tmp_path / "data").x_train.shape == (7, 4, 5, 1)
    with pytest.raises(FetchError, match="train-images"):
        data.fetch("mnist", tmp_path / "other", mirrors=mirrors[:1], progress=False)
    with pytest.raises(ValueError, match=r"name: expected 'mnist'.*; got 'imagenet'"):
        data.fetch("imagenet", tmp_path)


def test_mnist_addresses():
    assert [file.name for file in data.MNIST_FILES] == [f"{name}.gz" for name in sets.IDX_FILES]
    assert all(re.fullmatch(r"https?://[^ ]+/", mirror) for mirror in data.MNIST_MIRRORS)


@needs_mnist
def test_fetch_finds_the_real_files_right():
    folder = Path(data.available(DATA)["mnist"])
    for wanted in data.MNIST_FILES:
        path = folder / wanted.name
        if not path.exists():
            path = path.with_suffix("")
        assert download._problem(path, wanted) is None
