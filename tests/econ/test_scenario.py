"""Scenario files: what is saved is loaded to the last bit, and what is wrong is refused with file, key, rule, value, way out."""

import json
import math
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.econ import (
    UNCERTAIN,
    Company,
    FundingRound,
    Scenario,
    load_scenario,
    save_scenario,
    simulate,
)
from bigmodel_lab.units import Q

COMPANY = Company(
    cash=Q(3, "MUSD"), price=Q(60, "USD / customer / month"), serving_cost=0.1 + 0.2, fixed=150e3, new_customers=400, churn=0.04,
    growth=-0.01, shock=0.3, persistence=0.6, incident_probability=0.02, incident_cost=2e5,
    rounds=(FundingRound(18, Q(4, "MUSD"), 0.6, needs=5e5), FundingRound(40, 9e6)),
    unsure=dict(churn=0.3, price=1 / 3),
)  # fmt: skip
BASE = Scenario("base / 基准", COMPANY, 48, {"price": "list price of 2026-11"})


@pytest.fixture
def edited(tmp_path):
    """Save the base scenario, change its content, and return the path."""

    def write(change):
        path = save_scenario(BASE, tmp_path / "base.json")
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content), "utf-8")
        return path

    return write


def test_round_trip(tmp_path):
    path = save_scenario(BASE, tmp_path / "base.json")
    again = load_scenario(path)
    assert again == BASE
    assert again.company == COMPANY.plain()
    assert again.sources["price"] == "list price of 2026-11"
    assert again.sources["cash"] == "assumed"
    assert save_scenario(again, tmp_path / "again.json").read_bytes() == path.read_bytes()
    a, b = simulate(COMPANY, 500), simulate(again.company, 500)
    assert (a.cash == b.cash).all()
    assert sorted(os.listdir(tmp_path)) == ["again.json", "base.json"]


positive = st.floats(0, 1e12)
rates = st.floats(0, 1)


@settings(max_examples=60, deadline=None)
@given(
    amounts=st.tuples(*[positive] * 7), churn=rates, growth=st.floats(-1, 1), market=st.floats(1e-3, 1e12),
    unsure=st.dictionaries(st.sampled_from(UNCERTAIN), st.floats(0, 5)),
    rounds=st.lists(st.tuples(st.integers(1, 600), positive, rates, positive), max_size=3),
    months=st.integers(1, 1200), name=st.text(min_size=1).filter(str.strip),
)  # fmt: skip
def test_any_company_round_trips(
    tmp_path_factory, amounts, churn, growth, market, unsure, rounds, months, name
):
    cash, price, serving_cost, fixed, new, cac, incident = amounts
    company = Company(
        cash, price, serving_cost, fixed, new, churn, growth, market, cac=cac, incident_cost=incident,
        rounds=tuple(FundingRound(*r) for r in rounds), unsure=unsure,
    )  # fmt: skip
    if any("\ud800" <= c <= "\udfff" for c in name):
        return  # no UTF-8 for half a surrogate pair
    scenario = Scenario(name, company, months)
    path = save_scenario(scenario, tmp_path_factory.mktemp("s") / "s.json")
    assert load_scenario(path) == scenario


def test_the_mark_that_some_editors_put_first_is_no_error(tmp_path):
    path = save_scenario(BASE, tmp_path / "base.json")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_scenario(path) == BASE


def test_one_line_an_assumption(tmp_path):
    lines = save_scenario(BASE, tmp_path / "base.json").read_text("utf-8").splitlines()
    assert '  "churn": {"value": 0.04, "unit": "1", "source": "assumed"},' in lines
    assert '  "cash": {"value": 3000000.0, "unit": "USD", "source": "assumed"},' in lines


def test_another_unit_of_the_same_kind_is_converted(edited):
    def change(c):
        c["company"]["fixed"] |= {"value": 2.4, "unit": "MUSD / year"}
        c["rounds"][0]["amount"] = {"value": 4, "unit": "MUSD"}

    company = load_scenario(edited(change)).company
    assert company.fixed == pytest.approx(200e3)
    assert company.rounds[0].amount == 4e6


def put(where, value):
    """Return a change that puts `value` at a path such as company.churn.value."""

    def change(content):
        *path, last = where.split(".")
        for key in path:
            content = content[int(key) if key.isdigit() else key]
        content[int(last) if last.isdigit() else last] = value

    return change


