"""The pre-tokeniser cuts where GPT-2's regular expression does."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bigmodel_lab import data
from bigmodel_lab.text import naive, pretokens
from bigmodel_lab.text._pretokenise import cut
from bigmodel_lab.text._unicode import OTHER, kind_of_code_point
from bigmodel_lab.text._words import distinct_words

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# what the pattern distinguishes, in several scripts: far likelier to meet each other than among all characters
SCRIPTS = (
    "aZéßДβشनあア漢字한ไ𝔄",  # letters of 1 to 4 bytes
    "09²½٣४Ⅷ㊿𝟘〇",  # numbers: digits, fractions, Roman, circled
    "'\".,!-_#@€—。，！「」…\u0301\u094d\u200b\u200d\ufeff😀🏽\x00\x7f",  # others: signs, marks, format
    " \n\t\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000\x1c\x1f",  # white space, and two that are none
)
mixed = st.lists(
    st.one_of(
        st.sampled_from([c for script in SCRIPTS for c in script]),
        st.sampled_from(
            ["  ", " \n", "'s", "'S", "'ll", "'re", "'ve", "'l", "'d", "n't", "''m", " '"]
        ),
        st.text(max_size=3),
    )
).map("".join)


@pytest.fixture(scope="module")
def by_regex():
    """What the `regex` package finds, in text without characters that came after Unicode 16."""
    regex = pytest.importorskip("regex")
    everything = "".join(chr(c) for c in range(0x110000) if not 0xD800 <= c <= 0xDFFF)
    ours = kind_of_code_point()
    later = {
        c: "!" for c in map(ord, regex.findall(r"[\p{L}\p{N}]", everything)) if ours[c] == OTHER
    }
    pattern = regex.compile(GPT2)
    return lambda text: (text.translate(later), pattern.findall(text.translate(later)))


@settings(max_examples=500, deadline=None)
@example("I'll  see\n\n you're 3 'em's \t1990's　漢字 \u3000x  ")
@given(mixed)
def test_as_the_regular_expression(by_regex, text):
    text, expected = by_regex(text)
    assert pretokens(text) == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(mixed.map(str.encode), st.binary(max_size=5))).map(b"".join))
def test_bytes_that_are_not_utf8_are_others(by_regex, raw):
    """As if each byte that is not part of a character were a sign, such as Python's stand-ins for them."""
    regex_text, expected = by_regex(raw.decode("utf-8", "surrogateescape"))
    raw = regex_text.encode("utf-8", "surrogateescape")
    assert pretokens(raw) == [word.encode("utf-8", "surrogateescape") for word in expected]


@pytest.mark.parametrize("name", ["moby-dick", "tang-poems"])
def test_as_the_regular_expression_on_real_text(by_regex, name):
    text, expected = by_regex(data.load(name).text)
    assert text == data.load(name).text
    assert pretokens(text) == expected


@settings(max_examples=300, deadline=None)
@given(mixed)
def test_naive_cuts_at_the_same_places(text):
    assert naive.pretokens(text) == pretokens(text)


@settings(deadline=None)
@given(st.lists(st.one_of(mixed.map(str.encode), st.binary(max_size=4))))
def test_pieces_are_cut_as_texts_of_their_own(pieces):
    text, words, which = distinct_words(pieces)
    expected = [word for piece in pieces for word in pretokens(piece)]
    found = [bytes(text[s : s + n]) for s, n in words[which][["start", "length"]].tolist()]
    assert found == expected
    assert words["count"].tolist() == [expected.count(word) for word in dict.fromkeys(expected)]


def test_words_share_slots_when_there_are_many():
    """20,000 distinct words: the table grows three times, and short and long words meet in it."""
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, n).astype(np.uint8)) for n in rng.integers(1, 24, 20_000)]
    _, table, which = distinct_words(words)
    order = {word: i for i, word in enumerate(dict.fromkeys(words))}
    assert which.tolist() == [order[word] for word in words]
    assert table["count"].sum() == len(words)


def test_words_that_differ_only_by_leading_zeros():
    """A short word is its own key; the number of its bytes tells these apart."""
    pieces = [b"\0" * n for n in (1, 2, 7, 8, 9, 10, 1, 9)]
    _, words, which = distinct_words(pieces)
    assert words["length"].tolist() == [1, 2, 7, 8, 9, 10]
    assert which.tolist() == [0, 1, 2, 3, 4, 5, 0, 4]


def test_shorter_forms_and_too_large_points_are_no_characters():
    """An "a" in two, three and four bytes, U+110061, a surrogate, a lone byte: each byte is a sign."""
    for raw in (
        b"\xc1\xa1",
        b"\xe0\x81\xa1",
        b"\xf0\x80\x81\xa1",
        b"\xf4\x90\x81\xa1",
        b"\xed\xa0\x80",
        b"\xff",
        b"\xe6",
    ):
        assert pretokens(b"a" + raw + b"1") == [b"a", raw, b"1"]
    assert pretokens("漢1".encode()) == ["漢".encode(), b"1"]


def test_a_character_cut_in_two_by_the_end_of_a_piece_is_none():
    raw = "a漢".encode()
    ends = cut(np.frombuffer(raw, np.uint8), np.array([2, 4]))
    assert ends.tolist() == [1, 2, 4]


def test_nothing_gives_nothing():
    assert pretokens("") == []
    assert pretokens(b"") == []


def test_text_must_be_text():
    with pytest.raises(TypeError, match=r"text must be a string or bytes, got list\."):
        pretokens(["a"])
    with pytest.raises(
        ValueError, match=r"text has half of a surrogate pair, U\+D83D, at character 2"
    ):
        pretokens("ab\ud83d")
