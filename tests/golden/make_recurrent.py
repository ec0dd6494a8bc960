"""Makes recurrent.npz, what PyTorch and Keras compute on small recurrent layers, gradients among it.

    KERAS_BACKEND=torch python tests/golden/make_recurrent.py     (needs torch and keras)
"""

import os
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import keras
import numpy as np
import torch

N, T, I, H = 3, 5, 4, 6
LENGTHS = [5, 2, 4]
arrays = {"lengths": np.array(LENGTHS)}
torch.manual_seed(7)
for name, kind in {"LSTM": torch.nn.LSTM, "GRU": torch.nn.GRU, "RNN": torch.nn.RNN}.items():
    layer = kind(I, H, num_layers=2, bidirectional=True, batch_first=True)
    x = torch.randn(N, T, I, requires_grad=True)
    pack = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    packed, last = layer(pack)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=T)
    dy = torch.randn_like(y)
    (y * dy).sum().backward()
    arrays |= {f"{name}/x": x, f"{name}/y": y, f"{name}/dy": dy, f"{name}/dx": x.grad}
    arrays[f"{name}/h"] = last[0] if name == "LSTM" else last
    for key, value in layer.named_parameters():
        arrays |= {f"{name}/state/{key}": value, f"{name}/grad/{key}": value.grad}

# Keras: a layer in both directions and one in one, with biases that are not those of a fresh layer.
rng = np.random.default_rng(7)
for name, kind in {"LSTM": keras.layers.LSTM, "GRU": keras.layers.GRU, "RNN": keras.layers.SimpleRNN}.items():
    keras.utils.set_random_seed(4)
    layers = [keras.layers.Bidirectional(kind(H, return_sequences=True)), kind(H, return_sequences=True)]
    model = keras.Sequential([keras.Input((T, I)), *layers])
    model.set_weights([w + 0.3 * rng.standard_normal(w.shape).astype(np.float32) for w in model.get_weights()])
    x = torch.tensor(rng.standard_normal((N, T, I)), dtype=torch.float32, requires_grad=True)
    y = model(x)
    dy = torch.tensor(rng.standard_normal(y.shape), dtype=torch.float32)
    (y * dy).sum().backward()
    name = f"keras-{name}"
    arrays |= {f"{name}/x": x, f"{name}/y": y, f"{name}/dy": dy, f"{name}/dx": x.grad}
    for i, weight in enumerate(model.weights):  # in the order of get_weights()
        arrays |= {f"{name}/weight/{i:02d}": weight.value, f"{name}/grad/{i:02d}": weight.value.grad}
arrays = {k: v.detach().numpy() if isinstance(v, torch.Tensor) else v for k, v in arrays.items()}
path = Path(__file__).with_name("recurrent.npz")
np.savez_compressed(path, **arrays)
print(path.name, path.stat().st_size, "bytes; torch", torch.__version__, "keras", keras.__version__)
