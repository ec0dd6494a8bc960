"""Autoencoders: every kind learns more than a linear code, its penalty does what it says, and survives a file."""

import numpy as np
import pytest

from fastdl import data, models, nn, ops, schedules
from fastdl.models import Autoencoder
from fastdl.models.pca import PCA
from fastdl.nn.generative import corrupt
from fastdl.random import Stream
from fastdl.tensor import Tensor


@pytest.fixture(scope="module")
def digits():
    d = data.load("mnist-embedded")
    return d.x_train[:1000], d.x_test[:200]


def curve(n=400, seed=0):
    """Points of [0,1]^6 that one number decides."""
    t = np.random.default_rng(seed).random((n, 1))
    return 0.5 + 0.4 * np.sin(3 * t + np.arange(6)).astype(np.float32)


KINDS = {
    "plain": dict(act="tanh"),
    "cross entropy": dict(act="tanh", loss="binary_cross_entropy"),
    "linear output": dict(act="tanh", output="none"),
    "tied": dict(act="tanh", tied=True),
    "denoising": dict(act="tanh", noise="gaussian", noise_level=0.03),
    "sparse": dict(act="tanh", code_act="sigmoid", sparsity=0.5, sparsity_weight=0.001),
    "contractive": dict(act="tanh", contraction=1e-5),
    "variational": dict(act="tanh", variational=True, beta=1e-4),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_curve_needs_one_number(name):
    x, held = curve(), curve(seed=1)
    model = Autoencoder((32,), 1, seed=1, **KINDS[name]).fit(x, epochs=80, batch_size=32, lr=0.01, validation=held)
    linear = -PCA(1).fit(x).score(held)
    assert -model.score(held) < 0.5 * linear
    assert model.history_["val_loss"][-1] < model.history_["val_loss"][0]
    if name != "cross entropy":
        assert model.history_["val_loss"][-1] == pytest.approx(-model.score(held), rel=1e-4)
    codes = model.transform(held)
    assert codes.shape == (400, 1)
    np.testing.assert_array_equal(model.inverse_transform(codes), model.reconstruct(held))


@pytest.mark.parametrize("params", [dict(kind="conv", hidden=(4, 8), act="relu"), dict(hidden=(64,))])
def test_digits_are_given_back(digits, params):
    x, held = digits
    model = Autoencoder(code=16, seed=1, **params).fit(x, epochs=8, batch_size=32, lr=3e-3)
    mean = np.square(held / 255 - x.mean(0) / 255).sum() / len(held)
    assert -model.score(held) < 0.8 * mean
    y = model.reconstruct(held)
    assert y.shape == held.shape and y.dtype == np.float32 and y.min() >= 0 and y.max() <= 1
    assert model.inverse_transform(model.transform(held[:3])).shape == (3, 28, 28, 1)
    np.testing.assert_array_equal(model.reconstruct(held[:3]), y[:3])


@pytest.mark.parametrize("shape", [(7, 10), (5, 5, 3), (28, 28)])
def test_convolutions_come_back_to_the_size_they_left(shape):
    model = Autoencoder((2, 3), 4, kind="conv").build(shape)
    assert model.reconstruct(np.zeros((2, *shape), np.float32)).shape == (2, *shape)


def test_layers_one_by_one(digits):
    x, _ = digits
    options = dict(epochs=1, batch_size=50, lr=1e-3)
    first = Autoencoder((64, 32), 8, seed=1).fit(x, pretrain=4, **options)
    assert [len(h["epoch"]) for h in first.pretrain_history_] == [4, 4, 4]
    assert all(h["loss"][-1] < h["loss"][0] for h in first.pretrain_history_)
    without = Autoencoder((64, 32), 8, seed=1).fit(x, **options)
    assert first.history_["loss"][0] < without.history_["loss"][0]
    for other in (dict(tied=True), dict(noise="mask"), dict(loss="binary_cross_entropy")):
        Autoencoder((16,), 4, seed=1, **other).fit(x[:100], pretrain=1, epochs=1)


def test_layers_have_options_of_their_own(digits):
    x = digits[0][:100]
    options = dict(epochs=1, batch_size=50, lr=1e-3, clip=1.0, weight_decay=0.1)

    def fit(pretrain, **more):
        return Autoencoder((16, 8), 4, seed=1).fit(x, pretrain=pretrain, **options | more)

    plain = fit(2)
    assert fit(0).get_params() == plain.get_params() and not hasattr(fit(None), "pretrain_history_")
    for same in ({"epochs": 2}, {"epochs": [2, 2, 2], "batch_size": 50, "lr": 1e-3, "optimizer": "adam", "clip": 1.0}):
        np.testing.assert_array_equal(fit(same).transform(x), plain.transform(x))
    for other in ({"lr": 0.01}, {"lr": [1e-3, 1e-3, 0.01]}, {"batch_size": 20}, {"optimizer": "sgd"}, {"weight_decay": 0.0}):
        model = fit({"epochs": 2} | other)
        assert not np.array_equal(model.transform(x), plain.transform(x)), other
    seen = []
    model = fit({"epochs": (1, 3, 2), "callbacks": seen.append, "schedule": lambda t, total: t < 4})
    assert [len(h["epoch"]) for h in model.pretrain_history_] == [1, 3, 2] and len(seen) == 6
    assert model.pretrain_history_[1]["lr"] == [1e-3, 1e-3, 0.0]
    assert [len(h["epoch"]) for h in fit({}).pretrain_history_] == [10] * 3  # as `DBN.pretrain`
    follow = schedules.plateau(0.5, patience=0, min_delta=1e9)  # never contented
    model = fit({"epochs": 3, "schedule": follow})
    assert [h["lr"] for h in model.pretrain_history_] == [[1e-3, 1e-3, 5e-4]] * 3
    assert not hasattr(model.fit(x, **options), "pretrain_history_")


@pytest.mark.parametrize(
    ("pretrain", "error", "message"),
    [
        ("3", TypeError, "pretrain: expected a number of epochs or a dict of options; got str"),
        (True, TypeError, "pretrain: expected a number of epochs or a dict of options; got bool"),
        (np.ones(2, int), TypeError, "pretrain: expected an integer; got ndarray"),
        ({"epoch": 3}, TypeError, "pretrain: expected options among .*epochs.*; got 'epoch'"),
        ({"epochs": [10**9, 1]}, ValueError, "epochs: expected one number, or 3; got 2"),
        ({"epochs": [10**9, 1, 0]}, ValueError, "epochs: expected at least 1; got 0"),
        ({"epochs": 10**9, "lr": [0.1, 0.1, "a"]}, TypeError, "lr: expected a number; got str"),
        ({"epochs": 10**9, "optimizer": "nadam"}, ValueError, "optimizer: expected one of"),
    ],
)
def test_wrong_options_of_layers_are_named_before_any_is_trained(pretrain, error, message):
    with pytest.raises(error, match=message):
        Autoencoder((4, 3), 2).fit(curve(20), pretrain=pretrain)


def test_wrong_arguments_cost_neither_what_was_learned_nor_the_time_of_training_layers(digits):
    x, _ = digits
    model = Autoencoder((16,), 4, seed=1).fit(x[:100], epochs=1)
    codes = model.transform(x[:5])
    for wrong, error in ({"wrong": 1}, TypeError), ({"patience": 0}, ValueError), ({"weight_decay": "much"}, TypeError):
        with pytest.raises(error, match=next(iter(wrong))):
            model.fit(x[:100], pretrain=10**9, **wrong)  # before any layer was trained
        np.testing.assert_array_equal(model.transform(x[:5]), codes)
    with pytest.raises(ValueError, match="loss"):  # only the loop itself finds that
        model.fit(x[:100], pretrain=1, watch="val_loss", epochs=1)
    np.testing.assert_array_equal(model.transform(x[:5]), codes)


def test_layers_are_not_trained_again_by_a_run_that_goes_on(digits, tmp_path):
    x, _ = digits
    options = dict(pretrain=1, batch_size=50, checkpoint=tmp_path / "c")
    whole = Autoencoder((16,), 4, seed=1).fit(x[:200], epochs=3, resume=True, **options)
    assert len(whole.pretrain_history_) == 2  # there was nothing to go on from
    (tmp_path / "c").unlink()
    Autoencoder((16,), 4, seed=1).fit(x[:200], epochs=2, **options)
    again = Autoencoder((16,), 4, seed=1).fit(x[:200], epochs=3, resume=True, **options)
    assert not hasattr(again, "pretrain_history_")
    np.testing.assert_array_equal(again.transform(x[:5]), whole.transform(x[:5]))
    with pytest.raises(ValueError, match=r"pretrain: expected \{'epochs': 1\}, as in the checkpoint .*; got \{'epochs': 2\}"):
        Autoencoder((16,), 4, seed=1).fit(x[:200], epochs=3, resume=True, **options | {"pretrain": 2})


@pytest.mark.parametrize("tied", [False, True])
def test_unrolled_from_machines(tied):
    rng = np.random.default_rng(0)
    sizes = (6, 5, 3)
    stack = [
        (rng.standard_normal((v, h)), rng.standard_normal(v), rng.standard_normal(h))
        for v, h in zip(sizes, sizes[1:], strict=False)
    ]
    model = Autoencoder.from_rbms(stack, tied=tied, seed=1)
    x = rng.random((4, 6)).astype(np.float32)

    def sigmoid(a):
        return 1 / (1 + np.exp(-a))

    (w1, v1, h1), (w2, v2, h2) = stack
    code = sigmoid(x @ w1 + h1) @ w2 + h2
    np.testing.assert_allclose(model.transform(x), code, rtol=1e-4, atol=1e-5)
    back = sigmoid(sigmoid(code @ w2.T + v2) @ w1.T + v1)
    np.testing.assert_allclose(model.reconstruct(x), back, rtol=1e-4, atol=1e-5)
    before = model.score(x)
    assert model.fit(x, warm_start=True, epochs=50, batch_size=4, lr=0.01).score(x) > before

    class Machine:
        def __init__(self, w, v, h):
            self.values = {"w": w, "b_visible": v, "b_hidden": h}

        def get_weights(self):
            return self.values

    again = Autoencoder.from_rbms([Machine(*s) for s in stack], tied=tied)
    np.testing.assert_allclose(again.transform(x), code, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match=r"rbms\[1\]: expected 5 visible units"):
        Autoencoder.from_rbms([stack[0], stack[0]])
    with pytest.raises(ValueError, match=r"rbms\[0\]: expected shapes"):
        Autoencoder.from_rbms([(stack[0][0], stack[0][2], stack[0][1])])


def test_unrolled_from_fitted_machines(digits):
    from fastdl.models import RBM

    x = digits[0][:300].reshape(300, -1) / np.float32(255)
    first = RBM(24, seed=1).fit(x, epochs=3)
    second = RBM(6, seed=2).fit(first.transform(x), epochs=3)
    model = Autoencoder.from_rbms([first, second], code_act="sigmoid")
    np.testing.assert_allclose(model.transform(x), second.transform(first.transform(x)), rtol=1e-4, atol=1e-5)
    back = first.inverse_transform(second.inverse_transform(model.transform(x)))
    np.testing.assert_allclose(model.reconstruct(x), back, rtol=1e-4, atol=1e-5)


def test_unrolled_units_are_of_the_machines_kinds():
    from fastdl.models import RBM

    x = curve(60)

    def stack(lower, upper="bernoulli", group=1):
        first = RBM(4, hidden_units=lower, hidden_group=group, seed=1).build(6)
        return [first, RBM(2, visible="gaussian" if lower == "relu" else "bernoulli", hidden_units=upper, seed=2).build(4)]

    def acts(model):
        return [layer.act for layer in model.module_.encoder.layers]

    for lower, act, message in (
        ("relu", {}, r"rbms\[0\]: expected hidden units that act 'sigmoid' fits; got 'relu' ones .act='relu' does."),
        ("gaussian", {}, r"rbms\[0\]: expected hidden units that act 'sigmoid' fits; got 'gaussian' ones .act='none' does."),
        ("bernoulli", {"act": "relu"}, r"rbms\[0\]: expected hidden units that act 'relu' fits; got 'bernoulli' ones"),
        ("bernoulli", {"act": "gelu"}, r"rbms\[0\]: expected .* act 'gelu' fits; got 'bernoulli' ones .act='sigmoid' does."),
    ):
        with pytest.raises(ValueError, match=message):
            Autoencoder.from_rbms(stack(lower), **act)
    with pytest.raises(ValueError, match=r"rbms\[0\]: expected .* act 'sigmoid' fits; got 'softmax' ones .none does."):
        Autoencoder.from_rbms(stack("softmax", group=2))
    with pytest.raises(ValueError, match=r"rbms\[0\]: expected hidden units that a code_act fits; got 'softmax' ones"):
        Autoencoder.from_rbms(stack("softmax", group=2)[:1])
    relu = Autoencoder.from_rbms(stack("relu"), act="relu")
    assert acts(relu) == ["relu", "sigmoid"]
    assert acts(Autoencoder.from_rbms(stack("bernoulli", "relu"))) == ["sigmoid", "relu"]
    assert acts(Autoencoder.from_rbms(stack("bernoulli", "gaussian"))) == ["sigmoid", "none"]
    assert acts(Autoencoder.from_rbms(stack("bernoulli"), code_act="none")) == ["sigmoid", "none"]  # who asks gets it
    machines = [m.fit(x, epochs=1) for m in stack("bernoulli")[:1]]
    machines.append(RBM(2, seed=2).fit(machines[0].transform(x), epochs=1))
    codes = Autoencoder.from_rbms(machines).transform(x)
    np.testing.assert_allclose(codes, machines[1].transform(machines[0].transform(x)), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------ penalties


def test_contraction_is_the_norm_of_the_jacobian():
    model = Autoencoder((), 3, code_act="tanh", contraction=0.7, seed=2).build((4,))
    net = model.module_.train()
    x = np.random.default_rng(0).standard_normal((5, 4)).astype(np.float32)
    net(Tensor(x))
    (term,) = net._kept[1]
    w = net.encoder[0].w.data.astype(np.float64)
    jacobian = (1 - np.tanh(x @ w) ** 2)[:, None, :] * w
    assert term.item() == pytest.approx(0.7 * np.square(jacobian).sum() / 5, rel=1e-4)


def test_divergence_and_idleness_are_those_of_the_papers():
    from fastdl.models.autoencoder import _divergence, _idleness

    rng = np.random.default_rng(0)
    mean, log_variance = rng.standard_normal((2, 6, 3))
    expected = 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum() / 6
    tensors = [Tensor(a.astype(np.float32)) for a in (mean, log_variance)]
    assert _divergence(*tensors).item() == pytest.approx(expected, rel=1e-5)
    p = rng.random((8, 4)).astype(np.float32)
    q = p.mean(0)
    expected = (0.1 * np.log(0.1 / q) + 0.9 * np.log(0.9 / (1 - q))).sum()
    assert _idleness(Tensor(p), 0.1).item() == pytest.approx(expected, rel=1e-4)


def test_a_sparse_code_is_idler():
    x = np.random.default_rng(0).random((300, 10))
    options = dict(epochs=40, batch_size=50, lr=0.01)
    base = Autoencoder((), 20, code_act="sigmoid", seed=1).fit(x, **options).transform(x).mean()
    idle = Autoencoder((), 20, code_act="sigmoid", sparsity=0.05, seed=1).fit(x, **options).transform(x).mean()
    assert base > 0.3 and idle < 0.1


def test_a_denoiser_cleans_what_a_plain_one_repeats():
    rng = np.random.default_rng(0)
    x = curve(1000)
    noisy = (curve(seed=3) + 0.15 * rng.standard_normal((400, 6))).astype(np.float32)
    errors = []
    for noise in (None, "gaussian"):
        model = Autoencoder((32,), 6, act="tanh", noise=noise, noise_level=0.15, seed=1)
        y = model.fit(x, epochs=40, batch_size=50, lr=0.01).reconstruct(noisy)
        errors.append(np.square(y - curve(seed=3)).sum(1).mean())
    assert errors[1] < errors[0] and errors[1] < 0.25 * 6 * 0.15**2


def test_noise_is_what_it_says():
    x = np.full((50, 200), 0.25, np.float32)
    stream = Stream(3)
    added = corrupt(x, "gaussian", 0.5, stream) - x
    assert abs(added.mean()) < 0.02 and abs(added.std() - 0.5) < 0.02
    hidden = corrupt(x, "mask", 0.3, stream)
    assert set(np.unique(hidden)) == {0.0, 0.25} and abs((hidden == 0).mean() - 0.3) < 0.02
    salted = corrupt(x, "salt", 0.3, stream)
    assert set(np.unique(salted)) == {0.0, 0.25, 1.0} and abs((salted == 1).mean() - 0.15) < 0.02
    layer = nn.Noise("mask", 0.5)
    assert layer.eval()(Tensor(x)).data is x
    assert not np.array_equal(layer.train()(Tensor(x)).data, layer(Tensor(x)).data)


def test_samples_of_a_variational_code_look_like_the_data():
    x = curve(800)
    model = Autoencoder((32,), 1, act="tanh", variational=True, beta=0.02, seed=1)
    y = model.fit(x, epochs=60, batch_size=50, lr=0.01).sample(200)
    nearest = np.square(y[:, None] - x[None]).sum(2).min(1)
    assert np.median(nearest) < 0.03
    np.testing.assert_array_equal(y, model.sample(200))
    assert not np.array_equal(y, model.sample(200, seed=1))


def test_augmented_samples_are_their_own_targets(digits):
    x, _ = digits
    seen = []

    def black(images, seed, offset):
        seen.append(images.shape)
        return np.zeros(images.shape, np.float32)

    black.draws = lambda n, y, x: 4
    model = Autoencoder((16,), 4, seed=1).fit(x[:50], epochs=60, batch_size=50, lr=0.05, augment=black)
    assert seen[0] == (50, 28, 28, 1)
    assert model.reconstruct(np.zeros((1, 28, 28))).max() < 0.2  # to repeat the digits it would be their mean


# ----------------------------------------------------------------------------------------------- files and mistakes


@pytest.mark.parametrize(
    "params", [KINDS["tied"], KINDS["variational"], dict(kind="conv", hidden=(2,), image_shape=(6, 1))]
)
def test_files(tmp_path, params):
    model = Autoencoder(**{"hidden": (8,)} | params, code=2, seed=4).fit(curve(50), epochs=2)
    model.save(tmp_path / "a")
    again = models.load(tmp_path / "a")
    assert repr(again) == repr(model)
    np.testing.assert_array_equal(again.reconstruct(curve(7)), model.reconstruct(curve(7)))


def test_checkpoints_go_on_bit_for_bit(tmp_path):
    x = curve(100)
    make = lambda: Autoencoder((8,), 2, variational=True, noise="mask", seed=4)
    whole = make().fit(x, epochs=4, batch_size=32)
    make().fit(x, epochs=2, batch_size=32, checkpoint=tmp_path / "c")
    resumed = make().fit(x, epochs=4, batch_size=32, resume=tmp_path / "c")
    np.testing.assert_array_equal(resumed.transform(x), whole.transform(x))
    assert models.load(tmp_path / "c").transform(x).shape == (100, 2)


def test_pca_is_the_best_linear_code():
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((300, 3)) @ rng.standard_normal((3, 8)) + 2).astype(np.float32)
    assert PCA(3).fit(x).score(x) == pytest.approx(0, abs=1e-6)
    model = PCA(2).fit(x)
    s = np.linalg.svd(x - x.mean(0), compute_uv=False)
    assert -model.score(x) == pytest.approx(s[2] ** 2 / 300, rel=1e-4)
    assert model.reconstruct(x[:5].reshape(5, 8)).shape == (5, 8)
    with pytest.raises(ValueError, match="code: expected at most 8"):
        PCA(9).fit(x)


def test_pca_says_what_is_wrong():
    x = curve(20)
    model = PCA(2).fit(x)
    hole = x.copy()
    hole[3, 1] = np.nan
    shape = r"X: expected samples of shape \[6\], as the model was made for; got \[5\]"
    for call, kind, message in (
        (lambda: PCA(2.5), TypeError, "code: expected an integer; got float"),
        (lambda: PCA(0), ValueError, "code: expected at least 1; got 0"),
        (lambda: PCA(2).fit(hole), ValueError, "X: expected finite numbers; got nan"),
        (lambda: model.transform(hole), ValueError, "X: expected finite numbers; got nan"),
        (lambda: PCA(2).fit(x[:0]), ValueError, "X: expected one sample or more; got none"),
        (lambda: PCA(2).transform(x), RuntimeError, "PCA: expected a model that was built or fitted; got a fresh one"),
        (lambda: PCA(2).inverse_transform(x), RuntimeError, "PCA: expected a model that was built or fitted"),
        (lambda: PCA(2).score(x), RuntimeError, "PCA: expected a model that was built or fitted"),
        (lambda: model.transform(x[:, :5]), ValueError, shape),
        (lambda: model.reconstruct(x[:, :5]), ValueError, shape),
        (lambda: model.score(x[:, :5]), ValueError, shape),
        (lambda: model.score(x[:0]), ValueError, "X: expected one sample or more; got none"),
        (lambda: model.inverse_transform(np.zeros((3, 1))), ValueError, r"codes: expected shape \[N,2\]; got \[3, 1\]"),
    ):
        with pytest.raises(kind, match=message):
            call()
    np.testing.assert_array_equal(model.transform(x.tolist()), model.transform(x))  # lists are taken, too
    assert model.reconstruct(x.tolist()).shape == x.shape


@pytest.mark.parametrize(
    "params, message",
    [
        (dict(kind="rnn"), "kind: expected 'dense' or 'conv'"),
        (dict(output="tanh"), "output: expected 'sigmoid' or 'none'"),
        (dict(loss="hinge"), "loss: expected 'mse'"),
        (dict(loss="binary_cross_entropy", output="none"), "output: expected 'sigmoid' with"),
        (dict(kind="conv", tied=True), "tied: expected none with kind 'conv'"),
        (dict(variational=True, tied=True), "tied: expected False with variational"),
        (dict(sparsity=0.1), "sparsity: expected a number between 0 and 1, with code_act 'sigmoid'"),
        (dict(contraction=0.1, act="relu"), "contraction: expected 0 or more, with act"),
        (dict(noise="pepper"), "noise: expected None, 'gaussian', 'mask' or 'salt'"),
        (dict(noise="mask", noise_level=1.0), "noise_level: expected 0 or more, below 1 but for .*; got 1.0"),
        (dict(beta=-1.0), "beta: expected 0 or more"),
    ],
)
def test_impossible_settings_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        Autoencoder(**params)


def test_wrong_use_is_named():
    x = curve(20)
    model = Autoencoder((4,), 2)
    with pytest.raises(RuntimeError, match="expected a model that was built or fitted"):
        model.transform(x)
    model.fit(x, epochs=1)
    with pytest.raises(ValueError, match=r"codes: expected shape \[N,2\]; got \[3, 1\]"):
        model.inverse_transform(np.zeros((3, 1)))
    with pytest.raises(ValueError, match=r"X: expected samples of shape \[6\]"):
        model.reconstruct(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="variational: expected True"):
        model.sample(3)
    with pytest.raises(ValueError, match="pretrain: expected none with kind 'conv' or variational; got 1"):
        Autoencoder((4,), 2, variational=True).fit(x, pretrain=1)
    with pytest.raises(ValueError, match="partner: expected a layer that has seen an input"):
        nn.TiedDense(nn.Dense(3))(Tensor(x))
    with pytest.raises(ValueError, match="validation: expected"):
        model.fit(x, validation=1.5)


def test_tied_weights_get_both_gradients():
    layer = nn.Dense(3, "tanh", inputs=4)
    net = nn.Sequential(layer, nn.TiedDense(layer, "sigmoid")).build((4,), 0)
    x = np.random.default_rng(0).random((5, 4)).astype(np.float32)

    def loss():
        return ops.mse(net(Tensor(x)), x, None, "sum")

    value = loss()
    value.backward()
    gradient = layer.w.grad.copy()
    way = np.random.default_rng(1).standard_normal(gradient.shape).astype(np.float32)
    before, step = layer.w.data.copy(), 1e-2
    layer.w.data[...] = before + step * way
    up = loss().item()
    layer.w.data[...] = before - step * way
    down = loss().item()
    assert (up - down) / (2 * step) == pytest.approx(float((gradient * way).sum()), rel=2e-2)


def test_variances_of_a_machine_are_unrolled():
    from fastdl.models import RBM

    x = 3 * np.random.default_rng(0).standard_normal((50, 6))
    rbm = RBM(4, visible="gaussian", variance="data", seed=1).fit(x, epochs=1, lr=0.01)
    rbm.module_.w.data[...] *= 100
    model = Autoencoder.from_rbms([rbm], code_act="sigmoid", output="none")
    np.testing.assert_allclose(model.transform(x), rbm.transform(x), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model.reconstruct(x), rbm.reconstruct(x), rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="tied: expected False with Gaussian visible units whose variances are not 1"):
        Autoencoder.from_rbms([rbm], code_act="sigmoid", output="none", tied=True)
    with pytest.raises(TypeError, match="rbms: expected a sequence of machines; got RBM"):
        Autoencoder.from_rbms(rbm)


def test_counts_are_named():
    with pytest.raises(ValueError, match="pretrain: expected 0 or more; got -1"):
        Autoencoder((4,), 2).fit(curve(20), pretrain=-1)
    with pytest.raises(ValueError, match="n: expected 0 or more; got -1"):
        Autoencoder((4,), 2, variational=True).fit(curve(20), epochs=1).sample(-1)


def test_validation_is_samples_alone():
    x = np.random.default_rng(0).random((40, 8)).astype(np.float32)
    with pytest.raises(TypeError, match="validation: expected samples alone, which are their own targets; got a tuple"):
        Autoencoder((4,)).fit(x, epochs=1, validation=(x, x))
    assert "val_loss" in Autoencoder((4,)).fit(x, epochs=1, validation=x).history_
