"""What a run has measured so far: kept by the loop, stored in checkpoints, handed over as a `RunRecord`."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from bigmodel_lab.train.record import RunRecord

__all__ = ["History", "validation_curve"]

_AT_STEP = "validation loss at step "  # and the step: the name of a score


@dataclass
class History:
    """The measurements of a run that goes on."""

    loss: list[float] = field(default_factory=list)  # of every step, in nats
    compute_s: list[float] = field(default_factory=list)  # of every step
    evaluations: list[tuple[int, float]] = field(default_factory=list)  # (steps taken, loss)
    samples: int = 0  # rows trained on
    tokens: int = 0  # 0 where the data are no text

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return len(self.loss)

    @property
    def best(self) -> tuple[int, float] | None:
        """The evaluation with the lowest loss, the first of equals; None before one gave a number."""
        numbers = [e for e in self.evaluations if not math.isnan(e[1])]
        return min(numbers, key=lambda e: e[1], default=None)

    @property
    def since_best(self) -> int:
        """Evaluations after the best one."""
        return len(self.evaluations) - (1 + self.evaluations.index(self.best) if self.best else 0)

    def add(self, loss: float, compute_s: float, batch: tuple[torch.Tensor, ...]) -> None:
        """Note a step on `batch`, whose first tensor is the inputs: whole numbers are taken for tokens."""
        self.loss.append(loss)
        self.compute_s.append(compute_s)
        self.samples += len(batch[0])
        if is_text(batch):
            self.tokens += batch[0].numel()

    def state_dict(self) -> dict:
        """Return the measurements as data; the long ones as arrays, which keep every bit in 8 bytes a number."""
        return asdict(self) | {n: np.array(getattr(self, n)) for n in ("loss", "compute_s")}

    def load_state_dict(self, state: Mapping) -> None:
        """Take over the measurements that `state_dict` returned."""
        for name, value in state.items():
            setattr(self, name, value.tolist() if isinstance(value, np.ndarray) else value)

    def record(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        name: str | None,
        data: str,
        seed: int,
    ) -> RunRecord:
        """Return the measurements of a run in one process as a `RunRecord`; `name` is what it calls the model."""
        params = list(model.parameters())
        scores = {f"{_AT_STEP}{step}": loss for step, loss in self.evaluations}
        if self.evaluations:
            scores["validation loss"] = self.evaluations[-1][1]
        if self.best:
            scores["best validation loss"] = self.best[1]
        return RunRecord(
            model=name or type(model).__name__,
            data=data,
            parameters=sum(p.numel() for p in params),
            samples=self.samples,
            tokens=self.tokens or None,
            seed=seed,
            loss=self.loss,
            compute_s=self.compute_s,
            communication_s=[0.0] * self.steps,
            sent_bytes={},
            dtype=str(params[0].dtype).removeprefix("torch."),
            memory_bytes={
                "parameters": _bytes(params),
                "gradients": _bytes(p for p in params if p.requires_grad),
                "optimizer states": _bytes(
                    t
                    for s in optimizer.state.values()
                    for t in s.values()
                    if isinstance(t, torch.Tensor) and t.ndim
                ),
            },
            scores=scores,
        )


def validation_curve(record: RunRecord) -> tuple[list[int], list[float]]:
    """Return the steps after which a run of `fit` evaluated, and the validation losses there, in nats."""
    found = {
        n.removeprefix(_AT_STEP): x for n, x in record.scores.items() if n.startswith(_AT_STEP)
    }
    return [int(step) for step in found], list(found.values())


def is_text(batch: tuple[torch.Tensor, ...]) -> bool:
    """Whether the inputs are tokens: whole numbers, and more than one a row."""
    x = batch[0]
    return x.ndim > 1 and not x.is_floating_point() and x.dtype not in (torch.bool, torch.uint8)


def _bytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)
