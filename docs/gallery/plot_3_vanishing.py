"""
A doctor for gradients
======================

The same batch through twenty sigmoid layers and through twenty residual blocks, and back.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastdl import nn
from fastdl.diagnostics import examine

rng = np.random.default_rng(0)
y = np.arange(128) % 4
x = (rng.normal(size=(128, 20)) + 1.5 * rng.normal(size=(4, 20))[y]).astype(np.float32)


def block():
    return nn.Residual(nn.Sequential(nn.Dense(32, "relu"), nn.Dense(32, init="zeros")))


chain = nn.Sequential(*(nn.Dense(32, "sigmoid") for _ in range(20)), nn.Dense(4)).build((20,), seed=1)
blocks = nn.Sequential(nn.Dense(32), *(block() for _ in range(20)), nn.Dense(4)).build((20,), seed=1)

# %%
# In the chain the gradient loses a factor at every layer; what reaches the first is nothing.

figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for ax, net in zip(axes, (chain, blocks)):
    examine(net, x, y).plot(ax)

# %%
print(examine(chain, x, y).findings[0])
