"""A company month by month, described by assumptions and how unsure each of them is.

What happens in a month, in this order:

    demand    new customers = new_customers (1 + growth)^t (1 - customers / market) * a shock, whose logarithm follows
              s[t] = persistence * s[t-1] + shock * z[t]
    churn     customers lose the share churn, then the new ones come
    money     cash += customers (price - serving_cost (1 - serving_decline)^t) - cac * new - fixed (1 + fixed_growth)^t
    incident  with probability incident_probability, cash -= incident_cost
    funding   a round of this month closes with its probability, if recurring revenue has reached what it asks for
    end       a company whose cash is below zero stops

Each company draws its own level of `UNCERTAIN` assumptions once: the stated value times a log-normal factor of mean 1, whose
logarithm has the standard deviation in `unsure`. Told in lab L10.
"""

from dataclasses import dataclass, field, replace

from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Quantity, number, whole

__all__ = ["UNCERTAIN", "UNITS", "Company", "FundingRound"]

UNCERTAIN = ("new_customers", "churn", "price", "serving_cost", "cac", "fixed")
EACH = "USD / customer / month"
UNITS = {  # of every assumption that is one number; "" is a pure number
    "cash": "USD",
    "price": EACH,
    "serving_cost": EACH,
    "fixed": "USD / month",
    "new_customers": "customer / month",
    "churn": "",
    "growth": "",
    "market": "customer",
    "customers": "customer",
    "cac": "USD / customer",
    "serving_decline": "",
    "fixed_growth": "",
    "shock": "",
    "persistence": "",
    "incident_probability": "",
    "incident_cost": "USD",
}


@dataclass(frozen=True)
class FundingRound:
    """Money that may come."""

    month: int  # 1 is the first
    amount: Quantity | float  # USD
    probability: float = 1.0
    needs: Quantity | float = 0.0  # USD / year of recurring revenue in that month

    def __post_init__(self):
        whole("month", self.month, low=1)
        number("amount", self.amount, "USD")
        number("probability", self.probability, high=1)
        number("needs", self.needs, "USD / year")


@dataclass(frozen=True)
class Company:
    """The assumptions; plain numbers are in the units of the comments."""

    cash: Quantity | float  # USD, now
    price: Quantity | float  # USD / customer / month
    serving_cost: Quantity | float  # USD / customer / month, now
    fixed: Quantity | float  # USD / month: people, training runs, rent
    new_customers: Quantity | float  # customer / month, now
    churn: float  # share of customers that leaves a month
    growth: float = 0.0  # of new customers, a month
    market: Quantity | float = 1e7  # customers that there are to win
    customers: Quantity | float = 0.0  # customer, now
    cac: Quantity | float = 0.0  # USD / customer
    serving_decline: float = 0.0  # share by which serving gets cheaper a month
    fixed_growth: float = 0.0  # a month
    shock: float = 0.0  # standard deviation of a month's log demand
    persistence: float = 0.0  # of the shock from month to month, below 1
    incident_probability: float = 0.0  # a month
    incident_cost: Quantity | float = 0.0  # USD
    rounds: tuple[FundingRound, ...] = ()
    unsure: dict[str, float] = field(default_factory=dict)  # standard deviation of the logarithm

    def __post_init__(self):
        self.numbers()
        for name, spread in self.unsure.items():
            require_choice("a name in unsure", name, UNCERTAIN)
            number(f"unsure[{name!r}]", spread, high=5)

    def but(self, **changes) -> "Company":
        """Return the company with some assumptions changed."""
        return replace(self, **changes)

    def plain(self) -> "Company":
        """Return the same company with every quantity as a float in its unit, so that equal ones compare equal."""
        rounds = (
            FundingRound(
                int(r.month),
                number("amount", r.amount, "USD"),
                float(r.probability),
                number("needs", r.needs, "USD / year"),
            )
            for r in self.rounds
        )
        unsure = {name: float(spread) for name, spread in self.unsure.items()}
        return replace(self, **self.numbers(), rounds=tuple(rounds), unsure=unsure)

    def numbers(self) -> dict[str, float]:
        """Return every assumption that is one number as a float in its unit, checked."""
        zero_or_more = (name for name, unit in UNITS.items() if unit and name != "market")
        out = {name: number(name, getattr(self, name), UNITS[name]) for name in zero_or_more}
        out["market"] = number("market", self.market, UNITS["market"], above=0)
        for name in ("churn", "serving_decline", "incident_probability"):
            out[name] = number(name, getattr(self, name), high=1)
        for name in ("growth", "fixed_growth"):
            out[name] = number(name, getattr(self, name), low=-1, high=1)
        out["persistence"] = number("persistence", self.persistence, high=0.999)
        out["shock"] = number("shock", self.shock, high=5)
        return out
