"""The encoder-decoder against a twin of torch.nn layers, what each part may see, padding, translation, and that it learns."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402  (needs torch)

from bigmodel_lab.models import EncoderDecoder, EncoderDecoderConfig  # noqa: E402

SMALL = EncoderDecoderConfig(vocab_size=30, context=12, n_layers=2, width=24, n_heads=3, hidden=64)
LENGTHS = torch.tensor([9, 4, 1])


def batch(rows=3):
    g = torch.Generator().manual_seed(0)
    source, target = (
        torch.randint(30, (rows, 9), generator=g),
        torch.randint(30, (rows, 8), generator=g),
    )
    targets = target[:, 1:].clone()
    targets[1:, 4:] = -100
    return source, target[:, :-1], targets


def lively(ops="torch", dtype=torch.float32, config=SMALL):
    """A model none of whose parameters is 0 or 1."""
    model = EncoderDecoder(config, ops).to(dtype)
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=g, dtype=dtype), alpha=0.1)
    return model


class Twin(nn.Module):
    """The same model of torch's own layers, with the parameters of `model` in them."""

    def __init__(self, model):
        super().__init__()
        c = model.config
        options = dict(activation="gelu", norm_first=True, batch_first=True, dropout=0.0)
        sizes = c.width, c.n_heads, c.hidden
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(*sizes, **options) for _ in model.encoder
        )
        self.decoder = nn.ModuleList(
            nn.TransformerDecoderLayer(*sizes, **options) for _ in model.decoder
        )
        self.source_norm, self.target_norm = nn.LayerNorm(c.width), nn.LayerNorm(c.width)
        self.tokens = nn.Parameter(torch.empty(c.vocab_size, c.width))
        self.positions = nn.Parameter(torch.empty(2, c.context, c.width))
        self.to(model.tokens.dtype).load_state_dict(named_as_torchs(dict(model.state_dict())))

    def forward(self, source, target, lengths):
        padding = torch.arange(source.shape[1]) >= lengths[:, None]
        T = target.shape[1]
        hidden = torch.ones(T, T, dtype=torch.bool).triu(1)
        s = self.tokens[source] + self.positions[0, : source.shape[1]]
        for layer in self.encoder:
            s = layer(s, src_key_padding_mask=padding)
        s, t = self.source_norm(s), self.tokens[target] + self.positions[1, :T]
        for layer in self.decoder:
            t = layer(t, s, tgt_mask=hidden, memory_key_padding_mask=padding)
        return self.target_norm(t) @ self.tokens.T


def named_as_torchs(ours):
    """The tensors of an EncoderDecoder under the names of the twin; queries, keys and values in one matrix."""
    found = {}
    for name, p in ours.items():
        side, *rest = name.split(".")
        if len(rest) < 2:
            found[name] = p
            continue
        block, part, *inner, kind = rest
        layer = f"{side}.{block}"
        if part in ("attention", "cross"):
            theirs = f"{layer}.{'self_attn' if part == 'attention' else 'multihead_attn'}"
            if inner == ["out"]:
                found[f"{theirs}.out_proj.{kind}"] = p
            elif inner == ["q"]:
                found[f"{theirs}.in_proj_{kind}"] = torch.cat(
                    [p, ours[name.replace(".q.", ".kv.")]]
                )
        elif part == "norm3" and side == "encoder":
            found[f"{layer}.norm2.{kind}"] = p
        else:
            found[f"{layer}.{ {'up': 'linear1', 'down': 'linear2'}.get(part, part) }.{kind}"] = p
    return found


@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_logits_loss_and_gradients_are_those_of_torchs_layers(dtype, tolerance, ops):
    model = lively(ops, dtype)
    twin = Twin(model)
    source, target_in, targets = batch()
    logits = twin(source, target_in, LENGTHS)
    theirs = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    theirs.backward()
    loss = model(source, target_in, targets, LENGTHS)
    loss.backward()
    grads = named_as_torchs({n: p.grad for n, p in model.named_parameters()})
    pairs = {"logits": (model(source, target_in, None, LENGTHS), logits), "loss": (loss, theirs)}
    pairs |= {n: (grads.pop(n), p.grad) for n, p in twin.named_parameters()}
    assert not grads
    for name, (a, b) in pairs.items():
        assert (a - b).abs().max() < tolerance, name
        assert b.abs().max() > 1e-3, name


