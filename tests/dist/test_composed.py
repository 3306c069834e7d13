"""Data x tensor x pipeline parallel training, with ZeRO, on 4 and 8 real ranks equals one process in float64."""

import math

import pytest
from gpt_cases import adamw, noisy_gpt, token_batch, train_alone

from bigmodel_lab import dist
from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.dist.sharded_gpt import ShardedGPT
from bigmodel_lab.models import GPTConfig
from bigmodel_lab.train import Layout

STEPS, T, CLIP = 3, 8, 0.3
ROWS = (8, 7, 8)  # 7 rows: uneven replicas and uneven micro-batches
FORMS = {
    "gpt2": GPTConfig.gpt2(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),  # tied
    "llama": GPTConfig.llama(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),
}


def whole(form):
    return noisy_gpt(FORMS[form], frozen_layer=2)


def batch(step):
    return token_batch(
        step, ROWS[step], FORMS["gpt2"]
    )  # both forms have its vocabulary and context


def alone(form):
    model = whole(form)
    return model, *train_alone(model, map(batch, range(STEPS)), CLIP)


def train_composed(form, layout, options):
    model = Composed(whole(form), layout, adamw, weight_decay=0.1, clip=CLIP, **options)
    losses, norms = [], []
    for step in range(STEPS):
        losses.append(model.step(*batch(step)))
        norms.append(model.gradient_norm)
    if model.zero:
        for u in model.zero.units:
            u.gather()
    trained, _, _ = alone(form)
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
]


@pytest.mark.parametrize(("form", "layout", "options"), LAYOUTS, ids=lambda x: str(x))
def test_equals_one_process(form, layout, options):
    _, want, norms = alone(form)
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
    ],
)
def test_what_does_not_work_together(form, layout, options, message):
    def make():
        Composed(whole(form), layout, adamw, **options)

    with pytest.raises(dist.RankError, match=message):
        dist.run(make, ranks=1)


def test_one_rank_is_training_alone():
    _, want, norms = alone("gpt2")
    [(losses, clipped, miss)] = dist.run(train_composed, "gpt2", Layout(), {}, ranks=1)
    assert losses == pytest.approx(want, abs=1e-14)
    assert clipped == pytest.approx(norms, rel=1e-13)
    assert miss < 1e-10
    assert not math.isnan(miss)
