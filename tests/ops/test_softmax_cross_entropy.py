"""Softmax and cross-entropy: gradients of every entry, torch, special values, the one-pass variant, messages."""

import numpy as np
import pytest

from bigmodel_lab import ops, rng

SHAPES = [(1, 1), (1, 7), (5, 10), (3, 129), (64, 33), (2, 5000)]


def inputs(N, V, dtype=np.float64, size=3.0):
    g = rng.generator(0, "test_softmax_cross_entropy")
    return (size * g.standard_normal((N, V))).astype(dtype), g.integers(0, V, N)


def both_ways(logits, targets, dloss=1.0):
    loss, cache = ops.softmax_cross_entropy(logits, targets)
    return loss, ops.softmax_cross_entropy_backward(dloss, cache)


def in_torch(logits, targets):
    torch = pytest.importorskip("torch")
    t = torch.from_numpy(logits).requires_grad_()
    loss = torch.nn.functional.cross_entropy(t, torch.from_numpy(targets))
    return loss.item(), torch.autograd.grad(loss, t)[0].numpy()


@pytest.mark.parametrize("shape", [(1, 2), (5, 10), (3, 40)])
def test_gradient_of_every_entry(shape):
    error = ops.gradient_error(
        ops.softmax_cross_entropy, ops.softmax_cross_entropy_backward, inputs(*shape)
    )
    assert error["logits"] < 1e-7


# float32: an exponential, a sum and a logarithm, each within 1e-7 to 2e-7, on both sides
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("size", [1, 30, 1000])
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_with_torch(shape, size, dtype, tolerance):
    logits, targets = inputs(*shape, dtype, size)
    want_loss, want = in_torch(logits, targets)
    one_pass = ops.softmax_cross_entropy_with_gradient(logits, targets)
    for loss, dlogits in (both_ways(logits, targets), one_pass):
        assert loss.dtype == dlogits.dtype == dtype
        assert abs(loss - want_loss) <= tolerance * max(1, abs(want_loss))
        assert np.abs(dlogits - want).max() * len(targets) < tolerance


