"""The benchmark runner: sampling, ratios, goals, environment; every row runs and computes what its peer does."""

import json
import math
import os
import statistics
import subprocess
import sys
import time

import numpy as np
import pytest

from fastdl import backend, bench, bench_peers
from fastdl.bench import Case, Fact, Result, Row

ALL = [r for r in bench.rows() if isinstance(r, Row)]


def result(own, **others):
    return Result(Row("gemm", "x", None, 2e9, 0.0, {"numpy": 1.5}), 1, {"fastdl": own, **others})


def test_ratio_is_the_median_of_ratios_within_rounds():
    # The machine slows down fourfold half way: ratios of medians over the whole run would mix the two halves.
    r = result([1.0, 1.0, 4.0, 4.0, 4.0], numpy=[2.0, 2.0, 8.0, 8.0, 8.0])
    assert r.ratio("numpy") == (2.0, 2.0, 2.0)
    middle, low, high = result([1.0, 1.0, 1.0], numpy=[1.0, 2.0, 3.0]).ratio("numpy")
    assert (middle, low, high) == (2.0, 1.5, 2.5)


def test_a_peer_counts_with_its_better_contestant():
    r = result([1.0, 1.0], **{"torch": [3.0, 3.0], "torch (channels last)": [2.0, 2.0], "torch-fused": [1.0, 1.0]})
    assert r.best("torch") == "torch (channels last)"
    assert r.peers() == ["torch", "torch-fused"]
    record = r.record()
    assert record["versus"]["torch"]["ratio"] == 2.0
    assert set(record["versus"]["torch"]["seconds"]) == {"torch", "torch (channels last)"}


@pytest.mark.parametrize("numpy, met", [(1.49, False), (1.51, True)])
def test_goals_are_judged(numpy, met):
    record = result([1.0, 1.0], numpy=[numpy, numpy]).record(peak=4e9)
    assert record["versus"]["numpy"]["met"] is met
    assert record["gflops"] == 2.0 and record["share_of_peak"] == 0.5
    assert ("NOT met" in bench.line(record)) is not met


def test_a_goal_that_wants_more_than_the_peak_is_told():
    # half of the peak and 1.2 times the peer: no more than 2.4 times, whatever we did
    for goal, told in ((2.5, True), (2.3, False), (1.1, False)):
        r = Result(Row("gemm", "x", None, 2e9, 0.0, {"numpy": goal}), 1, {"fastdl": [1.0], "numpy": [1.2]})
        record = r.record(peak=4e9)
        assert record["versus"]["numpy"]["ratio_at_peak"] == 2.4
        assert ("NOT met (at the peak 2.40x)" in bench.line(record)) is told
    assert "ratio_at_peak" not in result([1.0], numpy=[1.0]).record()["versus"]["numpy"]


def test_the_peak_is_counted_by_operations():
    work = backend.cpu.multiply_adds
    one = work(1, 1)
    assert one >= 2 * 4 and (work(3, 1), work(1, 50), work(0, 50)) == (3 * one, 50 * one, 0)
    assert bench.measured_peak(1) > 1e6


def test_a_goal_holds_only_for_its_number_of_threads():
    r = result([1.0], numpy=[1.0])
    r.threads = 2
    assert r.goal("numpy") is None and r.record()["versus"]["numpy"]["met"] is None
    assert Result(Row("gemm", "x", None, goals={"numpy": 1.0}, goal_threads=()), 2).goal("numpy") == 1.0


def test_contestants_are_sampled_in_turn():
    calls = []
    row = Row("gemm", "x", lambda peers: {k: Case(calls.append, (k,)) for k in ("fastdl", "numpy")}, single=True)
    r = bench.visit(row, 1, ["numpy"], 3)
    assert len(r.seconds["fastdl"]) == len(r.seconds["numpy"]) == 3
    # each sample is one call to wake up and one that is timed
    assert calls[-12:] == ["fastdl", "fastdl", "numpy", "numpy"] * 3


@pytest.mark.parametrize("seconds, warmings", [(0.4, 3), (0.6, 1)])
def test_a_long_call_is_warmed_up_once(monkeypatch, seconds, warmings):
    monkeypatch.setattr(bench, "_sample", lambda case, times, clock=None: seconds)
    calls = []
    bench.visit(Row("gemm", "x", lambda peers: {"fastdl": Case(calls.append, (0,))}, single=True), 1, [], 3)
    assert len(calls) == 3 + warmings  # one to see whether it works, two to calibrate


def test_a_sample_is_long_enough(monkeypatch):
    """A call takes 1 us here, but for one interruption of 5 ms."""
    spikes = [0.0, 0.005]
    monkeypatch.setattr(
        bench, "_sample", lambda case, times, clock=None: 1e-6 + (spikes.pop() if spikes else 0.0) / times
    )
    assert bench.calibrate(Case(int), 0.004) >= 4000
    assert bench.calibrate(Case(int), 0.0) == 1


