"""GPT against `transformers`: from the same weights the same logits, loss and gradients. Weights are random; no download.

Two things in transformers are float32 in a float64 model too: rmsnorm and the rotary angles of Llama, and the loss of all
models. For the comparison in float64 the test puts torch's rms_norm, float64 angles and torch's cross-entropy in their
places.
"""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip(
    "transformers",
    reason="the peer that is compared with is not installed: pip install transformers",
)
import torch.nn.functional as F  # noqa: E402

from bigmodel_lab.models import GPT, GPTConfig  # noqa: E402
from bigmodel_lab.models.convert import convert  # noqa: E402

SIZES = dict(vocab_size=96, context=20, n_layers=2, width=48, n_heads=6)
FORMS = {
    "gpt2": GPTConfig.gpt2(**SIZES),
    "gpt2, exact gelu, untied": GPTConfig.gpt2(**SIZES, mlp="gelu", tied=False),
    "llama": GPTConfig.llama(**SIZES, eps=1e-6),
    "llama, grouped": GPTConfig.llama(**SIZES, n_kv_heads=2, rope_base=500.0),
    "llama, one kv head, biases, tied": GPTConfig.llama(
        **SIZES, n_kv_heads=1, bias=True, tied=True
    ),
}
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
forms = pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)


def peer_of(config):
    """The model of transformers in the form of `config`, with random weights that are not all small."""
    c = config
    if c.positions == "learned":
        theirs = transformers.GPT2Config(
            vocab_size=c.vocab_size,
            n_positions=c.context,
            n_embd=c.width,
            n_layer=c.n_layers,
            n_head=c.n_heads,
            n_inner=c.hidden,
            activation_function="gelu" if c.mlp == "gelu" else "gelu_new",
            tie_word_embeddings=c.tied,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="sdpa",
        )
        kind = transformers.GPT2LMHeadModel
    else:
        theirs = transformers.LlamaConfig(
            vocab_size=c.vocab_size,
            max_position_embeddings=c.context,
            hidden_size=c.width,
            intermediate_size=c.hidden,
            num_hidden_layers=c.n_layers,
            num_attention_heads=c.n_heads,
            num_key_value_heads=c.n_kv_heads,
            rms_norm_eps=c.eps,
            rope_parameters={"rope_type": "default", "rope_theta": c.rope_base},
            attention_bias=c.bias,
            mlp_bias=c.bias,
            tie_word_embeddings=c.tied,
            attn_implementation="sdpa",
        )
        kind = transformers.LlamaForCausalLM
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer = kind(theirs).eval()
        with (
            torch.no_grad()
        ):  # biases and gains that are not 0 and 1, matrices large enough to matter
            for p in peer.parameters():
                p.copy_(p + 0.1 * torch.randn_like(p))
    return peer


def in_float64(peer, config):
    """Convert the peer, and take out what stays in float32: see the top of the file."""
    peer = peer.double()
    if config.positions == "rotary":
        for module in peer.modules():
            if type(module).__name__ == "LlamaRMSNorm":
                module.forward = lambda x, m=module: F.rms_norm(
                    x, m.weight.shape, m.weight, m.variance_epsilon
                )

        def angles(x, position_ids):
            pair = torch.arange(0, config.head_width, 2, dtype=torch.float64)
            angle = position_ids[..., None] * config.rope_base ** (-pair / config.head_width)
            angle = torch.cat([angle, angle], -1)
            return angle.cos(), angle.sin()

        peer.model.rotary_emb.forward = angles
    return peer


