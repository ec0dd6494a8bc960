"""How a training went: learning curves, the gradient doctor's chart, updates against weights."""

import numpy as np

from ._figure import axes_of


def learning_curve(history, ax=None):
    """Loss and, where there was validation, its loss and accuracy, over the epochs.

    Parameters
    ----------
    history : dict
        As from `fastdl.train.fit`.
    ax : matplotlib Axes, optional
        Where to draw; a new figure if left out.

    Returns
    -------
    matplotlib Axes
    """
    if not hasattr(history, "get"):
        raise TypeError(f"history: expected a dict, such as a model's history_; got {type(history).__name__}")
    epochs = history.get("epoch", [])
    if not epochs:
        raise ValueError("history: expected one epoch or more; got none")
    ax = axes_of(ax)
    from matplotlib.ticker import MaxNLocator

    curves = {"loss": "training loss", "errors": "mistakes while training", "error": "error of reconstructions"}
    curves["val_loss"] = "validation loss"
    for name, label in curves.items():
        if name in history:
            # a run that was interrupted has an epoch without validation
            ax.plot(epochs[: len(history[name])], history[name], label=label)
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 2.5, 5, 10]))
    if ax.dataLim.ymin >= 0:  # a Wasserstein loss may be below
        ax.set_ylim(bottom=0)
    handles = list(ax.get_lines())
    accuracy = history.get("val_accuracy")
    if accuracy:
        right = ax.twinx()
        handles += right.plot(epochs[: len(accuracy)], accuracy, color="tab:green", label="validation accuracy")
        right.set_ylim(np.nanmin([0.9, *accuracy]), 1.0)
        right.set_ylabel("accuracy")
    ax.set_ylabel("loss")
    ax.legend(handles=handles, loc="center right", frameon=False)
    return ax


def doctor(report, ax=None):
    """The chart of an examination: norms of outputs, gradients and weights by layer, the verdict as title.

    Parameters
    ----------
    report : fastdl.diagnostics.Report
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    if not hasattr(report, "verdict"):
        raise TypeError(f"report: expected one as from diagnostics.examine; got {type(report).__name__}")
    if not report.layers:
        raise ValueError("report: expected one with layers, as from diagnostics.examine; got none")
    ax = axes_of(ax)
    places = np.arange(len(report.layers))
    for values, label, style in (
        ([r.output for r in report.layers], "outputs (root mean square)", "o-"),
        ([r.gradient for r in report.layers], "gradient by outputs (norm)", "s-"),
        ([r.weight_gradient for r in report.layers], "gradient by weights (norm)", "^:"),
    ):
        values = np.array(values, float)
        shown = np.isfinite(values) & (values > 0)
        if shown.any():
            ax.plot(places[shown], values[shown], style, label=label, markersize=4 if len(places) < 60 else 0)
    ax.set_yscale("log")
    ax.set_xlabel("layer, from the input to the output")
    if len(places) <= 16:
        ax.set_xticks(places, [r.name.removeprefix("layers.") or r.kind for r in report.layers])
    ax.set_title(f"verdict: {report.verdict}")
    ax.legend(frameon=False)
    return ax


def updates(watch, ax=None):
    """Updates against weights while training, one line a parameter; the grey band is what is usual.

    Parameters
    ----------
    watch : fastdl.diagnostics.Watch
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
    """
    if not hasattr(watch, "ratios"):
        raise TypeError(f"watch: expected a fastdl.diagnostics.Watch; got {type(watch).__name__}")
    if not watch.steps:
        raise ValueError("watch: expected one measurement or more; got none (a step callback: on_step=[watch])")
    ax = axes_of(ax)
    ax.axhspan(1e-4, 1e-2, color="0.92", zorder=0)
    for name, values in watch.ratios.items():
        ax.plot(watch.steps, values, label=name)
    ax.set_yscale("log")
    ax.set_xlabel("update")
    ax.set_ylabel("update / weights (norms)")
    if len(watch.ratios) <= 10:
        ax.legend(frameon=False, fontsize=8)
    return ax
