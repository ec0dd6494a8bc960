"""A training step of a recursive neural tensor network: 25 trees of 10 words, D = 25, gradients and AdaGrad.

Peers go from node to node, as every implementation of theirs does: NumPy with gradients by hand, PyTorch by autograd. JAX
compiles for fixed shapes: a scan over the nodes of a tree, mapped over the trees, which here have equally many.
"""

import numpy as np

from ..bench import Case, Row, agree
from . import compiled

WORDS, TREES, LEAVES, D, CLASSES = 1000, 25, 10, 25, 5


def _forest(seed=1):
    """Random binary trees, as nested pairs and as a `fastdl.data.Forest`."""
    from ..data import Forest, Tree

    rng = np.random.default_rng(seed)
    trees = []
    for _ in range(TREES):
        parts = [Tree(str(rng.integers(CLASSES)), str(rng.integers(WORDS))) for _ in range(LEAVES)]
        while len(parts) > 1:
            at = int(rng.integers(len(parts) - 1))
            parts[at : at + 2] = [Tree(str(rng.integers(CLASSES)), None, parts[at : at + 2])]
        trees.append(parts[0])
    return trees, Forest(trees, int, int)


def _weights(seed=2):
    rng = np.random.default_rng(seed)

    def make(*shape, scale):
        return (rng.standard_normal(shape) * scale).astype(np.float32)

    return {
        "table": make(WORDS, D, scale=0.2),
        "v": make(2 * D, 2 * D, D, scale=0.01),
        "w": make(2 * D, D, scale=0.1),
        "b": make(D, scale=0.1),
        "u": make(D, CLASSES, scale=0.2),
        "c": make(CLASSES, scale=0.1),
    }


