"""The command line: ``fastdl train | choose | demo | bench | info | data``.

Each command imports what it needs when it runs. A wrong value ends with one line that names it, and exit status 2; files that
cannot be read or written are told before the work begins.
"""

import argparse
import contextlib
import glob
import os
import re
import sys
import tempfile

# What fastdl reads, for `fastdl info`.
VARIABLES = {
    "FASTDL_TARGET": "the compiled target to use instead of the best",
    "FASTDL_NUM_THREADS": "number of threads; else OMP_NUM_THREADS, else the CPUs that this process may use",
    "FASTDL_POOL": "0: arrays inside training steps come from the system each time",
    "FASTDL_DATA": "folder of the data sets",
    "FASTDL_CACHE": "folder of what recipes keep for later runs; else fastdl in the user's cache folder",
}

# Other tasks of a recipe, as options of `fastdl train`.
VARIANTS = {
    "pixels": "mnist-rows-lstm: read a pixel a step instead of a row",
    "permuted": "mnist-rows-lstm: the same in an order that is drawn once",
}


# ------------------------------------------------------------------------------------------------ values of options


def _whole(least):
    def number(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}; got {text!r}")
        return value

    return number


def _numbers(text):
    return tuple(_whole(1)(part) for part in text.split(","))


def _some_of(known):
    def names(text):
        parts = tuple(part for part in text.split(",") if part)
        for part in parts:
            if part not in known:
                raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}; got {part!r}")
        return parts

    return names


def _one_of(known):
    def name(text):
        if text not in known:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(known)}; got {text!r}")
        return text

    return name


