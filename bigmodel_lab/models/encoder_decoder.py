"""An encoder and a decoder: one reads a whole sequence, the other writes another one, looking at what the first made of it.

    s_0 = source tokens + positions;    each encoder block:  s' = s + attention(norm(s), norm(s)),      s = s' + mlp(norm(s'))
    t_0 = target tokens + positions;    each decoder block:  t' = t + causal attention(norm(t), norm(t)),
                                                             t'' = t' + attention(norm(t'), states),    t = t'' + mlp(norm(t''))
    states = norm(s_L)  (B, S, D);      logits = norm(t_L) E^T  (B, T, V);      E: the token embedding, of source and target

attention(x, y) takes its queries from x, its keys and values from y. The decoder's second one, from the target to the
source, is the only way in which the source reaches the output; its keys and values are the same for every target
position, so a translation computes them once. Targets are learned as in `GPT`: at position t the token t+1 is to be guessed.

Source: Vaswani et al. (2017), arXiv:1706.03762, section 3 and figure 1; the norm stands before each part and not after
the sum, after Xiong et al. (2020), arXiv:2002.04745, which trains without warm-up. Learned positions, exact gelu. Told in
chapter 9.
Shapes: B batch, S source positions, T target positions, D width, H heads, K head width, V vocabulary.
"""

import torch
from torch import nn

from bigmodel_lab import rng
from bigmodel_lab.errors import require_in_range
from bigmodel_lab.models.config import EncoderDecoderConfig
from bigmodel_lab.models.encoder import NOT_CHOSEN, _linear, _norm
from bigmodel_lab.ops.torch import backend

__all__ = ["EncoderDecoder", "EncoderDecoderConfig"]


