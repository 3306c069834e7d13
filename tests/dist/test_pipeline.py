"""Pipelined training on 2 and 4 real ranks equals one process; schedules keep what the papers say; bytes are exact."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from played_schedule import play

from bigmodel_lab import dist, rng
from bigmodel_lab.dist.pipeline import Pipeline
from bigmodel_lab.dist.pipeline_schedule import Pass, bubble, most_in_flight, schedule
from bigmodel_lab.dist.wire import Wire, predicted_bytes

STEPS, ROWS, WIDTH, LAYERS = 3, 9, 4, 8  # 9 rows in 4 micro-batches: 3, 2, 2, 2


class Layer(torch.nn.Module):
    def __init__(self, l):
        super().__init__()
        w = rng.generator(0, "layer", str(l)).standard_normal((WIDTH, WIDTH))
        self.w = torch.nn.Parameter(torch.from_numpy(w) * 0.5)

    def forward(self, x):
        return torch.tanh(x @ self.w.T)


class Chunk(torch.nn.Module):
    def __init__(self, layers, last):
        super().__init__()
        self.layers, self.last = torch.nn.ModuleList(map(Layer, layers)), last

    def forward(self, x, targets=None):
        for layer in self.layers:
            x = layer(x)
        assert self.last == (targets is not None)
        return ((x - targets) ** 2).mean() if self.last else x


def batch(step):
    x, y = rng.generator(1, "batch", str(step)).standard_normal((2, ROWS, WIDTH))
    return torch.from_numpy(x), torch.from_numpy(y)


def optimizer(module):
    return torch.optim.AdamW(module.parameters(), lr=0.01)


def train_alone():
    model, losses = Chunk(range(LAYERS), True), []
    opt = optimizer(model)
    for step in range(STEPS):
        opt.zero_grad()
        loss = model(*batch(step))
        loss.backward()
        opt.step()
        losses.append(loss.item())
    return losses, dict(enumerate(p.detach() for p in model.parameters()))


def train_piped(name, micros, v):
    import torch.distributed as td

    rank, ranks = td.get_rank(), td.get_world_size()
    cuts = [
        range(i * LAYERS // (ranks * v), (i + 1) * LAYERS // (ranks * v)) for i in range(ranks * v)
    ]
    mine = [cuts[k * ranks + rank] for k in range(v)]
    chunks = torch.nn.ModuleList(Chunk(layers, layers.stop == LAYERS) for layers in mine)
    wire, losses = Wire(), []
    pipe = Pipeline(chunks, row=(WIDTH,), dtype=torch.float64, name=name, micros=micros, wire=wire)
    opt = optimizer(chunks)
    for step in range(STEPS):
        opt.zero_grad()
        losses.append(pipe.step(*batch(step)).item())
        opt.step()
    numbers = [l for layers in mine for l in layers]
    trained = {l: p.detach() for l, p in zip(numbers, chunks.parameters(), strict=True)}
    return losses, trained, pipe.most_kept, dict(wire.sent_bytes)


@pytest.mark.parametrize(
    ("name", "ranks", "micros", "v"),
    [
        ("gpipe", 2, 4, 1),
        ("gpipe", 4, 3, 1),
        ("1f1b", 4, 4, 1),
        ("1f1b", 4, 9, 1),
        ("1f1b", 2, 1, 1),
        ("interleaved", 2, 4, 2),
        ("interleaved", 4, 8, 2),
        ("interleaved", 1, 3, 2),
    ],
)
def test_equals_one_process(name, ranks, micros, v):
    alone, want = train_alone()
    results = dist.run(train_piped, name, micros, v, ranks=ranks)
    message = ROWS * WIDTH * 8 * STEPS
    for rank, (losses, trained, kept, sent) in enumerate(results):
        assert losses == pytest.approx(alone, abs=1e-13)
        assert max((trained[l] - want[l]).abs().max() for l in trained) < 1e-11
        assert kept == most_in_flight(schedule(name, rank, ranks, micros, v))
        ends = (
            rank == ranks - 1,
            rank == 0,
        )  # one of whose chunks sends nothing on, and nothing back
        counts = {
            kind: v - end for kind, end in zip(("activations", "gradients"), ends, strict=True)
        }
        expected = {kind: n * message for kind, n in counts.items() if n and ranks > 1}
        loss = predicted_bytes(
            "broadcast", 1, ranks=ranks, rank=rank, element_bytes=8, root=ranks - 1
        )
        assert sent == expected | ({"broadcast": STEPS * loss} if loss else {})


@pytest.mark.parametrize("stages", [1, 2, 4, 8])
@pytest.mark.parametrize("micros", [1, 4, 8])
def test_activations_kept(stages, micros):
    for s in range(stages):
        assert most_in_flight(schedule("gpipe", s, stages, micros)) == micros
        assert most_in_flight(schedule("1f1b", s, stages, micros)) == min(micros, stages - s)


@settings(max_examples=60, deadline=None)
@given(
    stages=st.integers(1, 6),
    groups=st.integers(1, 4),
    v=st.integers(1, 3),
    name=st.sampled_from(["gpipe", "1f1b", "interleaved"]),
)
def test_every_schedule_does_all_passes_and_has_the_bubble_of_the_papers(stages, groups, v, name):
    v, micros = (v if name == "interleaved" else 1), stages * groups
    for s in range(stages):
        passes = schedule(name, s, stages, micros, v)
        assert len(passes) == len(set(passes)) == 2 * micros * v
        for m in range(micros):
            for c in range(v):
                assert passes.index(Pass("F", m, c)) < passes.index(Pass("B", m, c))
    played = play(name, stages, micros, v, backward_s=2)
    idle = 1 - 3 * micros * v / max(end for passes in played for _, _, end in passes)
    assert idle == pytest.approx(bubble(stages, micros, v))


def test_bubble_of_the_findings():
    assert bubble(4, 8) == pytest.approx(3 / 11)
    assert bubble(4, 8, 2) == pytest.approx(3 / 19)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gpipe", 0, 2, 4, 2), 'chunks=2 needs the schedule "interleaved", got "gpipe"'),
        (("interleaved", 0, 4, 6, 2), "micros=6 must be a multiple of stages=4 .* use 8"),
        (("zigzag", 0, 2, 4), "name must be"),
        (("gpipe", 2, 2, 4), "stage must be"),
    ],
)
def test_numbers_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        schedule(*arguments)


def test_fewer_rows_than_micro_batches():
    def step():
        Pipeline([Chunk(range(1), True)], row=(WIDTH,), micros=12).step(*batch(0))

    with pytest.raises(dist.RankError, match="9 rows cannot be cut into micros=12: use 9"):
        dist.run(step, ranks=1)
