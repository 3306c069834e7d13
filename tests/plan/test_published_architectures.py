"""Parameter counts of published models that the package does not ship, from their config.json alone.

The shapes are those of the checkpoints on the Hugging Face hub; the counts are the numbers of trained values in them, exact
unless they are printed as billions. Each family is here for the one thing in which it differs from GPT-2 or Llama.
"""

import pytest

from bigmodel_lab.plan import MLA, MODELS, Architecture, Experts, count_parameters, kv_per_token


def gpt(V, L, D, H, F=None, T=2048, **form):
    return Architecture("gpt", V, L, D, H, F or 4 * D, T, **form)


def llama(V, L, D, H, F, G=None, **form):
    form = dict(gated=True, biases="none", norm="rmsnorm", positions="rotary", head="untied") | form
    return Architecture("llama", V, L, D, H, F, 4096, n_kv_heads=G, **form)


ROTARY = dict(positions="rotary", head="untied")
PARALLEL = dict(positions="rotary", norms_per_layer=1)  # attention beside feed-forward
BLOOM = dict(positions="alibi", embedding_norm=True)
QWEN2, QWEN3 = dict(biases="qkv"), dict(qk_norm="head", head_width=128)
GEMMA = dict(head="tied", head_width=256)
PALM = PARALLEL | dict(
    n_kv_heads=1, head_width=256, gated=True, biases="none", norm="layernorm_no_bias"
)
V2 = dict(kv_rank=512, rope=64, nope=128, value=128)
BERT = dict(final_norm=False, embedding_norm=True, head="none", T=512)

