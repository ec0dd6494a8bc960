"""GANs learn a distribution under every loss, notice a collapse, and go on from a checkpoint; metrics against their formulas."""

import math
import warnings

import numpy as np
import pytest

from fastdl import metrics, models, nn, ops, optim, schedules
from fastdl.models import CNN, GAN, Perceptron
from fastdl.models.gan import _Duel, spread_of
from fastdl.tensor import Tensor
from test_rbm import Counter


def two_heaps(n=1024, seed=0, spread=0.35):
    rng = np.random.default_rng(seed)
    side = rng.integers(0, 2, n)
    return (np.where(side, 1.0, -1.0)[:, None] * [1.0, 0.5] + spread * rng.standard_normal((n, 2))).astype(np.float32)


SETTINGS = {
    "non_saturating": dict(smoothing=0.1),
    "least_squares": dict(),
    "hinge": dict(),
    "wasserstein": dict(clip_weights=0.1, steps_d=3),
}


@pytest.mark.parametrize("loss", SETTINGS)
def test_two_heaps_are_both_found(loss):
    x = two_heaps()
    model = GAN("mlp", 4, (32, 32), output="none", loss=loss, seed=3, **SETTINGS[loss])
    options = dict(optimizer="rmsprop", lr=2e-3) if loss == "wasserstein" else dict(lr=2e-3, lr_d=4e-3)
    model.fit(x, epochs=40, batch_size=64, **options)
    y = model.sample(400)
    assert 0.3 < np.mean(y[:, 0] > 0) < 0.7
    assert metrics.frechet_distance(y, x) < 0.15
    h = model.history_
    assert len(h["loss"]) == len(h["diversity"]) == 40 and h["diversity"][-1] > 0.2 and not h["collapsed"][-1]
    p = model.discriminate(x)
    assert p.shape == (1024,) and p.min() >= 0 and p.max() <= 1
    if loss != "wasserstein":  # whose scale means nothing
        far = model.discriminate(np.full((8, 2), 20.0) * [1, -1])
        assert far.mean() < p.mean()


def test_losses_are_those_of_the_table():
    real, fake = np.array([[0.3], [-2.0]]), np.array([[0.1], [1.4]])

    def log_sigmoid(d):
        return -np.log1p(np.exp(-d))

    expected = {
        "non_saturating": (-(log_sigmoid(real) + log_sigmoid(-fake)).mean(), -log_sigmoid(fake).mean()),
        "least_squares": (((real - 1) ** 2 + fake**2).mean(), ((fake - 1) ** 2).mean()),
        "hinge": ((np.maximum(0, 1 - real) + np.maximum(0, 1 + fake)).mean(), -fake.mean()),
        "wasserstein": ((fake - real).mean(), -fake.mean()),
    }
    for loss, (of_d, of_g) in expected.items():
        model = GAN("mlp", 2, (4,), output="none", loss=loss).build((2,))
        players = [optim.get("sgd", net) for net in (model.module_.generator, model.module_.discriminator)]
        duel = _Duel(model, players, None, 2)
        a, b = Tensor(real.astype(np.float32)), Tensor(fake.astype(np.float32))
        assert duel._loss_d(a, b).item() == pytest.approx(of_d, rel=1e-5)
        assert duel._loss_g(b).item() == pytest.approx(of_g, rel=1e-5)


def test_weights_of_a_critic_are_clipped():
    model = GAN("mlp", 2, (8,), output="none", loss="wasserstein", clip_weights=0.02)
    model.fit(two_heaps(64), epochs=1, batch_size=32, on_collapse="ignore")
    weights = model.module_.discriminator.get_weights()
    assert max(np.abs(w).max() for w in weights.values()) == np.float32(0.02)
    assert max(np.abs(w).max() for w in model.module_.generator.get_weights().values()) > 0.1