def test_the_cpu_clock_does_not_count_waiting():
    case = Case(time.sleep, (0.02,))
    assert bench._sample(case, 1) > 0.015
    assert bench._sample(case, 1, bench.CLOCKS["cpu"]) < 0.01


def test_a_row_near_parity_is_visited_again():
    assert Row("gemm", "x", None, goals={"numpy": 1.0}).visits() > 1
    assert Row("gemm", "x", None, goals={"numpy": 5.0}).visits() == 1
    assert Row("gemm", "x", None).visits() == 1
    assert Row("gemm", "x", None, pooled=True).visits() > 1


def test_a_peer_that_fails_is_named_and_ours_that_fails_is_an_error():
    def broken():
        raise RuntimeError("no such layout")

    row = Row("conv", "x", lambda peers: {"fastdl": Case(int), "torch": Case(broken)}, single=True)
    r = bench.visit(row, 1, [], 2)
    assert r.skipped == {"torch": "RuntimeError: no such layout"} and list(r.seconds) == ["fastdl"]
    with pytest.raises(RuntimeError, match="no such layout"):
        bench.visit(Row("conv", "x", lambda peers: {"fastdl": Case(broken)}), 1, [], 2)


def test_a_peer_that_computes_something_else_is_named():
    def check(theirs):
        return lambda: bench.agree([[1.0, 4.0], theirs], [[1.0, 4.0], [1.0, 2.0]])

    cases = {
        "fastdl": Case(int),
        "numpy": Case(int, check=check([1.0, 2.001])),
        "torch": Case(int, check=check([1.0, 2.01])),
        "jax": Case(int, check=check([1.0, math.nan])),
        "sklearn": Case(int, check=check([1.0])),
    }
    r = bench.visit(Row("conv", "x", lambda peers: cases, single=True), 1, [], 2)
    assert list(r.seconds) == ["fastdl", "numpy"] and list(r.skipped) == ["torch", "jax", "sklearn"]
    assert r.skipped["torch"] == "RuntimeError: computes something else: result 1 of shape (2,) is off by 5.0e-03 of the largest"


def test_pinning_variables_are_removed():
    clean, removed = bench_peers.clean_environment({"OPENBLAS_CORETYPE": "Prescott", "HOME": "/"})
    assert clean == {"HOME": "/"} and removed == ["OPENBLAS_CORETYPE"]


