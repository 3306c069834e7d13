"""What holds for weights of 8 and of 4 bits alike: products against float64, gradients, special values, layouts."""

import numpy as np
import pytest
from packed_cases import exact, inputs

from bigmodel_lab import ops
from bigmodel_lab.ops.gradcheck import gradient_error

# N, D, O around the groups of 64, the 32 rows of the kernel, and the blocks of 256 rows of the other way
SIZES = [
    (1, 1, 1),
    (1, 63, 5),
    (2, 64, 3),
    (3, 65, 7),
    (1, 1000, 33),
    (32, 129, 10),
    (33, 129, 300),
    (0, 70, 4),
    (2, 0, 3),
    (2, 5, 0),
]


class Eight:
    quantise, linear, backward = ops.quantise_int8, ops.linear_int8, ops.linear_int8_backward

    def floats(q, scale, D):
        return ops.dequantise_int8(q, scale.astype(np.float64))


class Four:
    quantise, linear, backward = ops.quantise_int4, ops.linear_int4, ops.linear_int4_backward

    def floats(packed, scale, D):
        return ops.dequantise_int4(packed, scale.astype(np.float64), D)


pytestmark = pytest.mark.parametrize("kind", [Eight, Four], ids=["8 bits", "4 bits"])


# float32 with few rows: x is rounded to 16 bits; each of D products may be off by half a step of its group
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_the_product_in_float64(kind, size, dtype, bias):
    x, w, b, _ = inputs(*size, dtype)
    weights = kind.quantise(w)
    y, _ = kind.linear(x, *weights, b if bias else None)
    floats = kind.floats(*weights, size[1])
    want = exact(x, floats, b if bias else 0)
    assert (y.dtype, y.shape) == (dtype, want.shape)
    if dtype == np.float64 or len(x) > 32:
        np.testing.assert_allclose(y, want, rtol=0, atol=5e-5 if dtype == np.float32 else 1e-12)
    else:
        step = np.zeros(x.shape)
        for g in range(0, size[1], 64):
            step[:, g : g + 64] = np.abs(x[:, g : g + 64]).max(1, keepdims=True) / 32767
        bound = step / 2 @ np.abs(floats).T + 1e-6 * np.abs(x) @ np.abs(floats).T + 1e-6
        assert (np.abs(y - want) <= bound).all()
    if y.size > 10:
        assert np.linalg.norm(y - want) < 6e-5 * np.linalg.norm(want)


def test_a_large_number_coarsens_its_own_group_only(kind):
    x, w, b, _ = inputs(1, 128, 8, np.float32)
    x[0, 3] = 1e6
    w[:, :64] = 0
    weights = kind.quantise(w)
    y, _ = kind.linear(x, *weights, b)
    want = exact(x, kind.floats(*weights, 128), b)
    assert np.linalg.norm(y - want) < 1e-4 * np.linalg.norm(want)


@pytest.mark.parametrize("bias", [True, False])
def test_gradient_of_every_entry(kind, bias):
    x, w, b, _ = inputs(3, 5, 300)
    weights = kind.quantise(w)

    def op(x, b=None):
        return kind.linear(x, *weights, b)

    errors = gradient_error(op, kind.backward, (x, b) if bias else (x,))
    assert errors.keys() == ({"x", "b"} if bias else {"x"})
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("rows", [5, 40])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 63, 64, 69])
def test_a_row_with_nan_or_infinity_spoils_itself_alone(kind, bad, rows, place):
    x, w, b, _ = inputs(rows, 70, 9, np.float32)
    w[:, place] = np.arange(1, 10)
    weights = kind.quantise(w)
    clean, _ = kind.linear(x, *weights, b)
    x[2, place] = bad
    y, _ = kind.linear(x, *weights, b)
    assert not np.isfinite(y[2]).any()
    np.testing.assert_array_equal(np.delete(y, 2, 0), np.delete(clean, 2, 0))


def test_zeros_and_the_smallest_numbers_of_x(kind):
    _, w, b, _ = inputs(1, 70, 4, np.float32)
    weights = kind.quantise(w)
    for size in (0, 1e-45, 1e-38):
        y, _ = kind.linear(np.full((1, 70), size, np.float32), *weights, b)
        np.testing.assert_array_equal(y[0], b)
    x = np.full((1, 70), 1e34, np.float32)
    want = exact(x, kind.floats(*weights, 70), b)
    np.testing.assert_allclose(kind.linear(x, *weights, b)[0], want, rtol=1e-4)


def test_other_layouts_give_the_same_and_arguments_are_left_alone(kind):
    x, w, b, dy = inputs(5, 70, 9, np.float32)
    packed, scale = kind.quantise(np.asfortranarray(w))
    y, cache = kind.linear(x, packed, scale, b)
    grads = kind.backward(dy, cache)
    spread = [
        np.asfortranarray(x),
        np.asfortranarray(packed),
        np.repeat(scale, 2, axis=0)[::2],
        np.repeat(b, 2)[::2],
    ]
    before = [a.copy() for a in spread]
    again, cache = kind.linear(*spread)
    np.testing.assert_array_equal(again, y)
    for got, want in zip(kind.backward(np.asfortranarray(dy), cache), grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    for a, b in zip(spread, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_matrix_product_is_used_for_many_rows(kind):
    x, w, b, _ = inputs(40, 70, 300, np.float32)
    shapes = []

    def matmul(a, b, out):
        shapes.append((a.shape, b.shape))
        np.matmul(a, b, out=out)

    weights = kind.quantise(w)
    plain, _ = kind.linear(x, *weights, b)
    np.testing.assert_array_equal(kind.linear(x, *weights, b, matmul=matmul)[0], plain)
    assert shapes == [((40, 70), (70, 256)), ((40, 70), (70, 44))]
