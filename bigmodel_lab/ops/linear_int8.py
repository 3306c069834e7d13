"""A linear layer whose weights are kept in 8 bits, with one factor for each output.

    q[o, d] = round(w[o, d] / scale[o]),    scale[o] = max_d |w[o, d]| / 127,    |w[o, d] - scale[o] q[o, d]| <= scale[o] / 2

    y[n, o] = scale[o] sum_d q[o, d] x[n, d] + b[o]

Producing one token needs every weight once and does two operations with it, so the memory sets the time: a quarter of the
bytes of float32 takes a quarter of it. The weights are frozen; the backward pass serves what is trained in front of them.

Source: symmetric "absmax" quantisation by rows: Dettmers et al. (2022), arXiv:2208.07339, section 2.1; here x stays a float.
Timed in lab L01.
Shapes: N = rows of x, D = width in, O = width out.

For float32 and up to 32 rows a kernel reads q as it is and rounds x to 16 bits in groups of 64 (see `_packed.py`), which
moves y by about 2e-5 of its size; each row of y is the same bits with any number of threads. For float64 or more rows, 256
rows of q at a time become floats for a BLAS. NaN or infinity in a row of x makes that row of y NaN or infinite, and no other.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE
from bigmodel_lab.ops._packed import GROUP, LANES, dot_int8, round_to_16_bits
from bigmodel_lab.ops._reduce import column_sums

_FEW = 32  # rows of x; with more a BLAS is faster
_BLOCK = 256  # rows of q that become floats at a time


def quantise_int8(w):
    """Round the matrix `w` (O, D), float32 or float64, to 8 bits.

    Returns
    -------
    q : int8 array (O, D)        -127 ... 127
    scale : float array (O,)     of the dtype of w; the error bound above holds up to rounding

    A row whose largest number is below 1e-36 (float64: 1e-305) becomes 0. Raises ValueError for NaN or infinity in `w`.
    """
    w = require_finite_matrix(w)
    q, scale = np.empty(w.shape, np.int8), np.empty(len(w), w.dtype)
    _quantise(w, np.finfo(w.dtype).tiny, q, scale)
    return q, scale


def dequantise_int8(q, scale):
    """Return scale[o] q[o, d], float (O, D), of the dtype of `scale`."""
    require_shape("scale", scale, "O", O=require_shape("q", q, "O D")["O"])
    return q * scale[:, None]


def linear_int8(x, q, scale, b=None, *, matmul=np.matmul):
    """Multiply each row of `x` by the matrix that `q` and `scale` stand for, and add `b`.

    Parameters
    ----------
    x : float array (N, D)
    q : int8 array (O, D)       as `quantise_int8` returns it
    scale : float array (O,)
    b : float array (O,) or None
    matmul : function           (a, b, out=...), for many rows; another one's BLAS if NumPy's should not be used

    Returns
    -------
    y : float array (N, O)      same dtype as `x`
    cache : tuple               keeps q and scale and whether there was a b, not x: the weights are frozen

    Raises ValueError if the shapes do not fit, TypeError unless x, scale and b share float32 or float64 and q is int8.
    """
    N, D = require_shape("x", x, "N D").values()
    O = require_shape("q", q, "O D", D=D)["O"]
    require_shape("scale", scale, "O", O=O)
    if q.dtype != np.int8:
        raise TypeError(f"q must be int8, got {q.dtype}: quantise_int8 makes it.")
    has_bias = b is not None
    x, scale, b = with_bias(x, scale, b, O)
    y = np.empty((N, O), x.dtype)
    if N <= _FEW and x.dtype == np.float32:
        _forward(x, np.ascontiguousarray(q), scale, b, *rounded(N, D), y)
    else:
        multiply_by_blocks(x, O, lambda rows: dequantise_int8(q[rows], scale[rows]), matmul, y)
        y += b
    return y, (q, scale, has_bias)


def linear_int8_backward(dy, cache):
    """Return (dx, db) for the upstream gradient `dy` (N, O) and what `linear_int8` kept; db is None without a bias."""
    q, scale, has_bias = cache
    require_shape("dy", dy, "N O", O=len(q))
    dy, scale = kernel_arrays(dy=dy, scale=scale)
    dx = gradient_by_blocks(dy, q.shape[1], lambda rows: dequantise_int8(q[rows], scale[rows]))
    return dx, sum_of_rows(dy) if has_bias else None


# What `linear_int4` needs as well.


def require_finite_matrix(w):
    """Return `w` (O, D) ready for a kernel; raise ValueError if it holds NaN or infinity, naming the first place."""
    require_shape("w", w, "O D")
    (w,) = kernel_arrays(w=w)
    finite = np.isfinite(w)
    if not finite.all():
        o, d = np.unravel_index(finite.argmin(), w.shape)
        raise ValueError(f"w[{o}, {d}] is {w[o, d]}: only finite weights can be quantised.")
    return w


def with_bias(x, scale, b, O):
    """Return x, scale and b ready for a kernel; zeros for b if there is none."""
    if b is None:
        x, scale = kernel_arrays(x=x, scale=scale)
        return x, scale, np.zeros(O, x.dtype)
    require_shape("b", b, "O", O=O)
    return kernel_arrays(x=x, scale=scale, b=b)


def rounded(N, D):
    """Return memory for `round_to_16_bits` of N rows: t (N, G * GROUP), s (N, G), corrections (N, G, LANES)."""
    G = -(-D // GROUP)
    shapes = ((N, G * GROUP), np.int16), ((N, G), np.float32), ((N, G, LANES), np.int32)
    return [np.empty(*shape) for shape in shapes]


def multiply_by_blocks(x, O, floats, matmul, y):
    """y = x w^T, where floats(rows) are some rows of w (O, D)."""
    for first in range(0, O, _BLOCK):
        rows = slice(first, min(first + _BLOCK, O))
        part = np.empty((len(x), rows.stop - first), x.dtype)
        matmul(x, floats(rows).T, out=part)
        y[:, rows] = part


def gradient_by_blocks(dy, D, floats):
    """Return dx = dy w, where floats(rows) are some rows of w (O, D)."""
    dx = np.zeros((len(dy), D), dy.dtype)
    for first in range(0, dy.shape[1], _BLOCK):
        rows = slice(first, first + _BLOCK)
        dx += dy[:, rows] @ floats(rows)
    return dx


def sum_of_rows(dy):
    """Return db (O,) for dy (N, O)."""
    db = np.empty(dy.shape[1], dy.dtype)
    column_sums(dy, db)
    return db


@njit(**ELEMENTWISE)
def _quantise(w, tiny, q, scale):
    O, D = w.shape
    zero, top = w.dtype.type(0), w.dtype.type(127)
    for o in prange(O):
        largest = zero
        for d in range(D):
            size = abs(w[o, d])
            largest = size if size > largest else largest
        factor = largest / top
        usable = factor >= tiny  # below, 1 / factor could be infinite
        inverse = top / largest if usable else zero
        for d in range(D):
            q[o, d] = np.int8(np.rint(w[o, d] * inverse))
        scale[o] = factor if usable else zero


@njit(**ELEMENTWISE)
def _forward(x, q, scale, b, t, s, corrections, y):
    O, D = q.shape
    N, whole = len(x), D // GROUP
    for n in range(N):
        round_to_16_bits(x[n], t[n], s[n], corrections[n])
    for o in prange(O):
        row = q[o]
        for n in range(N):
            total = dot_int8(row, scale, t[n], s[n], corrections[n], whole)
            if whole * GROUP < D:
                rest = np.int32(0)
                for d in range(whole * GROUP, D):
                    rest += np.int32(row[d]) * np.int32(t[n, d])
                total += s[n, whole] * np.float32(rest)
            y[n, o] = scale[o] * total + b[o]
