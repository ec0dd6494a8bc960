"""Convolutional Boltzmann machines: free energies, gradients and samples against sums over every state; they learn and last."""

import signal

import numpy as np
import pytest

from fastdl import data, models
from fastdl.models import ConvolutionalRBM
from fastdl.tensor import Tensor


def bits(n):
    return ((np.arange(2**n)[:, None] >> np.arange(n)) & 1).astype(np.float64)


def inputs(w, v):
    """c-free inputs of the hidden units [N,P,Q,F], window by window."""
    n, rows, columns, _ = v.shape
    r = w.shape[0]
    out = np.empty((n, rows - r + 1, columns - r + 1, w.shape[3]))
    for p in range(out.shape[1]):
        for q in range(out.shape[2]):
            out[:, p, q] = np.tensordot(v[:, p : p + r, q : q + r], w, 3)
    return out


def free_energy(weights, v, gaussian=False):
    """-log sum_h e^-E(v, h), the sum over h one state after the other."""
    w, b, c = (weights[name].astype(np.float64) for name in "wbc")
    z = (inputs(w, v) + c).reshape(len(v), -1)
    own = ((v - b) ** 2 / 2).sum((1, 2, 3)) if gaussian else -(v * b).sum((1, 2, 3))
    return own - np.logaddexp.reduce(z @ bits(z.shape[1]).T, axis=1)


def make(channels=1, visible="bernoulli"):
    """3x3 pixels, two filters of 2x2: 8 hidden units."""
    rng = np.random.default_rng(0)
    model = ConvolutionalRBM(2, 2, visible, seed=1).build((3, 3, channels))
    weights = {k: 0.8 * rng.standard_normal(a.shape).astype(np.float32) for k, a in model.get_weights().items()}
    return model.set_weights(weights)


@pytest.mark.parametrize("channels, visible", [(1, "bernoulli"), (2, "bernoulli"), (2, "gaussian")])
def test_free_energy_is_a_sum_over_hidden_states(channels, visible):
    model, rng = make(channels, visible), np.random.default_rng(1)
    v = rng.random((6, 3, 3, channels)) if visible == "bernoulli" else rng.standard_normal((6, 3, 3, channels))
    v = v.astype(np.float32)
    wanted = free_energy(model.get_weights(), v.astype(np.float64), visible == "gaussian")
    np.testing.assert_allclose(model.free_energy(v), wanted, rtol=1e-5, atol=1e-4)
    z = inputs(model.get_weights()["w"].astype(np.float64), v.astype(np.float64)) + model.get_weights()["c"]
    np.testing.assert_allclose(model.transform(v), 1 / (1 + np.exp(-z)), rtol=1e-5)


def test_chains_settle_in_the_exact_distribution():
    model = make()
    every = bits(9)
    log = -free_energy(model.get_weights(), every.reshape(-1, 3, 3, 1))
    p = np.exp(log - np.logaddexp.reduce(log))
    n = 6000
    v = model.sample(n, steps=25, seed=5).reshape(n, 9)
    count = np.bincount((v @ (1 << np.arange(9))).astype(int), minlength=512)
    few = n * p < 8  # small cells together
    observed, expected = np.append(count[~few], count[few].sum()), n * np.append(p[~few], p[few].sum())
    chi2, freedom = ((observed - expected) ** 2 / expected).sum(), len(expected) - 1
    assert freedom > 50
    assert (chi2 / freedom) ** (1 / 3) < 1 - 2 / (9 * freedom) + 4.3 * np.sqrt(2 / (9 * freedom)), chi2


