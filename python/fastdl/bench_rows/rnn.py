"""Recurrent layers: whole sequences forward and with their gradients, single steps, a batch that is half padding, CTC."""

import numpy as np

from .. import kernels, nn, ops, optim, pooled
from ..bench import Case, Row, agree
from ..tensor import Tensor
from . import compiled

GATES = {"lstm": 4, "gru": 3, "rnn": 1}
SHAPES = ((50, 32, 128, 256), (100, 64, 65, 128), (28, 128, 28, 128), (200, 1, 64, 64))  # T N I H
CHARS = (65, 128, 2, 50, 50)  # V H layers T N
# How many times faster than PyTorch, by cell and shape, forward with gradients (forward alone is not set a goal of its own).
GOALS = {
    "lstm": (1.1, 1.6, 1.6, 2.0),
    "gru": (1.5, 1.5, 1.5, 15.0),
    "rnn": (1.5, 1.5, 1.5, 12.0),
}


def _array(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _weights(cell, i, h):
    g = GATES[cell] * h
    w = [_array(1, i, g) * np.float32(i**-0.5), _array(2, h, g) * np.float32(h**-0.5), _array(3, g)]
    return [*w, _array(4, h)] if cell == "gru" else w


def _flops(cell, t, n, i, h, backward):
    return 2.0 * t * n * (i + h) * GATES[cell] * h * (3 if backward else 1)


def _torch_layer(torch, cell, i, h):
    return {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}[cell](i, h, batch_first=True)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


def numpy_lstm(x, w, u, b):
    """Forward pass by hand: one product for all inputs, then a step at a time."""
    n, t, i = x.shape
    z = (x.reshape(-1, i) @ w).reshape(n, t, -1)
    hidden = u.shape[0]
    h, c = np.zeros((n, hidden), np.float32), np.zeros((n, hidden), np.float32)
    y = np.empty((n, t, hidden), np.float32)
    for s in range(t):
        g = z[:, s] + h @ u
        g += b
        i_, f, o = _sigmoid(g[:, :hidden]), _sigmoid(g[:, hidden : 2 * hidden]), _sigmoid(g[:, 3 * hidden :])
        c = f * c + i_ * np.tanh(g[:, 2 * hidden : 3 * hidden])
        h = o * np.tanh(c)
        y[:, s] = h
    return y


def _jax_cell(cell):
    """``step(state, z, u, *bn) -> (state, output)`` in JAX, z being the input's share; the state is h, of the LSTM (h, c)."""
    import jax
    import jax.numpy as jnp

    sigmoid = jax.nn.sigmoid

    def lstm(state, z, u):
        h, c = state
        i, f, g, o = jnp.split(z + h @ u, 4, -1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        h = sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(h, z, u, bn):
        (zr, zk, zn), (sr, sk, sn) = jnp.split(z, 3, -1), jnp.split(h @ u, 3, -1)
        k, n = sigmoid(zk + sk), jnp.tanh(zn + sigmoid(zr + sr) * (sn + bn))
        h = (1 - k) * n + k * h
        return h, h

    def rnn(h, z, u):
        h = jnp.tanh(z + h @ u)
        return h, h

    return {"lstm": lstm, "gru": gru, "rnn": rnn}[cell]


def _jax_layer(cell):
    """``layer(x, w, u, b, *bn) -> y`` in JAX: one product for all inputs, then a scan over the steps."""
    import jax
    import jax.numpy as jnp

    step = _jax_cell(cell)

    def layer(x, w, u, b, *bn):
        h = jnp.zeros((x.shape[0], u.shape[0]))
        start = (h, h) if cell == "lstm" else h
        _, y = jax.lax.scan(lambda state, z: step(state, z, u, *bn), start, x.swapaxes(0, 1) @ w + b)
        return y.swapaxes(0, 1)

    return layer


def _jax_sequence(cell, backward, arrays, ours):
    """The layer, compiled, or the sum of its outputs with the gradients of all `arrays`; `ours` gives what it has to be."""
    import jax

    layer = _jax_layer(cell)
    gradients = jax.value_and_grad(lambda *a: layer(*a).sum(), tuple(range(len(arrays))))
    call = jax.jit(gradients if backward else layer)
    args = [jax.numpy.asarray(a) for a in arrays]

    def step():
        return jax.block_until_ready(call(*args))

    return Case(step, check=lambda: agree(jax.tree.leaves(step()), ours()))


def _sequence(cell, shape, backward):
    t, n, i, h = shape

    def setup(peers):
        x, weights = _array(0, n, t, i), _weights(cell, i, h)
        parameters, tx = [Tensor(w, True) for w in weights], Tensor(x, True)
        op = getattr(ops, cell)

        def step():
            with pooled():
                y, *_ = op(tx, *parameters)
                if backward:
                    for p in (tx, *parameters):
                        p.grad = None
                    total = y.sum()
                    total.backward()
                    return total

        forward = getattr(kernels, f"{cell}_forward")
        cases = {"fastdl": Case(step if backward else lambda: forward(x, *weights))}
        if "torch" in peers:
            import torch

            layer, ti = _torch_layer(torch, cell, i, h), torch.from_numpy(x.copy()).requires_grad_(backward)

            def torch_step():
                if backward:
                    layer.zero_grad()
                    ti.grad = None
                    layer(ti)[0].sum().backward()
                else:
                    with torch.no_grad():
                        layer(ti)

            cases["torch"] = Case(torch_step)
        if "numpy" in peers and cell == "lstm" and not backward:
            cases["numpy"] = Case(numpy_lstm, (x, *weights))
        if "jax" in peers:

            def ours():
                if backward:
                    return [step().item(), *(p.grad for p in (tx, *parameters))]
                return [forward(x, *weights)[0]]

            cases["jax"] = _jax_sequence(cell, backward, (x, *weights), ours)
        return cases

    return setup


def _cell(n, h):
    def setup(peers):
        x, state, memory, weights = _array(0, n, h), _array(5, n, h), _array(6, n, h), _weights("lstm", h, h)
        out = (np.empty_like(x), np.empty_like(x), np.empty((n, 4 * h), np.float32))
        cases = {"fastdl": Case(lambda: kernels.lstm_cell_forward(x, state, memory, *weights, *out))}
        if "torch" in peers:
            import torch

            layer, args = torch.nn.LSTMCell(h, h), [torch.from_numpy(a) for a in (x, state, memory)]

            def torch_step():
                with torch.no_grad():
                    layer(args[0], (args[1], args[2]))

            cases["torch"] = Case(torch_step)
        if "numpy" in peers:
            w, u, b = weights

            def numpy_step():
                g = x @ w
                g += state @ u
                g += b
                gates = _sigmoid(g)
                c = gates[:, h : 2 * h] * memory + gates[:, :h] * np.tanh(g[:, 2 * h : 3 * h])
                return gates[:, 3 * h :] * np.tanh(c)

            cases["numpy"] = Case(numpy_step)
        if "jax" in peers:
            import jax

            cell = _jax_cell("lstm")
            call = jax.jit(lambda x, h, c, w, u, b: cell((h, c), x @ w + b, u)[0])
            args = [jax.numpy.asarray(a) for a in (x, state, memory, *weights)]

            def jax_step():
                return jax.block_until_ready(call(*args))

            cases["jax"] = Case(jax_step, check=lambda: agree(jax_step(), out[:2]))
        return cases

    return setup


def _padded(t, n, i, h):
    """Half of all steps are padding: beside the same batch without lengths, and in PyTorch's packed form."""

    def setup(peers):
        x, weights = _array(0, n, t, i), _weights("lstm", i, h)
        lengths = np.linspace(1, t, n).astype(np.int64)
        cases = {
            "fastdl": Case(lambda: kernels.lstm_forward(x, *weights, lengths=lengths)),
            "whole batch": Case(lambda: kernels.lstm_forward(x, *weights)),
        }
        if "torch" in peers:
            import torch

            layer, ti, tl = _torch_layer(torch, "lstm", i, h), torch.from_numpy(x), torch.from_numpy(lengths)

            def torch_step():
                with torch.no_grad():
                    pack = torch.nn.utils.rnn.pack_padded_sequence(ti, tl, batch_first=True, enforce_sorted=False)
                    torch.nn.utils.rnn.pad_packed_sequence(layer(pack)[0], batch_first=True, total_length=t)

            cases["torch"] = Case(torch_step)
        return cases

    return setup


def _characters_flops():
    v, h, layers, t, n = CHARS
    return layers * _flops("lstm", t, n, h, h, True) + 6.0 * t * n * h * v


def _jax_characters(net, index, ours):
    """The same step in JAX, from the network's weights; checked by the losses of the next steps, as both take equally many."""
    import jax.numpy as jnp

    layer, n = _jax_layer("lstm"), len(net.layers[1].w)
    weights = {name: p.data for name, p in net.named_parameters()}

    def loss_of(weights, text, labels):
        y = weights["layers.0.table"][text]
        for i in range(n):
            y = layer(y, *(weights[f"layers.1.{name}.{i}"] for name in "wub"))
        logits = y @ weights["layers.2.w"] + weights["layers.2.b"]
        return compiled.cross_entropy(logits.reshape(-1, logits.shape[-1]), labels.reshape(-1))

    step = compiled.training_step(loss_of, weights, compiled.adam(1e-3))

    data = tuple(jnp.asarray(a) for a in index)

    def check():
        agree([float(step(*data)) for _ in range(5)], [ours().item() for _ in range(5)], 1e-4)

    return Case(step, data, check=check)


def _characters(peers):
    """A training step of a language model: embedding, layers, head, loss, Adam."""
    v, h, layers, t, n = CHARS
    index = np.random.default_rng(0).integers(0, v, (2, n, t))
    net = nn.Sequential(nn.Embedding(v, h), nn.LSTM(h, layers), nn.Dense(v))
    net.build((t,), 0, np.int64).train()
    update = optim.Adam(net, lr=1e-3)

    def step():
        with pooled():
            loss = ops.softmax_cross_entropy(ops.reshape(net(index[0]), (n * t, v)), index[1].reshape(-1))
            update.zero_grad()
            loss.backward()
            update.step()
            return loss

    cases = {"fastdl": Case(step)}
    if "jax" in peers:
        cases["jax"] = _jax_characters(net, index, step)
    if "torch" in peers:
        import torch

        table, head = torch.nn.Embedding(v, h), torch.nn.Linear(h, v)
        layer, (ti, tl) = torch.nn.LSTM(h, h, layers, batch_first=True), torch.from_numpy(index)
        theirs = torch.optim.Adam([*table.parameters(), *layer.parameters(), *head.parameters()], lr=1e-3)

        def torch_step():
            theirs.zero_grad()
            out = head(layer(table(ti))[0]).reshape(n * t, v)
            torch.nn.functional.cross_entropy(out, tl.reshape(-1)).backward()
            theirs.step()

        cases["torch"] = Case(torch_step)
    return cases


def _ctc(t, n, c, s):
    """Loss and gradient of logits; both begin with log softmax. Lengths differ, as those of spoken sentences do."""

    def setup(peers):
        x, rng = _array(0, n, t, c), np.random.default_rng(1)
        labels = rng.integers(1, c, (n, s))
        lengths, label_lengths = np.linspace(t // 2, t, n).astype(np.int64), np.linspace(s // 2, s, n).astype(np.int64)
        tx = Tensor(x, True)

        def step():
            with pooled():
                tx.grad = None
                ops.ctc_loss(tx, labels, lengths, label_lengths, reduction="sum").backward()

        cases = {"fastdl": Case(step)}
        if "torch" in peers:
            import torch

            ti = torch.from_numpy(x.copy()).requires_grad_()
            rest = [torch.from_numpy(a) for a in (labels, lengths, label_lengths)]

            def torch_step():
                ti.grad = None
                logp = ti.transpose(0, 1).log_softmax(-1)
                torch.nn.functional.ctc_loss(logp, *rest, reduction="sum").backward()

            cases["torch"] = Case(torch_step)
        return cases

    return setup


def rows():
    """The rows of this area."""
    result = []
    for cell, goals in GOALS.items():
        for shape, goal in zip(SHAPES, goals, strict=True):
            t, n, i, h = shape
            for backward in (False, True):
                name = f"{cell} T{t} N{n} I{i} H{h} {'fwd+bwd' if backward else 'fwd'}"
                wanted = {"torch": goal} if backward or cell == "lstm" else {}
                result.append(
                    Row("rnn", name, _sequence(cell, shape, backward), _flops(cell, *shape, backward), goals=wanted)
                )
    for n, h, goals in ((1, 128, {"torch": 6.0, "numpy": 2.0}), (32, 256, {"torch": 1.1})):
        result.append(Row("rnn", f"lstm_cell N{n} H{h}", _cell(n, h), _flops("lstm", 1, n, h, h, False), goals=goals))
    t, n, i, h = 50, 32, 128, 256
    name, goals = f"lstm half padded T{t} N{n} I{i} H{h} fwd", {"torch": 1.1, "whole batch": 1 / 0.6}
    result.append(Row("rnn", name, _padded(t, n, i, h), goals=goals))
    v, h, layers, t, n = CHARS
    name = f"char-LSTM V{v} H{h} L{layers} T{t} B{n} Adam"
    result.append(Row("rnn", name, _characters, _characters_flops(), goals={"torch": 1.6}))
    for t, n, c, labels in ((150, 32, 29, 30), (50, 1, 11, 5)):
        result.append(Row("rnn", f"ctc T{t} N{n} C{c} S{labels} fwd+bwd", _ctc(t, n, c, labels)))
    return result
