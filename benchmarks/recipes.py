"""Run recipes on several seeds, each in a process of its own, and print the table of accuracies.

    python benchmarks/recipes.py --data DIR [--seeds 0,1,2] [--threads 2] [--out benchmarks/results/recipes] [RECIPE ...]

A run whose JSON is there already is not repeated. Each JSON names the commit it was made at; one of another commit is
refused, unless --any-commit is given: the table then tells which commits it is made of.
"""

import argparse
import hashlib
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
    "mnist-1000-layers": (0.97, 0.97),
    "cifar-resnet": (0.68, 0.68),
}
LONGEST_S = 600.0
LONGEST_OF = {"mnist-1000-layers": 900.0, "mnist-autoencoder": 1800.0, "cifar-resnet": 7200.0}  # of those that may take longer
# With a figure of another kind beside a baseline: run by name, all their figures are printed.
OTHERS = (
    "heart-disease", "breast-cancer", "diabetes", "cartpole", "cats-dogs", "face-detect", "complexity-sweep",
    "mnist-autoencoder", "mnist-denoise", "digit-novelty", "mnist-gan", "mnist-dcgan",
)  # fmt: skip

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("csrc", "python", "CMakeLists.txt")  # what a figure depends on; a change of the documents makes none stale


def source():
    """The commit that changed the sources last, with a hash of what is not committed; outside a clone the version."""

    def git(*arguments):
        return subprocess.check_output(["git", "-C", str(ROOT), *arguments, "--", *SOURCES], stderr=subprocess.DEVNULL)

    try:
        commit, changes = git("log", "-1", "--format=%H").decode().strip(), git("diff", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        commit, changes = "", b""
    if not commit:
        import fastdl

        return f"version {fastdl.__version__}"
    return f"{commit} with changes {hashlib.sha256(changes).hexdigest()[:12]}" if changes else commit


def train(name, seed, args, path):
    """One run in a process of its own; its JSON also says of which commit it is."""
    commit, draft = source(), path.with_suffix(".part")
    command = [sys.executable, "-m", "fastdl", "train", name, "--data", args.data, "--seed", seed]
    subprocess.run([*command, "--threads", args.threads, "--json", str(draft)], check=True, stdout=subprocess.DEVNULL)
    draft.write_text(json.dumps(json.loads(draft.read_text()) | {"commit": commit}, indent=1) + "\n")
    draft.replace(path)


def report(name, seed, args, now):
    """The figures of a run: made now, or found and of the same commit."""
    path = args.out / f"{name}-seed{seed}.json"
    if not path.exists():
        train(name, seed, args, path)
    found = json.loads(path.read_text())
    if found.get("commit") != now and not args.any_commit:
        sys.exit(
            f"{path}: expected figures of commit {now}; got those of {found.get('commit')} "
            "(delete the file to run it again, or give --any-commit)"
        )
    return found


def main(arguments=None):
    """Run what is missing, print the table; the exit status says whether every target was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", choices=[*TARGETS, *OTHERS, []], default=list(TARGETS))
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recipes")
    parser.add_argument("--any-commit", action="store_true", help="also report figures of other commits")
    args = parser.parse_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    good, now, commits = True, source(), set()
    print("| recipe | test accuracy of each seed | mean | validation | seconds | target |\n|---|---|---|---|---|---|")
    chosen = args.recipes or list(TARGETS)
    for name in (n for n in chosen if n in TARGETS):
        reports = [report(name, seed, args, now) for seed in args.seeds.split(",")]
        commits.update(str(r.get("commit")) for r in reports)
        test = [r["metrics"]["test_accuracy"] for r in reports]
        valid = [r["metrics"]["validation_accuracy"] for r in reports]
        seconds = [r["seconds"] for r in reports]
        each, mean = TARGETS[name]
        longest = LONGEST_OF.get(name, LONGEST_S)
        met = min(test) >= each and statistics.mean(test) >= mean and max(seconds) <= longest
        good &= met
        cells = (
            name,
            ", ".join(f"{v:.2%}" for v in test),
            f"{statistics.mean(test):.2%}",
            ", ".join(f"{v:.2%}" for v in valid),
            ", ".join(f"{s:.0f}" for s in seconds),
            f"each {each:.1%}, mean {mean:.1%}, {longest:.0f} s: {'met' if met else 'NOT met'}",
        )
        print("| " + " | ".join(cells) + " |", flush=True)
    for name in (n for n in chosen if n in OTHERS):
        reports = [report(name, seed, args, now) for seed in args.seeds.split(",")]
        commits.update(str(r.get("commit")) for r in reports)
        print(f"\n{name}")
        for figure in reports[0]["metrics"]:
            print(f"  {figure:<24} " + "  ".join(f"{r['metrics'][figure]:.4g}" for r in reports), flush=True)
    print(f"\nMade at commit {', '.join(sorted(commits))}.")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
