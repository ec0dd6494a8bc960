"""Balance a pole on a cart by trial and reward: a policy gradient on a simulation that is built in.

Task: push a cart left or right, fifty times a second, so that the pole on it stays up; an episode ends when the pole leans 12
degrees, the cart leaves its track, or after 500 pushes. Network: 4-32-2, tanh; the probabilities of the two pushes. It learns by
REINFORCE: pushes that were followed by more reward than usual become more probable.

Reference: the task and its equations are those of Barto, Sutton & Anderson, "Neuronlike adaptive elements that can solve
difficult learning control problems" (1983); the rule is that of Williams, "Simple statistical gradient-following algorithms for
connectionist reinforcement learning" (1992). Beside it: pushes at random, and the best of as many linear rules as the network
had episodes: this pole needs no network, which is what a baseline is for.
"""

import numpy as np

from .. import get_num_threads, kernels, nn, ops, optim, random
from ..random import Stream
from ..tensor import Tensor, inference
from ._common import Report

EPOCHS = {"cartpole": 60}  # updates, each after EPISODES episodes
EPISODES, LONGEST, JUDGED = 16, 500, 200
GRAVITY, CART, POLE, HALF, FORCE, TAU = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
FAR, LEAN = 2.4, np.deg2rad(12.0)
SCALE = np.array([1.0, 1.0, 5.0, 1.0])  # of position, speed, angle, turning: about 1 while it stands


class CartPole:
    """Many carts at once.

    Parameters
    ----------
    carts : int
    stream : Stream
        Of where they begin.

    Attributes
    ----------
    state : float64 [carts,4]
        Position (m), speed, the pole's angle (rad) from upright, its turning.
    up : bool [carts]
        Whose pole still stands.
    """

    def __init__(self, carts, stream):
        self.state = random.uniform((carts, 4), -0.05, 0.05, *stream.take(4 * carts)).astype(np.float64)
        self.up = np.ones(carts, bool)

    def push(self, right):
        """One push of each cart that is up, to the right where `right`; the others stay where they fell."""
        x, v, angle, turn = self.state.T
        force = np.where(right, FORCE, -FORCE)
        sin, cos = np.sin(angle), np.cos(angle)
        push = (force + POLE * HALF * turn**2 * sin) / (CART + POLE)
        turning = (GRAVITY * sin - cos * push) / (HALF * (4.0 / 3.0 - POLE * cos**2 / (CART + POLE)))
        speeding = push - POLE * HALF * turning * cos / (CART + POLE)
        new = np.stack([x + TAU * v, v + TAU * speeding, angle + TAU * turn, turn + TAU * turning], 1)
        self.state = np.where(self.up[:, None], new, self.state)
        self.up &= (np.abs(self.state[:, 0]) <= FAR) & (np.abs(self.state[:, 2]) <= LEAN)


def play(policy, episodes, stream, keep=False):
    """How long each pole stays up; with `keep` also what was seen and done.

    Parameters
    ----------
    policy : callable
        ``policy(seen float32 [carts,4]) -> bool [carts]``, whether to push to the right.
    """
    carts, seen, done, alive = CartPole(episodes, stream), [], [], []
    lengths = np.zeros(episodes, np.int64)
    while carts.up.any() and lengths.max() < LONGEST:
        look = np.ascontiguousarray(carts.state * SCALE, np.float32)
        right = policy(look)
        if keep:
            seen.append(look), done.append(right), alive.append(carts.up.copy())
        lengths += carts.up
        carts.push(right)
    return (lengths, seen, done, alive) if keep else lengths


def sampled(net, stream):
    """The policy that draws each push by the network's probabilities."""

    def policy(seen):
        with inference():
            logits = net(Tensor(seen)).data
        p = kernels.softmax_forward(logits)[:, 1]
        return random.uniform((len(p),), 0.0, 1.0, *stream.take(len(p))) < p

    return policy


def surest(net):
    """The policy that takes the more probable push."""

    def policy(seen):
        with inference():
            logits = net(Tensor(seen)).data
        return logits[:, 1] > logits[:, 0]

    return policy


