"""The GRU cell: gradients of every entry, torch, the equation, the input's share given ready-made, what is kept, messages."""

import numpy as np
import pytest
from recurrent_cases import check_other_layouts, check_ready_made_share

from bigmodel_lab import ops, rng
from bigmodel_lab.ops import gru_cell, gru_cell_backward

SIZES = [(1, 1, 1), (3, 2, 5), (2, 7, 17), (5, 33, 64), (0, 3, 4)]  # B, E, D
NAMES = ["x", "h", "w_ih", "w_hh", "b_ih", "b_hh"]


def inputs(B, E, D, dtype=np.float64):
    g = rng.generator(0, "test_gru_cell")
    shapes = (B, E), (B, D), (3 * D, E), (3 * D, D), (3 * D,), (3 * D,)
    *args, dy = (g.standard_normal(s).astype(dtype) for s in (*shapes, (B, D)))
    args[2] /= np.sqrt(E).astype(dtype)
    args[3] /= np.sqrt(D).astype(dtype)
    return args, dy


def both_ways(args, dy):
    y, cache = gru_cell(*args)
    return y, *gru_cell_backward(dy, cache)


def test_is_what_the_equation_says():
    (x, h, w_ih, w_hh, b_ih, b_hh), _ = inputs(3, 2, 5)
    a, g = x @ w_ih.T + b_ih, h @ w_hh.T + b_hh
    r, z = (1 / (1 + np.exp(-a - g)[:, i : i + 5]) for i in (0, 5))
    n = np.tanh(a[:, 10:] + r * g[:, 10:])
    y, (gates, candidate, *_) = gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
    np.testing.assert_allclose(y, (1 - z) * n + z * h, rtol=1e-12)
    np.testing.assert_allclose(gates, np.concatenate([r, z, g[:, 10:]], 1), rtol=1e-12)
    np.testing.assert_allclose(candidate, n, rtol=1e-12)


@pytest.mark.parametrize("size", SIZES[:3])
@pytest.mark.parametrize("biases", [0, 2])
def test_gradient_of_every_entry(size, biases):
    args, _ = inputs(*size)
    errors = ops.gradient_error(gru_cell, gru_cell_backward, args[: 4 + biases])
    assert list(errors) == NAMES[: 4 + biases]
    assert max(errors.values()) < 1e-7, errors


# float32: sums of up to 64 products; tanh and sigmoid are right to 2e-7
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("size", SIZES[:4])
def test_agrees_with_torch(size, dtype, tolerance):
    torch = pytest.importorskip("torch")
    args, dy = inputs(*size, dtype)
    tensors = [torch.from_numpy(a).requires_grad_() for a in args]
    y = torch.gru_cell(*tensors)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(args, dy), wanted, strict=True):
        want = want.numpy()
        assert got.dtype == dtype
        assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max())


def test_the_share_of_the_input_may_be_given_ready_made():
    check_ready_made_share(both_ways, *inputs(3, 2, 5))


def test_no_rows():
    args, dy = inputs(*SIZES[4])
    y, *grads = both_ways(args, dy)
    assert y.shape == (0, 4)
    assert [g.shape for g in grads] == [a.shape for a in args]
    assert not any(g.any() for g in grads)


def test_another_matrix_product_is_used_in_both_passes():
    args, dy = inputs(3, 2, 5)
    calls = []

    def matmul(a, b, out):
        calls.append(out.shape)
        np.matmul(a, b, out=out)

    y, cache = gru_cell(*args, matmul=matmul)
    grads = gru_cell_backward(dy, cache)
    assert calls == [(3, 15), (3, 15), (3, 5), (15, 5), (3, 2), (15, 2)]
    for got, want in zip((y, *grads), both_ways(args, dy), strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_the_cache_keeps():
    args, _ = inputs(3, 2, 5)
    _, cache = gru_cell(*args)
    own = [a for a in cache if isinstance(a, np.ndarray) and not any(a is b for b in args)]
    assert sorted(a.shape for a in own) == [(3, 5), (3, 15)]
    assert sum(any(a is b for b in args[:4]) for a in cache) == 4


def test_nan_and_infinity_stay_in_their_row():
    args, dy = inputs(3, 2, 5)
    y, *_ = both_ways(args, dy)
    args[0][1, 0] = np.nan
    got, dx, dh, *_ = both_ways(args, dy)
    assert np.isnan(got[1]).all()
    for a in (got, dx, dh):
        assert np.isfinite(np.delete(a, 1, 0)).all()
    np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(y, 1, 0))
    args[0][1, 0], args[1][1, 2] = 0, np.inf
    with np.errstate(
        invalid="ignore"
    ):  # a BLAS may multiply infinity by the zeros that fill up a block
        got, _ = gru_cell(*args)
    assert not np.isfinite(got[1, 2])
    np.testing.assert_array_equal(np.delete(got, 1, 0), np.delete(y, 1, 0))


def test_huge_gates_close_and_open():
    (x, h, w_ih, w_hh, b_ih, b_hh), _ = inputs(3, 2, 5, np.float32)
    b_ih[5:10] = 1e4
    kept, _ = gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)
    np.testing.assert_allclose(kept, h, rtol=0, atol=3e-7)  # n + (h - n), rounded twice
    b_ih[5:10], b_ih[10:] = -1e4, 1e4
    assert (gru_cell(x, h, w_ih, w_hh, b_ih, b_hh)[0] == 1).all()  # all is new


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    check_other_layouts(both_ways, *inputs(3, 2, 5))


def test_errors():
    (x, h, w_ih, w_hh, b_ih, b_hh), dy = inputs(3, 2, 5)
    with pytest.raises(ValueError, match=r"^h must have shape \(B, D\), got 1 dimension"):
        gru_cell(x, h[0], w_ih, w_hh)
    with pytest.raises(ValueError, match=r"^the width D of h must be at least 1, got 0"):
        gru_cell(x, h[:, :0], w_ih, w_hh)
    with pytest.raises(ValueError, match=r"^x must have shape \(B, E\) with B=3, got B=2"):
        gru_cell(x[:2], h, w_ih, w_hh)
    with pytest.raises(
        ValueError, match=r"^w_ih must have shape \(3D, E\) with 3D=15, E=2, got 3D=14"
    ):
        gru_cell(x, h, w_ih[:14], w_hh)
    with pytest.raises(
        ValueError, match=r"^w_hh must have shape \(3D, D\) with 3D=15, D=5, got 3D=5, D=15"
    ):
        gru_cell(x, h, w_ih, w_hh.T)
    with pytest.raises(ValueError, match=r"^b_hh must have shape \(3D\) with 3D=15, got 3D=5"):
        gru_cell(x, h, w_ih, w_hh, b_ih, b_hh[:5])
    with pytest.raises(ValueError, match=r"^x must have shape \(B, 3D\) with B=3, 3D=15, got 3D=2"):
        gru_cell(x, h, None, w_hh)
    with pytest.raises(ValueError, match=r"^b_ih was given and w_ih is None"):
        gru_cell(np.zeros((3, 15)), h, None, w_hh, b_ih)
    with pytest.raises(TypeError, match=r"^x and h and w_ih and w_hh must share one dtype"):
        gru_cell(x.astype(np.float32), h, w_ih, w_hh)
    _, cache = gru_cell(x, h, w_ih, w_hh)
    with pytest.raises(
        ValueError, match=r"^dh_next must have shape \(B, D\) with B=3, D=5, got B=2"
    ):
        gru_cell_backward(dy[:2], cache)
    with pytest.raises(TypeError, match=r"^dh_next and h must share one dtype"):
        gru_cell_backward(dy.astype(np.float32), cache)
