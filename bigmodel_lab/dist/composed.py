"""All of it together: a GPT in data x tensor x pipeline parallel, with ZeRO between the replicas.

The ranks stand in a grid of P stages, D replicas and W ranks that share each matrix; rank = (p D + d) W + w, so that those
who talk most, the tensor-parallel ranks, are neighbours. Each way of being parallel has its group, a line of the grid, and
knows nothing of the others:

    micro-batches run through the pipeline    (p)     each pass using the tensor group (w) inside
    gradients are then summed                 over w  what sequence parallelism left in parts
                                              over p  the two copies of a tied embedding
                                              over d  the replicas: all-reduce, or ZeRO's reduce-scatter
    and clipped by a norm that counts every parameter of the model once.

Source: Narayanan et al. (2021), arXiv:2104.04473, section 3. Used by labs/train_gpt.py; lab L05.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab.dist.collectives import all_reduce
from bigmodel_lab.dist.composed_bytes import step_bytes
from bigmodel_lab.dist.data_parallel import DataParallel, share
from bigmodel_lab.dist.grid import Grid
from bigmodel_lab.dist.grid_norm import clip_over_grid
from bigmodel_lab.dist.pipeline import Pipeline
from bigmodel_lab.dist.pipeline_schedule import schedule as passes_of
from bigmodel_lab.dist.possible import require_possible
from bigmodel_lab.dist.sharded_gpt import ShardedGPT, cut_layers
from bigmodel_lab.dist.tensor_parallel import TensorParallel
from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.dist.zero import Zero
from bigmodel_lab.models.gpt import GPT
from bigmodel_lab.train import Layout
from bigmodel_lab.train.optim import decay_groups

__all__ = ["Composed", "Grid"]


class Composed:
    """Trains a GPT over a grid of ranks.

        model = Composed(GPT(config, seed=0), Layout(dp=2, tp=2, pp=2), lambda groups: AdamW(groups, lr=1e-3))
        loss = model.step(tokens, targets)              # the whole batch, the same on every rank

    Parameters
    ----------
    gpt : the whole model, the same on every rank; copied
    layout : how many ranks each way, and the ZeRO stage
    optimizer : called with parameter groups, gives the optimiser
    weight_decay : of matrices; vectors have none
    clip : largest norm of the gradient; None leaves it as it is
    micros : micro-batches of each replica's rows
    schedule, chunks : of the pipeline (see `pipeline_schedule`)
    sequence : with tensor parallelism, cut what is between the matrices along the positions
    wire : counts every payload; name of the collective first, so that different uses add up

    Raises ValueError for combinations that do not work, saying which does.
    """

    def __init__(
        self,
        gpt: GPT,
        layout: Layout,
        optimizer: Callable[[list[dict]], torch.optim.Optimizer],
        *,
        weight_decay: float = 0.0,
        clip: float | None = None,
        micros: int = 1,
        schedule: str = "1f1b",
        chunks: int = 1,
        sequence: bool = False,
        wire: Wire | None = None,
    ):
        require_possible(gpt.config, layout, chunks=chunks, sequence=sequence)
        wire = Wire() if wire is None else wire
        self.grid, self.clip, self.wire = Grid(layout), clip, wire
        self.layout, self.config, self.micros = layout, gpt.config, micros
        self.schedule, self._dtype = (schedule, chunks), gpt.tokens.weight.dtype
        passes_of(schedule, self.grid.p, layout.pp, micros, chunks)  # raises if they do not fit
        tensor = TensorParallel(self.grid.tensor, sequence=sequence, wire=wire)
        cuts = cut_layers(gpt.config.n_layers, layout.pp * chunks)
        mine = [cuts[k * layout.pp + self.grid.p] for k in range(chunks)]
        self.chunks = nn.ModuleList(ShardedGPT(gpt, tensor, layers) for layers in mine)
        if layout.zero:
            self.zero = Zero(
                self.chunks[0] if chunks == 1 else self.chunks,
                optimizer,
                stage=layout.zero,
                weight_decay=weight_decay,
                group=self.grid.data,
                units=[b for c in self.chunks for b in c.blocks],
                wire=wire,
            )
            self.optimizer = self.zero.optimizer
        else:
            self.zero, self.replicas = None, DataParallel(self.chunks, self.grid.data, wire=wire)
            nothing = [{"params": []}]  # of a stage that is frozen
            self.optimizer = optimizer(decay_groups(self.chunks, weight_decay) or nothing)

    def step(self, tokens, targets) -> float:
        """Take one step on the batch, (B, T) each and the same on every rank; return its mean loss, on every rank.

        Raises ValueError, on every rank, if B leaves a replica fewer than `micros` rows, or T is above the context.
        """
        self._require_batch(*tokens.shape)
        rows, weight = share(np.arange(len(tokens)), self.grid.d, self.layout.dp)
        pipe = self._pipeline(tokens.shape[1])
        if self.zero is None:
            self.optimizer.zero_grad()
        loss = pipe.step(tokens[rows], targets[rows], weight) * weight
        self.most_kept = pipe.most_kept
        for c in self.chunks:
            c.sum_whole_gradients()
        self._sum_tied()
        if self.zero is None:
            self.replicas.average_gradients(1.0)  # the weights are in the loss
        self.gradient_norm = None
        if self.clip is not None:
            self.gradient_norm = clip_over_grid(
                self.chunks, self.zero, self.grid, self.clip, wire=self.wire
            )
        self.wire.mark("optimizer")
        (self.zero or self.optimizer).step()
        self.wire.mark(None)
        return all_reduce(loss.reshape(1), self.grid.data, wire=self.wire).item()

    def memory_bytes(self) -> dict[str, int]:
        """Bytes that this rank holds between two steps: parameters, and what the optimiser keeps."""
        if self.zero:
            held = self.zero.memory_bytes()
            return {kind: held[kind] for kind in ("parameters", "optimizer")}
        kept = [t for s in self.optimizer.state.values() for t in s.values() if t.ndim]
        return {
            kind: sum(t.numel() * t.element_size() for t in tensors)
            for kind, tensors in (("parameters", self.chunks.parameters()), ("optimizer", kept))
        }

    def predicted_bytes(self, rows: int, positions: int) -> dict[str, int]:
        """What this rank sends in a step on a batch (rows, positions), by collective: see `composed_bytes.step_bytes`."""
        name, chunks = self.schedule
        return step_bytes(
            self.config,
            self.layout,
            dist.get_rank(),
            rows=rows,
            positions=positions,
            micros=self.micros,
            schedule=name,
            chunks=chunks,
            sequence=self.chunks[0].tensor.sequence,
            clip=self.clip is not None,
            element_bytes=self._dtype.itemsize,
        )

    def _pipeline(self, T: int) -> Pipeline:
        tensor, (name, _) = self.chunks[0].tensor, self.schedule
        held = tensor.positions(T)
        row = (held.stop - held.start, self.config.width)
        options = dict(name=name, micros=self.micros, wire=self.wire, back=self.grid.back)
        return Pipeline(self.chunks, self.grid.pipe, row=row, dtype=self._dtype, **options)

    def _require_batch(self, B: int, T: int) -> None:
        if B < (least := self.layout.dp * self.micros):
            raise ValueError(
                f"a batch of {B} rows leaves one of dp={self.layout.dp} replicas fewer than micros={self.micros}: give "
                f"{least} rows or more."
            )
        if T > self.config.context:
            raise ValueError(f"T={T} positions are more than the context={self.config.context}.")

    def _sum_tied(self) -> None:
        """A tied embedding has a copy on the first stage and one on the last: give both the sum of their gradients."""
        if not self.config.tied or self.layout.pp == 1:
            return
        last = self.layout.pp - 1
        if self.grid.p not in (0, last):
            return
        p = self.chunks[0].tokens if self.grid.p == 0 else self.chunks[-1].head
        if not p.requires_grad:
            return
        other = torch.empty_like(p.grad)
        peer = last - self.grid.p
        mine, group = p.grad.contiguous(), self.grid.pipe
        self.wire.add("tied", other.numel() * other.element_size(), peer)
        steps = [
            lambda: dist.irecv(other, group=group, group_src=peer),
            lambda: dist.isend(mine, group=group, group_dst=peer),
        ]
        # NCCL keeps the messages of two ranks in line: what one receives first, the other must send first
        under_way = [start() for start in (steps if peer == 0 else steps[::-1])]
        with self.wire.waiting("tied"):
            for work in under_way:
                work.wait()
        p.grad = p.grad + other  # the same in either order, so the copies stay equal
