"""Layer normalisation, forward and backward.

    y[n, d] = g[d] z[n, d] + b[d],    z[n, d] = (x[n, d] - mean[n]) r[n],    r[n] = (var[n] + eps)^(-1/2)

    dx[n, d] = r[n] (g[d] dy[n, d] - mean_d(g dy)[n] - z[n, d] mean_d(g dy z)[n])
    dg[d] = sum_n dy[n, d] z[n, d],    db[d] = sum_n dy[n, d]

mean and var are those of the row, var divided by D and not by D - 1.
Source: Ba, Kiros and Hinton (2016), arXiv:1607.06450, eqs. 3 and 4. Derived in chapter 9.
Shapes: N = tokens (B*T), D = width.

The variance is taken in a second pass over the row, as the mean of (x - mean)^2: mean(x^2) - mean^2 would lose every
digit where the mean is large. The row is in the processor's cache by then, so that pass is nearly free.

A row that holds NaN or infinity gives a row of NaN in y and in dx, and NaN in dg; no other row is touched. Sums over
rows are taken within blocks of a fixed number of rows first, so results have the same bits with any number of threads.
"""

import math

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import REDUCING
from bigmodel_lab.ops._reduce import column_sums

_ROWS = 64  # a block: its partial sums of dg and db take a 64th of the memory of x each


def layernorm(x, g, b, eps=1e-5):
    """Shift and scale each row of `x` to mean 0 and variance 1, then by the gain `g` and the bias `b`.

    Parameters
    ----------
    x : float array (N, D)   D >= 1
    g : float array (D,)     gain, dimensionless
    b : float array (D,)     bias, in units of y
    eps : float              >= 0, added to the variance, in units of x^2

    Returns
    -------
    y : float array (N, D)   same dtype as `x`
    cache : tuple            keeps x, g, mean (N,) and r (N,), not z (N, D), which the backward pass computes again

    Raises ValueError if the widths differ or eps is negative, TypeError unless all are float32 or all float64.
    """
    N, D = require_shape("x", x, "N D").values()
    require_shape("g", g, "D", D=D)
    require_shape("b", b, "D", D=D)
    require_in_range("eps", eps, 0)
    require_in_range("the width D of x", D, 1)
    x, g, b = kernel_arrays(x=x, g=g, b=b)
    y = np.empty_like(x)
    mean, r = np.empty((2, N), x.dtype)
    _forward(x, g, b, x.dtype.type(eps), y, mean, r)
    return y, (x, g, mean, r)


def layernorm_backward(dy, cache):
    """Return (dx, dg, db) for the upstream gradient `dy` (N, D) and what `layernorm` kept."""
    x, g, mean, r = cache
    N, D = x.shape
    require_shape("dy", dy, "N D", N=N, D=D)
    dy, _ = kernel_arrays(dy=dy, x=x)
    dx, dg, db = np.empty_like(x), np.empty_like(g), np.empty_like(g)
    dg_parts, db_parts = np.empty((2, -(-N // _ROWS), D), x.dtype)
    _backward(dy, x, g, mean, r, dx, dg_parts, db_parts)
    column_sums(dg_parts, dg)
    column_sums(db_parts, db)
    return dx, dg, db


@njit(**REDUCING)
def _forward(x, g, b, eps, y, mean, r):
    N, D = x.shape
    zero, one, width = x.dtype.type(0), x.dtype.type(1), x.dtype.type(D)
    for n in prange(N):
        row, out = x[n], y[n]
        total = zero
        for d in range(D):
            total += row[d]
        m = total / width
        squares = zero
        for d in range(D):
            squares += (row[d] - m) * (row[d] - m)
        scale = one / math.sqrt(squares / width + eps)
        mean[n], r[n] = m, scale
        for d in range(D):
            out[d] = (row[d] - m) * scale * g[d] + b[d]


@njit(**REDUCING)
def _backward(dy, x, g, mean, r, dx, dg_parts, db_parts):
    N, D = x.shape
    zero, width = x.dtype.type(0), x.dtype.type(D)
    for c in prange(len(dg_parts)):
        dg, db = dg_parts[c], db_parts[c]
        dg[:] = zero
        db[:] = zero
        first, end = c * _ROWS, min(N, (c + 1) * _ROWS)
        for n in range(first, end):
            row, drow, out, m, scale = x[n], dy[n], dx[n], mean[n], r[n]
            total, along = zero, zero
            for d in range(D):
                total += g[d] * drow[d]
                along += g[d] * drow[d] * (row[d] - m)
            total /= width
            along *= scale / width
            for d in range(D):
                z = (row[d] - m) * scale
                out[d] = scale * (g[d] * drow[d] - total - z * along)
        # The block is in the cache by now. Four rows at a time: dg and db are then loaded and stored a quarter as often.
        n = first
        while n + 4 <= end:
            x0, x1, x2, x3 = x[n], x[n + 1], x[n + 2], x[n + 3]
            y0, y1, y2, y3 = dy[n], dy[n + 1], dy[n + 2], dy[n + 3]
            m0, m1, m2, m3 = mean[n], mean[n + 1], mean[n + 2], mean[n + 3]
            s0, s1, s2, s3 = r[n], r[n + 1], r[n + 2], r[n + 3]
            for d in range(D):
                low = y0[d] * (x0[d] - m0) * s0 + y1[d] * (x1[d] - m1) * s1
                high = y2[d] * (x2[d] - m2) * s2 + y3[d] * (x3[d] - m3) * s3
                dg[d] += low + high
                db[d] += (y0[d] + y1[d]) + (y2[d] + y3[d])
            n += 4
        while n < end:
            row, drow, m, scale = x[n], dy[n], mean[n], r[n]
            for d in range(D):
                dg[d] += drow[d] * (row[d] - m) * scale
                db[d] += drow[d]
            n += 1
