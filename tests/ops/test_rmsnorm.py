"""RMS normalisation: gradients of every entry, torch, what it leaves invariant, special values, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.gradcheck import gradient_error
from bigmodel_lab.ops.rmsnorm import rmsnorm, rmsnorm_backward

SHAPES = [(1, 1), (1, 7), (3, 1), (5, 33), (64, 16), (130, 65), (0, 4)]


def inputs(N, D, dtype=np.float64):
    g = rng.generator(0, "test_rmsnorm")
    return [a.astype(dtype) for a in (2 * g.standard_normal((N, D)) + 1, g.standard_normal(D))]


def both_ways(x, g, dy, **options):
    y, cache = rmsnorm(x, g, **options)
    return y, *rmsnorm_backward(dy, cache)


@pytest.mark.parametrize("shape", [(1, 2), (5, 9), (66, 3)])
def test_gradient_of_every_entry(shape):
    errors = gradient_error(rmsnorm, rmsnorm_backward, inputs(*shape), eps=1e-3)
    assert errors.keys() == {"x", "g"}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 5e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch(shape, dtype, tolerance):
    torch = pytest.importorskip("torch")
    x, g = inputs(*shape, dtype)
    dy = rng.generator(1, "test_rmsnorm").standard_normal(shape).astype(dtype)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, g)]
    y = torch.nn.functional.rms_norm(tensors[0], shape[1:], tensors[1], eps=1e-6)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(x, g, dy), wanted, strict=True):
        assert got.dtype == dtype
        assert got.shape == tuple(want.shape)
        np.testing.assert_allclose(got, want.numpy(), rtol=tolerance, atol=tolerance)


def test_doubling_x_changes_nothing_so_dx_has_no_part_along_x():
    x, g = inputs(5, 33)
    y, dx, _ = both_ways(x, g, x[::-1].copy(), eps=0)
    np.testing.assert_array_equal(rmsnorm(2 * x, g, eps=0)[0], y)
    assert np.abs((dx * x).sum(1)).max() < 1e-12


def test_a_row_of_zeros_stays_zero():
    x, g = inputs(3, 8, np.float32)
    x[1] = 0
    y, dx, _ = both_ways(x, g, np.ones_like(x))
    np.testing.assert_array_equal(y[1], 0)
    np.testing.assert_allclose(dx[1], 1000 * g, rtol=1e-6)  # r = 1 / sqrt(eps)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_spoils_its_row_alone(dtype):
    x, g = inputs(5, 33, dtype)
    dy = x[::-1].copy()
    clean = both_ways(x, g, dy)
    x[2, 4] = np.nan
    y, dx, dg = both_ways(x, g, dy)
    for got, want in ((y, clean[0]), (dx, clean[1])):
        assert np.isnan(got[2]).all()
        np.testing.assert_array_equal(np.delete(got, 2, 0), np.delete(want, 2, 0))
    assert np.isnan(dg).all()


def test_infinite_and_huge():
    x, g = inputs(2, 4, np.float32)
    x[0, 1], x[1, 2] = np.inf, 1e20
    y, _ = rmsnorm(x, g)
    np.testing.assert_array_equal(np.isnan(y), [[False, True, False, False], [False] * 4])
    assert not np.nan_to_num(y).any()


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    x, g = inputs(6, 10)
    dy = x * 2 + 1
    clean = both_ways(x, g, dy)
    spread = [np.asfortranarray(x), np.repeat(g, 2)[::2]]
    before = [a.copy() for a in spread]
    for got, want in zip(both_ways(*spread, np.asfortranarray(dy)), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    for now, then in zip(spread, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_cache_keeps_one_number_a_row_beside_its_arguments():
    x, g = inputs(5, 33)
    _, cache = rmsnorm(x, g)
    assert cache[0] is x
    assert cache[1] is g
    assert [a.shape for a in cache[2:]] == [(5,)]


def test_errors():
    x, g = inputs(5, 4)
    _, cache = rmsnorm(x, g)
    with pytest.raises(ValueError, match=r"^g must have shape \(D\) with D=4, got D=3"):
        rmsnorm(x, g[:3])
    with pytest.raises(ValueError, match=r"^eps must be at least 0, got nan"):
        rmsnorm(x, g, eps=float("nan"))
    with pytest.raises(ValueError, match=r"^the width D of x must be at least 1, got 0"):
        rmsnorm(x[:, :0], g[:0])
    with pytest.raises(TypeError, match=r"^x and g must share one dtype"):
        rmsnorm(x, g.astype(np.float32))
    with pytest.raises(ValueError, match=r"^dy must have shape \(N, D\) with N=5, D=4, got N=4"):
        rmsnorm_backward(x[:4], cache)
