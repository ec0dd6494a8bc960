"""Recipes on tables, pictures and control: their parts are right, and each runs on made data."""

import csv
import importlib.util
import json

import numpy as np
import pytest

from fastdl import backend, data, recipes
from fastdl.random import Stream
from fastdl.recipes import Config, _tabular, cartpole, face_detect, image_folder


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv("FASTDL_DATA", raising=False)


# ------------------------------------------------------------------------------------------------------ tables


def test_scores_agree_with_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    p = np.round(np.clip(0.3 * y + 0.7 * rng.random(300), 0, 1), 1)  # with ties
    assert _tabular.auc(p, y) == pytest.approx(metrics.roc_auc_score(y, p), abs=1e-12)
    found = _tabular.figures(p, y)
    assert found["brier"] == pytest.approx(metrics.brier_score_loss(y, p))
    assert found["accuracy"] == metrics.accuracy_score(y, p > 0.5)
    assert found["sensitivity"] == metrics.recall_score(y, p > 0.5)


def test_calibration_undoes_a_wrong_scale():
    rng = np.random.default_rng(1)
    z = rng.standard_normal(4000) * 2
    y = (rng.random(4000) < _tabular.sigmoid(z)).astype(np.int64)
    a, b = _tabular.platt(5.0 * z + 3.0, y)
    assert a == pytest.approx(0.2, abs=0.02) and b == pytest.approx(-0.6, abs=0.15)
    p = np.array([0.1, 0.2, 0.6, 0.9])
    assert _tabular.threshold(p, np.array([0, 0, 1, 1])) == pytest.approx(0.4)
    assert _tabular.log_loss_of_logits(np.array([1e4, -1e4]), np.array([1, 0])) == 0.0


def test_folds_are_even_and_follow_the_rows():
    rng = np.random.default_rng(2)
    x, y = rng.random((103, 4)), np.arange(103) % 3
    place = _tabular.folds(x, y, 10)
    assert np.bincount(place).min() >= 9
    order = rng.permutation(103)
    assert np.array_equal(_tabular.folds(x[order], y[order], 10), place[order])
    x[5, 2] = np.nan
    scaled = _tabular.Scale(x)(x)
    assert np.isfinite(scaled).all() and scaled[5, 2] == 0.0


def write_table(folder, name, columns, rows):
    (folder / "medical").mkdir(exist_ok=True)
    with open(folder / "medical" / f"{name}.csv", "w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


def made(n, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3))
    return x, (x[:, 0] + x[:, 1] + 0.3 * rng.standard_normal(n) > 0).astype(int)


