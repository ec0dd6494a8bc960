"""Batch and layer normalisation."""

from ..backend import full, kernels
from ..tensor import DY, record, record_kernel
from ._common import absent_or, data_of, parents, sum_into


def batch_norm(x, gamma, shift, running_mean, running_var, training, eps=1e-5, momentum=0.1):
    """Batch normalisation of x [n...,C].

    While training the batch's own statistics are used and the running ones (arrays, updated in place) move by `momentum`;
    otherwise the running ones are used.
    """
    k, xd = kernels(x.data), x.data
    g, s = data_of(gamma), data_of(shift)
    if training:
        y, mean, rstd = k.batch_norm_forward(xd, g, s, eps, momentum, None, running_mean, running_var)
        inputs = x, absent_or(gamma), absent_or(shift)
        return record_kernel(y, k.batch_norm_backward, xd, g, mean, rstd, DY, None, *inputs)

    def step(dy):
        # constants here: dx = dy gamma rstd, dgamma = sum dy xhat, dshift = sum dy
        c = xd.shape[-1]
        var = k.binary(running_var.reshape(c, 1), full((1,), xd, eps), "add")
        rstd = k.unary_forward(k.unary_forward(var.reshape(c), "sqrt"), "reciprocal")
        flat = dy.reshape(-1, c)
        dx, beta = x.slot()
        if dx is not None:
            scale = rstd if g is None else k.binary(rstd.reshape(1, c), g, "multiply").reshape(c)
            k.axpby(1.0, k.binary(flat, scale, "multiply").reshape(dx.shape), beta, dx)
        for t in (gamma, shift):
            out, beta = absent_or(t).slot()
            if out is None:
                continue
            terms = flat
            if t is gamma:
                centred = k.binary(k.binary(xd.reshape(-1, c), running_mean, "subtract"), rstd, "multiply")
                terms = k.binary(centred.reshape(1, -1), flat.reshape(-1), "multiply").reshape(flat.shape)
            sum_into(k, terms, out, beta)

    y = k.batch_norm_inference(xd, g, s, running_mean, running_var, eps)
    return record(y, parents(x, gamma, shift), step)


def layer_norm(x, gamma=None, shift=None, eps=1e-5):
    """Layer normalisation: each row of x [n...,C] over its C values."""
    k, xd, g = kernels(x.data), x.data, data_of(gamma)
    y, mean, rstd = k.layer_norm_forward(xd, g, data_of(shift), eps)
    inputs = x, absent_or(gamma), absent_or(shift)
    return record_kernel(y, k.layer_norm_backward, xd, g, mean, rstd, DY, None, *inputs)
