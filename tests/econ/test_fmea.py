"""FMEA: what the product of three ranks can and cannot say."""

import itertools

import numpy as np
import pytest

from bigmodel_lab.econ import FailureMode, rank


def test_risk_priority_numbers():
    """Of 1000 combinations only 120 values arise, their mean is 166.375, and 51.3 % are at least 100: widely quoted facts
    about RPN (such as Bowles, 2003). Exact by counting."""
    all_of_them = [FailureMode("x", *sod).rpn for sod in itertools.product(range(1, 11), repeat=3)]
    assert len(set(all_of_them)) == 120
    assert np.mean(all_of_them) == 166.375
    assert np.mean(np.array(all_of_them) >= 100) == pytest.approx(0.513)


def test_ranking_by_product_hides_a_catastrophe():
    modes = (FailureMode("typo", 2, 9, 9), FailureMode("leak of all data", 10, 2, 5))
    assert [m.name for m in rank(modes)] == ["typo", "leak of all data"]
    assert [m.name for m in rank(modes, "severity")] == ["leak of all data", "typo"]


def test_refused():
    with pytest.raises(ValueError, match="severity of 'x' must be between 1 and 10, got 0"):
        FailureMode("x", 0, 1, 1)
    with pytest.raises(ValueError, match="detection of 'x' must be a whole number"):
        FailureMode("x", 1, 1, 1.5)
    with pytest.raises(ValueError, match="by must be 'rpn' or 'severity'"):
        rank((), "cost")


def test_asq_cash_dispenser():
    """N. Tague, The quality toolbox (ASQ): part of the FMEA of a bank's cash machine. Exact."""
    rows = {
        "out of cash": (8, 5, 5, 200), "machine jams": (8, 3, 10, 240), "power fails": (8, 2, 10, 160),
        "bills stuck": (6, 2, 7, 84), "wrong trays": (6, 3, 4, 72), "heavy traffic": (3, 7, 10, 210),
        "slow by power": (3, 2, 10, 60),
    }  # fmt: skip
    modes = tuple(FailureMode(name, *sod) for name, (*sod, _) in rows.items())
    assert [m.rpn for m in modes] == [printed for *_, printed in rows.values()]
    assert [m.name for m in rank(modes)][:3] == ["machine jams", "heavy traffic", "out of cash"]
    assert rank(modes, "severity")[0].name == "out of cash"
