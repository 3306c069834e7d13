"""The benchmark of the cluster simulator: the naive versions end every job when ours does. Nothing here asserts a speed."""

import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def schedule(monkeypatch):
    """The module schedule of benchmarks/, as when it is run as a program."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the harness sets how threads wait
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import schedule

    yield schedule
    for name in ("schedule", "_harness"):
        sys.modules.pop(name)


def test_naive_and_ours_agree(schedule):
    for _, _, candidates in (schedule.dispatch(1_000), schedule.gang(1_000)):
        schedule.check(candidates)


def test_a_wrong_candidate_is_refused(schedule):
    *_, candidates = schedule.gang(100)
    (finish,) = candidates["naive"]()
    finish[3] += 1
    candidates["naive"] = lambda: (finish,)
    with pytest.raises(AssertionError, match="naive differs from ours"):
        schedule.check(candidates)
