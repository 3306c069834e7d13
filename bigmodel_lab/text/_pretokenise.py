"""GPT-2's pre-tokeniser: cut a text into words, numbers, signs and white space, before any byte pairs are counted.

Merges never cross these cuts. As a regular expression over characters (\\p{L} a letter, \\p{N} a number):

    '(?:[sdmt]|ll|ve|re) | ?\\p{L}+ | ?\\p{N}+ | ?[^\\s\\p{L}\\p{N}]+ | \\s+(?!\\S) | \\s+        (` ?`: an optional space)

Here it is written as two passes over the UTF-8 bytes. The first gives every byte the kind of the character that it is a
part of; a byte that is not UTF-8 is OTHER. The second cuts where the kind changes. Chapter 8 derives it.

Source: Radford et al. (2019), Language Models are Unsupervised Multitask Learners, section 2.2, and the code they
published with it. Checked against the `regex` package on arbitrary Unicode and on arbitrary bytes.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from numba import njit

from bigmodel_lab.text._unicode import OTHER, WHITE, kind_of_code_point

SPACE, APOSTROPHE = ord(" "), ord("'")
ONE_LETTER, TWO_LETTERS = tuple(b"stmd"), (tuple(b"ll"), tuple(b"ve"), tuple(b"re"))
LOWEST = (0, 0, 0x80, 0x800, 0x10000)  # the first code point that needs 2, 3, 4 bytes


def pretokens(text: str | bytes) -> list[str] | list[bytes]:
    """The words, numbers, signs and white space that GPT-2's pattern cuts `text` into; joined they are `text` again."""
    data = to_utf8("text", text)
    ends = cut(np.frombuffer(data, np.uint8), np.array([len(data)])).tolist()
    words = [data[start:end] for start, end in pairwise([0, *ends])]
    return [word.decode() for word in words] if isinstance(text, str) else words


def cut(text: np.ndarray, piece_ends: np.ndarray) -> np.ndarray:
    """Where each pre-token of `text` ends.

    Parameters
    ----------
    text : uint8 array (n,)        the pieces, one after another, in UTF-8; other bytes are allowed
    piece_ends : int64 array (k,)  where each piece ends, ascending; the last is n. Each is cut as a text of its own

    Returns
    -------
    int64 array (m,), ascending; pre-token 0 starts at 0, the others where the one before ends
    """
    return _cut(text, piece_ends, kind_of_code_point())


@njit(cache=True)
def _cut(text, piece_ends, kind_of):
    kinds = np.empty(text.size, np.uint8)
    ends = np.empty(text.size, np.int64)  # of at most as many words; untouched pages cost nothing
    n_ends = start = 0
    for stop in piece_ends:
        _classify(text, start, stop, kind_of, kinds)
        n_ends = _cut_piece(text, start, stop, kinds, ends, n_ends)
        start = stop
    return ends[:n_ends].copy()


@njit(cache=True)
def _classify(text, start, stop, kind_of, kinds):
    """Give each byte in start..stop the kind of its character."""
    i = start
    while i < stop:
        lead = text[i]
        if lead < 0x80:
            kinds[i] = kind_of[lead]
            i += 1
            continue
        width = 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
        point = lead & (0x7F >> width)
        is_valid = 0xC2 <= lead < 0xF5 and i + width <= stop
        if is_valid:
            for k in range(i + 1, i + width):
                is_valid = is_valid and text[k] & 0xC0 == 0x80
                point = point << 6 | text[k] & 0x3F
        is_valid = is_valid and LOWEST[width] <= point < 0x110000
        if not is_valid:
            kinds[i] = OTHER
            i += 1
            continue
        kinds[i : i + width] = kind_of[point]
        i += width


@njit(cache=True)
def _cut_piece(text, start, stop, kinds, ends, n_ends):
    """Append the ends of the pre-tokens in start..stop to `ends` and return how many there are now."""
    i = start
    while i < stop:
        j = i
        if text[i] == APOSTROPHE:
            j += _contraction(text, i, stop)
        if j == i:
            if text[i] == SPACE and i + 1 < stop:
                j += 1  # one space goes with what follows it
            kind = kinds[j]
            while j < stop and kinds[j] == kind:
                j += 1
            if kind == WHITE and j < stop:  # all but the last character before a word
                last = j - 1
                while text[last] & 0xC0 == 0x80:
                    last -= 1
                if last > i:
                    j = last
        ends[n_ends] = j
        n_ends += 1
        i = j
    return n_ends


@njit(cache=True)
def _contraction(text, i, stop):
    """Length of the 's, 't, 'm, 'd, 'll, 've or 're whose apostrophe is at i, or 0."""
    if i + 1 < stop and text[i + 1] in ONE_LETTER:
        return 2
    if i + 2 < stop:
        for a, b in TWO_LETTERS:
            if text[i + 1] == a and text[i + 2] == b:
                return 3
    return 0


def to_utf8(name: str, text: str | bytes) -> bytes:
    """The bytes of `text`, named `name` in errors; bytes pass as they are."""
    if isinstance(text, bytes | bytearray | memoryview):
        return bytes(text)
    if not isinstance(text, str):
        raise TypeError(f"{name} must be a string or bytes, got {type(text).__name__}.")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as e:
        raise ValueError(
            f"{name} has half of a surrogate pair, U+{ord(text[e.start]):04X}, at character {e.start}: it is no "
            f'character and UTF-8 has no bytes for it. Mend the text, or pass {name}.encode("utf-8", "surrogatepass").'
        ) from None


def all_to_utf8(text: str | bytes | Iterable[str | bytes]) -> list[bytes]:
    """One text or several as a list of bytes."""
    if isinstance(text, str | bytes | bytearray | memoryview):
        return [to_utf8("text", text)]
    if not isinstance(text, Iterable):
        raise TypeError(
            f"text must be a string, bytes or several of them, got {type(text).__name__}."
        )
    return [to_utf8(f"text[{i}]", one) for i, one in enumerate(text)]
