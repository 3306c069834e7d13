"""Cohorts: of the customers who came in one month, how many are still active in each month after.

A table's row is a cohort, its column an age; a row ends where observation ended, and what was not observed is NaN, not 0. A
mean over cohorts must be taken over the customers observed at that age, or the youngest cohorts make retention look worse.
Told in chapter 25.
"""

import numpy as np

from bigmodel_lab.econ.values import counts
from bigmodel_lab.units import whole

__all__ = ["cohort_table", "retention_curve"]


def cohort_table(
    joined, active_customer, active_month, months: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return (share active (months, months), customers (months,)) by month of joining and months since.

    joined : month of joining of each customer, whole, 0 to months - 1, (n_customers,)
    active_customer, active_month : one entry an event, customer's index and month, (n_events,); repeats count once

    Raises ValueError for an event before its customer joined or outside the table.
    """
    months = whole("months", months, "month", low=1)
    start = counts("joined", joined, high=months - 1)
    who = counts("active_customer", active_customer, high=start.size - 1)
    when = counts("active_month", active_month, high=months - 1)
    if start.ndim != 1 or not start.size:
        raise ValueError(f"joined must hold one month a customer, got shape {start.shape}.")
    if who.shape != when.shape or who.ndim != 1:
        raise ValueError(
            f"active_customer and active_month must have one length, got {who.shape} and {when.shape}."
        )
    age = when - start[who]
    if (age < 0).any():
        i = int(np.argmax(age < 0))
        raise ValueError(
            f"active_month must not lie before the customer joined: event {i} is {-age[i]} months early."
        )
    once = np.unique(np.column_stack([who, age]), axis=0)
    active = np.zeros((months, months))
    np.add.at(active, (start[once[:, 0]], once[:, 1]), 1)
    size = np.bincount(start, minlength=months)
    seen = np.add.outer(np.arange(months), np.arange(months)) < months
    share = np.full((months, months), np.nan)
    np.divide(active, size[:, None], out=share, where=seen & (size[:, None] > 0))
    return share, size


def retention_curve(share, size) -> np.ndarray:
    """Return the share active at each age (months,), over all customers that were observed at that age.

    share (months, months), size (months,) : as `cohort_table` gives them.
    """
    share, size = np.asarray(share, dtype=float), counts("size", size)
    if share.ndim != 2 or size.shape != share.shape[:1]:
        raise ValueError(
            f"size must have one number a cohort, {share.shape[:1]}, got {size.shape}."
        )
    seen = ~np.isnan(share)
    weights = seen * size[:, None]
    total = weights.sum(0)
    out = np.full(share.shape[1], np.nan)
    np.divide((np.nan_to_num(share) * weights).sum(0), total, out=out, where=total > 0)
    return out