class Attention(nn.Module):
    """Queries from one sequence, keys and values from another or the same; `kv` has the rows of all keys, then values."""

    def __init__(self, c: EncoderDecoderConfig):
        super().__init__()
        self.n_heads = c.n_heads
        self.q, self.kv = nn.Linear(c.width, c.width), nn.Linear(c.width, 2 * c.width)
        self.out = nn.Linear(c.width, c.width)

    def keys_and_values(self, y, ops):
        """Return k and v, each (B, H, S, K), for y (B, S, D)."""
        both = _linear(ops, self.kv, y).unflatten(-1, (2, self.n_heads, -1))
        return both.permute(2, 0, 3, 1, 4).unbind()

    def forward(self, x, k, v, ops, causal=False, lengths=None):
        """Return what is to be added at each position of x (B, T, D)."""
        q = _linear(ops, self.q, x).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        y = ops.attention(q, k, v, causal=causal, lengths=lengths)
        return _linear(ops, self.out, y.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Self-attention, in the decoder also attention to the source, and feed-forward, each added to the stream."""

    def __init__(self, c: EncoderDecoderConfig, decoder: bool):
        super().__init__()
        self.dropout, self.decoder = c.dropout, decoder
        self.attention, self.norm1 = Attention(c), nn.LayerNorm(c.width, c.eps)
        if decoder:
            self.cross, self.norm2 = Attention(c), nn.LayerNorm(c.width, c.eps)
        self.up, self.down = nn.Linear(c.width, c.hidden), nn.Linear(c.hidden, c.width)
        self.norm3 = nn.LayerNorm(c.width, c.eps)

    def forward(self, x, ops, source=None, lengths=None, past=None):
        """Return (x, (k, v)): the stream after this block, and all keys and values of its self-attention.

        x (B, T, D); source: k and v of the source (decoder); lengths (B,) of the source; past: k and v of earlier x.
        """
        h = _norm(ops, self.norm1, x)
        kv = self.attention.keys_and_values(h, ops)
        if past is not None:
            kv = [torch.cat(pair, 2) for pair in zip(past, kv, strict=True)]
        own = dict(causal=True) if self.decoder else dict(lengths=lengths)
        x = self._add(x, self.attention(h, *kv, ops, **own), ops)
        if self.decoder:
            h = _norm(ops, self.norm2, x)
            x = self._add(x, self.cross(h, *source, ops, lengths=lengths), ops)
        h = ops.gelu(_linear(ops, self.up, _norm(ops, self.norm3, x)))
        return self._add(x, _linear(ops, self.down, h), ops), kv

    def _add(self, x, change, ops):
        return x + ops.dropout(change, self.dropout, self.training)


class EncoderDecoder(nn.Module):
    """A Transformer that turns one sequence into another, by torch's operations or our numba kernels.

    Parameters
    ----------
    config : EncoderDecoderConfig
    ops : "torch" or "numba"   which kernels compute it; the parameters and their names do not depend on it
    seed : int                 of the initial weights: normal with variance 1 / (width in), embeddings 0.02, biases 0

    A source shorter than the longest of its batch is padded at its end, with any token, and `source_lengths` (int64 (B,),
    1 ... S) says how much of each is real. A padded target needs no lengths, as no position sees a later one.
    """

    def __init__(self, config: EncoderDecoderConfig, ops: str = "torch", *, seed: int = 0):
        super().__init__()
        backend(ops)  # raises for an unknown name
        self.config, self.ops, c = config, ops, config
        device = torch.get_default_device()
        with torch.device("meta"):  # no memory and no draw before the weights are ours
            self.tokens = nn.Parameter(torch.empty(c.vocab_size, c.width))
            self.positions = nn.Parameter(torch.empty(2, c.context, c.width))  # source, target
            self.encoder = nn.ModuleList(Block(c, decoder=False) for _ in range(c.n_layers))
            self.decoder = nn.ModuleList(Block(c, decoder=True) for _ in range(c.n_layers))
            self.source_norm = nn.LayerNorm(c.width, c.eps)
            self.target_norm = nn.LayerNorm(c.width, c.eps)
        if device.type != "meta":
            self.to_empty(device=device)
            self._init(seed)

    @torch.no_grad()
    def _init(self, seed):
        for name, p in self.named_parameters():
            p.fill_(0.0 if name.endswith("bias") else 1.0)
            if p.ndim > 1:
                w = rng.generator(seed, "encoder_decoder", name).standard_normal(p.shape, "float32")
                std = 0.02 if name in ("tokens", "positions") else p.shape[1] ** -0.5
                p.copy_(torch.from_numpy(w) * std)

    def forward(self, source, target_in, targets=None, source_lengths=None) -> torch.Tensor:
        """Return the logits (B, T, V), or the mean cross-entropy in nats, a scalar, if targets are given.

        Parameters
        ----------
        source : int64 (B, S)        S <= context
        target_in : int64 (B, T)     a start token and the target without its last token; T <= context
        targets : int64 (B, T)       the token that follows each of target_in; -100 does not count
        source_lengths : int64 (B,)  number of real tokens of each source; all S if not given
        """
        ops = backend(self.ops)
        states = self.encode(source, source_lengths)
        x, _ = self._decode(target_in, self._source(states, ops), source_lengths)
        if targets is None:
            return ops.linear(x, self.tokens)
        real = targets != NOT_CHOSEN
        if not real.any():
            raise ValueError(f"targets are all {NOT_CHOSEN}: there is nothing to guess.")
        return ops.linear_cross_entropy(x[real], self.tokens, targets[real])

    def encode(self, source, source_lengths=None) -> torch.Tensor:
        """Return the states (B, S, D): one for each source token, which saw all real ones."""
        ops = backend(self.ops)
        x = self._embed("source", source, 0, ops)
        for block in self.encoder:
            x, _ = block(x, ops, lengths=source_lengths)
        return _norm(ops, self.source_norm, x)

    def _source(self, states, ops):
        return [block.cross.keys_and_values(states, ops) for block in self.decoder]

    def _decode(self, target_in, source, lengths, past=None):
        """Return what the logits are computed from (B, T, D), and the keys and values of the target by block."""
        ops, kept = backend(self.ops), []
        past = past or [None] * len(self.decoder)
        start = 0 if past[0] is None else past[0][0].shape[2]
        x = self._embed("target", target_in, start, ops)
        for block, kv, before in zip(self.decoder, source, past, strict=True):
            x, after = block(x, ops, kv, lengths, before)
            kept.append(after)
        return _norm(ops, self.target_norm, x), kept

    def _embed(self, side, tokens, start, ops):
        c = self.config
        if tokens.ndim != 2 or not 1 <= tokens.shape[1] <= c.context - start:
            want = f"{side} tokens must have shape (B, T) with 1 <= T <= {c.context}"
            raise ValueError(f"{want}, got {tuple(tokens.shape)}.")
        at = self.positions[("source", "target").index(side), start : start + tokens.shape[1]]
        return ops.dropout(ops.embedding(tokens, self.tokens) + at, c.dropout, self.training)

    @torch.no_grad()
    def translate(self, source, start: int, stop: int, max_tokens: int, source_lengths=None):
        """Return the target that takes the likeliest token at each position, int64 (B, n), n <= max_tokens <= context.

        `start` is the token before the first and is not returned; a row that has reached the token `stop` is filled up
        with it. The source is encoded once, and each step computes one position. Dropout is off.
        """
        require_in_range("max_tokens", max_tokens, 1, self.config.context)
        ops, was_training = backend(self.ops), self.training
        self.eval()
        try:
            kv = self._source(self.encode(source, source_lengths), ops)
            new, past, out = source.new_full((len(source),), start), None, []
            done = torch.zeros_like(new, dtype=torch.bool)
            while len(out) < max_tokens and not done.all():
                x, past = self._decode(new[:, None], kv, source_lengths, past)
                likeliest = ops.linear(x[:, 0], self.tokens).argmax(-1)
                new = torch.where(done, stop, likeliest)
                done = new == stop
                out.append(new)
        finally:
            self.train(was_training)
        return torch.stack(out, 1)
