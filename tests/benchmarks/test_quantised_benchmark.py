"""The benchmark of quantised weights compares right things and refuses wrong ones. Nothing here asserts a speed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """The module quantised of benchmarks/, as when it is run as a program."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the harness sets how threads wait
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import quantised

    yield quantised
    sys.modules.pop("quantised")
    sys.modules.pop("_harness")


@pytest.mark.parametrize("bits", [8, 4])
def test_the_products_agree(benchmark, bits):
    case = benchmark.product(bits, 3, 128, 64)
    case.check()
    assert case.work == {8: 128 * 64 + 4 * 64, 4: 128 * 64 // 2 + 4 * 64 * 2}[bits]


def test_a_wrong_product_is_not_timed(benchmark, monkeypatch):
    right = benchmark.ops.linear_int8
    monkeypatch.setattr(benchmark.ops, "linear_int8", lambda *a: (right(*a)[0] * 1.001, None))
    with pytest.raises(AssertionError, match=r"^8 bits 3 x 128 -> 64: torch differs in result 0"):
        benchmark.product(8, 3, 128, 64).check()


def test_reading_reads_everything(benchmark):
    run, n_bytes = benchmark.reading(200_000)
    assert n_bytes == 3 * 65536
    run()
    a, sums = np.arange(32768, dtype=np.float32).reshape(2, 16384), np.empty(2, np.float32)
    benchmark.read(a, sums)
    np.testing.assert_allclose(sums, a.sum(1), rtol=1e-5)


@pytest.mark.slow
def test_the_quick_run_prints_both_tables():
    command = [sys.executable, str(BENCHMARKS / "quantised.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    for start in ("8 bits | 1 x", "4 bits | 3 x", "float32, torch |", "8 bits |", "4 bits |"):
        assert f"\n| {start}" in done.stdout
