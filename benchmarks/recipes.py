"""Run recipes on several seeds, each in a process of its own, and print which bars they hold, as a Markdown table.

    python benchmarks/recipes.py --data DIR [--seeds 0,1,2] [--threads 2] [--device cuda] [--all] [RUN ...]
    python benchmarks/recipes.py --table [--write docs/reference/recipes.md]

A run is a recipe, or one with an option (`mnist-rbm-long`, `mnist-rows-lstm-pixels`). Without names those are run that take less
than ten minutes on two cores; with --all every one. image-folder, which is for pictures of your own, gets photographs of CIFAR-10
as files here (written by Pillow). A run whose JSON is there already is not repeated. Each JSON names the commit
it was made at; one of another commit is refused, unless --any-commit is given: the table then tells which commits it is made of.
--table runs nothing and reads what is there.
"""

import argparse
import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("csrc", "python", "CMakeLists.txt")  # what a figure depends on; a change of the documents makes none stale
BEGIN, END = "<!-- recipes: written by benchmarks/recipes.py -->", "<!-- recipes: end -->"
OPTIONS = ("long", "pixels", "permuted")

# Minutes that a run may take on two cores, where that is not ten.
MINUTES = {
    "mnist-1000-layers": 15, "mnist-autoencoder": 30, "cifar-resnet": 120, "mnist-rbm": 20, "mnist-rbm-long": 120,
    "mnist-dbn": 25, "shakespeare-lstm": 3, "shakespeare-lstm-long": 25, "mnist-few-labels": 60, "mnist-gan": 30,
    "mnist-dcgan": 60, "emoji-captions": 60, "next-word": 30, "mnist-rows-lstm": 20, "mnist-rows-lstm-pixels": 40,
    "mnist-rows-lstm-permuted": 40, "digit-novelty": 15, "image-folder": 30,
}  # fmt: skip


@dataclass
class Bar:
    """What a figure shall reach.

    `least` or `most` is a number, or the name of another figure of the same run (times `factor`). It is held by the mean of the
    seeds, and where `each` is given every seed reaches that; fewer than `seeds` seeds do not hold it.
    """

    run: str
    metric: str
    least: object = None
    most: object = None
    factor: float = 1.0
    each: float | None = None
    seeds: int = 1
    source: str = "ours"

    @property
    def needs(self):
        """The figures that it is made of."""
        return {v for v in (self.metric, self.least, self.most) if isinstance(v, str)}

    def words(self, runs=()):
        """The bar as a cell of the table; another figure with its mean over the runs."""
        of = self.most if self.least is None else self.least
        text = f"`{of}`" if isinstance(of, str) else f"{of:g}"
        if isinstance(of, str) and runs:
            text += f" ({number(statistics.mean(m[of] for m in runs))})"
        text = ("≤ " if self.least is None else "≥ ") + text + (f" times {self.factor:g}" if self.factor != 1.0 else "")
        return text + (f", each ≥ {self.each:g}" if self.each is not None else "")

    def margin(self, metrics):
        """How far above the bar a run's figure is: 0 or more is held."""
        of = self.most if self.least is None else self.least
        bar = self.factor * (metrics[of] if isinstance(of, str) else of)
        value = float(metrics[self.metric])
        return bar - value if self.least is None else value - bar

    def held(self, runs):
        """Whether the runs of all seeds hold it."""
        margins = [self.margin(m) for m in runs]
        low = self.each is None or min(float(m[self.metric]) for m in runs) >= self.each
        return len(runs) >= self.seeds and math.isfinite(sum(margins)) and statistics.mean(margins) >= 0.0 and low


