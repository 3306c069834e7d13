"""The loss surface of real small runs: read them, fit L(N, D), and say how well and how far it holds.

    surface = fit_surface()                # of the runs that ship
    surface.loss(1e6, 2e6)                 # nats a token
    surface.beyond(7e9, 1.4e11)            # in words: how far outside the runs that is

The runs are those of tables/small_runs.csv, whose first lines say how they were made, or of a file that
`python -m bigmodel_lab.train.small_runs` wrote. The law is that of `plan.fit_chinchilla`, which also gives the intervals. Its
check: fit the cheaper runs, predict the dearer ones, compare. Told in chapter 16.
"""

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.fit import Fit, fit_chinchilla
from bigmodel_lab.units import number, whole

__all__ = ["SmallRun", "Surface", "fit_surface", "points", "small_runs"]


@dataclass(frozen=True)
class SmallRun:
    """One finished run: a row of the table."""

    name: str  # layers x width - steps
    n_layers: int
    width: int
    parameters: (
        int  # N: all that are trained; the tied embedding, which is also the output layer, once
    )
    non_embedding: int  # of them, those that are not in the embedding
    tokens: int  # D, seen in training
    flops: float  # of training, exact
    seconds: float  # of the training steps; one thread, other work on the machine
    loss: float  # nats a held-out token, after the last step
    seed: int


@dataclass(frozen=True)
class Surface:
    """A law fitted to runs, and what it predicted of runs that it had not seen."""

    fit: Fit
    runs: tuple[SmallRun, ...]
    count: str  # what N counts: "parameters" or "non_embedding"
    tested: tuple[
        tuple[SmallRun, float], ...
    ]  # the dearest runs, each with the loss foretold from the others

    @property
    def test_error(self) -> float:
        """Root mean square of log(foretold / measured) over `tested`: 0.01 is one per cent of the loss."""
        return float(np.sqrt(np.mean([np.log(x / run.loss) ** 2 for run, x in self.tested])))

    @property
    def compute(self) -> float:
        """The largest 6 N D of a run, FLOP."""
        return max(6.0 * getattr(r, self.count) * r.tokens for r in self.runs)

    def loss(self, parameters, tokens) -> float:
        """Return nats a token at (N, D)."""
        return self.fit.law.loss(parameters, tokens)

    def beyond(self, parameters, tokens) -> str:
        """Say how far (N, D) lies outside the runs, such as "N 5,592 x the largest run's"; "" inside them."""
        N = number("parameters", parameters, "parameter", above=0)
        D = number("tokens", tokens, "token", above=0)
        said = []
        for name, x, (low, high) in (("N", N, self.fit.sizes), ("D", D, self.fit.tokens)):
            if x > high * _EDGE:
                said.append(f"{name} {_times(x / high)} the largest run's")
            if x * _EDGE < low:
                said.append(f"{name} {_times(x / low)} the smallest run's")
        if 6 * N * D > self.compute * _EDGE:
            said.append(f"6ND {_times(6 * N * D / self.compute)} the dearest run's")
        return ", ".join(said)


_EDGE = 1 + 1e-9  # on the edge is inside


def _times(x: float) -> str:
    return f"{x:,.0f} x" if 10 <= x < 1e6 else f"{x:.2g} x"


@cache
def _shipped() -> tuple[SmallRun, ...]:
    text = files("bigmodel_lab.plan.tables").joinpath("small_runs.csv").read_text("utf-8")
    return _parse(text, "small_runs.csv")


def small_runs(path: str | os.PathLike | None = None) -> tuple[SmallRun, ...]:
    """Return the runs that ship, or those of the file at `path`. Raises ValueError for a file of another kind."""
    return _shipped() if path is None else _parse(Path(path).read_text("utf-8"), Path(path).name)


def points(runs: Iterable[SmallRun]) -> tuple[list[int], list[int], list[float]]:
    """Return N, D and the held-out loss of each run, as `fit_chinchilla` and `iso_flop` take them: iso_flop(*points(runs))."""
    runs = list(runs)
    return [r.parameters for r in runs], [r.tokens for r in runs], [r.loss for r in runs]


def _parse(text: str, name: str) -> tuple[SmallRun, ...]:
    head, *rows = csv.reader(line for line in text.splitlines() if line and line[0] != "#")
    if head != (names := [f.name for f in fields(SmallRun)]):
        raise ValueError(
            f"{name} is no table of small runs: its columns must be {','.join(names)}, got {','.join(head)}. "
            "Make one with `python -m bigmodel_lab.train.small_runs`."
        )
    try:
        return tuple(
            SmallRun(*(f.type(x) for f, x in zip(fields(SmallRun), row, strict=True)))
            for row in rows
        )
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}. Make it again.") from None


def fit_surface(
    runs: Sequence[SmallRun] | None = None,
    *,
    count: str = "parameters",
    test: int = 5,
    bootstrap: int = 50,
    seed: int = 0,
) -> Surface:
    """Fit the law to `runs` (default: those that ship).

    Parameters
    ----------
    count : what N is. "parameters" counts the embedding, as Hoffmann et al. do, and 6 N D is then what is computed, since a
        tied embedding is the output layer; "non_embedding" is Kaplan's count, which leaves most of these small models out
    test : how many of the runs with the largest 6 N D are foretold from the others, for `Surface.test_error`
    bootstrap, seed : of the intervals, see `fit_chinchilla`

    The same arguments give the same surface, which is kept. Raises ValueError if the runs cannot be fitted.
    """
    require_choice("count", count, ("parameters", "non_embedding"))
    every = small_runs() if runs is None else tuple(runs)
    return _fit(every, count, whole("test", test, low=1), bootstrap, seed)


@cache
def _fit(runs, count, test, bootstrap, seed) -> Surface:
    by_cost = sorted(runs, key=lambda r: getattr(r, count) * r.tokens)
    cheap, dear = by_cost[:-test], by_cost[-test:]

    def fitted(some, bootstrap):
        columns = zip(*((getattr(r, count), r.tokens, r.loss) for r in some), strict=True)
        return fit_chinchilla(*columns, bootstrap=bootstrap, seed=seed)

    law = fitted(cheap, 0).law
    foretold = tuple((r, law.loss(getattr(r, count), r.tokens)) for r in dear)
    return Surface(fitted(runs, bootstrap), tuple(runs), count, foretold)
