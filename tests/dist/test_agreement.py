"""Replicas compared: equal ones are equal, whatever differs is found, and who differs is named if a majority can say it."""

import pytest
import torch
import torch.distributed as td

from bigmodel_lab import dist
from bigmodel_lab.dist.agreement import Agreement, checksum, repeated, same_everywhere
from bigmodel_lab.dist.wire import Wire


def test_a_single_bit_is_found_and_its_rank_named():
    def work(bit, at):
        x, y = torch.arange(6.0).view(2, 3), torch.ones(4, dtype=torch.bfloat16)
        if bit is not None and td.get_rank() == at:
            x.view(-1).view(torch.int32)[5] ^= 1 << bit
        wire = Wire()
        found = same_everywhere({"x": [x], "y": [y, torch.tensor(2.0)]}, wire=wire)
        return bool(found), found.names, found.ranks, str(found), wire.total_bytes

    assert (
        dist.run(work, None, 0, ranks=3)
        == [(True, (), (), "the same on all ranks: x, y", 8 * 2 * 2)] * 3
    )
    for bit, at, rest in ((0, 2, "0 and 1"), (31, 0, "1 and 2")):
        says = f"x: rank {at} differs from ranks {rest}"
        assert dist.run(work, bit, at, ranks=3) == [(False, ("x",), (at,), says, 32)] * 3


def test_two_ranks_that_differ_name_nobody():
    def work():
        found = same_everywhere([torch.tensor([td.get_rank()])])
        return bool(found), found.ranks, str(found)

    says = "tensors: ranks 0 and 1 differ, and no majority says who is wrong"
    assert dist.run(work, ranks=2) == [(False, (), says)] * 2


def test_only_the_ranks_of_the_group_are_compared():
    def work():
        groups = [td.new_group([0, 1]), td.new_group([2, 3])]
        mine, value = groups[td.get_rank() // 2], [torch.tensor([7, 7, 8, 9][td.get_rank()])]
        return bool(same_everywhere(value, mine)), same_everywhere(value).checksums["tensors"]

    found = dist.run(work, ranks=4)
    assert [same for same, _ in found] == [True, True, False, False]
    (sums,) = {sums for _, sums in found}
    assert sums[0] == sums[1]
    assert len(set(sums)) == 3


def test_agreements_by_hand():
    three = Agreement({"a": (5, 5, 5), "b": (1, 2, 1), "c": (1, 1, 3)})
    assert (three.names, three.ranks) == (("b", "c"), (1, 2))
    assert (
        str(three) == "b: rank 1 differs from ranks 0 and 2; c: rank 2 differs from ranks 0 and 1"
    )
    assert Agreement({"a": (1, 2, 1, 2)}).ranks == ()  # two against two
    assert str(Agreement({"a": (1, 2, 1, 3, 1)})) == "a: ranks 1 and 3 differ from ranks 0, 2 and 4"


def test_checksums_are_of_the_bytes():
    x = torch.arange(6.0).view(2, 3)
    assert checksum([x]) == checksum([x.clone()]) == checksum([x[0], x[1]])
    assert checksum([x.t()]) == checksum([x.t().contiguous()]) != checksum([x])
    nan = torch.tensor([float("nan")])
    assert checksum([nan]) == checksum([nan.clone()])
    assert checksum([torch.tensor(0.0)]) != checksum([torch.tensor(-0.0)])
    assert checksum([torch.zeros(0), torch.nn.Parameter(x)]) == checksum([x])
    assert checksum([]) == 0


@pytest.mark.parametrize("always", [True, False])
def test_work_that_is_repeated_shows_an_error_made_before_the_all_reduce(always):
    def work():
        rank, calls = td.get_rank(), []

        def gradient(of):
            calls.append(of)
            broken = rank == 1 and (always or len(calls) == 1)
            g = torch.full((5,), float(of))
            g[0] += broken
            return [g]

        shared = sum(g for g in gradient(rank)).clone()
        td.all_reduce(shared)
        agree = bool(same_everywhere([shared]))  # on a wrong sum
        calls.clear()
        return float(shared[0]), agree, repeated(gradient), repeated(gradient, neighbour=2)

    # rank 1 itself and, if it always errs, also the rank whose work it repeats
    want = ((1, 2), (1, 3)) if always else ((1,), ())
    assert dist.run(work, ranks=4) == [(7.0, True, *want)] * 4


def test_healthy_work_names_nobody():
    def work():
        return repeated(lambda of: [torch.tensor(float(of))])

    assert dist.run(work, ranks=3) == [()] * 3
