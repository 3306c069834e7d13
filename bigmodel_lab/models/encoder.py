"""An encoder in BERT's form: every position sees all others, and hidden tokens are to be guessed.

    x_0 = norm(tokens + positions + segments)
    x' = norm(x + attention(x)),    x = norm(x' + mlp(x'))                 for each block: the norm after the sum
    logits = norm(gelu(x W^T + b)) E^T + c                                 (B, T, V);  E: the token embedding

The loss is the mean over the chosen positions. Sequences shorter than T are padded at their end with any token, and
`lengths` keeps the real positions from seeing the padding.
Source: Devlin et al. (2018), arXiv:1810.04805, sections 3 and 3.1 and appendix A.1. Told in chapter 9.
Shapes: B batch, T positions, D width, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bigmodel_lab import rng
from bigmodel_lab.errors import require_in_range
from bigmodel_lab.ops.torch import backend

NOT_CHOSEN = (
    -100
)  # the target of a position that is not to be guessed, as in torch and transformers


@dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an `Encoder`; the defaults are those of BERT base (uncased)."""

    vocab_size: int = 30522  # V, tokens
    context: int = 512  # most positions
    n_layers: int = 12
    width: int = 768  # D
    n_heads: int = 12  # divides width
    hidden: int = 3072  # channels inside the feed-forward block
    n_segments: int = 2  # kinds of token: first and second sentence
    eps: float = 1e-12  # added to the variance inside the norms
    dropout: float = 0.0  # of the embeddings and of what is added to the stream; not of attention

    def __post_init__(self):
        for name in vars(self).keys() - {"eps", "dropout"}:
            require_in_range(name, getattr(self, name), 1)
        if self.width % self.n_heads:
            sizes = f"n_heads={self.n_heads} does not divide width={self.width}"
            raise ValueError(f"{sizes}: each head needs a whole number of channels.")


class Block(nn.Module):
    """Attention and feed-forward, each added to the stream, which is then normalised."""

    def __init__(self, c: EncoderConfig):
        super().__init__()
        self.config = c
        self.qkv, self.out = nn.Linear(c.width, 3 * c.width), nn.Linear(c.width, c.width)
        self.up, self.down = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)
        self.norm1, self.norm2 = nn.LayerNorm(c.width, c.eps), nn.LayerNorm(c.width, c.eps)

    def forward(self, x, ops, lengths):
        B, T, D = x.shape
        rate = self.config.dropout
        heads = _linear(ops, self.qkv, x).view(B, T, 3, self.config.n_heads, -1)
        y = ops.attention(*heads.permute(2, 0, 3, 1, 4).unbind(), causal=False, lengths=lengths)
        y = _linear(ops, self.out, y.transpose(1, 2).reshape(B, T, D))
        x = _norm(ops, self.norm1, x + ops.dropout(y, rate, self.training))
        y = _linear(ops, self.down, ops.gelu(_linear(ops, self.up, x)))
        return _norm(ops, self.norm2, x + ops.dropout(y, rate, self.training))


class Encoder(nn.Module):
    """BERT's encoder with the head that guesses hidden tokens, by torch's operations or our numba kernels.

    Parameters
    ----------
    config : EncoderConfig
    ops : "torch" or "numba"   which kernels compute it; the parameters and their names do not depend on it
    seed : int                 of the initial weights: normal with standard deviation 0.02, biases 0
    """

    def __init__(self, config: EncoderConfig, ops: str = "torch", *, seed: int = 0):
        super().__init__()
        backend(ops)  # raises for an unknown name
        self.config, self.ops, c = config, ops, config
        with torch.device(
            "meta"
        ):  # no memory, and no draw from torch's generator, before the weights are ours
            self.tokens = nn.Parameter(torch.empty(c.vocab_size, c.width))
            self.positions = nn.Parameter(torch.empty(c.context, c.width))
            self.segments = nn.Parameter(torch.empty(c.n_segments, c.width))
            self.norm = nn.LayerNorm(c.width, c.eps)
            self.blocks = nn.ModuleList(Block(c) for _ in range(c.n_layers))
            self.head = nn.Linear(c.width, c.width)
            self.head_norm = nn.LayerNorm(c.width, c.eps)
            self.head_bias = nn.Parameter(torch.empty(c.vocab_size))
        if torch.get_default_device().type != "meta":
            self.to_empty(device=torch.get_default_device())
            self._init(seed)

    @torch.no_grad()
    def _init(self, seed):
        for name, p in self.named_parameters():
            p.fill_(0.0 if name.endswith("bias") else 1.0)
            if p.ndim == 2:
                w = rng.generator(seed, "encoder", name).standard_normal(p.shape, dtype=np.float32)
                p.copy_(torch.from_numpy(w) * 0.02)

    def forward(self, tokens, targets=None, segments=None, lengths=None) -> torch.Tensor:
        """Return the logits (B, T, V), or the loss, a scalar in nats, if targets are given.

        Parameters
        ----------
        tokens : int64 (B, T)     T <= context
        targets : int64 (B, T)    the token that was there, or -100 where nothing is to be guessed; see `hide_tokens`
        segments : int64 (B, T)   which sentence a token belongs to; all 0 if not given
        lengths : int64 (B,)      number of real tokens of each sequence, 1 ... T; all T if not given

        The logits at padding mean nothing; let its targets be -100.
        """
        ops, c = backend(self.ops), self.config
        if tokens.ndim != 2 or tokens.shape[1] > c.context:
            want = f"tokens must have shape (B, T) with T <= {c.context}"
            raise ValueError(f"{want}, got {tuple(tokens.shape)}.")
        s = torch.zeros_like(tokens) if segments is None else segments
        x = ops.embedding(tokens, self.tokens) + ops.embedding(s, self.segments)
        x = _norm(ops, self.norm, x + self.positions[: tokens.shape[1]])
        x = ops.dropout(x, c.dropout, self.training)
        for block in self.blocks:
            x = block(x, ops, lengths)
        if targets is not None:  # the head, the dearest part, for the chosen positions only
            x, targets = x[targets != NOT_CHOSEN], targets[targets != NOT_CHOSEN]
        x = _norm(ops, self.head_norm, ops.gelu(_linear(ops, self.head, x)))
        logits = ops.linear(x, self.tokens, self.head_bias)
        return logits if targets is None else ops.softmax_cross_entropy(logits, targets)


def hide_tokens(tokens, mask_token: int, vocab_size: int, generator, rate: float = 0.15):
    """Return (inputs, targets), each like the integer array `tokens`: each position is chosen with probability `rate`.

    Of the chosen, 80 % become `mask_token`, 10 % a random token and 10 % stay; their targets are the original tokens.
    """
    u, kind = generator.random(tokens.shape), generator.random(tokens.shape)
    chosen = u < require_in_range("rate", rate, 0, 1)
    other = np.where(kind < 0.9, generator.integers(vocab_size, size=tokens.shape), tokens)
    inputs = np.where(chosen, np.where(kind < 0.8, mask_token, other), tokens)
    return inputs, np.where(chosen, tokens, NOT_CHOSEN)


def _linear(ops, layer, x):
    return ops.linear(x, layer.weight, layer.bias)


def _norm(ops, layer, x):
    return ops.layernorm(x, layer.weight, layer.bias, eps=layer.eps)