def _writable(text):
    """A path whose folder exists: better to hear it before the training than after."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a file; got ''")
    folder = os.path.dirname(os.path.abspath(text))
    if not os.path.isdir(folder):
        raise argparse.ArgumentTypeError(f"expected a file in a folder that exists; got {text!r}")
    if os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"expected a file; got the folder {text!r}")
    try:
        if os.path.isfile(text):
            with open(text, "ab"):
                pass
        elif not os.path.exists(text):  # a pipe is opened once, when there is something to say
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise argparse.ArgumentTypeError(f"expected a file that can be written; got {text!r} ({error.strerror})") from None
    return text


def _replaceable(text):
    """The same for what is written beside the old file and then takes its place."""
    if os.path.exists(text) and not os.path.isfile(text) and not os.path.isdir(text):
        raise argparse.ArgumentTypeError(f"expected a file; got {text!r}, a device or a pipe")
    return _writable(text)


def _folder(text):
    """Empty where a variable of a script was not set; the folder of now is `.`."""
    if not text:
        raise argparse.ArgumentTypeError("expected the name of a folder; got ''")
    return text


def _begun(text):
    """A checkpoint to go on from, or those of several networks, ``FILE.name``."""
    if not os.path.isfile(text) and not glob.glob(f"{glob.escape(text)}.*"):
        raise argparse.ArgumentTypeError(f"expected a checkpoint that was written before; got {text!r}, which is not there")
    return text


def _pattern(text):
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"expected a regular expression; got {text!r} ({error})") from None
    return text


def parser():
    """All commands and options."""
    from .bench import AREAS, CLOCKS
    from .bench_peers import PEERS
    from .recipes import NAMES

    top = argparse.ArgumentParser(prog="fastdl", description="Deep learning on hand-written kernels.")
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(dest="command", metavar="COMMAND")

    def command(name, run, about):
        sub = commands.add_parser(name, help=about, description=about)
        sub.set_defaults(run=run)
        return sub

    train = command("train", _train, "train a network on a data set and report its accuracy")
    train.add_argument("recipe", metavar="RECIPE", nargs="?", type=_one_of(NAMES), help=", ".join(NAMES))
    train.add_argument(
        "--data", metavar="DIR", type=_folder, help="folder of the data sets; without it FASTDL_DATA, or the embedded digits"
    )
    train.add_argument("--epochs", metavar="N", type=_whole(1), help="instead of the recipe's own number")
    train.add_argument("--long", action="store_true", help="the recipe's larger network and longer run, where it has one")
    for name, about in VARIANTS.items():
        train.add_argument(f"--{name}", dest="variant", action="store_const", const=name, help=about)
    train.add_argument("--seed", metavar="S", type=_whole(0), default=0)
    train.add_argument("--threads", metavar="N", type=_whole(1))
    where = "cpu, cuda or cuda:N (a GPU: needs the CUDA build and CuPy)"
    train.add_argument("--device", metavar="NAME", default="cpu", help=where)
    train.add_argument(
        "--checkpoint", metavar="FILE", type=_replaceable, help="write the state of the training there after every epoch"
    )
    about = "go on from such a state, bit for bit, and go on writing it; same options as before"
    train.add_argument("--resume", metavar="FILE", type=_begun, help=about)
    train.add_argument("--save", metavar="FILE", type=_replaceable, help="weights, as safetensors")
    train.add_argument("--json", metavar="FILE", type=_writable, help="figures and settings")
    train.add_argument(
        "--plot", metavar="FILE", type=_writable, help="learning curve, filters, worst mistakes (needs matplotlib)"
    )

    choose = command("choose", _choose, "which network suits a task or data, and why")
    choose.add_argument("task", metavar="TASK", nargs="*", help="what is to be done; without it a list")
    choose.add_argument("--set", metavar="NAME", help="a data set (see fastdl data list), or a .csv or .npz file, to look at")
    choose.add_argument("--data", metavar="DIR", type=_folder, help="folder of the data sets; without it FASTDL_DATA")
    choose.add_argument("--target", metavar="COLUMN", help="of a .csv file: the column to predict; without it no labels")
    choose.add_argument("--seed", metavar="S", type=_whole(0), default=0)

    demo = command("demo", _demo, "train a convolutional network on the embedded digits in about a minute")
    demo.add_argument("--threads", metavar="N", type=_whole(1))
    demo.add_argument("--device", metavar="NAME", default="cpu", help=where)
    demo.add_argument("--picture", metavar="FILE", type=_writable, default="mnist-cnn.png")

    bench = command("bench", _bench, "measure kernels and training steps against other libraries")
    bench.add_argument("areas", metavar="AREA", nargs="*", type=_one_of(AREAS), help=", ".join(AREAS))
    bench.add_argument("--against", metavar="NAMES", type=_some_of(PEERS), default=("numpy",), help=",".join(PEERS))
    bench.add_argument("--threads", metavar="N,...", type=_numbers, default=(1,), help="such as 1,2")
    bench.add_argument("--rounds", metavar="N", type=_whole(2), default=21, help="at most so many samples a visit")
    bench.add_argument("--only", metavar="REGEX", type=_pattern, help="rows whose name matches")
    about = "cpu: time that the calling thread ran, for one thread on a machine that is not quiet"
    bench.add_argument("--clock", metavar="NAME", type=_one_of(tuple(CLOCKS)), default="wall", help=about)
    bench.add_argument("--json", metavar="FILE", type=_writable)

    command("info", _info, "version, targets, threads, NumPy and its BLAS, environment")

    data = command("data", lambda args: _usage(data), "data sets: what is there, and fetching")
    kinds = data.add_subparsers(dest="action", metavar="ACTION")
    listing = kinds.add_parser("list", help="what can be loaded, and from where")
    listing.add_argument("--dir", metavar="DIR", type=_folder, help="folder of the data sets; without it FASTDL_DATA")
    listing.set_defaults(run=_data_list)
    fetch = kinds.add_parser("fetch", help="download a data set")
    fetch.add_argument("name", metavar="NAME", type=_one_of(("mnist",)), help="mnist")
    fetch.add_argument("--dir", metavar="DIR", type=_folder, help="where to; without it FASTDL_DATA, else ./data")
    fetch.set_defaults(run=_data_fetch)
    return top


def end_the_command(error):
    """What the environment says is wrong, found when the package is imported and so before `main`: where this process is the
    command, it ends with one line as for a wrong option; in other programs nothing happens."""
    program = sys.argv[0] if sys.argv else ""
    # While Python looks for the module that -m names, it imports its packages, and "-m" stands for the program.
    module = program == "-m" and any(word.endswith("fastdl") for word in sys.orig_argv)
    if module or os.path.basename(program) == "fastdl":
        print(f"fastdl: {error}", file=sys.stderr)
        raise SystemExit(2)


def _usage(sub):
    sub.print_help()
    return 2


def main(argv=None):
    """Run one command; returns the exit status.

    Without `argv` the command is this process's own, and `bench` may start it anew in a cleaner environment.
    """
    own = argv is None
    argv = sys.argv[1:] if own else list(argv)
    top = parser()
    try:
        args = top.parse_args(argv)
    except SystemExit as stop:  # argparse has printed why
        return stop.code
    if args.version:
        from . import __version__

        print(__version__)
        return 0
    if args.command is None:
        return _usage(top)
    args.argv, args.own = argv, own
    try:
        return args.run(args) or 0
    except BrokenPipeError:
        # The reader has gone, as in `fastdl info | head -1`; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        written = getattr(args, "checkpoint", None) or getattr(args, "resume", None)
        there = written is not None and (os.path.isfile(written) or glob.glob(f"{glob.escape(written)}.*"))
        how = f"; --resume {written} goes on from there" if there else ""
        print(f"fastdl {args.command}: interrupted{how}", file=sys.stderr)
        return 130
    except (ValueError, TypeError, ImportError, OSError, FloatingPointError) as error:
        print(f"fastdl {args.command}: {error}", file=sys.stderr)
        return 2


# -------------------------------------------------------------------------------------------------------- commands


def _train(args):
    from . import recipes

    if args.recipe is None:
        print("expected a recipe; there are\n")
        for name in recipes.NAMES:
            print(f"  {name:<18} {recipes.title(name)}")
        return 2
    if args.plot:
        from . import plot

        plot.require()
        args.plot = _drawable("plot", args.plot)
    _own_files(args)
    if args.threads:
        from . import set_num_threads

        set_num_threads(args.threads)
    config = recipes.Config(
        data_dir=args.data,
        epochs=args.epochs,
        seed=args.seed,
        show=recipes.say,
        progress=True,
        checkpoint=args.checkpoint,
        resume=args.resume,
        long=args.long,
        variant=args.variant,
        device=args.device,
    )
    report = recipes.run(args.recipe, config)
    files = ((args.save, recipes.save), (args.json, recipes.write_json), (args.plot, recipes.picture))
    # One that can't be written any more, or a reader that has gone (`| head`), must not take the others along.
    with contextlib.ExitStack() as todo:
        for path, write in reversed(files):
            if path:
                todo.callback(write, report, path)
        for name, value in report.metrics.items():
            name = name.replace("_", " ")
            print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
        print(f"{report.seconds:.1f} s", flush=True)
    return 0


def _own_files(args):
    """Each output in a file of its own: the last one written would take the place of the others."""
    seen = {}
    for option in ("resume", "checkpoint", "save", "json", "plot"):
        path = getattr(args, option)
        other = path and seen.setdefault(os.path.realpath(path), option)
        if path and other != option and (option, other) != ("checkpoint", "resume"):  # which goes on in its own file
            raise ValueError(f"--{option}: expected a file of its own; got {path!r}, as for --{other}")


def _drawable(option, path):
    """The file of a picture, whose kind follows from its name (PNG without a suffix): better to hear of a wrong one before the
    training than after."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    kinds, kind = FigureCanvasAgg.get_supported_filetypes(), os.path.splitext(path)[1][1:].lower()
    if kind and kind not in kinds:
        raise ValueError(f"--{option}: expected a name that ends in one of .{', .'.join(sorted(kinds))}; got {path!r}")
    return path if kind else f"{path.rstrip('.')}.png"


