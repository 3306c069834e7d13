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
    if len(loss) < len(register):
        raise ValueError(f"register must name each risk once, got {[r.name for r in register]}.")
    for m in measures:
        if m.risk not in loss:
            raise ValueError(
                f"risk of {m.name!r} must be in the register, {sorted(loss)}, got {m.risk!r}."
            )
    if len(measures) > 24:
        raise ValueError(f"measures must be at most 24, got {len(measures)}: group them first.")
    if len({m.name for m in measures}) < len(measures):
        raise ValueError(f"measures must have different names, got {[m.name for m in measures]}.")
    cost = {m.name: number("cost", m.cost, "USD") for m in measures}
    order = sorted(measures, key=lambda m: _ratio(m.reduces * loss[m.risk], cost[m.name]))
    total = sum(loss.values())
    equal = 1e-12 * total  # sums in another order differ by so much
    best = (0.0, 0.0, frozenset())  # avoided, cost, names

    def search(i, spent, left, chosen):
        nonlocal best
        avoided = total - sum(left.values())
        gain = avoided - best[0]
        if gain > equal or (gain >= -equal and spent < best[1]):
            best = (avoided, spent, chosen)
        if i == len(order) or avoided + _bound(order[i:], cost, money - spent, left) < best[0]:
            return
        m = order[i]
        if spent + cost[m.name] <= money:
            less = left | {m.risk: left[m.risk] * (1 - m.reduces)}
            search(i + 1, spent + cost[m.name], less, chosen | {m.name})
        search(i + 1, spent, left, chosen)

    search(0, 0.0, loss, frozenset())
    avoided, spent, names = best
    chosen = tuple(m.name for m in measures if m.name in names)
    return Choice(chosen, Q(spent, "USD"), Q(avoided, "USD"), Q(total - avoided, "USD"))


def _ratio(benefit, cost) -> float:
    """Sorts the most benefit for the money first, and what costs nothing before all."""
    return -benefit / cost if cost else -float("inf")


def _bound(rest, cost, money, left) -> float:
    """What the rest could avoid at most: each as if alone, which is no less than after another, the last one in part."""
    worth = sorted(
        ((m.reduces * left[m.risk], cost[m.name]) for m in rest), key=lambda vc: _ratio(*vc)
    )
    total = 0.0
    for benefit, price in worth:
        if price > money:
            return total + benefit * money / price
        total, money = total + benefit, money - price
    return total
