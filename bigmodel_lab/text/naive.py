"""Byte-pair encoding in plain Python: what `bigmodel_lab.text.BPE` does, as it is said and not as it is made fast.

A word is a tuple of tokens, a token is a `bytes`. Chapter 8 builds this up line by line; a test holds the fast one to it.

Source: Sennrich, Haddow and Birch (2016), arXiv:1508.07909, algorithm 1; on bytes as in Radford et al. (2019).
"""

import re
from collections import Counter
from itertools import pairwise

from bigmodel_lab.text._alphabet import BYTE_ORDER
from bigmodel_lab.text._unicode import LETTER, NUMBER, WHITE, kind_of_code_point

PATTERN = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
)


def pretokens(text: str) -> list[str]:
    """Cut `text` by GPT-2's pattern. Python's `re` has no \\p{L}: match on a copy with ASCII stand-ins."""
    stand_in = {LETTER: "X", NUMBER: "0", WHITE: "\n"}
    kinds = kind_of_code_point()
    copy = "".join(c if c.isascii() else stand_in.get(kinds[ord(c)], "!") for c in text)
    return [text[m.start() : m.end()] for m in PATTERN.finditer(copy)]


def train(text: str, n_merges: int, min_count: int = 2) -> list[tuple[bytes, bytes]]:
    """The pairs of tokens to merge, in order; fewer than `n_merges` if no pair occurs `min_count` times."""
    counts = Counter(as_bytes(word) for word in pretokens(text))
    ids = {
        bytes([byte]): i for i, byte in enumerate(BYTE_ORDER)
    }  # of two pairs with one count the lower goes first
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for word, count in counts.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs or max(pairs.values()) < min_count:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids[best[0] + best[1]] = 255 + len(merges)
        counts = Counter({merge(word, best): count for word, count in counts.items()})
    return merges


def merge(word: tuple[bytes, ...], pair: tuple[bytes, bytes]) -> tuple[bytes, ...]:
    """`word` with every occurrence of `pair`, from the left, made one token."""
    out, i = [], 0
    while i < len(word):
        width = 2 if word[i : i + 2] == pair else 1
        out.append(b"".join(word[i : i + width]))
        i += width
    return tuple(out)


def encode(text: str, merges: list[tuple[bytes, bytes]]) -> list[bytes]:
    """The tokens of `text`: in each word the merge that was learned first goes first."""
    rank = {pair: i for i, pair in enumerate(merges)}
    tokens = []
    for word in map(as_bytes, pretokens(text)):
        while pairs := [pair for pair in pairwise(word) if pair in rank]:
            word = merge(word, min(pairs, key=rank.get))
        tokens += word
    return tokens


def as_bytes(word: str) -> tuple[bytes, ...]:
    """The bytes of a word in UTF-8, each a token of its own."""
    return tuple(bytes([byte]) for byte in word.encode("utf-8"))