@pytest.fixture
def quick(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(_tabular, "OUTER", 3)
    monkeypatch.setattr(_tabular, "INNER", 2)
    monkeypatch.setattr("fastdl.recipes.diabetes.OUTER", 3)


def test_two_classes(quick, tmp_path):
    x, y = made(120)
    words = np.array(["mild", "none", "strong"])[np.arange(120) % 3]
    rows = [[f"{a:.4f}", f"{b:.4f}", "?" if i == 7 else f"{c:.4f}", w, int(t)]
            for i, ((a, b, c), w, t) in enumerate(zip(x, words, y, strict=True))]  # fmt: skip
    write_table(tmp_path, "heart_disease", ["a", "b", "c", "pain", "diameter narrowing"], rows)
    report = recipes.run("heart-disease", Config(data_dir=tmp_path, epochs=15))
    assert report.settings["columns"] == 6  # three numbers and three words
    recipes.write_json(report, tmp_path / "heart.json")
    written = json.loads((tmp_path / "heart.json").read_text())["config"]
    assert written["predicted"] == "diameter narrowing" and written["target"] == backend.target
    assert not {"target", "fastdl"} & set(report.settings)  # else the file would lose them
    assert report.metrics["test_accuracy"] > 0.85 and report.metrics["baseline_accuracy"] > 0.85
    assert 0 < report.metrics["threshold"] < 1 and report.metrics["brier"] < 0.15
    if importlib.util.find_spec("matplotlib"):
        recipes.picture(report, tmp_path / "heart.png")
        assert (tmp_path / "heart.png").stat().st_size > 5000


def test_quantities(quick, tmp_path):
    x, _ = made(100)
    rows = [[*(f"{v:.4f}" for v in r), f"{150 + 40 * r[0] - 20 * r[2]:.2f}"] for r in x]
    write_table(tmp_path, "diabetes_progression", ["a", "b", "c", "progression"], rows)
    report = recipes.run("diabetes", Config(data_dir=tmp_path, epochs=40))
    assert report.metrics["r2"] > 0.8 and report.metrics["baseline_r2"] > 0.99


@pytest.mark.parametrize("name", ["heart-disease", "breast-cancer", "diabetes", "face-detect", "image-folder", "cats-dogs"])
def test_without_a_folder_it_is_named(name):
    pytest.importorskip("sklearn")
    with pytest.raises(data.MissingDataError, match="FASTDL_DATA"):
        recipes.run(name)


@pytest.mark.parametrize("name", ["heart-disease", "breast-cancer", "diabetes", "cartpole", "complexity-sweep", "face-detect",
                                  "copy-memory", "digits-rbm-pipeline"])  # fmt: skip
def test_a_checkpoint_is_refused_where_there_is_none(name, tmp_path):
    with pytest.raises(ValueError, match="checkpoint: expected none"):
        recipes.run(name, Config(checkpoint=tmp_path / "a"))
    with pytest.raises(ValueError, match="resume: expected none"):
        recipes.run(name, Config(resume=tmp_path / "a"))


def test_forecasts_go_on_where_they_stopped(tmp_path, monkeypatch):
    from fastdl.recipes import forecast_lstm

    made = {"seattle": np.sin(np.arange(90) / 3), "sunspots": np.cos(np.arange(80) / 4) + np.arange(80) % 3}
    monkeypatch.setattr(forecast_lstm, "series", lambda config: made)
    monkeypatch.setattr(forecast_lstm, "WINDOWS", {"seattle": (4, 7), "sunspots": (4,)})
    monkeypatch.setattr(forecast_lstm, "SEASON", {"seattle": 19, "sunspots": 1})
    want = recipes.run("forecast-lstm", Config(epochs=2))
    for name in ("mae_seattle", "mae_naive_seattle", "mae_ridge_sunspots"):
        low, mean, high = (want.metrics[name + end] for end in ("_low", "", "_high"))
        assert low < mean < high and mean - low == pytest.approx(high - mean)
    assert want.settings["intervals"] == "95 %, normal, over 10 blocks of the test part"

    class Killed(BaseException):
        pass

    fits, fit = [], forecast_lstm.Forecaster.fit

    def stopped(model, *args, **options):
        fits.append(options["epochs"])
        if len(fits) == 6:  # after four tries and the chosen one of the first series
            options["callbacks"] = [kill]
        return fit(model, *args, **options)

    def kill(state):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(forecast_lstm.Forecaster, "fit", stopped)
        with pytest.raises(Killed):
            recipes.run("forecast-lstm", Config(epochs=2, checkpoint=tmp_path / "c"))
    written = sorted(path.name for path in tmp_path.iterdir())
    assert len(written) == 5 and "c.seattle.4.1" in written and any(n.startswith("c.seattle.chosen") for n in written)
    again = recipes.run("forecast-lstm", Config(epochs=2, resume=tmp_path / "c"))
    assert again.metrics == want.metrics and again.settings == want.settings
    assert len(list(tmp_path.iterdir())) == 8


def test_the_residual_network_is_timed_alone(monkeypatch):
    from fastdl.recipes import mnist_1000_layers

    monkeypatch.setattr(mnist_1000_layers, "LAYERS", 6)
    report = recipes.run("mnist-1000-layers", Config(epochs=1, seed=100))
    seconds = report.metrics["residual_seconds"]
    assert 0 < seconds < report.seconds and seconds == sum(report.model.history_["seconds"])


# ----------------------------------------------------------------------------------------------------- control


def test_the_simulation_keeps_its_equations():
    carts = cartpole.CartPole(2, Stream(0))
    carts.state = np.array([[0.1, -0.2, 0.03, 0.4], [0.0, 0.0, 0.2, 3.0]])
    carts.push(np.array([True, False]))
    # by hand, from Barto, Sutton & Anderson (1983) with a pole of half length 0.5 m
    sin, cos = np.sin(0.03), np.cos(0.03)
    push = (10 + 0.05 * 0.16 * sin) / 1.1
    turning = (9.8 * sin - cos * push) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    speeding = push - 0.05 * turning * cos / 1.1
    want = [0.1 - 0.004, -0.2 + 0.02 * speeding, 0.03 + 0.008, 0.4 + 0.02 * turning]
    np.testing.assert_allclose(carts.state[0], want, rtol=1e-12)
    assert carts.up.tolist() == [True, False]
    fallen = carts.state[1].copy()
    carts.push(np.array([True, True]))
    np.testing.assert_array_equal(carts.state[1], fallen)


def test_a_policy_learns():
    report = recipes.run("cartpole", Config(epochs=20, seed=100))
    means = report.model.history_["steps"]
    assert np.mean(means[-4:]) > 2 * np.mean(means[:4])
    assert report.metrics["mean_steps"] > 4 * report.metrics["random_steps"]
    again = recipes.run("cartpole", Config(epochs=2, seed=100)).model.history_["steps"]
    assert again == means[:2]


# ---------------------------------------------------------------------------------------------------- pictures


def test_faces_are_found_where_they_are():
    faces = np.zeros((8, 25, 25), np.uint8)
    faces[:, 5:20, 5:20] = 200
    others = np.zeros((30, 25, 25), np.uint8)
    picture, places = face_detect.scene(faces, others, Stream(3))
    assert picture.shape == (150, 150) and len(places) == 6
    # one where the middle is bright and the edge is dark
    bright = lambda p: (p[:, 5:20, 5:20].mean((1, 2, 3)) - p[:, :5].mean((1, 2, 3)) - p[:, 20:].mean((1, 2, 3))) / 200.0
    hits, alarms = face_detect.matched(face_detect.find(bright, picture, 0.9), places)
    assert (hits, alarms) == (6, 0)
    assert face_detect.matched(np.array([[0, 0], [1, 1], [90, 90]]), np.array([[0, 0]])) == (1, 2)


def test_face_detection_runs(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(face_detect, "FOLDS", 2)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 80, (40, 25, 25)).astype(np.uint8)
    images[:20, 5:20, 5:20] += 150
    (tmp_path / "faces-lfw-subset").mkdir()
    np.savez(tmp_path / "faces-lfw-subset" / "lfw_subset.npz", images=images, is_face=np.arange(40) < 20)
    report = recipes.run("face-detect", Config(data_dir=tmp_path, epochs=3))
    assert report.metrics["test_accuracy"] > 0.7 and 0 <= report.metrics["found"] <= 1


def test_a_folder_of_ones_own_pictures(tmp_path):
    pytest.importorskip("sklearn")
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for name, colour in (("grass", (40, 160, 40)), ("sky", (80, 120, 220))):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(30):
            pixels = np.clip(np.array(colour) + rng.normal(0, 25, (20, 24, 3)), 0, 255).astype(np.uint8)
            image.fromarray(pixels).save(tmp_path / "mine" / name / f"{i}.png")
    report = recipes.run("image-folder", Config(data_dir=tmp_path / "mine", epochs=3))
    assert report.names == ("grass", "sky") and report.metrics["test_accuracy"] > 0.9
    assert report.metrics["baseline_accuracy"] > 0.9
    (tmp_path / "one").mkdir()
    (tmp_path / "mine" / "sky").rename(tmp_path / "one" / "sky")
    with pytest.raises(ValueError, match="two names or more"):
        recipes.run("image-folder", Config(data_dir=tmp_path / "one"))


def plain_pictures(folder, counts, same=False):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(len(counts))
    for name, n in counts.items():
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = np.zeros((8, 8, 3), np.uint8) if same else rng.integers(0, 255, (8, 8, 3)).astype(np.uint8)
            image.fromarray(pixels).save(folder / name / f"{i}.png")
    return folder


def test_a_fifth_of_each_name_is_set_aside(tmp_path):
    dataset = image_folder.pictures(plain_pictures(tmp_path / "a", {"few": 7, "many": 33}))
    assert np.bincount(dataset.y_test).tolist() == [1, 7] and len(dataset.x_train) == 32
    # Whatever the files are called, and whatever else is there, the same pictures are.
    for i, path in enumerate(sorted((tmp_path / "a" / "few").iterdir())):
        path.rename(path.with_name(f"{100 - i}.png"))
    plain_pictures(tmp_path / "a", {"third": 12})
    again = image_folder.pictures(tmp_path / "a")
    np.testing.assert_array_equal(again.x_test[:8], dataset.x_test)
    x = np.repeat(np.arange(3, dtype=np.uint8), [2, 1, 2])[:, None]
    held = image_folder.set_aside(x, np.array([0, 0, 0, 1, 1]))
    assert held[0] == held[1] and held[:3].sum() in (1, 2) and held[3:].all()  # copies together


@pytest.mark.parametrize(
    ("counts", "same", "message"),
    [
        ({"a": 1}, False, "data: expected folders of two names or more; got a"),
        ({"a": 9}, False, "data: expected folders of two names or more; got a"),
        ({"a": 1, "b": 1}, False, "so ten of each or more; got 1 of a, 1 of b"),
        ({"a": 2, "b": 1}, False, "so ten of each or more; got 2 of a, 1 of b"),
        ({"a": 9, "b": 9}, True, "data: expected different pictures of each name, .*; got 9 of a, 9 of b"),
    ],
)
def test_too_few_pictures_are_counted(tmp_path, counts, same, message):
    with pytest.raises(ValueError, match=message):
        recipes.run("image-folder", Config(data_dir=plain_pictures(tmp_path / "mine", counts, same), epochs=1))


def test_a_handful_of_pictures_is_enough(tmp_path):
    pytest.importorskip("sklearn")
    report = recipes.run("image-folder", Config(data_dir=plain_pictures(tmp_path / "mine", {"a": 6, "b": 6}), epochs=1))
    assert report.settings["splits"]["test"] == 2


def test_cats_and_dogs_run(tmp_path):
    pytest.importorskip("sklearn")
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    x = np.clip(rng.integers(0, 90, (80, 32, 32, 3)) + 80 * y[:, None, None, None], 0, 255).astype(np.uint8)
    (tmp_path / "cifar10-small").mkdir()
    np.savez(tmp_path / "cifar10-small" / "cats_dogs_32.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    report = recipes.run("cats-dogs", Config(data_dir=tmp_path, epochs=1))
    assert report.names == ("cat", "dog") and report.metrics["baseline_accuracy"] > 0.9


def test_half_faces_are_filled_in(tmp_path, monkeypatch):
    from fastdl.recipes import faces_impute

    rng = np.random.default_rng(0)
    kinds = np.repeat([[20, 90], [60, 60], [90, 20]], [13, 12], axis=1)[:, :, None]  # the upper half tells the lower
    images = (kinds[np.arange(120) % 3] + rng.integers(0, 40, (120, 25, 25))).astype(np.uint8)
    (tmp_path / "faces-lfw-subset").mkdir()
    np.savez(tmp_path / "faces-lfw-subset" / "lfw_subset.npz", images=images, is_face=np.arange(120) < 100)
    config = Config(data_dir=tmp_path, epochs=3, seed=100)
    parts = faces_impute.faces(config)
    assert [len(p) > 5 for p in parts] == [True] * 3 and sum(map(len, parts)) == 100
    rows = np.concatenate(parts).reshape(100, -1)
    assert len(np.unique(rows, axis=0)) == 100  # in one part each
    report = recipes.run("faces-impute", config)
    m = report.metrics

    assert report.settings["augmentation"] == {"shift": 1, "flip": True}
    assert m["rbm_mse"] < 0.6 * m["mean_mse"] and m["pca_mse"] < 0.6 * m["mean_mse"]
    if importlib.util.find_spec("matplotlib"):
        recipes.picture(report, tmp_path / "faces.png")
        assert (tmp_path / "faces.png").stat().st_size > 5000


def test_linear_filling_is_the_normal_expectation():
    from fastdl.recipes.faces_impute import Linear

    rng = np.random.default_rng(1)
    x = rng.standard_normal((5000, 2)) @ rng.standard_normal((2, 4)) + 0.1 * rng.standard_normal((5000, 4))
    shown = np.array([True, True, True, False])
    filled = Linear(x, 2).fill(x[:50], shown)
    c = np.cov(x.T)
    expected = x.mean(0)[3] + (x[:50, :3] - x.mean(0)[:3]) @ np.linalg.solve(c[:3, :3], c[:3, 3])
    np.testing.assert_allclose(filled[:, 3], expected, atol=0.05)
    np.testing.assert_array_equal(filled[:, :3], x[:50, :3])


def test_features_and_regression_are_one_pipeline(monkeypatch):
    """For every C, and for the best once more, the whole Pipeline is fitted to the training part and to nothing else."""
    pytest.importorskip("sklearn")
    from sklearn.neural_network import BernoulliRBM
    from sklearn.pipeline import Pipeline

    from fastdl.models import RBM
    from fastdl.recipes import digits_rbm_pipeline as recipe

    x, y = recipe.nudged()
    monkeypatch.setattr(recipe, "nudged", lambda: (x[:500], y[:500]))
    monkeypatch.setattr(recipe, "STRENGTHS", (0.01, 1.0))
    monkeypatch.setattr(recipe, "HIDDEN", 8)
    pipelines, machines = [], []

    def watched(kind, seen):
        fit = kind.fit

        def record(self, X, *args, **options):
            seen.append((self, X, *args))
            return fit(self, X, *args, **options)

        monkeypatch.setattr(kind, "fit", record)

    watched(Pipeline, pipelines), watched(RBM, machines), watched(BernoulliRBM, machines)
    report = recipes.run("digits-rbm-pipeline", Config(epochs=2))
    assert report.settings["splits"] == {"train": 320, "validation": 80, "test": 100}
    assert len(pipelines) == 9 and len(machines) == 6
    train = pipelines[0][1]
    for pipeline, X, labels in pipelines:
        assert X is train and X.shape == (320, 64) and len(labels) == 320
        assert (pipeline.steps[0][0] == "logistic") == (len(pipeline) == 1) and pipeline.steps[-1][0] == "logistic"
    assert all(X is train for _, X, *_ in machines)
    for way, each in zip(("pixels", "sklearn_rbm", "rbm"), (pipelines[i : i + 3] for i in (0, 3, 6)), strict=True):
        *tried, chosen = (p for p, *_ in each)
        assert [p[-1].C for p in tried] == [0.01, 1.0] and report.settings["C"][way] == chosen[-1].C
        error, seconds = report.metrics[f"{way}_error"], report.metrics[f"{way}_seconds"]
        assert 0 < error < 1 and seconds > 1e-4
        assert chosen.steps[0][0] in (way, "logistic")
    ours, theirs = (p[0] for p, *_ in (pipelines[-1], pipelines[5]))
    assert ours is report.model and ours.hidden == theirs.n_components == 8
    assert len(ours.history_["epoch"]) == theirs.n_iter == 2
