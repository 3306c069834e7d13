"""Tensor parallel training on 2 and 4 real ranks equals one process, in float64, to 1e-12; every byte is as predicted."""

import copy

import pytest
import torch
from gpt_cases import GptCase, adamw

from bigmodel_lab import dist
from bigmodel_lab.dist.sharded_gpt import ShardedGPT, cut_layers
from bigmodel_lab.dist.tensor_parallel import TensorParallel, slice_rows
from bigmodel_lab.dist.wire import Wire, predicted_bytes
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.train import decay_groups

STEPS, B, T = 4, 3, 8
FORMS = {  # 11 and 13 tokens: the vocabulary does not divide evenly
    "gpt2": GPTConfig.gpt2(vocab_size=11, context=T, n_layers=2, width=16, n_heads=4),
    "llama": GPTConfig.llama(
        vocab_size=13, context=T, n_layers=3, width=16, n_heads=8, n_kv_heads=4
    ),
    "three words": GPTConfig.gpt2(vocab_size=3, context=T, n_layers=1, width=8, n_heads=4),
}
CASES = {form: GptCase(config, (B,) * STEPS, frozen_layer=0) for form, config in FORMS.items()}


def optimizer(model):
    return adamw(decay_groups(model, 0.1))


def train_cut(form, sequence, kernels="torch"):
    """On every rank: train, then return losses, the largest miss against the cut of a model trained alone, and bytes."""
    model = CASES[form].model()
    model.ops = kernels
    wire = Wire()
    tensor = TensorParallel(sequence=sequence, wire=wire)
    mine = ShardedGPT(model, tensor)
    opt, losses = optimizer(mine), []
    for step in range(STEPS):
        opt.zero_grad()
        loss = mine(*CASES[form].batch(step))
        loss.backward()
        mine.sum_whole_gradients()
        opt.step()
        losses.append(loss.item())
    trained, _, _ = CASES[form].alone()
    want = dict(ShardedGPT(trained, tensor).named_parameters())
    miss = max(
        (p - want[name]).abs().max().item() for name, p in mine.named_parameters() if p.numel()
    )
    held = sum(p.numel() for p in mine.parameters())
    whole_numel = sum(p.numel() for p in mine.whole())
    return losses, miss, dict(wire.sent_bytes), held, whole_numel


def predicted(config, rank, ranks, sequence, whole_numel):
    """Bytes that one rank sends in a step, by collective."""
    stream, n = B * T * config.width, 2 * config.n_layers + 1

    def of(collective, n):
        return predicted_bytes(collective, n, ranks=ranks, rank=rank, element_bytes=8)

    sums = of("all_reduce", B * T) + of("all_reduce", 2 * B * T)  # the loss
    if not sequence:
        return {"all_reduce": sums + 2 * n * of("all_reduce", stream)}
    return {
        "all_reduce": sums + of("all_reduce", whole_numel),
        "all_gather": 2 * n * of("all_gather", stream),
        "reduce_scatter": 2 * n * of("reduce_scatter", stream),
    }


@pytest.mark.parametrize(
    ("form", "ranks", "sequence", "kernels"),
    [
        ("gpt2", 2, False, "torch"),
        ("gpt2", 4, True, "torch"),
        ("llama", 4, False, "numba"),
        ("llama", 2, True, "torch"),
        ("three words", 4, False, "numba"),  # one of the ranks has none
    ],
)
def test_equals_one_process(form, ranks, sequence, kernels):
    _, want, _ = CASES[form].alone()
    results = dist.run(train_cut, form, sequence, kernels, ranks=ranks)
    config = CASES[form].config
    for rank, (losses, miss, sent, held, whole_numel) in enumerate(results):
        assert losses == pytest.approx(want, abs=1e-12)
        assert miss < 1e-10  # AdamW divides by the root of gradients that are nearly zero
        step = predicted(config, rank, ranks, sequence, whole_numel)
        assert sent == {name: STEPS * n_bytes for name, n_bytes in step.items()}
        assert held < config.n_parameters / ranks + whole_numel + ranks * config.width


def test_what_cannot_be_cut_is_refused():
    def cut(config, sequence=False, positions=8):
        tensor = TensorParallel(sequence=sequence)
        mine = ShardedGPT(GPT(config), tensor)
        mine(
            torch.zeros(1, positions, dtype=torch.int64),
            torch.zeros(1, positions, dtype=torch.int64),
        )

    def message(*args, **kwargs):
        with pytest.raises(dist.RankError) as caught:
            dist.run(cut, *args, ranks=2, **kwargs)
        return str(caught.value)

    tiny = dict(vocab_size=7, context=9, n_layers=1, width=6)
    assert "n_heads=3 cannot be shared by 2 ranks" in message(GPTConfig.gpt2(**tiny, n_heads=3))
    odd = GPTConfig.gpt2(**tiny, n_heads=2)
    assert "T=7 positions cannot be cut into 2 equal parts: pad to 8" in message(
        odd, sequence=True, positions=7
    )


def test_the_source_model_is_left_alone():
    model = CASES["gpt2"].model()
    before = copy.deepcopy(model.state_dict())
    mine = ShardedGPT(model)
    tokens, targets = CASES["gpt2"].batch(0)
    assert mine(tokens, targets).item() == pytest.approx(model(tokens, targets).item(), abs=1e-14)
    optimizer(mine).step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    longer = torch.zeros(1, T + 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="T=9 positions are more than the context=8"):
        mine(longer, longer)


def test_rows_are_cut_without_loss():
    w = torch.arange(14).view(7, 2)
    assert torch.equal(torch.cat([slice_rows(w, r, 3) for r in range(3)]), w)


@pytest.mark.parametrize(
    ("layers", "stages", "sizes"),
    [
        (4, 2, [2, 2]),
        (5, 3, [2, 2, 1]),
        (7, 4, [2, 2, 2, 1]),
        (3, 1, [3]),
        (3, 2, [2, 1]),
        (6, 4, [1, 2, 2, 1]),
    ],
)
def test_layers_are_cut_in_order(layers, stages, sizes):
    cut = cut_layers(layers, stages)
    assert [l for part in cut for l in part] == list(range(layers))
    assert [len(part) for part in cut] == sizes


def test_more_stages_than_layers():
    with pytest.raises(ValueError, match="stages=3 must be 1 to n_layers=2"):
        cut_layers(2, 3)
