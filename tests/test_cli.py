"""The command line: every wrong value is named, with exit status 2 and no traceback."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading

import pytest

from fastdl import cli, recipes


def run(capsys, *argv):
    status = cli.main(list(argv))
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.parametrize(
    "argv, named",
    [
        (["train", "mnist-gpt"], "'mnist-gpt'"),
        (["train", "mnist-softmax", "--epochs", "0"], "--epochs: expected a whole number of at least 1; got '0'"),
        (["train", "mnist-softmax", "--epochs", "many"], "--epochs: expected a whole number of at least 1; got 'many'"),
        (["train", "mnist-softmax", "--seed", "-1"], "--seed: expected a whole number of at least 0"),
        (["train", "mnist-softmax", "--threads", "0"], "--threads: expected a whole number of at least 1; got '0'"),
        (["train", "mnist-softmax", "--threads", "100000"], "threads"),
        (["train", "mnist-softmax", "--data", "/no/such/folder"], "/no/such/folder: expected a folder of data sets"),
        (
            ["train", "mnist-softmax", "--json", "/no/such/folder/a.json"],
            "--json: expected a file in a folder that exists",
        ),
        (["train", "mnist-softmax", "--save", "/"], "--save: expected a file"),
        (["train", "mnist-softmax", "--json", "/proc/a.json"], "--json: expected a file that can be written"),
        (["train", "mnist-1000-layers", "--resume", "/no/such/run"], "--resume: expected a checkpoint that was written before"),
        (["bench", "--only", "["], "--only: expected a regular expression; got '['"),
        (["train", "cifar-cnn"], "FASTDL_DATA"),
        (["bench", "sorting"], "expected one of gemm, conv"),
        (["bench", "--against", "numpy,caffe"], "--against: expected some of numpy, torch, sklearn, jax, learnergy; got 'caffe'"),
        (["bench", "--threads", "1,x"], "--threads: expected a whole number of at least 1; got 'x'"),
        (["bench", "--rounds", "1"], "--rounds"),
        (["bench", "--clock", "cpu", "--threads", "2"], "clock: expected wall for more than one thread"),
        (["bench", "--clock", "sun"], "--clock: expected one of wall, cpu; got 'sun'"),
        (["data", "fetch", "imagenet"], "expected one of mnist; got 'imagenet'"),
        (["data", "list", "--dir", "/no/such/folder"], "--dir: expected a folder; got '/no/such/folder'"),
        (["bench", "gemm", "--only", "nothing"], "only: expected what the name of a row in gemm matches; got 'nothing'"),
        (["choose", "--set", "none.csv"], "--set: expected a file, or a name that fastdl data list shows; got 'none.csv'"),
        (["train", "mnist-softmax", "--save", "a", "--json", "./a"], "--json: expected a file of its own; got './a'"),
        (["train", "mnist-softmax", "--json", ""], "--json: expected the name of a file; got ''"),
        (["train", "mnist-softmax", "--save", ""], "--save: expected the name of a file; got ''"),
        (["bench", "--json", ""], "--json: expected the name of a file; got ''"),
        (["train", "mnist-softmax", "--data", ""], "--data: expected the name of a folder; got ''"),
        (["data", "list", "--dir", ""], "--dir: expected the name of a folder; got ''"),
        (["data", "fetch", "mnist", "--dir", ""], "--dir: expected the name of a folder; got ''"),
        (["train", "mnist-softmax", "--data", "~nobody-of-that-name"], "expected a folder of data sets; got nothing there"),
        (["data", "list", "--dir", "~nobody-of-that-name"], "--dir: expected a folder; got '~nobody-of-that-name'"),
        (["data", "fetch", "mnist", "--dir", __file__], "--dir: expected a folder"),
        (["fly"], "fly"),
        (["info", "--more"], "--more"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_wrong_values_are_named(capsys, monkeypatch, argv, named):
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    status, _, err = run(capsys, *argv)
    assert status == 2
    assert named in err and "Traceback" not in err


@pytest.mark.parametrize("argv", [["train", "mnist-softmax", "--plot"], ["demo", "--picture"]], ids=" ".join)
def test_a_picture_of_no_known_kind_is_told_before_the_training(capsys, monkeypatch, tmp_path, argv):
    pytest.importorskip("matplotlib")
    from fastdl import recipes

    monkeypatch.setattr(recipes, "run", lambda *_: pytest.fail("it trained"))
    monkeypatch.setattr("fastdl.recipes.demo.run", lambda *_: pytest.fail("it trained"))
    status, _, err = run(capsys, *argv, str(tmp_path / "curve.xyz"))
    assert status == 2 and f"{argv[-1]}: expected a name that ends in one of ." in err and "curve.xyz" in err


@pytest.mark.parametrize("option", ["save", "json", "plot"])
def test_what_is_written_does_not_take_the_place_of_the_checkpoint_that_is_resumed(capsys, monkeypatch, tmp_path, option):
    pytest.importorskip("matplotlib")
    path = tmp_path / "run.png"
    path.write_bytes(b"a state")
    monkeypatch.setattr(recipes, "run", lambda *_: pytest.fail("it trained"))
    status, _, err = run(capsys, "train", "mnist-softmax", "--resume", str(path), f"--{option}", str(path))
    assert status == 2 and f"--{option}: expected a file of its own; got {str(path)!r}, as for --resume" in err


@pytest.mark.parametrize("option", ["save", "checkpoint"])
def test_a_pipe_does_not_become_a_file(capsys, monkeypatch, tmp_path, option):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    monkeypatch.setattr(recipes, "run", lambda *_: pytest.fail("it trained"))
    status, _, err = run(capsys, "train", "mnist-softmax", f"--{option}", str(path))
    assert status == 2 and f"--{option}: expected a file; got {str(path)!r}, a device or a pipe" in err


def test_figures_go_into_a_pipe(monkeypatch, tmp_path):
    path, got = tmp_path / "pipe", []
    os.mkfifo(path)
    monkeypatch.setattr(recipes, "run", lambda *_: recipes.Report({"a": 1.0}, {}, None, seconds=1.0))
    reader = threading.Thread(target=lambda: got.append(path.read_text()))
    reader.start()
    assert cli.main(["train", "mnist-softmax", "--json", str(path)]) == 0
    reader.join()
    assert json.loads(got[0])["metrics"] == {"a": 1.0} and path.is_fifo()


def test_a_picture_without_a_suffix_does_not_take_the_place_of_another_file(capsys, monkeypatch, tmp_path):
    """Matplotlib adds the suffix by itself."""
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(recipes, "run", lambda *_: pytest.fail("it trained"))
    status, _, err = run(
        capsys, "train", "mnist-softmax", "--plot", str(tmp_path / "a"), "--save", str(tmp_path / "a.png")
    )
    assert status == 2 and "--plot: expected a file of its own; got" in err


def test_figures_that_json_cannot_hold_leave_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    report = recipes.Report({"a": 1.0}, {}, None)
    recipes.write_json(report, path)
    before = path.read_bytes()
    report.metrics["b"] = object()
    with pytest.raises(TypeError):
        recipes.write_json(report, path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("argv", [[], ["train"], ["data"]])
def test_an_incomplete_command_says_what_there_is(capsys, argv):
    status, out, err = run(capsys, *argv)
    assert status == 2 and "Traceback" not in err
    expected = {"": ["train", "bench", "info"], "train": ["mnist-softmax", "cifar-cnn"], "data": ["list", "fetch"]}
    for word in expected[" ".join(argv)]:
        assert word in out


def test_info(capsys, monkeypatch):
    import numpy as np

    import fastdl

    monkeypatch.setenv("FASTDL_DATA", "/somewhere")
    status, out, _ = run(capsys, "info")
    assert status == 0
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if line and line != "environment")
    assert lines["fastdl"] == fastdl.__version__ and lines["numpy"].startswith(np.__version__)
    assert fastdl.backend.target in lines["targets"]
    assert lines["threads"].split(",")[0].isdigit() and "from" in lines["threads"]
    assert lines["cuda"].startswith("not built in")
    assert lines["FASTDL_DATA"].startswith("/somewhere")
    for name in cli.VARIABLES:
        assert name in lines


def test_info_says_what_products_come_to_on_each_gpu(capsys, monkeypatch):
    """The emulator's devices: 0 has tensor cores, 1 has none."""
    import sys

    import fastdl

    emulated = pytest.importorskip("fastdl._emu_cuda", reason="no emulator (built with FASTDL_TEST_TARGETS=ON)")
    monkeypatch.setitem(sys.modules, "fastdl._cuda", emulated)
    monkeypatch.setattr(emulated, "ARCHITECTURES", "75-real 80-real 120", raising=False)
    try:
        for precision, comes_to in {"highest": "float32, tensor cores with tf32 and bf16", "tf32": "tf32"}.items():
            fastdl.set_matmul_precision(precision)
            lines = dict(line.split(maxsplit=1) for line in run(capsys, "info")[1].split("\nenv")[0].splitlines() if line)
            assert "kernels for sm_75, sm_80, sm_120, PTX of compute_120; GPU 0: sm_86, GPU 1: sm_75" in lines["cuda"]
            assert lines["products"] == (
                f"{precision} (fastdl.set_matmul_precision); CPU: float32; GPU 0: {comes_to}; "
                "GPU 1: float32 always, as sm_75 has no tensor cores for tf32 and bf16"
            )
    finally:
        fastdl.set_matmul_precision("highest")
    assert emulated.current_device() == 0


