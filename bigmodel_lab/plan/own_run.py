"""From the reader's own small run to a larger model: which model it was, how fast the machine could be, what grows.

    arch = describe(model.config)                          # the Architecture of a GPTConfig
    record = note_peak(record, matmul_peak())              # the machine's own roof beside what the run did on it
    share = kernel_share(record, arch)                     # of that roof: for Fleet(kernel_share=share)
    runs = small_runs()                                    # that ship, or of a file that train.small_runs wrote
    law = anchor(iso_flop(*points(runs)))                  # our best size for what we could pay, a published exponent from there
    large = grow(arch, law.optimum(1e22).parameters)       # the same form, larger

A parametric fit to small runs (`fit_chinchilla`), carried a billion times further by its own exponents, says nothing: its
interval spans many powers of ten. So `iso_flop` asks only which size was best for one compute C0 that the runs themselves
cover, and `anchor` goes on from there as published,

    loss at C0 ~ parabola in log N, lowest at N0;    N = N0 (C / C0)^a,    D = C / 6N

Source of both: Hoffmann et al. (2022), arXiv:2203.15556, section 3.2 (approach 2) and table 2.
That a share of a laptop's roof carries over to another device is an assumption, and the weakest link of the chain: small
matrices reach a smaller share than large ones. Told in lab L10.
"""

import dataclasses
import itertools
import math
import time

import numpy as np
from threadpoolctl import threadpool_limits

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.architecture import Architecture
from bigmodel_lab.plan.flops import utilisation
from bigmodel_lab.plan.measured import measure
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.plan.scaling import EXPONENTS, Optimum, scaled_optimum
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = [
    "AnchoredLaw",
    "IsoFlop",
    "anchor",
    "describe",
    "grow",
    "iso_flop",
    "kernel_share",
    "matmul_peak",
    "note_peak",
    "peak_of",
]

HEAD = 128  # channels of a head in a grown model: what Llama 2 and 3 and GPT-3 have
_KEY = "matmul_FLOP_per_s"  # in RunRecord.machine


def describe(config, name: str = "own GPT") -> Architecture:
    """Return the Architecture of a `models.GPTConfig`, read by its fields.

    Raises ValueError if it does not count as many parameters as the config says: then the two rooms disagree.
    """
    arch = Architecture.of(config, name)
    if arch.kv_heads == arch.n_heads:  # said in one way only, so that equal models compare equal
        arch = arch.but(n_kv_heads=None)
    if (counted := count_parameters(arch).total) != config.n_parameters:
        raise ValueError(
            f"config has {config.n_parameters:,} parameters and its description {counted:,}: describe it by hand."
        )
    return arch


@dataclasses.dataclass(frozen=True)
class IsoFlop:
    """Which size was best for one compute, among runs that cover it."""

    compute: float  # C0, FLOP
    sizes: tuple[float, ...]  # N of the models that cover it
    losses: tuple[float, ...]  # of each, nat, between its runs at D = C0 / 6N
    parabola: tuple[float, float, float]  # loss = p0 x^2 + p1 x + p2, x = log N
    parameters: float  # N0, where it is lowest

    def loss(self, parameters) -> float:
        """Return the parabola's loss, nat."""
        x = math.log(number("parameters", parameters, "parameter", above=0))
        return float(np.polyval(self.parabola, x))


