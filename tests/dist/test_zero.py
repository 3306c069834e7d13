"""ZeRO 1, 2 and 3 on 2 and 4 real ranks equal one process in float64; memory and bytes are what the table says."""

import warnings

import pytest
import torch
import torch.distributed as td
from branches import ROWS_OF_BRANCHES, Branches
from gpt_cases import UNEVEN, adamw

from bigmodel_lab import dist
from bigmodel_lab.dist.data_parallel import share
from bigmodel_lab.dist.wire import Wire, predicted_bytes
from bigmodel_lab.dist.zero import Zero
from bigmodel_lab.train import decay_groups

STEPS = len(UNEVEN.rows)


def train_zero(stage, kernels="torch", micros=1):
    rank, ranks = td.get_rank(), td.get_world_size()
    model, wire = UNEVEN.model(), Wire()
    model.ops = kernels
    if rank:  # must not matter: rank 0's parameters are taken
        with torch.no_grad():
            for p in model.parameters():  # the frozen one, too
                p.zero_()
    zero = Zero(model, adamw, stage=stage, weight_decay=0.1, wire=wire)
    at_start = dict(wire.sent_bytes)
    losses, norms, memory = [], [], []
    for step in range(STEPS):
        x, y = UNEVEN.batch(step)
        ids, _ = share(torch.arange(len(x)).numpy(), rank, ranks)
        loss_here = 0.0
        for part in [ids[i::micros] for i in range(micros)]:
            weight = len(part) / len(x)
            part = part if len(part) else [0]
            loss = model(x[part], y[part])
            zero.backward(loss, weight)
            loss_here += loss.item() * weight
        if step == 0:
            memory.append(zero.memory_bytes())
        norms.append(zero.clip(UNEVEN.clip))
        zero.step()
        losses.append(loss_here)
    memory.append(zero.memory_bytes())
    sent = {k: n - at_start.get(k, 0) for k, n in wire.sent_bytes.items() if k != "broadcast"}
    sizes = [u.size for u in zero.units]
    return losses, norms, zero.state_dict(), memory, sent, sizes


