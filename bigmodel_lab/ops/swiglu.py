"""silu, and swiglu: silu of one array times another, forward and backward, element by element.

    silu(a) = a s,    s = 1 / (1 + e^-a)          da = dy (s + a s (1 - s))
    swiglu(a, b) = silu(a) b                      da = dy b (s + a s (1 - s)),    db = dy silu(a)

In a feed-forward block a = x w1^T is called the gate and b = x w3^T the value; the block ends with linear(y, w2).
Source: Elfwing, Uchibe and Doya (2018), arXiv:1702.03118, for silu; Shazeer (2020), arXiv:2002.05202, eq. 6, for swiglu
(there Swish with beta = 1). Derived in chapter 9.

Arrays have any shape, empty too. The caches keep the arguments; s is computed again in the backward pass, which costs
less than to store and fetch it. Done one after the other, silu and the product would pass over memory 3 + 2 times
forward where swiglu passes 3 times. Do not change the arguments in place before the backward pass.

NaN gives NaN at that element alone. silu at -inf is NaN, as -inf * 0 is, and so is its gradient at both infinities. The
work is cut into pieces of a fixed number of elements, so results have the same bits with any number of threads.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops import _math
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE

_PIECE = 16384  # elements: 64 KB of float32


def silu(x):
    """Return x / (1 + e^-x), for a float array of any shape, and a cache that keeps x."""
    (x,) = kernel_arrays(x=x)
    y = np.empty_like(x)
    _silu(x.reshape(-1), y.reshape(-1))
    return y, (x,)


def silu_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `silu` kept."""
    (x,) = cache
    dy = _like("dy", dy, "x", x)
    dx = np.empty_like(x)
    _silu_backward(dy.reshape(-1), x.reshape(-1), dx.reshape(-1))
    return dx


def swiglu(a, b):
    """Return silu(a) * b and a cache that keeps a and b.

    Parameters
    ----------
    a : float array of any shape   the gate
    b : float array, its like      the value

    Raises ValueError if the shapes differ, TypeError unless both are float32 or both float64.
    """
    b = _like("b", b, "a", a)
    a, b = kernel_arrays(a=a, b=b)
    y = np.empty_like(a)
    _swiglu(a.reshape(-1), b.reshape(-1), y.reshape(-1))
    return y, (a, b)


def swiglu_backward(dy, cache):
    """Return (da, db) for the upstream gradient `dy` and what `swiglu` kept."""
    a, b = cache
    dy = _like("dy", dy, "a", a)
    da, db = np.empty_like(a), np.empty_like(b)
    _swiglu_backward(*(v.reshape(-1) for v in (dy, a, b, da, db)))
    return da, db


def _like(name, array, other_name, other):
    """Return `array` ready for a kernel, if it has the shape and dtype of `other`."""
    if isinstance(other, np.ndarray):
        letters = [f"d{i}" for i in range(other.ndim)]
        require_shape(
            name, array, " ".join(letters), **dict(zip(letters, other.shape, strict=True))
        )
    return kernel_arrays(**{name: array, other_name: other})[0]


@njit(error_model="numpy")
def _piece(a, c):
    return a[c * _PIECE : (c + 1) * _PIECE]


@njit(error_model="numpy")
def _n_pieces(a):
    return (a.size + _PIECE - 1) // _PIECE


@njit(**ELEMENTWISE)
def _silu(x, y):
    for c in prange(_n_pieces(x)):
        xc, yc = _piece(x, c), _piece(y, c)
        for i in range(xc.size):
            yc[i] = xc[i] * _math.sigmoid(xc[i])


@njit(**ELEMENTWISE)
def _silu_backward(dy, x, dx):
    for c in prange(_n_pieces(x)):
        dyc, xc, dxc = _piece(dy, c), _piece(x, c), _piece(dx, c)
        for i in range(xc.size):
            s, slope = _math.sigmoid_and_slope(xc[i])
            dxc[i] = dyc[i] * (s + xc[i] * slope)


@njit(**ELEMENTWISE)
def _swiglu(a, b, y):
    for c in prange(_n_pieces(a)):
        ac, bc, yc = _piece(a, c), _piece(b, c), _piece(y, c)
        for i in range(ac.size):
            yc[i] = ac[i] * _math.sigmoid(ac[i]) * bc[i]


@njit(**ELEMENTWISE)
def _swiglu_backward(dy, a, b, da, db):
    for c in prange(_n_pieces(a)):
        dyc, ac, bc = _piece(dy, c), _piece(a, c), _piece(b, c)
        dac, dbc = _piece(da, c), _piece(db, c)
        for i in range(ac.size):
            s, slope = _math.sigmoid_and_slope(ac[i])
            dac[i] = dyc[i] * bc[i] * (s + ac[i] * slope)
            dbc[i] = dyc[i] * ac[i] * s