BARS = (
    Bar("mnist-softmax", "test_accuracy", 0.92, each=0.92, seeds=3),
    Bar("mnist-mlp", "test_accuracy", 0.986, each=0.986, seeds=3),
    Bar("mnist-lenet", "test_accuracy", 0.990, each=0.990, seeds=3, source="LeCun et al. 1998: 0.9905, 0.992 with distortions"),
    Bar("mnist-cnn", "test_accuracy", 0.994, each=0.993, seeds=3),
    Bar("cifar-cnn", "test_accuracy", 0.65, each=0.65),
    Bar("cifar-resnet", "test_accuracy", 0.68),
    Bar("cifar-resnet", "test_accuracy", "plain_accuracy", source="the plain network of equal depth"),
    Bar("mnist-1000-layers", "test_accuracy", 0.97),
    Bar("mnist-1000-layers", "orthogonal_accuracy", 0.90),
    Bar("mnist-1000-layers", "naive_accuracy", most=0.2, source="it has to fail"),
    Bar("shakespeare-lstm", "val_nats", most=1.70, source="nanoGPT's README: 1.88 on a CPU"),
    Bar("shakespeare-lstm-long", "val_nats", most=1.50),
    Bar("next-word", "perplexity", most="perplexity_trigram", source="Kneser-Ney 3-gram"),
    Bar("mnist-rows-lstm", "test_accuracy", 0.988),
    Bar("mnist-rows-lstm-pixels", "test_accuracy", 0.872, source="Bai et al. 2018, many epochs; this is one"),
    Bar("mnist-rows-lstm-permuted", "test_accuracy", 0.857, source="Bai et al. 2018, many epochs; this is one"),
    Bar("spoken-digits-lstm", "test_accuracy", 0.97),
    Bar("vowels-lstm", "test_accuracy", 0.96, source="ours; Kudo et al. 1999: 0.941"),
    Bar("moving-digits", "test_accuracy", 0.95),
    *(
        Bar("forecast-lstm", f"mae_{name}", most=f"{of}_{name}", factor=factor, source=source)
        for name in ("seattle", "elnino", "sunspots")
        for of, factor, source in (("mae_naive", 1.0, "naive forecast"), ("mae_ridge", 1.05, "tuned ridge autoregression"))
    ),
    Bar("forecast-lstm", "mae_mackey-glass", most="mae_ridge_mackey-glass", factor=0.8, source="tuned ridge autoregression"),
    Bar("sentiment-rntn", "fine_all", 79.5, source="ours; Socher et al. 2013: 80.7"),
    Bar("sentiment-rntn", "fine_root", 43.0, source="ours; Socher et al. 2013: 45.7"),
    Bar("sentiment-rntn", "binary_all", 86.0, source="ours; Socher et al. 2013: 87.6"),
    Bar("sentiment-rntn", "binary_root", 82.5, source="ours; Socher et al. 2013: 85.4"),
    Bar("sentence-tags", "test_accuracy", 0.80),
    Bar("emoji-captions", "bleu2", "bleu2_nn", source="nearest neighbour's name"),
    Bar("emoji-captions", "f1", "f1_nn", source="nearest neighbour's name"),
    Bar("mnist-rbm", "test_ll", -95.0, source="ours; Salakhutdinov & Murray 2008: -86.34 with CD-25"),
    Bar("mnist-rbm-long", "test_ll", -90.0, source="ours; Salakhutdinov & Murray 2008: -86.34 with CD-25"),
    Bar("rbm-exact", "log_z_ais", "log_z_exact_low", source="exact log Z - 0.1"),
    Bar("rbm-exact", "log_z_ais", most="log_z_exact_high", source="exact log Z + 0.1"),
    Bar("digits-rbm-pipeline", "rbm_error", most="pixels_error", source="raw pixels"),
    Bar("digits-rbm-pipeline", "rbm_error", most="sklearn_rbm_error", source="scikit-learn's BernoulliRBM"),
    Bar("mnist-dbn", "test_error", most=1.30, seeds=2, source="ours; Hinton et al. 2006: 1.25"),
    Bar("mnist-few-labels", "gain_100", 0.0, source="the same network from random weights"),
    Bar("mnist-autoencoder", "test_sse", most=3.0, source="Hinton & Salakhutdinov 2006: 3.00"),
    Bar("mnist-denoise", "test_sse", most="median_sse", source="median filter"),
    Bar("mnist-denoise", "test_sse", most="pca_sse", source="PCA"),
    Bar("faces-impute", "rbm_mse", most="mean_mse", source="mean face"),
    Bar("faces-impute", "rbm_mse", most="pca_mse", source="probabilistic PCA"),
    *(
        bar
        for name in ("mnist-gan", "mnist-dcgan")
        for bar in (
            Bar(name, "classes", 10),
            Bar(name, "min_share", 0.5),
            Bar(name, "max_share", most=1.5),
            Bar(name, "frechet", most="frechet_mixture", source="100 Gaussians fitted to the pixels"),
            Bar(name, "judge_accuracy", 0.99),
        )
    ),
    Bar("digit-novelty", "auc", "pca_auc", source="PCA"),
    Bar("heart-disease", "test_accuracy", "baseline_accuracy", source="logistic regression"),
    Bar("breast-cancer", "test_accuracy", "baseline_accuracy", source="logistic regression"),
    Bar("diabetes", "r2", "baseline_r2", source="ridge regression"),
    Bar("image-folder", "test_accuracy", "baseline_accuracy", source="support vector machine on components"),
    Bar("cats-dogs", "test_accuracy", "baseline_accuracy", source="support vector machine on components"),
    Bar("face-detect", "test_accuracy", "baseline_accuracy", source="support vector machine"),
    Bar("cartpole", "mean_steps", "linear_steps", source="best random linear rule"),
)


