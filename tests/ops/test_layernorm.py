"""Layer normalisation: gradients of every entry, torch, what it leaves invariant, special values, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.gradcheck import gradient_error
from bigmodel_lab.ops.layernorm import layernorm, layernorm_backward

# one element, one row, odd sizes, exactly one block of rows, several and a rest, no rows
SHAPES = [(1, 1), (1, 7), (3, 1), (5, 33), (64, 16), (130, 65), (0, 4)]


def inputs(N, D, dtype=np.float64):
    g = rng.generator(0, "test_layernorm")
    arrays = 2 * g.standard_normal((N, D)) + 1, g.standard_normal(D), g.standard_normal(D)
    return [a.astype(dtype) for a in arrays]


def both_ways(x, g, b, dy, **options):
    y, cache = layernorm(x, g, b, **options)
    return y, *layernorm_backward(dy, cache)


@pytest.mark.parametrize("shape", [(1, 2), (5, 9), (66, 3)])
def test_gradient_of_every_entry(shape):
    errors = gradient_error(layernorm, layernorm_backward, inputs(*shape), eps=1e-3)
    assert errors.keys() == {"x", "g", "b"}
    assert max(errors.values()) < 1e-7, errors


# float32: sums over up to 130 rows and 65 columns, in another order than torch's
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch(shape, dtype, tolerance):
    torch = pytest.importorskip("torch")
    x, g, b = inputs(*shape, dtype)
    dy = rng.generator(1, "test_layernorm").standard_normal(shape).astype(dtype)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, g, b)]
    y = torch.nn.functional.layer_norm(tensors[0], shape[1:], *tensors[1:], eps=1e-5)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(x, g, b, dy), wanted, strict=True):
        assert got.dtype == dtype
        assert got.shape == tuple(want.shape)
        if shape[1] > 1:  # a row of one number is all rounding, magnified by 1 / sqrt(eps)
            np.testing.assert_allclose(got, want.numpy(), rtol=tolerance, atol=tolerance)


def test_rows_have_mean_0_and_variance_1_far_from_0_too():
    x = rng.generator(2, "test_layernorm").standard_normal((8, 100)).astype(np.float32)
    y, _ = layernorm(x + 4096, np.ones(100, np.float32), np.zeros(100, np.float32))
    assert np.abs(y.mean(1)).max() < 1e-3  # x itself is only known to 2e-4 there
    assert np.abs(y.var(1) - 1).max() < 1e-3


def test_a_constant_row_gives_the_bias():
    x, g, b = inputs(3, 8, np.float32)
    x[1] = 2.5
    np.testing.assert_array_equal(layernorm(x, g, b)[0][1], b)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_spoils_its_row_alone(bad, dtype):
    x, g, b = inputs(5, 33, dtype)
    dy = x[::-1].copy()
    clean = both_ways(x, g, b, dy)
    x[2, 4] = bad
    y, dx, dg, db = both_ways(x, g, b, dy)
    for got, want in ((y, clean[0]), (dx, clean[1])):
        assert np.isnan(got[2]).all()
        np.testing.assert_array_equal(np.delete(got, 2, 0), np.delete(want, 2, 0))
    assert np.isnan(dg).all()
    np.testing.assert_array_equal(db, clean[3])


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    x, g, b = inputs(6, 10)
    dy = x * 2 + 1
    clean = both_ways(x, g, b, dy)
    spread = [np.asfortranarray(x), np.repeat(g, 2)[::2], np.repeat(b, 2)[::2]]
    before = [a.copy() for a in spread]
    for got, want in zip(both_ways(*spread, np.asfortranarray(dy)), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    for now, then in zip(spread, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_cache_keeps_two_numbers_a_row_beside_its_arguments():
    x, g, b = inputs(5, 33)
    _, cache = layernorm(x, g, b)
    assert cache[0] is x
    assert cache[1] is g
    assert [a.shape for a in cache[2:]] == [(5,), (5,)]


def test_errors():
    x, g, b = inputs(5, 4)
    _, cache = layernorm(x, g, b)
    with pytest.raises(ValueError, match=r"^g must have shape \(D\) with D=4, got D=3"):
        layernorm(x, g[:3], b)
    with pytest.raises(ValueError, match=r"^b must have shape \(D\) with D=4, got D=3"):
        layernorm(x, g, b[:3])
    with pytest.raises(ValueError, match=r"^eps must be at least 0, got -1"):
        layernorm(x, g, b, eps=-1)
    with pytest.raises(ValueError, match=r"^the width D of x must be at least 1, got 0"):
        layernorm(x[:, :0], g[:0], b[:0])
    with pytest.raises(TypeError, match=r"^x and g and b must share one dtype"):
        layernorm(x, g.astype(np.float32), b)
    with pytest.raises(ValueError, match=r"^dy must have shape \(N, D\) with N=5, D=4, got N=4"):
        layernorm_backward(x[:4], cache)
    with pytest.raises(TypeError, match=r"^dy and x must share one dtype"):
        layernorm_backward(x.astype(np.float32), cache)
