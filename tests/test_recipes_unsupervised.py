"""Recipes without labels: each runs on the embedded digits, with figures that make sense, and draws its picture."""

import numpy as np
import pytest

from fastdl import recipes
from fastdl.recipes import Config, _digits
from fastdl.recipes.digit_novelty import area
from fastdl.recipes.mnist_denoise import median


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path_factory):
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    monkeypatch.setenv("FASTDL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def draw(report, path):
    pytest.importorskip("matplotlib")
    recipes.picture(report, path)
    assert path.stat().st_size > 10_000


def test_autoencoder(tmp_path):
    lines = []
    report = recipes.run("mnist-autoencoder", Config(epochs=1, seed=100, show=lines.append))
    m = report.metrics
    assert 10 < m["pca_sse"] < 16 and m["test_sse"] < 50 and abs(m["test_sse"] - m["validation_sse"]) < 8
    assert report.settings["epochs"] == 1 and report.settings["splits"]["train"] == 4584
    assert sum(line.split()[:1] in (["1"], ["2"]) for line in lines) == 1
    draw(report, tmp_path / "a.png")
    recipes.save(report, tmp_path / "a")
    recipes.write_json(report, tmp_path / "a.json")


def test_denoise(tmp_path):
    report = recipes.run("mnist-denoise", Config(epochs=4, seed=100))
    m = report.metrics
    assert max(m["test_sse"], m["median_sse"], m["pca_sse"]) < 0.6 * m["noisy_sse"]
    assert report.settings["median_window"] == 3 and report.settings["noise"] == "salt 0.3"
    draw(report, tmp_path / "a.png")


def test_novelty(tmp_path):
    report = recipes.run("digit-novelty", Config(epochs=1, seed=100))
    m = report.metrics
    assert {f"auc_{d}" for d in range(10)} | {"auc", "pca_auc"} <= m.keys()
    assert m["auc"] == pytest.approx(np.mean([m[f"auc_{d}"] for d in range(10)]))
    assert m["pca_auc"] > 0.55 and m["auc_1"] < m["pca_auc_2"]  # a one is easy to give back, whoever has not seen it
    draw(report, tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore:mode collapse")
def test_generators_and_their_judge(tmp_path):
    report = recipes.run("mnist-gan", Config(epochs=1, seed=100))
    m = report.metrics
    assert m["frechet_data"] < m["frechet_mixture"] < m["frechet"] and m["judge_accuracy"] > 0.85
    assert 0 <= m["min_share"] <= 1 <= m["max_share"] and 0 <= m["classes"] <= 10 and 0 <= m["copies"] <= 1
    assert m["frechet_mixture_full"] < m["frechet_mixture"] and np.isfinite(m["parzen"])
    draw(report, tmp_path / "a.png")
    digits = _digits.Digits(Config(epochs=1))
    (kept,) = _digits._cache().glob("judge-mnist-embedded-*")
    before = kept.stat().st_mtime_ns
    assert _digits.judge(digits)[1] == m["judge_accuracy"] and kept.stat().st_mtime_ns == before
    kept.write_bytes(b"damaged")
    assert _digits.judge(digits)[1] == m["judge_accuracy"] and kept.stat().st_size > 1000


def test_dcgan_makes_digits_and_its_options_are_those_of_fit(monkeypatch):
    from fastdl.recipes import mnist_dcgan

    def train(config, digits, model, epochs, **options):
        model.fit(digits.x[:64], epochs=epochs, on_collapse="ignore", **options)
        return {"shape": model.sample(2).shape}, options, None

    monkeypatch.setattr(mnist_dcgan, "train_gan", train)
    report = recipes.run("mnist-dcgan", Config(epochs=1, seed=100))
    assert report.metrics["shape"] == (2, 28, 28, 1)
    assert report.settings == mnist_dcgan.OPTIONS | {"device": "cpu"}


def test_a_beat_that_comes_too_early_is_strange(tmp_path):
    import gzip

    from fastdl.recipes.digit_novelty import electrocardiogram

    assert electrocardiogram(Config()) is None
    t = np.arange(7500)
    beats = np.array([b for b in range(150, 7400, 290) if b != 5950] + [5860])  # one of the second half
    signal = np.exp(-0.5 * ((t[:, None] - beats) / 4) ** 2).sum(1) + 0.02 * np.sin(t / 50)
    (tmp_path / "timeseries").mkdir()
    with gzip.open(tmp_path / "timeseries" / "mitdb_ecg.csv.gz", "wt") as file:
        file.write("data,label\n" + "\n".join(f"{v:.4f},0" for v in signal))
    _, _, places, errors = electrocardiogram(Config(data_dir=tmp_path, seed=100))
    assert abs(places[np.argmax(errors)] + 3750 - 5660) < 5 and np.sort(errors)[-3] < 0.2 * errors.max()


def test_area_under_the_curve():
    assert area([1, 2, 3, 4], [False, False, True, True]) == 1.0
    assert area([1, 2, 3, 4], [True, True, False, False]) == 0.0
    assert area([1, 1, 1], [True, False, False]) == 0.5
    assert area([1, 3, 2, 4], [False, False, True, True]) == 0.75
    with pytest.raises(ValueError, match="positive: expected samples of both kinds"):
        area([1, 2], [True, True])


def test_median_filter():
    x = np.random.default_rng(0).random((3, 6, 5)).astype(np.float32)
    y = median(x, 3)
    assert y[1, 2, 3] == np.median(x[1, 1:4, 2:5])
    assert y[0, 0, 0] == np.median(x[0, [0, 0, 1]][:, [0, 0, 1]])
    lonely = np.zeros((1, 9, 9), np.float32)
    lonely[0, 4, 4] = 1
    assert not median(lonely, 5).any()
