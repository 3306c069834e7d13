"""The order of work in a pipeline: which micro-batch a stage takes forward or backward when, and what that costs.

With p stages and m micro-batches, a stage works m of the m + p - 1 turns that a step takes each way: the idle share, the
bubble, is (p - 1) / (m + p - 1) of the step (papers also divide by the working time: (p - 1) / m). Schedules differ in
the order of a stage's forward (F) and backward (B) passes, and so in how many micro-batches' activations it must keep:

    gpipe          all F, then all B:                                       m on every stage
    1f1b           p - 1 - s forwards ahead, then F and B in turn:          min(m, p - s) on stage s
    interleaved    v chunks of layers a rank, p turns each: bubble (p - 1) / (v m + p - 1), for v times the messages

Source: Huang et al. (2019), arXiv:1811.06965 (GPipe); Narayanan et al. (2021), arXiv:2104.04473, section 2.2 (1F1B,
interleaved). Derived in lab L05; `bigmodel_lab.dist.pipeline` runs them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bigmodel_lab.errors import require_choice, require_in_range

__all__ = ["SCHEDULES", "Pass", "bubble", "most_in_flight", "schedule"]


@dataclass(frozen=True)
class Pass:
    """One pass of one micro-batch through one chunk of layers."""

    kind: str  # "F" or "B"
    micro: int  # micro-batch, counted from 0
    chunk: int = 0  # which of the rank's chunks of layers

    def __str__(self) -> str:
        return f"{self.kind}{self.micro}" + (f"'{self.chunk}" if self.chunk else "")


def schedule(name: str, stage: int, stages: int, micros: int, chunks: int = 1) -> list[Pass]:
    """Return the passes of rank `stage` in order.

    Parameters
    ----------
    name : "gpipe", "1f1b" or "interleaved"
    stage, stages : this rank, of how many (p)
    micros : micro-batches a step (m); with "interleaved" a multiple of p
    chunks : chunks of layers a rank (v); 1 but for "interleaved"

    Raises ValueError for numbers that do not fit.
    """
    require_choice("name", name, SCHEDULES)
    require_in_range("stages", stages, 1)
    require_in_range("stage", stage, 0, stages - 1)
    require_in_range("micros", micros, 1)
    require_in_range("chunks", chunks, 1)
    if name != "interleaved" and chunks != 1:
        raise ValueError(f'chunks={chunks} needs the schedule "interleaved", got "{name}".')
    if name == "interleaved" and micros % stages:
        raise ValueError(
            f"micros={micros} must be a multiple of stages={stages} for the interleaved schedule: use "
            f"{-(-micros // stages) * stages}."
        )
    return SCHEDULES[name](stage, stages, micros, chunks)


def _gpipe(stage, stages, micros, chunks):
    return [Pass(kind, m) for kind in "FB" for m in range(micros)]


def _one_f_one_b(stage, stages, micros, chunks):
    ahead = min(stages - 1 - stage, micros)
    forward = [Pass("F", m) for m in range(micros)]
    backward = [Pass("B", m) for m in range(micros)]
    return _in_turn(forward, backward, ahead)


def _interleaved(stage, stages, micros, chunks):
    """Micro-batches go in groups of p, each group through all chunks before the next group starts."""
    order = [
        (group * stages + i, chunk)
        for group in range(micros // stages)
        for chunk in range(chunks)
        for i in range(stages)
    ]
    forward = [Pass("F", m, c) for m, c in order]
    backward = [Pass("B", m, chunks - 1 - c) for m, c in order]
    ahead = min(2 * (stages - 1 - stage) + (chunks - 1) * stages, len(forward))
    return _in_turn(forward, backward, ahead)


def _in_turn(forward, backward, ahead):
    """`ahead` forwards, then one forward and one backward in turn, then the backwards that are left."""
    passes = forward[:ahead]
    for i, b in enumerate(backward):
        passes += [*forward[ahead + i : ahead + i + 1], b]
    return passes


SCHEDULES: dict[str, Callable] = {
    "gpipe": _gpipe,
    "1f1b": _one_f_one_b,
    "interleaved": _interleaved,
}


def most_in_flight(passes: Sequence[Pass]) -> int:
    """The most micro-batches (times chunks) whose activations are kept at one time in a list of passes."""
    now = most = 0
    for p in passes:
        now += 1 if p.kind == "F" else -1
        most = max(most, now)
    return most


def bubble(stages: int, micros: int, chunks: int = 1) -> float:
    """The idle share of a step's time, (p - 1) / (v m + p - 1), if all passes take equally long and messages no time."""
    for name, n in {"stages": stages, "micros": micros, "chunks": chunks}.items():
        require_in_range(name, n, 1)
    return (stages - 1) / (chunks * micros + stages - 1)
