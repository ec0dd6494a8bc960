"""Fill the tables of README.md and docs/kernels/ from the reports in results/ that `fastdl bench --json` and gpu.py wrote.

    python benchmarks/readme_table.py

Nothing in the tables is typed by hand. Those of README.md are rows looked up by name: one that a report lacks is an error, but
an area that was not measured there stays blank. A page on kernels has all rows of its areas.
"""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- measured:", "<!-- measured: end -->"
ONE_THREAD = ("amd-epyc-zen4-1-thread", "amd-epyc-zen1-1-thread")
BOTH = ("amd-epyc-zen4-1-thread", "amd-epyc-zen4-2-threads", "amd-epyc-zen1-1-thread")
GPU = "nvidia-h100-80gb-hbm3"
PAGES = {  # of docs/kernels: areas and reports
    "gemm": (("gemm",), BOTH),
    "conv": (("conv",), BOTH),
    "elementwise": (("layers",), ONE_THREAD),
    "tape": (("dispatch", "steps"), ONE_THREAD),
    "lstm": (("rnn",), BOTH),
    "gibbs": (("rbm",), BOTH),
    "rntn": (("rntn",), BOTH),
}
# What a reader has to know of a report.
NOTES = {
    "amd-epyc-zen1-1-thread": "Older than the others: training steps were not yet replayed, nor were normalisation of few rows, "
    "pools of few channels, products of one row or a few columns, and predictions what they are now.",
}
CLOCKS = {"cpu": "processor time of one thread, so that other processes do not count", "wall": "wall-clock time"}
RATIO = (
    "A ratio is how many times faster fastdl is than the peer, the median of rounds that were measured in turn. Of PyTorch's "
    "ways (memory layouts, fused optimisers) the fastest counts."
)
ROWS = {
    "gemm": ["32x32x32", "256x256x256", "1024x1024x1024", "fwd B128 784->512", "dW B128 784->512", "fwd B64 512->10"],
    "conv": [
        "mnist2 64x32x26 64k3 fwd",
        "mnist2 64x32x26 64k3 bwd_weight",
        "vgg 8x64x56 64k3p1 fwd",
        "lenet2 64x6x14 16k5 fwd",
        "lenet2 64x6x14 16k5 bwd_data",
        "stem 8x3x224 64k7s2p3 bwd_data",
    ],
    "layers": [
        "tanh 128x512",
        "maxpool2 64x32x24x24",
        "batchnorm 64x32x26x26",
        "softmax+CE fwd+bwd 64x10",
        "dropout 128x512 train fwd",
        "Adam 669,706 parameters",
        "uniform 50,000",
    ],
    "dispatch": ["add 4, into out", "linear 4x4"],
    "steps": [
        "MLP 2-16-1 (XOR) B4 SGD",
        "MLP 784-128-10 B64 SGD",
        "MLP 784-512-512-10 B128 Adam",
        "LeNet-5 B64 SGD",
        "MNIST CNN 32c3-64c3-p-128-10 B64 Adam",
    ],
    "rnn": ["lstm T50 N32 I128 H256 fwd+bwd", "gru T200 N1 I64 H64 fwd+bwd", "lstm_cell N1 H128"],
    "rntn": ["rntn step D25 25x10 words"],
    "rbm": ["CD-1, 2000 samples 784-500, batches of 100", "Gibbs, 1 chain x 1000 steps, trained 784-500"],
}


