"""Unit economics against published examples, sums and refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.econ import (
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
from bigmodel_lab.units import Q

USD_A_MONTH = "USD / customer / month"


def test_ltv_is_the_sum_over_months():
    """ARPA x margin / churn is the sum of what survivors bring; with growth and interest, too. To 1e-9."""
    t = np.arange(20_000)
    for g, d in [(0, 0), (0.01, 0.005), (-0.02, 0), (0.06, 0.05)]:
        want = np.sum(80 * 0.7 * (0.97 * (1 + g) / (1 + d)) ** t)
        got = ltv(Q(80, USD_A_MONTH), 0.7, 0.03, growth=g, discount=d)
        assert got.to("USD / customer").magnitude == pytest.approx(want, rel=1e-9)


def test_skok():
    """Skok, SaaS Metrics 2.0: LTV = ARPA x GM / churn, and halving churn doubles it. Exact."""
    assert ltv(100, 0.8, 0.02).magnitude == pytest.approx(4000)
    assert ltv(100, 0.8, 0.01).magnitude == pytest.approx(2 * 4000)
    assert ltv(100, 1, 0.02).magnitude == pytest.approx(5000)  # the trap: revenue, not profit
    assert ltv_to_cac(ltv(100, 0.8, 0.02), Q(1000, "USD/customer")) == pytest.approx(4)
    assert lifetime(0.04).to("month").magnitude == pytest.approx(25)


def test_ltv_without_end_is_refused():
    with pytest.raises(ValueError, match=r"growth must stay below 0\.03093 a month at churn=0\.03"):
        ltv(80, 0.7, 0.03, growth=0.04)


def test_cac_and_payback():
    """Payback = CAC / (ARPA x GM): 600 / (100 x 0.5) = 12 months, Skok's usual limit. Exact."""
    cost = cac(Q(60, "kUSD"), Q(100, "customer"))
    assert cost == Q(600, "USD/customer")
    assert payback(cost, Q(1200, "USD/customer/year"), 0.5).to("month").magnitude == pytest.approx(
        12
    )


@given(st.floats(0.001, 0.2), st.floats(10, 500))
def test_payback_with_churn_is_where_the_sum_reaches_the_cost(churn, cost):
    if cost * churn >= 40:
        with pytest.raises(ValueError, match="is never paid back"):
            payback(cost, 100, 0.4, churn=churn)
        return
    months = payback(cost, 100, 0.4, churn=churn).magnitude
    t = np.arange(int(months) + 1)
    part = np.minimum(months - t, 1)  # of each month's payment
    assert np.sum(40 * (1 - churn) ** t * part) == pytest.approx(cost)
    assert months >= payback(cost, 100, 0.4).magnitude * (1 - 1e-9)


@pytest.mark.parametrize(
    ("burn", "arr", "multiple", "band"),
    [(3e6, 1e6, 3, "bad"), (4e6, 5e6, 0.8, "amazing"), (12e6, 5e6, 2.4, "suspect")],
)
def test_sacks_burn_multiple(burn, arr, multiple, band):
    """D. Sacks, The Burn Multiple (2020): 3/1 = 3, 4/5 = 0.8, 12/5 = 2.4. Exact; 3 itself is in no band of the text."""
    got = burn_multiple(Q(burn, "USD"), Q(arr, "USD/year"))
    assert got == pytest.approx(multiple)
    assert burn_band(got) == band


def test_payback_with_growth_and_interest_is_where_the_sum_reaches_the_cost():
    for c, g, d, cost in [(0.03, 0.02, 0, 1500), (0, 0.05, 0, 1500), (0.02, 0.05, 0.01, 5000)]:
        months = payback(cost, 100, 0.4, c, g, d).magnitude
        t = np.arange(int(months) + 1)
        paid = 40 * ((1 - c) * (1 + g) / (1 + d)) ** t * np.minimum(months - t, 1)
        assert paid.sum() == pytest.approx(cost)
    with pytest.raises(
        ValueError, match=r"is never paid back: at churn=0\.05 a customer brings 800"
    ):
        payback(900, 100, 0.4, 0.05)
    assert payback(1000, 100, 0.4, 0.05, growth=0.02).magnitude > 25


@pytest.mark.parametrize(
    ("kept", "printed"),
    [
        (0.6, [1.20, 1.15, 1.11, 1.07]), (0.7, [1.75, 1.67, 1.59, 1.52]),
        (0.8, [2.67, 2.50, 2.35, 2.22]), (0.9, [4.50, 4.09, 3.75, 3.46]),
    ],
)  # fmt: skip
def test_gupta_and_lehmann(kept, printed):
    """S. Gupta and D. Lehmann, Customers as assets (2003): margin multiples r / (1 + i - r) at 10, 12, 14 and 16 % a year. They
    count from the first renewal on; `ltv` counts the first payment, too, which is the 1 taken off. To 2 digits."""
    got = [ltv(1, 1, 1 - kept, discount=i).magnitude - 1 for i in (0.10, 0.12, 0.14, 0.16)]
    assert got == pytest.approx(printed, abs=0.0051)


def test_every_band():
    assert burn_band(0.3 / 0.1) == burn_band(3) == "bad"  # 2.9999999999999996
    assert [burn_band(x) for x in (0.99, 1, 1.49, 1.5, 2, 2.99, 40)] == [
        "amazing", "great", "great", "good", "suspect", "suspect", "bad",
    ]  # fmt: skip


def test_retention():
    """1000 + 150 - 40 - 100 = 1010: 101 % net, 86 % gross (101 % is Benchmarkit's 2025 median)."""
    year = "USD / year"
    parts = Q(150, year), Q(40, year), Q(100, year)
    assert net_retention(Q(1000, year), *parts) == pytest.approx(1.01)
    assert gross_retention(Q(1000, year), *parts[1:]) == pytest.approx(0.86)
    assert net_retention(Q(1000, year), Q(10, "USD / month")) == pytest.approx(1.12)
    assert net_retention(1000) == 1


def test_refused():
    with pytest.raises(
        ValueError, match=r"gross_margin must be between 0 and 1, got 70: write 70 % as 0.7"
    ):
        ltv(100, 70, 0.02)
    with pytest.raises(
        ValueError, match="churn must be a finite number above 0 and at most 1, got 0"
    ):
        ltv(100, 0.7, 0)
    with pytest.raises(
        TypeError,
        match=r"arpa must be a quantity in USD / customer / month, got 10\.0 USD / token|got 10 USD / token",
    ):
        ltv(Q(10, "USD/token"), 0.7, 0.02)
    with pytest.raises(ValueError, match="new_customers must be a finite number above 0"):
        cac(1000, -5)
    with pytest.raises(ValueError, match="net_new_arr must be a finite number above 0"):
        burn_multiple(1e6, -1e5)
    with pytest.raises(ValueError, match=r"must be at most start together, got 1\.2 times"):
        net_retention(100, 50, 60, 60)
    with pytest.raises(TypeError, match="expansion must be a quantity in USD / year"):
        net_retention(Q(1, "USD/year"), Q(1, "USD"))
