"""Linear layers with frozen weights of 8 or 4 bits on tensors; gradients pass through to what comes before them."""

import torch

from bigmodel_lab import ops
from bigmodel_lab.ops.torch._bind import as_array, as_tensor, bind
from bigmodel_lab.ops.torch._kernels import _mm


def _frozen(linear_backward):
    """The gradients of x, q, scale and b: none for the weights."""

    def backward(dy, cache):
        dx, db = linear_backward(dy, cache)
        return dx, None, None, db

    return backward


_linear_int8 = bind(ops.linear_int8, _frozen(ops.linear_int8_backward))
_linear_int4 = bind(ops.linear_int4, _frozen(ops.linear_int4_backward))


def linear_quantised(x, q, scale, b=None):
    """`bigmodel_lab.ops.linear_int8` on tensors if q is int8, `linear_int4` if it is uint8, for x (..., D).

    With torch's matrix product for many rows (see `_Linear` in _kernels.py).
    """
    op, bound = (
        (ops.linear_int8, _linear_int8)
        if q.dtype == torch.int8
        else (ops.linear_int4, _linear_int4)
    )
    args = x.reshape(-1, x.shape[-1]), q, scale, b
    if torch.is_grad_enabled():
        y = bound(*args, matmul=_mm)
    else:  # in decoding autograd's bookkeeping would take longer than the product of a small matrix
        y = as_tensor(op(*(as_array(op.__name__, a) for a in args), matmul=_mm)[0])
    return y.view(*x.shape[:-1], len(q))
