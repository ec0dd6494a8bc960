"""What ``make demo`` shows: a convolutional network learns the embedded digits, a picture, a table of kernels."""

import os
import time

from .. import backend, data, get_num_threads, set_num_threads
from . import mnist_cnn
from ._common import Config, picture, say

# Half a minute on two cores, so that all of `make demo`, the compiler too, takes about three.
EPOCHS = 9
ROWS = (
    "^(512x512x512|fwd B128 784->512|mnist2 64x32x26 64k3 fwd|tanh 128x512|maxpool2 64x32x24x24|Adam .*|Bernoulli.*)$"
)


def run(path="mnist-cnn.png", threads=None, device="cpu"):
    """Train, show, draw, measure; returns the exit status."""
    if threads:
        set_num_threads(threads)
    name = backend.device_name(device)
    where = f"with {get_num_threads()} threads" if name == "cpu" else f"on {name}"
    print(f"Training a convolutional network on handwritten digits {where}.\n", flush=True)
    begun = time.perf_counter()
    config = Config(epochs=EPOCHS, show=say, progress=True, device=device)
    report = mnist_cnn.train(config, data.load("mnist-embedded"))
    report.recipe = "mnist-cnn"
    images, _ = report.test
    print(f"\ntest accuracy: {report.metrics['test_accuracy']:.4f} on {len(images)} images never seen before")
    print(f"trained and judged in {time.perf_counter() - begun:.1f} s")
    try:
        picture(report, path)
        print(f"picture: {os.path.abspath(path)}")
    except ImportError as error:
        print(error)
    print("\nKernels against NumPy", flush=True)
    from .. import bench

    bench.run(("gemm", "conv", "layers"), threads=(get_num_threads(),), rounds=5, only=ROWS, goals=False, show=say)
    return 0
