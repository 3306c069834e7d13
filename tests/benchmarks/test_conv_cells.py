"""The benchmark of convolution, pooling and cells: every case compares like with like. Nothing here asserts a speed."""

import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def conv_cells(monkeypatch):
    """The module conv_cells of benchmarks/, as when it is run as a program."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the harness sets how threads wait
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import conv_cells

    yield conv_cells
    for name in ("conv_cells", "_harness"):
        sys.modules.pop(name)


def test_the_cases_agree_and_count_their_work(conv_cells):
    names = set()
    for make in conv_cells.cases(quick=True):
        case = make()
        case.check()
        assert case.work > 0
        names.add(case.name)
    assert {"conv2d", "conv2d, forward only", "maxpool2d", "rnn_cell", "gru_cell"} < names


def test_a_wrong_candidate_is_refused(conv_cells):
    case = conv_cells.maxpool2d(2, 3, 8, 2, 2, 0)
    y, dx = case.candidates["torch"]()
    dx[0, 0, 0, 0] += 1
    case.candidates["torch"] = lambda: (y, dx)
    with pytest.raises(AssertionError, match=r"^maxpool2d 2 x 3 x 8 x 8, .*: torch differs in"):
        case.check()
