"""
A convolutional network and what it looks at
============================================

Two epochs on the digits that come with fastdl; then the filters of its first layer, and what its decisions rest on.
"""

import matplotlib.pyplot as plt

from fastdl import data, plot
from fastdl.diagnostics import grad_cam, integrated_gradients
from fastdl.models import CNN

digits = data.load("mnist-embedded")
model = CNN(width=8, dropout=0.1, seed=0).fit(digits.x_train[:2500], digits.y_train[:2500], epochs=2, batch_size=32, lr=3e-3)
print(f"{model.score(digits.x_test[:500], digits.y_test[:500]):.1%} of 500 digits that it never saw")

# %%
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained")
images = digits.x_test[:4]
for ax, image, shares in zip(axes[0], images, integrated_gradients(model, images)):
    plot.attribution(image, shares, ax)
for ax, image, places in zip(axes[1], images, grad_cam(model, images)):
    plot.attribution(image, places, ax)
figure.suptitle("for (red) and against (blue): pixel by pixel, and by the last convolution")

# %%
figure, ax = plt.subplots(figsize=(4, 3), layout="constrained")
plot.filters(model.get_weights()["layers.0.w"], ax)
