"""
One cut, many cuts
==================

A perceptron cuts the plane once; a layer of hidden units cuts it many times, and the next layer combines the pieces.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastdl.models import MLP, Perceptron

rng = np.random.default_rng(0)
angle, upper = rng.uniform(0, np.pi, 400), np.arange(400) % 2
X = np.stack([np.cos(angle) + upper, np.sin(angle) * (1 - 2 * upper) + 0.5 * upper], 1) + 0.12 * rng.normal(size=(400, 2))

models = {
    "perceptron": Perceptron(average=True, seed=0).fit(X, upper, epochs=20),
    "2 hidden units": MLP((2,), "tanh", seed=0).fit(X, upper, epochs=100, lr=0.03),
    "32 hidden units": MLP((32,), "tanh", seed=0).fit(X, upper, epochs=100, lr=0.03),
}

# %%
# Where each model changes its mind:

across, up = np.meshgrid(np.linspace(-1.5, 2.5, 160), np.linspace(-1, 1.5, 100))
plane = np.stack([across.ravel(), up.ravel()], 1)
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
for ax, (name, model) in zip(axes, models.items()):
    ax.contourf(across, up, model.predict(plane).reshape(across.shape), levels=1, alpha=0.25)
    ax.scatter(*X.T, c=upper, s=6)
    ax.set_title(f"{name}: {model.score(X, upper):.1%}")
    ax.set_axis_off()
