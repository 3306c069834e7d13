"""Article 002's four ways to found a company on large models, as four parameterisations of one `Company`.

Each strategy changes the same base company: `times` multiplies its assumptions, `sets` replaces them, `trains` is the share
of the training bill that it pays, and `token_margin` the gross margin that its supplier takes of it where it does not serve
its own model. Which change stands for which sentence of the article is said beside it; the sizes are assumptions of ours,
there to be changed, since the article gives none.

All four meet the same random numbers, so a ranking's differences are sharp; `reversal` finds the value of an assumption
at which two of them change places. Told in lab L10.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from bigmodel_lab.econ.company import UNITS, Company
from bigmodel_lab.econ.montecarlo import Paths, simulate
from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import number, whole

__all__ = ["STRATEGIES", "Placed", "Strategy", "ranking", "reversal"]


@dataclass(frozen=True)
class Strategy:
    """How one way of founding differs from the base company."""

    name: str
    trains: float = 1.0  # share of the training bill that it pays itself
    token_margin: float = (
        0.0  # gross margin of a supplier of tokens: serving costs 1 / (1 - margin) of one's own
    )
    times: dict[str, float] = field(default_factory=dict)  # factor by assumption
    sets: dict[str, float] = field(default_factory=dict)  # value by assumption, in its unit

    def __post_init__(self):
        number("trains", self.trains)
        if number("token_margin", self.token_margin, high=1) == 1:
            raise ValueError("token_margin must be below 1, got 1: no supplier keeps all of it.")
        for name, factor in self.times.items():
            require_choice("a name in times", name, UNITS)
            number(f"times[{name!r}]", factor)
        for name in self.sets:
            require_choice("a name in sets", name, UNITS)
        if both := ", ".join(sorted(self.times.keys() & self.sets.keys())):
            raise ValueError(f"times and sets both name {both}: an assumption changes once.")

    def company(self, base: Company, training=0.0) -> Company:
        """Return the base company run in this way.

        training : USD / month that training costs one who pays all of it; `base.fixed` holds none of it
        """
        x = base.numbers()
        changed = {name: x[name] * factor for name, factor in self.times.items()} | self.sets
        served = changed.get("serving_cost", x["serving_cost"]) / (1 - self.token_margin)
        paid = changed.get("fixed", x["fixed"])
        paid += self.trains * number("training", training, "USD / month")
        return base.but(**changed | {"serving_cost": served, "fixed": paid})


STRATEGIES = {
    s.name: s
    for s in (
        Strategy(  # leads by a model of its own, which is hard to build and hard to sell
            "technology-driven",
            times=dict(fixed=1.3, new_customers=0.8, churn=0.6, price=1.15, cac=1.2),
            sets=dict(serving_decline=0.02),
        ),
        Strategy(  # starts from demand and hears of it quickly; what it buys, its competitors can buy
            "market-driven",
            trains=0.0,
            token_margin=0.5,
            times=dict(fixed=0.75, new_customers=1.25, churn=1.3, cac=0.8, shock=1.3),
        ),
        Strategy(  # others build on it and bring more; the whole must be kept up, and breaks dearly
            "platform",
            times=dict(fixed=1.1, new_customers=0.7, price=0.9, cac=0.4, incident_cost=2),
            sets=dict(growth=0.06),
        ),
        Strategy(  # shares resources and risk with a partner; decisions and income too
            "joint",
            trains=0.5,
            times=dict(fixed=0.75, new_customers=0.9, price=0.75, cac=0.6, shock=0.7),
        ),
    )
}


@dataclass(frozen=True)
class Placed:
    """One strategy's place in a ranking."""

    name: str
    company: Company
    paths: Paths
    outcome: float


def ranking(
    base: Company,
    training=0.0,
    *,
    strategies: Iterable[Strategy] = tuple(STRATEGIES.values()),
    outcome: Callable[[Paths], float] = Paths.survival,
    paths: int = 100_000,
    months: int = 36,
    seed: int = 0,
) -> list[Placed]:
    """Return the strategies by outcome, best first; all meet the same random numbers.

    training : USD / month, as `Strategy.company` takes it
    """
    placed = []
    for s in strategies:
        company = s.company(base, training)
        got = simulate(company, paths, months, seed)
        placed.append(Placed(s.name, company, got, float(outcome(got))))
    return sorted(placed, key=lambda p: -p.outcome)


def reversal(
    a: Callable[[float], Company],
    b: Callable[[float], Company],
    low: float,
    high: float,
    *,
    outcome: Callable[[Paths], float] = Paths.survival,
    paths: int = 20_000,
    months: int = 36,
    seed: int = 0,
    steps: int = 12,
) -> float:
    """Return the value between `low` and `high` of an assumption at which companies `a` and `b` change places.

    a, b : from the assumption's value to a company. The interval is halved `steps` times: the answer is right to
    (high - low) / 2^(steps + 1) for these paths and this seed. If they change places more than once, one place is found.

    Raises ValueError if the same one is ahead at both ends, with the outcomes there.
    """
    number("high", high, low=-float("inf"), above=low)

    def lead(x):
        pair = (outcome(simulate(make(x), paths, months, seed)) for make in (a, b))
        return next(pair) - next(pair)

    at_low, at_high = lead(low), lead(high)
    if at_low * at_high > 0:
        ahead = "a" if at_low > 0 else "b"
        raise ValueError(
            f"low and high must have different winners, got {ahead} ahead at both: by {abs(at_low):.3g} at {low:g} and "
            f"{abs(at_high):.3g} at {high:g}. Widen the range, or vary another assumption."
        )
    for _ in range(whole("steps", steps, low=1, high=60)):
        middle = (low + high) / 2
        if (lead(middle) > 0) == (at_low > 0):
            low = middle
        else:
            high = middle
    return (low + high) / 2
