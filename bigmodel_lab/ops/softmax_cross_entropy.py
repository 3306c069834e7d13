"""Softmax and cross-entropy in one operation, forward and backward.

    p[n, v] = exp(x[n, v] - m[n]) / s[n],    m[n] = max_v x[n, v],    s[n] = sum_v exp(x[n, v] - m[n])

    loss = mean_n (log s[n] + m[n] - x[n, t[n]]),    dx[n, v] = dloss (p[n, v] - [v = t[n]]) / N

Source: Bridle (1990), "Training stochastic model recognition algorithms ...", NIPS 2, for the pair and its gradient.
Derived in chapter 5.
Shapes: N = rows (B*T tokens), V = classes or vocabulary; x is called logits, t is called targets.

Taking out the row's largest logit leaves p as it is and makes every exponent <= 0, so nothing overflows at any size of
logit. The probabilities are never stored: for a vocabulary of 50,000 they would be as large as the logits themselves.

Special values: a logit of -inf means "impossible" (p = 0, gradient 0; loss +inf if it is the target). A row that holds
NaN or +inf, or nothing but -inf, makes the loss NaN and its own row of the gradient NaN; the other rows stay right.
"""

import math

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import REDUCING, exp_nonpositive
from bigmodel_lab.ops._reduce import row_max


def softmax_cross_entropy(logits, targets):
    """Return the mean cross-entropy, in nats, of the softmax of each row against its target.

    Parameters
    ----------
    logits : float array (N, V)    N >= 1, V >= 1
    targets : integer array (N,)   the right class of each row, 0 <= target < V

    Returns
    -------
    loss : float                   same dtype as `logits`
    cache : tuple                  keeps logits, targets, m (N,) and s (N,); the backward pass recomputes p (N, V)

    Raises ValueError for a target out of range, naming its index, and for shapes that do not fit.
    """
    logits, targets = _checked(logits, targets)
    m, s, losses = np.empty((3, len(logits)), logits.dtype)
    _forward(logits, targets, m, s, losses)
    return _mean(losses), (logits, targets, m, s)


def softmax_cross_entropy_backward(dloss: float, cache):
    """Return dlogits (N, V) for the upstream gradient `dloss`, a number, and what `softmax_cross_entropy` kept."""
    logits, targets, m, s = cache
    dlogits = np.empty_like(logits)
    scale = logits.dtype.type(float(dloss) / len(logits))
    _backward(logits, targets, m, s, scale, dlogits)
    return dlogits


def softmax_cross_entropy_with_gradient(logits, targets, *, in_place: bool = False):
    """Return (loss, dlogits) in one go, for training, where both are wanted and dloss is 1.

    Computes each exponential once instead of twice and reads the logits once. With in_place=True the gradient
    overwrites `logits` (which must then be C-contiguous and writable) and no memory is allocated beyond (N,): the
    kernel then moves the least that it can, 2 N V numbers. Arguments and errors are those of `softmax_cross_entropy`.
    """
    given = logits
    logits, targets = _checked(logits, targets)
    scale = logits.dtype.type(1 / len(logits))
    losses = np.empty(len(logits), logits.dtype)
    if in_place:
        if logits is not given:
            raise ValueError(
                "logits must be a C-contiguous, writable array for in_place=True, as the gradient goes where it is: "
                "pass np.ascontiguousarray(logits), or in_place=False."
            )
        _gradient_in_place(logits, targets, scale, losses)
        return _mean(losses), logits
    dlogits = np.empty_like(logits)
    _gradient(logits, targets, scale, dlogits, losses)
    return _mean(losses), dlogits


def _checked(logits, targets):
    N, V = require_shape("logits", logits, "N V").values()
    require_shape("targets", targets, "N", N=N)
    if N == 0 or V == 0:
        raise ValueError(
            f"logits must have at least one row and one class for a mean to exist, got shape {N, V}."
        )
    if targets.dtype.kind not in "iu":
        raise TypeError(
            f"targets must be whole numbers, got dtype {targets.dtype}: convert with .astype(np.int64). "
            "For one-hot rows, take .argmax(1)."
        )
    # a uint64 above 2**63 turns negative here, and is then found outside
    (logits,), whole = kernel_arrays(logits=logits), targets.astype(np.int64)
    n = _first_outside(whole, V)
    if n < N:
        raise ValueError(
            f"targets[{n}] is {targets[n]}: with V={V} classes it must be between 0 and {V - 1}."
        )
    return logits, whole


def _mean(losses):
    return losses.dtype.type(losses.mean(dtype=np.float64))


@njit(cache=True)
def _first_outside(targets, V):
    """The index of the first target that is no class, or N."""
    for n in range(targets.size):
        if targets[n] < 0 or targets[n] >= V:
            return n
    return targets.size


@njit(**REDUCING)
def _forward(logits, targets, m, s, losses):
    for n in prange(len(logits)):
        row = logits[n]
        largest = row_max(row)
        total = row.dtype.type(0)
        for v in range(row.size):
            total += exp_nonpositive(row[v] - largest)
        m[n], s[n] = largest, total
        losses[n] = math.log(total) - (row[targets[n]] - largest)


@njit(**REDUCING)
def _backward(logits, targets, m, s, scale, dlogits):
    for n in prange(len(logits)):
        row, drow = logits[n], dlogits[n]
        largest, each = m[n], scale / s[n]
        for v in range(row.size):
            drow[v] = exp_nonpositive(row[v] - largest) * each
        drow[targets[n]] -= scale


# The two below differ in one array. Handing the first one the same array twice would be right but slow: the compiled
# loop tests at run time whether its arrays overlap, and if they do takes one element at a time (3.5 times slower).


@njit(**REDUCING)
def _gradient(logits, targets, scale, dlogits, losses):
    for n in prange(len(logits)):
        row, drow = logits[n], dlogits[n]
        largest, right = row_max(row), row[targets[n]]
        total = row.dtype.type(0)
        for v in range(row.size):
            e = exp_nonpositive(row[v] - largest)
            drow[v] = e
            total += e
        losses[n] = math.log(total) - (right - largest)
        each = scale / total
        for v in range(row.size):
            drow[v] *= each
        drow[targets[n]] -= scale


@njit(**REDUCING)
def _gradient_in_place(logits, targets, scale, losses):
    for n in prange(len(logits)):
        row = logits[n]
        largest, right = row_max(row), row[targets[n]]
        total = row.dtype.type(0)
        for v in range(row.size):
            e = exp_nonpositive(row[v] - largest)
            row[v] = e
            total += e
        losses[n] = math.log(total) - (right - largest)
        each = scale / total
        for v in range(row.size):
            row[v] *= each
        row[targets[n]] -= scale
