"""Sequence parallelism: between the shared products each rank holds some positions of the stream, and not all of it.

    gather(x)       (B, T/W, D) -> (B, T, D): forward all-gather,               backward reduce-scatter
    scatter(y)      (B, T, D) -> (B, T/W, D): forward reduce-scatter (a sum),   backward all-gather

A reduce-scatter and an all-gather send together what one all-reduce sends, so norms, dropout and the stream itself, with
their activations, are cut for no more bytes. These are the enter and leave of `bigmodel_lab.dist.tensor_parallel` when it is told
sequence=True.

Source: Korthikanti et al. (2022), arXiv:2205.05198, section 4.2.2. Derived in lab L04. torch's own:
`torch.distributed.tensor.parallel.SequenceParallel`.
Shapes: B sequences, T positions, D width, W ranks; `tensor` is a `TensorParallel`.
"""

import torch

from bigmodel_lab.dist.collectives import all_gather, reduce_scatter

__all__ = ["Gather", "Scatter"]


class Gather(torch.autograd.Function):
    """Positions of one rank -> all positions; backward, sum and keep one's own."""

    @staticmethod
    def forward(ctx, x, tensor):
        ctx.tensor = tensor
        return _gather(x, tensor)

    @staticmethod
    def backward(ctx, dx):
        return _sum_and_scatter(dx, ctx.tensor), None


class Scatter(torch.autograd.Function):
    """Parts of all positions -> the sum at one rank's positions; backward, gather."""

    @staticmethod
    def forward(ctx, y, tensor):
        ctx.tensor = tensor
        return _sum_and_scatter(y, tensor)

    @staticmethod
    def backward(ctx, dy):
        return _gather(dy, ctx.tensor), None


def _gather(x, tensor):
    B, t, D = x.shape
    whole = x.new_empty(
        tensor.ranks, t, B, D
    )  # positions first: a rank's part is then one piece of memory
    whole[tensor.rank] = x.transpose(0, 1)
    all_gather(whole, tensor.group, wire=tensor.wire)
    return whole.view(-1, B, D).transpose(0, 1).contiguous()


def _sum_and_scatter(y, tensor):
    B, T, D = y.shape
    tensor.positions(T)  # raises if T cannot be cut
    parts = y.transpose(0, 1).clone(memory_format=torch.contiguous_format)
    own = reduce_scatter(parts, tensor.group, wire=tensor.wire)
    return own.view(-1, B, D).transpose(0, 1).contiguous()
