"""Timing that can be believed on a shared machine: interleaved candidates, medians with spread, limits measured beside.

Import this before NumPy, numba and torch: it sets how their threads wait (below). What it does about each known trap:

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

import contextlib
import ctypes
import gc
import platform
import time
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

    A burst repeats a short function until it lasts about `burst_s`. Every function has been called at least twice
    before it is timed, so that compiling and first touches are not in the figures.
    """
    names = list(candidates)
    repeats = {}
    for name, f in candidates.items():
        f()
        start = time.process_time()
        f()
        repeats[name] = int(np.clip(burst_s / max(time.process_time() - start, 1e-7), 1, 2000))
    rows, clean = [], []
    gc.collect()
    gc.disable()
    end = time.perf_counter() + limit_s
    try:
        while len(rows) < 5 or (sum(clean) < rounds and time.perf_counter() < end):
            turn = len(rows) % len(names)
            row, undisturbed = {}, True
            for name in names[turn:] + names[:turn]:
                wall, cpu, waited = _burst(candidates[name], repeats[name])
                row[name] = (cpu if n_threads == 1 else wall) / repeats[name]
                undisturbed &= waited < 0.03 * wall
            rows.append(row)
            clean.append(undisturbed or n_threads == 1)
    finally:
        gc.enable()
    quiet = sum(clean) >= 5
    used = [row for row, good in zip(rows, clean, strict=True) if good or not quiet]
    return Times({name: np.array([row[name] for row in used]) for name in names}, quiet)


def _burst(f, repeats: int) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds, and seconds that our threads waited for a processor, of `repeats` calls."""
    f()  # wakes the threads of this candidate and lets those of the last one fall asleep
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
