"""Cash: how long it lasts, what a stream of payments is worth, and its internal rate of return.

    runway      the first moment at which cash is gone; burn that grows by g a month empties C in ln(1 + C g / B) / ln(1 + g)
    NPV         sum over t of flow[t] / (1 + rate)^t, flow[0] now
    IRR         the rate at which NPV is zero; flows whose sign changes twice may have several, and are refused

Told in chapter 24.
"""

import math

import numpy as np
from scipy.optimize import brentq

from bigmodel_lab.econ.values import array
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["cash_path", "irr", "npv", "runway", "runway_of"]

FLOW = "USD / month"


def runway(cash, burn, growth=0.0) -> Quantity:
    """Return the months until `cash` (USD) is gone at a net burn of `burn` (USD / month) that grows by `growth` a month.

    growth may be negative: a burn that shrinks fast enough never empties the account, and the answer is infinite.
    """
    C, B = number("cash", cash, "USD"), number("burn", burn, FLOW, above=0)
    g = number("growth", growth, low=-0.999)
    if g == 0:
        return Q(C / B, "month")
    x = (
        C * g / B
    )  # burn is paid in whole months: between them we count a part of the growth's exponent
    return Q(math.inf if x <= -1 else math.log1p(x) / math.log1p(g), "month")


def _series(flows, unit: str) -> np.ndarray:
    x = array("flows", flows, unit, low=-math.inf)
    if x.ndim != 1:
        raise ValueError(f"flows must have one dimension, one number a period, got {x.ndim}.")
    return x


def cash_path(cash, flows) -> Quantity:
    """Return cash now and after each month, USD (n_months + 1,); flows (n_months,): USD / month in, out negative."""
    moves = _series(flows, FLOW)
    return Q(number("cash", cash, "USD") + np.concatenate([[0.0], np.cumsum(moves)]), "USD")


def runway_of(cash, flows) -> Quantity:
    """Return the months until the path of `cash_path` first falls below zero, linear within a month; infinite if never."""
    path = cash_path(cash, flows).magnitude
    below = np.flatnonzero(path < 0)
    if not len(below):
        return Q(math.inf, "month")
    t = int(below[0])
    return Q(t - 1 + path[t - 1] / (path[t - 1] - path[t]), "month")


def npv(rate, flows) -> Quantity:
    """Return the present value, USD, of flows (n,) in USD, one a period, the first now; `rate` a period, above -1."""
    r = number("rate", rate, above=-1)
    x = _series(flows, "USD")
    return Q(float(np.sum(x / (1 + r) ** np.arange(len(x)))), "USD")


def irr(flows) -> float:
    """Return the rate a period at which the flows (n,), USD, have no net present value.

    Raises ValueError unless the sign of the flows changes exactly once, since then there is one rate and no more.
    """
    x = _series(flows, "USD")
    signs = np.sign(x[x != 0])
    changes = int(np.sum(signs[1:] != signs[:-1]))
    if changes != 1:
        raise ValueError(
            f"flows must change sign exactly once, got {changes} changes: "
            + ("several rates may fit; compare net present values." if changes else "no rate fits.")
        )
    t, scale = np.arange(len(x)), np.abs(x).max()

    def value(log_growth):  # in log(1 + rate), from -99.99999 % to a factor of 10^9
        power = -log_growth * t
        return float(
            np.sum(x / scale * np.exp(power - power.max()))
        )  # the sign of NPV, no overflow

    low, high = -16.0, 21.0
    if value(low) * value(high) > 0:
        raise ValueError("flows have a rate outside -99.99999 % to 10^9: check their sizes.")
    return math.expm1(brentq(value, low, high, xtol=1e-14))
