"""The CUDA kernels on this machine's GPU, beside PyTorch's (cuBLAS, cuDNN) where that is installed.

    python benchmarks/gpu.py [AREA ...]        products convolutions layers recurrent gibbs steps

A sample is a run of calls between two CUDA events, in turn with the peer's, so what is compared is what a caller waits for:
small cases show the time to start a kernel from Python, large ones the kernel. Reported are the median time, and the median
over the rounds of the ratio within a round. Rates are beside the ceilings of this GPU, measured first: the best of PyTorch's
large products, and a copy's bytes (read and written). Writes benchmarks/results/<gpu>.json.
"""

import datetime
import functools
import json
import math
import pathlib
import platform
import re
import statistics
import sys

import cupy
import numpy as np

import fastdl
from fastdl import backend, kernels, nn, ops, optim
from fastdl.tensor import Tensor

try:
    import torch

    torch = torch if torch.cuda.is_available() else None
except ImportError:
    torch = None

AREAS = ("products", "convolutions", "layers", "recurrent", "gibbs", "steps")
SAMPLE_US = 400.0  # shortest sample
ROUNDS, WARM = 25, 4
F32 = cupy.float32


def random(*shape):
    return cupy.random.standard_normal(shape, F32)


def t(a):
    """PyTorch's view of an array."""
    return torch.from_dlpack(a) if torch else None


def bound(function, *arguments):
    """A call without arguments; a dictionary at the end are keywords."""
    keywords = arguments[-1] if arguments and isinstance(arguments[-1], dict) else {}
    return functools.partial(function, *arguments[: len(arguments) - bool(keywords)], **keywords)


# ---------------------------------------------------------------------------------------------------------- timing


def timed(call, count):
    """Microseconds of one of `count` calls."""
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return cupy.cuda.get_elapsed_time(start, end) * 1e3 / count


def measure(calls):
    """{name: median microseconds}, {name: median ratio to the first}, of calls in turn."""
    counts = {}
    for name, call in calls.items():
        for _ in range(WARM):
            timed(call, 1)
        counts[name] = max(1, math.ceil(SAMPLE_US / timed(call, 1)))
    rounds = [{name: timed(call, counts[name]) for name, call in calls.items()} for _ in range(ROUNDS)]
    first = next(iter(calls))
    times = {name: statistics.median(r[name] for r in rounds) for name in calls}
    return times, {name: statistics.median(r[name] / r[first] for r in rounds) for name in calls if name != first}


def precision(word):
    """Ours and PyTorch's."""
    fastdl.set_matmul_precision(word)
    if torch:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = word != "highest"


# ------------------------------------------------------------------------------------------------------------ rows
# Each yields (name, flops, bytes, {peer: call}); bytes are those that have to move once.


def products():
    for word in ("highest", "tf32", "bf16"):
        for m, n, k in ((512,) * 3, (1024,) * 3, (4096,) * 3, (8192,) * 3, (128, 512, 784), (64, 4096, 4096)):
            a, b, c = random(m, k), random(k, n), cupy.empty((m, n), F32)
            calls = {"fastdl": functools.partial(kernels.matmul, a, b, out=c)}
            if torch and word == "bf16":  # PyTorch wants bf16 arrays; ours are rounded on the way, so it moves half as much
                ta, tb = t(a).bfloat16(), t(b).bfloat16()
                calls["torch (bf16 arrays)"] = functools.partial(torch.mm, ta, tb)
            elif torch:
                calls["torch"] = functools.partial(torch.mm, t(a), t(b), out=t(c))
            yield f"{m}x{n}x{k} {word}", 2.0 * m * n * k, 4.0 * (m * k + k * n + m * n), calls, word
        a, b, c = random(256, 128, 128), random(256, 128, 128), cupy.empty((256, 128, 128), F32)
        calls = {"fastdl": functools.partial(kernels.matmul, a, b, out=c)}
        if torch and word != "bf16":
            calls["torch"] = functools.partial(torch.bmm, t(a), t(b), out=t(c))
        yield f"256 of 128x128x128 {word}", 2.0 * 256 * 128**3, 12.0 * 256 * 128**2, calls, word


CONVOLUTIONS = (  # name, N, Y=X, C, F, R=S, stride, padding, groups
    ("lenet1 64x28x28x1", 64, 28, 1, 6, 5, 1, 2, 1),
    ("mnist2 64x26x26x32", 64, 26, 32, 64, 3, 1, 0, 1),
    ("vgg 64x56x56x64", 64, 56, 64, 64, 3, 1, 1, 1),
    ("vgg 64x28x28x128", 64, 28, 128, 128, 3, 1, 1, 1),
    ("vgg 64x14x14x256", 64, 14, 256, 256, 3, 1, 1, 1),
    ("1x1 64x14x14x256", 64, 14, 256, 64, 1, 1, 0, 1),
    ("stem 64x224x224x3", 64, 224, 3, 64, 7, 2, 3, 1),
    ("depthwise 64x56x56x64", 64, 56, 64, 64, 3, 1, 1, 64),
)


