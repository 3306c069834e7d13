"""Our table of letters, numbers and white space, for every code point, against four others."""

import unicodedata

import numpy as np
import pytest

from bigmodel_lab.text._unicode import LETTER, NUMBER, OTHER, WHITE, kind_of_code_point

CODE_POINTS = [c for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF]  # without surrogates
EVERYTHING = "".join(map(chr, CODE_POINTS))
PATTERNS = {LETTER: r"\p{L}", NUMBER: r"\p{N}", WHITE: r"\s"}


def kinds(found: dict[int, str]) -> np.ndarray:
    """A table like ours from the characters of each kind."""
    table = np.full(0x110000, OTHER, np.uint8)
    for kind, characters in found.items():
        table[[ord(c) for c in characters]] = kind
    return table


def test_the_same_as_tiktoken():
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {bytes([byte]): byte for byte in range(256)}
    found = {}
    for kind, pattern in PATTERNS.items():
        only = tiktoken.Encoding("only", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        found[kind] = bytes(only.encode_ordinary(EVERYTHING)).decode()
    assert np.array_equal(kind_of_code_point(), kinds(found))


def test_the_same_as_tokenizers_where_the_kind_changes():
    """Both ends of every range and their neighbours: all code points would take a minute."""
    pre_tokenizers = pytest.importorskip("tokenizers").pre_tokenizers
    split = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    ours = kind_of_code_point()
    edges = {c + near for c in np.flatnonzero(np.diff(ours)).tolist() for near in (-1, 0, 1, 2)}
    points = [c for c in sorted(edges - {-1}) if ours[c] != WHITE and not 0xD800 <= c <= 0xDFFF]
    assert len(points) > 1500
    for before, kind in (("a", LETTER), ("1", NUMBER), ("!", OTHER)):
        together = [len(split(before + chr(c))) == 1 for c in points]
        assert together == (ours[points] == kind).tolist()


def test_the_same_as_regex_but_for_later_characters():
    regex = pytest.importorskip("regex")
    theirs = kinds({k: "".join(regex.findall(p, EVERYTHING)) for k, p in PATTERNS.items()})
    differ = np.flatnonzero(kind_of_code_point() != theirs)
    assert (kind_of_code_point()[differ] == OTHER).all(), "regex knows fewer characters than we"


def test_the_same_as_python_but_for_later_characters():
    letter_or_number = {"L": LETTER, "N": NUMBER}
    categories = [unicodedata.category(chr(c)) for c in CODE_POINTS]
    theirs = np.array([letter_or_number.get(category[0], OTHER) for category in categories])
    ours = kind_of_code_point()[CODE_POINTS]
    ours = np.where(ours == WHITE, OTHER, ours)  # white space is no category
    unassigned = np.array(categories) == "Cn"
    newer = (theirs != OTHER) & (ours == OTHER)  # to this Python, if it is of 2025 or later
    assert np.array_equal(ours[~unassigned & ~newer], theirs[~unassigned & ~newer])
    assert newer.sum() == 0 or float(unicodedata.unidata_version[:4]) > 16


def test_white_space():
    assert [f"{c:X}" for c in np.flatnonzero(kind_of_code_point() == WHITE)] == (
        "9 A B C D 20 85 A0 1680 2000 2001 2002 2003 2004 2005 2006 2007 2008 2009 200A 2028 2029 202F 205F 3000"
    ).split()


def test_the_table_is_shared_and_cannot_be_written():
    assert kind_of_code_point() is kind_of_code_point()
    with pytest.raises(ValueError, match="read-only"):
        kind_of_code_point()[0] = LETTER
