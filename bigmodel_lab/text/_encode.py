"""Turn words into tokens: merge the pair that was learned first, again and again, until none is left.

Each distinct word is encoded once. Short words look for the best pair by going through all; in a long one (a Chinese
sentence without punctuation, a file of base64) that would cost the square of its length, so there a heap holds the
pairs and a linked list the tokens. Both give what `bigmodel_lab.text.naive.encode` gives.
"""

import heapq

import numpy as np
from numba import njit

SLOT = np.dtype(
    [("a", np.int32), ("b", np.int32), ("token", np.int32)], align=True
)  # free if token < 0
NO_MERGE = np.int32(2**31 - 1)  # larger than every token
LONG = 64  # bytes; measured: the two take equal time at about 50 in Chinese, 180 in English


@njit(cache=True)
def merge_table(merges):
    """A hash table from a pair of tokens to the token that they become.

    Parameters
    ----------
    merges : int32 array (m, 2)   the ids that become 256, 257, ...

    Returns
    -------
    SLOT array (s,)               s is a power of two and at least 4 m
    """
    size = 16
    while size < 4 * merges.shape[0]:
        size *= 2
    table = np.empty(size, SLOT)
    tokens = table["token"]  # a view
    tokens[:] = -1
    for m in range(merges.shape[0]):
        slot = table[_slot(table, merges[m, 0], merges[m, 1])]
        slot.a, slot.b, slot.token = merges[m, 0], merges[m, 1], 256 + m
    return table


@njit(cache=True)
def encode_words(text, words, which, token_of_byte, table):
    """The tokens of a text that is cut into words.

    Parameters
    ----------
    text : uint8 array (n,)
    words : WORD array (w,)             the distinct words
    which : int32 array (m,)            which of them stands at each place
    token_of_byte : int32 array (256,)
    table : SLOT array                  from `merge_table`

    Returns
    -------
    ids : int32 array (N,)
    ends : int64 array (w + 1,)         distinct word w has ends[w + 1] - ends[w] of them
    """
    tokens = np.empty(words["length"].sum(), np.int32)  # of the distinct words, one after another
    ends = np.empty(words.size + 1, np.int64)  # ends[w + 1]: where those of word w end
    ends[0] = n_all = 0
    for w in range(words.size):
        word = tokens[ends[w] : ends[w] + words[w].length]
        for k in range(word.size):
            word[k] = token_of_byte[text[words[w].start + k]]
        n = _merge_short(word, table) if word.size <= LONG else _merge_long(word, table)
        ends[w + 1] = ends[w] + n
        n_all += n * words[w].count
    out = np.empty(n_all, np.int32)
    n = 0
    for w in which:
        for k in range(ends[w], ends[w + 1]):
            out[n] = tokens[k]
            n += 1
    return out, ends


@njit(cache=True)
def _merge_short(word, table):
    """Merge the tokens of `word` in place; returns how many are left."""
    n = word.size
    merged = np.empty(n, np.int32)  # what the token and its right neighbour become, or NO_MERGE
    for k in range(n - 1):
        merged[k] = _lookup(table, word[k], word[k + 1])
    while n > 1:
        best = 0
        for k in range(1, n - 1):
            if merged[k] < merged[best]:
                best = k
        if merged[best] == NO_MERGE:
            break
        word[best] = merged[best]
        n -= 1
        for k in range(best + 1, n):
            word[k] = word[k + 1]
            merged[k] = merged[k + 1]
        if best > 0:
            merged[best - 1] = _lookup(table, word[best - 1], word[best])
        if best < n - 1:
            merged[best] = _lookup(table, word[best], word[best + 1])
    return n


@njit(cache=True)
def _merge_long(word, table):
    """The same with a heap of (token it becomes, place); an entry whose place has changed since is passed over."""
    n = word.size
    left, right = (
        np.arange(-1, n - 1),
        np.arange(1, n + 1),
    )  # places of the neighbours; n is the end
    merged = np.full(n, NO_MERGE, np.int32)
    for k in range(n - 1):
        merged[k] = _lookup(table, word[k], word[k + 1])
    heap = [(merged[k], k) for k in range(n) if merged[k] != NO_MERGE]
    heapq.heapify(heap)
    while len(heap) > 0:
        token, k = heapq.heappop(heap)
        if merged[k] != token:
            continue
        word[k] = token
        merged[right[k]] = NO_MERGE  # that place is no token's any more
        right[k] = right[right[k]]
        if right[k] < n:
            left[right[k]] = k
        for i in (left[k], k):
            if i >= 0:
                j = right[i]
                merged[i] = _lookup(table, word[i], word[j]) if j < n else NO_MERGE
                if merged[i] != NO_MERGE:
                    heapq.heappush(heap, (merged[i], i))
    k = n_left = 0
    while k < n:
        word[n_left] = word[k]
        n_left += 1
        k = right[k]
    return n_left


@njit(cache=True)
def _lookup(table, a, b):
    """What the pair (a, b) becomes, or NO_MERGE."""
    token = table[_slot(table, a, b)].token
    return token if token >= 0 else NO_MERGE


@njit(cache=True)
def _slot(table, a, b):
    """The slot that holds the pair (a, b), or the free one where it belongs."""
    key = np.uint64(a) << np.uint64(32) | np.uint64(b)
    h = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)  # 2**64 / golden ratio (Knuth, 6.4)
    k = np.int64(h & np.uint64(table.size - 1))
    while table[k].token >= 0 and (table[k].a != a or table[k].b != b):
        k = (k + 1) & (table.size - 1)
    return k
