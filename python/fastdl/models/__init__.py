"""Network families with their training: `fit`, `predict`, `summary`, `save`. One family a file, readable alone."""

from .cnn import CNN
from .mlp import MLP
from .perceptron import Perceptron
from .softmax_regression import SoftmaxRegression

__all__ = ["CNN", "MLP", "Perceptron", "SoftmaxRegression", "load"]


def load(path):
    """A model from a file that its `save` wrote; the file says which family it is.

    Raises
    ------
    ValueError
        The file is damaged, newer, or of a family that is not known here.
    """
    from ..io import load as read

    weights, config = read(path)
    known = {name: globals()[name] for name in __all__ if name != "load"}
    family = config.get("model")
    if family not in known:
        raise ValueError(f"{path}: expected one of {', '.join(known)}; got {family!r}")
    return known[family]._from_file(weights, config)
