"""Which numbers of the whole model a rank holds, whatever the layout.

Number the N trainable numbers of the whole model from 0 to N-1, once, and cut a model *of these numbers* in the same way as
the model that is trained: each rank then sees which ones it holds. Kept as runs of consecutive numbers. Used by
`bigmodel_lab.dist.checkpoint`; lab L06.
"""

import copy

import torch

from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.models.gpt import GPT

__all__ = ["numbers_of", "runs_of", "spelled_out", "trained"]


def trained(model: Composed) -> list[torch.Tensor]:
    """What the optimiser of this rank changes: parameters, or with ZeRO pieces of them; always in the same order."""
    return [p for group in model.optimizer.param_groups for p in group["params"]]


def numbers_of(gpt: GPT, model: Composed) -> tuple[int, list[torch.Tensor]]:
    """Return how many numbers the whole model trains, and for each tensor of `trained` which ones it holds, -1 for none."""
    whole, total = copy.deepcopy(gpt).double(), 0
    for p in whole.parameters():
        if p.requires_grad:  # counted from 1: what a layout adds to cut evenly is 0
            numbers = torch.arange(total + 1.0, total + p.numel() + 1.0, dtype=p.dtype)
            p.data = numbers.view_as(p).to(p.device)
            total += p.numel()
    name, chunks = model.schedule
    options = dict(micros=model.micros, schedule=name, chunks=chunks)
    cut = Composed(whole, model.layout, lambda groups: torch.optim.SGD(groups), **options)
    return total, [p.detach().reshape(-1).long().cpu() - 1 for p in trained(cut)]


def runs_of(numbers: torch.Tensor) -> torch.Tensor:
    """Return (R, 2): the first number and the length of each run of consecutive ones in `numbers`."""
    starts = torch.ones(len(numbers), dtype=torch.bool)
    starts[1:] = numbers[1:] != numbers[:-1] + 1
    at = torch.nonzero(starts)[:, 0]
    ends = torch.cat([at[1:], torch.tensor([len(numbers)])])
    return torch.stack([numbers[at], ends - at], 1)


def spelled_out(runs: torch.Tensor) -> torch.Tensor:
    """Return the numbers of which `runs_of` made these runs (R, 2)."""
    first, length = runs.unbind(1)
    before = length.cumsum(0) - length
    return torch.arange(int(length.sum())) + (first - before).repeat_interleave(length)
