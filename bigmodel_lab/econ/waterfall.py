"""Who gets what when the company is sold: liquidation preferences, conversion, participation, seniority.

Preferred shares take their preference (multiple * investment) first, the senior classes before the junior, equals in
proportion. A class that does not participate may give its preference up and share with the common instead; it does so
when that brings more, which depends on what the others do. Classes convert in the order of what they give up a share, so
the answer is found by trying "the k cheapest convert" from many to few and keeping the first that no class would leave.
A participating class takes both, up to its cap if it has one. Source: National Venture Capital Association, model
certificate of incorporation, section 2. Told in chapter 24.
"""

import math
from dataclasses import dataclass

from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Preferred", "break_even_exit", "waterfall"]


@dataclass(frozen=True)
class Preferred:
    """One class of preferred shares."""

    name: str
    shares: float
    invested: Quantity | float  # USD
    multiple: float = 1.0  # of the investment, taken first
    participating: bool = False  # shares in the rest, too, without converting
    cap: float | None = (
        None  # of a participating class: at most this multiple of the investment in all
    )
    seniority: int = 0  # higher is paid first

    def __post_init__(self):
        number(f"shares of {self.name!r}", self.shares, above=0)
        number(f"invested of {self.name!r}", self.invested, "USD", above=0)
        number(f"multiple of {self.name!r}", self.multiple)
        whole(f"seniority of {self.name!r}", self.seniority)
        if self.cap is not None:
            if not self.participating:
                raise ValueError(
                    f"cap of {self.name!r} belongs to a participating class: set participating=True."
                )
            number(f"cap of {self.name!r}", self.cap, low=self.multiple)

    @property
    def preference(self) -> float:
        """USD that it takes first."""
        return self.multiple * number("invested", self.invested, "USD")

    @property
    def limit(self) -> float:
        """USD that it gets at most without converting."""
        if not self.participating:
            return self.preference
        return math.inf if self.cap is None else self.cap * number("invested", self.invested, "USD")


def waterfall(proceeds, preferred: tuple[Preferred, ...], common: dict[str, float]) -> dict:
    """Return USD by holder from `proceeds` (USD, after debts and fees).

    preferred : the classes, common : shares by holder (founders, granted options). The amounts add up to `proceeds`.
    """
    X = number("proceeds", proceeds, "USD")
    shares = {n: number(f"shares of {n!r}", x) for n, x in common.items()}
    names = [*shares, *(p.name for p in preferred)]
    if len(set(names)) < len(names):
        raise ValueError(f"names of holders must differ, got {names}: give each class its own.")
    number("the sum of common shares", sum(shares.values()), above=0)
    order = sorted((p for p in preferred if p.limit < math.inf), key=lambda p: p.limit / p.shares)
    for k in range(len(order), -1, -1):
        converted = order[:k]
        paid = _pay(X, preferred, converted, shares)
        if all(paid[p.name] >= p.limit * (1 - 1e-12) for p in converted):
            break
    return {name: Q(x, "USD") for name, x in paid.items()}


def _pay(X, preferred, converted, common) -> dict[str, float]:
    held = [p for p in preferred if p not in converted]
    paid = dict.fromkeys([*common, *(p.name for p in preferred)], 0.0)
    left = X
    for rank in sorted({p.seniority for p in held}, reverse=True):
        claims = {p.name: p.preference for p in held if p.seniority == rank}
        owed = sum(claims.values())
        part = min(1.0, left / owed) if owed else 0.0
        for name, claim in claims.items():
            paid[name] += claim * part
        left = max(0.0, left - owed)
    sharing = {**common, **{p.name: p.shares for p in converted}}
    room = {p.name: p.limit for p in held if p.participating}
    sharing |= {p.name: p.shares for p in held if p.participating}
    while left > 0 and any(sharing.values()):
        per_share = left / sum(sharing.values())
        full = [n for n, s in sharing.items() if paid[n] + per_share * s > room.get(n, math.inf)]
        if not full:
            for n, s in sharing.items():
                paid[n] += per_share * s
            break
        for n in full:
            left -= room[n] - paid[n]
            paid[n] = room[n]
            del sharing[n]
    return paid


def break_even_exit(holder: str, amount, preferred: tuple[Preferred, ...], common) -> Quantity:
    """Return the least proceeds, USD, at which `holder` gets `amount` (USD).

    Raises ValueError if even a million million dollars would not do.
    """
    want = number("amount", amount, "USD", above=0)
    low, high = 0.0, 1e12
    if holder not in (got := waterfall(high, preferred, common)):
        raise ValueError(f"holder must be one of {sorted(got)}, got {holder!r}.")
    if got[holder].magnitude < want:
        raise ValueError(f"amount={want:g} USD is beyond what {holder!r} can get.")
    while high - low > 1e-9 * high:  # what a holder gets never falls as proceeds rise
        middle = (low + high) / 2
        if waterfall(middle, preferred, common)[holder].magnitude < want:
            low = middle
        else:
            high = middle
    return Q(high, "USD")
