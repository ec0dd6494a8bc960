"""MNIST digits through a thousand layers: what fails, and two cures.

Task: 28x28 grey images of handwritten digits, ten classes. Network: 1,000 dense layers of 32 units and an output layer,
three times. (a) tanh units with the customary small random weights: the gradient is gone before it reaches the first
layers, and nothing is learned; the doctor says so after one batch. (b) tanh units with orthogonal weights of gain 1, at the
edge of chaos, where signals neither die out nor scramble. (c) 500 residual blocks of two layers each, relu units, whose
branches begin at zero: at first the network is its input, and depth comes with training.

Reference: 98 % training accuracy at depth 1,000 and width 300 for tanh units near the edge of chaos in Schoenholz, Gilmer,
Ganguli & Sohl-Dickstein, "Deep information propagation" (2017), figure 5; orthogonal weights: Pennington, Schoenholz &
Ganguli, "Resurrecting the sigmoid in deep learning through dynamical isometry" (2017); branches that begin at zero: Zhang,
Dauphin & Ma, "Fixup initialization: residual learning without normalization" (2019).
"""

import math

from .. import init, nn
from ..diagnostics import examine
from ..models import CNN
from ._common import fit_and_judge, mnist

LAYERS, WIDTH = 1000, 32
EPOCHS = {"mnist": 8, "mnist-embedded": 25}  # of the residual network
ORTHOGONAL_EPOCHS = {"mnist": 9, "mnist-embedded": 30}
NAIVE_STEPS = 200


def small_uniform(shape, stream, fans=None):
    """Uniform in +-1/sqrt(fan_in), the custom before 2010: each layer passes on a third of the variance."""
    return init.uniform(shape, stream, limit=1.0 / math.sqrt(shape[0]))


def tanh_network(weights):
    """A thousand tanh layers and an output layer, with weights drawn by `weights`."""

    def network(classes):
        hidden = (nn.Dense(WIDTH, "tanh", init=weights) for _ in range(LAYERS))
        return nn.Sequential(nn.Flatten(), *hidden, nn.Dense(classes))

    return network


def residual_network(classes):
    """Two layers make a block, x + w2 relu(w1 x), with w2 = 0 at first."""
    blocks = (
        nn.Residual(nn.Sequential(nn.Dense(WIDTH, "relu"), nn.Dense(WIDTH, init="zeros"))) for _ in range(LAYERS // 2 - 1)
    )
    return nn.Sequential(nn.Flatten(), nn.Dense(WIDTH), *blocks, nn.Dense(WIDTH, "relu"), nn.Dense(classes))


def run(config):
    """Train and judge all three; see `fastdl.recipes`."""
    dataset, show = mnist(config), config.show or (lambda text: None)
    shared = {"batch_size": 128, "clip": 1.0, "warmup": 0.1}

    show("(a) tanh, small random weights")
    naive = CNN(tanh_network(small_uniform), seed=config.seed)
    steps = NAIVE_STEPS if config.epochs is None else 20
    first = fit_and_judge(
        config, naive, dataset, epochs=1, network="naive", optimizer="adam", lr=1e-3, steps=steps, **shared
    )
    fresh = config.place(CNN(tanh_network(small_uniform), seed=config.seed).build((28, 28, 1), 10))
    doctor = examine(fresh, dataset.x_train[:128], dataset.y_train[:128])
    show(f"the doctor: {doctor.findings[0] if doctor.findings else doctor.verdict}\n")

    show("(b) tanh, orthogonal weights, the edge of chaos")
    edge = CNN(tanh_network("orthogonal"), seed=config.seed)
    second = fit_and_judge(
        config, edge, dataset, epochs=ORTHOGONAL_EPOCHS, network="orthogonal", optimizer="adam", lr=1e-4, **shared
    )

    show("(c) residual blocks that begin at zero")
    residual = CNN(residual_network, seed=config.seed)
    report = fit_and_judge(
        config, residual, dataset, epochs=EPOCHS, network="residual", optimizer="adam", lr=5e-4, **shared
    )
    report.metrics |= {
        "orthogonal_accuracy": second.metrics["test_accuracy"],
        "orthogonal_validation_accuracy": second.metrics["validation_accuracy"],
        "naive_accuracy": first.metrics["test_accuracy"],
        "naive_verdict": doctor.verdict,
        "residual_seconds": sum(residual.history_["seconds"]),
    }
    report.settings |= {"orthogonal": second.settings, "naive": first.settings, "layers": LAYERS, "width": WIDTH}
    return report
