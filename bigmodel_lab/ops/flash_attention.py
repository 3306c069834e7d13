"""Attention tile by tile with an online softmax, forward and backward: the same as `attention`, in memory that grows with T.

For 64 queries at a time, the keys pass by in tiles of 64. For each query three things are carried along: the largest score
so far m, the sum of exponentials l, and the weighted sum of values a. With s the scores of the next tile:

    m' = max(m, max_u s[u]),    f = e^(m - m'),    p[u] = e^(s[u] - m'),    l' = f l + sum_u p[u],    a' = f a + sum_u p[u] v[u]

and at the end y = a / l. Kept for the backward pass is one number a query, e[t] = m + log l, as then

    p[t, u] = e^(s[t, u] - e[t]),    ds[t, u] = p[t, u] (dy[t] . v[u] - dy[t] . y[t])

can be had again tile by tile; the rest is as in `attention`. With causal=True the tiles above the diagonal are left out.

Source: Milakov and Gimelshein (2018), arXiv:1805.02867, for the online softmax; Dao et al. (2022), arXiv:2205.14135,
algorithms 1 and 4, for the tiles. Derived in chapter 9, timed in lab L01.
Shapes and the meaning of causal and of lengths are those of `attention`; tiles that are all padding are left out.

Extra memory: forward, a padded copy of k and v; backward, nine arrays of T (or S) times K for each thread at work. Head
widths are padded to a multiple of 32 (float32 with AVX-512; 16 with AVX2), T and S to multiples of 64, so that sizes just
above one cost as much as the next. The backward pass gives each head of keys to one thread: B G = 1 uses one.

NaN in a query gives NaN in its row of y alone. NaN or infinity in k reaches the queries that may see it; in v, also those
that share a tile of 64 with one that may, as 0 * NaN is NaN. Results have the same bits with any number of threads.
"""

import math

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import REDUCING, exp_nonpositive
from bigmodel_lab.ops._reduce import row_max
from bigmodel_lab.ops._tile import ROWS, add_product, columns, product
from bigmodel_lab.ops.attention import require_attention

_TILE = 64  # queries, and keys; 64 x 64 float32 scores are 16 KB and stay in the nearest cache


