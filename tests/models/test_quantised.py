"""A GPT with weights of 8 and 4 bits: what it computes, its memory, generation, that it trains no more, and files."""

import io

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab import ops  # noqa: E402  (needs torch)
from bigmodel_lab.models import (  # noqa: E402
    GPT,
    GPTConfig,
    QuantisedMatrix,
    quantise,
    weights_bytes,
)
from bigmodel_lab.models.generate import KVCache, generate  # noqa: E402
from bigmodel_lab.ops.torch.quantised import linear_quantised  # noqa: E402

SIZES = dict(vocab_size=50, context=16, n_layers=2, width=96, n_heads=4)
FORMS = {
    "gpt2": GPTConfig.gpt2(**SIZES),
    "llama": GPTConfig.llama(**SIZES),
    "grouped": GPTConfig.llama(**SIZES, n_kv_heads=2, tied=True, bias=True),
}
TOKENS = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(0))


def lively(form, dtype=torch.float32):
    """A model whose outputs depend on its tokens."""
    model = GPT(FORMS[form], seed=1).to(dtype)
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(5)
            else:
                p.add_(torch.randn(p.shape, generator=g, dtype=dtype), alpha=0.1)
    return model


def rounded(model, bits):
    """The float model with the weights that the quantised one stands for."""
    twin = GPT(model.config).to(model.norm.weight.dtype)
    twin.load_state_dict(model.state_dict())
    with torch.no_grad():
        for module in twin.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
                w = module.weight.numpy()
                if bits == 8:
                    w = ops.dequantise_int8(*ops.quantise_int8(w))
                else:
                    w = ops.dequantise_int4(*ops.quantise_int4(w), w.shape[1])
                module.weight.copy_(torch.from_numpy(w))
    return twin


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("form", FORMS)
def test_it_is_the_model_with_rounded_weights(form, bits):
    for dtype, tolerance in ((torch.float32, 2e-3), (torch.float64, 1e-12)):
        model = lively(form, dtype)
        small, twin = quantise(model, bits), rounded(model, bits)
        # all 32 rows at once go to the kernel in float32, whose x has 16 bits; float64 to a BLAS
        want = twin(TOKENS)
        assert (small(TOKENS) - want).norm() < tolerance * want.norm()
        loss, expected = small(TOKENS, TOKENS.flip(1)), twin(TOKENS, TOKENS.flip(1))
        assert loss.item() == pytest.approx(expected.item(), rel=tolerance)


# how far the logits move from those of the float model, as a share of their size: 0.5-1 % and 10-20 % of the weights' size
# is lost, more or less alike at each of the layers
@pytest.mark.parametrize(("bits", "most"), [(8, 0.04), (4, 0.5)])
@pytest.mark.parametrize("form", FORMS)
def test_logits_are_near_those_of_the_float_model(form, bits, most):
    model = lively(form)
    with torch.no_grad():
        want, got = model(TOKENS), quantise(model, bits)(TOKENS)
    share = ((got - want).norm() / want.norm()).item()
    assert most / 50 < share < most
    assert got.dtype == want.dtype


def taught(steps=60):
    """A model that has learned to count, each token being the one before plus 1 or 2, by its parity; and such text."""
    model = GPT(GPTConfig.gpt2(vocab_size=40, context=16, n_layers=2, width=64, n_heads=2))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    g = torch.Generator().manual_seed(0)
    for _ in range(steps):
        text = counting(16, 17, g)
        optimizer.zero_grad()
        loss = model(text[:, :-1], text[:, 1:])
        loss.backward()
        optimizer.step()
    return model, counting(64, 17, g)


def counting(rows, length, g):
    text = [torch.randint(40, (rows,), generator=g)]
    parity = text[0] % 2
    for _ in range(length - 1):
        text.append((text[-1] + 1 + parity) % 40)
    return torch.stack(text, 1)


