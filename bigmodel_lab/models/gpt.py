"""GPT: a decoder-only Transformer, in GPT-2's form and in Llama's by configuration.

    x_0 = tokens + positions                                   (B, T, D); rotary positions enter in the attention instead
    x_l' = x_l + attention(norm(x_l)),    x_{l+1} = x_l' + mlp(norm(x_l'))         for each of L blocks
    logits = norm(x_L) E^T                                     (B, T, V);  E: the token embedding, or a matrix of its own

The loss at position t is the cross-entropy of logits[t] against token t+1, which the caller passes as targets[t].
Source: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners"; Touvron et al. (2023),
arXiv:2302.13971. Derived and trained in chapter 9.
Shapes: B batch, T positions, D width, H heads of queries, G heads of keys and values, K head width, V vocabulary.
"""

import torch
from torch import nn

from bigmodel_lab import rng
from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.ops.torch import backend

__all__ = ["GPT", "GPTConfig"]

INIT_STD = 0.02  # of every matrix, after GPT-2; those that write into the residual stream get less, see _init


class Norm(nn.Module):
    """Layer or RMS normalisation of the last dimension, by a gain (and, for layernorm, a bias)."""

    def __init__(self, config):
        super().__init__()
        self.kind, self.eps = config.norm, config.eps
        self.weight = nn.Parameter(torch.ones(config.width))
        if self.kind == "layernorm":
            self.bias = nn.Parameter(torch.zeros(config.width))

    def forward(self, x, ops):
        if self.kind == "layernorm":
            return ops.layernorm(x, self.weight, self.bias, eps=self.eps)
        return ops.rmsnorm(x, self.weight, eps=self.eps)


