"""Cap tables: the published examples, and the closed form against the legal definitions iterated until they hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.econ import POOL, CapTable, Safe, priced_round
from bigmodel_lab.units import Q

FOUNDERS = CapTable({"Ada": 6e6, "Ben": 4e6})


def test_yc_quick_start():
    """Y Combinator, Quick start guide (post-money SAFE): 1 M for 15 % is a cap of 6.7 M; 500 k at 6.7 M is 7.5 %; 500 k at
    5.5 M and 500 k at 8.3 M are 9.1 + 6.0 = 15.1 %. To the digits printed."""
    assert Safe("s", 1e6, 1e6 / 0.15).ownership == 0.15
    assert 1e6 / 0.15 == pytest.approx(6.7e6, abs=5e4)
    assert Safe("a", 500e3, 6.7e6).ownership == pytest.approx(0.075, abs=5e-4)
    two = Safe("b", Q(500, "kUSD"), Q(5.5, "MUSD")), Safe("c", 500e3, 8.3e6)
    assert [round(s.ownership, 3) for s in two] == [0.091, 0.060]
    assert sum(s.ownership for s in two) == pytest.approx(0.151, abs=5e-4)


def test_safes_own_their_share_until_the_new_money_comes():
    """What the SAFE says: 15.1 % before the round; a round that sells 20 % leaves four fifths of it. Exact."""
    safes = Safe("b", 500e3, 5.5e6), Safe("c", 500e3, 8.3e6)
    got = priced_round(FOUNDERS, 16e6, {"fund": 4e6}, safes)
    own = got.table.ownership()
    assert own["fund"] == pytest.approx(0.2)
    assert own["b"] == pytest.approx(0.8 * 500 / 5500)
    assert own["c"] == pytest.approx(0.8 * 500 / 8300)
    assert own["Ada"] / own["Ben"] == pytest.approx(1.5)
    assert sum(own.values()) == pytest.approx(1)
    assert got.price.magnitude * got.table.total == pytest.approx(20e6)
    assert got.sold == pytest.approx(0.2)
    assert got.safe_prices["b"] < got.price


def test_carta_medians_chain_and_do_not_divide():
    """Carta, State of private markets 2023: seed to D sell 20.5, 19.5, 17.2, 12.6 and 10.3 %: founders keep 41.54 %,
    pools left out. Q4 2024: SAFEs of 2.8 M at a cap of 18 M are 15.6 %, though the median sold is printed as 18.3 %: a
    quotient of medians is no median. To the digits printed."""
    table = CapTable({"founders": 1e7})
    for i, sold in enumerate((0.205, 0.195, 0.172, 0.126, 0.103)):
        table = priced_round(table, 1 - sold, {f"round {i}": sold}).table
    assert table.ownership()["founders"] == pytest.approx(0.4154, abs=5e-5)
    assert Safe("median", 2.8e6, 18e6).ownership == pytest.approx(0.156, abs=5e-4)


def by_definition(table, pre, amounts, safes, pool):
    """Iterate: capitalisation -> SAFE prices -> shares -> pool -> price, as the contracts read, until nothing changes."""
    E, unissued = table.total, table.shares.get(POOL, 0.0)
    C, price, new = E, pre / E, 0.0
    for _ in range(5000):
        paid = [
            min([(1 - s.discount) * price] + ([] if s.cap is None else [s.cap / C])) for s in safes
        ]
        C = E + sum(s.investment / p for s, p in zip(safes, paid, strict=True))
        T = C + new + sum(amounts) / price
        new = max(0.0, (pool or 0) * T - unissued) if pool is not None else 0.0
        price = 0.5 * price + 0.5 * pre / (C + new)
    return price, C + new + sum(amounts) / price, new


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.floats(1e4, 1e6), st.none() | st.floats(5e6, 3e7), st.sampled_from([0, 0.15, 0.3])
        ),
        max_size=3,
    ),
    st.floats(8e6, 4e7),
    st.none() | st.floats(0, 0.2),
    st.sampled_from([0.0, 5e5]),
)
def test_closed_form_is_the_definition(rows, pre, pool, unissued):
    safes = tuple(Safe(f"s{i}", *row) for i, row in enumerate(rows))
    table = CapTable({"founders": 1e7, POOL: unissued})
    got = priced_round(table, pre, {"fund": 3e6, "angel": 5e5}, safes, pool)
    price, T, new = by_definition(table, pre, [3e6, 5e5], safes, pool)
    assert got.price.magnitude == pytest.approx(price, rel=1e-7)
    assert got.table.total == pytest.approx(T, rel=1e-7)
    assert got.table.shares[POOL] == pytest.approx(unissued + new, rel=1e-6, abs=1e-3)
    if pool is not None:
        assert got.table.ownership()[POOL] >= pool - 1e-9


def test_the_pool_dilutes_founders_not_the_new_money():
    """The shuffle: a 10 % pool in the pre-money costs the founders 10 points and the fund none."""
    without = priced_round(FOUNDERS, 16e6, {"fund": 4e6}).table.ownership()
    with_pool = priced_round(FOUNDERS, 16e6, {"fund": 4e6}, pool=0.1).table.ownership()
    assert [without["fund"], with_pool["fund"]] == pytest.approx([0.2, 0.2])
    assert with_pool[POOL] == pytest.approx(0.1)
    assert without["Ada"] - with_pool["Ada"] == pytest.approx(0.06)


def test_a_safe_takes_what_gives_more():
    """A cap above the round does nothing; the discount does; without either it is the round's price."""
    for safe, part in [
        (Safe("s", 1e6, 100e6), 1 / 20), (Safe("s", 1e6, 100e6, 0.2), 1 / 16),
        (Safe("s", 1e6, None), 1 / 20), (Safe("s", 1e6, 10e6, 0.2), 0.8 / 10),
    ]:  # fmt: skip
        assert priced_round(FOUNDERS, 16e6, {"f": 4e6}, (safe,)).table.ownership()["s"] == (
            pytest.approx(part)
        )