def drop(where):
    def change(content):
        *path, last = where.split(".")
        for key in path:
            content = content[int(key) if key.isdigit() else key]
        del content[last]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("kind", "run"), '"kind" must be \'bigmodel-lab scenario\': this file is something else'),
        (put("version", 2), '"version" must be 1, which is what this bigmodel-lab reads, got 2'),
        (put("version", True), '"version" must be 1'),
        (put("extra", 1), "a key of the file must be one of .* got 'extra'"),
        (put("company.chrun", {}), "a key of company must be one of .* got 'chrun'. Did you mean 'churn'"),
        (drop("company.churn"), "company must have every one of .*, got none called churn: add it"),
        (drop("months"), "the file must have every one of .*, got none called months"),
        (drop("company.price.source"), "company.price must have every one of value, unit, source, got none called source"),
        (put("company.price.unit", "USD"), "company.price.unit must be 'USD / customer / month' or convert to it, got 'USD': write"),
        (put("company.price.unit", "bananas"), "company.price.unit must be .*, got 'bananas'"),
        (put("company.price.unit", "((("), "company.price.unit must be "),
        (put("company.price.unit", None), "company.price.unit must be .*, got None"),
        (put("company.churn.unit", "percent"), "company.churn.unit must be '1', got 'percent'"),
        (put("company.churn.value", 4), "company.churn must be between 0 and 1, got 4: write 4 % as 0.04"),
        (put("company.churn.value", math.nan), "a value must be a finite number, got NaN: write the number"),
        (put("company.churn.value", math.inf), "a value must be a finite number, got Infinity"),
        (put("company.cash.value", "3M"), "company.cash.value must be a number, got '3M': write"),
        (put("company.cash.value", True), "company.cash.value must be a number, got True"),
        (put("company.cash.value", 10**400), "company.cash.value must be a finite number below 1e300"),
        (put("company.cash.value", -1), "company.cash must be finite and at least 0 in USD, got -1"),
        (put("company.cash", 3e6), "company.cash must be an object with value, unit, source, got 3000000"),
        (put("company.cash.source", ""), 'company.cash.source must be a text, got \'\': write "assumed"'),
        (put("company", []), r"company must be an object with .*, got \[\]"),
        (put("rounds", {}), r"rounds must be a list, got \{\}: write \[\]"),
        (put("rounds.0.month.value", 1.5), r"rounds\[0\].month must be a whole number of month, got 1.5"),
        (put("rounds.0.probability.value", 1.5), r"rounds\[0\].probability must be between 0 and 1"),
        (put("rounds.0.when", 3), r"a key of rounds\[0\] must be one of .* got 'when'"),
        (put("unsure", []), r"unsure must be an object, got \[\]"),
        (put("unsure.cash", {"value": 0.1, "unit": "1"}), "a key of unsure must be one of .* got 'cash'"),
        (put("unsure.churn.value", 9), r"company.unsure\['churn'\] must be between 0 and 5"),
        (put("unsure.churn", 0.3), "unsure.churn must have a value and a unit, got 0.3: write"),
        (put("months.value", 0), "months must be finite and at least 1|months must be between 1 and 1200 in month, got 0"),
        (put("name", ""), "name must be a text, not empty"),
    ],
)  # fmt: skip
def test_refused(edited, change, said):
    with pytest.raises(ValueError, match=r"^base\.json: .*" + f"({said})"):
        load_scenario(edited(change))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1 must be JSON, got expecting value at column 1"),
        (b'{\n "kind": "x",\n', "line 3 must be JSON"),
        (b"\xff\xfe", "must be UTF-8 text"),
        (b"[1]", "this file is something else"),
        (b'{"kind": "bigmodel-lab scenario", "kind": "x"}', "key 'kind' must stand there once"),
        (b"[" * 100_000, "brackets without end"),
    ],
    ids=str,
)
def test_what_is_no_scenario(tmp_path, content, said):
    path = tmp_path / "s.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^s\.json: .*" + said):
        load_scenario(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_scenario(tmp_path / "none.json")


def test_what_cannot_be_a_scenario():
    with pytest.raises(ValueError, match=r"a name in sources must be one of .* got 'chrun'"):
        Scenario("x", COMPANY, sources={"chrun": "y"})
    with pytest.raises(TypeError, match="name must be a text"):
        Scenario(" ", COMPANY)
    with pytest.raises(TypeError, match="company must be a Company"):
        Scenario("x", 3)
    with pytest.raises(ValueError, match="months must be a whole number"):
        Scenario("x", COMPANY, 1.5)
