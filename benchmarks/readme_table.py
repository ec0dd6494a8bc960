"""Fill the table of README.md from the report that `fastdl bench --json` wrote.

    python benchmarks/readme_table.py benchmarks/results/FILE.json

Nothing in the table is typed by hand: the rows below are looked up by name, and a missing one is an error.
"""

import json
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"
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
}


def duration(seconds):
    """In the unit that suits it."""
    for scale, unit in ((1e-3, "ms"), (1e-6, "µs")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def table(report):
    """The section between the marks."""
    machine, rows = report["machine"], {(r["area"], r["name"]): r for r in report["rows"] if r["threads"] == 1}
    clock = CLOCKS[report["clock"]]
    lines = [
        f"{machine['cpu']} ({machine['cpus']} CPUs), target {machine['target']}, 1 thread, NumPy {machine['numpy']} "
        f"({machine['blas']}), PyTorch {machine.get('torch', 'not there')}. Times are {clock}; a ratio is how many times "
        "faster fastdl is than the peer, the median of rounds that were measured in turn. PyTorch runs in its default "
        "layout, for single convolutions in its better one.",
        "",
        "| | fastdl | ratio to NumPy | ratio to PyTorch |",
        "| --- | --- | --- | --- |",
    ]
    for area, names in ROWS.items():
        for name in names:
            row = rows[area, name]
            ratios = [
                f"{row['versus'][peer]['ratio']:.2f}" if peer in row["versus"] else "" for peer in ("numpy", "torch")
            ]
            lines.append(f"| {area}: {name} | {duration(row['seconds'])} | {ratios[0]} | {ratios[1]} |")
    return "\n".join(lines)


def main():
    """Replace what stands between the marks."""
    source = Path(sys.argv[1])
    text = README.read_text()
    begin = text.index("\n", text.index(BEGIN)) + 1
    end = text.index(END)
    README.write_text(f"{text[:begin]}\n{table(json.loads(source.read_text()))}\n\n{text[end:]}")


if __name__ == "__main__":
    main()
