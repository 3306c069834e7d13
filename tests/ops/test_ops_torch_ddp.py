"""Our operations under torch's DistributedDataParallel: two real ranks compute what one process computes. One launch."""

import pytest

torch = pytest.importorskip("torch")

from bigmodel_lab import dist  # noqa: E402
from bigmodel_lab.models import CNN, GPT, GRULM, GPTConfig  # noqa: E402  (needs torch)

STEPS, ROWS = 3, 4  # rows of a batch: each of the two ranks gets half


def models():
    """One model of each kind, in float64, with every operation that training uses among them."""
    sizes = dict(vocab_size=17, context=6, n_layers=2, width=8, n_heads=4, hidden=12)
    grouped = {**sizes, "n_kv_heads": 2, "hidden": 16}
    return {
        "GPT-2": GPT(GPTConfig.gpt2(**sizes), "numba"),
        "Llama": GPT(GPTConfig.llama(**grouped), "numba"),
        "GRU": GRULM(17, 8, 2, ops="numba"),
        "CNN": WithLoss(CNN([1, 3, 4], (8, 8), 5, ops="numba")),
    }


class WithLoss(torch.nn.Module):
    """DDP looks at what `forward` returns: make it the loss."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x, targets):
        return self.model.loss(x, targets)


def batch(name):
    g = torch.Generator().manual_seed(0)
    if name == "CNN":
        x = torch.randn(ROWS, 8, 8, generator=g, dtype=torch.float64)
        return x, torch.randint(5, (ROWS,), generator=g)
    tokens = torch.randint(17, (ROWS, 7), generator=g)
    return tokens[:, :-1], tokens[:, 1:]


def train(rank=0, ranks=1):
    """By model: the mean loss and all gradients of each step of SGD, as lists of floats, on every ranks-th row."""
    torch.manual_seed(rank)  # it must not matter
    results = {}
    for name, model in models().items():
        model = model.double()
        if ranks > 1:
            model = torch.nn.parallel.DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        x, y = (a[rank::ranks] for a in batch(name))
        steps = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = model(x, y)
            loss.backward()
            optimizer.step()
            mean = loss.detach().clone()
            if ranks > 1:
                torch.distributed.all_reduce(mean)
            grads = torch.cat([p.grad.flatten() for p in model.parameters()])
            steps.append([mean.item() / ranks, *grads.tolist()])
        results[name] = steps
    return results


def in_a_rank():
    return train(torch.distributed.get_rank(), torch.distributed.get_world_size())


def test_two_ranks_give_the_losses_and_gradients_of_one_process():
    alone = train()
    ranks = dist.run(in_a_rank, ranks=2, timeout_s=120)
    for name, steps in alone.items():
        want = torch.tensor(steps, dtype=torch.float64)
        assert want[-1, 0] < want[0, 0], name  # it learned
        for result in ranks:
            got = torch.tensor(result[name], dtype=torch.float64)
            torch.testing.assert_close(got, want, rtol=0, atol=1e-12, msg=name)
        half = torch.tensor(ranks[0][name]) - torch.tensor(ranks[1][name])
        assert half.abs().max() == 0, name  # the ranks agree to the bit