def all_runs():
    """Names of all runs: the recipes, and those with an option."""
    from fastdl import recipes

    names = []
    for name in recipes.NAMES:
        module = recipes._module(name)
        variants = [*(["long"] if hasattr(module, "LONG") else []), *getattr(module, "VARIANTS", ())]
        names += [name, *(f"{name}-{v}" for v in variants)]
    return names


def arguments_of(run):
    """`fastdl train` of a run: the recipe, and its option."""
    from fastdl import recipes

    if run in recipes.NAMES:
        return [run]
    name, _, option = run.rpartition("-")
    return [name, f"--{option}"]


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


@contextmanager
def photographs(directory):
    """A folder of 5000 and 1000 photographs of CIFAR-10, in train and in test one for each name; removed afterwards."""
    from PIL import Image

    from fastdl import data

    dataset = data.load("cifar10", directory)
    with tempfile.TemporaryDirectory() as folder:
        for part, count in (("train", 5000), ("test", 1000)):
            for name in dataset.names:
                (Path(folder) / part / name).mkdir(parents=True)
            images, labels = getattr(dataset, f"x_{part}")[:count], getattr(dataset, f"y_{part}")[:count]
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                Image.fromarray(image).save(Path(folder) / part / dataset.names[label] / f"{i:04}.png")
        yield folder


