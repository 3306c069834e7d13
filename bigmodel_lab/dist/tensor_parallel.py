"""Tensor parallelism by hand: each rank holds a slice of every matrix, and all ranks work on the same tokens.

A pair of matrices needs one sum. Cut the first by its rows (each rank computes some of the channels) and the second by
its columns (each rank uses just those channels):

    y = f(x A^T) B^T = sum_r f(x A_r^T) B_r^T,      A = [A_1; ...; A_W],   B = [B_1, ..., B_W]

holds for any f that works on channels one by one (gelu, swiglu), and for attention, whose heads do not see each other.
So a block of a Transformer sums twice going forward, after attention and after the feed-forward part, and twice going
backward, where the gradient of x is a sum of the same kind:

    enter(x):  forward x,                    backward all-reduce of dx      (f in the paper)
    leave(y):  forward all-reduce of y,      backward dy                    (g in the paper)

With sequence=True what lies between (norms, dropout, the residual stream) is cut along the positions: enter gathers
them, leave sums and scatters them, the same bytes in other messages, and the activations kept there are 1/W.

Source: Shoeybi et al. (2019), arXiv:1909.08053, section 3; Korthikanti et al. (2022), arXiv:2205.05198, section 4.2.2.
Derived in lab L04. torch's own: `torch.distributed.tensor.parallel.parallelize_module`.
Shapes: B sequences, T positions, D width, V vocabulary, N = B T tokens, W ranks of the group.
"""

import copy
import dataclasses

import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab.dist.collectives import all_reduce, chunk_sizes
from bigmodel_lab.dist.sequence_parallel import Gather, Scatter
from bigmodel_lab.dist.vocabulary_parallel import cross_entropy, embedding
from bigmodel_lab.dist.wire import Wire

__all__ = ["Sharded", "TensorParallel", "shard_attention", "shard_mlp", "slice_rows"]


class TensorParallel:
    """The group of ranks that share every layer, and how activations enter and leave a shared product.

    Parameters
    ----------
    group : process group; None for all ranks
    sequence : cut the activations between the products along the positions; then W must divide T
    wire : what counts the payload of every collective
    """

    def __init__(self, group=None, *, sequence: bool = False, wire: Wire | None = None):
        self.group, self.sequence, self.wire = group, sequence, wire
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)

    def enter(self, x):
        """Make x (B, T, D), or this rank's positions of it, ready for a product whose rows are shared."""
        return Gather.apply(x, self) if self.sequence else _Copy.apply(x, self)

    def leave(self, y):
        """Sum the ranks' parts of y (B, T, D); with `sequence`, keep this rank's positions (B, T/W, D)."""
        return Scatter.apply(y, self) if self.sequence else _Sum.apply(y, self)

    def positions(self, T: int) -> slice:
        """The positions of the stream that this rank holds."""
        if not self.sequence:
            return slice(0, T)
        if T % self.ranks:
            raise ValueError(
                f"T={T} positions cannot be cut into {self.ranks} equal parts: pad to {-(-T // self.ranks) * self.ranks}, "
                "or use sequence=False."
            )
        part = T // self.ranks
        return slice(self.rank * part, (self.rank + 1) * part)

    def cross_entropy(self, logits, targets, vocab_size: int):
        """Mean cross-entropy of logits (N, V_r) and targets (N,): see `vocabulary_parallel.cross_entropy`."""
        return cross_entropy(self, logits, targets, vocab_size)

    def embedding(self, tokens, rows, vocab_size: int, ops):
        """Look tokens (B, T) up in this rank's rows (V_r, D): see `vocabulary_parallel.embedding`."""
        return embedding(self, tokens, rows, vocab_size, ops)

    def all_reduce(self, x, op: str = "sum"):
        """The group's all-reduce, in place and counted."""
        return all_reduce(x, self.group, op=op, wire=self.wire) if self.ranks > 1 else x


class Sharded(nn.Module):
    """`inner`, whose weights are this rank's slices, between enter and leave; then the bias, which is added once."""

    def __init__(self, inner: nn.Module, tensor: TensorParallel, bias: nn.Parameter | None):
        super().__init__()
        self.inner, self.tensor, self.bias = inner, tensor, bias

    def forward(self, x, ops, *rest):
        y = self.tensor.leave(self.inner(self.tensor.enter(x), ops, *rest))
        return y if self.bias is None else y + self.bias


def shard_attention(attention: nn.Module, tensor: TensorParallel) -> Sharded:
    """Cut a `models.gpt.Attention` by heads: this rank's rows of queries, keys and values, and columns of the output."""
    c, r, W = attention.config, tensor.rank, tensor.ranks
    for name in ("n_heads", "n_kv_heads"):
        _require_multiple(name, getattr(c, name), W)
    own = copy.deepcopy(attention)
    own.config = dataclasses.replace(
        c, width=c.width // W, n_heads=c.n_heads // W, n_kv_heads=c.n_kv_heads // W
    )
    sizes = [c.width, c.kv_width, c.kv_width]
    for p in own.qkv.parameters():
        p.data = torch.cat([slice_rows(part, r, W) for part in p.data.split(sizes)])
    return _cut_columns(own, own.out, tensor)


def shard_mlp(mlp: nn.Module, tensor: TensorParallel) -> Sharded:
    """Cut a `models.gpt.FeedForward` by hidden channels: this rank's rows of up (and gate), and columns of down."""
    _require_multiple("hidden", mlp.up.out_features, tensor.ranks)
    own = copy.deepcopy(mlp)
    for first in (own.up, own.gate) if hasattr(own, "gate") else (own.up,):
        for p in first.parameters():
            p.data = slice_rows(p.data, tensor.rank, tensor.ranks)
    return _cut_columns(own, own.down, tensor)


def slice_rows(w, rank: int, ranks: int):
    """This rank's rows of w, a copy; the numbers of rows differ by one at most, as in `chunk_sizes`."""
    return w.split(chunk_sizes(len(w), ranks))[rank].clone()


def _cut_columns(own, last, tensor):
    """Give `last` this rank's columns, and take its bias out: it must be added once, not W times."""
    last.weight.data = slice_rows(last.weight.data.T, tensor.rank, tensor.ranks).T.contiguous()
    bias, last.bias = last.bias, None
    return Sharded(own, tensor, bias)


def _require_multiple(name, n, ranks):
    if n % ranks:
        raise ValueError(
            f"{name}={n} cannot be shared by {ranks} ranks in equal parts: use a number of ranks that divides {n}."
        )


class _Copy(torch.autograd.Function):
    """The f of Megatron: nothing to do forward, a sum backward."""

    @staticmethod
    def forward(ctx, x, tensor):
        ctx.tensor = tensor
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dx):
        return ctx.tensor.all_reduce(dx.clone(memory_format=torch.contiguous_format)), None


class _Sum(torch.autograd.Function):
    """The g of Megatron: a sum forward; the gradient of a sum is the gradient of each part."""

    @staticmethod
    def forward(ctx, y, tensor):
        return tensor.all_reduce(y.clone(memory_format=torch.contiguous_format))

    @staticmethod
    def backward(ctx, dy):
        return dy, None
