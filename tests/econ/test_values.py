"""Argument checks of the room: what passes keeps its value, what does not is named with its place."""

import numpy as np
import pytest

from bigmodel_lab.econ.values import array, counts, probabilities, ratio, share
from bigmodel_lab.units import Q


def test_arrays_come_in_the_unit_asked_for():
    want = [1000.0, 2000.0]
    for given in (want, Q(np.array([1.0, 2.0]), "kUSD"), [Q(1, "kUSD"), Q(2000, "USD")]):
        assert array("flows", given, "USD").tolist() == want
    assert array("flows", 3, "USD").shape == ()


def test_the_first_wrong_element_is_named():
    with pytest.raises(
        ValueError, match=r"flows\[1\] must be finite and at least 0 in USD, got -2"
    ):
        array("flows", [1, -2, -3], "USD")
    with pytest.raises(ValueError, match=r"x\[0, 1\] must be between 0 and 1, got nan"):
        array("x", [[0.5, np.nan]], high=1)
    with pytest.raises(ValueError, match=r"x must be finite and at least 0, got inf"):
        array("x", np.inf)
    with pytest.raises(TypeError, match=r"flows\[1\] must be a quantity in USD, got 1 USD / token"):
        array("flows", [Q(1, "USD"), Q(1, "USD / token")], "USD")
    with pytest.raises(TypeError, match="flows must be a quantity in USD, got"):
        array("flows", Q(np.array([1.0]), "USD / token"), "USD")
    with pytest.raises(TypeError, match="x must hold numbers, got dtype bool"):
        array("x", [True])


def test_counts_are_whole():
    got = counts("chosen", [0, 2.0], high=2)
    assert got.dtype == np.int64
    assert got.tolist() == [0, 2]
    with pytest.raises(ValueError, match=r"chosen\[1\] must be a whole number, got 1\.5"):
        counts("chosen", [1, 1.5])
    with pytest.raises(ValueError, match=r"chosen\[0\] must be between 0 and 2, got 3"):
        counts("chosen", [3], high=2)


def test_probabilities_sum_to_one():
    assert probabilities("p", (x / 10 for x in (1, 2, 7))).sum() == pytest.approx(1)
    with pytest.raises(ValueError, match=r"p must sum to 1, got 0\.9: divide each by the sum if"):
        probabilities("p", [0.4, 0.5])
    with pytest.raises(
        ValueError, match=r"p\[0\] must be between 0 and 1, got 40: write 40 % as 0\.4"
    ):
        probabilities("p", [40, 60])


def test_shares_and_ratios():
    assert share("x", Q(30, "percent")) == pytest.approx(0.3)
    assert ratio("a", Q(3, "kUSD"), "b", Q(2000, "USD")) == 1.5
    with pytest.raises(TypeError, match="a must be a quantity in USD, got 1 USD / token"):
        ratio("a", Q(1, "USD / token"), "b", Q(1, "USD"))
    with pytest.raises(ValueError, match="b must be a finite number above 0, got 0"):
        ratio("a", 1, "b", 0)
