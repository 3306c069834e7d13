"""Softmax over the last dimension, with a causal mask if wanted, forward and backward.

    y[n, v] = e^(x[n, v] - m[n]) / sum_w e^(x[n, w] - m[n]),    m[n] = max_w x[n, w]

    dx[n, v] = y[n, v] (dy[n, v] - sum_w dy[n, w] y[n, w])

Source: Bridle (1990), NIPS 2. For the causal mask: Vaswani et al. (2017), arXiv:1706.03762, section 3.2.3. Derived in
chapter 5; the mask in chapter 9.
Shapes: (..., V); with causal=True (..., T, V), V >= T: T queries that stand at the last T of V positions.

With causal=True query t sees the positions 0 ... V - T + t, and y is exactly 0 at the others, whatever x holds there:
half of the work is left out and no array of minus infinities is needed.

Special values, among the positions that a row sees: -inf gives 0. NaN, +inf, or nothing but -inf gives NaN in the whole
row, and no other row is touched. Rows are worked on one by one, so results have the same bits with any number of threads.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import REDUCING, exp_nonpositive
from bigmodel_lab.ops._reduce import row_max


def softmax(x, causal: bool = False):
    """Return e^x of each row (the last dimension) divided by its sum.

    Parameters
    ----------
    x : float array (..., V), V >= 1; with causal=True (..., T, V), V >= T >= 1
    causal : bool   let row t of the last two dimensions see its first V - T + t + 1 entries only

    Returns
    -------
    y : float array, like x; rows add up to 1
    cache : tuple   keeps y, not x

    Raises ValueError if `x` has too few dimensions, no columns, or with causal=True fewer columns than rows.
    """
    (x,) = kernel_arrays(x=x)
    if x.ndim < 1 + causal or x.shape[-1] == 0:
        dims = "(..., T, V)" if causal else "(..., V)"
        raise ValueError(f"x must have shape {dims} with V at least 1, got shape {x.shape}.")
    V, T = x.shape[-1], x.shape[-2] if causal else 1
    if T > V:
        raise ValueError(
            f"x must have at least as many columns as rows for causal=True, or its first rows see nothing: got T={T} "
            f"rows and V={V} columns."
        )
    y = np.empty_like(x)
    _forward(x.reshape(-1, V), max(T, 1), y.reshape(-1, V))
    return y, (y, T)


def softmax_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `softmax` kept; 0 where the mask hides x."""
    y, T = cache
    letters = [f"d{i}" for i in range(y.ndim)]
    require_shape("dy", dy, " ".join(letters), **dict(zip(letters, y.shape, strict=True)))
    dy, _ = kernel_arrays(dy=dy, y=y)
    dx, V = np.empty_like(y), y.shape[-1]
    _backward(dy.reshape(-1, V), y.reshape(-1, V), max(T, 1), dx.reshape(-1, V))
    return dx


# Without a mask T is 1, and every row sees V - 1 + 0 + 1 = V entries: one kernel serves both.


@njit(**REDUCING)
def _forward(x, T, y):
    N, V = x.shape
    zero, one = x.dtype.type(0), x.dtype.type(1)
    for n in prange(N):
        seen = V - T + n % T + 1
        row, out = x[n, :seen], y[n]
        largest, total = row_max(row), zero
        for v in range(seen):
            e = exp_nonpositive(row[v] - largest)
            out[v] = e
            total += e
        share = one / total
        for v in range(seen):
            out[v] *= share
        for v in range(seen, V):
            out[v] = zero


@njit(**REDUCING)
def _backward(dy, y, T, dx):
    N, V = y.shape
    zero = y.dtype.type(0)
    for n in prange(N):
        seen = V - T + n % T + 1
        row, drow, out = y[n], dy[n], dx[n]
        along = zero
        for v in range(seen):
            along += drow[v] * row[v]
        for v in range(seen):
            out[v] = row[v] * (drow[v] - along)
        for v in range(seen, V):
            out[v] = zero
