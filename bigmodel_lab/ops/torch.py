"""The same operations on torch tensors, with our kernels in torch's forward and backward passes.

    from bigmodel_lab.ops.torch import backend
    ops = backend("numba")                      # or backend("torch"): the same names, from torch.nn.functional
    ops.softmax_cross_entropy(ops.linear(x, w, b), targets).backward()

A model written against `backend` neither knows nor cares which one it got; optimisers, DDP, checkpoint, `torch.no_grad`
and `torch.autograd.gradcheck` work as with any torch function. Tensors must be on the CPU; their memory is shared with
NumPy, not copied. A gradient of a gradient is not available with "numba", and asking for one raises.

The one file of `bigmodel_lab.ops` that imports torch: import it only where torch is wanted.
"""

from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from bigmodel_lab import ops
from bigmodel_lab.errors import require_choice
from bigmodel_lab.ops._reduce import column_sums

_DTYPES = {torch.float32, torch.float64}
_SAVED = object()  # stands in the cache where an array was handed to autograd


def bind(op, op_backward):
    """Return a function on tensors that runs `op` in the forward and `op_backward` in the backward pass.

    Parameters
    ----------
    op : function            y, cache = op(*arrays, **options), the cache a tuple of arrays and plain values
    op_backward : function   grads = op_backward(dy, cache): one array, or a tuple in the order of the arguments of `op`

    Tensors are positional arguments of the returned function, options are keywords.
    """

    class Bound(torch.autograd.Function):
        @staticmethod
        def forward(ctx, options, *args):
            arrays = [_array(op.__name__, a) for a in args]
            y, cache = op(*arrays, **options)
            out = _tensor(y)
            _save(ctx, cache, arrays=[*arrays, y], tensors=[*args, out])
            return out

        @staticmethod
        def backward(ctx, dy):
            _refuse_second_derivative(op.__name__)
            grads = op_backward(dy.numpy() if dy.ndim else dy.item(), _load(ctx))
            grads = [_tensor(g) for g in (grads if isinstance(grads, tuple) else (grads,))]
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


def _array(name, t):
    """The memory of tensor `t` as a NumPy array; anything else, such as None for a bias, as it is."""
    if not isinstance(t, torch.Tensor):
        return t
    _check(name, t)
    return t.detach().numpy()


def _check(name, t):
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


def _refuse_second_derivative(name):
    # With create_graph=True autograd records the backward pass, and would take what NumPy computes for a constant.
    if torch.is_grad_enabled():
        raise RuntimeError(
            f'{name} has no gradient of its gradient: use backend("torch") where create_graph=True is wanted.'
        )


def _tensor(a):
    """A tensor on the memory of an array (or of a NumPy number); None stays None."""
    return torch.from_numpy(np.asarray(a)) if a is not None else None


class _Linear(torch.autograd.Function):
    """`ops.linear` with torch's matrix product instead of NumPy's.

    Each brings a BLAS with threads of its own, which by default spin for a while after every product and hold up those
    of the other: with two threads a training step of a small MLP took 10 to 100 times as long.
    """

    @staticmethod
    def forward(ctx, x, w, b):
        ctx.save_for_backward(x, w)
        return F.linear(x, w, b)

    @staticmethod
    def backward(ctx, dy):
        _refuse_second_derivative("linear")
        x, w = ctx.saved_tensors
        need_dx, need_dw, need_db = ctx.needs_input_grad
        dx = dy @ w if need_dx else None
        rows = dy.reshape(-1, len(w))
        dw = rows.T @ x.reshape(len(rows), -1) if need_dw else None
        db = w.new_empty(len(w)) if need_db else None
        if need_db:
            column_sums(np.ascontiguousarray(rows.numpy()), db.numpy())
        return dx, dw, db


def linear(x, w, b=None):
    """x @ w.T + b on tensors: `bigmodel_lab.ops.linear` for x (..., D) with any number of leading dimensions."""
    for t in (x, w):
        _check("linear", t)
    return _Linear.apply(x, w, b)


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass, while the row is in the processor's cache, and keeps it."""

    @staticmethod
    def forward(ctx, logits, targets):
        loss, dlogits = ops.softmax_cross_entropy_with_gradient(
            _array("softmax_cross_entropy", logits), _array("softmax_cross_entropy", targets)
        )
        ctx.save_for_backward(torch.from_numpy(dlogits))
        return _tensor(loss)

    @staticmethod
    def backward(ctx, dloss):
        _refuse_second_derivative("softmax_cross_entropy")
        (dlogits,) = ctx.saved_tensors
        return dlogits if dloss.item() == 1 else dlogits * dloss, None


def softmax_cross_entropy(logits, targets):
    """Mean cross-entropy of logits (N, V) against targets (N,), in nats: `bigmodel_lab.ops.softmax_cross_entropy`.

    Where a gradient will be wanted it is computed at once and kept, as large as the logits. It is then handed out and
    not copied: with retain_graph=True do not change it in place; autograd notices and raises.
    """
    if logits.requires_grad and torch.is_grad_enabled():
        return _SoftmaxCrossEntropy.apply(logits, targets)
    loss, _ = ops.softmax_cross_entropy(
        _array("softmax_cross_entropy", logits), _array("softmax_cross_entropy", targets)
    )
    return _tensor(loss)


relu = bind(ops.relu, ops.relu_backward)
sigmoid = bind(ops.sigmoid, ops.sigmoid_backward)
tanh = bind(ops.tanh, ops.tanh_backward)
gelu = bind(ops.gelu, ops.gelu_backward)
silu = bind(ops.silu, ops.silu_backward)
swiglu = bind(ops.swiglu, ops.swiglu_backward)
softmax = bind(ops.softmax, ops.softmax_backward)
rope = bind(ops.rope, ops.rope_backward)
attention = bind(ops.flash_attention, ops.flash_attention_backward)
embedding = bind(ops.embedding, lambda dy, cache: (None, ops.embedding_backward(dy, cache)))


