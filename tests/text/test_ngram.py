"""Modified Kneser-Ney: by hand, by a second program from the formula, and as a probability."""

from collections import defaultdict

import numpy as np
import pytest

from bigmodel_lab import data
from bigmodel_lab.text import BPE, NGram
from bigmodel_lab.text.ngram import FALLBACK


def zipf(seed: int, size: int, vocab_size: int) -> np.ndarray:
    """Ids of which a few are frequent and many rare, in short loops: counts of 1, 2, 3, 4 and more at every order."""
    rng = np.random.default_rng(seed)
    ids = np.minimum(rng.zipf(1.4, size) - 1, vocab_size - 1)
    for start in rng.integers(0, size - 40, size // 12):
        n = rng.integers(2, 8)
        ids[start + 20 : start + 20 + n] = ids[start : start + n]
    return ids


class Formula:
    """The formula of the module's docstring, with dictionaries, one n-gram at a time."""

    def __init__(self, ids, vocab_size: int, order: int):
        self.vocab_size = vocab_size
        ids = [int(i) for i in ids]
        self.c = {}
        for k in range(1, order + 1):
            self.c[k] = defaultdict(int)
            if k == order:
                for i in range(len(ids) - k + 1):
                    self.c[k][tuple(ids[i : i + k])] += 1
            else:
                for gram in {tuple(ids[i : i + k + 1]) for i in range(len(ids) - k)}:
                    self.c[k][gram[1:]] += 1
        self.discounts = {k: self.discount(c.values()) for k, c in self.c.items()}

    @staticmethod
    def discount(counts):
        n1, n2, n3, n4 = (sum(c == i for c in counts) for i in (1, 2, 3, 4))
        if 0 in (n1, n2, n3, n4):
            return FALLBACK
        y = n1 / (n1 + 2 * n2)
        d = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        return d if 0 < d[0] < 1 and 0 < d[1] < 2 and 0 < d[2] < 3 else FALLBACK

    def p(self, w: int, h: tuple) -> float:
        k = len(h) + 1
        lower = self.p(w, h[1:]) if h else 1 / self.vocab_size
        followers = {gram: c for gram, c in self.c[k].items() if gram[:-1] == h}
        total = sum(followers.values())
        if total == 0:
            return lower
        d = {gram: self.discounts[k][min(c, 3) - 1] for gram, c in followers.items()}
        gram = (*h, w)
        own = followers[gram] - d[gram] if gram in followers else 0
        return own / total + sum(d.values()) / total * lower


def test_by_hand():
    """0 1 0 1 0 2: too small to estimate discounts, so D = (1/2, 1, 3/2).

    Each token follows one other only: p_1 = (1 - 1/2) / 3 + (3/2 / 3) / 3 = 1/3. After 0 come 1 (twice) and 2 (once):
    p_2(1 | 0) = (2 - 1) / 3 + (3/2 / 3) / 3 = 1/2, p_2(2 | 0) = (1/2) / 3 + 1/6 = 1/3, p_2(0 | 0) = 1/6.
    """
    lm = NGram.fit([0, 1, 0, 1, 0, 2], vocab_size=3, order=2)
    assert [level.discounts for level in lm.levels] == [FALLBACK, FALLBACK]
    np.testing.assert_allclose(lm.probabilities(), [1 / 3, 1 / 3, 1 / 3], rtol=1e-14)
    np.testing.assert_allclose(lm.probabilities([0]), [1 / 6, 1 / 2, 1 / 3], rtol=1e-14)
    np.testing.assert_allclose(lm.probabilities([2]), lm.probabilities(), rtol=1e-14)
    np.testing.assert_allclose(lm.nll([0, 1, 2]), -np.log([1 / 3, 1 / 2, 1 / 6]), rtol=1e-14)
    assert lm.loss([0, 1, 2]) == pytest.approx(np.log(3 * 2 * 6) / 3, rel=1e-14)


def test_a_frequent_token_with_one_neighbour_is_a_poor_guess():
    """1 ("Francisco") is as frequent as 2, but stands after 0 only; after a new context 2 is likelier by far."""
    ids = [0, 1] * 8 + [x for i in range(3, 11) for x in (i, 2)]
    p = NGram.fit(ids, vocab_size=12, order=2).probabilities([11])
    assert p[2] > 4 * p[1]
    counts = np.bincount(ids)
    assert counts[1] == counts[2]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_as_the_formula(order):
    vocab_size = 23
    ids = zipf(0, 900, vocab_size - 1)  # the last id never occurs
    lm, formula = NGram.fit(ids, vocab_size, order), Formula(ids, vocab_size, order)
    assert order == 1 or any(level.discounts != FALLBACK for level in lm.levels)
    for k, level in enumerate(lm.levels, 1):
        assert level.discounts == pytest.approx(formula.discounts[k], rel=1e-14)
    new = np.random.default_rng(1).integers(0, vocab_size, 120)
    new[40:80] = ids[100:140]
    expected = [
        formula.p(int(w), tuple(new[max(i - order + 1, 0) : i].tolist())) for i, w in enumerate(new)
    ]
    np.testing.assert_allclose(lm.nll(new), -np.log(expected), rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_probabilities_sum_to_one_and_none_is_zero(order):
    vocab_size = 50
    ids = zipf(2, 5000, vocab_size - 3)
    lm = NGram.fit(ids, vocab_size, order)
    seen = [ids[i : i + n] for i in (0, 7, 1000, 4990) for n in (1, 2, 4, 9)]
    for context in [*seen, [], [49], [3, 49, 3], [0, 0, 0, 0], ids[-1:], ids[-4:]]:
        p = lm.probabilities(context)
        assert p.shape == (vocab_size,)
        assert p.min() > 0
        assert p.sum() == pytest.approx(1, abs=1e-12)


def test_probabilities_and_nll_are_one_thing():
    ids = zipf(3, 3000, 40)
    lm = NGram.fit(ids[:2000], 40, 4)
    nll = lm.nll(ids[2000:])
    for i in (0, 1, 2, 3, 50, 999):
        assert nll[i] == -np.log(lm.probabilities(ids[2000 : 2000 + i])[ids[2000 + i]])


def test_what_comes_later_changes_nothing():
    ids = zipf(4, 2000, 30)
    lm = NGram.fit(ids[:1500], 30, 3)
    assert np.array_equal(lm.nll(ids[1500:])[:100], lm.nll(ids[1500:1600]))


def test_longer_contexts_help_on_real_text():
    """Held-out loss in nats falls with the order, from far below ln V = 6.24."""
    text = data.load("moby-dick").text[:300_000]
    cut = len(text) * 9 // 10
    tok = BPE.train(text[:cut], 512)
    train, test = tok.encode(text[:cut]), tok.encode(text[cut:])
    losses = [NGram.fit(train, 512, n).loss(test) for n in (1, 2, 3, 4)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] == pytest.approx(5.294, abs=0.01)
    assert losses[3] == pytest.approx(3.394, abs=0.01)
    assert NGram.fit(train, 512, 3).loss(train) < losses[2]


def test_short_texts():
    lm = NGram.fit([4], 6, order=3)
    assert lm.order == 1
    assert lm.probabilities([4, 4]).argmax() == 4
    lm = NGram.fit([4, 2], 6, order=3)
    assert lm.order == 2
    assert lm.probabilities([4]).argmax() == 2
    assert lm.probabilities([4]).sum() == pytest.approx(1, abs=1e-14)
    assert lm.nll([]).shape == (0,)


def test_repr():
    assert repr(NGram.fit([0, 1, 0, 1, 0, 2], 3, 2)) == (
        "NGram(order=2, vocab_size=3, n-grams by order: 3, 3)"
    )


@pytest.mark.parametrize(
    ("ids", "options", "error", "message"),
    [
        ([], {}, ValueError, r"ids is empty: there is nothing to count\."),
        ([0, 3], {}, ValueError, r"ids\[1\]=3 is out of range: vocab_size is 3\."),
        ([0, -1], {}, ValueError, r"ids\[1\]=-1 is out of range"),
        ([0.0], {}, TypeError, r"ids must be integers, got dtype float64\."),
        ([[0]], {}, ValueError, r"ids must have shape \(N,\), got \(1, 1\)\."),
        ([0], dict(order=0), ValueError, r"order must be at least 1, got 0\."),
        (
            [0],
            dict(vocab_size=0),
            ValueError,
            r"vocab_size must be between 1 and 2147483648, got 0\.",
        ),
    ],
)
def test_errors(ids, options, error, message):
    with pytest.raises(error, match=message):
        NGram.fit(ids, **(dict(vocab_size=3) | options))


def test_errors_of_a_fitted_model():
    lm = NGram.fit([0, 1], 3, 2)
    with pytest.raises(ValueError, match=r"ids is empty: it has no mean loss\."):
        lm.loss([])
    with pytest.raises(ValueError, match=r"ids\[0\]=3 is out of range"):
        lm.nll([3])
    with pytest.raises(ValueError, match=r"ids\[0\]=-1 is out of range"):
        lm.probabilities([-1])
