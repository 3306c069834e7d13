"""The affine map of a dense layer, forward and backward.

    y[n, o] = sum_d x[n, d] w[o, d] + b[o]

    dx[n, d] = sum_o dy[n, o] w[o, d],    dw[o, d] = sum_n dy[n, o] x[n, d],    db[o] = sum_n dy[n, o]

Source: Rumelhart, Hinton and Williams (1986), Nature 323:533-536; in matrices y = x w^T + b, dx = dy w, dw = dy^T x.
Derived in chapter 5.
Shapes: N = rows of the batch, D = width in, O = width out.

The three matrix products go to NumPy's BLAS, which is hard to beat and whose thread count is BLAS's own setting
(OPENBLAS_NUM_THREADS). Adding the bias and summing its gradient only move memory; those are kernels.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE
from bigmodel_lab.ops._reduce import column_sums


def linear(x, w, b=None):
    """Multiply each row of `x` by the matrix `w` and add `b`.

    Parameters
    ----------
    x : float array (N, D)
    w : float array (O, D)   one row for each output, as in torch.nn.Linear
    b : float array (O,) or None

    Returns
    -------
    y : float array (N, O)   same dtype as `x`
    cache : tuple            keeps x and w themselves, no copies; nothing is recomputed

    Raises ValueError if the widths differ, TypeError unless all are float32 or all float64.
    """
    N, D = require_shape("x", x, "N D").values()
    O = require_shape("w", w, "O D", D=D)["O"]
    if b is None:
        x, w = kernel_arrays(x=x, w=w)
    else:
        require_shape("b", b, "O", O=O)
        x, w, b = kernel_arrays(x=x, w=w, b=b)
    y = np.empty((N, O), x.dtype)
    np.matmul(x, w.T, out=y)
    if b is not None:
        _add_bias(y, b)
    return y, (x, w, b is not None)


def linear_backward(dy, cache, *, need_dx: bool = True):
    """Return (dx, dw, db) for the upstream gradient `dy` (N, O) and what `linear` kept.

    db is None if there was no bias. With need_dx=False dx is None, which spares a third of the work where `x` is data.
    Raises ValueError if `dy` has another shape than y, TypeError if another dtype.
    """
    x, w, has_bias = cache
    require_shape("dy", dy, "N O", N=len(x), O=len(w))
    dy, _ = kernel_arrays(dy=dy, x=x)
    dx = np.matmul(dy, w) if need_dx else None
    dw = np.matmul(dy.T, x)
    db = None
    if has_bias:
        db = np.empty(len(w), dy.dtype)
        column_sums(dy, db)
    return dx, dw, db


@njit(**ELEMENTWISE)
def _add_bias(y, b):
    for n in prange(len(y)):
        row = y[n]
        for o in range(row.size):
            row[o] += b[o]
