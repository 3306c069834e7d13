"""A/B tests of a rate that may be looked at every day: the mixture sequential probability ratio test.

With n customers in each arm, difference d of the rates and V = 2 p (1 - p) of the pooled rate p,

    L_n = sqrt(V / (V + n tau^2)) exp(n^2 tau^2 d^2 / (2 V (V + n tau^2)))        p-value = min over looks of 1 / L

If nothing differs, L is a martingale of mean 1 (nearly, at counts that make d normal), so that it ever exceeds 1 / alpha has
probability at most alpha, however often one looks. A fixed-size z-test looked at daily has no such bound. tau, in units of
the rate, is the size of differences that we hope to see. Source: Johari, Pekelis and Walsh, Always valid inference (2015,
arXiv:1512.04922); Robbins (1970). Told in chapter 25.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from bigmodel_lab.econ.values import array
from bigmodel_lab.units import number

__all__ = ["Sequential", "msprt", "sample_size", "z_test"]


@dataclass(frozen=True, eq=False)
class Sequential:
    """The state of the test at each look, arrays (n_looks,)."""

    p_value: np.ndarray  # always valid: stop whenever it is below the level
    difference: np.ndarray  # rate of b less rate of a
    half_width: np.ndarray  # of the always valid interval around the difference at the level

    def stops_at(self, level: float = 0.05) -> int | None:
        """Return the first look with a p-value of at most `level`, or None."""
        hits = np.flatnonzero(self.p_value <= number("level", level, high=1, above=0))
        return int(hits[0]) if len(hits) else None


def _rates(successes_a, successes_b, n):
    n = array("n", n, "customer", low=1)
    a, b = (
        array(k, x, "customer")
        for k, x in (("successes_a", successes_a), ("successes_b", successes_b))
    )
    if not a.shape == b.shape == n.shape:
        raise ValueError(
            f"successes_a, successes_b and n must have one shape, got {a.shape}, {b.shape}, {n.shape}."
        )
    for name, x in (("successes_a", a), ("successes_b", b)):
        if (x > n).any():
            raise ValueError(f"{name} must be at most n, got {float(np.max(x - n)):g} more.")
    pooled = (a + b) / (2 * n)
    return n, (b - a) / n, 2 * pooled * (1 - pooled)


def z_test(successes_a, successes_b, n) -> np.ndarray:
    """Return the two-sided p-value of a test made once, at a number n of customers an arm fixed beforehand.

    Arrays (...) give one p-value each: each is right only if it is the only look.
    """
    n, d, V = _rates(successes_a, successes_b, n)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(V > 0, np.abs(d) / np.sqrt(V / n), 0.0)
    return 2 * norm.sf(z)


def msprt(successes_a, successes_b, n, tau: float = 0.01, level: float = 0.05) -> Sequential:
    """Return the always valid test at each look.

    successes_a, successes_b : cumulative successes of the arms (n_looks,); n : cumulative customers an arm (n_looks,)
    tau : standard deviation of the differences that are thought possible, in the unit of the rate; must be chosen before
    the data are seen. level : of the interval.
    """
    n, d, V = _rates(successes_a, successes_b, n)
    if n.ndim != 1 or not n.size or (np.diff(n) <= 0).any():
        raise ValueError("n must be one rising series of cumulative counts, customers in each arm.")
    for name, x in (("successes_a", successes_a), ("successes_b", successes_b)):
        new = np.diff(array(name, x, "customer"))
        if (new < 0).any() or (new > np.diff(n)).any():
            i = int(np.argmax((new < 0) | (new > np.diff(n)))) + 1
            raise ValueError(
                f"{name} must be cumulative, as n is: at look {i} it changes by {new[i - 1]:g} while n rises by "
                f"{n[i] - n[i - 1]:g}. Take np.cumsum of daily counts."
            )
    t2, a = number("tau", tau, above=0) ** 2, number("level", level, high=0.999999, above=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = 0.5 * np.log(V / (V + n * t2)) + n**2 * t2 * d**2 / (2 * V * (V + n * t2))
    log_ratio = np.where(V > 0, log_ratio, 0.0)  # no success at all, or nothing else: no evidence
    p = np.minimum.accumulate(np.minimum(1.0, np.exp(-log_ratio)))
    width = np.sqrt(
        V
        * (V + n * t2)
        / (n**2 * t2)
        * (2 * math.log(1 / a) + np.log((V + n * t2) / np.maximum(V, 1e-300)))
    )
    return Sequential(p, d, np.where(V > 0, width, np.inf))


def sample_size(rate, lift, level: float = 0.05, power: float = 0.8) -> int:
    """Return the customers an arm that a test made once needs, to find a rise of `rate` by `lift` (absolute).

    n = (z_(1-level/2) + z_power)^2 (p (1-p) + p' (1-p')) / lift^2: each arm has its own variance. Tables that pool the two
    under the null (Fleiss; R's power.prop.test) have 0.1 to 1 % more. Raises ValueError unless 0 < rate + lift < 1.
    """
    p = number("rate", rate, high=1)
    step = number("lift", lift, low=-p, high=1 - p)
    if step == 0:
        raise ValueError("lift must not be 0: no number of customers finds nothing.")
    q = p + step
    z = norm.ppf(1 - number("level", level, high=0.999, above=0) / 2)
    z += norm.ppf(number("power", power, high=0.9999, above=0))
    return math.ceil(z**2 * (p * (1 - p) + q * (1 - q)) / step**2)
