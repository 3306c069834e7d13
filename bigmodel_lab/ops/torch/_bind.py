"""How an operation on NumPy arrays becomes one on tensors with a backward pass that autograd calls."""

import numpy as np
import torch

_DTYPES = {torch.float32, torch.float64}
_SAVED = object()  # stands in the cache where an array was handed to autograd


def bind(op, op_backward, *, optional_dx: bool = False):
    """Return a function on tensors that runs `op` in the forward and `op_backward` in the backward pass.

    Parameters
    ----------
    op : function            y, cache = op(*arrays, **options), the cache a tuple of arrays and plain values
    op_backward : function   grads = op_backward(dy, cache): one array, or a tuple in the order of the arguments of `op`
    optional_dx : bool       op_backward takes need_dx=False where nobody wants the gradient of the first argument

    Tensors are positional arguments of the returned function, options are keywords.
    """

    class Bound(torch.autograd.Function):
        @staticmethod
        def forward(ctx, options, *args):
            arrays = [as_array(op.__name__, a) for a in args]
            y, cache = op(*arrays, **options)
            out = as_tensor(y)
            _save(ctx, cache, arrays=[*arrays, y], tensors=[*args, out])
            return out

        @staticmethod
        def backward(ctx, dy):
            refuse_second_derivative(op.__name__)
            choice = {"need_dx": ctx.needs_input_grad[1]} if optional_dx else {}
            grads = op_backward(dy.numpy() if dy.ndim else dy.item(), _load(ctx), **choice)
            grads = [as_tensor(g) for g in (grads if isinstance(grads, tuple) else (grads,))]
            n_args = len(ctx.needs_input_grad) - 1  # `options` has none
            return None, *(grads + [None] * n_args)[:n_args]

    def on_tensors(*args, **options):
        return Bound.apply(options, *args)

    Bound.__name__ = on_tensors.__name__ = op.__name__
    on_tensors.__doc__ = f"`bigmodel_lab.ops.{op.__name__}` on tensors. {op.__doc__}"
    return on_tensors


def _save(ctx, cache, arrays, tensors):
    """Hand autograd what the backward pass needs.

    Every array goes in as a tensor, and as the very tensor that was an argument or the result where it is that one's
    memory: so autograd notices if somebody changes it in place meanwhile, and checkpoint and hooks can take it away.
    """
    own = {id(a): t for a, t in zip(arrays, tensors, strict=True) if isinstance(a, np.ndarray)}
    kept = [a for a in cache if isinstance(a, np.ndarray)]
    ctx.save_for_backward(*(own[id(a)] if id(a) in own else torch.from_numpy(a) for a in kept))
    ctx.cache = [_SAVED if isinstance(a, np.ndarray) else a for a in cache]


def _load(ctx) -> tuple:
    saved = iter(ctx.saved_tensors)
    return tuple(next(saved).detach().numpy() if kept is _SAVED else kept for kept in ctx.cache)


def as_array(name, t):
    """The memory of tensor `t` as a NumPy array; anything else, such as None for a bias, as it is."""
    if not isinstance(t, torch.Tensor):
        return t
    check(name, t)
    return t.detach().numpy()


def check(name, t):
    if not t.is_cpu:
        raise ValueError(
            f"{name} got a tensor on {t.device}: the numba kernels run on the CPU. "
            'Use backend("torch") there.'
        )
    if t.dtype not in _DTYPES and t.is_floating_point():
        raise TypeError(
            f"{name} got a {t.dtype} tensor: the numba kernels take float32 and float64. "
            'Convert with .float(), or use backend("torch").'
        )


def refuse_second_derivative(name):
    # With create_graph=True autograd records the backward pass, and would take what NumPy computes for a constant.
    if torch.is_grad_enabled():
        raise RuntimeError(
            f'{name} has no gradient of its gradient: use backend("torch") where create_graph=True is wanted.'
        )


def as_tensor(a):
    """A tensor on the memory of an array (or of a NumPy number); None stays None."""
    return torch.from_numpy(np.asarray(a)) if a is not None else None
