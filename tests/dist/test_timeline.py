"""What is read off a trace, on traces small enough to read by hand, and on those that the schedules' formula knows."""

import math

import pytest
from played_schedule import play

from bigmodel_lab.dist.intervals import length
from bigmodel_lab.dist.pipeline_schedule import bubble
from bigmodel_lab.dist.timeline import Span, Trace

BOTH = (0, 1)


def compute(name, start, end):
    return Span(name, "compute", start, end)


@pytest.fixture(scope="module")
def trace():
    """Rank 1 is slow: rank 0 comes to the all-reduce 3 s earlier, and stands there 4 s; 2 of 3 bucket seconds are hidden."""
    return Trace.of(
        [
            [
                compute("forward", 101, 103),
                Span("all_reduce", "collective", 103, 107, 80, False, BOTH, 0),
                compute("backward", 107, 110),
                Span("all_reduce", "collective", 108, 111, 40, True, BOTH, 1),
                Span("gradients", "wait", 110, 111),
            ],
            [
                compute("forward", 100, 106),
                Span("all_reduce", "collective", 106, 107, 80, False, BOTH, 0),
                compute("backward", 107, 111),
                Span("all_reduce", "collective", 110.5, 111, 40, True, BOTH, 1),
                Span("activations", "send", 104, 104, 7),
            ],
        ]
    )


def test_who_was_busy_and_who_waited(trace):
    assert trace.length_s == 11
    assert trace.busy(0) == [(1, 3), (7, 10)]
    assert trace.busy(1) == [(0, 6), (7, 11)]  # a message sent inside takes no time
    assert trace.waiting(0) == [(3, 6), (10, 11)]  # from 6 on it is the transfer
    assert trace.waiting(1) == []
    assert trace.communication(0) == [(3, 7), (8, 11)]


def test_hidden_and_bubble(trace):
    assert trace.hidden(0) == 2 / 7
    assert trace.hidden(1) == 0.5 / 1.5
    assert trace.hidden() == 2.5 / 8.5
    assert trace.bubble(0) == pytest.approx(1 - 5 / 11)
    assert trace.bubble() == pytest.approx(1 - 15 / 22)


def test_bytes(trace):
    assert trace.sent_bytes(0) == {"all_reduce": 120}
    assert trace.sent_bytes(1) == {"all_reduce": 120, "activations": 7}
    assert repr(trace) == "Trace(2 ranks, 10 spans, 11000.0 ms)"


def test_a_collective_inside_a_computation_is_not_computing():
    inside = Span("all_reduce", "collective", 2, 5, 8, False, (0,), 0)
    trace = Trace.of([[compute("backward", 0, 10), inside]])
    assert trace.busy(0) == [(0, 2), (5, 10)]
    assert trace.hidden() == 0
    assert trace.bubble() == pytest.approx(0.3)


def test_groups_are_told_apart():
    def spans(start, group):
        return [Span("all_reduce", "collective", start, 10, 8, False, group, 0)]

    trace = Trace.of([spans(0, (0, 1)), spans(2, (0, 1)), spans(1, (2, 3)), spans(7, (2, 3))])
    assert [length(trace.waiting(r)) for r in range(4)] == [2, 0, 6, 0]


def test_nothing_was_sent_or_done():
    assert math.isnan(Trace.of([[compute("forward", 0, 1)]]).hidden())
    empty = Trace.of([[], []])
    assert math.isnan(empty.bubble())
    assert empty.length_s == 0


def played(name, stages, micros, v):
    """The trace of a schedule whose passes take one second each, and whose messages take no time."""
    lanes = []
    for passes in play(name, stages, micros, v):
        lane, free = [], 0
        for p, start, end in passes:
            if start > free:
                lane.append(Span("activations", "wait", free, start))
            lane.append(compute(str(p), start, end))
            free = end
        lanes.append(lane)
    return Trace.of(lanes)


@pytest.mark.parametrize(
    ("name", "stages", "micros", "v"),
    [
        ("gpipe", 2, 4, 1),
        ("gpipe", 8, 8, 1),
        ("1f1b", 4, 4, 1),
        ("1f1b", 4, 16, 1),
        ("1f1b", 3, 2, 1),
        ("interleaved", 4, 8, 2),
        ("interleaved", 2, 6, 3),
    ],
)
def test_bubble_of_a_pipeline_is_the_formula(name, stages, micros, v):
    trace = played(name, stages, micros, v)
    assert trace.bubble() == pytest.approx(bubble(stages, micros, v), abs=1e-12)
    assert all(length(trace.busy(s)) == 2 * micros * v for s in range(stages))
