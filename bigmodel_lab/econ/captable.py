"""Who owns the company: shares, options, post-money SAFEs and priced rounds with an option pool.

A priced round at pre-money V for the amount A sells a = A / (V + A) of the company. Post-money SAFEs own, before the new
money and the new pool, investment / cap of everything that is there, all SAFEs and the old pool included; so a larger cap
of one SAFE dilutes the founders and no other SAFE. With T shares after the round, E before it, f = sum of investment / cap,
b = sum of investment / ((1 - discount)(V + A)) of SAFEs that convert at the round's own (discounted) price, and n of new
pool,

    E / T = (1 - f)(1 - a - n) - b,        price = (V + A) / T

Each SAFE takes the way that gives it more shares. The pool is topped up before the money comes in, so that founders and
SAFEs pay for it. Shares are not rounded to whole ones. Sources: Y Combinator, Quick start guide and post-money SAFE v1.1
(2018, 2021). Told in chapter 24.
"""

from dataclasses import dataclass, field

from bigmodel_lab.econ.values import share
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["POOL", "CapTable", "PricedRound", "Safe", "priced_round"]

POOL = "option pool"  # holder of the options that are not yet promised to anybody


@dataclass(frozen=True)
class CapTable:
    """Fully diluted shares by holder."""

    shares: dict[str, float]

    def __post_init__(self):
        if not self.shares:
            raise ValueError("shares must name at least one holder, got none.")
        for name, n in self.shares.items():
            number(f"shares of {name!r}", n)
        number("the sum of shares", self.total, above=0)

    @property
    def total(self) -> float:
        """All shares, fully diluted."""
        return sum(self.shares.values())

    def ownership(self) -> dict[str, float]:
        """Return each holder's share of the company, 0 to 1."""
        return {name: n / self.total for name, n in self.shares.items()}

    def grant(self, name: str, shares) -> "CapTable":
        """Return the table after options are given to `name` out of the pool. Raises ValueError beyond its size."""
        n = number("shares", shares, high=self.shares.get(POOL, 0.0))
        changed = {**self.shares, POOL: self.shares.get(POOL, 0.0) - n}
        return CapTable({**changed, name: changed.get(name, 0.0) + n})


@dataclass(frozen=True)
class Safe:
    """A post-money SAFE: money now for shares at the next priced round."""

    holder: str
    investment: Quantity | float  # USD
    cap: Quantity | float | None = None  # post-money valuation cap, USD; None for an uncapped one
    discount: float = (
        0.0  # off the round's price: 0.2 where the SAFE's text has a "Discount Rate" of 80 %
    )

    def __post_init__(self):
        paid = number("investment", self.investment, "USD", above=0)
        if self.cap is not None:
            number("cap", self.cap, "USD", above=paid)
        if number("discount", self.discount, high=1) == 1:
            raise ValueError("discount must be below 1, got 1: the shares would be free.")

    @property
    def ownership(self) -> float:
        """Share of the company before the priced round, its new pool excluded: investment / cap.

        Raises ValueError for an uncapped SAFE: it depends on the round.
        """
        if self.cap is None:
            raise ValueError(f"cap of {self.holder!r} is None: its ownership depends on the round.")
        return number("investment", self.investment, "USD") / number("cap", self.cap, "USD")


@dataclass(frozen=True)
class PricedRound:
    """A round that has closed."""

    table: CapTable
    price: Quantity  # USD a share, as USD
    post_money: Quantity  # USD
    safe_prices: dict[str, Quantity] = field(default_factory=dict)  # USD that a SAFE paid a share
    sold: float = 0.0  # share of the company that the new money got


def priced_round(
    table: CapTable, pre_money, investors: dict, safes: tuple[Safe, ...] = (), pool=None
) -> PricedRound:
    """Close a priced round: convert the SAFEs, top up the pool, sell shares.

    Parameters
    ----------
    table : holders before the round, any pool of options under `POOL`
    pre_money : valuation before the new money, SAFEs and new pool included, USD
    investors : amount in USD by name
    safes : post-money SAFEs, which all convert
    pool : share of the company after the round that is to be in the pool; None leaves the pool as it is. A pool that
        is larger already is not cut.

    Raises ValueError if SAFEs, money and pool leave nothing for the holders.
    """
    V = number("pre_money", pre_money, "USD", above=0)
    paid = {n: number(f"amount of {n!r}", x, "USD", above=0) for n, x in investors.items()}
    names = [*table.shares, *(s.holder for s in safes), *paid]
    if not paid:
        raise ValueError("investors must name at least one amount, got none.")
    if len({s.holder for s in safes}) < len(safes):
        raise ValueError(f"safes must have different holders, got {[s.holder for s in safes]}.")
    target = None if pool is None else share("pool", pool)
    post = V + sum(paid.values())
    by_cap = tuple(s for s in safes if s.cap is not None)
    while (
        True
    ):  # each pass moves at least one SAFE from its cap to the round's price, which only falls
        at_price = tuple(s for s in safes if s not in by_cap)
        T, new_pool = _total_shares(table, V, post, by_cap, at_price, target)
        price, existing = post / T, T * V / post - new_pool
        better = [s for s in by_cap if (1 - s.discount) * price < _usd(s.cap) / existing]
        if not better:
            break
        by_cap = tuple(s for s in by_cap if s not in better)
    shares = {name: table.shares.get(name, 0.0) for name in dict.fromkeys(names)}
    prices = {}
    for s in safes:
        each = _usd(s.cap) / existing if s in by_cap else (1 - s.discount) * price
        prices[s.holder] = Q(each, "USD")
        shares[s.holder] += _usd(s.investment) / each
    for name, amount in paid.items():
        shares[name] += amount / price
    if new_pool:
        shares[POOL] = shares.get(POOL, 0.0) + new_pool
    return PricedRound(CapTable(shares), Q(price, "USD"), Q(post, "USD"), prices, 1 - V / post)


def _usd(x) -> float:
    return number("amount", x, "USD")


def _total_shares(table, V, post, by_cap, at_price, target) -> tuple[float, float]:
    """Return (T, new pool) for a given way of converting each SAFE."""
    E, unissued = table.total, table.shares.get(POOL, 0.0)
    f = sum(s.ownership for s in by_cap)
    b = sum(_usd(s.investment) / (1 - s.discount) for s in at_price) / post
    a = 1 - V / post

    def refuse():
        raise ValueError(
            f"the round leaves nothing for the present holders: SAFEs at their caps take {f:.1%} of what was there, SAFEs "
            f"at the round's price {b:.1%}, the new money {a:.1%} and the pool {target or 0:.1%} of the company."
        )

    left = (1 - f) * (1 - a) - b
    if f >= 1 or left <= 0:
        refuse()
    T = E / left
    if target is None or unissued >= target * T:
        return T, 0.0
    left, kept = (1 - f) * (1 - a - target) - b, E - (1 - f) * unissued
    if left <= 0 or kept <= 0:
        refuse()
    T = kept / left
    return T, target * T - unissued
