"""silu and swiglu: gradients of every entry, torch, special values, layouts, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.gradcheck import gradient_error
from bigmodel_lab.ops.swiglu import silu, silu_backward, swiglu, swiglu_backward

SHAPES = [(0, 3), (1,), (5, 9), (2, 3, 4), (16384,), (3, 16387)]


def inputs(shape, dtype=np.float64):
    g = rng.generator(0, "test_swiglu")
    return [(s * g.standard_normal(shape)).astype(dtype) for s in (3, 2, 1)]


def test_gradient_of_every_entry():
    a, b, _ = inputs((4, 25))
    assert gradient_error(silu, silu_backward, (a,))["x"] < 1e-7
    errors = gradient_error(swiglu, swiglu_backward, (a, b))
    assert errors.keys() == {"a", "b"}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch(shape, dtype, tolerance):
    torch = pytest.importorskip("torch")
    a, b, dy = inputs(shape, dtype)
    ta, tb = (torch.from_numpy(v).requires_grad_() for v in (a, b))
    tdy = torch.from_numpy(dy)

    y, cache = silu(a)
    want = torch.nn.functional.silu(ta)
    pairs = [(y, want), (silu_backward(dy, cache), torch.autograd.grad(want, ta, tdy)[0])]

    y, cache = swiglu(a, b)
    want = torch.nn.functional.silu(ta) * tb
    pairs += [
        (y, want),
        *zip(swiglu_backward(dy, cache), torch.autograd.grad(want, (ta, tb), tdy), strict=True),
    ]

    for got, want in pairs:
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want.detach().numpy(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_stays_nan_and_alone(dtype):
    a, b, dy = inputs((40,), dtype)
    a[3], b[20] = np.nan, np.nan
    y, cache = swiglu(a, b)
    da, db = swiglu_backward(dy, cache)
    assert np.flatnonzero(np.isnan(y)).tolist() == [3, 20]
    assert np.flatnonzero(np.isnan(da)).tolist() == [3, 20]
    assert np.flatnonzero(np.isnan(db)).tolist() == [3]
    assert np.flatnonzero(np.isnan(silu(a)[0])).tolist() == [3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_infinite_and_huge(dtype):
    x = np.array([-np.inf, np.inf, -1e30, 1e30, 0], dtype)
    y, cache = silu(x)
    np.testing.assert_array_equal(y, np.array([np.nan, np.inf, 0, 1e30, 0], dtype))
    dx = silu_backward(np.ones_like(x), cache)
    np.testing.assert_array_equal(dx, np.array([np.nan, np.nan, 0, 1, 0.5], dtype))


def test_other_layouts_give_the_same():
    a, b, dy = inputs((6, 10))
    y, cache = swiglu(a, b)
    y_f, cache_f = swiglu(np.asfortranarray(a), np.asfortranarray(b))
    np.testing.assert_array_equal(y_f, y)
    np.testing.assert_array_equal(
        swiglu_backward(np.asfortranarray(dy), cache_f), swiglu_backward(dy, cache)
    )
    np.testing.assert_array_equal(swiglu(a[:, ::2], b[:, ::2])[0], y[:, ::2])
    np.testing.assert_array_equal(silu(a[:, ::2])[0], silu(a)[0][:, ::2])


def test_the_caches_keep_the_arguments_and_nothing_else():
    a, b, _ = inputs((4, 5))
    assert [v is w for v, w in zip(swiglu(a, b)[1], (a, b), strict=True)] == [True, True]
    assert [v is a for v in silu(a)[1]] == [True]


def test_errors():
    a, b, _ = inputs((4, 5))
    with pytest.raises(
        ValueError, match=r"^b must have shape \(d0, d1\) with d0=4, d1=5, got d1=4"
    ):
        swiglu(a, b[:, :4])
    with pytest.raises(TypeError, match=r"^b and a must share one dtype"):
        swiglu(a, b.astype(np.float32))
    with pytest.raises(TypeError, match=r"^a must be a NumPy array, got list"):
        swiglu([1.0], b)
    with pytest.raises(TypeError, match=r"^x must be floating point"):
        silu(np.arange(3))
    for backward, cache in ((swiglu_backward, swiglu(a, b)[1]), (silu_backward, silu(a)[1])):
        with pytest.raises(
            ValueError, match=r"^dy must have shape \(d0, d1\) with d0=4, d1=5, got d0=3"
        ):
            backward(a[:3], cache)
