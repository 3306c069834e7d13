"""MODELS: architectures of well-known models by name, each with the source of its sizes.

`SOURCES` says where a family's sizes were published, by the beginning of the name. tests/plan/test_parameters.py holds the
counts that follow from them to the published totals; the year of a source is the date of its rows.
"""

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.architecture import MLA, Architecture, Experts

__all__ = ["MODELS", "SOURCES", "find_model"]


def _gpt(name, L, D, H, T=1024, V=50257, **changes):
    return Architecture(name, V, L, D, H, 4 * D, T, **changes)


def _bert(name, L, D, H):
    form = dict(final_norm=False, embedding_norm=True, token_types=2, head="none", pooler=True)
    return _gpt(name, L, D, H, T=512, V=30522, **form)


def _llama(name, L, D, H, F, V=32000, T=4096, G=None, **changes):
    form = dict(gated=True, biases="none", norm="rmsnorm", positions="rotary", head="untied")
    return Architecture(name, V, L, D, H, F, T, n_kv_heads=G, **(form | changes))


_ALL = (
    _gpt("gpt2", 12, 768, 12),
    _gpt("gpt2-medium", 24, 1024, 16),
    _gpt("gpt2-large", 36, 1280, 20),
    _gpt("gpt2-xl", 48, 1600, 25),
    _gpt("gpt3-175b", 96, 12288, 96, T=2048),
    _gpt("opt-175b", 96, 12288, 96, T=2048, V=50272, position_offset=2),
    _gpt("bloom-176b", 70, 14336, 112, T=2048, V=250880, positions="alibi", embedding_norm=True),
    _bert("bert-base", 12, 768, 12),
    _bert("bert-large", 24, 1024, 16),
    _llama("llama-7b", 32, 4096, 32, 11008, T=2048),
    _llama("llama-13b", 40, 5120, 40, 13824, T=2048),
    _llama("llama-33b", 60, 6656, 52, 17920, T=2048),
    _llama("llama-65b", 80, 8192, 64, 22016, T=2048),
    _llama("llama2-7b", 32, 4096, 32, 11008),
    _llama("llama2-13b", 40, 5120, 40, 13824),
    _llama("llama2-70b", 80, 8192, 64, 28672, G=8),
    _llama("llama3-8b", 32, 4096, 32, 14336, 128256, 8192, 8),
    _llama("llama3-70b", 80, 8192, 64, 28672, 128256, 8192, 8),
    _llama("llama3.1-405b", 126, 16384, 128, 53248, 128256, 131072, 8),
    _llama("mistral-7b", 32, 4096, 32, 14336, 32000, 8192, 8),
    _llama("mixtral-8x7b", 32, 4096, 32, 14336, 32000, 32768, 8, experts=Experts(8, 2, 14336)),
    _llama("qwen2.5-7b", 28, 3584, 28, 18944, 152064, 32768, 4, biases="qkv"),
    _llama("qwen3-8b", 36, 4096, 32, 12288, 151936, 40960, 8, head_width=128, qk_norm="head"),
    _llama(
        "deepseek-v3",
        61,
        7168,
        128,
        18432,
        129280,
        163840,
        experts=Experts(256, 8, 2048, shared=1, dense_layers=3),
        mla=MLA(kv_rank=512, rope=64, nope=128, value=128, q_rank=1536),
    ),
)
MODELS = {arch.name: arch for arch in _ALL}
SOURCES = {
    "gpt2": "Radford et al. (2019), table 2; config.json of openai-community/gpt2",
    "gpt3-175b": "Brown et al. (2020), arXiv:2005.14165, table 2.1",
    "opt-175b": "Zhang et al. (2022), arXiv:2205.01068, table 1; config.json of facebook/opt",
    "bloom-176b": "BLOOM (2022), arXiv:2211.05100, table 3; config.json of bigscience/bloom",
    "bert": "Devlin et al. (2018), arXiv:1810.04805, section 3; config.json of bert-base-uncased",
    "llama-": "Touvron et al. (2023), arXiv:2302.13971, table 2",
    "llama2": "Touvron et al. (2023), arXiv:2307.09288, table 1; config.json",
    "llama3": "Llama team (2024), arXiv:2407.21783, table 3; config.json",
    "mistral": "Jiang et al. (2023), arXiv:2310.06825, table 1",
    "mixtral": "Jiang et al. (2024), arXiv:2401.04088, table 1",
    "qwen": "config.json of Qwen/Qwen2.5-7B and Qwen/Qwen3-8B",
    "deepseek": "DeepSeek-AI (2024), arXiv:2412.19437, section 4.2; without the multi-token module",
}


def find_model(name: str) -> Architecture:
    """Return the architecture called `name`. Raises ValueError, with the nearest spelling, for another name."""
    return MODELS[require_choice("model", name, MODELS)]
