"""Quantities with units, for the public edge of `plan` and `econ`: adding dollars to dollars per token raises.

    >>> from bigmodel_lab.units import Q
    >>> Q(2, "USD / device / hour") * Q(2788e3, "device * hour")
    <Quantity(5576000.0, 'USD')>

The registry is our own and small. In pint's default one a byte is a pure number, so that 3 bytes + 2 tokens = 5; here
bytes, FLOP, tokens, parameters, devices and dollars are dimensions of their own. A year is 365.25 days. Prefixes in
powers of ten (kB, GB) and of two (KiB, GiB) are both there and are different.

Functions take a quantity, or a plain number in the unit that their docstring names; they return quantities. Inner loops
take magnitudes.
"""

import math

import pint

__all__ = ["Q", "Quantity", "number", "registry", "spell", "whole"]

_DEFINITIONS = """
milli- = 1e-3 = m-
micro- = 1e-6 = u-
nano- = 1e-9 = n-
kilo- = 1e3 = k-
mega- = 1e6 = M-
giga- = 1e9 = G-
tera- = 1e12 = T-
peta- = 1e15 = P-
exa- = 1e18 = E-
zetta- = 1e21 = Z-
yotta- = 1e24 = Y-
kibi- = 2**10 = Ki-
mebi- = 2**20 = Mi-
gibi- = 2**30 = Gi-
tebi- = 2**40 = Ti-
percent = 0.01 = %
nat = 1
second = [time] = s
minute = 60 * second = min
hour = 60 * minute = h
day = 24 * hour
week = 7 * day
year = 365.25 * day
month = year / 12
joule = [energy] = J
watt = joule / second = W
watt_hour = 3600 * joule = Wh
byte = [information] = B
bit = byte / 8
FLOP = [operation]
token = [token]
parameter = [parameter]
sample = [sample]
request = [request]
device = [device]
customer = [customer]
USD = [currency]
gCO2e = [emission]
tCO2e = 1e6 * gCO2e
"""

registry = pint.UnitRegistry(None)
registry.load_definitions(_DEFINITIONS.strip().splitlines())
Quantity = registry.Quantity
Q = Quantity  # Q(80, "GB")


def _restore(magnitude, unit: str):
    return Quantity(magnitude, unit)


# pint would unpickle a quantity into the process's default registry, where a byte is a pure number.
Quantity.__reduce__ = lambda self: (_restore, (self.magnitude, str(self.units)))


def number(
    name: str,
    value,
    unit: str = "",
    low: float = 0.0,
    high: float = math.inf,
    *,
    above: float | None = None,
) -> float:
    """Return `value` as a float in `unit`, checked.

    Parameters
    ----------
    name : the argument's name, for the message
    value : a quantity that can be converted to `unit`, or a plain number that is in `unit` already
    unit : such as "byte / s"; "" for a pure number
    low, high : the allowed range, ends included; infinity and NaN are never allowed
    above : if given, the value must be greater than this (for what is divided by)

    Raises TypeError for what is no number or has another dimension, ValueError outside the range.
    """
    said = f" in {unit}" if unit else ""
    if isinstance(value, pint.Quantity):
        given = value
        try:
            value = (
                Quantity(value.magnitude, str(value.units)).to(unit or "dimensionless").magnitude
            )
        except (pint.DimensionalityError, pint.UndefinedUnitError):
            raise TypeError(
                f"{name} must be {f'a quantity{said}' if unit else 'a pure number'}, got {given}: its unit is another kind."
            ) from None
    try:
        x = None if isinstance(value, bool | str | bytes) else float(value)
    except OverflowError:  # an int of more than 308 digits
        x = math.inf if value > 0 else -math.inf
    except (TypeError, ValueError):  # no number, or an array of several
        x = None
    if x is None:
        raise TypeError(f"{name} must be a number{said}, or a quantity, got {value!r}.")
    if above is not None:
        rule, right = f"a finite number above {above:g}", above < x <= high
        rule += f" and at most {high:g}" if high < math.inf else ""
    else:
        rule, right = f"finite and at least {low:g}", low <= x <= high
        rule = f"between {low:g} and {high:g}" if high < math.inf else rule
    if not right or math.isinf(x):
        hint = f": write {x:g} % as {x / 100:g}" if not unit and high == 1 and 2 <= x <= 100 else ""
        raise ValueError(f"{name} must be {rule}{said}, got {x:g}{hint}.")
    return x


def whole(name: str, value, unit: str = "", low: int = 0, high: float = math.inf) -> int:
    """Return `value` as an int, checked as `number` does and for being whole; 8.0 and 7e9 are whole, 7.5 is not."""
    x = number(name, value, unit, low, high)
    if x != int(x):
        raise ValueError(
            f"{name} must be a whole number{f' of {unit}' if unit else ''}, got {x:g}."
        )
    exact = value.magnitude if isinstance(value, pint.Quantity) else value
    return exact if isinstance(exact, int) and float(exact) == x else int(x)


_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_PREFIXED = {"byte": "B", "byte / second": "B/s", "watt": "W", "watt_hour": "Wh"}


def spell(quantity, digits: int = 4) -> str:
    """Return a quantity as text for people: "80.31 GB", "33.9 day", "5,576,000 USD", "3.14e+23 FLOP".

    Bytes and watts get a decimal prefix; integers are written out; other numbers have `digits` significant digits.
    """
    if not isinstance(quantity, pint.Quantity):
        return _plain(quantity, digits)
    unit = str(quantity.units)
    if (short := _PREFIXED.get(unit)) and math.isfinite(quantity.magnitude):
        x = float(quantity.magnitude)
        scale, prefix = next((sp for sp in _SCALES if abs(x) >= sp[0]), (1.0, ""))
        return f"{x / scale:.{digits}g} {prefix}{short}"
    text = _plain(quantity.magnitude, digits)
    return text if unit == "dimensionless" else f"{text} {quantity.units:~}".rstrip()


def _plain(x, digits: int) -> str:
    if isinstance(x, bool) or not isinstance(x, int | float) or not math.isfinite(x):
        return str(x)
    if isinstance(x, int) or (x == round(x) and 1e3 <= abs(x) < 1e9):
        return f"{x:,.0f}" if isinstance(x, float) else f"{x:,}"
    return (
        f"{x:,.{max(0, digits - len(str(int(abs(x)))))}f}"
        if 1e3 <= abs(x) < 1e9
        else f"{x:.{digits}g}"
    )
