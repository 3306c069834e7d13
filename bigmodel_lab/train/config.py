"""The settings of a training run."""

import math
from dataclasses import dataclass

from bigmodel_lab.errors import require_in_range

__all__ = ["TrainConfig"]


@dataclass(frozen=True)
class TrainConfig:
    """How long, how large and how fast to train. Raises ValueError or TypeError, naming the field, if one cannot be."""

    steps: int  # optimiser steps of the whole run
    batch: int  # rows (sequences, images) a step; the sampler must give as many
    lr: float = 1e-3  # highest learning rate
    warmup: int = 0  # steps over which the rate rises to `lr`
    floor: float = 0.1  # learning rate at the end, as a share of `lr`
    weight_decay: float = 0.1  # of matrices; vectors, such as biases and gains, are not decayed
    accumulate: int = (
        1  # parts that a batch is cut into: activations of one at a time, the same gradient
    )
    clip: float = (
        1.0  # largest norm of the gradient, over all parameters together; math.inf for none
    )
    eval_every: int | None = None  # steps between evaluations; None: only at the end
    patience: int | None = None  # evaluations in a row without a new best before stopping early
    checkpoint_every: int | None = None  # steps between checkpoints; None: only when the run ends
    keep: int = 2  # checkpoints to keep
    seed: int = 0  # of torch's generators, which dropout draws from

    def __post_init__(self):
        for name in ("steps", "batch", "accumulate", "keep"):
            _whole(name, getattr(self, name), 1)
        for name in ("warmup", "seed"):
            _whole(name, getattr(self, name), 0)
        for name in ("eval_every", "patience", "checkpoint_every"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1)
        for name in ("lr", "floor", "weight_decay"):
            _finite(name, getattr(self, name))
        require_in_range("floor", self.floor, 0, 1)
        require_in_range("warmup", self.warmup, 0, self.steps)
        require_in_range("accumulate", self.accumulate, 1, self.batch)
        if not self.clip > 0:
            raise ValueError(f"clip must be above 0, got {self.clip}: math.inf turns clipping off.")
        if self.patience is not None and self.eval_every is None:
            raise ValueError(
                f"patience={self.patience} counts evaluations, and eval_every is None: set it too."
            )


def _whole(name: str, value, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    require_in_range(name, value, low)


def _finite(name: str, value) -> None:
    require_in_range(name, value, 0)
    if math.isinf(value):
        raise ValueError(f"{name} must be finite, got {value}.")
