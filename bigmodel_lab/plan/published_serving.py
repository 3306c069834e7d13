"""What others charge for tokens, and what one of them published about a day of serving: to hold a plan against.

    revenue = uncached prompts x input price + cached prompts x cached price + outputs x output price

The rows are `tables/list_prices.csv` and `tables/serving_days.csv`, each with its source, date and review date. A list price
is what is asked, not what is paid: volume discounts, free use and batch rates lie below it. Told in lab L08.
"""

from dataclasses import dataclass
from datetime import date

from bigmodel_lab.plan.tables import _row
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["ListPrice", "ServingDay", "list_price", "serving_day"]


@dataclass(frozen=True)
class ListPrice:
    """What a provider asks for a million tokens of a model."""

    name: str  # provider/model
    model: str  # of the same shape, in `plan.MODELS`
    input: Quantity  # USD / Mtoken
    cached_input: Quantity  # USD / Mtoken of a prompt whose keys and values are kept; as `input` if there is no such price
    output: Quantity  # USD / Mtoken
    source: str
    date: date

    def revenue(self, prompt, output, cached=0) -> Quantity:
        """Return USD for `prompt` tokens, of which `cached` are charged as such, and `output` tokens.

        Raises ValueError if more are cached than there are.
        """
        kept = number("cached", cached, "token")
        read = number("prompt", prompt, "token", low=kept) - kept
        usd = read * self.input.magnitude + kept * self.cached_input.magnitude
        return Q((usd + number("output", output, "token") * self.output.magnitude) / 1e6, "USD")


@dataclass(frozen=True)
class ServingDay:
    """A day of serving as its company published it."""

    name: str
    model: str
    device: str
    mean_devices: Quantity  # over the day
    peak_devices: Quantity
    prompt: Quantity  # tokens, cached ones included
    cached: Quantity  # tokens
    output: Quantity  # tokens
    price: Quantity  # USD / (device hour) that the company assumed
    cost: Quantity  # USD, as printed
    revenue: Quantity  # USD, as printed
    source: str
    date: date

    @property
    def device_time(self) -> Quantity:
        """Device-hours of the 24 hours."""
        return Q(24 * self.mean_devices.magnitude, "device * hour")


def list_price(name: str, on: str | date | None = None) -> ListPrice:
    """Return the list price `name` as of the day `on` (default: today). Raises ValueError for an unknown one."""
    r = _row("list_prices", "list price", name, on)
    prices = (
        Q(float(r[f"{c}_USD_per_Mtoken"] or r["input_USD_per_Mtoken"]), "USD / Mtoken")
        for c in ("input", "cached_input", "output")
    )
    return ListPrice(name, r["model"], *prices, r["source"], date.fromisoformat(r["date"]))


def serving_day(name: str, on: str | date | None = None) -> ServingDay:
    """Return the published day `name` as of the day `on` (default: today). Raises ValueError for an unknown one."""
    r = _row("serving_days", "serving day", name, on)
    units = {
        "mean_devices": "device",
        "peak_devices": "device",
        "input_tokens": "token",
        "cached_input_tokens": "token",
        "output_tokens": "token",
        "USD_per_h": "USD / device / hour",
        "cost_USD": "USD",
        "revenue_USD": "USD",
    }
    numbers = (Q(float(r[column]), unit) for column, unit in units.items())
    return ServingDay(
        name, r["model"], r["device"], *numbers, r["source"], date.fromisoformat(r["date"])
    )
