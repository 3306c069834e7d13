"""One step of a plain recurrent network, forward and backward.

    h'[b, d] = f(s[b, d]),    s = x w_ih^T + b_ih + h w_hh^T + b_hh,    f = tanh or relu

    ds = dh' (1 - h'^2) for tanh, dh' [h' > 0] for relu
    dx = ds w_ih,   dw_ih = ds^T x,   dh = ds w_hh,   dw_hh = ds^T h,   db_ih = db_hh = sum_b ds[b]

Source: Elman (1990), Cognitive Science 14:179-211; with relu: Le, Jaitly and Hinton (2015), arXiv:1504.00941. Names, shapes
and order of the arguments are those of torch.nn.RNNCell. Derived in chapter 8.
Shapes: B sequences, E width of the input, D width of the state.

NaN gives NaN in its own row of h'. The products go to NumPy's BLAS, whose bits may depend on its own number of threads.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_choice, require_shape
from bigmodel_lab.ops import _math
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE
from bigmodel_lab.ops._recurrent import into_cell, out_of_cell


def rnn_cell(
    x, h, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity: str = "tanh", *, matmul=np.matmul
):
    """Return the next state for the input `x` and the state `h`.

    Parameters
    ----------
    x : float array (B, E)             or, with w_ih=None, x w_ih^T + b_ih (B, D), computed for many steps at once
    h : float array (B, D)             D >= 1
    w_ih : float array (D, E) or None
    w_hh : float array (D, D)
    b_ih, b_hh : float arrays (D,) or None
    nonlinearity : "tanh" or "relu"
    matmul : function                  (a, b, out=...), called on NumPy arrays, in both passes

    Returns
    -------
    h_next : float array (B, D)        same dtype as `x`
    cache : tuple                      keeps h_next, x, h and the weights themselves; nothing is recomputed

    Raises ValueError if shapes do not fit or for another nonlinearity, TypeError unless all are float32 or all float64.
    """
    require_choice("nonlinearity", nonlinearity, ("tanh", "relu"))
    a, g, b_ih, b_hh, kept = into_cell(x, h, w_ih, w_hh, b_ih, b_hh, 1, matmul)
    h_next = np.empty_like(g)
    _forward(a, b_ih, g, b_hh, nonlinearity == "tanh", h_next)
    return h_next, (h_next, nonlinearity, *kept)


def rnn_cell_backward(dh_next, cache):
    """Return (dx, dh, dw_ih, dw_hh, db_ih, db_hh) for the upstream gradient (B, D) and what `rnn_cell` kept.

    None stands for what was not given.
    """
    h_next, nonlinearity, *kept = cache
    B, D = h_next.shape
    require_shape("dh_next", dh_next, "B D", B=B, D=D)
    dh_next, _ = kernel_arrays(dh_next=dh_next, h_next=h_next)
    ds = np.empty_like(h_next)
    _backward(dh_next, h_next, nonlinearity == "tanh", ds)
    return out_of_cell(ds, ds, np.zeros_like(ds), kept)


@njit(**ELEMENTWISE)
def _forward(a, b_ih, g, b_hh, is_tanh, h_next):
    zero = a.dtype.type(0)
    for n in prange(len(a)):
        from_x, from_h, out = a[n], g[n], h_next[n]
        for d in range(out.size):
            out[d] = (from_x[d] + b_ih[d]) + (from_h[d] + b_hh[d])
        for d in range(out.size):
            if is_tanh:
                out[d] = _math.tanh(out[d])
            else:
                out[d] = zero if out[d] <= zero else out[d]  # this way round NaN stays NaN


@njit(**ELEMENTWISE)
def _backward(dh_next, h_next, is_tanh, ds):
    zero, one = ds.dtype.type(0), ds.dtype.type(1)
    for n in prange(len(ds)):
        up, y, out = dh_next[n], h_next[n], ds[n]
        for d in range(out.size):
            if is_tanh:
                out[d] = up[d] * (one - y[d] * y[d])
            else:
                out[d] = zero if y[d] <= zero else up[d]
