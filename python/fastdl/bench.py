"""Kernels and training steps against NumPy, PyTorch, scikit-learn, JAX and learnergy, measured in turn in one process.

A machine's speed drifts by more than the differences that matter. So a row samples its contestants in turn (A B C A B
C ...), each sample long enough for the clock, and what is reported is the median over the rounds of the ratio within a
round, with its quartiles. Rows whose goal is near parity are visited several times, with new arrays each time, and
pooled. The rows are in `fastdl.bench_rows`.
"""

import contextlib
import importlib
import json
import math
import os
import re
import statistics
import time
from dataclasses import dataclass, field, replace
from itertools import repeat

from .bench_peers import installed, machine, set_threads
from .io import write_text

AREAS = (
    "gemm",
    "conv",
    "layers",
    "dispatch",
    "steps",
    "rnn",
    "rntn",
    "rbm",
    "threads",
)

_SAMPLE_S = 0.004  # shortest sample
_SETTLE_S = 0.5  # longest wait for the workers of the one before, which spin on for up to 0.13 s (OpenBLAS at 2 GHz)
_LONG_S = 0.5  # a call as long as this is not warmed up by another one
_ROW_S = 6.0  # a row stops after this long, but not before _FEWEST rounds
_FEWEST = 7
_PARITY = 1.3  # up to this goal a row is pooled over _VISITS visits
_VISITS = 3


# ---------------------------------------------------------------------------------------------------------- rows


@dataclass(frozen=True)
class Case:
    """What one contestant calls: ``call(*args)``.

    Parameters
    ----------
    call : callable
    args : tuple
    threads : int, optional
        Its own number of threads instead of the run's.
    before, after : callable, optional
        Called around each sample, not timed.
    check : callable, optional
        Called once, before the race: RuntimeError where this contestant computes something else than we do (`agree`).
    """

    call: object
    args: tuple = ()
    threads: int | None = None
    before: object = None
    after: object = None
    check: object = None