def iso_flop(parameters, tokens, loss, compute=None) -> IsoFlop:
    """Return the best size for `compute` FLOP, from runs of several sizes, each run for several numbers of tokens.

    parameters, tokens, loss : sequences (R,), as `points` gives them
    compute : FLOP; None: the middle of those that most sizes cover with the lowest loss between them

    Between the runs of one size the loss is taken to be linear in log D; nothing is extrapolated. Raises ValueError if fewer
    than three sizes cover the compute, or the best size is not between them.
    """
    N, D, L = (np.asarray(x, dtype=float) for x in (parameters, tokens, loss))
    for name, x in (("parameters", N), ("tokens", D), ("loss", L)):
        for value in x:
            number(f"each of {name}", value, above=0)  # a run that diverged has no finite loss
    runs = {n: sorted(zip(D[n == N], L[n == N], strict=True)) for n in np.unique(N)}
    spans = {
        n: (6 * n * r[0][0] * (1 - 1e-9), 6 * n * r[-1][0] * (1 + 1e-9)) for n, r in runs.items()
    }

    def losses(c):
        """Of the sizes that cover c, smallest first."""
        return {
            n: float(np.interp(math.log(c / 6 / n), *np.array([(math.log(d), x) for d, x in runs[n]]).T))
            for n, (low, high) in spans.items() if low <= c <= high
        }  # fmt: skip

    def worth(c):
        at = list(losses(c).values())
        return min(at[1:-1], default=math.inf) < min(at[:1] + at[-1:], default=0), len(at)

    if compute is None:
        edges = sorted({x for span in spans.values() for x in span})
        compute = max((math.sqrt(a * b) for a, b in itertools.pairwise(edges)), key=worth)
    C = number("compute", compute, "FLOP", above=0)
    sizes, at = map(list, (losses(C), losses(C).values()))
    if len(sizes) < 3:
        raise ValueError(
            f"compute={C:.3g} FLOP must be covered by runs of at least 3 sizes, got {len(sizes)}: a size with N parameters "
            "covers 6 N times its fewest to 6 N times its most tokens. Run more sizes, or each over a wider range."
        )
    x = np.log(sizes)
    bend, slope, rest = (float(p) for p in np.polyfit(x - x.mean(), at, 2))
    best = -slope / (2 * bend) + x.mean() if bend > 0 else math.inf
    if not x.min() <= best <= x.max():
        said = f"{math.exp(best):.3g}" if bend > 0 and abs(best) < 700 else "none"
        raise ValueError(
            f"the best size at {C:.3g} FLOP must lie between the sizes run, {sizes[0]:.3g} to {sizes[-1]:.3g} parameters, got "
            f"{said}: run {'smaller' if best < x.min() else 'larger'} models too, or choose another compute."
        )
    m = x.mean()
    parabola = (bend, float(slope - 2 * bend * m), float(rest - slope * m + bend * m * m))
    return IsoFlop(C, tuple(map(float, sizes)), tuple(at), parabola, math.exp(best))


@dataclasses.dataclass(frozen=True)
class AnchoredLaw:
    """The optimal size through one point of our own runs, with a published exponent."""

    compute: float  # C0, FLOP
    parameters: float  # N0, the best size there
    exponent: float  # of the optimal N in compute
    source: str  # of the exponent

    def optimum(self, compute) -> Optimum:
        """Return N and D for `compute` FLOP. Its loss is NaN: this law is about the size only."""
        C = number("compute", compute, "FLOP", above=0)
        N, D = scaled_optimum(C, self.exponent, anchor=(self.compute, self.parameters))
        return Optimum(Q(C, "FLOP"), N, D, math.nan)


def anchor(best: IsoFlop, exponent: str = "approach 2") -> AnchoredLaw:
    """Return the law through the best size of our own runs; exponent : a key of `EXPONENTS`."""
    a = EXPONENTS[require_choice("exponent", exponent, EXPONENTS)]
    paper = (
        "Kaplan et al. (2020), arXiv:2001.08361"
        if exponent == "kaplan"
        else "Hoffmann et al. (2022), arXiv:2203.15556, table 2"
    )
    return AnchoredLaw(best.compute, best.parameters, a, f"{paper}, {exponent}")


