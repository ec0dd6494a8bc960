"""Run recipes on several seeds, each in a process of its own, and print the table of accuracies.

    python benchmarks/recipes.py --data DIR [--seeds 0,1,2] [--threads 2] [--out benchmarks/results] [RECIPE ...]

A run whose JSON is there already is not repeated.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

# (least of every seed, least mean) of the test accuracy on the full sets.
TARGETS = {
    "mnist-softmax": (0.92, 0.92),
    "mnist-mlp": (0.986, 0.986),
    "mnist-lenet": (0.990, 0.990),
    "mnist-cnn": (0.993, 0.994),
    "cifar-cnn": (0.65, 0.65),
}
LONGEST_S = 600.0


def main():
    """Run what is missing, print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", choices=[*TARGETS, []], default=list(TARGETS))
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    good = True
    print("| recipe | test accuracy of each seed | mean | validation | seconds | target |\n|---|---|---|---|---|---|")
    for name in args.recipes or TARGETS:
        reports = []
        for seed in args.seeds.split(","):
            path = args.out / f"{name}-seed{seed}.json"
            if not path.exists():
                command = [sys.executable, "-m", "fastdl", "train", name, "--data", args.data, "--seed", seed]
                command += ["--threads", args.threads, "--json", str(path)]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            reports.append(json.loads(path.read_text()))
        test = [r["metrics"]["test_accuracy"] for r in reports]
        valid = [r["metrics"]["validation_accuracy"] for r in reports]
        seconds = [r["seconds"] for r in reports]
        each, mean = TARGETS[name]
        met = min(test) >= each and statistics.mean(test) >= mean and max(seconds) <= LONGEST_S
        good &= met
        cells = (
            name,
            ", ".join(f"{v:.2%}" for v in test),
            f"{statistics.mean(test):.2%}",
            ", ".join(f"{v:.2%}" for v in valid),
            ", ".join(f"{s:.0f}" for s in seconds),
            f"each {each:.1%}, mean {mean:.1%}, {LONGEST_S:.0f} s: {'met' if met else 'NOT met'}",
        )
        print("| " + " | ".join(cells) + " |", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
