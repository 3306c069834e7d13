"""Every byte that a grid of ranks sends in a step equals the formula: as we count them, and as Linux does."""

import sys
from collections import Counter
from dataclasses import replace

import pytest
import torch.distributed as td
from gpt_cases import adamw, token_batch

from bigmodel_lab import dist
from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.dist.composed_bytes import step_bytes
from bigmodel_lab.dist.wire import GLOO_HEADER_BYTES, KernelBytes, Wire
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.train import Layout

ROWS, T = 7, 8  # uneven replicas and micro-batches
SIZES = dict(vocab_size=13, context=12, n_layers=5, width=16, n_heads=4)  # uneven words and stages
FORMS = {
    "gpt2": GPTConfig.gpt2(**SIZES),  # tied, with biases
    "llama": GPTConfig.llama(**SIZES, n_kv_heads=2),
    "untied": GPTConfig.gpt2(**SIZES, tied=False),
}
GRIDS = {  # ranks: (form, layout, options)
    1: [("gpt2", Layout(), {"micros": 2})],
    2: [
        ("gpt2", Layout(dp=2), {"clip": 1.0}),
        ("gpt2", Layout(dp=2, zero=1), {}),
        ("gpt2", Layout(dp=2, zero=2), {"micros": 3, "clip": 1.0}),
        ("llama", Layout(dp=2, zero=3), {"micros": 2}),
        ("gpt2", Layout(tp=2), {"micros": 2}),
        ("llama", Layout(tp=2), {"sequence": True, "micros": 2}),
        ("gpt2", Layout(pp=2), {"micros": 5, "schedule": "gpipe", "clip": 1.0}),
        ("untied", Layout(pp=2), {"micros": 4, "schedule": "interleaved", "chunks": 2}),
    ],
    4: [
        ("gpt2", Layout(dp=2, tp=2), {"micros": 3, "clip": 1.0}),
        ("gpt2", Layout(pp=4), {"micros": 4}),
        ("gpt2", Layout(tp=2, pp=2), {"micros": 4, "sequence": True}),
        ("gpt2", Layout(dp=2, pp=2, zero=1), {"micros": 2}),
        ("llama", Layout(dp=2, pp=2, zero=3), {"micros": 3}),
        ("untied", Layout(dp=2, pp=2, zero=3), {"micros": 3, "schedule": "gpipe"}),
        ("llama", Layout(dp=2, tp=2, zero=2), {"micros": 2}),
        ("gpt2", Layout(dp=4, zero=1), {}),
        ("untied", Layout(dp=2, pp=2, zero=3), {"micros": 3, "ops": "numba"}),
    ],
    8: [
        ("gpt2", Layout(dp=2, tp=2, pp=2, zero=1), {"micros": 2, "sequence": True, "clip": 1.0}),
        ("llama", Layout(dp=2, tp=2, pp=2, zero=3), {"micros": 3, "clip": 1.0}),
        ("gpt2", Layout(dp=2, tp=4), {}),
    ],
}


def count_all(grids):
    """On every rank: for each grid, what the second step sent by our count, the formula's, and the kernel's."""
    rows = []
    for form, layout, options in grids:
        wire, config, options = Wire(), FORMS[form], dict(options)
        gpt = GPT(config, options.pop("ops", "torch"), seed=1).double()
        model = Composed(gpt, layout, adamw, wire=wire, **options)
        first, second = (token_batch(i, ROWS, replace(config, context=T)) for i in range(2))
        model.step(*first)
        before, messages = Counter(wire.sent_bytes), wire.messages.total()
        td.barrier()
        with KernelBytes() as kernel:
            model.step(*second)
        td.barrier()
        rows.append(
            {
                "sent": dict(Counter(wire.sent_bytes) - before),
                "formula": model.predicted_bytes(ROWS, T),
                "messages": wire.messages.total() - messages,
                "kernel": kernel.sent_bytes,
            }
        )
    return rows


@pytest.fixture(scope="module", params=GRIDS, ids="{} ranks".format)
def counted(request):
    grids = GRIDS[request.param]
    return grids, dist.run(count_all, grids, ranks=request.param, timeout_s=120)


def test_our_count_is_the_formula(counted):
    grids, results = counted
    for i, grid in enumerate(grids):
        for rank, rows in enumerate(results):
            assert rows[i]["sent"] == rows[i]["formula"], (grid, rank)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what it sent on a socket")
def test_the_kernel_counted_nothing_else(counted):
    """Each message costs its payload and gloo's headers, once on the sender's side and once on the receiver's."""
    grids, results = counted
    header = sum(GLOO_HEADER_BYTES.values())
    for i, grid in enumerate(grids):
        rows = [rank[i] for rank in results]
        payload = sum(sum(r["formula"].values()) for r in rows)
        messages = sum(r["messages"] for r in rows)
        assert sum(r["kernel"] for r in rows) == payload + header * messages, grid


def test_by_hand():
    config = GPTConfig.gpt2()  # 124 million parameters in float32; 8 replicas, then 4 stages
    n = config.n_parameters
    assert n % 8 == 0
    sent = step_bytes(config, Layout(dp=8), 0, rows=8, positions=1024)
    assert sent == {"all_reduce": 2 * 7 * n // 8 * 4 + 8}  # and the loss
    sent = step_bytes(config, Layout(pp=4), 1, rows=8, positions=1024, micros=4)
    assert sent == {"activations": 8 * 1024 * 768 * 4, "gradients": 8 * 1024 * 768 * 4}


def test_what_has_no_formula():
    with pytest.raises(ValueError, match="zero=2 with chunks=2 has no formula"):
        step_bytes(FORMS["untied"], Layout(pp=2, zero=2), 0, rows=4, positions=8, chunks=2)
