"""
What a Boltzmann machine sees and dreams
========================================

It learns without labels which pixels go together. Its weights are strokes; left alone it draws digits of its own.
"""

import matplotlib.pyplot as plt

from fastdl import data, plot
from fastdl.models import RBM

digits = data.load("mnist-embedded")
rows = (digits.x_train[:3000] > 127).reshape(3000, 784).astype("float32")
machine = RBM(hidden=100, seed=0).fit(rows, epochs=15, batch_size=50)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
plot.filters(machine.get_weights()["w"][:, :49], left, columns=7)
left.set_title("weights of 49 hidden units")
dreams = machine.sample(49, steps=300, start=rows[:49], means=True).reshape(49, 28, 28)
plot.samples(dreams, right)
right.set_title("after 300 steps of Gibbs sampling")
