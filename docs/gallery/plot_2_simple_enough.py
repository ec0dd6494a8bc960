"""
When a simple model is enough
=============================

A chessboard of growing fineness. The straight line fails at once, the kernel machine follows as long as a field holds enough
points, and a deep network is asked last.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from fastdl.models import MLP

rng, fields = np.random.default_rng(0), (1, 2, 4, 6)
scores = {"logistic regression": [], "RBF SVM": [], "3 hidden layers": []}
for n in fields:
    X = rng.uniform(-1, 1, (3000, 2))
    y = (np.floor((X + 1) * n / 2).sum(1) % 2).astype(int) if n > 1 else (X.sum(1) > 0).astype(int)
    kept, held = slice(0, 2000), slice(2000, 3000)
    scores["logistic regression"].append(LogisticRegression().fit(X[kept], y[kept]).score(X[held], y[held]))
    scores["RBF SVM"].append(SVC(C=100.0, gamma=10.0).fit(X[kept], y[kept]).score(X[held], y[held]))
    net = MLP((64, 64, 64), seed=0).fit(X[kept], y[kept], epochs=30, lr=0.005)
    scores["3 hidden layers"].append(net.score(X[held], y[held]))

# %%
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
for name, values in scores.items():
    ax.plot(fields, values, "o-", label=name)
ax.set_xlabel("fields a side")
ax.set_ylabel("accuracy on points not seen")
ax.legend(frameon=False)
