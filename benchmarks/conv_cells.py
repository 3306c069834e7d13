"""How fast are convolution, pooling and the recurrent cells beside torch and plain NumPy?

    python benchmarks/conv_cells.py            # about a minute; prints, and writes benchmarks/results/conv_cells.md
    python benchmarks/conv_cells.py --quick    # a few seconds, small sizes, one thread; prints only

Every case first checks that all its candidates agree, then times them in turns (see _harness.py for how and why).
"""

import sys

import _harness as harness  # first: it decides how the threads of the libraries below wait
import numpy as np
import torch
from _harness import Case

from bigmodel_lab import ops
from bigmodel_lab.ops.torch import backend

TORCH, OURS = backend("torch"), backend("numba")
AGREE = (
    1e-4  # relative to the largest value: sums of some thousand products in float32, in two orders
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def ours(op, op_backward, args, dy, *options):
    """Return a function that runs our forward and backward pass."""

    def run():
        y, cache = op(*args, *options)
        grads = op_backward(dy, cache)
        return y, *(grads if isinstance(grads, tuple) else (grads,))

    return run


def by_autograd(f, args, dy, *options):
    """Return a function that runs both passes of a function on tensors."""
    tensors = [torch.from_numpy(a).requires_grad_() for a in args]
    dy = torch.from_numpy(dy)

    def run():
        y = f(*tensors, *options)
        return y.detach(), *torch.autograd.grad(y, tensors, dy)

    return run


def numpy_conv2d(x, w, b, dy, s, p):
    """The whole matrix of windows, and the BLAS of NumPy."""
    (N, C, H, W), (O, _, I, J) = x.shape, w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (I, J), axis=(2, 3))[:, :, ::s, ::s]
    U, V = windows.shape[2:4]
    matrix = windows.transpose(0, 1, 4, 5, 2, 3).reshape(N, C * I * J, U * V)
    filters, dy = w.reshape(O, -1), dy.reshape(N, O, U * V)
    y = np.matmul(filters, matrix) + b[:, None]
    dw = np.matmul(dy, matrix.swapaxes(1, 2)).sum(0)
    back = np.matmul(filters.T, dy).reshape(N, C, I, J, U, V)
    dx = np.zeros_like(padded)
    for i, j in np.ndindex(I, J):
        dx[:, :, i : i + s * U : s, j : j + s * V : s] += back[:, :, i, j]
    dx = dx[:, :, p : p + H, p : p + W]
    return y.reshape(N, O, U, V), dx, dw.reshape(w.shape), dy.sum((0, 2))


def conv2d(N, C, H, O, I, s, p) -> Case:
    """Three products of 2 N O U V C I I: y, dx, dw."""
    x, w, b = normal(N, C, H, H), normal(O, C, I, I, seed=1) / I, normal(O, seed=2)
    dy = normal(*ops.conv2d(x, w, b, s, p)[0].shape, seed=3)
    candidates = {
        "ours": ours(ops.conv2d, ops.conv2d_backward, (x, w, b), dy, s, p),
        "torch": by_autograd(TORCH.conv2d, (x, w, b), dy, s, p),
        "numpy": lambda: numpy_conv2d(x, w, b, dy, s, p),
    }
    size = f"{N} x {C} x {H} x {H} -> {O}, {I} x {I}" + (f", stride {s}" if s > 1 else "")
    return Case("conv2d", size, candidates, 6 * dy.size * C * I * I, "GFLOP/s", AGREE)


def conv2d_forward(N, C, H, O, I, s, p) -> Case:
    """The forward pass alone, as when a trained network is used."""
    x, w, b = normal(N, C, H, H), normal(O, C, I, I, seed=1) / I, normal(O, seed=2)
    tensors = [torch.from_numpy(a) for a in (x, w, b)]

    def numpy():
        windows = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
        windows = np.lib.stride_tricks.sliding_window_view(windows, (I, I), axis=(2, 3))
        windows = windows[:, :, ::s, ::s].transpose(0, 1, 4, 5, 2, 3)
        matrix = windows.reshape(N, C * I * I, -1)
        y = np.matmul(w.reshape(O, -1), matrix) + b[:, None]
        return (y.reshape(N, O, *windows.shape[4:]),)

    candidates = {
        "ours": lambda: ops.conv2d(x, w, b, s, p)[:1],
        "torch": lambda: (TORCH.conv2d(*tensors, s, p),),
        "numpy": numpy,
    }
    work = 2 * ops.conv2d(x, w, b, s, p)[0].size * C * I * I
    size = f"{N} x {C} x {H} x {H} -> {O}, {I} x {I}" + (f", stride {s}" if s > 1 else "")
    return Case("conv2d, forward only", size, candidates, work, "GFLOP/s", AGREE)


def maxpool2d(N, C, H, k, s, p) -> Case:
    """Forward: reads x, writes y and a byte a pixel of y; backward: reads dy and those bytes, writes dx."""
    x = normal(N, C, H, H)
    dy = normal(*ops.maxpool2d(x, k, s, p)[0].shape, seed=1)
    candidates = {
        "ours": ours(ops.maxpool2d, ops.maxpool2d_backward, (x,), dy, k, s, p),
        "torch": by_autograd(TORCH.maxpool2d, (x,), dy, k, s, p),
    }
    if (k, s, p) == (2, 2, 0):

        def numpy():
            four = np.stack([x[..., i::2, j::2] for i, j in np.ndindex(2, 2)])
            dx, place = np.empty_like(x), four.argmax(0)
            for t, (i, j) in enumerate(np.ndindex(2, 2)):
                dx[..., i::2, j::2] = np.where(place == t, dy, 0)
            return four.max(0), dx

        candidates["numpy"] = numpy
    size = f"{N} x {C} x {H} x {H}, {k} x {k}, stride {s}"
    return Case("maxpool2d", size, candidates, 2 * x.nbytes + 2 * dy.nbytes + 2 * dy.size, "GB/s")


