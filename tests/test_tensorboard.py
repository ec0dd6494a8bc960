"""TensorBoard's own reader finds what training recorded."""

import sys

import pytest

from fastdl.models import MLP
from fastdl.tensorboard import TensorBoard
from test_models import blobs


def test_curves_are_read_back(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    X, y = blobs(100)
    with TensorBoard(tmp_path / "run", every=5, histograms=True) as board:
        model = MLP((4,)).fit(X, y, epochs=3, batch_size=10, validation=0.2, callbacks=[board], on_step=[board.step])
        board.scalar("mine", 2.5, 7)
    found = accumulator.EventAccumulator(str(tmp_path / "run"), size_guidance={"histograms": 0})
    found.Reload()
    tags = found.Tags()
    wanted = {"epoch/loss", "epoch/val_loss", "epoch/val_accuracy", "epoch/lr", "step/loss", "step/lr", "mine"}
    assert wanted <= set(tags["scalars"])
    losses = found.Scalars("epoch/loss")
    assert [e.step for e in losses] == [1, 2, 3]
    assert [e.value for e in losses] == pytest.approx(model.history_["loss"], rel=1e-6)
    assert [e.step for e in found.Scalars("step/loss")] == [1, 5, 10, 15, 20]
    assert found.Scalars("mine")[0].value == 2.5
    assert "weights/layers.0.w" in tags["histograms"] and len(found.Histograms("weights/layers.0.w")) == 3


def test_wrong_arguments_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="every: expected a number of updates of at least 1; got 0"):
        TensorBoard(tmp_path, every=0)
    with pytest.raises(TypeError, match="folder: expected a path; got int"):
        TensorBoard(3)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder: expected a folder; got the file"):
        TensorBoard(tmp_path / "file")
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(ImportError, match=r"fastdl-nn\[tensorboard\]"):
        TensorBoard(tmp_path)
