"""`dist.run` where torchrun has started the ranks: this process is one of them, and runs the function itself."""

import atexit
import faulthandler
import os
import pickle
import sys
import threading
import time

import torch.distributed

from bigmodel_lab.dist import _printer, _rank, _report


def run_here(
    fn, args: tuple, kwargs: dict, timeout_s: float, threads: int, wait_s: float | None
) -> list:
    """Run fn in this process, a rank that torchrun started, and return the results of all ranks."""
    if not torch.distributed.is_initialized():
        _rank.join(wait_s or timeout_s)
        atexit.register(torch.distributed.destroy_process_group)
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _rank.set_threads(threads)
    rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
    streams, printed, results, to_show = (sys.stdout, sys.stderr), [], [None] * ranks, {}

    def keep(stream: str, text: str) -> None:
        printed.append((stream, text))

    os.environ["BIGMODEL_LAB_RANK"] = str(rank)
    # Here nobody watches from outside: the rank ends itself, and torchrun then ends the others.
    faulthandler.dump_traceback_later(timeout_s, exit=True, file=sys.__stderr__)
    try:
        if rank > 0:
            _printer.use(_printer.Printer("stdout", keep), _printer.Printer("stderr", keep))
        result = _rank.pack_result(fn(*args, **kwargs))
        sys.stdout.flush()
        sys.stderr.flush()
        torch.distributed.all_gather_object(results, (result, printed))
        if rank == 0:
            to_show = {r: lines for r, (_, lines) in enumerate(results)}
    except BaseException:
        to_show = {rank: printed}
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()
        del os.environ["BIGMODEL_LAB_RANK"]
        _printer.use(*streams)
        for r, lines in to_show.items():
            _report.print_grouped(r, lines)
    return [pickle.loads(result) for result, _ in results]


def _end_with(parent: int) -> None:
    """End this process when its parent is gone: a torchrun that is killed leaves its ranks to train on, unseen."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
