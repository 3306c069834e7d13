"""Bass diffusion: those who adopt by themselves, and those who follow them.

    dF/dt = (p + q F)(1 - F)        F(t) = (1 - e^-(p+q)t) / (1 + (q/p) e^-(p+q)t)
    peak at T* = ln(q/p) / (p+q), of m (p+q)^2 / 4q adopters a year, when m (1/2 - p/2q) have adopted

p is innovation, q imitation, both a year; m the market. The peak exists only if q > p. Source: F. Bass, A new product growth
model for consumer durables, Management Science 15(5), 1969. Told in chapter 21.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit

from bigmodel_lab.econ.values import array
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["Bass", "fit_bass"]


@dataclass(frozen=True)
class Bass:
    """A market and how it is won."""

    p: float  # innovation, a year
    q: float  # imitation, a year
    market: Quantity | float = 1.0  # customers in the end

    def __post_init__(self):
        number("p", self.p, "1 / year", above=0)
        number("q", self.q, "1 / year")
        number("market", self.market, "customer", above=0)

    @property
    def _pqm(self) -> tuple[float, float, float]:
        return (
            number("p", self.p, "1 / year"),
            number("q", self.q, "1 / year"),
            number("market", self.market, "customer"),
        )

    def share(self, years) -> np.ndarray:
        """Return F (n,): the share of the market that has adopted `years` (n,) after the start."""
        p, q, _ = self._pqm
        e = np.exp(-(p + q) * array("years", years, "year"))
        return (1 - e) / (1 + q / p * e)

    def adopters(self, years) -> Quantity:
        """Return the customers who have adopted after `years`, customer."""
        return Q(self._pqm[2] * self.share(years), "customer")

    def rate(self, years) -> Quantity:
        """Return the adopters a year at the time `years`, customer / year."""
        (p, q, m), F = self._pqm, self.share(years)
        return Q(m * (p + q * F) * (1 - F), "customer / year")

    def peak(self) -> tuple[Quantity, Quantity, Quantity]:
        """Return when most adopt (year), how many then (customer / year), and how many have by then (customer).

        Raises ValueError if imitation does not exceed innovation: adoption then falls from the first day.
        """
        p, q, m = self._pqm
        if q <= p:
            raise ValueError(
                f"q must be above p for a peak, got p={p:g} and q={q:g}: adoption only falls."
            )
        return (
            Q(math.log(q / p) / (p + q), "year"),
            Q(m * (p + q) ** 2 / (4 * q), "customer / year"),
            Q(m * (0.5 - p / (2 * q)), "customer"),
        )


def fit_bass(years, adopters) -> Bass:
    """Return the Bass curve nearest to cumulative `adopters` (n,), customer, `years` (n,) after the start, by least squares.

    The search is scipy's. Bass (1969) regressed yearly sales instead, which gives somewhat other p and q from the same data.
    Data that end before the peak hardly say how large the market is: compare the fits of shorter and longer series. Raises
    ValueError for fewer than 4 points, a falling series, or one that does not determine the three parameters.
    """
    t, N = array("years", years, "year"), array("adopters", adopters, "customer")
    if t.shape != N.shape or t.ndim != 1 or len(t) < 4:
        raise ValueError(
            f"years and adopters must be two series of at least 4 points, got {t.shape} and {N.shape}."
        )
    if (np.diff(t) <= 0).any() or (np.diff(N) < 0).any():
        raise ValueError("years must rise and cumulative adopters must not fall.")

    def curve(t, p, q, m):
        return m * Bass(math.exp(p), math.exp(q)).share(t)

    if N[-1] == 0:
        raise ValueError("adopters must be above 0 in the end, got 0 throughout.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", OptimizeWarning)  # no finite error for p, q and market
            (p, q, m), _ = curve_fit(
                curve, t, N / N[-1], p0=(math.log(0.02), math.log(0.4), 1.5), maxfev=4000
            )
    except (RuntimeError, OptimizeWarning):
        raise ValueError(
            f"adopters from {N[0]:g} to {N[-1]:g} at years {t[0]:g} to {t[-1]:g} do not determine p, q and market: count "
            "years from the start, and take a series that bends."
        ) from None
    return Bass(math.exp(p), math.exp(q), float(m * N[-1]))
