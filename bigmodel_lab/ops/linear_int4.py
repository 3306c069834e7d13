"""A linear layer whose weights are kept in 4 bits, two in a byte, with one factor for each 64 weights of an output.

    n[o, d] = 8 + round(w[o, d] / scale[o, g]),    scale[o, g] = max |w[o, d]| / 7 over the group g = d // 64 of d

    |w[o, d] - scale[o, g] (n[o, d] - 8)| <= scale[o, g] / 2,    y[n, o] = sum_d scale[o, g] (n[o, d] - 8) x[n, d] + b[o]

With only 15 steps from end to end one factor for a whole row would be too coarse: its largest weight sets the step for all.
With the factors a weight takes 4.5 bits (float32), a seventh of float32's.

Source: Dettmers and Zettlemoyer (2023), arXiv:2212.09720, sections 2.2 and 4 for groups ("blocks"). Timed in lab L01.
Shapes: N = rows of x, D = width in, O = width out, G = D / 64 rounded up; the last group is filled up with zeros.

The 32 bytes of a group, so that 16 neighbouring weights come out of 16 neighbouring words: byte 2 i holds weight i in its low
four bits and weight i + 16 in its high ones, byte 2 i + 1 the weights i + 32 and i + 48, for i = 0 ... 15.

What is said in `linear_int8` about few and many rows, threads, NaN and infinity holds here too.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE
from bigmodel_lab.ops._packed import GROUP, dot_int4, round_to_16_bits
from bigmodel_lab.ops.linear_int8 import (
    _FEW,
    gradient_by_blocks,
    multiply_by_blocks,
    require_finite_matrix,
    rounded,
    sum_of_rows,
    with_bias,
)


def quantise_int4(w):
    """Round the matrix `w` (O, D), float32 or float64, to 4 bits.

    Returns
    -------
    packed : uint8 array (O, 32 G)   two weights in a byte, in the order that is told above
    scale : float array (O, G)       of the dtype of w; the error bound above holds up to rounding

    A group whose largest number is below 1e-37 (float64: 1e-306) becomes 0. Raises ValueError for NaN or infinity in `w`.
    """
    w = require_finite_matrix(w)
    G = -(-w.shape[1] // GROUP)
    packed = np.empty((len(w), G * GROUP // 2), np.uint8)
    scale = np.empty((len(w), G), w.dtype)
    _quantise(w, np.finfo(w.dtype).tiny, packed, scale)
    return packed, scale


def dequantise_int4(packed, scale, width: int):
    """Return the weights, float (O, D) with D = `width`, of the dtype of `scale`.

    Raises ValueError if `packed` (O, 32 G) and `scale` (O, G) do not hold this width.
    """
    require_packed(packed, scale, width)
    (O, G), words = scale.shape, packed.reshape(*scale.shape, GROUP // 4, 2)
    weights = np.stack(
        [words[..., 0] & 15, words[..., 0] >> 4, words[..., 1] & 15, words[..., 1] >> 4], 2
    )
    weights = weights.reshape(O, G, GROUP).astype(np.int8) - np.int8(8)
    return (weights * scale[..., None]).reshape(O, G * GROUP)[:, :width]


def require_packed(packed, scale, D):
    """Check that `packed` and `scale` belong together and hold rows of D weights; return the number of rows."""
    O, bytes_ = require_shape("packed", packed, "O M").values()
    if packed.dtype != np.uint8:
        raise TypeError(f"packed must be uint8, got {packed.dtype}: quantise_int4 makes it.")
    G = -(-D // GROUP)
    if bytes_ != G * GROUP // 2:
        raise ValueError(
            f"packed has M={bytes_} bytes a row: a row of D={D} weights is {G} groups of {GROUP}, {G * GROUP // 2} bytes."
        )
    require_shape("scale", scale, "O G", O=O, G=G)
    return O


def linear_int4(x, packed, scale, b=None, *, matmul=np.matmul):
    """Multiply each row of `x` by the matrix that `packed` and `scale` stand for, and add `b`.

    Parameters
    ----------
    x : float array (N, D)
    packed : uint8 array (O, 32 G)   as `quantise_int4` returns it
    scale : float array (O, G)
    b : float array (O,) or None
    matmul : function                (a, b, out=...), for many rows; another one's BLAS if NumPy's should not be used

    Returns
    -------
    y : float array (N, O)           same dtype as `x`
    cache : tuple                    keeps packed, scale, D and whether there was a b, not x

    Raises ValueError if the shapes do not fit, TypeError unless x, scale and b share float32 or float64 and packed is uint8.
    """
    N, D = require_shape("x", x, "N D").values()
    O = require_packed(packed, scale, D)
    has_bias = b is not None
    x, scale, b = with_bias(x, scale, b, O)
    y = np.empty((N, O), x.dtype)
    if N <= _FEW and x.dtype == np.float32:
        _forward(x, np.ascontiguousarray(packed), scale, b, *rounded(N, D), y)
    else:
        multiply_by_blocks(
            x, O, lambda rows: dequantise_int4(packed[rows], scale[rows], D), matmul, y
        )
        y += b
    return y, (packed, scale, D, has_bias)


def linear_int4_backward(dy, cache):
    """Return (dx, db) for the upstream gradient `dy` (N, O) and what `linear_int4` kept; db is None without a bias."""
    packed, scale, D, has_bias = cache
    require_shape("dy", dy, "N O", O=len(packed))
    dy, scale = kernel_arrays(dy=dy, scale=scale)
    dx = gradient_by_blocks(dy, D, lambda rows: dequantise_int4(packed[rows], scale[rows], D))
    return dx, sum_of_rows(dy) if has_bias else None


@njit(**ELEMENTWISE)
def _quantise(w, tiny, packed, scale):
    (O, G), D = scale.shape, w.shape[1]
    zero, top = w.dtype.type(0), w.dtype.type(7)
    for o in prange(O):
        n = np.empty(GROUP, np.uint8)
        for g in range(G):
            largest = zero
            for d in range(g * GROUP, min(D, (g + 1) * GROUP)):
                size = abs(w[o, d])
                largest = size if size > largest else largest
            factor = largest / top
            usable = factor >= tiny  # below, 1 / factor could be infinite
            inverse = top / largest if usable else zero
            for j in range(GROUP):
                d = g * GROUP + j
                n[j] = np.uint8(8 + np.int64(np.rint(w[o, d] * inverse))) if d < D else np.uint8(8)
            scale[o, g] = factor if usable else zero
            quarter, first = GROUP // 4, g * GROUP // 2
            for i in range(quarter):
                packed[o, first + 2 * i] = n[i] | (n[i + quarter] << 4)
                packed[o, first + 2 * i + 1] = n[i + 2 * quarter] | (n[i + 3 * quarter] << 4)


@njit(**ELEMENTWISE)
def _forward(x, packed, scale, b, t, s, corrections, y):
    (O, G), N = scale.shape, len(x)
    for n in range(N):
        round_to_16_bits(x[n], t[n], s[n], corrections[n])
    for o in prange(O):
        row, factors = packed[o], scale[o]
        for n in range(N):
            y[n, o] = dot_int4(row, factors, t[n], s[n], corrections[n], G) + b[o]
