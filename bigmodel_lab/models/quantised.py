"""A GPT whose matrices are kept in 8 or 4 bits: a quarter or a seventh of the memory, and of the time to read it.

Producing one token reads every weight once and computes next to nothing with it, so that the bytes of the weights set
the time. `quantise` rounds the embedding, the output layer and all linear layers; norms, biases and positions, which are
small, stay as they are. Nothing is trained afterwards to make up for the rounding ("post-training quantisation"), and no data
is needed.

Source: Dettmers et al. (2022), arXiv:2208.07339; Dettmers and Zettlemoyer (2023), arXiv:2212.09720. The products are
`ops.linear_int8` and `ops.linear_int4`. Timed in lab L01.
"""

import torch
from torch import nn

from bigmodel_lab import ops
from bigmodel_lab.errors import require_choice
from bigmodel_lab.models.gpt import GPT
from bigmodel_lab.ops.torch.quantised import linear_quantised


class QuantisedMatrix(nn.Module):
    """Stands where a model has a weight matrix (O, D), and knows its products.

    Parameters
    ----------
    w : float tensor (O, D)   on the CPU, float32 or float64, all finite
    bits : 8 or 4

    The buffers `q` (int8 (O, D), or uint8 with two weights in a byte) and `scale` are saved with the model. They are frozen;
    gradients pass through to what comes before, such as an adapter.
    """

    def __init__(self, w, bits: int):
        super().__init__()
        quantise = {8: ops.quantise_int8, 4: ops.quantise_int4}[
            require_choice("bits", bits, (4, 8))
        ]
        self.bits, self.shape = bits, w.shape
        for name, a in zip(("q", "scale"), quantise(w.detach().numpy()), strict=True):
            self.register_buffer(name, torch.from_numpy(a))

    def forward(self, x, b=None):
        """Return x w^T + b for x (..., D)."""
        return linear_quantised(x, self.q, self.scale, b)

    def rows(self, tokens):
        """Return the rows that the integer tensor `tokens` (...) names, as floats (..., D)."""
        q, scale = (a.index_select(0, tokens.flatten()).numpy() for a in (self.q, self.scale))
        floats = (
            ops.dequantise_int8(q, scale)
            if self.bits == 8
            else ops.dequantise_int4(q, scale, self.shape[1])
        )
        return torch.from_numpy(floats).view(*tokens.shape, -1)


class QuantisedGPT(GPT):
    """A `GPT` with `QuantisedMatrix` for weights, for inference: made by `quantise`, used like any other."""

    def train(self, mode: bool = True):
        """Raise RuntimeError unless mode is False: rounded weights cannot take the small steps of training."""
        if mode:
            raise RuntimeError(
                "A quantised model is for inference: a step of training is far smaller than the step between its weights. "
                "Train the float model and quantise it again."
            )
        return super().train(False)


def quantise(model: GPT, bits: int = 8) -> QuantisedGPT:
    """Return a copy of `model` for inference, its matrices rounded to `bits` bits; computed by the numba kernels.

    Raises ValueError for other numbers of bits than 8 and 4 or if a weight is not finite, TypeError for half precision.
    """
    require_choice("bits", bits, (4, 8))
    floats = dict(model.named_parameters())
    with torch.device("meta"):
        small = QuantisedGPT(model.config, "numba")
    for path, module in list(small.named_modules()):
        for name in [name for name, _ in module.named_parameters(recurse=False)]:
            w = floats[f"{path}.{name}" if path else name]
            delattr(module, name)
            if isinstance(module, nn.Linear | nn.Embedding) and name == "weight":
                setattr(module, name, QuantisedMatrix(w, bits))
            else:
                setattr(module, name, nn.Parameter(w.detach().clone(), requires_grad=False))
    return small.eval()


def weights_bytes(model: nn.Module) -> int:
    """Bytes of the parameters and buffers of a model."""
    return sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
