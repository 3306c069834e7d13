"""What `require_shape` accepts and says."""

import numpy as np
import pytest

from bigmodel_lab.errors import require_shape


def test_lengths_by_letter():
    assert require_shape("x", np.zeros((2, 3)), "N D", D=3) == {"N": 2, "D": 3}
    assert require_shape("w", np.zeros((3, 3)), "D D") == {"D": 3}
    assert require_shape("s", np.zeros(()), "") == {}


@pytest.mark.parametrize(
    ("shape", "dims", "known", "message"),
    [
        ((3,), "N D", {}, r"x must have shape \(N, D\), got 1 dimension: \(3,\)\."),
        ((2, 4), "N D", {"D": 3}, r"x must have shape \(N, D\) with D=3, got D=4: \(2, 4\)\."),
        (
            (3, 4),
            "D D",
            {},
            r"x must have shape \(D, D\), got more than one length for D: \(3, 4\)\.",
        ),
        ((3, 4), "D D", {"D": 3}, r"with D=3, got D=4: \(3, 4\)\."),
    ],
)
def test_what_is_said_of_another_shape(shape, dims, known, message):
    with pytest.raises(ValueError, match=message):
        require_shape("x", np.zeros(shape), dims, **known)


def test_only_arrays():
    with pytest.raises(
        TypeError, match=r"x must be a NumPy array, got list: wrap it in np.asarray"
    ):
        require_shape("x", [1.0], "N")
