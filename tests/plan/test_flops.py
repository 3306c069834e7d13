"""FLOPs: published totals, the closed forms they come from, and utilisation with each convention named."""

import pytest

from bigmodel_lab.plan import (
    MODELS,
    count_parameters,
    device,
    forward_flops,
    hfu,
    mfu,
    palm_flops_per_token,
    six_nd,
    training_flops,
    training_time,
    utilisation,
    whole_run_utilisation,
)
from bigmodel_lab.units import Q

NANO = MODELS["gpt2"].but(biases="none", norm="layernorm_no_bias")
ON = "2026-11-22"


def gpt(L, h, H, V=51200, s=2048):
    return MODELS["gpt2"].but(n_layers=L, width=h, n_heads=H, hidden=4 * h, vocab=V, context=s)


def test_nanogpt_sizing_notebook():
    """nanoGPT's transformer_sizing.ipynb: forward and total of one 1024-token sequence, exact; PaLM's formula within 0.6 %."""
    assert forward_flops(NANO).total == Q(291_648_307_200, "FLOP")
    assert training_flops(NANO, 1024) == Q(874_944_921_600, "FLOP")
    palm = palm_flops_per_token(NANO) * Q(1024, "token")
    assert palm == Q(879_894_724_608, "FLOP")
    assert float((palm / training_flops(NANO, 1024)).magnitude) == pytest.approx(1.0057, abs=5e-5)


def test_nanogpt_utilisation():
    """The same notebook: 100 sequences in 0.755 s on one A100 = 37.14 % MFU. That divides the exact count; PaLM's formula gives 37.35."""
    work = 100 * 1024 * palm_flops_per_token(NANO).magnitude
    peak = device("a100-sxm-80gb", ON).peak()
    assert utilisation(work, 1, 0.755, peak) == pytest.approx(0.3735, abs=5e-5)
    exact = training_flops(NANO, 100 * 1024)
    assert utilisation(exact, 1, 0.755, peak) == pytest.approx(0.3714, abs=5e-5)


def test_gpt3():
    """Brown et al. (2020), arXiv:2005.14165, table D.1: 174,600M parameters x 300B tokens = 3.14e23 FLOP = 3.64e3 PFLOP/s-days."""
    flops = six_nd(174.6e9, 300e9)
    assert flops.magnitude == pytest.approx(3.1428e23, rel=1e-4)
    assert flops.to("PFLOP/s * day").magnitude == pytest.approx(3637.5, abs=0.1)


GPT_3_FAMILY = [  # Brown et al. (2020), table D.1: parameters, FLOP; each on 300B tokens
    (125e6, 2.25e20),
    (356e6, 6.41e20),
    (760e6, 1.37e21),
    (1.32e9, 2.38e21),
    (2.65e9, 4.77e21),
    (6.66e9, 1.20e22),
    (12.85e9, 2.31e22),
]


@pytest.mark.parametrize(("parameters", "flop"), GPT_3_FAMILY)
def test_gpt3_family(parameters, flop):
    assert six_nd(parameters, 300e9).magnitude == pytest.approx(flop, rel=3e-3)


CHINCHILLA_TABLE_3 = [  # Hoffmann et al. (2022), table 3: parameters, FLOP, tokens
    (400e6, 1.92e19, 8.0e9),
    (1e9, 1.21e20, 20.2e9),
    (10e9, 1.23e22, 205.1e9),
    (67e9, 5.76e23, 1.5e12),
    (175e9, 3.85e24, 3.7e12),
    (280e9, 9.90e24, 5.9e12),
    (520e9, 3.43e25, 11.0e12),
    (1e12, 1.27e26, 21.2e12),
    (10e12, 1.30e28, 216.2e12),
]


@pytest.mark.parametrize(("parameters", "flop", "tokens"), CHINCHILLA_TABLE_3)
def test_chinchilla_table_3_is_six_nd(parameters, flop, tokens):
    """Within 1 %, but for the 67B row, whose tokens are printed as 1.5T (4.7 %): 5.76e23 asks for 1.43T."""
    ratio = six_nd(parameters, tokens).magnitude / flop
    assert ratio == pytest.approx(1, abs=0.05 if parameters == 67e9 else 0.0125)


