"""The merges are those of the plain Python version and of `tokenizers`, ties and overlaps included."""

import json
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bigmodel_lab import data
from bigmodel_lab.text import BPE, bpe, naive
from bigmodel_lab.text._alphabet import from_printable
from bigmodel_lab.text._words import WORD

texts = st.one_of(
    st.text(alphabet="ab", max_size=80),  # one word: overlaps
    st.text(alphabet="ab ", max_size=80),  # many ties
    st.text(alphabet="abAB '1\u5e74\u6708\n", max_size=80),
)


def train_quietly(text, n_merges: int, min_count: int) -> BPE:
    """Without the warning that the text has too few pairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return BPE.train(text, 256 + n_merges, min_count=min_count)


@settings(max_examples=300, deadline=None)
@given(texts, st.integers(0, 30), st.integers(1, 4))
@example("aaaaaaa aaaaa aaa", 10, 1)  # overlaps, also of what was merged
@example("abababab bababa", 10, 1)
def test_as_plain_python(text, n_merges, min_count):
    assert train_quietly(text, n_merges, min_count).merges == naive.train(text, n_merges, min_count)


def by_tokenizers(texts, n_merges: int, min_count: int) -> list[tuple[bytes, bytes]]:
    tokenizers = pytest.importorskip("tokenizers")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    tok = tokenizers.Tokenizer(tokenizers.models.BPE())
    tok.pre_tokenizer = byte_level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=256 + n_merges,
        min_frequency=min_count,
        initial_alphabet=byte_level.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    merges = json.loads(tok.to_str())["model"]["merges"]
    return [(from_printable(a), from_printable(b)) for a, b in merges]


@settings(max_examples=100, deadline=None)
@given(texts, st.integers(1, 30), st.integers(1, 3))
def test_as_tokenizers_on_ties(text, n_merges, min_count):
    merges = train_quietly(text, n_merges, min_count).merges
    assert merges == by_tokenizers([text], n_merges, min_count)


@pytest.mark.parametrize(
    ("name", "n_characters", "n_merges"), [("moby-dick", None, 7000), ("tang-poems", 150_000, 3000)]
)
def test_as_tokenizers_on_real_text(name, n_characters, n_merges):
    text = data.load(name).text[:n_characters]
    tok = BPE.train(text, 256 + n_merges)
    assert len(tok.merges) == n_merges
    assert tok.merges == by_tokenizers([text], n_merges, 2)


def test_as_tokenizers_on_several_documents():
    poems = data.load("tang-poems").documents[:300]
    assert BPE.train(poems, 600).merges == by_tokenizers(poems, 600 - 256, 2)


def test_no_token_crosses_the_end_of_a_document():
    one = train_quietly(["ab", "cd"] * 5, 3, 2)
    assert one.merges == [(b"a", b"b"), (b"c", b"d")]
    assert one == train_quietly((x for x in [b"ab", "cd"] * 5), 3, 2)
    assert train_quietly("abcd" * 5, 3, 2) != one


def test_special_tokens_divide_the_text_and_are_not_learned():
    tok = BPE.train("ab<|end|>" * 9, 258, special_tokens=("<|end|>",))
    assert tok.merges == [(b"a", b"b")]
    assert tok.special_tokens == {"<|end|>": 257}


def test_few_pairs_stop_early_and_say_so():
    with pytest.warns(
        UserWarning, match=r"vocab_size=300 was asked for and 258 reached: after 1 mer"
    ) as w:
        tok = BPE.train("ab ab", 300, special_tokens=("<e>",))
    assert w[0].filename == __file__
    assert tok.vocab_size == 258
    assert tok.merges == [(b"a", b"b")]
    with pytest.warns(
        UserWarning, match=r"256 reached: after 0 merges no pair of tokens occurs min_count=2 ti"
    ):
        assert BPE.train("", 257).merges == []
    with pytest.warns(UserWarning, match="256 reached"):
        BPE.train([], 257)


def test_a_huge_vocabulary_costs_no_more_than_the_text_can_fill():
    with pytest.warns(UserWarning, match="reached"):
        assert BPE.train("abc", 10**30, min_count=1).vocab_size == 258


def test_too_much_to_learn_from(monkeypatch):
    """Two gigabytes of distinct words, as `distinct_words` would report them: places are numbered in 32 bits."""
    words = np.array([(0, 2**30, 1, 0), (2**30, 2**30, 1, 1)], WORD)
    monkeypatch.setattr(bpe, "distinct_words", lambda pieces: (None, words, None))
    with pytest.raises(
        ValueError, match=r"2,147,483,648 bytes of distinct words, .* train on a part"
    ):
        BPE.train("a", 300)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            dict(vocab_size=257),
            ValueError,
            r"vocab_size=257 is too small: 256 bytes and 2 special tokens need 258",
        ),
        (dict(vocab_size=300.0), TypeError, r"vocab_size must be an integer, got 300\.0\."),
        (dict(min_count=0), ValueError, r"min_count must be at least 1, got 0\."),
        (dict(text=3), TypeError, r"text must be a string, bytes or several of them, got int\."),
        (dict(text=["a", 3]), TypeError, r"text\[1\] must be a string or bytes, got int\."),
        (
            dict(text="\ud800"),
            ValueError,
            r"text has half of a surrogate pair, U\+D800, at character 0",
        ),
        (dict(special_tokens="<e>"), TypeError, r"got the string '<e>': write \('<e>',\)\."),
        (dict(special_tokens=("<e>", "")), ValueError, r"special_tokens\[1\] is empty"),
        (
            dict(special_tokens=("<e>", "<e>")),
            ValueError,
            r"special_tokens\[1\]='<e>' is there twice\.",
        ),
        (
            dict(special_tokens=(b"<e>",)),
            TypeError,
            r"special_tokens\[0\] must be a string, got b'<e>'\.",
        ),
    ],
)
def test_errors(arguments, error, message):
    arguments = dict(text="ab", vocab_size=300, special_tokens=("<a>", "<b>")) | arguments
    with pytest.raises(error, match=message):
        BPE.train(**arguments)
