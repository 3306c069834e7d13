"""The pretrained model in its folder: what is read is what was written, damage is named; and the one that ships."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
import torch

from bigmodel_lab import models, rng
from bigmodel_lab.data import DataError
from bigmodel_lab.models import GPT, GPTConfig, pretrained, save_pretrained
from bigmodel_lab.models.generate import generate
from bigmodel_lab.text import BPE

TEXT = "the whale, the white whale, the sea, the sea and the ship " * 20
FILES = ["model.safetensors", "tokenizer.json", "manifest.json"]


@pytest.fixture(scope="module")
def pair():
    tokenizer = BPE.train(TEXT, 270, special_tokens=("<|end|>",))
    config = GPTConfig.llama(270, 16, 2, 8, 2, tied=True, dropout=0.1)
    return GPT(config, seed=3), tokenizer


@pytest.fixture
def folder(pair, tmp_path):
    return save_pretrained(tmp_path / "new" / "model", *pair)


def logits(model, dtype=torch.int64):
    with torch.no_grad():
        return model(torch.arange(20, 32, dtype=dtype)[None])


@pytest.mark.parametrize("ops", ["torch", "numba"])
def test_what_is_read_is_what_was_written_in_float16(pair, folder, ops):
    model, tokenizer = pair
    read, read_tokenizer = pretrained(folder, ops=ops)
    assert read_tokenizer == tokenizer
    assert read.config == model.config
    assert read.ops == ops
    assert not read.training
    for (name, p), (read_name, q) in zip(
        model.named_parameters(), read.named_parameters(), strict=True
    ):
        assert name == read_name
        assert q.dtype == torch.float32
        assert q.requires_grad
        assert torch.equal(q, p.half().float())
    rounded = GPT(model.config, ops)
    rounded.load_state_dict({n: p.half().float() for n, p in model.state_dict().items()})
    assert torch.equal(logits(read), logits(rounded.eval()))


def test_float64_holds_the_same_weights(folder):
    single, double = pretrained(folder)[0], pretrained(folder, dtype=torch.float64)[0]
    assert logits(double).dtype == torch.float64
    assert all(
        torch.equal(p.double(), q)
        for p, q in zip(single.parameters(), double.parameters(), strict=True)
    )


def test_it_can_be_trained_further(folder):
    model, _ = pretrained(folder)
    tokens = torch.arange(20, 32)[None]
    model.train()(tokens[:, :-1], tokens[:, 1:]).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_the_same_model_gives_the_same_bytes(pair, folder, tmp_path):
    again = save_pretrained(tmp_path / "again", *pair)
    assert sorted(p.name for p in folder.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_another_vocabulary_is_refused(pair, tmp_path):
    with pytest.raises(ValueError, match=r"vocab_size=270 and the tokenizer 256: they do not"):
        save_pretrained(tmp_path, pair[0], BPE([]))


@pytest.mark.parametrize("value", [7e4, float("nan")])
def test_a_weight_that_float16_cannot_hold_is_refused(pair, tmp_path, value):
    model = GPT(pair[0].config)
    with torch.no_grad():
        model.blocks[1].mlp.up.weight[2, 3] = value
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.up\.weight has a weight that is NaN"):
        save_pretrained(tmp_path / "bad", model, pair[1])
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name} cannot be read: .*save_pretrained"):
        pretrained(folder)


@pytest.mark.parametrize("name", FILES[:2])
@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_a_damaged_file_is_named(folder, name, harm):
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 1
    (folder / name).write_bytes(raw[:-1] if harm == "cut" else raw)
    with pytest.raises(DataError, match=rf"{name} is damaged: expected .* found"):
        pretrained(folder)


@pytest.mark.parametrize("content", ["", "[]", '{"model.safetensors": {}}', "\x00"])
def test_a_damaged_manifest_is_named(folder, content):
    (folder / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        pretrained(folder)


# --- the model that ships ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    return pretrained()


def test_the_shipped_files_are_small_and_as_listed(shipped):
    weights = (models.PRETRAINED / "model.safetensors").stat().st_size
    assert weights < 8e6
    assert sum(p.stat().st_size for p in models.PRETRAINED.iterdir()) < 9e6
    model, tokenizer = shipped
    assert 2e6 <= model.config.n_parameters <= 10e6
    assert weights == pytest.approx(2 * model.config.n_parameters, rel=0.01)
    assert model.config.vocab_size == tokenizer.vocab_size
    assert list(tokenizer.special_tokens) == ["<|end|>"]


def test_damage_to_the_shipped_files_says_how_to_restore_them(tmp_path, monkeypatch):
    copy = tmp_path / "lib" / "models" / "assets"
    shutil.copytree(models.PRETRAINED, copy)
    (copy / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr("bigmodel_lab.models.shipped.PRETRAINED", copy)
    with pytest.raises(DataError, match="Reinstall the package"):
        pretrained(copy)
    (tmp_path / ".git").mkdir()
    with pytest.raises(DataError, match="checkout -- lib/models/assets"):
        pretrained(copy)


def continue_text(shipped, prompt, n=60, **options):
    model, tokenizer = shipped
    ids = torch.from_numpy(tokenizer.encode(prompt, allowed_special="all").astype(np.int64))[None]
    new = generate(model, ids, n, **options)[0, ids.shape[1] :]
    return tokenizer.decode(new).replace("<|end|>", "")


def share(text, *kinds):
    """The share of the letters of `text` that are of a script, by their Unicode names."""
    letters = [c for c in text if unicodedata.category(c).startswith("L")]
    assert letters, repr(text)
    return np.mean([unicodedata.name(c, "").startswith(kinds) for c in letters])


def test_it_writes_in_the_script_that_it_is_given(shipped):
    for seed in range(3):
        options = dict(generator=rng.generator(seed, "sample"), top_p=0.9)
        english = continue_text(shipped, "CHAPTER 40. The Sea.\n\nThe captain", **options)
        chinese = continue_text(shipped, "<|end|>春望\n李白\n", **options)
        assert share(english, "LATIN") == 1, english
        assert share(chinese, "CJK") > 0.95, chinese
        assert english.count(" ") > 20, english
        assert chinese.count("，") >= 1, chinese
        assert chinese.count("。") >= 1, chinese


def test_generation_with_and_without_the_cache_agree(shipped):
    with_cache, without = (
        continue_text(shipped, "Call me Ishmael.", 40, use_cache=kept) for kept in (True, False)
    )
    assert with_cache == without


def test_the_header_says_the_form(shipped):
    raw = (models.PRETRAINED / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    assert json.loads(header["__metadata__"]["config"])["width"] == shipped[0].config.width
    assert {t["dtype"] for n, t in header.items() if n != "__metadata__"} == {"F16"}
