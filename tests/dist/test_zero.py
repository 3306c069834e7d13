"""ZeRO 1, 2 and 3 on 2 and 4 real ranks equal one process in float64; memory and bytes are what the table says."""

import pytest
import torch
import torch.distributed as td
from gpt_cases import adamw, noisy_gpt, token_batch, train_alone

from bigmodel_lab import dist
from bigmodel_lab.dist.data_parallel import share
from bigmodel_lab.dist.wire import Wire, predicted_bytes
from bigmodel_lab.dist.zero import Zero
from bigmodel_lab.models import GPTConfig

STEPS, T, CLIP = 4, 6, 0.5
ROWS = (8, 5, 3, 8)  # of each batch: 5 leaves uneven shares, 3 leaves a rank of four without a row
CONFIG = GPTConfig.gpt2(vocab_size=11, context=T, n_layers=3, width=8, n_heads=2)


def whole():
    return noisy_gpt(CONFIG, frozen_layer=1)


def batch(step):
    return token_batch(step, ROWS[step], CONFIG)


def train_zero(stage, kernels="torch", micros=1):
    rank, ranks = td.get_rank(), td.get_world_size()
    model, wire = whole(), Wire()
    model.ops = kernels
    if rank:  # must not matter: rank 0's parameters are taken
        with torch.no_grad():
            next(model.parameters()).zero_()
    zero = Zero(model, adamw, stage=stage, weight_decay=0.1, wire=wire)
    at_start = dict(wire.sent_bytes)
    losses, norms, memory = [], [], []
    for step in range(STEPS):
        x, y = batch(step)
        ids, _ = share(torch.arange(len(x)).numpy(), rank, ranks)
        loss_here = 0.0
        for part in [ids[i::micros] for i in range(micros)]:
            weight = len(part) / len(x)
            part = part if len(part) else [0]
            loss = model(x[part], y[part])
            zero.backward(loss, weight)
            loss_here += loss.item() * weight
        if step == 0:
            memory.append(zero.memory_bytes())
        norms.append(zero.clip(CLIP))
        zero.step()
        losses.append(loss_here)
    memory.append(zero.memory_bytes())
    sent = {k: n - at_start.get(k, 0) for k, n in wire.sent_bytes.items() if k != "broadcast"}
    sizes = [u.size for u in zero.units]
    return losses, norms, zero.state_dict(), memory, sent, sizes


@pytest.mark.parametrize(
    ("stage", "ranks", "kernels", "micros"),
    [
        (1, 2, "torch", 1),
        (1, 4, "torch", 2),
        (2, 4, "torch", 1),
        (2, 2, "numba", 2),
        (3, 2, "torch", 1),
        (3, 4, "numba", 2),
    ],
)
def test_equals_one_process(stage, ranks, kernels, micros):
    alone = whole()
    losses, norms = train_alone(alone, map(batch, range(STEPS)), CLIP)
    state = alone.state_dict()
    results = dist.run(train_zero, stage, kernels, micros, ranks=ranks)
    assert [sum(parts) for parts in zip(*(r[0] for r in results), strict=True)] == pytest.approx(
        losses, abs=1e-12
    )
    trained = sum(p.numel() for p in whole().parameters() if p.requires_grad)
    for rank, (_, clipped, got, memory, sent, sizes) in enumerate(results):
        assert clipped == pytest.approx(norms, rel=1e-12)
        assert got.keys() == state.keys()
        assert max((got[k] - state[k]).abs().max() for k in state) < 1e-9
        assert sum(sizes) == trained

        after_backward, at_rest = memory
        shard = sum(n // ranks + (rank < n % ranks) for n in sizes) * 8
        assert at_rest["parameters"] == (shard if stage == 3 else trained * 8)
        assert after_backward["gradients"] == (trained * 8 if stage == 1 else shard)
        assert at_rest["gradients"] == 0
        assert at_rest["optimizer"] == 2 * shard

        def of(collective, sizes=sizes, rank=rank):
            each = (
                predicted_bytes(collective, n, ranks=ranks, rank=rank, element_bytes=8)
                for n in sizes
            )
            return sum(each)

        reduces = 1 if stage == 1 else micros
        # stage 3: blocks are gathered going forward and going backward, the rest once, for each micro-batch
        gathers = (
            (2 * of("all_gather") - of("all_gather", sizes[-1:])) * micros
            if stage == 3
            else of("all_gather")
        )
        assert sent == {
            "reduce_scatter": STEPS * reduces * of("reduce_scatter"),
            "all_gather": STEPS * gathers,
            "all_reduce": STEPS
            * predicted_bytes("all_reduce", 1, ranks=ranks, rank=rank, element_bytes=8),
        }


def test_stage_3_evaluates_and_holds_a_shard_only():
    def evaluate():
        model = whole()
        zero = Zero(model, adamw, stage=3)
        with torch.no_grad():
            loss = model(*batch(0)).item()
        return loss, zero.memory_bytes()["parameters"]

    want = whole()(*batch(0)).item()
    trained = sum(p.numel() for p in whole().parameters() if p.requires_grad)
    for loss, held in dist.run(evaluate, ranks=2):
        assert loss == pytest.approx(want, abs=1e-13)
        assert held <= trained * 8 / 2 + 4 * 8


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Zero(whole(), adamw, stage=0), "stage must be"),
        (
            lambda: Zero(
                torch.nn.ModuleList([torch.nn.Linear(2, 2).double(), torch.nn.Linear(2, 2)]),
                adamw,
                stage=1,
                units=[],
            ),
            "one dtype",
        ),
        (lambda: Zero(whole(), adamw, stage=1).backward(torch.ones(()), 1.5), "weight must be"),
    ],
    ids=["stage", "dtype", "weight"],
)
def test_what_cannot_be(make, message):
    with pytest.raises(dist.RankError, match=message):
        dist.run(make, ranks=1)
