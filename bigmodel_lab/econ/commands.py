"""The commands of `bml econ`. Each one's help shows an example, which a test runs and compares."""

from dataclasses import dataclass

from bigmodel_lab.econ.bass import Bass as Diffusion
from bigmodel_lab.econ.commands_ownership import CapTableCommand
from bigmodel_lab.econ.commands_runway import Runway
from bigmodel_lab.econ.growth import churn_over
from bigmodel_lab.econ.pricing import Plan, flat_fee, plan_margin, price_for
from bigmodel_lab.econ.unit_economics import lifetime, ltv, ltv_to_cac, payback
from bigmodel_lab.econ.usage import Usage
from bigmodel_lab.shell import Answer, Command, option
from bigmodel_lab.units import Q

__all__ = ["COMMANDS"]


@dataclass(frozen=True)
class CustomerValue(Command):
    """Lifetime value of a customer, with margin, against what it cost to win.

    $ bml econ clv --arpa 50 --gross-margin 0.6 --churn 0.03 --cac 300
    lifetime value         1000 USD / customer
    over acquisition cost  3.333
    paid back after        11.71 month
    customer stays         33.33 month
    lost in a year         0.3062
    revenue, not profit    1,667 USD / customer
    """

    arpa: float = option(50.0, "USD that a customer pays a month")
    gross_margin: float = option(0.6, "share of that left after serving, 0 to 1")
    churn: float = option(0.03, "share of customers that leave a month")
    cac: float = option(300.0, "USD of sales and marketing for a new customer")
    growth: float = option(0.0, "by how much a staying customer's payment grows a month")
    discount: float = option(0.0, "interest a month")

    def answer(self) -> Answer:
        terms = (self.arpa, self.gross_margin, self.churn, self.growth, self.discount)
        value = ltv(*terms)
        details = {
            "over acquisition cost": ltv_to_cac(value, self.cac),
            "paid back after": payback(self.cac, *terms) if self.cac < value.m else "never",
            "customer stays": lifetime(self.churn),
            "lost in a year": churn_over(self.churn, 12),
            "revenue, not profit": value / self.gross_margin if self.gross_margin else "no margin",
        }
        return Answer("lifetime value", value, details)


@dataclass(frozen=True)
class Bass(Command):
    """How a product spreads (Bass): when most customers come, and how many there are after some years.

    $ bml econ bass --p 0.03 --q 0.38 --market 1M --years 5
    customers            331,199 customer
    share of the market  0.3312
    most come after      6.193 year
    then                 110,592 customer / year
    and have come        460,526 customer
    """

    p: float = option(0.03, "innovation, a year: those who come by themselves")
    q: float = option(0.38, "imitation, a year: those who follow others")
    market: float = option(1e6, "customers in the end")
    years: float = option(5.0, "years after the start")

    def answer(self) -> Answer:
        curve = Diffusion(self.p, self.q, self.market)
        details = {"share of the market": float(curve.share(self.years))}
        if self.q > self.p:
            when, most, by_then = curve.peak()
            details |= {"most come after": when, "then": most, "and have come": by_then}
        else:
            details["most come"] = "on the first day: q is not above p"
        return Answer(
            "customers", Q(float(curve.adopters(self.years).magnitude), "customer"), details
        )


@dataclass(frozen=True)
class Price(Command):
    """The price that leaves a gross margin over a serving cost: by the token, and flat for customers who differ.

    $ bml econ price --cost 0.8 --gross-margin 0.7 --tokens 5M --spread 1.5 --fee 20
    price                      2.667 USD / Mtoken
    flat fee for few losses    28.27 USD / customer / month
    top 1 % use                0.2043
    flat 20 USD: gross margin  0.8
    customers at a loss        0.03415
    note: a price by the token covers its own cost; the cost of a customer without use is in the flat fee only
    """

    cost: float = option(0.8, "USD that a million tokens cost to serve (see bml plan serve)")
    gross_margin: float = option(0.7, "share of revenue to be left, 0 to below 1")
    tokens: float = option(5e6, "tokens that a customer uses a month, in the mean")
    spread: float = option(1.5, "lognormal: sigma of log use; lomax: alpha of the tail")
    law: str = option("lognormal", "law of use", choices=("lognormal", "lomax"))
    losing: float = option(
        0.02, "share of customers on a flat fee that may cost more than they pay"
    )
    fee: float | None = option(None, "USD a month: a flat fee to judge")
    fixed_cost: float = option(0.0, "USD a month that a customer costs without any use")

    def answer(self) -> Answer:
        usage = Usage(self.tokens, self.spread, self.law)
        details = {
            "flat fee for few losses": flat_fee(usage, self.cost, self.losing, self.fixed_cost),
            "top 1 % use": usage.top(0.01),
        }
        if self.fee is not None:
            got = plan_margin(Plan(self.fee), usage, self.cost, self.fixed_cost)
            details |= {
                f"flat {self.fee:g} USD: gross margin": got.gross_margin,
                "customers at a loss": got.losing,
            }
        note = "a price by the token covers its own cost; the cost of a customer without use is in the flat fee only"
        return Answer(
            "price", price_for(Q(self.cost, "USD / Mtoken"), self.gross_margin), details, (note,)
        )


COMMANDS = {
    "captable": CapTableCommand,
    "clv": CustomerValue,
    "bass": Bass,
    "price": Price,
    "runway": Runway,
}
