"""Plans and margins: published margins, and every closed form against sampled customers."""

import numpy as np
import pytest

from bigmodel_lab.econ import (
    Plan,
    Usage,
    flat_fee,
    gross_margin,
    markup,
    plan_margin,
    price_for,
)
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q

LAWS = [Usage(2e6, 1.5), Usage(2e6, 3.0, "lomax"), Usage(2e6, 0.0)]
PLANS = {
    "flat": Plan(20),
    "metered": Plan(0, ((None, 8),)),
    "graduated": Plan(10, ((1e6, 0), (5e6, 9), (None, 4))),
    "volume": Plan(3, ((1e6, 9), (5e6, 7), (None, 4)), how="volume"),
    "capped": Plan(20, cap=4e6),
    "capped in a block": Plan(2, ((1e6, 8), (None, 3)), cap=6e6),
}


def sampled(usage, n=200_000):
    rng = generator(0, "usage", usage.law)
    if usage.law == "lomax":
        return rng.pareto(usage.spread, n) * usage.tokens * (usage.spread - 1)
    return rng.lognormal(-(usage.spread**2) / 2, usage.spread, n) * usage.tokens


def bills(plan, x):
    """What each customer pays, token block by token block, with no formula of the library."""
    x = np.minimum(x, np.inf if plan.cap is None else plan.cap)
    ends = np.array([np.inf if e is None else e for e, _ in plan.blocks])
    prices = np.array([p for _, p in plan.blocks]) / 1e6
    if plan.how == "volume":
        return plan.fee + x * prices[np.searchsorted(ends, x)]
    starts = np.concatenate([[0], ends[:-1]])
    return plan.fee + np.clip(x[:, None] - starts, 0, ends - starts) @ prices


@pytest.mark.parametrize("usage", LAWS, ids=lambda u: f"{u.law}-{u.spread}")
@pytest.mark.parametrize("name", PLANS)
def test_a_plan_is_what_sampled_customers_pay(usage, name):
    """Means within 4 standard errors of 200,000 customers; the share that loses money within 4 of its own."""
    plan, cost, fixed = PLANS[name], 6.0, 1.5
    x = sampled(usage)
    paid = bills(plan, x)
    spent = fixed + cost / 1e6 * np.minimum(x, np.inf if plan.cap is None else plan.cap)
    got = plan_margin(plan, usage, cost, fixed)
    for mean, values in [(got.revenue, paid), (got.cost, spent)]:
        error = max(values.std() / np.sqrt(len(x)), 1e-9)
        assert mean.magnitude == pytest.approx(values.mean(), abs=4 * error)
    loses = paid < spent - 1e-12
    assert got.losing == pytest.approx(loses.mean(), abs=4 * np.sqrt(0.25 / len(x)))
    assert got.gross_margin == pytest.approx(1 - spent.mean() / paid.mean(), abs=0.02)
    for some in x[:50]:
        assert plan.bill(some).magnitude == pytest.approx(bills(plan, np.array([some]))[0])


@pytest.mark.parametrize("usage", LAWS[:2], ids=lambda u: u.law)
def test_usage_is_the_sampled_law(usage):
    x = np.sort(sampled(usage))
    for p in (0.1, 0.5, 0.9, 0.99):
        assert usage.below(usage.quantile(p).magnitude) == pytest.approx(p)
        assert usage.quantile(p).magnitude == pytest.approx(np.quantile(x, p), rel=0.05)
    assert usage.top(0.1) == pytest.approx(x[-20_000:].sum() / x.sum(), abs=0.02)
    assert usage.partial_mean(np.inf) == 2e6
    assert usage.top(0.01) < usage.top(0.1) < usage.top(1) == 1


def test_refused_tokens():
    x = sampled(LAWS[0])
    got = plan_margin(Plan(20, cap=4e6), LAWS[0], 6)
    assert got.refused == pytest.approx(1 - np.minimum(x, 4e6).sum() / x.sum(), abs=0.01)
    assert plan_margin(Plan(20), LAWS[0], 6).refused == pytest.approx(0)


