"""The benchmark of company paths compares like with like. Nothing here asserts a speed."""

import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def monte_carlo(monkeypatch):
    """The module monte_carlo of benchmarks/, as when it is run as a program."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the harness sets how threads wait
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import monte_carlo

    yield monte_carlo
    for name in ("monte_carlo", "_harness"):
        sys.modules.pop(name)


def test_candidates_give_the_same_companies(monte_carlo):
    case = monte_carlo.case(500, 60)
    case.check()
    month_out, cash, _ = case.candidates["ours"]()
    assert 0.1 < (month_out > 60).mean() < 0.9
    case.candidates["numpy"] = lambda: (month_out, cash * 1.001, case.candidates["ours"]()[2])
    with pytest.raises(AssertionError, match="numpy differs in result 1"):
        case.check()


def test_own_generator_finds_the_same_share_of_survivors(monte_carlo):
    """20,000 companies each: within 4 standard errors."""
    n = 20_000
    a = monte_carlo.by_numpy(monte_carlo.COMPANY, n, 60, 7, monte_carlo.Own)[0] > 60
    b = monte_carlo.simulate(monte_carlo.COMPANY, n, 60, seed=7).month_out > 60
    assert a.mean() == pytest.approx(b.mean(), abs=4 * (2 * 0.25 / n) ** 0.5)