def agree(theirs, ours, tolerance=1e-3):
    """RuntimeError unless the arrays of two lists are equal in pairs, to `tolerance` of an array's largest element."""
    import numpy as np

    for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        off = np.abs(a - b).max() / np.abs(b).max() if a.shape == b.shape else math.inf
        if not off <= tolerance:
            raise RuntimeError(f"computes something else: result {i} of shape {a.shape} is off by {off:.1e} of the largest")


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the table.

    Parameters
    ----------
    area, name : str
    setup : callable
        ``setup(peers) -> {label: Case}`` for the wanted peers, new arrays each time. Our own label is "fastdl"; a label
        "torch (channels last)" belongs to the peer torch, whose better one counts; "torch-fused" is a column of its
        own, beside torch as it comes.
    flops, bytes : float
        Work of one call; 0 where it says nothing.
    goals : dict of str to float
        How many times faster than a peer we want to be.
    goal_threads : tuple of int
        Numbers of threads for which the goals hold; empty means any.
    threads : tuple of int
        Numbers of threads at which the row is measured; empty means any.
    pooled : bool
        Visit the row several times, whatever its goal.
    single : bool
        A sample is one call: for rows about the slowest of them.
    tail : float, optional
        How much longer than the median our slowest sample may take.
    """

    area: str
    name: str
    setup: object
    flops: float = 0.0
    bytes: float = 0.0
    goals: dict = field(default_factory=dict)
    goal_threads: tuple = (1,)
    threads: tuple = ()
    pooled: bool = False
    single: bool = False
    tail: float | None = None

    def visits(self):
        """How often the row is visited."""
        near = [g for g in self.goals.values() if g <= _PARITY]
        return _VISITS if near or self.pooled else 1


@dataclass(frozen=True, eq=False)
class Fact:
    """A line that is one number and not a race: ``measure(threads) -> number``, met if at most `goal`, where there is one."""

    area: str
    name: str
    measure: object
    unit: str
    goal: float | None = None
    threads: tuple = (1,)


def rows(areas=AREAS):
    """All rows and facts of these areas, in order."""
    result = []
    for area in areas:
        result += importlib.import_module(f"fastdl.bench_rows.{area}").rows()
    return result


# ------------------------------------------------------------------------------------------------------ sampling


# "cpu" counts the time that the calling thread was running: where others use the machine as well, one thread can still
# be compared. It says nothing about two.
CLOCKS = {"wall": time.perf_counter, "cpu": time.thread_time}


def _sample(case, times, clock=time.perf_counter):
    """Seconds of one call, from `times` calls."""
    call, args = case.call, case.args
    start = clock()
    for _ in repeat(None, times):
        call(*args)
    return (clock() - start) / times


def calibrate(case, shortest):
    """How many calls make a sample long enough."""
    call, args = case.call, case.args
    call(*args)
    call(*args)
    times = 1
    while True:
        took = _sample(case, times) * times
        if took >= shortest:
            # an interruption makes a short sample look long, and seldom twice
            took = min(took, _sample(case, times) * times)
        if took >= shortest:
            return times
        times = max(times + 1, min(times * 10, int(times * 1.2 * shortest / max(took, 1e-9)) + 1))


@dataclass
class Result:
    """What a row gave: seconds of a call by label, a list entry for each round."""

    row: Row
    threads: int
    seconds: dict = field(default_factory=dict)
    skipped: dict = field(default_factory=dict)

    @property
    def own(self):
        """Median seconds of a call of ours."""
        return statistics.median(self.seconds["fastdl"])

    def labels(self, peer):
        """The contestants of a peer."""
        return [k for k in self.seconds if k == peer or k.startswith(f"{peer} (")]

    def best(self, peer):
        """Its contestant with the smallest median, or None."""
        return min(self.labels(peer), key=lambda k: statistics.median(self.seconds[k]), default=None)

    def ratio(self, label):
        """How many times faster we are: (median, lower quartile, upper quartile) of the ratios of the rounds."""
        ratios = [t / o for t, o in zip(self.seconds[label], self.seconds["fastdl"], strict=True)]
        if len(ratios) < 2:
            return (ratios[0],) * 3
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        return middle, low, high

    def peers(self):
        """Who took part, in order."""
        return list(dict.fromkeys(k.split(" (")[0] for k in self.seconds if k != "fastdl"))

    def goal(self, peer):
        """Our goal against a peer at this number of threads, or None."""
        holds = not self.row.goal_threads or self.threads in self.row.goal_threads
        return self.row.goals.get(peer) if holds else None

    def worst(self, label="fastdl"):
        """Slowest round over the median."""
        return max(self.seconds[label]) / statistics.median(self.seconds[label])

    def record(self, peak=None):
        """As plain numbers, for JSON."""
        versus = {}
        for peer in self.peers():
            label = self.best(peer)
            middle, low, high = self.ratio(label)
            goal = self.goal(peer)
            versus[peer] = {
                "contestant": label,
                "seconds": {k: statistics.median(self.seconds[k]) for k in self.labels(peer)},
                "ratio": middle,
                "quartiles": [low, high],
                "goal": goal,
                "met": None if goal is None else middle >= goal,
            }
        record = {
            "area": self.row.area,
            "name": self.row.name,
            "threads": self.threads,
            "seconds": self.own,
            "rounds": len(self.seconds["fastdl"]),
            "worst_over_median": self.worst(),
            "tail_goal": self.row.tail,
            "versus": versus,
            "skipped": self.skipped,
        }
        if self.row.flops:
            record["gflops"] = self.row.flops / self.own / 1e9
            if peak:
                record["share_of_peak"] = record["gflops"] * 1e9 / peak
                for v in versus.values():  # what the ratio were, had every operation of ours the speed of the peak
                    v["ratio_at_peak"] = v["ratio"] / record["share_of_peak"]
        if self.row.bytes:
            record["gbytes_per_second"] = self.row.bytes / self.own / 1e9
        return record


def _cases(row, peers):
    """The row's contestants that work; a peer that lacks what the row asks for, or computes something else, is named."""
    cases, skipped = {}, {}
    for label, case in row.setup(peers).items():
        try:
            case.call(*case.args)
            if case.check:
                case.check()
        except (ImportError, NotImplementedError, RuntimeError) as error:
            if label == "fastdl":
                raise
            skipped[label] = f"{type(error).__name__}: {error}"
        else:
            cases[label] = case
    return cases, skipped


@contextlib.contextmanager
def _conditions(label, case, threads, peers, own_threads):
    """Around each sample: threads, and the allocator's pool for us, under which our training steps always run."""
    from . import pooled

    if own_threads:
        set_threads(case.threads or threads, peers)
    if case.before:
        case.before()
    try:
        with pooled() if label == "fastdl" else contextlib.nullcontext():
            yield
    finally:
        if case.after:
            case.after()


