"""bml econ runway: simulated futures of a company, and when its cash is gone."""

from dataclasses import dataclass

from bigmodel_lab.econ.company import UNCERTAIN, Company, FundingRound
from bigmodel_lab.econ.montecarlo import simulate
from bigmodel_lab.shell import Answer, Command, option
from bigmodel_lab.units import Q

__all__ = ["Runway"]


@dataclass(frozen=True)
class Runway(Command):
    """How long the cash lasts: simulated futures of a company with customers, costs and perhaps a round.

    $ bml econ runway --cash 3M --fixed 250k --new-customers 300 --price 50 --serving-cost 20
    runway                  10 month
    alive after 12 months   0.678
    alive after 24 months   0.186
    alive after 36 months   0.179
    alive after 60 months   0.179
    half outlive            14 month
    start cash for 9 in 10  10,810,000 USD
    note: runway: the month in which the first tenth of the companies is out of cash
    """

    cash: float = option(3e6, "USD now")
    fixed: float = option(250e3, "USD a month: people, training runs, rent")
    new_customers: float = option(300.0, "a month, now")
    price: float = option(50.0, "USD that a customer pays a month")
    serving_cost: float = option(20.0, "USD that a customer costs to serve a month")
    churn: float = option(0.04, "share of customers that leave a month")
    growth: float = option(0.03, "by which new customers grow a month")
    cac: float = option(100.0, "USD to win a customer")
    customers: float = option(0.0, "now")
    unsure: float = option(
        0.2, "how unsure the level of each assumption is: sigma of its logarithm"
    )
    shock: float = option(0.2, "sigma of a month's log demand")
    round_month: int | None = option(None, "month of a funding round")
    round_amount: float = option(5e6, "USD that it brings")
    round_probability: float = option(0.5, "that it closes")
    months: int = option(60, "to look ahead")
    paths: int = option(100_000, "companies to simulate")
    seed: int = option(0, "of the random numbers")

    def answer(self) -> Answer:
        rounds = ()
        if self.round_month is not None:
            rounds = (FundingRound(self.round_month, self.round_amount, self.round_probability),)
        same = (
            "cash",
            "fixed",
            "new_customers",
            "price",
            "serving_cost",
            "churn",
            "growth",
            "cac",
            "customers",
            "shock",
        )
        company = Company(
            **{name: getattr(self, name) for name in same},
            rounds=rounds,
            unsure=dict.fromkeys(UNCERTAIN, self.unsure),
        )
        got = simulate(company, self.paths, self.months, self.seed)
        deep = simulate(company, self.paths, self.months, self.seed, on_credit=True)
        details = {
            f"alive after {t} months": round(got.survival(t), 3)
            for t in sorted({12, 24, 36, self.months})
            if t <= self.months
        }
        details |= {
            "half outlive": _within(got.runway(0.5), self.months),
            "start cash for 9 in 10": Q(
                round(deep.cash_needed(0.9).magnitude + self.cash, -4), "USD"
            ),
        }
        notes = ("runway: the month in which the first tenth of the companies is out of cash",)
        if got.runway(0.1).magnitude > self.months:
            notes = (
                f"runway: more than nine of ten companies have cash after all {self.months} months",
            )
        return Answer("runway", got.runway(0.1), details, notes)


def _within(month, months):
    return month if month.magnitude <= months else f"more than {months} month"
