"""Failure drills: break a small job for real, in one way after the other, and see what is noticed, by whom, and when.

    python -m bigmodel_lab.dist.drills                  # each drill once: a table
    python -m bigmodel_lab.dist.drills --runs 200       # and does any of 200 hang, or leave a process or a folder behind?

The job is data-parallel training of a network of some hundred parameters on 2 or 3 processes; the failure is a real one (a
signal, a sleep, a wrong shape, a flipped bit, a file cut short, a limit of the operating system), and comes from inside the
job. A drill returns a `Noticed`; it raises AssertionError if the failure was not noticed at all. How long it takes depends on
the limits that are set here (WAIT_S, EVERY) and on how busy the machine is. Told in lab L06.
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

from bigmodel_lab.dist._report import RankError, RankTimeout
from bigmodel_lab.dist.launch import run, warm
from bigmodel_lab.errors import require_choice

__all__ = ["DRILLS", "Noticed", "behind", "drill"]

WAIT_S = 3.0  # the longest wait for another rank in a collective; a healthy one may need a second on a busy machine
FAULT_STEP, STEPS = 3, 8  # the step in which things go wrong, and how many there are
EVERY = 2  # steps between two comparisons of the replicas


@dataclass(frozen=True)
class Noticed:
    """How a failure came to light."""

    failure: str  # a key of DRILLS
    by: str  # what noticed it
    rank: int | None  # the rank that is named as the cause; None if nobody can tell
    says: str  # what the reader sees, in one line
    after_s: float  # from the failure to the notice


class Job:
    """The training that is broken: one rank's network, and what it noted.

    Every rank draws the weights from a seed, and its rows of a batch that all draw from another one. Nothing is broadcast:
    the replicas are equal because the seeds are.
    """

    def __init__(self, folder: str, weights_seed: int = 0, batch_seed: int = 0):
        import torch.distributed as dist

        from bigmodel_lab.dist.wire import Wire
        from bigmodel_lab.models import MLP

        self.rank, self.ranks, self.folder = dist.get_rank(), dist.get_world_size(), Path(folder)
        self.model = MLP([8, 16, 4], seed=weights_seed)
        self.batch_seed, self.wire = batch_seed, Wire()
        (self.folder / f"pid-{os.getpid()}").touch()  # for `_members`

    def batch(self, step: int):
        """The whole batch of a step, (12, 8) and (12,)."""
        import torch

        from bigmodel_lab.rng import generator

        draws = generator(self.batch_seed, "drills", str(step))
        return (
            torch.from_numpy(draws.standard_normal((12, 8), dtype="float32")),
            torch.from_numpy(draws.integers(4, size=12)),
        )

    def backward(self, step: int) -> None:
        """Leave the gradients of this rank's rows."""
        from torch.nn import functional as F

        x, y = (t.tensor_split(self.ranks)[self.rank] for t in self.batch(step))
        self.model.zero_grad()
        F.cross_entropy(self.model(x), y).backward()

    def average(self) -> None:
        """Average the gradients over the ranks."""
        import torch

        from bigmodel_lab.dist.collectives import all_reduce

        gradients = [p.grad for p in self.model.parameters()]
        flat = torch.cat([g.flatten() for g in gradients])
        all_reduce(flat, wire=self.wire).div_(self.ranks)
        for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(part.view_as(g))

    def update(self) -> None:
        """Take the step."""
        import torch

        with torch.no_grad():
            for p in self.model.parameters():
                p.sub_(p.grad, alpha=0.1)

    def happens(self) -> None:
        """Note that the failure happens now."""
        (self.folder / "happened").write_text(repr(time.monotonic()))

    def compare(self, step: int):
        """Compare the replicas, in every EVERY-th step; return what differs, or None."""
        from bigmodel_lab.dist.agreement import same_everywhere

        if step % EVERY:
            return None
        found = same_everywhere(
            {"parameters": self.model.parameters(), "batch": self.batch(step)}, wire=self.wire
        )
        return None if found else found


# What runs on the ranks


def _train(folder: str, fault: str) -> None:
    """Train; on the last rank, in step FAULT_STEP, something happens from which the job cannot go on."""
    import torch
    import torch.distributed as dist

    job = Job(folder)
    for step in range(STEPS):
        job.backward(step)
        if step == FAULT_STEP and job.rank == job.ranks - 1:
            job.happens()
            if fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            elif fault == "stopped":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif fault == "hangs":
                time.sleep(600)
            elif fault == "raises":
                raise FloatingPointError("the loss is NaN")
            elif fault == "mismatch":
                dist.broadcast(torch.ones(3), 0)
        dist.all_reduce(torch.zeros(3))  # what `mismatch` is not the match of
        job.average()
        job.update()


