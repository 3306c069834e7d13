"""The four strategies are one company changed, the ranking is paired, and a reversal is where two change places."""

import math

import pytest

from bigmodel_lab.econ import (
    STRATEGIES,
    Company,
    FundingRound,
    Paths,
    Strategy,
    paired,
    ranking,
    reversal,
    simulate,
)
from bigmodel_lab.units import Q

BASE = Company(
    cash=2.2e6, price=1440, serving_cost=430, fixed=150e3, new_customers=15, churn=0.03, growth=0.03, market=5000, cac=4000,
    shock=0.3, persistence=0.6, serving_decline=0.01, unsure=dict(new_customers=0.4, churn=0.3, serving_cost=0.3),
)  # fmt: skip


def test_a_strategy_says_what_it_changes():
    s = Strategy(
        "x", trains=0.5, token_margin=0.6, times=dict(fixed=0.5, price=2), sets=dict(churn=0.01)
    )
    c = s.company(BASE, Q(20, "kUSD / month")).numbers()
    assert c["fixed"] == pytest.approx(0.5 * 150e3 + 0.5 * 20e3)
    assert c["serving_cost"] == pytest.approx(430 / 0.4)
    assert (c["price"], c["churn"]) == (2880, 0.01)
    same = set(c) - {"fixed", "serving_cost", "price", "churn"}
    assert {n: c[n] for n in same} == {n: BASE.numbers()[n] for n in same}
    assert Strategy("nothing", trains=0).company(BASE).numbers() == BASE.numbers()


def test_only_who_trains_feels_the_training_bill():
    for s in STRATEGIES.values():
        cheap, dear = (s.company(BASE, bill).numbers()["fixed"] for bill in (0, 1e5))
        assert dear - cheap == pytest.approx(1e5 * s.trains)
    assert STRATEGIES["market-driven"].trains == 0
    assert STRATEGIES["market-driven"].token_margin > 0


def test_ranking_is_simulate_in_order():
    placed = ranking(BASE, 2e4, paths=2000, months=24)
    assert [p.outcome for p in placed] == sorted((p.outcome for p in placed), reverse=True)
    assert {p.name for p in placed} == set(STRATEGIES)
    for p in placed:
        company = STRATEGIES[p.name].company(BASE, 2e4)
        assert p.outcome == simulate(company, 2000, 24).survival() == p.paths.survival()
    by_cash = ranking(BASE, 2e4, paths=2000, months=24, outcome=lambda p: p.cash.mean())
    assert by_cash[0].outcome == max(p.outcome for p in by_cash)


def test_pairing_makes_differences_sharp():
    """The same two companies under different seeds differ by luck as well: the paired error is far smaller."""
    a, b = BASE, BASE.but(churn=0.031)
    x, y = (simulate(c, 5000, 36) for c in (a, b))
    gain, error = paired(x, y)
    assert gain == pytest.approx(x.survival() - y.survival())
    unpaired = math.hypot(x.standard_error(), y.standard_error())
    assert error < unpaired / 3
    assert 0.1 < x.survival() < 0.95
    other = simulate(b, 5000, 36, seed=1)
    assert paired(x, other)[1] > 2 * error
    assert paired(x, x) == (0, 0)
    with pytest.raises(
        ValueError, match="a and b must be pairs, got 5000 paths of 36 months and 10"
    ):
        paired(x, simulate(b, 10, 36))


def test_a_risk_or_a_round_more_does_not_change_the_demand_met():
    """A round that brings nothing, or an incident that costs nothing, leaves every path as it was, bit for bit."""
    plain = simulate(BASE, 2000, 36)
    for c in (
        BASE.but(incident_probability=0.3),
        BASE.but(rounds=(FundingRound(7, 0.0, 0.5),)),
        BASE.but(rounds=(FundingRound(7, 0.0, 0.5),), incident_probability=0.1),
    ):
        assert (simulate(c, 2000, 36).cash == plain.cash).all()


def test_rounds_and_incidents_are_independent_of_demand_and_of_each_other():
    c = BASE.but(
        cash=1e9, incident_probability=0.5, incident_cost=1.0, rounds=(FundingRound(3, 1.0, 0.5),)
    )
    n = 50_000
    got, free = (simulate(x, n, 3) for x in (c, BASE.but(cash=1e9)))
    incidents = free.cash - got.cash + got.raised
    assert incidents.mean() == pytest.approx(1.5, abs=5 * math.sqrt(0.75 / n))
    assert got.raised.mean() == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(n))
    for x, y in ((incidents, got.raised), (incidents, free.revenue), (got.raised, free.revenue)):
        r = ((x - x.mean()) * (y - y.mean())).mean() / x.std() / y.std()
        assert abs(r) < 5 / math.sqrt(n)


def test_reversal_is_where_they_change_places():
    """Company a has twice b's costs and no churn: where both die at the same moment is where fixed costs make up for it."""
    known = Company(cash=1e6, price=0, serving_cost=0, fixed=1e5, new_customers=0, churn=0)
    cash = reversal(
        lambda x: known.but(cash=x), lambda x: known.but(cash=2.05e6, fixed=2e5), 5e5, 2e6,
        outcome=lambda p: p.runway().magnitude, paths=2, months=60, steps=20,
    )  # fmt: skip
    assert cash == pytest.approx(
        1.1e6, abs=2
    )  # 2.05e6 fails in month 11 at 2e5 a month, as does less than 1.1e6 at 1e5
    value = reversal(
        lambda x: STRATEGIES["technology-driven"].company(BASE.but(cash=5e6), x),
        lambda x: STRATEGIES["market-driven"].company(BASE.but(cash=5e6), x), 0, 2e5, paths=5000,
    )  # fmt: skip
    for x, first in ((value - 2000, "technology-driven"), (value + 2000, "market-driven")):
        two = [STRATEGIES[n] for n in ("technology-driven", "market-driven")]
        assert ranking(BASE.but(cash=5e6), x, strategies=two, paths=5000)[0].name == first
    with pytest.raises(ValueError, match="must have different winners, got a ahead at both: by"):
        reversal(lambda x: BASE.but(cash=9e6), lambda x: BASE.but(price=x), 10, 20, paths=500)
    with pytest.raises(ValueError, match="high must be a finite number above 5"):
        reversal(lambda x: BASE, lambda x: BASE, 5, 4)


def test_refused():
    with pytest.raises(ValueError, match=r"a name in times must be one of .* Did you mean 'churn'"):
        Strategy("x", times=dict(chrun=2))
    with pytest.raises(ValueError, match="times and sets both name churn"):
        Strategy("x", times=dict(churn=2), sets=dict(churn=0.1))
    with pytest.raises(ValueError, match="token_margin must be below 1"):
        Strategy("x", token_margin=1)
    with pytest.raises(ValueError, match="churn must be between 0 and 1"):
        Strategy("x", times=dict(churn=100)).company(BASE)
    assert Paths.survival(simulate(BASE, 10, 3)) == 1