def _settle():
    """Wait until no thread of this process is running any more: workers spin on a core that the next one needs."""
    stop = time.perf_counter() + _SETTLE_S
    while time.perf_counter() < stop:
        start, ran = time.perf_counter(), time.process_time()
        time.sleep(0.01)
        if time.process_time() - ran < 0.1 * (time.perf_counter() - start):
            return


def visit(row, threads, peers, rounds, result=None, clock=time.perf_counter):
    """Sample a row's contestants in turn and add the rounds to `result`."""
    result = result or Result(row, threads)
    cases, result.skipped = _cases(row, peers)
    own_threads = any(case.threads for case in cases.values())
    times = {}
    for label, case in cases.items():
        with _conditions(label, case, threads, peers, own_threads):
            times[label] = calibrate(case, 0.0 if row.single else _SAMPLE_S)
    settle = threads > 1 or own_threads
    stop = time.perf_counter() + _ROW_S / row.visits()
    for done in range(rounds):
        if done >= max(2, _FEWEST // row.visits()) and time.perf_counter() > stop:
            break
        for label, case in cases.items():
            with _conditions(label, case, threads, peers, own_threads):
                if settle:
                    _settle()
                taken = result.seconds.setdefault(label, [])
                if not taken or taken[-1] < _LONG_S:
                    case.call(*case.args)  # wakes workers and brings the arrays back into the caches
                taken.append(_sample(case, times[label], clock))
    set_threads(threads, peers)
    return result


def measured_peak(threads, clock=time.perf_counter):
    """FLOP/s of multiply-adds in registers, as fast as this machine's target can, at this number of threads."""
    from fastdl import backend

    backend.set_num_threads(threads)
    case = Case(backend.cpu.multiply_adds, (4 * threads, 100_000))
    return case.call(*case.args) / min(_sample(case, 2, clock) for _ in range(15))


# ------------------------------------------------------------------------------------------------------ printing


def _time(seconds):
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1.0 or unit == "µs":
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:.0f} {unit}"
    raise AssertionError(seconds)


def _rate(record):
    if "gflops" in record:
        share = f" {record['share_of_peak']:4.0%}" if "share_of_peak" in record else ""
        return f"{record['gflops']:6.1f} GF{share}"
    if "gbytes_per_second" in record:
        return f"{record['gbytes_per_second']:6.1f} GB/s"
    return ""


def beyond_peak(versus):
    """Whether a goal that was missed wants more than the machine's peak."""
    return versus["met"] is False and versus.get("ratio_at_peak", math.inf) < versus["goal"]


def line(record):
    """One line of the table."""
    text = f"{record['name']:<34} {_time(record['seconds']):>9}  {_rate(record):<15}"
    for peer, v in record["versus"].items():
        way = v["contestant"].removeprefix(peer).strip()
        goal = "" if v["goal"] is None else f" goal {v['goal']:g} {'met' if v['met'] else 'NOT met'}"
        if beyond_peak(v):
            goal += f" (at the peak {v['ratio_at_peak']:.2f}x)"
        low, high = v["quartiles"]
        text += f"  {peer}{' ' + way if way else ''} {v['ratio']:.2f}x [{low:.2f}-{high:.2f}]{goal}"
    if record["tail_goal"] is not None:
        met = "met" if record["worst_over_median"] <= record["tail_goal"] else "NOT met"
        text += f"  slowest {record['worst_over_median']:.1f}x the median, goal at most {record['tail_goal']:g} {met}"
    return text.rstrip()


def _fact_record(fact, threads):
    value = float(fact.measure(threads))  # a NumPy number has no place in a JSON file
    return {
        "area": fact.area,
        "name": fact.name,
        "threads": threads,
        "value": value,
        "unit": fact.unit,
        "goal": fact.goal,
        "met": None if fact.goal is None else value <= fact.goal,
    }


