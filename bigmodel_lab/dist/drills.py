"""Failure drills: break a small job for real, in one way after the other, and see what is noticed, by whom, and when.

    python -m bigmodel_lab.dist.drills                  # each drill once: a table
    python -m bigmodel_lab.dist.drills --runs 200       # and does any of 200 hang, or leave a process or a folder behind?

The job is data-parallel training of a network of some hundred parameters on 2 or 3 processes; the failure is a real one (a
signal, a sleep, a wrong shape, a flipped bit, a file cut short, a limit of the operating system), and comes from inside the
job. A drill returns a `Noticed`; it raises AssertionError if the failure was not noticed at all. How long it takes depends on
the limits that are set (WAIT_S; EVERY in `drill_jobs`, where the job is) and on how busy the machine is. Told in lab L06.
"""

import argparse
import contextlib
import io
import os
import re
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from bigmodel_lab.dist import drill_jobs
from bigmodel_lab.dist._report import RankError, RankTimeout
from bigmodel_lab.dist.launch import run, warm
from bigmodel_lab.errors import require_choice

__all__ = ["DRILLS", "Noticed", "behind", "drill"]

WAIT_S = 3.0  # the longest wait for another rank in a collective; a healthy one may need a second on a busy machine


@dataclass(frozen=True)
class Noticed:
    """How a failure came to light."""

    failure: str  # a key of DRILLS
    by: str  # what noticed it
    rank: int | None  # the rank that is named as the cause; None if nobody can tell
    says: str  # what the reader sees, in one line
    after_s: float  # from the failure to the notice


def _loud(name: str, fault: str, by: str, folder: str, **options) -> Noticed:
    try:
        run(drill_jobs.train, folder, fault, **{"ranks": 2, "timeout_s": 60} | options)
    except RankError as error:
        now, report = time.monotonic(), error.report
        rank, says = error.rank, str(error)
        if differ := re.search(r"rank 0 called .*", report):
            rank, says = None, differ[0]  # which of the two was meant is for the reader to know
        elif isinstance(error, RankTimeout):
            rank = None  # all are in a collective, though not in the same
        elif awaited := re.search(r"Rank (\d+) still ran", report):
            rank = int(awaited[1])  # who gave up waiting is the victim
            says += f"; {awaited[0].lower()}"
        says = re.sub(r"\[/\S+\] ", "", says)  # where in gloo's source it was
        return Noticed(name, by, rank, says, now - _happened(folder))
    raise AssertionError(f"nobody noticed: {name}")


def _silent(name: str, fault: str, folder: str, ranks: int = 3) -> Noticed:
    found = run(drill_jobs.train_and_compare, folder, fault, ranks=ranks, timeout_s=60)
    assert None not in found, f"nobody noticed, or not all: {name}"
    assert len({f[1:] for f in found}) == 1, f"the ranks do not agree on what happened: {found}"
    when, says, named = found[0]
    (rank,) = named or (None,)
    return Noticed(name, "comparing checksums", rank, says, when - _happened(folder))


def _straggler(name: str, folder: str) -> Noticed:
    found = run(drill_jobs.straggle, folder, ranks=2, timeout_s=60)[0]
    assert found, f"nobody noticed: {name}"
    when, rank = found
    says = f"all others wait for rank {rank} more than half of the time"
    return Noticed(name, "seconds waited", rank, says, when - _happened(folder))


def _torn(name: str, folder: str) -> Noticed:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        step, begin, end = run(drill_jobs.tear, folder, ranks=2, timeout_s=60)[0]
    assert step == 1, "the torn checkpoint was loaded"
    says = re.search(r"rank-00001.safetensors has [\d,]+ bytes of \d+", said.getvalue())[0]
    return Noticed(name, "size and CRC-32 in the manifest", 1, says, end - begin)


def _full(name: str, folder: str) -> Noticed:
    found = run(drill_jobs.fill, folder, ranks=2, timeout_s=60)
    says, took, left = found[0]
    assert found[1][0] == says, "the ranks do not agree on what happened"
    assert left == ["latest", "step-00000001"], f"left behind: {left}"
    return Noticed(name, "the error of the write", 1, says, took)