def _choose(args):
    from . import choose
    from .chooser import TASKS

    task = " ".join(args.task) or None
    if task is None and args.set is None:
        print("expected a task or --set; there are\n")
        for name, rule in TASKS.items():
            print(f"  {name:<16} {', '.join(rule.families) or '-':<22} {', '.join(rule.also)}")
        return 2
    if args.set is None and args.target is not None:
        raise ValueError("target: expected --set, too, the table whose column it is; got --target alone")
    x, y = (None, None) if args.set is None else _samples(args.set, args.data, args.target)
    print(choose(task, x, y, seed=args.seed))
    return 0


def _samples(name, folder, target):
    """(x, y) of a data set or a file; y None for a table of which no column was named."""
    from . import data

    if os.path.isfile(name):
        path = os.path.abspath(name)
        folder, name = os.path.split(path)
        for suffix in (".csv.gz", ".csv", ".npz"):
            name = name.removesuffix(suffix)
    elif name.endswith((".csv.gz", ".csv", ".npz")):
        raise ValueError(f"--set: expected a file, or a name that fastdl data list shows; got {name!r}, which is not there")
    else:
        path = data.available(folder).get(name, "")
    if target is None and path.endswith((".csv", ".csv.gz")):
        return data.read_csv(path).x, None
    found = data.load(name, folder, target)
    return found.x_train, found.y_train