def _fastdl(forest, weights):
    from .. import nn, ops, optim
    from ..module import Module

    class Net(Module):
        def __init__(self):
            self.table, self.compose = nn.Embedding(WORDS, D), nn.RNTN(D)
            self.classify = nn.Dense(CLASSES, inputs=D)

    net = Net().initialise(0)
    names = {"table.table": "table", "compose.v": "v", "compose.w": "w", "compose.b": "b", "classify.w": "u", "classify.b": "c"}
    net.set_weights({name: weights[names[name]] for name, _ in net.named_parameters()})
    optimizer = optim.AdaGrad(net, lr=0.01)
    index = np.arange(TREES)

    def step():
        batch = forest.batch(index)
        h = net.compose(ops.tanh(net.table(batch.words)), batch.children, batch.ends)
        loss = ops.softmax_cross_entropy(net.classify(h), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    return Case(step)


def _numpy(trees, weights):
    p = {k: a.copy() for k, a in weights.items()}
    g = {k: np.zeros_like(a) for k, a in p.items()}
    squares = {k: np.zeros_like(a) for k, a in p.items()}
    across = np.ascontiguousarray(p["v"].transpose(1, 0, 2))
    nodes = sum(len(tree.nodes()) for tree in trees)

    def forward(node):
        if node.children:
            left, right = forward(node.children[0]), forward(node.children[1])
            x = np.concatenate([left[0], right[0]])
            xv = (x @ p["v"].reshape(2 * D, -1)).reshape(2 * D, D)
            h, below = np.tanh(x @ xv + x @ p["w"] + p["b"]), (left, right)
        else:
            x, xv, below = None, None, int(node.word)
            h = np.tanh(p["table"][below])
        q = h @ p["u"] + p["c"]
        q = np.exp(q - q.max())
        q /= q.sum()
        q[int(node.label)] -= 1
        return h, x, xv, q / nodes, below

    def backward(state, dh):
        h, x, xv, dq, below = state
        g["u"] += np.outer(h, dq)
        g["c"] += dq
        dz = (dh + p["u"] @ dq) * (1 - h * h)
        if x is None:
            g["table"][below] += dz
            return
        g["b"] += dz
        g["w"] += np.outer(x, dz)
        g["v"] += np.outer(x, np.outer(x, dz)).reshape(g["v"].shape)
        # xv[j] = x v[:,j]; the other half of the derivative needs v[i] x
        dx = p["w"] @ dz + xv @ dz + (x @ across.reshape(2 * D, -1)).reshape(2 * D, D) @ dz
        backward(below[0], dx[:D])
        backward(below[1], dx[D:])

    def step():
        for a in g.values():
            a[...] = 0
        for tree in trees:
            backward(forward(tree), np.zeros(D, np.float32))
        for k, a in p.items():
            squares[k] += g[k] * g[k]
            a -= 0.01 * g[k] / (np.sqrt(squares[k]) + 1e-10)
        across[...] = p["v"].transpose(1, 0, 2)

    return Case(step)


def _torch(trees, weights):
    import torch

    p = {k: torch.from_numpy(a.copy()).requires_grad_() for k, a in weights.items()}
    optimizer = torch.optim.Adagrad(p.values(), lr=0.01)

    def forward(node, states, labels):
        if node.children:
            x = torch.cat([forward(child, states, labels) for child in node.children])
            h = torch.tanh(x @ (x @ p["v"].view(2 * D, -1)).view(2 * D, D) + x @ p["w"] + p["b"])
        else:
            h = torch.tanh(p["table"][int(node.word)])
        states.append(h)
        labels.append(int(node.label))
        return h

    def step():
        states, labels = [], []
        for tree in trees:
            forward(tree, states, labels)
        loss = torch.nn.functional.cross_entropy(torch.stack(states) @ p["u"] + p["c"], torch.tensor(labels))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return Case(step)


def _places(tree):
    """(words of the leaves, places of each inner node's children, labels); leaves come first, children before parents."""
    leaves, inner, children = [], [], []

    def visit(node):
        if not node.children:
            leaves.append(node)
            return len(leaves) - 1
        children.append([visit(child) for child in node.children])
        inner.append(node)
        return LEAVES + len(inner) - 1

    visit(tree)
    return [int(leaf.word) for leaf in leaves], children, [int(node.label) for node in leaves + inner]


def _jax(trees, weights, ours):
    import jax
    import jax.numpy as jnp

    words, children, labels = (np.array(a) for a in zip(*map(_places, trees), strict=True))

    def loss_of(p, words, children, labels):
        def node(h, at):
            place, pair = at
            x = h[pair].reshape(2 * D)
            y = x @ (x @ p["v"].reshape(2 * D, -1)).reshape(2 * D, D) + x @ p["w"] + p["b"]
            return h.at[place].set(jnp.tanh(y)), None

        def states(words, children):
            h = jnp.zeros((2 * LEAVES - 1, D)).at[:LEAVES].set(jnp.tanh(p["table"][words]))
            return jax.lax.scan(node, h, (jnp.arange(LEAVES, 2 * LEAVES - 1), children))[0]

        h = jax.vmap(states)(words, children).reshape(-1, D)
        return compiled.cross_entropy(h @ p["u"] + p["c"], labels.reshape(-1))

    train, index = compiled.training_step(loss_of, weights, compiled.adagrad(0.01)), np.arange(TREES)

    def step():
        return train(words[index], children[index], labels[index])

    def check():  # both have taken equally many steps
        agree([float(step()) for _ in range(5)], [ours().item() for _ in range(5)], 1e-4)

    return Case(step, check=check)


def _setup(peers):
    (trees, forest), weights = _forest(), _weights()
    cases = {"fastdl": _fastdl(forest, weights)}
    if "torch" in peers:
        cases["torch"] = _torch(trees, weights)
    if "numpy" in peers:
        cases["numpy"] = _numpy(trees, weights)
    if "jax" in peers:
        cases["jax"] = _jax(trees, weights, cases["fastdl"].call)
    return cases


def rows():
    """Rows of this area."""
    inner = TREES * (LEAVES - 1)
    flops = 3 * 2.0 * inner * (D * (2 * D + 1) + 2 * D) * D  # of the folded products, forward and twice back
    return [Row("rntn", f"rntn step D{D} {TREES}x{LEAVES} words", _setup, flops, 0.0, {"torch": 12.0, "numpy": 7.0})]
