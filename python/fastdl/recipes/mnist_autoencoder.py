"""MNIST digits in 30 numbers: the deep autoencoder 784-1000-500-250-30 beside PCA.

Task: squeeze 28x28 grey images of handwritten digits through a code of 30 numbers and give them back. The figure is the
squared error of an image, summed over its pixels (values 0 to 1), mean over the test images.
Network: dense layers of 1000, 500 and 250 units to a linear code, and their mirror image, all trained together. A second
one of the same shape, made only for the picture, has a code of two numbers.

The activation is that of Hendrycks & Gimpel, "Gaussian error linear units" (2016), who trained this network; the number
of epochs is what half an hour on two cores allows. Every pass sees the digits turned and bent a little, and the weights
decay: on the same images again and again the error of new ones stands still at 3.4 while that of the old falls to half of it.

Reference: 3.00 for this network, pre-trained by Boltzmann machines, and 13.87 for PCA, in Hinton & Salakhutdinov,
"Reducing the dimensionality of data with neural networks" (2006).
"""

from .. import data
from ..models import Autoencoder
from ..models.pca import PCA
from ..schedules import cosine
from ._common import Report, changed
from ._digits import Digits

EPOCHS = {"mnist": 90, "mnist-embedded": 60}
HIDDEN, CODE, ACT = (1000, 500, 250), 30, "gelu"
OPTIONS = {"batch_size": 128, "optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.03}
AUGMENT = data.Augment(rotate=5, scale=0.05, shear=4, elastic=(10, 4))
WARMUP = 0.05


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    digits = Digits(config)
    epochs = digits.epochs(EPOCHS)
    model = config.place(Autoencoder(HIDDEN, CODE, act=ACT, seed=config.seed))
    about = f"cosine to 0 after a warm-up of {WARMUP:g} of the run"
    settings = digits.settings(epochs=epochs, model=repr(model), schedule=about, augmentation=changed(AUGMENT), **OPTIONS)
    model.fit(
        digits.x,
        epochs=epochs,
        validation=digits.x_valid,
        schedule=cosine(WARMUP),
        augment=AUGMENT,
        callbacks=digits.callbacks(),
        **OPTIONS,
        **config.lasting(),
    )
    pca = PCA(CODE).fit(digits.x)
    metrics = {
        "test_sse": -model.score(digits.x_test),
        "pca_sse": -pca.score(digits.x_test),
        "validation_sse": -model.score(digits.x_valid),
    }
    test = digits.x_test, digits.y_test
    return Report(metrics, settings, model, test, draw=lambda path: picture(path, digits, model, pca, epochs))


def picture(path, digits, model, pca, epochs):
    """Reconstructions beside PCA's, the learning curve, and the test digits as codes of two numbers."""
    from .. import plot

    plane = digits.config.place(Autoencoder(HIDDEN, 2, act=ACT, seed=digits.config.seed))
    # a tenth of the passes is enough to see the classes part
    plane.fit(digits.x, epochs=max(1, epochs // 10), schedule=cosine(WARMUP), **OPTIONS)
    figure = plot.canvas((13, 9))
    top, bottom = figure.subfigures(2, 1, height_ratios=(1, 1.6))
    shown = [int((digits.y_test == c).argmax()) for c in range(10)]
    images = digits.x_test[shown]
    lines = images, model.reconstruct(images), pca.reconstruct(images)
    plot.reconstructions(*lines, names=("digits", f"{CODE} numbers", f"PCA, {CODE}"), ax=top.subplots())
    curves, codes, linear = bottom.subplots(1, 3)
    plot.learning_curve(model.history_, curves)
    curves.set_ylabel("squared error an image")
    plot.embeddings(plane.transform(digits.x_test), digits.y_test, ax=codes)
    codes.set_title("codes of two numbers")
    plot.embeddings(pca.transform(digits.x_test)[:, :2], digits.y_test, ax=linear)
    linear.set_title("the first two principal components")
    figure.savefig(path, dpi=110)