def _on_rows(bound):
    """Let an operation on (N, D) take (..., D)."""

    def on_tensors(x, *args, **options):
        return bound(x.reshape(-1, x.shape[-1]), *args, **options).reshape(x.shape)

    on_tensors.__name__, on_tensors.__doc__ = bound.__name__, bound.__doc__
    return on_tensors


layernorm = _on_rows(bind(ops.layernorm, ops.layernorm_backward))
rmsnorm = _on_rows(bind(ops.rmsnorm, ops.rmsnorm_backward))
_dropout = bind(ops.dropout, ops.dropout_backward)


def dropout(x, rate: float, training: bool = True):
    """`bigmodel_lab.ops.dropout` on a tensor, with a key drawn from torch's generator; `x` itself if not training.

    So torch.manual_seed seeds it, and activation checkpoint, which rewinds that generator, finds the same mask again.
    """
    if not training or rate == 0:
        return x
    return _dropout(x, rate=rate, key=int(torch.randint(2**63 - 1, ())))


def _mm(a, b, out):
    torch.mm(torch.from_numpy(a), torch.from_numpy(b), out=torch.from_numpy(out))


class _LinearCrossEntropy(torch.autograd.Function):
    """Computes both gradients in the forward pass, chunk by chunk, and keeps them; with torch's products (see _Linear)."""

    @staticmethod
    def forward(ctx, h, w, targets, chunk):
        arrays = [_array("linear_cross_entropy", t) for t in (h, w, targets)]
        loss, dh, dw = ops.linear_cross_entropy_with_gradient(*arrays, chunk, matmul=_mm)
        ctx.save_for_backward(torch.from_numpy(dh), torch.from_numpy(dw))
        return _tensor(loss)

    @staticmethod
    def backward(ctx, dloss):
        _refuse_second_derivative("linear_cross_entropy")
        dh, dw = ctx.saved_tensors
        same = dloss.item() == 1
        return dh if same else dh * dloss, dw if same else dw * dloss, None, None


def linear_cross_entropy(h, w, targets, chunk: int = 256):
    """Mean cross-entropy of h @ w.T against targets, in nats, without ever holding all logits: h (N, D), w (V, D).

    `bigmodel_lab.ops.linear_cross_entropy`. The gradients are computed at once and kept, as `softmax_cross_entropy` does.
    """
    if torch.is_grad_enabled() and (h.requires_grad or w.requires_grad):
        return _LinearCrossEntropy.apply(h, w, targets, chunk)
    arrays = [_array("linear_cross_entropy", t) for t in (h, w, targets)]
    return _tensor(ops.linear_cross_entropy(*arrays, chunk, matmul=_mm)[0])


def _torch_softmax(x, causal=False):
    if causal:
        T, V = x.shape[-2:]
        hidden = torch.ones(T, V, dtype=torch.bool, device=x.device).triu(V - T + 1)
        x = x.masked_fill(hidden, -torch.inf)
    return x.softmax(-1)


def _torch_rope(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _torch_attention(q, k, v, causal=True, scale=None):
    T, S, options = q.shape[2], k.shape[2], {"scale": scale, "enable_gqa": q.shape[1] != k.shape[1]}
    if causal and 1 < T < S:  # is_causal would count from the first position
        options["attn_mask"] = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T)
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal and T == S, **options)


_BACKENDS = {
    "numba": SimpleNamespace(
        linear=linear,
        relu=relu,
        sigmoid=sigmoid,
        tanh=tanh,
        gelu=gelu,
        softmax_cross_entropy=softmax_cross_entropy,
        silu=silu,
        swiglu=swiglu,
        softmax=softmax,
        rope=rope,
        attention=attention,
        embedding=embedding,
        layernorm=layernorm,
        rmsnorm=rmsnorm,
        dropout=dropout,
        linear_cross_entropy=linear_cross_entropy,
    ),
    "torch": SimpleNamespace(
        linear=F.linear,
        relu=F.relu,
        sigmoid=torch.sigmoid,
        tanh=torch.tanh,
        gelu=F.gelu,
        softmax_cross_entropy=F.cross_entropy,
        silu=F.silu,
        swiglu=lambda a, b: F.silu(a) * b,
        softmax=_torch_softmax,
        rope=_torch_rope,
        attention=_torch_attention,
        embedding=F.embedding,
        layernorm=lambda x, g, b, eps=1e-5: F.layer_norm(x, g.shape, g, b, eps),
        rmsnorm=lambda x, g, eps=1e-6: F.rms_norm(x, g.shape, g, eps),
        dropout=F.dropout,
        linear_cross_entropy=lambda h, w, targets, chunk=None: F.cross_entropy(
            F.linear(h, w), targets
        ),
    ),
}


def backend(name: str) -> SimpleNamespace:
    """Return the operations called `name`: "numba" for the kernels of this library, "torch" for torch's own.

    Both hold linear, relu, sigmoid, tanh, gelu, silu, swiglu, softmax, softmax_cross_entropy, linear_cross_entropy,
    layernorm, rmsnorm, embedding, rope, attention and dropout, which take the same arguments and agree to rounding (dropout
    only in distribution: the masks differ). attention is the tiled form on both sides. Raises ValueError for another name.
    """
    return _BACKENDS[require_choice("ops", name, _BACKENDS)]
