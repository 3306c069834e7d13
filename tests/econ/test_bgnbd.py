"""BG/NBD on the CDNOW data of the published fit, on simulated customers, and in its limits."""

import numpy as np
import pytest
from scipy.integrate import quad

from bigmodel_lab.econ import BGNBD, Purchases, fit_bgnbd, load_cdnow
from bigmodel_lab.rng import generator

PUBLISHED = BGNBD(0.243, 4.414, 0.793, 2.426)


@pytest.fixture(scope="module")
def fitted():
    return fit_bgnbd(load_cdnow())


def test_cdnow_is_the_published_sample():
    """Fader, Hardie and Lee (2005), section 4: 2,357 customers, 1,411 of them without a repeat. Exact."""
    d = load_cdnow()
    assert (len(d.repeats), int((d.repeats == 0).sum())) == (2357, 1411)
    assert d.age.max() == pytest.approx(38.86, abs=0.005)


def test_published_fit(fitted):
    """Fader, Hardie and Lee (2005), table 2: r = .243, alpha = 4.414, a = .793, b = 2.426, log-likelihood -9582.4; the
    Python package lifetimes documents .242593, 4.413532, .792886, 2.425752. To 0.1 %, a hundredth of a standard error."""
    got = [fitted.r, fitted.alpha, fitted.a, fitted.b]
    assert got == pytest.approx([0.242593, 4.413532, 0.792886, 2.425752], rel=1e-3)
    assert fitted.log_likelihood(load_cdnow()) == pytest.approx(-9582.4, abs=0.05)
    at_published = PUBLISHED.log_likelihood(load_cdnow())
    assert (
        fitted.log_likelihood(load_cdnow()) - 0.01
        < at_published
        < fitted.log_likelihood(load_cdnow())
    )


def test_published_forecast():
    """Fader, Hardie and Lee, Implementing the BG/NBD model in Excel (2005): a customer with 2 repeats, the last in week
    30.43 of 38.86, buys 1.226 times in the next 39 weeks. To the digits printed."""
    one = Purchases(np.array([2.0]), np.array([30.43]), np.array([38.86]))
    assert PUBLISHED.expected(39, one)[0] == pytest.approx(1.226, abs=5e-4)


def test_forecast_of_the_held_out_weeks(fitted):
    """The 39 weeks after the fit brought 1,882 more repeats; the forecast is 1,653, 12 % too low for these weeks and 5 % for
    all 78: what this model, fitted to these customers, gets wrong. To 1 %."""
    d = load_cdnow()
    more = fitted.expected(39, d).sum()
    assert int(d.later.sum()) == 1882
    assert more == pytest.approx(1653, rel=0.01)
    assert (d.repeats.sum() + more) / (d.repeats + d.later).sum() == pytest.approx(0.947, abs=0.005)
    known, active = (
        d.repeats > 0,
        fitted.alive(d) > 0.7,
    )  # without a repeat the model calls everybody alive
    assert d.later[known & active].mean() > 1.5 * d.later[known & ~active].mean()


def customers(m, n, T, rng):
    """Simulate the story of the model: rates, purchases, a coin after each."""
    out = []
    for rate, leave in zip(rng.gamma(m.r, 1 / m.alpha, n), rng.beta(m.a, m.b, n), strict=True):
        x, last, t = 0, 0.0, rng.exponential(1 / max(rate, 1e-12))
        while t < T:
            x, last = x + 1, t
            if rng.random() < leave:
                break
            t += rng.exponential(1 / rate)
        out.append((x, last, T))
    return Purchases(*np.array(out, dtype=float).T)


def test_fit_finds_simulated_parameters():
    true = BGNBD(0.8, 6.0, 1.5, 4.0)
    seen = customers(true, 4000, 52.0, generator(0, "customers"))
    got = fit_bgnbd(seen)
    assert got.log_likelihood(seen) >= true.log_likelihood(seen)
    assert [got.r, got.alpha] == pytest.approx([0.8, 6.0], rel=0.15)
    assert got.a / (got.a + got.b) == pytest.approx(1.5 / 5.5, rel=0.15)
    new = true.expected_new([10.0, 52.0])
    assert new[1] == pytest.approx(seen.repeats.mean(), rel=0.05)
    assert true.expected_new(10) == pytest.approx(new[0])


def test_likelihood_is_the_integral_over_customers():
    """For x = 0 it is E[exp(-lambda T)], for one purchase at t: E[lambda (exp(-lambda T)(1-p) + exp(-lambda t) p)]."""
    m, t, T = BGNBD(0.7, 5.0, 0.9, 2.5), 3.0, 20.0
    from scipy.stats import gamma

    def over_rates(f):
        return quad(lambda u: f(gamma.ppf(u, m.r, scale=1 / m.alpha)), 0, 1, limit=200)[0]

    p = m.a / (m.a + m.b)
    none = Purchases(np.zeros(1), np.zeros(1), np.array([T]))
    one = Purchases(np.ones(1), np.array([t]), np.array([T]))
    assert np.exp(m.log_likelihood(none)) == pytest.approx(
        over_rates(lambda g: np.exp(-g * T)), rel=1e-5
    )
    want = over_rates(lambda g: g * (np.exp(-g * T) * (1 - p) + np.exp(-g * t) * p))
    assert np.exp(m.log_likelihood(one)) == pytest.approx(want, rel=1e-5)
    assert m.alive(none)[0] == 1


def test_alive_falls_with_silence_and_most_for_the_frequent():
    x, t = np.array([10.0, 10, 1]), np.array([38.0, 20, 20])
    alive = PUBLISHED.alive(Purchases(x, t, np.full(3, 39.0)))
    assert alive[0] > alive[2] > alive[1]


def test_refused():
    ones = np.ones(2)
    with pytest.raises(
        ValueError,
        match="recency must be at most age, and 0 exactly for customers without repeats; customer 1 has 1",
    ):
        Purchases(ones, np.array([1.0, 3.0]), np.array([2.0, 2.0]))
    with pytest.raises(ValueError, match="must be arrays of one length"):
        Purchases(ones, ones, np.ones(3))
    with pytest.raises(ValueError, match="repeats must be above 0 for some customer"):
        fit_bgnbd(Purchases(0 * ones, 0 * ones, ones))
    with pytest.raises(ValueError, match="alpha must be a finite number above 0"):
        BGNBD(1, 0, 1, 1)
    with pytest.raises(ValueError, match="a=1 makes"):
        BGNBD(1, 1, 1.0, 1).expected(3, load_cdnow())
