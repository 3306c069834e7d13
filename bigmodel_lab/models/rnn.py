"""A language model on a gated recurrent unit: one state that is carried from token to token.

    r = sigmoid(x W_r^T + b_r + h U_r^T + c_r)            how much of the state the candidate sees
    z = sigmoid(x W_z^T + b_z + h U_z^T + c_z)            how much of the state is kept
    n = tanh(x W_n^T + b_n + r (h U_n^T + c_n))           the candidate
    h' = (1 - z) n + z h

Source: Cho et al. (2014), arXiv:1406.1078, section 2.3, in the variant that torch and cuDNN compute: there r multiplies
after the product with U_n, in the paper before it. Built in chapter 8.
Shapes: B sequences, T positions, E embedding width, D state width, V vocabulary; W (3 D, E), U (3 D, D), in the order
r, z, n.
"""

import torch
from torch import nn

from bigmodel_lab import rng
from bigmodel_lab.errors import require_in_range
from bigmodel_lab.ops.torch import backend


class GRULayer(nn.Module):
    """One GRU layer, with the names, shapes and order of the weights of `torch.nn.GRU(E, D, batch_first=True)`."""

    def __init__(self, d_in: int, width: int):
        super().__init__()
        self.weight_ih_l0 = nn.Parameter(torch.empty(3 * width, d_in))
        self.weight_hh_l0 = nn.Parameter(torch.empty(3 * width, width))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(3 * width))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(3 * width))

    def forward(self, x, h, ops):
        """Return the states after each position (B, T, D), for x (B, T, E) and the state before it, h (B, D)."""
        states = []
        # the input's share of the gates, of all positions at once; position first, so that each step is one piece
        from_x = ops.linear(x.transpose(0, 1), self.weight_ih_l0, self.bias_ih_l0)
        for step in from_x.unbind():
            h = ops.gru_cell(step, h, None, self.weight_hh_l0, None, self.bias_hh_l0)
            states.append(h)
        return torch.stack(states, 1)


class GRULM(nn.Module):
    """A language model of stacked GRU layers.

    Parameters
    ----------
    vocab_size : int           V
    width : int                of the embedding and of the states
    n_layers : int
    tied : bool                the output matrix is the embedding
    ops : "torch" or "numba"   which kernels compute it; the parameters and their names do not depend on it
    seed : int                 of the initial weights: uniform within 1/sqrt(width), biases 0

    torch's global random generator is neither read nor changed. Raises ValueError for sizes below 1 or unknown `ops`.
    """

    def __init__(
        self,
        vocab_size: int,
        width: int,
        n_layers: int = 1,
        *,
        tied: bool = True,
        ops: str = "torch",
        seed: int = 0,
    ):
        super().__init__()
        for name, n in {"vocab_size": vocab_size, "width": width, "n_layers": n_layers}.items():
            require_in_range(name, n, 1)
        backend(ops)  # raises for an unknown name
        self.ops, self.width = ops, width
        self.embedding = nn.Parameter(torch.empty(vocab_size, width))
        self.layers = nn.ModuleList(GRULayer(width, width) for _ in range(n_layers))
        self.head = None if tied else nn.Parameter(torch.empty(vocab_size, width))
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.ndim == 2:
                    w = rng.generator(seed, "gru", name).uniform(-1, 1, p.shape)
                    p.copy_(torch.from_numpy(w) / width**0.5)

    def forward(self, tokens, targets=None, state=None):
        """Return (logits, state), or the loss if targets are given.

        Parameters
        ----------
        tokens : int64 (B, T)           T >= 1
        targets : int64 (B, T)          the token that follows each
        state : list of (B, D)          one a layer, from the call on the tokens before these; zeros if not given

        Returns logits (B, T, V) and the states after the last token, or the mean cross-entropy in nats, a scalar.
        """
        ops = backend(self.ops)
        if tokens.ndim != 2 or tokens.shape[1] == 0:
            raise ValueError(
                f"tokens must have shape (B, T) with T >= 1, got {tuple(tokens.shape)}."
            )
        x = ops.embedding(tokens, self.embedding)
        if state is None:
            state = [x.new_zeros(len(tokens), self.width) for _ in self.layers]
        after = []
        for layer, h in zip(self.layers, state, strict=True):
            x = layer(x, h, ops)
            after.append(x[:, -1])
        w = self.embedding if self.head is None else self.head
        if targets is None:
            return ops.linear(x, w), after
        return ops.linear_cross_entropy(x.flatten(0, 1), w, targets.flatten())
