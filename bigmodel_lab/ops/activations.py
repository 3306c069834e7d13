"""Activation functions, element by element, forward and backward: relu, sigmoid, tanh and gelu.

    relu(x) = max(x, 0)                    dx = dy [y > 0]
    sigmoid(x) = 1 / (1 + e^-x)            dx = dy y (1 - y)
    tanh(x)                                dx = dy (1 - y^2)
    gelu(x) = x Phi(x)                     dx = dy (Phi(x) + x phi(x))
    gelu, tanh form: x sigmoid(2 u)        dx = dy (s + 2 x s (1 - s) u'),    s = sigmoid(2 u)
        u = sqrt(2 / pi) (x + 0.044715 x^3)

Phi and phi are the normal distribution and its density. Since (1 + tanh u) / 2 = sigmoid(2 u), the tanh form is the
printed 0.5 x (1 + tanh u), with fewer digits lost where 1 + tanh u nearly cancels.
Source: Nair and Hinton (2010), ICML, for relu; Hendrycks and Gimpel (2016), arXiv:1606.08415, for both forms of gelu.
Derived in chapter 5.

All take an array of any shape, empty too, of float32 or float64, and return y, its like, and a cache. relu, sigmoid and
tanh keep y for the backward pass: the next layer needs y anyway, so x can be freed. gelu is not one-to-one and keeps x.
Do not change y (for gelu, x) in place before the backward pass.

NaN gives NaN in y and, at that element alone, in dx (relu: passes dy on). gelu at -inf is NaN, as -inf * 0 is, and so is
its dx at both infinities. The work is cut into pieces of a fixed number of elements, so that results have the same bits
with any number of threads.
"""

import math

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_choice, require_shape
from bigmodel_lab.ops import _math
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE

_PIECE = 16384  # elements: 64 KB of float32, enough work to be worth handing to a thread
_SQRT_2_OVER_PI = math.sqrt(2 / math.pi)
_SQRT_1_OVER_2PI = math.sqrt(0.5 / math.pi)


def relu(x):
    """Return max(x, 0) and a cache that keeps y. The gradient at exactly 0 is taken to be 0."""
    return _forward(_relu, x)


def relu_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `relu` kept."""
    return _backward(_relu_backward, dy, *cache)


def sigmoid(x):
    """Return 1 / (1 + e^-x) and a cache that keeps y."""
    return _forward(_sigmoid, x)


def sigmoid_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `sigmoid` kept."""
    return _backward(_sigmoid_backward, dy, *cache)


def tanh(x):
    """Return the hyperbolic tangent of x and a cache that keeps y."""
    return _forward(_tanh, x)


def tanh_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `tanh` kept."""
    return _backward(_tanh_backward, dy, *cache)


def gelu(x, approximate: str = "none"):
    """Return x Phi(x), or with approximate="tanh" the tanh form of GPT-2, and a cache that keeps x, not Phi(x).

    The two forms differ by at most 4.8e-4. Raises ValueError for another value of `approximate`.
    """
    require_choice("approximate", approximate, ("none", "tanh"))
    (x,) = kernel_arrays(x=x)
    y, _ = _forward(_gelu if approximate == "none" else _gelu_tanh, x)
    return y, (x, approximate)


def gelu_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `gelu` kept; Phi(x), or s, is computed again."""
    x, approximate = cache
    return _backward(_gelu_backward if approximate == "none" else _gelu_tanh_backward, dy, x)


def _forward(kernel, x):
    (x,) = kernel_arrays(x=x)
    y = np.empty_like(x)
    kernel(x.reshape(-1), y.reshape(-1))
    return y, (y,)


def _backward(kernel, dy, kept):
    letters = [f"d{i}" for i in range(kept.ndim)]
    require_shape("dy", dy, " ".join(letters), **dict(zip(letters, kept.shape, strict=True)))
    dy, _ = kernel_arrays(dy=dy, x=kept)
    dx = np.empty_like(kept)
    kernel(dy.reshape(-1), kept.reshape(-1), dx.reshape(-1))
    return dx


