"""Activations: Korthikanti et al. (2022), arXiv:2205.05198."""

import pytest

from bigmodel_lab.dist.pipeline_schedule import most_in_flight, schedule
from bigmodel_lab.plan import MODELS, layer_activations, model_activations
from bigmodel_lab.units import Q

GPT3 = MODELS["gpt3-175b"]
MT530 = GPT3.but(name="530B", n_layers=105, width=20480, n_heads=128, hidden=4 * 20480)
WAYS = [
    {},
    dict(tensor=8),
    dict(tensor=8, sequence_parallel=True),
    dict(tensor=8, sequence_parallel=True, recompute="selective"),
]


@pytest.mark.parametrize(
    ("arch", "printed"),
    [(GPT3, (2.869, 0.579, 0.3586, 0.1070)), (MT530, (4.110, 0.881, 0.514, 0.178))],
    ids=["GPT-3", "530B"],
)
def test_one_layer(arch, printed):
    """GB of one layer, b = 1, s = 2048: alone, t = 8, with sequence parallelism, and selective recomputation."""
    got = [layer_activations(arch, 1, 2048, **way).to("GB").magnitude for way in WAYS]
    assert got == pytest.approx(printed, abs=6e-4)


@pytest.mark.parametrize("arch", [GPT3, MT530], ids=["GPT-3", "530B"])
@pytest.mark.parametrize("t", [1, 2, 8])
def test_closed_forms(arch, t):
    s, b, h, a = 1024, 3, arch.width, arch.n_heads

    def layer(**way):
        return layer_activations(arch, b, s, tensor=t, **way).magnitude

    assert layer() == pytest.approx(s * b * h * (10 + 24 / t + 5 * a * s / (h * t)))
    assert layer(sequence_parallel=True) == pytest.approx(s * b * h / t * (34 + 5 * a * s / h))
    assert layer(sequence_parallel=True, recompute="selective") == pytest.approx(34 * s * b * h / t)
    assert layer(recompute="full") == 2 * s * b * h


@pytest.mark.parametrize(("arch", "saved"), [(GPT3, 0.70), (MT530, 0.65)], ids=["GPT-3", "530B"])
def test_selective_saves(arch, saved):
    """Section 5: 70 % for GPT-3, 65 % for 530B: 5as/h is 80 and 64, of 114 and 98."""
    kept = layer_activations(arch, 1, 2048, recompute="selective") / layer_activations(
        arch, 1, 2048
    )
    assert 1 - kept.magnitude == pytest.approx(saved, abs=0.005)


def test_a_7b_model_at_4096():
    """By the paper's formula: 104.2 GB for 32 layers, h 4096, a 32, s 4096; 18.25 GB without the quadratic term."""
    a = GPT3.but(n_layers=32, width=4096, n_heads=32, hidden=4 * 4096)
    whole, core = (
        32 * layer_activations(a, 1, 4096, recompute=r).to("GB").magnitude
        for r in ("none", "selective")
    )
    assert (whole, core) == pytest.approx((104.2, 18.25), abs=0.06)


def test_a_llama_layer_by_hand():
    """Grouped heads keep smaller keys and values, a gated block three tensors of F, no dropout no masks."""
    a, s = MODELS["llama3-8b"], 100
    by_hand = 2 * s * (2 * 4096 + 2 * 4096 + 2 * 4096 + 2 * 1024 + 3 * 14336) + 2 * 32 * s * s
    assert layer_activations(a, 1, s, dropout=False).magnitude == by_hand


def test_pipeline_keeps_what_one_device_keeps():
    """1F1B: p micro-batches of L/p layers are in flight on the first stage; interleaving keeps (p-1)/(pv) more."""
    alone = 96 * layer_activations(GPT3, 1, 2048, dropout=False)
    piped = model_activations(GPT3, 1, 2048, pipeline=8, dropout=False)
    assert piped.magnitude == pytest.approx(alone.magnitude)
    woven = model_activations(GPT3, 1, 2048, pipeline=8, chunks=3, dropout=False)
    assert (woven / piped).magnitude == pytest.approx(1 + 7 / 24)
    few = model_activations(GPT3, 1, 2048, pipeline=8, micro_batches=2, dropout=False)
    assert (few / piped).magnitude == pytest.approx(2 / 8)


def test_one_head_of_keys_and_values_is_on_every_device():
    """Multi-query attention over 8 devices: queries are an eighth each, keys and values whole."""
    a, s = MODELS["llama2-7b"].but(n_kv_heads=1), 100
    split = dict(tensor=8, sequence_parallel=True, recompute="selective", dropout=False)
    by_hand = 2 * s * ((4 * 4096 + 2 * 4096 + 3 * 11008) / 8 + 2 * 128)
    assert layer_activations(a, 1, s, **split).magnitude == pytest.approx(by_hand)


@pytest.mark.parametrize("p", [2, 4, 8])
@pytest.mark.parametrize("v", [1, 2, 3])
@pytest.mark.parametrize("groups", [1, 2, 5])
def test_no_stage_holds_more_than_its_schedule(p, v, groups):
    """The passes that `dist.pipeline` runs, walked: with m = p interleaving keeps all m micro-batches and no more."""
    m = groups * p
    passes = schedule("interleaved" if v > 1 else "1f1b", 0, p, m, v)
    layers = most_in_flight(passes) * 48 // (p * v)  # each pass is through 48 / (p v) layers
    kept = model_activations(
        GPT3.but(n_layers=48), pipeline=p, micro_batches=m, chunks=v, dropout=False
    )
    assert kept == layers * layer_activations(GPT3, dropout=False)


def test_logits_are_not_small():
    """GPT-2 small keeps more for its logits than for a layer: 4 bytes x 50257 a token."""
    a = MODELS["gpt2"]
    extra = model_activations(a, dropout=False) - 12 * layer_activations(a, dropout=False)
    assert extra == Q(1024 * (4 * 50257 + 4 * 768), "byte")
    assert extra > layer_activations(a, recompute="selective", dropout=False)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layer_activations(GPT3, tensor=7), "tensor=7 must divide n_heads=96"),
        (lambda: layer_activations(GPT3, recompute="some"), "recompute must be one of"),
        (lambda: layer_activations(GPT3, batch=0), "batch must be finite and at least 1"),
        (lambda: model_activations(GPT3, chunks=2), "chunks=2 needs a pipeline"),
        (lambda: model_activations(GPT3, pipeline=97), "pipeline must be between 1 and 96"),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