@pytest.mark.parametrize("shape", [(8, 8), (9, 10, 3)])
def test_images_by_convolutions(shape):
    rng = np.random.default_rng(0)
    x = (255 * rng.random((48, *shape))).astype(np.uint8)
    model = GAN("dcgan", 8, width=4, seed=1).fit(x, epochs=2, batch_size=16, on_collapse="ignore")
    y = model.sample(5)
    assert y.shape == (5, *shape) and y.min() >= 0 and y.max() <= 1
    np.testing.assert_array_equal(y, model.sample(5))
    np.testing.assert_array_equal(y[:2], model.sample(2))
    assert not np.array_equal(y, model.sample(5, seed=1))
    GAN("dcgan", 8, width=4, loss="hinge", spectral_norm=True).fit(x, epochs=1, batch_size=16, on_collapse="ignore")


def test_dense_layers_with_batch_normalisation():
    x = two_heaps(256)
    model = GAN("mlp", 4, (16,), output="none", batch_norm=True, seed=3).fit(x, epochs=30, batch_size=64, lr=5e-3)
    assert any("running" in name for name in model.module_.generator.get_weights())
    a = model.sample(200)
    assert a.std(0).max() > 0.2
    np.testing.assert_array_equal(a[:3], model.sample(3))


# ------------------------------------------------------------------------------------------------------- collapse


def test_a_collapse_is_noticed():
    x = two_heaps(256)
    model = GAN("mlp", 2, (4,), output="none", seed=1)

    def freeze(state):  # a generator that ignores its input
        for name, p in state.module.generator.named_parameters():
            p.data[...] = 0.7 if name.endswith("b") else 0.0

    with pytest.warns(RuntimeWarning, match="mode collapse at epoch 1"):
        model.fit(x, epochs=2, batch_size=64, on_step=[freeze])
    assert model.history_["collapsed"] == [True, True] and model.history_["diversity"][0] < 1e-3
    model.fit(x, epochs=5, batch_size=64, on_step=[freeze], on_collapse="stop")
    assert model.history_["epoch"] == [1] and model.history_["stopped"] == "collapsed"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(x, epochs=1, batch_size=64, on_step=[freeze], on_collapse="ignore")


def test_diversity_of_the_data_itself_is_one():
    x = two_heaps(256)
    assert spread_of(two_heaps(256, seed=1), x) > 0.7
    tight = two_heaps(256, spread=0.05)
    one_heap = tight[tight[:, 0] > 0]
    assert spread_of(one_heap, tight[: len(one_heap)]) < 0.2
    copies = np.repeat(x[:8], 32, 0)
    assert spread_of(copies, x) < 0.05


# -------------------------------------------------------------------------------------------------- spectral norm


@pytest.mark.parametrize("layer", ["dense", "conv"])
def test_spectral_norm_divides_by_the_largest_singular_value(layer):
    rng = np.random.default_rng(0)
    inner = nn.Dense(5) if layer == "dense" else nn.Conv2d(5, 3)
    plain = nn.Dense(5) if layer == "dense" else nn.Conv2d(5, 3)
    shape = (7,) if layer == "dense" else (6, 6, 2)
    net, other = nn.SpectralNorm(inner).build(shape, 3), plain.build(shape, 3)
    x = rng.standard_normal((4, *shape)).astype(np.float32)
    net.train()
    for _ in range(60):
        net(Tensor(x))
    w = inner.w.data
    largest = np.linalg.svd(w.reshape(-1, 5), compute_uv=False)[0]
    other.w.data[...] = w / largest
    np.testing.assert_allclose(net.eval()(Tensor(x)).data, other(Tensor(x)).data, rtol=1e-3, atol=1e-4)
    before = net.u.copy()
    net(Tensor(x))
    np.testing.assert_array_equal(net.u, before)
    # the gradient includes that of the singular value
    weights = rng.standard_normal(net(Tensor(x)).shape).astype(np.float32)

    def loss():
        return ops.sum(ops.multiply(net(Tensor(x)), Tensor(weights)))

    inner.w.grad = None
    inner.w.beta = 0.0
    value = loss()
    value.backward()
    gradient, start = inner.w.grad.copy(), w.copy()
    way = rng.standard_normal(w.shape).astype(np.float32)

    def at(step):
        w[...] = start + step * way
        return loss().item()

    slope = (at(1e-2) - at(-1e-2)) / 2e-2
    assert slope == pytest.approx(float((gradient * way).sum()), rel=2e-2, abs=2e-3)
    assert abs(float((gradient * start).sum())) < 1e-2 * np.linalg.norm(gradient) * np.linalg.norm(start)


