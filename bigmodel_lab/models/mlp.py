"""A multilayer perceptron: linear layers with an activation function between them.

    h_0 = x,    h_l = f(h_{l-1} W_l^T + b_l)  for l = 1 .. L-1,    logits = h_{L-1} W_L^T + b_L

Source: Rumelhart, Hinton and Williams (1986), Nature 323:533-536; initial weights after He et al. (2015),
arXiv:1502.01852, eq. 10, and LeCun et al. (1998), "Efficient BackProp", section 4.6. Built by hand in chapter 5; trained
on several ranks in lab L02.
Shapes: N = rows of the batch; widths D_0 (in), D_1, ..., D_L (classes); W_l (D_l, D_{l-1}), b_l (D_l,).
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from bigmodel_lab import rng
from bigmodel_lab.errors import require_choice, require_in_range
from bigmodel_lab.ops.torch import backend

# Variance of the initial weights times the width in. relu lets half of a symmetric input through, so its weights need
# twice the variance to keep the size of h from layer to layer; gelu is near relu, tanh and sigmoid near linear at 0.
INIT_GAIN = {"relu": 2.0, "gelu": 2.0, "tanh": 1.0, "sigmoid": 1.0}


class MLP(nn.Module):
    """A multilayer perceptron whose operations are our numba kernels or torch's own.

    Parameters
    ----------
    widths : sequence of int   D_0, ..., D_L: [784, 128, 10] has one hidden layer of 128 units
    activation : "relu", "gelu", "tanh" or "sigmoid"
    ops : "torch" or "numba"   which kernels compute it; the parameters and their names do not depend on it
    seed : int                 of the initial weights; equal seeds give equal weights, whatever ran before

    The parameters are layers.0.weight, layers.0.bias, layers.1.weight, ...; biases start at 0. torch's global random
    generator is neither read nor changed. Raises ValueError for fewer than two widths or unknown names.
    """

    def __init__(
        self, widths: Sequence[int], activation: str = "relu", ops: str = "torch", *, seed: int = 0
    ):
        super().__init__()
        if len(widths) < 2:
            raise ValueError(
                f"widths must name at least the width in and the width out, got {list(widths)}."
            )
        for i, width in enumerate(widths):
            require_in_range(f"widths[{i}]", width, 1)
        self.widths = tuple(widths)
        self.activation = require_choice("activation", activation, INIT_GAIN)
        backend(ops)  # raises for an unknown name
        self.ops = ops  # the name, not the functions: a model can then be pickled and sent to ranks
        self.layers = nn.ModuleList(
            nn.utils.skip_init(nn.Linear, d_in, d_out) for d_in, d_out in pairwise(widths)
        )
        for i, layer in enumerate(self.layers):
            w = rng.generator(seed, "mlp", f"layers.{i}.weight").standard_normal(layer.weight.shape)
            w *= (INIT_GAIN[activation] / layer.in_features) ** 0.5
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(w))
                layer.bias.zero_()

    def hidden(self, x) -> list[torch.Tensor]:
        """Return h_0 (N, D_0), h_1, ... and, last, the logits (N, D_L), for x (N, ...) of D_0 numbers a row."""
        ops = backend(self.ops)
        f = getattr(ops, self.activation)
        h = [x.flatten(1)]
        for i, layer in enumerate(self.layers):
            z = ops.linear(h[-1], layer.weight, layer.bias)
            h.append(z if i == len(self.layers) - 1 else f(z))
        return h

    def forward(self, x) -> torch.Tensor:
        """Return the logits (N, D_L)."""
        return self.hidden(x)[-1]

    def loss(self, x, targets) -> torch.Tensor:
        """Return the mean cross-entropy in nats, a scalar, of integer targets (N,)."""
        return backend(self.ops).softmax_cross_entropy(self(x), targets)
