"""Price plans over a serving cost: what a customer is billed, and the gross margin over a law of use.

In each block of use (from one limit to the next) the bill is a line, base + rate * tokens, so that mean revenue, mean cost
and the share of customers who cost more than they pay are exact, without sampling:

    revenue = sum over blocks of base * P(block) + rate * E[X; block]

graduated: each token has the price of its own block. volume: all tokens have the price of the last block reached, so a bill
can fall where a block begins. Gross margin is profit over revenue; margin on cost (mark-up) is profit over cost: 545 % on
cost is 84.5 % of revenue. Told in chapter 21.
"""

import math
from dataclasses import dataclass

from bigmodel_lab.econ.usage import Usage
from bigmodel_lab.econ.values import ratio
from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["Plan", "PlanMargin", "flat_fee", "gross_margin", "markup", "plan_margin", "price_for"]

FEE, TOKENS, PRICE = "USD / customer / month", "token / customer / month", "USD / Mtoken"


def gross_margin(revenue, cost) -> float:
    """Return profit over revenue, two amounts of one kind; negative if it costs more than it brings."""
    return 1 - ratio("cost", cost, "revenue", revenue)


def markup(revenue, cost) -> float:
    """Return profit over cost, two amounts of one kind: what some reports call the margin."""
    return ratio("revenue", revenue, "cost", cost) - 1


def price_for(cost, gross_margin) -> Quantity | float:
    """Return the price that leaves `gross_margin` (0 to below 1) over `cost`, in the unit of `cost`."""
    g = number("gross_margin", gross_margin, high=1)
    if g == 1:
        raise ValueError("gross_margin must be below 1, got 1: no price leaves all of itself.")
    unit = str(cost.units) if isinstance(cost, Quantity) else ""
    price = number("cost", cost, unit) / (1 - g)
    return Q(price, unit) if unit else price


@dataclass(frozen=True)
class Plan:
    """What a customer pays in a month: a fee, and a price for tokens by blocks.

    Plan(fee=20) is flat, Plan(blocks=((None, 10),)) is metered at 10 USD / Mtoken, and
    Plan(20, ((1e6, 0), (10e6, 8), (None, 5))) includes a million tokens, then charges 8 and, beyond ten million, 5.
    """

    fee: Quantity | float = 0.0  # USD / customer / month
    # (up to, price): token / customer / month or None for no end, USD / Mtoken
    blocks: tuple[tuple[Quantity | float | None, Quantity | float], ...] = ((None, 0.0),)
    how: str = "graduated"  # or "volume"
    cap: Quantity | float | None = None  # token / customer / month beyond which nothing is served

    def __post_init__(self):
        require_choice("how", self.how, ("graduated", "volume"))
        number("fee", self.fee, FEE)
        if self.cap is not None:
            number("cap", self.cap, TOKENS, above=0)
        last = 0.0
        for i, (end, price) in enumerate(self.blocks):
            number(f"price of block {i}", price, PRICE)
            if (end is None) != (i == len(self.blocks) - 1):
                raise ValueError(
                    "blocks must end with one that has no end, (None, price), and only the last."
                )
            if end is not None:
                last = number(f"end of block {i}", end, TOKENS, above=last)
        if not self.blocks:
            raise ValueError("blocks must hold at least (None, price), got none.")

    def lines(self) -> list[tuple[float, float, float, float]]:
        """Return (from, to, base USD, rate USD / token) of each block that can be served: the bill is base + rate * x."""
        out, start, base = [], 0.0, number("fee", self.fee, FEE)
        cap = math.inf if self.cap is None else number("cap", self.cap, TOKENS)
        before = 0.0
        for end, price in self.blocks:
            rate = number("price", price, PRICE) / 1e6
            if self.how == "graduated":
                base += (before - rate) * start
            stop = math.inf if end is None else number("end", end, TOKENS)
            out.append((start, min(stop, cap), base, rate))
            if stop >= cap:
                break
            start, before = stop, rate
        return out

    def bill(self, tokens) -> Quantity:
        """Return what a customer pays who wants `tokens` (token / customer / month), USD / customer / month."""
        lines = self.lines()
        x = min(number("tokens", tokens, TOKENS), lines[-1][1])
        _, _, base, rate = next(line for line in lines if x <= line[1])
        return Q(base + rate * x, FEE)


@dataclass(frozen=True)
class PlanMargin:
    """A plan over a law of use."""

    revenue: Quantity  # USD / customer / month
    cost: Quantity  # USD / customer / month
    gross_margin: float
    losing: float  # share of customers who cost more than they pay
    refused: float  # share of the wanted tokens that the cap refuses


def plan_margin(plan: Plan, usage: Usage, cost, fixed_cost=0.0) -> PlanMargin:
    """Return revenue, cost and gross margin of `plan` for customers who use as `usage` says.

    cost : of serving, USD / Mtoken (as `plan.serving` gives it), fixed_cost : of a customer who uses nothing (support,
    payment fees), USD / customer / month. Raises ValueError if the plan brings no revenue at all.
    """
    c = number("cost", cost, PRICE) / 1e6
    f = number("fixed_cost", fixed_cost, FEE)
    revenue = served = losing = 0.0
    lines = plan.lines()
    for start, stop, base, rate in lines:
        within = usage.partial_mean(stop) - usage.partial_mean(start)
        here = usage.below(stop) - (usage.below(start) if start else 0.0)
        revenue += base * here + rate * within
        served += within
        losing += _losing(usage, start, stop, base - f, rate - c)
    _, cap, base, rate = lines[-1]
    if math.isfinite(cap):  # those who want more are served up to the cap
        above = 1 - usage.below(cap)
        revenue += above * (base + rate * cap)
        served += above * cap
        losing += above * (base + rate * cap < f + c * cap)
    if revenue <= 0:
        raise ValueError("plan must bring revenue: its fee and all prices are 0.")
    total = f + c * served
    return PlanMargin(
        Q(revenue, FEE), Q(total, FEE), 1 - total / revenue, losing, 1 - served / usage.tokens
    )


def _losing(usage: Usage, start, stop, base, rate) -> float:
    """Share of customers in (start, stop] with base + rate * x < 0."""
    if rate == 0:
        low, high = (start, stop) if base < 0 else (stop, stop)
    elif rate < 0:
        low, high = max(start, -base / rate), stop
    else:
        low, high = start, min(stop, -base / rate)
    below = usage.below(low) if low > 0 else 0.0
    return usage.below(high) - below if high > low else 0.0


def flat_fee(usage: Usage, cost, losing=0.02, fixed_cost=0.0) -> Quantity:
    """Return the flat fee, USD / customer / month, at which the share `losing` of customers costs more than it pays.

    cost : USD / Mtoken, fixed_cost : USD / customer / month.
    """
    part = number("losing", losing, high=1, above=0)
    most = usage.quantile(1 - part).magnitude
    return Q(number("cost", cost, PRICE) / 1e6 * most + number("fixed_cost", fixed_cost, FEE), FEE)
