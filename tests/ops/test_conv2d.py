"""The convolution: gradients of every entry, torch, a loop by hand, odd shapes, layouts, special values, messages."""

import numpy as np
import pytest

from bigmodel_lab import ops, rng
from bigmodel_lab.ops import conv2d, conv2d_backward

# x (N, C, H, W), filters (O, I, J), stride, padding: one pixel, borders wider than the filter, strides longer than the
# filter and that leave pixels over, images narrower than the padding, more blocks than one, more images than groups
CASES = [
    ((1, 1, 1, 1), (1, 1, 1), 1, 0),
    ((2, 3, 5, 7), (4, 3, 3), 1, 1),
    ((2, 2, 6, 5), (3, 2, 4), (2, 1), (0, 2)),
    ((1, 4, 6, 3), (4, 3, 5), (3, 2), 1),
    ((3, 2, 9, 10), (5, 2, 1), (4, 3), 3),
    ((2, 1, 3, 2), (2, 1, 1), 2, 4),
    ((1, 2, 1, 8), (3, 5, 5), 1, 2),
    ((19, 1, 6, 6), (9, 3, 3), 1, 0),
    ((2, 1, 40, 37), (3, 5, 5), 1, 2),
    ((2, 3, 30, 33), (2, 7, 7), 2, 3),
    ((0, 2, 5, 5), (3, 3, 3), 1, 1),
]


def inputs(image, filters, stride, padding, dtype=np.float64):
    g = rng.generator(0, "test_conv2d")
    O, I, J = filters
    x, w, b = (g.standard_normal(s).astype(dtype) for s in (image, (O, image[1], I, J), (O,)))
    dy = g.standard_normal(conv2d(x, w, b, stride, padding)[0].shape).astype(dtype)
    return x, w, b, dy


def both_ways(x, w, b, dy, *options):
    y, cache = conv2d(x, w, b, *options)
    return y, *conv2d_backward(dy, cache)


def test_is_what_the_equation_says():
    (image, filters, (sh, sw), (ph, pw)) = case = CASES[2]
    x, w, b, _ = inputs(*case)
    (N, C, H, W), (O, I, J) = image, filters
    y, _ = conv2d(x, w, b, (sh, sw), (ph, pw))
    assert y.shape == (N, O, 3, 6)
    for n, o, u, v in np.ndindex(y.shape):
        total = b[o]
        for c, i, j in np.ndindex(C, I, J):
            row, column = sh * u + i - ph, sw * v + j - pw
            if 0 <= row < H and 0 <= column < W:
                total += w[o, c, i, j] * x[n, c, row, column]
        np.testing.assert_allclose(y[n, o, u, v], total, rtol=1e-12)


@pytest.mark.parametrize("case", CASES[:7], ids=str)
def test_gradient_of_every_entry(case):
    *_, stride, padding = case
    x, w, b, _ = inputs(*case)
    errors = ops.gradient_error(conv2d, conv2d_backward, (x, w, b), stride=stride, padding=padding)
    assert errors.keys() == {"x", "w", "b"}
    assert max(errors.values()) < 1e-7, errors
    without = ops.gradient_error(conv2d, conv2d_backward, (x, w), stride=stride, padding=padding)
    assert max(without.values()) < 1e-7, without


# float32: sums of up to 3,000 products of size 1, each side in an order of its own
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_torch(case, dtype, tolerance):
    torch = pytest.importorskip("torch")
    *_, stride, padding = case
    x, w, b, dy = inputs(*case, dtype)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    y = torch.nn.functional.conv2d(*tensors, stride, padding)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(x, w, b, dy, stride, padding), wanted, strict=True):
        want = want.numpy()
        assert got.dtype == dtype
        assert got.shape == want.shape
        assert np.abs(got - want).max(initial=0) <= tolerance * np.abs(want).max(initial=1)


def test_many_channels_and_several_blocks_agree_with_torch():
    torch = pytest.importorskip("torch")
    case = (2, 130, 9, 31), (33, 3, 3), 1, 1
    x, w, b, dy = inputs(*case, np.float32)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    y = torch.nn.functional.conv2d(*tensors, 1, 1)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(x, w, b, dy, 1, 1), wanted, strict=True):
        assert np.abs(got - want.numpy()).max() < 2e-6 * want.abs().max().item()


def test_without_bias_or_without_dx():
    x, w, b, dy = inputs(*CASES[1])
    y, cache = conv2d(x, w, padding=1)
    np.testing.assert_allclose(y, conv2d(x, w, b, padding=1)[0] - b[:, None, None], atol=1e-12)
    dx, dw, db = conv2d_backward(dy, cache, need_dx=False)
    assert dx is None
    assert db is None
    np.testing.assert_array_equal(dw, conv2d_backward(dy, cache)[1])


def test_pixels_that_no_window_reaches_get_no_gradient():
    x, w, b, dy = inputs((1, 1, 8, 8), (1, 2, 2), 5, 0)
    dx = both_ways(x, w, b, dy, 5)[1]
    assert np.flatnonzero(dx.any((0, 1, 3))).tolist() == [0, 1, 5, 6]
    assert np.flatnonzero(dx.any((0, 1, 2))).tolist() == [0, 1, 5, 6]


