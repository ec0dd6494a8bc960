"""Every recipe on a device: arrays of `fake_cuda`, which NumPy arrays do not mix with, on made data and a few samples."""

import csv
import dataclasses
import gzip
import json

import numpy as np
import pytest

import fake_cuda
from fastdl import backend, cli, data, io, metrics, models, nn, optim, recipes, train
from fastdl.recipes import Config, _tabular, digits_rbm_pipeline, emoji_captions

ON_THE_CPU = ("mnist-perceptron", "cartpole")  # which refuse another device


def table(path, columns, rows):
    path.parent.mkdir(exist_ok=True)
    with open(path, "w", newline="") as stream:
        csv.writer(stream).writerows([columns, *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A little of every data set, made up, in the files that the recipes read."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)

    def arrays(name, **content):
        path = root / f"{name}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, **content)

    for name, n, classes in (("cifar10_small", 60, 10), ("cats_dogs_32", 60, 2)):
        y = np.arange(n) % classes
        x = rng.integers(0, 255, (n, 32, 32, 3)).astype(np.uint8)
        arrays(f"cifar10-small/{name}", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])
    faces = rng.integers(0, 80, (40, 25, 25)).astype(np.uint8)
    faces[:20, 5:20, 5:20] += 150
    arrays("faces-lfw-subset/lfw_subset", images=faces, is_face=np.arange(40) < 20)
    wave, at = rng.integers(-9000, 9000, 60 * 1600).astype(np.int16), np.arange(61) * 1600
    index, digit = np.arange(60) % 12, np.arange(60) // 6
    arrays("spoken-digits/fsdd_wave", samples=wave, offsets=at, digit=digit, speaker=index % 2, index=index)
    vowels, lengths = rng.standard_normal((60, 29, 12)).astype(np.float32), 7 + np.arange(60) % 20
    arrays("japanese-vowels/japanese_vowels", x_train=vowels, len_train=lengths, y_train=np.arange(60) % 9,
           x_test=vowels, len_test=lengths, y_test=np.arange(60) % 9)  # fmt: skip
    captions = np.array([f"{a} {b}" for a in ("red", "blue") for b in ("dog", "cat", "hat", "sun", "cup")] * 4)
    arrays("emoji-captions/emoji_captions_32", images=rng.integers(0, 255, (40, 32, 32, 3)).astype(np.uint8),
           captions=captions, base=np.arange(40))  # fmt: skip
    for part in ("train", "dev", "test"):
        (root / "sst").mkdir(exist_ok=True)
        trees = ["(3 (3 (2 a) (4 fine)) (2 day))", "(1 (0 bad) (2 (2 a) (2 day)))", "(4 (4 fine) (3 fine))"] * 6
        (root / "sst" / f"{part}.txt").write_text("\n".join(trees) + "\n")
    (root / "tinyshakespeare").mkdir()
    with gzip.open(root / "tinyshakespeare" / "input.txt.gz", "wt") as stream:
        stream.write("I pray you , tell me : where is the cat ?\nIt sat on the mat .\n" * 90)
    x = rng.standard_normal((60, 30))
    y = (x[:, 0] + x[:, 1] > 0).astype(int)
    medical = root / "medical"
    columns = [f"c{i}" for i in range(3)]
    rows = [[*(f"{v:.4f}" for v in r[:3]), t] for r, t in zip(x, y, strict=True)]
    table(medical / "heart_disease.csv", [*columns, "diameter narrowing"], rows)
    table(medical / "breast_cancer_wdbc.csv", [*columns, "benign"], rows)
    table(medical / "diabetes_progression.csv", [*columns, "progression"], [[*r[:3], 100 + 40 * float(r[0])] for r in rows])
    series = root / "timeseries"
    wave = np.sin(np.arange(800) * 0.3)
    table(series / "seattle_weather_daily.csv", ["date", "temp_max"], [[i, f"{v:.4f}"] for i, v in enumerate(wave)])
    table(series / "sunspots_yearly.csv", ["YEAR", "SUNACTIVITY"], [[i, f"{v:.4f}"] for i, v in enumerate(wave[:200])])
    months = [[1950 + i, *(f"{v:.4f}" for v in wave[12 * i : 12 * i + 12])] for i in range(20)]
    table(series / "elnino_monthly.csv", ["YEAR", *(f"M{i}" for i in range(12))], months)
    return root


@pytest.fixture
def small(monkeypatch, tmp_path):
    """Few digits, few layers, few chains."""
    monkeypatch.delenv("FASTDL_DATA", raising=False)
    monkeypatch.setenv("FASTDL_CACHE", str(tmp_path / "cache"))
    whole = data.load

    def load(name, *args):
        found = whole(name, *args)
        if not name.startswith("mnist"):
            return found
        part = {"x_train": 600, "y_train": 600, "x_test": 120, "y_test": 120}
        return dataclasses.replace(found, **{k: getattr(found, k)[:n] for k, n in part.items()})

    monkeypatch.setattr(data, "load", load)
    for module, name, value in (
        ("mnist_1000_layers", "LAYERS", 8), ("mnist_rbm", "CHAINS", 4), ("mnist_rbm", "TEMPERATURES", 20),
        ("mnist_rbm", "HIDDEN", 20), ("rbm_exact", "CHAINS", 4), ("rbm_exact", "TEMPERATURES", 20),
        ("mnist_few_labels", "LABELS", (4,)), ("mnist_few_labels", "STEPS", 5), ("mnist_few_labels", "SEEDS", 1),
        ("copy_memory", "GAPS", (2,)),
        ("copy_memory", "TRAIN", 64), ("complexity_sweep", "LEVELS", (2,)), ("face_detect", "FOLDS", 2),
        ("digits_rbm_pipeline", "STRENGTHS", (1.0,)), ("digits_rbm_pipeline", "HIDDEN", 8), ("diabetes", "OUTER", 2),
        ("forecast_lstm", "WINDOWS", dict.fromkeys(("seattle", "elnino", "sunspots", "mackey-glass"), (6,))),
        ("vowels_lstm", "NETWORKS", 2), ("digit_novelty", "CODE", 4), ("complexity_sweep", "TRAIN", 60),
        ("moving_digits", "CLIPS", {"train": 80, "validation": 16, "test": 16}),
    ):  # fmt: skip
        monkeypatch.setattr(f"fastdl.recipes.{module}.{name}", value)
    mixture, nudged = metrics.GaussianMixture, digits_rbm_pipeline.nudged
    monkeypatch.setattr(metrics, "GaussianMixture", lambda components, *args, **more: mixture(2, *args, **more))
    split = emoji_captions.split
    monkeypatch.setattr(emoji_captions, "split", lambda captions, bases: split(captions, bases, 8, 6))
    monkeypatch.setattr(digits_rbm_pipeline, "nudged", lambda: tuple(a[:300] for a in nudged()))
    monkeypatch.setattr(_tabular, "OUTER", 2)
    monkeypatch.setattr(_tabular, "INNER", 2)


@pytest.fixture
def fake():
    with fake_cuda.as_cuda(fake_cuda.HostKernels(backend.cpu)):
        yield


def needs(name):
    if name in ("heart-disease", "breast-cancer", "diabetes", "complexity-sweep", "cats-dogs", "face-detect", "image-folder",
                "digits-rbm-pipeline"):  # fmt: skip
        pytest.importorskip("sklearn")


ALONE = [n for n in recipes.NAMES if n not in (*ON_THE_CPU, "image-folder")]  # image-folder is cats-dogs on other pictures
RESUMED = ("mnist-mlp", "mnist-denoise", "mnist-gan", "mnist-rbm", "mnist-dbn", "next-word", "sentiment-rntn", "emoji-captions")
EMBEDDED = ("moving-digits", "digit-novelty", "digits-rbm-pipeline", "rbm-exact")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ALONE)
def test_on_a_device(name, small, fake, folder, tmp_path, monkeypatch):
    needs(name)
    made, build = [], nn.Module.build

    def remembered(self, *args, **kwargs):
        made.append(self)
        return build(self, *args, **kwargs)

    monkeypatch.setattr(nn.Module, "build", remembered)
    where = None if name.startswith("mnist") or name in EMBEDDED else folder
    config = Config(where, epochs=1, seed=100, device="cuda:1", show=lambda text: None)
    if name in RESUMED:
        config.checkpoint = tmp_path / "c"
    report = recipes.run(name, config)
    assert report.settings["device"] == "Fake 1"
    for net in (report.model.module_, *made):
        for a in (*(p.data for p in net.parameters() if p.data is not None), *(b for _, b in net.named_buffers())):
            assert type(a) is fake_cuda.ndarray and a.device.id == 1, type(net)
    recipes.write_json(report, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["config"]["device"] == "Fake 1"
    recipes.save(report, tmp_path / "w")
    assert io.load(tmp_path / "w")[0]
    if name in RESUMED:  # on the CPU, from the checkpoint of the device
        config = dataclasses.replace(config, resume=tmp_path / "c", checkpoint=None, device="cpu", show=None)
        again = recipes.run(name, config)
        assert again.settings["device"] == "cpu"
        for key, value in again.model.get_weights().items():
            np.testing.assert_array_equal(value, report.model.get_weights()[key])


@pytest.mark.parametrize("name", ON_THE_CPU)
def test_what_a_gpu_cannot_do_is_refused(name, fake):
    with pytest.raises(ValueError, match=f"device: expected 'cpu', as {name} .*; got 'cuda'"):
        recipes.run(name, Config(device="cuda"))


@pytest.mark.parametrize("device, words", [("gpu", "expected 'cpu', 'cuda' or 'cuda:N'"), ("cuda:7", "one of 2 GPUs")])
@pytest.mark.parametrize("command", [["train", "mnist-softmax"], ["demo"]])
def test_a_device_that_is_not_there(command, device, words, fake, capsys, monkeypatch):
    monkeypatch.setattr(data, "load", None)  # no work before the error
    assert cli.main([*command, "--device", device]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_without_a_gpu_it_says_so(fake, capsys, monkeypatch):
    def none():
        raise RuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")

    monkeypatch.setattr(fake_cuda.cuda.runtime, "getDeviceCount", none)
    assert cli.main(["train", "mnist-softmax", "--device", "cuda"]) == 2
    assert "expected a GPU that CUDA can use" in capsys.readouterr().err


def test_without_a_build_for_gpus_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(backend, "_cuda", None)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    assert cli.main(["train", "mnist-softmax", "--device", "cuda"]) == 2
    assert "expected a build with CUDA kernels" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["float32", "uint8"])
def test_samples_move_once_where_they_fit(kind, fake, monkeypatch):
    x = (200 * np.random.default_rng(0).random((64, 8))).astype(kind)
    y, moved, weights = np.arange(64) % 2, [], []
    asarray = fake_cuda.asarray

    def counted(a, *args, **kwargs):
        if isinstance(a, np.ndarray):
            moved.append(a.nbytes)
        return asarray(a, *args, **kwargs)

    monkeypatch.setattr(fake_cuda, "asarray", counted)
    for memory in (1 << 30, 0):
        monkeypatch.setattr(fake_cuda, "free", [memory])
        net = nn.Sequential(nn.Dense(2)).build((8,), 0).to("cuda")
        optimizer = optim.SGD(net)
        moved.clear()
        train.fit(net, x, y, loss="softmax_cross_entropy", optimizer=optimizer, epochs=3, batch_size=8)
        weights.append(net.get_weights())
        # samples, labels and an order for each epoch, against batches
        assert len(moved) == 5 if memory else len(moved) >= 48
    for name, value in weights[0].items():
        np.testing.assert_array_equal(value, weights[1][name])


def test_a_stack_moves_with_its_model(fake):
    x = np.random.default_rng(0).random((40, 9)).astype(np.float32)
    dbn = models.DBN((5, 4)).pretrain(x, epochs=1)
    before = dbn.transform(x)
    dbn.to("cuda")
    assert type(dbn.stack_[1].module_.w.data) is type(dbn.recognition_[0][0]) is fake_cuda.ndarray
    np.testing.assert_array_equal(dbn.transform(x), before)
    np.testing.assert_array_equal(dbn.to("cpu").transform(x), before)
