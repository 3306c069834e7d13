"""Bass diffusion against published averages, its own differential equation, and noisy data."""

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from bigmodel_lab.econ import Bass, fit_bass
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q

AVERAGE = Bass(0.03, 0.38)


def test_average_product():
    """Sultan, Farley and Lehmann (1990), J. Marketing Research 27(1): mean p = .03, q = .38 over 213 applications. Then T* = 6.193
    years, the peak is .1106 of the market a year, F(5) = .3312 and F(10) = .8128. To 4 digits."""
    when, most, by_then = AVERAGE.peak()
    assert when.to("year").magnitude == pytest.approx(6.193, abs=5e-4)
    assert most.magnitude == pytest.approx(0.1106, abs=5e-5)
    assert AVERAGE.share([5, 10]) == pytest.approx([0.3312, 0.8128], abs=5e-5)
    assert by_then.magnitude == pytest.approx(AVERAGE.share(when).item())
    assert most.magnitude == pytest.approx(AVERAGE.rate(when).magnitude.item())


@pytest.mark.parametrize(
    ("p", "q"), [(0.028, 0.25), (0.005, 0.84), (0.010, 0.42), (0.017, 0.36), (0.018, 0.30), (0.025, 0.65)]
)  # fmt: skip
def test_bass_1969_products_solve_their_equation(p, q):
    """Black and white television, colour television, air conditioners, dryers, softeners, record players: p and q as
    widely tabulated, to two decimals. F solves dF/dt = (p + qF)(1 - F), to 1e-6."""
    t = np.linspace(0, 15, 7)
    sol = solve_ivp(
        lambda _, F: (p + q * F) * (1 - F), (0, 15), [0.0], t_eval=t, rtol=1e-10, atol=1e-12
    )
    b = Bass(p, q, 100)
    assert b.share(t) == pytest.approx(sol.y[0], abs=1e-6)
    fine = np.linspace(0, 15, 20_001)
    assert fine[b.rate(fine).magnitude.argmax()] == pytest.approx(b.peak()[0].magnitude, abs=1e-3)


def test_units():
    b = Bass(Q(0.03, "1/year"), Q(0.38 / 12, "1/month"), Q(1e6, "customer"))
    assert b.adopters(Q(60, "month")).to("customer").magnitude == pytest.approx(331_200, rel=1e-3)


def test_without_imitation_adoption_only_falls():
    b = Bass(0.1, 0.0)
    assert b.share(5) == pytest.approx(1 - math.exp(-0.5))
    with pytest.raises(ValueError, match="q must be above p for a peak"):
        b.peak()


def test_fit():
    t = np.arange(1, 16.0)
    exact = Bass(0.02, 0.45, 3e5)
    got = fit_bass(t, exact.adopters(t))
    assert [got.p, got.q, got.market] == pytest.approx([0.02, 0.45, 3e5], rel=1e-4)
    noisy = np.maximum.accumulate(
        exact.adopters(t).magnitude * generator(0, "bass").normal(1, 0.01, len(t))
    )
    assert fit_bass(t, noisy).market == pytest.approx(3e5, rel=0.05)


def test_refused():
    with pytest.raises(ValueError, match="at least 4 points"):
        fit_bass([1, 2], [3, 4])
    with pytest.raises(ValueError, match="adopters must be above 0 in the end"):
        fit_bass([1, 2, 3, 4], [0, 0, 0, 0])
    for t, n in [
        (range(1, 7), range(1, 7)), ([1, 2, 3, 4], [5, 5, 5, 5]),
        (range(2000, 2012), AVERAGE.share(range(12))),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match="do not determine p, q and market: count years from"):
            fit_bass(t, n)
    with pytest.raises(ValueError, match="must not fall"):
        fit_bass([1, 2, 3, 4], [4, 3, 5, 6])
    with pytest.raises(ValueError, match="p must be a finite number above 0 in 1 / year"):
        Bass(0, 0.3)
    with pytest.raises(TypeError, match="p must be a quantity in 1 / year"):
        Bass(Q(1, "USD"), 0.3)


@pytest.mark.parametrize(
    ("p", "q", "market", "peak_year", "peak_sales"),
    [
        (0.0026167, 0.21566, 40_001, 20.1, 2200), (0.018119, 0.17110, 21_973, 11.6, 1200),
        (0.027877, 0.25105, 96_717, 7.8, 7500), (0.017703, 0.29695, 5_793, 8.9, 500),
        (0.010399, 0.41861, 16_895, 8.6, 1800), (0.017206, 0.35688, 15_092, 8.1, 1500),
        (0.0091837, 0.33790, 44_751, 10.3, 4000), (0.005876, 0.24387, 76_589, 14.9, 4800),
        (0.017135, 0.30145, 58_838, 9.0, 4800), (0.028632, 0.32791, 55_696, 6.8, 5500),
        (0.024796, 0.65410, 21_937, 4.8, 3800),
    ],
)  # fmt: skip
def test_bass_1969_predicted_peaks(p, q, market, peak_year, peak_sales):
    """Bass (1969), tables 2 and 3: p, q and m (thousand) of refrigerators, freezers, black and white television, softeners,
    air conditioners, dryers, mowers, bed coverings, coffee makers, irons and record players, and the predicted year and
    sales of the peak. The paper cuts years to one digit and sales to two: to 0.3 years and 6 %."""
    when, most, _ = Bass(p, q, market).peak()
    assert when.magnitude == pytest.approx(peak_year, abs=0.3)
    assert most.magnitude == pytest.approx(peak_sales, rel=0.06)
