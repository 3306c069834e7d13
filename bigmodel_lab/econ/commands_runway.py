"""bml econ runway: simulated futures of a company, and when its cash is gone."""

from dataclasses import dataclass, fields, replace

from bigmodel_lab.econ.company import UNCERTAIN, Company, FundingRound
from bigmodel_lab.econ.montecarlo import simulate
from bigmodel_lab.econ.scenario import Scenario, load_scenario, save_scenario
from bigmodel_lab.shell import Answer, Command, option
from bigmodel_lab.units import Q

__all__ = ["Runway"]


@dataclass(frozen=True)
class Runway(Command):
    """How long the cash lasts: simulated futures of a company with customers, costs and perhaps a round.

    A scenario file holds all assumptions, each with its unit and source; --save writes one to start from.

    $ bml econ runway --cash 3M --fixed 250k --new-customers 300 --price 50 --serving-cost 20
    runway                  10 month
    alive after 12 months   0.678
    alive after 24 months   0.186
    alive after 36 months   0.179
    alive after 60 months   0.179
    half outlive            14 month
    start cash for 9 in 10  10,810,000 USD
    note: runway: the month in which the first tenth of the companies is out of cash

    $ bml econ runway --scenario labs/scenarios/base.json
    runway                  11 month
    alive after 12 months   0.786
    alive after 24 months   0.545
    alive after 36 months   0.545
    half outlive            more than 36 month
    start cash for 9 in 10  3,530,000 USD
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
    months: int | None = option(None, "to look ahead (default: 60, or the scenario's)")
    paths: int = option(100_000, "companies to simulate")
    seed: int = option(0, "of the random numbers")
    scenario: str | None = option(None, "file to take all assumptions from")
    save: str | None = option(None, "file to write the assumptions to, as a scenario")

    def answer(self) -> Answer:
        scenario = self._scenario()
        if self.save is not None:
            _save(scenario, self.save)
        company, months = scenario.company, scenario.months
        got = simulate(company, self.paths, months, self.seed)
        deep = simulate(company, self.paths, months, self.seed, on_credit=True)
        details = {
            f"alive after {t} months": round(got.survival(t), 3)
            for t in sorted({12, 24, 36, months})
            if t <= months
        }
        start = Q(deep.cash_needed(0.9).magnitude + company.numbers()["cash"], "USD")
        details |= {
            "half outlive": _within(got.runway(0.5), months),
            "start cash for 9 in 10": Q(round(start.magnitude, -4), "USD"),
        }
        notes = ("runway: the month in which the first tenth of the companies is out of cash",)
        if got.runway(0.1).magnitude > months:
            notes = (
                f"runway: more than nine of ten companies have cash after all {months} months",
            )
        return Answer("runway", got.runway(0.1), details, notes)

    def _scenario(self) -> Scenario:
        """The file's, or what the options say; not a mixture, whose half nobody would see."""
        if self.scenario is None:
            return Scenario(
                "from the command line", self._company(), 60 if self.months is None else self.months
            )
        free = ("months", "paths", "seed", "scenario", "save")
        if given := self.changed(*(f.name for f in fields(self) if f.name not in free)):
            raise ValueError(
                f"scenario={self.scenario} holds all assumptions, and {', '.join(given)} would change some: change the "
                "file instead, or leave --scenario out."
            )
        try:
            scenario = load_scenario(self.scenario)
        except OSError as error:
            raise ValueError(
                f"scenario={self.scenario} cannot be read: {error.strerror}."
            ) from None
        return scenario if self.months is None else replace(scenario, months=self.months)

    def _company(self) -> Company:
        rounds = ()
        if self.round_month is None:
            if given := self.changed("round_amount", "round_probability"):
                raise ValueError(
                    f"{given[0]} is of a round: say when it comes, with --round-month."
                )
        else:
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
        return Company(
            **{name: getattr(self, name) for name in same},
            rounds=rounds,
            unsure=dict.fromkeys(UNCERTAIN, self.unsure),
        )


def _save(scenario: Scenario, path: str) -> None:
    try:
        save_scenario(scenario, path)
    except OSError as error:
        raise ValueError(f"save={path} cannot be written: {error.strerror}.") from None


def _within(month, months):
    return month if month.magnitude <= months else f"more than {months} month"
