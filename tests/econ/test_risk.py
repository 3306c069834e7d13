"""Tail measures against published multipliers and by hand; registers against their own arithmetic."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.econ import Risk, expected_loss, normal_tail, simulate_losses, tail
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q

REGISTER = (
    Risk("outage", 0.5, Q(100, "kUSD"), 0.5),
    Risk("breach", 0.02, 5e6, 1.0, "security"),
    Risk("key person leaves", 0.1, 4e5),
)


@pytest.mark.parametrize(
    ("p", "var", "es"),
    [
        (0.90, 1.2816, 1.7550),
        (0.995, 2.5758, 2.8919),
        (0.999, 3.0902, 3.3671),
        (0.95, 1.6449, 2.0627),
        (0.975, 1.9600, 2.3378),
        (0.99, 2.3263, 2.6652),
    ],
)
def test_normal_multipliers(p, var, es):
    """Standard normal VaR and ES multipliers, as tabulated (McNeil, Frey and Embrechts, Quantitative Risk Management, 2.2). To 4
    decimals; and a sample's tail agrees within 2 %."""
    got = [x.to("USD").magnitude for x in normal_tail(0, 1, p)]
    assert got == pytest.approx([var, es], abs=5e-5)
    sample = tail(generator(0, "normal").standard_normal(400_000), p)
    assert [x.magnitude for x in sample] == pytest.approx([var, es], rel=0.02)


def test_tail_by_hand():
    """Losses 1 to 100 at 95 %: 95 is the least that is not passed in 95 of 100 cases; the five beyond it have the mean 98."""
    var, es = tail(np.arange(1, 101), 0.95)
    assert (var.magnitude, es.magnitude) == (95, pytest.approx(98))
    assert tail([3.0], 0.9)[1].magnitude == pytest.approx(3)


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(0, 0.99))
def test_shortfall_is_never_below_var_nor_the_mean(losses, p):
    var, es = (x.magnitude for x in tail(losses, p))
    assert es >= var - 1e-6
    assert es >= np.mean(losses) - 1e-6
    assert tail(losses, 0)[1].magnitude == pytest.approx(np.mean(losses), abs=1e-6)


def test_register():
    """Expected loss is exact; the simulated mean lies within 4 standard errors."""
    assert expected_loss(REGISTER).to("USD").magnitude == pytest.approx(50e3 + 100e3 + 40e3)
    x = simulate_losses(REGISTER, 200_000).magnitude
    assert x.mean() == pytest.approx(190e3, abs=4 * x.std() / np.sqrt(len(x)))
    assert np.mean(x == 0) == pytest.approx(0.5 * 0.98 * 0.9, abs=0.005)


def test_same_expected_loss_other_tail():
    rare, often = (Risk("a", 0.001, 1e8),), (Risk("a", 0.5, 2e5),)
    assert expected_loss(rare) == expected_loss(often)
    assert tail(simulate_losses(rare), 0.999)[1] > tail(simulate_losses(often), 0.999)[1] * 100


def test_a_new_line_leaves_the_others_luck():
    alone = simulate_losses(REGISTER[:1], 1000).magnitude
    both = simulate_losses(REGISTER[:2], 1000).magnitude
    assert np.mean(alone == both) > 0.9


def test_refused():
    with pytest.raises(ValueError, match="probability of 'x' must be between 0 and 1, got 20"):
        Risk("x", 20, 1e6)
    with pytest.raises(TypeError, match="loss of 'x' must be a quantity in USD"):
        Risk("x", 0.2, Q(1, "day"))
    with pytest.raises(ValueError, match="register must name each risk once"):
        simulate_losses((REGISTER[0], REGISTER[0]))
    with pytest.raises(ValueError, match="p must be between 0 and 1"):
        tail([1.0, 2], 1.0)
    with pytest.raises(
        ValueError, match=r"chances must sum to 1, got 0\.9: divide each by the sum"
    ):
        tail([1.0, 2], chances=[0.5, 0.4])
    with pytest.raises(ValueError, match=r"chances\[1\] must be between 0 and 1, got -0\.5"):
        tail([1.0, 2], chances=[1.5 - 0.5, -0.5])
    with pytest.raises(ValueError, match="chances must have one entry a loss, 2, got 1"):
        tail([1.0, 2], chances=[1.0])
    with pytest.raises(ValueError, match="losses must hold at least one"):
        tail(np.zeros(0))


def test_hull_two_projects():
    """J. Hull, Risk management and financial institutions, chapter on VaR: a project loses 10 M with 2 % and 1 M otherwise. At
    97.5 % one has a VaR of 1 and an ES of 8.2; two independent ones together 11 and 11.144: VaR punishes what spreads the
    risk, ES does not. Exact."""
    one = tail([10, 1], 0.975, [0.02, 0.98])
    two = tail([20, 11, 2], 0.975, [0.02**2, 2 * 0.02 * 0.98, 0.98**2])
    assert [x.magnitude for x in one] == pytest.approx([1, 8.2])
    assert [x.magnitude for x in two] == pytest.approx([11, 11.144])
    assert two[0] > 2 * one[0]
    assert two[1] < 2 * one[1]


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=12), st.floats(0, 0.99))
def test_equal_chances_are_no_chances(losses, p):
    same = tail(losses, p, np.full(len(losses), 1 / len(losses)))
    assert [x.magnitude for x in same] == [x.magnitude for x in tail(losses, p)]
    var = same[0].magnitude
    assert np.mean(np.array(losses) <= var) >= p - 1e-9  # not passed with probability p
    assert np.mean(np.array(losses) < var) < p + 1e-9 or var == min(losses)  # and none less is