def flash_attention(q, k, v, causal: bool = True, scale: float | None = None, lengths=None):
    """Return for each query the mean of the values, weighted by how well query and keys fit, without T x S memory.

    Parameters
    ----------
    q : float array (B, H, T, K)
    k, v : float arrays (B, G, S, K)   H a multiple of G, S >= 1; with causal=True S >= T
    causal : bool                      query t sees the keys 0 ... S - T + t only
    scale : float                      factor of the scores; 1 / sqrt(K) if not given
    lengths : integer array (B,)       number of real keys in each sequence, 1 ... S; all S if not given

    Returns
    -------
    y : float array (B, H, T, K)       same dtype as `q`
    cache : tuple                      keeps q, k, v, y, e (B H, T), lengths; the backward pass computes the probabilities again

    Raises ValueError if the shapes or lengths do not fit, TypeError unless all are float32 or all float64 and the lengths
    integers.
    """
    q, k, v, scale, lengths = require_attention(q, k, v, causal, scale, lengths)
    B, H, T, K = q.shape
    G, S = k.shape[1:3]
    wide, n_tiles = _padded(K, q.dtype), -(-S // _TILE)
    across = np.empty((B * G, n_tiles, wide, _TILE), q.dtype)
    values = np.empty((B * G, n_tiles, _TILE, wide), q.dtype)
    _pack(_heads(k), _heads(v), np.repeat(lengths, G), across, values)
    y, e = np.empty_like(q), np.empty((B * H, T), q.dtype)
    _forward(_heads(q), across, values, np.repeat(lengths, H), S, causal, scale, _heads(y), e)
    return y, (q, k, v, y, e, causal, scale, lengths)


def flash_attention_backward(dy, cache):
    """Return (dq, dk, dv) for the upstream gradient `dy` (B, H, T, K) and what `flash_attention` kept."""
    q, k, v, y, e, causal, scale, lengths = cache
    B, H, T, K = q.shape
    require_shape("dy", dy, "B H T K", B=B, H=H, T=T, K=K)
    dy, _ = kernel_arrays(dy=dy, q=q)
    dq, dk, dv = np.empty_like(q), np.empty_like(k), np.empty_like(v)
    arrays = [_heads(a) for a in (dy, q, k, v, y)]
    lengths, wide = np.repeat(lengths, k.shape[1]), _padded(K, q.dtype)
    _backward(*arrays, e, lengths, wide, causal, scale, _heads(dq), _heads(dk), _heads(dv))
    return dq, dk, dv


def _heads(a):
    return a.reshape(a.shape[0] * a.shape[1], *a.shape[2:])


def _padded(K, dtype):
    step = columns(dtype.itemsize)
    return -(-K // step) * step


@njit(error_model="numpy")
def _copy_padded(rows, factor, out):
    """out = factor * rows, with zeros below and to the right."""
    n, K = rows.shape
    zero = rows.dtype.type(0)
    for r in range(n):
        for d in range(K):
            out[r, d] = rows[r, d] * factor
        for d in range(K, out.shape[1]):
            out[r, d] = zero
    for r in range(n, len(out)):
        for d in range(out.shape[1]):
            out[r, d] = zero


@njit(error_model="numpy")
def _copy_across(rows, out):
    """out = rows transposed, with zeros around."""
    n, K = rows.shape
    zero = rows.dtype.type(0)
    for d in range(K):
        for r in range(n):
            out[d, r] = rows[r, d]
        for r in range(n, out.shape[1]):
            out[d, r] = zero
    for d in range(K, len(out)):
        for r in range(out.shape[1]):
            out[d, r] = zero


@njit(**REDUCING)
def _pack(k, v, lengths, across, values):
    heads, n_tiles = across.shape[:2]
    one = k.dtype.type(1)
    for item in prange(heads * n_tiles):
        g, j = item // n_tiles, item % n_tiles
        tile = slice(j * _TILE, min((j + 1) * _TILE, lengths[g]))  # empty where all is padding
        _copy_across(k[g, tile], across[g, j])
        _copy_padded(v[g, tile], one, values[g, j])


@njit(**REDUCING)
def _forward(q, across, values, lengths, S, causal, scale, y, e):
    heads, T, K = q.shape
    wide = across.shape[2]
    group = heads // max(1, len(across))
    n_tiles = (T + _TILE - 1) // _TILE
    zero, infinity = q.dtype.type(0), q.dtype.type(np.inf)
    for item in prange(heads * n_tiles):
        # with a causal mask late tiles are long: first, last, second, last but one ... shares them out evenly
        h, i = item // n_tiles, item % n_tiles
        i = i // 2 if i % 2 == 0 else n_tiles - 1 - i // 2
        g, first = h // group, i * _TILE
        n = min(_TILE, T - first)
        n_padded = (n + ROWS - 1) // ROWS * ROWS  # one query, in decoding, is not made 64
        qi, a = np.empty((n_padded, wide), q.dtype), np.zeros((n_padded, wide), q.dtype)
        m, l = np.full(n, -infinity), np.zeros(n, q.dtype)
        s = np.empty((n_padded, _TILE), q.dtype)
        _copy_padded(q[h, first : first + n], scale, qi)
        # query r of this tile sees the keys below `sees + r`, and below `real`
        real = lengths[h]
        sees = S - T + first + 1 if causal else real
        end = min(sees + n - 1, real)
        for j in range((end + _TILE - 1) // _TILE):
            product(qi, across[g, j], s)
            for r in range(n):
                seen = min(_TILE, min(sees + r, real) - j * _TILE)
                row = s[r]
                if seen > 0:
                    largest = max(m[r], row_max(row[:seen]))
                    # a query may have met nothing but -inf so far; inf - inf would be NaN
                    base = largest if largest != -infinity else zero
                    total, factor = zero, exp_nonpositive(m[r] - base)
                    for u in range(seen):
                        p = exp_nonpositive(row[u] - base)
                        row[u] = p
                        total += p
                    m[r], l[r] = largest, factor * l[r] + total
                    if factor != 1:
                        ar = a[r]
                        for d in range(wide):
                            ar[d] *= factor
                for u in range(max(seen, 0), _TILE):
                    row[u] = zero
            add_product(s, values[g, j], a)
        for r in range(n):
            e[h, first + r] = m[r] + math.log(l[r])
            for d in range(K):
                y[h, first + r, d] = a[r, d] / l[r]


@njit(**REDUCING)
def _backward(dy, q, k, v, y, e, lengths, wide, causal, scale, dq, dk, dv):
    heads, T, K = q.shape
    S = k.shape[1]
    group = heads // max(1, len(k))
    n_queries = (T + _TILE - 1) // _TILE
    zero, one = q.dtype.type(0), q.dtype.type(1)
    for g in prange(len(k)):
        real = lengths[g]
        n_keys = (real + _TILE - 1) // _TILE
        kp = np.empty((n_keys, _TILE, wide), q.dtype)
        k_across, v_across = np.empty((2, n_keys, wide, _TILE), q.dtype)
        for j in range(n_keys):
            tile = slice(j * _TILE, min((j + 1) * _TILE, real))
            _copy_padded(k[g, tile], one, kp[j])
            _copy_across(k[g, tile], k_across[j])
            _copy_across(v[g, tile], v_across[j])
        dkp, dvp = np.zeros((2, n_keys, _TILE, wide), q.dtype)
        qp, dyp, dqp = np.empty((3, n_queries, _TILE, wide), q.dtype)
        along = np.empty(T, q.dtype)
        p, ds = np.empty((2, _TILE, _TILE), q.dtype)
        for h in range(g * group, (g + 1) * group):
            for i in range(n_queries):
                tile = slice(i * _TILE, (i + 1) * _TILE)
                _copy_padded(q[h, tile], scale, qp[i])  # scaled: so s and dk need no scaling
                _copy_padded(dy[h, tile], one, dyp[i])
            dqp[:] = zero
            for t in range(T):
                dyt, yt, total = dy[h, t], y[h, t], zero
                for d in range(K):
                    total += dyt[d] * yt[d]
                along[t] = total
            for j in range(n_keys):
                # queries in earlier tiles do not see the keys of tile j
                start = max(0, j * _TILE - (S - T)) // _TILE if causal else 0
                for i in range(start, n_queries):
                    product(qp[i], k_across[j], p)
                    product(dyp[i], v_across[j], ds)
                    for r in range(_TILE):
                        t, seen = i * _TILE + r, 0
                        pr, dsr = p[r], ds[r]
                        if t < T:
                            seen = min(S - T + t + 1, real) if causal else real
                            seen = min(_TILE, seen - j * _TILE)
                            et, at = e[h, t], along[t]
                            for u in range(seen):
                                w = exp_nonpositive(pr[u] - et)
                                pr[u] = w
                                dsr[u] = w * (dsr[u] - at)
                        for u in range(max(seen, 0), _TILE):
                            pr[u] = zero
                            dsr[u] = zero
                    add_product(p.T, dyp[i], dvp[j])
                    add_product(ds.T, qp[i], dkp[j])
                    add_product(ds, kp[j], dqp[i])
            for t in range(T):
                for d in range(K):
                    dq[h, t, d] = dqp[t // _TILE, t % _TILE, d] * scale
        for u in range(real):
            for d in range(K):
                dk[g, u, d] = dkp[u // _TILE, u % _TILE, d]
                dv[g, u, d] = dvp[u // _TILE, u % _TILE, d]
        dk[g, real:] = zero
        dv[g, real:] = zero
