"""The chooser: the rules, a look at arrays, and what it says where something is missing."""

import importlib.util

import numpy as np
import pytest

import fastdl
from fastdl import chooser, cli, models, recipes
from fastdl.chooser import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_every_task_has_an_answer(name):
    choice = fastdl.choose(name)
    assert choice.task == name and choice.reason and choice.baseline and choice.worth_it is None
    families = TASKS[name].families
    assert choice.family == (families[0] if families else None) and all(hasattr(models, f) for f in families)
    assert choice.recipe is None or choice.recipe in recipes.NAMES
    assert ("no recipe for this here" in str(choice)) == (choice.recipe is None)
    for other in TASKS[name].also:
        assert fastdl.choose(other).task == name
        assert fastdl.choose(other.upper()).task == name


def test_words_mean_one_task_each():
    words = [w for name, rule in TASKS.items() for w in (name, *rule.also)]
    assert len(words) == len(set(words))


def test_the_tutorials_rules():
    first = {name: rule.families for name, rule in TASKS.items()}
    assert first["unlabelled"] == ("RBM", "Autoencoder")
    assert first["sentiment"] == first["parsing"] == first["entities"] == ("RNTN", "RNNClassifier")
    assert set(first["image"]) == {"CNN", "DBN"} and set(first["object"]) == {"CNN", "RNTN"}
    assert first["speech"] == ("RNNClassifier",) and first["classification"] == ("MLP", "DBN")


def test_missing_families_are_told_and_new_ones_are_found(monkeypatch):
    monkeypatch.delattr(models, "RNNClassifier", raising=False)
    choice = fastdl.choose("speech")
    assert choice.family is None and choice.model is None and "RNNClassifier is not in this version" in choice.notes
    assert "none in this version" in str(choice)

    class RNNClassifier:
        def build(self, shape, classes):
            self.shape = shape
            return self

    monkeypatch.setattr(models, "RNNClassifier", RNNClassifier, raising=False)
    assert isinstance(fastdl.choose("speech").model, RNNClassifier)
    X = np.random.default_rng(0).standard_normal((40, 9, 3))
    choice = fastdl.choose(data=X, labels=np.arange(40) % 2)
    assert choice.task == "sequences" and choice.model.shape == (9, 3)


def points(n=500):
    return np.random.default_rng(1).standard_normal((n, 2))


def test_a_simple_pattern_needs_no_network():
    pytest.importorskip("sklearn")
    X = points()
    choice = fastdl.choose(data=X, labels=np.where(X.sum(1) > 0, "up", "down"))
    assert choice.task == "classification" and choice.family == "MLP"
    assert choice.judgement.verdict == "linear" and choice.worth_it is False
    assert "A deep net is not worth it" in str(choice)
    assert choice.model.classes_.tolist() == ["down", "up"] and choice.model.predict(X).shape == (500,)
    assert fastdl.choose(data=X, labels=(np.square(X).sum(1) > 1.4)).judgement.verdict == "kernel"


def test_a_complex_pattern_and_none():
    pytest.importorskip("sklearn")
    X = np.random.default_rng(0).uniform(-1, 1, (2000, 2))
    board = (np.floor((X + 1) * 2).sum(1) % 2).astype(int)
    assert fastdl.choose(data=X, labels=board).judgement.verdict == "complex"
    noise = fastdl.choose(data=X, labels=np.random.default_rng(5).integers(0, 2, 2000))
    assert noise.judgement.verdict == "no pattern" and noise.worth_it
    assert fastdl.choose(data=X, labels=board).judgement == fastdl.choose(data=X, labels=board).judgement