@pytest.mark.parametrize("visible", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("persistent", [False, True])
def test_gradient_is_data_less_model(visible, persistent):
    model, rng = make(2, visible), np.random.default_rng(2)
    net, gaussian = model.module_.train(), visible == "gaussian"
    net.k = 2
    if persistent:
        net.chain = (rng.random((7, 3, 3, 2)) < 0.5).astype(np.float32)
    x = rng.random((5, 3, 3, 2)).astype(np.float32)
    net.flatten().zero_grad()
    inner, went = net.gibbs, {}
    net.gibbs = lambda *a: went.setdefault("v", inner(*a))
    loss = net.objective(net(Tensor(x)), None)
    del net.gibbs
    loss.backward()
    other = went["v"].astype(np.float64)
    assert len(other) == (7 if persistent else 5) and (gaussian or set(np.unique(other)) <= {0, 1})
    if persistent:
        np.testing.assert_array_equal(net.chain, went["v"])
    weights = {k: a.astype(np.float64) for k, a in model.get_weights().items() if k != "chain"}
    at = lambda w: free_energy(w, x.astype(np.float64), gaussian).mean() - free_energy(w, other, gaussian).mean()
    assert loss.item() == pytest.approx(at(weights), rel=1e-4, abs=1e-4)
    for name, p in net.named_parameters():
        way = rng.standard_normal(p.data.shape)
        slope = (at(weights | {name: weights[name] + 1e-4 * way}) - at(weights | {name: weights[name] - 1e-4 * way})) / 2e-4
        assert float((p.grad * way).sum()) == pytest.approx(slope, rel=2e-3, abs=2e-4), name


@pytest.mark.parametrize("algorithm", ["cd", "pcd"])
def test_digits_are_given_back_and_told_from_noise(algorithm):
    x = np.ascontiguousarray(data.load("mnist-embedded").x_train[:200, ::2, ::2])
    options = dict(epochs=12, batch_size=20, algorithm=algorithm, lr=0.02, stochastic=True)
    model = ConvolutionalRBM(8, 5, sparsity=0.1, seed=2).fit(x, **options)
    error = model.history_["error"]
    assert len(error) == 12 and error[-1] < 0.8 * ((x / 255 - (x / 255).mean(0)) ** 2).mean()
    shuffled = np.random.default_rng(0).permuted(x[:50].reshape(50, -1), axis=1).reshape(50, 14, 14, 1)
    assert model.free_energy(x[:50]).mean() < model.free_energy(shuffled).mean() - 20
    assert model.sample(2, steps=3).shape == (2, 14, 14, 1) and model.gibbs(x[:2]).shape == (2, 14, 14, 1)


def test_it_lasts(tmp_path):
    x = data.load("mnist-embedded").x_train[:60, :12, :12]
    new = lambda: ConvolutionalRBM(3, 4, seed=2)
    whole = new().fit(x, epochs=3, batch_size=20)
    new().fit(x, epochs=2, batch_size=20, checkpoint=tmp_path / "c")
    resumed = new().fit(x, epochs=3, batch_size=20, resume=tmp_path / "c")
    curves = [{k: v for k, v in m.history_.items() if k != "seconds"} for m in (whole, resumed)]
    assert curves[0] == curves[1] and len(curves[1]["error"]) == 3
    np.testing.assert_array_equal(resumed.transform(x), whole.transform(x))
    np.testing.assert_array_equal(resumed.sample(4, steps=3), whole.sample(4, steps=3))
    whole.save(tmp_path / "m")
    again = models.load(tmp_path / "m")
    np.testing.assert_array_equal(again.sample(4, steps=3), whole.sample(4, steps=3))
    np.testing.assert_array_equal(again.reconstruct(x), whole.reconstruct(x))


@pytest.mark.parametrize(
    "params, message",
    [
        (dict(filters=0), "filters: expected at least 1; got 0"),
        (dict(size=0), "size: expected at least 1; got 0"),
        (dict(visible="relu"), "visible: expected 'bernoulli' or 'gaussian'; got 'relu'"),
        (dict(sparsity=1.0), "sparsity: expected 0 < sparsity < 1; got 1.0"),
    ],
)
def test_impossible_settings_are_named(params, message):
    with pytest.raises(ValueError, match=message):
        ConvolutionalRBM(**params)


def test_wrong_use_is_named():
    x = np.full((4, 6, 6), 0.5)
    with pytest.raises(ValueError, match="k: expected at least 1; got 0"):
        ConvolutionalRBM(2, 3).fit(x, k=0)
    with pytest.raises(ValueError, match="algorithm: expected 'pcd' or 'cd'; got 'fpcd'"):
        ConvolutionalRBM(2, 3).fit(x, algorithm="fpcd")
    with pytest.raises(ValueError, match="X: expected values from 0 to 1, for Bernoulli units; got 2"):
        ConvolutionalRBM(2, 3).fit(4 * x)
    with pytest.raises(ValueError, match="X: expected images of at least 7x7 pixels; got"):
        ConvolutionalRBM(2, 7).fit(x)
    with pytest.raises(ValueError, match=r"H: expected shape \[N,4,4,2\]; got \[1, 3, 3, 2\]"):
        ConvolutionalRBM(2, 3).build((6, 6)).inverse_transform(np.zeros((1, 3, 3, 2)))
    with pytest.raises(RuntimeError, match="expected a model that was built or fitted"):
        ConvolutionalRBM(2, 3).sample(1)


def test_gaussian_values_must_be_finite():
    x = np.full((4, 6, 6), 0.5)
    model = ConvolutionalRBM(2, 3, visible="gaussian").fit(x, epochs=1)
    for bad in (np.nan, np.inf):
        for use in (model.transform, model.free_energy, ConvolutionalRBM(2, 3, visible="gaussian").fit):
            with pytest.raises(ValueError, match=f"X: expected finite numbers; got {bad}"):
                use(np.where(np.arange(6) == 2, bad, x))
    with pytest.raises(TypeError, match="steps: expected an integer; got float"):
        model.build((6, 6)).sample(1, 1.5)


def test_an_interrupted_epoch_has_no_error_yet():
    def interrupt(state):
        if state.step == 3:
            signal.raise_signal(signal.SIGINT)

    images = np.random.default_rng(0).random((20, 6, 6))
    history = ConvolutionalRBM(2, 3).fit(images, epochs=9, batch_size=10, on_step=interrupt).history_
    assert history["stopped"] == "interrupted" and history["epoch"] == [1, 2]
    assert len(history["error"]) == 2 and np.isnan(history["error"][1])  # a column like the others
