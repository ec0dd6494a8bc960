"""
Learning from reward
====================

A policy gradient balances a pole: pushes that were followed by more reward than usual become more probable.
"""

import matplotlib.pyplot as plt
import numpy as np

from fastdl import nn
from fastdl.recipes import cartpole

net = nn.Sequential(nn.Dense(32, "tanh"), nn.Dense(2, init=0.0)).build((4,), seed=0)
means = cartpole.learn(net, updates=25, seed=0, show=None)

figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
ax.plot(np.arange(1, len(means) + 1) * cartpole.EPISODES, means)
ax.set_xlabel("episodes")
ax.set_ylabel("pushes until the pole falls")