def matmul_peak(size: int = 1024, repeats: int = 5, threads: int | None = None) -> Quantity:
    """Return the FLOP/s of the fastest of `repeats` products of two float32 matrices of `size` rows, as NumPy runs them.

    It is a roof that this machine has been seen to reach. threads : as many as the run to be held against it has on all its
    ranks; None: as many as NumPy's BLAS takes, which is mostly all cores
    """
    n, times = whole("size", size, low=1), whole("repeats", repeats, low=1)
    a = np.ones((n, n), np.float32)
    best = math.inf
    with threadpool_limits(threads if threads is None else whole("threads", threads, low=1)):
        a @ a  # wakes the threads
        for _ in range(times):
            start = time.perf_counter()
            a @ a
            best = min(best, time.perf_counter() - start)
    return Q(2 * n**3 / best, "FLOP / s")


def note_peak(record, peak):
    """Return the RunRecord with `peak` (FLOP/s of the machine that ran it) under its machine, so that it is kept with it."""
    value = round(number("peak", peak, "FLOP / s", above=0))
    return dataclasses.replace(record, machine=dict(record.machine) | {_KEY: value})


def peak_of(record) -> Quantity:
    """Return the FLOP/s that `note_peak` put into the record. Raises ValueError or TypeError if there is none."""
    if _KEY not in record.machine:
        raise ValueError(
            f"record.machine has no {_KEY!r}: measure it on the machine of the run and keep it, "
            "record = note_peak(record, matmul_peak())."
        )
    return Q(
        number(f"record.machine[{_KEY!r}]", record.machine[_KEY], "FLOP / s", above=0), "FLOP / s"
    )


def kernel_share(record, arch: Architecture | None = None, sequence: int | None = None) -> float:
    """Return the share of its machine's roof that the run turned into model FLOP while it computed, 0 to 1.

    The roof is that of the whole machine, so each of r ranks has an r-th of it. Communication is left out: who plans a fleet
    with this share adds that of the fleet.
    """
    m = measure(record, arch, sequence)
    computing = m.time * (1 - m.communication_share)
    return utilisation(m.flops, m.ranks, computing, peak_of(record) / m.ranks)


def grow(
    arch: Architecture, parameters, *, vocab: int | None = None, context: int | None = None
) -> Architecture:
    """Return a model of the same form (norms, biases, positions, gates, shares of widths) with about `parameters`.

    Heads have 128 channels; there are about as many layers as heads, so that the width is about 128 times the depth, as in
    GPT-3 and Llama; from 8 heads on their number is a multiple of 8, which tensor parallelism divides. The count is met by
    the number of layers, to half a layer. vocab, context : of the grown model; None: as in `arch`.

    Raises ValueError for fewer parameters than the smallest such model has, for experts and for MLA.
    """
    N = number("parameters", parameters, "parameter", above=0)
    wide = dict(vocab=vocab or arch.vocab, context=context or arch.context, head_width=None)
    if arch.experts or arch.mla:
        raise ValueError(
            f"arch must be dense, with heads, to be grown; {arch.name} has experts or MLA."
        )
    found = None
    for heads in (1, 2, 4, *range(8, 513, 8)):
        kv = max(1, round(heads * arch.kv_heads / arch.n_heads))
        while heads % kv:
            kv -= 1
        width = HEAD * heads
        hidden = max(8, round(width * arch.hidden / arch.width / 8) * 8)
        shape = wide | dict(width=width, n_heads=heads, n_kv_heads=kv, hidden=hidden)
        one, two = (count_parameters(arch.but(**shape, n_layers=n)).total for n in (1, 2))
        layers = round(1 + (N - one) / (two - one))
        if layers < 1:
            break
        mismatch = abs(math.log(layers / heads))
        if found is None or mismatch < found[0]:
            found = mismatch, shape | dict(n_layers=layers)
    if found is None:
        raise ValueError(
            f"parameters={N:.3g} is too few to grow to: one layer of one head of {HEAD} channels with this vocabulary and "
            f"context has {one:,}. Ask for more, or for a smaller vocab."
        )
    name = f"{arch.name} grown to {N:.2g} parameters"
    return arch.but(name=name, **found[1])
