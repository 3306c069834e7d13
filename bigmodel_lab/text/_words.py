"""The distinct words of a text, so that work is done once for each and not once for each occurrence.

A hash table with open addressing: the slot after a taken one is tried next; the table doubles when half full. English
repeats most of its words (Moby Dick: 259,000 pre-tokens, 32,000 distinct), Chinese verse few of its lines.
"""

import numpy as np
from numba import njit

from bigmodel_lab.text._pretokenise import cut

WORD = np.dtype(
    [
        ("start", np.int64),  # where it first occurs in the text, in bytes
        ("length", np.int64),  # in bytes
        ("count", np.int64),  # how often it occurs
        ("key", np.uint64),  # the word itself if it is SHORT, or else its hash
    ],
    align=True,
)
SHORT = (
    8  # bytes: such a word fits into its key, and need not be looked up in the text to be compared
)
OFFSET, PRIME = np.uint64(14695981039346656037), np.uint64(1099511628211)  # of FNV-1a, 64 bits
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: spreads keys that differ little


def distinct_words(pieces: list[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut each piece into words; returns (text, words, which): the pieces as one uint8 array, and as `distinct` says."""
    text = np.frombuffer(b"".join(pieces), np.uint8)
    ends = cut(text, np.cumsum(np.array([len(piece) for piece in pieces], np.int64)))
    return text, *distinct(text, ends)


@njit(cache=True)
def distinct(text, ends):
    """Number the distinct words of a text in the order in which they first occur.

    Parameters
    ----------
    text : uint8 array (n,)
    ends : int64 array (m,)    where each word ends, ascending; word 0 starts at 0

    Returns
    -------
    words : WORD array (w,)    the distinct words
    which : int32 array (m,)   which of them each word is
    """
    words = np.empty(ends.size, WORD)
    which = np.empty(ends.size, np.int32)
    slots = np.full(1 << 12, -1, np.int32)
    n_words = start = 0
    for m in range(ends.size):
        end = ends[m]
        key = _key(text, start, end)
        slot = _find(text, start, end, key, words, slots)
        if slots[slot] < 0:
            slots[slot] = n_words
            new = words[n_words]
            new.start, new.length, new.count, new.key = start, end - start, 0, key
            n_words += 1
        w = slots[slot]
        words[w].count += 1
        which[m] = w
        if 2 * n_words > slots.size:
            slots = _grow(slots, words[:n_words])
        start = end
    return words[:n_words].copy(), which


@njit(inline="always")  # in all three: as calls they cost a quarter more
def _key(text, start, end):
    if end - start <= SHORT:
        key = np.uint64(0)
        for k in range(start, end):
            key = key << np.uint64(8) | np.uint64(text[k])
    else:
        key = OFFSET
        for k in range(start, end):
            key = (key ^ np.uint64(text[k])) * PRIME
    return key


@njit(inline="always")
def _first_slot(key, n_slots):
    return np.int64((key * GOLDEN) >> np.uint64(32) & np.uint64(n_slots - 1))


@njit(inline="always")
def _find(text, start, end, key, words, slots):
    """The slot that holds the word text[start:end], or the free one where it belongs."""
    slot = _first_slot(key, slots.size)
    while slots[slot] >= 0:
        known = words[slots[slot]]
        if known.key == key and known.length == end - start:
            k = 0 if end - start > SHORT else end - start
            while start + k < end and text[known.start + k] == text[start + k]:
                k += 1
            if start + k == end:
                break
        slot = (slot + 1) & (slots.size - 1)
    return slot


@njit(cache=True)
def _grow(slots, words):
    """A table of twice the size with the same words in it."""
    larger = np.full(2 * slots.size, -1, np.int32)
    for w in range(words.size):
        slot = _first_slot(words[w].key, larger.size)
        while larger[slot] >= 0:
            slot = (slot + 1) & (larger.size - 1)
        larger[slot] = w
    return larger
