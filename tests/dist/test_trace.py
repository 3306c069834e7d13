"""A recorder on real ranks: every byte is in a span, and the spans of all ranks are on one clock."""

import types
from itertools import groupby

import pytest
import torch
import torch.distributed as td
from gpt_cases import adamw, noisy_gpt, token_batch

from bigmodel_lab import dist
from bigmodel_lab.dist import collectives, magic, trace
from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.dist.overlap import OverlappedDataParallel
from bigmodel_lab.dist.trace import Recorder
from bigmodel_lab.models import GPTConfig
from bigmodel_lab.train import Layout

MICROS, STEPS = 3, 2
CONFIG = GPTConfig.gpt2(vocab_size=11, context=8, n_layers=2, width=8, n_heads=2)


def train_recorded():
    """On 4 ranks: the composed training on a grid, and overlapping buckets, both recorded."""
    grid, buckets = Recorder(), Recorder()
    model = Composed(
        noisy_gpt(CONFIG, frozen_layer=0), Layout(tp=2, pp=2), adamw, micros=MICROS, wire=grid
    )
    for step in range(STEPS):
        model.step(*token_batch(step, 6, CONFIG))
    trace_of_grid, counted = grid.gather(), dict(grid.sent_bytes)

    net = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)))
    replicas = OverlappedDataParallel(net, bucket_bytes=80, wire=buckets)
    with buckets.compute("warm up"):
        replicas.backward(net(torch.ones(2, 4)).sum())
        replicas.finish()
    buckets.clear()
    with buckets.compute("backward"):
        replicas.backward(net(torch.ones(2, 4)).sum())
    replicas.finish()
    return trace_of_grid, counted, buckets.gather(), buckets.waited_s


@pytest.fixture(scope="module")
def recorded():
    return dist.run(train_recorded, ranks=4)


def test_rank_0_has_the_trace_of_all(recorded):
    assert [r[0] is None for r in recorded] == [False, True, True, True]
    assert len(recorded[0][0].lanes) == 4


def test_every_byte_is_in_a_span(recorded):
    for rank, (_, counted, _, _) in enumerate(recorded):
        assert recorded[0][0].sent_bytes(rank) == {k: n for k, n in counted.items() if n}
        assert {"all_reduce", "activations" if rank < 2 else "gradients"} <= set(counted)


def test_passes_are_marked(recorded):
    for lane in recorded[0][0].lanes:
        names = [s.name for s in lane if s.kind == "compute"]
        passes = [n for n in names if n != "optimizer"]
        assert sorted(passes) == sorted(STEPS * [f"{k}{m}" for k in "FB" for m in range(MICROS)])
        assert names.count("optimizer") == STEPS


def collectives_of(traced):
    """The spans of each collective, those of the first of a name in a group apart from those of the second."""
    spans = [s for lane in traced.lanes for s in lane if s.kind == "collective"]
    key = lambda s: (s.name, s.ranks, s.number)  # noqa: E731
    return {k: list(found) for k, found in groupby(sorted(spans, key=key), key=key)}


def test_the_ranks_share_one_clock(recorded):
    for traced in (recorded[0][0], recorded[0][2]):
        found = collectives_of(traced)
        assert len(found) >= 3
        for (name, ranks, _), spans in found.items():
            assert len(spans) == len(ranks)
            if name == "all_reduce":  # it ends nowhere before it has begun everywhere
                assert min(s.end_s for s in spans) >= max(s.start_s for s in spans)
    # a message arrives after it was sent, from stage 0 (ranks 0 and 1) to stage 1 (ranks 2 and 3) and back
    lanes = recorded[0][0].lanes
    for sender, receiver, name in (
        (0, 2, "activations"),
        (1, 3, "activations"),
        (2, 0, "gradients"),
    ):
        sent = [s.start_s for s in lanes[sender] if s.name == name and s.kind == "send"]
        came = [s.end_s for s in lanes[receiver] if s.name == name and s.kind == "wait"]
        assert len(sent) == len(came) == STEPS * MICROS
        assert all(a < b for a, b in zip(sent, came, strict=True))