def test_a_flat_fee_that_few_outrun():
    fee = flat_fee(LAWS[0], Q(6, "USD/Mtoken"), losing=0.02, fixed_cost=1)
    assert plan_margin(Plan(fee), LAWS[0], 6, 1).losing == pytest.approx(0.02)
    assert plan_margin(Plan(fee * 1.01), LAWS[0], 6, 1).losing < 0.02


def test_a_metered_plan_loses_on_nobody_and_has_the_price_s_margin():
    got = plan_margin(Plan(blocks=((None, price_for(6, 0.6)),)), LAWS[0], 6)
    assert got.gross_margin == pytest.approx(0.6)
    assert got.losing == 0


def test_deepseek_margin():
    """DeepSeek, open-infra-index day 6 (1 March 2025): one day's theoretical revenue 562,027 USD over 87,072 USD of
    H800 time is "545 %" on cost, which is a gross margin of 84.5 %. To the digits printed."""
    day = Q(562_027, "USD"), Q(87_072, "USD")
    assert markup(*day) == pytest.approx(5.45, abs=0.005)
    assert gross_margin(*day) == pytest.approx(0.845, abs=5e-4)


def test_openai_2025():
    """Press reports of audited papers: revenue 13.07, costs 34 (thousand million USD): a loss of 1.6 for each earned."""
    assert gross_margin(13.07, 34) == pytest.approx(-1.601, abs=1e-3)


def test_price_for_a_margin():
    assert price_for(Q(2, "USD/Mtoken"), 0.75) == Q(8, "USD/Mtoken")
    assert gross_margin(price_for(3.0, 0.4), 3.0) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="gross_margin must be below 1"):
        price_for(1, 1)


def test_refused():
    with pytest.raises(ValueError, match="blocks must end with one that has no end"):
        Plan(blocks=((1e6, 5),))
    with pytest.raises(ValueError, match="end of block 1 must be a finite number above 5e"):
        Plan(blocks=((5e6, 5), (1e6, 4), (None, 1)))
    with pytest.raises(
        TypeError, match="fee must be a quantity in USD / customer / month, got 20 USD / token"
    ):
        Plan(fee=Q(20, "USD/token"))
    with pytest.raises(ValueError, match="how must be one of 'graduated', 'volume'"):
        Plan(how="volumes")
    with pytest.raises(ValueError, match="plan must bring revenue"):
        plan_margin(Plan(), LAWS[0], 1)
    with pytest.raises(ValueError, match="spread must be a finite number above 1"):
        Usage(1e6, 1.0, "lomax")
    with pytest.raises(ValueError, match="blocks must hold at least"):
        Plan(blocks=())
    with pytest.raises(ValueError, match="spread must be between 0 and 10, got 40"):
        Usage(1e6, 40)
    with pytest.raises(ValueError, match="p must be below 1"):
        LAWS[0].quantile(1)
    with pytest.raises(ValueError, match="revenue must be a finite number above 0"):
        gross_margin(0, 1)


@pytest.mark.parametrize(
    ("income", "tax"),
    [(11_600, 1160), (47_150, 5426), (100_525, 17_168.5), (191_950, 39_110.5), (243_725, 55_678.5),
     (609_350, 183_647.25), (100_000, 17_053)],
)  # fmt: skip
def test_a_published_graduated_tariff(income, tax):
    """US federal income tax of 2024, single (IRS, Rev. Proc. 2023-34, table 3): the best known tariff by blocks. Exact."""
    ends, rates = (11_600, 47_150, 100_525, 191_950, 243_725, 609_350), (10, 12, 22, 24, 32, 35, 37)
    blocks = tuple((end, rate * 1e4) for end, rate in zip((*ends, None), rates, strict=True))
    assert Plan(blocks=blocks).bill(income).magnitude == pytest.approx(tax)
