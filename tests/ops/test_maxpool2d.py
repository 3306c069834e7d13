"""The largest value in a window: gradients of every entry, torch with ties, NaN and borders, what is kept, messages."""

import numpy as np
import pytest

from bigmodel_lab import ops, rng
from bigmodel_lab.ops import maxpool2d, maxpool2d_backward

# x, kernel, stride, padding
CASES = [
    ((1, 1, 1, 1), 1, None, 0),
    ((2, 3, 6, 8), 2, None, 0),
    ((2, 3, 7, 9), 2, 2, 0),  # a row and a column are left over
    ((1, 2, 7, 6), 3, 2, 1),
    ((2, 1, 5, 6), (3, 2), 1, (1, 0)),
    ((1, 2, 9, 8), (2, 5), (3, 4), (1, 2)),
    ((1, 1, 4, 5), (4, 5), None, 0),
    ((2, 2, 3, 70), (1, 4), (1, 3), (0, 2)),
    ((1, 1, 20, 21), 17, 1, 8),  # 289 pixels: one byte cannot tell them apart
    ((0, 2, 4, 4), 2, None, 0),
]


def options(case):
    return dict(zip(("kernel", "stride", "padding"), case[1:], strict=True))


def image(shape, dtype=np.float64):
    """Numbers in an order of chance, no two the same or nearer than 0.1."""
    g = rng.generator(0, "test_maxpool2d")
    return (0.1 * g.permutation(int(np.prod(shape))) - 3).astype(dtype).reshape(shape)


@pytest.mark.parametrize("case", CASES[:8], ids=str)
def test_gradient_of_every_entry(case):
    errors = ops.gradient_error(maxpool2d, maxpool2d_backward, (image(case[0]),), **options(case))
    assert errors["x"] < 1e-7


def agree(x, dy_seed, case):
    torch = pytest.importorskip("torch")
    kernel, stride, padding = case[1:]
    y, cache = maxpool2d(x, kernel, stride, padding)
    dy = rng.generator(dy_seed).standard_normal(y.shape).astype(x.dtype)
    dx = maxpool2d_backward(dy, cache)
    tx = torch.from_numpy(x).requires_grad_()
    if not x.size:  # torch refuses this one
        assert y.shape == (0, 2, 2, 2)
        assert dx.shape == x.shape
        return
    ty = torch.nn.functional.max_pool2d(tx, kernel, stride, padding)
    (tdx,) = torch.autograd.grad(ty, tx, torch.from_numpy(dy))
    assert y.dtype == dx.dtype == x.dtype
    np.testing.assert_array_equal(y, ty.detach().numpy())
    np.testing.assert_allclose(dx, tdx.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_torch(case, dtype):
    agree(image(case[0], dtype), 1, case)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("kind", ["ties", "NaN", "all -inf"])
def test_ties_nan_and_infinity_as_in_torch(case, kind, dtype):
    g = rng.generator(2, kind)
    x = g.integers(-2, 2, case[0]).astype(dtype)
    if kind == "NaN":
        x[g.random(x.shape) < 0.2] = np.nan
        x[g.random(x.shape) < 0.2] = np.inf
        x[g.random(x.shape) < 0.2] = -np.inf
    if kind == "all -inf":
        x[:] = -np.inf
    agree(x, 3, case)


def test_of_equal_values_the_first_gets_the_gradient():
    x = np.zeros((1, 1, 2, 4))
    x[0, 0] = [[1, 5, -0.0, 0.0], [5, 5, 0.0, -0.0]]
    y, cache = maxpool2d(x, 2)
    np.testing.assert_array_equal(y, [[[[5, 0]]]])
    np.testing.assert_array_equal(
        maxpool2d_backward(np.array([[[[7.0, 8.0]]]]), cache)[0, 0], [[0, 7, 8, 0], [0, 0, 0, 0]]
    )


def test_windows_that_overlap_add_up():
    x = np.zeros((1, 1, 5, 5))
    x[0, 0, 2, 2] = 1
    y, cache = maxpool2d(x, 3, 1)
    assert (y == 1).all()
    dx = maxpool2d_backward(np.ones_like(y), cache)
    assert dx[0, 0, 2, 2] == 9
    assert dx.sum() == 9


@pytest.mark.parametrize(("kernel", "n_bytes"), [(2, 1), ((16, 16), 1), ((16, 17), 4)])
def test_the_cache_keeps_a_byte_for_each_output_and_not_x(kernel, n_bytes):
    y, cache = maxpool2d(image((1, 1, 40, 40)), kernel)
    arrays = [a for a in cache if isinstance(a, np.ndarray)]
    assert [a.nbytes for a in arrays] == [n_bytes * y.size]
    assert (
        arrays[0].max() >= (np.prod(kernel) - 1) // 2
    )  # places beyond 127 and 255 occur and are told apart


def test_other_layouts_give_the_same():
    x = image((2, 3, 6, 8))
    y, cache = maxpool2d(x, 2)
    got, cache_f = maxpool2d(np.asfortranarray(x), 2)
    np.testing.assert_array_equal(got, y)
    np.testing.assert_array_equal(
        maxpool2d_backward(np.asfortranarray(y), cache_f), maxpool2d_backward(y, cache)
    )
    np.testing.assert_array_equal(maxpool2d(x[:, ::2], 2)[0], y[:, ::2])


def test_errors():
    x = image((2, 3, 6, 8))
    with pytest.raises(ValueError, match=r"^x must have shape \(N, C, H, W\), got 2 dimensions"):
        maxpool2d(x[0, 0], 2)
    with pytest.raises(ValueError, match=r"^kernel must be at least 1, got 0"):
        maxpool2d(x, 0)
    with pytest.raises(ValueError, match=r"^stride must be a whole number, or a pair of them"):
        maxpool2d(x, 2, 0.5)
    with pytest.raises(ValueError, match=r"^padding=2 is more than half of the window, 3: some"):
        maxpool2d(x, 3, padding=(1, 2))
    with pytest.raises(ValueError, match=r"^The window is 7 high and the image 6: it must fit"):
        maxpool2d(x, 7)
    with pytest.raises(TypeError, match=r"^x must be floating point, got dtype int64"):
        maxpool2d(x.astype(np.int64), 2)
    y, cache = maxpool2d(x, 2)
    with pytest.raises(
        ValueError, match=r"^dy must have shape \(N, C, U, V\) with N=2, C=3, U=3, V=4, got V=3"
    ):
        maxpool2d_backward(y[..., :3], cache)
