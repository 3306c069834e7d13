"""Data parallel training on 2, 3 and 4 real ranks equals one process with the whole batch, to 1e-12 in float64.

Tied and frozen parameters, a batch that does not divide evenly, and a last batch with fewer samples than ranks are in
all of these runs. One launch per number of ranks.
"""

import numpy as np
import pytest
import torch
import torch.distributed as td
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from bigmodel_lab import dist
from bigmodel_lab.dist.data_parallel import (
    DataParallel,
    difference_from_root,
    fingerprint,
    global_batches,
    share,
)
from bigmodel_lab.dist.wire import Wire, predicted_bytes

SAMPLES, BATCH, EPOCHS = (
    23,
    7,
    3,
)  # batches of 7, 7, 7 and 2: the last leaves ranks without a sample
WIDTH, CLASSES = 6, 5


class Net(torch.nn.Module):
    """A tied matrix, a frozen one, a parameter that gets no gradient, and a buffer."""

    def __init__(self, seed: int, dtype=torch.float64):
        super().__init__()
        g = torch.Generator().manual_seed(seed)

        def weights(*shape):
            return torch.nn.Parameter(torch.randn(*shape, generator=g, dtype=dtype) * 0.4)

        self.first = weights(WIDTH, WIDTH)
        self.again = self.first
        self.frozen = weights(WIDTH, WIDTH).requires_grad_(False)
        self.bias, self.head = weights(WIDTH), weights(CLASSES, WIDTH)
        self.unused = weights(3)
        self.register_buffer("shift", torch.randn(WIDTH, generator=g, dtype=dtype))
        self.register_buffer("count", torch.tensor(seed))

    def forward(self, x):
        h = torch.tanh(x @ self.first.T + self.bias)
        h = torch.relu(h @ self.frozen.T + self.shift)
        return torch.tanh(h @ self.again.T) @ self.head.T


def samples() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, WIDTH, generator=g, dtype=torch.float64)
    return x, torch.randint(CLASSES, (SAMPLES,), generator=g)


def optimizers(net) -> dict[str, torch.optim.Optimizer]:
    used = [p for name, p in net.named_parameters() if name != "unused"]
    return {
        "sgd": torch.optim.SGD(used, lr=0.1, momentum=0.9),
        "adamw": torch.optim.AdamW(used, lr=0.01, weight_decay=0.1),
    }


def train(net, optimizer: str, rank: int, ranks: int, average=None, micro: int = 1) -> list[float]:
    """Train on this rank's share of each batch; return the losses, each weighted by the share."""
    x, y = samples()
    opt, losses = optimizers(net)[optimizer], []
    for epoch in range(EPOCHS):
        for batch in global_batches(SAMPLES, BATCH, seed=3, epoch=epoch):
            opt.zero_grad()
            mine, weight = share(batch, rank, ranks)
            loss = 0.0
            for ids in np.array_split(
                mine, micro
            ):  # accumulation: each micro-batch by its own share
                if micro > 1 and not len(ids):
                    continue
                part = F.cross_entropy(net(x[ids]), y[ids])
                scale = len(ids) / len(mine) if micro > 1 else 1.0
                (part * scale).backward()
                loss += part.item() * scale
            if average:
                average(weight)
            opt.step()
            losses.append(loss * weight if weight else 0.0)
    return losses


def distance(a, b) -> float:
    return max(
        (p - q).abs().max().item() for p, q in zip(a.parameters(), b.parameters(), strict=True)
    )


def everything() -> dict:
    """Run on every rank."""
    rank, ranks = td.get_rank(), td.get_world_size()
    off, sent, losses = {}, {}, {}
    for optimizer in ("sgd", "adamw"):
        alone = Net(seed=1)
        want = train(alone, optimizer, 0, 1)
        for bucket, micro in (("flat", 1), ("tensor", 1), ("flat", 2)):
            net, wire = (
                Net(seed=1 + 100 * rank),
                Wire(),
            )  # every rank starts with its own parameters
            replicas = DataParallel(net, bucket=bucket, wire=wire)
            mine = train(net, optimizer, rank, ranks, replicas.average_gradients, micro)
            name = f"{optimizer} {bucket} {micro}"
            off[name] = distance(net, alone)
            off[f"{name} from rank 0"] = difference_from_root(net)
            off[f"{name} loss"] = float(np.abs(_sum(mine) - want).max())
            sent[bucket] = dict(wire.sent_bytes), dict(wire.messages)
            losses[name] = fingerprint(net)
    net = Net(seed=1 + rank)
    DataParallel(net)
    start = Net(seed=1)
    off["buffers"] = (net.shift - start.shift).abs().max().item() + abs(
        net.count - start.count
    ).item()
    return {
        "off": off,
        "sent": sent,
        "fingerprints": losses,
        "odd": odd_gradients(rank, ranks),
        "torch": against_torch(rank, ranks),
        "apart": apart(rank),
        "groups": in_groups(rank, ranks),
        "mixed": mixed_dtypes(rank),
    }


