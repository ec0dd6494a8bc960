"""Networks as scikit-learn estimators; they need the extra ``sklearn``.

    make_pipeline(StandardScaler(), MLPClassifier((64,), random_state=0)).fit(X, y)
    GridSearchCV(CNNClassifier(image_shape=(8, 8)), {"width": [8, 16]}, n_jobs=2).fit(X, y)

Parameters carry the names of scikit-learn's own MLPClassifier. Images are rows of X viewed through `image_shape`. All
estimators pass scikit-learn's `check_estimator`; what they predict is float64 and does not depend on the batch.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastdl.sklearn: expected scikit-learn to be installed (pip install 'fastdl-nn[sklearn]'); got none"
    ) from error

from ._boltzmann import RBM, DBNClassifier
from ._networks import CNNClassifier, CNNRegressor, MLPClassifier, MLPRegressor
from ._sequences import RNNClassifier, RNNRegressor
from ._unsupervised import Autoencoder

__all__ = [
    "RBM",
    "Autoencoder",
    "CNNClassifier",
    "CNNRegressor",
    "DBNClassifier",
    "MLPClassifier",
    "MLPRegressor",
    "RNNClassifier",
    "RNNRegressor",
]
