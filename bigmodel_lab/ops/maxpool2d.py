"""The largest value in each window of an image, forward and backward.

    y[n, c, u, v] = max_{i, j} x[n, c, s u + i - p, s v + j - p]                    (pixels outside the image do not count)

    dx[n, c, h, w] = the sum of dy[n, c, u, v] over the windows whose largest value stands at (h, w)

Where a value occurs more than once in a window the first counts, in the order of reading; a NaN counts as larger than any
number, and of several the last is meant. All this is as in torch. s is the stride, p the padding.
Source: Riesenhuber and Poggio (1999), Nature Neuroscience 2:1019-1025, for the idea; Ranzato, Huang, Boureau and LeCun
(2007), CVPR, for its place in networks that learn. Derived in chapter 7.
Shapes: N images, C channels, H x W pixels in, U x V pixels out, a window of I x J.

The backward pass needs to know which pixel it was, and not the pixels: one byte for each output, its place in the window
(four bytes for windows of more than 256 pixels). torch keeps eight, its place in the image, and x itself.

Each channel of each image is the work of one thread, so results have the same bits with any number of threads.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE
from bigmodel_lab.ops._window import n_windows, pair


def maxpool2d(x, kernel, stride=None, padding=0):
    """Return the largest value in each window of `kernel` pixels.

    Parameters
    ----------
    x : float array (N, C, H, W)
    kernel : int >= 1, or a pair     size of the window, I x J: (high, wide)
    stride : int >= 1, or a pair     pixels from one window to the next; as `kernel` if not given: no overlap
    padding : int >= 0, or a pair    pixels that the windows may overhang at each side, at most half of `kernel`

    Returns
    -------
    y : float array (N, C, U, V)     U = (H + 2 p - I) // s + 1, V likewise; same dtype as `x`
    cache : tuple                    keeps the place of each largest value in its window, uint8 (N, C, U, V); not x

    Raises ValueError for sizes that do not fit, TypeError unless `x` is float32 or float64.
    """
    N, C, H, W = require_shape("x", x, "N C H W").values()
    (x,) = kernel_arrays(x=x)
    kernel = pair("kernel", kernel, 1)
    stride = kernel if stride is None else pair("stride", stride, 1)
    padding = pair("padding", padding, 0)
    for k, p in zip(kernel, padding, strict=True):
        if p > k // 2:
            raise ValueError(
                f"padding={p} is more than half of the window, {k}: some windows would see no pixel at all."
            )
    U, V = n_windows((H, W), kernel, stride, padding)
    y = np.empty((N, C, U, V), x.dtype)
    place = np.empty(y.shape, np.uint8 if kernel[0] * kernel[1] <= 256 else np.int32)
    sizes = (*kernel, *stride, *padding)
    kernel_of_choice = _forward_2x2 if sizes == (2, 2, 2, 2, 0, 0) else _forward
    kernel_of_choice(_planes(x), sizes, _planes(y), _planes(place))
    return y, (place, x.shape, kernel, stride, padding)


def maxpool2d_backward(dy, cache):
    """Return dx for the upstream gradient `dy` (N, C, U, V) and what `maxpool2d` kept."""
    place, shape, kernel, stride, padding = cache
    require_shape("dy", dy, "N C U V", **dict(zip("NCUV", place.shape, strict=True)))
    (dy,) = kernel_arrays(dy=dy)
    dx = np.empty(shape, dy.dtype)
    _backward(_planes(dy), _planes(place), (*kernel, *stride, *padding), _planes(dx))
    return dx


def _planes(a):
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])


@njit(error_model="numpy")
def _keep_larger(row, step, tap, best, place):
    """Where row[step k] is larger than best[k], or NaN, put it there and `tap` into place[k]."""
    for k in range(best.size):
        value = row[k * step]
        larger = (value > best[k]) | (value != value)
        best[k] = value if larger else best[k]
        place[k] = tap if larger else place[k]


@njit(**ELEMENTWISE)
def _forward(x, sizes, y, place):
    I, J, sh, sw, ph, pw = sizes
    _, H, W = x.shape
    _, U, V = y.shape
    for m in prange(len(x)):
        taps = np.empty(V, np.int32)
        for u in range(U):
            best = y[m, u]
            top = max(0, ph - u * sh)  # the first rows of the window may lie above the image
            for v in range(V):
                best[v] = -np.inf
                taps[v] = top * J + max(0, pw - v * sw)  # what remains if all are -inf
            for i in range(top, min(I, H + ph - u * sh)):
                row = x[m, u * sh + i - ph]
                for j in range(J):
                    # the windows whose column j lies inside the image
                    first, end = max(0, (pw - j + sw - 1) // sw), min(V, (W - 1 - j + pw) // sw + 1)
                    if first < end:
                        pixels = row[first * sw + j - pw :]
                        tap = np.int32(i * J + j)
                        if sw == 1:  # a stride known to the compiler makes vector instructions
                            _keep_larger(pixels, 1, tap, best[first:end], taps[first:end])
                        elif sw == 2:
                            _keep_larger(pixels, 2, tap, best[first:end], taps[first:end])
                        else:
                            _keep_larger(pixels, sw, tap, best[first:end], taps[first:end])
            out = place[m, u]
            for v in range(V):
                out[v] = taps[v]


@njit(error_model="numpy")
def _larger(value, tap, best, place):
    larger = (value > best) | (value != value)
    return (value if larger else best), (tap if larger else place)


@njit(**ELEMENTWISE)
def _forward_2x2(x, _sizes, y, place):
    """What nearly every network asks for, with all four pixels in registers: 2 to 8 times as fast as `_forward`."""
    _, U, V = y.shape
    for m in prange(len(x)):
        for u in range(U):
            upper, lower, out, where = x[m, 2 * u], x[m, 2 * u + 1], y[m, u], place[m, u]
            for v in range(V):
                best, tap = _larger(upper[2 * v + 1], np.uint8(1), upper[2 * v], np.uint8(0))
                best, tap = _larger(lower[2 * v], np.uint8(2), best, tap)
                out[v], where[v] = _larger(lower[2 * v + 1], np.uint8(3), best, tap)


@njit(**ELEMENTWISE)
def _backward(dy, place, sizes, dx):
    I, J, sh, sw, ph, pw = sizes
    M, H, W = dx.shape
    _, U, V = dy.shape
    offset = np.empty(
        I * J, np.int64
    )  # of a tap from the window's first pixel, in a plane laid out flat
    for t in range(I * J):
        offset[t] = t // J * W + t % J
    for m in prange(M):
        plane = dx[m].reshape(H * W)
        plane[:] = dx.dtype.type(0)
        for u in range(U):
            row, where = dy[m, u], place[m, u]
            for v in range(V):
                plane[(u * sh - ph) * W + v * sw - pw + offset[where[v]]] += row[v]
