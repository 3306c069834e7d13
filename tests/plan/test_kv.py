"""KV cache: bytes a token of published models, MHA, GQA and MLA."""

import pytest

from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.plan import MODELS, Architecture, kv_cache, kv_per_token
from bigmodel_lab.units import Q


@pytest.mark.parametrize(
    ("name", "per_token"),
    [
        ("llama2-7b", 524_288),  # 2.0 GiB at 4096
        ("llama2-70b", 327_680),  # 8 of 64 heads: an eighth of MHA's 2.62 MB
        ("llama3-8b", 131_072),
        ("llama3.1-405b", 516_096),
        ("mixtral-8x7b", 131_072),
        ("gpt3-175b", 4_718_592),
        ("deepseek-v3", 70_272),  # 61 layers x 576 numbers: arXiv:2405.04434, table 1's form
    ],
)
def test_bytes_a_token(name, per_token):
    assert kv_per_token(MODELS[name]) == Q(per_token, "byte / token")


def test_llama2_7b_at_4096_is_two_gib():
    assert kv_cache(MODELS["llama2-7b"]) == Q(2, "GiB")
    assert kv_cache(MODELS["llama2-7b"], 4096, batch=16, itemsize=1) == Q(16, "GiB")


def test_multi_query_is_one_head():
    a = MODELS["llama2-7b"]
    assert kv_per_token(a.but(n_kv_heads=1)) * 32 == kv_per_token(a)


def test_own_gpt_agrees():
    config = GPTConfig.llama(64, 32, 3, 48, 4, n_kv_heads=2)
    assert kv_cache(Architecture.of(config), 20, 5, 4).magnitude == config.kv_cache_bytes(5, 20)


def test_refused():
    with pytest.raises(ValueError, match="itemsize must be a finite number above 0"):
        kv_per_token(MODELS["gpt2"], 0)
    with pytest.raises(TypeError, match=r"arch must be an Architecture.*find_model\('llama2-7b'\)"):
        kv_cache("llama2-7b")
    with pytest.raises(ValueError, match="positions must be finite and at least 0"):
        kv_cache(MODELS["gpt2"], -5)