@njit(error_model="numpy")
def _piece(a, c):
    return a[c * _PIECE : (c + 1) * _PIECE]


@njit(error_model="numpy")
def _n_pieces(a):
    return (a.size + _PIECE - 1) // _PIECE


@njit(**ELEMENTWISE)
def _relu(x, y):
    zero = x.dtype.type(0)
    for c in prange(_n_pieces(x)):
        xc, yc = _piece(x, c), _piece(y, c)
        for i in range(xc.size):
            # this way round NaN, which is never <= 0, stays NaN
            yc[i] = zero if xc[i] <= zero else xc[i]


@njit(**ELEMENTWISE)
def _relu_backward(dy, y, dx):
    zero = y.dtype.type(0)
    for c in prange(_n_pieces(y)):
        dyc, yc, dxc = _piece(dy, c), _piece(y, c), _piece(dx, c)
        for i in range(yc.size):
            dxc[i] = zero if yc[i] <= zero else dyc[i]


@njit(**ELEMENTWISE)
def _sigmoid(x, y):
    for c in prange(_n_pieces(x)):
        xc, yc = _piece(x, c), _piece(y, c)
        for i in range(xc.size):
            yc[i] = _math.sigmoid(xc[i])


@njit(**ELEMENTWISE)
def _sigmoid_backward(dy, y, dx):
    one = y.dtype.type(1)
    for c in prange(_n_pieces(y)):
        dyc, yc, dxc = _piece(dy, c), _piece(y, c), _piece(dx, c)
        for i in range(yc.size):
            dxc[i] = dyc[i] * yc[i] * (one - yc[i])


@njit(**ELEMENTWISE)
def _tanh(x, y):
    for c in prange(_n_pieces(x)):
        xc, yc = _piece(x, c), _piece(y, c)
        for i in range(xc.size):
            yc[i] = _math.tanh(xc[i])


@njit(**ELEMENTWISE)
def _tanh_backward(dy, y, dx):
    one = y.dtype.type(1)
    for c in prange(_n_pieces(y)):
        dyc, yc, dxc = _piece(dy, c), _piece(y, c), _piece(dx, c)
        for i in range(yc.size):
            dxc[i] = dyc[i] * (one - yc[i] * yc[i])


@njit(**ELEMENTWISE)
def _gelu(x, y):
    for c in prange(_n_pieces(x)):
        xc, yc = _piece(x, c), _piece(y, c)
        for i in range(xc.size):
            yc[i] = xc[i] * _math.normal_cdf(xc[i])[0]


@njit(**ELEMENTWISE)
def _gelu_backward(dy, x, dx):
    density = x.dtype.type(_SQRT_1_OVER_2PI)
    for c in prange(_n_pieces(x)):
        dyc, xc, dxc = _piece(dy, c), _piece(x, c), _piece(dx, c)
        for i in range(xc.size):
            below, e = _math.normal_cdf(xc[i])
            dxc[i] = dyc[i] * (below + xc[i] * density * e)


@njit(**ELEMENTWISE)
def _gelu_tanh(x, y):
    one, a, b = x.dtype.type(1), x.dtype.type(2 * _SQRT_2_OVER_PI), x.dtype.type(0.044715)
    for c in prange(_n_pieces(x)):
        xc, yc = _piece(x, c), _piece(y, c)
        for i in range(xc.size):
            yc[i] = xc[i] * _math.sigmoid(a * xc[i] * (one + b * xc[i] * xc[i]))


@njit(**ELEMENTWISE)
def _gelu_tanh_backward(dy, x, dx):
    one, a, b = x.dtype.type(1), x.dtype.type(2 * _SQRT_2_OVER_PI), x.dtype.type(0.044715)
    b3 = x.dtype.type(3 * 0.044715)
    for c in prange(_n_pieces(x)):
        dyc, xc, dxc = _piece(dy, c), _piece(x, c), _piece(dx, c)
        for i in range(xc.size):
            square = xc[i] * xc[i]
            s, slope = _math.sigmoid_and_slope(a * xc[i] * (one + b * square))
            dxc[i] = dyc[i] * (s + xc[i] * slope * a * (one + b3 * square))
