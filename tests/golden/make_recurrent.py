"""Makes recurrent.npz, what PyTorch computes on small recurrent layers: ``python tests/golden/make_recurrent.py`` (PyTorch 2)."""

from pathlib import Path

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
arrays = {k: v.detach().numpy() if isinstance(v, torch.Tensor) else v for k, v in arrays.items()}
np.savez_compressed(Path(__file__).with_name("recurrent.npz"), **arrays)
