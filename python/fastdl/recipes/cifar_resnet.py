"""CIFAR-10 photographs: a residual network beside the plain network of equal depth.

Task: 32x32 colour images of ten kinds of things; training images are mirrored and shifted. Network: ResNet-20 with
pre-activation: a convolution, three stages of three residual blocks with 16, 32 and 64 filters, the mean over the image,
a dense layer. The plain network is the same without the ways past the blocks. It takes the full set where the folder has
it, else the subset ``cifar10-small``.

Reference: 91.25 % for ResNet-20 on the full set in He, Zhang, Ren & Sun, "Deep residual learning for image recognition"
(2016), table 6; the order inside a block is that of He et al., "Identity mappings in deep residual networks" (2016). On
4,000 images: see the recipe cifar-cnn.
"""

from .. import data, nn
from ..data import Augment
from ..diagnostics import cap_depth
from ..models import CNN
from ._common import fit_and_judge

EPOCHS = {"cifar10": 30, "cifar10-small": 60}
AUGMENT = Augment(shift=4, whole_pixels=True, flip=True)
STAGES = (16, 32, 64)


def _conv(filters, stride=1, size=3):
    # The normalisation's shift takes the place of the bias.
    return nn.Conv2d(filters, size, stride=stride, padding="same", bias=False, init="he_normal")


def network(residual, blocks=3):
    """``architecture(classes)`` of 6 `blocks` + 2 layers, with or without the ways past the blocks."""

    def architecture(classes):
        layers, before = [_conv(STAGES[0])], STAGES[0]
        for filters in STAGES:
            for block in range(blocks):
                stride = 2 if block == 0 and filters != STAGES[0] else 1
                branch = nn.Sequential(
                    nn.BatchNorm(), nn.ReLU(), _conv(filters, stride), nn.BatchNorm(), nn.ReLU(), _conv(filters)
                )
                if residual:
                    changes = stride != 1 or filters != before
                    branch = nn.Residual(branch, _conv(filters, stride, 1) if changes else None)
                layers.append(branch)
                before = filters
        return nn.Sequential(*layers, nn.BatchNorm(), nn.ReLU(), nn.GlobalAvgPool2d(), nn.Dense(classes))

    return architecture


def run(config):
    """Train and judge both; see `fastdl.recipes`."""
    dataset, reports = data.load("cifar10", config.data_dir), {}
    for name in ("plain", "residual"):
        model = CNN(network(name == "residual"), seed=config.seed)
        reports[name] = fit_and_judge(
            config,
            model,
            dataset,
            epochs=EPOCHS,
            augment=AUGMENT,
            network=name,
            batch_size=64,
            optimizer="adamw",
            lr=3e-3,
            weight_decay=0.02,
            smoothing=0.1,
            warmup=0.1,
        )
    report, plain = reports["residual"], reports["plain"]
    report.metrics |= {
        "plain_accuracy": plain.metrics["test_accuracy"],
        "plain_validation_accuracy": plain.metrics["validation_accuracy"],
        "depth": cap_depth(report.model),
    }
    report.settings["plain"] = plain.settings
    return report
