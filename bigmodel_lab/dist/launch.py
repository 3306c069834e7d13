"""Run a function on several ranks: real `torch.distributed` processes started from a notebook cell, a script or a test.

    from bigmodel_lab import dist
    dist.run(lambda: torch.distributed.get_rank(), ranks=2)      # [0, 1]

A fork server that has torch loaded starts the ranks, so that a launch takes tenths of a second and the notebook's own
process is never forked. The function travels by value (cloudpickle), with the globals it uses. One loop in the
notebook's process collects what the ranks print and return; whatever happens to a rank or to that process, everything
is stopped. Linux; macOS, and Windows (which has no fork server and starts each rank afresh), are untested.
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

from bigmodel_lab.dist import _arguments, _report

METHOD = "spawn" if os.name == "nt" else "forkserver"
GRACE_S = 2.0  # how long after a first failure the other ranks may report theirs: one of those may be its cause


def warm() -> None:
    """Start the fork server in the background unless it runs already, so that the first `run` need not wait for it.

    It loads torch for some 3 s on one core while the caller goes on, and ends when the calling process ends.
    """
    if METHOD != "forkserver" or _under_torchrun():
        return
    from multiprocessing import forkserver, resource_tracker  # not on Windows

    forkserver.set_forkserver_preload(["bigmodel_lab.dist._server"])
    # The server inherits the mask, so that Ctrl-C does not end it before it can say so itself. What ensure_running would
    # start besides, the tracker, unblocks SIGINT as it starts, and is therefore started first.
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run(
    fn,
    /,
    *args,
    ranks: int = 2,
    timeout_s: float = 60,
    threads: int = 1,
    wait_s: float | None = None,
    checks: bool = False,
    **kwargs,
) -> list:
    """Run fn(*args, **kwargs) on every rank and return the list of what it returned, in rank order.

    Parameters
    ----------
    fn : any callable, also a lambda or a function of a notebook cell; in it `torch.distributed` is ready (gloo, and where
        there are GPUs NCCL for tensors on them)
    ranks : number of processes, 1 to 64
    timeout_s : seconds, counted from the moment when all ranks are there, after which everything is stopped
    threads : threads per rank for torch, BLAS and numba; ranks * threads should not exceed the cores
    wait_s : seconds that a rank waits for another one in a collective before it fails; None: as long as `timeout_s`.
        Groups that fn makes have a limit of their own (the `timeout` of `torch.distributed.new_group`)
    checks : let torch compare each collective across the ranks before it runs, so that a mismatch is named instead of
        aborting or hanging. It slows collectives down: leave it off where you measure

    What rank 0 prints appears at once; what the others print follows at the end, rank by rank, each line behind
    "[rank 1] ", so that the output is the same in every run. What C code and subprocesses write is not shown.
    Nothing is seeded: all ranks start with torch's default seed, the same on each, and with a fresh NumPy state.

    Where torchrun started this process (RANK, WORLD_SIZE and MASTER_ADDR are set), it is a rank already: the same call
    then runs fn in it and returns all results on every rank, and `ranks` must equal WORLD_SIZE. A script that is run
    both ways passes ranks=int(os.environ.get("WORLD_SIZE", 2)).

    Raises RankError if fn raises on a rank or a rank dies, RankTimeout if a rank still runs after `timeout_s`, and
    TypeError or ValueError, before anything is started, for arguments that cannot work.
    """
    _arguments.check(
        fn, args, kwargs, ranks=ranks, timeout_s=timeout_s, threads=threads, wait_s=wait_s
    )
    if "BIGMODEL_LAB_RANK" in os.environ:
        raise RuntimeError(
            f"dist.run was called on rank {os.environ['BIGMODEL_LAB_RANK']} of another dist.run, and a rank cannot "
            "start ranks: ask the outer dist.run for more, or split them with torch.distributed.new_group."
        )
    if _under_torchrun():
        if ranks != int(os.environ["WORLD_SIZE"]):
            raise ValueError(
                f"ranks={ranks}, but torchrun started WORLD_SIZE={os.environ['WORLD_SIZE']}: make them equal, "
                "or pass ranks=int(os.environ.get('WORLD_SIZE', 2))."
            )
        if checks:
            raise ValueError(
                "checks=True has no effect here: start torchrun with TORCH_DISTRIBUTED_DEBUG=DETAIL."
            )
        from bigmodel_lab.dist import _rank  # imports torch

        return _rank.run_here(fn, args, kwargs, timeout_s, threads, wait_s)
    named = {"fn": fn} | {f"argument {i} of fn": arg for i, arg in enumerate(args, start=1)}
    named |= {f"argument {name!r} of fn": arg for name, arg in kwargs.items()}
    call = _arguments.pack((fn, args, kwargs), named)
    return _launch(call, int(ranks), float(timeout_s), int(threads), checks, wait_s)


def leave() -> None:
    """End this process if torchrun started it, all being well: once every rank has called this, and with exit status 0.

    The last line of a program that torchrun runs. Without it Python takes the process groups down in the order in which it
    finds them, now and then aborts ("terminate called without an active exception"), and torchrun then takes a run that was
    finished for one that failed, and repeats it. Does nothing where `run` started the ranks.
    """
    if not _under_torchrun():
        return
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _under_torchrun() -> bool:
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def _launch(
    call: bytes, ranks: int, timeout_s: float, threads: int, checks: bool, wait_s: float | None
) -> list:
    warm()
    context = multiprocessing.get_context(METHOD)
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
