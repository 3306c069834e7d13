"""Company paths: against a month-by-month loop in plain Python, closed forms, and themselves on other thread counts."""

import math

import numba
import numpy as np
import pytest

from bigmodel_lab.econ import Company, FundingRound, montecarlo, runway, simulate, tornado
from bigmodel_lab.econ.montecarlo import Paths
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q

BASE = Company(
    cash=Q(3, "MUSD"), price=50, serving_cost=20, fixed=150e3, new_customers=400, churn=0.04, growth=0.03, cac=200,
    serving_decline=0.02, fixed_growth=0.01, shock=0.3, persistence=0.6, incident_probability=0.02, incident_cost=2e5,
    rounds=(FundingRound(18, 4e6, 0.6, needs=5e5), FundingRound(40, 9e6, 0.5, needs=2e6)),
    unsure=dict(new_customers=0.5, churn=0.3, price=0.1, serving_cost=0.4, cac=0.3, fixed=0.1),
)  # fmt: skip
SURE = Company(cash=1e6, price=50, serving_cost=20, fixed=1e5, new_customers=100, churn=0.05)


def by_hand(c, months):
    """The deterministic company, from its description."""
    x, cash, customers = c.numbers(), c.numbers()["cash"], c.numbers()["customers"]
    for t in range(months):
        won = x["new_customers"] * (1 + x["growth"]) ** t * max(0, 1 - customers / x["market"])
        customers = customers * (1 - x["churn"]) + won
        serving = x["serving_cost"] * (1 - x["serving_decline"]) ** t
        cash += customers * (x["price"] - serving) - x["cac"] * won
        cash -= x["fixed"] * (1 + x["fixed_growth"]) ** t
        for r in c.rounds:
            cash += r.amount if r.month == t + 1 and customers * x["price"] * 12 >= r.needs else 0
        if cash < 0:
            return t + 1, cash, customers
    return months + 1, cash, customers


@pytest.mark.parametrize(
    "c",
    [
        SURE,
        SURE.but(cash=9e6, growth=0.05, serving_decline=0.03, fixed_growth=0.02, cac=300, market=4000, customers=500),
        SURE.but(rounds=(FundingRound(6, 5e6, needs=1e5), FundingRound(9, 5e7, needs=1e9))),
    ],
)  # fmt: skip
def test_without_chance_every_path_is_the_description(c):
    month, cash, customers = by_hand(c, 60)
    got = simulate(c, paths=3, months=60)
    assert got.month_out.tolist() == [month] * 3
    assert got.cash == pytest.approx([cash] * 3)
    assert got.customers == pytest.approx([customers] * 3)


def test_the_same_bits_on_one_and_two_threads():
    if numba.config.NUMBA_NUM_THREADS < 2:
        pytest.skip("numba may start one thread only")
    before = numba.get_num_threads()
    try:
        results = []
        for n in (1, 2):
            numba.set_num_threads(n)
            results.append(simulate(BASE, paths=5003, months=60, seed=3, keep_cash=True))
    finally:
        numba.set_num_threads(before)
    for name in (
        "month_out",
        "cash",
        "lowest_cash",
        "customers",
        "revenue",
        "raised",
        "cash_by_month",
    ):
        a, b = (getattr(r, name) for r in results)
        np.testing.assert_array_equal(a, b)


def test_a_path_does_not_depend_on_how_many_there_are():
    few, many = simulate(BASE, 100, seed=1), simulate(BASE, 1000, seed=1)
    np.testing.assert_array_equal(few.cash, many.cash[:100])
    assert not np.array_equal(few.cash, simulate(BASE, 100, seed=2).cash)


def test_a_risk_or_a_round_more_leaves_demand_as_it_was():
    """Incidents and rounds read a stream apart: if they cost and bring nothing, every path is the same to the last bit."""
    calm = BASE.but(incident_probability=0.0, rounds=(), cash=1e9)
    more = calm.but(
        incident_probability=0.5,
        incident_cost=0.0,
        rounds=tuple(FundingRound(t, 0.0, 0.5) for t in (1, 2, 30)),
    )
    a, b = simulate(calm, 500), simulate(more, 500)
    np.testing.assert_array_equal(a.customers, b.customers)
    np.testing.assert_array_equal(a.cash, b.cash)


