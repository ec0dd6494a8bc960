"""Malignant or benign: breast cancer from thirty measures of cell nuclei.

Task: 569 samples of Wisconsin, thirty numbers each; whether the growth is malignant. Network: five tanh networks of 16 units
whose mean logit is calibrated. Beside it a logistic regression.

Reference: 97.5 % (ten-fold cross validation) for a separating plane in three of the measures in Wolberg, Street & Mangasarian,
"Machine learning techniques to diagnose breast cancer from image-processed nuclear features of fine needle aspirates" (1994).
"""

from ._common import Report
from ._tabular import draw, need_scikit_learn, read, two_classes

EPOCHS = {"breast_cancer_wdbc": 40}


def run(config):
    """Train and judge, out of the folds; see `fastdl.recipes`."""
    config.needs_no_checkpoint("breast-cancer")
    need_scikit_learn("breast-cancer")
    table = read("breast_cancer_wdbc", "benign", config)
    malignant = 1 - table.y
    metrics, settings, model, test, p = two_classes(config, table, malignant, (16,), EPOCHS["breast_cancer_wdbc"])
    settings["data_set"] = "breast_cancer_wdbc"
    return Report(
        metrics, settings, model, test, ("benign", "malignant"), draw=lambda path: draw(path, p, malignant, "breast cancer")
    )