def test_info_lists_every_variable_that_the_sources_read():
    import pathlib
    import re

    root = pathlib.Path(cli.__file__).parent
    sources = [*root.rglob("*.py"), *(root.parents[1] / "csrc").rglob("*.cpp")]
    reads = re.compile(r'(?:getenv\(|environ(?:\.get\(|\[))"(FASTDL_\w+)"')
    found = {name for path in sources for name in reads.findall(path.read_text())}
    assert found and found <= set(cli.VARIABLES)


def test_version(capsys):
    import fastdl

    assert run(capsys, "--version") == (0, f"{fastdl.__version__}\n", "")


def test_data_list(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    assert "mnist-embedded" in run(capsys, "data", "list")[1]
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    status, out, _ = run(capsys, "data", "list", "--dir", str(tmp_path))
    assert status == 0 and "table" in out


def test_train_writes_json_weights_and_picture(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    files = {k: tmp_path / f"a.{k}" for k in ("json", "save", "png")}
    status, out, err = run(
        capsys, "train", "mnist-softmax", "--epochs", "3", "--seed", "101",
        "--json", str(files["json"]), "--save", str(files["save"]), "--plot", str(files["png"]),
    )  # fmt: skip
    assert status == 0, err
    assert "test accuracy" in out and out.count("\n    ") >= 3  # the table of epochs
    report = json.loads(files["json"].read_text())
    assert set(report) == {"recipe", "metrics", "seconds", "config"}
    assert report["recipe"] == "mnist-softmax" and report["seconds"] > 0
    assert 0.8 < report["metrics"]["test_accuracy"] <= 1.0
    config = report["config"]
    assert config["seed"] == 101 and config["epochs"] == 3 and config["data_set"] == "mnist-embedded"
    assert config["splits"] == {"train": 4584, "validation": 416, "test": 1000}
    assert config["threads"] >= 1 and config["augmentation"] is None
    assert files["png"].read_bytes()[:4] == b"\x89PNG"

    from fastdl import data, models

    model, digits = models.load(files["save"]), data.load("mnist-embedded")
    assert model.score(digits.x_test, digits.y_test) == report["metrics"]["test_accuracy"]


def test_what_was_trained_is_kept_when_the_reader_has_gone(monkeypatch, tmp_path):
    """As in `fastdl train ... | head -1`, or with a full disk behind the output."""
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    weights, figures = tmp_path / "w.safetensors", tmp_path / "f.json"
    argv = ["train", "mnist-softmax", "--epochs", "1", "--save", str(weights), "--json", str(figures)]

    class Full(io.StringIO):
        def write(self, text):
            if "test accuracy" in text:
                raise OSError(28, "No space left on device")
            return super().write(text)

    with contextlib.redirect_stdout(Full()):
        assert cli.main(argv) == 2
    assert weights.exists() and json.loads(figures.read_text())["metrics"]


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    path = tmp_path / "run.ckpt"

    def pressed(name, config):
        path.write_bytes(b"a state")
        raise KeyboardInterrupt

    monkeypatch.setattr(recipes, "run", pressed)
    status, _, err = run(capsys, "train", "mnist-softmax")
    assert (status, err) == (130, "fastdl train: interrupted\n")
    status, _, err = run(capsys, "train", "mnist-softmax", "--checkpoint", str(path))
    assert (status, err) == (130, f"fastdl train: interrupted; --resume {path} goes on from there\n")


def test_command_line_in_a_process_of_its_own():
    """As installed: the status reaches the shell."""
    command = [sys.executable, "-m", "fastdl"]
    environment = {k: v for k, v in os.environ.items() if k != "FASTDL_DATA"}
    bad = subprocess.run([*command, "train", "nothing"], capture_output=True, text=True, timeout=60, env=environment)
    assert bad.returncode == 2 and "Traceback" not in bad.stderr and "'nothing'" in bad.stderr
    good = subprocess.run([*command, "info"], capture_output=True, text=True, timeout=60, env=environment)
    assert good.returncode == 0 and "targets" in good.stdout


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("FASTDL_TARGET", "nonsense", r"FASTDL_TARGET: expected one of [a-z0-9, ]+ on this machine; got 'nonsense'"),
        ("FASTDL_NUM_THREADS", "some", "FASTDL_NUM_THREADS: expected an integer from 1 to 512; got 'some'"),
        ("FASTDL_POOL", "maybe", "FASTDL_POOL: expected 0 or 1; got 'maybe'"),
    ],
)
def test_a_wrong_environment_is_one_line_for_the_command_alone(name, value, message, tmp_path):
    (tmp_path / "fastdl").write_text("import sys\nfrom fastdl.cli import main\nsys.exit(main())\n")  # as pip makes it
    environment = os.environ | {name: value, "PYTHONPATH": os.path.dirname(os.path.dirname(os.path.abspath(cli.__file__)))}

    def said(*command):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, env=environment)
        return done.returncode, done.stderr

    for command in ([str(tmp_path / "fastdl")], ["-m", "fastdl"], ["-Bmfastdl"]):
        status, err = said(*command, "info")
        assert status == 2 and re.fullmatch(f"fastdl: {message}\n", err), err
    # A program gets the error itself, whatever its own arguments are.
    (tmp_path / "program.py").write_text("import fastdl")
    for command in ([str(tmp_path / "program.py"), "fastdl"], ["-c", "import fastdl", "-m", "fastdl"]):
        status, err = said(*command)
        assert status == 1 and err.startswith("Traceback") and re.search(f"Error: {message}\n$", err), err


def test_the_command_line_imports_nothing_heavy():
    code = "import sys, fastdl.cli; fastdl.cli.parser(); print([m for m in sys.modules if m.split('.')[0] in " \
           "('matplotlib', 'torch', 'sklearn', 'jax', 'tqdm', 'safetensors', 'scipy')])"  # fmt: skip
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


def test_a_benchmark_called_from_python_leaves_the_process_alone(capsys, monkeypatch):
    """Started anew, in another environment, is only a command of its own."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("this process was replaced"))
    status, out, _ = run(capsys, "bench", "dispatch", "--only", "add 4, into out", "--rounds", "2")
    assert status == 0 and "add 4, into out" in out
