"""Mitigation under a budget against every subset."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.econ import Mitigation, Risk, choose_mitigations

REGISTER = (Risk("a", 0.5, 100.0), Risk("b", 0.1, 900.0), Risk("c", 1.0, 20.0))


def test_the_best_ratio_first_can_be_wrong():
    """10 for 12 is the better ratio and keeps the money from 90 for 100."""
    cheap, good = Mitigation("cheap", 10, "a", 0.24), Mitigation("good", 100, "b")
    got = choose_mitigations(REGISTER, (cheap, good), 100)
    assert got.chosen == ("good",)
    assert got.avoided.magnitude == pytest.approx(90)
    assert got.left.magnitude == pytest.approx(70)


measures = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from("abc"), st.floats(0, 1)), max_size=7
)


@settings(max_examples=150, deadline=None)
@given(measures, st.integers(0, 150))
def test_against_every_subset(rows, budget):
    items = tuple(Mitigation(f"m{i}", *row) for i, row in enumerate(rows))
    best = 0.0
    for k in range(len(items) + 1):
        for chosen in combinations(items, k):
            if sum(m.cost for m in chosen) <= budget:
                left = {"a": 50.0, "b": 90.0, "c": 20.0}
                for m in chosen:
                    left[m.risk] *= 1 - m.reduces
                best = max(best, 160 - sum(left.values()))
    got = choose_mitigations(REGISTER, items, budget)
    assert got.avoided.magnitude == pytest.approx(best, abs=1e-9)
    assert got.cost.magnitude <= budget
    assert got.cost.magnitude == sum(m.cost for m in items if m.name in got.chosen)


def test_refused():
    with pytest.raises(ValueError, match="risk of 'm' must be in the register"):
        choose_mitigations(REGISTER, (Mitigation("m", 1, "z"),), 5)
    with pytest.raises(ValueError, match="measures must be at most 24, got 25"):
        choose_mitigations(REGISTER, (Mitigation("m", 1, "a"),) * 25, 5)
    with pytest.raises(ValueError, match="reduces of 'm' must be between 0 and 1"):
        Mitigation("m", 1, "a", 2)