def _demo(args):
    from importlib.util import find_spec

    from .recipes import demo

    if find_spec("matplotlib") is not None:
        args.picture = _drawable("picture", args.picture)
    return demo.run(args.picture, args.threads, args.device)


def _bench(args):
    from . import bench, bench_peers

    if args.own:
        bench_peers.rerun_clean(args.argv)
    bench.run(
        args.areas or bench.AREAS, args.against, args.threads, args.rounds, args.json, args.only, clock=args.clock
    )
    return 0


def _info(args):
    import platform

    import numpy as np

    from . import __version__, _runtime, backend
    from .bench_peers import blas_kernel

    threads, source = backend.cpu.default_num_threads()
    lines = {
        "fastdl": __version__,
        "python": f"{platform.python_version()}, {platform.system()} {platform.machine()}",
        "cpu": _runtime.cpu_brand(),
        "targets": f"built and runnable here: {', '.join(backend.runnable())}; chosen: {backend.target}",
        "threads": f"{threads}, from {source}",
        "cuda": _cuda(),
        "products": _products(),
        "numpy": f"{np.__version__} ({blas_kernel()})",
    }
    for name, text in lines.items():
        print(f"{name:<8} {text}")
    print("\nenvironment")
    for name, about in VARIABLES.items():
        print(f"  {name:<20} {os.environ.get(name, '(not set)'):<12} {about}")
    return 0


def _cuda_module():
    """The module of the CUDA kernels and its GPUs; a text where there is no use in asking further."""
    import importlib.util

    if importlib.util.find_spec("fastdl._cuda") is None:
        return "not built in: this build has kernels for the CPU only (FASTDL_CUDA=ON builds those for GPUs)"
    try:
        module = importlib.import_module("fastdl._cuda")
        return module, module.devices()
    except (ImportError, RuntimeError) as error:
        return f"built in, but cannot be used: {error}"


def _cuda():
    import importlib.util

    found = _cuda_module()
    if isinstance(found, str):
        return found
    module, devices = found
    # As CMake writes them: 80-real is machine code, 80-virtual PTX, 80 both.
    built = module.ARCHITECTURES.split()
    code = [f"sm_{a.removesuffix('-real')}" for a in built if not a.endswith("-virtual")]
    ptx = [f"PTX of compute_{a.removesuffix('-virtual')}" for a in built if not a.endswith("-real")]
    version = module.runtime_version()
    cards = ", ".join(f"GPU {i}: sm_{major}{minor}" for i, (major, minor) in enumerate(devices)) or "no GPU"
    cupy = "" if importlib.util.find_spec("cupy") else "; CuPy is not installed, which makes the arrays"
    return f"CUDA {version // 1000}.{version % 1000 // 10}, kernels for {', '.join(code + ptx)}; {cards}{cupy}"


def _products():
    from . import backend

    chosen = backend.get_matmul_precision()
    text = f"{chosen} (fastdl.set_matmul_precision); CPU: float32"
    found = _cuda_module()
    for i, (major, minor) in enumerate(() if isinstance(found, str) else found[1]):
        if found[0].tensor_cores(i):
            text += f"; GPU {i}: {'float32, tensor cores with tf32 and bf16' if chosen == 'highest' else chosen}"
        elif major < 8:
            text += f"; GPU {i}: float32 always, as sm_{major}{minor} has no tensor cores for tf32 and bf16"
        else:
            text += f"; GPU {i}: float32 always, as it runs kernels compiled for sm_75"
    return text


def _data_list(args):
    from . import data

    folder = data.data_directory(args.dir)
    if folder is not None and not folder.is_dir():
        raise ValueError(f"{'--dir' if args.dir else 'FASTDL_DATA'}: expected a folder; got {str(folder)!r}")
    for name, path in data.available(folder).items():
        print(f"{name:<32} {path}")
    if folder is None:
        print("(no folder of data sets: --dir and FASTDL_DATA are not set)")
    return 0


def _data_fetch(args):
    from . import data

    folder = data.data_directory(args.dir) or "data"
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ValueError(f"{'--dir' if args.dir else 'FASTDL_DATA'}: expected a folder; got {str(folder)!r}")
    print(f"{args.name}: in {data.fetch(args.name, folder)}")
    return 0
