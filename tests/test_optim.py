"""Optimisers against their formulas in float64 NumPy, and schedules."""

import itertools
import math

import numpy as np
import pytest

from fastdl import kernels, nn, optim, schedules
from fastdl.tensor import Tensor

STEPS = 5


def start():
    m = nn.Sequential(nn.Dense(6, "tanh"), nn.Dense(2)).build((3,), seed=4)
    for p in m.parameters():
        if p.data.ndim == 1:
            p.data[...] = 0.3  # decay of a bias would show
    return m


def gradients():
    rng = np.random.default_rng(0)
    return [
        {n: rng.normal(size=p.shape).astype(np.float32) for n, p in start().named_parameters()} for _ in range(STEPS)
    ]


def sgd(w, g, s, t, decay, lr=0.1, momentum=0.0, nesterov=False):
    g = g + decay * w
    s["v"] = momentum * s.get("v", 0.0) + g
    return w - lr * (g + momentum * s["v"] if nesterov else s["v"])


def adam(w, g, s, t, decay, lr=0.1, b1=0.9, b2=0.999, eps=1e-8, decoupled=False):
    if not decoupled:
        g = g + decay * w
    s["m"] = b1 * s.get("m", 0.0) + (1 - b1) * g
    s["v"] = b2 * s.get("v", 0.0) + (1 - b2) * g * g
    step = (s["m"] / (1 - b1**t)) / (np.sqrt(s["v"] / (1 - b2**t)) + eps)
    return w - lr * (step + (decay * w if decoupled else 0.0))


def rmsprop(w, g, s, t, decay, lr=0.1, rho=0.9, eps=1e-8):
    g = g + decay * w
    s["v"] = rho * s.get("v", 0.0) + (1 - rho) * g * g
    return w - lr * g / (np.sqrt(s["v"]) + eps)


def adagrad(w, g, s, t, decay, lr=0.1, eps=1e-10):
    g = g + decay * w
    s["v"] = s.get("v", 0.0) + g * g
    return w - lr * g / (np.sqrt(s["v"]) + eps)


CASES = [
    (optim.SGD, {}, sgd, {}),
    (optim.SGD, {"momentum": 0.9}, sgd, {"momentum": 0.9}),
    (optim.SGD, {"momentum": 0.9, "nesterov": True}, sgd, {"momentum": 0.9, "nesterov": True}),
    (optim.Adam, {}, adam, {}),
    (optim.AdamW, {}, adam, {"decoupled": True}),
    (optim.RMSprop, {}, rmsprop, {}),
    (optim.AdaGrad, {}, adagrad, {}),
]


def run(opt, m, grads):
    for g in grads:
        opt.zero_grad()
        for name, p in m.named_parameters():
            p.grad[...], p.beta = g[name], 1.0
        opt.step()


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(("kind", "options", "rule", "rule_options"), CASES)
def test_updates_follow_the_formula(kind, options, rule, rule_options, decay):
    m = start()
    want = {n: p.data.astype(np.float64) for n, p in m.named_parameters()}
    states = {n: {} for n in want}
    run(kind(m, lr=0.1, weight_decay=decay, **options), m, gradients())
    for t, g in enumerate(gradients(), 1):
        for n, w in want.items():
            want[n] = rule(w, g[n].astype(np.float64), states[n], t, decay if w.ndim == 2 else 0.0, **rule_options)
    for n, p in m.named_parameters():
        np.testing.assert_allclose(p.data, want[n], rtol=2e-5, atol=2e-6, err_msg=n)


@pytest.mark.parametrize(("kind", "options", "rule", "rule_options"), CASES)
def test_state_saved_and_restored_goes_on_bit_for_bit(kind, options, rule, rule_options):
    grads = gradients()
    a = start()
    opt = kind(a, lr=0.1, **options)
    run(opt, a, grads)

    b = start()
    first = kind(b, lr=0.1, **options)
    run(first, b, grads[:2])
    second = kind(b, lr=0.5, **options)
    second.set_state(first.get_state())
    run(second, b, grads[2:])
    np.testing.assert_array_equal(a.flatten().data, b.flatten().data)


def test_momentum_cannot_be_switched_on_later():
    m = start()
    opt = optim.SGD(m, lr=0.1)
    opt.momentum = 0.9  # nothing was laid aside for it
    before = m.flatten().snapshot()
    with pytest.raises(ValueError, match=r"momentum: expected 0, as when the optimiser was made; got 0\.9"):
        run(opt, m, gradients()[:1])
    np.testing.assert_array_equal(m.flatten().data, before)