def test_levels_shocks_incidents_and_rounds_are_independent():
    """All customers leave each month, so that a month's revenue shows its shock; the cash of the same path with incidents
    shows in which months they struck. No correlation passes 5 standard errors, neither of the shocks nor of their squares."""
    n, T = 20_000, 6
    c = SURE.but(
        cash=1e5, churn=1, price=50, serving_cost=0, fixed=0, new_customers=100, shock=0.3,
        unsure=dict(price=0.2),
    )  # fmt: skip
    last = [simulate(c, n, t + 1) for t in range(T)]
    shocks = np.log(np.column_stack([p.customers for p in last]) / 100)
    price = np.log(last[0].revenue / last[0].customers / 50) + 0.02
    chance = np.column_stack([shocks, price])
    without = simulate(c, n, T, keep_cash=True).cash_by_month
    events = c.but(incident_probability=0.4, incident_cost=1e3, rounds=(FundingRound(3, 1e6, 0.5),))
    got = simulate(events, n, T, keep_cash=True)
    got.cash_by_month[:, 2:] -= got.raised[:, None]
    struck = np.diff((without - got.cash_by_month) / 1e3, axis=1, prepend=0)
    assert np.abs(struck - np.round(struck)).max() < 0.01
    assert struck.mean() == pytest.approx(0.4, abs=0.01)
    together = np.corrcoef(np.column_stack([chance, chance**2, struck, got.raised]), rowvar=False)
    np.fill_diagonal(together, 0)
    assert np.abs(together).max() < 5 / math.sqrt(n)


def test_blocks_are_one_simulation(monkeypatch):
    """Many paths are simulated in blocks, between which Ctrl-C is heard; they do not show in the result."""
    whole = simulate(BASE, 100, 60, keep_cash=True)
    monkeypatch.setattr(montecarlo, "BLOCK", 60 * 7)
    parts = simulate(BASE, 100, 60, keep_cash=True)
    np.testing.assert_array_equal(whole.cash_by_month, parts.cash_by_month)
    np.testing.assert_array_equal(whole.month_out, parts.month_out)
    np.testing.assert_array_equal(whole.raised, parts.raised)


def test_against_numpy_s_generator():
    """An independent program with other random numbers finds the same distribution, within 4 standard errors."""
    n, T, x, rng = 40_000, 60, BASE.numbers(), generator(0, "independent")
    own = {
        k: x[k] * rng.lognormal(-(BASE.unsure[k] ** 2) / 2, BASE.unsure[k], n) for k in BASE.unsure
    }
    cash, customers, s = np.full(n, x["cash"]), np.zeros(n), np.zeros(n)
    alive, out = np.ones(n, bool), np.full(n, T + 1)
    for t in range(T):
        s = 0.6 * s + 0.3 * rng.standard_normal(n)
        won = (
            own["new_customers"]
            * 1.03**t
            * np.exp(s)
            * np.clip(1 - customers / x["market"], 0, None)
        )
        customers = customers * (1 - np.minimum(own["churn"], 1)) + won
        flow = customers * (own["price"] - own["serving_cost"] * 0.98**t) - own["cac"] * won
        cash = cash + flow - own["fixed"] * 1.01**t - 2e5 * (rng.random(n) < 0.02)
        for r in BASE.rounds:
            if r.month == t + 1:
                closes = (rng.random(n) < r.probability) & (
                    customers * own["price"] * 12 >= r.needs
                )
                cash = cash + r.amount * closes
        ended = alive & (cash < 0)
        out[ended], alive = t + 1, alive & ~ended
    got = simulate(BASE, n, T, seed=5)
    for t in (12, 24, 36, 60):
        p = np.mean(out > t)
        assert got.survival(t) == pytest.approx(p, abs=4 * math.sqrt(2 * p * (1 - p) / n) + 1e-9)
    assert 0.05 < got.survival() < 0.95
    assert np.log(got.customers[got.month_out > T]).mean() == pytest.approx(
        np.log(customers[out > T]).mean(), abs=0.02
    )


def test_runway_of_a_company_without_customers_is_cash_over_burn():
    c = Company(cash=1e6, price=0, serving_cost=0, fixed=1e5, new_customers=0, churn=0)
    months = runway(1.05e6, 1e5).magnitude
    assert simulate(c.but(cash=1.05e6), 5).runway().magnitude == math.ceil(months)
    assert math.isinf(simulate(c.but(fixed=0), 5).runway().magnitude)


def test_all_end_in_the_first_month():
    got = simulate(SURE.but(cash=0, price=0), 1, 60)
    assert got.month_out.tolist() == [1]
    assert [got.survival(t) for t in (0, 1, 60)] == [1, 0, 0]
    assert [got.runway(p).magnitude for p in (0, 0.5, 1)] == [1, 1, 1]
    assert got.standard_error() == 0
    assert got.cash[0] == -1e5 - 100 * 20


def test_quantiles():
    got = simulate(BASE, 20_000)
    t = got.runway(0.25).magnitude
    assert got.survival(int(t)) <= 0.75 <= got.survival(int(t) - 1)
    assert got.standard_error() == pytest.approx(np.std(got.month_out > 60) / math.sqrt(20_000))
    assert got.raised.max() == 13e6


