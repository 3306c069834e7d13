"""Data parallelism by hand: every rank holds the whole model and a share of each batch; gradients are averaged.

The gradient of a mean over a batch B is a weighted mean of the gradients over its shares,

    d/dw mean_{i in B} loss_i  =  sum_r  |B_r| / |B|  *  d/dw mean_{i in B_r} loss_i,

so ranks that begin with the same parameters and sum their weighted gradients take the same step as one process with
the whole batch, up to the order of addition: about 1e-16 a step in float64, 1e-7 in float32. The weights matter as
soon as a batch cannot be split evenly.

Source: P. Goyal et al., "Accurate, large minibatch SGD" (2017), arXiv:1706.02677, section 3 (and its remark on
normalising by the whole batch). Derived in lab L02. torch's own: `torch.nn.parallel.DistributedDataParallel`, which gives
every rank the weight 1 / W, however many samples it has.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.distributed as dist

from bigmodel_lab.dist.agreement import checksum
from bigmodel_lab.dist.collectives import all_reduce, broadcast, chunk_sizes
from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.errors import require_choice, require_in_range
from bigmodel_lab.rng import generator

__all__ = ["DataParallel", "difference_from_root", "fingerprint", "global_batches", "share"]


class DataParallel:
    """Keeps the replicas of a model equal: same parameters to begin with, same gradients before each step.

        replicas = DataParallel(model, wire=wire)       # parameters and buffers of rank 0 go to everyone
        loss(model(x[mine]), y[mine]).backward()        # mean over this rank's share
        replicas.average_gradients(weight)              # now p.grad is that of the whole batch, on every rank
        optimizer.step()

    There are no hooks: nothing is sent but in these two calls (`overlap` sends during backward). To accumulate gradients
    over several micro-batches, call `average_gradients` once, after the last one.
    """

    def __init__(
        self, model: torch.nn.Module, group=None, *, bucket: str = "flat", wire: Wire | None = None
    ):
        """Copy the parameters and buffers of the group's rank 0 to all of its ranks.

        Parameters
        ----------
        model : the same architecture on every rank; tied and frozen parameters are fine
        group : process group; None for all ranks
        bucket : "flat" sends all gradients as one tensor (and needs their memory once more); "tensor" one by one
        wire : what counts the payload of the broadcast and of every all-reduce
        """
        self.model, self.group, self.wire = model, group, wire
        self.bucket = require_choice("bucket", bucket, ("flat", "tensor"))
        state = [*model.parameters(), *model.buffers()]
        self._through_buckets(state, lambda flat: broadcast(flat, 0, group, wire=wire))

    def average_gradients(self, weight: float | None = None) -> None:
        """Replace each gradient by the weighted mean over the ranks: `weight` times the gradient, summed.

        Parameters
        ----------
        weight : this rank's share of the global batch, samples here / samples everywhere, so that the weights of all
            ranks add up to 1; None means equal shares, 1 / W. With weight 0 the gradients here are ignored,
            whatever they are (the mean over no samples is NaN).

        A parameter that got no gradient here counts as zero. Frozen parameters are left out.
        """
        if weight is None:
            weight = 1 / dist.get_world_size(self.group)
        require_in_range("weight", weight, 0, 1)
        gradients = []
        for p in self.model.parameters():
            if not p.requires_grad:
                continue
            if p.grad is None or weight == 0:
                p.grad = torch.zeros_like(p)
            else:
                p.grad.mul_(weight)
            gradients.append(p.grad)
        self._through_buckets(gradients, lambda flat: all_reduce(flat, self.group, wire=self.wire))

    @torch.no_grad()
    def _through_buckets(self, tensors: Iterable[torch.Tensor], collective: Callable) -> None:
        """Copy the tensors into flat buckets, one per dtype and device, call `collective` on each, and copy back."""
        buckets: dict[object, list[torch.Tensor]] = {}
        for i, t in enumerate(tensors):
            buckets.setdefault(i if self.bucket == "tensor" else (t.dtype, t.device), []).append(t)
        for bucket in buckets.values():
            flat = torch.cat([t.reshape(-1) for t in bucket])
            collective(flat)
            for t, part in zip(bucket, flat.split([t.numel() for t in bucket]), strict=True):
                t.copy_(part.view_as(t))


def global_batches(samples: int, batch: int, *, seed: int, epoch: int = 0) -> list[np.ndarray]:
    """Shuffle the sample numbers and cut them into the batches of one epoch, the same on every rank.

    Parameters
    ----------
    samples : how many there are
    batch : samples a global batch, over all ranks; the last batch of the epoch may be shorter
    seed, epoch : what the order depends on, and nothing else

    Returns a list of int64 arrays that hold each of 0 .. samples - 1 once.
    """
    require_in_range("samples", samples, 1)
    require_in_range("batch", batch, 1)
    order = generator(seed, "batches", str(epoch)).permutation(samples)
    return np.split(order, range(batch, samples, batch))


def share(batch: np.ndarray, rank: int, ranks: int) -> tuple[np.ndarray, float]:
    """Return the part of a global batch that `rank` works on, and that part's weight for `average_gradients`.

    The parts of all ranks are consecutive, disjoint, together the batch, and differ by one sample at most.
    """
    require_in_range("rank", rank, 0, ranks - 1)
    if len(batch) == 0:
        raise ValueError(
            "batch must hold at least one sample, got an empty one: leave it out on every rank."
        )
    ends = np.cumsum(chunk_sizes(len(batch), ranks))
    mine = batch[ends[rank - 1] if rank else 0 : ends[rank]]
    return mine, len(mine) / len(batch)


@torch.no_grad()
def difference_from_root(model: torch.nn.Module, group=None) -> float:
    """Return the largest absolute difference between a parameter here and the same one on rank 0 of the group.

    A collective: every rank of the group calls it. Right after training in step it is exactly 0 on every rank.
    NaN if any difference is.
    """
    largest = torch.zeros((), dtype=torch.float64)
    for p in model.parameters():
        root = p.detach().clone(memory_format=torch.contiguous_format)
        broadcast(root, 0, group)
        if p.numel():
            largest = torch.maximum(largest, (p - root).abs().max().double().cpu())
    return float(largest)


def fingerprint(model: torch.nn.Module) -> str:
    """Return 8 hexadecimal digits that differ (nearly always) when one bit of one parameter does.

    For comparing replicas with no communication: the ranks print theirs, or return them. The digits themselves
    depend on the machine's rounding; only whether two are equal means anything.
    """
    return f"{checksum(model.parameters()):08x}"
