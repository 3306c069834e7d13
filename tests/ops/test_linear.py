"""The dense layer: gradients of every entry, torch, odd shapes, messages."""

import numpy as np
import pytest

from bigmodel_lab import ops, rng

SHAPES = [(1, 1, 1), (5, 7, 3), (2, 130, 129), (64, 33, 10)]  # N, D, O


def inputs(N, D, O, dtype=np.float64):
    g = rng.generator(0, "test_linear")
    return [g.standard_normal(shape).astype(dtype) for shape in ((N, D), (O, D), (O,), (N, O))]


def relative(got, want):
    return np.abs(got - want).max() / np.abs(want).max()


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 7, 3), (3, 2, 9)])
@pytest.mark.parametrize("bias", [True, False])
def test_gradient_of_every_entry(shape, bias):
    x, w, b, _ = inputs(*shape)
    errors = ops.gradient_error(ops.linear, ops.linear_backward, (x, w, b) if bias else (x, w))
    assert list(errors) == ["x", "w", "b"][: 2 + bias]
    assert max(errors.values()) < 1e-7


# float32: both sides add up at most 130 products of size 1 with an error of 6e-8 each, in orders of their own
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch(shape, dtype, tolerance):
    torch = pytest.importorskip("torch")
    x, w, b, dy = inputs(*shape, dtype)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    ty = torch.nn.functional.linear(*tensors)
    want = [ty.detach(), *torch.autograd.grad(ty, tensors, torch.from_numpy(dy))]
    y, cache = ops.linear(x, w, b)
    for got, t in zip((y, *ops.linear_backward(dy, cache)), want, strict=True):
        assert got.dtype == dtype
        assert relative(got, t.numpy()) < tolerance


def test_no_copies_in_the_cache():
    x, w, b, _ = inputs(5, 7, 3)
    _, cache = ops.linear(x, w, b)
    assert cache[0] is x
    assert cache[1] is w


def test_without_bias_or_without_dx():
    x, w, b, dy = inputs(5, 7, 3)
    y, cache = ops.linear(x, w)
    np.testing.assert_allclose(y, ops.linear(x, w, b)[0] - b, atol=1e-12)
    dx, dw, db = ops.linear_backward(dy, cache, need_dx=False)
    assert dx is None
    assert db is None
    np.testing.assert_allclose(dw, dy.T @ x)


def test_no_rows():
    x, w, b, _ = inputs(5, 7, 3)
    y, cache = ops.linear(x[:0], w, b)
    assert y.shape == (0, 3)
    dx, dw, db = ops.linear_backward(y, cache)
    assert dx.shape == (0, 7)
    assert not dw.any()
    assert not db.any()


def test_other_layouts_give_the_same():
    x, w, b, dy = inputs(6, 8, 4)
    wide = np.repeat(x, 2, axis=1)
    y, cache = ops.linear(wide[:, ::2], np.asfortranarray(w), b[::-1][::-1])
    np.testing.assert_array_equal(y, ops.linear(x, w, b)[0])
    for got, want in zip(
        ops.linear_backward(np.asfortranarray(dy), cache),
        ops.linear_backward(dy, ops.linear(x, w, b)[1]),
        strict=True,
    ):
        np.testing.assert_array_equal(got, want)


def test_nan_stays_in_its_row():
    x, w, b, _ = inputs(5, 7, 3)
    x[2, 1] = np.nan
    y, _ = ops.linear(x, w, b)
    assert np.isnan(y[2]).all()
    assert np.isfinite(np.delete(y, 2, 0)).all()


def test_errors():
    x, w, b, dy = inputs(5, 7, 3)
    with pytest.raises(ValueError, match=r"^x must have shape \(N, D\), got 1 dimension"):
        ops.linear(x[0], w, b)
    with pytest.raises(
        ValueError, match=r"^w must have shape \(O, D\) with D=7, got D=3: \(7, 3\)"
    ):
        ops.linear(x, w.T, b)
    with pytest.raises(ValueError, match=r"^b must have shape \(O\) with O=3, got O=2"):
        ops.linear(x, w, b[:2])
    with pytest.raises(TypeError, match=r"^x and w and b must share one dtype"):
        ops.linear(x, w.astype(np.float32), b)
    _, cache = ops.linear(x, w, b)
    with pytest.raises(ValueError, match=r"^dy must have shape \(N, O\) with N=5, O=3, got N=4"):
        ops.linear_backward(dy[:4], cache)
    with pytest.raises(TypeError, match=r"^dy and x must share one dtype"):
        ops.linear_backward(dy.astype(np.float32), cache)
