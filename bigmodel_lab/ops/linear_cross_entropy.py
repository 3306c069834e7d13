"""The last layer and the loss in one operation that never holds all logits, forward and backward.

    x = h w^T,    loss = mean_n (log sum_v e^x[n, v] - x[n, t[n]])

    dx[n, v] = dloss (softmax(x)[n, v] - [v = t[n]]) / N,    dh = dx w,    dw = dx^T h

Source: the chunked loss of Hsu et al. (2024), "Liger Kernel", arXiv:2410.10989, section 3; the pair of softmax and
cross-entropy as in `softmax_cross_entropy`. Derived in chapter 9.
Shapes: N = tokens (B*T), D = width, V = vocabulary; h are the last hidden states, w is the output (or tied embedding)
matrix.

Logits are the largest array of a small language model: 2048 tokens times 50,257 are 412 MB in float32, and their gradient
as much again. Here `chunk` rows are computed, turned into their gradient in place, multiplied into dh and dw, and
overwritten by the next. The products go to NumPy's BLAS. A chunk of 256 rows keeps them large enough to be fast.

NaN or infinity in a row of h, or in w, makes the loss and dw NaN; so does a row of logits that is no distribution.
"""

import numpy as np

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops.softmax_cross_entropy import (
    _first_outside,
    _forward,
    _gradient_in_place,
    _mean,
)


def linear_cross_entropy(h, w, targets, chunk: int = 256, *, matmul=np.matmul):
    """Return the mean cross-entropy, in nats, of softmax(h w^T) against `targets`.

    Parameters
    ----------
    h : float array (N, D)         N >= 1
    w : float array (V, D)         V >= 1, one row for each class, as in torch.nn.Linear
    targets : integer array (N,)   0 <= target < V
    chunk : int                    >= 1, rows of logits held at a time: chunk x V numbers
    matmul : function              (a, b, out=...), called on NumPy arrays; another one's BLAS if NumPy's should not be used

    Returns
    -------
    loss : float                   same dtype as `h`
    cache : tuple                  keeps h, w and the targets; the backward pass computes the logits again

    Raises ValueError for a target out of range, naming its index, and for shapes that do not fit.
    """
    h, w, targets = _checked(h, w, targets, chunk)
    losses = np.empty(len(h), h.dtype)
    m, s = np.empty((2, len(h)), h.dtype)
    for rows, logits in _chunks(h, w, chunk, matmul):
        _forward(logits, targets[rows], m[rows], s[rows], losses[rows])
    return _mean(losses), (h, w, targets, chunk, matmul)


def linear_cross_entropy_backward(dloss, cache):
    """Return (dh, dw) for the upstream gradient `dloss`, a number, and what `linear_cross_entropy` kept."""
    *arguments, matmul = cache
    _, dh, dw = _with_gradient(*arguments, float(dloss), matmul)
    return dh, dw


def linear_cross_entropy_with_gradient(h, w, targets, chunk: int = 256, *, matmul=np.matmul):
    """Return (loss, dh, dw) in one go, for training, where dloss is 1: three large products instead of four.

    Beside the results it takes chunk x V numbers for logits and V x D for one chunk's share of dw. Arguments and errors
    are those of `linear_cross_entropy`.
    """
    return _with_gradient(*_checked(h, w, targets, chunk), chunk, 1.0, matmul)


def _with_gradient(h, w, targets, chunk, dloss, matmul):
    scale = h.dtype.type(dloss / len(h))
    losses = np.empty(len(h), h.dtype)
    dh, dw, share = np.empty_like(h), np.zeros_like(w), np.empty_like(w)
    for rows, logits in _chunks(h, w, chunk, matmul):
        _gradient_in_place(
            logits, targets[rows], scale, losses[rows]
        )  # logits are now their gradient
        matmul(logits, w, out=dh[rows])
        matmul(logits.T, h[rows], out=share)
        dw += share
    return _mean(losses), dh, dw


def _chunks(h, w, chunk, matmul):
    """Yield (rows, their logits), all in one piece of memory."""
    memory = np.empty((min(chunk, len(h)), len(w)), h.dtype)
    for first in range(0, len(h), chunk):
        rows = slice(first, min(first + chunk, len(h)))
        logits = memory[: rows.stop - first]
        matmul(h[rows], w.T, out=logits)
        yield rows, logits


def _checked(h, w, targets, chunk):
    N, D = require_shape("h", h, "N D").values()
    V = require_shape("w", w, "V D", D=D)["V"]
    require_shape("targets", targets, "N", N=N)
    require_in_range("the number N of rows of h", N, 1)
    require_in_range("the number V of rows of w", V, 1)
    require_in_range("chunk", chunk, 1)
    h, w = kernel_arrays(h=h, w=w)
    if targets.dtype.kind not in "iu":
        raise TypeError(
            f"targets must be whole numbers, got dtype {targets.dtype}: convert with .astype(np.int64)."
        )
    whole = targets.astype(np.int64)
    n = _first_outside(whole, V)
    if n < N:
        raise ValueError(
            f"targets[{n}] is {targets[n]}: with V={V} classes it must be between 0 and {V - 1}."
        )
    return h, w, whole