_WAITS = {"wait_s": WAIT_S}
DRILLS: dict[str, Callable[[str], Noticed]] = {  # failure: what does it, in a folder
    name: partial(do, name, *arguments, **options)
    for name, do, arguments, options in (
        ("a rank is killed in a step", _loud, ("killed", "its process is gone"), {}),
        ("a rank raises", _loud, ("raises", "its traceback"), {}),
        ("a rank hangs", _loud, ("hangs", "wait_s of the others"), _WAITS),
        ("a rank is stopped", _loud, ("stopped", "wait_s of the others"), _WAITS),
        ("other collectives, checked", _loud, ("mismatch", "checks=True"), {"checks": True}),
        ("other collectives, unchecked", _loud, ("mismatch", "timeout_s"), {"timeout_s": 2}),
        ("a rank is slow", _straggler, (), {}),
        ("other weights on a rank", _silent, ("weights",), {}),
        ("another batch on a rank", _silent, ("batch",), {}),
        ("a bit flips in a gradient", _silent, ("flip",), {}),
        ("a checkpoint is torn", _torn, (), {}),
        ("a disk is full", _full, (), {}),
    )
}


def drill(failure: str) -> Noticed:
    """Run one drill in a folder of its own, which is removed."""
    do = DRILLS[require_choice("failure", failure, DRILLS)]
    with tempfile.TemporaryDirectory(prefix="bigmodel-lab-drill-") as folder:
        return do(folder=folder)


def behind(failure: str) -> list[str]:
    """Run one drill and name what it left behind: processes of its ranks' groups, and files."""
    do = DRILLS[require_choice("failure", failure, DRILLS)]
    warm()  # the fork server stays, and so does its folder: they are not to be in `top`
    with tempfile.TemporaryDirectory(prefix="bigmodel-lab-drills-") as top:
        before, tempfile.tempdir = tempfile.tempdir, top
        try:
            folder = tempfile.mkdtemp()
            do(folder=folder)
        finally:
            tempfile.tempdir = before
        groups = {int(p.name.removeprefix("pid-")) for p in Path(folder).glob("pid-*")}
        assert groups, "the ranks of the drill did not note themselves"
        left = [f"process {p.pid}" for p in _members(groups)]
        return left + [f"file {p.name}" for p in Path(top).iterdir() if str(p) != folder]


def _members(groups: set[int]) -> list[psutil.Process]:
    """The processes whose process group is one of `groups`: each rank leads one (see `_rank`), of all that it started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess, PermissionError):
            if os.getpgid(process.pid) in groups and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _happened(folder: str) -> float:
    return float(Path(folder, "happened").read_text())


class _Hang(Exception):
    pass


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=len(DRILLS), help="drills, one after the other")
    parser.add_argument("--limit-s", type=int, default=120, help="a drill that takes longer hangs")
    options = parser.parse_args(arguments)

    def hang(*_):
        raise _Hang

    signal.signal(signal.SIGALRM, hang)
    hangs, left, missed, times = 0, 0, 0, {}
    for i in range(options.runs):
        failure = list(DRILLS)[i % len(DRILLS)]
        begin = time.monotonic()
        signal.alarm(options.limit_s)
        try:
            rest = behind(failure)
        except _Hang:
            hangs += 1
            print(f"run {i + 1}: {failure}: hangs", flush=True)
            continue
        except AssertionError as error:
            missed += 1
            print(f"run {i + 1}: {failure}: {error}", flush=True)
            continue
        finally:
            signal.alarm(0)
        left += len(rest)
        times.setdefault(failure, []).append(time.monotonic() - begin)
        for thing in rest:
            print(f"run {i + 1}: {failure}: left {thing}", flush=True)
    for failure, took in times.items():
        print(f"{failure:30s} {len(took):4d} runs, {min(took):5.1f} to {max(took):5.1f} s each")
    print(
        f"{options.runs} runs: {hangs} hung, {missed} went unnoticed, {left} processes or files were left behind"
    )
    return int(hangs + left + missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
