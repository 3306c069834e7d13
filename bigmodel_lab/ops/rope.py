"""Rotary positions: each pair of channels of a head is turned by an angle that grows with the position.

    y[t, i]       = x[t, i] cos(a[t, i]) - x[t, i + K/2] sin(a[t, i])
    y[t, i + K/2] = x[t, i + K/2] cos(a[t, i]) + x[t, i] sin(a[t, i])        i = 0 ... K/2 - 1

    a[t, i] = position[t] base^(-2 i / K)

Applied to queries and keys, it makes their product depend on the distance of the two positions alone. dx is dy turned
back, by the angle -a.
Source: Su et al. (2021), arXiv:2104.09864, eqs. 14, 15 and 34. Derived in chapter 9.
Shapes: x (..., T, K), such as (B, H, T, K): T positions, K = head width, even.

Convention: channel i is paired with channel i + K/2 (half-split), as in Llama's weights in the form that `transformers`
reads. The paper, and Meta's own code, pair channels 2 i and 2 i + 1: the same function after a fixed permutation of the
channels, but weights trained with one are wrong with the other.

NaN or infinity in one channel gives NaN or infinity in that channel and its partner. Each element is computed on its own,
so results have the same bits with any number of threads.
"""

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE


def rope_tables(positions, head_width: int, base: float = 10000.0, dtype=np.float32):
    """Return the cosines and sines of all angles, once for all layers and steps.

    Parameters
    ----------
    positions : integer array (T,)   such as np.arange(T), or what follows a key-value cache
    head_width : int                 K, even
    base : float                     > 0, dimensionless; the slowest pair turns once in about 2 pi base positions
    dtype : of the tables            the angles are computed in float64 first: at position 100,000 a float32 angle would
                                     be known to 0.004 only

    Returns (cos, sin), each (T, K/2). Raises ValueError for an odd head width or a base that is not positive.
    """
    require_shape("positions", positions, "T")
    if head_width < 2 or head_width % 2:
        raise ValueError(
            f"head_width must be even and at least 2, got {head_width}: channels are turned in pairs."
        )
    require_in_range("base", base, np.nextafter(0, 1))
    speed = float(base) ** (-np.arange(0, head_width, 2) / head_width)
    angle = positions[:, None] * speed
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def rope(x, cos, sin):
    """Turn the pairs of channels of `x` by the angles whose cosines and sines are given.

    Parameters
    ----------
    x : float array (..., T, K)       queries or keys, K even
    cos, sin : float arrays (T, K/2)  from `rope_tables`, same dtype as `x`; no gradient is computed for them

    Returns
    -------
    y : float array, like x
    cache : tuple                     keeps cos and sin, not x: a rotation is undone without knowing what was turned

    Raises ValueError if the shapes do not fit.
    """
    x, cos, sin = kernel_arrays(x=x, cos=cos, sin=sin)
    if x.ndim < 2 or x.shape[-1] % 2:
        raise ValueError(f"x must have shape (..., T, K) with K even, got shape {x.shape}.")
    T, K = x.shape[-2:]
    for name, table in (("cos", cos), ("sin", sin)):
        require_shape(name, table, "T K/2", **{"T": T, "K/2": K // 2})
    return _turned(x, cos, sin, 1), (cos, sin)


def rope_backward(dy, cache):
    """Return dx for the upstream gradient `dy` and what `rope` kept."""
    cos, sin = cache
    T, half = cos.shape
    dy, _ = kernel_arrays(dy=dy, cos=cos)
    if dy.shape[-2:] != (T, 2 * half):
        raise ValueError(
            f"dy must have shape (..., T, K) with T={T}, K={2 * half}, got {dy.shape}."
        )
    return _turned(dy, cos, sin, -1)


def _turned(x, cos, sin, direction):
    y = np.empty_like(x)
    heads = (-1, *x.shape[-2:]) if x.size else (0, *x.shape[-2:])
    _turn(x.reshape(heads), cos, sin, x.dtype.type(direction), y.reshape(heads))
    return y


@njit(**ELEMENTWISE)
def _turn(x, cos, sin, direction, y):
    _, T, K = x.shape
    half = K // 2
    for h in prange(len(x)):
        for t in range(T):
            first, second = x[h, t, :half], x[h, t, half:]
            out_first, out_second = y[h, t, :half], y[h, t, half:]
            c, s = cos[t], sin[t]
            for i in range(half):
                out_first[i] = first[i] * c[i] - direction * s[i] * second[i]
            for i in range(half):
                out_second[i] = second[i] * c[i] + direction * s[i] * first[i]