def learn(net, updates, seed, show):
    """REINFORCE with the batch's mean return at each time as the baseline; returns the mean lengths of every update."""
    optimizer, begin, draws = optim.Adam(net, lr=0.01), Stream(seed).split("begin"), Stream(seed).split("push")
    means = []
    for update in range(updates):
        lengths, seen, done, alive = play(sampled(net, draws), EPISODES, begin, keep=True)
        up = np.stack(alive).astype(np.float64)  # [T, episodes]; a reward of 1 for every push with the pole up
        returns = np.zeros_like(up)
        total = np.zeros(EPISODES)
        for t in range(len(up) - 1, -1, -1):
            total = up[t] * (1.0 + 0.99 * total)
            returns[t] = total
        usual = (returns * up).sum(1, keepdims=True) / np.maximum(up.sum(1, keepdims=True), 1)
        better = (returns - usual) * up
        better /= max(np.sqrt((better[up > 0] ** 2).mean()), 1e-8)
        kept = up > 0
        loss = ops.softmax_cross_entropy(
            net(Tensor(np.stack(seen)[kept])), np.stack(done)[kept].astype(np.int64), reduction="none"
        )
        optimizer.zero_grad()
        loss.backward(np.ascontiguousarray(better[kept] / kept.sum(), np.float32))
        optimizer.step()
        means.append(float(lengths.mean()))
        if show and (update + 1) % 20 == 0:
            show(f"{update + 1:5d} updates: poles stay up for {np.mean(means[-20:]):6.1f} pushes")
    return means


def linear_search(tries, seed):
    """The best of so many random linear rules, each tried for one episode."""
    stream, best = Stream(seed).split("rules"), (0, None)
    rules = random.normal((tries, 4), 0.0, 1.0, *stream.take(4 * tries))
    for rule in rules:
        length = int(play(lambda seen, rule=rule: seen @ rule > 0, 1, stream)[0])
        if length > best[0]:
            best = (length, rule)
            if length >= LONGEST:
                break
    return best[1]


class Policy:
    """What a report shows as its model: the network and how long its poles stayed up while it learned."""

    def __init__(self, module, means):
        self.module_, self.history_ = module, {"steps": means}

    def get_weights(self):
        """As of a model."""
        return self.module_.get_weights()

    def save(self, path):
        """The weights, with the recipe's name."""
        from .. import io

        io.save(path, self.get_weights(), {"recipe": "cartpole"})


def run(config):
    """Learn and judge; see `fastdl.recipes`."""
    config.needs_no_checkpoint("cartpole")
    config.needs_cpu("cartpole", "simulates its carts there, a few numbers at a time")
    updates = config.epochs or EPOCHS["cartpole"]
    net = nn.Sequential(nn.Dense(32, "tanh"), nn.Dense(2, init=0.0)).build((4,), seed=config.seed)
    means = learn(net, updates, config.seed, config.show)
    judge = Stream(config.seed).split("judge")
    draws = Stream(config.seed).split("random pushes")
    rule = linear_search(updates * EPISODES, config.seed)
    metrics = {
        "mean_steps": float(play(surest(net), JUDGED, judge).mean()),
        "random_steps": float(play(lambda s: random.uniform((len(s),), 0, 1, *draws.take(len(s))) < 0.5, JUDGED, judge).mean()),
        "linear_steps": float(play(lambda s: s @ rule > 0, JUDGED, judge).mean()),
        "episodes": updates * EPISODES,
    }
    settings = {"updates": updates, "episodes_an_update": EPISODES, "longest": LONGEST, "judged_episodes": JUDGED,
                "seed": config.seed, "threads": get_num_threads()}  # fmt: skip
    return Report(metrics, settings, Policy(net, means), (None, None), probabilistic=False, draw=lambda path: draw(path, means))


def draw(path, means):
    """How long poles stayed up while the network learned."""
    from .. import plot

    figure, ax = plot.require().subplots()
    ax.plot(np.arange(1, len(means) + 1) * EPISODES, means)
    ax.set_xlabel("episodes")
    ax.set_ylabel("pushes until the pole falls")
    figure.savefig(path, dpi=110)
    plot.require().close(figure)
