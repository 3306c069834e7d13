"""The planner's times against published runs, its memory against its parts, its choice against trying everything."""

import re

import pytest

from bigmodel_lab.plan import (
    MODELS,
    Fleet,
    TrainingLayout,
    count_parameters,
    device,
    estimate,
    model_activations,
    model_state,
    pipeline_bubble,
    plan_training,
    training_flops,
)

ON = "2026-11-22"
A100, H100 = device("a100-sxm-80gb", ON), device("h100-sxm", ON)
TINY = MODELS["llama2-7b"].but(n_layers=8)


def gpt(L, h, H):
    return MODELS["gpt2"].but(
        n_layers=L, width=h, n_heads=H, hidden=4 * h, vocab=51200, context=2048
    )


NARAYANAN = [  # arXiv:2104.04473, table 1: layers, h, heads, t, p, GPUs, batch, TFLOP/s a GPU, of full recomputation
    (24, 2304, 24, 1, 1, 32, 512, 137),
    (30, 3072, 32, 2, 1, 64, 512, 138),
    (36, 4096, 32, 4, 1, 128, 512, 142),
    (40, 6144, 48, 8, 1, 256, 1024, 135),
    (48, 8192, 64, 8, 2, 512, 1536, 138),
    (60, 10240, 80, 8, 4, 1024, 1792, 140),
    (80, 12288, 96, 8, 8, 1536, 2304, 148),
    (96, 16384, 128, 8, 16, 1920, 2160, 155),
    (105, 20480, 128, 8, 35, 2520, 2520, 163),
    (128, 25600, 160, 8, 64, 3072, 3072, 163),
]


