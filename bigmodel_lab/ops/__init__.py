"""The operations of a neural network: `y, cache = op(x, ...)` and `grads = op_backward(dy, cache)` on NumPy arrays.

One file for each operation, with its equation, its source, the checks and the numba kernels that do the work. Arrays
are float32 or float64; others raise. `ops.torch` (imported only if asked for) binds the same kernels to torch's autograd,
and `ops.gradcheck` proves a backward pass right or wrong, the reader's own included.

The first call of an operation compiles its kernels, which takes a second or two; they are cached on disk for later
processes on the same machine (in __pycache__ beside the source, or where NUMBA_CACHE_DIR says). `numba.set_num_threads`
sets the number of threads, which changes the speed and not one bit of what the kernels compute.
"""

from pathlib import Path

from bigmodel_lab.ops._stale import forget_stale_kernels
from bigmodel_lab.ops.activations import (
    gelu,
    gelu_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    tanh,
    tanh_backward,
)
from bigmodel_lab.ops.adamw import adamw
from bigmodel_lab.ops.attention import attention, attention_backward
from bigmodel_lab.ops.conv2d import conv2d, conv2d_backward
from bigmodel_lab.ops.dropout import dropout, dropout_backward
from bigmodel_lab.ops.embedding import embedding, embedding_backward
from bigmodel_lab.ops.flash_attention import flash_attention, flash_attention_backward
from bigmodel_lab.ops.gradcheck import gradient_error, numerical_gradients
from bigmodel_lab.ops.gru_cell import gru_cell, gru_cell_backward
from bigmodel_lab.ops.layernorm import layernorm, layernorm_backward
from bigmodel_lab.ops.linear import linear, linear_backward
from bigmodel_lab.ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_with_gradient,
)
from bigmodel_lab.ops.linear_int4 import (
    dequantise_int4,
    linear_int4,
    linear_int4_backward,
    quantise_int4,
)
from bigmodel_lab.ops.linear_int8 import (
    dequantise_int8,
    linear_int8,
    linear_int8_backward,
    quantise_int8,
)
from bigmodel_lab.ops.maxpool2d import maxpool2d, maxpool2d_backward
from bigmodel_lab.ops.rmsnorm import rmsnorm, rmsnorm_backward
from bigmodel_lab.ops.rnn_cell import rnn_cell, rnn_cell_backward
from bigmodel_lab.ops.rope import rope, rope_backward, rope_tables
from bigmodel_lab.ops.sampling import next_token_probabilities, sample_tokens
from bigmodel_lab.ops.softmax import softmax, softmax_backward
from bigmodel_lab.ops.softmax_cross_entropy import (
    softmax_cross_entropy,
    softmax_cross_entropy_backward,
    softmax_cross_entropy_with_gradient,
)
from bigmodel_lab.ops.swiglu import silu, silu_backward, swiglu, swiglu_backward

__all__ = [
    "adamw",
    "attention",
    "attention_backward",
    "conv2d",
    "conv2d_backward",
    "dequantise_int4",
    "dequantise_int8",
    "dropout",
    "dropout_backward",
    "embedding",
    "embedding_backward",
    "flash_attention",
    "flash_attention_backward",
    "gelu",
    "gelu_backward",
    "gradient_error",
    "gru_cell",
    "gru_cell_backward",
    "layernorm",
    "layernorm_backward",
    "linear",
    "linear_backward",
    "linear_cross_entropy",
    "linear_cross_entropy_backward",
    "linear_cross_entropy_with_gradient",
    "linear_int4",
    "linear_int4_backward",
    "linear_int8",
    "linear_int8_backward",
    "maxpool2d",
    "maxpool2d_backward",
    "next_token_probabilities",
    "numerical_gradients",
    "quantise_int4",
    "quantise_int8",
    "relu",
    "relu_backward",
    "rmsnorm",
    "rmsnorm_backward",
    "rnn_cell",
    "rnn_cell_backward",
    "rope",
    "rope_backward",
    "rope_tables",
    "sample_tokens",
    "sigmoid",
    "sigmoid_backward",
    "silu",
    "silu_backward",
    "softmax",
    "softmax_backward",
    "softmax_cross_entropy",
    "softmax_cross_entropy_backward",
    "softmax_cross_entropy_with_gradient",
    "swiglu",
    "swiglu_backward",
    "tanh",
    "tanh_backward",
]

forget_stale_kernels(Path(__file__).parent)  # none is loaded before its first call
