"""The grid of ranks of a layout: which groups a rank belongs to."""

import numpy as np
import torch.distributed as dist

from bigmodel_lab.train import Layout

__all__ = ["Grid"]


class Grid:
    """The process groups of a layout: this rank's line in each direction, and its place in it."""

    def __init__(self, layout: Layout):
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
            group = dist.new_group(line)
            mine = group if dist.get_rank() in line else mine
        return mine
