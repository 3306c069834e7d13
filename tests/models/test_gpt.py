"""The GPT: its form, its parameters, what each position may see, and that it learns with either kind of operation."""

import pickle

import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab.models import GPT, GPTConfig  # noqa: E402  (needs torch)
from bigmodel_lab.ops import torch as ops_torch  # noqa: E402

SIZES = dict(vocab_size=50, context=16, n_layers=2, width=32, n_heads=4)
FORMS = {
    "gpt2": GPTConfig.gpt2(**SIZES),
    "llama": GPTConfig.llama(**SIZES),
    "grouped": GPTConfig.llama(**SIZES, n_kv_heads=2),
    "one kv head, biases": GPTConfig.llama(**SIZES, n_kv_heads=1, bias=True, tied=True),
    "mixed": GPTConfig.gpt2(**SIZES, positions="rotary", mlp="gelu", bias=False, tied=False),
}
forms = pytest.mark.parametrize("config", FORMS.values(), ids=FORMS)


def batch(rows=3, length=12, seed=0):
    tokens = torch.randint(50, (rows, length + 1), generator=torch.Generator().manual_seed(seed))
    return tokens[:, :-1], tokens[:, 1:]


@forms
def test_number_of_parameters_in_closed_form(config):
    assert sum(p.numel() for p in GPT(config).parameters()) == config.n_parameters


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (GPTConfig.gpt2(), 124_439_808),
        (GPTConfig.gpt2(n_layers=48, width=1600, n_heads=25), 1_557_611_200),
        (GPTConfig.llama(), 6_738_415_616),  # Llama 2 7B
        (
            GPTConfig.llama(context=2048, n_layers=22, width=2048, n_kv_heads=4, hidden=5632),
            1_100_048_384,  # TinyLlama 1.1B
        ),
    ],
)
def test_number_of_parameters_of_published_models(config, published):
    assert config.n_parameters == published
    with torch.device("meta"):
        assert sum(p.numel() for p in GPT(config).parameters()) == published


def test_names_and_shapes():
    model = GPT(GPTConfig.llama(50, 16, 1, 32, 4, n_kv_heads=2, hidden=80))
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == {
        "tokens.weight": (50, 32),
        "blocks.0.norm1.weight": (32,),
        "blocks.0.attention.qkv.weight": (64, 32),
        "blocks.0.attention.out.weight": (32, 32),
        "blocks.0.norm2.weight": (32,),
        "blocks.0.mlp.gate.weight": (80, 32),
        "blocks.0.mlp.up.weight": (80, 32),
        "blocks.0.mlp.down.weight": (32, 80),
        "norm.weight": (32,),
        "head.weight": (50, 32),
    }


