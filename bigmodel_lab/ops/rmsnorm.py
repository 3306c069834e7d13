"""RMS normalisation, forward and backward.

    y[n, d] = g[d] x[n, d] r[n],    r[n] = (mean_d x[n, d]^2 + eps)^(-1/2)

    dx[n, d] = r[n] (g[d] dy[n, d] - x[n, d] r[n]^2 mean_d(g dy x)[n]),    dg[d] = sum_n dy[n, d] x[n, d] r[n]

Layer normalisation without the mean and without the bias: what Llama uses.
Source: Zhang and Sennrich (2019), arXiv:1910.07467, eq. 4. Derived in chapter 9.
Shapes: N = tokens (B*T), D = width.

A row that holds NaN gives NaN in that row of y and of dx, and in dg. A row that holds an infinity, or numbers whose
squares overflow (above 1e19 in float32), has r = 0: y is 0 there, and NaN where x is infinite. No other row is touched.
Sums over rows are taken within blocks of a fixed number of rows first, so results have the same bits with any number of
threads.
"""

import math

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import REDUCING
from bigmodel_lab.ops._reduce import column_sums

_ROWS = 64  # a block: its partial sum of dg takes a 64th of the memory of x


def rmsnorm(x, g, eps=1e-6):
    """Scale each row of `x` to unit root-mean-square, then by the gain `g`.

    Parameters
    ----------
    x : float array (N, D)   D >= 1
    g : float array (D,)     gain, dimensionless
    eps : float              >= 0, added to the mean square, in units of x^2

    Returns
    -------
    y : float array (N, D)   same dtype as `x`
    cache : tuple            keeps x, g and r (N,), not y (N, D)

    Raises ValueError if the widths differ or eps is negative, TypeError unless both are float32 or both float64.
    """
    N, D = require_shape("x", x, "N D").values()
    require_shape("g", g, "D", D=D)
    require_in_range("eps", eps, 0)
    require_in_range("the width D of x", D, 1)
    x, g = kernel_arrays(x=x, g=g)
    y, r = np.empty_like(x), np.empty(N, x.dtype)
    _forward(x, g, x.dtype.type(eps), y, r)
    return y, (x, g, r)


def rmsnorm_backward(dy, cache):
    """Return (dx, dg) for the upstream gradient `dy` (N, D) and what `rmsnorm` kept."""
    x, g, r = cache
    N, D = x.shape
    require_shape("dy", dy, "N D", N=N, D=D)
    dy, _ = kernel_arrays(dy=dy, x=x)
    dx, dg = np.empty_like(x), np.empty_like(g)
    dg_parts = np.empty((-(-N // _ROWS), D), x.dtype)
    _backward(dy, x, g, r, dx, dg_parts)
    column_sums(dg_parts, dg)
    return dx, dg


@njit(**REDUCING)
def _forward(x, g, eps, y, r):
    N, D = x.shape
    zero, one, width = x.dtype.type(0), x.dtype.type(1), x.dtype.type(D)
    for n in prange(N):
        row, out = x[n], y[n]
        squares = zero
        for d in range(D):
            squares += row[d] * row[d]
        scale = one / math.sqrt(squares / width + eps)
        r[n] = scale
        for d in range(D):
            out[d] = row[d] * scale * g[d]


@njit(**REDUCING)
def _backward(dy, x, g, r, dx, dg_parts):
    N, D = x.shape
    zero, width = x.dtype.type(0), x.dtype.type(D)
    for c in prange(len(dg_parts)):
        dg = dg_parts[c]
        dg[:] = zero
        for n in range(c * _ROWS, min(N, (c + 1) * _ROWS)):
            row, drow, out, scale = x[n], dy[n], dx[n], r[n]
            along = zero
            for d in range(D):
                along += g[d] * drow[d] * row[d]
            along *= scale * scale / width
            for d in range(D):
                dg[d] += drow[d] * row[d] * scale
                out[d] = scale * (g[d] * drow[d] - row[d] * along)
