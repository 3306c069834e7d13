"""bml econ captable: a priced round over SAFEs and a pool, and who gets what at a sale."""

from argparse import ArgumentTypeError
from dataclasses import dataclass

from bigmodel_lab.econ.captable import POOL, CapTable, Safe, priced_round
from bigmodel_lab.econ.waterfall import Preferred, waterfall
from bigmodel_lab.shell import Answer, Command, amount, option
from bigmodel_lab.units import Q

__all__ = ["CapTableCommand"]

NEW = "new money"


def named(option_name: str, text: str) -> dict[str, str]:
    """Return "a=1,b=2" as a dict of texts. Raises ValueError naming what has no "="."""
    out = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        name, equals, value = (x.strip() for x in part.partition("="))
        if not equals or not name or name in out:
            raise ValueError(
                f"{option_name} must read name=number,name=number with different names, got {part!r}."
            )
        if name in (NEW, POOL):
            raise ValueError(f"{option_name} must not name {name!r}, which is an answer's line.")
        out[name] = value
    return out


def _read(option_name: str, holder: str, text: str) -> float:
    try:
        return amount(text)
    except ArgumentTypeError as error:
        raise ValueError(f"{option_name}, {holder!r}: {error}.") from None


def _safe(holder: str, text: str) -> Safe:
    paid, cap, discount, *more = [*text.split("@"), "", ""]
    if any(more):
        raise ValueError(
            f"--safes, {holder!r}: must read USD@cap or USD@cap@discount, got {text!r}."
        )
    return Safe(
        holder,
        _read("--safes", holder, paid),
        _read("--safes", holder, cap) if cap else None,
        _read("--safes", holder, discount) if discount else 0.0,
    )


@dataclass(frozen=True)
class CapTableCommand(Command):
    """Who owns what after a priced round, with post-money SAFEs and an option pool, and what a sale would bring them.

    $ bml econ captable --safes a=500k@5.5M,b=500k@8.3M --pre-money 16M --raise-usd 4M --pool 0.1 --sale 50M
    founders together      0.5942
    founders               0.5942
    a                      0.06364
    b                      0.04217
    new money              0.2
    option pool            0.1
    price of a share       1.188 USD
    post-money             20,000,000 USD
    a paid a share         0.4669 USD
    b paid a share         0.7045 USD
    founders at the sale   33,010,831 USD
    a at the sale          3,535,354 USD
    b at the sale          2,342,704 USD
    new money at the sale  11,111,111 USD
    note: shares are not rounded to whole ones
    note: at the sale, options that are still in the pool get nothing
    """

    founders: str = option("founders=10M", "shares by holder: Ada=6M,Ben=4M")
    old_pool: float = option(0.0, "options in the pool before the round")
    safes: str = option(
        "",
        "post-money SAFEs: holder=USD@cap, holder=USD@cap@discount or holder=USD@@discount, 0.2 for a fifth off",
    )
    pre_money: float = option(16e6, "USD, before the new money, SAFEs and pool included")
    raise_usd: float = option(4e6, "USD of new money")
    pool: float | None = option(None, "share of the company that the pool is to be after the round")
    sale: float | None = option(None, "USD from a sale: 1x preferences, none participating")

    def answer(self) -> Answer:
        given = named("--founders", self.founders)
        shares = {name: _read("--founders", name, x) for name, x in given.items()}
        safes = tuple(_safe(name, x) for name, x in named("--safes", self.safes).items())
        if both := [s.holder for s in safes if s.holder in shares]:
            raise ValueError(
                f"--safes must not name {both[0]!r}, who is in --founders: a SAFE turns into preferred shares, which a sale "
                "pays differently. Give the SAFE another name."
            )
        old = {POOL: self.old_pool} if self.old_pool else {}
        done = priced_round(
            CapTable({**shares, **old}),
            self.pre_money,
            {NEW: self.raise_usd},
            safes,
            self.pool,
        )
        own = done.table.ownership()
        details = {name: own[name] for name in own}
        details |= {"price of a share": done.price, "post-money": done.post_money}
        details |= {f"{name} paid a share": x for name, x in done.safe_prices.items()}
        notes = ("shares are not rounded to whole ones",)
        if self.sale is not None:
            held = done.table.shares
            invested = {s.holder: s.investment for s in safes} | {NEW: self.raise_usd}
            paid = waterfall(
                self.sale,
                tuple(Preferred(name, held[name], usd) for name, usd in invested.items()),
                {n: x for n, x in held.items() if n not in invested and n != POOL},
            )
            details |= {
                f"{name} at the sale": Q(round(x.magnitude), "USD") for name, x in paid.items()
            }
            notes += ("at the sale, options that are still in the pool get nothing",)
        return Answer("founders together", sum(own[name] for name in shares), details, notes)