def test_a_trained_model_loses_little():
    model, text = taught()
    with torch.no_grad():
        losses = {b: quantise(model, b)(text[:, :-1], text[:, 1:]).item() for b in (8, 4)}
        loss = model(text[:, :-1], text[:, 1:]).item()
    assert loss < 1  # log(40) = 3.7 at the start
    assert abs(losses[8] - loss) < 0.01
    assert abs(losses[4] - loss) < 0.15
    prompts = text[:20, :4]
    want = generate(model, prompts, 8)
    assert (generate(quantise(model, 8), prompts, 8) == want).float().mean() > 0.97


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("form", FORMS)
def test_logits_with_cache_fed_in_pieces(form, bits):
    small = quantise(lively(form), bits)
    whole = small(TOKENS)
    cache = KVCache(small.config, 2, small.norm.weight)
    with torch.no_grad():
        parts = torch.cat([small(part, cache=cache) for part in TOKENS.split([5, 1, 6, 4], 1)], 1)
    # what differs by 1e-7 between the two ways may be rounded up in one of them, by a 16-bit step
    assert (parts - whole).norm() < 1e-3 * whole.norm()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("form", FORMS)
def test_generation_with_cache_equals_without(form, bits):
    small = quantise(lively(form, torch.float64), bits)
    prompt = TOKENS[:, :5]
    with_cache, without = (generate(small, prompt, 11, use_cache=c) for c in (True, False))
    assert torch.equal(with_cache, without)
    assert len(set(with_cache[0, 5:].tolist())) > 1
    assert not small.training


def test_memory():
    config = GPTConfig.gpt2(vocab_size=2048, context=64, n_layers=2, width=256, n_heads=4)
    model = GPT(config)
    assert weights_bytes(model) == 4 * config.n_parameters
    matrices = {n: p.shape for n, p in model.named_parameters() if p.ndim == 2 and n != "positions"}
    numbers, rows = sum(O * D for O, D in matrices.values()), sum(O for O, _ in matrices.values())
    rest = weights_bytes(model) - 4 * numbers
    assert weights_bytes(quantise(model, 8)) == numbers + 4 * rows + rest
    assert weights_bytes(quantise(model, 4)) == numbers // 2 + numbers // 64 * 4 + rest
    assert weights_bytes(model) / weights_bytes(quantise(model, 8)) > 3.5
    assert weights_bytes(model) / weights_bytes(quantise(model, 4)) > 6


def test_the_float_model_is_left_alone():
    model = lively("gpt2").train()
    before = {n: p.clone() for n, p in model.named_parameters()}
    small = quantise(model, 8)
    with torch.no_grad():
        small.norm.weight.zero_()
        small.positions.zero_()
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert model.training


def test_it_does_not_train():
    small = quantise(lively("gpt2"))
    with pytest.raises(
        RuntimeError, match=r"^A quantised model is for inference: .*Train the float"
    ):
        small.train()
    assert not small.training
    assert small.eval() is small
    assert not any(p.requires_grad for p in small.parameters())


@pytest.mark.parametrize("bits", [8, 4])
def test_gradients_pass_through_to_an_adapter(bits):
    g = torch.Generator().manual_seed(0)
    x, b = (torch.randn(s, generator=g, dtype=torch.float64) for s in ((2, 3, 5), (4,)))
    x.requires_grad_(), b.requires_grad_()
    matrix = QuantisedMatrix(torch.randn(4, 5, generator=g, dtype=torch.float64), bits)
    assert torch.autograd.gradcheck(matrix, (x, b))
    assert torch.autograd.gradcheck(matrix, (x,))
    with torch.no_grad():
        assert torch.equal(matrix(x, b), linear_quantised(x, matrix.q, matrix.scale, b))
    torch.testing.assert_close(matrix(x, b), x @ matrix.rows(torch.arange(4)).T + b)


@pytest.mark.parametrize("bits", [8, 4])
def test_its_weights_can_be_saved_and_loaded(bits):
    small = quantise(lively("llama"), bits)
    file = io.BytesIO()
    torch.save(small.state_dict(), file)
    file.seek(0)
    other = quantise(GPT(FORMS["llama"], seed=5), bits)
    assert not torch.equal(other(TOKENS), small(TOKENS))
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(TOKENS), small(TOKENS))


def test_errors():
    model = lively("gpt2")
    with pytest.raises(ValueError, match=r"^bits must be one of 4, 8, got 2"):
        quantise(model, 2)
    with pytest.raises(TypeError, match=r"^w must be .*bfloat16|BFloat16"):
        quantise(model.to(torch.bfloat16))
    model = lively("gpt2")
    with torch.no_grad():
        model.tokens.weight[3, 4] = np.nan
    with pytest.raises(ValueError, match=r"^w\[3, 4\] is nan: only finite weights can be"):
        quantise(model)
    with pytest.raises(IndexError, match=r"index out of range"):
        quantise(lively("gpt2"))(TOKENS + 40)
