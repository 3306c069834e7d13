"""The operations of this library on tensors: our kernels in torch's forward and backward passes."""

import numpy as np
import torch
import torch.nn.functional as F

from bigmodel_lab import ops
from bigmodel_lab.ops._reduce import column_sums
from bigmodel_lab.ops.torch._bind import as_array, as_tensor, bind, check, refuse_second_derivative


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
        refuse_second_derivative("linear")
        x, w = ctx.saved_tensors
        need_dx, need_dw, need_db = ctx.needs_input_grad
        dx = dy @ w if need_dx else None
        channels, D = w.shape
        # Both sizes spelled out: without rows or without channels -1 would be ambiguous.
        rows = dy.reshape(x.numel() // D, channels)
        dw = rows.T @ x.reshape(len(rows), D) if need_dw else None
        db = w.new_empty(len(w)) if need_db else None
        if need_db:
            column_sums(np.ascontiguousarray(rows.numpy()), db.numpy())
        return dx, dw, db


def linear(x, w, b=None):
    """x @ w.T + b on tensors: `bigmodel_lab.ops.linear` for x (..., D) with any number of leading dimensions.

    Here, in `embedding` and in `linear_cross_entropy` w may be a module instead, such as `models.QuantisedMatrix`.
    """
    if isinstance(w, torch.nn.Module):
        return w(x, b)
    for t in (x, w):
        check("linear", t)
    return _Linear.apply(x, w, b)


class _SoftmaxCrossEntropy(torch.autograd.Function):
    """Computes the gradient in the forward pass, while the row is in the processor's cache, and keeps it."""

    @staticmethod
    def forward(ctx, logits, targets):
        loss, dlogits = ops.softmax_cross_entropy_with_gradient(
            as_array("softmax_cross_entropy", logits), as_array("softmax_cross_entropy", targets)
        )
        ctx.save_for_backward(torch.from_numpy(dlogits))
        return as_tensor(loss)

    @staticmethod
    def backward(ctx, dloss):
        refuse_second_derivative("softmax_cross_entropy")
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
        as_array("softmax_cross_entropy", logits), as_array("softmax_cross_entropy", targets)
    )
    return as_tensor(loss)


relu = bind(ops.relu, ops.relu_backward)
sigmoid = bind(ops.sigmoid, ops.sigmoid_backward)
tanh = bind(ops.tanh, ops.tanh_backward)
gelu = bind(ops.gelu, ops.gelu_backward)
silu = bind(ops.silu, ops.silu_backward)
swiglu = bind(ops.swiglu, ops.swiglu_backward)
softmax = bind(ops.softmax, ops.softmax_backward)
rope = bind(ops.rope, ops.rope_backward)
_attention = bind(ops.flash_attention, ops.flash_attention_backward)
_embedding = bind(ops.embedding, lambda dy, cache: (None, ops.embedding_backward(dy, cache)))
conv2d = bind(ops.conv2d, ops.conv2d_backward, optional_dx=True)
maxpool2d = bind(ops.maxpool2d, ops.maxpool2d_backward)


def embedding(tokens, w):
    """The rows of w (V, D) that `tokens` (...) name: `bigmodel_lab.ops.embedding` on tensors."""
    return w.rows(tokens) if isinstance(w, torch.nn.Module) else _embedding(tokens, w)


def attention(q, k, v, causal: bool = True, scale: float | None = None, lengths=None):
    """`bigmodel_lab.ops.flash_attention` on tensors; `lengths` is an integer tensor (B,), or None."""
    return _attention(q, k, v, causal=causal, scale=scale, lengths=as_array("attention", lengths))


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
        arrays = [as_array("linear_cross_entropy", t) for t in (h, w, targets)]
        loss, dh, dw = ops.linear_cross_entropy_with_gradient(*arrays, chunk, matmul=_mm)
        ctx.save_for_backward(torch.from_numpy(dh), torch.from_numpy(dw))
        return as_tensor(loss)

    @staticmethod
    def backward(ctx, dloss):
        refuse_second_derivative("linear_cross_entropy")
        dh, dw = ctx.saved_tensors
        same = dloss.item() == 1
        return dh if same else dh * dloss, dw if same else dw * dloss, None, None


def linear_cross_entropy(h, w, targets, chunk: int = 256):
    """Mean cross-entropy of h @ w.T against targets, in nats, without ever holding all logits: h (N, D), w (V, D).

    `bigmodel_lab.ops.linear_cross_entropy`. The gradients are computed at once and kept, as `softmax_cross_entropy` does.
    """
    if isinstance(w, torch.nn.Module):
        return softmax_cross_entropy(w(h), targets)
    if torch.is_grad_enabled() and (h.requires_grad or w.requires_grad):
        return _LinearCrossEntropy.apply(h, w, targets, chunk)
    arrays = [as_array("linear_cross_entropy", t) for t in (h, w, targets)]
    return as_tensor(ops.linear_cross_entropy(*arrays, chunk, matmul=_mm)[0])


_rnn_cell = bind(ops.rnn_cell, ops.rnn_cell_backward)
_gru_cell = bind(ops.gru_cell, ops.gru_cell_backward)


def rnn_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None, nonlinearity: str = "tanh"):
    """`bigmodel_lab.ops.rnn_cell` on tensors, with torch's products (see _Linear)."""
    options = {"nonlinearity": nonlinearity, "matmul": _mm}
    return _rnn_cell(x, h, w_ih, w_hh, b_ih, b_hh, **options)


def gru_cell(x, h, w_ih, w_hh, b_ih=None, b_hh=None):
    """`bigmodel_lab.ops.gru_cell` on tensors, with torch's products (see _Linear)."""
    return _gru_cell(x, h, w_ih, w_hh, b_ih, b_hh, matmul=_mm)
