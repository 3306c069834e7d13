"""Weights of 8 bits: the bound of the rounding, how they are packed, the largest sums, messages."""

import numpy as np
import pytest
from packed_cases import exact, inputs

from bigmodel_lab import rng
from bigmodel_lab.ops.linear_int8 import (
    dequantise_int8,
    linear_int8,
    linear_int8_backward,
    quantise_int8,
)


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


def test_x_of_16_bits_is_multiplied_exactly():
    g = rng.generator(1)
    x = g.integers(-32767, 32768, (3, 200)).astype(np.float32)
    x[:, ::64] = 32767  # the largest of each group: its step is then 1
    q = g.integers(-127, 128, (5, 200)).astype(np.int8)
    q[0], x[0] = 127, 32767  # the largest sum that there can be
    y, _ = linear_int8(x, q, np.ones(5, np.float32))
    size = np.abs(x) @ np.abs(q).T
    assert (np.abs(y - exact(x, q, 0)) <= 1e-7 * size).all()


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