CHINCHILLA_TABLE_A3 = [  # the same by approaches 2 and 3: parameters, FLOP and tokens of each
    (400e6, 1.84e19, 7.7e9, 2.21e19, 9.2e9),
    (1e9, 1.20e20, 20.0e9, 1.62e20, 27.1e9),
    (10e9, 1.32e22, 219.5e9, 2.46e22, 410.1e9),
    (67e9, 6.88e23, 1.7e12, 1.71e24, 4.1e12),
    (175e9, 4.54e24, 4.3e12, 1.26e25, 12.0e12),
    (280e9, 1.18e25, 7.1e12, 3.52e25, 20.1e12),
    (520e9, 4.19e25, 13.4e12, 1.36e26, 43.5e12),
    (1e12, 1.59e26, 26.5e12, 5.65e26, 94.1e12),
    (10e12, 1.75e28, 292.0e12, 8.55e28, 1425.5e12),
]


@pytest.mark.parametrize(("parameters", "flop_2", "tokens_2", "flop_3", "tokens_3"), CHINCHILLA_TABLE_A3)  # fmt: skip
def test_chinchilla_table_a3_is_six_nd(parameters, flop_2, tokens_2, flop_3, tokens_3):
    """Within 5 %, tokens being printed to two digits; for 175B by approach 3 the paper prints 1.26e24, a tenth."""
    assert six_nd(parameters, tokens_2).magnitude == pytest.approx(flop_2, rel=0.015)
    assert six_nd(parameters, tokens_3).magnitude == pytest.approx(flop_3, rel=0.05)


NARAYANAN = [  # arXiv:2104.04473, table 1: parameters (B), heads, h, layers, GPUs, batch, TFLOP/s a GPU, % of peak, PFLOP/s
    (1.7, 24, 2304, 24, 32, 512, 137, 44, 4.4),
    (3.6, 32, 3072, 30, 64, 512, 138, 44, 8.8),
    (7.5, 32, 4096, 36, 128, 512, 142, 46, 18.2),
    (18.4, 48, 6144, 40, 256, 1024, 135, 43, 34.6),
    (39.1, 64, 8192, 48, 512, 1536, 138, 44, 70.8),
    (76.1, 80, 10240, 60, 1024, 1792, 140, 45, 143.8),
    (145.6, 96, 12288, 80, 1536, 2304, 148, 47, 227.1),
    (310.1, 128, 16384, 96, 1920, 2160, 155, 50, 297.4),
    (529.6, 128, 20480, 105, 2520, 2520, 163, 52, 410.2),
    (1008.0, 160, 25600, 128, 3072, 3072, 163, 52, 502.0),
]


@pytest.mark.parametrize("row", NARAYANAN, ids=lambda r: f"{r[0]}B")
def test_narayanan_rows(row):
    """Eq. 2 and 3 are our exact counts: eq. 3 counts full recomputation of the layers and not of the head."""
    P, heads, h, L, gpus, B, tflops, percent, total = row
    a, s, V = gpt(L, h, heads), 2048, 51200
    eq2 = 12 * L * h * h * (1 + 13 / (12 * h) + (V + s) / (12 * L * h))
    assert count_parameters(a).total == pytest.approx(eq2 + 2 * h, rel=1e-12)  # + the final norm
    assert count_parameters(a).total / 1e9 == pytest.approx(P, abs=0.06)
    eq3 = 96 * B * s * L * h * h * (1 + s / (6 * h) + V / (16 * L * h))
    assert training_flops(a, B * s, s, recompute="full").magnitude == pytest.approx(eq3, rel=1e-12)
    assert 100 * tflops / 312 == pytest.approx(percent, abs=0.51)
    assert gpus * tflops / 1e3 == pytest.approx(total, rel=0.0045, abs=0.06)  # TFLOP/s are rounded


def test_narayanan_gpt3_takes_34_days():
    """Eq. 4, 8TP/(nX): 33.9 days; with the exact count of eq. 3 34.7. Published: 34. Its 140 TFLOP/s count recompute."""
    peak = Q(140e12, "FLOP/s")
    short = six_nd(175e9, 300e9) * 8 / 6
    assert training_time(short, 1024, peak).to("day").magnitude == pytest.approx(33.9, abs=0.05)
    exact = training_flops(gpt(96, 12288, 96), 300e9, recompute="full")
    assert training_time(exact, 1024, peak).magnitude == pytest.approx(34.7, abs=0.1)