@pytest.mark.parametrize("wrong", [{"t": -1}, {"lr": -0.1}, {"lr": math.nan}, {"t": None}])
def test_a_state_that_cannot_be_is_refused(wrong):
    opt = optim.Adam(start())
    state = {k: v for k, v in (opt.get_state() | wrong).items() if v is not None}
    with pytest.raises(ValueError, match=rf"state\['{next(iter(wrong))}'\]: expected 0 or more"):
        opt.set_state(state)
    assert opt.t == 0 and opt.lr == 1e-3


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"t": "3"}, TypeError, r"state\['t'\]: expected an integer; got str"),
        ({"t": 1.5}, TypeError, r"state\['t'\]: expected an integer; got float"),
        ({"t": -1}, ValueError, r"state\['t'\]: expected 0 or more; got -1"),
        ({"lr": None}, TypeError, r"state\['lr'\]: expected a number; got NoneType"),
        ({"lr": np.inf}, ValueError, r"state\['lr'\]: expected 0 or more, finite; got inf"),
        ({"v": "abc"}, TypeError, r"state\['v'\]: expected an array of numbers; got .*<U3"),
        ({"v": None}, TypeError, r"state\['v'\]: expected an array of numbers; got .*None"),
        (None, TypeError, "state: expected a dict, as get_state gives it; got NoneType"),
    ],
)
def test_what_is_no_state_is_named_and_changes_nothing(wrong, kind, message):
    opt = optim.Adam(nn.Dense(2, inputs=3).initialise(0))
    before = opt.get_state()
    given = None if wrong is None else before | {"t": 7, "lr": 0.5, "m": before["m"] + 1} | wrong
    with pytest.raises(kind, match=message):
        opt.set_state(given)
    for name, value in opt.get_state().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize(
    "wrong", [dict(lr="x"), dict(lr=-1.0), dict(lr=math.nan), dict(lr=math.inf), dict(clip="x"), dict(beta1="x")]
)
def test_an_update_that_is_refused_is_none(wrong):
    m = start()
    opt = optim.Adam(m, clip=1.0)
    run(opt, m, gradients()[:1])
    before = opt.get_state()["t"], m.flatten().snapshot()
    for name, value in wrong.items():
        setattr(opt, name, value)
    with pytest.raises((TypeError, ValueError), match=f"{'max_norm|' if 'clip' in wrong else ''}{next(iter(wrong))}"):
        run(opt, m, gradients()[:1])
    assert opt.t == before[0] == 1
    np.testing.assert_array_equal(m.flatten().data, before[1])


@pytest.mark.parametrize(
    ("kernel", "settings"),
    [
        ("sgd", {"momentum": -0.5}),
        ("adam", {"beta1": 1.0}),
        ("adam", {"beta2": 1.0}),
        ("adam", {"eps": math.nan}),
        ("adam", {"weight_decay": -1.0}),
        ("rmsprop", {"rho": 2.0}),
        ("adagrad", {"eps": -1.0}),
    ],
)
def test_kernels_refuse_settings_that_make_no_numbers(kernel, settings):
    w, state = np.ones(3, np.float32), {"v": np.zeros(3, np.float32), "lr": 0.1}
    if kernel == "adam":
        state |= {"m": np.zeros(3, np.float32), "t": 1}
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name}: expected {name}[<>]"):
        getattr(kernels, kernel)(np.ones(3, np.float32), w=w, **state, **settings)
    np.testing.assert_array_equal(w, 1.0)


