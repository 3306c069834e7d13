"""units: kinds of quantity do not mix, and each message names argument, rule and value."""

import copy
import math
import pickle

import numpy as np
import pint
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.units import Q, number, spell, whole


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("USD", "USD / token"),
        ("byte", "token"),
        ("byte", "dimensionless"),
        ("FLOP", "FLOP / s"),
        ("device", "dimensionless"),
        ("kWh", "kW"),
        ("tCO2e", "kWh"),
        ("parameter", "token"),
    ],
)
def test_kinds_do_not_add(one, other):
    with pytest.raises(pint.DimensionalityError):
        Q(1.0, one) + Q(1.0, other)


def test_prefixes_of_ten_and_of_two_differ():
    assert Q(1, "GiB").to("byte").magnitude == 2**30
    assert Q(1.0, "GB").to("byte").magnitude == pytest.approx(1e9, rel=1e-15)
    assert Q(1.0, "PFLOP/s * day").to("FLOP").magnitude == pytest.approx(8.64e19, rel=1e-15)
    assert Q(1.0, "year").to("day").magnitude == 365.25
    assert Q(1e6, "gCO2e").to("tCO2e").magnitude == pytest.approx(1, rel=1e-15)


def test_pickling_keeps_the_kind():
    price = Q(2.95, "USD / device / hour")
    again = pickle.loads(pickle.dumps(price))
    assert again == price
    assert (again + price).magnitude == 5.9
    with pytest.raises(pint.DimensionalityError):
        pickle.loads(pickle.dumps(Q(3, "byte"))) + 5
    assert copy.deepcopy(price) == price


@settings(deadline=None)
@given(st.floats(0, 1e30))
def test_number_takes_plain_numbers_and_quantities(x):
    assert number("time", x, "s") == x
    assert number("time", Q(x, "hour"), "s") == pytest.approx(3600 * x, rel=1e-14)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("devices", -1, "device"), {}, ValueError, r"devices must be finite and at least 0 in device, got -1\."),
        (("mfu", 45.7), dict(high=1), ValueError, r"mfu must be between 0 and 1, got 45.7: write 45.7 % as 0.457\."),
        (("time", math.nan, "s"), {}, ValueError, r"time must be finite and at least 0 in s, got nan\."),
        (("time", math.inf, "s"), {}, ValueError, r"time must be finite"),
        (("time", 0, "s"), dict(above=0), ValueError, r"time must be a finite number above 0 in s, got 0\."),
        (("cost", Q(1, "USD/token"), "USD"), {}, TypeError, r"cost must be a quantity in USD, got 1 USD / token: its unit"),
        (("share", Q(1, "USD")), {}, TypeError, r"share must be a pure number, got 1 USD"),
        (("cost", "7", "USD"), {}, TypeError, r"cost must be a number in USD, or a quantity, got '7'\."),
        (("cost", True, "USD"), {}, TypeError, r"got True"),
        (("cost", None, "USD"), {}, TypeError, r"got None"),
        (("cost", [1, 2], "USD"), {}, TypeError, r"cost must be a number in USD, or a quantity, got \[1, 2\]\."),
        (("cost", np.ones(2), "USD"), {}, TypeError, r"cost must be a number in USD"),
        (("tokens", 10**400, "token"), {}, ValueError, r"tokens must be finite and at least 0 in token, got inf\."),
        (("mfu", 1.2), dict(high=1), ValueError, r"mfu must be between 0 and 1, got 1.2\."),
    ],
)  # fmt: skip
def test_number_refuses(arguments, options, error, message):
    with pytest.raises(error, match=message):
        number(*arguments, **options)


def test_whole():
    assert whole("n", 8.0) == 8
    assert whole("n", 174_604_259_328, "parameter") == 174_604_259_328
    assert whole("n", Q(2**60 + 1, "byte"), "byte") == 2**60 + 1
    with pytest.raises(ValueError, match=r"n must be a whole number of token, got 7.5\."):
        whole("n", 7.5, "token")


@pytest.mark.parametrize(
    ("quantity", "text"),
    [
        (Q(80.312e9, "byte"), "80.31 GB"),
        (Q(3.35, "TB/s").to("byte/s"), "3.35 TB/s"),
        (Q(5_576_000.0, "USD"), "5,576,000 USD"),
        (Q(3.1428e23, "FLOP"), "3.143e+23 FLOP"),
        (Q(124_439_808, "parameter"), "124,439,808 parameter"),
        (Q(33.94, "day"), "33.94 day"),
        (0.457, "0.457"),
    ],
)
def test_spell(quantity, text):
    assert spell(quantity) == text
