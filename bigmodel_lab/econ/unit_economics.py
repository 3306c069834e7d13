"""One customer's books: lifetime value with margin, cost of acquisition, payback, and a company's burn against its growth.

    LTV = ARPA * gross margin / churn                         Skok, SaaS Metrics 2.0
    payback = CAC / (ARPA * gross margin)
    burn multiple = net burn / net new ARR                    Sacks, The Burn Multiple (2020)
    NRR = (start + expansion - contraction - churned) / start

Without the margin, LTV is revenue, and a model that costs half its price to serve looks twice as good. Rates are pure
numbers a month. Told in chapters 21 and 24.
"""

import math

from bigmodel_lab.econ.values import ratio, share
from bigmodel_lab.units import Q, Quantity, number

__all__ = [
    "BURN_BANDS",
    "burn_band",
    "burn_multiple",
    "cac",
    "gross_retention",
    "lifetime",
    "ltv",
    "ltv_to_cac",
    "net_retention",
    "payback",
]

# Burn multiple below which a company is called so. Source: D. Sacks, The Burn Multiple (2020). The text names no band for
# exactly 3; we count a boundary to the worse side.
BURN_BANDS = ((1.0, "amazing"), (1.5, "great"), (2.0, "good"), (3.0, "suspect"), (math.inf, "bad"))


def lifetime(churn) -> Quantity:
    """Return the mean time that a customer stays, in month, if the share `churn` leaves each month."""
    return Q(1 / number("churn", churn, high=1, above=0), "month")


def ltv(arpa, gross_margin, churn, growth=0.0, discount=0.0) -> Quantity:
    """Return the gross profit that a customer brings over its lifetime, in USD / customer.

    Parameters
    ----------
    arpa : revenue from a customer, USD / customer / month, paid at each month's beginning
    gross_margin : share of revenue that is left after serving it, 0 to 1: it has no default on purpose
    churn : share of customers that leave a month, above 0
    growth : by how much a staying customer's revenue grows a month
    discount : interest a month; 0 gives the usual ARPA * margin / churn

    Raises ValueError where growth outruns churn and interest, so that the sum has no end.
    """
    paid = number("arpa", arpa, "USD / customer / month")
    margin = share("gross_margin", gross_margin)
    c = number("churn", churn, high=1, above=0)
    g, d = number("growth", growth, low=-1), number("discount", discount)
    kept = (1 - c) * (1 + g) / (1 + d)
    if kept >= 1:
        raise ValueError(
            f"growth must stay below {(1 + d) / (1 - c) - 1:.4g} a month at churn={c:g} and discount={d:g}, got {g:g}: "
            "lifetime value has no limit. Give a discount, or count a fixed number of years."
        )
    return Q(paid * margin / (1 - kept), "USD / customer")


def cac(spend, new_customers) -> Quantity:
    """Return the cost of acquiring one customer, USD / customer: all of sales and marketing (USD) over new customers."""
    return Q(
        number("spend", spend, "USD") / number("new_customers", new_customers, "customer", above=0),
        "USD / customer",
    )


def ltv_to_cac(ltv, cac) -> float:
    """Return lifetime value over acquisition cost, both USD / customer; 3 is the usual floor (Skok)."""
    value = number("ltv", ltv, "USD / customer")
    return value / number("cac", cac, "USD / customer", above=0)


def payback(cac, arpa, gross_margin, churn=0.0, growth=0.0, discount=0.0) -> Quantity:
    """Return the months until gross profit has paid for the acquisition.

    cac : USD / customer, arpa : USD / customer / month, gross_margin : 0 to 1. With `churn`, the customers that leave before
    then are counted, too; churn, growth and discount are those of `ltv`. Raises ValueError if the money never comes back.
    """
    cost = number("cac", cac, "USD / customer")
    paid = number("arpa", arpa, "USD / customer / month", above=0)
    monthly = paid * number("gross_margin", gross_margin, high=1, above=0)
    c = number("churn", churn, high=1)
    kept = (1 - c) * (1 + number("growth", growth, low=-1)) / (1 + number("discount", discount))
    x = kept - 1  # by how much the next month's payment differs
    if x == 0:
        return Q(cost / monthly, "month")
    if cost * -x >= monthly:
        raise ValueError(
            f"cac={cost:g} USD / customer is never paid back: at churn={c:g} a customer brings {monthly / -x:.4g} USD of "
            "gross profit in all."
        )
    # whole months k with sum over t < k of monthly kept^t <= cost, then a part of the next month's payment
    k = math.floor(math.log1p(cost * x / monthly) / math.log1p(x)) if x > -1 else 0
    left = cost - monthly * (kept**k - 1) / x
    return Q(k + left / (monthly * kept**k), "month")


def burn_multiple(net_burn, net_new_arr) -> float:
    """Return USD burned for each USD / year of new recurring revenue, over the same time.

    net_burn : USD, net_new_arr : USD / year; a company that shrank (0 or less) is refused: it has no multiple.
    """
    arr = number("net_new_arr", net_new_arr, "USD / year", above=0)
    return number("net_burn", net_burn, "USD") / arr


def burn_band(multiple) -> str:
    """Return Sacks's word for a burn multiple; a boundary counts to the worse side."""
    x = number("multiple", multiple) + 1e-9  # 0.3 / 0.1 is 2.9999999999999996
    return next(word for bound, word in BURN_BANDS if x < bound)


def net_retention(start, expansion=0, contraction=0, churned=0) -> float:
    """Return net revenue retention: what last year's customers pay now over what they paid; amounts of one kind.

    New customers do not count. Raises ValueError if more was lost than there was.
    """
    grown = ratio("expansion", _like(expansion, start), "start", start)
    return grown + gross_retention(start, contraction, churned)


def gross_retention(start, contraction=0, churned=0) -> float:
    """Return gross revenue retention, at most 1: losses without expansion."""
    lost = sum(
        ratio(name, _like(x, start), "start", start)
        for name, x in (("contraction", contraction), ("churned", churned))
    )
    if lost > 1 + 1e-12:
        raise ValueError(
            f"contraction and churned must be at most start together, got {lost:.4g} times it."
        )
    return 1 - lost


def _like(x, other):
    """A plain 0 is nothing in every unit."""
    nothing = isinstance(other, Quantity) and not isinstance(x, Quantity) and x == 0
    return Q(0.0, str(other.units)) if nothing else x
