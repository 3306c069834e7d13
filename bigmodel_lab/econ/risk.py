"""Risks: a register, the yearly loss that it adds up to, value at risk and expected shortfall.

    VaR_p   the least loss that is not passed with at least the probability p
    ES_p    the mean over the worst 1 - p of cases (Rockafellar and Uryasev, 2002, which also has this VaR)
    normal  VaR = mu + sigma z_p,  ES = mu + sigma phi(z_p) / (1 - p)

A register's expected loss is sum(probability * loss); two registers with the same one can have very different tails. Each
risk strikes at most once a year, independently, with a log-normal loss of the stated mean. Told in chapter 23.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from bigmodel_lab.econ.values import array, probabilities
from bigmodel_lab.rng import generator
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Risk", "expected_loss", "normal_tail", "simulate_losses", "tail"]


@dataclass(frozen=True)
class Risk:
    """A line of the register."""

    name: str
    probability: float  # that it happens within the year
    loss: Quantity | float  # USD if it happens, in the mean
    spread: float = 0.0  # sigma of the logarithm of the loss
    owner: str = ""

    def __post_init__(self):
        number(f"probability of {self.name!r}", self.probability, high=1)
        number(f"loss of {self.name!r}", self.loss, "USD")
        number(f"spread of {self.name!r}", self.spread, high=5)


def expected_loss(register: tuple[Risk, ...]) -> Quantity:
    """Return the mean yearly loss, USD."""
    return Q(float(sum(r.probability * number("loss", r.loss, "USD") for r in register)), "USD")


def simulate_losses(register: tuple[Risk, ...], years: int = 100_000, seed: int = 0) -> Quantity:
    """Return the loss of each of `years` simulated years, USD (years,).

    Each risk has its own stream of random numbers, named after it, so that adding one leaves the others' luck as it was.
    Raises ValueError if two risks share a name.
    """
    n = whole("years", years, low=1)
    if len({r.name for r in register}) < len(register):
        raise ValueError(f"register must name each risk once, got {[r.name for r in register]}.")
    total = np.zeros(n)
    for r in register:
        rng = generator(seed, "econ", "risk", r.name)
        s = number("spread", r.spread)
        size = number("loss", r.loss, "USD") * np.exp(s * rng.standard_normal(n) - s**2 / 2)
        total += size * (rng.random(n) < r.probability)
    return Q(total, "USD")


def tail(losses, p: float = 0.95, chances=None) -> tuple[Quantity, Quantity]:
    """Return (value at risk, expected shortfall), USD, of losses (n,) at the level `p` below 1.

    chances : their probabilities (n,), which sum to 1; all equal if None. The expected shortfall is the mean over the worst
    1 - p of probability, the last loss counted in part, so that it never falls when losses rise. Of 100 equally likely losses
    at 95 % the VaR is the sixth worst; some books take the fifth. Raises ValueError for chances that do not sum to 1.
    """
    x = array("losses", losses, "USD", low=-math.inf).ravel()
    level = number("p", p, high=1 - 1e-12)
    if not len(x):
        raise ValueError("losses must hold at least one, got none.")
    if chances is None:
        w = np.full(len(x), 1 / len(x))
    elif len(w := probabilities("chances", chances)) != len(x):
        raise ValueError(f"chances must have one entry a loss, {len(x)}, got {len(w)}.")
    worst_first = np.argsort(-x, kind="stable")
    x, w = x[worst_first], w[worst_first]
    so_far = np.cumsum(w)  # probability of a loss as bad, down to each
    beyond = 1 - level
    part = np.clip(beyond - (so_far - w), 0, w)  # of each loss's probability that is in the tail
    k = min(int(np.searchsorted(so_far, beyond + 1e-9, side="right")), len(x) - 1)
    return Q(float(x[k]), "USD"), Q(float(part @ x / part.sum()), "USD")


def normal_tail(mean, deviation, p: float = 0.95) -> tuple[Quantity, Quantity]:
    """Return (value at risk, expected shortfall), USD, of a normal loss: `mean` and standard `deviation` in USD."""
    mu, s = number("mean", mean, "USD", low=-math.inf), number("deviation", deviation, "USD")
    level = number("p", p, high=1 - 1e-12, above=0)
    z = norm.ppf(level)
    return Q(float(mu + s * z), "USD"), Q(float(mu + s * norm.pdf(z) / (1 - level)), "USD")