def test_palm_540b():
    """Chowdhery et al. (2022), arXiv:2204.02311, table 3: 238.3e3 token/s on 6144 TPU v4: MFU 45.7 % without and 46.2 %
    with attention, HFU 57.8 %. Full recomputation would give 61 %: the run kept some activations.

    L = 118, H = 48, K = 256, T = 2048 (arXiv:2204.02311, table 1).
    """
    peak = device("tpu-v4", ON).peak()
    assert mfu(238.3e3, 6 * 540e9, 6144, peak) == pytest.approx(0.457, abs=5e-4)
    a = MODELS["gpt2"].but(
        n_layers=118, width=18432, n_heads=48, head_width=256, n_kv_heads=1, hidden=4 * 18432
    )
    with_core = palm_flops_per_token(a, 2048, 540.35e9)
    assert mfu(238.3e3, with_core, 6144, peak) == pytest.approx(0.462, abs=1e-3)
    assert hfu(0.457, a, 2048, recompute="full") == pytest.approx(0.61, abs=0.005)


def test_mt_nlg():
    """Smith et al. (2022), arXiv:2201.11990: 530B on 2240 A100, 1920 sequences in 60.1 s, 126 TFLOP/s a device with what
    it recomputes. PaLM's table 3 makes of its 65.43e3 token/s MFU 29.7 % without and 30.2 % with attention.
    """
    a, peak = gpt(105, 20480, 128), device("a100-sxm-80gb", ON).peak()
    done = training_flops(a, 1920 * 2048, recompute="full").magnitude
    assert done / 60.1 / 2240 / 1e12 == pytest.approx(126, abs=0.5)
    assert mfu(65.43e3, 6 * 530e9, 2240, peak) == pytest.approx(0.297, abs=1e-3)
    assert mfu(65.43e3, palm_flops_per_token(a), 2240, peak) == pytest.approx(0.302, abs=1e-3)


KORTHIKANTI_STEPS = [  # arXiv:2205.05198, table 5: layers, h, heads, GPUs, batch, s a step, MFU in percent
    (48, 6144, 64, 8, 4, 1.10, 41.5),
    (96, 12288, 96, 64, 64, 13.75, 51.4),
    (105, 20480, 128, 280, 280, 37.83, 56.0),
    (128, 25600, 160, 512, 512, 71.49, 56.3),
]


@pytest.mark.parametrize(("L", "h", "H", "n", "batch", "seconds", "share"), KORTHIKANTI_STEPS)
def test_mfu_from_the_time_of_a_step(L, h, H, n, batch, seconds, share):
    """The time is printed to 1 % for the smallest."""
    done = training_flops(gpt(L, h, H), batch * 2048)
    got = utilisation(done, n, seconds, device("a100-sxm-80gb", ON).peak())
    assert 100 * got == pytest.approx(share, abs=0.2)


KORTHIKANTI = [  # arXiv:2205.05198, table 5: layers, h, heads, MFU, HFU, in percent
    (48, 6144, 64, 41.5, 43.7),
    (96, 12288, 96, 51.4, 52.8),
    (105, 20480, 128, 56.0, 57.0),
    (128, 25600, 160, 56.3, 57.0),
]


@pytest.mark.parametrize(("L", "h", "H", "share", "hardware"), KORTHIKANTI)
def test_korthikanti_mfu_and_hfu(L, h, H, share, hardware):
    """The published HFU hides a convention: appendix A charges selective recomputation with the whole cost of
    attention's core, s/6h (forward and backward); what runs again is one forward pass, s/18h, a third of it.
    """
    published = hfu(share / 100, gpt(L, h, H), recompute="selective_published")
    assert 100 * published == pytest.approx(hardware, abs=0.16)  # both printed to 0.1
    run_again = hfu(share / 100, gpt(L, h, H), recompute="selective")
    assert run_again - share / 100 == pytest.approx((published - share / 100) / 3, rel=1e-9)


@pytest.mark.parametrize(("h", "L", "H", "printed"), [(12288, 96, 96, 2.7), (20480, 105, 128, 1.6)])
def test_cost_of_selective_recomputation(h, L, H, printed):
    """Section 5: 2.7 % more FLOP for GPT-3, 1.6 % for 530B, in the paper's convention."""
    extra = 100 * (hfu(0.5, gpt(L, h, H), recompute="selective_published") / 0.5 - 1)
    assert extra == pytest.approx(printed, abs=0.06)


