"""Learn byte pairs: again and again, turn the most frequent pair of neighbouring tokens into a token of its own.

    merge_m = argmax over pairs (a, b) of sum over words w of count(w) * #{i : w[i] = a and w[i+1] = b}

of several such pairs the one with the smallest a, then the smallest b; the new token gets the id 256 + m. Counting
everything anew for each merge is `bigmodel_lab.text.naive.train`. Here each merge costs time in proportion to what it
changes: every place in the words knows its neighbours, every pair has a linked list of the places where it stands, and
a heap holds the pairs by count. The counts in the heap may be too high (merges take occurrences away from other pairs),
never too low: a pair that comes up with an old count goes back in with its present one.

Source: Sennrich, Haddow and Birch (2016), arXiv:1508.07909, algorithm 1. Ties, and counting "aaa" as two occurrences of
(a, a) though only one can be merged, are as in Hugging Face's `tokenizers`; a test compares the merges.
"""

import heapq

import numpy as np
from numba import njit

PLACE = np.dtype(  # one byte of one distinct word, later the token that starts at it
    [
        ("token", np.int32),
        ("left", np.int32),  # the place of the neighbouring token in the same word, or -1
        ("right", np.int32),
        ("pair", np.int32),  # which pair this token and its right neighbour are, or -1
        ("before", np.int32),  # the place before and after it in the list of that pair, or -1
        ("after", np.int32),
        ("count", np.int64),  # how often the word occurs
    ],
    align=True,
)
PAIR = np.dtype(
    [
        ("a", np.int32),
        ("b", np.int32),
        ("place", np.int32),  # the first in its list, or -1
        ("count", np.int64),  # how often it occurs in the text
    ],
    align=True,
)


@njit(cache=True)
def learn(text, words, token_of_byte, n_merges, min_count):
    """The merges, in the order in which they are learned.

    Parameters
    ----------
    text : uint8 array (n,)
    words : WORD array (w,)             the distinct words of the text and their counts; together under 2**31 bytes
    token_of_byte : int32 array (256,)  the ids 0..255 in the order that decides ties
    n_merges : int                      at most so many
    min_count : int                     stop when no pair occurs so often; at least 1

    Returns
    -------
    int32 array (m, 2)                  the ids that become 256, 257, ...; m <= n_merges
    """
    places = _lay_out(text, words, token_of_byte)
    n_merges = min(
        n_merges, places.size
    )  # each takes one place at least; more would only cost memory
    pairs, n_pairs = _byte_pairs(places)
    # Which pair is (x, new), which (new, y)? Pairs from before the present merge do not count: nothing is ever reset.
    pair_before = np.full(256 + n_merges, -1, np.int32)
    pair_after = np.full(256 + n_merges, -1, np.int32)
    heap = [_entry(pairs, p) for p in range(n_pairs)]
    heapq.heapify(heap)
    merges = np.empty((n_merges, 2), np.int32)
    m = 0
    while m < n_merges and len(heap) > 0:
        negative_count, a, b, p = heapq.heappop(heap)
        if -negative_count != pairs[p].count:
            if pairs[p].count > 0:
                heapq.heappush(heap, _entry(pairs, p))
            continue
        if pairs[p].count < min_count:
            break
        merges[m, 0], merges[m, 1] = a, b
        new, oldest = 256 + m, n_pairs
        pairs = _with_room(pairs, n_pairs + 2 * new + 1)
        n_pairs = _merge(places, pairs, n_pairs, p, new, pair_before, pair_after)
        for q in range(oldest, n_pairs):
            heapq.heappush(heap, _entry(pairs, q))
        m += 1
    return merges[:m].copy()


@njit(cache=True)
def _merge(places, pairs, n_pairs, p, new, pair_before, pair_after):
    """Turn every occurrence of pair p into the token `new`; returns how many pairs there are then."""
    oldest = n_pairs
    while pairs[p].place >= 0:
        i = pairs[p].place
        while places[i].left >= 0 and places[places[i].left].pair == p:
            i = places[i].left  # "aaaa" is merged from its left end
        while i >= 0 and places[i].pair == p:
            j = places[i].right
            left, right = places[i].left, places[j].right
            _unlink(places, pairs, i)
            places[i].token, places[i].right = new, right
            if right >= 0:
                _unlink(places, pairs, j)
                places[right].left = i
                y = places[right].token
                known = pair_before if y == new else pair_after  # (new, new) stands in one only
                if known[y] < oldest:
                    known[y] = n_pairs
                    n_pairs = _new_pair(pairs, n_pairs, new, y)
                _link(places, pairs, i, known[y])
            if left >= 0:
                _unlink(places, pairs, left)
                x = places[left].token
                if pair_before[x] < oldest:
                    pair_before[x] = n_pairs
                    n_pairs = _new_pair(pairs, n_pairs, x, new)
                _link(places, pairs, left, pair_before[x])
            i = right
    return n_pairs


@njit(cache=True)
def _lay_out(text, words, token_of_byte):
    """The bytes of all distinct words, one word after another, linked to their neighbours, in no pair yet."""
    places = np.empty(words["length"].sum(), PLACE)
    i = 0
    for w in range(words.size):
        start, length = words[w].start, words[w].length
        for k in range(length):
            at = places[i]
            at.token = token_of_byte[text[start + k]]
            at.left = i - 1 if k > 0 else -1
            at.right = i + 1 if k + 1 < length else -1
            at.pair = at.before = at.after = -1
            at.count = words[w].count
            i += 1
    return places


@njit(cache=True)
def _byte_pairs(places):
    """Count the pairs of neighbouring bytes and list where each stands. Returns the pairs and how many there are."""
    pairs, n_pairs = np.empty(256 * 256, PAIR), 0
    known = np.full((256, 256), -1, np.int32)
    for i in range(places.size):
        right = places[i].right
        if right >= 0:
            a, b = places[i].token, places[right].token
            if known[a, b] < 0:
                known[a, b] = n_pairs
                n_pairs = _new_pair(pairs, n_pairs, a, b)
            _link(places, pairs, i, known[a, b])
    return pairs, n_pairs


@njit(cache=True)
def _new_pair(pairs, p, a, b):
    """Make (a, b) pair number p, which stands nowhere yet; returns p + 1."""
    pair = pairs[p]
    pair.a, pair.b, pair.place, pair.count = a, b, -1, 0
    return p + 1


@njit(cache=True)
def _with_room(pairs, size):
    """The same array if it holds `size` pairs, or else a larger one that begins with the same pairs."""
    if size <= pairs.size:
        return pairs
    larger = np.empty(2 * size, PAIR)
    for p in range(
        pairs.size
    ):  # a slice would take 3 s to compile, for the sake of its error message
        larger[p] = pairs[p]
    return larger


@njit(cache=True)
def _entry(pairs, p):
    """What the heap holds: the smallest of these is the pair to merge next."""
    return (-pairs[p].count, pairs[p].a, pairs[p].b, p)


@njit(cache=True)
def _link(places, pairs, i, p):
    """Put place i at the head of the list of pair p."""
    head = pairs[p].place
    places[i].pair, places[i].before, places[i].after = p, -1, head
    if head >= 0:
        places[head].before = i
    pairs[p].place = i
    pairs[p].count += places[i].count


@njit(cache=True)
def _unlink(places, pairs, i):
    """Take place i out of the list of its pair."""
    p, before, after = places[i].pair, places[i].before, places[i].after
    if before >= 0:
        places[before].after = after
    else:
        pairs[p].place = after
    if after >= 0:
        places[after].before = before
    places[i].pair = -1
    pairs[p].count -= places[i].count