def test_grants_come_out_of_the_pool():
    table = priced_round(FOUNDERS, 9e6, {"fund": 1e6}, pool=0.1).table
    after = table.grant("Cleo", 1e5)
    assert after.total == table.total
    assert after.shares[POOL] == table.shares[POOL] - 1e5
    with pytest.raises(ValueError, match="shares must be between 0 and"):
        table.grant("Cleo", 1e9)


def test_refused():
    with pytest.raises(
        ValueError, match="the round leaves nothing for the present holders: SAFEs at"
    ):
        priced_round(FOUNDERS, 10e6, {"f": 1e6}, (Safe("a", 1e6, 2e6), Safe("b", 1e6, 1.9e6)))
    with pytest.raises(ValueError, match=r"the pool 90\.0% of the company"):
        priced_round(FOUNDERS, 8e6, {"f": 2e6}, pool=0.9)
    with pytest.raises(ValueError, match="cap must be a finite number above 1e"):
        Safe("a", 1e6, 1e6)
    with pytest.raises(ValueError, match="discount must be below 1"):
        Safe("a", 1e6, discount=1)
    with pytest.raises(ValueError, match="its ownership depends on the round"):
        Safe("a", 1e6).ownership  # noqa: B018
    with pytest.raises(ValueError, match="safes must have different holders"):
        priced_round(FOUNDERS, 1e7, {"f": 1e6}, (Safe("a", 1e5, 1e7), Safe("a", 1e5, 1e7)))
    with pytest.raises(TypeError, match="pre_money must be a quantity in USD"):
        priced_round(FOUNDERS, Q(1e7, "USD / device"), {"f": 1e6})
    with pytest.raises(ValueError, match="investors must name at least one"):
        priced_round(FOUNDERS, 1e7, {})
    with pytest.raises(ValueError, match="shares of 'x' must be finite and at least 0, got -1"):
        CapTable({"x": -1})
    assert np.isclose(FOUNDERS.total, 1e7)


def test_yc_series_a_over_two_safes_and_a_pool():
    """K. Nathoo, Understanding SAFEs and priced equity rounds (Y Combinator): founders 9.25 M shares, 650 k options and 100 k
    left in the pool; 200 k at a 4 M cap (5 %) and 800 k at 8 M (10 %); then 5 M at 15 M pre-money with a pool of 10 %. Printed:
    11,764,705 shares after the SAFEs, 1,695,000 new options (rounded), 1.1144 USD a share. To the digits printed."""
    table = CapTable({"founders": 9.25e6, "team": 650e3, POOL: 100e3})
    safes = Safe("A", 200e3, 4e6), Safe("B", 800e3, 8e6)
    assert [s.ownership for s in safes] == [0.05, 0.10]
    got = priced_round(table, 15e6, {"Series A": 5e6}, safes, pool=0.10)
    n = got.table.shares
    assert int(table.total + n["A"] + n["B"]) == 11_764_705
    assert n["A"] == pytest.approx(588_235, abs=1)
    assert n["B"] == pytest.approx(1_176_470, abs=1)
    assert n[POOL] - 100e3 == pytest.approx(1_695_000, rel=1e-3)
    assert got.price.magnitude == pytest.approx(1.1144, abs=1e-4)
    assert got.table.ownership()["Series A"] == pytest.approx(0.25)
    assert got.table.ownership()["founders"] == pytest.approx(0.515, abs=5e-4)


def test_yc_standard_deal():
    """Y Combinator's deal since 2022: 125 k for 7 %, and 375 k uncapped with "most favoured nation": it takes the terms of the
    next SAFE. If that has a cap of 10 M, 3.75 % more. Exact."""
    deal = Safe("YC", 125e3, 125e3 / 0.07), Safe("YC MFN", 375e3, 10e6)
    assert sum(s.ownership for s in deal) == pytest.approx(0.1075)


def test_a_discount_rate_of_80_percent_is_a_discount_of_a_fifth():
    """The SAFE's text multiplies the price by its "Discount Rate": 100 k then buys shares for 125 k. Exact."""
    got = priced_round(FOUNDERS, 8e6, {"fund": 2e6}, (Safe("s", 100e3, discount=1 - 0.80),))
    assert got.safe_prices["s"].magnitude == pytest.approx(0.8 * got.price.magnitude)
    assert got.table.ownership()["s"] == pytest.approx(125e3 / 10e6)
