"""Collectives built from nothing but isend and irecv: the ring's three, a tree, an exchange, and the road through rank 0.

    all_reduce, reduce_scatter, all_gather      round a ring: `bigmodel_lab.dist.ring`
    broadcast                                   along a binomial tree
    all_to_all                                  everyone to everyone, at once
    all_reduce_through_root                     the obvious way, which the ring is compared with

Every function here
- takes the process group as an argument (None means all ranks); `root` and all ranks are counted inside that group;
- works in place on one contiguous tensor, the same shape and dtype on every rank (as in torch, nobody checks that);
  only all_to_all takes lists of tensors;
- adds in a fixed order, so that a run repeats bit for bit; sums of integers are exact;
- reports each payload to `wire`, a `bigmodel_lab.dist.wire.Wire`, if one is given.

torch's own: `torch.distributed.broadcast`, `all_to_all`. Derived in lab L02.
Letters: n = elements of the tensor, W = ranks in the group, r = this rank.
"""

import torch
import torch.distributed as dist

from bigmodel_lab.dist.ring import all_gather, all_reduce, as_row, chunk_sizes, reduce_scatter
from bigmodel_lab.dist.wire import Wire, timed
from bigmodel_lab.errors import require_in_range

__all__ = [
    "all_gather",
    "all_reduce",
    "all_reduce_through_root",
    "all_to_all",
    "broadcast",
    "chunk_sizes",
    "reduce_scatter",
]


@timed
def broadcast(
    x: torch.Tensor, root: int = 0, group=None, *, wire: Wire | None = None
) -> torch.Tensor:
    """Copy `x` of rank `root` into `x` of every rank, along a binomial tree, and return it.

    In round k the 2**k ranks that have the data send it to 2**k others: ceil(log2 W) rounds, W - 1 copies on the wire
    in all, ceil(log2 W) of them by the root.

    Parameters and errors as for `all_reduce`; counted as "broadcast".
    """
    flat, ranks = as_row(x, group), dist.get_world_size(group)
    require_in_range("root", root, 0, ranks - 1)
    place = (dist.get_rank(group) - root) % ranks  # 0 at the root, whatever its rank
    have = 1  # places 0 .. have-1 hold the data
    while have < ranks:
        if place < have and place + have < ranks:
            _send(flat, (place + have + root) % ranks, group, wire, "broadcast").wait()
        elif have <= place < 2 * have:
            dist.irecv(flat, group=group, group_src=(place - have + root) % ranks).wait()
        have *= 2
    return x


@timed
def all_to_all(
    parts: list[torch.Tensor],
    into: list[torch.Tensor],
    group=None,
    *,
    wire: Wire | None = None,
    name="all_to_all",
):
    """Send parts[r] to rank r and fill into[r] with what rank r sends here; the lists have a tensor for each rank.

    Everything is in flight at once, receives posted first. Empty tensors are not sent: both sides know the sizes. The
    payload is that of the parts for other ranks. Returns `into`.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    for what, tensors in (("parts", parts), ("into", into)):
        if len(tensors) != ranks:
            raise ValueError(
                f"{what} must hold a tensor for each of the {ranks} ranks, got {len(tensors)}."
            )
    into[rank].copy_(parts[rank])
    others = [(rank + step) % ranks for step in range(1, ranks)]
    work = [dist.irecv(into[r], group=group, group_src=r) for r in others if into[r].numel()]
    for r in others:
        if parts[r].numel():
            work.append(_send(parts[r].contiguous(), r, group, wire, name))
    for w in work:
        w.wait()
    return into


@timed
def all_reduce_through_root(
    x: torch.Tensor, root: int = 0, group=None, *, wire: Wire | None = None
) -> torch.Tensor:
    """Do what `all_reduce` does the obvious way, which the ring is compared with: collect, add, hand back.

    The root receives n (W - 1) elements and sends as many, one rank after the other; everyone else sends n.

    Parameters and errors as for `all_reduce`; counted as "all_reduce_through_root".
    """
    name, flat, rank = "all_reduce_through_root", as_row(x, group), dist.get_rank(group)
    others = [r for r in range(dist.get_world_size(group)) if r != root]
    require_in_range("root", root, 0, len(others))
    if rank == root:
        received = torch.empty_like(flat)
        for r in others:
            dist.irecv(received, group=group, group_src=r).wait()
            flat.add_(received)
        for r in others:
            _send(flat, r, group, wire, name).wait()
    else:
        _send(flat, root, group, wire, name).wait()
        dist.irecv(flat, group=group, group_src=root).wait()
    return x


def _send(x: torch.Tensor, to: int, group, wire: Wire | None, name: str):
    """isend, counted."""
    if wire is not None:
        wire.add(name, x.numel() * x.element_size(), to)
    return dist.isend(x, group=group, group_dst=to)
