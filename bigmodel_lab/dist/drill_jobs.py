"""What the ranks do in a failure drill: a small training that something happens to, on the last rank.

The reader's side is `bigmodel_lab.dist.drills`. Torch is imported on the ranks only, for the reader's process does not need it.
"""

import os
import signal
import time
from pathlib import Path

__all__ = ["Job", "fill", "open_checkpoints", "straggle", "tear", "train", "train_and_compare"]

FAULT_STEP, STEPS = 3, 8  # the step in which things go wrong, and how many there are
EVERY = 2  # steps between two comparisons of the replicas


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


def train(folder: str, fault: str) -> None:
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


def train_and_compare(folder: str, fault: str) -> tuple[float, str, tuple[int, ...]] | None:
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


def straggle(folder: str) -> tuple[float, int] | None:
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


def open_checkpoints(folder: str):
    """A model over the ranks, and its checkpoints."""
    from bigmodel_lab.dist.checkpoint import ShardedCheckpoints
    from bigmodel_lab.dist.composed import Composed
    from bigmodel_lab.models import GPT, GPTConfig
    from bigmodel_lab.train import AdamW, Layout

    Job(folder)  # notes the process
    gpt = GPT(GPTConfig.llama(vocab_size=13, context=8, n_layers=2, width=16, n_heads=2), seed=0)
    model = Composed(gpt, Layout(dp=2, zero=1), lambda groups: AdamW(groups, lr=0.01))
    return ShardedCheckpoints(os.path.join(folder, "checkpoints"), gpt, model)


def tear(folder: str) -> tuple[int, float, float]:
    """Save two checkpoints, cut a file of the newer one, load; return the step loaded and when that began and ended."""
    import torch.distributed as dist

    checkpoints = open_checkpoints(folder)
    for step in (1, 2):
        path = checkpoints.save(step, {})
    if dist.get_rank() == 1:
        os.truncate(path / "rank-00001.safetensors", 100)
    dist.barrier()
    begin = time.monotonic()
    step, _ = checkpoints.load()
    return step, begin, time.monotonic()


def fill(folder: str) -> tuple[str, float, list[str]]:
    """Save a checkpoint, let the system refuse more than 4 kB a file on rank 1, save another; return what was said."""
    import resource

    import torch.distributed as dist

    checkpoints = open_checkpoints(folder)
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
