"""Do the replicas still agree, and if not, who is the odd one out?

Replicas of a healthy run hold the same parameters, bit for bit, after every step: same start, same averaged gradients, same
arithmetic. Whatever breaks that (a bit that flips in a rank's memory or arithmetic, a seed or a file that is another one
on one rank) raises no error, and the loss curve may not show it. So every k steps each rank sends a checksum, 8 bytes for
each tensor, and all compare:

    found = same_everywhere({"parameters": model.parameters(), "batch": [x, y]})
    if not found:
        raise RuntimeError(str(found))      # "parameters: rank 2 differs from ranks 0 and 1"

What is held by more than half of the ranks is taken for right; two ranks that differ cannot tell who is wrong.

What no comparison of replicas can see is an error made *before* the all-reduce: it goes into everybody's sum, and all agree
on a wrong gradient. That takes a second computation of the same thing (`repeated`), one gradient more every k steps.

Processors that compute wrongly exist: a few in several thousand machines (Hochschild et al., "Cores that don't count", HotOS
2021), hundreds in hundreds of thousands (Dixit et al., "Silent data corruptions at scale", 2021, arXiv:2102.11245). Told in
lab L06.
Letters: W = ranks of the group, K = names.
"""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist

from bigmodel_lab.dist._report import listed
from bigmodel_lab.dist.collectives import all_gather
from bigmodel_lab.dist.wire import Wire

__all__ = ["Agreement", "checksum", "repeated", "same_everywhere"]


@dataclass(frozen=True)
class Agreement:
    """What the ranks of a group hold under each name. True if it is the same everywhere."""

    checksums: dict[str, tuple[int, ...]]  # name: one of each rank

    def __bool__(self) -> bool:
        return not self.names

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which not all ranks hold the same, in the order in which they were given."""
        return tuple(name for name, sums in self.checksums.items() if len(set(sums)) > 1)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that differ from the majority under any name; under a name without a majority nobody can be named."""
        return tuple(sorted({r for name in self.names for r in self._odd(name)}))

    def _odd(self, name: str) -> list[int]:
        sums = self.checksums[name]
        usual, times = Counter(sums).most_common(1)[0]
        return [r for r, s in enumerate(sums) if s != usual] if 2 * times > len(sums) else []

    def __str__(self) -> str:
        if self:
            return f"the same on all ranks: {', '.join(self.checksums)}"
        said = []
        for name in self.names:
            odd, everyone = self._odd(name), range(len(self.checksums[name]))
            rest = [r for r in everyone if r not in odd]
            said.append(
                f"{name}: {listed(odd)} differ{'s' * (len(odd) == 1)} from {listed(rest)}"
                if odd
                else f"{name}: {listed(rest)} differ, and no majority says who is wrong"
            )
        return "; ".join(said)


def same_everywhere(
    tensors: Mapping[str, Iterable[torch.Tensor]] | Iterable[torch.Tensor],
    group=None,
    *,
    wire: Wire | None = None,
) -> Agreement:
    """Compare tensors over the ranks of a group, bit for bit. A collective: every rank calls it, and gets the same answer.

    Parameters
    ----------
    tensors : what should be equal, under K names, the same names in the same order on every rank; or without names
    group : process group; None for all ranks. Those that hold replicas of each other: with tensor or pipeline
        parallelism not all ranks, but for example `Composed.grid.data`
    wire : counts the 8 K (W - 1) bytes that each rank sends

    Ranks are counted inside the group. Values are compared as bytes: a NaN equals itself, and -0.0 is not 0.0. That two
    different tensors have one checksum happens once in 4 billion times, and never if they differ in a single bit.
    """
    named = tensors if isinstance(tensors, Mapping) else {"tensors": tensors}
    ranks = dist.get_world_size(group)
    mine = torch.tensor([checksum(ts) for ts in named.values()], dtype=torch.int64)
    everyone = torch.zeros(ranks, len(named), dtype=torch.int64)
    everyone[dist.get_rank(group)] = mine
    all_gather(everyone, group, wire=wire)
    columns = everyone.T.tolist()
    return Agreement({name: tuple(c) for name, c in zip(named, columns, strict=True)})


def repeated(
    compute: Callable[[int], Iterable[torch.Tensor]],
    group=None,
    *,
    neighbour: int = 1,
    wire: Wire | None = None,
) -> tuple[int, ...]:
    """Let every rank do its neighbour's work, too, and return the ranks whose results the two do not agree on.

    Parameters
    ----------
    compute : gives the tensors that a rank's share of the work leads to, such as the gradients of its micro-batch, when
        called with that rank; it must not depend on who calls it, and give the same bits on every machine in use
    neighbour : rank r repeats the work of r + neighbour (modulo W)

    If a rank computes wrongly every time, two ranks are named: the one itself and the one whose work it repeated. Asking
    again with another `neighbour` tells which: it is in both answers. With two ranks nothing tells. A collective.
    """
    rank, ranks = dist.get_rank(group), dist.get_world_size(group)
    everyone = torch.zeros(ranks, 2, dtype=torch.int64)
    both = checksum(compute(rank)), checksum(compute((rank + neighbour) % ranks))
    everyone[rank] = torch.tensor(both)
    all_gather(everyone, group, wire=wire)
    own, of_neighbour = everyone.T.tolist()
    return tuple(r for r in range(ranks) if own[r] != of_neighbour[(r - neighbour) % ranks])


@torch.no_grad()
def checksum(tensors: Iterable[torch.Tensor]) -> int:
    """Return the CRC-32 of the values of the tensors, one after the other; their shapes do not count."""
    crc = 0
    for t in tensors:
        flat = t.detach().cpu().contiguous().view(-1)
        crc = zlib.crc32(flat.view(torch.uint8).numpy(), crc)
    return crc
