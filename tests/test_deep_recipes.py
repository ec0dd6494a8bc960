"""Recipes of very deep networks, small."""

import numpy as np
import pytest

from fastdl import diagnostics, recipes
from fastdl.recipes import Config, cifar_resnet, mnist_1000_layers


@pytest.fixture(autouse=True)
def no_folder(monkeypatch):
    monkeypatch.delenv("FASTDL_DATA", raising=False)


def test_sixty_layers(monkeypatch):
    monkeypatch.setattr(mnist_1000_layers, "LAYERS", 60)
    lines = []
    report = recipes.run("mnist-1000-layers", Config(epochs=3, seed=100, show=lines.append))
    assert report.metrics["naive_verdict"] == "vanishing" and report.metrics["naive_accuracy"] < 0.2
    assert report.metrics["test_accuracy"] > 0.75 and report.metrics["orthogonal_accuracy"] > 0.6
    assert any(line.startswith("the doctor: vanishing") for line in lines)
    assert diagnostics.cap_depth(report.model) == 61


def test_a_thousand_layers_are_as_deep_as_they_say():
    for network in (mnist_1000_layers.tanh_network("orthogonal"), mnist_1000_layers.residual_network):
        net = network(10).build((28, 28, 1), seed=0)
        assert diagnostics.cap_depth(net, (28, 28, 1)) == 1001
    x = np.random.default_rng(0).random((32, 28, 28, 1), np.float32)
    assert diagnostics.examine(net, x, np.arange(32) % 10).verdict == "healthy"


def test_residual_beside_plain(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "cifar10-small").mkdir()
    y = np.arange(60) % 10
    x = np.clip(rng.integers(0, 60, (60, 32, 32, 3)) + 20 * y[:, None, None, None], 0, 255).astype(np.uint8)
    np.savez(tmp_path / "cifar10-small" / "cifar10_small.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    report = recipes.run("cifar-resnet", Config(data_dir=tmp_path, epochs=1))
    assert set(report.metrics) >= {"test_accuracy", "plain_accuracy"} and report.metrics["depth"] == 20
    plain = cifar_resnet.network(False)(10).build((32, 32, 3), seed=0)
    assert diagnostics.cap_depth(plain, (32, 32, 3)) == 20
