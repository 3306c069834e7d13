"""From the reader's own small run to a larger model: which model it was, how fast the machine could be, what grows.

    arch = describe(model.config)                          # the Architecture of a GPTConfig
    record = note_peak(record, matmul_peak())              # the machine's own roof beside what the run did on it
    share = kernel_share(record, arch)                     # of that roof: for Fleet(kernel_share=share)
    law = anchor(iso_flop(*points(records)))               # our best size for what we could pay, a published exponent from there
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

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.architecture import Architecture
from bigmodel_lab.plan.measured import measure
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.plan.scaling import EXPONENTS, Optimum, scaled_optimum
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = [
    "AnchoredLaw",
    "anchor",
    "describe",
    "grow",
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
    compute : FLOP; None: the middle of those that most sizes cover

    Between the runs of one size the loss is taken to be linear in log D; nothing is extrapolated. Raises ValueError if fewer
    than three sizes cover the compute, or the best size is not between them.
    """
    N, D, L = (np.asarray(x, dtype=float) for x in (parameters, tokens, loss))
    runs = {n: sorted(zip(D[n == N], L[n == N], strict=True)) for n in np.unique(N)}
    spans = {
        n: (6 * n * r[0][0] * (1 - 1e-9), 6 * n * r[-1][0] * (1 + 1e-9)) for n, r in runs.items()
    }
    if compute is None:
        edges = sorted({x for span in spans.values() for x in span})
        middles = [math.sqrt(a * b) for a, b in itertools.pairwise(edges)]
        compute = max(middles, key=lambda c: sum(a <= c <= b for a, b in spans.values()))
    C = number("compute", compute, "FLOP", above=0)
    sizes = [n for n, (low, high) in spans.items() if low <= C <= high]
    if len(sizes) < 3:
        raise ValueError(
            f"compute={C:.3g} FLOP must be covered by runs of at least 3 sizes, got {len(sizes)}: a size with N parameters "
            "covers 6 N times its fewest to 6 N times its most tokens. Run more sizes, or each over a wider range."
        )
    at = [
        float(np.interp(math.log(C / 6 / n), [math.log(d) for d, _ in runs[n]], [x for _, x in runs[n]])) for n in sizes
    ]  # fmt: skip
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


def matmul_peak(size: int = 1024, repeats: int = 5) -> Quantity:
    """Return the FLOP/s of the fastest of `repeats` products of two float32 matrices of `size` rows, as NumPy runs them.

    It is a roof that this machine has been seen to reach, on as many threads as NumPy's BLAS takes.
    """
    n, times = whole("size", size, low=1), whole("repeats", repeats, low=1)
    a = np.ones((n, n), np.float32)
    a @ a  # wakes the threads
    best = math.inf
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
    """Return the FLOP/s that `note_peak` put into the record. Raises ValueError if there is none."""
    if _KEY not in record.machine:
        raise ValueError(
            f"record.machine has no {_KEY!r}: measure it on the machine of the run and keep it, "
            "record = note_peak(record, matmul_peak())."
        )
    return Q(float(record.machine[_KEY]), "FLOP / s")


def kernel_share(record, arch: Architecture | None = None, sequence: int | None = None) -> float:
    """Return the share of its machine's roof that the run turned into model FLOP, 0 to 1 (as `measure`, `mfu`).

    The roof is that of the whole machine, so a run on r ranks of one machine is counted r times against it.
    """
    m = measure(record, arch, sequence)
    return m.mfu(peak_of(record) / m.ranks)


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
