"""The compute-budget game: its optimum against brute force, its rules, its bills, its regret."""

from dataclasses import replace

import numpy as np
import pytest

from bigmodel_lab.plan import ChinchillaLaw, bill, six_nd
from bigmodel_lab.plan.game import Infeasible, Move, best, fastest, play, score
from bigmodel_lab.plan.par import LEVELS, level
from bigmodel_lab.plan.surface import fit_surface, small_runs
from bigmodel_lab.units import Q

ON = "2026-11-22"


@pytest.fixture(scope="module")
def surface():
    return fit_surface(small_runs(), bootstrap=20)


def brute_force(budget, law, grid=400):
    """Return the lowest loss over every number of devices and a grid of N: for each, all tokens that are allowed."""
    least = np.inf
    for n in range(1, budget.devices + 1):
        N = np.exp(np.linspace(0, np.log(budget.largest(n)), grid))
        D = np.minimum(budget.compute(n) / 6 / N, budget.text.magnitude)
        loss = law.E + law.A / N**law.alpha + law.B / D**law.beta
        least = min(least, loss[D >= 1].min())
    return least


LAWS = [  # of runs, of large models, and two in which one term hardly matters, so that a rule binds
    None,
    ChinchillaLaw(1.8, 482, 2085, 0.348, 0.366),
    ChinchillaLaw(1.0, 5.0, 1e5, 0.05, 0.5),
    ChinchillaLaw(1.0, 1e5, 5.0, 0.5, 0.05),
]


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("law", LAWS, ids=["runs", "epoch", "data-hungry", "size-hungry"])
def test_no_plan_of_a_fine_grid_is_better_than_the_best(surface, name, law):
    """The best is below every plan of a grid whose steps in N are 4 to 8 %, and by no more than such steps cost: 0.2 %."""
    budget = level(name, ON)
    there = surface if law is None else replace(surface, fit=replace(surface.fit, law=law))
    plan = best(budget, there)
    play(budget, plan)  # raises if it were not allowed
    loss, found = there.loss(plan.parameters, plan.tokens), brute_force(budget, there.fit.law)
    assert loss <= found * (1 + 1e-12)
    assert loss == pytest.approx(found, rel=2e-3)


def test_rules_bind_where_they_should(surface):
    """A law that wants only data takes all the text there is, one that wants only size fills the memory."""
    tight = replace(level("grant", ON), text=Q(1e9, "token"))
    hungry = replace(surface, fit=replace(surface.fit, law=LAWS[2]))
    assert best(tight, hungry).tokens == pytest.approx(1e9)
    small = replace(level("grant", ON), memory=1e-4)
    large = replace(surface, fit=replace(surface.fit, law=LAWS[3]))
    plan = best(small, large)
    assert plan.parameters == pytest.approx(small.largest(plan.devices))


def test_the_best_plan_scores_zero_and_others_more(surface):
    budget = replace(level("coffee", ON), text=Q(1e13, "token"))
    plan = best(budget, surface)
    assert score(budget, plan, surface).regret == pytest.approx(0, abs=1e-12)
    for N, D in ((0.5, 1), (1, 0.5), (0.25, 4), (4, 0.25)):
        move = Move(plan.parameters * N, plan.tokens * D, plan.devices)
        result = score(budget, move, surface)
        assert result.regret > 1e-6
        assert result.best == plan
        assert result.low <= result.high
        assert result.loss == surface.loss(move.parameters, move.tokens)


def test_enough_buys_the_same_loss(surface):
    """A best plan needs all of its budget; another move's loss is what the best plan gets for `enough` dollars."""
    budget = level("coffee", ON)
    plan = best(budget, surface)
    assert score(budget, plan, surface).enough.magnitude == pytest.approx(5, rel=1e-5)
    move = Move(plan.parameters / 8, plan.tokens / 2, 4)
    result = score(budget, move, surface)
    assert result.enough < result.bill.cost < budget.cost
    less = replace(budget, cost=result.enough)
    assert surface.loss(
        best(less, surface).parameters, best(less, surface).tokens
    ) == pytest.approx(result.loss, abs=1e-5)


