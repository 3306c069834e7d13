"""A project's schedule: the critical path, and PERT's estimate of when it ends against a simulation.

    task   mean = (a + 4 m + b) / 6,  deviation = (b - a) / 6        optimistic a, likely m, pessimistic b
    path   means and variances of the longest path add up            Malcolm et al. (1959)

PERT looks at one path. Where others are nearly as long the latest of them decides, so that it is too optimistic; the
simulation draws each task from the beta law with PERT's mean, Beta(1 + 4 (m-a)/(b-a), 1 + 4 (b-m)/(b-a)), and takes the longest
path each time. Told in chapter 23.
"""

import math
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

import numpy as np
from scipy.stats import norm

from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Pert", "Task", "pert", "simulate_schedule"]


@dataclass(frozen=True)
class Task:
    """A piece of work; durations in day."""

    name: str
    optimistic: Quantity | float
    likely: Quantity | float
    pessimistic: Quantity | float
    after: tuple[str, ...] = ()  # names of the tasks that must be done first

    def __post_init__(self):
        a = number(f"optimistic of {self.name!r}", self.optimistic, "day")
        m = number(f"likely of {self.name!r}", self.likely, "day", low=a)
        number(f"pessimistic of {self.name!r}", self.pessimistic, "day", low=m)

    @property
    def days(self) -> tuple[float, float, float]:
        """Optimistic, likely and pessimistic days."""
        return tuple(
            number("days", x, "day") for x in (self.optimistic, self.likely, self.pessimistic)
        )


@dataclass(frozen=True)
class Pert:
    """PERT's answer."""

    mean: Quantity  # day
    deviation: Quantity  # day, of the critical path
    critical: tuple[str, ...]  # tasks of the longest path, in order
    slack: dict[str, Quantity]  # day that each task may slip without moving the end

    def by(self, deadline) -> float:
        """Return the probability of ending within `deadline` (day), as PERT has it: of the critical path alone."""
        d, s = number("deadline", deadline, "day"), self.deviation.magnitude
        if s == 0:
            return float(d >= self.mean.magnitude)
        return float(norm.cdf((d - self.mean.magnitude) / s))


def _order(tasks: tuple[Task, ...]) -> list[Task]:
    by_name = {t.name: t for t in tasks}
    if len(by_name) < len(tasks) or not tasks:
        raise ValueError(
            f"tasks must have different names and be at least one, got {[t.name for t in tasks]}."
        )
    for t in tasks:
        if isinstance(t.after, str):
            raise TypeError(
                f"after of {t.name!r} must be a tuple of names, such as ({t.after!r},), got {t.after!r}."
            )
        if missing := [n for n in t.after if n not in by_name]:
            raise ValueError(f"after of {t.name!r} must name tasks, got {missing[0]!r}.")
    try:
        return [
            by_name[n] for n in TopologicalSorter({t.name: t.after for t in tasks}).static_order()
        ]
    except CycleError as error:
        raise ValueError(
            f"tasks must not wait for each other in a circle: {' -> '.join(error.args[1])}."
        ) from None


def pert(tasks: tuple[Task, ...]) -> Pert:
    """Return mean, deviation, critical path and slack. Raises ValueError for unknown names and circles."""
    order = _order(tasks)
    mean = {t.name: (t.days[0] + 4 * t.days[1] + t.days[2]) / 6 for t in order}
    end, before = {}, {}
    for t in order:
        last = max(t.after, key=lambda n: end[n], default=None)
        before[t.name] = last
        end[t.name] = mean[t.name] + (end[last] if last else 0.0)
    total = max(end.values())
    latest = dict.fromkeys(end, total)
    for t in reversed(order):
        for n in t.after:
            latest[n] = min(latest[n], latest[t.name] - mean[t.name])
    name, path = max(end, key=end.get), []
    while name:
        path.append(name)
        name = before[name]
    spread = {t.name: (t.days[2] - t.days[0]) / 6 for t in order}
    deviation = math.sqrt(sum(spread[n] ** 2 for n in path))
    slack = {n: Q(max(0.0, latest[n] - end[n]), "day") for n in end}
    return Pert(Q(total, "day"), Q(deviation, "day"), tuple(reversed(path)), slack)


def simulate_schedule(tasks: tuple[Task, ...], runs: int = 20_000, seed: int = 0) -> Quantity:
    """Return how long each of `runs` simulated projects takes, day (runs,)."""
    n, ends = whole("runs", runs, low=1), {}
    for t in _order(tasks):
        a, m, b = t.days
        took = np.full(n, a)
        if b > a:
            shape = 1 + 4 * (m - a) / (b - a), 1 + 4 * (b - m) / (b - a)
            took = a + (b - a) * generator(seed, "econ", "task", t.name).beta(*shape, n)
        ends[t.name] = took + np.max([ends[x] for x in t.after] or [np.zeros(n)], axis=0)
    return Q(np.max(list(ends.values()), axis=0), "day")
