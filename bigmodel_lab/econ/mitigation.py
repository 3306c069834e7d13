"""Which mitigations to buy for a budget: the set that lowers the expected loss most (a 0/1 knapsack, solved exactly).

Buying the best ratio of benefit to cost first is quick and can be wrong: a cheap measure may keep the money from a better
one. The search branches over taking and leaving each measure and cuts where even fractions of the rest could not win. Told in
chapter 23.
"""

from dataclasses import dataclass

from bigmodel_lab.econ.risk import Risk
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["Choice", "Mitigation", "choose_mitigations"]


@dataclass(frozen=True)
class Mitigation:
    """A measure against one risk."""

    name: str
    cost: Quantity | float  # USD a year
    risk: str  # name in the register
    reduces: float = 1.0  # share of the risk's expected loss that it takes away

    def __post_init__(self):
        number(f"cost of {self.name!r}", self.cost, "USD")
        number(f"reduces of {self.name!r}", self.reduces, high=1)


@dataclass(frozen=True)
class Choice:
    """A set of measures."""

    chosen: tuple[str, ...]
    cost: Quantity  # USD
    avoided: Quantity  # USD of expected loss a year
    left: Quantity  # USD of expected loss a year that stays


def choose_mitigations(
    register: tuple[Risk, ...], measures: tuple[Mitigation, ...], budget
) -> Choice:
    """Return the measures that avoid most expected loss for at most `budget` (USD), the cheapest of equal sets.

    Two measures against one risk act one after the other: together they leave (1 - a)(1 - b) of it. Raises ValueError for a
    measure against an unknown risk, or for more than 24 measures (the search is exact, and exponential).
    """
    money = number("budget", budget, "USD")
    loss = {r.name: r.probability * number("loss", r.loss, "USD") for r in register}
    for m in measures:
        if m.risk not in loss:
            raise ValueError(
                f"risk of {m.name!r} must be in the register, {sorted(loss)}, got {m.risk!r}."
            )
    if len(measures) > 24:
        raise ValueError(f"measures must be at most 24, got {len(measures)}: group them first.")
    costs = [number("cost", m.cost, "USD") for m in measures]
    best = (0.0, 0.0, ())  # avoided, -cost, chosen

    def search(i, spent, left, chosen):
        nonlocal best
        avoided = sum(loss.values()) - sum(left.values())
        if (avoided, -spent) > best[:2]:
            best = (avoided, -spent, chosen)
        if i == len(measures):
            return
        # what the rest could add if money did not matter: taken alone, each takes at least as much as after another
        bound = sum(m.reduces * left[m.risk] for m in measures[i:])
        if avoided + bound < best[0]:
            return
        if spent + costs[i] <= money:
            m = measures[i]
            less = left | {m.risk: left[m.risk] * (1 - m.reduces)}
            search(i + 1, spent + costs[i], less, (*chosen, m.name))
        search(i + 1, spent, left, chosen)

    search(0, 0.0, loss, ())
    avoided, cost, chosen = best
    return Choice(
        chosen, Q(-cost, "USD"), Q(avoided, "USD"), Q(sum(loss.values()) - avoided, "USD")
    )
