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
    with pytest.raises(ValueError, match="must not fall"):
        fit_bass([1, 2, 3, 4], [4, 3, 5, 6])
    with pytest.raises(ValueError, match="p must be a finite number above 0 in 1 / year"):
        Bass(0, 0.3)
    with pytest.raises(TypeError, match="p must be a quantity in 1 / year"):
        Bass(Q(1, "USD"), 0.3)
