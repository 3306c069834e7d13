"""Cash, present value and internal rate of return."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.econ import cash_path, irr, npv, runway, runway_of
from bigmodel_lab.units import Q


def test_stability_ai_2023():
    """Press reports: a 2023 plan of 99 M compute, 54 M wages and 11 M revenue burns 142 M a year; 4 M of cash (October
    2023) then lasts ten days."""
    burn = Q(99 + 54 - 11, "MUSD / year")
    assert burn.to("MUSD/year").magnitude == 142
    assert runway(Q(4, "MUSD"), burn).to("day").magnitude == pytest.approx(10.3, abs=0.05)


@pytest.mark.parametrize("growth", [0.0, 0.05, -0.02])
def test_runway_is_where_the_path_ends(growth):
    burn = 100e3 * (1 + growth) ** np.arange(200)
    t = runway(1.5e6, 100e3, growth).magnitude
    assert runway_of(1.5e6, -burn).magnitude == pytest.approx(t, abs=0.01)
    assert cash_path(1.5e6, -burn).magnitude[math.floor(t)] >= 0
    assert cash_path(1.5e6, -burn).magnitude[math.floor(t) + 1] < 1e-6


def test_runway_without_end():
    assert math.isinf(runway(1e6, 1e5, growth=-0.1).magnitude)
    assert math.isfinite(runway(0.99e6, 1e5, growth=-0.1).magnitude)
    assert math.isinf(runway_of(1e6, [-1e5, 1e5, 0]).magnitude)
    assert runway_of(100, [-60, 20, -240, 500]).magnitude == pytest.approx(2.25)


def test_loan():
    """A mortgage by hand: 1000 now against 12 payments at 1 % a month has no net present value."""
    payment = 1000 * 0.01 / (1 - 1.01**-12)
    flows = Q([-1000.0] + [payment] * 12, "USD")
    assert npv(0.01, flows).magnitude == pytest.approx(0, abs=1e-9)
    assert irr(flows) == pytest.approx(0.01)


@pytest.mark.parametrize("months", [48, 180])
def test_irr_of_long_streams(months):
    """One dollar out a month, then as many months of (1 + rate)^months back: (1 + rate)^t must not overflow on the way."""
    flows = [-1.0] * months + [1.01**months] * months
    assert irr(flows) == pytest.approx(0.01)
    assert irr([-x for x in flows]) == pytest.approx(0.01)


@given(st.floats(-0.9, 5), st.floats(0, 1))
def test_irr_is_the_root(rate, share):
    flows = np.array([-1.0, share * (1 + rate), (1 - share) * (1 + rate) ** 2])
    assert irr(flows) == pytest.approx(rate, rel=1e-6, abs=1e-9)


def test_tenfold_in_ten_years():
    """A fund's rule: ten times the money in ten years is 25.9 % a year. Exact to 3 digits."""
    assert irr([-1, *[0] * 9, 10]) == pytest.approx(0.259, abs=5e-4)


def test_refused():
    with pytest.raises(
        ValueError, match="flows must change sign exactly once, got 2 changes: several"
    ):
        irr([-1, 3, -2])
    with pytest.raises(ValueError, match="got 0 changes: no rate fits"):
        irr([1, 2])
    with pytest.raises(TypeError, match="cash must be a quantity in USD, got 1 USD / month"):
        runway(Q(1, "USD/month"), 1)
    with pytest.raises(
        ValueError, match="burn must be a finite number above 0 in USD / month, got 0"
    ):
        runway(1e6, 0)
    with pytest.raises(ValueError, match=r"flows\[1\] must be finite and at least -inf"):
        npv(0.1, [1, math.nan])
    with pytest.raises(TypeError, match="flows must hold numbers in USD, got dtype"):
        npv(0.1, ["a"])
    for flows in ([[1.0, 2], [3, 4]], 5.0):
        with pytest.raises(ValueError, match="flows must have one dimension, one number a period"):
            npv(0.1, flows)
    with pytest.raises(ValueError, match="flows must have one dimension"):
        irr([[1.0, -2]])
    with pytest.raises(ValueError, match="flows must have one dimension"):
        cash_path(1, [[1.0]])


def test_spreadsheets():
    """The help of Excel's NPV and IRR, and of numpy-financial's irr. NPV there discounts the first flow, too; ours has it now,
    so a 0 goes in front. To the digits printed."""
    assert npv(0.10, [0, -10_000, 3000, 4200, 6800]).magnitude == pytest.approx(1188.44, abs=5e-3)
    years = [8000, 9200, 10_000, 12_000, 14_500]
    assert npv(0.08, [-40_000, *years]).magnitude == pytest.approx(1922.06, abs=5e-3)
    flows = [-70_000, 12_000, 15_000, 18_000, 21_000, 26_000]
    assert [irr(flows[:n]) for n in (3, 5, 6)] == pytest.approx([-0.444, -0.021, 0.087], abs=5e-4)
    assert irr([-100, 39, 59, 55, 20]) == pytest.approx(0.28095, abs=5e-6)
    assert irr([-100, 0, 0, 74]) == pytest.approx(-0.0955, abs=5e-5)
    assert irr([-100, 100, 0, 7]) == pytest.approx(0.06206, abs=5e-6)
    with pytest.raises(ValueError, match="got 2 changes: several rates may fit"):
        irr([-100, 100, 0, -7])  # numpy-financial prints -0.0833, one of them
