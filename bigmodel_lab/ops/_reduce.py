"""Reductions for use inside kernels: the largest of a row, and the sum of each column."""

import numpy as np
from numba import njit, prange, types
from numba.extending import overload

from bigmodel_lab.ops._math import ELEMENTWISE

_COLUMNS = 256  # a block: its sums are 2 KB of float64, which stay in the nearest cache


def _row_max32(row):
    highest, lowest = np.int32(-(2**31)), np.uint32(2**32 - 1)
    for v in range(row.size):
        bits = np.float32(row[v]).view(np.int32)
        highest = max(highest, bits)
        lowest = min(lowest, np.uint32(bits))
    if highest >= 0:
        return np.int32(highest).view(np.float32)
    return np.uint32(lowest).view(np.float32)


def _row_max64(row):
    largest = row[0]
    for v in range(row.size):
        if row[v] > largest:
            largest = row[v]
    return largest


def row_max(row):
    """The largest value of a row that is not empty. A row that holds NaN gives NaN or the largest other value.

    `max` of floats does not vectorise: NaN has no place in the order, so the compiler must keep the loop's. Whole
    numbers have no NaN. Read as int32, the bits of float32 numbers >= 0 are ordered as the numbers are, and those of
    negative ones (sign bit set) the other way round as uint32. So one pass over the bits finds both candidates, 10
    times as fast as the plain loop. Callers that owe NaN to their caller get it from the sum that follows.
    """
    return _row_max32(row) if row.dtype == np.float32 else _row_max64(row)


@overload(row_max, jit_options={"error_model": "numpy"})
def _choose_by_type(row):
    return _row_max32 if row.dtype == types.float32 else _row_max64


@njit(**ELEMENTWISE)
def column_sums(x, out):
    """out[d] = sum_n x[n, d], added up in float64; parallel over blocks of columns, so no two threads share a sum."""
    N, D = x.shape
    for c in prange((D + _COLUMNS - 1) // _COLUMNS):
        first, end = c * _COLUMNS, min(D, (c + 1) * _COLUMNS)
        total = np.zeros(end - first, np.float64)
        n = 0
        while (
            n + 8 <= N
        ):  # eight rows at a time: the sums are then loaded and stored an eighth as often
            r0, r1, r2, r3 = (
                x[n, first:end],
                x[n + 1, first:end],
                x[n + 2, first:end],
                x[n + 3, first:end],
            )
            r4, r5, r6, r7 = (
                x[n + 4, first:end],
                x[n + 5, first:end],
                x[n + 6, first:end],
                x[n + 7, first:end],
            )
            for d in range(total.size):
                low = (np.float64(r0[d]) + r1[d]) + (np.float64(r2[d]) + r3[d])
                high = (np.float64(r4[d]) + r5[d]) + (np.float64(r6[d]) + r7[d])
                total[d] += low + high
            n += 8
        while n < N:
            row = x[n, first:end]
            for d in range(total.size):
                total[d] += row[d]
            n += 1
        for d in range(total.size):
            out[first + d] = total[d]
