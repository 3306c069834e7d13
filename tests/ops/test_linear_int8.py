"""Weights of 8 bits: the bound of the rounding, products against float64, gradients, special values, layouts, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.gradcheck import gradient_error
from bigmodel_lab.ops.linear_int8 import (
    dequantise_int8,
    linear_int8,
    linear_int8_backward,
    quantise_int8,
)

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


def inputs(N, D, O, dtype=np.float64):
    g = rng.generator(0, "test_linear_int8")
    return [g.standard_normal(s).astype(dtype) for s in ((N, D), (O, D), (O,), (N, O))]


def exact(x, w, b):
    return x.astype(np.float64) @ w.astype(np.float64).T + b


@pytest.mark.parametrize(("dtype", "rounding"), [(np.float32, 2e-5), (np.float64, 1e-12)])
@pytest.mark.parametrize("spread", [1, 30])
def test_no_weight_moves_by_more_than_half_a_step(dtype, rounding, spread):
    w = (inputs(1, 301, 40, dtype)[1] * 10.0 ** np.linspace(-spread, spread, 40)[:, None]).astype(
        dtype
    )
    q, scale = quantise_int8(w)
    assert (q.dtype, scale.dtype, scale.shape) == (np.int8, dtype, (40,))
    miss = np.abs(w - dequantise_int8(q, scale)) / scale[:, None]
    assert miss.max() <= 0.5 * (1 + rounding)
    assert miss.max() > 0.49  # the bound is reached
    np.testing.assert_allclose(scale, np.abs(w).max(1) / 127, rtol=1e-6)
    assert (np.abs(q).max(1) == 127).all()


def test_what_is_representable_is_kept():
    w = np.array([[-127, -64, -1, 0, 1, 127.0], [0, 0, 0, 0, 0, 0], [0.5, 1, 1.5, -1.5, 2, -63.5]])
    q, scale = quantise_int8(w)
    np.testing.assert_array_equal(q, [w[0], w[1], 2 * w[2]])
    np.testing.assert_array_equal(scale, [1, 0, 0.5])
    np.testing.assert_array_equal(dequantise_int8(q, scale), w)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_and_the_largest_numbers(dtype):
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
    w = np.array([[huge, -huge, huge / 4], [tiny, -tiny, 0], [1e3 * tiny, 0, -500 * tiny]], dtype)
    q, scale = quantise_int8(w)
    np.testing.assert_array_equal(q, [[127, -127, 32], [0, 0, 0], [127, 0, -64]])
    assert np.isfinite(dequantise_int8(q[1:], scale[1:])).all()
    assert scale[1] == 0


# float32 with few rows: x is rounded to 16 bits; each of D products may be off by half a step of its group
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_agrees_with_the_product_in_float64(size, dtype, bias):
    x, w, b, _ = inputs(*size, dtype)
    q, scale = quantise_int8(w)
    y, _ = linear_int8(x, q, scale, b if bias else None)
    floats = q * scale[:, None].astype(np.float64)
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


def test_x_of_16_bits_is_multiplied_exactly():
    g = rng.generator(1)
    x = g.integers(-32767, 32768, (3, 200)).astype(np.float32)
    x[:, ::64] = 32767  # the largest of each group: its step is then 1
    q = g.integers(-127, 128, (5, 200)).astype(np.int8)
    q[0], x[0] = 127, 32767  # the largest sum that there can be
    y, _ = linear_int8(x, q, np.ones(5, np.float32))
    size = np.abs(x) @ np.abs(q).T
    assert (np.abs(y - exact(x, q, 0)) <= 1e-7 * size).all()


def test_a_large_number_coarsens_its_own_group_only():
    x, w, b, _ = inputs(1, 128, 8, np.float32)
    x[0, 3] = 1e6
    q, scale = quantise_int8(w)
    q[:, :64] = 0
    y, _ = linear_int8(x, q, scale, b)
    want = exact(x, q * scale[:, None], b)
    assert np.linalg.norm(y - want) < 1e-4 * np.linalg.norm(want)


@pytest.mark.parametrize("bias", [True, False])
def test_gradient_of_every_entry(bias):
    x, w, b, _ = inputs(3, 5, 300)
    q, scale = quantise_int8(w)

    def op(x, b=None):
        return linear_int8(x, q, scale, b)

    errors = gradient_error(op, linear_int8_backward, (x, b) if bias else (x,))
    assert errors.keys() == ({"x", "b"} if bias else {"x"})
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("rows", [5, 40])
@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 63, 64, 69])
def test_a_row_with_nan_or_infinity_spoils_itself_alone(bad, rows, place):
    x, w, b, _ = inputs(rows, 70, 9, np.float32)
    q, scale = quantise_int8(w)
    q[:, place] = np.arange(1, 10)
    clean, _ = linear_int8(x, q, scale, b)
    x[2, place] = bad
    y, _ = linear_int8(x, q, scale, b)
    assert not np.isfinite(y[2]).any()
    np.testing.assert_array_equal(np.delete(y, 2, 0), np.delete(clean, 2, 0))


def test_zeros_and_the_smallest_numbers_of_x():
    _, w, b, _ = inputs(1, 70, 4, np.float32)
    q, scale = quantise_int8(w)
    for size in (0, 1e-45, 1e-38):
        y, _ = linear_int8(np.full((1, 70), size, np.float32), q, scale, b)
        np.testing.assert_array_equal(y[0], b)
    x = np.full((1, 70), 1e34, np.float32)
    want = exact(x, q * scale[:, None], b)
    np.testing.assert_allclose(linear_int8(x, q, scale, b)[0], want, rtol=1e-4)


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    x, w, b, dy = inputs(5, 70, 9, np.float32)
    q, scale = quantise_int8(np.asfortranarray(w))
    args = x, q, scale, b
    y, cache = linear_int8(*args)
    grads = linear_int8_backward(dy, cache)
    spread = [
        np.asfortranarray(x),
        np.asfortranarray(q),
        np.repeat(scale, 2)[::2],
        np.repeat(b, 2)[::2],
    ]
    before = [a.copy() for a in spread]
    again, cache = linear_int8(*spread)
    np.testing.assert_array_equal(again, y)
    for got, want in zip(linear_int8_backward(np.asfortranarray(dy), cache), grads, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    for a, b in zip(spread, before, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_matrix_product_is_used_for_many_rows():
    x, w, b, _ = inputs(40, 70, 300, np.float32)
    shapes = []

    def matmul(a, b, out):
        shapes.append((a.shape, b.shape))
        np.matmul(a, b, out=out)

    q, scale = quantise_int8(w)
    np.testing.assert_array_equal(
        linear_int8(x, q, scale, b, matmul=matmul)[0], linear_int8(x, q, scale, b)[0]
    )
    assert shapes == [((40, 70), (70, 256)), ((40, 70), (70, 44))]


def test_errors():
    x, w, b, dy = inputs(3, 5, 4)
    for bad in (np.nan, np.inf):
        w[2, 3] = bad
        with pytest.raises(ValueError, match=rf"^w\[2, 3\] is {bad}: only finite weights can be"):
            quantise_int8(w)
    w[2, 3] = 0
    q, scale = quantise_int8(w)
    with pytest.raises(TypeError, match=r"^w must be float32 or float64, got float16"):
        quantise_int8(w.astype(np.float16))
    with pytest.raises(ValueError, match=r"^w must have shape \(O, D\), got 1 dimension"):
        quantise_int8(w[0])
    with pytest.raises(ValueError, match=r"^scale must have shape \(O\) with O=4, got O=3"):
        dequantise_int8(q, scale[:3])
    with pytest.raises(ValueError, match=r"^q must have shape \(O, D\) with D=5, got D=4"):
        linear_int8(x, q[:, :4], scale)
    with pytest.raises(ValueError, match=r"^scale must have shape \(O\) with O=4, got O=3"):
        linear_int8(x, q, scale[:3])
    with pytest.raises(ValueError, match=r"^b must have shape \(O\) with O=4, got O=2"):
        linear_int8(x, q, scale, b[:2])
    with pytest.raises(TypeError, match=r"^q must be int8, got float64: quantise_int8 makes it"):
        linear_int8(x, w, scale)
    with pytest.raises(TypeError, match=r"^x and scale must share one dtype"):
        linear_int8(x.astype(np.float32), q, scale)
    with pytest.raises(TypeError, match=r"^x and scale and b must share one dtype"):
        linear_int8(x, q, scale, b.astype(np.float32))
    _, cache = linear_int8(x, q, scale, b)
    with pytest.raises(ValueError, match=r"^dy must have shape \(N, O\) with O=4, got O=3"):
        linear_int8_backward(dy[:, :3], cache)
    with pytest.raises(TypeError, match=r"^dy and scale must share one dtype"):
        linear_int8_backward(dy.astype(np.float32), cache)
