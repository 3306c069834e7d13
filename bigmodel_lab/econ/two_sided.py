"""Two-sided platforms: developers come for users and users for developers, so one side may be worth paying.

A side's members grow with what joining is worth, u_i = benefit_i n_j - price_i, linearly: n_i = base_i + slope_i u_i. A
monopoly's best price is its cost, less what a member is worth to the other side, plus the usual mark-up:

    p_i = cost_i - benefit_j n_j + n_i / slope_i

Source: M. Armstrong, Competition in two-sided markets, RAND Journal of Economics 37(3), 2006, section 3. It is exact where
slope_1 slope_2 (benefit_1 + benefit_2)^2 < 4; beyond, growth feeds itself without end and is refused. Told in chapter 21.
"""

import math
from dataclasses import dataclass

import numpy as np

from bigmodel_lab.units import Q, Quantity, number

__all__ = ["PlatformOutcome", "Side", "best_prices", "platform"]

EACH = "USD / customer / month"


@dataclass(frozen=True)
class Side:
    """One side of a platform."""

    name: str
    base: float  # members, in customer, at price 0 with nobody on the other side
    slope: float  # customer for each USD / month that joining is worth more
    benefit: float  # USD / month to a member from each member of the other side; below 0 if they annoy, as advertising may
    cost: Quantity | float = 0.0  # USD / customer / month

    def __post_init__(self):
        number(f"base of {self.name!r}", self.base, "customer", above=0)
        number(f"slope of {self.name!r}", self.slope, above=0)
        number(f"benefit of {self.name!r}", self.benefit, low=-math.inf)
        number(f"cost of {self.name!r}", self.cost, EACH)


@dataclass(frozen=True)
class PlatformOutcome:
    """Prices, members and profit of a platform at rest."""

    prices: tuple[Quantity, Quantity]  # USD / customer / month; below zero: the platform pays
    members: tuple[Quantity, Quantity]  # customer
    profit: Quantity  # USD / month


def platform(one: Side, two: Side, price_one, price_two) -> PlatformOutcome:
    """Return members and profit at given prices (USD / customer / month, may be negative).

    Raises ValueError if each side draws the other without end, or if a side would have fewer than no members.
    """
    p = [
        number(n, x, EACH, low=-np.inf)
        for n, x in (("price_one", price_one), ("price_two", price_two))
    ]
    feedback = one.slope * two.slope * one.benefit * two.benefit
    if feedback >= 1:
        raise ValueError(
            f"slope and benefit of both sides must multiply to less than 1, got {feedback:.3g}: growth has no end."
        )
    alone = [s.base - s.slope * price for s, price in zip((one, two), p, strict=True)]
    n1 = (alone[0] + one.slope * one.benefit * alone[1]) / (1 - feedback)
    n2 = (alone[1] + two.slope * two.benefit * alone[0]) / (1 - feedback)
    if min(n1, n2) < 0:
        raise ValueError(
            f"prices must leave members on both sides, got {n1:.4g} and {n2:.4g}: lower one."
        )
    costs = [number("cost", s.cost, EACH) for s in (one, two)]
    profit = (p[0] - costs[0]) * n1 + (p[1] - costs[1]) * n2
    return PlatformOutcome(
        (Q(p[0], EACH), Q(p[1], EACH)),
        (Q(n1, "customer"), Q(n2, "customer")),
        Q(profit, "USD / month"),
    )


def best_prices(one: Side, two: Side) -> PlatformOutcome:
    """Return the outcome at the prices that bring most profit.

    Raises ValueError where profit has no maximum, or where a side is best left alone.
    """
    together = one.benefit + two.benefit
    if one.slope * two.slope * together**2 >= 4:
        raise ValueError(
            "slopes times the squared sum of benefits must be below 4 for a best price, got "
            f"{one.slope * two.slope * together**2:.3g}: each member draws more than it costs, without end."
        )
    # profit in members: p_i = benefit_i n_j + (base_i - n_i) / slope_i; both derivatives are zero
    a = np.array([[2 / one.slope, -together], [-together, 2 / two.slope]])
    b = [s.base / s.slope - number("cost", s.cost, EACH) for s in (one, two)]
    n1, n2 = np.linalg.solve(a, b)
    for s, n in ((one, n1), (two, n2)):
        if n < 0:
            raise ValueError(
                f"base of {s.name!r} must be larger for what a member costs: with {n:.4g} members at best, the platform "
                "does better without that side."
            )
    p1 = one.benefit * n2 + (one.base - n1) / one.slope
    p2 = two.benefit * n1 + (two.base - n2) / two.slope
    return platform(one, two, float(p1), float(p2))
