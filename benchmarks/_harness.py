"""Timing that can be believed on a shared machine: interleaved candidates, medians with spread, limits measured beside.

Import this before NumPy, numba and torch: it sets how their threads wait (below). A benchmark is a file beside this one:
cases (`Case`: functions that must give the same arrays, and the work that none can avoid), a generator `report(quick)`
that yields the lines of its page, made of `opening`, `by_threads` and `table`, and at its end `harness.main(report,
__doc__)`, which reads the arguments, prints, and writes results/<name of the file>.md. What is done about each trap:

* Other work on the machine slows a whole minute down. So candidates take turns in short bursts, in an order that
  rotates, and a ratio is formed within each round and only then the median over rounds is taken.
* With one thread we take the process's CPU time, which waiting for the processor does not enter. With more threads CPU
  time says little and we take wall time, from rounds in which the kernel reports that no candidate of the round waited
  more than 3 % of its time for a processor (Linux); if there are too few such rounds, from all, and mark the row "~".
* OpenBLAS and OpenMP threads spin for a while after their work is done, which slows whoever comes next. So they sleep.
* torch gets and frees large temporaries; by default the C library returns those to the system each time and pays for
  fresh pages at the next. `retain_heap` stops that, which favours torch: we compare with the best that it can do.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

import argparse
import contextlib
import ctypes
import gc
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import torch
from numba import njit, prange

RESULTS = Path(__file__).parent / "results"


def retain_heap() -> bool:
    """Tell glibc to keep freed memory instead of giving it back; False where there is no glibc."""
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except OSError:
        return False
    trim_threshold, mmap_max = -1, -4  # the numbers of these parameters in <malloc.h>
    return bool(mallopt(mmap_max, 0) and mallopt(trim_threshold, 2**31 - 1))


def keep_freed_memory() -> str:
    """Call `retain_heap` and say in a sentence for the page what came of it."""
    if retain_heap():
        return "The C library keeps freed memory (mallopt), which helps torch most."
    return "Heap: as the system has it."


@contextlib.contextmanager
def threads(n: int):
    """Run the body with n threads for torch, numba and the BLAS of NumPy."""
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(n)
    numba.set_num_threads(n)
    with threadpool_limits(n):
        yield
    torch.set_num_threads(before[0])
    numba.set_num_threads(before[1])


@dataclass(frozen=True)
class Times:
    """The rounds of one comparison, by candidate: seconds a call, paired by round."""

    seconds: dict[str, np.ndarray]
    quiet: bool  # False: not enough rounds undisturbed by other processes, all are used

    def median(self, name: str) -> float:
        """Seconds a call."""
        return float(np.median(self.seconds[name]))

    def ratio(self, name: str, to: str) -> tuple[float, float, float]:
        """How many times as long as `to` the candidate `name` takes: lower quartile, median, upper quartile."""
        low, middle, high = np.quantile(self.seconds[name] / self.seconds[to], (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)


def compare(
    candidates: dict,
    *,
    n_threads: int,
    rounds: int = 15,
    burst_s: float = 0.01,
    limit_s: float = 3.0,
) -> Times:
    """Time functions without arguments against each other, in `rounds` rounds or until `limit_s` is over.

    A burst repeats a short function until it lasts about `burst_s` (at burst_s=0: once). Every function has been called at least twice
    before it is timed, so that compiling and first touches are not in the figures.
    """
    names = list(candidates)
    repeats, long = {}, {}
    for name, f in candidates.items():
        f()
        start = time.process_time()
        f()
        took = max(time.process_time() - start, 1e-7)
        repeats[name] = int(np.clip(burst_s / took, 1, 2000))
        long[name] = took > 0.2
    rows, clean = [], []
    gc.collect()
    gc.disable()
    end = time.perf_counter() + limit_s
    try:
        while len(rows) < 5 or (sum(clean) < rounds and time.perf_counter() < end):
            turn = len(rows) % len(names)
            row, undisturbed = {}, True
            for name in names[turn:] + names[:turn]:
                wall, cpu, waited = _burst(candidates[name], repeats[name], wake=not long[name])
                row[name] = (cpu if n_threads == 1 else wall) / repeats[name]
                undisturbed &= waited < 0.03 * wall
            rows.append(row)
            clean.append(undisturbed or n_threads == 1)
    finally:
        gc.enable()
    quiet = sum(clean) >= 5
    used = [row for row, good in zip(rows, clean, strict=True) if good or not quiet]
    return Times({name: np.array([row[name] for row in used]) for name in names}, quiet)


def _burst(f, repeats: int, *, wake: bool) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, and seconds that our threads waited for a processor, of `repeats` calls."""
    if wake:  # the threads of this candidate, and let those of the last one fall asleep; nothing beside a long call
        f()
    waited, cpu, wall = _wait_s(), time.process_time(), time.perf_counter()
    for _ in range(repeats):
        f()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return wall, cpu, _wait_s() - waited


