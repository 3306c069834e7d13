"""A hundred thousand futures of one company: when cash ends, and what is there if it does not.

    >>> paths = simulate(company, paths=100_000, months=60, seed=0)
    >>> paths.survival(24), paths.runway(0.1)

Every path has its own streams of random numbers, so the same seed gives the same bits on any number of threads, and
companies simulated with one seed meet the same luck (common random numbers), which makes differences between them sharp.
Incidents and rounds have a stream apart, with fixed places for each month: a company with a risk or a round more meets the
same demand as one without. `paired` compares two companies path by path.
The model is described in `company`. Told in lab L10.
"""

import math
from dataclasses import dataclass

import numpy as np
from numba import njit, prange

from bigmodel_lab.econ.company import UNCERTAIN, Company
from bigmodel_lab.econ.streams import STEP, normal_pair, start, uniform
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Paths", "paired", "simulate"]

EVENTS = np.uint64(
    0x5851F42D4C957F2D
)  # tells the stream of incidents and rounds from that of demand
BLOCK = 20_000_000  # months of all paths in one call of the kernel, about a second: Ctrl-C waits for its end


@dataclass(frozen=True, eq=False)
class Paths:
    """What became of each simulated company."""

    months: int
    month_out: np.ndarray  # (n_paths,) int32: the month in which cash ended, months + 1 if never
    cash: np.ndarray  # (n_paths,) USD at the end, or when cash ended (then negative)
    lowest_cash: np.ndarray  # (n_paths,) USD, the least on the way
    customers: np.ndarray  # (n_paths,) at the end, or when cash ended
    revenue: np.ndarray  # (n_paths,) USD a month, the last one
    raised: np.ndarray  # (n_paths,) USD of rounds that closed
    cash_by_month: np.ndarray | None  # (n_paths, months) USD float32, NaN once stopped; if kept
    on_credit: bool = False  # companies went on below zero

    def survival(self, month: int | None = None) -> float:
        """Return the share of companies that still have cash after `month` (default: the last)."""
        t = self.months if month is None else whole("month", month, "month", high=self.months)
        return float(np.mean(self.month_out > t))

    def standard_error(self, month: int | None = None) -> float:
        """Return how far `survival` may be off (one standard deviation) because the paths are finitely many."""
        p = self.survival(month)
        return math.sqrt(p * (1 - p) / len(self.month_out))

    def runway(self, p: float = 0.5) -> Quantity:
        """Return the month by which the share `p` of companies has run out of cash; infinite if fewer ever do."""
        q = number("p", p, high=1)
        place = max(0, math.ceil(q * len(self.month_out)) - 1)
        t = int(np.partition(self.month_out, place)[place])
        return Q(float(t) if t <= self.months else math.inf, "month")

    def cash_needed(self, p: float = 0.9) -> Quantity:
        """Return the extra cash at the start, USD, with which the share `p` of companies never falls below zero.

        Raises ValueError for paths that stopped at zero: simulate with on_credit=True, to see how deep they would sink.
        """
        if not self.on_credit:
            raise ValueError(
                "paths must be simulated with on_credit=True, got False: they stop where cash ends."
            )
        q = number("p", p, high=1)
        return Q(float(max(0.0, -np.quantile(self.lowest_cash, 1 - q, method="lower"))), "USD")


