"""How much customers use: a few use most. A log-normal or Pareto law with a stated mean, and what plans need of it.

    partial mean    E[X; X <= x], the tokens of those who use at most x
    log-normal      log X ~ N(mu, sigma), mean = exp(mu + sigma^2 / 2)
    Lomax (Pareto from zero on)    P(X > x) = (1 + x / scale)^-alpha, mean = scale / (alpha - 1)

Distribution functions are scipy's. Told in chapter 21.
"""

import math
from dataclasses import dataclass
from functools import cached_property

from scipy.special import ndtr
from scipy.stats import lognorm, lomax

from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["Usage"]


@dataclass(frozen=True)
class Usage:
    """Tokens that a customer uses in a month."""

    mean: Quantity | float  # token / customer / month
    spread: float = (
        1.5  # log-normal: sigma of log use, 0 if all are equal; Lomax: the tail's alpha, above 1
    )
    law: str = "lognormal"  # or "lomax"

    def __post_init__(self):
        require_choice("law", self.law, ("lognormal", "lomax"))
        number("mean", self.mean, "token / customer / month", above=0)
        if self.law == "lomax":
            number("spread", self.spread, above=1)  # at 1 and below the mean is infinite
        else:
            number("spread", self.spread, high=10)  # beyond, nearly all use nothing

    @cached_property
    def tokens(self) -> float:
        """The mean, token / customer / month."""
        return number("mean", self.mean, "token / customer / month")

    @cached_property
    def _law(self):
        if self.law == "lomax":
            return lomax(self.spread, scale=self.tokens * (self.spread - 1))
        return lognorm(self.spread, scale=self.tokens * math.exp(-(self.spread**2) / 2))

    @property
    def _same(self) -> bool:
        return self.law == "lognormal" and self.spread == 0

    def below(self, x: float) -> float:
        """Return the share of customers that use at most `x` tokens a month."""
        return float(x >= self.tokens) if self._same else float(self._law.cdf(x))

    def partial_mean(self, x: float) -> float:
        """Return E[X; X <= x], token / customer / month; at infinity the mean."""
        if x <= 0:
            return 0.0
        if math.isinf(x):
            return self.tokens
        if self._same:
            return self.tokens if x >= self.tokens else 0.0
        if self.law == "lomax":
            a, s = self.spread, self.tokens * (self.spread - 1)
            # E[min(X, x)] less x P(X > x)
            return s / (a - 1) * (1 - (1 + x / s) ** (1 - a)) - x * (1 + x / s) ** -a
        z = math.log(x / self.tokens) / self.spread
        return self.tokens * float(ndtr(z - self.spread / 2))

    def quantile(self, p: float) -> Quantity:
        """Return the use that the share `p` of customers does not pass, token / customer / month."""
        p = number("p", p, high=1)
        if p == 1 and not self._same:
            raise ValueError("p must be below 1, got 1: the law has no largest value.")
        x = self.tokens if self._same else float(self._law.ppf(p))
        return Q(x, "token / customer / month")

    def top(self, p: float) -> float:
        """Return the share of all tokens that the heaviest share `p` of customers uses."""
        p = number("p", p, high=1)
        if p == 0 or self._same:
            return p
        return 1 - self.partial_mean(self.quantile(1 - p).magnitude) / self.tokens
