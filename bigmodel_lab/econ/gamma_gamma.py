"""Gamma-Gamma: what a customer spends on a purchase, from the mean of the few that we saw.

A customer's purchases are Gamma(p, nu) and nu varies over customers as Gamma(q, v). For a mean m over x purchases,

    log L = lnG(px+q) - lnG(px) - lnG(q) + q ln v + (px-1) ln m + px ln x - (px+q) ln(v + m x)
    E[M | m, x] = p (v + m x) / (p x + q - 1),        E[M] = p v / (q - 1)

so that a customer's own mean is drawn towards everybody's, the more so the fewer its purchases. Spending must not go with
frequency. Source: Fader and Hardie, The Gamma-Gamma model of monetary value (2013), eqs. 1a, 5. Told in chapter 25.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import gammaln

from bigmodel_lab.econ.bgnbd import BGNBD
from bigmodel_lab.econ.purchases import Purchases
from bigmodel_lab.econ.values import array, counts
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["GammaGamma", "customer_value", "fit_gamma_gamma"]


@dataclass(frozen=True)
class GammaGamma:
    """The three parameters."""

    p: float  # shape of a customer's purchases
    q: float  # shape over customers
    v: float  # scale over customers, USD

    def __post_init__(self):
        for name in ("p", "q", "v"):
            number(name, getattr(self, name), above=0)

    def log_likelihood(self, spend, repeats) -> float:
        """Return the log density of mean spends (n,), USD, over `repeats` (n,) purchases each, all above 0."""
        x, m = _alike(spend, repeats, low=1)
        if (m <= 0).any():
            raise ValueError(f"spend must be above 0, got {m.min():g}: leave such customers out.")
        p, q, v = self.p, self.q, self.v
        return float(
            np.sum(
                gammaln(p * x + q) - gammaln(p * x) - gammaln(q) + q * np.log(v) + (p * x - 1) * np.log(m)
                + p * x * np.log(x) - (p * x + q) * np.log(v + m * x)
            )
        )  # fmt: skip

    def expected(self, spend, repeats) -> np.ndarray:
        """Return each customer's expected spend a purchase, USD (n,); without repeats that of the population.

        Raises ValueError for q <= 1 where a customer has too few purchases: the mean is then infinite.
        """
        x, m = _alike(spend, repeats)
        below = self.p * x + self.q - 1
        if (below <= 0).any():
            raise ValueError(
                f"q must be above 1 for customers without repeats, got {self.q:g}: the mean is infinite."
            )
        return self.p * (self.v + m * x) / below


def _alike(spend, repeats, low=0):
    """Return repeats and spends in USD as arrays, checked."""
    m, x = array("spend", spend, "USD"), counts("repeats", repeats, low=low)
    if m.shape != x.shape:
        raise ValueError(f"spend and repeats must have one shape, got {m.shape} and {x.shape}.")
    return x, m


def fit_gamma_gamma(seen: Purchases) -> GammaGamma:
    """Return the parameters that make the spends of the customers with repeats most likely.

    Raises ValueError without spends, or if the likelihood has no maximum, as where all spend the same.
    """
    if seen.spend is None:
        raise ValueError("spend must be given, got None: the model is about amounts.")
    some = seen.repeats > 0
    x, m = seen.repeats[some], seen.spend[some]
    if len(x) < 2 or (m <= 0).any():
        raise ValueError(
            "spend must be above 0 for every customer with repeats, and two such customers are needed."
        )

    def loss(logs):
        return -GammaGamma(*np.exp(logs)).log_likelihood(m, x) / len(x)

    start = np.log([2.0, 2.0, float(np.mean(m))])
    best = minimize(
        loss, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 2000}
    )
    if not best.success or np.abs(best.x).max() > 12:
        p, q, v = np.exp(best.x)
        raise ValueError(
            "spend must differ over customers and within them: its likelihood still rises at "
            f"p={p:.3g}, q={q:.3g}, v={v:.3g}. Take more customers, or those with more repeats."
        )
    return GammaGamma(*map(float, np.exp(best.x)))


def customer_value(
    buying: BGNBD,
    spending: GammaGamma,
    seen: Purchases,
    gross_margin,
    weeks: int = 52,
    discount=0.0,
) -> Quantity:
    """Return each customer's expected gross profit in the next `weeks` whole weeks, USD (n,).

    gross_margin : share of a purchase that is left after its cost, 0 to 1; discount : interest a week.
    """
    g, d = number("gross_margin", gross_margin, high=1), number("discount", discount)
    n = whole("weeks", weeks, "week", low=1, high=1000)
    if seen.spend is None:
        raise ValueError("spend must be given, got None: without amounts there is no value.")
    grown = np.array([buying.expected(t, seen) for t in range(n + 1)]) if d else None
    if grown is None:
        bought = buying.expected(n, seen)
    else:
        bought = (1 + d) ** -np.arange(1, n + 1) @ np.diff(grown, axis=0)
    return Q(g * bought * spending.expected(seen.spend, seen.repeats), "USD")
