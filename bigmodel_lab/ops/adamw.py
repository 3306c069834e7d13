"""AdamW: one step of Adam with decoupled weight decay, in one pass over memory.

    m_t = b1 m_{t-1} + (1 - b1) g        m' = m_t / (1 - b1^t)
    v_t = b2 v_{t-1} + (1 - b2) g^2      v' = v_t / (1 - b2^t)
    p_t = p_{t-1} - lr weight_decay p_{t-1} - lr m' / (sqrt(v') + eps)

m and v start at 0 and would stay too small for the first 1/(1 - b) steps; the divisions take that out (bias correction).
Source: Loshchilov and Hutter (2019), arXiv:1711.05101, algorithm 2, with the decay multiplied by lr, as torch does: the
paper multiplies it by the schedule alone. Bias correction: Kingma and Ba (2015), arXiv:1412.6980, section 3. Derived in
chapter 6.

An element is read and written once: p, g, m and v in, p, m and v out, 28 bytes in float32. Nothing is allocated. Written
as NumPy expressions the same step makes a dozen passes and as many temporary arrays. It is bound by memory, not by
arithmetic: lab L01 measures both.

NaN in g makes p, m and v NaN at that element alone, for good; so does an infinite g, as inf / inf. eps = 0 gives NaN
where every g so far was 0. The work is cut into pieces of a fixed number of elements, so results have the same bits with
any number of threads.
"""

import itertools
import math

import numpy as np
from numba import njit, prange

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays
from bigmodel_lab.ops._math import ELEMENTWISE

_PIECE = 16384  # elements: 64 KB of float32 from each of four arrays
_SMALL = (
    4 * _PIECE
)  # up to here waking the threads costs as much as they save, and far more on a busy machine


def adamw(p, g, m, v, step, *, lr, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01) -> None:
    """Change the parameter `p` and the moments `m` and `v`, in place, by one step along the gradient `g`.

    Parameters
    ----------
    p, m, v : float arrays of one shape (any)   C-contiguous; m and v are zeros before the first step
    g : float array of the same shape           any layout; not changed
    step : int                                  t, the number of this step: 1 for the first
    lr : float                                  learning rate, >= 0, in units of p
    betas : (float, float)                      b1 and b2, 0 <= b < 1; averages over the last 1/(1 - b) steps, about
    eps : float                                 >= 0, in units of g
    weight_decay : float                        >= 0; p shrinks by the share lr * weight_decay a step

    Raises ValueError if the shapes differ, an array that must change in place cannot, or two of them share memory;
    TypeError if they are not float32 or float64, all the same.
    """
    b1, b2 = require_adamw(lr, betas, eps, weight_decay)
    require_in_range("step", step, 1)
    (g,) = _checked(p, g, m, v)
    f = p.dtype.type
    kernel = _serial if p.size <= _SMALL else _parallel
    kernel(
        p.reshape(-1),
        g.reshape(-1),
        m.reshape(-1),
        v.reshape(-1),
        f(b1),
        f(1 - b1),
        f(b2),
        f(1 - b2),
        f(eps),
        f(lr * weight_decay),
        f(lr / (1 - b1**step)),
        f(1 / math.sqrt(1 - b2**step)),
    )


def require_adamw(lr, betas, eps, weight_decay) -> tuple[float, float]:
    """Check the settings of AdamW and return the two betas. Raises ValueError naming the one that is out of range."""
    for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
        require_in_range(name, value, 0)
    b1, b2 = betas
    for i, b in enumerate((b1, b2)):
        if not 0 <= b < 1:
            raise ValueError(
                f"betas[{i}] must be at least 0 and below 1, got {b}: at 1 the average never forgets."
            )
    return b1, b2


def _checked(p, g, m, v):
    """Check the four arrays and return g as the kernel takes it."""
    arrays = {"p": p, "g": g, "m": m, "v": v}
    plain = kernel_arrays(**arrays)  # dtypes; a copy would be made of what is not plain
    letters = [f"d{i}" for i in range(p.ndim)]
    lengths = dict(zip(letters, p.shape, strict=True))
    for name, array, plain_array in zip(arrays, arrays.values(), plain, strict=True):
        require_shape(name, array, " ".join(letters), **lengths)
        if name != "g" and not array.flags.carray:
            raise ValueError(
                f"{name} is changed in place, so it must be C-contiguous and writable: "
                f"pass a copy of it, made with {name}.copy(), or of the array that it is a part of."
            )
        arrays[name] = plain_array
    for (name, a), (other, b) in itertools.combinations(arrays.items(), 2):
        if np.may_share_memory(a, b):
            raise ValueError(f"{name} and {other} share memory: each needs an array of its own.")
    return (arrays["g"],)


@njit(**ELEMENTWISE | {"parallel": False})
def _serial(p, g, m, v, b1, one_minus_b1, b2, one_minus_b2, eps, decay, rate, root):
    for i in range(p.size):
        m[i] = b1 * m[i] + one_minus_b1 * g[i]
        v[i] = b2 * v[i] + one_minus_b2 * g[i] * g[i]
        # one subtraction, one rounding of p a step; the factor 1 - lr * weight_decay would round p another time, and is
        # itself rounded the same way in every step
        p[i] -= decay * p[i] + rate * m[i] / (np.sqrt(v[i]) * root + eps)


@njit(**ELEMENTWISE)
def _parallel(p, g, m, v, b1, one_minus_b1, b2, one_minus_b2, eps, decay, rate, root):
    for c in prange((p.size + _PIECE - 1) // _PIECE):
        s = slice(c * _PIECE, min(p.size, (c + 1) * _PIECE))
        _serial(p[s], g[s], m[s], v[s], b1, one_minus_b1, b2, one_minus_b2, eps, decay, rate, root)
