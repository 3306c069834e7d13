"""The GRU language model: its layer is torch's GRU, it sees no later token, carries its state, and learns."""

import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab.models.rnn import GRULM, GRULayer  # noqa: E402  (needs torch)
from bigmodel_lab.ops.torch import backend  # noqa: E402


def batch(rows=3, length=10):
    tokens = torch.randint(20, (rows, length + 1), generator=torch.Generator().manual_seed(0))
    return tokens[:, :-1], tokens[:, 1:]


@pytest.mark.parametrize("ops", ["torch", "numba"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_layer_is_the_gru_of_torch(ops, dtype, atol):
    g = torch.Generator().manual_seed(0)
    ours = GRULayer(5, 7).to(dtype)
    with torch.no_grad():
        for p in ours.parameters():
            p.copy_(0.5 * torch.randn(p.shape, generator=g))
    with torch.random.fork_rng():
        peer = torch.nn.GRU(5, 7, batch_first=True, dtype=dtype)
    peer.load_state_dict(ours.state_dict())
    x = torch.randn(3, 6, 5, generator=g).to(dtype).requires_grad_()
    h = torch.randn(3, 7, generator=g).to(dtype)
    dy = torch.randn(3, 6, 7, generator=g).to(dtype)
    x2 = x.detach().clone().requires_grad_()
    y, theirs = ours(x, h, backend(ops)), peer(x2, h[None])[0]
    y.backward(dy)
    theirs.backward(dy)
    torch.testing.assert_close(y, theirs, rtol=0, atol=atol)
    torch.testing.assert_close(x.grad, x2.grad, rtol=0, atol=10 * atol)
    for (name, p), q in zip(ours.named_parameters(), peer.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=0, atol=20 * atol, msg=name)


def test_parameters():
    model = GRULM(20, 8, 2)
    assert sum(p.numel() for p in model.parameters()) == 20 * 8 + 2 * (2 * 24 * 8 + 2 * 24)
    assert sum(p.numel() for p in GRULM(20, 8, tied=False).parameters()) == 2 * 160 + 432
    torch.manual_seed(0)
    state = torch.get_rng_state()
    same, other = GRULM(20, 8, 2, ops="numba"), GRULM(20, 8, 2, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for p, q, r in zip(model.parameters(), same.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.abs().max() <= 8**-0.5
        assert p.ndim == 1 or not torch.equal(p, r)


@pytest.mark.parametrize("ops", ["torch", "numba"])
def test_no_position_sees_a_later_token(ops):
    model = GRULM(20, 8, 2, ops=ops)
    x, _ = batch(rows=1)
    before = model(x)[0]
    for t in (0, 4, 9):
        changed = x.clone()
        changed[0, t] = (x[0, t] + 1) % 20
        moved = (model(changed)[0] - before).abs().amax(-1)[0]
        assert (moved[:t] == 0).all()
        assert (moved[t:] > 0).all()


def test_state_is_carried_on():
    model = GRULM(20, 8, 2, tied=False).double()
    x, _ = batch()
    whole, after = model(x)
    first, state = model(x[:, :4])
    second, end = model(x[:, 4:], state=state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-14)
    torch.testing.assert_close(end, after, rtol=0, atol=1e-14)


def losses(ops, steps):
    model = GRULM(20, 24, ops=ops)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    x, y = batch()
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(x, y)
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    return torch.tensor(history)


def test_one_batch_is_learned_by_heart_with_either_kind_of_operation():
    theirs = losses("torch", 80)
    assert theirs[-1] < 0.03
    torch.testing.assert_close(losses("numba", 10), theirs[:10], rtol=0, atol=1e-4)


def test_loss_is_the_mean_cross_entropy_of_the_logits():
    model = GRULM(20, 8)
    x, y = batch()
    by_hand = -model(x)[0].log_softmax(-1).gather(-1, y[..., None]).mean()
    torch.testing.assert_close(model(x, y), by_hand)


def test_errors():
    with pytest.raises(ValueError, match=r"^width must be at least 1, got 0.$"):
        GRULM(20, 0)
    with pytest.raises(ValueError, match=r"^ops must be one of 'numba', 'torch', got 'cuda'"):
        GRULM(20, 8, ops="cuda")
    with pytest.raises(
        ValueError, match=r"^tokens must have shape \(B, T\) with T >= 1, got \(2, 0\).$"
    ):
        GRULM(20, 8)(torch.zeros(2, 0, dtype=torch.int64))
