"""Pictures of trainings, networks and what they make: each function draws on given axes and returns them.

They need matplotlib, extra ``plot``. Without axes a new figure is made through pyplot.
"""

from ._figure import canvas, require
from .images import attribution, captions, filters, hierarchy, mistakes, reconstructions, samples
from .maps import confusion, embeddings
from .reports import mnist_cnn_picture, report_picture
from .scores import calibration, roc
from .sequences import gates, tree
from .training import doctor, learning_curve, updates

__all__ = [
    "attribution",
    "calibration",
    "canvas",
    "captions",
    "confusion",
    "doctor",
    "embeddings",
    "filters",
    "gates",
    "hierarchy",
    "learning_curve",
    "mistakes",
    "mnist_cnn_picture",
    "reconstructions",
    "report_picture",
    "require",
    "roc",
    "samples",
    "tree",
    "updates",
]