def test_quantities_images_series_and_text():
    pytest.importorskip("sklearn")
    X = points(200)
    X[3, 1] = np.nan  # a missing value
    choice = fastdl.choose(data=X, labels=2.5 * X[:, 0] + 0.01)
    assert (choice.task, choice.family, choice.judgement.verdict) == ("regression", "MLPRegressor", "linear")
    assert choice.model.predict(np.nan_to_num(X)).shape == (200,)
    assert fastdl.choose(data=points(200), labels=np.arange(200) ** 2).task == "regression"  # whole numbers, each its own
    two = fastdl.choose(data=points(80), labels=points(80))
    assert two.model.predict(points(80)).shape == (80, 2)
    digits = fastdl.data.load("mnist-embedded")
    images = fastdl.choose(data=digits.x_train[:400], labels=digits.y_train[:400])
    assert (images.task, images.family, images.worth_it) == ("image", "CNN", True)
    assert images.model.predict(digits.x_train[:3]).shape == (3,)
    rows = fastdl.choose("image", digits.x_train[:100].reshape(100, 784), digits.y_train[:100])
    assert rows.model.input_shape_ == (28, 28, 1)
    wrong = fastdl.choose("image", points(100), np.arange(100) % 2)
    assert wrong.model is None and "not built for these data" in str(wrong)
    assert fastdl.choose(data=np.arange(100.0)).task == "time series"
    assert fastdl.choose(data=points(20)).task == "unlabelled"
    assert fastdl.choose("time series", points(50)).model.input_shape_[-1] == 2
    assert fastdl.choose(data=["to be", "or not"]).model.module_.count() > 0
    assert fastdl.choose(data=["to be", "or not"]).task == "characters"
    assert fastdl.choose(data=["what a day", "dull"], labels=[1, 0]).task == "sentiment"
    assert fastdl.choose(data=points(20), labels=True).task == "classification"


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({}, ValueError, "task: expected one of unlabelled, .*, or data; got neither"),
        (dict(task="origami"), ValueError, r"task: expected one of unlabelled \(.*; got 'origami'"),
        (dict(data=np.array([1j])), TypeError, "data: expected an array of real numbers"),
        (dict(data=np.zeros((0, 3))), ValueError, "data: expected one sample or more"),
        (dict(data=points(20), labels=np.zeros(19)), ValueError, "labels: expected 20 of them"),
        (dict(data=points(20), labels=np.zeros(20)), ValueError, "labels: expected two classes or more; got one"),
        (dict(data=points(5), labels=np.arange(5) % 2), ValueError, "data: expected ten samples or more"),
    ],
)
def test_wrong_arguments_are_named(arguments, error, message):
    pytest.importorskip("sklearn")
    with pytest.raises(error, match=message):
        fastdl.choose(**arguments)


def test_without_scikit_learn_the_rule_still_stands(monkeypatch):
    import sys

    for name in ("sklearn", "sklearn.impute"):
        monkeypatch.setitem(sys.modules, name, None)
    choice = fastdl.choose(data=points(50), labels=np.arange(50) % 2)
    assert choice.family == "MLP" and choice.judgement is None
    assert any("fastdl-nn[sklearn]" in note for note in choice.notes)


@pytest.mark.parametrize(
    "words, task",
    [
        ("sentiment analysis", "sentiment"),
        ("Named-Entity Recognition", "entities"),
        ("time  series_analysis", "time series"),
        ("timeseries", "time series"),
        ("character level", "characters"),
        ("character-level", "characters"),
        ("object detection", "object"),
        ("image classification", "image"),
        ("face recognition", "image"),
        ("anomaly detection", "denoising"),
        ("feature extraction", "unlabelled"),
        ("text processing", "characters"),
    ],
)
def test_other_words_for_a_task(words, task):
    assert fastdl.choose(words).task == task


def test_labels_that_no_data_or_task_fit():
    with pytest.raises(ValueError, match="labels: expected the data they belong to, as well; got labels alone"):
        fastdl.choose("classification", labels=[0, 1])
    with pytest.raises(TypeError, match="labels: expected numbers, for the task regression; got strings"):
        fastdl.choose("regression", points(40), ["a", "b"] * 20)


def test_command_line(tmp_path, capsys):
    pytest.importorskip("sklearn")
    assert cli.main(["choose"]) == 2
    assert "sentiment" in capsys.readouterr().out
    assert cli.main(["choose", "time", "series"]) == 0
    assert "task      time series" in capsys.readouterr().out
    assert cli.main(["choose", "origami"]) == 2
    assert "task: expected one of" in capsys.readouterr().err
    X = points(60)
    rows = "\n".join(f"{a:.4f},{b:.4f},{int(a + b > 0)}" for a, b in X)
    (tmp_path / "mine.csv").write_text("left,right,up\n" + rows + "\n")
    assert cli.main(["choose", "--set", str(tmp_path / "mine.csv"), "--target", "up"]) == 0
    out = capsys.readouterr().out
    assert "task      classification" in out and "logistic regression" in out
    # Without a column to predict there are no labels, by file and by name.
    for name, task, said in ((str(tmp_path / "mine.csv"), (), "unlabelled"), ("mine", ("time", "series"), "time series")):
        assert cli.main(["choose", *task, "--set", name, "--data", str(tmp_path)]) == 0
        assert f"task      {said}" in capsys.readouterr().out
    assert cli.main(["choose", "classification", "--target", "up"]) == 2
    assert "target: expected --set, too" in capsys.readouterr().err
    assert chooser.__doc__