def test_a_score_is_the_same_each_time(surface):
    budget, move = level("coffee", ON), Move(1e8, 1e9, 4)
    again = fit_surface(list(small_runs()), bootstrap=20)
    assert score(budget, move, surface) == score(level("coffee", ON), move, again)


def test_the_bill_is_plans_own(surface):
    budget = level("grant", ON)
    taken = play(budget, Move(1e9, 2e10, 8))
    flops, share = six_nd(1e9, 2e10), 0.4 * 0.97**3
    assert taken == bill(flops, budget.device, 8, share, price=budget.price)
    assert taken.cost.magnitude == pytest.approx(taken.device_time.magnitude * 1.99)
    assert taken.time.to("hour").magnitude == pytest.approx(taken.device_time.magnitude / 8)


def test_a_short_deadline_takes_more_devices_and_costs_loss(surface):
    easy, hasty = level("coffee", ON), replace(level("coffee", ON), deadline=Q(5, "minute"))
    assert easy.deadline.to("hour").magnitude == pytest.approx(0.5)
    slow, fast = best(easy, surface), best(hasty, surface)
    assert fast.devices > slow.devices
    assert score(hasty, fast, surface).loss > score(easy, slow, surface).loss
    assert (fastest(easy), fastest(hasty)) == (slow.devices, fast.devices)


@pytest.mark.parametrize(
    ("move", "rule", "message"),
    [
        (Move(1e8, 1e9, 9), "devices", "devices: 9 are more than the 8 to be had. Take 8 or fewer."),
        (Move(1e6, 2e10, 4), "text", r"text: 2e\+10 tokens are more than the 1e\+10 there are"),
        (Move(1e10, 1e6, 1), "memory", r"memory: 1e\+10 parameters do not fit on 1 x h100-sxm. Take at most 2.5e\+09, or 4 devices"),
        (Move(1e12, 1e6, 1), "memory", r"do not fit on 1 x h100-sxm. Take at most 2.5e\+09\.$"),
        (Move(1e8, 5e9, 4), "money", r"money: 6.602 USD is more than the 5 USD allowed. With 1e\+08 parameters on 4 devices take at most 3.787e\+09 tokens, or fewer parameters or devices"),
        (Move(1e8, 2e9, 1), "deadline", r"deadline: .* day is more than the 0.02083 day allowed. With 1e\+08 parameters on 1 device take at most .*or more devices"),
    ],
)  # fmt: skip
def test_a_move_that_breaks_a_rule_is_refused_with_a_way_out(surface, move, rule, message):
    with pytest.raises(Infeasible, match=message) as caught:
        score(level("coffee", ON), move, surface)
    assert caught.value.rule == rule


def test_the_way_out_works():
    budget = level("coffee", ON)
    for devices in (1, 4, 8):
        allowed = budget.compute(devices) / 6 / 1e8
        play(budget, Move(1e8, allowed, devices))
        with pytest.raises(Infeasible):
            play(budget, Move(1e8, allowed * 1.001, devices))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Move(0.5, 1e6), "parameters must be finite and at least 1 in parameter, got 0.5"),
        (lambda: Move(1e6, -1), "tokens must be finite and at least 1"),
        (lambda: Move(1e6, 1e6, 1.5), "devices must be a whole number"),
        (lambda: Move(1e6, Q(3, "USD")), "tokens must be a quantity in token"),
        (lambda: replace(level("coffee", ON), cost=Q(0, "USD")), "cost must be a finite number above 0"),
        (lambda: replace(level("coffee", ON), kept=0.4), "kept must be between 0.5 and 1"),
        (lambda: replace(level("coffee", ON), utilisation=40), "write 40 % as 0.4"),
    ],
)  # fmt: skip
def test_refused(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()
