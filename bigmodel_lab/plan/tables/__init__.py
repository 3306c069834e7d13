"""Rows of published numbers: devices, rental prices, power grids, failures. Each has its source, date and review date.

    >>> from bigmodel_lab.plan import device, price
    >>> device("h100-sxm").memory
    <Quantity(80, 'gigabyte')>

Peaks are dense; data sheets often print the doubled number for 2:4 sparsity. A row that is older than its review date
still answers, with a `StaleRow` warning that names it: pass `on="2026-11-22"` to ask as of a day (a notebook should).
"""

import csv
import warnings
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.resources import files

from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["Device", "Grid", "Price", "Reliability", "StaleRow", "device", "fits_on", "grid", "price", "reliability", "require_device", "rows"]  # fmt: skip

TABLES = ("devices", "grids", "list_prices", "prices", "reliability", "serving_days")


class StaleRow(UserWarning):
    """A row of a table is older than its review date."""


@dataclass(frozen=True)
class Device:
    """One accelerator; peaks are dense FLOP/s of one device."""

    name: str
    memory: Quantity  # as sold; a sheet's GB are mostly 2^30 bytes: the driver of an H100 shows 81,559 MiB, 85.5 GB
    bandwidth: Quantity  # of its memory
    peaks: dict[str, Quantity]  # FLOP / s by number format, the ones that the device has
    link: Quantity  # byte / s, one way, to all devices of its node together
    network: Quantity  # byte / s, one way, out of the node, its share
    power: Quantity  # thermal design power: an upper end, not a measurement
    per_node: int
    source: str
    date: date

    def peak(self, dtype: str = "bf16") -> Quantity:
        """Return the dense FLOP/s in `dtype`. Raises ValueError for a format that the device has not."""
        return self.peaks[require_choice(f"dtype of {self.name}", dtype, self.peaks)]


def require_device(device) -> Device:
    """Return `device`. Raises TypeError, with the way out, for another thing, such as a device's name."""
    if not isinstance(device, Device):
        hint = f": take plan.device({device!r})" if isinstance(device, str) else ""
        raise TypeError(f"device must be a Device, got {device!r}{hint}.")
    return device


@dataclass(frozen=True)
class Price:
    """What an hour of a device costs to rent: a range, since published prices conflict."""

    name: str
    low: Quantity
    middle: Quantity
    high: Quantity
    what: str
    source: str
    date: date


@dataclass(frozen=True)
class Grid:
    """Emissions of a kilowatt hour."""

    name: str
    intensity: Quantity
    source: str
    date: date


@dataclass(frozen=True)
class Reliability:
    """How often a device of a published run stopped the whole run."""

    name: str
    device_time_per_failure: Quantity
    source: str
    date: date


@cache
def rows(table: str) -> dict[str, dict[str, str]]:
    """Return a table as it stands in its CSV file: row by name, each a dict of texts."""
    require_choice("table", table, TABLES)
    text = files(__package__).joinpath(f"{table}.csv").read_text("utf-8")
    return {row["name"]: row for row in csv.DictReader(text.splitlines())}


def _row(table: str, what: str, name: str, on) -> dict[str, str]:
    row = rows(table)[require_choice(what, name, rows(table))]
    day = on or date.today()
    if not isinstance(day, date):
        try:
            day = date.fromisoformat(day)
        except (ValueError, TypeError):
            raise ValueError(f"on must be a day, YYYY-MM-DD, got {on!r}.") from None
    if day > date.fromisoformat(row["review"]):
        warnings.warn(
            f"row {name!r} of plan/tables/{table}.csv is from {row['date']} and was to be reviewed by {row['review']}: "
            f"check it against {row['source']}, or pass a number of your own.",
            StaleRow,
            stacklevel=3,
        )
    return row


def device(name: str, on: str | date | None = None) -> Device:
    """Return the accelerator `name` as of the day `on` (default: today). Raises ValueError for an unknown one."""
    r = _row("devices", "device", name, on)
    formats = ("bf16", "fp16", "fp8", "fp32")
    return Device(
        name=name,
        memory=Q(int(r["memory_GB"]), "GB"),
        bandwidth=Q(float(r["bandwidth_TB_per_s"]), "TB/s"),
        peaks={f: Q(float(x) * 1e12, "FLOP/s") for f in formats if (x := r[f"{f}_TFLOP_per_s"])},
        link=Q(float(r["link_GB_per_s"]), "GB/s"),
        network=Q(float(r["network_GB_per_s"]), "GB/s"),
        power=Q(float(r["watts"]), "W"),
        per_node=int(r["per_node"]),
        source=r["source"],
        date=date.fromisoformat(r["date"]),
    )


def fits_on(memory, share: float = 1.0, on: str | date | None = None) -> list[str]:
    """Return the devices that hold `memory` bytes in `share` of their memory, the smallest first."""
    need, part = number("memory", memory, "byte"), number("share", share, high=1, above=0)
    sizes = {name: device(name, on).memory.to("byte").magnitude for name in rows("devices")}
    return sorted((n for n, size in sizes.items() if need <= part * size), key=sizes.get)


def price(name: str, on: str | date | None = None) -> Price:
    """Return the rental price of device `name`, USD / (device hour), as of the day `on` (default: today)."""
    r = _row("prices", "device with a price", name, on)
    low, middle, high = (
        Q(float(r[c]), "USD / device / hour")
        for c in ("low_USD_per_h", "USD_per_h", "high_USD_per_h")
    )
    return Price(name, low, middle, high, r["what"], r["source"], date.fromisoformat(r["date"]))


def grid(name: str, on: str | date | None = None) -> Grid:
    """Return a power grid's emissions, kgCO2e / kWh, as of the day `on` (default: today)."""
    r = _row("grids", "grid", name, on)
    intensity = Q(float(r["kgCO2e_per_kWh"]), "kgCO2e / kWh")
    return Grid(name, intensity, r["source"], date.fromisoformat(r["date"]))


def reliability(name: str, on: str | date | None = None) -> Reliability:
    """Return how many device-hours a published run went between failures."""
    r = _row("reliability", "run", name, on)
    hours = Q(float(r["device_hours_per_failure"]), "device * hour")
    return Reliability(name, hours, r["source"], date.fromisoformat(r["date"]))
