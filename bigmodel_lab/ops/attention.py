"""Scaled dot-product attention in its plain form, which keeps the probabilities, forward and backward.

    s[t, u] = scale q[t] . k[u],    p = softmax(s) over the u that t may see,    y[t] = sum_u p[t, u] v[u]

    dv = p^T dy,    dp = dy v^T,    ds = p (dp - sum_u dp p),    dq = scale ds k,    dk = scale ds^T q

Source: Vaswani et al. (2017), arXiv:1706.03762, eq. 1 and section 3.2.3; grouped queries: Ainslie et al. (2023),
arXiv:2305.13245. Derived in chapter 9.
Shapes: q (B, H, T, K), k and v (B, G, S, K). B batch, H query heads, T queries, S keys, K head width. G divides H: query
heads h with the same h // (H / G) share a head of keys and values. G = H is the usual form, G = 1 "multi-query".

With causal=True the queries stand at the last T of the S positions: query t sees the keys 0 ... S - T + t. So the one
query of a decoding step (T = 1) sees the whole cache. (torch's is_causal counts from the first position instead: the
same where T = S.)

Sequences of a batch that are shorter than S are padded at their end, and `lengths` says how many keys of each are real:
query t of sequence b then sees the keys below lengths[b] only, of those that it would have seen. What the padding of k and
v holds, NaN included, has no influence, and its gradients are 0. Queries of padding are computed like any other.

The probabilities are B H T S numbers, at T = S = 2048 with 12 heads 200 MB a sequence in float32. `flash_attention`
computes the same without them. Use this one to look at the probabilities, and to check that one.

NaN in a query gives NaN in its row of y alone. NaN or infinity in k reaches every query that may see it, and NaN or
infinity in v every query of that head, as 0 * NaN is NaN. The products go to NumPy's BLAS, whose bits may depend on BLAS's
own number of threads.
"""

import math

import numpy as np

from bigmodel_lab.errors import require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops.softmax import softmax, softmax_backward


def attention(q, k, v, causal: bool = True, scale: float | None = None, lengths=None):
    """Return for each query the mean of the values, weighted by how well query and keys fit.

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
    cache : tuple                      keeps q, k, v and the probabilities p (B, H, T, S), which are its third last entry

    Raises ValueError if the shapes or lengths do not fit, TypeError unless all are float32 or all float64 and the lengths
    integers.
    """
    q, k, v, scale, lengths = require_attention(q, k, v, causal, scale, lengths)
    B, H, T, K = q.shape
    G, S = k.shape[1:3]
    padding = np.arange(S) >= lengths[:, None]  # (B, S)
    if padding.any():
        keep = ~padding[:, None, :, None]
        k, v = (np.where(keep, a, a.dtype.type(0)) for a in (k, v))  # copies: 0 * NaN would be NaN
    grouped = q.reshape(B, G, H // G, T, K)
    # the axis of length 1 makes each head of keys and values serve its H / G heads of queries
    scores = np.matmul(grouped, k[:, :, None].swapaxes(-1, -2))
    scores *= scale
    if padding.any():
        np.copyto(scores, -np.inf, where=padding[:, None, None, None])
    p, _ = softmax(scores, causal=causal)
    y = np.matmul(p, v[:, :, None])
    return y.reshape(B, H, T, K), (q, k, v, p.reshape(B, H, T, S), causal, scale)


def attention_backward(dy, cache):
    """Return (dq, dk, dv) for the upstream gradient `dy` (B, H, T, K) and what `attention` kept."""
    q, k, v, p, causal, scale = cache
    (B, H, T, K), (G, S) = q.shape, k.shape[1:3]
    require_shape("dy", dy, "B H T K", B=B, H=H, T=T, K=K)
    dy, _ = kernel_arrays(dy=dy, q=q)
    grouped, dy = q.reshape(B, G, H // G, T, K), dy.reshape(B, G, H // G, T, K)
    p = p.reshape(B, G, H // G, T, S)
    dv = np.matmul(p.swapaxes(-1, -2), dy).sum(2)
    dp = np.matmul(dy, v[:, :, None].swapaxes(-1, -2))
    ds = softmax_backward(dp, (p, T if causal else 1))
    ds *= scale
    dq = np.matmul(ds, k[:, :, None]).reshape(B, H, T, K)
    dk = np.matmul(ds.swapaxes(-1, -2), grouped).sum(2)
    return dq, dk, dv


def require_attention(q, k, v, causal, scale, lengths):
    """Check the arguments of attention; return q, k and v ready for a kernel, the scale in their dtype, and the lengths."""
    B, H, T, K = require_shape("q", q, "B H T K").values()
    G, S = list(require_shape("k", k, "B G S K", B=B, K=K).values())[1:3]
    require_shape("v", v, "B G S K", B=B, G=G, S=S, K=K)
    q, k, v = kernel_arrays(q=q, k=k, v=v)
    if G == 0 or H % G:
        raise ValueError(
            f"q has H={H} heads and k has G={G}: each head of keys must serve a whole number of query heads, so G must "
            "divide H."
        )
    if S == 0 or K == 0:
        raise ValueError(f"k must have at least one key and one channel, got S={S} and K={K}.")
    if causal and T > S:
        raise ValueError(
            f"q has T={T} queries and k only S={S} keys: with causal=True the queries are the last T of S positions, "
            "and the first would see nothing. Pass causal=False to let every query see every key."
        )
    scale = q.dtype.type(1 / math.sqrt(K) if scale is None else scale)
    if lengths is None:
        return q, k, v, scale, np.full(B, S)
    require_shape("lengths", lengths, "B", B=B)
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"lengths must be whole numbers, got dtype {lengths.dtype}.")
    if B and not 1 <= lengths.min() <= lengths.max() <= S:
        raise ValueError(
            f"lengths must be between 1 and S={S}, the number of keys, got {lengths.min()} ... {lengths.max()}: a query "
            "must have at least one key to see."
        )
    return q, k, v, scale, lengths.astype(np.int64)
