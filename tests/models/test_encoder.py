"""The encoder against BertForMaskedLM of `transformers` (random weights), what it sees, and that it learns."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab import rng  # noqa: E402  (needs torch)
from bigmodel_lab.models.encoder import Encoder, EncoderConfig, hide_tokens  # noqa: E402

SMALL = EncoderConfig(vocab_size=40, context=12, n_layers=2, width=24, n_heads=3, hidden=64)


def batch(rows=3, length=12):
    g = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, 40, (rows, length), generator=g)  # transformers' 0 pads: no gradient
    targets = torch.where(torch.rand(rows, length, generator=g) < 0.3, tokens.flip(1), -100)
    return tokens, targets, torch.randint(2, (rows, length), generator=g)


def named_as_ours(weights, n_layers):
    """The tensors of a BertForMaskedLM under our names; queries, keys and values in one matrix."""
    names = {
        "tokens": "bert.embeddings.word_embeddings.weight",
        "positions": "bert.embeddings.position_embeddings.weight",
        "segments": "bert.embeddings.token_type_embeddings.weight",
        "head_bias": "cls.predictions.bias",
    }
    layers = {
        "norm": "bert.embeddings.LayerNorm",
        "head": "cls.predictions.transform.dense",
        "head_norm": "cls.predictions.transform.LayerNorm",
    }
    for l in range(n_layers):
        parts = {
            "out": "attention.output.dense",
            "norm1": "attention.output.LayerNorm",
            "up": "intermediate.dense",
            "down": "output.dense",
            "norm2": "output.LayerNorm",
        }
        layers |= {f"blocks.{l}.{o}": f"bert.encoder.layer.{l}.{t}" for o, t in parts.items()}
    found = {ours: weights[theirs] for ours, theirs in names.items()}
    for kind in ("weight", "bias"):
        found |= {f"{ours}.{kind}": weights[f"{theirs}.{kind}"] for ours, theirs in layers.items()}
        for l in range(n_layers):
            self_attention = f"bert.encoder.layer.{l}.attention.self"
            qkv = [weights[f"{self_attention}.{p}.{kind}"] for p in ("query", "key", "value")]
            found[f"blocks.{l}.qkv.{kind}"] = torch.cat(qkv)
    return found


def bert_and_ours(dtype, ops):
    transformers = pytest.importorskip(
        "transformers", reason="the peer that is compared with is not installed"
    )
    config = transformers.BertConfig(
        vocab_size=40,
        max_position_embeddings=12,
        num_hidden_layers=2,
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=64,
        attn_implementation="sdpa",
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        peer = transformers.BertForMaskedLM(config).eval()
        with torch.no_grad():
            for p in peer.parameters():
                p.copy_(p + 0.1 * torch.randn_like(p))
    peer = peer.to(dtype)
    ours = Encoder(SMALL, ops).to(dtype)
    ours.load_state_dict(named_as_ours(peer.state_dict(), 2))
    return peer, ours


@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_logits_loss_and_gradients_are_those_of_bert(dtype, tolerance, ops):
    peer, ours = bert_and_ours(dtype, ops)
    tokens, targets, segments = batch()
    logits = peer(input_ids=tokens, token_type_ids=segments).logits
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    theirs.backward()
    loss = ours(tokens, targets, segments)
    loss.backward()
    grads = named_as_ours({n: p.grad for n, p in peer.named_parameters()}, 2)
    pairs = {"logits": (ours(tokens, segments=segments), logits), "loss": (loss, theirs)}
    pairs |= {n: (p.grad, grads[n]) for n, p in ours.named_parameters()}
    for name, (a, b) in pairs.items():
        assert (a - b).abs().max() < tolerance, name
        assert b.abs().max() > 1e-3, name


@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_with_padding_real_positions_are_those_of_bert_with_an_attention_mask(
    dtype, tolerance, ops
):
    peer, ours = bert_and_ours(dtype, ops)
    tokens, targets, segments = batch()
    lengths = torch.tensor([12, 5, 1])
    real = torch.arange(12) < lengths[:, None]
    targets = torch.where(real, targets, -100)
    mask = real.to(torch.int64)
    logits = peer(input_ids=tokens, token_type_ids=segments, attention_mask=mask).logits
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    theirs.backward()
    loss = ours(tokens, targets, segments, lengths)
    loss.backward()
    got = ours(tokens, segments=segments, lengths=lengths)
    assert (got - logits)[real].abs().max() < tolerance
    assert (loss - theirs).abs() < tolerance
    grads = named_as_ours({n: p.grad for n, p in peer.named_parameters()}, 2)
    for name, p in ours.named_parameters():
        assert (p.grad - grads[name]).abs().max() < tolerance, name
    for row, n in enumerate(lengths.tolist()):
        alone = ours(tokens[row : row + 1, :n], segments=segments[row : row + 1, :n])[0]
        assert (got[row, :n] - alone).abs().max() < tolerance
        tokens[row, n:] = 1 + tokens[row, n:] % 39
    assert torch.equal(ours(tokens, segments=segments, lengths=lengths)[real], got[real])
    assert (ours(tokens, segments=segments) - got)[real].abs().max() > 1e-3  # it would be seen


def test_number_of_parameters_of_bert_base():
    with torch.device("meta"):
        model = Encoder(EncoderConfig())
    assert sum(p.numel() for p in model.parameters()) == 109_514_298


def test_every_position_sees_every_other():
    model = Encoder(SMALL)
    tokens, _, _ = batch(rows=1)
    before = model(tokens)
    for t in (0, 5, 11):
        changed = tokens.clone()
        changed[0, t] = (tokens[0, t] + 1) % 40
        assert ((model(changed) - before).abs().amax(-1) > 0).all()


def test_initial_weights():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, other = Encoder(SMALL), Encoder(SMALL, "numba"), Encoder(SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for (name, p), q, r in zip(
        a.named_parameters(), b.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(p, q)
        if p.ndim == 1:
            assert (p == (0.0 if name.endswith("bias") else 1.0)).all()
        else:
            assert not torch.equal(p, r)
            assert p.std().item() == pytest.approx(0.02, rel=5 / (2 * p.numel()) ** 0.5)


def losses(ops, steps):
    model = Encoder(SMALL, ops)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(*batch())
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return torch.tensor(history)


def test_one_batch_is_learned_by_heart_with_either_kind_of_operation():
    theirs = losses("torch", 50)
    assert theirs[-1] < 0.02
    torch.testing.assert_close(losses("numba", 10), theirs[:10], rtol=0, atol=1e-4)


def test_dropout():
    tokens, targets, _ = batch()
    model = Encoder(EncoderConfig(40, 12, 2, 24, 3, 64, dropout=0.5))
    torch.manual_seed(0)
    assert model(tokens, targets) != model(tokens, targets)
    assert torch.equal(model.eval()(tokens), Encoder(SMALL)(tokens))


def test_hidden_tokens():
    tokens = rng.generator(0).integers(1, 1000, size=100_000)
    inputs, targets = hide_tokens(tokens, 0, 1000, rng.generator(1))
    chosen = targets != -100
    assert (inputs[~chosen] == tokens[~chosen]).all()
    assert (targets[chosen] == tokens[chosen]).all()
    n = chosen.sum()
    hidden, same = (inputs[chosen] == 0).sum(), (inputs[chosen] == tokens[chosen]).sum()
    for count, total, share in ((n, 100_000, 0.15), (hidden, n, 0.8001), (same, n, 0.1001)):
        assert abs(count - total * share) < 5 * np.sqrt(total * share * (1 - share))


def test_errors():
    with pytest.raises(ValueError, match=r"^n_heads=5 does not divide width=24: each head needs"):
        EncoderConfig(width=24, n_heads=5)
    with pytest.raises(ValueError, match=r"^n_layers must be at least 1, got 0.$"):
        EncoderConfig(n_layers=0)
    with pytest.raises(
        ValueError, match=r"^tokens must have shape \(B, T\) with T <= 12, got \(1, 13\).$"
    ):
        Encoder(SMALL)(torch.zeros(1, 13, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"^ops must be one of 'numba', 'torch', got 'cuda'"):
        Encoder(SMALL, "cuda")
    with pytest.raises(ValueError, match=r"^rate must be between 0 and 1, got 2.$"):
        hide_tokens(np.arange(3), 0, 10, rng.generator(0), rate=2)
