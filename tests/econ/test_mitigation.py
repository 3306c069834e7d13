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


def knapsack(costs, worths, budget):
    risks = tuple(Risk(f"r{i}", 1.0, float(x)) for i, x in enumerate(worths))
    items = tuple(Mitigation(f"m{i}", float(x), f"r{i}") for i, x in enumerate(costs))
    return choose_mitigations(risks, items, budget)


def test_published_knapsacks():
    """Cormen, Leiserson, Rivest and Stein, Introduction to algorithms, 16.2: 220, where the best ratio first gets 160; and the
    instances P01, P07 and P08 of J. Burkardt's collection (the last two from Kreher and Stinson), of 10, 15 and 24 items, with
    their optima. Exact."""
    assert knapsack([10, 20, 30], [60, 100, 120], 50).avoided.magnitude == 220
    p01 = [23, 31, 29, 44, 53, 38, 63, 85, 89, 82], [92, 57, 49, 68, 60, 43, 67, 84, 87, 72], 165
    got = knapsack(*p01)
    assert got.avoided.magnitude == 309
    assert got.chosen == ("m0", "m1", "m2", "m3", "m5")
    p07 = (
        [70, 73, 77, 80, 82, 87, 90, 94, 98, 106, 110, 113, 115, 118, 120],
        [135, 139, 149, 150, 156, 163, 173, 184, 192, 201, 210, 214, 221, 229, 240],
        750,
    )
    assert knapsack(*p07).avoided.magnitude == 1458
    p08 = (
        [382745, 799601, 909247, 729069, 467902, 44328, 34610, 698150, 823460, 903959, 853665, 551830,
         610856, 670702, 488960, 951111, 323046, 446298, 931161, 31385, 496951, 264724, 224916, 169684],
        [825594, 1677009, 1676628, 1523970, 943972, 97426, 69666, 1296457, 1679693, 1902996, 1844992,
         1049289, 1252836, 1319836, 953277, 2067538, 675367, 853655, 1826027, 65731, 901489, 577243,
         466257, 369261],
        6404180,
    )  # fmt: skip
    assert knapsack(*p08).avoided.magnitude == 13549094


def test_of_equal_sets_the_cheapest():
    """0.1 + 0.2 and 0.3 differ in their last bit, and are the same money."""
    risks = Risk("a", 1, 0.1), Risk("b", 1, 0.2), Risk("c", 1, 0.3)
    items = Mitigation("a", 2, "a"), Mitigation("b", 2, "b"), Mitigation("c", 3, "c")
    assert choose_mitigations(risks, items, 4).chosen == ("c",)


def test_refused():
    twice = (Risk("a", 0.5, 100.0), Risk("a", 0.5, 300.0))
    with pytest.raises(ValueError, match="register must name each risk once"):
        choose_mitigations(twice, (Mitigation("m", 1, "a"),), 5)
    with pytest.raises(ValueError, match="measures must have different names"):
        choose_mitigations(REGISTER, (Mitigation("m", 1, "a"), Mitigation("m", 1, "b")), 5)
    with pytest.raises(ValueError, match="risk of 'm' must be in the register"):
        choose_mitigations(REGISTER, (Mitigation("m", 1, "z"),), 5)
    with pytest.raises(ValueError, match="measures must be at most 24, got 25"):
        choose_mitigations(REGISTER, (Mitigation("m", 1, "a"),) * 25, 5)
    with pytest.raises(ValueError, match="reduces of 'm' must be between 0 and 1"):
        Mitigation("m", 1, "a", 2)