def simulate(
    company: Company,
    paths: int = 100_000,
    months: int = 60,
    seed: int = 0,
    keep_cash: bool = False,
    on_credit: bool = False,
) -> Paths:
    """Simulate `paths` companies over `months` months.

    keep_cash : also return cash by month (4 bytes * paths * months)
    on_credit : let companies go on when their cash is gone, to see how much was lacking; `month_out` stays the first month
        below zero

    Raises ValueError for a round after the last month.
    """
    n, T = whole("paths", paths, low=1, high=1e8), whole("months", months, "month", 1, 1200)
    x = company.numbers()
    amounts, chances, needs = np.zeros(T), np.zeros(T), np.zeros(T)
    for r in company.rounds:
        if r.month > T or chances[r.month - 1]:
            why = "after the last" if r.month > T else "that has a round already"
            raise ValueError(f"rounds has one in month {r.month}, a month {why}, with months={T}.")
        t = r.month - 1
        amounts[t], chances[t] = number("amount", r.amount, "USD"), float(r.probability)
        needs[t] = number("needs", r.needs, "USD / year") / 12
    levels = np.array([x[name] for name in UNCERTAIN])
    unsure = np.array([float(company.unsure.get(name, 0.0)) for name in UNCERTAIN])
    rest = (
        "cash", "customers", "growth", "market", "serving_decline", "fixed_growth", "shock", "persistence",
        "incident_probability", "incident_cost",
    )  # fmt: skip
    out, ends = np.empty((5, n)), np.empty(n, np.int32)
    kept = np.full((n, T) if keep_cash else (1, 1), np.nan, np.float32)
    key = np.uint64(generator(seed, "econ", "company").integers(2**64, dtype=np.uint64))
    known = np.array([x[name] for name in rest])
    flags = np.array([keep_cash, on_credit])
    rounds = np.stack([amounts, chances, needs])
    step = max(1, BLOCK // T)
    for first in range(0, n, step):
        last = min(first + step, n)
        _paths(first, last, key, levels, unsure, known, rounds, T, flags, out, ends, kept)
    return Paths(T, ends, *out, kept if keep_cash else None, on_credit)


def paired(a: Paths, b: Paths, month: int | None = None) -> tuple[float, float]:
    """Return by how much more of `a` than of `b` is alive after `month` (default: the last), and its standard error.

    Both must come from one seed: path i of each then met the same luck, and what is left of the error is what the companies
    made of it. Raises ValueError if they differ in number or length.
    """
    if len(a.month_out) != len(b.month_out) or a.months != b.months:
        raise ValueError(
            f"a and b must be pairs, got {len(a.month_out)} paths of {a.months} months and {len(b.month_out)} of {b.months}: "
            "simulate both with the same paths, months and seed."
        )
    t = a.months if month is None else whole("month", month, "month", high=a.months)
    gain = (a.month_out > t).astype(float) - (b.month_out > t)
    return float(gain.mean()), float(gain.std() / math.sqrt(len(gain)))


@njit(parallel=True, cache=True)
def _paths(first, last, key, levels, unsure, known, rounds, T, flags, out, ends, kept):
    keep, on_credit = flags
    amounts, chances, needs = rounds
    cash0, customers0, growth, market, decline, fixed_growth = known[:6]
    shock, persistence, p_incident, incident_cost = known[6:]
    for i in prange(first, last):
        state, events = start(key, i), start(key ^ EVENTS, i)
        own = np.empty(6)
        for j in range(0, 6, 2):
            z0, z1, state = normal_pair(state)
            own[j] = levels[j] * math.exp(unsure[j] * z0 - 0.5 * unsure[j] ** 2)
            own[j + 1] = levels[j + 1] * math.exp(unsure[j + 1] * z1 - 0.5 * unsure[j + 1] ** 2)
        new, churn, price, serving, cac, fixed = own
        churn = min(churn, 1.0)
        cash, customers, revenue, raised = cash0, customers0, 0.0, 0.0
        lowest, log_shock, end = cash0, 0.0, T + 1
        z, spare = 0.0, 0.0
        for t in range(T):
            if t % 2 == 0:
                z, spare, state = normal_pair(state)
            else:
                z = spare
            log_shock = persistence * log_shock + shock * z
            room = max(0.0, 1.0 - customers / market)
            won = min(new * room * math.exp(log_shock), market)
            customers = customers * (1.0 - churn) + won
            revenue = customers * price
            cash += revenue - customers * serving - cac * won - fixed
            if p_incident > 0.0:
                u, _ = uniform(events + np.uint64(2 * t) * STEP)
                if u < p_incident:
                    cash -= incident_cost
            if chances[t] > 0.0:
                u, _ = uniform(events + np.uint64(2 * t + 1) * STEP)
                if u < chances[t] and revenue >= needs[t]:
                    cash += amounts[t]
                    raised += amounts[t]
            lowest = min(lowest, cash)
            if keep:
                kept[i, t] = cash
            if cash < 0.0 and end > T:
                end = t + 1
                if not on_credit:
                    break
            new *= 1.0 + growth
            serving *= 1.0 - decline
            fixed *= 1.0 + fixed_growth
        ends[i] = end
        out[0, i], out[1, i], out[2, i] = cash, lowest, customers
        out[3, i], out[4, i] = revenue, raised
