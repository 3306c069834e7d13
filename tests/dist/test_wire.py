"""Bytes on the wire: our count equals the formula exactly, and Linux's own count equals both and gloo's headers."""

import math
import socket
import sys

import pytest
import torch
import torch.distributed as td
from hypothesis import given, settings
from hypothesis import strategies as st

from bigmodel_lab import dist
from bigmodel_lab.dist import collectives
from bigmodel_lab.dist.wire import GLOO_HEADER_BYTES, KernelBytes, Wire, predicted_bytes

NAMES = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_reduce_through_root")
SIZES = (0, 1, 3, 1000, 10007)


def count_everything() -> list[dict]:
    """Run on every rank: one row a call, with our count, the formula's and the kernel's."""
    rank, ranks = td.get_rank(), td.get_world_size()
    rows = []
    for name in NAMES:
        roots = range(ranks) if name in ("broadcast", "all_reduce_through_root") else (0,)
        for n in SIZES:
            for root in roots:
                x, wire = torch.ones(n, dtype=torch.float64), Wire()
                where = dict(root=root) if len(roots) > 1 else {}
                td.barrier()
                with KernelBytes() as kernel:
                    getattr(collectives, name)(x, wire=wire, **where)
                formula = predicted_bytes(
                    name, n, ranks=ranks, rank=rank, element_bytes=8, root=root
                )
                rows.append(
                    dict(
                        case=f"{name} n={n} root={root}", name=name, n=n, root=root, formula=formula
                    )
                    | dict(
                        ours=dict(wire.sent_bytes),
                        messages=wire.messages.total(),
                        kernel=kernel.sent_bytes,
                    )
                    | dict(to=dict(wire.to_bytes))
                )
    n = 12 * 10_000
    with KernelBytes() as kernel:
        td.all_reduce(torch.ones(n))
    rows.append(
        dict(case="torch", kernel=kernel.sent_bytes, formula=2 * (ranks - 1) * n // ranks * 4)
    )
    with KernelBytes() as kernel:
        pass
    rows.append(dict(case="silence", kernel=kernel.sent_bytes))
    td.barrier()  # a rank that ended now would close its connections
    return rows


@pytest.fixture(scope="module", params=[2, 3, 4], ids="{} ranks".format)
def rows(request) -> list[list[dict]]:
    return dist.run(count_everything, ranks=request.param, timeout_s=120)


def calls(rows):
    return [row for rank in rows for row in rank if "ours" in row]


def test_our_count_equals_the_formula(rows):
    assert [r for r in calls(rows) if sum(r["ours"].values()) != r["formula"]] == []
    assert all(set(r["ours"]) <= {r["name"]} for r in calls(rows))
    assert all(sum(r["to"].values()) == r["formula"] for r in calls(rows))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what it sent on a socket")
def test_the_kernel_counted_the_same_payload_and_gloos_headers(rows):
    ranks = len(rows)
    for r, rank in enumerate(rows):
        for i, row in enumerate(rank):
            if row["case"] == "silence":
                assert row["kernel"] == 0
            elif row["case"] == "torch":  # a ring as well, in more and smaller messages
                assert row["formula"] < row["kernel"] < row["formula"] * 1.05
            else:
                received = sum(messages_to(r, other[i], s, ranks) for s, other in enumerate(rows))
                header = GLOO_HEADER_BYTES
                extra = header["sender"] * row["messages"] + header["receiver"] * received
                assert row["kernel"] == row["formula"] + extra, row


def messages_to(receiver: int, row: dict, sender: int, ranks: int) -> int:
    """Messages that `sender` sent to `receiver` in the call that `row` describes."""
    if row["name"] == "broadcast":
        place, to = (sender - row["root"]) % ranks, (receiver - row["root"]) % ranks
        return int(any(place < 2**k and place + 2**k == to for k in range(8)))
    if row["name"] == "all_reduce_through_root":
        return int(sender != receiver and row["root"] in (sender, receiver))
    return row["messages"] if receiver == (sender + 1) % ranks else 0


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 100), st.sampled_from([2, 4, 8]))
def test_formula_keeps_the_books(n, ranks, size):
    def total(name):
        return sum(
            predicted_bytes(name, n, ranks=ranks, rank=r, element_bytes=size) for r in range(ranks)
        )

    assert total("reduce_scatter") == total("all_gather") == (ranks - 1) * n * size
    assert total("all_reduce") == 2 * (ranks - 1) * n * size == total("all_reduce_through_root")
    assert total("broadcast") == (ranks - 1) * n * size  # every rank but one receives it once
    root = predicted_bytes(
        "broadcast", n, ranks=ranks, root=ranks - 1, rank=ranks - 1, element_bytes=1
    )
    assert root == n * math.ceil(math.log2(ranks))


def test_formula_by_hand():
    assert predicted_bytes("all_reduce", 1_000_000, ranks=4) == 6_000_000  # 2 * 3/4 * n * 4 bytes
    assert predicted_bytes("all_reduce", 10, ranks=4, rank=1, element_bytes=1) == 2 * 10 - 3 - 2
    assert predicted_bytes("all_reduce_through_root", 1_000_000, ranks=4) == 12_000_000
    assert predicted_bytes("all_reduce_through_root", 1_000_000, ranks=4, rank=3) == 4_000_000
    assert predicted_bytes("all_reduce", 5, ranks=1) == 0


def test_one_wire_counts_by_collective_and_receiver():
    wire = Wire()
    assert repr(wire) == "Wire(nothing sent)"
    wire.add("all_reduce", 12, to=1)
    wire.add("all_reduce", 4, to=2)
    wire.add("broadcast", 0, to=1)
    assert (wire.total_bytes, wire.to_bytes[1], wire.messages["all_reduce"]) == (16, 12, 2)
    assert repr(wire) == "Wire(all_reduce: 16 B in 2 messages, broadcast: 0 B in 1 messages)"


def test_misuse_is_named():
    with pytest.raises(
        ValueError,
        match=r"collective must be one of .*, got 'allreduce'. Did you mean 'all_reduce'",
    ):
        predicted_bytes("allreduce", 5, ranks=2)
    with pytest.raises(ValueError, match="rank must be between 0 and 1, got 2"):
        predicted_bytes("all_reduce", 5, ranks=2, rank=2)
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        predicted_bytes("all_reduce", -1, ranks=2)


def test_a_connection_closed_meanwhile_makes_the_count_none():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as ours, server.accept()[0]:
            with KernelBytes() as kernel:
                ours.sendall(b"x" * 1234)
            assert kernel.sent_bytes == (1234 if sys.platform == "linux" else None)
            with KernelBytes() as kernel:
                ours.close()
    assert kernel.sent_bytes is None


def test_where_the_system_does_not_say_the_count_is_none(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with KernelBytes() as kernel:
        pass
    assert kernel.sent_bytes is None
