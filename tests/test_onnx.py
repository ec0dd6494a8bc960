"""ONNX export: what ONNX Runtime makes of the file is what fastdl gives."""

import numpy as np
import pytest

from fastdl import models, nn, onnx, train
from fastdl.models import CNN, MLP, CNNRegressor, MLPRegressor, SoftmaxRegression
from test_models import blobs, stripes

runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")


def run(proto, **inputs):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = runtime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, inputs), strict=True))


def agrees(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(want).max())))


@pytest.mark.parametrize("model", [MLP((16, 8)), MLP((16,), "gelu", 0.2, "batch"), MLP((16,), "leaky_relu", norm="layer"),
                                   SoftmaxRegression()], ids=str)  # fmt: skip
def test_dense_classifiers(model, tmp_path):
    X, y = blobs(100)
    model.fit(X, np.array(["a", "b", "c"])[y], epochs=2)
    proto = onnx.export(model, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").stat().st_size > 100
    assert proto.metadata_props[0].value == '["a", "b", "c"]'
    for n in (1, 7, 100):
        got = run(proto, x=X[:n].astype(np.float32))
        agrees(got["probabilities"], model.predict_proba(X[:n]))
        agrees(got["logits"], model.decision_function(X[:n]))


@pytest.mark.parametrize("architecture", ["small", "lenet5"])
def test_convolutional_classifiers(architecture):
    images, y = stripes(60, 12)
    model = CNN(architecture, width=4).fit(images, y, epochs=1)
    got = run(onnx.export(model), x=(images[:9, ..., None] / 255.0).astype(np.float32))
    agrees(got["probabilities"], model.predict_proba(images[:9]))


def test_regressors_are_scaled_back():
    X, _ = blobs(80)
    model = MLPRegressor((8,)).fit(X, np.stack([1000 + 50 * X[:, 0], X[:, 1]], 1), epochs=2)
    agrees(run(onnx.export(model), x=X.astype(np.float32))["prediction"], model.predict(X))
    images, y = stripes(40, 8)
    model = CNNRegressor(width=4).fit(images, y * 10.0, epochs=1)
    agrees(run(onnx.export(model), x=(images[..., None] / 255.0).astype(np.float32))["prediction"][:, 0], model.predict(images))


LAYERS = {
    "strides, dilation, groups": lambda: nn.Sequential(
        nn.Conv2d(8, 3, "tanh", stride=2, padding=1), nn.Conv2d(8, 3, dilation=2, groups=4, padding="same"), nn.GELU()
    ),
    "transposed": lambda: nn.Sequential(
        nn.Conv2d(6, 3, stride=2), nn.ConvTranspose2d(4, 3, "relu", stride=2, groups=2, out_padding=1, padding=1)
    ),
    "pools": lambda: nn.Sequential(
        nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1, 1), nn.AvgPool2d(2, 1, 1, count_padding=False), nn.GlobalAvgPool2d()
    ),
    "norm of a map": lambda: nn.Sequential(nn.Conv2d(5, 3), nn.BatchNorm(), nn.LayerNorm(), nn.Flatten(), nn.Dense(3)),
    "flat without dense": lambda: nn.Sequential(nn.Conv2d(5, 3), nn.Flatten(), nn.Dropout(0.3), nn.ReLU()),
    "to units and back": lambda: nn.Sequential(
        nn.Conv2d(5, 3), nn.Flatten(), nn.Dense(24), nn.BatchNorm(), nn.GELU(), nn.Reshape(2, 3, 4), nn.ConvTranspose2d(3, 3),
    ),
    "an image of a block": lambda: nn.Sequential(
        nn.Flatten(), nn.Dense(24), nn.Residual(nn.Dense(24, "tanh")), nn.LayerNorm(), nn.Reshape(2, 3, 4), nn.Conv2d(3, 2)
    ),
    "an image of normalised units": lambda: nn.Sequential(
        nn.Flatten(), nn.Dense(24), nn.LayerNorm(), nn.Reshape(2, 3, 4), nn.Conv2d(3, 2), nn.Reshape(2, 3), nn.Dense(2)
    ),
    "flat, norm, dense": lambda: nn.Sequential(nn.Conv2d(5, 3), nn.Flatten(), nn.BatchNorm(), nn.Dense(4), nn.Softmax()),
    "residual": lambda: nn.Sequential(
        nn.Conv2d(4, 3, padding="same"),
        nn.Residual(nn.Sequential(nn.Conv2d(6, 3, padding="same"), nn.LayerNorm()), nn.Conv2d(6, 1), "relu"),
        nn.Checkpoint(nn.Residual(nn.Conv2d(6, 3, "leaky_relu", padding="same"))),
    ),
    "dense over channels": lambda: nn.Sequential(nn.Conv2d(4, 3), nn.Dense(5, "sigmoid")),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers_on_images(name):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((5, 11, 9, 4)).astype(np.float32)
    net = LAYERS[name]().build((11, 9, 4), seed=1)
    for _, m in net.named_modules():
        if isinstance(m, nn.BatchNorm):  # as after a training
            m.running_mean[...] = rng.standard_normal(m.running_mean.shape)
            m.running_var[...] = rng.uniform(0.5, 2, m.running_var.shape)
    agrees(run(onnx.export(net, input_shape=(11, 9, 4)), x=x)["y"], train.predict(net, x))


def test_layers_on_sequences_and_tokens():
    x = np.random.default_rng(0).standard_normal((3, 10, 4)).astype(np.float32)
    net = nn.Sequential(nn.Conv1d(6, 3, "relu", padding="same"), nn.Conv1d(5, 3, stride=2), nn.Dense(2)).build((10, 4))
    agrees(run(onnx.export(net, input_shape=(10, 4)), x=x)["y"], train.predict(net, x))
    net = nn.Sequential(nn.Conv1d(6, 3), nn.LSTM(5, output="last"), nn.Dense(2)).build((10, 4))
    agrees(run(onnx.export(net, input_shape=(10, 4)), x=x)["y"], train.predict(net, x))
    tokens = np.arange(12).reshape(2, 6) % 7
    net = nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Dense(2)).build((6,), dtype=np.int64)
    agrees(run(onnx.export(net, input_shape=(6,)), x=tokens)["y"], train.predict(net, tokens))