def test_clipping_scales_all_gradients_together():
    m = start()
    opt = optim.SGD(m, lr=1.0, clip=0.5)
    g = gradients()[0]
    norm = math.sqrt(sum(float((v.astype(np.float64) ** 2).sum()) for v in g.values()))
    before = {n: p.data.copy() for n, p in m.named_parameters()}
    run(opt, m, [g])
    assert opt.norm == pytest.approx(norm, rel=1e-6)
    for n, p in m.named_parameters():
        np.testing.assert_allclose(before[n] - p.data, g[n] * 0.5 / norm, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("size", [1e10, 1e20, 1e30, 3e38])
@pytest.mark.parametrize("clip", [0.5, 1e35, math.inf])
def test_gradients_whose_squares_no_float_holds_are_clipped_as_well(size, clip):
    m = start()
    drawn = gradients()[0]
    top = max(abs(g).max() for g in drawn.values())
    grads = {n: (g / top * size).astype(np.float32) for n, g in drawn.items()}
    opt = optim.SGD(m, lr=0.0, clip=clip)
    run(opt, m, [grads])
    wide = np.concatenate([g.reshape(-1) for g in grads.values()]).astype(np.float64)
    norm = np.linalg.norm(wide)
    assert opt.norm == pytest.approx(norm, rel=1e-5)
    for name, p in m.named_parameters():
        np.testing.assert_allclose(p.grad, grads[name] * min(1.0, clip / norm), rtol=1e-5)


def test_a_gradient_that_is_infinite_is_left_to_be_found():
    m = start()
    grads = {n: np.where(g == g.max(), np.float32(np.inf), g) for n, g in gradients()[0].items()}
    opt = optim.SGD(m, lr=0.0, clip=1.0)
    run(opt, m, [grads])
    assert opt.norm == math.inf
    for name, p in m.named_parameters():
        np.testing.assert_array_equal(p.grad, grads[name])


def test_a_parameter_without_gradient_gets_none_from_the_last_step():
    m = start()
    opt = optim.SGD(m, lr=1.0)
    run(opt, m, gradients()[:1])
    before = m.flatten().snapshot()
    opt.zero_grad()
    opt.step()
    np.testing.assert_array_equal(m.flatten().data, before)


def test_a_step_lowers_the_loss_of_a_real_network():
    m, x = start(), Tensor(np.random.default_rng(1).normal(size=(8, 3)).astype(np.float32))
    opt = optim.SGD(m, lr=0.05)

    def loss():
        return (m(x) * m(x)).mean()

    before = loss().item()
    for _ in range(20):
        opt.zero_grad()
        loss().backward()
        opt.step()
    assert loss().item() < 0.7 * before


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: optim.SGD(m, lr=-1), "lr: expected 0 or more; got -1"),
        (lambda m: optim.SGD(m, momentum=1.0), "momentum: expected 0 <= momentum < 1; got 1.0"),
        (lambda m: optim.SGD(m, nesterov=True), "nesterov: expected a momentum above 0"),
        (lambda m: optim.Adam(m, beta2=1.5), "beta2: expected"),
        (lambda m: optim.Adam(m, clip=0.0), "clip: expected more than 0"),
        (lambda m: optim.get("adamm", m), "optimizer: expected one of sgd, adam"),
        (lambda m: optim.get(["sgd"], m), "optimizer: expected one of sgd, adam"),
        (lambda m: optim.SGD(m, lr=np.inf), "lr: expected 0 or more, finite; got inf"),
        (lambda m: optim.Adam(m, eps=-1), "eps: expected 0 or more; got -1"),
        (lambda m: optim.RMSprop(m, eps=np.nan), "eps: expected 0 or more; got nan"),
        (lambda m: schedules.step([0.5, np.nan]), "milestones: expected updates"),
        (lambda m: schedules.step([3], factor=-0.1), "factor: expected 0 or more; got -0.1"),
        (lambda m: schedules.cosine(final=np.inf), "final: expected a finite number; got inf"),
        (lambda m: schedules.one_cycle(start=-1), "start: expected 0 or more; got -1"),
        (lambda m: schedules.plateau(patience=1.5), "patience: expected a whole number of epochs, 0 or more; got 1.5"),
        (lambda m: schedules.plateau(least=-1), "least: expected 0 or more; got -1"),
    ],
)
def test_bad_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make(start())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: optim.SGD(m, momentum="0.9"), "momentum: expected a number; got str"),
        (lambda m: optim.Adam(m, beta1=None), "beta1: expected a number; got NoneType"),
        (lambda m: optim.AdaGrad(m, eps="x"), "eps: expected a number; got str"),
        (lambda m: schedules.step(3), "milestones: expected a sequence of numbers; got int"),
        (lambda m: schedules.cosine(final="0"), "final: expected a finite number; got '0'"),
        (lambda m: schedules.one_cycle("x"), "peak: expected a finite number; got 'x'"),
    ],
)
def test_settings_that_are_no_numbers_are_named(make, message):
    with pytest.raises(TypeError, match=message):
        make(start())


# ------------------------------------------------------------------------------------------------ schedules


def test_step():
    f = schedules.step([3, 0.5], 0.1)
    assert [round(f(t, 10), 6) for t in (0, 2, 3, 4, 5, 9)] == [1, 1, 0.1, 0.1, 0.01, 0.01]


def test_a_share_may_be_a_number_of_numpys():
    f, g = schedules.cosine(warmup=np.float32(0.25)), schedules.cosine(warmup=2)
    assert [f(t, 8) for t in range(8)] == [g(t, 8) for t in range(8)]
    with pytest.raises(ValueError, match="warmup: expected updates .an integer. or a share of the run"):
        schedules.cosine(warmup=np.float32(1.5))


def test_cosine_with_warmup():
    f = schedules.cosine(warmup=4, final=0.1)
    values = [f(t, 20) for t in range(20)]
    np.testing.assert_allclose(values[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert values[-1] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(values[4:]))
    assert schedules.cosine()(0, 10) == 1.0
    assert schedules.cosine(np.int64(4), 0.1)(2, 20) == f(2, 20)


def test_one_cycle():
    f = schedules.one_cycle(0.3, 0.04, 1e-4)
    values = [f(t, 101) for t in range(101)]
    assert values[0] == pytest.approx(0.04)
    assert max(values) == pytest.approx(1.0) == values[30]
    assert values[-1] == pytest.approx(1e-4)


def test_plateau():
    f = schedules.plateau(0.5, patience=1)
    factors = []
    for loss in [3, 2, 2, 2, 2, 2, 1]:
        f.observe(loss)
        factors.append(f(0, 1))
    assert factors == [1, 1, 1, 0.5, 0.5, 0.25, 0.25]
