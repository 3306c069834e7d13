"""Make or buy: a model of one's own against another's API, by volume and by time.

    cost over T months = upfront + sum over t of (monthly + per_token * volume[t]) / (1 + discount)^t

Paid at each month's end. What is spent on making is gone if volume does not come; that is why the break-even volume belongs
beside a probability of reaching it. Told in chapter 16.
"""

from dataclasses import dataclass

import numpy as np

from bigmodel_lab.econ.values import array
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Sourcing", "break_even_month", "break_even_volume", "total_cost"]

VOLUME = "Mtoken / month"


@dataclass(frozen=True)
class Sourcing:
    """One way to get answers from a model."""

    name: str
    upfront: Quantity | float = 0.0  # USD: training, integration
    monthly: Quantity | float = 0.0  # USD / month: people, reserved devices
    per_token: Quantity | float = 0.0  # USD / Mtoken

    def __post_init__(self):
        self.numbers()

    def numbers(self) -> tuple[float, float, float]:
        """Return upfront USD, USD a month, USD a million tokens, checked."""
        return (
            number(f"upfront of {self.name!r}", self.upfront, "USD"),
            number(f"monthly of {self.name!r}", self.monthly, "USD / month"),
            number(f"per_token of {self.name!r}", self.per_token, "USD / Mtoken"),
        )


def _months(volume) -> np.ndarray:
    v = np.atleast_1d(array("volume", volume, VOLUME))
    if v.ndim != 1 or not v.size:
        raise ValueError(f"volume must hold one number a month, at least one, got shape {v.shape}.")
    return v


def _cumulative(way: Sourcing, volume: np.ndarray, discount: float) -> np.ndarray:
    upfront, monthly, per_token = way.numbers()
    t = np.arange(1, len(volume) + 1)
    return upfront + np.cumsum((monthly + per_token * volume) * (1 + discount) ** -t)


def total_cost(way: Sourcing, volume, discount=0.0) -> Quantity:
    """Return present cost, USD, of serving `volume` (n_months,), Mtoken / month, at `discount` a month."""
    v = _months(volume)
    return Q(float(_cumulative(way, v, number("discount", discount))[-1]), "USD")


def break_even_month(make: Sourcing, buy: Sourcing, volume, discount=0.0) -> int | None:
    """Return the first month, from 1, at whose end `make` has cost no more than `buy` in all; None if not within `volume`."""
    v, d = _months(volume), number("discount", discount)
    paid = np.flatnonzero(_cumulative(make, v, d) <= _cumulative(buy, v, d))
    return int(paid[0]) + 1 if len(paid) else None


def break_even_volume(make: Sourcing, buy: Sourcing, months: int, discount=0.0) -> Quantity:
    """Return the steady volume, Mtoken / month, at which both cost the same over `months`.

    Raises ValueError if there is none: one way costs less at every volume.
    """
    T = whole("months", months, low=1)
    d = number("discount", discount)
    weight = float(np.sum((1 + d) ** -np.arange(1.0, T + 1)))
    (m0, m1, m2), (b0, b1, b2) = make.numbers(), buy.numbers()
    more_fixed, less_each = (m0 - b0) + (m1 - b1) * weight, b2 - m2
    if more_fixed * less_each <= 0:
        cheaper = make.name if more_fixed <= 0 and less_each >= 0 else buy.name
        raise ValueError(
            f"no volume breaks even: {cheaper!r} costs no more at every volume over {T} months."
        )
    return Q(more_fixed / (less_each * weight), VOLUME)
