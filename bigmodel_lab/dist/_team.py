"""The notebook's side of a launch: start the ranks, collect what they print and return, and stop everything.

One loop in the notebook's process hears all ranks; whatever happens to a rank or to that process, everything is stopped. What
runs on the other side is `bigmodel_lab.dist._rank`.
"""

import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import types

from bigmodel_lab.dist import _report

GRACE_S = 2.0  # how long after a first failure the other ranks may report theirs: one of those may be its cause


def start(
    method: str,
    call: bytes,
    ranks: int,
    timeout_s: float,
    threads: int,
    checks: bool,
    wait_s: float | None,
) -> list:
    """Start ranks by the `method` of multiprocessing, let them run the pickled `call`, and return their results."""
    context = multiprocessing.get_context(method)
    folder = tempfile.mkdtemp(prefix="bigmodel-lab-")
    team: list[_Member] = []
    try:
        with open(os.path.join(folder, "job"), "wb") as file:
            pickle.dump((dict(os.environ), _report.unsaved_sources(), call), file)
        for rank in range(ranks):
            ours, theirs = context.Pipe()
            arguments = (rank, ranks, folder, theirs, timeout_s, threads, checks, wait_s)
            # In the list before it starts: an interrupt in between must not leave a rank that nobody stops.
            team.append(_Member(rank, context.Process(target=_rank_main, args=arguments), ours))
            with theirs, _no_main():
                team[-1].process.start()
        for member in team:
            with contextlib.suppress(OSError):  # it has died already; _collect says so
                member.conn.send_bytes(b"go")
        _collect(team, folder, timeout_s)
    finally:
        _stop(team, folder)
        if team and team[0].unended:
            print(file=getattr(sys, team[0].unended))
        for member in team:
            _report.print_grouped(member.rank, member.printed)
    return [pickle.loads(member.result) for member in team]


def _rank_main(*arguments) -> None:
    from bigmodel_lab.dist import _rank  # imports torch: here, and not in the notebook's process

    _rank.main(*arguments)


@contextlib.contextmanager
def _no_main():
    """Keep multiprocessing from running the caller's script a second time in each rank: fn travels by value."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@dataclasses.dataclass
class _Member:
    """The notebook's side of one rank."""

    rank: int
    process: multiprocessing.process.BaseProcess
    conn: multiprocessing.connection.Connection
    # (stream, text), in order; empty for rank 0, whose text is shown at once
    printed: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    unended: str = ""  # the stream on which rank 0 printed last, if it did not end the line
    result: bytes | None = None
    failure: _report.Failure | None = None

    def is_running(self) -> bool:
        return self.result is None and self.failure is None

    def receive(self) -> bool:
        """Take one message from the rank; False if there is none."""
        try:
            if not self.conn.poll():
                return False
            kind, *content = pickle.loads(self.conn.recv_bytes())
        except (EOFError, OSError):  # the rank is gone: its exit code will tell
            return False
        if kind == "result":
            (self.result,) = content
        elif kind == "failure":
            self.failure = _report.Failure(self.rank, *content)
        elif self.rank == 0:
            stream, text = content
            print(text, end="", file=getattr(sys, stream), flush=True)
            self.unended = "" if text.endswith("\n") else stream
        else:
            self.printed.append(tuple(content))
        return True


def _collect(team: list[_Member], folder: str, timeout_s: float) -> None:
    """Return when every rank has a result; raise RankError or RankTimeout when that can no longer be."""
    end = time.monotonic() + timeout_s
    while running := [m for m in team if m.is_running()]:
        left_s = end - time.monotonic()
        if left_s <= 0:
            break
        ready = multiprocessing.connection.wait(
            [m.conn for m in running] + [m.process.sentinel for m in running], min(left_s, 1.0)
        )
        for m in running:
            if m.process.sentinel in ready:
                while m.receive():
                    pass
                if m.is_running():
                    m.process.join()
                    log = _read(folder, f"log-{m.rank}")
                    m.failure = _report.death(m.rank, m.process.exitcode, log)
            elif m.conn in ready:
                m.receive()
            if m.failure:
                end = min(end, time.monotonic() + GRACE_S)
    failures = [m.failure for m in team if m.failure]
    finished = [m.rank for m in team if m.result is not None]
    if failures:
        raise _report.failed(failures, finished, [m.rank for m in running])
    if running:
        raise _report.timed_out(_stacks(running, folder), finished, timeout_s)


def _stacks(running: list[_Member], folder: str) -> dict[int, str]:
    """Ask the ranks that still run where they are; return what faulthandler wrote, by rank."""
    if hasattr(signal, "SIGQUIT"):
        for m in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(m.process.pid, signal.SIGQUIT)
        before = None
        for _ in range(20):  # at most 1 s: a rank that is stopped or dead does not answer
            time.sleep(0.05)
            now = [_read(folder, f"stack-{m.rank}") for m in running]
            if all(now) and now == before:
                break
            before = now
    return {m.rank: _read(folder, f"stack-{m.rank}") for m in running}


def _read(folder: str, name: str) -> str:
    try:
        with open(os.path.join(folder, name), errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _stop(team: list[_Member], folder: str) -> None:
    """End every rank and what it started, remove `folder`, and give back what this process holds."""
    for m in team:
        if m.process.pid:
            # The rank leads a process group of its own (see _rank), which is all that fn started.
            with contextlib.suppress(AttributeError, ProcessLookupError, PermissionError):
                os.killpg(m.process.pid, signal.SIGKILL)
            m.process.kill()
    # Before waiting for anything: Jupyter's shutdown interrupts the kernel and kills it a few milliseconds later.
    shutil.rmtree(folder, ignore_errors=True)
    for m in team:
        if m.process.pid:
            m.process.join()
        while m.receive():  # what it had still printed
            pass
        m.conn.close()
        m.process.close()
