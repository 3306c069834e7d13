"""The ring: all-reduce, reduce-scatter and all-gather in which each rank only ever sends to the next one.

A tensor of n elements is cut into W chunks. In a reduce-scatter, W - 1 steps carry each chunk once round the ring and add to
it on the way; in an all-gather, another W - 1 steps carry the finished chunks round. An all-reduce is one after the other,
and what each rank sends,

    2 (W - 1) / W * n elements,

does not grow with W. No algorithm sends less: P. Patarasuk and X. Yuan, "Bandwidth optimal all-reduce algorithms for
clusters of workstations", J. Parallel Distrib. Comput. 69 (2009), sections 3 and 4. Derived in lab L02.

What holds for every collective stands in `bigmodel_lab.dist.collectives`, from where these are imported, too.
torch's own: `torch.distributed.all_reduce`, `reduce_scatter_tensor`, `all_gather_into_tensor`.
Letters: n = elements of the tensor, W = ranks in the group, r = this rank.
"""

import torch
import torch.distributed as dist

from bigmodel_lab.dist.wire import Wire, timed
from bigmodel_lab.errors import require_choice, require_in_range

__all__ = ["all_gather", "all_reduce", "as_row", "chunk_sizes", "reduce_scatter"]

_COMBINE = {"sum": torch.add, "max": torch.maximum}


def chunk_sizes(n: int, ranks: int) -> list[int]:
    """Cut n elements into one chunk per rank: sizes that differ by one at most, the longer ones first.

    Returns W integers that sum to n; chunks are empty where n < W.
    """
    require_in_range("n", n, 0)
    require_in_range("ranks", ranks, 1)
    return [n // ranks + (i < n % ranks) for i in range(ranks)]


@timed
def all_reduce(
    x: torch.Tensor, group=None, *, op: str = "sum", wire: Wire | None = None
) -> torch.Tensor:
    """Replace `x` on every rank by the sum (or the largest) over the ranks, and return it.

    Each rank sends 2 n - |chunk r| - |chunk r+1| elements: 2 (W - 1) / W * n when W divides n.

    Parameters
    ----------
    x : tensor, any shape, contiguous, any dtype that can be added; overwritten with the sum
    group : process group; None for all ranks
    op : "sum" or "max", element by element
    wire : what counts the payload, under the name "all_reduce"

    Raises ValueError if `x` is not contiguous or this rank is not in the group.
    """
    chunks = _chunks(x, group)
    _reduce_round(chunks, group, wire, "all_reduce", require_choice("op", op, _COMBINE))
    _gather_round(chunks, group, wire, "all_reduce")
    return x


@timed
def reduce_scatter(x: torch.Tensor, group=None, *, wire: Wire | None = None) -> torch.Tensor:
    """Leave chunk r of the sum over the ranks on rank r, and return that chunk.

    The chunk is a flat view into `x`, at the place where `chunk_sizes` puts it. The rest of `x` is used for the work:
    it holds partial sums afterwards. Each rank sends n - |chunk r| elements.

    Parameters and errors as for `all_reduce`; counted as "reduce_scatter".
    """
    chunks = _chunks(x, group)
    _reduce_round(chunks, group, wire, "reduce_scatter")
    return chunks[dist.get_rank(group)]


@timed
def all_gather(x: torch.Tensor, group=None, *, wire: Wire | None = None) -> torch.Tensor:
    """Fill `x` on every rank with chunk 0 of rank 0, chunk 1 of rank 1, and so on, and return it.

    On entry rank r's own chunk is where `chunk_sizes` puts it in `x` (where `reduce_scatter` left it); the rest of `x`
    is overwritten. Each rank sends n - |chunk r+1| elements.

    Parameters and errors as for `all_reduce`; counted as "all_gather".
    """
    _gather_round(_chunks(x, group), group, wire, "all_gather")
    return x


def _reduce_round(chunks, group, wire, name, op="sum") -> None:
    """W - 1 steps: chunk c starts at rank c+1, collects every rank's part on its way, and ends complete at rank c."""
    rank, ranks = dist.get_rank(group), len(chunks)
    buffer = torch.empty_like(chunks[0])  # chunk 0 is never the shorter one
    for step in range(ranks - 1):
        out, into = (rank - step - 1) % ranks, (rank - step - 2) % ranks
        received = buffer[: chunks[into].numel()]
        _pass_on(chunks[out], received, group, wire, name)
        _COMBINE[op](chunks[into], received, out=chunks[into])


def _gather_round(chunks, group, wire, name) -> None:
    """W - 1 steps: chunk c starts complete at rank c and is copied by every rank that it passes."""
    rank, ranks = dist.get_rank(group), len(chunks)
    for step in range(ranks - 1):
        _pass_on(
            chunks[(rank - step) % ranks], chunks[(rank - step - 1) % ranks], group, wire, name
        )


def _pass_on(out: torch.Tensor, into: torch.Tensor, group, wire, name) -> None:
    """Send `out` to the next rank while receiving `into` from the one before."""
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    after = (rank + 1) % ranks
    if wire is not None:
        wire.add(name, out.numel() * out.element_size(), after)
    # The receive is posted first: on a slow link the two directions then run at once. The other way round took twice
    # as long on a 300 Mbit/s link, and nobody sees it on loopback. In one batch, because NCCL would else wait for the
    # receive before it sends.
    both = [
        dist.P2POp(dist.irecv, into, group=group, group_peer=(rank - 1) % ranks),
        dist.P2POp(dist.isend, out, group=group, group_peer=after),
    ]
    for work in dist.batch_isend_irecv(both):
        work.wait()


def _chunks(x: torch.Tensor, group) -> list[torch.Tensor]:
    """Views into `x`, one per rank of the group."""
    return list(as_row(x, group).split(chunk_sizes(x.numel(), dist.get_world_size(group))))


def as_row(x: torch.Tensor, group) -> torch.Tensor:
    """All of `x` as one row that shares its memory, after the checks that every collective makes."""
    if not isinstance(x, torch.Tensor):
        raise TypeError(
            f"x must be a torch tensor, got {type(x).__name__}: wrap it in torch.as_tensor(...)."
        )
    if not x.is_contiguous():
        raise ValueError(
            f"x must be contiguous, got strides {x.stride()} for shape {tuple(x.shape)}: the result is written in "
            "place, and a copy would be lost. Pass y = x.contiguous() and use y afterwards."
        )
    if dist.get_rank(group) < 0:
        raise ValueError(
            "this rank is not in the group: let only the group's members call the collective, "
            "or pass the group that this rank is in."
        )
    return x.detach().view(-1)