@pytest.mark.parametrize("row", NARAYANAN, ids=lambda r: f"{r[0]}x{r[1]}")
def test_published_throughput(row):
    """Within 20 % from 7B on with one assumed number (kernel_share 0.6); below, too hopeful by up to 37 %: the model
    does not know that small matrices run slower.
    """
    L, h, H, t, p, n, batch, printed = row
    a = gpt(L, h, H)
    layout = TrainingLayout(n // t // p, t, p, recompute="full")
    e = estimate(a, Fleet(A100, n), layout, batch)
    again = training_flops(a, 1, recompute="full") / training_flops(a, 1)
    ratio = e.mfu * again.magnitude * 312 / printed
    assert e.fits
    assert 0.95 < ratio < (1.20 if L >= 36 else 1.38)


def test_llama3_405b():
    """arXiv:2407.21783, table 4: 43 % MFU on 8192 and 41 % on 16,384 H100, TP 8, PP 16, DP 64 and 128."""
    for n, dp, printed in ((8192, 64, 0.43), (16384, 128, 0.41)):
        layout = TrainingLayout(dp, 8, 16, 8 if dp == 64 else 4, 1, 1, "selective")
        e = estimate(MODELS["llama3.1-405b"], Fleet(H100, n), layout, 2048, 8192)
        assert e.mfu == pytest.approx(printed, abs=0.045)


def test_the_published_layout_of_llama3_fits():
    """arXiv:2407.21783, section 3.3.2: TP 8, PP 16, DP 128, sequences of 8K, gradients and optimiser sharded, gradients
    summed in float32, nothing recomputed but what fused attention does: 75 of the 80 GB, as they ran it. With replicated gradients, or counted as if 16 micro-batches could be more than 16, it does not fit.
    """
    b, fleet = MODELS["llama3.1-405b"], Fleet(H100, 16_384, memory_share=1.0)
    layout = TrainingLayout(128, 8, 16, 8, 2, 1, "selective")
    kept = dict(batch=2048, sequence=8192, state="mixed-adam-fp32-gradients")
    e = estimate(b, fleet, layout, **kept)
    by_hand = 16 * 8 * 8192 * (8 * 16384 + 4 * 16384 + 4 * 1024 + 6 * 53248) / 8
    assert e.activations.magnitude == pytest.approx(by_hand)
    assert e.memory.to("GB").magnitude == pytest.approx(74.9, abs=0.05)
    assert e.fits
    assert not estimate(b, fleet, layout.but(zero=1), **kept).fits
    half = estimate(b, Fleet(H100, 8192), layout.but(dp=64), **kept)
    shown = (
        81_559 * 2**20
    )  # bytes that nvidia-smi shows of an H100: github.com/NVIDIA/nccl/issues/1264
    assert 80e9 < half.memory.magnitude < shown
    assert half.memory.to("GB").magnitude == pytest.approx(83.3, abs=0.05)


def test_latency_is_messages_times_alpha():
    """Each term of the step grows by its messages: 4 all-reduces a layer, 2 sends a boundary, 2 rings over the replicas."""
    layout, batch = TrainingLayout(4, 2, 2, 1, 1, 1), 32
    plain = estimate(TINY, Fleet(A100, 16, overlap=0), layout, batch)
    slow = estimate(TINY, Fleet(A100, 16, overlap=0, latency=1e-3), layout, batch)
    m = 8
    assert (slow.tensor - plain.tensor).magnitude == pytest.approx(m * 4 * (4 * 2 * 1) * 1e-3)
    assert (slow.pipeline - plain.pipeline).magnitude == pytest.approx(m * 2 * 1e-3)
    assert (slow.data - plain.data).magnitude == pytest.approx(2 * 3 * 1e-3)
    assert slow.compute == plain.compute
    for zero, rings in ((2, 1 + m), (3, 3 * m * 4)):
        z = layout.but(zero=zero)
        a, b = (estimate(TINY, Fleet(A100, 16, overlap=0, latency=x), z, batch) for x in (0, 1e-3))
        assert (b.data - a.data).magnitude == pytest.approx(rings * 3 * 1e-3)


def test_latency_decides_against_long_rings():
    """Without it ZeRO 3 over 1,024 replicas wins on 8,192 devices; 5 us a message are enough for pipeline stages."""
    b = MODELS["llama3.1-405b"]
    bytes_alone, with_latency = (
        plan_training(b, Fleet(H100, 8192, latency=x), 2048, 8192).best.layout for x in (0, 5e-6)
    )
    assert (bytes_alone.pp, bytes_alone.zero) == (1, 3)
    assert with_latency.pp > 1
    assert with_latency.zero < 3


def test_parts_come_from_the_formulas():
    layout = TrainingLayout(4, 2, 2, 1, 1, 2, "selective")
    e = estimate(TINY, Fleet(A100, 16), layout, 64)
    assert e.micro_batches == 8
    size = model_state(count_parameters(TINY).total, 1, 4, shards=4).total
    assert e.state.magnitude == pytest.approx(size.magnitude)
    kept = model_activations(
        TINY, 2, pipeline=2, micro_batches=8, tensor=2, sequence_parallel=True, recompute="selective", dropout=False
    )  # fmt: skip
    assert e.activations == kept
    working = e.compute + e.tensor + e.pipeline
    assert (e.bubble / working).magnitude == pytest.approx(pipeline_bubble(2, 8).of_ideal)
    assert e.tokens_per_s.magnitude == pytest.approx(64 * 4096 / e.step.magnitude)
    done = training_flops(TINY, 64 * 4096).magnitude
    assert e.mfu == pytest.approx(done / (e.step.magnitude * 16 * 312e12))


def test_the_choice_is_the_fastest_that_fits():
    c = plan_training(TINY, Fleet(A100, 8), 32)
    fitting = [e for e in c.tried if e.fits]
    assert c.best.fits
    assert c.best.step <= 1.0006 * min(e.step for e in fitting)
    assert len({e.layout for e in c.tried}) == len(c.tried) > 100
    for e in c.tried:
        assert e.layout.devices == 8
        assert 32 % (e.layout.dp * e.layout.micro_batch) == 0


def test_less_memory_forces_another_layout():
    roomy = plan_training(TINY, Fleet(A100, 8), 32).best
    tight = plan_training(TINY, Fleet(A100, 8, memory_share=0.12), 32).best
    assert tight.memory < roomy.memory
    assert tight.step > roomy.step


def test_explanation():
    c = plan_training(TINY, Fleet(A100, 8), 32)
    text = c.explain()
    assert f"MFU {100 * c.best.mfu:.1f} %" in text
    for name, table in c.others().items():
        for value in table:
            assert (f"{name}={value} instead of" in text) == (value != getattr(c.best.layout, name))
    assert re.search(r"tp=8 instead of 1: [\d.]+ % slower \(more tensor\), as dp=1 tp=8", text)
    assert re.search(r"recompute=full instead of none: [\d.]+ % slower \(more compute\), as", text)
    with_tp = c.others()["tp"][8]
    assert with_tp.step == min(e.step for e in c.tried if e.fits and e.layout.tp == 8)
    big = plan_training(MODELS["llama2-7b"], Fleet(A100, 8), 8)
    assert "recompute=" in big.explain()


def test_explanation_says_what_does_not_fit():
    c = plan_training(TINY, Fleet(A100, 8, memory_share=0.06), 32)
    assert "does not fit: at least" in c.explain()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: plan_training(MODELS["llama3.1-405b"], Fleet(H100, 8), 8), r"llama3.1-405b does not fit on 8 x h100-sxm: the leanest layout, .* a device of 72 GB"),
        (lambda: plan_training(TINY, Fleet(A100, 11), 3), "no layout divides 11 devices and a batch of 3"),
        (lambda: estimate(TINY, Fleet(A100, 8), TrainingLayout(4), 8), "= 4 devices and the fleet has 8"),
        (lambda: estimate(TINY, Fleet(A100, 8), TrainingLayout(8), 12), "batch=12 must be a multiple of dp x micro_batch = 8 x 1"),
        (lambda: estimate(TINY, Fleet(A100, 16), TrainingLayout(1, 16), 8), "tp=16 must be at most the 8 devices"),
        (lambda: estimate(TINY, Fleet(A100, 8), TrainingLayout(8, chunks=2), 8), "chunks=2 needs a pipeline"),
        (lambda: estimate(TINY, Fleet(A100, 3), TrainingLayout(1, 3), 8), "tp=3 must divide the 32 heads of llama2-7b"),
        (lambda: estimate(TINY, Fleet(A100, 9), TrainingLayout(1, 1, 9), 9), "pp=9 must be at most the 8 layers"),
        (lambda: Fleet("h100-sxm", 8), r"device must be a Device, got 'h100-sxm': take plan.device\('h100-sxm'\)"),
        (lambda: Fleet(device("v100-sxm-32gb", ON), 8), "dtype of v100-sxm-32gb must be one of 'fp16', 'fp32', got 'bf16'"),
        (lambda: plan_training("gpt2", Fleet(A100, 8), 8), "arch must be an Architecture"),
        (lambda: Fleet(A100, 8, latency=-1e-6), "latency must be finite and at least 0 in s, got -1e-06"),
        (lambda: TrainingLayout(zero=4), "zero must be between 0 and 3"),
        (lambda: TrainingLayout(recompute="all"), "recompute must be one of"),
        (lambda: Fleet(A100, 8, kernel_share=60), "kernel_share must be a finite number above 0 and at most 1, got 60: write 60 % as 0.6"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
