"""Growth and churn compound: they multiply, they do not add.

    what is left after n periods      (1 - c)^n          3 % a month loses 30.6 % a year, not 36 %
    mean growth of a series           (x_n / x_0)^(1/n) - 1, the geometric mean, not the mean of the rates
    customers in the steady state     new / c

Churn and growth are pure numbers for a stated period: a probability of 0.03 a month is not 0.36 a year, so no unit converts
one to the other; `churn_over` does. Told in chapter 21.
"""

from collections.abc import Sequence

from bigmodel_lab.econ.values import array, ratio, share
from bigmodel_lab.units import Q, Quantity, number

__all__ = ["cagr", "churn_over", "ladder", "monthly_churn", "rule_of_40", "steady_customers"]


def churn_over(churn, periods) -> float:
    """Return the share lost after `periods` periods of which each loses the share `churn` of what is left."""
    return 1 - (1 - share("churn", churn)) ** number("periods", periods)


def monthly_churn(annual) -> float:
    """Return the share lost a month that makes `annual` a year."""
    return 1 - (1 - share("annual", annual)) ** (1 / 12)


def steady_customers(new, churn) -> Quantity:
    """Return the customers at which as many leave as come: `new` in customer / month over `churn` a month."""
    c = number("churn", churn, high=1, above=0)
    return Q(number("new", new, "customer / month") / c, "customer")


def cagr(start, end, years) -> float:
    """Return the constant yearly growth from `start` to `end`, two amounts of one kind, in `years` (year)."""
    n = number("years", years, "year", above=0)
    return ratio("end", end, "start", start) ** (1 / n) - 1


def ladder(start, multiples: Sequence[float]) -> Quantity:
    """Return revenue after each year of a growth ladder, USD (n_years,): T2D3 is multiples (3, 3, 2, 2, 2)."""
    first = number("start", start, "USD", above=0)
    return Q(first * array("multiples", multiples).cumprod(), "USD")


def rule_of_40(growth, margin, basis: str) -> tuple[float, str]:
    """Return yearly growth + profit margin, and the sentence that names the margin's `basis`, such as "free cash flow".

    growth, margin : pure numbers, 0.3 for 30 %; either may be negative. The basis has no default, since the same company
    may clear 40 % with one and miss it with another.
    """
    total = number("growth", growth, low=-1) + number("margin", margin, low=-1e6, high=1)
    if not basis.strip():
        raise ValueError(
            "basis must name the margin, such as 'EBITDA' or 'free cash flow', got ''."
        )
    verdict = "clears" if total >= 0.4 - 1e-9 else "misses"  # 0.7 - 0.3 is 0.39999999999999997
    return total, f"{total:.0%} on {basis}: {verdict} 40 %"
