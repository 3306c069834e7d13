"""Ring attention on 2 and 4 real ranks equals attention in one process, gradients included; every byte is as predicted."""

from functools import partial

import pytest
import torch
import torch.distributed as td

from bigmodel_lab import dist, rng
from bigmodel_lab.dist.collectives import all_reduce
from bigmodel_lab.dist.context_parallel import ContextParallel
from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.ops.torch import backend

B, H, G, T, K = 2, 4, 2, 16, 6


def arrays():
    shapes = {"q": (B, H, T, K), "k": (B, G, T, K), "v": (B, G, T, K), "dy": (B, H, T, K)}
    return [torch.from_numpy(rng.generator(0, n).standard_normal(s)) for n, s in shapes.items()]


def attend(order, causal):
    wire = Wire()
    ring = ContextParallel(order=order, wire=wire)
    mine = ring.positions(T)
    q, k, v, dy = (a[:, :, mine].contiguous() for a in arrays())
    for a in (q, k, v):
        a.requires_grad_()
    y = ring.attention(q, k, v, causal)
    y.backward(dy)
    return mine, [y.detach(), q.grad, k.grad, v.grad], wire.total_bytes


@pytest.mark.parametrize(
    ("ranks", "order", "causal"),
    [(2, "contiguous", True), (4, "zigzag", True), (4, "contiguous", False), (1, "zigzag", True)],
)
def test_equals_one_process(ranks, order, causal):
    q, k, v, dy = arrays()
    for a in (q, k, v):
        a.requires_grad_()
    y = backend("torch").attention(q, k, v, causal=causal)
    y.backward(dy)
    want = [y.detach(), q.grad, k.grad, v.grad]
    seen = []
    for mine, got, sent in dist.run(attend, order, causal, ranks=ranks):
        seen += mine.tolist()
        for a, b in zip(got, want, strict=True):
            assert torch.allclose(a, b[:, :, mine], rtol=0, atol=1e-13)
        block = B * G * T // ranks * K * 8  # keys of one rank
        assert sent == (0 if ranks == 1 else ((ranks - 1) * (2 + 4) + 2) * block)
    assert sorted(seen) == list(range(T))


def gpt_gradients(form):
    config = {
        "gpt2": GPTConfig.gpt2(vocab_size=11, context=T, n_layers=2, width=16, n_heads=4),
        "llama": GPTConfig.llama(
            vocab_size=11, context=T, n_layers=2, width=16, n_heads=4, n_kv_heads=2
        ),
    }[form]
    model = GPT(config, seed=1).double()
    tokens = torch.from_numpy(rng.generator(1, "tokens").integers(11, size=(B, T + 1)))
    return model, tokens[:, :-1], tokens[:, 1:]


def train_shared(form):
    model, tokens, targets = gpt_gradients(form)
    loss = ContextParallel().loss(model, tokens, targets)
    loss.backward()
    total = all_reduce(loss.detach().clone().reshape(1)).item()
    for p in model.parameters():
        all_reduce(p.grad)
    return total, {n: p.grad for n, p in model.named_parameters()}


@pytest.mark.parametrize("form", ["gpt2", "llama"])
def test_a_gpt_over_its_positions(form):
    model, tokens, targets = gpt_gradients(form)
    want = model(tokens, targets)
    want.backward()
    for loss, gradients in dist.run(train_shared, form, ranks=2):
        assert loss == pytest.approx(want.item(), abs=1e-13)
        for name, p in model.named_parameters():
            assert torch.allclose(gradients[name], p.grad, rtol=0, atol=1e-13), name


def test_dropout_is_that_of_the_model():
    """Alone and in order, a rank draws the masks that the model draws."""

    def losses():
        config = GPTConfig.gpt2(
            vocab_size=11, context=T, n_layers=1, width=16, n_heads=4, dropout=0.5
        )
        model, found = GPT(config, seed=1), []
        _, tokens, targets = gpt_gradients("gpt2")
        for training in (True, False):
            for loss in (
                model.train(training),
                partial(ContextParallel(order="contiguous").loss, model),
            ):
                torch.manual_seed(7)
                found.append(loss(tokens, targets).item())
        return found

    [(drawn, shared, quiet, shared_quiet)] = dist.run(losses, ranks=1)
    assert (shared, shared_quiet) == pytest.approx((drawn, quiet), abs=1e-6)
    assert abs(drawn - quiet) > 0.01


def test_zigzag_shares_the_work_evenly():
    """Pairs of query and key that are not hidden: the same on every rank in zig-zag, rising with the rank otherwise."""

    def pairs(order):
        return int((ContextParallel(order=order).positions(T) + 1).sum())

    assert len(set(dist.run(pairs, "zigzag", ranks=4))) == 1
    contiguous = dist.run(pairs, "contiguous", ranks=4)
    assert contiguous == sorted(contiguous)
    assert contiguous[-1] > 5 * contiguous[0]


def test_positions_that_cannot_be_cut():
    with pytest.raises(
        dist.RankError, match="T=6 positions cannot be cut into 4 equal pieces: pad to 8"
    ):
        dist.run(lambda: ContextParallel().positions(6) and td, ranks=2)
