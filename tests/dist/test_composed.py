"""Data x tensor x pipeline parallel training, with ZeRO, on 4 and 8 real ranks equals one process in float64."""

import dataclasses
import math
import time

import pytest
import torch
import torch.distributed
from gpt_cases import GptCase, adamw

from bigmodel_lab import dist
from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.dist.sharded_gpt import ShardedGPT
from bigmodel_lab.models import GPTConfig
from bigmodel_lab.train import Layout

T, CLIP = 8, 0.3
ROWS = (8, 7, 8)  # 7 rows: uneven replicas and uneven micro-batches
FORMS = {
    "gpt2": GPTConfig.gpt2(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),  # tied
    "llama": GPTConfig.llama(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),
}
CASES = {form: GptCase(config, ROWS, frozen_layer=2, clip=CLIP) for form, config in FORMS.items()}
CASES["frozen"] = dataclasses.replace(CASES["gpt2"], frozen=("tokens", "positions", "blocks.0"))


def train_composed(form, layout, options):
    case = CASES[form]
    model = Composed(case.model(), layout, adamw, weight_decay=0.1, clip=CLIP, **options)
    losses, norms = [], []
    for step in range(len(ROWS)):
        losses.append(model.step(*case.batch(step)))
        norms.append(model.gradient_norm)
    if model.zero:
        for u in model.zero.units:
            u.gather()
    trained, _, _ = case.alone()
    miss = 0.0
    for chunk in model.chunks:
        want = dict(ShardedGPT(trained, chunk.tensor, chunk.layers).named_parameters())
        miss = max(
            miss, *((p - want[name]).abs().max().item() for name, p in chunk.named_parameters())
        )
    return losses, norms, miss


LAYOUTS = [
    ("gpt2", Layout(dp=2, tp=2), {}),
    ("gpt2", Layout(dp=1, tp=2, pp=2), {"micros": 4, "sequence": True}),
    ("gpt2", Layout(dp=2, pp=2, zero=1), {"micros": 2}),
    ("llama", Layout(dp=2, pp=2, zero=3), {"micros": 3}),
    ("llama", Layout(dp=2, tp=2, zero=2), {"micros": 2}),
    ("gpt2", Layout(dp=2, tp=2, pp=2, zero=1), {"micros": 2, "sequence": True}),
    ("llama", Layout(dp=2, tp=2, pp=2, zero=3), {"micros": 2, "schedule": "gpipe"}),
    ("llama", Layout(pp=2, tp=2), {"micros": 4, "schedule": "interleaved", "chunks": 2}),
    ("frozen", Layout(pp=4), {"micros": 2}),  # the first stage has nothing to train
    ("frozen", Layout(dp=2, tp=2, zero=2), {}),
]


@pytest.mark.parametrize(("form", "layout", "options"), LAYOUTS, ids=lambda x: str(x))
def test_equals_one_process(form, layout, options):
    _, want, norms = CASES[form].alone()
    assert any(n > CLIP for n in norms)
    for losses, clipped, miss in dist.run(
        train_composed, form, layout, options, ranks=layout.ranks
    ):
        assert losses == pytest.approx(want, abs=1e-12)
        assert clipped == pytest.approx(norms, rel=1e-11)
        assert miss < 1e-8  # AdamW divides by the root of gradients that are nearly zero


@pytest.mark.parametrize(
    ("form", "layout", "options", "message"),
    [
        ("gpt2", Layout(dp=2, tp=2), {}, "dp=2 x tp=2 x pp=1 makes 4 ranks, and there are 1"),
        ("gpt2", Layout(dp=2, pp=2, zero=2), {}, "tied embedding .* use zero=1"),
        ("llama", Layout(dp=2, tp=2, zero=2), {"sequence": True}, "sequence=False"),
        ("llama", Layout(dp=1, pp=1, zero=3), {"chunks": 2}, "zero=3 needs chunks=1"),
        ("gpt2", Layout(), {"chunks": 2}, "chunks=2 interleaves .* pp=1 has none"),
        ("gpt2", Layout(), {"schedule": "1F1B"}, "name must be one of .*1f1b"),
        ("gpt2", Layout(), {"micros": 0}, "micros must be at least 1"),
    ],
)
def test_what_does_not_work_together(form, layout, options, message):
    def make():
        Composed(CASES[form].model(), layout, adamw, **options)

    with pytest.raises(dist.RankError, match=message):
        dist.run(make, ranks=1)


def test_a_batch_that_does_not_fit_is_refused_on_every_rank():
    def step(rows, columns):
        model = Composed(CASES["llama"].model(), Layout(dp=2), adamw, micros=2)
        tokens = torch.zeros(rows, columns, dtype=torch.int64)
        with pytest.raises(ValueError, match=r"rows|context") as caught:
            model.step(tokens, tokens)
        return str(caught.value)

    rows = "a batch of 3 rows leaves one of dp=2 replicas fewer than micros=2: give 4 rows or more."
    assert dist.run(step, 3, T, ranks=2) == [rows] * 2
    assert dist.run(step, 4, T + 1, ranks=2) == ["T=9 positions are more than the context=8."] * 2


@pytest.mark.parametrize("layout", [Layout(dp=2), Layout(tp=2), Layout(pp=2)], ids=str)
def test_a_rank_that_hangs_is_noticed_within_wait_s_in_every_group_of_the_grid(layout):
    def step():
        model = Composed(CASES["gpt2"].model(), layout, adamw)
        if torch.distributed.get_rank() == 1:
            time.sleep(100)
        model.step(*CASES["gpt2"].batch(0))

    with pytest.raises(dist.RankError, match=r"rank 0 failed first: .*Timed out waiting 2000ms"):
        dist.run(step, ranks=2, wait_s=2, timeout_s=30)


def test_one_rank_is_training_alone():
    _, want, norms = CASES["gpt2"].alone()
    [(losses, clipped, miss)] = dist.run(train_composed, "gpt2", Layout(), {}, ranks=1)
    assert losses == pytest.approx(want, abs=1e-14)
    assert clipped == pytest.approx(norms, rel=1e-13)
    assert miss < 1e-10
    assert not math.isnan(miss)
