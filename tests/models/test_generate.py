"""Generation: the cache changes no token, the draws follow the probabilities, and these are cut as they say."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab import rng  # noqa: E402  (needs torch)
from bigmodel_lab.models import GPT, GPTConfig  # noqa: E402
from bigmodel_lab.models.generate import KVCache, generate, probabilities  # noqa: E402

SIZES = dict(vocab_size=50, context=16, n_layers=2, width=32, n_heads=4)
FORMS = {
    "gpt2": GPTConfig.gpt2(**SIZES),
    "llama": GPTConfig.llama(**SIZES),
    "grouped": GPTConfig.llama(**SIZES, n_kv_heads=2),
}
PROMPT = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def lively(form, ops="torch", dtype=torch.float32):
    """A model whose weights are large enough for its text not to repeat one token."""
    model = GPT(FORMS[form], ops, seed=1).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 2:
                p.mul_(12)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize("form", FORMS)
def test_with_cache_equals_without_token_for_token(form, ops, dtype):
    model = lively(form, ops, dtype)
    for options in ({}, {"temperature": 1.5, "top_k": 20, "top_p": 0.95}):
        out = [
            generate(
                model,
                PROMPT,
                12,  # to the end of the context, and the one token after it
                rng.generator(0, "sample") if options else None,
                use_cache=use_cache,
                **options,
            )
            for use_cache in (True, False)
        ]
        assert out[0].shape == (2, 17)
        assert torch.equal(*out)
        assert torch.equal(out[0][:, :5], PROMPT)
        assert len(set(out[0][0, 5:].tolist())) > (5 if options else 2)


@pytest.mark.parametrize("form", FORMS)
def test_logits_with_cache_fed_in_pieces(form):
    model = lively(form, dtype=torch.float64)
    tokens = torch.randint(50, (2, 16), generator=torch.Generator().manual_seed(0))
    whole = model(tokens)
    for pieces in ([16], [5, 1, 6, 4], [1] * 16):
        cache = KVCache(model.config, 2, model.tokens.weight)
        with torch.no_grad():
            parts = [model(part, cache=cache) for part in tokens.split(pieces, 1)]
        assert len(cache) == 16
        torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-12)


def test_cache_takes_the_memory_that_the_config_says():
    config = FORMS["grouped"]
    cache = KVCache(config, 3, torch.empty(0))
    taken = sum(cache[l].memory.nbytes for l in range(config.n_layers))
    assert taken == config.kv_cache_bytes(batch=3)
    assert len(cache) == 0


def test_greedy_takes_the_likeliest():
    model = lively("grouped")
    tokens = PROMPT
    for _ in range(6):
        tokens = torch.cat([tokens, model(tokens)[:, -1:].argmax(-1)], 1)
    assert torch.equal(generate(model, PROMPT, 6), tokens)
    assert torch.equal(generate(model, PROMPT, 6, rng.generator(0), top_k=1), tokens)
    assert torch.equal(generate(model, PROMPT, 6, rng.generator(0), top_p=1e-9), tokens)
    assert torch.equal(generate(model, PROMPT, 6, rng.generator(0), temperature=1e-9), tokens)


def test_rows_do_not_influence_each_other():
    model = lively("gpt2")
    together = generate(model, PROMPT, 8)
    assert torch.equal(generate(model, PROMPT[1:], 8)[0], together[1])


def test_generators():
    model = lively("gpt2")

    def text(generator):
        return generate(model, PROMPT, 10, generator)

    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert torch.equal(text(rng.generator(3)), text(rng.generator(3)))
    assert not torch.equal(text(rng.generator(3)), text(rng.generator(4)))
    first = text(torch.Generator().manual_seed(3))
    assert torch.equal(first, text(torch.Generator().manual_seed(3)))
    assert not torch.equal(first, text(torch.Generator().manual_seed(4)))
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(
        TypeError,
        match=r"^generator must be a numpy.random.Generator or a torch.Generator, got int",
    ):
        text(0)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_tokens_are_drawn_as_often_as_they_are_likely(kind):
    model = lively("gpt2")
    n = 4000
    g = rng.generator(0) if kind == "numpy" else torch.Generator().manual_seed(0)
    drawn = generate(model, PROMPT[:1].repeat(n, 1), 1, g, temperature=1.5, top_k=10)[:, -1]
    p = probabilities(model(PROMPT[:1])[:, -1], 1.5, 10)[0].detach().numpy()
    counts = np.bincount(drawn, minlength=50)
    assert counts[p == 0].sum() == 0
    kept = p > 0
    chi2 = ((counts - n * p)[kept] ** 2 / (n * p)[kept]).sum()
    assert chi2 < 33.7  # 9 degrees of freedom: above this once in 10,000 seeds


LOGITS = torch.tensor([[0.4, 0.3, 0.1, 0.2], [0.25, 0.25, 0.25, 0.25]]).log()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[0.4, 0.3, 0.1, 0.2], [0.25] * 4]),
        ({"temperature": 0.5}, [[16 / 30, 9 / 30, 1 / 30, 4 / 30], [0.25] * 4]),
        ({"top_k": 2}, [[4 / 7, 3 / 7, 0, 0], [0.5, 0.5, 0, 0]]),
        ({"top_k": 4, "top_p": 1.0}, [[0.4, 0.3, 0.1, 0.2], [0.25] * 4]),
        ({"top_p": 0.35}, [[1, 0, 0, 0], [0.5, 0.5, 0, 0]]),
        ({"top_p": 0.75}, [[4 / 9, 3 / 9, 0, 2 / 9], [1 / 3, 1 / 3, 1 / 3, 0]]),
        # of the two kept by top_k the first has 4/7 > 0.5 already
        ({"top_k": 2, "top_p": 0.55}, [[1, 0, 0, 0], [0.5, 0.5, 0, 0]]),
    ],
)
def test_probabilities(options, expected):
    p = probabilities(LOGITS, **options)
    torch.testing.assert_close(p, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


def test_probabilities_of_large_logits_and_small_temperature():
    p = probabilities(torch.tensor([[1e4, 1e4 - 1, -1e4]]), 1e-4)
    assert torch.equal(p, torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))


def test_stop():
    model = lively("gpt2")
    free = generate(model, PROMPT, 12)
    stop = free[0, 8].item()
    first = {row: free[row, 5:].tolist().index(stop) for row in (0, 1) if stop in free[row, 5:]}
    out = generate(model, PROMPT, 12, stop=stop)
    at = 5 + first[0]
    assert torch.equal(out[0, : at + 1], free[0, : at + 1])
    assert (out[0, at:] == stop).all()
    alone = generate(model, PROMPT[:1], 12, stop=stop)
    assert torch.equal(alone, free[:1, : at + 1])  # nothing is computed after it


def test_dropout_is_off_and_the_mode_is_kept():
    plain = GPT(FORMS["gpt2"])
    model = GPT(GPTConfig.gpt2(**SIZES, dropout=0.5))
    assert torch.equal(generate(model.train(), PROMPT, 5), generate(plain, PROMPT, 5))
    assert model.training
    with pytest.raises(TypeError):
        generate(model, PROMPT, 5, generator=0)
    assert model.training
    generate(model.eval(), PROMPT, 1)
    assert not model.training


def test_nothing_to_generate():
    assert torch.equal(generate(lively("gpt2"), PROMPT, 0), PROMPT)


def test_errors():
    model = GPT(FORMS["gpt2"])
    with pytest.raises(
        ValueError, match=r"^tokens must have shape \(B, T\) with T >= 1, got \(2, 0\): "
    ):
        generate(model, PROMPT[:, :0], 1)
    with pytest.raises(ValueError, match=r"^tokens must have shape .*, got \(5,\): "):
        generate(model, PROMPT[0], 1)
    with pytest.raises(
        ValueError,
        match=r"^5 tokens and n_new=13 do not fit context=16: pass only the last tokens, or n_new up to 12.$",
    ):
        generate(model, PROMPT, 13)
    with pytest.raises(ValueError, match=r"^n_new must be at least 0, got -1"):
        generate(model, PROMPT, -1)
    for option in ({"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.5}):
        with pytest.raises(
            ValueError, match=r"^temperature, top_k and top_p have no effect without a generator"
        ):
            generate(model, PROMPT, 1, **option)
    with pytest.raises(ValueError, match=r"^temperature must be at least .*, got 0.$"):
        probabilities(LOGITS, 0)
    with pytest.raises(ValueError, match=r"^top_k must be between 1 and 4, got 5.$"):
        probabilities(LOGITS, top_k=5)
    with pytest.raises(ValueError, match=r"^top_p must be between .* and 1, got 0.$"):
        probabilities(LOGITS, top_p=0)
