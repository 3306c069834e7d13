"""The plain recurrent cell: gradients of every entry, torch, the input's share given ready-made, NaN, messages."""

import numpy as np
import pytest
from recurrent_cases import check_other_layouts, check_ready_made_share

from bigmodel_lab import ops, rng
from bigmodel_lab.ops import rnn_cell, rnn_cell_backward

SIZES = [(1, 1, 1), (3, 2, 5), (2, 7, 17), (5, 33, 64)]  # B, E, D
NAMES = ["x", "h", "w_ih", "w_hh", "b_ih", "b_hh"]
KINDS = ["tanh", "relu"]


def inputs(B, E, D, dtype=np.float64):
    g = rng.generator(0, "test_rnn_cell")
    shapes = (B, E), (B, D), (D, E), (D, D), (D,), (D,)
    *args, dy = (g.standard_normal(s).astype(dtype) for s in (*shapes, (B, D)))
    args[2] /= np.sqrt(E).astype(dtype)
    args[3] /= np.sqrt(D).astype(dtype)
    return args, dy


def both_ways(args, dy, kind="tanh"):
    y, cache = rnn_cell(*args, nonlinearity=kind)
    return y, *rnn_cell_backward(dy, cache)


@pytest.mark.parametrize("size", SIZES[:3])
@pytest.mark.parametrize("biases", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_every_entry(size, biases, kind):
    args, _ = inputs(*size)
    if size == (1, 1, 1):
        args = [abs(a) for a in args]  # left of 0 all gradients of relu are 0
    errors = ops.gradient_error(rnn_cell, rnn_cell_backward, args[: 4 + biases], nonlinearity=kind)
    assert list(errors) == NAMES[: 4 + biases]
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_torch(size, kind, dtype, tolerance):
    torch = pytest.importorskip("torch")
    args, dy = inputs(*size, dtype)
    tensors = [torch.from_numpy(a).requires_grad_() for a in args]
    y = {"tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}[kind](*tensors)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(args, dy, kind), wanted, strict=True):
        want = want.numpy()
        assert got.dtype == dtype
        assert np.abs(got - want).max() <= tolerance * max(1, np.abs(want).max())


@pytest.mark.parametrize("kind", KINDS)
def test_the_share_of_the_input_may_be_given_ready_made(kind):
    check_ready_made_share(lambda args, dy: both_ways(args, dy, kind), *inputs(3, 2, 5))


def test_gradients_share_no_memory():
    """An optimiser or a clipping that changes one in place must not change another."""
    args, dy = inputs(3, 2, 5)
    grads = both_ways(args, dy)[1:]
    for i, a in enumerate(grads):
        assert not any(np.shares_memory(a, b) for b in (*grads[:i], dy, *args))


def test_what_the_cache_keeps():
    args, _ = inputs(3, 2, 5)
    y, cache = rnn_cell(*args)
    kept = [a for a in cache if isinstance(a, np.ndarray)]
    assert kept[0] is y
    assert len(kept) == 5
    assert all(any(a is b for b in args[:4]) for a in kept[1:])


@pytest.mark.parametrize("kind", KINDS)
def test_nan_stays_in_its_row(kind):
    args, dy = inputs(3, 2, 5)
    args[0][1, 0] = np.nan
    y, dx, dh, *_ = both_ways(args, dy, kind)
    assert np.isnan(y[1]).all()
    for a in (y, dx, dh):
        assert np.isfinite(np.delete(a, 1, 0)).all()


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    check_other_layouts(both_ways, *inputs(3, 2, 5))


def test_errors():
    (x, h, w_ih, w_hh, b_ih, b_hh), dy = inputs(3, 2, 5)
    with pytest.raises(ValueError, match=r"^nonlinearity must be one of .*, got 'tan'. Did you"):
        rnn_cell(x, h, w_ih, w_hh, nonlinearity="tan")
    with pytest.raises(ValueError, match=r"^w_ih must have shape \(D, E\) with D=5, E=2, got D=4"):
        rnn_cell(x, h, w_ih[:4], w_hh)
    with pytest.raises(ValueError, match=r"^w_hh must have shape \(rows, D\) with .*, got rows=4"):
        rnn_cell(x, h, w_ih, w_hh[:4])
    with pytest.raises(ValueError, match=r"^b_ih must have shape \(D\) with D=5, got D=4"):
        rnn_cell(x, h, w_ih, w_hh, b_ih[:4], b_hh)
    with pytest.raises(ValueError, match=r"^x must have shape \(B, D\) with B=3, D=5, got D=2"):
        rnn_cell(x, h, None, w_hh)
    _, cache = rnn_cell(x, h, w_ih, w_hh)
    with pytest.raises(
        ValueError, match=r"^dh_next must have shape \(B, D\) with B=3, D=5, got B=2"
    ):
        rnn_cell_backward(dy[:2], cache)
    with pytest.raises(TypeError, match=r"^dh_next and h_next must share one dtype"):
        rnn_cell_backward(dy.astype(np.float32), cache)
