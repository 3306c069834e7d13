"""The benchmark must run, refuse to time what is wrong, and do its arithmetic right. Nothing here asserts a speed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The modules _harness and ops of benchmarks/, as when one is run as a program."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the harness sets how threads wait
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _harness
    import ops

    yield _harness, ops
    sys.modules.pop("ops")
    sys.modules.pop("_harness")


def test_ratio_is_formed_round_by_round(benchmark):
    harness, _ = benchmark
    # the third round was disturbed: both took ten times as long, which a ratio of medians would not cancel
    times = harness.Times(
        {"a": np.array([2.0, 4.0, 20.0]), "b": np.array([1.0, 1.0, 10.0])}, quiet=True
    )
    assert times.ratio("a", "b")[1] == 2
    assert times.median("a") == 4


def test_candidates_take_turns_in_an_order_that_rotates(benchmark):
    harness, _ = benchmark
    calls = []
    candidates = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = harness.compare(candidates, n_threads=1, rounds=6, burst_s=0)
    assert {len(s) for s in times.seconds.values()} == {6}
    timed = calls[
        6:
    ]  # two calls each come first; then in a burst one to wake the threads and one timed
    assert "".join(timed[::2]) == "abc" + "bca" + "cab" + "abc" + "bca" + "cab"
    assert timed[::2] == timed[1::2]


def test_a_wrong_candidate_is_not_timed(benchmark):
    harness, _ = benchmark
    right, wrong = (
        (lambda: (np.ones(3), np.arange(4.0))),
        (lambda: (np.ones(3), np.arange(4.0) + 1e-3)),
    )
    harness.Case("op", "3", {"ours": right, "torch": right}, 1).check()
    with pytest.raises(AssertionError, match=r"^op 3: torch differs in result 1 by 3.3e-04"):
        harness.Case("op", "3", {"ours": right, "torch": wrong}, 1).check()


def test_the_table_has_a_row_for_ours_and_each_variant_and_says_what_was_reached(
    benchmark, monkeypatch
):
    harness, _ = benchmark
    seconds = {"ours": 1e-3, "ours, twice": 2e-3, "torch": 4e-3, "limit": 0.5e-3}
    times = harness.Times({k: np.full(5, s) for k, s in seconds.items()}, quiet=False)
    monkeypatch.setattr(harness, "compare", lambda *_, **__: times)
    same = dict.fromkeys(["ours", "ours, twice", "torch"], lambda: (np.ones(2),))
    case = harness.Case("op", "3", same, {"ours": 8e6, "ours, twice": 16e6})
    assert list(harness.table([lambda: case], 1, peers=("torch", "numpy"))) == [
        "| operation, forward and backward | size | ours (ms) | torch / ours (quartiles) | NumPy / ours "
        "| reached, share of the limit |",
        "|---|---|--:|--:|--:|--:|",
        "| op | 3 ~ | 1 | 4 (4.00-4.00) | - | 8 GB/s, 50% |",
        "| op, twice | 3 ~ | 2 | 2 (2.00-2.00) | - | 8 GB/s, 50% |",
    ]


def test_only_the_full_run_writes_its_page(benchmark, monkeypatch, tmp_path, capsys):
    harness, _ = benchmark
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "results")
    for argv in (["b/some.py", "--quick"], ["b/some.py"]):
        assert not harness.RESULTS.exists()
        monkeypatch.setattr(sys, "argv", argv)
        harness.main(lambda quick: [f"quick is {quick}", "end"], "what it does")
    assert capsys.readouterr().out == "quick is True\nend\nquick is False\nend\n"
    assert (harness.RESULTS / "some.md").read_text() == "quick is False\nend\n"


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "gelu", "gelu tanh form"])
def test_the_cases_agree(benchmark, name):
    _, ops = benchmark
    ops.activation(name, 5, 7, python=name == "relu").check()


def test_the_other_cases_agree(benchmark):
    _, ops = benchmark
    ops.cross_entropy(5, 7, python=True).check()
    ops.linear(5, 7, 3).check()
    ops.mlp(5, (7, 6, 3)).check()


@pytest.mark.slow
def test_the_quick_run_prints_a_row_for_every_operation():
    command = [sys.executable, str(BENCHMARKS / "ops.py"), "--quick"]
    before = (BENCHMARKS / "results" / "ops.md").read_bytes()
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in (
        "relu",
        "sigmoid",
        "tanh",
        "gelu",
        "gelu tanh form",
        "softmax_cross_entropy",
        "linear",
        "MLP",
    ):
        assert f"\n| {name}" in done.stdout
    assert (BENCHMARKS / "results" / "ops.md").read_bytes() == before  # only the full run writes it