@pytest.mark.parametrize("options", [{}, dict(tied=True), dict(variational=True), dict(kind="conv", hidden=(4, 8)),
                                     dict(loss="binary_cross_entropy")], ids=str)  # fmt: skip
def test_autoencoders(options):
    images, _ = stripes(40, 8)
    X = images if options.get("kind") == "conv" else images.reshape(40, 64)
    model = models.Autoencoder(**{"hidden": (16,), "code": 4} | options).fit(X, epochs=1)
    x = (X.reshape(40, *model.input_shape_) / 255.0).astype(np.float32)
    got = run(onnx.export(model), x=x)
    agrees(got["code"], model.transform(X))
    agrees(got["reconstruction"].reshape(X.shape), model.reconstruct(X))


def test_images_are_turned_at_the_entrance_and_the_exit_alone():
    model = models.Autoencoder(kind="conv", hidden=(4, 8), code=5).build((8, 12, 2))
    kinds = [node.op_type for node in onnx.export(model).graph.node]
    at = [i for i, kind in enumerate(kinds) if kind == "Transpose"]
    assert at == [0, max(i for i, kind in enumerate(kinds) if kind not in ("Identity",))]
    net = LAYERS["to units and back"]().build((11, 9, 4))
    assert [n.op_type for n in onnx.export(net, input_shape=(11, 9, 4)).graph.node].count("Transpose") == 2


def test_a_perceptron_has_no_probabilities():
    X, y = blobs(60)
    model = models.Perceptron().fit(X, y, epochs=3)
    got = run(onnx.export(model), x=X.astype(np.float32))
    assert list(got) == ["logits"]
    agrees(got["logits"], model.decision_function(X))