def numpy_gates(a, g, h, dy):
    """What a GRU computes between its products, both passes: the next state and the gradients of a, g and h."""
    D = h.shape[1]
    r, z = (1 / (1 + np.exp(-a[:, i : i + D] - g[:, i : i + D])) for i in (0, D))
    gn = g[:, 2 * D :]
    n = np.tanh(a[:, 2 * D :] + r * gn)
    dn = dy * (1 - z) * (1 - n * n)
    dz, dr = dy * (h - n) * z * (1 - z), dn * gn * r * (1 - r)
    return n + z * (h - n), np.hstack([dr, dz, dn]), np.hstack([dr, dz, dn * r]), dy * z


def gates(B, D) -> Case:
    """A GRU between its products. Reads a, g, h and dy, writes h', r z g_n, n, da, dg, dh, and reads four of them again."""
    a, g, h = normal(B, 3 * D), normal(B, 3 * D, seed=1), normal(B, D, seed=2)
    dy, zeros = normal(B, D, seed=3), np.zeros(3 * D, np.float32)
    cell = sys.modules["bigmodel_lab.ops.gru_cell"]

    def run():
        gates, n, y = g.copy(), np.empty_like(h), np.empty_like(h)
        da, dg, dh = np.empty_like(a), np.empty_like(a), np.empty_like(h)
        cell._forward(a, zeros, gates, zeros, h, n, y)
        cell._backward(dy, gates, n, h, da, dg, dh)
        return y, da, dg, dh

    def eager(a, g, h):
        (xr, xz, xn), (hr, hz, hn) = a.chunk(3, -1), g.chunk(3, -1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        n = torch.tanh(xn + r * hn)
        return n + z * (h - n)

    candidates = {
        "ours": run,
        "torch": by_autograd(eager, (a, g, h), dy),
        "numpy": lambda: numpy_gates(a, g, h, dy),
    }
    return Case("GRU, between the products", f"{B} x {D}", candidates, 26 * h.nbytes, "GB/s")


def cell(name, B, E, D) -> Case:
    """A whole cell with torch's products on both sides: 2 forward and 4 backward, of 2 B E (or D) rows."""
    rows = D * (3 if name == "gru_cell" else 1)
    args = [normal(B, E), normal(B, D, seed=1), normal(rows, E, seed=2), normal(rows, D, seed=3)]
    args = [*args[:2], args[2] / E**0.5, args[3] / D**0.5, normal(rows), normal(rows, seed=4)]
    args = [a.astype(np.float32) for a in args]
    dy = normal(B, D, seed=5)
    f = torch.gru_cell if name == "gru_cell" else torch.rnn_tanh_cell
    numpy = ours(getattr(ops, name), getattr(ops, f"{name}_backward"), args, dy)
    candidates = {
        "ours": by_autograd(getattr(OURS, name), args, dy),
        "ours, NumPy's products": numpy,
        "torch": by_autograd(f, args, dy),
    }
    return Case(name, f"{B} x {E} -> {D}", candidates, 6 * B * rows * (E + D), "GFLOP/s", AGREE)


def cases(quick: bool):
    """Yield functions that make a case, so that the arrays of only one exist at a time."""
    n = 4 if quick else 64
    yield lambda: conv2d(n, 1, 28, 16, 5, 1, 2)
    yield lambda: conv2d(n, 32, 14, 64, 3, 1, 1)
    yield lambda: conv2d_forward(n, 32, 14, 64, 3, 1, 1)
    yield lambda: maxpool2d(n, 16, 28, 2, 2, 0)
    yield lambda: maxpool2d(n // 4, 64, 56, 3, 2, 1)
    yield lambda: gates(4 * n, 256)
    yield lambda: cell("rnn_cell", n, 128, 128)
    yield lambda: cell("gru_cell", n, 128, 128)
    if not quick:
        yield lambda: conv2d(n, 16, 14, 32, 5, 1, 2)
        yield lambda: conv2d(n, 32, 14, 64, 3, 2, 1)
        yield lambda: conv2d(8, 64, 32, 64, 3, 1, 1)
        yield lambda: maxpool2d(n, 32, 14, 2, 2, 0)
        yield lambda: maxpool2d(8, 64, 112, 2, 2, 0)
        yield lambda: gates(32, 128)
        yield lambda: cell("gru_cell", n, 256, 256)
        yield lambda: cell("gru_cell", 256, 512, 512)


def report(quick: bool):
    """Yield the lines of the report as they are found."""
    yield from harness.opening(
        "Convolution, pooling and recurrent cells beside torch and NumPy", quick
    )
    yield harness.TABLE_NOTE
    yield ""
    yield (
        "torch is eager torch, which hands convolutions to oneDNN. NumPy's convolution holds the whole matrix of windows "
        'and uses its BLAS. What a recurrent cell does is mostly products, which both sides leave to a BLAS: "GRU, between '
        'the products" is the rest of it.'
    )
    yield ""
    yield harness.keep_freed_memory()
    yield from harness.by_threads(
        quick,
        lambda n: harness.table(cases(quick), n, limit_s=0.3 if quick else 0.9, rounds=9),
    )


if __name__ == "__main__":
    harness.main(report, __doc__)
