"""What a shop knows of its customers: how often each came back, how recently, since when, for how much.

Ages and recencies run in weeks from a customer's first purchase, which is not counted among the repeats. Told in chapter 25.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from bigmodel_lab import data
from bigmodel_lab.econ.values import array, counts

__all__ = ["Purchases", "load_cdnow"]


@dataclass(frozen=True, eq=False)
class Purchases:
    """Summaries of customers, arrays of one length (n,)."""

    repeats: np.ndarray  # purchases after the first
    recency: np.ndarray  # weeks from the first purchase to the last, 0 without repeats
    age: np.ndarray  # weeks from the first purchase to the end of observation
    spend: np.ndarray | None = None  # USD, mean of the repeat purchases, 0 without any
    later: np.ndarray | None = None  # repeats in a period afterwards, to check forecasts with

    def __post_init__(self):
        how = {
            "repeats": (counts, ""), "recency": (array, "week"), "age": (array, "week"),
            "spend": (array, "USD"), "later": (counts, ""),
        }  # fmt: skip
        given = {
            name: check(name, getattr(self, name), unit).astype(float)
            for name, (check, unit) in how.items()
            if getattr(self, name) is not None
        }
        lengths = {name: x.shape for name, x in given.items()}
        if len(set(lengths.values())) != 1 or given["age"].ndim != 1 or not given["age"].size:
            raise ValueError(
                f"repeats, recency, age, spend and later must be arrays of one length, not empty, got {lengths}."
            )
        bad = np.flatnonzero(
            (given["recency"] > given["age"]) | ((given["repeats"] == 0) != (given["recency"] == 0))
        )
        if len(bad):
            raise ValueError(
                "recency must be at most age, and 0 exactly for customers without repeats; "
                f"customer {bad[0]} has {given['repeats'][bad[0]]:g} repeats, recency {given['recency'][bad[0]]:g} and "
                f"age {given['age'][bad[0]]:g}."
            )
        for name, x in given.items():
            object.__setattr__(self, name, x)


@cache
def load_cdnow() -> Purchases:
    """Return 2,357 customers of the CD shop CDNOW: 39 weeks of 1997 to fit, 39 more to check (`later`).

    Source: Fader and Hardie (2001), Interfaces 31(3); `print(data.load("cdnow"))` has the selection and the terms. Raises
    `data.DataError` if the file is missing or damaged.
    """
    x = data.load("cdnow").columns
    return Purchases(
        repeats=x["repeats"],
        recency=x["recency_days"] / 7,
        age=x["age_days"] / 7,
        spend=x["mean_spend_USD"],
        later=x["later_repeats"],
    )