# ------------------------------------------------------------------------------------------------- files and bits


def test_checkpoints_go_on_bit_for_bit(tmp_path):
    x = two_heaps(128)
    make = lambda: GAN("mlp", 3, (8,), output="none", spectral_norm=True, seed=4)
    options = dict(batch_size=32, on_collapse="ignore")
    kinds = [optim.SGD, lambda module: optim.Adam(module, 2e-4, 0.5)]
    whole = make().fit(x, epochs=4, **options)
    make().fit(x, epochs=2, checkpoint=tmp_path / "c", **options)
    resumed = make().fit(x, epochs=4, resume=tmp_path / "c", **options)
    np.testing.assert_array_equal(resumed.sample(9), whole.sample(9))
    assert resumed.history_["loss"] == whole.history_["loss"]
    assert models.load(tmp_path / "c").sample(2).shape == (2, 2)
    with pytest.raises(ValueError, match="batch_size: expected 32, as in the checkpoint"):
        make().fit(x, epochs=4, batch_size=16, resume=tmp_path / "c")
    with pytest.raises(ValueError, match="lr_d: expected 0.0002, as in the checkpoint .*; got 0.5"):
        make().fit(x, epochs=4, lr_d=0.5, resume=tmp_path / "c", **options)
    with pytest.raises(ValueError, match="beta1: expected 0.5, as in the checkpoint .*; got 0.9"):
        make().fit(x, epochs=4, beta1=0.9, resume=tmp_path / "c", **options)
    with pytest.raises(ValueError, match="optimizer_d: expected Adam, as in the checkpoint .*; got SGD"):
        make().fit(x, epochs=4, optimizer=lambda m: kinds.pop()(m), resume=tmp_path / "c", **options)
    with pytest.raises(ValueError, match="steps_d: expected 1, as in the checkpoint .*; got 2"):
        GAN("mlp", 3, (8,), output="none", spectral_norm=True, steps_d=2, seed=4).fit(
            x, epochs=4, resume=tmp_path / "c", **options
        )


def test_a_schedule_is_part_of_the_run(tmp_path):
    x, options = two_heaps(64), dict(batch_size=32, on_collapse="ignore")
    make, falling = lambda: GAN("mlp", 3, (8,), output="none", seed=4), lambda t, total: 1 - t / total
    falling.__qualname__ = "falling"
    make().fit(x, epochs=2, schedule=falling, checkpoint=tmp_path / "c", **options)
    for how, message in (
        (dict(epochs=2, schedule=schedules.cosine()), "schedule: expected falling, as in the checkpoint .*; got cosine"),
        (dict(epochs=2), "schedule: expected falling, as in the checkpoint .*; got None"),
        (dict(epochs=3, schedule=falling), "epochs: expected 2, as in the checkpoint .*; got 3"),
        (dict(epochs=3, schedule=schedules.plateau()), "schedule: expected one of time alone, .*; got one that follows one"),
    ):
        with pytest.raises(ValueError, match=message):
            make().fit(x, resume=tmp_path / "c", **how, **options)


