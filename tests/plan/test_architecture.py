"""Architecture: what does not fit is refused with a way out."""

import pytest

from bigmodel_lab.plan import MLA, MODELS, Architecture, Experts, find_model
from bigmodel_lab.plan.models import SOURCES

GOOD = dict(name="x", vocab=100, n_layers=2, width=48, n_heads=4, hidden=96)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(n_heads=5), "n_heads=5 does not divide width=48: choose one that does, or give head_width"),
        (dict(n_kv_heads=3), r"n_kv_heads=3 does not divide n_heads=4. Numbers that work: 1, 2, 4\."),
        (dict(n_kv_heads=8), "n_kv_heads must be between 1 and 4, got 8"),
        (dict(n_layers=0), "n_layers must be at least 1, got 0"),
        (dict(vocab=-1), "vocab must be at least 1, got -1"),
        (dict(norm="layer norm"), "norm must be one of .* got 'layer norm'. Did you mean 'layernorm'"),
        (dict(positions="rope"), "positions must be one of"),
        (dict(head="shared"), "head must be one of"),
        (dict(biases="some"), "biases must be one of"),
        (dict(qk_norm="yes"), "qk_norm must be one of"),
        (dict(token_types=-2), "token_types must be at least 0, got -2"),
        (dict(head_width=0), "head_width must be at least 1, got 0"),
        (dict(head_width=-4), "head_width must be at least 1, got -4"),
        (dict(width=48.5), r"width must be a whole number \(int\), got 48.5\."),
        (dict(vocab=1e5), r"vocab must be a whole number \(int\), got 100000.0: write 100000\."),
        (dict(n_layers="2"), r"n_layers must be a whole number \(int\), got '2'"),
        (dict(n_layers=float("nan")), "n_layers must be a whole number"),
        (dict(n_heads=True), "n_heads must be a whole number"),
    ],
)  # fmt: skip
def test_refused(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Architecture(**GOOD | changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Experts(4, 5, 10), "experts.per_token must be between 1 and 4, got 5"),
        (lambda: Experts(0, 1, 10), "experts.count must be at least 1, got 0"),
        (lambda: Experts(4, 1, 10, shared=-1), "experts.shared must be at least 0"),
        (lambda: Experts(4, 1, 10, shared=1, shared_hidden=-1), "experts.shared_hidden must be at least 1, got -1"),
        (lambda: MLA(0, 8, 8, 8), "mla.kv_rank must be at least 1, got 0"),
        (lambda: MLA(8, 8, 8, 8, q_rank=0), "mla.q_rank must be at least 1, got 0"),
        (lambda: Architecture(**GOOD, experts=Experts(4, 1, 8, dense_layers=3)), "experts.dense_layers must be between 0 and 2"),
        (lambda: Architecture(**GOOD, biases="none", n_kv_heads=2, mla=MLA(8, 8, 8, 8)), "n_kv_heads=2 has no meaning with mla"),
        (lambda: Architecture(**GOOD, mla=MLA(8, 8, 8, 8)), "biases='all' has no meaning with mla"),
        (lambda: find_model("gtp2"), "model must be one of .* Did you mean 'gpt2'"),
    ],
)  # fmt: skip
def test_parts_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_a_source(name):
    assert any(name.startswith(family) for family in SOURCES)
    assert MODELS[name].name == name


def test_a_copy_changes_one_field():
    long = MODELS["gpt2"].but(context=4096)
    assert (long.context, long.width) == (4096, 768)
    assert MODELS["gpt2"].context == 1024


def test_head_width_need_not_divide():
    assert Architecture(**GOOD | dict(n_heads=5, head_width=16)).key_width == 16
