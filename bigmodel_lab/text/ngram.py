"""Interpolated modified Kneser-Ney: the best n-gram language model, and the one that a small GPT has to beat.

    p_k(w | h) = max(c(h w) - D(c(h w)), 0) / c(h .)  +  g(h) p_{k-1}(w | h without its first token),    p_0 = 1 / V

where h is the last k-1 tokens and k goes up to the order n. c is how often h w occurs at the highest order; below it, how
many different tokens precede h w: "Francisco" is frequent but follows one word only, so it is a poor guess after any
other. The discounts D(1), D(2), D(3 and more) take a little from what was seen, and g(h) = sum_w D(c(h w)) / c(h .) hands
it to the lower order, so that the p_k sum to one. After an h that was never seen p_k is p_{k-1}.

Source: Chen and Goodman (1999), Computer Speech and Language 13, 359-394, modified Kneser-Ney smoothing. Told in chapter 8.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from bigmodel_lab.errors import require_in_range

FALLBACK = (
    0.5,
    1.0,
    1.5,
)  # discounts where the text is too small, or too regular, to estimate them


@dataclass(frozen=True)
class Level:
    """The k-grams of one order k, numbered in the order of their keys."""

    keys: (
        np.ndarray
    )  # int64 (M,), ascending: number of the first k-1 tokens in the level below * V + last token
    share: np.ndarray  # float64 (M,): (c - D(c)) / c(h .)
    backoff: np.ndarray  # float64 (M of the level below,): g(h)
    discounts: tuple[float, float, float]  # D(1), D(2), D(3 and more)
    vocab_size: int  # V


class NGram:
    """A language model over token ids 0..V-1; `NGram.fit` makes one."""

    def __init__(self, levels: list[Level]):
        self.levels, self.vocab_size = levels, levels[0].vocab_size

    @classmethod
    def fit(cls, ids, vocab_size: int, order: int = 5) -> "NGram":
        """Count the n-grams of a text.

        Parameters
        ----------
        ids : integer array (N,)   one stream; put an end token between documents. N >= 1
        vocab_size : V, the number of ids
        order : n; a token is predicted from the n-1 before it

        Takes time N log N for each order, and up to 160 bytes of memory a token for order 5.
        """
        require_in_range("order", order, 1)
        require_in_range("vocab_size", vocab_size, 1, 2**31)
        ids = _require_ids(ids, vocab_size)
        if ids.size == 0:
            raise ValueError("ids is empty: there is nothing to count.")
        # numbers of the k-grams that end with tokens k-1, k, ..., and of those that end before token 0, 1, ...
        numbers, before = ids, np.zeros(ids.size, np.int64)
        keys, counts = [np.zeros(1, np.int64)], []
        for k in range(min(order, ids.size)):
            found, first, longer, n = np.unique(
                before[k:] * vocab_size + ids[k:],
                return_index=True,
                return_inverse=True,
                return_counts=True,
            )
            if k > 0:  # a (k+1)-gram is one left neighbour of the k-gram that it ends with
                counts[-1] = np.bincount(numbers[first + 1], minlength=keys[-1].size)
            keys.append(found)
            counts.append(n)
            numbers = longer
            before[k + 1 :] = longer[:-1]
        levels = [
            _level(found, c, vocab_size, below.size)
            for (below, found), c in zip(pairwise(keys), counts, strict=True)
        ]
        return cls(levels)

    @property
    def order(self) -> int:
        """n; less than what was asked for if the text was shorter than that."""
        return len(self.levels)

    def nll(self, ids) -> np.ndarray:
        """Negative log likelihood of each token given those before it in `ids`, in nats: float64 array (N,).

        The first tokens have less before them and are predicted from that.
        """
        ids = _require_ids(ids, self.vocab_size)
        p = np.full(ids.size, 1 / self.vocab_size)
        for level, before, grams in self._walk(ids):
            p = _mix(level, before, grams, p)
        return -np.log(p)

    def loss(self, ids) -> float:
        """Mean negative log likelihood of `ids`, in nats per token: compare with a network's cross-entropy."""
        nll = self.nll(ids)
        if nll.size == 0:
            raise ValueError("ids is empty: it has no mean loss.")
        return float(nll.mean())

    def probabilities(self, context=()) -> np.ndarray:
        """What follows `context`, a sequence of ids of any length: float64 array (V,) that sums to one."""
        context = _require_ids(context, self.vocab_size)
        context = context[max(context.size - self.order + 1, 0) :]
        known = [0, *(grams[-1] for _, _, grams in self._walk(context) if context.size)]
        p = np.full(self.vocab_size, 1 / self.vocab_size)
        for level, number in zip(self.levels, known, strict=False):
            before = np.full(self.vocab_size, number)
            p = _mix(level, before, _find(level, before, np.arange(self.vocab_size)), p)
        return p

    def _walk(self, ids) -> Iterator[tuple[Level, np.ndarray, np.ndarray]]:
        """For k = 1..n: the level, and the numbers of the (k-1)-gram before each token and of the k-gram ending with it."""
        before = np.zeros(ids.size, np.int64)  # the empty one
        for level in self.levels:
            grams = _find(level, before, ids)
            yield level, before, grams
            before = np.append(-1, grams[:-1])[: ids.size]

    def __repr__(self):
        counts = ", ".join(f"{level.keys.size:,}" for level in self.levels)
        return (
            f"NGram(order={self.order}, vocab_size={self.vocab_size}, n-grams by order: {counts})"
        )


