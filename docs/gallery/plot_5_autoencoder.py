"""
Digits through a narrow code
============================

An autoencoder squeezes 784 pixels through 16 numbers and restores them; beside it as many principal components.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastdl import data
from fastdl.models import Autoencoder

digits = data.load("mnist-embedded")
rows, test = digits.x_train[:3000].reshape(3000, 784), digits.x_test[:200].reshape(200, 784)
model = Autoencoder((128,), code=16, seed=0).fit(rows, epochs=12, batch_size=50, lr=0.002)

x, t = rows / 255.0, test / 255.0
mean = x.mean(0)
components = np.linalg.svd(x - mean, full_matrices=False)[2][:16]
linear = (t - mean) @ components.T @ components + mean
restored = model.reconstruct(test)

# %%
figure, axes = plt.subplots(3, 8, figsize=(8, 3.3), layout="constrained")
for row, (name, pictures) in enumerate({"digits": t, "autoencoder": restored, "16 components": linear}.items()):
    error = np.square(pictures - t).sum(1).mean()
    axes[row, 0].set_title(f"{name}, squared error {error:.1f}" if row else name, loc="left", fontsize=9)
    for ax, picture in zip(axes[row], pictures):
        ax.imshow(picture.reshape(28, 28), cmap="gray_r", vmin=0, vmax=1)
        ax.set_axis_off()
