"""Network families with their training: `fit`, `predict`, `summary`, `save`. One family a file, readable alone."""

from .autoencoder import Autoencoder
from .captioner import Captioner
from .classification_rbm import ClassificationRBM
from .cnn import CNN, CNNRegressor
from .convolutional_rbm import ConvolutionalRBM
from .dbm import DBM
from .dbn import DBN
from .forecaster import Forecaster
from .gan import GAN
from .language import CharLM, WordLM
from .mlp import MLP, MLPRegressor
from .perceptron import Perceptron
from .rbm import RBM
from .rnn import RNNClassifier, RNNRegressor
from .rntn import RNTN
from .softmax_regression import SoftmaxRegression

__all__ = [
    "CNN",
    "DBM",
    "DBN",
    "GAN",
    "MLP",
    "RBM",
    "RNTN",
    "Autoencoder",
    "CNNRegressor",
    "Captioner",
    "CharLM",
    "ClassificationRBM",
    "ConvolutionalRBM",
    "Forecaster",
    "MLPRegressor",
    "Perceptron",
    "RNNClassifier",
    "RNNRegressor",
    "SoftmaxRegression",
    "WordLM",
    "load",
]


def load(path):
    """A model from a file that its `save` wrote, or from a checkpoint; the file says which family it is.

    Raises
    ------
    TypeError
        No path.
    FileNotFoundError
        No such file.
    ValueError
        The file is damaged, newer, or of a family that is not known here.
    """
    from .. import checkpoint, io

    weights, config = io.load(path)
    if config.get("kind") == checkpoint.KIND:
        found = io.load_state(path, checkpoint.KIND)
        config = found.get("about") or {}
        if not config:
            raise ValueError(f"{path}: expected a model; got the checkpoint of a network that only a program can make")
        weights = found["state"]["module"]["weights"]
    known = {name: globals()[name] for name in __all__ if name != "load"}
    family = config.get("model")
    if family is None and "recipe" in config:
        raise ValueError(
            f"{path}: expected a model; got the weights alone of recipe {config['recipe']!r}, whose network has to be built by a "
            "program (fastdl.io.load reads them)"
        )
    if family not in known:
        raise ValueError(f"{path}: expected one of {', '.join(known)}; got {family!r}")
    try:
        model = known[family]._from_file(weights, config)
        if "scale" in config:
            model.scale_ = config["scale"]
        return model
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: expected the settings and weights of a {family}; got {what}") from error