def test_one_tap_is_a_linear_layer_at_every_pixel():
    x, w, b, _ = inputs((2, 5, 4, 3), (6, 1, 1), 1, 0)
    rows, _ = ops.linear(
        np.ascontiguousarray(x.transpose(0, 2, 3, 1)).reshape(-1, 5), w[..., 0, 0], b
    )
    np.testing.assert_allclose(
        conv2d(x, w, b)[0], rows.reshape(2, 4, 3, 6).transpose(0, 3, 1, 2), rtol=1e-12
    )


def test_no_copies_in_the_cache():
    x, w, b, _ = inputs(*CASES[1])
    _, cache = conv2d(x, w, b, padding=1)
    assert cache[0] is x
    assert cache[1] is w
    assert sum(isinstance(a, np.ndarray) for a in cache) == 2


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    args = inputs(*CASES[1])
    clean = both_ways(*args, 1, 1)
    strange = [np.asfortranarray(a) for a in args]
    strange[0] = np.repeat(args[0], 2, axis=3)[..., ::2]
    strange[0].flags.writeable = False
    for got, want in zip(both_ways(*strange, 1, 1), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    for a, b in zip(strange, args, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_reach_the_windows_that_hold_them(bad):
    x, w, b, dy = inputs(*CASES[1])
    clean, _ = conv2d(x, w, b, padding=1)
    x[1, 2, 0, 3] = bad
    y, cache = conv2d(x, w, b, padding=1)
    reached = np.zeros(y.shape, bool)
    reached[1, :, :2, 2:5] = True
    np.testing.assert_array_equal(~np.isfinite(y), reached)
    np.testing.assert_array_equal(y[~reached], clean[~reached])
    dx, dw, db = conv2d_backward(dy, cache)
    assert np.isfinite(dx).all()
    assert np.isfinite(db).all()
    assert np.isfinite(dw[:, :2]).all()
    # in the first row of pixels: the last row of taps would see it from a window above the image
    assert not np.isfinite(dw[:, 2, :2]).any()


def test_nan_in_a_filter_or_in_dy():
    x, w, b, dy = inputs(*CASES[1])
    w[1, 0, 2, 2] = np.nan
    y, _ = conv2d(x, w, b, padding=1)
    assert np.isnan(y[:, 1]).all()  # also where the tap is outside: 0 * NaN
    assert np.isfinite(np.delete(y, 1, 1)).all()
    x, w, b, dy = inputs(*CASES[1])
    dy[0, 1, 2, 2] = np.nan
    _, dx, dw, db = both_ways(x, w, b, dy, 1, 1)
    assert np.isnan(dx[0]).any(0).sum() == 9
    assert np.isfinite(dx[1]).all()
    assert np.isnan(db).tolist() == [False, True, False, False]
    assert np.isnan(dw).any((1, 2, 3)).tolist() == [False, True, False, False]


def test_errors():
    x, w, b, dy = inputs(*CASES[1])
    with pytest.raises(ValueError, match=r"^x must have shape \(N, C, H, W\), got 3 dimensions"):
        conv2d(x[0], w)
    with pytest.raises(
        ValueError, match=r"^w must have shape \(O, C, I, J\) with C=3, got C=2: \(4, 2, 3, 3\)"
    ):
        conv2d(x, w[:, :2])
    with pytest.raises(ValueError, match=r"^b must have shape \(O\) with O=4, got O=3"):
        conv2d(x, w, b[:3])
    with pytest.raises(ValueError, match=r"^the length I of w must be at least 1, got 0"):
        conv2d(x, w[:, :, :0])
    with pytest.raises(ValueError, match=r"^the length C of w must be at least 1, got 0"):
        conv2d(x[:, :0], w[:, :0])
    with pytest.raises(ValueError, match=r"^stride must be at least 1, got 0"):
        conv2d(x, w, stride=0)
    with pytest.raises(ValueError, match=r"^padding must be a whole number, or a pair of them"):
        conv2d(x, w, padding="same")
    with pytest.raises(ValueError, match=r"^The window is 3 wide and the image 2: it must fit"):
        conv2d(x[..., :2], w)
    with pytest.raises(TypeError, match=r"^x and w and b must share one dtype"):
        conv2d(x, w.astype(np.float32), b)
    with pytest.raises(TypeError, match=r"^x and w must be float32 or float64, got float16"):
        conv2d(x.astype(np.float16), w.astype(np.float16))
    _, cache = conv2d(x, w, b)
    with pytest.raises(
        ValueError,
        match=r"^dy must have shape \(N, O, U, V\) with N=2, O=4, U=3, V=5, got U=5, V=7",
    ):
        conv2d_backward(dy, cache)
    with pytest.raises(TypeError, match=r"^dy and x must share one dtype"):
        conv2d_backward(dy[:, :, :3, :5].astype(np.float32), cache)
