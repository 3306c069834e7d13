"""Special tokens: one id where allowed, an error where disallowed, plain text otherwise; as in tiktoken."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab.text import BPE

SPECIAL = ("<|end|>", "<|user|>", "\u3010\u5b8c\u3011", "| ")
TOK = BPE([(b" ", b"<"), (b"<", b"|"), (b"e", b"n"), (b"en", b"d"), (b" <", b"|")], SPECIAL)
texts = st.lists(
    st.sampled_from([*SPECIAL, "<|", "|>", "end", "<|end", " ", " <", "a", "\u5b8c", "\n", ""])
).map("".join)
chosen = st.sets(st.sampled_from(SPECIAL))


@pytest.fixture(scope="module")
def tiktoken_encoding():
    tiktoken = pytest.importorskip("tiktoken")
    plain = range(256 + len(TOK.merges))
    return tiktoken.Encoding(
        "special",
        pat_str=r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        mergeable_ranks={TOK.token_bytes(i): i for i in plain},
        special_tokens=TOK.special_tokens,
    )


@settings(max_examples=500, deadline=None)
@given(texts, st.one_of(st.just("all"), chosen), st.one_of(st.just("all"), chosen))
def test_as_tiktoken(tiktoken_encoding, text, allowed, disallowed):
    def encode(tok):
        try:
            return list(tok.encode(text, allowed_special=allowed, disallowed_special=disallowed))
        except ValueError:
            return "disallowed"

    assert encode(TOK) == encode(tiktoken_encoding)


def test_ids_follow_the_merges():
    assert TOK.special_tokens == {token: 261 + i for i, token in enumerate(SPECIAL)}
    assert TOK.vocab_size == 265
    assert TOK.token_bytes(263) == "\u3010\u5b8c\u3011".encode()


@settings(deadline=None)
@given(texts)
def test_plain_text_makes_no_special_token(text):
    ids = TOK.encode(text, disallowed_special=())
    assert (ids < 261).all()
    assert TOK.decode(ids) == text


@settings(deadline=None)
@given(texts)
def test_allowed_ones_come_back(text):
    ids = TOK.encode(text, allowed_special="all")
    assert TOK.decode(ids) == text
    if not any(token in text for token in SPECIAL):
        assert (ids < 261).all()


def test_they_cut_the_text_before_it_is_cut_into_words():
    """ " <|" is one token, but not where its end begins a special one; two in a row have nothing between them."""

    def tokens(**options):
        ids = TOK.encode("a <|end|><|end|>", **options)
        return [TOK.token_bytes(i) for i in ids]

    end = b"<|end|>"
    assert tokens(allowed_special=("<|end|>",)) == [b"a", b" ", end, end]
    assert tokens(disallowed_special=())[:3] == [b"a", b" <|", b"end"]


def test_of_those_that_start_together_the_longest_is_taken():
    special = ["<a>bcd"[:n] for n in (5, 3, 6, 2, 4)]
    tok = BPE([], special)
    for n in range(2, 7):
        ids = tok.encode("<a>bcd"[:n] + "<", allowed_special="all")
        assert ids.tolist() == [tok.special_tokens["<a>bcd"[:n]], *tok.encode("<")]


def test_in_bytes_that_are_not_utf8():
    ids = TOK.encode(b"\xff<|end|>\xe5", allowed_special="all")
    assert ids[1] == TOK.special_tokens["<|end|>"]
    assert TOK.decode_bytes(ids) == b"\xff<|end|>\xe5"


def test_disallowed_ones_raise_and_say_the_ways_out():
    with pytest.raises(
        ValueError, match=r"text has the special token '<\|user\|>' at byte 4\."
    ) as e:
        TOK.encode("\u5b8c <|user|> <|end|>", allowed_special=("<|end|>",))
    assert "as id 262 pass allowed_special=('<|user|>',)" in str(e.value)
    assert "as plain text disallowed_special=()" in str(e.value)
    assert TOK.encode("<|end", disallowed_special="all").size > 1


@pytest.mark.parametrize("name", ["allowed_special", "disallowed_special"])
def test_wrong_arguments(name):
    with pytest.raises(
        ValueError, match=rf"{name} has '<\|pad\|>', which is none of this tokenizer's"
    ):
        TOK.encode("a", **{name: ("<|pad|>",)})
    with pytest.raises(
        TypeError, match=rf"{name} must be \"all\" or a coll.* write \('<\|end\|>',\)"
    ):
        TOK.encode("a", **{name: "<|end|>"})