def test_opt_175b_and_its_convention():
    """OPT-175B chronicles, final update (2022): the 4.30e23 FLOP counts full recomputation (8ND = 4.2e23); model FLOPs are 3.15e23."""
    assert six_nd(175e9, 300e9).magnitude == pytest.approx(3.15e23, rel=1e-3)
    exact = training_flops(MODELS["opt-175b"], 300e9, recompute="full").magnitude
    assert exact == pytest.approx(4.30e23, rel=0.01)
    rate = Q(4.30e23, "FLOP") / Q(1024 * 33.0, "day")
    assert rate.to("TFLOP/s").magnitude == pytest.approx(147.3, abs=0.1)


@pytest.mark.parametrize(("tflops", "printed"), [(430, 43), (400, 41), (380, 38)])
def test_llama3_mfu(tflops, printed):
    """arXiv:2407.21783, table 4: 400/989 = 40.4 % is printed as 41 %: rounded rates do not give rounded shares."""
    share = utilisation(Q(tflops, "TFLOP"), 1, 1, device("h100-sxm", ON).peak())
    assert 100 * share == pytest.approx(printed, abs=0.6)


def test_whole_run_utilisation_from_device_hours():
    """DeepSeek-V3 (2024), arXiv:2412.19437, table 1: 6 x 37B x 14.8T over 2.664M H800 hours is 34.6 % of the bf16 peak, 17.3 % of the fp8 one that it used."""
    flops, hours = six_nd(37e9, 14.8e12), Q(2.664e6, "device * hour")
    h800 = device("h800-sxm", ON)
    assert whole_run_utilisation(flops, hours, h800.peak("bf16")) == pytest.approx(0.346, abs=5e-4)
    assert whole_run_utilisation(flops, hours, h800.peak("fp8")) == pytest.approx(0.173, abs=5e-4)


@pytest.mark.parametrize(
    ("parameters", "tokens", "above"),
    [(405e9, 15.6e12, True), (37e9, 14.8e12, False), (540e9, 780e9, False)],
    ids=["Llama 3.1 405B", "DeepSeek-V3", "PaLM"],
)
def test_eu_threshold_of_1e25(parameters, tokens, above):
    """Regulation (EU) 2024/1689, article 51: 3.8e25, 3.29e24 and 2.53e24 FLOP against its 1e25."""
    assert (six_nd(parameters, tokens) > Q(1e25, "FLOP")) == above


def test_experts_count_only_what_works():
    a = MODELS["mixtral-8x7b"]
    per_token = training_flops(a, 1, 1).magnitude
    assert per_token == pytest.approx(6 * count_parameters(a).active, rel=0.011)  # embedding: 1 %


def test_causal_attention_is_half():
    full, causal = (forward_flops(NANO, 1024, attention=k) for k in ("full", "causal"))
    assert causal.core / full.core == pytest.approx(1025 / 2048)
    assert causal.projections == full.projections


def test_equal_to_torchs_own_counter():
    """torch.utils.flop_counter on transformers' GPT-2, eager attention: every product, none else."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    config = transformers.GPT2Config(
        vocab_size=131, n_embd=48, n_layer=3, n_head=4, n_positions=64, use_cache=False
    )
    config._attn_implementation = "eager"
    model = transformers.GPT2LMHeadModel(config)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(5, 64, dtype=torch.long))
    a = gpt(3, 48, 4, V=131, s=64)
    assert forward_flops(a, 64, batch=5).total.magnitude == counter.get_total_flops()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: six_nd(-1, 1), "parameters must be finite and at least 0 in parameter, got -1"),
        (lambda: six_nd(1e9, Q(1, "USD")), "tokens must be a quantity in token, got 1 USD"),
        (lambda: utilisation(2e15, 1, 1, 1e15), "utilisation must be at most 1, got 2: check that flops"),
        (lambda: utilisation(1, 0, 1, 1), "devices must be a finite number above 0"),
        (lambda: hfu(45.7, NANO), "write 45.7 % as 0.457"),
        (lambda: hfu(0.9, NANO), r"mfu must be at most 0.8\d+ with recompute='full', which does 1.2\d+ times the work, got 0.9"),
        (lambda: forward_flops("gpt2"), r"arch must be an Architecture, got 'gpt2': take plan.find_model\('gpt2'\)"),
        (lambda: training_flops(None, 1), r"arch must be an Architecture, got None\."),
        (lambda: forward_flops(NANO, 0), "sequence must be finite and at least 1"),
        (lambda: forward_flops(NANO, attention="half"), "attention must be one of"),
        (lambda: training_flops(NANO, 1, recompute="ful"), "Did you mean 'full'"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