def run(
    areas=AREAS,
    against=("numpy",),
    threads=(1,),
    rounds=21,
    json_path=None,
    only=None,
    goals=True,
    clock="wall",
    show=print,
):
    """Measure and print.

    Parameters
    ----------
    areas : sequence of str
        Out of `AREAS`.
    against : sequence of str
        Out of `PEERS`; those that are not installed are named and left out.
    threads : sequence of int
    rounds : int
        At most so many rounds a visit.
    json_path : path, optional
        Where the figures go as JSON.
    only : str, optional
        Regular expression that a row's name must match somewhere.
    goals : bool
        Judge the rows by their goals; a short look does not.
    clock : {"wall", "cpu"}
        Time that passes, or time that the calling thread ran: for one thread on a machine that is not quiet.
    show : callable
        What prints a line.

    Returns
    -------
    dict
        What the JSON holds: ``machine``, ``clock``, ``peaks``, ``rows``.
    """
    if clock == "cpu" and set(threads) != {1}:
        raise ValueError(f"clock: expected wall for more than one thread; got cpu and threads {list(threads)}")
    if json_path and not os.path.isdir(os.path.dirname(os.path.abspath(json_path))):
        raise ValueError(f"json_path: expected a file in a folder that is there; got {str(json_path)!r}")
    wanted = [r for r in rows(areas) if not only or re.search(only, r.name)]
    if not wanted:
        raise ValueError(f"only: expected what the name of a row in {', '.join(areas)} matches; got {only!r}")
    peers = [p for p in against if installed(p)]
    for p in against:
        if p not in peers:
            show(f"{p}: not installed, left out")
    if clock == "cpu" and "jax" in peers:
        peers.remove("jax")
        show("jax: works in threads of its own, whose time the clock cpu does not see; left out")
    about = machine()
    for p in peers:
        about[p] = getattr(importlib.import_module(p), "__version__", "?")
    show(f"{about['cpu']}, {about['cpus']} CPUs; fastdl {about['fastdl']}, target {about['target']}")
    if peers:
        show("; ".join(f"{p} {about[p]}" + (f" ({about['blas']})" if p == "numpy" else "") for p in peers))
    if not goals:
        wanted = [replace(r, goals={}) if isinstance(r, Row) else r for r in wanted]
    show(f"a ratio is how many times faster fastdl is: median of the rounds, quartiles in brackets; clock: {clock}\n")
    tick = CLOCKS[clock]
    result = {"machine": about, "clock": clock, "peaks": {}, "rows": []}
    for n in threads:
        if deaf := set_threads(n, peers):
            show(f"threads of {', '.join(deaf)} cannot be set here")
        peak = measured_peak(n, tick)
        result["peaks"][str(n)] = {"gflops": peak / 1e9, "measured_by": "multiply-adds in registers"}
        show(f"== {n} thread{'s' if n > 1 else ''}: peak {peak / 1e9:.1f} GFLOP/s (multiply-adds in registers)")
        result["rows"] += _run_rows(
            [r for r in wanted if not r.threads or n in r.threads], n, peers, rounds, peak, tick, show
        )
        show("")
    races = [v for r in result["rows"] for v in r.get("versus", {}).values() if v["met"] is not None]
    judged = [v["met"] for v in races]
    judged += [r["met"] for r in result["rows"] if "unit" in r and r["met"] is not None]
    judged += [r["worst_over_median"] <= r["tail_goal"] for r in result["rows"] if r.get("tail_goal")]
    if judged:
        beyond = sum(map(beyond_peak, races))
        show(
            f"goals met: {sum(judged)} of {len(judged)}"
            + (f"; {beyond} of the others want more than this machine's peak" if beyond else "")
        )
    if json_path:
        write_text(json_path, json.dumps(result, indent=1) + "\n")
    return result


def _run_rows(wanted, threads, peers, rounds, peak, clock, show):
    """Measure rows in order; those near parity a few times more, with the others in between."""
    pending, records, area = {}, [], None
    for row in wanted:
        if isinstance(row, Row) and row.visits() > 1:
            pending[row] = visit(row, threads, peers, rounds, None, clock)
    for _ in range(_VISITS - 2):
        for row, result in pending.items():
            visit(row, threads, peers, rounds, result, clock)
    for row in wanted:
        if row.area != area:
            area = row.area
            show(f"-- {area}")
        if isinstance(row, Fact):
            record = _fact_record(row, threads)
            goal = "" if row.goal is None else f", goal at most {row.goal:g}: {'met' if record['met'] else 'NOT met'}"
            show(f"{row.name:<34} {record['value']:9.3g} {row.unit}{goal}")
        else:
            record = visit(row, threads, peers, rounds, pending.get(row), clock).record(peak)
            show(line(record))
            for label, why in record["skipped"].items():
                show(f"{'':<34} {label} left out: {why}")
        records.append(record)
    return records
