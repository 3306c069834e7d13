"""A training step's time, predicted: what it computes, what each of its collectives costs, and what of that is hidden.

    step = compute + sum of the collectives - hidden

The collectives' seconds come from a fitted link: `AlphaBeta.predicted_s` for one whose size is known, `AlphaBeta.counted_s` for all
that a rank sends in a step. What hides behind the backward pass is `overlap.predicted_hidden`. Left out: waiting for slower ranks,
and a pipeline's bubble. Source: S. Li et al. (2020), arXiv:2006.15704, section 3.2. Derived in chapter 17; used in lab L02.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from bigmodel_lab.dist.overlap import predicted_hidden
from bigmodel_lab.errors import require_in_range

__all__ = ["StepTime", "predict_step"]


@dataclass(frozen=True)
class StepTime:
    """A training step taken apart."""

    compute_s: float
    communication_s: dict[str, float]  # by collective
    hidden_s: float  # of the communication, behind the backward pass

    @property
    def step_s(self) -> float:
        """From the start of the step to its end."""
        return self.compute_s + sum(self.communication_s.values()) - self.hidden_s


def predict_step(
    compute_s: float,
    communication_s: Mapping[str, float],
    *,
    backward_s: float = 0.0,
    buckets: int = 1,
    hides: str = "all_reduce",
) -> StepTime:
    """Predict a training step from its computing and what `AlphaBeta` says of its collectives.

    compute_s : of one rank, the backward pass included
    communication_s : seconds by collective
    backward_s, buckets : of a backward pass behind which `buckets` equal parts of the collective `hides` travel (see
        `bigmodel_lab.dist.overlap`); in one bucket nothing is hidden
    """
    require_in_range("compute_s", compute_s, 0, unit="s")
    require_in_range("backward_s", backward_s, 0, compute_s, unit="s")
    sent = communication_s.get(hides, 0.0)
    share = predicted_hidden(buckets, backward_s, sent) if sent else 0.0
    return StepTime(compute_s, dict(communication_s), share * sent)