EXACT = {
    "OPT-125M": (gpt(50272, 12, 768, 12, position_offset=2), 125_239_296),
    "OPT-30B": (gpt(50272, 48, 7168, 56, position_offset=2), 29_974_540_288),
    "BLOOM-560M": (gpt(250880, 24, 1024, 16, **BLOOM), 559_214_592),
    "BLOOM-7B1": (gpt(250880, 30, 4096, 32, **BLOOM), 7_069_016_064),
    "Pythia-70M": (gpt(50304, 6, 512, 8, **ROTARY), 70_426_624),
    "Pythia-12B": (gpt(50688, 36, 5120, 40, **ROTARY), 11_846_072_320),
    "GPT-NeoX-20B": (gpt(50432, 44, 6144, 64, **ROTARY), 20_554_567_680),
    "GPT-J-6B": (gpt(50400, 28, 4096, 16, biases="mlp", head_bias=True, **PARALLEL | ROTARY), 6_050_882_784),
    "Phi-2": (gpt(51200, 32, 2560, 32, head_bias=True, **PARALLEL | ROTARY), 2_779_683_840),
    "Falcon-7B": (gpt(65024, 32, 4544, 71, n_kv_heads=1, biases="none", **PARALLEL), 6_921_720_704),
    "Falcon-40B": (gpt(65024, 60, 8192, 128, n_kv_heads=8, biases="none", positions="rotary"), 41_303_293_952),
    "Falcon-180B": (gpt(65024, 80, 14848, 232, n_kv_heads=8, biases="none", **ROTARY), 179_522_565_120),
    "MPT-7B": (gpt(50432, 32, 4096, 32, biases="none", norm="layernorm_no_bias", positions="alibi"), 6_649_286_656),
    "StarCoder": (gpt(49152, 40, 6144, 48, T=8192, n_kv_heads=1), 15_517_456_384),
    "RoBERTa-base": (gpt(50265, 12, 768, 12, position_offset=2, token_types=1, pooler=True, **BERT), 124_645_632),
    "DistilBERT": (gpt(30522, 6, 768, 12, **BERT), 66_362_880),
    "Llama 3.2 1B": (llama(128256, 16, 2048, 32, 8192, 8, head="tied"), 1_235_814_400),
    "Llama 3.2 3B": (llama(128256, 28, 3072, 24, 8192, 8, head="tied"), 3_212_749_824),
    "Mistral NeMo": (llama(131072, 40, 5120, 32, 14336, 8, head_width=128), 12_247_782_400),
    "Phi-3-medium": (llama(32064, 40, 5120, 40, 17920, 10), 13_960_238_080),
    "Qwen2-0.5B": (llama(151936, 24, 896, 14, 4864, 2, head="tied", **QWEN2), 494_032_768),
    "Qwen2.5-72B": (llama(152064, 80, 8192, 64, 29568, 8, **QWEN2), 72_706_203_648),
    "Qwen3-0.6B": (llama(151936, 28, 1024, 16, 3072, 8, head="tied", **QWEN3), 596_049_920),
    "Qwen3-32B": (llama(151936, 64, 5120, 64, 25600, 8, **QWEN3), 32_762_123_264),
    "Gemma 2B": (llama(256000, 18, 2048, 8, 16384, 1, **GEMMA), 2_506_172_416),
    "Gemma 7B": (llama(256000, 28, 3072, 16, 24576, **GEMMA), 8_537_680_896),
    "Gemma 2 9B": (llama(256000, 42, 3584, 16, 14336, 8, norms_per_layer=4, **GEMMA), 9_241_705_984),
    "Gemma 3 1B": (llama(262144, 26, 1152, 4, 6912, 1, norms_per_layer=4, qk_norm="head", **GEMMA), 999_885_952),
    "OLMo-7B": (llama(50304, 32, 4096, 32, 11008, norm="none"), 6_888_095_744),
    "OLMo 2 7B": (llama(100352, 32, 4096, 32, 11008, qk_norm="all"), 7_298_617_344),
}  # fmt: skip
EXPERTS = {  # total, and billions that work for a token as the makers print them
    "Mixtral 8x22B": (llama(32768, 56, 6144, 48, 16384, 8, experts=Experts(8, 2, 16384)), 140_630_071_296, 39),
    "Qwen1.5-MoE": (
        llama(151936, 24, 2048, 16, 5632, **QWEN2, experts=Experts(60, 4, 1408, 1, 5632, True)),
        14_315_784_192, 2.7,
    ),
    "Qwen3-30B-A3B": (llama(151936, 48, 2048, 32, 6144, 4, **QWEN3, experts=Experts(128, 8, 768)), 30_532_122_624, 3.3),
    "Qwen3-235B-A22B": (llama(151936, 94, 4096, 64, 12288, 4, **QWEN3, experts=Experts(128, 8, 1536)), 235_093_634_560, 22),
    "DBRX": (
        llama(100352, 40, 6144, 48, 10752, 8, norm="layernorm_no_bias", experts=Experts(16, 4, 10752)),
        131_596_523_520, 36,
    ),
    "DeepSeekMoE 16B": (llama(102400, 28, 2048, 16, 10944, experts=Experts(64, 6, 1408, 2, dense_layers=1)), 16_375_728_128, 2.8),
    "DeepSeek-V2": (
        llama(102400, 60, 5120, 128, 12288, mla=MLA(**V2, q_rank=1536), experts=Experts(160, 6, 1536, 2, dense_layers=1)),
        235_741_434_880, 21,
    ),
    "DeepSeek-V2-Lite": (
        llama(102400, 27, 2048, 16, 10944, mla=MLA(**V2), experts=Experts(64, 6, 1408, 2, dense_layers=1)),
        15_706_484_224, 2.66,  # printed 2.4, without the embedding's 0.21
    ),
}  # fmt: skip
PRINTED = {  # billions, and how far off the last printed digit may be
    "PaLM 8B": (gpt(256000, 32, 4096, 16, 16384, **PALM), 8.63, 0.01),
    "PaLM 62B": (gpt(256000, 64, 8192, 32, 32768, **PALM), 62.50, 0.01),
    "PaLM 540B": (gpt(256000, 118, 18432, 48, 73728, **PALM), 540.35, 0.01),
    "MT-NLG": (gpt(51200, 105, 20480, 128), 530, 1),
    "GPT-3 Small": (gpt(50257, 12, 768, 12), 0.125, 0.001),
    "GPT-3 13B": (gpt(50257, 40, 5140, 40, head_width=128), 13.0, 0.2),  # 5140 is no multiple of 40
    "Llama 4 Maverick": (
        llama(202048, 48, 5120, 40, 16384, 8, experts=Experts(128, 1, 8192, shared=1, every=2)), 400, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_exact_counts(name):
    arch, published = EXACT[name]
    assert count_parameters(arch).total == published


@pytest.mark.parametrize("name", EXPERTS)
def test_experts(name):
    arch, total, active = EXPERTS[name]
    count = count_parameters(arch)
    assert count.total == total
    assert count.active / 1e9 == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize("name", PRINTED)
def test_printed_counts(name):
    arch, billions, off = PRINTED[name]
    assert count_parameters(arch).total / 1e9 == pytest.approx(billions, abs=off)


def test_non_embedding_counts_of_pythia():
    """Biderman et al. (2023), arXiv:2304.01373, table 1: 18,915,328 of 70M and 11,327,027,200 of 12B."""
    small, large = EXACT["Pythia-70M"][0], EXACT["Pythia-12B"][0]
    assert count_parameters(small).non_embedding == 18_915_328
    assert count_parameters(large).non_embedding == 11_327_027_200


@pytest.mark.parametrize(
    ("arch", "published"),
    [
        (EXACT["Falcon-7B"][0], 8_192),  # one head of keys and values
        (EXPERTS["Qwen3-235B-A22B"][0], 192_512),
        (EXPERTS["DeepSeek-V2"][0], 69_120),  # 60 x 576 numbers
        (MODELS["llama2-13b"], 819_200),
        (gpt(50272, 40, 5120, 40), 819_200),  # OPT-13B: "800 KB" in arXiv:2309.06180, section 3
    ],
    ids=["MQA", "GQA", "MLA", "MHA", "vLLM"],
)
def test_cache_a_token(arch, published):
    assert kv_per_token(arch).magnitude == published