def wait_for_quiet(n_threads: int, *, patience_s: float = 15) -> float:
    """Wait until work on `n_threads` threads gets its processors, or `patience_s` is over.

    Returns the share of its time that the last half-second of such work waited for a processor; below 0.1 is quiet.
    """
    a = np.ones(2**18, np.float32)
    b = a.copy()
    end = time.perf_counter() + patience_s
    while True:
        copy(a, b)
        waited, start = _wait_s(), time.perf_counter()
        while time.perf_counter() < start + 0.5:
            copy(a, b)
        share = (_wait_s() - waited) / (time.perf_counter() - start) / n_threads
        if share < 0.1 or time.perf_counter() > end:
            return share
        time.sleep(0.5)


def _wait_s() -> float:
    """Seconds that the threads of this process have been ready to run and did not; 0 where Linux is not there to tell."""
    total = 0
    with contextlib.suppress(OSError, ValueError):
        for thread in os.listdir("/proc/self/task"):
            with (
                contextlib.suppress(FileNotFoundError),
                open(f"/proc/self/task/{thread}/schedstat") as f,
            ):
                total += int(f.read().split()[1])
    return total * 1e-9


@njit(parallel=True, cache=True)
def copy(a, b):
    """a[:] = b for flat arrays, on all threads: as fast as this memory goes, or this cache where they are small."""
    for i in prange(a.size):
        a[i] = b[i]


@njit(parallel=True, cache=True)
def _triad(a, b, c, factor):
    for i in prange(a.size):
        a[i] = b[i] + factor * c[i]


@dataclass(frozen=True)
class Roofs:
    """The limits of this machine at one number of threads."""

    copy_bytes_per_s: float
    triad_bytes_per_s: float
    gemm_flop_per_s: dict[str, float]  # by library


def roofs(n_threads: int, *, quick: bool = False) -> Roofs:
    """Measure memory bandwidth (bytes read plus bytes written) and the speed of matrix products in float32."""
    rng = np.random.default_rng(0)
    size = 2**22 if quick else 2**24  # 16 or 64 MiB an array
    a, b, c = (rng.standard_normal(size, dtype=np.float32) for _ in range(3))
    m, k, n = (512, 512, 512) if quick else (1024, 1024, 1024)
    x, w = (
        rng.standard_normal((m, k), dtype=np.float32),
        rng.standard_normal((k, n), dtype=np.float32),
    )
    out = np.empty((m, n), np.float32)
    tx, tw, tout = map(torch.from_numpy, (x, w, out))
    times = compare(
        {
            "copy": lambda: copy(a, b),
            "triad": lambda: _triad(a, b, c, np.float32(1.5)),
            "numpy": lambda: np.matmul(x, w, out=out),
            "torch": lambda: torch.mm(tx, tw, out=tout),
        },
        n_threads=n_threads,
        limit_s=0.5 if quick else 3,
    )
    best = {name: float(s.min()) for name, s in times.seconds.items()}
    return Roofs(
        2 * a.nbytes / best["copy"],
        3 * a.nbytes / best["triad"],
        {name: 2 * m * k * n / best[name] for name in ("numpy", "torch")},
    )


