"""Collectives on 2, 3 and 4 real ranks: exact on integers, equal to torch's, in groups, and kind when misused.

One launch per number of ranks does all of it; each rank returns what it saw, and the tests look at that.
"""

import pytest
import torch
import torch.distributed as td

from bigmodel_lab import dist
from bigmodel_lab.dist import collectives

SIZES = (0, 1, 2, 3, 5, 8, 97, 1000, 4099)  # fewer than ranks, odd, and divisible ones
DTYPES = (torch.int64, torch.int32, torch.float64, torch.float32)
SUMS = ("all_reduce", "all_reduce_through_root")


def part(n: int, dtype: torch.dtype, rank: int, salt: int = 0) -> torch.Tensor:
    """What `rank` contributes: whole numbers, exact in every dtype, different on every rank and in every place."""
    return ((torch.arange(n) * (rank + 2) + 13 * rank + salt) % 1009).to(dtype)


def exercise_everything() -> dict:
    """Run on every rank: each collective against its definition and against torch's."""
    rank, ranks = td.get_rank(), td.get_world_size()
    wrong = []

    def check(what, got, want):
        if got.dtype != want.dtype or not torch.equal(got, want):
            wrong.append(f"{what} on rank {rank} of {ranks}: {got} is not {want}")

    for n in SIZES:
        for dtype in DTYPES:
            case = f"n={n} {dtype}"
            total = sum(part(n, dtype, r) for r in range(ranks)).to(dtype)
            theirs = part(n, dtype, rank)
            td.all_reduce(theirs)
            for name in SUMS:
                x = part(n, dtype, rank)
                same = getattr(collectives, name)(x)
                check(f"{name} {case}", x, total)
                check(f"{name} {case} against torch", x, theirs)
                if same is not x:
                    wrong.append(f"{name} {case} does not return its argument")
            sizes = collectives.chunk_sizes(n, ranks)
            ends = [sum(sizes[:r]) for r in range(ranks + 1)]
            x = part(n, dtype, rank)
            own = collectives.reduce_scatter(x)
            check(f"reduce_scatter {case}", own, total[ends[rank] : ends[rank + 1]])
            if own.numel() and own.data_ptr() != x[ends[rank] :].data_ptr():
                wrong.append(f"reduce_scatter {case} returns a copy")
            x = torch.full((n,), 7, dtype=dtype)
            x[ends[rank] : ends[rank + 1]] = part(n, dtype, rank)[ends[rank] : ends[rank + 1]]
            collectives.all_gather(x)
            pieces = [part(n, dtype, r)[ends[r] : ends[r + 1]] for r in range(ranks)]
            check(f"all_gather {case}", x, torch.cat(pieces))
            for root in range(ranks):
                x = part(n, dtype, rank)
                collectives.broadcast(x, root)
                check(f"broadcast from {root} {case}", x, part(n, dtype, root))
                x = part(n, dtype, rank)
                collectives.all_reduce_through_root(x, root)
                check(f"all_reduce_through_root {root} {case}", x, total)

    square = part(12, torch.float64, rank).view(3, 4)
    collectives.all_reduce(square)
    check(
        "all_reduce (3, 4)",
        square,
        sum(part(12, torch.float64, r) for r in range(ranks)).view(3, 4),
    )
    scalar = torch.tensor(rank + 1)
    collectives.all_reduce(scalar)
    check("all_reduce of a scalar", scalar, torch.tensor(ranks * (ranks + 1) // 2))
    leaf = torch.nn.Parameter(torch.full((5,), float(rank)))
    collectives.broadcast(leaf)
    check("broadcast of a parameter", leaf.detach(), torch.zeros(5))
    if not leaf.requires_grad or leaf.grad_fn is not None:
        wrong.append("broadcast changed what autograd knows of a parameter")

    noise = torch.randn(4099, generator=torch.Generator().manual_seed(rank), dtype=torch.float64)
    runs = [collectives.all_reduce(noise.clone()) for _ in range(2)]
    theirs = noise.clone()
    td.all_reduce(theirs)
    return {
        "wrong": wrong,
        "repeats": torch.equal(*runs),
        "sum": runs[0].numpy().tobytes(),
        "off_torch": float((runs[0] - theirs).abs().max()),
        "errors": errors(),
        "groups": groups(),
    }


def errors() -> dict[str, str]:
    """Messages of misuses that no rank has to wait for."""
    table = torch.zeros(4, 6)
    calls = {
        "columns": lambda: collectives.all_reduce(table[:, :3]),
        "transposed": lambda: collectives.broadcast(table.T),
        "list": lambda: collectives.all_gather([1, 2]),
        "root": lambda: collectives.broadcast(table, root=td.get_world_size()),
        "root sum": lambda: collectives.all_reduce_through_root(table, root=-1),
    }
    said = {}
    for name, call in calls.items():
        try:
            call()
        except (TypeError, ValueError) as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


def groups() -> dict[str, list]:
    """Collectives inside the group of all odd or all even ranks, and in a group in reverse order."""
    rank, ranks = td.get_rank(), td.get_world_size()
    members = [[r for r in range(ranks) if r % 2 == side] for side in (0, 1)]
    both = [td.new_group(m) for m in members]
    mine, group, other = members[rank % 2], both[rank % 2], both[1 - rank % 2]
    total = part(11, torch.int64, rank)
    collectives.all_reduce(total, group)
    root = part(11, torch.int64, rank)
    collectives.broadcast(root, len(mine) - 1, group)  # the root is counted inside the group
    last = td.new_group([ranks - 1])
    alone = part(5, torch.int64, rank)
    if rank == ranks - 1:
        collectives.all_reduce(alone, last)
        collectives.broadcast(alone, 0, last)
    outside = ""
    try:
        collectives.all_reduce(total.clone(), other)
    except ValueError as error:
        outside = str(error)
    return {
        "total": total.tolist(),
        "want": sum(part(11, torch.int64, r) for r in mine).tolist(),
        "root": root.tolist(),
        "want root": part(11, torch.int64, mine[-1]).tolist(),
        "alone": [alone.tolist(), part(5, torch.int64, rank).tolist()],
        "outside": outside,
    }


@pytest.fixture(scope="module", params=[2, 3, 4], ids="{} ranks".format)
def seen(request) -> list[dict]:
    return dist.run(exercise_everything, ranks=request.param, timeout_s=120)


def test_every_collective_is_exact_on_integers_and_equals_torch(seen):
    assert [problem for rank in seen for problem in rank["wrong"]] == []


def test_sums_of_floats_repeat_and_are_the_same_bits_on_every_rank(seen):
    assert all(rank["repeats"] for rank in seen)
    assert len({rank["sum"] for rank in seen}) == 1


def test_sums_of_floats_equal_torch_but_for_the_order_of_addition(seen):
    assert max(rank["off_torch"] for rank in seen) < 1e-14


def test_groups_are_respected_and_roots_counted_inside_them(seen):
    for rank in seen:
        groups = rank["groups"]
        assert groups["total"] == groups["want"]
        assert groups["root"] == groups["want root"]
        assert groups["alone"][0] == groups["alone"][1]


def test_a_rank_outside_the_group_is_told_so(seen):
    for rank in seen:
        assert rank["groups"]["outside"].startswith("this rank is not in the group: ")


def test_misuse_is_named(seen):
    for rank in seen:
        said = rank["errors"]
        assert said["columns"].startswith(
            "ValueError: x must be contiguous, got strides (6, 1) for shape (4, 3)"
        )
        assert "Pass y = x.contiguous()" in said["transposed"]
        assert (
            said["list"]
            == "TypeError: x must be a torch tensor, got list: wrap it in torch.as_tensor(...)."
        )
        assert said["root"].startswith("ValueError: root must be between 0 and ")
        assert said["root sum"].startswith("ValueError: root must be between 0 and ")


@pytest.mark.parametrize(
    ("n", "ranks", "sizes"), [(10, 4, [3, 3, 2, 2]), (2, 3, [1, 1, 0]), (0, 2, [0, 0]), (6, 1, [6])]
)
def test_chunks_differ_by_one_at_most(n, ranks, sizes):
    assert collectives.chunk_sizes(n, ranks) == sizes


def test_chunk_sizes_names_a_bad_argument():
    with pytest.raises(ValueError, match="ranks must be at least 1, got 0"):
        collectives.chunk_sizes(5, 0)
    with pytest.raises(ValueError, match="n must be at least 0, got -1"):
        collectives.chunk_sizes(-1, 2)
