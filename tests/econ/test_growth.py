"""Compounding, against published figures and their traps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.econ import cagr, churn_over, ladder, monthly_churn, rule_of_40, steady_customers
from bigmodel_lab.units import Q


@pytest.mark.parametrize(("monthly", "annual"), [(0.03, 0.306), (0.015, 0.166)])
def test_churn_compounds(monthly, annual):
    """3 % a month is 30.6 % a year (a widely read SaaS guide prints 31), not 36 %; 1.5 % is 16.6 %. To 3 digits."""
    assert churn_over(monthly, 12) == pytest.approx(annual, abs=5e-4)
    assert churn_over(monthly, 12) < 12 * monthly


@given(st.floats(0, 0.999))
def test_monthly_churn_is_the_way_back(annual):
    assert churn_over(monthly_churn(annual), 12) == pytest.approx(annual, abs=1e-12)


def test_ladders():
    """T2D3 (triple, triple, double, double, double) from 2 M: 6, 18, 36, 72, 144; Q2T3 (quadruple twice, triple three
    times; Bessemer 2025) from 3 M: 12, 48, 144, 432, 1296. Exact."""
    assert ladder(2e6, (3, 3, 2, 2, 2)).magnitude.tolist() == [6e6, 18e6, 36e6, 72e6, 144e6]
    assert ladder(Q(3e6, "USD"), (4, 4, 3, 3, 3)).magnitude.tolist() == [
        12e6, 48e6, 144e6, 432e6, 1296e6,
    ]  # fmt: skip


def test_cagr_is_the_geometric_mean():
    """+100 % and then -50 % is no growth, though the rates average 25 %."""
    assert cagr(100, 100, 2) == 0
    assert cagr(Q(40, "USD"), Q(125, "USD"), 1) == pytest.approx(2.125)
    assert cagr(Q(1, "USD"), Q(8, "USD"), Q(36, "month")) == pytest.approx(1)


def test_zhipu_prospectus():
    """Zhipu's prospectus (Hong Kong, 2025): revenue RMB 57.4 M in 2022, 312.4 M in 2024: 133 % a year; the two years'
    rates, 117 % and 151 %, average to more."""
    rate = cagr(57.4, 312.4, 2)
    assert rate == pytest.approx(1.333, abs=1e-3)
    assert np.mean([124.5 / 57.4 - 1, 312.4 / 124.5 - 1]) > rate


def test_steady_state_is_where_a_simulation_ends():
    n = 0.0
    for _ in range(1000):
        n += 400 - 0.05 * n
    assert steady_customers(400, 0.05).to("customer").magnitude == pytest.approx(n)


def test_rule_of_40_names_its_basis():
    total, said = rule_of_40(0.25, 0.16, "free cash flow")
    assert total == pytest.approx(0.41)
    assert said == "41% on free cash flow: clears 40 %"
    assert "misses" in rule_of_40(0.6, -0.3, "EBITDA")[1]
    assert rule_of_40(0.7, -0.3, "EBITDA")[1] == "40% on EBITDA: clears 40 %"
    with pytest.raises(ValueError, match="basis must name the margin"):
        rule_of_40(0.3, 0.1, " ")


def test_refused():
    with pytest.raises(
        ValueError, match=r"churn must be between 0 and 1, got 3: write 3 % as 0.03"
    ):
        churn_over(3, 12)
    with pytest.raises(TypeError, match=r"churn must be a pure number, got 0.03 / month"):
        churn_over(Q(0.03, "1/month"), 12)
    with pytest.raises(
        ValueError, match="new must be finite and at least 0 in customer / month, got -1"
    ):
        steady_customers(-1, 0.1)
    with pytest.raises(TypeError, match="end must be a quantity in USD"):
        cagr(Q(1, "USD"), Q(2, "USD / token"), 1)


@pytest.mark.parametrize(
    ("before", "after", "printed"),
    [
        (96.7, 264.7, 174), (151.5, 330.5, 118), (100.8, 198.1, 97), (118.8, 249.8, 110),
        (336.2, 607.6, 81), (228.9, 1915.4, 737), (504.9, 749.0, 48), (595.4, 742.6, 25),
        (666.7, 804.0, 21),
    ],
)  # fmt: skip
def test_prospectuses(before, after, printed):
    """Growth of the last full year as printed, per cent, with revenue in MUSD: Snowflake (2020), Zoom (2019), Datadog (2019),
    CrowdStrike (2019), UiPath (2021), CoreWeave (2025), Figma (2025), Palantir (2020), Reddit (2024). To the per cent."""
    assert round(100 * cagr(before, after, 1)) == printed


@pytest.mark.parametrize(
    ("monthly", "annual"), [(0.01, 11.4), (0.02, 21.5), (0.05, 46.0), (0.10, 71.8)]
)
def test_churn_table(monthly, annual):
    """Monthly churn by the year, per cent, as guides to subscriptions tabulate it. To 1 digit."""
    assert 100 * churn_over(monthly, 12) == pytest.approx(annual, abs=0.05)