def duration(seconds):
    """In the unit that suits it."""
    for scale, unit in ((1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def report_of(name):
    """What was measured on a machine."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()) | {"note": NOTES.get(name)}


def races(report):
    """The rows of a report that are races, by area and name."""
    return {(r["area"], r["name"]): r for r in report["rows"] if "seconds" in r}


def threads(report):
    """How many threads were used."""
    (count,) = {r["threads"] for r in races(report).values()}
    return f"{count} thread{'s' if count > 1 else ''}"


def about(report):
    """What was measured, and how."""
    machine = report["machine"]
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, target {machine['target']}, {threads(report)}, NumPy {machine['numpy']} "
        f"({machine['blas']}), PyTorch {machine.get('torch', 'not there')}; {CLOCKS[report['clock']]}."
    ) + (f" {report['note']}" if report["note"] else "")


def ratio(row, peer, goals):
    """How many times faster than a peer in the best of its ways; where wanted also the goal, if that is missed."""
    ways = [v for name, v in row["versus"].items() if name == peer or name.startswith(f"{peer}-")]
    if not ways:
        return ""
    best = min(ways, key=lambda v: v["ratio"])
    aims = [v["goal"] for v in ways if v["met"] is False and round(v["ratio"], 2) < v["goal"]]
    return f"{best['ratio']:.2f}" + (f" (goal {max(aims):g})" if goals and aims else "")


def cells(report, area, name, goals=False):
    """A row's columns of one report; empty where it has no such row."""
    row = races(report).get((area, name))
    if row is None:
        return ["", "", ""]
    return [duration(row["seconds"]), ratio(row, "numpy", goals), ratio(row, "torch", goals)]


def header(columns):
    """The first two lines of a table."""
    return [f"| | {' | '.join(columns)} |", f"| {' | '.join('---' for _ in range(len(columns) + 1))} |"]


def table(reports):
    """The section of README.md."""
    columns = [h for r in reports for h in (f"fastdl, {r['machine']['target']}", "to NumPy", "to PyTorch")]
    lines = [*(f"- {about(r)}" for r in reports), "", RATIO, "", *header(columns)]
    for area, names in ROWS.items():
        for name in names:
            found = [cell for r in reports for cell in cells(r, area, name)]
            lines.append(f"| {area}: {name} | {' | '.join(found)} |")
    return "\n".join(lines)


def area_table(reports, areas):
    """All rows of some areas, of the reports that have them."""
    reports = [r for r in reports if any(a in areas for a, _ in races(r))]
    columns = [
        h for r in reports for h in (f"fastdl, {r['machine']['target']}, {threads(r)}", "to NumPy", "to PyTorch")
    ]
    lines = [*(f"- {about(r)}" for r in reports), "", f"{RATIO} A goal that is missed stands behind it.", "", *header(columns)]
    for area, name in races(reports[0]):
        if area in areas:
            found = [cell for r in reports for cell in cells(r, area, name, True)]
            lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join(lines)


def gpu_table(report):
    """All rows of a GPU's report."""
    limits = report["ceilings"]
    lines = [
        f"{report['gpu']} (sm_{report['compute_capability'].replace('.', '')}), CUDA {report['cuda_runtime'] // 1000}, CuPy "
        f"{report['cupy']}, PyTorch {report['torch']}, {report['date']}. Ceilings measured beside it: a copy "
        f"{limits['copy_gb_s'] / 1000:.2f} TB/s; PyTorch's products of 8192 at {limits['highest_tflops']:.0f} (float32), "
        f"{limits['tf32_tflops']:.0f} (tf32) and {limits['bf16_tflops']:.0f} (bf16) TFLOP/s. A ratio over 1: faster "
        "than the peer.",
        "",
        "| | fastdl | rate | ratio to PyTorch |",
        "| --- | --- | --- | --- |",
    ]
    for row in report["rows"]:
        rate = f"{row['tflops']:.3g} TFLOP/s" if "tflops" in row else f"{row['gb_s']:.0f} GB/s" if "gb_s" in row else ""
        ratio = "".join(f"{value:.2f}" + peer.removeprefix("torch") for peer, value in row["times_faster"].items())
        lines.append(f"| {row['area']}: {row['name']} | {duration(1e-6 * row['us']['fastdl'])} | {rate} | {ratio} |")
    return "\n".join(lines)


def sections():
    """The text between the marks of each page."""
    found = {"README.md": table([report_of(name) for name in ONE_THREAD]), "docs/kernels/gpu.md": gpu_table(report_of(GPU))}
    for page, (areas, names) in PAGES.items():
        found[f"docs/kernels/{page}.md"] = area_table([report_of(name) for name in names], areas)
    return found


def filled(text, section):
    """A page with another text between its marks."""
    begin = text.index("\n", text.index(BEGIN)) + 1
    return f"{text[:begin]}\n{section}\n\n{text[text.index(END):]}"


def main():
    """Replace what stands between the marks."""
    for page, section in sections().items():
        path = ROOT / page
        path.write_text(filled(path.read_text(), section))


if __name__ == "__main__":
    main()