def machine() -> list[str]:
    """What the figures depend on, one line a fact."""
    from threadpoolctl import threadpool_info

    cpu = {"model name": platform.processor() or platform.machine()}
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        cpu |= {
            k.strip(): v.strip()
            for k, v in (x.split(":", 1) for x in first.splitlines() if ":" in x)
        }
    family = f" (family {cpu['cpu family']}, model {cpu['model']})" if "cpu family" in cpu else ""
    blas = [
        f"{p['internal_api']} {p['version']} for {p.get('architecture', '?')}"
        for p in threadpool_info()
        if p["user_api"] == "blas"
    ]
    return [
        f"{cpu['model name']}{family}, {os.cpu_count()} logical cores, {platform.system()}; "
        f"vector instructions that torch found: {torch.backends.cpu.get_cpu_capability()}",
        f"Python {platform.python_version()}, NumPy {np.__version__} ({', '.join(blas) or 'BLAS unknown'}), "
        f"numba {numba.__version__}, torch {torch.__version__} ({'MKL' if torch.backends.mkl.is_available() else 'no MKL'})",
    ]


@dataclass(frozen=True)
class Case:
    """One task at one size: functions that compute the same, and the work that cannot be avoided.

    The candidates are "ours", variants called "ours, ...", and peers such as "torch", "numpy" and "python". Each returns
    a tuple of arrays (numbers, tensors), which `check` compares, or None where that makes no sense.
    """

    name: str
    size: str
    candidates: dict[str, Callable]
    work: (
        float | dict[str, float]
    )  # of ours, or by variant: bytes read and written at the least, or operations
    unit: str = "GB/s"  # or "GFLOP/s"
    agree: float = (
        1e-5  # largest difference from "ours", relative to the largest value of each array
    )

    def check(self) -> None:
        """Raise AssertionError unless all candidates give the same arrays."""
        ours = self.candidates["ours"]()
        for name, f in self.candidates.items():
            for i, (got, want) in enumerate(zip(f() or ours, ours, strict=True)):
                got, want = np.asarray(got), np.asarray(want)
                miss = np.abs(got - want).max() / np.abs(want).max()
                assert miss < self.agree, (
                    f"{self.name} {self.size}: {name} differs in result {i} by {miss:.1e}"
                )

    def limit(self) -> tuple[Callable, float]:
        """What the machine can do at this size, a copy of as many bytes or a large matrix product; and its work."""
        if self.unit == "GFLOP/s":
            a, b = np.random.default_rng(0).standard_normal((2, 512, 512), dtype=np.float32)
            out = np.empty_like(a)
            return lambda: np.matmul(a, b, out=out), 2 * 512**3
        work = self.work["ours"] if isinstance(self.work, dict) else self.work
        a = np.ones(int(work) // 8, np.float32)
        b = a.copy()
        return lambda: copy(a, b), 2 * a.nbytes


LABELS = {"numpy": "NumPy", "python": "Python loop"}  # of peers, where not the name itself
TABLE_NOTE = (
    "A ratio above 1 means that ours is faster. Medians over rounds in which the candidates take turns. One thread: CPU "
    "time. More: wall time; ~ marks rows with too few rounds undisturbed by other programs. The last column is what ours "
    "reaches, counting every array once for each time that it must be read or written (or the operations that must be "
    "done), and its share of what a copy of as many bytes (or a 512 x 512 x 512 matrix product) reached in the same "
    "rounds; small arrays stay in the cache."
)


def table(
    makes: Iterable[Callable[[], Case]],
    n_threads: int,
    *,
    peers: tuple[str, ...] = ("torch", "numpy"),
    first: str = "operation, forward and backward",
    limit_s: float = 1.0,
    rounds: int = 15,
) -> Iterator[str]:
    """Check and time each case; yield the lines of a table with a row for ours and for each variant of it.

    `makes` are functions that return a Case, so that the arrays of only one exist at a time. The ratios to the first of
    the `peers` come with their quartiles. See `TABLE_NOTE` for what the columns say.
    """
    heads = [f"{LABELS.get(p, p)} / ours" for p in peers]
    heads[0] += " (quartiles)"
    yield row(first, "size", "ours (ms)", *heads, "reached, share of the limit")
    yield "|---|---|" + "--:|" * (len(peers) + 2)
    for make in makes:
        case = make()
        case.check()
        top, top_work = case.limit()
        candidates = {**case.candidates, "limit": top}
        times = compare(candidates, n_threads=n_threads, limit_s=limit_s, rounds=rounds)
        works = case.work if isinstance(case.work, dict) else {}
        for name in (n for n in case.candidates if n.split(",")[0] == "ours"):
            work = works[name] if works else case.work
            seconds = times.median(name)
            cells = [
                case.name + name.removeprefix("ours"),
                case.size + ("" if times.quiet else " ~"),
                f"{seconds * 1e3:.3g}",
            ]
            for peer in peers:
                cells.append("-")
                if peer in case.candidates:
                    low, middle, high = times.ratio(peer, name)
                    spread = f" ({low:.2f}-{high:.2f})" if peer == peers[0] else ""
                    cells[-1] = f"{middle:.3g}{spread}"
            share = times.ratio("limit", name)[1] * work / top_work
            cells.append(f"{work / seconds / 1e9:.3g} {case.unit}, {share:.0%}")
            yield row(*cells)


def row(*cells) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(map(str, cells))} |"


