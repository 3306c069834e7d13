"""Dropout with a mask that is never stored, forward and backward.

    y[i] = x[i] / (1 - rate) if hash(key, i) >= rate else 0,    dx[i] the same of dy[i]

hash(key, i), in [0, 1), is the i-th number of a counter-based generator: it depends on the key and on i and on nothing
before, so that the backward pass computes the mask again, from the key alone, and threads need no order.
Source: Srivastava et al. (2014), JMLR 15:1929-1958, scaled while training and not while testing; the hash: Steele, Lea and
Flood (2014), OOPSLA, SplitMix64. Derived in chapter 6.

x has any shape, empty too. What is kept is scaled up, so that the mean of y is x, and nothing is to be done when the model
is used. The same key gives the same mask: draw a new one for each layer and step.

Dropped elements are exactly 0, also where x is NaN or infinite; elsewhere these pass. Results have the same bits with any
number of threads and on any machine.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE

_PIECE = 16384  # elements: 64 KB of float32


def dropout(x, rate: float, key: int):
    """Set elements of `x` to 0, each with probability `rate`, and divide the others by 1 - rate.

    Parameters
    ----------
    x : float array of any shape
    rate : float   0 <= rate < 1, the chance to be dropped; in steps of 2^-32
    key : int      0 <= key < 2^64, such as int(generator.integers(2**63)) of a numpy.random.Generator

    Returns
    -------
    y : float array, like x
    cache : tuple   keeps the shape, the rate and the key; no array

    Raises ValueError for a rate or a key out of range.
    """
    (x,) = kernel_arrays(x=x)
    if not 0 <= rate < 1:
        raise ValueError(
            f"rate must be at least 0 and below 1, got {rate}: at 1 nothing is left to scale up."
        )
    if not 0 <= key < 2**64:
        raise ValueError(f"key must be at least 0 and below 2**64, got {key}.")
    return _masked(x, rate, key), (x.shape, x.dtype, rate, key)


def dropout_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `dropout` kept; the mask is computed again."""
    shape, dtype, rate, key = cache
    letters = [f"d{i}" for i in range(len(shape))]
    require_shape("dy", dy, " ".join(letters), **dict(zip(letters, shape, strict=True)))
    (dy,) = kernel_arrays(dy=dy)
    if dy.dtype != dtype:
        raise TypeError(f"dy must be {dtype} like x, got {dy.dtype}: convert with .astype(...).")
    return _masked(dy, rate, key)


def _masked(x, rate, key):
    y = np.empty_like(x)
    threshold, scale = np.uint64(round(rate * 2**32)), x.dtype.type(1 / (1 - rate))
    _apply(x.reshape(-1), np.uint64(key), threshold, scale, y.reshape(-1))
    return y


@njit(**ELEMENTWISE)
def _apply(x, key, threshold, scale, y):
    zero = x.dtype.type(0)
    for c in prange((x.size + _PIECE - 1) // _PIECE):
        first = c * _PIECE
        xc, yc = x[first : first + _PIECE], y[first : first + _PIECE]
        for i in range(xc.size):
            # SplitMix64: a step of the golden ratio for each counter, then two rounds of multiply and shift
            h = key + np.uint64(first + i + 1) * np.uint64(0x9E3779B97F4A7C15)
            h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            h = h ^ (h >> np.uint64(31))
            yc[i] = xc[i] * scale if (h >> np.uint64(32)) >= threshold else zero