def _sum(mine: list[float]) -> np.ndarray:
    total = torch.tensor(mine, dtype=torch.float64)
    td.all_reduce(total)
    return total.numpy()


def odd_gradients(rank, ranks) -> dict:
    """A rank with weight 0 whose gradients are NaN, and one that has none."""
    net = torch.nn.Linear(2, 1, bias=False)
    replicas = DataParallel(net)
    last = rank == ranks - 1
    net.weight.grad = torch.full((1, 2), float("nan")) if last else torch.ones(1, 2)
    replicas.average_gradients(0.0 if last else 1 / (ranks - 1))
    without = net.weight.grad.tolist()
    net.weight.grad = None if rank == 0 else torch.full((1, 2), float(ranks))
    replicas.average_gradients()
    return {"zero weight": without, "none": net.weight.grad.tolist()}


def against_torch(rank, ranks) -> float:
    """Distance to torch's DistributedDataParallel after 5 steps of Adam on equal shares."""
    x, y = samples()
    nets = [torch.nn.Sequential(torch.nn.Linear(WIDTH, 8), torch.nn.Tanh(), torch.nn.Linear(8, CLASSES)).double()
            for _ in range(2)]  # fmt: skip
    nets[1].load_state_dict(nets[0].state_dict())
    replicas = DataParallel(nets[0])
    theirs = torch.nn.parallel.DistributedDataParallel(nets[1])
    opts = [torch.optim.Adam(net.parameters(), lr=0.01) for net in nets]
    for step in range(5):
        mine = torch.arange(step + rank, step + rank + 3 * ranks, ranks) % SAMPLES
        for opt in opts:
            opt.zero_grad()
        F.cross_entropy(nets[0](x[mine]), y[mine]).backward()
        replicas.average_gradients()
        F.cross_entropy(theirs(x[mine]), y[mine]).backward()
        for opt in opts:
            opt.step()
    return distance(*nets)


def apart(rank) -> dict:
    """Replicas that differ in the last bit of one parameter of rank 1."""
    net = Net(seed=2)
    same = fingerprint(net), difference_from_root(net)
    if rank == 1:
        with torch.no_grad():
            net.head[0, 0] = torch.nextafter(net.head[0, 0], torch.tensor(9.0, dtype=torch.float64))
    bit = fingerprint(net), difference_from_root(net)
    if rank == 1:
        with torch.no_grad():
            net.head[0, 0] = float("nan")
    return {"same": same, "bit": bit, "nan": difference_from_root(net)}


def in_groups(rank, ranks) -> float:
    """Two independent trainings in two groups; each must equal its own single process."""
    members = [[r for r in range(ranks) if r % 2 == side] for side in (0, 1)]
    group = [td.new_group(m) for m in members][rank % 2]
    alone, net = Net(seed=50 + rank % 2), Net(seed=50 + rank)
    train(alone, "sgd", 0, 1)
    replicas = DataParallel(net, group)
    mine = members[rank % 2]
    train(net, "sgd", mine.index(rank), len(mine), replicas.average_gradients)
    return distance(net, alone)


def mixed_dtypes(rank) -> list:
    """Parameters of two dtypes keep them; each dtype has its own bucket."""
    net = torch.nn.ParameterList(
        [torch.zeros(3, dtype=torch.float64), torch.zeros(2), torch.zeros(1)]
    )
    wire = Wire()
    replicas = DataParallel(net, wire=wire)
    for p in net:
        p.grad = torch.full_like(p, rank)
    replicas.average_gradients()
    return [
        [str(p.grad.dtype) for p in net],
        [p.grad[0].item() for p in net],
        wire.messages["all_reduce"],
    ]


@pytest.fixture(scope="module", params=[2, 3, 4], ids="{} ranks".format)
def seen(request) -> list[dict]:
    return dist.run(everything, ranks=request.param, timeout_s=120)


