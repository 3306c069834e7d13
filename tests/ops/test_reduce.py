"""The reductions that kernels use, against NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numba import njit

from bigmodel_lab.ops._reduce import column_sums, row_max


@njit
def compiled(row):
    return row_max(row)


def rows(dtype, bits):
    numbers = st.floats(width=bits, allow_nan=False, allow_infinity=True)
    return arrays(dtype, st.integers(1, 70), elements=numbers)


@settings(max_examples=300, deadline=None)  # the first example compiles
@given(rows(np.float32, 32) | rows(np.float64, 64))
def test_row_max_is_numpy_max(row):
    assert compiled(row) == row.max()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("nan", [np.nan, -np.nan])
@pytest.mark.parametrize("others", [1.0, -1.0])
def test_row_max_beside_nan_is_nan_or_the_largest_other(dtype, nan, others):
    row = np.full(40, others, dtype)
    row[17] = nan
    found = compiled(row)
    assert np.isnan(found) or found == others


def test_row_max_outside_a_kernel_is_the_same_function():
    row = np.array([-3.0, -1.0, -2.0], np.float32)
    assert row_max(row) == compiled(row) == -1
    assert row_max(row.astype(np.float64)) == -1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (5, 127), (5, 128), (70, 129), (3, 300)])
def test_column_sums(shape, dtype):
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    out = np.full(shape[1], np.nan, dtype)
    column_sums(x, out)
    np.testing.assert_allclose(out, x.sum(0, dtype=np.float64), rtol=1e-7, atol=1e-12)


def test_column_sums_add_up_in_float64():
    x = np.concatenate([np.full((1, 1), 2**24), np.ones((1000, 1))]).astype(np.float32)
    out = np.empty(1, np.float32)
    column_sums(x, out)  # in float32, 2**24 + 1 is 2**24 again
    assert out[0] == 2**24 + 1000
