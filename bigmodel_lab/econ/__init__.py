"""Economics: what a company that serves a model earns, owes, risks, and how long its cash lasts.

Pure functions over frozen descriptions. Arguments are quantities of `bigmodel_lab.units`, or plain numbers in the unit
that the docstring names; probabilities, shares and monthly rates are pure numbers. The same questions can be asked from
a shell: `bml econ --help`.
"""

from bigmodel_lab.econ import cases
from bigmodel_lab.econ.abtest import Sequential, msprt, sample_size, z_test
from bigmodel_lab.econ.bass import Bass, fit_bass
from bigmodel_lab.econ.bgnbd import BGNBD, fit_bgnbd
from bigmodel_lab.econ.captable import POOL, CapTable, PricedRound, Safe, priced_round
from bigmodel_lab.econ.cash import cash_path, irr, npv, runway, runway_of
from bigmodel_lab.econ.chain import Assumptions, Chain, follow
from bigmodel_lab.econ.cohorts import cohort_table, retention_curve
from bigmodel_lab.econ.company import UNCERTAIN, UNITS, Company, FundingRound
from bigmodel_lab.econ.conjoint import Choices, fit_choices
from bigmodel_lab.econ.fmea import FailureMode, rank
from bigmodel_lab.econ.gamma_gamma import GammaGamma, customer_value, fit_gamma_gamma
from bigmodel_lab.econ.growth import (
    cagr,
    churn_over,
    ladder,
    monthly_churn,
    rule_of_40,
    steady_customers,
)
from bigmodel_lab.econ.make_or_buy import Sourcing, break_even_month, break_even_volume, total_cost
from bigmodel_lab.econ.mitigation import Choice, Mitigation, choose_mitigations
from bigmodel_lab.econ.montecarlo import Paths, paired, simulate
from bigmodel_lab.econ.price_research import (
    DemandPoint,
    PriceSensitivity,
    gabor_granger,
    van_westendorp,
)
from bigmodel_lab.econ.pricing import (
    Plan,
    PlanMargin,
    flat_fee,
    gross_margin,
    markup,
    plan_margin,
    price_for,
)
from bigmodel_lab.econ.purchases import Purchases, load_cdnow
from bigmodel_lab.econ.risk import Risk, expected_loss, normal_tail, simulate_losses, tail
from bigmodel_lab.econ.scenario import Scenario, load_scenario, save_scenario
from bigmodel_lab.econ.schedule import Pert, Task, pert, simulate_schedule
from bigmodel_lab.econ.strategies import STRATEGIES, Placed, Strategy, ranking, reversal
from bigmodel_lab.econ.streams import bits, normal_pair, start, uniform
from bigmodel_lab.econ.tornado import Bar, tornado
from bigmodel_lab.econ.two_sided import PlatformOutcome, Side, best_prices, platform
from bigmodel_lab.econ.unit_economics import (
    BURN_BANDS,
    burn_band,
    burn_multiple,
    cac,
    gross_retention,
    lifetime,
    ltv,
    ltv_to_cac,
    net_retention,
    payback,
)
from bigmodel_lab.econ.usage import Usage
from bigmodel_lab.econ.waterfall import Preferred, break_even_exit, waterfall

__all__ = [
    "BGNBD",
    "BURN_BANDS",
    "POOL",
    "STRATEGIES",
    "UNCERTAIN",
    "UNITS",
    "Assumptions",
    "Bar",
    "Bass",
    "CapTable",
    "Chain",
    "Choice",
    "Choices",
    "Company",
    "DemandPoint",
    "FailureMode",
    "FundingRound",
    "GammaGamma",
    "Mitigation",
    "Paths",
    "Pert",
    "Placed",
    "Plan",
    "PlanMargin",
    "PlatformOutcome",
    "Preferred",
    "PriceSensitivity",
    "PricedRound",
    "Purchases",
    "Risk",
    "Safe",
    "Scenario",
    "Sequential",
    "Side",
    "Sourcing",
    "Strategy",
    "Task",
    "Usage",
    "best_prices",
    "bits",
    "break_even_exit",
    "break_even_month",
    "break_even_volume",
    "burn_band",
    "burn_multiple",
    "cac",
    "cagr",
    "cases",
    "cash_path",
    "choose_mitigations",
    "churn_over",
    "cohort_table",
    "customer_value",
    "expected_loss",
    "fit_bass",
    "fit_bgnbd",
    "fit_choices",
    "fit_gamma_gamma",
    "flat_fee",
    "follow",
    "gabor_granger",
    "gross_margin",
    "gross_retention",
    "irr",
    "ladder",
    "lifetime",
    "load_cdnow",
    "load_scenario",
    "ltv",
    "ltv_to_cac",
    "markup",
    "monthly_churn",
    "msprt",
    "net_retention",
    "normal_pair",
    "normal_tail",
    "npv",
    "paired",
    "payback",
    "pert",
    "plan_margin",
    "platform",
    "price_for",
    "priced_round",
    "rank",
    "ranking",
    "retention_curve",
    "reversal",
    "rule_of_40",
    "runway",
    "runway_of",
    "sample_size",
    "save_scenario",
    "simulate",
    "simulate_losses",
    "simulate_schedule",
    "start",
    "steady_customers",
    "tail",
    "tornado",
    "total_cost",
    "uniform",
    "van_westendorp",
    "waterfall",
    "z_test",
]
