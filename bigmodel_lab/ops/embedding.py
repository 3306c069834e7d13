"""Embedding: one row of a table for each token, forward and backward.

    y[n, d] = w[tokens[n], d],    dw[v, d] = sum over the n with tokens[n] = v of dy[n, d]

The same as the product of a one-hot row with w, without the multiplications by 0.
Source: Bengio et al. (2003), JMLR 3:1137-1155, section 2, the matrix C. Derived in chapter 8.
Shapes: tokens of any shape, N of them; V = vocabulary, D = width.

The backward pass adds rows that may meet in one row of dw. No two threads may add to one element, so the threads share
out the columns, and each goes through all tokens in order: results have the same bits with any number of threads. NaN
goes where it belongs and nowhere else. A token that does not occur has a gradient of 0.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE

_COLUMNS = 64  # a block of columns: 256 bytes of a row in float32
_TOKENS = 256  # a block of tokens, enough work to be worth handing to a thread


def embedding(tokens, w):
    """Return the rows of the table `w` that `tokens` name.

    Parameters
    ----------
    tokens : integer array (...)   0 <= token < V
    w : float array (V, D)

    Returns
    -------
    y : float array (..., D)       same dtype as `w`, a copy
    cache : tuple                  keeps the tokens and the shape of w, not w

    Raises ValueError for a token out of range, naming its index; TypeError for tokens that are not whole numbers.
    """
    if not isinstance(tokens, np.ndarray) or tokens.dtype.kind not in "iu":
        kind = tokens.dtype if isinstance(tokens, np.ndarray) else type(tokens).__name__
        raise TypeError(
            f"tokens must be an array of whole numbers, got {kind}: convert with np.asarray(tokens, np.int64)."
        )
    V, D = require_shape("w", w, "V D").values()
    (w,) = kernel_arrays(w=w)
    # a uint64 above 2**63 turns negative here, and is then found outside
    flat = tokens.astype(np.int64).reshape(-1)
    outside = (flat < 0) | (flat >= V)
    if outside.any():
        at = np.unravel_index(outside.argmax(), tokens.shape)
        raise ValueError(
            f"tokens[{', '.join(map(str, at))}] is {tokens[at]}: with a table of V={V} rows it must be between 0 and "
            f"{V - 1}."
        )
    y = np.empty((*tokens.shape, D), w.dtype)
    _forward(flat, w, y.reshape(flat.size, D))
    return y, (flat, tokens.shape, V)


def embedding_backward(dy, cache):
    """Return dw (V, D) for the upstream gradient `dy` (..., D) and what `embedding` kept."""
    flat, shape, V = cache
    letters = [f"d{i}" for i in range(len(shape))]
    known = dict(zip(letters, shape, strict=True))
    D = list(require_shape("dy", dy, " ".join([*letters, "D"]), **known).values())[-1]
    (dy,) = kernel_arrays(dy=dy)
    dw = np.zeros((V, D), dy.dtype)
    _backward(flat, dy.reshape(flat.size, D), dw)
    return dw


@njit(**ELEMENTWISE)
def _forward(tokens, w, y):
    for c in prange((tokens.size + _TOKENS - 1) // _TOKENS):
        for n in range(c * _TOKENS, min(tokens.size, (c + 1) * _TOKENS)):
            row, out = w[tokens[n]], y[n]
            for d in range(out.size):
                out[d] = row[d]


@njit(**ELEMENTWISE)
def _backward(tokens, dy, dw):
    D = dw.shape[1]
    for c in prange((D + _COLUMNS - 1) // _COLUMNS):
        first, end = c * _COLUMNS, min(D, (c + 1) * _COLUMNS)
        for n in range(tokens.size):
            row, out = dy[n, first:end], dw[tokens[n], first:end]
            for d in range(out.size):
                out[d] += row[d]
