"""Pairs of numbers and the number of windows: what is taken, and the messages."""

import numpy as np
import pytest

from bigmodel_lab.ops._window import n_windows, pair


def test_a_number_serves_both_directions():
    assert pair("stride", 2, 1) == (2, 2)
    assert pair("stride", [2, 3], 1) == (2, 3)
    assert pair("stride", (np.int64(4), 1), 1) == (4, 1)


@pytest.mark.parametrize("value", [1.5, "2", None, (1, 2, 3), (1,), (1, 2.0)])
def test_what_is_no_pair(value):
    with pytest.raises(ValueError, match=r"^stride must be a whole number, or a pair of them"):
        pair("stride", value, 1)


def test_too_small():
    with pytest.raises(ValueError, match=r"^padding must be at least 0, got -1.$"):
        pair("padding", (3, -1), 0)


def test_number_of_windows_counted_by_hand():
    for size in range(1, 12):
        for k in range(1, size + 1):
            for s in range(1, 5):
                for p in range(3):
                    starts = [a for a in range(-p, size + p - k + 1) if (a + p) % s == 0]
                    got = n_windows((size, 11), (k, 11), (s, 1), (p, 0))
                    assert got == (len(starts), 1), (size, k, s, p)


def test_windows_that_do_not_fit():
    with pytest.raises(
        ValueError, match=r"^The window is 4 high and the image 1 \+ 2 \* 1 of padding: it must fit"
    ):
        n_windows((1, 9), (4, 2), (1, 1), (1, 0))
    with pytest.raises(ValueError, match=r"^The window is 3 wide and the image 2: it must fit"):
        n_windows((9, 2), (3, 3), (1, 1), (1, 0))
