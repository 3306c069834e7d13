"""Sampling: what is kept, ties, the frequencies of draws, greedy choice, special values, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.sampling import next_token_probabilities, sample_tokens


def logits(N=3, V=50, dtype=np.float64):
    return (2 * rng.generator(0, "test_sampling").standard_normal((N, V))).astype(dtype)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_without_limits_it_is_softmax_of_the_quotient(temperature, dtype):
    x = logits(dtype=dtype)
    p = next_token_probabilities(x, temperature)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, softmax(x.astype(np.float64) / temperature), rtol=1e-12)


@pytest.mark.parametrize("k", [1, 2, 7, 49, 50, 1000])
def test_top_k_keeps_the_k_largest_in_proportion(k):
    x = logits()
    p, full = next_token_probabilities(x, top_k=k), softmax(x)
    assert ((p > 0).sum(1) == min(k, 50)).all()
    for n in range(3):
        kept = np.argsort(-x[n])[:k]
        np.testing.assert_allclose(p[n, kept], full[n, kept] / full[n, kept].sum(), rtol=1e-12)


@pytest.mark.parametrize("top_p", [0.0, 0.3, 0.9, 0.999, 1.0])
def test_top_p_keeps_the_fewest_that_reach_it(top_p):
    x = logits()
    p, full = next_token_probabilities(x, top_p=top_p), softmax(x)
    for n in range(3):
        kept = full[n][p[n] > 0]
        assert kept.min() >= full[n][p[n] == 0].max(initial=0)
        assert kept.sum() >= top_p - 1e-12
        assert len(kept) == 1 or kept.sum() - kept.min() < top_p
        np.testing.assert_allclose(p[n][p[n] > 0], kept / kept.sum(), rtol=1e-12)


def test_a_worked_case_where_top_p_counts_after_top_k():
    x = np.log(np.array([[0.4, 0.3, 0.2, 0.1]]))
    np.testing.assert_allclose(
        next_token_probabilities(x, top_p=0.7 + 1e-9), [[4 / 9, 3 / 9, 2 / 9, 0]]
    )
    # of the three that top-k keeps, the first two make up 7/9 = 0.78
    np.testing.assert_allclose(
        next_token_probabilities(x, top_k=3, top_p=0.75), [[4 / 7, 3 / 7, 0, 0]]
    )


def test_among_equals_the_lower_number_is_kept():
    x = np.array([[0, 1, 0, 1, 0, 1.0]])
    assert np.flatnonzero(next_token_probabilities(x, top_k=2)[0]).tolist() == [1, 3]
    assert np.flatnonzero(next_token_probabilities(x, top_k=4)[0]).tolist() == [0, 1, 3, 5]
    assert np.flatnonzero(next_token_probabilities(x, top_p=0.0)[0]).tolist() == [1]
    assert sample_tokens(x, rng.generator(0), temperature=0).tolist() == [1]


def test_draws_come_as_often_as_they_should():
    N = 20_000
    x = np.broadcast_to(logits(1, 8), (N, 8))
    tokens = sample_tokens(
        x, rng.generator(1, "test_sampling"), temperature=1.5, top_k=6, top_p=0.95
    )
    p = next_token_probabilities(x[:1], 1.5, 6, 0.95)[0]
    share = np.bincount(tokens, minlength=8) / N
    assert tokens.dtype == np.int64
    assert (share[p == 0] == 0).all()
    assert (np.abs(share - p) <= 4 * np.sqrt(p * (1 - p) / N)).all()


def test_agrees_with_transformers():
    torch = pytest.importorskip("torch")
    logits_process = pytest.importorskip("transformers.generation.logits_process")
    x = logits()
    t = torch.from_numpy(x) / 0.7
    t = logits_process.TopKLogitsWarper(20)(None, t)
    t = logits_process.TopPLogitsWarper(0.8)(None, t)
    np.testing.assert_allclose(
        next_token_probabilities(x, 0.7, 20, 0.8), t.softmax(-1).numpy(), atol=1e-12
    )


class Ends:
    """A generator that gives the ends of its range."""

    def __init__(self, u):
        self.u = u

    def random(self, n):
        return np.full(n, self.u)


@pytest.mark.parametrize(("u", "want"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_range_give_tokens_that_have_a_chance(u, want):
    x = np.array([[-np.inf, 0.3, 0.1, 0.2, -np.inf]])
    assert sample_tokens(x, Ends(u)).tolist() == [want]


def test_greedy_and_nearly_greedy():
    x = logits(dtype=np.float32)
    want = x.argmax(1)
    np.testing.assert_array_equal(sample_tokens(x, rng.generator(0), temperature=0), want)
    np.testing.assert_array_equal(sample_tokens(x, rng.generator(0), temperature=1e-300), want)
    np.testing.assert_array_equal(sample_tokens(x, rng.generator(0), top_k=1), want)


def test_no_rows_and_one_token_and_other_layouts():
    assert sample_tokens(np.zeros((0, 5)), rng.generator(0)).shape == (0,)
    assert sample_tokens(np.zeros((2, 1)), rng.generator(0)).tolist() == [0, 0]
    x = logits()
    got = next_token_probabilities(np.asfortranarray(x), 0.7, 20, 0.8)
    np.testing.assert_array_equal(got, next_token_probabilities(x, 0.7, 20, 0.8))


def test_errors():
    x = logits()
    for name, value in (
        ("temperature", -1),
        ("temperature", np.inf),
        ("top_k", 0),
        ("top_p", 1.1),
        ("top_p", np.nan),
    ):
        with pytest.raises(ValueError, match=rf"^{name} must be .*, got {value}"):
            next_token_probabilities(x, **{name: value})
    for bad in (np.nan, np.inf, [-np.inf] * 50):
        x = logits()
        x[1] = np.where(np.arange(50) < 3, bad, 0) if np.isscalar(bad) else bad
        with pytest.raises(
            ValueError, match=r"^logits\[1\] is no distribution, its largest entry is"
        ):
            sample_tokens(x, rng.generator(0))
    with pytest.raises(
        ValueError, match=r"^the number V of logits in a row must be at least 1, got 0"
    ):
        next_token_probabilities(x[:, :0])
    with pytest.raises(ValueError, match=r"^logits must have shape \(N, V\), got 1 dimension"):
        next_token_probabilities(x[0])
