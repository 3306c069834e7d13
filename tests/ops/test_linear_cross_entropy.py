"""Linear layer and cross-entropy in chunks: gradients of every entry, the two operations apart, memory, messages."""

import tracemalloc

import numpy as np
import pytest

from bigmodel_lab import ops, rng
from bigmodel_lab.ops.gradcheck import gradient_error
from bigmodel_lab.ops.linear_cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_backward,
    linear_cross_entropy_with_gradient,
)

# N, D, V, chunk: one of each, a rest, a chunk larger than all, chunks of one
SIZES = [(1, 1, 1, 256), (5, 3, 7, 2), (6, 4, 10, 3), (5, 8, 33, 100), (4, 2, 5, 1)]


def inputs(N, D, V, dtype=np.float64):
    g = rng.generator(0, "test_linear_cross_entropy")
    h, w = (g.standard_normal(s).astype(dtype) for s in ((N, D), (V, D)))
    return h, w, g.integers(0, V, N)


def both_ways(h, w, targets, chunk, dloss=1.0):
    loss, cache = linear_cross_entropy(h, w, targets, chunk=chunk)
    return loss, *linear_cross_entropy_backward(dloss, cache)


@pytest.mark.parametrize("size", SIZES[1:])
def test_gradient_of_every_entry(size):
    errors = gradient_error(
        linear_cross_entropy, linear_cross_entropy_backward, inputs(*size[:3]), chunk=size[3]
    )
    assert errors.keys() == {"h", "w"}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_the_two_operations_apart(size, dtype, tolerance):
    *shape, chunk = size
    h, w, targets = inputs(*shape, dtype)
    logits, linear_cache = ops.linear(h, w)
    loss, cache = ops.softmax_cross_entropy(logits, targets)
    dh, dw, _ = ops.linear_backward(ops.softmax_cross_entropy_backward(-1.5, cache), linear_cache)
    for got, want in zip(both_ways(h, w, targets, chunk, -1.5), (loss, dh, dw), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    one_go = linear_cross_entropy_with_gradient(h, w, targets, chunk)
    for got, want in zip(one_go, both_ways(h, w, targets, chunk), strict=True):
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_agrees_with_torch(dtype, tolerance):
    torch = pytest.importorskip("torch")
    h, w, targets = inputs(50, 16, 129, dtype)
    th, tw = (torch.from_numpy(a).requires_grad_() for a in (h, w))
    loss = torch.nn.functional.cross_entropy(th @ tw.T, torch.from_numpy(targets))
    wanted = loss.detach(), *torch.autograd.grad(loss, (th, tw))
    for got, want in zip(
        linear_cross_entropy_with_gradient(h, w, targets, 20), wanted, strict=True
    ):
        np.testing.assert_allclose(
            got, want.numpy(), rtol=0, atol=tolerance * max(1, abs(wanted[0].item()))
        )


def test_memory_is_a_chunk_of_logits_not_all():
    N, D, V, chunk = 512, 8, 4000, 16
    h, w, targets = inputs(N, D, V, np.float32)
    linear_cross_entropy_with_gradient(h[:2], w, targets[:2])  # compiled now
    tracemalloc.start()
    linear_cross_entropy_with_gradient(h, w, targets, chunk)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    needed = 4 * (chunk * V + 2 * V * D + N * D)  # logits of a chunk, dw and a share of it, dh
    assert needed <= peak < 1.2 * needed < N * V * 4 / 4


def test_the_cache_keeps_its_arguments_and_nothing_else():
    h, w, targets = inputs(5, 3, 7)
    _, cache = linear_cross_entropy(h, w, targets)
    assert cache[0] is h
    assert cache[1] is w
    assert sum(isinstance(a, np.ndarray) for a in cache) == 3


def test_nan_makes_the_loss_nan_and_leaves_the_other_rows_of_dh():
    h, w, targets = inputs(6, 4, 10)
    clean = both_ways(h, w, targets, 3)
    h[2, 1] = np.nan
    loss, dh, dw = both_ways(h, w, targets, 3)
    assert np.isnan(loss)
    assert np.isnan(dh[2]).all()
    assert np.isnan(dw).all()
    np.testing.assert_allclose(np.delete(dh, 2, 0), np.delete(clean[1], 2, 0), rtol=1e-14)


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    h, w, targets = inputs(6, 4, 10)
    clean = both_ways(h, w, targets, 4)
    spread = np.asfortranarray(h), np.asfortranarray(w), np.repeat(targets, 2)[::2]
    for got, want in zip(both_ways(*spread, 4), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    for now, then in zip(spread, (h, w, targets), strict=True):
        np.testing.assert_array_equal(now, then)


def test_errors():
    h, w, targets = inputs(5, 3, 7)
    with pytest.raises(ValueError, match=r"^w must have shape \(V, D\) with D=3, got D=2"):
        linear_cross_entropy(h, w[:, :2], targets)
    with pytest.raises(ValueError, match=r"^targets must have shape \(N\) with N=5, got N=4"):
        linear_cross_entropy(h, w, targets[:4])
    with pytest.raises(
        ValueError, match=r"^targets\[2\] is 7: with V=7 classes it must be between 0 and 6.$"
    ):
        linear_cross_entropy(h, w, np.array([0, 1, 7, 2, 3]))
    with pytest.raises(ValueError, match=r"^targets\[0\] is -1"):
        linear_cross_entropy_with_gradient(h, w, targets * 0 - 1)
    with pytest.raises(TypeError, match=r"^targets must be whole numbers, got dtype float64"):
        linear_cross_entropy(h, w, targets.astype(float))
    with pytest.raises(ValueError, match=r"^chunk must be at least 1, got 0"):
        linear_cross_entropy(h, w, targets, chunk=0)
    with pytest.raises(ValueError, match=r"^the number N of rows of h must be at least 1, got 0"):
        linear_cross_entropy(h[:0], w, targets[:0])
    with pytest.raises(ValueError, match=r"^the number V of rows of w must be at least 1, got 0"):
        linear_cross_entropy(h, w[:0], targets)
    with pytest.raises(TypeError, match=r"^h and w must share one dtype"):
        linear_cross_entropy(h, w.astype(np.float32), targets)
