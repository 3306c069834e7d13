"""What ZeRO gathers or reduces at one time: some parameters in one flat tensor, of which each rank owns a slice, the shard.

    flat      n numbers, the parameters one behind the other; the parameters are views of it
    shard     flat[start:stop], what this rank's optimiser changes; the slices differ by one number at most
    pieces    the parts of parameters that lie in the shard; the optimiser gets these as its parameters

The model's gradients become the shard's by one reduce-scatter, and the shards become the parameters by one all-gather. Used
by `bigmodel_lab.dist.zero`, stages 1 and 2; `zero_stage3` lets `flat` go as well. Derived in lab L03.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab.dist.collectives import all_gather, chunk_sizes, reduce_scatter
from bigmodel_lab.dist.wire import Wire

__all__ = ["Unit"]


class Unit:
    """The parameters `params` of `module` in one flat tensor, the same on every rank.

    Attributes
    ----------
    flat : tensor (n,)
    shard : tensor (stop - start,), a view of flat
    gradient : tensor like shard, the sum over the ranks; None when there is none yet
    pieces, spans : pairs (parameter, the part of it that is in the shard), and where in the shard each part is
    missing : how many parameters have not got their gradient in this backward pass

    Raises TypeError if the parameters differ in dtype.
    """

    def __init__(self, module: nn.Module, params: Sequence[nn.Parameter], group, wire: Wire | None):
        if len({p.dtype for p in params}) > 1:
            raise TypeError(
                f"the parameters of a unit must have one dtype, got {sorted({str(p.dtype) for p in params})}: "
                "convert the model, or pass units=... that keep them apart."
            )
        self.module, self.params, self.group, self.wire = module, list(params), group, wire
        self.flat = torch.cat([p.detach().reshape(-1) for p in params])
        self.size, ends = len(self.flat), list(accumulate(p.numel() for p in params))
        self._places = [slice(end - p.numel(), end) for p, end in zip(params, ends, strict=True)]
        self._show()
        sizes, rank = chunk_sizes(self.size, dist.get_world_size(group)), dist.get_rank(group)
        self.start, self.stop = sum(sizes[:rank]), sum(sizes[: rank + 1])
        self.shard = self._own(self.flat[self.start : self.stop])
        self.gradient, self.missing = None, len(params)
        self.pieces, self.spans = [], []
        for p, place in zip(params, self._places, strict=True):
            lo, hi = max(place.start, self.start), min(place.stop, self.stop)
            if lo < hi:
                span = slice(lo - self.start, hi - self.start)
                self.pieces.append((p, nn.Parameter(self.shard[span])))
                self.spans.append(span)
        self.release()

    def gather(self, *_) -> None:
        """Have the parameters whole. Here they always are."""

    def release(self, *_) -> None:
        """Let go what is not this rank's. Here nothing."""

    def exchange(self) -> None:
        """Tell the other ranks this rank's new parameters, and learn theirs."""
        all_gather(self.flat, self.group, wire=self.wire)

    def call_when_complete(self, complete: Callable[[], None]) -> None:
        """Call `complete` in each backward pass as soon as all parameters of the unit have their gradients."""

        def one_more(_):
            self.missing -= 1
            if self.missing == 0:
                complete()

        for p in self.params:
            p.register_post_accumulate_grad_hook(one_more)

    @torch.no_grad()
    def reduce(self) -> None:
        """Sum the gradients over the ranks and keep this rank's slice of the sum."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        whole = torch.cat([g.reshape(-1) for g in gradients])
        for p in self.params:
            p.grad = None
        own = reduce_scatter(whole, self.group, wire=self.wire).clone()
        self.gradient = own if self.gradient is None else self.gradient.add_(own)
        self.missing = len(self.params)
        self.release()

    def hand_out_gradient(self) -> None:
        """Give each piece its part of the gradient, for the optimiser."""
        for (_, piece), span in zip(self.pieces, self.spans, strict=True):
            piece.grad = self.gradient[span]

    def drop_gradient(self) -> None:
        """Give the gradient's memory back."""
        self.gradient = None
        for _, piece in self.pieces:
            piece.grad = None

    def _own(self, part):
        return part

    def _show(self):
        for p, place in zip(self.params, self._places, strict=True):
            p.data = self.flat[place].view(p.shape)