def test_parameters_and_losses_equal_a_single_process(seen):
    misses = {name: x for rank in seen for name, x in rank["off"].items() if not x < 1e-12}
    assert misses == {}
    assert len(seen[0]["off"]) == 19


def test_replicas_are_equal_bit_for_bit(seen):
    for rank in seen:
        assert rank["fingerprints"] == seen[0]["fingerprints"]
        assert all(x == 0 for name, x in rank["off"].items() if name.endswith("from rank 0"))


def test_payload_is_what_the_formula_says(seen):
    net, ranks = Net(seed=0), len(seen)
    shapes = [p.numel() for p in net.parameters() if p.requires_grad]
    steps = EPOCHS * 4
    for r, rank in enumerate(seen):
        for bucket, sizes in (("flat", [sum(shapes)]), ("tensor", shapes)):
            sent, messages = rank["sent"][bucket]
            each = [
                predicted_bytes("all_reduce", n, ranks=ranks, rank=r, element_bytes=8)
                for n in sizes
            ]
            assert sent["all_reduce"] == steps * sum(each)
            assert messages["all_reduce"] == steps * 2 * (ranks - 1) * len(sizes)
            state = sum(t.numel() * t.element_size() for t in [*net.parameters(), *net.buffers()])
            tree = predicted_bytes("broadcast", state, ranks=ranks, rank=r, element_bytes=1)
            assert sent.get("broadcast", 0) == tree


def test_a_rank_without_samples_or_gradients_counts_as_zero(seen):
    for rank in seen:
        assert rank["odd"] == {
            "zero weight": [[pytest.approx(1.0)] * 2],
            "none": [[pytest.approx(len(seen) - 1.0)] * 2],
        }


def test_equals_torch_ddp(seen):
    assert max(rank["torch"] for rank in seen) < 1e-12


def test_one_bit_in_one_parameter_is_found(seen):
    for r, rank in enumerate(seen):
        apart = rank["apart"]
        assert apart["same"] == (seen[0]["apart"]["same"][0], 0.0)
        assert (apart["bit"][0] == apart["same"][0]) is (r != 1)
        assert (apart["bit"][1] > 0) is (r == 1)
        assert np.isnan(apart["nan"]) == (r == 1)


def test_two_groups_train_two_models(seen):
    assert max(rank["groups"] for rank in seen) < 1e-12


def test_each_dtype_has_its_bucket(seen):
    mean = (len(seen) - 1) / 2
    ranks = len(seen)
    for rank in seen:
        dtypes, values, messages = rank["mixed"]
        assert dtypes == ["torch.float64", "torch.float32", "torch.float32"]
        assert values == pytest.approx([mean] * 3)
        assert messages == 2 * 2 * (ranks - 1)


@settings(deadline=None)
@given(st.integers(1, 200), st.integers(1, 64), st.integers(1, 9), st.integers(0, 5))
def test_batches_and_shares_hold_each_sample_once(samples, batch, ranks, epoch):
    batches = global_batches(samples, batch, seed=1, epoch=epoch)
    assert sorted(np.concatenate(batches)) == list(range(samples))
    assert all(len(b) == batch for b in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch
    for b in batches:
        parts, weights = zip(*(share(b, r, ranks) for r in range(ranks)), strict=True)
        assert np.array_equal(np.concatenate(parts), b)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        assert sum(weights) == pytest.approx(1, abs=1e-15 * ranks)


def test_order_depends_on_seed_and_epoch_only():
    first = global_batches(50, 8, seed=0)
    assert all(map(np.array_equal, first, global_batches(50, 8, seed=0)))
    assert not all(map(np.array_equal, first, global_batches(50, 8, seed=0, epoch=1)))
    assert not all(map(np.array_equal, first, global_batches(50, 8, seed=1)))


def test_misuse_is_named():
    with pytest.raises(ValueError, match="rank must be between 0 and 1, got 2"):
        share(np.arange(4), 2, 2)
    with pytest.raises(ValueError, match="batch must hold at least one sample"):
        share(np.arange(0), 0, 2)
    with pytest.raises(ValueError, match="batch must be at least 1, got 0"):
        global_batches(5, 0, seed=0)
    net = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="bucket must be one of 'flat', 'tensor', got 'flatt'"):
        DataParallel(net, bucket="flatt")
