"""Arithmetic of intervals, against sets of whole numbers."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.dist.intervals import both, length, minus, union

some = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 6)).map(lambda x: (x[0], x[0] + x[1])), max_size=8
)


def points(intervals) -> set[int]:
    return {n for start, end in intervals for n in range(start, end)}


@given(some, some)
def test_as_sets(a, b):
    a_set, b_set, a, b = points(a), points(b), union(a), union(b)
    for got, want in ((a, a_set), (minus(a, b), a_set - b_set), (both(a, b), a_set & b_set)):
        assert points(got) == want
        assert length(got) == len(want)
        assert all(start < end for start, end in got)
        assert all(x[1] < y[0] for x, y in pairwise(got))
