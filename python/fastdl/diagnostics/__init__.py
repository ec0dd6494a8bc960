"""A doctor for networks: what ails the gradients and what helps, how deep a net is, what a decision rests on.

    print(examine(model, X, y))                    one batch through the network and back: a verdict with its remedy
    watch = Watch(); model.fit(X, y, on_step=[watch]); print(watch.report())       updates against weights, while training
    cap_depth(model), is_deep(model)               the longest path of credit assignment
    integrated_gradients(model, X), grad_cam(model, images), occlusion(model, images), most_exciting(model, X, "layers.0", 3)
    check_gradient(f, x, w)                        an operation of your own against central differences

Everything works for any model that has `module_` and any `Module`.
"""

from .attribution import (
    excite,
    grad_cam,
    gradient_times_input,
    integrated_gradients,
    most_exciting,
    occlusion,
    receptive_fields,
)
from .depth import cap_depth, is_deep
from .doctor import Finding, Layer, Report, examine
from .gradients import GradientCheck, check_gradient
from .watch import Watch

__all__ = [
    "Finding",
    "GradientCheck",
    "Layer",
    "Report",
    "Watch",
    "cap_depth",
    "check_gradient",
    "examine",
    "excite",
    "grad_cam",
    "gradient_times_input",
    "integrated_gradients",
    "is_deep",
    "most_exciting",
    "occlusion",
    "receptive_fields",
]
