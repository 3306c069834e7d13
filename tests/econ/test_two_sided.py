"""Two-sided platforms: members at rest by iteration, best prices by search and by Armstrong's condition."""

import pytest
from scipy.optimize import minimize

from bigmodel_lab.econ import Side, best_prices, platform
from bigmodel_lab.units import Q

USERS = Side("users", 1000, 20, 0.02, cost=1)
MAKERS = Side("developers", 50, 2, 0.04, cost=Q(5, "USD/customer/month"))


def test_members_are_where_iteration_ends():
    n1 = n2 = 0.0
    for _ in range(500):
        n1, n2 = 1000 + 20 * (0.02 * n2 - 10), 50 + 2 * (0.04 * n1 - 3)
    got = platform(USERS, MAKERS, 10, 3)
    assert [m.to("customer").magnitude for m in got.members] == pytest.approx([n1, n2])
    assert got.profit.magnitude == pytest.approx(9 * n1 - 2 * n2)


def test_best_prices_against_search():
    got = best_prices(USERS, MAKERS)

    def loss(p):
        return -platform(USERS, MAKERS, *map(float, p)).profit.magnitude

    found = minimize(
        loss, [20.0, 10.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9}
    )
    assert [p.magnitude for p in got.prices] == pytest.approx(found.x, rel=1e-4)
    assert got.profit.magnitude == pytest.approx(-found.fun)


def test_armstrong_condition():
    """Armstrong (2006), eq. 4: p_i = cost_i - benefit_j n_j + n_i / slope_i. Exact."""
    got = best_prices(USERS, MAKERS)
    n = [m.magnitude for m in got.members]
    assert got.prices[0].magnitude == pytest.approx(1 - 0.04 * n[1] + n[0] / 20)
    assert got.prices[1].magnitude == pytest.approx(5 - 0.02 * n[0] + n[1] / 2)


def test_the_side_that_draws_the_other_is_subsidised():
    loved = Side("users", 1000, 20, 0.08, cost=1)
    assert (
        best_prices(loved, MAKERS).prices[1].magnitude
        < best_prices(USERS, MAKERS).prices[1].magnitude
    )
    assert (
        best_prices(Side("users", 1000, 20, 0.1), Side("developers", 50, 4, 0.0, 5))
        .prices[1]
        .magnitude
        < 5
    )


def test_a_side_that_annoys_the_other_pays_for_it():
    """Newspapers: advertisers come for readers, whom they annoy (Armstrong, 2006, section 5). Equation 4 holds, readers are
    subsidised, and advertisers pay more than if nobody minded them."""
    readers, ads = Side("readers", 1000, 20, -0.05, cost=1), Side("ads", 50, 2, 0.08, cost=5)
    got = best_prices(readers, ads)
    n = [m.magnitude for m in got.members]
    assert got.prices[0].magnitude == pytest.approx(1 - 0.08 * n[1] + n[0] / 20)
    assert got.prices[1].magnitude == pytest.approx(5 + 0.05 * n[0] + n[1] / 2)
    quiet = best_prices(Side("readers", 1000, 20, 0.0, cost=1), ads)
    assert got.members[1] < quiet.members[1]
    assert got.prices[1] > quiet.prices[1]


def test_refused():
    with pytest.raises(ValueError, match="base of 'a' must be larger for what a member costs"):
        best_prices(Side("a", 1, 1, 0, cost=5), Side("b", 100, 1, 0))
    with pytest.raises(ValueError, match="must multiply to less than 1, got 40: growth has no end"):
        platform(Side("a", 1, 10, 1), Side("b", 1, 4, 1), 0, 0)
    with pytest.raises(ValueError, match="must be below 4 for a best price"):
        best_prices(Side("a", 1, 10, 1), Side("b", 1, 4, 1))
    with pytest.raises(ValueError, match="prices must leave members on both sides"):
        platform(USERS, MAKERS, 1000, 0)
    with pytest.raises(ValueError, match="slope of 'a' must be a finite number above 0"):
        Side("a", 1, 0, 1)
