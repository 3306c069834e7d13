"""The grid of ranks of a layout: which groups a rank belongs to, and which layouts can be."""

from datetime import timedelta

import numpy as np
import torch.distributed as dist

from bigmodel_lab.models.gpt import GPT
from bigmodel_lab.train import Layout

__all__ = ["Grid", "require_possible"]


class Grid:
    """The process groups of a layout: this rank's line in each direction, and its place in it.

    wait_s : the longest that a rank waits for another one in these groups, in seconds; None: torch's 30 minutes
    """

    def __init__(self, layout: Layout, wait_s: float | None = None):
        self._timeout = None if wait_s is None else timedelta(seconds=wait_s)
        if (world := dist.get_world_size()) != layout.ranks:
            raise ValueError(
                f"dp={layout.dp} x tp={layout.tp} x pp={layout.pp} makes {layout.ranks} ranks, and there are {world}: "
                f"start {layout.ranks}, or choose a layout of {world}."
            )
        ranks = np.arange(world).reshape(layout.pp, layout.dp, layout.tp)
        self.layout = layout
        self.p, self.d, self.t = (int(i[0]) for i in np.nonzero(ranks == dist.get_rank()))
        self.pipe = self._line(np.moveaxis(ranks, 0, -1))
        # what goes forward and what goes backward must not wait for each other (NCCL keeps a group's messages in line)
        self.back = self._line(np.moveaxis(ranks, 0, -1)) if layout.pp > 1 else self.pipe
        self.data = self._line(np.moveaxis(ranks, 1, -1))
        self.tensor = self._line(ranks)

    def _line(self, ranks):
        """Make the groups along the last axis, every rank in the same order, as torch demands; return this rank's."""
        mine = None
        for line in ranks.reshape(-1, ranks.shape[-1]).tolist():
            group = dist.new_group(line, timeout=self._timeout)
            mine = group if dist.get_rank() in line else mine
        return mine


def require_possible(gpt: GPT, layout: Layout, chunks: int, sequence: bool) -> None:
    """Raise ValueError for a combination that does not train what one process trains, saying which one does."""
    if layout.zero >= 2 and layout.pp > 1 and gpt.config.tied:
        raise ValueError(
            f"zero={layout.zero} sums gradients before the two copies of a tied embedding could be added: use zero=1, "
            "pp=1, or an untied model."
        )
    if layout.zero >= 2 and sequence and layout.tp > 1:
        raise ValueError(
            f"zero={layout.zero} sums gradients before sequence parallelism's parts could be added: use zero=1, or "
            "sequence=False."
        )
    if layout.zero == 3 and chunks > 1:
        raise ValueError("zero=3 needs chunks=1: use the schedule 1f1b, or zero=2.")
    if layout.pp == 1 and chunks > 1:
        raise ValueError(
            f"chunks={chunks} interleaves the stages of a pipeline, and pp=1 has none: use pp=2 or chunks=1."
        )