class Attention(nn.Module):
    """Causal self-attention; the rows of `qkv.weight` are those of all queries, then all keys, then all values."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.qkv = _linear(config.width, config.width + 2 * config.kv_width, config.bias)
        self.out = _linear(config.width, config.width, config.bias)

    def forward(self, x, ops, angles, layer_cache):
        B, T, _ = x.shape
        c = self.config
        qkv = ops.linear(x, self.qkv.weight, self.qkv.bias)
        q, k, v = (
            part.view(B, T, -1, c.head_width).transpose(1, 2)  # (B, heads, T, K)
            for part in qkv.split([c.width, c.kv_width, c.kv_width], -1)
        )
        if angles is not None:
            q, k = ops.rope(q, *angles), ops.rope(k, *angles)
        if layer_cache is not None:
            k, v = layer_cache.append(k, v)  # from here on k, v (B, G, S, K) with S >= T
        y = ops.attention(q, k, v)
        return ops.linear(y.transpose(1, 2).reshape(B, T, c.width), self.out.weight, self.out.bias)


class FeedForward(nn.Module):
    """down(gelu(up(x))), or with swiglu down(silu(gate(x)) * up(x))."""

    def __init__(self, config):
        super().__init__()
        self.kind = config.mlp
        if self.kind == "swiglu":
            self.gate = _linear(config.width, config.hidden, config.bias)
        self.up = _linear(config.width, config.hidden, config.bias)
        self.down = _linear(config.hidden, config.width, config.bias)

    def forward(self, x, ops):
        h = ops.linear(x, self.up.weight, self.up.bias)
        if self.kind == "swiglu":
            h = ops.swiglu(ops.linear(x, self.gate.weight, self.gate.bias), h)
        else:
            h = ops.gelu(h, approximate="tanh" if self.kind == "gelu_tanh" else "none")
        return ops.linear(h, self.down.weight, self.down.bias)


class Block(nn.Module):
    """One layer: attention and feed-forward, each on a normalised copy and added to the stream."""

    def __init__(self, config):
        super().__init__()
        self.dropout = config.dropout
        self.norm1, self.attention = Norm(config), Attention(config)
        self.norm2, self.mlp = Norm(config), FeedForward(config)

    def forward(self, x, ops, angles=None, layer_cache=None):
        added = self.attention(self.norm1(x, ops), ops, angles, layer_cache)
        x = x + ops.dropout(added, self.dropout, self.training)
        return x + ops.dropout(self.mlp(self.norm2(x, ops), ops), self.dropout, self.training)


class GPT(nn.Module):
    """A decoder-only Transformer whose operations are torch's own or our numba kernels.

    Parameters
    ----------
    config : GPTConfig
    ops : "torch" or "numba"   which kernels compute it; the parameters and their names do not depend on it
    seed : int                 of the initial weights; equal seeds give equal weights, whatever ran before

    Only dropout, if there is any, draws from torch's global generator. Under `torch.device("meta")` no memory is taken.
    """

    def __init__(self, config: GPTConfig, ops: str = "torch", *, seed: int = 0):
        super().__init__()
        backend(ops)  # raises for an unknown name
        self.config, self.ops = config, ops  # the name, not the functions: so it can be pickled
        V, D = config.vocab_size, config.width
        self.tokens = nn.utils.skip_init(nn.Embedding, V, D, device=torch.get_default_device())
        if config.positions == "learned":
            self.positions = nn.Parameter(torch.empty(config.context, D))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = Norm(config)
        if not config.tied:
            self.head = _linear(D, V, bias=False)
        self._init(seed)

    @torch.no_grad()
    def _init(self, seed):
        """Normal matrices, zero biases. Each of the 2 L sums into the stream adds variance, so each adds 1/(2 L) of it."""
        for name, p in self.named_parameters():
            if p.ndim < 2 and name.endswith("bias"):
                p.zero_()
            elif p.ndim == 2 and not p.is_meta:
                into_stream = name.endswith(("attention.out.weight", "mlp.down.weight"))
                std = INIT_STD / (2 * self.config.n_layers) ** 0.5 if into_stream else INIT_STD
                w = rng.generator(seed, "gpt", name).standard_normal(p.shape, dtype="float32")
                p.copy_(torch.from_numpy(w) * std)

    @classmethod
    def from_transformers(cls, state_dict, config: GPTConfig, ops: str = "torch") -> "GPT":
        """Return the GPT with the weights of a GPT2LMHeadModel or a LlamaForCausalLM: see `models.convert`."""
        from bigmodel_lab.models.convert import from_transformers

        return from_transformers(state_dict, config, ops)

    def forward(self, tokens, targets=None, cache=None) -> torch.Tensor:
        """Return the logits, or the loss if targets are given.

        Parameters
        ----------
        tokens : int64 (B, T)    0 <= token < V
        targets : int64 (B, T)   the token that follows each, usually tokens one further
        cache : KVCache          keys and values of the positions before these (see `models.generate`); is extended

        Returns logits (B, T, V), or the mean cross-entropy in nats, a scalar. Raises ValueError for more positions than
        the context holds.
        """
        ops = backend(self.ops)
        start = 0 if cache is None else len(cache)
        x, angles = self._embed(tokens, start, ops)
        for l, block in enumerate(self.blocks):
            x = block(x, ops, angles, None if cache is None else cache[l])
        head = self.tokens.weight if self.config.tied else self.head.weight
        x = self.norm(x, ops)
        if targets is None:
            return ops.linear(x, head)
        return ops.linear_cross_entropy(x.flatten(0, 1), head, targets.flatten())

    def _embed(self, tokens, start, ops):
        """Return x_0 (B, T, D) and, for rotary positions, the cosines and sines (T, K/2) of positions start, start+1, ..."""
        c = self.config
        if tokens.ndim != 2:
            raise ValueError(f"tokens must have shape (B, T), got {tuple(tokens.shape)}.")
        end = start + tokens.shape[1]
        if end > c.context:
            raise ValueError(
                f"tokens reach position {end}, the context of this model is {c.context}."
            )
        x, angles = ops.embedding(tokens, self.tokens.weight), None
        if c.positions == "learned":
            x = x + self.positions[start:end]
        else:
            angles = rope_angles(c, start, end, x)
        return ops.dropout(x, c.dropout, self.training), angles


def rope_angles(config: GPTConfig, start: int, end: int, like: torch.Tensor):
    """Return cosines and sines (T, K/2) of positions start ... end - 1, in dtype and on device of `like`."""
    # in float64: at position 100,000 a float32 angle would be known to 0.004 only
    pair = torch.arange(0, config.head_width, 2, dtype=torch.float64, device=like.device)
    at = torch.arange(start, end, dtype=torch.float64, device=like.device)
    angle = at[:, None] * config.rope_base ** (-pair / config.head_width)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def _linear(d_in, d_out, bias):
    device = torch.get_default_device()
    return nn.utils.skip_init(nn.Linear, d_in, d_out, bias=bias, device=device)