def test_number_of_parameters():
    for config in (SMALL, EncoderDecoderConfig()):
        with torch.device("meta"):
            model = EncoderDecoder(config)
        assert sum(p.numel() for p in model.parameters()) == config.n_parameters
    assert 60e6 < config.n_parameters < 66e6  # "65 million" in the paper's table 3


def test_who_sees_whom():
    model = lively(dtype=torch.float64)
    source, target, _ = batch(1)
    logits, states = model(source, target), model.encode(source)
    for t in range(target.shape[1]):
        changed = target.clone()
        changed[0, t] = (target[0, t] + 1) % 30
        moved = (model(source, changed) - logits).abs().amax((0, 2))
        assert (moved[:t] == 0).all()  # a later target token has no influence
        assert (moved[t:] > 1e-6).all()
    for u in range(source.shape[1]):
        changed = source.clone()
        changed[0, u] = (source[0, u] + 1) % 30
        assert ((model.encode(changed) - states).abs().amax(-1) > 1e-6).all()
        assert ((model(changed, target) - logits).abs().amax(-1) > 1e-6).all()


def test_one_state_for_each_source_token():
    model = EncoderDecoder(SMALL)
    assert [model.encode(batch(2)[0][:, :S]).shape for S in (1, 9)] == [(2, 1, 24), (2, 9, 24)]


@pytest.mark.parametrize("ops", ["torch", "numba"])
def test_padding_changes_nothing(ops):
    model = lively(ops, torch.float64)
    source, target, targets = batch()
    states, logits = model.encode(source, LENGTHS), model(source, target, None, LENGTHS)
    loss = model(source, target, targets, LENGTHS)
    for row, n in enumerate(LENGTHS.tolist()):
        alone = source[row : row + 1, :n]
        torch.testing.assert_close(states[row, :n], model.encode(alone)[0], rtol=0, atol=1e-12)
        want = model(alone, target[row : row + 1])[0]
        torch.testing.assert_close(logits[row], want, rtol=0, atol=1e-12)
        source[row, n:] = (source[row, n:] + 7) % 30  # another padding token
    assert torch.equal(model(source, target, None, LENGTHS), logits)
    target[targets == -100] = 3  # nor does the target's padding count
    assert torch.equal(model(source, target, targets, LENGTHS), loss)
    assert not torch.equal(model(source, target), logits)  # without lengths it is seen


def test_translation_leaves_the_mode_and_has_no_dropout():
    config = EncoderDecoderConfig(30, 12, 2, 24, 3, 64, dropout=0.5)
    model, plain = lively(config=config), lively()
    source, target_in, targets = batch()
    assert torch.equal(model.translate(source, 1, 2, 5), plain.translate(source, 1, 2, 5))
    assert model.training
    with pytest.raises(ValueError, match=r"^max_tokens must be between 1 and 12, got 13"):
        model.translate(source, 1, 2, 13)
    assert model.training
    torch.manual_seed(0)
    assert model(source, target_in, targets) != model(source, target_in, targets)
    model.eval()
    model.translate(source, 1, 2, 1)
    assert not model.training
    assert torch.equal(model(source, target_in), plain(source, target_in))


