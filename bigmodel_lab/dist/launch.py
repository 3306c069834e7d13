"""Run a function on several ranks: real `torch.distributed` processes started from a notebook cell, a script or a test.

    from bigmodel_lab import dist
    dist.run(lambda: torch.distributed.get_rank(), ranks=2)      # [0, 1]

A fork server that has torch loaded starts the ranks, so that a launch takes tenths of a second and the notebook's own
process is never forked. The function travels by value (cloudpickle), with the globals it uses. What happens then is in
`_team` (here) and `_rank` (there). Linux; macOS, and Windows (which has no fork server and starts each rank afresh), are
untested.
"""

import os
import signal
import sys

from bigmodel_lab.dist import _arguments, _team

METHOD = "spawn" if os.name == "nt" else "forkserver"


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
    wait_s : seconds that a rank waits for another one in a collective before it fails, also in the groups that fn makes
        (unless it gives them a `timeout`); None: as long as `timeout_s`
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
            "dist.run was called on a rank of another dist.run, and a rank cannot start ranks: ask the outer dist.run "
            "for more, or split them with torch.distributed.new_group."
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
        from bigmodel_lab.dist import _torchrun  # imports torch

        return _torchrun.run_here(fn, args, kwargs, timeout_s, threads, wait_s)
    named = {"fn": fn} | {f"argument {i} of fn": arg for i, arg in enumerate(args, start=1)}
    named |= {f"argument {name!r} of fn": arg for name, arg in kwargs.items()}
    call = _arguments.pack((fn, args, kwargs), named)
    warm()
    return _team.start(METHOD, call, int(ranks), float(timeout_s), int(threads), checks, wait_s)


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