def test_bench_runs_with_the_kernel_that_openblas_chooses(tmp_path):
    """A pinned OpenBLAS must not be measured: the command starts itself anew without the variable."""
    path = tmp_path / "a.json"
    command = [sys.executable, "-m", "fastdl", "bench", "gemm", "--only", "^32x", "--rounds", "2", "--json", str(path)]
    run = subprocess.run(
        command,
        env=os.environ | {"OPENBLAS_CORETYPE": "Prescott"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "removed from this process: OPENBLAS_CORETYPE" in run.stdout
    found = json.loads(path.read_text())
    assert "Prescott" not in found["machine"]["blas"] and "Katmai" not in found["machine"]["blas"]
    (row,) = found["rows"]
    assert row["name"] == "32x32x32" and row["versus"]["numpy"]["seconds"]["numpy"] > 0
    assert found["peaks"]["1"]["gflops"] > 0.1


def test_json_takes_numpy_numbers_and_asks_for_its_folder_first(monkeypatch, tmp_path):
    fact = bench.Fact("rbm", "share", lambda threads: np.float32(17.5), "%", 20.0)
    monkeypatch.setattr(bench, "rows", lambda areas: [fact])
    bench.run(("rbm",), (), (1,), 2, json_path=tmp_path / "a.json", show=lambda line: None)
    (row,) = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert row["value"] == 17.5 and row["met"] is True
    with pytest.raises(ValueError, match="json_path: expected a file in a folder that is there"):
        bench.run(("rbm",), (), (1,), 2, json_path=tmp_path / "no" / "a.json", show=lambda line: None)


def test_missing_peers_are_named(monkeypatch):
    monkeypatch.setattr(bench, "installed", lambda peer: peer == "numpy")
    lines = []
    bench.run(("gemm",), ("numpy", "jax"), (1,), 2, only="^32x", show=lines.append)
    assert "jax: not installed, left out" in lines


def test_names_are_unique_and_goals_known():
    names = [(r.area, r.name) for r in bench.rows()]
    assert len(names) == len(set(names))
    for row in ALL:
        assert set(row.goals) <= {*bench_peers.PEERS, "one thread", "one idle thread", "whole batch"}
    areas = {r.area for r in bench.rows()}
    assert areas == set(bench.AREAS)


@pytest.mark.parametrize("row", ALL, ids=lambda r: f"{r.area}: {r.name}")
def test_row_runs(row):
    """Every contestant of every row can be called; ours against NumPy, which is always there."""
    if any(long in row.name for long in ("2048", "busy", "100 chains")):
        pytest.skip("long; the same code as its neighbours")
    for case in row.setup(["numpy"]).values():
        case.call(*case.args)


SAME = [r for r in ALL if r.area in ("gemm", "conv") and not any(big in r.name for big in ("2048", "1024", "stem"))]


@pytest.mark.parametrize("row", SAME, ids=lambda r: r.name)
def test_peers_compute_the_same(row):
    """A race between different computations says nothing: NumPy's result is compared with ours."""
    cases = row.setup(["numpy"])

    def value(case):
        returned = case.call(*case.args)
        if isinstance(returned, tuple):
            returned = returned[0]
        return np.array(case.args[-1] if returned is None else returned)

    ours, theirs = value(cases["fastdl"]), value(cases["numpy"])
    np.testing.assert_allclose(ours, theirs, rtol=2e-3, atol=2e-3)


def test_torch_computes_the_same_convolution():
    torch = pytest.importorskip("torch")
    from fastdl.bench_rows import conv

    s = conv._Shape(2, 3, 8, 4, 4, 2, 1)
    x, w, dy = s.arrays()
    functional, seen = torch.nn.functional, []
    forward = conv._torch_cases(lambda t, a, f, _: seen.append(functional.conv2d(a, f, stride=2, padding=1)), x, w, dy)
    transposed = conv._torch_cases(
        lambda t, a, f, _: seen.append(functional.conv_transpose2d(a, f, stride=2, padding=1)), dy, w, x
    )
    for case in (*forward.values(), *transposed.values()):
        case.call()
    expected = [s.numpy_forward(x, w)] * 2 + [s.numpy_backward_data(dy, w)] * 2
    for y, e in zip(seen, expected, strict=True):
        np.testing.assert_allclose(torch.permute(y, (0, 2, 3, 1)).numpy(), e, rtol=1e-4, atol=1e-4)


def test_plain_numpy_steps_learn():
    """The peers written by hand train: their loss falls."""
    from fastdl.bench_rows import plain, steps

    for mlp in (steps._Mlp((2, 16, 1), 4, "sgd", "binary", True), steps._Mlp((20, 16, 5), 16)):
        case = mlp.numpy()
        weights, x, target, loss, _, tanh = case.args
        update = plain.SGD(weights, 0.5)
        losses = [plain.mlp_step(weights, x, target, loss, update, tanh) for _ in range(200)]
        assert losses[-1] < 0.5 * losses[0]
    layers = steps._numpy_cnn(True, 8)
    update = plain.Adam([w for layer in layers for w in layer.parameters])
    x, labels = np.random.default_rng(0).random((8, 28, 28, 1), np.float32), np.arange(8)
    losses = [float(plain.net_step(layers, x, labels, update)) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]


JAX = [r for r in ALL if r.area in ("rnn", "rntn") and not any(without in r.name for without in ("padded", "ctc"))]


@pytest.mark.parametrize("row", JAX, ids=lambda r: r.name)
def test_jax_computes_the_same(row):
    """Its check runs before the race."""
    pytest.importorskip("jax")
    cases, skipped = bench._cases(row, ["jax"])
    assert cases["jax"].check and not skipped


@pytest.mark.parametrize("widths, loss", [((20, 16, 5), "cross_entropy"), ((20, 8, 20), "squared_error")])
def test_jax_takes_the_same_steps(widths, loss):
    pytest.importorskip("jax")
    from fastdl.bench_rows import plain, steps

    mlp = steps._Mlp(widths, 16, "adam", loss)
    ours, theirs = mlp.numpy(), mlp.jax()
    expected = [plain.mlp_step(*ours.args) for _ in range(20)]
    assert expected[-1] < expected[0]
    np.testing.assert_allclose([float(theirs.call(*theirs.args)) for _ in range(20)], expected, rtol=1e-4)


def test_learnergy_learns():
    pytest.importorskip("learnergy")
    import torch

    torch.set_num_threads(2)
    bench_peers.set_threads(1, ["learnergy"])
    assert torch.get_num_threads() == 1
    row = next(r for r in ALL if r.name.startswith("CD-1"))
    assert row.goals["learnergy"] == 3.0
    case = row.setup(["learnergy"])["learnergy"]
    first, *_, last = (float(case.call(*case.args)[0]) for _ in range(5))  # errors of the reconstruction
    assert last < 0.8 * first


def test_our_step_learns():
    from fastdl.bench_rows import steps

    case = steps._Mlp((20, 16, 5), 16).ours()
    losses = [case.call(*case.args) for _ in range(300)]
    assert statistics.mean(losses[-10:]) < 0.8 * statistics.mean(losses[:10])


def test_facts_measure():
    facts = [r for r in bench.rows() if isinstance(r, Fact)]
    assert {f.unit for f in facts} == {"ms", "MB", "a step", "%"}
    fault = next(f for f in facts if "MLP" in f.name)
    assert fault.measure(1) >= 0.0