def test_initial_weights():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, other = (
        EncoderDecoder(SMALL),
        EncoderDecoder(SMALL, "numba"),
        EncoderDecoder(SMALL, seed=1),
    )
    assert torch.equal(torch.get_rng_state(), state)
    for (name, p), q, r in zip(
        a.named_parameters(), b.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(p, q)
        if p.ndim == 1:
            assert (p == (0.0 if name.endswith("bias") else 1.0)).all()
        else:
            assert not torch.equal(p, r)
            std = 0.02 if name in ("tokens", "positions") else p.shape[1] ** -0.5
            assert p.std().item() == pytest.approx(std, rel=5 / (2 * p.numel()) ** 0.5)


def reversing(ops, steps):
    """Losses while learning to write a sequence of 2 to 5 tokens backwards, and the model."""
    model = EncoderDecoder(EncoderDecoderConfig(12, 8, 1, 32, 2, 64), ops)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    g, history = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        source, target_in, targets, lengths = task(64, g)
        optimizer.zero_grad()
        loss = model(source, target_in, targets, lengths)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return torch.tensor(history), model


def task(rows, g):
    """Sources of tokens 2 ... 11, padded with 0; targets backwards, after the start 0 and before the stop 1."""
    lengths = torch.randint(2, 6, (rows,), generator=g)
    source = torch.zeros(rows, 5, dtype=torch.int64)
    target_in, targets = torch.zeros(rows, 6, dtype=torch.int64), torch.full((rows, 6), -100)
    for row, n in enumerate(lengths.tolist()):
        source[row, :n] = torch.randint(2, 12, (n,), generator=g)
        target_in[row, 1 : n + 1] = targets[row, :n] = source[row, :n].flip(0)
        targets[row, n] = 1
    return source, target_in, targets, lengths


@pytest.fixture(scope="module")
def trained():
    return reversing("torch", 250)


def test_it_learns_to_write_backwards(trained):
    losses, model = trained
    assert losses[0] > 2.3  # log(12) = 2.48: nothing is known yet
    source, _, targets, lengths = task(200, torch.Generator().manual_seed(1))
    written = model.translate(source, 0, 1, 6, lengths)
    right = (written == torch.where(targets == -100, 1, targets)[:, : written.shape[1]]).all(1)
    assert right.float().mean() > 0.9
    torch.testing.assert_close(reversing("numba", 10)[0], losses[:10], rtol=0, atol=1e-4)


@pytest.mark.parametrize("ops", ["torch", "numba"])
def test_translation_takes_the_likeliest_token_of_the_whole_model(trained, ops):
    model = EncoderDecoder(trained[1].config, ops).double()
    model.load_state_dict(trained[1].state_dict())
    source, _, _, lengths = task(20, torch.Generator().manual_seed(2))
    got = model.translate(source, 0, 1, 8, lengths)
    target = torch.zeros(20, 1, dtype=torch.int64)
    for _ in range(got.shape[1]):
        new = model(source, target, None, lengths)[:, -1:].argmax(-1)
        done = (target == 1).any(1, keepdim=True)
        target = torch.cat([target, torch.where(done, 1, new)], 1)
    assert torch.equal(got, target[:, 1:])
    assert len(set(got.flatten().tolist())) > 8
    # the text ends when the longest row has stopped, and each row is the one that it is alone
    ends = [row.index(1) for row in got.tolist()]
    assert max(ends) == got.shape[1] - 1
    assert min(ends) < max(ends)
    for row in range(3):
        alone = model.translate(source[row : row + 1, : lengths[row]], 0, 1, 8)
        assert alone[0].tolist() == got[row, : ends[row] + 1].tolist()
    assert torch.equal(model.translate(source, 0, 1, 2, lengths), got[:, :2])


def test_errors():
    with pytest.raises(ValueError, match=r"^n_heads=5 does not divide width=24: .* 20 and 25"):
        EncoderDecoderConfig(width=24, n_heads=5)
    with pytest.raises(ValueError, match=r"^n_layers must be at least 1, got 0.$"):
        EncoderDecoderConfig(n_layers=0)
    with pytest.raises(ValueError, match=r"^dropout must be at least 0 and below 1, got 1"):
        EncoderDecoderConfig(dropout=1)
    with pytest.raises(ValueError, match=r"^ops must be one of 'numba', 'torch', got 'cuda'"):
        EncoderDecoder(SMALL, "cuda")
    model = EncoderDecoder(SMALL)
    source, target_in, targets = batch()
    want = r"^source tokens must have shape \(B, T\) with 1 <= T <= 12, got \(3, 18\)"
    with pytest.raises(ValueError, match=want):
        model(torch.cat([source, source], 1), target_in)
    with pytest.raises(ValueError, match=r"^target tokens must have shape .*, got \(3, 0\)"):
        model(source, target_in[:, :0])
    with pytest.raises(ValueError, match=r"^targets are all -100: there is nothing to guess.$"):
        model(source, target_in, torch.full_like(targets, -100))
    with pytest.raises(ValueError, match=r"^lengths must be between 1 and S=9"):
        EncoderDecoder(SMALL, "numba")(source, target_in, None, torch.tensor([1, 10, 3]))
