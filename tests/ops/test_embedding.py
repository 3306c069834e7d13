"""Embedding: gradients of every entry, torch, repeated tokens, special values, layouts, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.embedding import embedding, embedding_backward
from bigmodel_lab.ops.gradcheck import gradient_error

SIZES = [
    ((1,), 1, 1),
    ((7,), 3, 5),
    ((2, 3), 10, 130),
    ((300,), 4, 64),
    ((0,), 3, 2),
    ((), 5, 3),
    ((3,), 5, 0),
]


def inputs(shape, V, D, dtype=np.float64):
    g = rng.generator(0, "test_embedding")
    w, dy = g.standard_normal((V, D)).astype(dtype), g.standard_normal((*shape, D)).astype(dtype)
    return np.asarray(g.integers(0, V, shape)), w, dy


def test_gradient_of_every_entry():
    tokens, w, _ = inputs((2, 6), 5, 3)
    assert gradient_error(embedding, embedding_backward, (tokens, w))["w"] < 1e-7


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_torch(size, dtype, tolerance):
    torch = pytest.importorskip("torch")
    tokens, w, dy = inputs(*size, dtype)
    t = torch.from_numpy(w).requires_grad_()
    want = torch.nn.functional.embedding(torch.from_numpy(tokens), t)
    (dwant,) = torch.autograd.grad(want, t, torch.from_numpy(dy))
    y, cache = embedding(tokens, w)
    dw = embedding_backward(dy, cache)
    assert y.dtype == dw.dtype == dtype
    np.testing.assert_array_equal(y, want.detach().numpy())
    # up to 75 rows are added up in one
    np.testing.assert_allclose(dw, dwant.numpy(), rtol=tolerance, atol=10 * tolerance)


def test_a_token_that_does_not_occur_has_no_gradient_and_repeated_ones_add_up():
    w = np.zeros((4, 2))
    y, cache = embedding(np.array([3, 1, 3]), w)
    dw = embedding_backward(np.array([[1.0, 2], [3, 4], [5, 6]]), cache)
    np.testing.assert_array_equal(dw, [[0, 0], [3, 4], [0, 0], [6, 8]])
    y += 1
    assert not w.any()  # y is a copy


def test_nan_goes_where_it_belongs():
    tokens, w, dy = inputs((9,), 4, 5)
    w[2, 3], dy[4, 1] = np.nan, np.nan
    y, cache = embedding(tokens, w)
    np.testing.assert_array_equal(np.isnan(y).any(1), tokens == 2)
    dw = embedding_backward(dy, cache)
    assert np.argwhere(np.isnan(dw)).tolist() == [[tokens[4], 1]]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_integer_tokens(dtype):
    tokens, w, _ = inputs((9,), 4, 5)
    np.testing.assert_array_equal(embedding(tokens.astype(dtype), w)[0], w[tokens])


def test_other_layouts_give_the_same():
    tokens, w, dy = inputs((2, 6), 5, 4)
    y, cache = embedding(tokens, w)
    got, got_cache = embedding(np.asfortranarray(tokens), np.asfortranarray(w))
    np.testing.assert_array_equal(got, y)
    dw = embedding_backward(dy, cache)
    np.testing.assert_array_equal(embedding_backward(np.asfortranarray(dy), got_cache), dw)


def test_errors():
    tokens, w, dy = inputs((2, 3), 4, 5)
    tokens[1, 0] = 4
    with pytest.raises(
        ValueError,
        match=r"^tokens\[1, 0\] is 4: with a table of V=4 rows it must be between 0 and 3.$",
    ):
        embedding(tokens, w)
    tokens[0, 2] = -1
    with pytest.raises(ValueError, match=r"^tokens\[0, 2\] is -1: "):
        embedding(tokens, w)
    with pytest.raises(ValueError, match=r"^tokens\[0\] is 18446744073709551615: "):
        embedding(np.array([2**64 - 1], np.uint64), w)
    with pytest.raises(TypeError, match=r"^tokens must be an array of whole numbers, got float64"):
        embedding(dy, w)
    with pytest.raises(TypeError, match=r"^tokens must be an array of whole numbers, got list"):
        embedding([1, 2], w)
    with pytest.raises(ValueError, match=r"^w must have shape \(V, D\), got 1 dimension"):
        embedding(np.array([0]), w[0])
    _, cache = embedding(np.array([[0, 1]]), w)
    with pytest.raises(
        ValueError, match=r"^dy must have shape \(d0, d1, D\) with d0=1, d1=2, got d0=2, d1=3"
    ):
        embedding_backward(dy, cache)
