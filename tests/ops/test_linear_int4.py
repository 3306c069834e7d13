"""Weights of 4 bits: the bound of the rounding, how they are packed, the largest sums, messages."""

import numpy as np
import pytest
from packed_cases import exact, inputs

from bigmodel_lab import rng
from bigmodel_lab.ops.linear_int4 import (
    dequantise_int4,
    linear_int4,
    linear_int4_backward,
    quantise_int4,
)


def by_group(scale, D):
    """The factor of each weight, (O, D)."""
    return np.repeat(scale, 64, 1)[:, :D]


@pytest.mark.parametrize(("dtype", "rounding"), [(np.float32, 2e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("spread", [1, 30])
def test_no_weight_moves_by_more_than_half_a_step(dtype, rounding, spread):
    w = inputs(1, 301, 40, dtype)[1]
    w = (w * 10.0 ** np.linspace(-spread, spread, 40)[:, None]).astype(dtype)
    w[:, 64:128] *= 5  # another group, with a factor of its own
    packed, scale = quantise_int4(w)
    assert (packed.dtype, packed.shape) == (np.uint8, (40, 5 * 32))
    assert (scale.dtype, scale.shape) == (dtype, (40, 5))
    miss = np.abs(w - dequantise_int4(packed, scale, 301)) / by_group(scale, 301)
    assert miss.max() <= 0.5 * (1 + rounding)
    assert miss.max() > 0.499  # the bound is reached
    for g in range(5):
        largest = np.abs(w[:, 64 * g : 64 * g + 64]).max(1)
        np.testing.assert_allclose(scale[:, g], largest / 7, rtol=1e-6)


def test_what_is_representable_is_kept():
    w = np.zeros((2, 130))
    w[0, :15], w[0, 64:79] = np.arange(-7, 8), np.arange(-7, 8) / 4
    w[1, 128:] = -14, 2
    packed, scale = quantise_int4(w)
    np.testing.assert_array_equal(scale, [[1, 0.25, 0], [0, 0, 2]])
    np.testing.assert_array_equal(dequantise_int4(packed, scale, 130), w)


def test_where_each_weight_is_in_its_byte():
    for j in range(64):
        w = np.zeros((1, 64))
        w[0, j] = -7
        packed, scale = quantise_int4(w)
        low, high = packed[0] & 15, packed[0] >> 4
        i, quarter = (
            j % 16,
            j // 16,
        )  # in byte 2 i + (0, 0, 1, 1), in its (low, high, low, high) half
        assert scale == 1
        assert (low, high)[quarter % 2][2 * i + quarter // 2] == 1
        assert (low == 8).sum() + (high == 8).sum() == 63


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_and_the_largest_numbers(dtype):
    tiny, huge = np.finfo(dtype).tiny, np.finfo(dtype).max
    w = np.array([[huge, -huge, huge / 4], [tiny, -tiny, 0], [100 * tiny, 0, -50 * tiny]], dtype)
    packed, scale = quantise_int4(w)
    np.testing.assert_array_equal(packed[:, 0] & 15, [15, 8, 15])
    np.testing.assert_array_equal(packed[:, 4] & 15, [10, 8, 4])
    np.testing.assert_array_equal(packed[:, 2] & 15, [1, 8, 8])
    assert scale[1] == 0
    assert np.isfinite(dequantise_int4(packed[1:], scale[1:], 3)).all()


def test_x_of_16_bits_is_multiplied_exactly():
    g = rng.generator(1)
    x = g.integers(-32767, 32768, (3, 200)).astype(np.float32)
    x[:, ::64] = 32767  # the largest of each group: its step is then 1
    w = g.integers(-7, 8, (5, 200)).astype(np.float32)
    w[:, 1::64] = 7
    w[0], x[0] = 7, 32767  # the largest sum that there can be
    packed, scale = quantise_int4(w)
    assert (scale == 1).all()
    y, _ = linear_int4(x, packed, scale)
    size = np.abs(x) @ np.abs(w).T
    assert (np.abs(y - exact(x, w, 0)) <= 1e-7 * size).all()


def test_errors():
    x, w, b, dy = inputs(3, 5, 4)
    for bad in (np.nan, np.inf):
        w[2, 3] = bad
        with pytest.raises(ValueError, match=rf"^w\[2, 3\] is {bad}: only finite weights can be"):
            quantise_int4(w)
    w[2, 3] = 0
    packed, scale = quantise_int4(w)
    with pytest.raises(TypeError, match=r"^w must be float32 or float64, got float16"):
        quantise_int4(w.astype(np.float16))
    with pytest.raises(ValueError, match=r"^w must have shape \(O, D\), got 1 dimension"):
        quantise_int4(w[0])
    with pytest.raises(ValueError, match=r"^scale must have shape \(O, G\) with O=4, G=1, got O=3"):
        dequantise_int4(packed, scale[:3], 5)
    with pytest.raises(
        ValueError, match=r"^packed has M=32 bytes a row: a row of D=65 .* 64 bytes"
    ):
        dequantise_int4(packed, scale, 65)
    with pytest.raises(
        ValueError, match=r"^packed has M=32 bytes a row: a row of D=65 .* 64 bytes"
    ):
        linear_int4(np.ones((3, 65)), packed, scale)
    with pytest.raises(ValueError, match=r"^scale must have shape \(O, G\) with O=4, G=1, got O=3"):
        linear_int4(x, packed, scale[:3])
    with pytest.raises(ValueError, match=r"^b must have shape \(O\) with O=4, got O=2"):
        linear_int4(x, packed, scale, b[:2])
    with pytest.raises(TypeError, match=r"^packed must be uint8, got int8: quantise_int4 makes it"):
        linear_int4(x, packed.astype(np.int8), scale)
    with pytest.raises(TypeError, match=r"^x and scale must share one dtype"):
        linear_int4(x.astype(np.float32), packed, scale)
    with pytest.raises(TypeError, match=r"^x and scale and b must share one dtype"):
        linear_int4(x, packed, scale, b.astype(np.float32))
    _, cache = linear_int4(x, packed, scale, b)
    with pytest.raises(ValueError, match=r"^dy must have shape \(N, O\) with O=4, got O=3"):
        linear_int4_backward(dy[:, :3], cache)
    with pytest.raises(TypeError, match=r"^dy and scale must share one dtype"):
        linear_int4_backward(dy.astype(np.float32), cache)
