"""Traces: when jobs come, how large they are, whose they are.

    load = rate * E[size] / sum(speeds):    below 1 a cluster can keep up, if the work reaches the right nodes

Arrivals are Poisson. Sizes have the mean asked for and one of three spreads, told by the squared coefficient of variation
C2 = Var/mean^2: "equal" (0), "exponential" (1), and "heavy" (log-normal, C2 = 10: a few jobs are most of the work). Lab L07.
"""

from dataclasses import dataclass

import numpy as np

from bigmodel_lab.errors import require_choice, require_in_range, require_shape
from bigmodel_lab.rng import generator

__all__ = ["GangJobs", "Trace", "gang_trace", "make_trace", "require_times"]


@dataclass(frozen=True)
class Trace:
    """Jobs that need one node each, in order of arrival."""

    arrival_s: np.ndarray  # (jobs,) float64, not decreasing, from 0 up
    size_s: np.ndarray  # (jobs,) float64 above 0: work, in seconds on a node of speed 1
    user: np.ndarray = None  # (jobs,) int64 from 0 up; None: all of user 0

    def __post_init__(self):
        require_times(self, "arrival_s", "size_s")

    def __len__(self) -> int:
        return len(self.arrival_s)


@dataclass(frozen=True)
class GangJobs:
    """Jobs that need several devices (or several resources) at once, from start to end, in order of arrival."""

    arrival_s: np.ndarray  # (jobs,) float64, not decreasing, from 0 up
    run_s: np.ndarray  # (jobs,) float64 above 0: true running time, which no policy sees
    need: np.ndarray  # (jobs,) or (jobs, resources): what it holds while it runs; kept as float64 (jobs, resources)
    estimate_s: np.ndarray = (
        None  # (jobs,) running time promised by the user, at least run_s; None: exact
    )
    user: np.ndarray = None  # (jobs,) int64 from 0 up; None: all of user 0

    def __post_init__(self):
        require_times(self, "arrival_s", "run_s")
        jobs = len(self.arrival_s)
        need = np.asarray(self.need, float)
        need = need[:, None] if need.ndim == 1 else np.ascontiguousarray(need)
        require_shape("need", need, "jobs resources", jobs=jobs)
        if not (need >= 0).all() or not (need.sum(1) > 0).all():
            raise ValueError("need must be at least 0, and above 0 for some resource of every job.")
        object.__setattr__(self, "need", need)
        promised = np.array(self.run_s if self.estimate_s is None else self.estimate_s, float)
        require_shape("estimate_s", promised, "jobs", jobs=jobs)
        if not (promised >= self.run_s).all():
            j = int(np.argmin(promised >= self.run_s))
            raise ValueError(
                f"estimate_s must be at least run_s, as a job is stopped at its estimate: job {j} runs "
                f"{self.run_s[j]:g} s and promises {promised[j]:g} s."
            )
        object.__setattr__(self, "estimate_s", promised)

    def __len__(self) -> int:
        return len(self.arrival_s)


def require_times(jobs, arrival: str, length: str) -> None:
    """Check the columns that both kinds of trace have, and keep them as contiguous arrays of one dtype each."""
    for name in (arrival, length):
        object.__setattr__(jobs, name, np.array(getattr(jobs, name), float))
    n = require_shape(arrival, getattr(jobs, arrival), "jobs")["jobs"]
    require_shape(length, getattr(jobs, length), "jobs", jobs=n)
    if n == 0:
        raise ValueError(f"{arrival} is empty: a trace needs at least one job.")
    times = getattr(jobs, arrival)
    if not (times[0] >= 0 and (np.diff(times) >= 0).all() and np.isfinite(times[-1])):
        raise ValueError(f"{arrival} must be finite, at least 0 and in order: sort the jobs by it.")
    lengths = getattr(jobs, length)
    if not ((lengths > 0) & np.isfinite(lengths)).all():
        raise ValueError(f"{length} must be above 0 s and finite for every job.")
    user = np.zeros(n, np.int64) if jobs.user is None else np.array(jobs.user)
    require_shape("user", user, "jobs", jobs=n)
    if user.dtype.kind not in "iu" or user.min() < 0:
        raise ValueError("user must hold whole numbers from 0 up.")
    object.__setattr__(jobs, "user", user.astype(np.int64))


def _lengths(rng, n: int, mean_s: float, sizes: str) -> np.ndarray:
    """Draw n positive numbers of the given mean and spread."""
    if require_choice("sizes", sizes, ("equal", "exponential", "heavy")) == "equal":
        return np.full(n, float(mean_s))
    if sizes == "exponential":
        return rng.exponential(mean_s, n) + 1e-12 * mean_s
    sigma = np.sqrt(np.log(1 + 10))  # C2 = exp(sigma^2) - 1 = 10
    return mean_s * np.exp(sigma * rng.standard_normal(n) - sigma**2 / 2)


def make_trace(
    jobs: int, load: float, speeds, *, mean_s: float = 1.0, sizes: str = "exponential", users: int = 1, seed: int = 0
) -> Trace:  # fmt: skip
    """Return `jobs` jobs that come by chance and bring `load` times the work that nodes of these speeds can do.

    speeds : float (nodes,), work a second; mean_s : mean size in s on a node of speed 1. Each job belongs to one of
    `users` users by chance. Load may be 1 or more: the line then grows without end.
    """
    n = int(require_in_range("jobs", jobs, 1))
    require_in_range("load", load, 1e-9)
    require_in_range("mean_s", mean_s, 1e-12, unit="s")
    require_in_range("users", users, 1)
    if not (together := float(np.sum(speeds))) > 0:
        raise ValueError(f"speeds must hold at least one node above 0, got {speeds}.")
    rng = generator(seed, "schedule", "trace")
    gaps = rng.exponential(mean_s / (load * together), n)
    return Trace(np.cumsum(gaps), _lengths(rng, n, mean_s, sizes), rng.integers(users, size=n))


def gang_trace(
    jobs: int, load: float, devices: int, *, mean_s: float = 3600.0, users: int = 1, slack: float = 2.0, seed: int = 0
) -> GangJobs:  # fmt: skip
    """Return jobs that hold 1, 2, 4, ... devices (each power of two as likely, up to all), with a mean time of `mean_s` s.

    Running times are exponential; users promise up to `slack` times as long as their jobs run, evenly spread from 1.
    """
    n, most = int(require_in_range("jobs", jobs, 1)), int(require_in_range("devices", devices, 1))
    require_in_range("load", load, 1e-9)
    require_in_range("slack", slack, 1)
    rng = generator(seed, "schedule", "gang")
    powers = 2 ** np.arange(most.bit_length())
    need = rng.choice(powers, n)
    gaps = rng.exponential(powers.mean() * mean_s / (load * most), n)
    run = _lengths(rng, n, mean_s, "exponential")
    return GangJobs(
        np.cumsum(gaps), run, need, run * rng.uniform(1, slack, n), rng.integers(users, size=n)
    )