def train(run, seed, args, path, commit):
    """One run in a process of its own; its JSON also says of which commit it is."""
    draft = path.with_suffix(".part")
    with photographs(args.data) if run == "image-folder" else nullcontext(args.data) as folder:
        command = [sys.executable, "-m", "fastdl", "train", *arguments_of(run), "--data", folder, "--seed", seed]
        command += ["--threads", args.threads, "--device", args.device, "--json", str(draft)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    draft.write_text(json.dumps(json.loads(draft.read_text()) | {"commit": commit}, indent=1) + "\n")
    draft.replace(path)


def reports(run, args, now):
    """The figures of a run by seed: made now, or found and of the same commit."""
    found = {}
    if args.table:
        for path in args.out.glob(f"{run}-seed*.json"):
            found[int(path.stem.rpartition("seed")[2])] = json.loads(path.read_text())
        return dict(sorted(found.items()))
    for seed in args.seeds.split(","):
        path = args.out / f"{run}-seed{seed}.json"
        if not path.exists():
            try:
                train(run, seed, args, path, now)
            except subprocess.CalledProcessError as error:
                print(f"{run}, seed {seed}: {error}", file=sys.stderr)
                continue
        found[int(seed)] = report = json.loads(path.read_text())
        if report.get("commit") != now and not args.any_commit:
            sys.exit(
                f"{path}: expected figures of commit {now}; got those of {report.get('commit')} "
                "(delete the file to run it again, or give --any-commit)"
            )
    return found


def figures(report):
    """Metrics of a report, with those that bars need besides."""
    metrics = dict(report["metrics"])
    if "log_z_exact" in metrics:
        metrics |= {"log_z_exact_low": metrics["log_z_exact"] - 0.1, "log_z_exact_high": metrics["log_z_exact"] + 0.1}
    return metrics


def machine(run, report):
    """Where a run was made and how long it took, in words; where that is too long for two cores the limit as well."""
    config, seconds = report.get("config", {}), report["seconds"]
    where = config.get("device", "cpu")
    if where == "cpu":
        threads = config.get("threads", "?")
        where = f"{config.get('machine', 'CPU')}, {threads} thread{'' if threads == 1 else 's'}"
        limit = 60 * MINUTES.get(run, 10)
        if threads != 1 and seconds > limit:
            return where, f"**{seconds:.0f}** (limit {limit})"
    return where, f"{seconds:.0f}"


def number(value):
    """A figure as a cell."""
    return str(value) if isinstance(value, (bool, int)) else f"{value:.4g}"


def rows(run, found):
    """(cells, held) of every bar of a run; of a run without bars its figures."""
    where = "; ".join(dict.fromkeys(machine(run, r)[0] for r in found.values()))
    took = ", ".join(machine(run, r)[1] for r in found.values())
    seeds = ", ".join(map(str, found))
    for bar in (b for b in BARS if b.run == run):
        runs = [m for m in map(figures, found.values()) if bar.needs <= m.keys()]
        if not runs:
            yield (run, bar.metric, "", "", bar.words(), bar.source, "not measured", took, where), False
            continue
        values = ", ".join(number(m[bar.metric]) for m in runs)
        held = bar.held(runs)
        verdict = "held" if held else "**missed**"
        if not held and len(runs) < bar.seeds and all(bar.margin(m) >= 0 for m in runs):
            verdict, held = f"held by {len(runs)} of {bar.seeds} seeds", True
        cells = (run, bar.metric, values, seeds, bar.words(runs), bar.source, verdict, took, where)
        yield cells, held


def short(commit):
    """A commit in a table: its first ten digits."""
    words = str(commit or "not said").split(" ")
    return " ".join([words[0][:10] if len(words[0]) == 40 else words[0], *words[1:]])


def table(names, args, now):
    """Lines of the table as they come, and whether every bar was held; missing runs are listed at the end."""
    heads = ("run", "figure", "measured", "seeds", "bar", "from", "", "seconds", "machine")
    yield "| " + " | ".join(heads) + " |\n|" + "---|" * len(heads), True
    commits, missing, plain = set(), [], []
    for name in names:
        found = reports(name, args, now)
        if not found:
            missing.append(name)
            continue
        commits.update(short(r.get("commit")) for r in found.values())
        barred = list(rows(name, found))
        for cells, held in barred:
            yield "| " + " | ".join(cells) + " |", held
        if not barred:
            plain.append((name, found))
    for name, found in plain:
        lines = [f"\n{name}, seeds {', '.join(map(str, found))}:\n"]
        for figure, value in next(iter(found.values()))["metrics"].items():
            if not isinstance(value, str):
                lines.append(f"    {figure:<24} " + "  ".join(number(r["metrics"][figure]) for r in found.values()))
        yield "\n".join(lines), True
    if missing:
        yield f"\nNot run yet: {', '.join(missing)}.", False
    yield f"\nMade at commit {', '.join(sorted(commits))}.", True


def main(arguments=None):
    """Run what is missing, print the table; the exit status says whether every bar was held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN")
    parser.add_argument("--data", help="folder of the data sets")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recipes")
    parser.add_argument("--all", action="store_true", help="also what takes ten minutes or more on two cores")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table between this file's marks")
    parser.add_argument("--any-commit", action="store_true", help="also report figures of other commits")
    parser.add_argument("--commit", help="what this is, where git cannot tell")
    args = parser.parse_args(arguments)
    known = all_runs()
    for name in args.runs:
        if name not in known:
            parser.error(f"RUN: expected some of {', '.join(known)}; got {name!r}")
    if not args.table and args.data is None:
        parser.error("--data: expected the folder of the data sets, to run recipes (--table runs none)")
    args.out.mkdir(parents=True, exist_ok=True)
    quick = args.table or args.all
    names = args.runs or [n for n in known if quick or MINUTES.get(n, 9) < 10]
    lines, good = [], True
    for line, held in table(names, args, args.commit or source()):
        print(line, flush=True)
        lines.append(line)
        good &= held
    if args.write:
        before, _, rest = args.write.read_text().partition(BEGIN)
        if END not in rest:
            sys.exit(f"{args.write}: expected the marks {BEGIN} and {END}; got none")
        args.write.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.partition(END)[2]}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
