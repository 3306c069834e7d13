"""Softmax: gradients of every entry, torch, the causal mask, special values, layouts, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.gradcheck import gradient_error
from bigmodel_lab.ops.softmax import softmax, softmax_backward

PLAIN = [(1,), (7,), (0, 3), (5, 10), (2, 3, 129), (3, 0, 2)]
CAUSAL = [(1, 1), (5, 5), (2, 3, 4), (2, 2, 1, 7), (33, 65), (0, 2, 2), (0, 3)]


def inputs(shape, dtype=np.float64, size=3.0):
    g = rng.generator(0, "test_softmax")
    return (size * g.standard_normal(shape)).astype(dtype), g.standard_normal(shape).astype(dtype)


def both_ways(x, dy, **options):
    y, cache = softmax(x, **options)
    return y, softmax_backward(dy, cache)


def hidden(shape):
    """True where causal=True hides x."""
    return np.triu(np.ones(shape, bool), shape[-1] - shape[-2] + 1)


@pytest.mark.parametrize(("shape", "causal"), [((3, 7), False), ((2, 4, 4), True), ((3, 5), True)])
def test_gradient_of_every_entry(shape, causal):
    x, _ = inputs(shape)
    assert gradient_error(softmax, softmax_backward, (x,), causal=causal)["x"] < 1e-7


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("size", [1, 100])
@pytest.mark.parametrize(
    ("shape", "causal"), [(s, False) for s in PLAIN] + [(s, True) for s in CAUSAL]
)
def test_agrees_with_torch(shape, causal, size, dtype, tolerance):
    torch = pytest.importorskip("torch")
    x, dy = inputs(shape, dtype, size)
    t = torch.from_numpy(x).requires_grad_()
    masked = t.masked_fill(torch.from_numpy(hidden(shape)), -torch.inf) if causal else t
    want = masked.softmax(-1)
    (dwant,) = torch.autograd.grad(want, t, torch.from_numpy(dy))
    y, dx = both_ways(x, dy, causal=causal)
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_allclose(y, want.detach().numpy(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(dx, dwant.numpy(), rtol=0, atol=4 * tolerance)


def test_rows_add_up_to_1_and_a_shift_changes_nothing():
    x = np.round(inputs((5, 10))[0])  # whole numbers, which stay exact when 1000 is added
    y, _ = softmax(x)
    np.testing.assert_allclose(y.sum(1), 1, rtol=1e-15)
    np.testing.assert_array_equal(softmax(x + 1000)[0], y)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_the_mask_hides_has_no_influence(dtype):
    x, dy = inputs((2, 4, 6), dtype)
    y, dx = both_ways(x, dy, causal=True)
    x[hidden(x.shape)] = np.nan
    dy[hidden(x.shape)] = np.inf
    for got, want in zip(both_ways(x, dy, causal=True), (y, dx), strict=True):
        np.testing.assert_array_equal(got, want)
        assert not got[hidden(x.shape)].any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [[np.nan, 0, 1], [-np.nan, -2, -1], [np.inf, 0, 1], [-np.inf] * 3])
def test_a_row_without_meaning_is_nan_and_spoils_no_other(bad, dtype):
    x, dy = inputs((5, 3), dtype)
    clean = both_ways(x, dy)
    x[2] = bad
    for got, want in zip(both_ways(x, dy), clean, strict=True):
        assert np.isnan(got[2]).all()
        np.testing.assert_array_equal(np.delete(got, 2, 0), np.delete(want, 2, 0))


def test_minus_infinity_is_probability_0():
    y, dx = both_ways(np.array([[-np.inf, 0, 0]]), np.array([[5.0, 1, 2]]))
    np.testing.assert_array_equal(y, [[0, 0.5, 0.5]])
    np.testing.assert_array_equal(dx, [[0, -0.25, 0.25]])


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    x, dy = inputs((6, 10))
    clean = both_ways(x, dy)
    spread = np.asfortranarray(x), np.asfortranarray(dy)
    for got, want in zip(both_ways(*spread), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(spread[0], x)
    np.testing.assert_array_equal(spread[1], dy)


def test_the_cache_keeps_y_alone():
    y, cache = softmax(inputs((4, 5))[0])
    assert cache[0] is y
    assert sum(isinstance(a, np.ndarray) for a in cache) == 1


def test_errors():
    x, _ = inputs((5, 4))
    with pytest.raises(
        ValueError, match=r"^x must have at least as many columns as rows for causal=True.*T=5.*V=4"
    ):
        softmax(x, causal=True)
    with pytest.raises(
        ValueError, match=r"^x must have shape \(..., T, V\) with V at least 1, got shape \(4,\)"
    ):
        softmax(x[0], causal=True)
    with pytest.raises(
        ValueError, match=r"^x must have shape \(..., V\) with V at least 1, got shape \(5, 0\)"
    ):
        softmax(x[:, :0])
    with pytest.raises(TypeError, match=r"^x must be floating point"):
        softmax(np.arange(3))
    _, cache = softmax(x)
    with pytest.raises(
        ValueError, match=r"^dy must have shape \(d0, d1\) with d0=5, d1=4, got d0=4"
    ):
        softmax_backward(x[:4], cache)
    with pytest.raises(TypeError, match=r"^dy and y must share one dtype"):
        softmax_backward(x.astype(np.float32), cache)
