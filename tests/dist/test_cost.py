"""The alpha-beta model: exact where timings follow it, near where a link of known latency and rate is measured for real."""

import math

import numpy as np
import pytest
import torch
import torch.distributed as td
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab import dist, plan
from bigmodel_lab.dist import collectives, cost
from bigmodel_lab.dist.cost import AlphaBeta, Timing, fit, measure, path
from bigmodel_lab.dist.slow_link import SlowLink
from bigmodel_lab.dist.wire import Wire, predicted_bytes
from bigmodel_lab.rng import generator

SIZES = (400, 10_000, 1_000_000, 50_000_000)
KINDS = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_reduce_through_root")


def timings_of(link, kinds=KINDS, ranks=(2, 3, 8), sizes=SIZES):
    return [Timing(k, n, W, link.predicted_s(k, n, W)) for k in kinds for W in ranks for n in sizes]


@pytest.mark.parametrize("lanes", [None, 2])
@given(alpha=st.floats(1e-7, 1e-1), bandwidth=st.floats(1e5, 1e12))
def test_recovers_what_made_the_timings(lanes, alpha, bandwidth):
    made = timings_of(AlphaBeta(alpha, bandwidth, lanes))
    found = fit(made, lanes=lanes)
    assert found.worst_error < 1e-6
    for n in (4, 123_456, 10**9):  # sizes and rank counts that were not fitted
        for kind, W in (("all_reduce", 5), ("all_to_all", 16)):
            expected = AlphaBeta(alpha, bandwidth, lanes).predicted_s(kind, n, W)
            assert found.predicted_s(kind, n, W) == pytest.approx(expected, rel=1e-6)


def test_noise_is_reported_as_error():
    true = AlphaBeta(1e-4, 1e9)
    noise = generator(0, "cost").uniform(0.9, 1.1, size=60)
    noisy = [
        t._replace(seconds=t.seconds * f) for t, f in zip(timings_of(true), noise, strict=True)
    ]
    found = fit(noisy)
    assert found.latency_s == pytest.approx(1e-4, rel=0.1)
    assert found.bytes_per_s == pytest.approx(1e9, rel=0.1)
    assert 0.02 < found.median_error < 0.07 < found.worst_error < 0.15
    off = np.abs(found.errors(noisy))
    assert found.worst_error == pytest.approx(off.max())
    assert found.median_error == pytest.approx(np.median(off))


def test_relative_errors_count_alike():
    """A small message that is 2 x too slow moves the fit, although its seconds are nothing beside the large one's."""
    straight = timings_of(AlphaBeta(1e-4, 1e9), ("all_reduce",), (2,))
    slow_start = [straight[0]._replace(seconds=2 * straight[0].seconds), *straight[1:]]
    assert fit(slow_start).latency_s > 1.2e-4


def test_neither_coefficient_is_below_0():
    only_latency = fit([Timing("all_reduce", 100, 2, 2e-3), Timing("all_reduce", 100_000, 2, 1e-3)])
    assert only_latency.bytes_per_s == math.inf
    assert 1e-3 < 2 * only_latency.latency_s < 2e-3
    only_bytes = fit([Timing("broadcast", 10, 2, 1e-6), Timing("broadcast", 1000, 2, 2e-4)])
    assert only_bytes.latency_s == 0
    assert only_bytes.half_bytes == 0
    assert 1e-7 < 1 / only_bytes.bytes_per_s < 2e-7


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 7, 8])
def test_the_path_is_what_the_formulas_say(ranks):
    """Against the bytes counted by `wire` (a rank of a ring; the root of the others) and `plan.collective_time`."""
    n = 840 * ranks
    for kind in ("all_reduce", "reduce_scatter", "all_gather", "broadcast"):
        assert path(kind, 4 * n, ranks)[1] == predicted_bytes(kind, n, ranks=ranks)
    through_root = 2 * predicted_bytes("all_reduce_through_root", n, ranks=ranks)
    assert path("all_reduce_through_root", 4 * n, ranks)[1] == through_root
    for kind in ("all_reduce", "reduce_scatter", "all_gather", "all_to_all"):
        planned = plan.collective_time(kind, 4 * n, ranks, 1e9, 1e-5).to("s").magnitude
        assert AlphaBeta(1e-5, 1e9).predicted_s(kind, 4 * n, ranks) == pytest.approx(planned)


def test_parts_cost_more_messages_and_no_more_bytes():
    link = AlphaBeta(1e-3, 1e6)
    assert link.predicted_s("all_reduce", 1000, 2) == pytest.approx(2e-3 + 1e-3)
    assert link.predicted_s("all_reduce", 1000, 2, calls=5) == pytest.approx(10e-3 + 1e-3)
    assert link.half_bytes == pytest.approx(1000)


