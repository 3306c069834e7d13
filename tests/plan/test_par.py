"""Levels span the runs and far beyond; each rule of thumb is what it says, and loses to the best plan."""

import pytest

from bigmodel_lab.plan import StaleRow, find_law
from bigmodel_lab.plan.game import fastest
from bigmodel_lab.plan.par import LEVELS, POLICIES, level, par
from bigmodel_lab.plan.surface import fit_surface

ON = "2026-11-22"


@pytest.fixture(scope="module")
def surface():
    return fit_surface(bootstrap=20)


@pytest.mark.parametrize("name", LEVELS)
def test_par_is_allowed_and_not_below_the_best(surface, name):
    budget = level(name, ON)
    scores = par(budget, surface)
    assert scores.keys() == POLICIES.keys()
    for result in scores.values():
        assert result.regret >= 0
        assert result.move.devices == fastest(budget)
    assert max(r.regret for r in scores.values()) > 0.01


def test_each_rule_is_what_it_says(surface):
    budget = level("coffee", ON)
    moves = {name: result.move for name, result in par(budget, surface).items()}
    C = float(budget.compute(fastest(budget)))
    assert moves["chinchilla"].tokens / moves["chinchilla"].parameters == pytest.approx(20)
    assert moves["biggest"].tokens == pytest.approx(moves["biggest"].parameters)
    assert moves["longest"].parameters == surface.fit.sizes[0]
    assert moves["longest"].tokens == budget.text.magnitude  # money would buy more than there is
    kaplan = find_law("kaplan").optimum(C)
    assert moves["kaplan"].parameters == pytest.approx(kaplan.parameters.magnitude)
    for name in ("kaplan", "chinchilla", "biggest"):
        assert 6 * moves[name].parameters * moves[name].tokens == pytest.approx(C)


def test_only_the_smallest_level_lies_inside_the_runs(surface):
    """The best plan of "crumb" costs no more than the dearest run did, in FLOP; the others are said to be outside."""
    for name in LEVELS:
        best = par(level(name, ON), surface)["chinchilla"].best
        assert (surface.beyond(best.parameters, best.tokens) == "") == (name == "crumb"), name


def test_a_level_takes_dated_prices():
    assert level("round", ON).price.source
    with pytest.warns(StaleRow, match="prices.csv"):
        level("coffee", "2027-06-02")
    with pytest.raises(
        ValueError,
        match="level must be one of 'coffee', 'crumb', 'grant', 'penny', 'round', got 'tea'",
    ):
        level("tea", ON)