@pytest.mark.parametrize(
    ("stage", "ranks", "kernels", "micros"),
    [
        (1, 2, "torch", 1),
        (1, 4, "torch", 2),
        (2, 4, "torch", 1),
        (2, 2, "numba", 2),
        (3, 2, "torch", 1),
        (3, 4, "numba", 2),
    ],
)
def test_equals_one_process(stage, ranks, kernels, micros):
    alone, losses, norms = UNEVEN.alone()
    state = alone.state_dict()
    results = dist.run(train_zero, stage, kernels, micros, ranks=ranks)
    assert [sum(parts) for parts in zip(*(r[0] for r in results), strict=True)] == pytest.approx(
        losses, abs=1e-12
    )
    trained = sum(p.numel() for p in UNEVEN.model().parameters() if p.requires_grad)
    for rank, (_, clipped, got, memory, sent, sizes) in enumerate(results):
        assert clipped == pytest.approx(norms, rel=1e-12)
        assert got.keys() == state.keys()
        assert max((got[k] - state[k]).abs().max() for k in state) < 1e-9
        assert sum(sizes) == trained

        after_backward, at_rest = memory
        shard = sum(n // ranks + (rank < n % ranks) for n in sizes) * 8
        assert at_rest["parameters"] == (shard if stage == 3 else trained * 8)
        assert after_backward["gradients"] == (trained * 8 if stage == 1 else shard)
        assert at_rest["gradients"] == 0
        assert at_rest["optimizer"] == 2 * shard

        def of(collective, sizes=sizes, rank=rank):
            each = (
                predicted_bytes(collective, n, ranks=ranks, rank=rank, element_bytes=8)
                for n in sizes
            )
            return sum(each)

        reduces = 1 if stage == 1 else micros
        # stage 3: blocks are gathered going forward and going backward, the rest once, for each micro-batch
        gathers = (
            (2 * of("all_gather") - of("all_gather", sizes[-1:])) * micros
            if stage == 3
            else of("all_gather")
        )
        assert sent == {
            "reduce_scatter": STEPS * reduces * of("reduce_scatter"),
            "all_gather": STEPS * gathers,
            "all_reduce": STEPS
            * predicted_bytes("all_reduce", 1, ranks=ranks, rank=rank, element_bytes=8),
        }


def test_stage_3_evaluates_and_holds_a_shard_only():
    def evaluate():
        model = UNEVEN.model()
        zero = Zero(model, adamw, stage=3)
        with torch.no_grad():
            loss = model(*UNEVEN.batch(0)).item()
        return loss, zero.memory_bytes()["parameters"]

    want = UNEVEN.model()(*UNEVEN.batch(0)).item()
    trained = sum(p.numel() for p in UNEVEN.model().parameters() if p.requires_grad)
    for loss, held in dist.run(evaluate, ranks=2):
        assert loss == pytest.approx(want, abs=1e-13)
        assert held <= trained * 8 / 2 + 4 * 8


def test_stage_3_fails_quietly_where_a_rank_is_gone_and_can_go_on():
    def forward_twice():
        model = UNEVEN.model()
        unit = Zero(model, adamw, stage=3).units[1]

        def gone():
            raise ConnectionError("the peer is gone")

        unit.gather = gone
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                model(*UNEVEN.batch(0))
            except ConnectionError as error:
                said = str(error)
        del unit.gather
        return said, [str(w.message) for w in caught], model(*UNEVEN.batch(0)).item()

    want = UNEVEN.model()(*UNEVEN.batch(0)).item()
    for said, warned, loss in dist.run(forward_twice, ranks=2):
        assert said == "the peer is gone"
        assert warned == []
        assert loss == pytest.approx(want, abs=1e-13)


def train_branches(stage=0, micros=1):
    """Train on three rows, of which only the last, on rank 1 alone, uses every parameter."""
    line = torch.nn.Linear(4, 4, bias=False).double()
    torch.nn.init.eye_(line.weight)
    model = torch.nn.Sequential(line, Branches())
    model[1].never.requires_grad_(False)
    if stage:
        rank, ranks = td.get_rank(), td.get_world_size()
        zero = Zero(model, lambda groups: torch.optim.SGD(groups, lr=0.1), stage=stage)
        mine = ROWS_OF_BRANCHES.tensor_split(ranks)[rank].tensor_split(micros)
        parts = [(p, len(p) / 3) if len(p) else (ROWS_OF_BRANCHES[:1], 0.0) for p in mine]
        for _ in range(3):
            for rows, weight in parts:
                zero.backward(model(rows), weight)
            zero.step()
        return zero.state_dict()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(ROWS_OF_BRANCHES).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_a_rank_may_leave_parameters_unused_in_each_of_its_micro_batches(stage):
    want = train_branches()
    for got in dist.run(train_branches, stage, 2, ranks=2, timeout_s=30):
        assert max((got[k] - want[k]).abs().max() for k in want) < 1e-14


class Scaled(torch.nn.Module):
    """Three numbers, one of them of no dimension; the input wants no gradient."""

    def __init__(self):
        super().__init__()
        self.line, self.scale = torch.nn.Linear(1, 1), torch.nn.Parameter(torch.tensor(0.5))
        torch.nn.init.ones_(self.line.weight)
        torch.nn.init.ones_(self.line.bias)

    def forward(self, x):
        return (self.line(x) * self.scale).tanh().mean()


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_fewer_numbers_than_ranks(stage):
    x = torch.arange(4.0).view(4, 1)

    def train():
        model = Scaled().double()
        zero = Zero(model, adamw, stage=stage)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(3):
                zero.backward(model(x[td.get_rank()].double()))
                zero.step()
        return zero.state_dict()

    model = Scaled().double()
    optimizer = adamw(decay_groups(model, 0.0))
    for _ in range(3):
        optimizer.zero_grad()
        model(x.double()).backward()
        optimizer.step()
    want = model.state_dict()
    for got in dist.run(train, ranks=4):
        assert max((got[k] - want[k]).abs().max() for k in want) < 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Zero(UNEVEN.model(), adamw, stage=0), "stage must be"),
        (
            lambda: Zero(
                torch.nn.ModuleList([torch.nn.Linear(2, 2).double(), torch.nn.Linear(2, 2)]),
                adamw,
                stage=1,
                units=[],
            ),
            "one dtype",
        ),
        (
            lambda: Zero(UNEVEN.model(), adamw, stage=1).backward(torch.ones(()), 1.5),
            "weight must be",
        ),
    ],
    ids=["stage", "dtype", "weight"],
)
def test_what_cannot_be(make, message):
    with pytest.raises(dist.RankError, match=message):
        dist.run(make, ranks=1)