def opening(title: str, quick: bool, *facts: str) -> Iterator[str]:
    """Title, command, date, machine, and the given facts: how every page of results begins."""
    program = Path(sys.argv[0]).name
    yield f"# {title}"
    yield ""
    command = f"python benchmarks/{program}{' --quick' if quick else ''}"
    yield f"`{command}` on {time.strftime('%Y-%m-%d')}:"
    yield ""
    yield from (f"- {fact}" for fact in [*machine(), *facts])
    yield ""


def by_threads(quick: bool, section: Callable[[int], Iterable[str]]) -> Iterator[str]:
    """Yield a heading, the measured limits and the lines of `section(n_threads)`, for one thread and for two.

    Where other programs leave two threads no room, say so instead: wall time would measure them. (CPU time, by which
    one thread is judged, bears other programs.)
    """
    for n_threads in (1,) if quick or (os.cpu_count() or 1) < 2 else (1, 2):
        yield ""
        yield f"## {n_threads} thread{'s' if n_threads > 1 else ''}"
        yield ""
        with threads(n_threads):
            busy = wait_for_quiet(n_threads) if n_threads > 1 else 0
            if busy > 0.1:
                yield (
                    f"Not measured: other programs kept our threads waiting for {busy:.0%} of the time. "
                    "Run it again on a quiet machine."
                )
                continue
            found = roofs(n_threads, quick=quick)
            gemm = ", ".join(f"{k} {v / 1e9:.0f}" for k, v in found.gemm_flop_per_s.items())
            yield (
                f"Limits: copy {found.copy_bytes_per_s / 1e9:.1f} GB/s, "
                f"triad {found.triad_bytes_per_s / 1e9:.1f} GB/s, matrix product {gemm} GFLOP/s."
            )
            yield ""
            yield from section(n_threads)


def main(report: Callable[[bool], Iterable[str]], description: str) -> None:
    """Run a benchmark as a program: print the lines of `report(quick)` as they come; unless quick, write them, too."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small and short, nothing written")
    quick = parser.parse_args().quick
    lines = []
    for line in report(quick):
        print(line, flush=True)
        lines.append(line)
    if not quick:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / f"{Path(sys.argv[0]).stem}.md"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"\nwritten to {path}", file=sys.stderr)
