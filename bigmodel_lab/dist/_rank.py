"""What runs in a rank: one process, forked from the fork server, that lives for one `dist.run`.

It talks to the notebook's process over one socket. In comes "go", and the end of the connection means "you are done";
out go what it prints and one result or one failure. It never exits in the ordinary way: the shutdown of an interpreter
with gloo's threads in it can abort ("terminate called without an active exception"), and it waits for threads that fn
left behind.
"""

import atexit
import datetime
import faulthandler
import linecache
import multiprocessing
import os
import pickle
import shutil
import signal
import socket
import sys
import threading
import time

import cloudpickle
import numpy as np
import torch
import torch.distributed

from bigmodel_lab.dist import _printer, _report

# How long a rank keeps its connections open after fn. When it returned: until all that it sent has arrived; a rank that
# then still waits for more from it fails, instead of hanging until the timeout. When it failed: until ranks that fail
# for the same reason, a little later, have said so themselves, instead of that they lost a peer.
LINGER_S = {"result": 2.0, "failure": 0.5}
# The notebook's process ends everything at timeout_s, with a stack of each rank. The limits in here are for the case
# that it cannot, and come later so that they never speak first.
SPARE_S = 5.0


def main(rank, ranks, folder, conn, timeout_s, threads, checks, wait_s) -> None:
    """Run the job in `folder` as one of `ranks`, report over `conn` and end the process."""
    # Ctrl-C goes to the notebook's process too, and that one ends the run.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        conn.recv_bytes()  # "go"
    except (EOFError, OSError):  # the run was interrupted while its ranks were being started
        os._exit(0)
    _isolate(rank, folder)
    lock = threading.Lock()

    def send(*message) -> None:
        # Bytes, and not conn.send: that would pass tensors as handles to this process's memory.
        data = pickle.dumps(message)
        with lock:
            conn.send_bytes(data)

    def show(stream: str, text: str) -> None:
        send("print", stream, text)

    streams = sys.stdout, sys.stderr
    # A process that fn forks prints to the log instead: two writers would tear each other's messages apart.
    os.register_at_fork(after_in_child=lambda: _printer.use(*streams))
    _printer.use(_printer.Printer("stdout", show), _printer.Printer("stderr", show))
    try:
        with open(os.path.join(folder, "job"), "rb") as file:
            environment, sources, call = pickle.load(file)
        linecache.cache.update(sources)
        _set_up(rank, ranks, folder, environment, timeout_s, threads, checks, wait_s)
        message = "result", _call(call)
    except BaseException as e:  # also SystemExit: whatever ends fn ends the rank
        message = "failure", time.monotonic(), *_report.describe(e)
    sys.stdout.flush()
    sys.stderr.flush()
    send(*message)
    conn.poll(LINGER_S[message[0]])
    os._exit(0)


def _isolate(rank: int, folder: str) -> None:
    """Cut the ties to the terminal and to the notebook's output, and die when the notebook's process dies."""
    atexit.unregister(os._exit)  # the fork server's; a process that fn forks shall end as it likes
    # What fn starts can be stopped together with the rank: it is in the rank's process group, and the rank's child. With
    # the start method inherited from here, multiprocessing in fn would ask the fork server for children instead.
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    if sys.platform == "linux":
        multiprocessing.set_start_method("fork", force=True)
    # What C code and subprocesses write goes to a log. It is shown if the rank dies: why gloo aborts stands only there.
    log = os.open(os.path.join(folder, f"log-{rank}"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable(file=log)
    if hasattr(faulthandler, "register"):  # answered in C, hence also while C code holds the GIL
        stack = os.open(os.path.join(folder, f"stack-{rank}"), os.O_WRONLY | os.O_CREAT)
        faulthandler.register(signal.SIGQUIT, file=stack, all_threads=True)

    def watch() -> None:
        multiprocessing.parent_process().join()
        shutil.rmtree(folder, ignore_errors=True)
        if hasattr(os, "killpg"):
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _set_up(rank, ranks, folder, environment, timeout_s, threads, checks, wait_s) -> None:
    """Give the rank its environment, its threads and its process group."""
    # Should C code hold the GIL here while the notebook dies, `watch` cannot run: this ends the rank all the same.
    faulthandler.dump_traceback_later(timeout_s + SPARE_S, exit=True, file=2)
    # The notebook's variables as they are now: the fork server has those of the time when it was started.
    os.environ.clear()
    os.environ.update(environment)
    place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=ranks, LOCAL_WORLD_SIZE=ranks)
    os.environ.update(
        {name: str(value) for name, value in place.items()}, BIGMODEL_LAB_RANK=str(rank)
    )
    # Without it gloo looks up the address of the host's own name, which need not resolve.
    loopback = {name for _, name in socket.if_nameindex()} & {"lo", "lo0"}  # Linux, macOS
    if loopback:
        os.environ["GLOO_SOCKET_IFNAME"] = loopback.pop()
    set_threads(threads)
    # As in any new process. A fork has the server's state of it, the same on all ranks and in every launch.
    np.random.seed()  # noqa: NPY002
    if checks:
        os.environ["TORCH_DISTRIBUTED_DEBUG"] = "DETAIL"
    torch.distributed.set_debug_level_from_env()  # torch read it when the server imported it
    join(
        wait_s or timeout_s + SPARE_S,
        init_method=f"file://{folder}/store",  # needs no port, so none can be taken
        rank=rank,
        world_size=ranks,
    )


def join(limit_s: float, **where) -> None:
    """Make the process group, and let a rank wait `limit_s` in it and in every group that is made of it later."""
    limit = datetime.timedelta(seconds=limit_s)
    # torch gives a group that is made without a limit, such as a DeviceMesh's, its own: 30 minutes, with NCCL 10.
    c10d = torch.distributed.distributed_c10d
    c10d.default_pg_timeout = c10d.default_pg_nccl_timeout = limit
    # Said, and not left to torch: where there are GPUs it would make a group for those alone, without gloo.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    torch.distributed.init_process_group(backend, timeout=limit, **where)


def set_threads(threads: int) -> None:
    """Let torch, BLAS and numba use `threads` threads each in this process, be they loaded already or later."""
    for library in ("OMP", "OPENBLAS", "MKL", "NUMBA"):
        os.environ[f"{library}_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    if "threadpoolctl" in sys.modules:
        sys.modules["threadpoolctl"].threadpool_limits(threads)
    if (
        "numba" in sys.modules
    ):  # it starts its threads in its first parallel loop, as many as it noted when imported
        numba = sys.modules["numba"]
        numba.config.reload_config()
        numba.np.ufunc.parallel.NUM_THREADS = threads


def _call(call: bytes) -> bytes:
    try:
        fn, args, kwargs = pickle.loads(call)
    except Exception as e:
        e.add_note(
            "The rank was loading fn and its arguments: it must be able to import what they name."
        )
        raise
    return pack_result(fn(*args, **kwargs))


def pack_result(result) -> bytes:
    """Pickle what fn returned, by value: it is read when this process and its memory are gone."""
    try:
        return cloudpickle.dumps(result)
    except Exception as e:
        raise TypeError(
            f"what fn returned, of type {type(result).__name__}, cannot be sent back ({e}): "
            "return numbers, strings, arrays, tensors or containers of them."
        ) from None