def test_callbacks_go_on_with_a_run(tmp_path):
    x, (first, second) = two_heaps(64), (Counter(), Counter())
    options = dict(batch_size=32, on_collapse="ignore")
    GAN("mlp", 3, (8,), output="none").fit(x, epochs=2, on_step=first, checkpoint=tmp_path / "c", **options)
    GAN("mlp", 3, (8,), output="none").fit(x, epochs=3, on_step=second, resume=tmp_path / "c", **options)
    assert (first.count, second.count) == (4, 6)
    first, second, y = Counter(), Counter(), np.arange(64) % 2  # which nothing separates
    Perceptron().fit(x, y, epochs=2, callbacks=first, checkpoint=tmp_path / "p")
    Perceptron().fit(x, y, epochs=3, callbacks=second, resume=tmp_path / "p")
    assert (first.count, second.count) == (2, 3)


def test_samples_come_from_the_mean_of_the_weights(tmp_path):
    """The mean follows the weights as the formula says; training is the same with it as without."""
    x = np.random.default_rng(0).random((64, 8, 8))
    options = dict(epochs=2, batch_size=16, on_collapse="ignore")
    seen = []
    keep = lambda state: seen.append(state.module.generator.get_weights())
    model = GAN("dcgan", 4, width=2, average=0.5, seed=3)
    first = model.build((8, 8)).module_.generator.get_weights()
    model.fit(x, on_step=[keep], warm_start=True, **options)
    plain = GAN("dcgan", 4, width=2, seed=3).fit(x, **options)
    mean = {name: a.astype(np.float64) for name, a in first.items()}
    for t, weights in enumerate(seen):
        share = min(0.5, (1 + t) / (10 + t))
        mean = {name: share * a + (1 - share) * weights[name] for name, a in mean.items()}
    assert len(seen) == 8 and any("running" in name for name in mean)
    for name, a in model.module_.averaged.get_weights().items():
        np.testing.assert_allclose(a, mean[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(seen[-1][name], plain.module_.generator.get_weights()[name])
    assert not np.array_equal(model.sample(3), plain.sample(3))
    model.save(tmp_path / "a")
    np.testing.assert_array_equal(models.load(tmp_path / "a").sample(3), model.sample(3))
    make = lambda: GAN("dcgan", 4, width=2, average=0.5, seed=3)
    make().fit(x, checkpoint=tmp_path / "c", **(options | {"epochs": 1}))
    resumed = make().fit(x, resume=tmp_path / "c", **options)
    np.testing.assert_array_equal(resumed.sample(3), make().fit(x, **options).sample(3))


def test_files(tmp_path):
    x = np.random.default_rng(0).random((32, 8, 8))
    model = GAN("dcgan", 4, width=2, loss="hinge", spectral_norm=True, seed=3)
    model.fit(x, epochs=1, batch_size=16, on_collapse="ignore").save(tmp_path / "a")
    again = models.load(tmp_path / "a")
    np.testing.assert_array_equal(again.sample(3), model.sample(3))
    np.testing.assert_array_equal(again.discriminate(x), model.discriminate(x))


@pytest.mark.parametrize(
    "params, message",
    [
        (dict(architecture="vae"), "architecture: expected 'mlp' or 'dcgan'"),
        (dict(loss="wgan-gp"), "loss: expected one of non_saturating"),
        (dict(output="relu"), "output: expected"),
        (dict(loss="hinge", smoothing=0.1), "smoothing: expected 0 <= smoothing < 1, with"),
        (dict(clip_weights=0), "clip_weights: expected more than 0"),
        (dict(average=1.0), "average: expected 0 <= average < 1; got 1.0"),
        (dict(latent=0), "latent: expected at least 1"),
    ],
)
def test_impossible_settings_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        GAN(**params)


def test_a_batch_is_at_most_all_samples():
    x = two_heaps(50)
    fits = [GAN("mlp", 2, (4,), output="none").fit(x, epochs=2, batch_size=n, on_collapse="ignore") for n in (50, 64)]
    for name, a in fits[0].get_weights().items():
        np.testing.assert_array_equal(fits[1].get_weights()[name], a)


def test_an_optimizer_may_be_a_function_or_a_class():
    """As in every other fit: it gets what was asked for, and nothing else."""
    x, made = two_heaps(64), []

    def fit(optimizer, **options):
        return GAN("mlp", 2, (4,), output="none", seed=1).fit(x, epochs=1, optimizer=optimizer, on_collapse="ignore", **options)

    def plain(module):
        made.append(optim.Adam(module, lr=2e-4, beta1=0.5))
        return made[-1]

    named = fit("adam").sample(5)
    np.testing.assert_array_equal(fit(plain).sample(5), named)
    np.testing.assert_array_equal(fit(optim.Adam, lr=2e-4, beta1=0.5).sample(5), named)
    np.testing.assert_array_equal(fit(optim.Adam).sample(5), fit("adam", lr=1e-3, beta1=0.9).sample(5))
    sgd = fit("sgd", lr=0.1, lr_d=0.2).sample(5)
    np.testing.assert_array_equal(fit(optim.SGD, lr=0.1, lr_d=0.2).sample(5), sgd)
    fit(plain, schedule=lambda t, total: 0.5)
    assert [player.lr for player in made] == [2e-4] * 4  # as it was before


@pytest.mark.parametrize(
    ("optimizer", "options", "error", "message"),
    [
        ("nadam", {}, ValueError, "optimizer: expected one of sgd, .* or a function; got 'nadam'"),
        (lambda m: None, {}, TypeError, "optimizer: expected an Optimizer made for this module; got NoneType"),
        (lambda m, at=[]: at.append(optim.SGD(m)) or at[0], {}, ValueError, "optimizer: expected one that was made for"),
        ("sgd", {"beta1": 0.5}, ValueError, "beta1: expected none with 'sgd', which has no such number; got 0.5"),
        ("adam", {"lr": "fast"}, TypeError, "lr: expected a number; got str"),
        ("adam", {"beta1": 1.0}, ValueError, "beta1: expected 0 <= beta1 < 1; got 1.0"),
    ],
)
def test_wrong_optimizers_are_named(optimizer, options, error, message):
    with pytest.raises(error, match=message):
        GAN("mlp", 2, (4,), output="none").fit(two_heaps(64), optimizer=optimizer, **options)


def test_wrong_use_is_named():
    x = two_heaps(64)
    model = GAN("mlp", 2, (4,), output="none")
    with pytest.raises(RuntimeError, match="expected a model that was built or fitted"):
        model.sample(1)
    for options, message in (
        (dict(batch_size=0), "batch_size: expected at least 1"),
        (dict(epochs=0), "epochs: expected at least 1"),
        (dict(on_collapse="cry"), "on_collapse: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(x, **options)
    model.build((2,))
    with pytest.raises(ValueError, match=r"z: expected shape \[N,2\]; got \[1, 3\]"):
        model.generate(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least 4x4 pixels"):
        GAN("dcgan").build((3, 8))
    with pytest.raises(FloatingPointError, match="loss: expected finite numbers.*X is not finite"):
        model.fit(np.full((64, 2), np.nan), epochs=1)


# --------------------------------------------------------------------------------------------------------- metrics


def test_distances_of_what_is_not_finite_are_refused():
    x = np.zeros((3, 2))
    with pytest.raises(ValueError, match="b: expected finite numbers; got NaN or infinity"):
        metrics.frechet_distance(x, np.where(np.eye(3, 2), np.nan, x))


def test_frechet_distance_of_normals():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((4000, 3))
    b = 2 * a[::-1] + [3.0, 0, 0]
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    centre = np.square(a.mean(0) - b.mean(0)).sum()
    # covariances C and 4 C: tr(C + 4 C - 4 C)
    assert metrics.frechet_distance(a, b) == pytest.approx(centre + np.trace(np.cov(a.T)), rel=1e-4)
    from numpy.linalg import eigvals

    c = a @ rng.standard_normal((3, 3))
    ca, cc = np.cov(a.T), np.cov(c.T)
    expected = np.square(a.mean(0) - c.mean(0)).sum() + np.trace(ca + cc) - 2 * np.sqrt(eigvals(ca @ cc).real).sum()
    assert metrics.frechet_distance(a, c) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(ValueError, match="b: expected 3 values a sample"):
        metrics.frechet_distance(a, np.zeros((5, 2)))
    with pytest.raises(ValueError, match="expected two samples or more"):
        metrics.frechet_distance(a, np.zeros((1, 3)))


def test_parzen_window():
    rng = np.random.default_rng(0)
    s, x = rng.standard_normal((2, 40, 3))
    d = np.square(x[:, None] - s[None]).sum(2)
    logs = [np.log(np.mean(np.exp(-d / (2 * h * h)), 1)) - 1.5 * math.log(2 * math.pi * h * h) for h in (0.5, 1.0)]
    mean, error = metrics.parzen_log_likelihood(s, x, [0.5, 1.0])
    np.testing.assert_allclose(mean, [a.mean() for a in logs], rtol=1e-4)
    np.testing.assert_allclose(error, [a.std() / math.sqrt(40) for a in logs], rtol=1e-3)
    assert metrics.parzen_log_likelihood(s, x, 1.0)[0] == pytest.approx(mean[1])
    with pytest.raises(ValueError, match="bandwidth: expected more than 0"):
        metrics.parzen_log_likelihood(s, x, 0.0)


def test_copies_are_found():
    rng = np.random.default_rng(0)
    data, held, new = rng.random((3, 300, 4))
    distance, place = metrics.nearest_distances(data[5:8], data)
    assert place.tolist() == [5, 6, 7] and distance.max() < 1e-2
    assert metrics.share_of_copies(data[:50] + 1e-4, data, held) == 1.0
    assert metrics.share_of_copies(new, data, held) < 0.05


def test_figures_do_not_depend_on_where_the_data_lie():
    """Distances come from products of float32, which lose all digits of what lies close together and far from 0."""
    rng = np.random.default_rng(0)
    s, x = rng.normal(size=(2, 200, 5)).astype(np.float32)
    s, x = s + np.float32(1000), x + np.float32(1000)
    squares = np.square(x[:, None].astype(np.float64) - s[None]).sum(2)
    distance, place = metrics.nearest_distances(x, s)
    np.testing.assert_array_equal(place, squares.argmin(1))
    np.testing.assert_allclose(distance, np.sqrt(squares.min(1)), rtol=1e-6)
    assert metrics.nearest_distances(s[:9], s)[0].max() == 0
    logs = np.log(np.exp(squares / -0.5).mean(1)) - 2.5 * math.log(2 * math.pi * 0.25)
    np.testing.assert_allclose(metrics.parzen_log_likelihood(s, x, 0.5), [logs.mean(), logs.std() / math.sqrt(200)], rtol=1e-4)
    heaps = np.concatenate([rng.normal(size=(500, 2)), rng.normal(size=(500, 2)) * [0.5, 2.0] + 8]) + 1000
    for covariance in ("diagonal", "full"):
        m = metrics.GaussianMixture(2, covariance, floor=1e-4, iterations=100).fit(heaps)
        order = np.argsort(m.means_[:, 0])
        np.testing.assert_allclose(m.means_[order], [heaps[:500].mean(0), heaps[500:].mean(0)], atol=1e-3)
        np.testing.assert_allclose(m.variances_[order], [heaps[:500].var(0), heaps[500:].var(0)], rtol=1e-2)
        np.testing.assert_allclose(m.sample(4000).mean(0), heaps.mean(0), atol=0.2)


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: metrics.parzen_log_likelihood(x, x, "x"), TypeError, "bandwidth: expected real numbers; got <U1"),
        (lambda x: metrics.parzen_log_likelihood(x, x, [[1.0]]), ValueError, r"bandwidth: expected .* got \[\[1.0\]\]"),
        (lambda x: metrics.parzen_log_likelihood(x, x, math.inf), ValueError, "bandwidth: expected .*finite.* got inf"),
        (lambda x: metrics.GaussianMixture("a"), TypeError, "components: expected an integer; got str"),
        (lambda x: metrics.GaussianMixture(2, iterations=2.5), TypeError, "iterations: expected an integer; got float"),
        (lambda x: metrics.GaussianMixture(2, floor="a"), TypeError, "floor: expected a finite number of more than 0; got 'a'"),
        (lambda x: metrics.features("a", x), TypeError, "judge: expected a classifier of fastdl.models; got str"),
        (lambda x: metrics.class_shares(None, x), TypeError, "judge: expected a classifier; got NoneType"),
        (lambda x: metrics.GaussianMixture(2).fit(x).sample([]), TypeError, "n: expected an integer; got list"),
        (lambda x: metrics.GaussianMixture(2).fit(x).sample(3, low="a"), TypeError, "low: expected a finite number; got 'a'"),
        (lambda x: metrics.GaussianMixture(0), ValueError, "components: expected at least 1; got 0"),
        (lambda x: metrics.GaussianMixture(2).sample(3), RuntimeError, "expected a mixture that was fitted; got a fresh one"),
    ],
)
def test_wrong_arguments_of_metrics_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call(np.eye(4))


def test_mixture_of_normals():
    x = two_heaps(2000, spread=0.15)
    for covariance in ("diagonal", "full"):
        m = metrics.GaussianMixture(2, covariance, floor=1e-4, seed=1).fit(x)
        np.testing.assert_allclose(np.abs(m.means_), [[1.0, 0.5]] * 2, atol=0.05)
        assert metrics.frechet_distance(m.sample(2000), x) < 0.05
    turned = np.random.default_rng(0).standard_normal((3000, 2)) @ [[1.0, 0.9], [0.0, 0.3]]
    one = metrics.GaussianMixture(1, "full").fit(turned)
    np.testing.assert_allclose(np.cov(one.sample(3000).T), np.cov(turned.T), atol=0.1)
    assert one.sample(100, low=0.0).min() == 0.0
    with pytest.raises(ValueError, match="X: expected 5 samples or more"):
        metrics.GaussianMixture(5).fit(x[:4])
    with pytest.raises(ValueError, match="covariance: expected"):
        metrics.GaussianMixture(covariance="tied")


def test_judged_by_a_classifier():
    rng = np.random.default_rng(0)
    x = rng.random((60, 12, 12)).astype(np.float32)
    y = np.arange(60) % 2
    x[y == 1] += 1
    judge = CNN("lenet5", seed=0).fit(x, y, epochs=8, lr=3e-3)
    assert metrics.class_shares(judge, x).tolist() == [0.5, 0.5]
    assert metrics.class_shares(judge, x[y == 1]).tolist() == [0.0, 1.0]
    f = metrics.features(judge, x)
    assert f.shape == (60, 84)
    last = judge.module_[-1]
    np.testing.assert_allclose(f @ last.w.data + last.b.data, judge.decision_function(x), rtol=1e-4, atol=1e-5)
    from fastdl.models import SoftmaxRegression

    with pytest.raises(ValueError, match="judge: expected a classifier of two layers"):
        metrics.features(SoftmaxRegression().fit(x, y, epochs=1), x)


def test_the_generator_is_not_changed_by_the_discriminators_update():
    model = GAN("mlp", 2, (8,), output="none", seed=1)
    seen = []

    def watch(state):
        seen.append(state.module.generator.get_weights())

    model.fit(two_heaps(64), epochs=1, batch_size=32, lr=0.0, lr_d=1e-2, on_step=[watch], on_collapse="ignore")
    assert all(np.array_equal(seen[0][k], seen[-1][k]) for k in seen[0])
