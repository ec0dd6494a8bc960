"""Training steps in JAX: one compiled function, its buffers given back to it.

An update is a pair of functions: ``start(weights)`` gives its state, ``change(weights, state, gradients)`` what both become.
"""


def sgd(lr):
    """w -= lr g."""
    import jax

    def change(weights, state, g):
        return jax.tree.map(lambda w, d: w - lr * d, weights, g), state

    return lambda weights: (), change


def adam(lr):
    """Adam with its usual coefficients."""
    import jax
    import jax.numpy as jnp

    def start(weights):
        return [jax.tree.map(jnp.zeros_like, weights) for _ in "mv"] + [jnp.float32(1.0)]

    def change(weights, state, g):
        m, v, t = state
        m = jax.tree.map(lambda a, d: 0.9 * a + 0.1 * d, m, g)
        v = jax.tree.map(lambda a, d: 0.999 * a + 0.001 * d * d, v, g)
        rate = lr * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        weights = jax.tree.map(lambda w, a, b: w - rate * a / (jnp.sqrt(b) + 1e-8), weights, m, v)
        return weights, [m, v, t + 1.0]

    return start, change


def adagrad(lr):
    """v += g^2;  w -= lr g / sqrt(v)."""
    import jax
    import jax.numpy as jnp

    def change(weights, v, g):
        v = jax.tree.map(lambda a, d: a + d * d, v, g)
        return jax.tree.map(lambda w, d, a: w - lr * d / (jnp.sqrt(a) + 1e-10), weights, g, v), v

    return lambda weights: jax.tree.map(jnp.zeros_like, weights), change


def training_step(loss_of, weights, update):
    """``step(*data) -> loss``, of which ``loss_of(weights, *data)`` is the function; `weights` are arrays, in lists or dicts."""
    import jax
    import jax.numpy as jnp

    start, change = update

    def step(weights, state, *data):
        value, g = jax.value_and_grad(loss_of)(weights, *data)
        return *change(weights, state, g), value

    f = jax.jit(step, donate_argnums=(0, 1))
    weights = jax.tree.map(jnp.array, weights)
    held = [weights, start(weights)]

    def run(*data):
        *held[:], value = f(*held, *data)
        return value.block_until_ready()

    return run


def cross_entropy(logits, labels):
    """Of softmax; mean over the batch."""
    import jax
    import jax.numpy as jnp

    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()
