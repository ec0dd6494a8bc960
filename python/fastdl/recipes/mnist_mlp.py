"""MNIST digits by a multi-layer perceptron with dropout, without augmentation.

Task: 28x28 grey images of handwritten digits, ten classes, and no knowledge of their geometry: shuffling the pixels
would change nothing. Network: 784-1024-1024-10, relu, dropout.

Reference: 98.75 % for 784-1024-1024-1024-10 with relu and dropout in Srivastava, Hinton, Krizhevsky, Sutskever &
Salakhutdinov, "Dropout: a simple way to prevent neural networks from overfitting" (2014), table 2; 98.4 % without
dropout (800 units) in Simard, Steinkraus & Platt (2003).
"""

from ..models import MLP
from ._common import fit_and_judge, mnist

EPOCHS = {"mnist": 40, "mnist-embedded": 60}


def run(config):
    """Train and judge; see `fastdl.recipes`."""
    model = MLP(hidden=(1024, 1024), dropout=0.5, input_dropout=0.2, seed=config.seed)
    return fit_and_judge(
        config, model, mnist(config), epochs=EPOCHS, batch_size=128, optimizer="adam", lr=1e-3, warmup=0.05
    )