@forms
def test_initial_weights(config):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    a = GPT(config, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    b, other = GPT(config, seed=5), GPT(config, seed=6)
    for (name, p), q, r in zip(
        a.named_parameters(), b.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(p, q)
        if p.ndim == 1:
            assert torch.equal(p, torch.full_like(p, 0.0 if name.endswith("bias") else 1.0))
            continue
        assert not torch.equal(p, r)
        smaller = "attention.out" in name or "mlp.down" in name
        std = 0.02 / 2 if smaller else 0.02  # 2 layers add 4 times
        assert p.std().item() == pytest.approx(std, rel=5 / (2 * p.numel()) ** 0.5)


@forms
def test_untrained_loss_is_that_of_a_guess(config):
    loss = GPT(config)(*batch()).item()
    assert abs(loss - torch.tensor(50.0).log().item()) < 0.1


@forms
def test_loss_is_the_mean_cross_entropy_of_the_logits(config):
    x, y = batch()
    model = GPT(config)
    logits = model(x)
    assert logits.shape == (3, 12, 50)
    by_hand = -logits.log_softmax(-1).gather(-1, y[..., None]).mean()
    torch.testing.assert_close(model(x, y), by_hand)


@pytest.mark.parametrize("ops", ["torch", "numba"])
@forms
def test_no_position_sees_a_later_token(config, ops):
    model = GPT(config, ops)
    x, _ = batch(rows=1)
    before = model(x)
    for t in range(x.shape[1]):
        changed = x.clone()
        changed[0, t] = (x[0, t] + 1) % 50
        moved = (model(changed) - before).abs().amax(-1)[0]
        assert moved[:t].max() == 0 if t else True
        assert (moved[t:] > 0).all()  # and each position from t on does see it


@forms
def test_the_order_of_the_tokens_matters(config):
    x, _ = batch(rows=1)
    swapped = x.clone()
    swapped[0, [2, 5]] = x[0, [5, 2]]
    assert x[0, 2] != x[0, 5]
    model = GPT(config)
    assert (model(x)[0, -1] - model(swapped)[0, -1]).abs().max() > 1e-5


def test_rotary_positions_are_relative():
    """The same three tokens further to the right, behind keys that they cannot see: attention depends on distance only."""
    config = GPTConfig.llama(**SIZES)
    model = GPT(config).double()
    ops = ops_torch.backend("torch")
    x = torch.randn(1, 4, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tokens = torch.zeros(1, 3, dtype=torch.int64)

    def mixed(start):
        _, angles = model._embed(tokens, start, ops)
        turned = ops.rope(x, *angles)
        return ops.attention(turned, turned, x)

    torch.testing.assert_close(mixed(0), mixed(13), rtol=0, atol=1e-12)
    assert (mixed(0) - ops.attention(x, x, x)).abs().max() > 0.01


@pytest.mark.parametrize("form", ["gpt2", "grouped"])
def test_one_batch_is_learned_by_heart(form):
    """No row starts with a token twice: rotary attention cannot tell one from two of it, with nothing before them."""
    model = GPT(FORMS[form])
    x, y = batch(rows=2, seed=1)
    assert (x[:, 0] != x[:, 1]).all()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(80):
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


def losses(config, ops, steps=10):
    model = GPT(config, ops, seed=3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    history = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(*batch(seed=step % 3))
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return torch.tensor(history)


@forms
def test_ten_steps_with_our_kernels_and_with_torch(config):
    """Rounding differs, and Adam divides by small gradients: losses near 3.9 agree to 1e-4, 1e-6 before any step."""
    ours, theirs = losses(config, "numba"), losses(config, "torch")
    assert theirs[-1] < theirs[0] - 0.3
    assert abs(ours[0] - theirs[0]) < 1e-6 * theirs[0]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@forms
def test_gradients_with_our_kernels_and_with_torch(config):
    x, y = batch()
    grads = []
    for ops in ("numba", "torch"):
        model = GPT(config, ops).double()
        model(x, y).backward()
        grads.append([p.grad for p in model.parameters()])
    for ours, theirs in zip(*grads, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_dropout():
    model = GPT(GPTConfig.gpt2(**SIZES, dropout=0.5))
    plain = GPT(GPTConfig.gpt2(**SIZES))
    x, y = batch()
    torch.manual_seed(0)
    first, second = model(x, y), model(x, y)
    torch.manual_seed(0)
    assert torch.equal(model(x, y), first)
    assert first != second
    assert torch.equal(model.eval()(x, y), plain(x, y))


def test_survives_pickling():
    x, y = batch()
    for ops in ("torch", "numba"):
        model = GPT(FORMS["grouped"], ops)
        copy = pickle.loads(pickle.dumps(model))
        assert torch.equal(copy(x, y), model(x, y))


@pytest.mark.parametrize("form", ["gpt2", "grouped"])
def test_traces_as_one_graph(form):
    model = GPT(FORMS[form])
    x, y = batch()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, y), model(x, y))


def test_sizes_that_follow():
    config = FORMS["grouped"]
    assert (config.head_width, config.kv_width, config.hidden) == (8, 16, 88)
    assert config.kv_cache_bytes(batch=3, positions=5) == 2 * 2 * 3 * 5 * 2 * 8 * 4
    assert GPTConfig.gpt2().kv_cache_bytes(itemsize=2) == 37_748_736  # 36 MiB a sequence of 1024
    assert GPTConfig.llama().hidden == 11_008


@pytest.mark.parametrize("form", ["gpt2", "grouped"])
def test_an_operation_that_is_missing_is_named_and_not_taken_from_torch(form, monkeypatch):
    """Without any one of our operations that a form uses, the model on our kernels does not compute."""
    model = GPT(FORMS[form], "numba")
    kernels = ops_torch.backend("numba")
    used = {"embedding", "linear", "attention", "linear_cross_entropy", "dropout"}
    used |= {"layernorm", "gelu"} if form == "gpt2" else {"rmsnorm", "swiglu", "rope"}
    for op in used:
        with monkeypatch.context() as patch:
            patch.delattr(kernels, op)
            with pytest.raises(AttributeError, match=f"no attribute '{op}'"):
                model(*batch())


def test_errors():
    def config(**changes):
        return GPTConfig.llama(**(SIZES | changes))

    for message, changes in {
        r"^n_heads=5 does not divide width=32: each head needs a whole number of channels. Nearest "
        r"widths that work: 30 and 35.$": dict(n_heads=5),
        r"^n_heads=40 does not divide width=32: .* Nearest widths that work: 40.$": dict(
            n_heads=40
        ),
        r"^n_kv_heads=3 does not divide n_heads=4: .* Numbers that work: 1, 2, 4.$": dict(
            n_kv_heads=3
        ),
        r"^n_kv_heads must be between 1 and 4, got 8.$": dict(n_kv_heads=8),
        r"^positions=\"rotary\" turns channels in pairs, and a head has width / n_heads = 1: ": dict(
            n_heads=32
        ),
        r"^norm must be one of 'layernorm', 'rmsnorm', got 'rms'": dict(norm="rms"),
        r"^mlp must be one of .*, got 'swigul'. Did you mean 'swiglu'": dict(mlp="swigul"),
        r"^positions must be one of 'learned', 'rotary', got 'rope'": dict(positions="rope"),
        r"^vocab_size must be at least 1, got 0.$": dict(vocab_size=0),
        r"^hidden must be at least 1, got 0.$": dict(hidden=0),
        r"^dropout must be at least 0 and below 1, got 1: at 1 nothing is left.$": dict(dropout=1),
        r"^eps must be at least 0, got -1.$": dict(eps=-1),
        r"^rope_base must be at least 1, got 0.$": dict(rope_base=0),
    }.items():
        with pytest.raises(ValueError, match=message):
            config(**changes)
    with pytest.raises(ValueError, match=r"^ops must be one of 'numba', 'torch', got 'cuda'"):
        GPT(config(), "cuda")
    x, _ = batch(length=17)
    with pytest.raises(
        ValueError, match=r"^tokens reach position 17, the context of this model is 16"
    ):
        GPT(config())(x)
    with pytest.raises(ValueError, match=r"^tokens must have shape \(B, T\), got \(17,\).$"):
        GPT(config())(x[0])
