"""Fill the table of README.md from the reports that `fastdl bench --json` wrote on some machines, or that of docs/kernels/gpu.md
from the one of benchmarks/gpu.py.

    python benchmarks/readme_table.py benchmarks/results/FILE.json [...]

Nothing in the tables is typed by hand: the rows of README.md are looked up by name. One that a report lacks is an error, but an
area that was not measured there stays blank.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
BEGIN, END = "<!-- measured:", "<!-- measured: end -->"
CLOCKS = {"cpu": "processor time of one thread, so that other processes do not count", "wall": "wall-clock time"}
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


def about(report):
    """What was measured, and how."""
    machine = report["machine"]
    return (
        f"{machine['cpu']}, {machine['cpus']} CPUs, target {machine['target']}, 1 thread, NumPy {machine['numpy']} "
        f"({machine['blas']}), PyTorch {machine.get('torch', 'not there')}; {CLOCKS[report['clock']]}."
    )


def cells(report, area, name):
    """A row's columns of one report."""
    rows = {(r["area"], r["name"]): r for r in report["rows"] if r["threads"] == 1}
    if all(a != area for a, _ in rows):
        return ["", "", ""]
    row = rows[area, name]
    versus = [f"{row['versus'][peer]['ratio']:.2f}" if peer in row["versus"] else "" for peer in ("numpy", "torch")]
    return [duration(row["seconds"]), *versus]


def table(reports):
    """The section between the marks."""
    columns = [h for r in reports for h in (f"fastdl, {r['machine']['target']}", "to NumPy", "to PyTorch")]
    lines = [
        *(f"- {about(r)}" for r in reports),
        "",
        "A ratio is how many times faster fastdl is than the peer, the median of rounds that were measured in turn. PyTorch "
        "runs in its default layout, for single convolutions in its better one.",
        "",
        f"| | {' | '.join(columns)} |",
        f"| {' | '.join('---' for _ in range(len(columns) + 1))} |",
    ]
    for area, names in ROWS.items():
        for name in names:
            found = [cell for r in reports for cell in cells(r, area, name)]
            lines.append(f"| {area}: {name} | {' | '.join(found)} |")
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


def main():
    """Replace what stands between the marks."""
    reports = [json.loads(Path(name).read_text()) for name in sys.argv[1:]]
    of_gpu = "gpu" in reports[0]
    page = ROOT / ("docs/kernels/gpu.md" if of_gpu else "README.md")
    text = page.read_text()
    begin = text.index("\n", text.index(BEGIN)) + 1
    end = text.index(END)
    page.write_text(f"{text[:begin]}\n{gpu_table(reports[0]) if of_gpu else table(reports)}\n\n{text[end:]}")


if __name__ == "__main__":
    main()
