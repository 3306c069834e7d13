"""Arithmetic of time: unions, differences and intersections of intervals.

An interval is a pair (start, end) of numbers with start <= end. What these functions return is in order, apart, and without
empty intervals. Used by `bigmodel_lab.dist.trace`.
"""

import math
from collections.abc import Iterable

__all__ = ["both", "length", "minus", "union"]

Intervals = list[tuple[float, float]]


def union(intervals: Iterable[tuple[float, float]]) -> Intervals:
    """What lies in any of the intervals, which may overlap and come in any order."""
    joined: list[list[float]] = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        elif start < end:
            joined.append([start, end])
    return [(start, end) for start, end in joined]


def both(a: Intervals, b: Intervals) -> Intervals:
    """What lies in `a` and in `b`; each as `union` returns it."""
    common, i, j = [], 0, 0
    while i < len(a) and j < len(b):
        start, end = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if start < end:
            common.append((start, end))
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return common


def minus(a: Intervals, b: Intervals) -> Intervals:
    """What lies in `a` and not in `b`; each as `union` returns it."""
    ends = [-math.inf, *(end for _, end in b)]
    starts = [*(start for start, _ in b), math.inf]
    return both(a, list(zip(ends, starts, strict=True)))


def length(intervals: Intervals) -> float:
    """How long they are together."""
    return sum(end - start for start, end in intervals)
