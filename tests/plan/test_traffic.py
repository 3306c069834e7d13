"""Traffic: published rules of ZeRO and Megatron, ring times, and the pipeline's two conventions."""

import numpy as np
import pytest

from bigmodel_lab.plan import (
    MODELS,
    collective_bytes,
    collective_time,
    data_parallel_bytes,
    expert_bytes,
    pipeline_bubble,
    pipeline_bytes,
    tensor_bytes,
)
from bigmodel_lab.units import Q


def test_ring_all_reduce_time():
    """2(n-1)/n x 1 GB / 100 GB/s at n = 8 = 17.5 ms."""
    time = collective_time("all_reduce", Q(1, "GB"), 8, Q(100, "GB/s"))
    assert time.to("ms").magnitude == pytest.approx(17.5)
    slow = collective_time("all_reduce", Q(1, "GB"), 8, Q(100, "GB/s"), latency=Q(1, "ms"))
    assert (slow - time).to("ms").magnitude == pytest.approx(14)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_rings_walked_by_hand(n):
    """Send chunk by chunk and count: what a rank sends in a real ring is what the formula says."""
    rng = np.random.default_rng(n)
    parts = rng.normal(size=(n, n, 3))  # rank, chunk, numbers
    held, sent = parts.copy(), 0
    for step in range(n - 1):  # reduce-scatter
        out = [held[r, (r - step) % n].copy() for r in range(n)]
        for r in range(n):
            held[(r + 1) % n, (r - step) % n] += out[r]
        sent += out[0].nbytes
    assert collective_bytes("reduce_scatter", parts[0].nbytes, n).magnitude == pytest.approx(sent)
    for step in range(n - 1):  # all-gather
        out = [held[r, (r + 1 - step) % n].copy() for r in range(n)]
        for r in range(n):
            held[(r + 1) % n, (r + 1 - step) % n] = out[r]
        sent += out[0].nbytes
    np.testing.assert_allclose(held, np.broadcast_to(parts.sum(0), held.shape))
    assert collective_bytes("all_reduce", parts[0].nbytes, n).magnitude == pytest.approx(sent)


def test_zero_communication():
    """arXiv:1910.02054, section 7: stages 1 and 2 move 2P as data parallelism does, stage 3 3P: 1.5 times."""
    volumes = [data_parallel_bytes(1e9, z, 10**6, itemsize=1).magnitude for z in range(4)]
    assert volumes == pytest.approx([2e9, 2e9, 2e9, 3e9], rel=1e-5)


def test_ddp_of_the_first_lab():
    """Two ranks, float32: a step of the MNIST network sends 4 bytes a parameter, each way of L02's record."""
    assert data_parallel_bytes(101_770, 0, 2, itemsize=4) == Q(407_080, "byte")


def test_accumulation_costs_the_higher_stages():
    four = [data_parallel_bytes(1e9, z, 8, micro_batches=4) for z in range(4)]
    one = [data_parallel_bytes(1e9, z, 8) for z in range(4)]
    assert [(f / o).magnitude for f, o in zip(four, one, strict=True)] == pytest.approx(
        [1, 1, 2.5, 4]
    )


def test_tensor_parallel_is_megatrons():
    """arXiv:2104.04473, section 3.2: 8 b s h (t-1)/t numbers a layer a micro-batch, two bytes each."""
    a, b, s = MODELS["gpt3-175b"], 2, 2048
    for t in (1, 2, 8):
        rule = 2 * a.n_layers * 8 * b * s * a.width * (t - 1) / t
        assert tensor_bytes(a, b * s, t).magnitude == pytest.approx(rule)
    assert tensor_bytes(a, 10, 8, recompute="full") == 1.5 * tensor_bytes(a, 10, 8)
    assert tensor_bytes(a, 10, 8, training=False) == 0.5 * tensor_bytes(a, 10, 8)


def test_pipeline_and_experts():
    """b s h numbers a boundary a micro-batch each way; four all-to-alls of per_token copies a layer."""
    assert pipeline_bytes(MODELS["gpt3-175b"], 2048) == Q(2 * 2 * 2048 * 12288, "byte")
    a = MODELS["mixtral-8x7b"]
    assert expert_bytes(a, 100, 4).magnitude == pytest.approx(4 * 32 * 0.75 * 2 * 100 * 4096 * 2)


def test_bubble_in_both_conventions():
    """Narayanan et al. (2021), section 2.2: p = 8, m = 32: 21.9 % of the ideal time, 17.9 % of all time; each is called the bubble fraction."""
    b = pipeline_bubble(8, 32)
    assert (b.of_ideal, b.of_total) == pytest.approx((0.219, 0.179), abs=5e-4)
    assert b.of_total == pytest.approx(b.of_ideal / (1 + b.of_ideal))
    assert pipeline_bubble(8, 32, chunks=2).of_ideal == pytest.approx(b.of_ideal / 2)
    assert pipeline_bubble(1, 4) == pipeline_bubble(1, 1)


def test_bubble_of_a_schedule_drawn_by_hand():
    """GPipe, forward and backward each one unit: micro-batch i is at stage s from time s + i on."""
    p, m = 4, 6
    busy = np.zeros((p, 2 * (m + p - 1)), dtype=int)
    for s in range(p):
        for i in range(m):
            busy[s, s + i] += 1
            busy[s, (m + p - 1) + (p - 1 - s) + i] += 1
    assert busy.max() == 1
    assert pipeline_bubble(p, m).of_total == pytest.approx(1 - busy.mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: collective_bytes("allreduce", 1, 2), "Did you mean 'all_reduce'"),
        (lambda: collective_bytes("all_reduce", 1, 0), "ranks must be finite and at least 1, got 0"),
        (lambda: data_parallel_bytes(1, 4, 2), "zero must be between 0 and 3"),
        (lambda: tensor_bytes(MODELS["gpt2"], 1, 2, recompute="ful"), "Did you mean 'full'"),
        (lambda: expert_bytes(MODELS["gpt2"], 10, 2), "arch must have experts, gpt2 has none"),
        (lambda: collective_time("all_reduce", 1, 2, 0), "bandwidth must be a finite number above 0"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
