"""Data x tensor x pipeline parallel training, with ZeRO, on 4 and 8 real ranks equals one process in float64."""

import math

import pytest
import torch

from bigmodel_lab import dist, rng
from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.train import AdamW, Layout, clip_gradients, decay_groups

STEPS, T, CLIP = 3, 8, 0.3
ROWS = (8, 7, 8)  # 7 rows: uneven replicas and uneven micro-batches
FORMS = {
    "gpt2": GPTConfig.gpt2(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),  # tied
    "llama": GPTConfig.llama(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),
}


def whole(form) -> GPT:
    model = GPT(FORMS[form], seed=1).double()
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = rng.generator(2, name).standard_normal(tuple(p.shape))
            p.add_(torch.from_numpy(noise), alpha=0.1)
    model.blocks[2].mlp.up.weight.requires_grad_(False)
    return model


def batch(step):
    draws = rng.generator(3, "batch", str(step)).integers(13, size=(ROWS[step], T + 1))
    tokens = torch.from_numpy(draws)
    return tokens[:, :-1], tokens[:, 1:]


def adamw(groups):
    return AdamW(groups, lr=0.01)


def train_alone(form):
    model = whole(form)
    opt, losses, norms = adamw(decay_groups(model, 0.1)), [], []
    for step in range(STEPS):
        opt.zero_grad()
        loss = model(*batch(step))
        loss.backward()
        norms.append(clip_gradients(model.parameters(), CLIP))
        opt.step()
        losses.append(loss.item())
    return model, losses, norms


def train_composed(form, layout, options):
    model = Composed(whole(form), layout, adamw, weight_decay=0.1, clip=CLIP, **options)
    losses, norms = [], []
    for step in range(STEPS):
        losses.append(model.step(*batch(step)))
        norms.append(model.gradient_norm)
    if model.zero:
        for u in model.zero.units:
            u.gather()
    trained, _, _ = train_alone(form)
    from bigmodel_lab.dist.sharded_gpt import ShardedGPT

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
    _, alone, norms = train_alone(form)
    assert any(n > CLIP for n in norms)
    for losses, clipped, miss in dist.run(
        train_composed, form, layout, options, ranks=layout.ranks
    ):
        assert losses == pytest.approx(alone, abs=1e-12)
        assert clipped == pytest.approx(norms, rel=1e-11)
        assert miss < 1e-8  # AdamW divides by the root of gradients that are nearly zero


@pytest.mark.parametrize(
    ("form", "layout", "options", "message"),
    [
        ("gpt2", Layout(dp=2, tp=2), {}, "dp=2 x tp=2 x pp=1 makes 4 ranks, and there are 1"),
        ("gpt2", Layout(dp=2, pp=2, zero=2), {}, "tied embedding .* use zero=1"),
        ("llama", Layout(dp=2, tp=2, zero=2), {"sequence": True}, "sequence=False"),
        ("llama", Layout(dp=1, pp=1, zero=3), {"chunks": 2}, "zero=3 needs chunks=1"),
    ],
)
def test_what_does_not_work_together(form, layout, options, message):
    def make():
        Composed(whole(form), layout, adamw, **options)

    with pytest.raises(dist.RankError, match=message):
        dist.run(make, ranks=1)


def test_one_rank_is_training_alone():
    _, alone, norms = train_alone("gpt2")
    [(losses, clipped, miss)] = dist.run(train_composed, "gpt2", Layout(), {}, ranks=1)
    assert losses == pytest.approx(alone, abs=1e-14)
    assert clipped == pytest.approx(norms, rel=1e-13)
    assert miss < 1e-10
    assert not math.isnan(miss)