def batch():
    tokens = torch.randint(96, (3, 21), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@forms
def test_logits_loss_and_gradients(config, dtype, ops):
    peer = peer_of(config)
    if dtype == torch.float64:
        peer = in_float64(peer, config)
    ours = GPT.from_transformers(peer.state_dict(), config, ops)
    assert {p.dtype for p in ours.parameters()} == {dtype}
    x, y = batch()
    logits = peer(input_ids=x).logits
    theirs_loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
    theirs_loss.backward()
    loss = ours(x, y)
    loss.backward()
    theirs = convert({n: p.grad for n, p in peer.named_parameters()}, config)
    pairs = {"logits": (ours(x), logits), "loss": (loss, theirs_loss)}
    pairs |= {n: (p.grad, theirs[n]) for n, p in ours.named_parameters()}
    assert len(pairs) == 2 + len(list(ours.parameters()))
    assert logits.std() > 0.3
    for name, (a, b) in pairs.items():
        assert a.shape == b.shape
        assert a.dtype == dtype
        difference = (a - b).abs().max().item()
        assert difference < TOLERANCE[dtype], name
        assert b.abs().max() > 1e-3, f"{name}: all but 0, so that its agreement would say nothing"


@forms
def test_the_loss_that_transformers_computes(config):
    peer = peer_of(config)
    ours = GPT.from_transformers(peer.state_dict(), config)
    x, _ = batch()
    theirs = peer(input_ids=x, labels=x).loss  # shifts the labels itself
    assert abs(ours(x[:, :-1], x[:, 1:]) - theirs) < 1e-5


@forms
def test_the_same_text(config):
    from bigmodel_lab.models.generate import generate

    peer = peer_of(config)
    ours = GPT.from_transformers(peer.state_dict(), config)
    x = batch()[0][:, :6]
    text = peer.generate(
        x,
        attention_mask=torch.ones_like(x),
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
        eos_token_id=None,
    )
    assert torch.equal(generate(ours, x, 12), text)


def test_the_weights_are_copies():
    config = FORMS["gpt2"]
    peer = peer_of(config)
    ours = GPT.from_transformers(peer.state_dict(), config)
    before = ours.tokens.weight.clone()
    with torch.no_grad():
        peer.transformer.wte.weight.zero_()
    assert torch.equal(ours.tokens.weight, before)
    assert not ours.training
    assert all(p.requires_grad for p in ours.parameters())


def test_tables_of_old_versions_are_passed_over():
    config = FORMS["gpt2"]
    state = peer_of(config).state_dict()
    old = {
        "transformer.h.0.attn.bias": torch.ones(1),
        "transformer.h.0.attn.masked_bias": torch.ones(1),
    }
    GPT.from_transformers(state | old, config)


def test_errors():
    config = FORMS["llama"]
    state = peer_of(config).state_dict()
    without = {n: w for n, w in state.items() if n != "model.norm.weight"}
    with pytest.raises(
        ValueError,
        match=r"^The state dict lacks model.norm.weight: it is not of the form that the config names.$",
    ):
        GPT.from_transformers(without, config)
    with pytest.raises(
        ValueError, match=r"^The state dict has the unexpected odd.weight: it is not"
    ):
        GPT.from_transformers(state | {"odd.weight": torch.ones(1)}, config)
    with pytest.raises(
        ValueError,
        match=r"^The state dict lacks transformer.h.0.attn.c_attn.bias, .* and \d+ more and has the unexpected model.embed",
    ):
        GPT.from_transformers(state, FORMS["gpt2"])
    with pytest.raises(
        ValueError,
        match=r"^blocks.0.attention.qkv.weight has shape \(144, 48\) in the state dict and \(80, 48\) by the config: ",
    ):
        GPT.from_transformers(state, FORMS["llama, grouped"])
    with pytest.raises(ValueError, match=r"^GPT-2 has no grouped queries: n_kv_heads=2.$"):
        GPT.from_transformers(state, GPTConfig.gpt2(**SIZES, n_kv_heads=2))
    with pytest.raises(
        ValueError,
        match=r'^No model of transformers that is read here has positions="rotary", norm="layernorm"',
    ):
        GPT.from_transformers(state, GPTConfig.gpt2(**SIZES, positions="rotary"))