def _level(keys, counts, vocab_size: int, n_contexts: int) -> Level:
    """Discount the counts and hand what is taken to the level below."""
    discounts = _discounts(counts)
    discount = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    context = keys // vocab_size
    total = np.bincount(context, counts, n_contexts)
    taken = np.bincount(context, discount, n_contexts)
    backoff = np.divide(taken, total, out=np.ones(n_contexts), where=total > 0)
    share = (counts - discount) / np.maximum(total[context], 1)
    return Level(keys, share, backoff, discounts, vocab_size)


def _discounts(counts) -> tuple[float, float, float]:
    """D(i) = i - (i + 1) Y n_{i+1} / n_i with Y = n_1 / (n_1 + 2 n_2), n_i the number of n-grams with count i."""
    n = np.bincount(np.minimum(counts, 5), minlength=6)
    if (n[1:5] == 0).any():
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    discounts = tuple(float(i - (i + 1) * y * n[i + 1] / n[i]) for i in (1, 2, 3))
    return discounts if all(0 < d < i for i, d in enumerate(discounts, 1)) else FALLBACK


def _find(level: Level, contexts, tokens) -> np.ndarray:
    """The numbers of the n-grams that lengthen `contexts` (numbers, or -1) by `tokens`; -1 for those never seen."""
    keys = contexts * level.vocab_size + tokens
    at = np.minimum(np.searchsorted(level.keys, keys), level.keys.size - 1)
    return np.where((contexts >= 0) & (level.keys[at] == keys), at, -1)


def _mix(level: Level, contexts, grams, p) -> np.ndarray:
    """p_k from p_{k-1}."""
    higher = np.where(grams >= 0, level.share[grams], 0.0) + level.backoff[contexts] * p
    return np.where(contexts >= 0, higher, p)


def _require_ids(ids, vocab_size: int) -> np.ndarray:
    """`ids` as an int64 array (N,) with values in 0..vocab_size-1."""
    ids = np.asarray(ids)
    if ids.ndim != 1:
        raise ValueError(f"ids must have shape (N,), got {ids.shape}.")
    if ids.size == 0:
        return ids.astype(np.int64)
    if ids.dtype.kind not in "iu":
        raise TypeError(f"ids must be integers, got dtype {ids.dtype}.")
    if (wrong := np.flatnonzero((ids < 0) | (ids >= vocab_size))).size:
        at = wrong[0]
        raise ValueError(f"ids[{at}]={ids[at]} is out of range: vocab_size is {vocab_size}.")
    return ids.astype(np.int64)
