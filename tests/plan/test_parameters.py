"""Parameter counts: equal to models instantiated on torch's meta device, and to the counts their makers published."""

import pytest

from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.plan import MLA, MODELS, Architecture, Experts, count_parameters, find_model

PUBLISHED = {  # exact counts, as the makers' checkpoints and model cards have them
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
    "gpt3-175b": 174_604_259_328,  # Brown et al. (2020), table D.1 rounds to 174,600M
    "opt-175b": 174_604_468_224,
    "bloom-176b": 176_247_271_424,  # arXiv:2211.05100, section 3.2 rounds to 176.25B
    "bert-base": 109_482_240,  # with the pooler; 108,891,648 without
    "bert-large": 335_141_888,
    "llama2-7b": 6_738_415_616,
    "llama2-70b": 68_976_648_192,
    "llama3-8b": 8_030_261_248,
    "llama3-70b": 70_553_706_496,
    "llama3.1-405b": 405_853_388_800,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,  # arXiv:2401.04088: 47B, of which 13B work for a token
}
ROUNDED = {  # (total, active) in billions as papers print them, one unit of the last digit as tolerance
    "mixtral-8x7b": (47, 13),
    "deepseek-v3": (671, 37),  # arXiv:2412.19437; the 37B leave something out: embedding or head
    "llama-7b": (6.7, 6.7),
    "llama-13b": (13.0, 13.0),
    "llama-33b": (32.5, 32.5),
    "llama-65b": (65.2, 65.2),  # arXiv:2302.13971, table 2 truncates 65.29
    "qwen2.5-7b": (7.61, 7.61),
    "qwen3-8b": (8.2, 8.2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name):
    assert count_parameters(MODELS[name]).total == PUBLISHED[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_counts(name):
    count, digits = (
        count_parameters(find_model(name)),
        max(len(str(x).partition(".")[2]) for x in ROUNDED[name]),
    )
    step = 10.0**-digits
    assert abs(count.total / 1e9 - ROUNDED[name][0]) < step
    assert abs(count.active / 1e9 - ROUNDED[name][1]) < step


def test_what_the_counts_of_bert_and_nanogpt_include():
    """Conventions: BERT base is 109.48M with its pooler and 108.89M without; nanoGPT leaves wpe out of "10.65M"."""
    bert = MODELS["bert-base"]
    assert count_parameters(bert.but(pooler=False)).total == 108_891_648
    plain = dict(biases="none", norm="layernorm_no_bias")
    nano = MODELS["gpt2"].but(**plain)
    assert count_parameters(nano).total == 124_337_664  # nanoGPT's transformer_sizing.ipynb
    small = nano.but(n_layers=6, width=384, n_heads=6, hidden=1536, context=256, vocab=65)
    count = count_parameters(small)
    assert count.total == 10_745_088  # its config/train_shakespeare_char.py, instantiated
    assert count.total - count.position_embedding == 10_646_784  # "10.65M"
    cpu = small.but(n_layers=4, width=128, n_heads=4, hidden=512, context=64)
    assert count_parameters(cpu).total == 804_096


def test_padding_the_vocabulary():
    """nanoGPT pads 50257 to 50304 = 64 x 786: 47 more rows of 768."""
    padded = MODELS["gpt2"].but(pad_vocab_to=64)
    assert padded.padded_vocab == 50304
    assert count_parameters(padded).total - PUBLISHED["gpt2"] == 47 * 768


def test_closed_form_of_gpt2():
    a = MODELS["gpt2-xl"]
    V, T, L, D = a.vocab, a.context, a.n_layers, a.width
    assert count_parameters(a).total == V * D + T * D + L * (12 * D * D + 13 * D) + 2 * D
    assert count_parameters(a).non_embedding == L * (12 * D * D + 13 * D) + 2 * D


@pytest.mark.parametrize("changes", [{}, dict(tied=False), dict(bias=False)])
@pytest.mark.parametrize("form", ["gpt2", "llama"])
def test_own_models_are_described(form, changes):
    config = getattr(GPTConfig, form)(101, 32, 3, 48, 4, **changes)
    assert count_parameters(Architecture.of(config)).total == config.n_parameters


# ---- against transformers on the meta device: no memory, no weights, the real modules

SMALL = dict(vocab_size=131, hidden_size=48, num_hidden_layers=3, num_attention_heads=4)
GATED = SMALL | dict(intermediate_size=80, num_key_value_heads=2, max_position_embeddings=64)
LLAMA = dict(gated=True, biases="none", norm="rmsnorm", positions="rotary", head="untied")


def small(F=192, G=None, **form):
    return Architecture("small", 131, 3, 48, 4, F, 64, n_kv_heads=G, **form)


CASES = {
    "GPT2": (
        dict(vocab_size=131, n_embd=48, n_layer=3, n_head=4, n_positions=64),
        "GPT2LMHeadModel",
        small(),
    ),
    "Bert": (
        SMALL | dict(intermediate_size=80, max_position_embeddings=64),
        "BertModel",
        small(80, final_norm=False, embedding_norm=True, token_types=2, head="none", pooler=True),
    ),
    "Bert ": (
        SMALL | dict(intermediate_size=80, max_position_embeddings=64),
        "BertForMaskedLM",
        small(80, final_norm=False, embedding_norm=True, token_types=2, head="mlm"),
    ),
    "OPT": (
        SMALL | dict(ffn_dim=80, max_position_embeddings=64, word_embed_proj_dim=48),
        "OPTForCausalLM",
        small(80, position_offset=2),
    ),
    "Bloom": (
        dict(vocab_size=131, hidden_size=48, n_layer=3, n_head=4),
        "BloomForCausalLM",
        small(positions="alibi", embedding_norm=True),
    ),
    "GPTNeoX": (
        SMALL | dict(intermediate_size=80),
        "GPTNeoXForCausalLM",
        small(80, positions="rotary", head="untied"),
    ),
    "Llama": (GATED, "LlamaForCausalLM", small(80, 2, **LLAMA)),
    "Llama tied": (
        GATED | dict(tie_word_embeddings=True),
        "LlamaForCausalLM",
        small(80, 2, **LLAMA | dict(head="tied")),
    ),
    "Qwen2": (GATED, "Qwen2ForCausalLM", small(80, 2, **LLAMA | dict(biases="qkv"))),
    "Qwen3": (
        GATED | dict(head_dim=16),
        "Qwen3ForCausalLM",
        small(80, 2, **LLAMA, head_width=16, qk_norm="head"),
    ),
    "Olmo2": (
        GATED,
        "Olmo2ForCausalLM",
        small(80, 2, **LLAMA, qk_norm="all"),
    ),
    "Gemma2": (
        GATED | dict(head_dim=16),
        "Gemma2ForCausalLM",
        small(80, 2, **LLAMA | dict(head="tied"), head_width=16, norms_per_layer=4),
    ),
    "Mixtral": (
        GATED | dict(num_local_experts=5, num_experts_per_tok=2),
        "MixtralForCausalLM",
        small(80, 2, **LLAMA, experts=Experts(5, 2, 80)),
    ),
    "Qwen2Moe": (
        GATED
        | dict(
            num_experts=6,
            num_experts_per_tok=2,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=40,
        ),
        "Qwen2MoeForCausalLM",
        small(
            80,
            2,
            **LLAMA | dict(biases="qkv"),
            experts=Experts(6, 2, 24, shared=1, shared_hidden=40, shared_gate=True),
        ),
    ),
    "DeepseekV3": (
        SMALL
        | dict(
            intermediate_size=80,
            moe_intermediate_size=24,
            n_routed_experts=8,
            num_experts_per_tok=2,
            n_shared_experts=1,
            n_group=2,
            topk_group=1,
            first_k_dense_replace=1,
            kv_lora_rank=20,
            q_lora_rank=28,
            qk_rope_head_dim=8,
            qk_nope_head_dim=12,
            v_head_dim=16,
            num_key_value_heads=4,
            max_position_embeddings=64,
        ),
        "DeepseekV3ForCausalLM",
        small(
            80,
            **LLAMA,
            experts=Experts(8, 2, 24, shared=1, dense_layers=1),
            mla=MLA(kv_rank=20, rope=8, nope=12, value=16, q_rank=28),
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_equal_to_transformers(case):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    settings, model, arch = CASES[case]
    config = getattr(transformers, f"{case.split()[0]}Config")(**settings)
    with torch.device("meta"):
        built = getattr(transformers, model)(config)
        built.tie_weights()  # transformers 5.0 leaves it to the caller on the meta device
    theirs = {p.data_ptr() or id(p): p.numel() for p in built.parameters()}  # tied ones once
    assert count_parameters(arch).total == sum(theirs.values())


def test_active_parameters_leave_idle_experts_out():
    a = MODELS["mixtral-8x7b"]
    one = count_parameters(a.but(experts=Experts(2, 2, 14336)))
    assert count_parameters(a).active - one.active == 32 * 4096 * 6  # the router's six more rows
    assert count_parameters(a).idle == 32 * 6 * 3 * 4096 * 14336


def test_experts_in_every_second_layer():
    every = small(80, 2, **LLAMA, experts=Experts(4, 1, 80, every=2, dense_layers=1))
    assert every.expert_layers == 1
    assert count_parameters(every).idle == 3 * 3 * 48 * 80
