"""Products and convolutions on this machine's GPU, beside PyTorch's where that is installed.

    python benchmarks/gpu.py

Times are medians by CUDA events, interleaved with the peer's, and go to benchmarks/results/<gpu>.json. Not yet run on a GPU.
"""

import functools
import json
import pathlib
import re
import statistics
import sys

SHAPES = [(512, 512, 512), (1024, 1024, 1024), (4096, 4096, 4096), (128, 512, 784)]


def main():
    import cupy

    import fastdl
    from fastdl import backend

    if not cupy.cuda.is_available():
        sys.exit("benchmarks/gpu.py: expected a GPU; found none")
    kernels = backend.cuda().kernels
    try:
        import torch
    except ImportError:
        torch = None

    def once(function):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        function()
        end.record()
        end.synchronize()
        return cupy.cuda.get_elapsed_time(start, end) * 1e3

    name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    rows = []
    for precision in ("highest", "tf32", "bf16"):
        fastdl.set_matmul_precision(precision)
        for m, n, k in SHAPES:
            a, b = cupy.random.rand(m, k, dtype=cupy.float32), cupy.random.rand(k, n, dtype=cupy.float32)
            c = cupy.empty((m, n), cupy.float32)
            runs = {"fastdl": functools.partial(kernels.matmul, a, b, out=c)}
            # No peer for bf16: PyTorch's switch goes down to TF32.
            if torch is not None and torch.cuda.is_available() and precision != "bf16":
                torch.backends.cuda.matmul.allow_tf32 = precision != "highest"
                ta, tb = torch.as_tensor(a, device="cuda"), torch.as_tensor(b, device="cuda")
                runs["torch"] = functools.partial(torch.mm, ta, tb)
            times = {peer: [] for peer in runs}
            for i in range(60):
                for peer, function in runs.items():
                    t = once(function)
                    if i >= 10:
                        times[peer].append(t)
            row = {"m": m, "n": n, "k": k, "precision": precision}
            row |= {f"{peer}_us": statistics.median(t) for peer, t in times.items()}
            row["tflops"] = 2e-6 * m * n * k / row["fastdl_us"]
            rows.append(row)
            print(row)
    path = pathlib.Path(__file__).parent / "results" / (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") + ".json")
    path.write_text(json.dumps({"gpu": name, "rows": rows}, indent=1) + "\n")
    print(path)


if __name__ == "__main__":
    main()
