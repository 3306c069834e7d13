"""Samplers: what they draw, that every place is as likely as any other, saved states, windows, messages."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.rng import generator
from bigmodel_lab.train import Batches, Samples, windows

TEXT = generator(0, "test_batches").integers(0, 50, 200).astype(np.uint16)


def text_batches(seed=0, tokens=TEXT, batch=4, length=8):
    return Batches(tokens, batch, length, generator(seed, "draws"))


def samples(seed=0, n=10, batch=3):
    x = np.arange(n, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    return Samples(x, np.arange(n), batch=batch, generator=generator(seed, "draws"))


def draws(sampler, n):
    return [next(sampler) for _ in range(n)]


def same(a, b):
    return all(
        torch.equal(s, t) for x, y in zip(a, b, strict=True) for s, t in zip(x, y, strict=True)
    )


def test_y_is_x_one_token_further():
    for x, y in draws(text_batches(), 5):
        assert x.shape == y.shape == (4, 8)
        assert x.dtype == y.dtype == torch.int64
        assert x.is_contiguous()
        assert y.is_contiguous()
        assert torch.equal(x[:, 1:], y[:, :-1])
        where = [bytes(TEXT).find(row.numpy().astype(np.uint16).tobytes()) // 2 for row in x]
        assert [TEXT[w + 8] for w in where] == y[:, -1].tolist()


def test_every_window_is_drawn_and_none_beyond_the_end():
    sampler = text_batches(tokens=np.arange(10), batch=50, length=7)
    x, y = next(sampler)
    assert set(x[:, 0].tolist()) == {0, 1, 2}
    assert y[:, -1].max() == 9
    sampler = text_batches(tokens=np.arange(8), length=7)  # the longest window there can be
    assert next(sampler)[0].tolist() == [list(range(7))] * 4


@pytest.mark.parametrize("make", [text_batches, samples])
@pytest.mark.parametrize("before", [0, 1, 3, 7])
def test_a_loaded_state_draws_the_same(make, before):
    sampler, other = make(0), make(1)
    assert not same(draws(make(0), 3), draws(other, 3))
    draws(sampler, before)
    state = json.loads(json.dumps(sampler.state_dict()))  # plain data
    other.load_state_dict(state)
    assert same(draws(sampler, 9), draws(other, 9))
    assert same(draws(make(0), before + 9)[before:], draws_after(make, state, 9))


def draws_after(make, state, n):
    sampler = make(2)
    sampler.load_state_dict(state)
    return draws(sampler, n)


def test_a_memory_mapped_file_serves(tmp_path):
    TEXT.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", np.uint16, "r")
    assert same(draws(text_batches(tokens=mapped), 3), draws(text_batches(), 3))


def test_an_epoch_has_each_sample_once_and_the_next_another_order():
    sampler = samples(n=10, batch=5)
    first, second = (torch.cat([y for _, y in draws(sampler, 2)]) for _ in range(2))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    x, y = next(samples())
    assert x.dtype == torch.float32
    assert x[:, 1].tolist() == y.tolist()


def test_batches_are_all_of_one_size_and_what_is_left_out_changes():
    sampler, left_out = samples(n=10, batch=3), set()
    for _ in range(40):
        epoch = torch.cat([y for _, y in draws(sampler, 3)]).tolist()
        assert len(set(epoch)) == 9
        left_out |= set(range(10)) - set(epoch)
    assert left_out == set(range(10))


@given(st.integers(2, 60), st.integers(1, 9), st.integers(1, 20))
def test_windows_predict_each_token_but_the_first_once_in_order(n, batch, length):
    tokens = np.arange(n)
    cut = windows(tokens, batch, length)
    assert torch.cat([y.reshape(-1) for _, y in cut]).tolist() == list(range(1, n))
    assert all((x + 1).equal(y) for x, y in cut)
    assert all(len(x) <= batch and x.shape[1] <= length for x, _ in cut)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: text_batches(tokens=np.zeros(9)), ValueError, r"integer array .* of float64: encode the text"),
        (lambda: text_batches(tokens=np.zeros((3, 3), int)), ValueError, r"got shape \(3, 3\)"),
        (lambda: text_batches(tokens=[1]), ValueError, "N at least 2"),
        (lambda: text_batches(length=200), ValueError, "length must be between 1 and 199, got 200"),
        (lambda: text_batches(batch=0), ValueError, "batch must be at least 1, got 0"),
        (lambda: Batches(TEXT, 4, 8, 0), TypeError, "generator must be a numpy.random.Generator, got int"),
        (lambda: samples(batch=11), ValueError, "batch must be between 1 and 10, got 11"),
        (lambda: Samples(np.ones(3), np.ones(4), batch=1, generator=generator(0)), ValueError, r"lengths \[3, 4\]"),
        (lambda: Samples(batch=1, generator=generator(0)), ValueError, r"lengths \[\]"),
        (lambda: windows(TEXT, 0, 8), ValueError, "batch must be at least 1"),
        (lambda: windows(TEXT, 1, 0), ValueError, "length must be at least 1"),
    ],
)  # fmt: skip
def test_messages(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_state_of_other_batches_is_refused():
    state = text_batches().state_dict()
    with pytest.raises(ValueError, match="other batches: batch was 4 and is 5"):
        text_batches(batch=5).load_state_dict(state)
    changed = TEXT.copy()
    changed[100:] += 1
    with pytest.raises(ValueError, match=r"other batches: tokens was .*crc32"):
        text_batches(tokens=changed).load_state_dict(state)
    with pytest.raises(ValueError, match="other batches: arrays was"):
        samples(n=11).load_state_dict(samples().state_dict())
    with pytest.raises(ValueError, match="other batches: length was None and is 8"):
        text_batches().load_state_dict(samples(batch=4).state_dict())