def test_cash_needed_is_enough():
    """With so much more at the start, nine of ten survive, with the same luck; with 1 % less, fewer do."""
    free = BASE.but(rounds=())
    deep = simulate(free, 20_000, on_credit=True)
    np.testing.assert_array_equal(deep.month_out, simulate(free, 20_000).month_out)
    more = deep.cash_needed(0.9).magnitude
    assert simulate(free.but(cash=3e6 + more + 1), 20_000).survival() >= 0.9
    assert simulate(free.but(cash=3e6 + more * 0.99), 20_000).survival() < 0.9
    with pytest.raises(ValueError, match="paths must be simulated with on_credit=True"):
        simulate(BASE, 10).cash_needed()


def test_uncertain_levels_keep_their_mean():
    """Revenue after one month is new customers times price, both log-normal with the stated means: within 4 errors."""
    c = SURE.but(unsure=dict(new_customers=0.5, price=0.3))
    r = simulate(c, 200_000, months=1).revenue
    assert r.mean() == pytest.approx(100 * 50, abs=4 * r.std() / math.sqrt(len(r)))
    assert np.std(np.log(r)) == pytest.approx(math.hypot(0.5, 0.3), rel=0.01)


def test_shocks_persist():
    """If all customers leave each month, revenue shows the month's shock alone: after T months its logarithm has the variance
    shock^2 (1 - rho^2T) / (1 - rho^2). Within 2 %."""
    c = SURE.but(churn=1, shock=0.2, persistence=0.8, cash=1e9)
    r = np.log(simulate(c, 50_000, months=6).revenue)
    assert r.std() == pytest.approx(0.2 * math.sqrt((1 - 0.8**12) / (1 - 0.8**2)), rel=0.02)


def test_tornado_names_what_decides():
    bars = tornado(
        BASE,
        dict(
            churn=(0.02, 0.08), price=(Q(45, "USD/customer/month"), 55), incident_cost=(1e5, 1.2e5)
        ),
        paths=4000,
    )
    assert [b.name for b in bars][-1] == "incident_cost"
    assert [b.swing for b in bars] == sorted((b.swing for b in bars), reverse=True)
    churn = next(b for b in bars if b.name == "churn")
    assert churn.at_low > churn.at_high
    assert churn.at_low == simulate(BASE.but(churn=0.02), 4000).survival()
    with pytest.raises(ValueError, match="ranges must name assumptions of a Company"):
        tornado(BASE, dict(chrun=(0, 1)))


def test_cash_is_kept_until_the_end():
    got = simulate(BASE, 500, keep_cash=True)
    assert got.cash_by_month.shape == (500, 60)
    for path, end, last in zip(got.cash_by_month, got.month_out, got.cash, strict=True):
        assert np.isfinite(path[:end]).all()
        assert np.isnan(path[end:]).all()
        assert path[min(end, 60) - 1] == pytest.approx(last, rel=1e-6)
    assert simulate(BASE, 5).cash_by_month is None
    assert isinstance(got, Paths)


def test_refused():
    with pytest.raises(ValueError, match=r"churn must be between 0 and 1, got 1.5"):
        SURE.but(churn=1.5)
    with pytest.raises(TypeError, match="price must be a quantity in USD / customer / month"):
        SURE.but(price=Q(3, "USD/Mtoken"))
    with pytest.raises(
        ValueError, match=r"a name in unsure must be one of .* Did you mean 'churn'"
    ):
        SURE.but(unsure=dict(chrun=0.1))
    with pytest.raises(ValueError, match="rounds has one in month 61, a month after the last"):
        simulate(SURE.but(rounds=(FundingRound(61, 1e6),)), 10)
    with pytest.raises(ValueError, match="a month that has a round already"):
        simulate(SURE.but(rounds=(FundingRound(6, 1e6), FundingRound(6, 1e6))), 10)
    with pytest.raises(ValueError, match="paths must be between 1 and"):
        simulate(SURE, 0)
    with pytest.raises(ValueError, match="months must be between 1 and 1200 in month, got 0"):
        simulate(SURE, 10, months=0)
    with pytest.raises(ValueError, match=r"month must be between 0 and 1 in month, got 99\.$"):
        simulate(SURE, 1, months=1).survival(99)
    for seed in (-1, 1.5):
        with pytest.raises(ValueError, match="seed must be a whole number, 0 or more, got"):
            simulate(SURE, 10, seed=seed)
    with pytest.raises(ValueError, match=r"ranges of 'churn' must be \(low, high\), got 0.1"):
        tornado(SURE, dict(churn=0.1), paths=5)
    with pytest.raises(ValueError, match="probability must be between 0 and 1"):
        FundingRound(3, 1e6, 1.2)
