"""Tables: every row is complete, sourced and dated; old ones warn by name; peaks follow from the silicon."""

import warnings
from datetime import date

import pytest

from bigmodel_lab.plan import StaleRow, device, grid, peak_from_clock, price, reliability, ridge
from bigmodel_lab.plan.published_serving import list_price, serving_day
from bigmodel_lab.plan.tables import TABLES, fits_on, rows
from bigmodel_lab.units import Q

ON = "2026-11-22"
FIND = {
    "devices": device,
    "prices": price,
    "grids": grid,
    "reliability": reliability,
    "list_prices": list_price,
    "serving_days": serving_day,
}


@pytest.mark.parametrize(("table", "name"), [(t, n) for t in TABLES for n in rows(t)])
def test_each_row(table, name):
    row = rows(table)[name]
    assert row["source"]
    assert date.fromisoformat(row["date"]) < date.fromisoformat(row["review"])
    assert None not in row, "more cells than columns: quote the commas"
    assert FIND[table](name, ON).name == name


def test_what_fits_on_which_device():
    """16-bit weights of Llama 2 70B, 138 GB, fit on a single H200 and larger; nothing holds Llama 3.1 405B's 812 GB."""
    assert fits_on(Q(138, "GB"), on=ON) == ["h200-sxm", "b200", "mi300x", "b300"]
    assert fits_on(Q(138, "GB"), 0.9, on=ON) == ["b200", "mi300x", "b300"]
    assert fits_on(Q(812, "GB"), on=ON) == []


def test_prices_are_ranges():
    for name in rows("prices"):
        p = price(name, ON)
        assert Q(0, "USD / device / hour") < p.low <= p.middle <= p.high
        assert name in rows("devices")


def test_a_stale_row_warns_and_names_itself():
    message = "row 'h100-sxm' of plan/tables/prices.csv is from 2026-05-01 and was to be reviewed by 2027-06-01"
    with pytest.warns(StaleRow, match=message):
        stale = price("h100-sxm", "2027-06-02")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fresh = price("h100-sxm", date(2027, 6, 1))
    assert stale == fresh


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: device("h100", ON), "device must be one of .* got 'h100'. Did you mean"),
        (lambda: price("b200", ON), "device with a price must be one of"),
        (lambda: device("a100-sxm-80gb", ON).peak("fp8"), "dtype of a100-sxm-80gb must be one of 'bf16', 'fp16', 'fp32', got 'fp8'"),
        (lambda: grid("mars", ON), "grid must be one of"),
        (lambda: reliability("ours", ON), "run must be one of"),
        (lambda: rows("planets"), "table must be one of"),
        (lambda: device("b200", "next year"), "on must be a day, YYYY-MM-DD, got 'next year'"),
    ],
)  # fmt: skip
def test_unknown(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "clock", "each", "units"),
    [("h100-sxm", 1830e6, 512 * 2, 528), ("a100-sxm-80gb", 1410e6, 256 * 2, 432)],
)
def test_peaks_follow_from_clock_and_tensor_cores(name, clock, each, units):
    """NVIDIA's H100 white paper (2022): 528 tensor cores x 512 multiply-adds at 1830 MHz. The often quoted 1980 MHz would give 1070 TFLOP/s."""
    peak = peak_from_clock(clock, each, units)
    assert (peak / device(name, ON).peak()).magnitude == pytest.approx(1, abs=1e-3)


def test_clock_trap():
    assert peak_from_clock(1980e6, 1024, 528).to("TFLOP/s").magnitude == pytest.approx(1070, abs=1)


@pytest.mark.parametrize(
    ("name", "printed"),
    [("a100-sxm-80gb", 153), ("h100-sxm", 295), ("h200-sxm", 206), ("b200", 281), ("mi300x", 245)],
)
def test_ridges(name, printed):
    """Ridge points in FLOP/byte from the sheets' dense peaks; MI300X from 1307 instead of the rounded 1300 TFLOP/s."""
    d = device(name, ON)
    assert ridge(d.peak(), d.bandwidth).magnitude == pytest.approx(printed, abs=1.7)


def test_a_v100_has_no_bf16():
    assert device("v100-sxm-32gb", ON).peak("fp16").to("TFLOP/s").magnitude == pytest.approx(125)
    with pytest.raises(ValueError, match="dtype of v100-sxm-32gb must be one of 'fp16', 'fp32'"):
        device("v100-sxm-32gb", ON).peak()


def test_peaks_are_dense():
    """The trap: a sheet's sparse peak is twice the dense one, and its fp8 dense is its bf16 sparse."""
    h100 = device("h100-sxm", ON)
    assert h100.peak("bf16").to("TFLOP/s").magnitude == pytest.approx(989.4)
    assert (h100.peak("fp8") / h100.peak("bf16")).magnitude == pytest.approx(2, abs=1e-3)