def test_buckets_travel_in_the_background(recorded):
    for lane in recorded[0][2].lanes:
        assert [s.name for s in lane if s.kind == "compute"] == ["backward"]
        travelled = [s for s in lane if s.kind == "collective"]
        assert [(s.background, s.number, s.ranks) for s in travelled] == [
            (True, n, (0, 1, 2, 3)) for n in range(3)
        ]
        assert [s.name for s in lane if s.kind == "wait"] == ["gradients"] * 3
    assert 0 <= recorded[0][2].hidden() <= 1


def test_time_in_the_background_is_not_waited_for():
    def fn():
        recorder = Recorder()
        net = torch.nn.Linear(1, 1)
        replicas = OverlappedDataParallel(net, wire=recorder)
        recorder.waited_s = 0.0
        replicas.backward(net(torch.ones(1, 1)).sum())
        replicas.finish()
        foreground = [s for s in recorder.spans if s.kind == "wait"]
        return recorder.waited_s, sum(s.end_s - s.start_s for s in foreground)

    for waited, spans in dist.run(fn, ranks=2):
        assert 0 < waited <= spans


def test_another_machine_is_refused():
    def fn():
        trace._clock = lambda: f"machine {td.get_rank()}"
        Recorder().gather()

    with pytest.raises(dist.RankError, match="rank 1 is on another machine than rank 0"):
        dist.run(fn, ranks=2)


def test_marks_and_blocks():
    recorder = Recorder()
    recorder.mark("F0")
    recorder.mark("B0")
    recorder.mark()
    recorder.mark(None)
    with pytest.raises(KeyError), recorder.compute("fails"):
        raise KeyError
    recorder.add("activations", 12, to=1)
    assert [(s.name, s.kind, s.n_bytes) for s in recorder.spans] == [
        ("F0", "compute", 0),
        ("B0", "compute", 0),
        ("fails", "compute", 0),
        ("activations", "send", 12),
    ]
    assert all(a.end_s <= b.end_s for a, b in zip(recorder.spans, recorder.spans[1:], strict=False))
    recorder.clear()
    assert recorder.spans == []
    assert recorder.sent_bytes == {"activations": 12}


def test_groups_are_noted_however_they_are_passed():
    def fn():
        pair, recorder = td.new_group([0, 2]), Recorder()
        if td.get_rank() != 1:
            x = torch.ones(2)
            collectives.all_reduce(x, pair, wire=recorder)
            collectives.broadcast(x, 0, pair, wire=recorder)
            collectives.broadcast(x, group=pair, wire=recorder)
        collectives.all_gather(torch.ones(3), wire=recorder)
        return [(s.name, s.ranks, s.number) for s in recorder.spans]

    first, second, third = dist.run(fn, ranks=3)
    whole = [("all_gather", (0, 1, 2), 0)]
    part = [("all_reduce", (0, 2), 0), ("broadcast", (0, 2), 0), ("broadcast", (0, 2), 1)]
    assert first == third == part + whole
    assert second == whole


def test_in_a_cell():
    magics = {}
    shell = types.SimpleNamespace(
        register_magic_function=lambda fn, kind, name: magics.update({name: fn}),
        user_ns={"Recorder": Recorder, "all_reduce": collectives.all_reduce},
        history_manager=types.SimpleNamespace(input_hist_parsed=["", "cell"]),
    )
    magic.load(shell)
    cell = """
recorder = Recorder()
with recorder.compute("fill"):
    x = torch.full((4,), float(rank))
all_reduce(x, wire=recorder)
recorder.gather()
"""
    magics["ranks"]("2 --out results", cell)
    traced, nothing = shell.user_ns["results"]
    assert nothing is None
    assert [[s.name for s in lane] for lane in traced.lanes] == [["fill", "all_reduce"]] * 2
