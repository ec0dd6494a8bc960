"""Sick or healthy: heart disease from thirteen findings, by a score to be trusted.

Task: 303 patients of the Cleveland clinic, age, sex, blood pressure, cholesterol, ...; whether a vessel is narrowed. Network:
five tanh networks of 8 units whose mean logit is calibrated; its threshold makes sensitivity plus specificity largest.
Beside it a logistic regression.

Reference: 77 % for logistic regression on these patients in Detrano et al., "International application of a new probability
algorithm for the diagnosis of coronary artery disease" (1989).
"""

from ._common import Report
from ._tabular import draw, need_scikit_learn, read, two_classes

EPOCHS = {"heart_disease": 40}


def run(config):
    """Train and judge, out of the folds; see `fastdl.recipes`."""
    config.needs_no_checkpoint("heart-disease")
    need_scikit_learn("heart-disease")
    table = read("heart_disease", "diameter narrowing", config)
    metrics, settings, model, test, p = two_classes(config, table, table.y, (8,), EPOCHS["heart_disease"])
    settings["data_set"] = "heart_disease"
    return Report(
        metrics, settings, model, test, ("healthy", "sick"), draw=lambda path: draw(path, p, table.y, "heart disease")
    )
