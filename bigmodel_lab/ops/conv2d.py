"""Convolution of images with a bank of filters, forward and backward.

    y[n, o, u, v] = b[o] + sum_{c, i, j} w[o, c, i, j] x[n, c, s u + i - p, s v + j - p]       (x is 0 outside the image)

    dw[o, c, i, j] = sum_{n, u, v} dy[n, o, u, v] x[n, c, s u + i - p, s v + j - p],    db[o] = sum_{n, u, v} dy[n, o, u, v]
    dx[n, c, s u + i - p, s v + j - p] = the sum of w[o, c, i, j] dy[n, o, u, v] over all that lead there

Strictly a correlation, as the filter is not turned round; every framework calls it a convolution. s is the stride, p the
padding, each of which may differ between the two directions.
Source: LeCun et al. (1989), Neural Computation 1:541-551; as matrix products: Chellapilla, Puri and Simard (2006),
"High performance convolutional neural networks for document processing". Derived in chapter 7.
Shapes: N images, C channels in, O channels out, H x W pixels in, U x V out, I x J taps of a filter.

With a column for each position (u, v) and a row for each tap (c, i, j), the windows of an image are a matrix and y is
w (O, C I J) times it. That matrix repeats every pixel I J times, so it is never held whole: a block of its columns that
fits the processor's nearer cache is filled, multiplied by the small products of `_tile`, and overwritten by the next.
Filling is the art. The padded image is laid out so that a row of the matrix is one piece of it: with stride 1, the value of
tap (i, j) at position (u, v) lies at i P + j + (u P + v), P being the length of a padded row. So a row is copied in one
go, at the price of P - V columns for every row of y that compute nothing of use. The zeros to the right of a row are those
to the left of the next. With stride s the image is first dealt out to s s smaller ones, in which the same holds.

Measured (benchmarks/conv_cells.py, one thread), forward, 64 images of 32 x 14 x 14 into 64 channels, 3 x 3, in times that of
torch, whose oneDNN has code of its own for every shape: this 1.25; the whole matrix and NumPy's BLAS 1.7; nested loops,
compiled, 45. Both passes together take 1.2 to 1.4 times as long as torch's, and about half as long for images with one
channel. So a deep convolutional network is faster with torch, and what is lost is little.

NaN or infinity in x reaches those y whose window holds it; in w, all y of that filter and all of dx; in x or dy, dw too,
where it may reach any tap of the channels concerned. Images are shared out to threads, dw and db are first summed over
groups of images that do not depend on the number of threads: results have the same bits with any.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE
from bigmodel_lab.ops._reduce import column_sums
from bigmodel_lab.ops._tile import ROWS, add_product, columns, product
from bigmodel_lab.ops._window import n_windows, pair

_BLOCK_BYTES = 2**19  # of the matrix of windows: half of the second cache of a core today
_PARTS = 16  # groups of images, each with a sum of dw of its own


def conv2d(x, w, b=None, stride=1, padding=0):
    """Slide the filters `w` over the images `x` and add `b`.

    Parameters
    ----------
    x : float array (N, C, H, W)      C >= 1
    w : float array (O, C, I, J)      O, I, J >= 1
    b : float array (O,) or None
    stride : int >= 1, or a pair      pixels from one window to the next: (vertical, horizontal)
    padding : int >= 0, or a pair     zeros added on each side: (above and below, left and right)

    Returns
    -------
    y : float array (N, O, U, V)      U = (H + 2 p - I) // s + 1, V likewise; same dtype as `x`
    cache : tuple                     keeps x and w themselves; the matrix of windows is filled again

    Raises ValueError if channels or sizes do not fit, TypeError unless all are float32 or all float64.
    """
    N, C, H, W = require_shape("x", x, "N C H W").values()
    O, _, I, J = require_shape("w", w, "O C I J", C=C).values()
    for name, size in {"C": C, "O": O, "I": I, "J": J}.items():
        require_in_range(f"the length {name} of w", size, 1)
    if b is None:
        x, w = kernel_arrays(x=x, w=w)
        bias = np.zeros(O, x.dtype)
    else:
        require_shape("b", b, "O", O=O)
        x, w, bias = kernel_arrays(x=x, w=w, b=b)
    stride, padding = pair("stride", stride, 1), pair("padding", padding, 0)
    U, V = n_windows((H, W), (I, J), stride, padding)
    y = np.empty((N, O, U, V), x.dtype)
    layout = _layout(x.shape, (I, J), stride, padding, (U, V))
    rows = np.zeros((_up(O, ROWS), C * I * J), x.dtype)
    rows[:O] = w.reshape(O, -1)
    _forward(x, rows, bias, _starts(C, I, J, layout), layout, y)
    return y, (x, w, b is not None, stride, padding)


def conv2d_backward(dy, cache, *, need_dx: bool = True):
    """Return (dx, dw, db) for the upstream gradient `dy` (N, O, U, V) and what `conv2d` kept.

    db is None if there was no bias. With need_dx=False dx is None, which spares about half of the work where `x` is data.
    Raises ValueError if `dy` has another shape than y, TypeError if another dtype.
    """
    x, w, has_bias, stride, padding = cache
    (N, C, H, W), (O, _, I, J) = x.shape, w.shape
    U, V = n_windows((H, W), (I, J), stride, padding)
    require_shape("dy", dy, "N O U V", N=N, O=O, U=U, V=V)
    dy, _ = kernel_arrays(dy=dy, x=x)
    layout = _layout(x.shape, (I, J), stride, padding, (U, V))
    K, parts = C * I * J, max(1, min(_PARTS, N))
    taps = np.zeros((O, _up(K, ROWS)), x.dtype)
    taps[:, :K] = w.reshape(O, K)
    dx = np.empty_like(x) if need_dx else x[:0]
    dw_parts = np.zeros((parts, _up(K, ROWS), _up(O, columns(x.itemsize))), x.dtype)
    db_parts = np.zeros((parts, O), x.dtype)
    _backward(dy, x, taps, _starts(C, I, J, layout), layout, need_dx, dx, dw_parts, db_parts)
    summed, db = np.empty(dw_parts[0].size, x.dtype), np.empty(O, x.dtype)
    column_sums(dw_parts.reshape(parts, summed.size), summed)
    column_sums(db_parts, db)
    dw = summed.reshape(_up(K, ROWS), -1)[:K, :O].T.reshape(w.shape)
    return dx if need_dx else None, np.ascontiguousarray(dw), db if has_bias else None


def _up(n, step):
    return -(-n // step) * step


def _layout(image, kernel, stride, padding, out):
    """Return (strides, paddings, rows, P, plane, U, V, columns in a block): how images are laid out for the kernels.

    There are C sh sw planes of `rows` times P numbers: plane (c, a, b) holds the padded pixels (a + sh k, b + sw l). The
    zeros that follow make up `plane`: they are what a window at the end of the last row finds to its right.
    """
    (_, C, _, W), (I, J), (sh, sw), (ph, pw), (U, V) = image, kernel, stride, padding, out
    rows, P = U + (I - 1) // sh, -(-max(W + pw, sw * V) // sw)
    plane = rows * P + (J - 1) // sw
    most = max(64, min(_BLOCK_BYTES // (4 * C * I * J), 512))
    block = _up(-(-U * P // -(-U * P // most)), 32)  # blocks of nearly equal size
    return sh, sw, ph, pw, rows, P, plane, U, V, block


def _starts(C, I, J, layout):
    """Return where in the planes each row (c, i, j) of the matrix of windows begins, an int64 array (C I J,)."""
    sh, sw, _, _, _, P, plane = layout[:7]
    c, i, j = np.ogrid[:C, :I, :J]
    return (((c * sh + i % sh) * sw + j % sw) * plane + i // sh * P + j // sw).ravel()


@njit(error_model="numpy")
def _lay_out(x, layout, planes):
    """Copy an image (C, H, W) into its planes, zeros around it."""
    sh, sw, ph, pw, rows, P, size = layout[:7]
    C, H, W = x.shape
    planes[:] = x.dtype.type(0)
    for c in range(C):
        for h in range(H):
            if (h + ph) // sh < rows:
                row = x[c, h]
                for a in range(sw):  # the pixels that fall into the same plane
                    first = (a - pw) % sw
                    plane = (c * sh + (h + ph) % sh) * sw + a
                    start = plane * size + (h + ph) // sh * P + (first + pw) // sw
                    n = max(0, (W - first + sw - 1) // sw)
                    out = planes[start : start + n]
                    for k in range(n):
                        out[k] = row[first + k * sw]


@njit(error_model="numpy")
def _take_back(planes, layout, x):
    """The opposite of `_lay_out`; a pixel that no window reached is 0."""
    sh, sw, ph, pw, rows, P, size = layout[:7]
    C, H, W = x.shape
    zero = x.dtype.type(0)
    for c in range(C):
        for h in range(H):
            row = x[c, h]
            row[:] = zero
            if (h + ph) // sh < rows:
                for a in range(sw):
                    first = (a - pw) % sw
                    plane = (c * sh + (h + ph) % sh) * sw + a
                    start = plane * size + (h + ph) // sh * P + (first + pw) // sw
                    n = max(0, (W - first + sw - 1) // sw)
                    got = planes[start : start + n]
                    for k in range(n):
                        row[first + k * sw] = got[k]


@njit(error_model="numpy")
def _windows(planes, starts, first, n, out):
    """Fill columns first ... first + n of the matrix of windows; what is left of `out` to the right becomes 0."""
    zero = planes.dtype.type(0)
    for k in range(len(starts)):
        begin = starts[k] + first
        source, row = planes[begin : begin + n], out[k]
        for q in range(n):
            row[q] = source[q]
        for q in range(n, row.size):
            row[q] = zero


@njit(**ELEMENTWISE)
def _forward(x, w, b, starts, layout, y):
    P, _, U, V, block = layout[5:]
    O, K = y.shape[1], w.shape[1]
    step = columns(x.itemsize)
    for n in prange(len(x)):
        planes = np.empty(x.shape[1] * layout[0] * layout[1] * layout[6], x.dtype)
        _lay_out(x[n], layout, planes)
        wide = min(block, (U * P + step - 1) // step * step)
        windows, sums = np.empty((K, wide), x.dtype), np.empty((len(w), wide), x.dtype)
        for first in range(0, U * P, block):
            m = min(block, U * P - first)
            _windows(planes, starts, first, m, windows)
            filled = (m + step - 1) // step * step
            product(w, windows[:, :filled], sums[:, :filled])
            for u in range(first // P, (first + m - 1) // P + 1):  # rows of y in this block
                begin, end = max(first, u * P), min(first + m, u * P + V)
                for o in range(O):
                    shift = b[o]
                    if begin < end:
                        source = sums[o, begin - first : end - first]
                        row = y[n, o, u, begin - u * P : end - u * P]
                        for q in range(row.size):
                            row[q] = source[q] + shift


@njit(**ELEMENTWISE)
def _backward(dy, x, w, starts, layout, need_dx, dx, dw_parts, db_parts):
    P, _, U, V, block = layout[5:]
    N, O, K = len(dy), dy.shape[1], len(starts)
    parts = len(dw_parts)
    step = columns(x.itemsize)
    zero = x.dtype.type(0)
    for part in prange(parts):
        planes = np.empty(x.shape[1] * layout[0] * layout[1] * layout[6], x.dtype)
        back = np.empty_like(planes)
        length = (U * P + step - 1) // step * step
        wide = min(block, length)
        windows = np.empty((w.shape[1], wide), x.dtype)  # also of dx
        across = np.empty(
            (O, (U * P + block - 1) // block * wide), x.dtype
        )  # dy, a row as in planes
        down = np.zeros((across.shape[1], dw_parts.shape[2]), x.dtype)  # the same turned
        for n in range(part * N // parts, (part + 1) * N // parts):
            across[:] = zero
            for o in range(O):
                total = 0.0
                for u in range(U):
                    source, row = dy[n, o, u], across[o, u * P : u * P + V]
                    for v in range(V):
                        row[v] = source[v]
                        total += source[v]
                        down[u * P + v, o] = source[v]
                db_parts[part, o] += total
            _lay_out(x[n], layout, planes)
            back[:] = zero
            for first in range(0, U * P, block):
                m = min(block, U * P - first)
                _windows(planes, starts, first, m, windows[:K])
                add_product(windows[:, :m], down[first : first + m], dw_parts[part])
                if need_dx:
                    filled = (m + step - 1) // step * step
                    product(w.T, across[:, first : first + filled], windows[:, :filled])
                    for k in range(K):
                        begin = starts[k] + first
                        row, source = back[begin : begin + m], windows[k]
                        for q in range(m):
                            row[q] += source[q]
            if need_dx:
                _take_back(back, layout, dx[n])