def _train_and_compare(folder: str, fault: str) -> tuple[float, str, tuple[int, ...]] | None:
    """Train; on the last rank something silent happens. Return when it was noticed, what was said, and who is named."""
    import torch
    import torch.distributed as dist

    last = dist.get_rank() == dist.get_world_size() - 1
    seeds = {f"{fault}_seed": 1} if last and fault in ("weights", "batch") else {}
    job = Job(folder, **seeds)
    if seeds:
        job.happens()
    for step in range(STEPS):
        found = job.compare(step)
        if found is not None:
            return time.monotonic(), str(found), found.ranks
        job.backward(step)
        job.average()
        if step == FAULT_STEP and last and fault == "flip":
            job.happens()
            gradient = next(job.model.parameters()).grad
            bits = gradient.view(-1)[:1].view(torch.int32)
            bits ^= 1 << 20  # changes the first number by a few percent
        job.update()
    return None


def _straggle(folder: str) -> tuple[float, int] | None:
    """Train; the last rank becomes slow. Return when it was noticed, and who it is."""
    import torch.distributed as dist

    job = Job(folder)
    begin = time.monotonic()
    for step in range(20):
        if step == FAULT_STEP:
            begin, job.wire.waited_s = time.monotonic(), 0.0  # a job looks at its last steps
            if job.rank == job.ranks - 1:
                job.happens()
        job.backward(step)
        if step >= FAULT_STEP and job.rank == job.ranks - 1:
            time.sleep(0.1)
        job.average()
        job.update()
        if step > FAULT_STEP and step % EVERY == 0:
            shares: list = [None] * job.ranks
            dist.all_gather_object(shares, job.wire.waited_s / (time.monotonic() - begin))
            slow = shares.index(min(shares))
            if min(shares[:slow] + shares[slow + 1 :]) > 0.5 and shares[slow] < 0.25:
                return time.monotonic(), slow
    return None


def _checkpoints(folder: str):
    """A model over the ranks, and its checkpoints."""
    from bigmodel_lab.dist.checkpoint import ShardedCheckpoints
    from bigmodel_lab.dist.composed import Composed
    from bigmodel_lab.models import GPT, GPTConfig
    from bigmodel_lab.train import AdamW, Layout

    Job(folder)  # notes the process
    gpt = GPT(GPTConfig.llama(vocab_size=13, context=8, n_layers=2, width=16, n_heads=2), seed=0)
    model = Composed(gpt, Layout(dp=2, zero=1), lambda groups: AdamW(groups, lr=0.01))
    return ShardedCheckpoints(os.path.join(folder, "checkpoints"), gpt, model)


def _tear(folder: str) -> tuple[int, float, float]:
    """Save two checkpoints, cut a file of the newer one, load; return the step loaded and when that began and ended."""
    import torch.distributed as dist

    checkpoints = _checkpoints(folder)
    for step in (1, 2):
        path = checkpoints.save(step, {})
    if dist.get_rank() == 1:
        os.truncate(path / "rank-00001.safetensors", 100)
    dist.barrier()
    begin = time.monotonic()
    step, _ = checkpoints.load()
    return step, begin, time.monotonic()


def _fill(folder: str) -> tuple[str, float, list[str]]:
    """Save a checkpoint, let the system refuse more than 4 kB a file on rank 1, save another; return what was said."""
    import resource

    import torch.distributed as dist

    checkpoints = _checkpoints(folder)
    checkpoints.save(1, {})
    if dist.get_rank() == 1:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    begin = time.monotonic()
    try:
        checkpoints.save(2, {})
    except OSError as error:
        took = time.monotonic() - begin
        dist.barrier()
        here = sorted(p.name for p in checkpoints.folder.iterdir())
        return f"{error.__notes__[0]} {error.args[1].split(':')[0]}", took, here
    raise AssertionError("a checkpoint was written past the limit")


# What the reader does


def _loud(name: str, fault: str, by: str, folder: str, **options) -> Noticed:
    try:
        run(_train, folder, fault, **{"ranks": 2, "timeout_s": 60} | options)
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
    found = run(_train_and_compare, folder, fault, ranks=ranks, timeout_s=60)
    assert None not in found, f"nobody noticed, or not all: {name}"
    assert len({f[1:] for f in found}) == 1, f"the ranks do not agree on what happened: {found}"
    when, says, named = found[0]
    (rank,) = named or (None,)
    return Noticed(name, "comparing checksums", rank, says, when - _happened(folder))


def _straggler(name: str, folder: str) -> Noticed:
    found = run(_straggle, folder, ranks=2, timeout_s=60)[0]
    assert found, f"nobody noticed: {name}"
    when, rank = found
    says = f"all others wait for rank {rank} more than half of the time"
    return Noticed(name, "seconds waited", rank, says, when - _happened(folder))


def _torn(name: str, folder: str) -> Noticed:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        step, begin, end = run(_tear, folder, ranks=2, timeout_s=60)[0]
    assert step == 1, "the torn checkpoint was loaded"
    says = re.search(r"rank-00001.safetensors has [\d,]+ bytes of \d+", said.getvalue())[0]
    return Noticed(name, "size and CRC-32 in the manifest", 1, says, end - begin)


def _full(name: str, folder: str) -> Noticed:
    found = run(_fill, folder, ranks=2, timeout_s=60)
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
