"""Training steps in plain NumPy, as one writes them by hand with some care: in-place updates, no work twice."""

import numpy as np


class Adam:
    """Adam in place, with temporaries made once."""

    def __init__(self, weights, lr=1e-3):
        self.weights, self.lr, self.t = weights, lr, 0
        self.m, self.v = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
        self.a, self.b = [np.empty_like(w) for w in weights], [np.empty_like(w) for w in weights]

    def step(self, gradients):
        """One update."""
        self.t += 1
        rate = np.float32(self.lr * (1 - 0.999**self.t) ** 0.5 / (1 - 0.9**self.t))
        for w, g, m, v, a, b in zip(self.weights, gradients, self.m, self.v, self.a, self.b, strict=True):
            m *= np.float32(0.9)
            np.multiply(g, np.float32(0.1), a)
            m += a
            v *= np.float32(0.999)
            np.multiply(g, g, a)
            a *= np.float32(0.001)
            v += a
            np.sqrt(v, a)
            a += np.float32(1e-8)
            np.multiply(m, rate, b)
            b /= a
            w -= b


class SGD:
    """w -= lr g."""

    def __init__(self, weights, lr=1e-2):
        self.weights, self.lr = weights, np.float32(lr)

    def step(self, gradients):
        """One update."""
        for w, g in zip(self.weights, gradients, strict=True):
            g *= self.lr
            w -= g


def softmax_cross_entropy(z, labels):
    """(loss, gradient for the logits), mean over the batch."""
    each = np.arange(len(z))
    p = np.exp(z - z.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[each, labels]).mean()
    p[each, labels] -= 1.0
    p /= len(z)
    return loss, p


def binary_cross_entropy(z, t):
    """(loss, gradient) of logits."""
    loss = (np.maximum(z, 0) - z * t + np.log1p(np.exp(-np.abs(z)))).mean()
    return loss, (1 / (1 + np.exp(-z)) - t) / np.float32(z.size)


def squared_error(z, t):
    """(loss, gradient), mean over elements."""
    d = z - t
    return float(np.mean(d * d)), d * np.float32(2 / z.size)


def mlp_step(weights, x, target, loss, update, tanh=False):
    """One training step of a multi-layer perceptron; `weights` is [w1, b1, w2, b2, ...]."""
    outputs, last = [x], len(weights) // 2 - 1
    for i in range(last + 1):
        z = outputs[-1] @ weights[2 * i]
        z += weights[2 * i + 1]
        if i < last:
            np.tanh(z, z) if tanh else np.maximum(z, 0, out=z)
        outputs.append(z)
    value, d = loss(outputs[-1], target)
    gradients = [None] * len(weights)
    for i in range(last, -1, -1):
        h = outputs[i]
        gradients[2 * i], gradients[2 * i + 1] = h.T @ d, d.sum(0)
        if i:
            d = d @ weights[2 * i].T
            d *= (1 - h * h) if tanh else (h > 0)
    update.step(gradients)
    return value


def mlp_predict(weights, x):
    """Classes of a batch."""
    for i in range(0, len(weights), 2):
        x = x @ weights[i]
        x += weights[i + 1]
        if i + 2 < len(weights):
            np.maximum(x, 0, out=x)
    return x.argmax(1)


class ConvRelu:
    """Convolution by patches and one product, with relu."""

    def __init__(self, shape, w, b):
        self.shape, self.parameters = shape, [w, b]

    def forward(self, x):
        """[N,Y,X,C] to [N,P,Q,F]."""
        w, b = self.parameters
        s = self.shape
        self.patches = s.patches(x)
        y = self.patches @ w.reshape(-1, s.f)
        y += b
        self.y = np.maximum(y, 0, out=y).reshape(s.n, s.p, s.p, s.f)
        return self.y

    def backward(self, dy, first):
        """(gradient of the image, or None where it is the first layer; gradients)."""
        w, _ = self.parameters
        dy *= self.y > 0
        flat = dy.reshape(-1, self.shape.f)
        gradients = [(self.patches.T @ flat).reshape(w.shape), flat.sum(0)]
        return None if first else self.shape.numpy_backward_data(dy, w), gradients


class Pool:
    """2x2 maximum; equal maxima share the gradient's place, the usual short cut."""

    parameters = ()

    def forward(self, x):
        """[N,Y,X,C] to half the size."""
        n, y, width, c = x.shape
        self.x = x.reshape(n, y // 2, 2, width // 2, 2, c)
        self.y = self.x.max((2, 4))
        return self.y

    def backward(self, dy, first):
        """Gradient of the image."""
        n, p, q, c = self.y.shape
        dx = (self.x == self.y[:, :, None, :, None]) * dy[:, :, None, :, None]
        return dx.reshape(n, 2 * p, 2 * q, c), []


class Dense:
    """Dense layer on flattened rows, with relu or without."""

    def __init__(self, w, b, relu=True):
        self.parameters, self.relu = [w, b], relu

    def forward(self, x):
        """[N,...] to [N,O]."""
        w, b = self.parameters
        self.shape, self.x = x.shape, x.reshape(len(x), -1)
        self.y = self.x @ w
        self.y += b
        if self.relu:
            np.maximum(self.y, 0, out=self.y)
        return self.y

    def backward(self, dy, first):
        """(gradient of x, gradients)."""
        if self.relu:
            dy *= self.y > 0
        return (dy @ self.parameters[0].T).reshape(self.shape), [self.x.T @ dy, dy.sum(0)]


def net_step(layers, x, labels, update):
    """One training step of a list of layers; `update` holds their parameters in order."""
    for layer in layers:
        x = layer.forward(x)
    value, d = softmax_cross_entropy(x, labels)
    gradients = []
    for i, layer in reversed(list(enumerate(layers))):
        d, own = layer.backward(d, i == 0)
        gradients = own + gradients
    update.step(gradients)
    return value
