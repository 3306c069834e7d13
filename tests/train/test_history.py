"""The measurements of a run: best evaluation, round trip, and the record they become."""

import math

import pytest
import torch

from bigmodel_lab.models import MLP
from bigmodel_lab.train import AdamW, RunRecord, validation_curve
from bigmodel_lab.train.history import History
from bigmodel_lab.train.tree import pack, unpack

IMAGES = torch.zeros(4, 6), torch.zeros(4, dtype=torch.int64)
TEXT = torch.zeros(4, 8, dtype=torch.int64), torch.zeros(4, 8, dtype=torch.int64)


def history(evaluations=(), batch=TEXT):
    h = History()
    for i in range(3):
        h.add(2.0 / (i + 1) + 1e-17, 0.5 + i / 3, batch)
    h.evaluations = list(evaluations)
    return h


def test_the_best_evaluation_and_how_long_ago_it_was():
    assert (history().best, history().since_best) == (None, 0)
    assert history([(1, 3.0), (2, 2.0), (3, 2.0)]).best == (2, 2.0)
    assert history([(1, 3.0), (2, 2.0), (3, 2.0), (4, 5.0)]).since_best == 2
    assert history([(1, 3.0), (2, 2.0)]).since_best == 0
    assert history([(1, math.nan), (2, math.nan)]).since_best == 2
    assert history([(1, math.nan), (2, 9.0)]).best == (2, 9.0)


def test_the_state_comes_back_to_the_bit():
    h, again = history([(1, 3.0), (3, math.inf)]), History()
    again.load_state_dict(unpack(*pack(h.state_dict())))
    assert again == h
    assert all(isinstance(x, float) for x in again.loss + again.compute_s)
    assert again.tokens == 3 * 4 * 8


def test_the_record(tmp_path):
    model = MLP([6, 3]).double()
    model.layers[0].bias.requires_grad_(False)
    optimizer = AdamW([model.layers[0].weight])
    model.layers[0].weight.grad = torch.ones(3, 6).double()
    optimizer.step()
    r = history([(1, 3.0), (2, 2.5), (3, 2.75)]).record(
        model, optimizer, name=None, data="x", seed=7
    )
    assert (r.model, r.parameters, r.dtype, r.seed) == ("MLP", 21, "float64", 7)
    assert (r.samples, r.tokens, r.steps, r.communication_share) == (12, 96, 3, 0.0)
    assert r.memory_bytes == {"parameters": 168, "gradients": 144, "optimizer states": 288}
    assert r.scores["validation loss"] == 2.75
    assert r.scores["best validation loss"] == 2.5
    assert validation_curve(r) == ([1, 2, 3], [3.0, 2.5, 2.75])
    assert RunRecord.load(r.save(tmp_path / "r.json")) == r
    plain = history(batch=IMAGES).record(model, optimizer, name="my MLP", data="x", seed=7)
    assert (plain.model, plain.tokens, plain.scores) == ("my MLP", None, {})
    assert validation_curve(plain) == ([], [])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32])
def test_images_are_no_text(dtype):
    h = History()
    h.add(1.0, 1.0, (torch.zeros(4, 6, dtype=dtype), IMAGES[1]))
    assert h.tokens == 0
