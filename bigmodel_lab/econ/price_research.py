"""What would you pay: Van Westendorp's four questions, and Gabor and Granger's ladder of prices.

Van Westendorp asks at which price a thing is too cheap to trust, a bargain, getting expensive, too expensive. Where the curves
of answers cross:

    indifference       bargain = expensive          optimal price   too cheap = too expensive
    narrower range     too cheap = expensive        to              bargain = too expensive
    original range     too cheap = not a bargain    to              not expensive = too expensive

The 1976 paper has the original range; most reports and tools since draw the narrower one under the same name. The method
never asks whether anybody would buy. Gabor and Granger do, at several prices, so that revenue and profit follow. Both ask
for words, not money: treat the answers as an upper end. Sources: van Westendorp (1976), ESOMAR; Gabor and Granger (1966),
Economica 33. Told in chapter 21.
"""

from dataclasses import dataclass

import numpy as np

from bigmodel_lab.econ.values import array
from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["DemandPoint", "PriceSensitivity", "gabor_granger", "van_westendorp"]

EACH = "USD / customer / month"


@dataclass(frozen=True)
class PriceSensitivity:
    """Van Westendorp's four prices, USD / customer / month."""

    low: Quantity  # point of marginal cheapness, of the range that was asked for
    high: Quantity  # point of marginal expensiveness
    indifference: Quantity
    optimal: Quantity


def van_westendorp(
    too_cheap, bargain, expensive, too_expensive, ends: str = "narrower"
) -> PriceSensitivity:
    """Return where the four curves of answers cross.

    Each of the four holds one price a respondent (n,), USD / customer / month. ends : which range, "narrower" or "original".
    Curves are linear between the prices named. Raises ValueError for a respondent whose four prices do not rise, or where two
    curves do not cross.
    """
    require_choice("ends", ends, ("narrower", "original"))
    names = ("too_cheap", "bargain", "expensive", "too_expensive")
    answers = [
        array(n, x, EACH)
        for n, x in zip(names, (too_cheap, bargain, expensive, too_expensive), strict=True)
    ]
    if len({a.shape for a in answers}) > 1 or answers[0].ndim != 1 or not answers[0].size:
        raise ValueError(
            f"{', '.join(names)} must have one length, got {[a.shape for a in answers]}."
        )
    falls = np.flatnonzero((np.diff(np.stack(answers), axis=0) < 0).any(0))
    if len(falls):
        raise ValueError(
            f"prices must rise from too_cheap to too_expensive; respondent {falls[0]} says "
            f"{', '.join(f'{a[falls[0]]:g}' for a in answers)}: leave inconsistent answers out."
        )
    grid = np.unique(np.concatenate(answers))
    falling = [np.mean(a[:, None] >= grid, axis=0) for a in answers[:2]]
    rising = [np.mean(a[:, None] <= grid, axis=0) for a in answers[2:]]

    def cross(down, up):
        gap = up - down
        i = int(np.argmax(gap >= 0))
        if gap[i] < 0 or (i == 0 and gap[0] > 0):
            raise ValueError(
                "the curves of answers do not cross: ask more people, or over a wider range."
            )
        if gap[i] == 0:  # equal over a stretch: its middle
            last = i + int(np.argmax(np.append(gap[i:] > 0, True))) - 1
            return Q(float((grid[i] + grid[last]) / 2), EACH)
        part = -gap[i - 1] / (gap[i] - gap[i - 1])
        return Q(float(grid[i - 1] + part * (grid[i] - grid[i - 1])), EACH)

    if ends == "original":
        low, high = (falling[0], 1 - falling[1]), (1 - rising[0], rising[1])
    else:
        low, high = (falling[0], rising[0]), (falling[1], rising[1])
    return PriceSensitivity(
        low=cross(*low),
        high=cross(*high),
        indifference=cross(falling[1], rising[0]),
        optimal=cross(falling[0], rising[1]),
    )


@dataclass(frozen=True)
class DemandPoint:
    """What one price of the ladder brings from each person asked."""

    price: Quantity  # USD / customer / month
    share: float  # that would buy
    revenue: Quantity  # USD / customer / month, buyers or not
    profit: Quantity


def gabor_granger(highest, prices, cost=0.0) -> tuple[DemandPoint, ...]:
    """Return demand, revenue and profit at each price of the ladder.

    highest : the highest price that each respondent accepts (n,), 0 for none; prices : the ladder (k,), rising; cost : of
    serving a customer; all USD / customer / month. `max(points, key=lambda p: p.profit)` is the price to take.
    """
    most, ladder = array("highest", highest, EACH), array("prices", prices, EACH)
    c = number("cost", cost, EACH)
    if not most.size or ladder.ndim != 1 or not ladder.size or (np.diff(ladder) <= 0).any():
        raise ValueError(
            "prices must be one rising ladder, and highest must hold at least one answer, got shapes "
            f"{ladder.shape} and {most.shape}."
        )
    out = []
    for p in map(float, ladder):
        share = float(np.mean(most >= p))
        out.append(DemandPoint(Q(p, EACH), share, Q(p * share, EACH), Q((p - c) * share, EACH)))
    return tuple(out)