def test_complexity_sweep(monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    from fastdl.recipes import complexity_sweep

    monkeypatch.setattr(complexity_sweep, "LEVELS", (1, 4))
    monkeypatch.setattr(complexity_sweep, "TRAIN", 1500)
    report = recipes.run("complexity-sweep", recipes.Config(epochs=25, seed=100))
    metrics = report.metrics
    if importlib.util.find_spec("matplotlib"):
        recipes.picture(report, tmp_path / "sweep.png")
        assert (tmp_path / "sweep.png").stat().st_size > 5000
    assert metrics["linear_1"] > 0.98 and metrics["linear_4"] < 0.6
    assert metrics["deep_4"] > 0.85 and metrics["svm_4"] > 0.8


NUMBERS = np.random.default_rng(2)
TABLE = NUMBERS.random((60, 6))
KINDS = np.arange(60) % 2


@pytest.mark.parametrize(
    ("given", "task", "family"),
    [
        (dict(data=TABLE, labels=KINDS[:, None]), "classification", "MLP"),
        (dict(data=TABLE, labels=np.eye(2)[KINDS]), "classification", "MLP"),
        (dict(data=TABLE, labels=TABLE[:, :2]), "regression", "MLPRegressor"),
        (dict(data=[np.ones((n % 3 + 2, 2)) * n for n in range(60)], labels=KINDS), "sequences", "RNNClassifier"),
        (dict(data=[np.ones(n % 3 + 2) * n for n in range(60)], labels=KINDS), "sequences", "RNNClassifier"),
        (dict(data=np.array(["good film", "bad film"] * 30), labels=KINDS), "sentiment", "RNTN"),
        (dict(data=np.array(["good film", "bad film"], object)), "characters", "CharLM"),
        (dict(data="hello world"), "characters", "CharLM"),
    ],
)
def test_what_data_are_is_seen(given, task, family):
    pytest.importorskip("sklearn")
    choice = fastdl.choose(**given)
    assert (choice.task, choice.family) == (task, family)
    if isinstance(given["data"], list):
        assert choice.model.predict(given["data"]).shape == (60,)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        (dict(data=TABLE, labels=[None] * 60), TypeError, "labels: expected numbers or strings, one kind for all"),
        (dict(data=TABLE, labels=np.array([1, "a"] * 30, object)), TypeError, "labels: expected numbers or strings"),
        (dict(data=TABLE, labels=["a", 1] * 30), TypeError, "labels: expected numbers or strings, one kind for all; got some of"),
        (dict(data=np.ma.masked_greater(TABLE, 0.9), labels=KINDS), TypeError, "data: expected an array without masked elements"),
        (dict(data=TABLE, labels=np.ma.masked_equal(KINDS, 1)), TypeError, "labels: expected an array without masked elements"),
        (dict(data=np.where(TABLE > 0.9, np.inf, TABLE), labels=KINDS), ValueError, "data: expected finite numbers, or NaN"),
        (dict(data=TABLE[:, :0], labels=KINDS), ValueError, "data: expected one sample or more, of one value or more"),
        (dict(data=["a", "b"], labels=[1]), ValueError, "labels: expected 2 of them"),
        (dict(task="classification", data=TABLE, labels=TABLE[:, 0]), ValueError, "labels: expected classes"),
    ],
)
def test_odd_data_are_named(given, kind, message):
    with pytest.raises(kind, match=message):
        fastdl.choose(**given)


@pytest.mark.parametrize("task", ["unlabelled", "denoising", "generation"])
def test_the_model_suits_the_range_of_the_data(task):
    wide = fastdl.choose(task, TABLE * 10 - 5).model
    more = {"batch_size": 10, "on_collapse": "ignore"} if task == "generation" else {}
    wide.fit(TABLE * 10 - 5, epochs=1, lr=1e-4, **more)
    assert repr(fastdl.choose(task, TABLE).model) != repr(wide)


def test_a_model_whose_shape_needs_labels_is_not_built():
    choice = fastdl.choose("image", NUMBERS.random((10, 8, 8)))
    assert not hasattr(choice.model, "module_") and any("depends on the labels" in note for note in choice.notes)


def test_a_table_of_numbers_and_booleans_is_one_of_numbers():
    x = np.random.default_rng(0).normal(size=(40, 3))
    mixed = np.column_stack([x.astype(object), x[:, 0] > 0])
    assert fastdl.choose("classification", mixed, x[:, 1] > 0).family == "MLP"
    mixed[3, 0] = "many"
    with pytest.raises(TypeError, match="data: expected an array of real numbers; got a str, 'many'"):
        fastdl.choose("classification", mixed, x[:, 1] > 0)