def test_ranks_beyond_the_lanes_take_turns():
    alone, shared = AlphaBeta(1e-3, 1e6), AlphaBeta(1e-3, 1e6, lanes=2)
    for W, times in ((2, 1), (3, 1.5), (8, 4)):
        expected = times * alone.predicted_s("all_gather", 6000, W)
        assert shared.predicted_s("all_gather", 6000, W) == pytest.approx(expected)


def count_and_measure(latency_s, bytes_per_s):
    """On every rank: a slow link's timings, gloo's own, and what a wire counted of one ring."""
    slow = measure(
        "all_reduce", SlowLink(latency_s, bytes_per_s), (400, 40_000, 400_000, 2_000_000), repeats=3
    )
    gloo = measure("all_reduce", td.all_reduce, (400, 400_000), repeats=3)
    gloo += measure("broadcast", lambda x: td.broadcast(x, 0), (400, 400_000), repeats=3)
    (one,) = measure("all_gather", collectives.all_gather, (4,), repeats=1)
    wire = Wire()
    collectives.all_reduce(torch.zeros(1200), wire=wire)
    return slow, gloo, one, dict(wire.messages), dict(wire.sent_bytes)


@pytest.fixture(scope="module")
def measured():
    return dist.run(count_and_measure, 4e-3, 2e7, ranks=2), dist.run(
        count_and_measure, 4e-3, 2e7, ranks=4
    )


def test_a_link_of_known_latency_and_rate_is_found(measured):
    (two, *_), four = measured
    slow = two[0]
    found = fit(slow)
    assert found.latency_s == pytest.approx(4e-3, rel=0.25)
    assert found.bytes_per_s == pytest.approx(2e7, rel=0.25)
    assert np.abs(found.errors(four[0][0])).max() < 0.5  # 4 ranks, from a fit on 2


def test_every_rank_has_the_same_timings(measured):
    for by_rank in measured:
        for found in by_rank:
            assert found[:3] == by_rank[0][:3]


def test_gloo_is_measured_and_fitted(measured):
    """Structure only: what the numbers are depends on the machine and on who else uses it."""
    for ranks, by_rank in zip((2, 4), measured, strict=True):
        _, gloo, one, *_ = by_rank[0]
        assert [(t.collective, t.n_bytes, t.ranks) for t in gloo] == [
            (kind, n, ranks) for kind in ("all_reduce", "broadcast") for n in (400, 400_000)
        ]
        assert (one.n_bytes, one.ranks) == (4, ranks)
        found = fit([*gloo, one], lanes=2)
        assert found.latency_s >= 0
        assert found.bytes_per_s > 0
        assert found.median_error <= found.worst_error < 1.5


def test_counts_of_a_wire_cost_what_the_collective_costs(measured):
    link = AlphaBeta(1e-3, 1e6)
    for ranks, by_rank in zip((2, 4), measured, strict=True):
        messages, sent = by_rank[0][3:]
        found = link.counted_s(messages, sent)
        assert found == {"all_reduce": pytest.approx(link.predicted_s("all_reduce", 4800, ranks))}
    assert link.counted_s({}, {"tied": 0}) == {}
    with pytest.raises(ValueError, match="messages has no count for gradients, which sent bytes"):
        link.counted_s({"all_reduce": 2}, {"all_reduce": 8, "gradients": 8})


@pytest.mark.parametrize(
    ("timings", "message"),
    [
        ([], "0 timings cannot tell latency from bandwidth"),
        ([("all_reduce", 400, 2, 1e-3)], "1 timings cannot tell"),
        (2 * [("all_reduce", 400, 2, 1e-3)], "measure at least two sizes, such as 1 kB and"),
        ([("all_reduce", n, 1, 1e-3) for n in (4, 8)], "between at least two ranks"),
        ([("all_reduce", 4, 2, 0.0)], "seconds must be above 0 and finite, got 0.0"),
        ([("all_reduce", 4, 2, math.nan)], "got nan"),
        ([("allreduce", 4, 2, 1.0)], "Did you mean 'all_reduce'"),
        ([("all_reduce", 4, 0, 1.0)], "ranks must be at least 1"),
        ([("all_reduce", -4, 2, 1.0)], "n_bytes must be at least 0 bytes"),
    ],
)
def test_what_cannot_be_fitted(timings, message):
    with pytest.raises(ValueError, match=message):
        fit(timings)


def test_what_cannot_be_a_link():
    with pytest.raises(ValueError, match="latency_s must be at least 0 s, got -1"):
        AlphaBeta(-1, 1)
    with pytest.raises(ValueError, match="bytes_per_s must be above 0, got nan"):
        AlphaBeta(0, math.nan)
    with pytest.raises(ValueError, match="lanes must be at least 1"):
        AlphaBeta(0, 1, lanes=0)
    with pytest.raises(ValueError, match="calls must be at least 1"):
        AlphaBeta(0, 1).predicted_s("broadcast", 4, 2, calls=0)
    with pytest.raises(ValueError, match="sizes must be at least 4 bytes, got 3"):
        cost.measure("broadcast", None, [3])
