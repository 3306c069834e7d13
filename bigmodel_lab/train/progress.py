"""How far a run is: what the loop tells after every step, and a line of text that shows it."""

import os
import sys
import time
from collections import deque
from dataclasses import dataclass

from tqdm import tqdm

__all__ = ["Pace", "Status", "TextProgress"]

FIRST_S = 0.5  # a shorter run shows nothing
LOG_EVERY_S = 10.0  # a log is read when the run is over


@dataclass(frozen=True)
class Status:
    """Where a run stands after one step."""

    step: int  # optimiser steps taken
    steps: int  # of the whole run
    loss: float  # of this step's batch, before the step
    validation_loss: float | None  # of the last evaluation
    lr: float
    gradient_norm: float  # before clipping
    rate: float  # tokens, or where the data are no text samples, per second, evaluations and checkpoints included
    unit: str  # "tokens" or "samples"
    left_s: float  # seconds to the last step at this rate


class Pace:
    """How fast steps and what they work on have come by lately: over the last 50 steps, with whatever lay between."""

    def __init__(self):
        self._marks = deque([(time.perf_counter(), 0)], maxlen=51)

    def add(self, count: int) -> tuple[float, float]:
        """Note one more step on `count` tokens or samples; return how many pass a second, and the seconds a step."""
        self._marks.append((time.perf_counter(), self._marks[-1][1] + count))
        (t0, n0), (t1, n1) = self._marks[0], self._marks[-1]
        elapsed = max(t1 - t0, 1e-9)  # a clock may stand still over a very short step
        return (n1 - n0) / elapsed, elapsed / (len(self._marks) - 1)


class TextProgress:
    """A line on stderr: steps, time gone and left, losses, tokens per second. Called with a `Status` after every step.

    Runs of less than half a second show nothing, nor do any if the environment has TQDM_DISABLE=1, as when notebooks are
    stored and compared. Where stderr goes into a file or a pipe, there is a new line every `LOG_EVERY_S`.
    """

    def __init__(self):
        self._bar = None
        # A notebook's kernel has a stderr of its own, no terminal either, on which a line can be written over.
        self._is_log = sys.stderr is sys.__stderr__ and not sys.stderr.isatty()
        self._next_s = time.monotonic() + FIRST_S  # of the log

    def __call__(self, status: Status) -> None:
        if self._is_log:
            self._log(status)
            return
        if self._bar is None:
            self._bar = tqdm(
                total=status.steps,
                initial=status.step - 1,
                desc="training",
                leave=False,
                delay=FIRST_S,
                dynamic_ncols=True,
                bar_format="{desc}: {n_fmt}/{total_fmt} steps |{bar}| {elapsed}{postfix}",
            )
        self._bar.set_postfix_str(describe(status), refresh=False)
        self._bar.update(status.step - self._bar.n)

    def _log(self, status: Status) -> None:
        if time.monotonic() >= self._next_s and not os.environ.get("TQDM_DISABLE"):
            self._next_s = time.monotonic() + LOG_EVERY_S
            print(
                f"training: {status.step}/{status.steps} steps, {describe(status)}",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.close()


def describe(status: Status) -> str:
    """Return what the line says of `status`, such as "1:05 left, loss 2.310, validation 2.405, 12.3k tokens/s"."""
    rate = f"{tqdm.format_sizeof(status.rate)} {status.unit}/s"
    validation = (
        "" if status.validation_loss is None else f"validation {status.validation_loss:.3f}, "
    )
    left = tqdm.format_interval(status.left_s)
    return f"{left} left, loss {status.loss:.3f}, {validation}{rate}"
