"""Recipes: each trains on real digits, reads the test part once, and gives the same weights for the same seed."""

import dataclasses
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import fastdl
from fastdl import data, get_num_threads, models, recipes, set_num_threads
from fastdl.models import RBM, RNNClassifier
from fastdl.recipes import Config, _common

MNIST = [name for name in recipes.NAMES if name.startswith("mnist")]


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv("FASTDL_DATA", raising=False)


@pytest.fixture
def threads():
    before = get_num_threads()
    yield
    set_num_threads(before)


# Least test accuracy on the embedded digits after so many epochs.
@pytest.mark.parametrize(
    "name, epochs, least",
    [
        ("mnist-softmax", 10, 0.86),
        ("mnist-perceptron", 3, 0.80),
        ("mnist-mlp", 4, 0.85),
        ("mnist-lenet", 4, 0.88),
        ("mnist-cnn", 2, 0.90),
    ],
)
def test_recipe_learns_embedded_digits(name, epochs, least):
    report = recipes.run(name, Config(epochs=epochs, seed=100))
    assert report.recipe == name and report.seconds > 0
    assert report.metrics["test_accuracy"] >= least
    assert abs(report.metrics["validation_accuracy"] - report.metrics["test_accuracy"]) < 0.08
    assert report.settings["epochs"] == epochs and report.settings["seed"] == 100
    assert len(report.model.history_["epoch"]) <= epochs


def test_unknown_recipe_is_named():
    with pytest.raises(ValueError, match=r"recipe: expected one of mnist-softmax, .*; got 'mnist-rnn'"):
        recipes.run("mnist-rnn")


@pytest.mark.parametrize("name", recipes.NAMES)
def test_every_recipe_says_what_it_is(name):
    module = recipes._module(name)
    assert recipes.title(name).endswith(".") and len(recipes.title(name)) < 100
    for word in ("Task:", "Network:", "Reference:"):
        assert word in module.__doc__
    assert module.EPOCHS and all(n >= 1 for n in module.EPOCHS.values())  # a number for each data set


def test_mlp_has_no_augmentation():
    assert recipes.run("mnist-mlp", Config(epochs=1)).settings["augmentation"] is None


def test_the_test_part_is_read_once_after_training(monkeypatch):
    """The test images are a class of their own here, and every reading of them is counted."""
    digits = data.load("mnist-embedded")
    read = []

    class Guarded:
        name, source, names = digits.name, digits.source, digits.names
        x_train, y_train, y_test = digits.x_train, digits.y_train, digits.y_test

        @property
        def x_test(self):
            read.append("x_test")
            return digits.x_test

    class Model:
        def __init__(self):
            self.history_ = {}

        def fit(self, x, y, *, validation, **options):
            assert len(x) + len(validation[0]) == 5000 and len(validation[0]) == 416
            read.append("fit")

        def score(self, x, y):
            read.append(f"score {len(x)}")
            return 0.5

    _common.fit_and_judge(Config(), Model(), Guarded(), epochs=1)
    assert read.count("score 1000") == 1
    assert read.index("score 1000") > read.index("fit")


def test_validation_is_the_last_part_of_the_training_images():
    digits = data.load("mnist-embedded")
    seen = {}

    class Model:
        def __init__(self):
            self.history_ = {}

        def fit(self, x, y, *, validation, **options):
            seen.update(x=x, valid=validation[0])

        def score(self, x, y):
            return 0.0

    _common.fit_and_judge(Config(), Model(), digits, epochs=1)
    assert np.array_equal(np.concatenate([seen["x"], seen["valid"]]), digits.x_train)


def test_same_seed_same_weights_with_any_number_of_threads(threads):
    def weights(count, seed):
        set_num_threads(count)
        return recipes.run("mnist-cnn", Config(epochs=1, seed=seed)).model.get_weights()

    one, two, other = weights(1, 100), weights(2, 100), weights(2, 101)
    assert all(np.array_equal(one[k], two[k]) for k in one)
    assert not all(np.array_equal(one[k], other[k]) for k in one)