@pytest.mark.filterwarnings("ignore:max_iter")
def test_estimators_of_scikit_learn():
    sk = pytest.importorskip("fastdl.sklearn", exc_type=ImportError)
    images, y = stripes(40, 8)
    X = images.reshape(40, 64) / 255.0
    names = np.array(["level", "upright"])[(y > 0).astype(int)]
    one = sk.CNNClassifier(image_shape=(8, 8), width=2, max_iter=1).fit(X, names)
    proto = onnx.export(one)
    assert proto.metadata_props[0].value == '["level", "upright"]'
    agrees(run(proto, x=X.reshape(40, 8, 8, 1).astype(np.float32))["probabilities"], one.predict_proba(X))
    one = sk.MLPRegressor((4,), max_iter=1).fit(X, y * 10.0 + 3.0)
    agrees(run(onnx.export(one), x=X.astype(np.float32))["prediction"][:, 0], one.predict(X))
    with pytest.raises(ValueError, match="model: expected one that was built or fitted.*got MLPClassifier"):
        onnx.export(sk.MLPClassifier())


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda m, d: onnx.export(m, 3), TypeError, "path: expected the name of a file or None; got int"),
        (lambda m, d: onnx.export(m, d / "no" / "m.onnx"), FileNotFoundError, "path: expected a file in a folder that exists"),
        (lambda m, d: onnx.export(m, d), IsADirectoryError, "path: expected a file; got the folder"),
        (lambda m, d: onnx.export(m.module_, input_shape="ab"), TypeError, "input_shape: expected .* integers; got 'ab'"),
        (lambda m, d: onnx.export(m.module_, input_shape=(4.5,)), TypeError, "input_shape: expected .* integers; got"),
        (lambda m, d: onnx.export(m.module_, input_shape=(0,)), ValueError, "input_shape: expected sizes of at least 1"),
        (lambda m, d: onnx.export(nn.Dense(3), input_shape=4), ValueError, "model: expected a Module that was built.*got Dense"),
        (lambda m, d: onnx.export(models.DBM((3, 2)).build((4,))), TypeError, "model: expected layers among .*; got Machine"),
        (lambda m, d: onnx.export(nn.LSTM(3), input_shape=(4, 2)), ValueError, "model: expected a Module that was built"),
        (lambda m, d: onnx.export(nn.Dense(3, inputs=4), input_shape=4), ValueError, "expected a Module that was built.*NaN"),
    ],
)
def test_what_export_cannot_take_is_named(call, kind, message, tmp_path):
    with pytest.raises(kind, match=message):
        call(MLP((3,)).build((4,), 2), tmp_path)
    assert not any(p.suffix == ".onnx" for p in tmp_path.rglob("*"))


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("options", [{}, dict(layers=2, bidirectional=True), dict(output="last"),
                                     dict(output="last", bidirectional=True, bias=False)], ids=str)  # fmt: skip
def test_recurrent_layers(cell, options):
    x = np.random.default_rng(0).standard_normal((3, 7, 4)).astype(np.float32)
    net = nn.Sequential(getattr(nn, cell)(5, **options), nn.Dense(2)).build((7, 4), seed=3)
    for p in net.parameters():
        p.data[...] += 0.1 * np.random.default_rng(1).standard_normal(p.data.shape).astype(np.float32)
    agrees(run(onnx.export(net, input_shape=(7, 4)), x=x)["y"], train.predict(net, x))


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_sequences_of_any_length(cell):
    rng = np.random.default_rng(0)
    X = [rng.standard_normal((n, 3)).astype(np.float32) for n in rng.integers(1, 9, 30)]
    y = np.array([float(x[-1, 0]) > 0 for x in X]).astype(int)
    model = models.RNNClassifier(units=8, cell=cell, bidirectional=True).fit(X, y, epochs=1)
    proto = onnx.export(model)
    for n in (4, 30):
        lengths = np.array([len(x) for x in X[:n]], np.int32)
        padded = np.zeros((n, lengths.max(), 3), np.float32)
        for row, x in zip(padded, X[:n], strict=True):
            row[: len(x)] = x
        agrees(run(proto, x=padded, lengths=lengths)["probabilities"], model.predict_proba(X[:n]))


@pytest.mark.filterwarnings("ignore:max_iter")
def test_labels_that_json_does_not_have_are_written_as_text():
    X, y = blobs(60)
    model = MLP((4,)).fit(X, np.array([b"a", b"b", b"\xe9"])[y], epochs=1)
    assert onnx.export(model).metadata_props[0].value == '["a", "b", "\\u00e9"]'
    sk = pytest.importorskip("fastdl.sklearn", exc_type=ImportError)
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "M8[D]")
    assert "2020-01-02" in onnx.export(sk.MLPClassifier((4,), max_iter=1).fit(X, days[y])).metadata_props[0].value


def test_a_file_is_whole_or_what_it_was(tmp_path, monkeypatch):
    import os

    def full(descriptor):
        raise OSError(28, "No space left on device")

    path = tmp_path / "m.onnx"
    onnx.export(MLP((4,)).build((3,), 2), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        onnx.export(MLP((8,)).build((3,), 2), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.onnx"]


def test_wrong_arguments_are_named(monkeypatch):
    import sys

    with pytest.raises(ValueError, match="model: expected one that was built or fitted"):
        onnx.export(MLP())
    with pytest.raises(ValueError, match="input_shape: expected the shape of one sample"):
        onnx.export(nn.Dense(3))

    class Strange(nn.Module):
        def forward(self, x):
            return x

    with pytest.raises(TypeError, match="model: expected layers among .*; got Strange"):
        onnx.export(Strange(), input_shape=(3,))
    onnx.register("Strange", lambda g, layer, v: v)
    assert run(onnx.export(Strange(), input_shape=(3,)), x=np.ones((2, 3), np.float32))["y"].shape == (2, 3)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"fastdl-nn\[onnx\]"):
        onnx.export(MLP().build((3,), 2))
