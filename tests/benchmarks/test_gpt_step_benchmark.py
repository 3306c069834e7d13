"""The benchmark of the training step: its variants must agree, and its arithmetic must be right. No speed is asserted."""

import os
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpt_step(monkeypatch):
    """The module gpt_step of benchmarks/, as when it is run as a program."""
    monkeypatch.setattr(os, "environ", os.environ.copy())  # the harness sets how threads wait
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpt_step

    yield gpt_step
    sys.modules.pop("gpt_step")
    sys.modules.pop("_harness")


def test_variants_take_the_same_steps(gpt_step):
    numba, torch = (gpt_step.Step(name, gpt_step.SMALL) for name in ("numba", "torch"))
    losses = [(numba(), torch()) for _ in range(4)]
    assert all(abs(a - b) < 1e-4 for a, b in losses), losses
    assert losses[3][0] < losses[0][0] - 0.01  # and they learn the batch


def test_flop_of_the_matrix_products(gpt_step):
    c, n = gpt_step.SMALL, gpt_step.BATCH * gpt_step.SMALL.context
    D, V, L, T = c.width, c.vocab_size, c.n_layers, c.context
    # forward and backward of x (N, I) @ w (I, O) are three products of 2 N I O operations
    linear = L * (D * 3 * D + D * D + 2 * D * 4 * D) + D * V
    attention = (
        7 * gpt_step.BATCH * L * T * T * D
    )  # 7 products of T x T x D, half of each behind the mask
    assert gpt_step.flop(c) == 6 * n * linear + attention


@pytest.mark.parametrize(
    "name", ["layernorm", "rmsnorm", "gelu", "gelu, tanh form", "softmax_cross_entropy"]
)
def test_the_operations_agree(gpt_step, name):
    gpt_step.operation(name, 5, 7, compiled=False).check()


def test_adamw_agrees(gpt_step):
    assert gpt_step.adamw(1000, compiled=False).work == 28_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory_counts_at_least_parameters_gradients_and_moments(gpt_step):
    state = 16 * gpt_step.GPTConfig.gpt2(1000, 256, 4, 256, 4).n_parameters
    assert state < gpt_step._in_child("numba", 1000) < 10 * state
