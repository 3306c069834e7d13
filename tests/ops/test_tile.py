"""Products of tiles: NumPy, both dtypes, one and several tiles, a transposed, parts of larger arrays."""

import numpy as np
import pytest
from numba import njit

from bigmodel_lab import rng
from bigmodel_lab.ops._tile import ROWS, add_product, columns, product


@njit
def both(a, b, c, added):
    product(a, b, c)
    add_product(a, b, added)


@njit
def of_parts(a, b, c):
    add_product(a[1].T, b[1], c[1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-14)])
@pytest.mark.parametrize("tiles", [(1, 1), (3, 2)])
@pytest.mark.parametrize("k", [1, 2, 65])
def test_agrees_with_numpy(k, tiles, dtype, tolerance):
    g = rng.generator(0, "test_tile")
    M, N = tiles[0] * ROWS, tiles[1] * columns(np.dtype(dtype).itemsize)
    a, b, c = (g.standard_normal(s).astype(dtype) for s in ((M, k), (k, N), (M, N)))
    added = c.copy()
    want = a.astype(np.float64) @ b
    before = c.copy()
    both(a, b, c, added)
    np.testing.assert_allclose(c, want, rtol=0, atol=3 * tolerance)
    np.testing.assert_allclose(added, want + before, rtol=0, atol=3 * tolerance)


def test_a_transposed_and_parts_of_larger_arrays():
    g = rng.generator(1, "test_tile")
    M, N = 2 * ROWS, 2 * columns(8)
    a, b, c = (g.standard_normal(s) for s in ((3, 5, M), (3, 5, N), (3, M, N)))
    before = c.copy()
    of_parts(a, b, c)
    np.testing.assert_array_equal(c[[0, 2]], before[[0, 2]])  # nothing is written beside the tile
    np.testing.assert_allclose(c[1], before[1] + a[1].T @ b[1], rtol=0, atol=1e-14)
