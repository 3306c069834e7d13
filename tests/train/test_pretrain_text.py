"""The texts of the pretrained model: what is held out, that nothing leaks, and the tokens."""

import re

import numpy as np
import pytest
import torch

from bigmodel_lab import data
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.train import evaluate
from bigmodel_lab.train.pretrain_text import (
    END,
    TEXTS,
    corpus,
    overlapping,
    part,
    split,
    tail_loss,
)


@pytest.fixture(scope="module")
def text():
    return corpus(2048)


def test_one_part_in_ten_is_held_out_whole():
    chapters = data.load("moby-dick").documents
    poems = data.load("tang-poems").documents
    train, held_out = split("English")
    assert held_out == chapters[9::10]
    assert train == [c for i, c in enumerate(chapters) if i % 10 != 9]  # none is a variant
    train, held_out = split("Chinese")
    assert held_out == [p for i, p in enumerate(poems) if i // 20 % 10 == 9]
    assert set(train) < set(poems)


def verse(poem):
    return "".join(poem.split("\n")[2:])


def test_no_held_out_document_has_a_near_copy_in_the_training_text():
    """Counted in another way than `split` does it: by half-lines of verse."""
    train, held_out = split("Chinese")
    assert not set(train) & set(held_out)
    phrases = {h for p in held_out for h in re.split("[，。？！；、\n]", verse(p)) if len(h) >= 5}
    shares = [
        np.mean([h in phrases for h in halves])
        for p in train
        if (halves := [h for h in re.split("[，。？！；、\n]", verse(p)) if len(h) >= 5])
    ]
    assert max(shares) <= 0.5
    assert np.mean(shares) < 0.005
    kept_out = len(data.load("tang-poems").documents) - len(train) - len(held_out)
    assert 0 < kept_out < 30


def test_no_sentence_of_the_held_out_chapters_is_in_the_training_text():
    train, held_out = split("English")
    sentences = lambda docs: {  # noqa: E731
        s.strip() for d in docs for s in re.split(r"[.!?;\n]", d) if len(s.strip()) >= 40
    }
    assert len(sentences(held_out)) > 500
    assert not sentences(held_out) & sentences(train)


def test_the_tokens_are_those_of_the_documents(text):
    for language in TEXTS:
        for ids, documents in zip(
            (text.train[language], text.held_out[language]), split(language), strict=True
        ):
            assert text.tokenizer.decode_bytes(ids) == "".join(d + END for d in documents).encode()
        ends = np.count_nonzero(text.held_out[language] == text.tokenizer.special_tokens[END])
        assert ends == len(split(language)[1])
        assert text.held_out_bytes[language] == len("".join(split(language)[1]).encode())


def test_the_tokenizer_has_seen_the_training_documents_only(text, monkeypatch):
    """With other held-out documents it is the same; with other training documents it is not."""
    whole = {language: split(language) for language in TEXTS}
    small = {k: (train[:300], held[:2]) for k, (train, held) in whole.items()}

    def tokenizer(change):
        monkeypatch.setattr("bigmodel_lab.train.pretrain_text.split", lambda k: change(*small[k]))
        return corpus(400).tokenizer

    first = tokenizer(lambda train, held: (train, held))
    assert first == tokenizer(lambda train, held: (train, ["xyzxyzxyz" * 9999]))
    assert first != tokenizer(lambda train, held: (["xyzxyzxyz" * 9999, *train], held))


def test_a_part_is_spread_over_the_text_in_whole_windows():
    ids = np.arange(10_000, dtype=np.int32)
    batches = part(ids, 32, 1000)
    x, y = (torch.cat(t) for t in zip(*batches, strict=True))
    assert x.shape == (32, 32)  # 32 windows of 32 are the first number above 1000
    assert torch.equal(y, x + 1)
    assert x[0, 0] == 0
    assert x[-1, -1] >= 10_000 - 64
    gaps = x[:, 0].diff()
    assert gaps.min() > 0
    assert gaps.max() - gaps.min() <= 32
    assert max(len(b[0]) for b in batches) <= 16
    all_of_it = part(ids, 32, 10**6)
    assert sum(b[0].numel() for b in all_of_it) == (len(ids) - 1) // 32 * 32


@pytest.mark.parametrize("n", [2, 9, 10, 13, 14, 100, 101, 102, 103])
def test_overlapping_windows_predict_every_token_but_the_first_once(n):
    ids = np.arange(n, dtype=np.int32)
    batches = overlapping(ids, 8)
    assert torch.equal(torch.cat([y.flatten() for _, y in batches]), torch.arange(1, n))
    for i, (x, y) in enumerate(batches):
        assert torch.equal(x[:, -1] + 1, y[:, -1])
        assert torch.equal(x.diff(), torch.ones_like(x[:, 1:]))
        if i:
            assert x.shape[1] == 8
            assert y.shape[1] <= 4


def test_the_loss_in_overlapping_windows_is_that_of_one_token_after_another():
    model = GPT(GPTConfig.llama(300, 8, 1, 16, 2)).double()
    with torch.no_grad():
        for p in model.parameters():
            p *= 5
    ids = np.random.default_rng(0).integers(0, 300, 47).astype(np.int32)
    nats = []
    for t in range(1, 47):
        start = 0 if t <= 8 else (t - 9) // 4 * 4 + 4  # of the first window that reaches t
        start = min(start, 46 - 8)  # the last one ends with the text
        before = torch.from_numpy(ids[start:t].astype(np.int64))[None]
        with torch.no_grad():
            nats.append(-model(before)[0, -1].log_softmax(-1)[ids[t]].item())
    assert evaluate(model, overlapping(ids, 8), tail_loss) == pytest.approx(np.mean(nats), rel=1e-9)


def test_an_unknown_language_is_named():
    with pytest.raises(ValueError, match="English"):
        split("german")
