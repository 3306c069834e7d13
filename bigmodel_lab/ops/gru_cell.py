"""One step of a gated recurrent unit, forward and backward.

    r = sigmoid(a_r + g_r)        how much of the state the candidate sees          a = x w_ih^T + b_ih
    z = sigmoid(a_z + g_z)        how much of the state is kept                     g = h w_hh^T + b_hh
    n = tanh(a_n + r g_n)         the candidate
    h' = (1 - z) n + z h

    da_n = dh' (1 - z) (1 - n^2),    da_z = dh' (h - n) z (1 - z),    da_r = da_n g_n r (1 - r)
    dg_r = da_r,    dg_z = da_z,    dg_n = da_n r
    dx = da w_ih,    dw_ih = da^T x,    dh = dh' z + dg w_hh,    dw_hh = dg^T h,    biases: the sums over b of da and dg

Source: Cho et al. (2014), arXiv:1406.1078, section 2.3, in the variant that torch and cuDNN compute: there r multiplies
after the product with the state, in the paper before it. Names, shapes and order of the
arguments, and of the gates (r, z, n), are those of torch.nn.GRUCell. Derived in chapter 8.
Shapes: B sequences, E width of the input, D width of the state; a and g (B, 3 D).

Beside the four products there are some ten operations on single numbers. In torch each is a pass over memory, and for
training each keeps what it needs; here they are one pass each way, and g becomes what is kept.

NaN gives NaN in its own row of h'. The products go to NumPy's BLAS, whose bits may depend on its own number of threads.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops import _math
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE
from bigmodel_lab.ops._recurrent import into_cell, out_of_cell


def gru_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None, *, matmul=np.matmul):
    """Return the next state for the input `x` and the state `h`.

    Parameters
    ----------
    x : float array (B, E)             or, with w_ih=None, a = x w_ih^T + b_ih (B, 3 D), computed for many steps at once
    h : float array (B, D)             D >= 1
    w_ih : float array (3 D, E) or None
    w_hh : float array (3 D, D)
    b_ih, b_hh : float arrays (3 D,) or None
    matmul : function                  (a, b, out=...), called on NumPy arrays, in both passes

    Returns
    -------
    h_next : float array (B, D)        same dtype as `x`
    cache : tuple                      keeps r, z and g_n, which lie in one array (B, 3 D), n (B, D), and x, h and the
                                       weights themselves; not a, and nothing is recomputed

    Raises ValueError if shapes do not fit, TypeError unless all are float32 or all float64.
    """
    a, g, b_ih, b_hh, kept = into_cell(x, h, w_ih, w_hh, b_ih, b_hh, 3, matmul)
    h = kept[1]
    n, h_next = np.empty_like(h), np.empty_like(h)
    _forward(a, b_ih, g, b_hh, h, n, h_next)
    return h_next, (g, n, *kept)


def gru_cell_backward(dh_next, cache):
    """Return (dx, dh, dw_ih, dw_hh, db_ih, db_hh) for the upstream gradient (B, D) and what `gru_cell` kept.

    None stands for what was not given.
    """
    gates, n, *kept = cache
    h = kept[1]
    B, D = h.shape
    require_shape("dh_next", dh_next, "B D", B=B, D=D)
    dh_next, _ = kernel_arrays(dh_next=dh_next, h=h)
    da, dg = np.empty_like(gates), np.empty_like(gates)
    dh = np.empty_like(h)
    _backward(dh_next, gates, n, h, da, dg, dh)
    return out_of_cell(da, dg, dh, kept)


# Each loop below touches few arrays: LLVM makes vector instructions only where it can test, in at most 8 comparisons, that
# what is written does not overlap what is read. A row stays in the nearest cache from one loop to the next.


@njit(**ELEMENTWISE)
def _forward(a, b_ih, g, b_hh, h, candidate, h_next):
    """Turns g, in place, into r, z and g_n."""
    D = h.shape[1]
    for row in prange(len(h)):
        ar, az, an = a[row, :D], a[row, D : 2 * D], a[row, 2 * D :]
        r, z, gn = g[row, :D], g[row, D : 2 * D], g[row, 2 * D :]
        br, bz, bn = b_ih[:D], b_ih[D : 2 * D], b_ih[2 * D :]
        cr, cz, cn = b_hh[:D], b_hh[D : 2 * D], b_hh[2 * D :]
        n, before, after = candidate[row], h[row], h_next[row]
        for d in range(D):
            r[d] = _math.sigmoid((ar[d] + br[d]) + (r[d] + cr[d]))
        for d in range(D):
            z[d] = _math.sigmoid((az[d] + bz[d]) + (z[d] + cz[d]))
        for d in range(D):
            gn[d] += cn[d]
        for d in range(D):
            n[d] = _math.tanh(an[d] + bn[d] + r[d] * gn[d])
        for d in range(D):
            after[d] = n[d] + z[d] * (before[d] - n[d])


@njit(**ELEMENTWISE)
def _backward(dh_next, gates, candidate, h, da, dg, dh):
    D = h.shape[1]
    one = h.dtype.type(1)
    for row in prange(len(h)):
        r, z, gn = gates[row, :D], gates[row, D : 2 * D], gates[row, 2 * D :]
        dar, daz, dan = da[row, :D], da[row, D : 2 * D], da[row, 2 * D :]
        dgr, dgz, dgn = dg[row, :D], dg[row, D : 2 * D], dg[row, 2 * D :]
        up, n, before, direct = dh_next[row], candidate[row], h[row], dh[row]
        for d in range(D):
            dan[d] = up[d] * (one - z[d]) * (one - n[d] * n[d])
        for d in range(D):
            daz[d] = up[d] * (before[d] - n[d]) * z[d] * (one - z[d])
        for d in range(D):
            dar[d] = dan[d] * gn[d] * r[d] * (one - r[d])
        for d in range(D):
            dgr[d] = dar[d]
        for d in range(D):
            dgz[d] = daz[d]
        for d in range(D):
            dgn[d] = dan[d] * r[d]
        for d in range(D):
            direct[d] = up[d] * z[d]
