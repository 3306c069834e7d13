"""The graders of c21 and c24 towards answers that are right in another way, and that are wrong in a way of their own."""

import numpy as np
import pytest

from bigmodel_lab.course.exercises import Miss, c21, c24


def _check(module, exercise):
    return next(e for e in module.EXERCISES if e.id == exercise).check


@pytest.mark.parametrize("method", ["higher", "linear", "nearest"])
def test_smallest_raise_may_be_any_quantile(method):
    """Chapter 24 itself takes the upper one; with few futures that is a whole future further up."""

    def smallest_raise(paths, chance=0.1):
        hole = np.maximum(-paths.min(axis=1), 0)
        return float(np.quantile(hole, 1 - chance, method=method))

    assert _check(c24, "c24-d")(smallest_raise)


def test_shares_that_exceed_the_whole_are_told_so():
    def ownership(investments, caps, sold):
        safes = investments / caps
        return np.array([(1 - safes.sum()) * (1 - sold), *safes, sold])

    with pytest.raises(Miss, match=r"add up to 1\.030"):
        _check(c24, "c24-b")(ownership)


def test_smallest_fee_names_a_mistake_only_if_it_explains_every_answer():
    """With the first six customers the median's neighbour is also what counting from the lightest gives."""

    def smallest_fee(tokens, cost, losing):
        return float(np.sort(tokens)[len(tokens) // 2 - 1] * cost / 1e6)

    with pytest.raises(Miss) as told:
        _check(c21, "c21-d")(smallest_fee)
    assert "from the lightest" not in str(told.value)
    assert "the smallest fee is" in str(told.value)
