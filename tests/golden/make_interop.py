"""Makes interop.npz: weights and outputs of small networks in PyTorch and Keras.

    KERAS_BACKEND=torch python tests/golden/make_interop.py     (needs torch and keras)

Inputs are channels last, as fastdl takes them. Running statistics are not those of a fresh layer.
"""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import torch
from torch import nn

rng = np.random.default_rng(0)
arrays = {
    "images": rng.standard_normal((5, 12, 10, 3)).astype(np.float32),
    "rows": rng.standard_normal((5, 7)).astype(np.float32),
}


def of_torch(name, model, x):
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.1 * torch.randn_like(p))
        for key, b in model.named_buffers():
            if "running" in key:
                b.add_(torch.rand_like(b))
        arrays[f"{name}/out"] = model.eval()(torch.from_numpy(x)).numpy()
    for key, value in model.state_dict().items():
        arrays[f"{name}/{key}"] = value.numpy()


def block(c, f):
    return [nn.Conv2d(c, f, 3, padding=1, bias=False), nn.BatchNorm2d(f), nn.ReLU()]


first = np.ascontiguousarray(arrays["images"].transpose(0, 3, 1, 2))
of_torch(  # CNN("small", width=2)
    "torch-cnn",
    nn.Sequential(
        *block(3, 2), *block(2, 2), nn.MaxPool2d(2), nn.Dropout(0.25),
        *block(2, 4), *block(4, 4), nn.MaxPool2d(2), nn.Dropout(0.25),
        nn.Flatten(), nn.Linear(4 * 3 * 2, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4),
    ),
    first,
)  # fmt: skip
of_torch(  # groups, stride, transposed convolution, normalisation behind Flatten
    "torch-odd",
    nn.Sequential(
        nn.Conv2d(3, 6, (3, 5), stride=2, groups=3), nn.Tanh(), nn.ConvTranspose2d(6, 4, 3, stride=2, groups=2),
        nn.Flatten(), nn.BatchNorm1d(4 * 11 * 7), nn.Linear(4 * 11 * 7, 5), nn.LayerNorm(5), nn.Linear(5, 4),
    ),
    first,
)  # fmt: skip
of_torch("torch-mlp", nn.Sequential(nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)), arrays["rows"])


def of_keras(name, layers, x):
    keras.utils.set_random_seed(4)
    model = keras.Sequential([keras.Input(x.shape[1:]), *layers])
    model.set_weights([w + 0.3 * rng.random(w.shape).astype(np.float32) for w in model.get_weights()])
    arrays[f"{name}/out"] = np.asarray(model.predict(x, verbose=0))
    for i, w in enumerate(model.get_weights()):
        arrays[f"{name}/{i:02d}"] = w


L = keras.layers
of_keras(
    "keras-cnn",
    [
        L.Conv2D(4, 3, activation="relu"), L.BatchNormalization(epsilon=1e-5), L.MaxPooling2D(2),
        L.Conv2DTranspose(3, 3, strides=2, activation="tanh"), L.Flatten(), L.Dense(6, "relu"), L.Dropout(0.2), L.Dense(4),
    ],
    arrays["images"],
)  # fmt: skip
of_keras("keras-mlp", [L.Dense(6, "tanh"), L.Dense(5, "tanh"), L.Dense(3)], arrays["rows"])
of_keras("keras-text", [L.Conv1D(4, 3, activation="relu"), L.LayerNormalization(epsilon=1e-5), L.Flatten(), L.Dense(2)],
         arrays["images"][:, :, :, 0])  # fmt: skip
for name, kind in (("lstm", L.LSTM), ("gru", L.GRU), ("rnn", L.SimpleRNN)):
    steps = {"return_sequences": True}
    of_keras(f"keras-{name}", [L.Bidirectional(kind(5, **steps)), kind(4, **steps), L.Dense(2)], arrays["images"][:, :, :, 0])

path = Path(__file__).with_name("interop.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes; torch", torch.__version__, "keras", keras.__version__)
