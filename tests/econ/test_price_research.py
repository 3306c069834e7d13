"""Price research: crossings by hand, respondents with known valuations, inconsistent answers."""

import numpy as np
import pytest

from bigmodel_lab.econ import gabor_granger, van_westendorp
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q


def test_symmetric_respondents_by_calculus():
    """Answers are 10, 14, 16 and 20 plus a shift that is uniform on (0, 10): the curves are lines of slope 1/10, so that too
    cheap and expensive cross at the middle of 20 and 16, bargain and too expensive at that of 24 and 20, the other pairs at
    20. To the grid, 0.02."""
    v = np.linspace(0, 10, 4001)
    got = van_westendorp(v + 10, v + 14, v + 16, v + 20)
    want = {"low": 18, "high": 22, "indifference": 20, "optimal": 20}
    for name, price in want.items():
        assert getattr(got, name).to("USD/customer/month").magnitude == pytest.approx(
            price, abs=0.02
        )


def test_the_original_range_is_the_wider_one():
    """By calculus, as above: too cheap falls on 10 to 20 and "not a bargain" rises on 14 to 24, so that they cross at 17; "not
    expensive" falls on 16 to 26 and too expensive rises on 20 to 30, at 23. The 1976 paper and the R package
    pricesensitivitymeter ("original") have these; "narrower" is what that package calls 18 to 22."""
    v = np.linspace(0, 10, 4001)
    narrow, wide = (
        van_westendorp(v + 10, v + 14, v + 16, v + 20, ends=ends)
        for ends in ("narrower", "original")
    )
    assert [x.magnitude for x in (wide.low, wide.high)] == pytest.approx([17, 23], abs=0.02)
    assert [x.magnitude for x in (narrow.low, narrow.high)] == pytest.approx([18, 22], abs=0.02)
    assert (wide.optimal, wide.indifference) == (narrow.optimal, narrow.indifference)
    with pytest.raises(ValueError, match="ends must be one of 'narrower', 'original'"):
        van_westendorp([1], [2], [3], [4], ends="1976")


def test_order_of_the_four_prices():
    rng = generator(0, "vw")
    v = rng.lognormal(3, 0.4, 500)
    got = van_westendorp(0.5 * v, 0.8 * v, 1.1 * v, 1.5 * v)
    assert got.low < got.optimal < got.high
    assert got.low < got.indifference < got.high


def test_scale():
    v = generator(0, "vw").lognormal(3, 0.4, 200)
    once, ten = (
        van_westendorp(*(Q(k * f * v, "USD/customer/month") for f in (0.5, 0.8, 1.1, 1.5)))
        for k in (1, 10)
    )
    assert ten.optimal.magnitude == pytest.approx(10 * once.optimal.magnitude)


def test_gabor_granger_by_calculus():
    """Uniform valuations on (0, 100): demand is 1 - p/100, revenue is best at 50, and with a cost of 20 profit at 60."""
    points = gabor_granger(np.linspace(0, 100, 100_001), np.arange(5, 100, 5.0), cost=20)
    assert max(points, key=lambda p: p.revenue).price.magnitude == 50
    best = max(points, key=lambda p: p.profit)
    assert best.price.magnitude == 60
    assert best.share == pytest.approx(0.4, abs=1e-4)
    assert best.profit.magnitude == pytest.approx(16, abs=1e-2)


def test_refused():
    with pytest.raises(ValueError, match="respondent 1 says 1, 5, 4, 6"):
        van_westendorp([1, 1], [2, 5], [3, 4], [4, 6])
    with pytest.raises(ValueError, match="must have one length"):
        van_westendorp([1, 1], [2], [3], [4])
    with pytest.raises(ValueError, match="prices must be one rising ladder"):
        gabor_granger([10.0], [5, 4])
    with pytest.raises(ValueError, match="prices must be one rising ladder"):
        gabor_granger([10.0], [])
    with pytest.raises(TypeError, match="cost must be a quantity in USD / customer / month"):
        gabor_granger([10.0], [5], Q(1, "USD"))
