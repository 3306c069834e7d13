"""Make or buy: break-even by hand and at the crossing."""

import numpy as np
import pytest

from bigmodel_lab.econ import Sourcing, break_even_month, break_even_volume, total_cost
from bigmodel_lab.units import Q

OWN = Sourcing("own", Q(600, "kUSD"), 40e3, 0.5)
API = Sourcing("api", per_token=Q(3, "USD/Mtoken"))


def test_by_hand():
    """600 k over 24 months is 25 k a month; with 40 k of people that is 65 k against 2.5 USD saved a million tokens: 26,000
    million tokens a month."""
    v = break_even_volume(OWN, API, 24)
    assert v.to("Mtoken/month").magnitude == pytest.approx(26_000)
    assert total_cost(OWN, [v.magnitude] * 24).magnitude == pytest.approx(
        total_cost(API, [v.magnitude] * 24).magnitude
    )
    assert break_even_month(OWN, API, np.full(36, 26_000.1)) == 24
    assert break_even_month(OWN, API, np.full(12, 26_000.1)) is None


def test_interest_raises_the_volume_that_is_needed():
    v = break_even_volume(OWN, API, 24, discount=0.01)
    assert v.magnitude > 26_000
    volumes = [v.magnitude] * 24
    assert total_cost(OWN, volumes, 0.01).magnitude == pytest.approx(
        total_cost(API, volumes, 0.01).magnitude
    )


def test_refused():
    with pytest.raises(
        ValueError,
        match="no volume breaks even: 'api' costs no more at every volume over 24 months",
    ):
        break_even_volume(Sourcing("own", 1e6, 0, 4), API, 24)
    with pytest.raises(ValueError, match="no volume breaks even: 'own' costs no more"):
        break_even_volume(Sourcing("own", 0, 0, 1), API, 24)
    for volume in ([], [[1.0]]):
        with pytest.raises(ValueError, match="volume must hold one number a month, at least one"):
            total_cost(OWN, volume)
    with pytest.raises(TypeError, match="per_token of 'x' must be a quantity in USD / Mtoken"):
        Sourcing("x", per_token=Q(1, "USD"))
