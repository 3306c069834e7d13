"""Pipeline parallelism by hand: each rank holds some layers, and micro-batches flow through the ranks.

The gradient of a mean over a batch is the weighted mean over its micro-batches, whichever order they come in, so every
schedule of `bigmodel_lab.dist.pipeline_schedule` trains what one process trains. What goes from stage to stage is one
activation of every token forward, and its gradient back: p - 1 times B T D numbers each way in all.

Source: Huang et al. (2019), arXiv:1811.06965; Narayanan et al. (2021), arXiv:2104.04473, section 2.2. Derived in lab
L05. torch's own: `torch.distributed.pipelining`.
"""

import contextlib
from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab.dist.collectives import broadcast
from bigmodel_lab.dist.pipeline_schedule import Pass, schedule
from bigmodel_lab.dist.wire import Wire

__all__ = ["Pipeline"]


class Pipeline:
    """Runs one step: micro-batches forward and backward through this rank's chunks, in the order of a schedule.

        pipe = Pipeline([ShardedGPT(gpt, layers=mine)], row=(T, D), name="1f1b", micros=8)
        loss = pipe.step(tokens, targets)           # gradients are there afterwards, as after loss.backward()

    Parameters
    ----------
    chunks : this rank's modules; chunk k of rank s is stage k p + s of the model. Called as module(x), the last stage as
        module(x, targets), which gives the mean loss over the micro-batch
    group : process group whose rank s is stage s; None for all ranks
    back : another group of the same ranks, for what goes backward; None: the same. NCCL needs it, which keeps all that two
        ranks say to each other within a group in one line
    row : shape of one row of the activations that go from stage to stage, (T, D) for a GPT
    dtype : of those activations
    name, micros : the schedule, and micro-batches a step
    wire : counts the payload of "activations" and of their "gradients", and of the loss, a "broadcast" of 8 bytes
    mark : called with each `Pass` before its computation and with None after it; the wire's `mark` if not given, so
        that a `trace.Recorder` as the wire draws the timeline

    After a step `most_kept` says how many micro-batches' activations were held at one time. Gradients of activations on
    their way to the stage before are held until the step ends.
    """

    def __init__(
        self,
        chunks: Sequence[nn.Module],
        group=None,
        *,
        row: Sequence[int],
        dtype: torch.dtype = torch.float32,
        name: str = "1f1b",
        micros: int = 1,
        wire: Wire | None = None,
        mark: Callable[[Pass | None], object] | None = None,
        back=None,
    ):
        self.chunks, self.wire, self.micros = list(chunks), wire, micros
        self.group, self.back = group, back if back is not None else group
        self.row, self.dtype = tuple(row), dtype
        self.mark = mark or (wire.mark if wire is not None else lambda p: None)
        self.stage, self.stages = dist.get_rank(group), dist.get_world_size(group)
        self.passes = schedule(name, self.stage, self.stages, micros, len(self.chunks))
        self.most_kept = 0

    def step(self, inputs, targets, weight: float = 1.0) -> torch.Tensor:
        """Add `weight` times the gradient of the mean loss to the parameters', and return that loss, on every rank.

        inputs, targets : the batch, B rows, B at least `micros`; the first stage reads inputs and the last targets, the
            others only how many rows they have. Micro-batches differ by one row at most and are weighted by their rows
        weight : this batch's share of a larger one, such as of a data-parallel group's
        """
        B = len(inputs)
        if B < self.micros:
            raise ValueError(
                f"a batch of {B} rows cannot be cut into micros={self.micros}: use {B} micro-batches at most."
            )
        inputs, targets = inputs.tensor_split(self.micros), targets.tensor_split(self.micros)
        self._kept, self._sends, self.most_kept = {}, {}, 0
        self._device = next(self.chunks[0].parameters()).device
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        for p in self.passes:
            rows = len(inputs[p.micro])
            if p.kind == "F":
                x = inputs[p.micro] if self._is_first(p) else self._receive(p, rows)
                self.mark(p)
                y = self._forward(p, x, targets[p.micro])
                self.mark(None)
                if self._is_last(p):
                    loss += y.item() * (rows / B)
                else:
                    self._send(p, y.detach())
            else:
                dy = None if self._is_last(p) else self._receive(p, rows)
                self.mark(p)
                x, y = self._kept.pop((p.micro, p.chunk))
                if y.requires_grad:  # not of a first stage that is frozen
                    torch.autograd.backward(y if dy is not None else y * (weight * rows / B), dy)
                self.mark(None)
                if not self._is_first(p):
                    self._send(p, x.grad)
        for request, _ in self._sends.values():
            request.wait()
        self._sends = {}
        broadcast(loss, self.stages - 1, self.group, wire=self.wire)
        return loss

    def _forward(self, p, x, targets):
        module = self.chunks[p.chunk]
        if not self._is_first(p):
            x.requires_grad_()
        y = module(x, targets) if self._is_last(p) else module(x)
        self._kept[p.micro, p.chunk] = x, y
        self.most_kept = max(self.most_kept, len(self._kept))
        return y

    def _is_first(self, p: Pass) -> bool:
        return self.stage == 0 and p.chunk == 0

    def _is_last(self, p: Pass) -> bool:
        return self.stage == self.stages - 1 and p.chunk == len(self.chunks) - 1

    def _place(self, p: Pass) -> int:
        return p.chunk * self.stages + self.stage  # of this chunk among all stages of the model

    def _send(self, p: Pass, x) -> None:
        """Start sending what pass p made: activations to the place after, gradients to the place before."""
        to = self._place(p) + (1 if p.kind == "F" else -1)
        tag, peer = self._tag(p.kind, p.micro, to), to % self.stages
        x = x.contiguous()
        if peer == self.stage:  # a pipeline of one rank
            self._sends[tag] = _Done(), x
            return
        if self.wire is not None:
            self.wire.add(_PAYLOAD[p.kind], x.numel() * x.element_size(), peer)
        # Never a blocking send: two neighbours that send to each other would wait for ever.
        group = self.group if p.kind == "F" else self.back
        self._sends[tag] = dist.isend(x, group=group, group_dst=peer, tag=tag), x

    def _receive(self, p: Pass, rows: int):
        """Wait for what pass p needs."""
        peer = (self._place(p) + (-1 if p.kind == "F" else 1)) % self.stages
        tag = self._tag(p.kind, p.micro, self._place(p))
        if peer == self.stage:
            return self._sends.pop(tag)[1]
        x = torch.empty(rows, *self.row, dtype=self.dtype, device=self._device)
        group = self.group if p.kind == "F" else self.back
        with (
            self.wire.waiting(_PAYLOAD[p.kind])
            if self.wire is not None
            else contextlib.nullcontext()
        ):
            dist.irecv(x, group=group, group_src=peer, tag=tag).wait()
        if (
            p.kind == "B"
        ):  # then the activations that went that way have arrived, and need not be kept
            request, _ = self._sends.pop(self._tag("F", p.micro, self._place(p) + 1))
            request.wait()
        return x

    def _tag(self, kind: str, micro: int, place: int) -> int:
        """The number of a message: its kind, its micro-batch, and the place that receives it."""
        return (place * self.micros + micro) * 2 + (kind == "B")


class _Done:
    def wait(self) -> None:
        pass


_PAYLOAD = {"F": "activations", "B": "gradients"}