def test_a_uniform_guess_costs_log_v():
    loss, dlogits = both_ways(np.full((4, 10), 1000.0), np.arange(4))
    assert abs(loss - np.log(10)) < 1e-12
    assert np.abs(dlogits.sum(1)).max() < 1e-15


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_huge_logits_do_not_overflow(dtype):
    logits = np.array([[1000, -1000, 0], [-1000, -1000, -1000], [0, 1000, 1000]], dtype)
    loss, dlogits = both_ways(logits, np.array([0, 1, 1]))
    np.testing.assert_allclose(loss, (0 + np.log(3) + np.log(2)) / 3, rtol=1e-6)
    np.testing.assert_allclose(dlogits[0], 0)
    np.testing.assert_allclose(dlogits[2], np.array([0, -0.5, 0.5]) / 3, rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_minus_infinity_means_impossible(dtype):
    logits = np.array([[-np.inf, 0, 1], [5, 2, -np.inf]], dtype)
    loss, dlogits = both_ways(logits, np.array([1, 0]))
    assert np.isfinite(loss)
    assert dlogits[0, 0] == 0
    assert dlogits[1, 2] == 0
    loss, dlogits = both_ways(logits, np.array([0, 0]))
    assert loss == np.inf
    assert dlogits[0, 0] == -0.5  # (0 - 1) / N: it still says where to go


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bad", [[np.nan, 0, 1], [-np.nan, -2, -1], [np.inf, 0, 1], [-np.inf] * 3])
def test_a_row_without_meaning_is_nan_and_spoils_no_other(bad, dtype):
    logits, targets = inputs(5, 3, dtype)
    clean = both_ways(logits, targets)[1]
    logits[2] = bad
    for loss, dlogits in (
        both_ways(logits, targets),
        ops.softmax_cross_entropy_with_gradient(logits, targets),
    ):
        assert np.isnan(loss)
        assert np.isnan(dlogits[2]).all()
        np.testing.assert_allclose(np.delete(dlogits, 2, 0), np.delete(clean, 2, 0), rtol=1e-6)


def test_upstream_gradient_scales():
    logits, targets = inputs(5, 10)
    np.testing.assert_allclose(
        both_ways(logits, targets, -2.5)[1], -2.5 * both_ways(logits, targets)[1]
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_in_place_overwrites_the_logits_with_the_same_gradient(dtype):
    logits, targets = inputs(64, 33, dtype)
    loss, dlogits = ops.softmax_cross_entropy_with_gradient(logits.copy(), targets)
    in_place, same = ops.softmax_cross_entropy_with_gradient(logits, targets, in_place=True)
    assert same is logits
    assert in_place == loss
    np.testing.assert_array_equal(logits, dlogits)


def test_arguments_are_left_alone():
    logits, targets = inputs(5, 10)
    before = logits.copy(), targets.copy()
    both_ways(logits, targets)
    ops.softmax_cross_entropy_with_gradient(logits, targets)
    np.testing.assert_array_equal(logits, before[0])
    np.testing.assert_array_equal(targets, before[1])


def test_the_cache_keeps_no_second_array_of_the_size_of_the_logits():
    logits, targets = inputs(64, 33)
    _, cache = ops.softmax_cross_entropy(logits, targets)
    assert cache[0] is logits
    assert sum(a.size for a in cache[1:]) == 3 * 64


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_integer_targets(dtype):
    logits, targets = inputs(5, 10)
    assert both_ways(logits, targets.astype(dtype))[0] == both_ways(logits, targets)[0]


def test_other_layouts_give_the_same():
    logits, targets = inputs(6, 10)
    loss, dlogits = both_ways(logits, targets)
    every_other = np.repeat(targets, 2)[::2]
    got, dgot = both_ways(np.asfortranarray(logits), every_other)
    assert got == loss
    np.testing.assert_array_equal(dgot, dlogits)


def test_errors():
    logits, targets = inputs(5, 10)
    with pytest.raises(
        ValueError, match=r"^targets\[3\] is 10: with V=10 classes it must be between 0 and 9.$"
    ):
        ops.softmax_cross_entropy(logits, np.array([0, 1, 2, 10, 11]))
    with pytest.raises(ValueError, match=r"^targets\[1\] is -1: "):
        ops.softmax_cross_entropy_with_gradient(logits, np.array([0, -1, 2, 3, 4]))
    with pytest.raises(ValueError, match=r"^targets\[0\] is 18446744073709551615: "):
        ops.softmax_cross_entropy(logits[:1], np.array([2**64 - 1], np.uint64))
    with pytest.raises(ValueError, match=r"^targets must have shape \(N\) with N=5, got N=4"):
        ops.softmax_cross_entropy(logits, targets[:4])
    with pytest.raises(
        TypeError, match=r"^targets must be whole numbers, got dtype float64.*one-hot"
    ):
        ops.softmax_cross_entropy(logits, targets.astype(float))
    with pytest.raises(TypeError, match=r"^targets must be whole numbers, got dtype bool"):
        ops.softmax_cross_entropy(logits, targets > 3)
    with pytest.raises(ValueError, match=r"^logits must have shape \(N, V\), got 1 dimension"):
        ops.softmax_cross_entropy(logits[0], targets)
    for empty in (logits[:0], logits[:, :0]):
        with pytest.raises(ValueError, match=r"^logits must have at least one row and one class"):
            ops.softmax_cross_entropy(empty, targets[: len(empty)])
    with pytest.raises(
        ValueError, match=r"^logits must be a C-contiguous, writable array for in_place=True"
    ):
        ops.softmax_cross_entropy_with_gradient(np.asfortranarray(logits), targets, in_place=True)
