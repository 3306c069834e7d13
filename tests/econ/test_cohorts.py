"""Cohort tables by hand, and the trap of their unobserved corner."""

import numpy as np
import pytest

from bigmodel_lab.econ import cohort_table, retention_curve


def test_by_hand():
    """Three customers join in month 0, one in month 1; customer 0 is active twice in month 1, which counts once."""
    share, size = cohort_table(
        [0, 0, 0, 1], [0, 1, 2, 3, 0, 0, 1, 3, 0], [0, 0, 0, 1, 1, 1, 1, 2, 2], months=3
    )
    assert size.tolist() == [3, 1, 0]
    np.testing.assert_allclose(share, [[1, 2 / 3, 1 / 3], [1, 1, np.nan], [np.nan] * 3])
    np.testing.assert_allclose(retention_curve(share, size), [1, 3 / 4, 1 / 3])


def test_unobserved_is_not_lost():
    """Everybody stays for ever: the curve is 1 at every age, though young cohorts were never seen at a late one."""
    joined = np.repeat(np.arange(6), 10)
    who = np.concatenate([np.full(6 - j, i) for i, j in enumerate(joined)])
    when = np.concatenate([np.arange(j, 6) for j in joined])
    share, size = cohort_table(joined, who, when, months=6)
    assert retention_curve(share, size).tolist() == [1] * 6
    assert np.isnan(share).sum() == 15


def test_refused():
    with pytest.raises(
        ValueError,
        match="active_month must not lie before the customer joined: event 0 is 1 months early",
    ):
        cohort_table([1], [0], [0], 3)
    with pytest.raises(ValueError, match=r"active_month\[0\] must be between 0 and 2, got 3"):
        cohort_table([1], [0], [3], 3)
    with pytest.raises(ValueError, match=r"joined\[0\] must be a whole number, got 0.5"):
        cohort_table([0.5], [0], [1], 3)
    with pytest.raises(ValueError, match="joined must hold one month a customer"):
        cohort_table([], [], [], 3)
    with pytest.raises(ValueError, match="months must be finite and at least 1 in month, got 0"):
        cohort_table([0], [0], [0], 0)
    with pytest.raises(ValueError, match="size must have one number a cohort"):
        retention_curve([[1.0, 0.5], [1.0, np.nan]], [4])
    with pytest.raises(ValueError, match=r"must have one length, got \(2,\) and \(1,\)"):
        cohort_table([1], [0, 0], [2], 3)
