"""BG/NBD: how often a customer who owes us no notice will come back, and whether it is still one.

While alive a customer buys at the rate lambda ~ Gamma(r, alpha), and after each purchase it leaves with the probability
p ~ Beta(a, b). With x repeats, the last at t_x, seen for T,

    L = B(a, b+x) / B(a, b) * Gamma(r+x) alpha^r / (Gamma(r) (alpha+T)^(r+x))
        + [x > 0] B(a+1, b+x-1) / B(a, b) * Gamma(r+x) alpha^r / (Gamma(r) (alpha+t_x)^(r+x))

Source: Fader, Hardie and Lee, Counting your customers the easy way, Marketing Science 24(2), 2005, eqs. 6-10. Fitted by
maximum likelihood with scipy. Times in weeks. The expectations are written through Euler's transformation of 2F1, whose terms
stay small for customers with thousands of purchases. Told in chapter 25.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize
from scipy.special import betaln, expit, gammaln, hyp2f1

from bigmodel_lab.econ.purchases import Purchases
from bigmodel_lab.econ.values import array
from bigmodel_lab.units import number

__all__ = ["BGNBD", "fit_bgnbd"]


@dataclass(frozen=True)
class BGNBD:
    """The four parameters, and what follows from them."""

    r: float  # shape of buying rates
    alpha: float  # their scale, weeks
    a: float  # leaving
    b: float  # staying

    def __post_init__(self):
        for name in ("r", "alpha", "a", "b"):
            number(name, getattr(self, name), above=0)

    def _terms(self, x, t_x, T):
        """Logarithms of the likelihood's two terms: alive at T, and gone after the last purchase."""
        r, alpha, a, b = self.r, self.alpha, self.a, self.b
        buys = gammaln(r + x) - gammaln(r) + r * np.log(alpha)
        alive = betaln(a, b + x) - betaln(a, b) + buys - (r + x) * np.log(alpha + T)
        with np.errstate(invalid="ignore"):
            gone = (
                betaln(a + 1, b + np.maximum(x, 1) - 1)
                - betaln(a, b)
                + buys
                - (r + x) * np.log(alpha + t_x)
            )
        return alive, np.where(x > 0, gone, -np.inf)

    def log_likelihood(self, seen: Purchases) -> float:
        """Return the natural logarithm of the probability (density) of all customers."""
        return float(np.logaddexp(*self._terms(seen.repeats, seen.recency, seen.age)).sum())

    def alive(self, seen: Purchases) -> np.ndarray:
        """Return the probability (n,) that each customer has not left yet; one without repeats cannot have left."""
        alive, gone = self._terms(seen.repeats, seen.recency, seen.age)
        return expit(alive - gone)

    def expected(self, weeks, seen: Purchases) -> np.ndarray:
        """Return each customer's expected purchases (n,) in the next `weeks`, given what was seen (eq. 10)."""
        t = number("weeks", weeks)
        return self._purchases(t, seen.repeats, seen.age) * self.alive(seen)

    def expected_new(self, weeks) -> np.ndarray | float:
        """Return the expected repeats of a new customer in its first `weeks`, a number or an array (eq. 9)."""
        out = self._purchases(array("weeks", weeks), np.float64(0), np.float64(0))
        return float(out) if out.ndim == 0 else out

    def _purchases(self, t, x, T):
        """Expected purchases from T to T + t of a customer who is alive at T after x repeats."""
        r, alpha, a, b = self.r, self.alpha, self.a, self.b
        c = a + b + x - 1
        if abs(a - 1) < 1e-5 or (np.abs(c) < 1e-5).any():  # 0/0 in the formula, not in its limit
            return sum(replace(self, a=a * k)._purchases(t, x, T) for k in (0.9999, 1.0001)) / 2
        rest = (alpha + T) / (alpha + T + t)
        return c / (a - 1) * (1 - rest ** (a - 1) * hyp2f1(c - r - x, a - 1, c, 1 - rest))


def fit_bgnbd(seen: Purchases) -> BGNBD:
    """Return the parameters that make `seen` most likely.

    Raises ValueError if nobody came back, or if the likelihood has no maximum: customers who are all alike say nothing of how
    rates vary over customers.
    """
    if not seen.repeats.any():
        raise ValueError(
            "repeats must be above 0 for some customer: nothing says how often they return."
        )
    kinds, counts = np.unique(
        np.column_stack([seen.repeats, seen.recency, seen.age]), axis=0, return_counts=True
    )

    def loss(logs):
        alive, gone = BGNBD(*np.exp(logs))._terms(*kinds.T)
        return -float(counts @ np.logaddexp(alive, gone)) / counts.sum()

    start = np.log([1.0, float(np.mean(seen.age)) / 4, 1.0, 2.0])
    best = minimize(
        loss, start, method="L-BFGS-B", bounds=[(-8, 8)] * 4, options={"ftol": 1e-14, "gtol": 1e-8}
    )
    if np.abs(best.x).max() < 7.9:
        best = minimize(
            loss,
            best.x,
            method="Nelder-Mead",
            options={"xatol": 1e-8, "fatol": 1e-13, "maxiter": 2000},
        )
    if not best.success or np.abs(best.x).max() > 7.9:
        r, alpha, a, b = np.exp(best.x)
        raise ValueError(
            "seen must hold customers who differ in repeats and recency: its likelihood still rises at "
            f"r={r:.3g}, alpha={alpha:.3g}, a={a:.3g}, b={b:.3g}. Take more customers, or times in weeks."
        )
    return BGNBD(*map(float, np.exp(best.x)))
