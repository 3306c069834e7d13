"""Dropout: gradients of every entry, the published generator, shares, mask of both passes, special values, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.dropout import dropout, dropout_backward
from bigmodel_lab.ops.gradcheck import gradient_error

SHAPES = [(0, 3), (), (1,), (5, 9), (2, 3, 4), (3, 16387)]


def inputs(shape, dtype=np.float64):
    return np.asarray(1 + rng.generator(0, "test_dropout").random(shape)).astype(dtype)


def test_gradient_of_every_entry():
    error = gradient_error(dropout, dropout_backward, (inputs((5, 8)),), rate=0.3, key=7)
    assert error["x"] < 1e-7


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_keeps_and_scales_or_drops_and_the_backward_pass_has_the_same_mask(shape, dtype):
    x = inputs(shape, dtype)
    y, cache = dropout(x, 0.25, key=3)
    assert y.dtype == dtype
    assert y.shape == shape
    np.testing.assert_array_equal(y, np.where(y == 0, 0, x * dtype(1 / 0.75)))
    np.testing.assert_array_equal(dropout_backward(x, cache), y)


def test_the_generator_is_splitmix64():
    # the first three numbers of SplitMix64 from seed 0, as published with it
    for i, number in enumerate((0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)):
        high = number >> 32
        assert dropout(np.ones(3), high / 2**32, key=0)[0][i] > 0
        assert dropout(np.ones(3), (high + 1) / 2**32, key=0)[0][i] == 0


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_that_is_dropped_and_the_mean(rate):
    n = 200_000
    y, _ = dropout(np.ones(n), rate, key=123)
    assert abs((y == 0).mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / n)
    assert abs(y.mean() - 1) < 4 * np.sqrt(rate / (1 - rate) / n)
    neighbours = ((y[1:] == 0) & (y[:-1] == 0)).mean()  # dropped independently
    assert abs(neighbours - rate**2) < 5 * np.sqrt(rate**2 / n)


def test_keys_give_independent_masks_and_the_same_key_the_same():
    x = np.ones(100_000)
    first, again, other = (dropout(x, 0.5, key)[0] for key in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert abs(((first == 0) == (other == 0)).mean() - 0.5) < 0.01
    large = dropout(x[:100], 0.5, 2**64 - 1)[0]
    assert 20 < (large == 0).sum() < 80


def test_rate_0_changes_nothing():
    x = inputs((5, 9))
    np.testing.assert_array_equal(dropout(x, 0, key=1)[0], x)


def test_what_is_dropped_is_0_whatever_it_was():
    x = np.full(40, np.nan)
    y, cache = dropout(x, 0.5, key=1)
    assert 0 < (y == 0).sum() == (~np.isnan(y)).sum() < 40
    np.testing.assert_array_equal(
        np.isinf(dropout_backward(np.full(40, np.inf), cache)), np.isnan(y)
    )


def test_other_layouts_give_the_same_and_the_cache_keeps_no_array():
    x = inputs((6, 10))
    y, cache = dropout(x, 0.5, key=1)
    np.testing.assert_array_equal(dropout(np.asfortranarray(x), 0.5, key=1)[0], y)
    np.testing.assert_array_equal(dropout_backward(np.asfortranarray(x), cache), y)
    assert not any(isinstance(a, np.ndarray) for a in cache)


def test_errors():
    x = inputs((4, 5))
    for rate in (1, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"^rate must be at least 0 and below 1, got"):
            dropout(x, rate, key=0)
    for key in (-1, 2**64):
        with pytest.raises(ValueError, match=r"^key must be at least 0 and below 2\*\*64, got"):
            dropout(x, 0.5, key)
    with pytest.raises(TypeError, match=r"^x must be floating point"):
        dropout(np.arange(3), 0.5, key=0)
    _, cache = dropout(x, 0.5, key=0)
    with pytest.raises(
        ValueError, match=r"^dy must have shape \(d0, d1\) with d0=4, d1=5, got d1=4"
    ):
        dropout_backward(x[:, :4], cache)
    with pytest.raises(TypeError, match=r"^dy must be float64 like x, got float32"):
        dropout_backward(x.astype(np.float32), cache)
