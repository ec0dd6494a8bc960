"""MNIST digits by a restricted Boltzmann machine, judged by the log-probability of test images.

Task: the distribution of 28x28 binary images; every pixel is drawn once with its grey value as chance, the test images' by
seed 0 for every run. Network: 784-500, Bernoulli units, persistent contrastive divergence, a learning rate that falls to 0;
`--long` takes more Gibbs steps an update, so that the chains keep up with the weights.
log Z by annealed importance sampling, 100 chains, 10,000 temperatures from the data's base rates, forwards and backwards;
if the two differ by more than 1 nat the run says "not converged". `test_ll` holds log Z + 3 standard errors against the
model.

Reference: -86.34 nats for 500 hidden units and CD-25 in Salakhutdinov & Murray, "On the quantitative analysis of deep
belief networks" (2008), table 1; -125.53 for CD-1.
"""

import numpy as np

from .. import data, get_num_threads, random
from ..models import RBM
from ..schedules import cosine
from ._common import Report, Table, mnist

EPOCHS = {"mnist": 120, "mnist-embedded": 150}
STEPS, LONG = 5, 25
HIDDEN, CHAINS, TEMPERATURES = 500, 100, 10000


def binary(images):
    """Pixels drawn by their grey values with seed 0, float32 [N,784]."""
    p = np.ascontiguousarray(images, np.float32).reshape(len(images), -1) / np.float32(255)
    return random.bernoulli(p, seed=0)


def judge(model, x, seed, chains, temperatures):
    """Figures of a machine on samples x: log Z with its error, from above, and the mean log-probability."""
    z = model.anneal(chains, temperatures, seed)
    free = float(model.free_energy(x).astype(np.float64).mean())
    return {
        "test_ll": -free - z.high,
        "test_ll_at_estimate": -free - z.log_z,
        "log_z": z.log_z,
        "log_z_err": z.error,
        "log_z_upper": z.reverse,
        "converged": bool(abs(z.reverse - z.log_z) <= 1.0),
    }


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    dataset = mnist(config)
    show = config.show or (lambda text: None)
    x, _, x_valid, _ = data.split_validation(dataset)
    epochs = config.epochs or EPOCHS[dataset.name]
    model = config.place(RBM(HIDDEN, seed=config.seed))
    options = {"algorithm": "pcd", "k": STEPS, "lr": 0.1, "batch_size": 100, "stochastic": True, "weight_decay": 1e-4}
    if config.long:
        options["k"] = LONG
    model.fit(
        np.ascontiguousarray(x).reshape(len(x), -1), epochs=epochs, schedule=cosine(),
        callbacks=[Table(show)] if config.show else [], **options, **config.lasting(),
    )  # fmt: skip
    free = [float(model.free_energy(binary(part[:5000])).mean()) for part in (x, x_valid)]
    show(f"free energy of validation less that of training images: {free[1] - free[0]:.2f}")
    valid = model.free_energy(binary(x_valid)).astype(np.float64).mean()
    test = binary(dataset.x_test)
    metrics = judge(model, test, config.seed, CHAINS, TEMPERATURES)
    metrics["validation_ll"] = float(-valid - metrics["log_z"])
    show("the brackets of log Z agree" if metrics["converged"] else "not converged: the brackets of log Z differ by over 1 nat")
    settings = {
        "data_set": dataset.name,
        "source": dataset.source.partition(", from ")[0],
        "splits": {"train": len(x), "validation": len(x_valid), "test": len(test)},
        "epochs": epochs, "seed": config.seed, "threads": get_num_threads(), "model": repr(model), **options,
        "schedule": "half a cosine to 0", "chains": CHAINS, "temperatures": TEMPERATURES,
    }  # fmt: skip
    return Report(metrics, settings, model, draw=lambda path: draw(model, test, path))


def draw(model, test, path):
    """Filters, samples, and test images beside their reconstructions."""
    from .. import plot

    plt = plot.require()
    w = model.get_weights()["w"].T
    shown = {
        "filters": w[:64] / np.abs(w[:64]).max(),
        "samples after 1,000 steps": model.sample(64, 1000, means=True),
        "test images": test[:64],
        "reconstructions": model.reconstruct(test[:64]),
    }
    figure, axes = plt.subplots(1, 4, figsize=(16, 4.4))
    for ax, (title, images) in zip(axes, shown.items(), strict=True):
        wall = images.reshape(8, 8, 28, 28).transpose(0, 2, 1, 3).reshape(224, 224)
        ax.imshow(wall, cmap="gray")
        ax.set_title(title)
        ax.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)
