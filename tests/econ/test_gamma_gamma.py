"""Gamma-Gamma on CDNOW's spends, on simulated spends, and the value of a customer."""

import numpy as np
import pytest

from bigmodel_lab.econ import (
    BGNBD,
    GammaGamma,
    Purchases,
    customer_value,
    fit_gamma_gamma,
    load_cdnow,
)
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q


def test_published_fit():
    """Fader and Hardie (2013), The Gamma-Gamma model of monetary value: p = 6.25, q = 3.74, v = 15.44 on the 946 customers
    with repeats (the lifetimes package documents 15.45). To 0.3 %: the note's data has spends rounded to the cent."""
    d = load_cdnow()
    assert int((d.repeats > 0).sum()) == 946
    got = fit_gamma_gamma(d)
    assert [got.p, got.q, got.v] == pytest.approx([6.25, 3.74, 15.45], rel=3e-3)


def test_spending_does_not_go_with_frequency():
    """The model's assumption: the documentation of lifetimes prints a correlation of 0.1139. To 0.01."""
    d = load_cdnow()
    some = d.repeats > 0
    assert np.corrcoef(d.repeats[some], d.spend[some])[0, 1] == pytest.approx(0.11, abs=0.01)


def test_fit_finds_simulated_parameters():
    rng, true = generator(0, "spend"), GammaGamma(4.0, 3.0, 20.0)
    n = 20_000
    x = rng.integers(1, 8, n).astype(float)
    nu = rng.gamma(true.q, 1 / true.v, n)
    m = rng.gamma(true.p * x, 1 / nu) / x
    got = fit_gamma_gamma(Purchases(x, x, x + 1, m))
    assert [got.p, got.q, got.v] == pytest.approx([4, 3, 20], rel=0.1)
    assert got.log_likelihood(m, x) >= true.log_likelihood(m, x)
    expected = true.expected(
        m, x
    )  # calibrated: over customers with like forecasts, the truth averages to it
    for part in np.array_split(np.argsort(expected), 5):
        assert (true.p / nu)[part].mean() == pytest.approx(expected[part].mean(), rel=0.03)


def test_shrinkage():
    m = GammaGamma(6.25, 3.74, 15.45)
    everybody = m.p * m.v / (m.q - 1)
    few, many, none = m.expected(np.array([100.0, 100, 0]), np.array([1.0, 50, 0]))
    assert everybody == pytest.approx(none)
    assert everybody < few < many < 100


def test_value_is_margin_times_purchases_times_spend():
    d, buying, spending = (
        load_cdnow(),
        BGNBD(0.243, 4.414, 0.793, 2.426),
        GammaGamma(6.25, 3.74, 15.45),
    )
    plain = customer_value(buying, spending, d, 0.3, weeks=39)
    want = 0.3 * buying.expected(39, d) * spending.expected(d.spend, d.repeats)
    assert plain.magnitude == pytest.approx(want)
    assert str(plain.units) == "USD"
    less = customer_value(buying, spending, d, 0.3, weeks=39, discount=0.002)
    assert (less.magnitude < plain.magnitude).all()
    tiny = customer_value(buying, spending, d, 0.3, weeks=39, discount=1e-12)
    assert tiny.magnitude == pytest.approx(plain.magnitude)
    with pytest.raises(ValueError, match="gross_margin must be between 0 and 1"):
        customer_value(buying, spending, d, 30)


def test_refused():
    d = load_cdnow()
    with pytest.raises(ValueError, match="spend must be given, got None"):
        fit_gamma_gamma(Purchases(d.repeats, d.recency, d.age))
    with pytest.raises(ValueError, match="spend must be above 0 for every customer with repeats"):
        fit_gamma_gamma(Purchases(d.repeats, d.recency, d.age, 0 * d.age))
    with pytest.raises(ValueError, match="spend must differ over customers and within them"):
        fit_gamma_gamma(Purchases(np.ones(9), np.ones(9), np.full(9, 2.0), np.full(9, 7.0)))
    m = GammaGamma(6.25, 3.74, 15.44)
    with pytest.raises(ValueError, match="spend must be finite and at least 0 in USD, got -5"):
        m.expected(-5.0, 2)
    with pytest.raises(TypeError, match="spend must be a quantity in USD, got"):
        m.expected(Q(22, "USD/token"), 2)
    with pytest.raises(ValueError, match="spend and repeats must have one shape"):
        m.expected([1.0, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="spend must be above 0, got 0: leave"):
        m.log_likelihood([0.0, 2], [1, 1])
    bare = Purchases(d.repeats, d.recency, d.age)
    with pytest.raises(ValueError, match="spend must be given, got None: without amounts"):
        customer_value(BGNBD(1, 1, 2, 1), m, bare, 0.3)
    with pytest.raises(ValueError, match=r"weeks must be a whole number of week, got 1\.5"):
        customer_value(BGNBD(1, 1, 2, 1), m, d, 0.3, weeks=1.5)
    with pytest.raises(
        ValueError, match=r"q must be above 1 for customers without repeats, got 0.5"
    ):
        GammaGamma(1, 0.5, 1).expected(np.zeros(1), np.zeros(1))


def test_published_forecasts_of_single_customers():
    """The package lifetimes prints these expected means of CDNOW's customers 1, 2, 3, 6, 7 and 9, and Fader and Hardie (2013) a
    mean over everybody of about 35: it is 35.17 for a customer without repeats. To 0.03 %."""
    d = load_cdnow()
    got = fit_gamma_gamma(d).expected(d.spend, d.repeats)
    printed = [24.658619, 18.911489, 35.170981, 71.462843, 18.911489, 27.282408]
    assert got[[0, 1, 2, 5, 6, 8]] == pytest.approx(printed, rel=3e-4)
