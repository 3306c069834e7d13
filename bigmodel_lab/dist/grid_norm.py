"""The norm of a gradient whose parameters lie all over a grid of ranks: every parameter counts, and counts once.

    |g|^2 = sum over the grid's lines of what each rank counts

Over the tensor-parallel ranks a parameter is cut, so that each counts its slice, or whole on every one, so that the first counts
it. Over the pipeline each stage has its own, but for a tied embedding, which the first stage counts. Replicas hold the same
gradient, so that nothing is summed over them, but with ZeRO a share each, so that it is.

Source: Shoeybi et al. (2019), arXiv:1909.08053, section 3. Used by `bigmodel_lab.dist.composed`; lab L05.
"""

from collections.abc import Sequence

import torch
from torch import nn

from bigmodel_lab.dist.collectives import all_reduce
from bigmodel_lab.dist.grid import Grid
from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.dist.zero import Zero

__all__ = ["clip_over_grid", "counted_here"]


def clip_over_grid(
    chunks: Sequence[nn.Module],
    zero: Zero | None,
    grid: Grid,
    max_norm: float,
    *,
    wire: Wire | None = None,
) -> float:
    """Scale the gradient so that its norm over the whole model is at most `max_norm`; return the norm. A collective.

    chunks : this rank's `ShardedGPT`s; zero : what trains them, if anything does
    """
    counted = counted_here(chunks, grid)
    if zero:
        square = all_reduce(zero.square_here(lambda p: p in counted), grid.data, wire=wire)
    else:
        # In the order of the model, not of the set: the sum's last bits shall be the same in every run.
        mine = [p for c in chunks for p in c.parameters() if p in counted and p.grad is not None]
        grads = [p.grad.double().square().sum() for p in mine]
        zero_here = torch.zeros((), dtype=torch.float64, device=next(chunks[0].parameters()).device)
        square = torch.stack([zero_here, *grads]).sum().reshape(1)
    for group in (grid.tensor, grid.pipe):
        all_reduce(square, group, wire=wire)
    norm = square.sqrt().item()
    if norm > max_norm:
        factor = max_norm / (norm + 1e-6)  # as train.clip_gradients
        if zero:
            zero.scale(factor)
        else:
            for p in (p for c in chunks for p in c.parameters() if p.grad is not None):
                p.grad.mul_(factor)
    return norm


def counted_here(chunks: Sequence[nn.Module], grid: Grid) -> set[nn.Parameter]:
    """The parameters that this rank counts, so that over the tensor and pipe groups each one counts once."""
    counted = {p for c in chunks for p in c.cut()}
    if grid.t == 0:
        counted |= {p for c in chunks for p in c.whole()}
    if chunks[0].config.tied and grid.layout.pp > 1 and grid.p == grid.layout.pp - 1:
        counted.discard(chunks[-1].head)  # counted with the first stage's copy
    return counted
