"""The same operations on torch tensors, with our kernels in torch's forward and backward passes.

    from bigmodel_lab.ops.torch import backend
    ops = backend("numba")                      # or backend("torch"): the same names, from torch.nn.functional
    ops.softmax_cross_entropy(ops.linear(x, w, b), targets).backward()

A model written against `backend` neither knows nor cares which one it got; optimisers, DDP, checkpoint, `torch.no_grad`
and `torch.autograd.gradcheck` work as with any torch function. Tensors must be on the CPU; their memory is shared with
NumPy, not copied. A gradient of a gradient is not available with "numba", and asking for one raises.

The one part of `bigmodel_lab.ops` that imports torch: import it only where torch is wanted.
"""

from types import SimpleNamespace

from bigmodel_lab.errors import require_choice
from bigmodel_lab.ops.torch import _eager, _kernels
from bigmodel_lab.ops.torch._bind import bind
from bigmodel_lab.ops.torch._kernels import (
    attention,
    conv2d,
    dropout,
    embedding,
    gelu,
    gru_cell,
    layernorm,
    linear,
    linear_cross_entropy,
    maxpool2d,
    relu,
    rmsnorm,
    rnn_cell,
    rope,
    sigmoid,
    silu,
    softmax,
    softmax_cross_entropy,
    swiglu,
    tanh,
)

__all__ = [
    "attention",
    "backend",
    "bind",
    "conv2d",
    "dropout",
    "embedding",
    "gelu",
    "gru_cell",
    "layernorm",
    "linear",
    "linear_cross_entropy",
    "maxpool2d",
    "relu",
    "rmsnorm",
    "rnn_cell",
    "rope",
    "sigmoid",
    "silu",
    "softmax",
    "softmax_cross_entropy",
    "swiglu",
    "tanh",
]

_BACKENDS = {
    name: SimpleNamespace(**{op: getattr(module, op) for op in {*__all__} - {"backend", "bind"}})
    for name, module in {"numba": _kernels, "torch": _eager}.items()
}


def backend(name: str) -> SimpleNamespace:
    """Return the operations called `name`: "numba" for the kernels of this library, "torch" for torch's own.

    Both hold linear, relu, sigmoid, tanh, gelu, silu, swiglu, softmax, softmax_cross_entropy, linear_cross_entropy,
    layernorm, rmsnorm, embedding, rope, attention, dropout, conv2d, maxpool2d, rnn_cell and gru_cell, which take the same
    arguments and agree to rounding (dropout only in distribution: the masks differ). attention is the tiled form on both
    sides. Raises ValueError for another name.
    """
    return _BACKENDS[require_choice("ops", name, _BACKENDS)]
