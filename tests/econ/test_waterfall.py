"""Liquidation: textbook pay-offs by hand, and the conversion rule against every possible set of decisions."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.econ import Preferred, break_even_exit, waterfall
from bigmodel_lab.econ.waterfall import _pay
from bigmodel_lab.units import Q

COMMON = {"founders": 8e6}
A = Preferred("A", 2e6, 5e6)


def paid(proceeds, classes, common=COMMON):
    return {n: round(x.magnitude, 2) for n, x in waterfall(proceeds, classes, common).items()}


def test_one_class_by_hand():
    """5 M for 20 %: below 5 M all is the fund's; up to 25 M it takes its 5 M; beyond, its fifth."""
    assert paid(3e6, (A,)) == {"founders": 0, "A": 3e6}
    assert paid(20e6, (A,)) == {"founders": 15e6, "A": 5e6}
    assert paid(25e6, (A,)) == {"founders": 20e6, "A": 5e6}
    assert paid(Q(50, "MUSD"), (A,)) == {"founders": 40e6, "A": 10e6}


def test_participating_and_its_cap():
    """Full participation takes both; a cap of 3 holds it at 15 M until conversion brings more, at 75 M."""
    full = Preferred("A", 2e6, 5e6, participating=True)
    assert paid(50e6, (full,)) == {"founders": 36e6, "A": 14e6}
    capped = Preferred("A", 2e6, 5e6, participating=True, cap=3)
    assert paid(50e6, (capped,)) == {"founders": 36e6, "A": 14e6}
    assert paid(60e6, (capped,)) == {"founders": 45e6, "A": 15e6}
    assert paid(75e6, (capped,)) == {"founders": 60e6, "A": 15e6}
    assert paid(100e6, (capped,)) == {"founders": 80e6, "A": 20e6}


def test_seniority():
    """B, senior, is whole before A sees a dollar; as equals they share 4 M as 10 to 5."""
    senior = Preferred("B", 2e6, 10e6, seniority=1)
    assert paid(12e6, (A, senior)) == {"founders": 0, "A": 2e6, "B": 10e6}
    assert paid(9e6, (A, Preferred("B", 2e6, 10e6))) == {"founders": 0, "A": 3e6, "B": 6e6}
    assert paid(40e6, (A, Preferred("B", 2e6, 10e6, multiple=2)))["B"] == 20e6


def test_when_founders_see_money():
    assert break_even_exit("founders", 20e6, (A,), COMMON).magnitude == pytest.approx(25e6)
    assert break_even_exit("A", 10e6, (A,), COMMON).magnitude == pytest.approx(50e6)
    with pytest.raises(ValueError, match="holder must be one of"):
        break_even_exit("Zoe", 1, (A,), COMMON)


classes = st.builds(
    lambda shares, invested, multiple, kind, extra, rank: dict(
        shares=shares, invested=invested, multiple=multiple, seniority=rank,
        participating=kind > 0, cap=multiple + extra if kind == 2 else None,
    ),
    st.floats(1e5, 5e6), st.floats(1e5, 3e7), st.sampled_from([0.0, 1.0, 1.5, 2.0]),
    st.integers(0, 2), st.floats(0, 3), st.integers(0, 2),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(classes, max_size=4), st.floats(0, 3e8))
def test_nobody_would_rather_decide_otherwise(rows, proceeds):
    """Among all sets of conversions, the one taken leaves no class better off by changing its own mind, and its pay-offs
    are those of every other such set."""
    held = tuple(Preferred(f"p{i}", **row) for i, row in enumerate(rows))
    got = {n: x.magnitude for n, x in waterfall(proceeds, held, COMMON).items()}
    assert sum(got.values()) == pytest.approx(proceeds)
    assert min(got.values()) >= 0
    tolerance = 1e-7 * max(proceeds, 1)
    stable = []
    for k in range(len(held) + 1):
        for chosen in combinations(held, k):
            pay = _pay(proceeds, held, chosen, COMMON)
            if all(
                _pay(proceeds, held, [q for q in held if (q in chosen) != (q is p)], COMMON)[p.name]
                <= pay[p.name] + tolerance
                for p in held
            ):
                stable.append(pay)
    assert any(all(abs(got[n] - pay[n]) < 10 * tolerance for n in got) for pay in stable)


@settings(max_examples=50, deadline=None)
@given(st.lists(classes, max_size=3), st.floats(0, 2e8), st.floats(1, 1.5))
def test_more_proceeds_hurt_nobody(rows, proceeds, factor):
    held = tuple(Preferred(f"p{i}", **row) for i, row in enumerate(rows))
    less, more = (waterfall(x, held, COMMON) for x in (proceeds, proceeds * factor))
    assert all(more[n].magnitude >= less[n].magnitude - 1e-6 * (1 + proceeds) for n in less)


def test_refused():
    with pytest.raises(ValueError, match="cap of 'A' belongs to a participating class"):
        Preferred("A", 1, 1, cap=2)
    with pytest.raises(ValueError, match="cap of 'A' must be finite and at least 2"):
        Preferred("A", 1, 1, multiple=2, participating=True, cap=1)
    with pytest.raises(ValueError, match="names of holders must differ"):
        waterfall(1e6, (A, A), COMMON)
    with pytest.raises(ValueError, match="proceeds must be finite and at least 0 in USD, got -1"):
        waterfall(-1, (A,), COMMON)
    with pytest.raises(
        ValueError, match="the sum of common shares must be a finite number above 0"
    ):
        waterfall(1, (A,), {})
    with pytest.raises(ValueError, match=r"amount=1e.*is beyond what 'A' can get"):
        break_even_exit("A", 1e12, (A,), COMMON)


@pytest.mark.parametrize(
    ("sale", "plain", "full", "capped"),
    [(5, 5.0, 5.0, 5.0), (10, 5.0, 6.7, 6.7), (30, 10.0, 13.3, 13.3), (100, 33.3, 36.7, 33.3)],
)
def test_feld_and_mendelson(sale, plain, full, capped):
    """B. Feld and J. Mendelson, Venture Deals, and Feld's posts on term sheets: 5 M at 10 M pre-money buys a third. What the
    fund gets, MUSD, of sales at 5, 10, 30 and 100 M: 1x, 1x participating, the same capped at 3x. To the digit printed."""
    kinds = ({}, dict(participating=True), dict(participating=True, cap=3))
    got = [
        waterfall(sale * 1e6, (Preferred("fund", 5e6, 5e6, **k),), {"founders": 10e6})
        for k in kinds
    ]
    assert [round(x["fund"].magnitude / 1e6, 1) for x in got] == [plain, full, capped]