@pytest.fixture
def table():
    """The script that makes the table of accuracies."""
    path = Path(__file__).resolve().parent.parent / "benchmarks" / "recipes.py"
    spec = importlib.util.spec_from_file_location("recipes_table", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_figures_of_another_commit_are_refused(table, monkeypatch, tmp_path, capsys):
    runs = []

    def run(command, **options):
        runs.append(command)
        figures = {"metrics": {"test_accuracy": 0.999, "validation_accuracy": 0.998}, "seconds": 1.0}
        Path(command[command.index("--json") + 1]).write_text(json.dumps(figures))

    monkeypatch.setattr(table.subprocess, "run", run)
    monkeypatch.setattr(table, "source", lambda: "first")
    arguments = ["mnist-mlp", "--data", "d", "--seeds", "0,1", "--out", str(tmp_path)]
    assert table.main(arguments) == 0
    assert table.main(arguments) == 0
    assert len(runs) == 2  # what is there is not repeated
    assert json.loads((tmp_path / "mnist-mlp-seed1.json").read_text())["commit"] == "first"
    monkeypatch.setattr(table, "source", lambda: "second")
    with pytest.raises(SystemExit, match="expected figures of commit second; got those of first"):
        table.main(arguments)
    assert table.main([*arguments, "--any-commit"]) == 0
    assert capsys.readouterr().out.endswith("Made at commit first.\n")
    assert len(runs) == 2


def test_every_run_is_known_and_its_bars_are_held_or_missed(table, tmp_path, capsys):
    known = table.all_runs()
    assert {"mnist-rbm-long", "shakespeare-lstm-long", "mnist-rows-lstm-pixels"} <= set(known)
    assert {bar.run for bar in table.BARS} <= set(known) and set(table.MINUTES) <= set(known)
    assert table.arguments_of("mnist-rows-lstm-permuted") == ["mnist-rows-lstm", "--permuted"]
    assert table.arguments_of("shakespeare-lstm") == ["shakespeare-lstm"]
    metrics = {
        "mnist-softmax-seed0": {"test_accuracy": 0.93},
        "mnist-autoencoder-seed0": {"test_sse": 3.2, "pca_sse": 13.0},
        "mnist-rows-lstm-pixels-seed1": {"test_accuracy": 0.9},
        "rbm-exact-seed0": {"log_z_exact": 10.0, "log_z_ais": 10.05},
        "diabetes-seed0": {"r2": 0.5, "baseline_r2": 0.4},
    }
    for name, found in metrics.items():
        report = {"metrics": found, "seconds": 7.4, "config": {"threads": 1, "machine": "C", "device": "cpu"}, "commit": "c"}
        (tmp_path / f"{name}.json").write_text(json.dumps(report))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\nstale rows\n{table.END}\nafter\n")
    assert table.main(["--table", "--out", str(tmp_path), "--write", str(page)]) == 1
    lines = [[c.strip() for c in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines() if "|" in line]
    verdicts = {(row[0], row[4]): row[6] for row in lines}
    assert verdicts["mnist-softmax", "≥ 0.92, each ≥ 0.92"] == "held by 1 of 3 seeds"
    assert verdicts["mnist-autoencoder", "≤ 3"] == "**missed**"
    assert verdicts["mnist-rows-lstm-pixels", "≥ 0.872"] == "held"
    assert verdicts["rbm-exact", "≤ `log_z_exact_high` (10.1)"] == "held"
    assert verdicts["diabetes", "≥ `baseline_r2` (0.4)"] == "held"
    assert next(row for row in lines if row[0] == "diabetes")[7:] == ["7", "C, 1 thread"]
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text and "**missed**" in text


def test_what_takes_long_is_run_only_when_asked(table, monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(table, "train", lambda run, seed, args, path, commit: asked.append(run) or path.write_text(
        json.dumps({"metrics": {}, "seconds": 1.0, "config": {}, "commit": commit})))  # fmt: skip
    monkeypatch.setattr(table, "source", lambda: "c")
    arguments = ["--data", "d", "--seeds", "0", "--out", str(tmp_path)]
    table.main(arguments)
    assert "mnist-softmax" in asked and "mnist-dbn" not in asked and "image-folder" not in asked
    table.main([*arguments, "--all"])
    assert set(asked) == set(table.all_runs()) and len(asked) == len(set(asked))
    with pytest.raises(SystemExit):
        table.main([*arguments, "mnist-what"])


def test_photographs_as_files_are_those_of_the_set(table, tmp_path):
    pytest.importorskip("PIL")
    r = np.random.default_rng(0)
    parts = {f"x_{p}": r.integers(0, 256, (n, 32, 32, 3), np.uint8) for p, n in (("train", 24), ("test", 12))}
    np.savez(tmp_path / "cifar10.npz", **parts, y_train=np.arange(24) % 10, y_test=np.arange(12) % 10)
    with table.photographs(tmp_path) as folder:
        assert sorted(p.name for p in Path(folder).iterdir()) == ["test", "train"]
        for part, n in (("train", 24), ("test", 12)):
            x, y, names = data.read_image_folder(Path(folder) / part, (32, 32))
            assert len(x) == n and len(names) == 10
            own = {image.tobytes(): label for image, label in zip(parts[f"x_{part}"], np.arange(n) % 10, strict=True)}
            given = data.load("cifar10", tmp_path).names
            assert [names[c] for c in y] == [given[own[image.tobytes()]] for image in x]
    assert not Path(folder).exists()


def test_the_source_of_figures_is_a_commit_or_a_version(table, monkeypatch, tmp_path):
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
        git = ["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b"]
        (tmp_path / "csrc").mkdir()
        (tmp_path / "python").mkdir()
        (tmp_path / "CMakeLists.txt").touch()
        code, words = tmp_path / "csrc" / "a.cpp", tmp_path / "README.md"
        code.write_text("1")
        monkeypatch.setattr(table, "ROOT", tmp_path)

        def commit():
            subprocess.run([*git, "add", "."], check=True)
            subprocess.run([*git, "commit", "-q", "-m", "-"], check=True)
            return table.source()

        first = commit()
        assert len(first) == 40
        words.write_text("words make no figure stale")
        assert commit() == first
        code.write_text("2")
        changed = table.source()
        assert changed.startswith(f"{first} with changes ")
        code.write_text("3")
        assert table.source() not in (first, changed)
        assert commit() not in (first, changed)
    monkeypatch.setattr(table, "ROOT", tmp_path / "nowhere")
    assert table.source() == f"version {fastdl.__version__}"


def test_cifar_needs_a_folder(tmp_path):
    with pytest.raises(data.MissingDataError, match="FASTDL_DATA"):
        recipes.run("cifar-cnn")
    rng = np.random.default_rng(0)
    (tmp_path / "cifar10-small").mkdir()
    y = np.arange(200) % 10
    x = np.clip(rng.integers(0, 60, (200, 32, 32, 3)) + 20 * y[:, None, None, None], 0, 255).astype(np.uint8)
    np.savez(tmp_path / "cifar10-small" / "cifar10_small.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    report = recipes.run("cifar-cnn", Config(data_dir=tmp_path, epochs=1))
    assert report.settings["data_set"] == "cifar10-small"
    assert report.settings["augmentation"]["flip"] is True
    recipes.save(report, tmp_path / "model.safetensors")
    again = models.load(tmp_path / "model.safetensors")
    assert again.architecture is recipes._module("cifar-cnn").network
    assert np.array_equal(again.predict_proba(x[:20]), report.model.predict_proba(x[:20]))


def test_table_of_epochs():
    lines = []
    recipes.run("mnist-softmax", Config(epochs=2, show=lines.append))
    head = next(i for i, line in enumerate(lines) if line.startswith("epoch"))
    assert "val. accuracy" in lines[head] and len(lines) == head + 3
    assert [int(line.split()[0]) for line in lines[head + 1 :]] == [1, 2]


def test_settings_name_what_was_augmented():
    fields = _common.changed(data.Augment(shift=2, rotate=10))
    assert fields == {"shift": 2, "rotate": 10}
    assert dataclasses.fields(data.Augment)


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    from fastdl import plot

    report = recipes.run("mnist-perceptron", Config(epochs=1))
    figure = plot.report_picture(tmp_path / "a.png", report)
    assert (tmp_path / "a.png").stat().st_size > 10_000
    wrong = round((1 - report.metrics["test_accuracy"]) * 1000)
    assert f"worst of {wrong} mistakes among 1000" in str(
        [s._suptitle.get_text() for s in figure.subfigs if s._suptitle]
    )


@pytest.mark.parametrize("test", [(), ([np.zeros((3, 2))], [0]), (np.zeros((2, 28, 28), np.uint8), [0, 1])],
                         ids=["none", "lists", "rows"])  # fmt: skip
def test_without_pictures_to_classify_the_curve_is_drawn(test, tmp_path):
    pytest.importorskip("matplotlib")
    for model in (RBM(2).fit(np.eye(3), epochs=2), RNNClassifier(2).fit(np.ones((4, 3, 1)), [0, 1, 0, 1], epochs=2)):
        recipes.picture(_common.Report({"test_accuracy": 1.0}, {}, model, test), tmp_path / "p.png")
        assert (tmp_path / "p.png").stat().st_size > 5000
        (tmp_path / "p.png").unlink()


def test_worst_mistakes_come_first():
    pytest.importorskip("matplotlib")
    import matplotlib

    matplotlib.use("agg")
    from fastdl import plot

    images = np.zeros((4, 5, 5, 1), np.uint8)
    p = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])
    used = plot.mistakes(images, np.array([0, 0, 0, 1]), p.argmax(1), p, count=3)
    assert [ax.get_title().split("\n")[1] for ax in used] == ["80% sure", "60% sure"]
    with pytest.raises(ValueError, match="images: expected as many"):
        plot.mistakes(images, np.zeros(3, int), p.argmax(1), p)


def test_filters_and_curves():
    pytest.importorskip("matplotlib")
    import matplotlib

    matplotlib.use("agg")
    from fastdl import plot

    for shape in ((3, 3, 1, 8), (5, 5, 3, 6), (784, 10)):
        assert plot.filters(np.random.default_rng(0).standard_normal(shape)).images
    with pytest.raises(ValueError, match="weights: expected filters"):
        plot.filters(np.zeros((3, 4)))
    ax = plot.learning_curve({"epoch": [1, 2], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5], "val_accuracy": [0.5, 0.7]})
    assert [line.get_label() for line in ax.get_lines()] == ["training loss", "validation loss"]
    with pytest.raises(ValueError, match="history: expected one epoch"):
        plot.learning_curve({"epoch": []})


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    import sys

    from fastdl import plot

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"fastdl-nn\[plot\]"):
        plot.require()


def test_demo(monkeypatch, tmp_path, capsys):
    """All stages, with one epoch and one kernel."""
    pytest.importorskip("matplotlib")
    from fastdl.recipes import demo

    monkeypatch.setattr(demo, "EPOCHS", 1)
    monkeypatch.setattr(demo, "ROWS", "^Bernoulli")
    before = get_num_threads()
    assert demo.run(tmp_path / "mnist-cnn.png", 1) == 0
    set_num_threads(before)
    out = capsys.readouterr().out
    assert "test accuracy: 0." in out and "Bernoulli(p) 50,000" in out and "numpy" in out
    assert (tmp_path / "mnist-cnn.png").stat().st_size > 10_000