def convolutions():
    for word in ("highest", "tf32"):
        for name, n, y, c, f, r, stride, pad, groups in CONVOLUTIONS:
            x, w = random(n, y, y, c), random(r, r, c // groups, f)
            how = dict(stride_y=stride, stride_x=stride, pad_y=pad, pad_x=pad, groups=groups)
            out = kernels.conv2d_forward(x, w, **how)
            dy, dx, dw = random(*out.shape), cupy.empty_like(x), cupy.empty_like(w)
            calls = {
                "forward": {"fastdl": functools.partial(kernels.conv2d_forward, x, w, out=out, **how)},
                "data": {"fastdl": functools.partial(kernels.conv2d_backward_data, dy, w, out=dx, **how)},
                "weight": {"fastdl": functools.partial(kernels.conv2d_backward_weight, x, dy, dw=dw, **how)},
            }
            if torch:
                torch.backends.cudnn.benchmark = True
                tx, tdy = t(x).permute(0, 3, 1, 2), t(dy).permute(0, 3, 1, 2)  # channels last, as ours
                tw = t(w).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
                calls["forward"]["torch"] = functools.partial(
                    torch.nn.functional.conv2d, tx, tw, stride=stride, padding=pad, groups=groups
                )
                for kind, mask in (("data", (True, False, False)), ("weight", (False, True, False))):
                    calls[kind]["torch"] = functools.partial(
                        torch.ops.aten.convolution_backward, tdy, tx, tw, None, [stride] * 2, [pad] * 2, [1, 1], False,
                        [0, 0], groups, mask,
                    )  # fmt: skip
            flops, moved = 2.0 * out.size * r * r * c / groups, 4.0 * (x.size + out.size + w.size)
            for kind, row in calls.items():
                yield f"{name} {r}x{r} {kind} {word}", flops, moved, row, word


def layers():
    n = 1 << 26
    x, y, z = random(n), random(n), cupy.empty(n, F32)
    F = torch.nn.functional if torch else None
    tx, ty, tz = t(x), t(y), t(z)

    def row(name, floats, ours, theirs, flops=0.0):
        """(function, *arguments, {keywords}) of each; `theirs` only where PyTorch is there."""
        calls = {"fastdl": bound(*ours)}
        if torch:
            calls["torch"] = bound(*theirs())
        return name, flops, 4.0 * floats, calls, "highest"

    for act in ("relu", "gelu", "sigmoid"):
        peer = torch.sigmoid if torch and act == "sigmoid" else getattr(F, act, None)
        yield row(f"{act} 64 Mi", 2 * n, (kernels.activation_forward, x, act, {"out": z}), lambda peer=peer: (peer, tx))
    yield row("sum 64 Mi", n, (kernels.reduce_forward, x.reshape(1, -1, 1), "sum"), lambda: (torch.sum, tx))
    yield row("uniform 64 Mi", n, (kernels.uniform, {"seed": 1, "y": z}), lambda: (tz.uniform_,))
    yield row("normal 64 Mi", n, (kernels.normal, {"seed": 1, "y": z}), lambda: (tz.normal_,))
    yield row("dropout 64 Mi", 2 * n, (kernels.dropout_forward, x, 0.5, {"seed": 1, "out": z}), lambda: (F.dropout, tx, 0.5))
    m, v = cupy.zeros(n, F32), cupy.zeros(n, F32)
    adam = dict(amsgrad=False, lr=1e-9, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8, maximize=False)
    yield row(
        "adam 64 Mi", 7 * n, (kernels.adam, y, {"lr": 1e-9, "t": 1, "w": x, "m": m, "v": v}),
        lambda: (torch._fused_adam_, [tx], [ty], [t(m)], [t(v)], [], [torch.ones((), device="cuda")], adam),
    )  # fmt: skip
    for rows, c in ((65536, 1000), (8192, 10), (2500, 65)):
        a, labels = random(rows, c), cupy.asarray(np.random.default_rng(0).integers(0, c, rows))
        yield row(f"softmax {rows}x{c}", 2 * a.size, (kernels.softmax_forward, a), lambda a=a: (torch.softmax, t(a), 1))
        yield row(
            f"cross entropy {rows}x{c}", a.size, (kernels.softmax_cross_entropy_forward, a, labels),
            lambda a=a, labels=labels: (F.cross_entropy, t(a), t(labels)),
        )  # fmt: skip
    a, g, s = random(65536, 768), random(768), random(768)
    yield row("layer norm 65536x768", 2 * a.size, (kernels.layer_norm_forward, a, g, s),
              lambda: (F.layer_norm, t(a), (768,), t(g), t(s)))  # fmt: skip
    x, g, s, mean, var = random(64, 56, 56, 64), random(64), random(64), cupy.zeros(64, F32), cupy.ones(64, F32)
    yield row(
        "batch norm 64x56x56x64", 3 * x.size, (kernels.batch_norm_forward, x, g, s, {"running_mean": mean, "running_var": var}),
        lambda: (F.batch_norm, t(x).permute(0, 3, 1, 2), t(mean), t(var), t(g), t(s), True),
    )  # fmt: skip
    yield row("max pool 64x56x56x64", 1.25 * x.size, (kernels.max_pool2d_forward, x),
              lambda: (F.max_pool2d, t(x).permute(0, 3, 1, 2), 2))  # fmt: skip
    table, index = random(50_000, 512), cupy.asarray(np.random.default_rng(0).integers(0, 50_000, 65_536))
    dy, grad = random(65_536, 512), cupy.empty((50_000, 512), F32)
    yield row("embedding 65536x512", 2 * dy.size, (kernels.embedding_forward, table, index),
              lambda: (F.embedding, t(index), t(table)))  # fmt: skip
    yield row("its gradient", dy.size + grad.size, (kernels.embedding_backward, index, dy, {"dtable": grad}),
              lambda: (torch.ops.aten.embedding_dense_backward, t(dy), t(index), 50_000, -1, False))  # fmt: skip
    x, w, bias = random(4096, 1024), random(1024, 1024), random(1024)
    yield row(
        "dense relu 4096x1024x1024", 2 * x.size + w.size, (kernels.dense_forward, x, w, bias, "relu"),
        lambda: (lambda x, w, b: torch.relu_(F.linear(x, w, b)), t(x), t(w).T.contiguous(), t(bias)), 2.0 * 4096 * 1024**2,
    )  # fmt: skip


def recurrent():
    for cell, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        for length, n, i, h in ((50, 32, 128, 256), (100, 64, 512, 512), (200, 1, 64, 64)):
            x, ones = random(n, length, i), cupy.ones((n, length, h), F32)
            net = nn.Sequential(getattr(nn, cell)(h)).build((length, i), seed=0).to("cuda")
            net.flatten()

            def ours(net, x, ones):
                ops.sum(ops.multiply(net(Tensor(x)), Tensor(ones))).backward()

            def theirs(net, x, ones):
                net.zero_grad(set_to_none=True)
                (net(x)[0] * ones).sum().backward()

            calls = {"fastdl": bound(ours, net, x, ones)}
            if torch:
                peer = getattr(torch.nn, cell)(i, h, batch_first=True, device="cuda")
                calls["torch"] = bound(theirs, peer, t(x), t(ones))
            flops = 6.0 * length * n * (i + h) * gates * h
            yield f"{cell} with gradients T{length} B{n} {i}->{h}", flops, 0.0, calls, "highest"


def gibbs():
    def theirs(v, w, b, c):
        for _ in range(100):
            h = torch.bernoulli(torch.sigmoid(torch.addmm(c, v, w)))
            v = torch.bernoulli(torch.sigmoid(torch.addmm(b, h, w.T)))
        return v

    for chains in (100, 1000):
        v, h = (random(chains, 784) > 1).astype(F32), cupy.empty((chains, 500), F32)
        w, b, c = random(784, 500) * F32(0.05), random(784) - F32(2), random(500) - F32(2)
        calls = {"fastdl": bound(kernels.gibbs_chain, w, b, c, {"steps": 100, "seed": 1, "v": v, "h": h})}
        if torch:
            calls["torch"] = bound(theirs, t(v), t(w), t(b), t(c))
        yield f"{chains} chains of 100 steps, 784-500", 4.0 * 100 * chains * 784 * 500, 0.0, calls, "highest"


def steps():
    def ours(net, update, x, labels):
        ops.softmax_cross_entropy(net(Tensor(x)), labels).backward()
        update.step()

    def theirs(net, update, x, labels):
        update.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(net(x), labels).backward()
        update.step()

    T = torch.nn if torch else None
    pool = {"fastdl": lambda: nn.MaxPool2d(2), "torch": lambda: (T.MaxPool2d(2),)}
    networks = {  # batch, input, layers as (kind, inputs, outputs, size, padding)
        "MLP 784-1024-1024-10, B128": (128, (784,), [("dense", 784, 1024), ("dense", 1024, 1024), ("dense", 1024, 10)]),
        "LeNet-5, B128": (128, (28, 28, 1), [
            ("conv", 1, 6, 5, 2), ("pool",), ("conv", 6, 16, 5, 0), ("pool",), ("flatten",),
            ("dense", 400, 120), ("dense", 120, 84), ("dense", 84, 10)]),
        "conv 32-64-128, B256 of 32x32x3": (256, (32, 32, 3), [
            ("conv", 3, 32, 3, 1), ("pool",), ("conv", 32, 64, 3, 1), ("pool",), ("conv", 64, 128, 3, 1), ("mean",),
            ("dense", 128, 10)]),
    }  # fmt: skip
    for name, (batch, shape, layers) in networks.items():
        mine, peers = [], []
        for at, (kind, *sizes) in enumerate(layers):
            act = "relu" if at + 1 < len(layers) else "none"
            if kind == "dense":
                mine.append(nn.Dense(sizes[1], act))
            elif kind == "conv":
                mine.append(nn.Conv2d(sizes[1], sizes[2], act, padding=sizes[3]))
            else:
                mine.append({"pool": pool["fastdl"], "flatten": nn.Flatten, "mean": nn.GlobalAvgPool2d}[kind]())
            if torch and kind in ("dense", "conv"):
                peers.append(T.Linear(*sizes) if kind == "dense" else T.Conv2d(*sizes[:3], padding=sizes[3]))
                peers += [T.ReLU()] if act == "relu" else []
            elif torch:
                peers += {"pool": pool["torch"], "flatten": lambda: (T.Flatten(),),
                          "mean": lambda: (T.AdaptiveAvgPool2d(1), T.Flatten())}[kind]()  # fmt: skip
        net = nn.Sequential(*mine).build(shape, seed=0).to("cuda").train()
        x, labels = random(batch, *shape), cupy.asarray(np.arange(batch) % 10)
        calls = {"fastdl": bound(ours, net, optim.get("adam", net, lr=1e-4), x, labels)}
        if torch:
            peer = T.Sequential(*peers).cuda().to(memory_format=torch.channels_last)
            adam = torch.optim.Adam(peer.parameters(), lr=1e-4, fused=True)
            calls["torch"] = bound(theirs, peer, adam, t(x) if len(shape) == 1 else t(x).permute(0, 3, 1, 2), t(labels))
        yield name, 0.0, 0.0, calls, "highest"


# ------------------------------------------------------------------------------------------------------------ main


def ceilings():
    """GB/s of a copy, counting bytes read and written, and TFLOP/s of PyTorch's large products."""
    a = cupy.zeros(1 << 28, F32)
    b = cupy.empty_like(a)
    found = {"copy_gb_s": 8e-3 * a.size / min(timed(lambda: cupy.copyto(b, a), 5) for _ in range(5))}
    if torch:
        x = torch.randn(8192, 8192, device="cuda")
        for word in ("highest", "tf32"):
            precision(word)
            found[f"{word}_tflops"] = 2e-6 * 8192**3 / min(timed(lambda: torch.mm(x, x), 3) for _ in range(5))
        x = x.bfloat16()
        found["bf16_tflops"] = 2e-6 * 8192**3 / min(timed(lambda: torch.mm(x, x), 3) for _ in range(5))
    return found


def main(areas):
    if not cupy.cuda.is_available():
        sys.exit("benchmarks/gpu.py: expected a GPU; found none")
    if unknown := set(areas) - set(AREAS):
        sys.exit(f"benchmarks/gpu.py: expected areas of {', '.join(AREAS)}; got {', '.join(sorted(unknown))}")
    backend.cuda()
    device = cupy.cuda.runtime.getDeviceProperties(0)
    name, limits, rows = device["name"].decode(), ceilings(), []
    print(name, {k: round(v, 1) for k, v in limits.items()})
    for area in areas or AREAS:
        print(f"-- {area}")
        for label, flops, moved, calls, word in globals()[area]():
            precision(word)
            times, ratios = measure(calls)
            us = times["fastdl"]
            row = {"area": area, "name": label, "us": times, "times_faster": ratios}
            if flops:
                row["tflops"] = flops * 1e-6 / us
            if moved:
                row["gb_s"] = moved * 1e-3 / us
            rows.append(row)
            rate = f"{row['tflops']:8.2f} TF" if flops else f"{row['gb_s']:7.0f} GB/s" if moved else " " * 11
            print(f"{label:44s} {us:10.1f} us {rate}  " + "  ".join(f"{k} {v:.2f}x" for k, v in ratios.items()), flush=True)
    precision("highest")
    about = {
        "gpu": name,
        "compute_capability": f"{device['major']}.{device['minor']}",
        "driver": cupy.cuda.runtime.driverGetVersion(),
        "fastdl": fastdl.__version__,
        "cuda_runtime": backend.cuda_kernels().runtime_version(),
        "torch": torch.__version__ if torch else None,
        "cupy": cupy.__version__,
        "python": platform.python_version(),
        "date": datetime.date.today().isoformat(),
        "ceilings": limits,
    }
    path = pathlib.Path(__file__).parent / "results" / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")
    path.write_text(json.dumps(about | {"rows": rows}, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
