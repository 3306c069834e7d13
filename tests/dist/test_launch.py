"""Ranks in a cell: every promise of `dist.run`, each with the failure that would break it.

Functions for the ranks are defined inside the tests: they then travel by value, as a notebook's do. What needs a process
of its own to be killed, interrupted or cut off from the network is a script, run by `script(...)`.
"""

import ctypes
import datetime
import functools
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import torch.distributed

from bigmodel_lab import dist
from bigmodel_lab.dist import launch

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc or Linux name spaces")


@pytest.fixture(scope="module", autouse=True)
def _warm():
    dist.run(int, ranks=1)


def start(tmp_path: Path, source: str, before=(), **options) -> subprocess.Popen:
    """Start `source` as a script in a session of its own; a group of processes that a test can signal as a whole."""
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(source))
    return subprocess.Popen(
        [*before, sys.executable, path],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        **options,
    )


def script(tmp_path: Path, source: str, before=(), **options) -> tuple[int, str, str]:
    """Run `source` as a script; return its exit code and what it wrote to stdout and stderr."""
    process = start(tmp_path, source, before, **options)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_until(condition, limit_s: float = 20.0) -> bool:
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(condition())


def gone(pids) -> bool:
    return not any(
        psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        for pid in pids
    )


# What travels, and what comes back


def test_results_come_in_rank_order():
    def work():
        rank = torch.distributed.get_rank()
        time.sleep(0.05 * (3 - rank))  # the last rank returns first
        total = torch.tensor([rank])
        torch.distributed.all_reduce(total)
        return rank, torch.distributed.get_world_size(), int(total), torch.distributed.get_backend()

    assert dist.run(work, ranks=4) == [(rank, 4, 6, "gloo") for rank in range(4)]


def test_arguments_closures_lambdas_partials_and_methods_travel():
    offset = 10

    class Adder:
        def __init__(self, n):
            self.n = n

        def add(self, x, *, fn=0):
            return self.n + x + offset + fn

    # `fn` is free for the function's own use.
    assert dist.run(Adder(1).add, 2, fn=100, ranks=2) == [113, 113]
    assert dist.run(lambda x: x * offset, 3, ranks=2) == [30, 30]
    assert dist.run(functools.partial(pow, 2), 5, ranks=1) == [32]
    (returned,) = dist.run(lambda: Adder(5), ranks=1)
    assert isinstance(returned, Adder), (
        "a class defined in a cell is the same class when an instance comes back"
    )


def test_in_a_script(tmp_path):
    """No main guard is needed, the script runs once, torch stays out of its process, an error reads well at the end."""
    code, out, err = script(
        tmp_path,
        """
        print("script runs")
        import multiprocessing, sys
        from bigmodel_lab import dist
        scale = 3
        def helper(x): return x * scale
        def work(x):
            import torch.distributed
            print("working")
            global lock
            lock = multiprocessing.RLock()  # as numba makes one when it starts its threads
            return helper(x) + torch.distributed.get_rank()
        print(dist.run(work, 5), "torch" in sys.modules)
        def fail():
            raise ValueError("no")
        dist.run(fail)
        """,
    )
    assert code == 1
    assert out == "script runs\nworking\n[rank 1] working\n[15, 16] False\n"
    assert (
        "bigmodel_lab.dist.RankError: ranks 0 and 1 failed alike: ValueError: no\nOn rank 0:\n"
        in err
    )
    assert err.endswith('    raise ValueError("no")\nValueError: no\n'), (
        "nothing about leaks after it"
    )


def test_a_module_next_to_the_notebook_is_found(tmp_path, monkeypatch):
    (tmp_path / "next_to_notebook.py").write_text("def double(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(tmp_path)
    import next_to_notebook

    assert dist.run(next_to_notebook.double, 4, ranks=2) == [8, 8]


def test_big_tensors_come_back_by_value():
    def work():
        rank = torch.distributed.get_rank()
        big = torch.full((6_000_000,), float(rank + 1), requires_grad=True)  # 24 MB
        return {"big": big, "views": [big.detach()[:3]], "numpy": np.full(1_000_000, rank)}

    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    results = dist.run(work, ranks=2)
    for rank, result in enumerate(results):
        assert result["big"].sum().item() == 6_000_000 * (rank + 1)
        assert result["big"].requires_grad
        assert not result["big"].is_shared(), "shared memory would outlive, or die with, the rank"
        assert result["views"][0].tolist() == [rank + 1] * 3
        assert (result["numpy"] == rank).all()
    after = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    assert not {name for name in after - before if "torch" in name}


def test_big_arguments_travel():
    x = torch.arange(3_000_000, dtype=torch.float64)
    assert dist.run(lambda x: x.sum().item(), x, ranks=2) == [x.sum().item()] * 2


def test_the_environment_of_now_is_the_ranks_environment(monkeypatch):
    monkeypatch.setenv("SET_AFTER_THE_SERVER_STARTED", "yes")
    names = ("SET_AFTER_THE_SERVER_STARTED", "RANK", "WORLD_SIZE")
    seen = dist.run(lambda: [os.environ.get(name) for name in names], ranks=2)
    assert seen == [["yes", "0", "2"], ["yes", "1", "2"]]


def test_public_names_are_there():
    assert all(getattr(dist, name) for name in dist.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Wires'"):
        dist.Wires  # noqa: B018


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_per_rank(threads):
    def work():
        import numba
        import threadpoolctl

        @numba.njit(parallel=True)
        def count(seen):
            for i in numba.prange(len(seen)):
                seen[i] = numba.get_num_threads()
            return seen

        pools = {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}
        return torch.get_num_threads(), set(count(np.zeros(8, int)).tolist()), pools

    assert dist.run(work, ranks=1, threads=threads) == [(threads, {threads}, {threads})]


def test_nothing_is_seeded():
    def work():
        return torch.initial_seed(), np.random.rand()  # noqa: NPY002  the global state is what is tested

    (seed0, x0), (seed1, x1) = dist.run(work, ranks=2)
    ((_, x2),) = dist.run(work, ranks=1)
    assert seed0 == seed1
    assert len({x0, x1, x2}) == 3, "ranks forked from one server repeat its NumPy state"


def test_the_process_group_waits_about_as_long_as_the_run():
    def work():
        group = torch.distributed.distributed_c10d._get_default_group()
        return group._get_backend(torch.device("cpu")).options._timeout.total_seconds()

    assert 7 <= dist.run(work, ranks=1, timeout_s=7)[0] <= 17


# Starting


def test_a_warm_launch_takes_less_than_half_a_second():
    times = []
    for _ in range(10):
        begin = time.perf_counter()
        dist.run(int, ranks=2)
        times.append(time.perf_counter() - begin)
    assert min(times) < 0.5, times


def test_warm_starts_one_server_and_a_killed_one_is_replaced():
    def server() -> psutil.Process:
        (found,) = [p for p in psutil.Process().children() if "forkserver" in " ".join(p.cmdline())]
        return found

    first = server()
    assert first.num_threads() == 1, "a fork copies one thread; what others held would stay locked"
    dist.warm()
    dist.warm()
    assert server().pid == first.pid
    assert dist.run(os.getppid, ranks=2) == [first.pid] * 2, (
        "ranks are forks of the server, not of this process"
    )
    first.kill()
    assert wait_until(lambda: first.status() == psutil.STATUS_ZOMBIE)
    assert dist.run(os.getppid, ranks=2) == [server().pid] * 2


@on_linux
@pytest.mark.slow
def test_two_hundred_launches_leave_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def work(i):
        total = torch.tensor([i + torch.distributed.get_rank()])
        torch.distributed.all_reduce(total)
        return int(total)

    def held() -> dict:
        me = psutil.Process()
        return {
            "files": sorted(
                os.readlink(f"/proc/self/fd/{fd}").partition(":")[0] for fd in open_fds()
            ),
            "threads": threading.active_count(),
            "children": sorted(p.pid for p in me.children(recursive=True)),
            "multiprocessing": len(multiprocessing.active_children()),
            "folders": os.listdir(tmp_path),
        }

    def open_fds():
        return [fd for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}")]

    dist.run(work, 0)
    before = held()
    for i in range(200):
        assert dist.run(work, i, timeout_s=30) == [2 * i + 1] * 2
    assert held() == before


def test_works_without_a_fork_server(monkeypatch):
    monkeypatch.setattr(launch, "METHOD", "spawn")  # as on Windows

    def work():
        print("rank", torch.distributed.get_rank())
        return torch.distributed.get_rank()

    assert dist.run(work, ranks=2) == [0, 1]


@on_linux
def test_works_without_a_network_and_with_a_host_name_that_does_not_resolve(tmp_path):
    """In name spaces of its own: no interface but the loopback, and a host name that nobody knows."""
    spaces = ["unshare", "--user", "--map-root-user", "--net", "--uts"]
    if not shutil.which("unshare"):
        pytest.skip("no unshare on this machine")
    permitted = subprocess.run([*spaces, "true"], capture_output=True, text=True)
    if permitted.returncode:
        pytest.skip(f"name spaces are not permitted here: {permitted.stderr.strip()}")
    code, out, err = script(
        tmp_path,
        """
        import fcntl, socket, struct
        with socket.socket() as s:  # ifconfig lo up
            fcntl.ioctl(s, 0x8914, struct.pack("16sh", b"lo", 0x49))
        socket.sethostname("nobody-knows-this-host")
        try:
            socket.gethostbyname(socket.gethostname())
        except OSError:
            print([name for _, name in socket.if_nameindex()], "host name does not resolve")
        from bigmodel_lab import dist
        def work():
            import torch
            x = torch.ones(1)
            torch.distributed.all_reduce(x)
            return x.item()
        print(dist.run(work, ranks=3, timeout_s=30))
        """,
        before=spaces,
        env={
            **os.environ,
            "GLOO_SOCKET_IFNAME": "eth7",
        },  # a setting for several machines must not hurt on one
    )
    assert (code, out) == (0, "['lo'] host name does not resolve\n[3.0, 3.0, 3.0]\n"), err


# What goes wrong


def test_an_exception_names_the_rank_and_shows_its_lines():
    def work():
        rank = torch.distributed.get_rank()
        if rank == 2:
            raise ValueError("bad batch")  # the line to be shown
        torch.distributed.all_reduce(torch.ones(1))  # here the others wait

    begin = time.monotonic()
    with pytest.raises(dist.RankError) as caught:
        dist.run(work, ranks=4)
    assert time.monotonic() - begin < 30, "nobody waits for the timeout"
    assert str(caught.value) == "rank 2 failed first: ValueError: bad batch"
    assert caught.value.rank == 2
    report = caught.value.report
    assert 'raise ValueError("bad batch")  # the line to be shown' in report
    assert f'File "{__file__}", line ' in report
    assert "Rank 0 then lost the connection" in report
    assert "bigmodel_lab/dist" not in report, "the launcher's own frames are noise"
    assert caught.value._render_traceback_() == [f"RankError: {caught.value}", report]


@pytest.mark.parametrize("first", [0, 1])
def test_the_first_failure_in_time_is_the_root(first):
    def work(first):
        rank = torch.distributed.get_rank()
        time.sleep(0 if rank == first else 0.4)
        raise KeyError(f"from {rank}")

    with pytest.raises(
        dist.RankError, match=f"rank {first} failed first: KeyError: 'from {first}'"
    ) as caught:
        dist.run(work, first)
    assert f"Rank {1 - first} failed too: KeyError: 'from {1 - first}'" in caught.value.report


def test_a_lost_connection_is_not_the_root_even_when_it_is_wrapped():
    def work():
        if torch.distributed.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            torch.distributed.barrier()
        except RuntimeError as e:
            raise OSError("step failed") from e

    with pytest.raises(dist.RankError, match="rank 1 failed first: killed by SIGKILL"):
        dist.run(work)


@pytest.mark.parametrize("after_a_collective", [False, True])
def test_ranks_that_fail_alike_are_one_error(after_a_collective):
    """Every time: which is first is chance, and the slower ones must not report the lost connection to the first."""

    def work():
        if after_a_collective:
            torch.distributed.all_reduce(torch.ones(1000))
        undefined_name  # noqa: B018, F821

    for _ in range(8):
        with pytest.raises(dist.RankError) as caught:
            dist.run(work, ranks=3)
        assert str(caught.value) == (
            "ranks 0, 1 and 2 failed alike: NameError: name 'undefined_name' is not defined"
        )


def test_chained_exceptions_stay_chained_and_torchs_frames_are_left_out():
    def work():
        try:
            torch.nn.Linear(3, 4)(torch.ones(2, 5))
        except RuntimeError as e:
            raise ValueError("wrong width") from e

    with pytest.raises(dist.RankError) as caught:
        dist.run(work, ranks=1)
    assert "mat1 and mat2 shapes cannot be multiplied" in caught.value.report
    assert "The above exception was the direct cause" in caught.value.report
    assert caught.value.report.index("mat1 and mat2") < caught.value.report.index(
        "ValueError: wrong width"
    )
    assert "site-packages/torch" not in caught.value.report


def die_by_sigkill():
    os.kill(os.getpid(), signal.SIGKILL)


def die_by_exit():
    os._exit(3)


def die_by_segfault():
    ctypes.string_at(0)


@pytest.mark.parametrize(
    ("die", "message"),
    [
        (die_by_sigkill, "rank 1 failed first: killed by SIGKILL"),
        (die_by_exit, "rank 1 failed first: its process ended with exit code 3 before fn returned"),
        (die_by_segfault, "rank 1 failed first: killed by SIGSEGV"),
        (sys.exit, "rank 1 failed first: SystemExit"),
    ],
)
def test_a_rank_that_dies_is_named_with_its_signal(die, message):
    def work():
        if torch.distributed.get_rank() == 1:
            die()
        torch.distributed.barrier()

    begin = time.monotonic()
    with pytest.raises(dist.RankError) as caught:
        dist.run(work)
    assert str(caught.value) == message
    assert time.monotonic() - begin < 30
    assert "Rank 0 then lost the connection" in caught.value.report
    if die is die_by_segfault:
        assert "ctypes.string_at(0)" in caught.value.report


@pytest.fixture
def mismatch():
    def work(kind: str):
        rank, x = torch.distributed.get_rank(), torch.ones(3)
        if rank == 1 and kind == "shape":
            x = torch.ones(5)
        if rank == 1 and kind == "dtype":
            x = x.double()
        if rank == 1 and kind == "operation":
            torch.distributed.broadcast(x, 0)
        else:
            torch.distributed.all_reduce(x)

    return work


@pytest.mark.parametrize(
    ("kind", "difference"),
    [
        (
            "shape",
            "rank 0 called allreduce of shape [3], float, but rank 1 called allreduce of shape [5], float",
        ),
        (
            "dtype",
            "rank 0 called allreduce of shape [3], float, but rank 1 called allreduce of shape [3], double",
        ),
        (
            "operation",
            "rank 0 called allreduce of shape [3], float, but rank 1 called broadcast of shape [3], float",
        ),
    ],
)
def test_checks_name_what_differs_in_a_mismatched_collective(mismatch, kind, difference):
    with pytest.raises(
        dist.RankError,
        match=r"(?m)^ranks 0 and 1 failed alike: RuntimeError: the ranks called different collectives$",
    ) as caught:
        dist.run(mismatch, kind, checks=True, timeout_s=30)
    assert difference in caught.value.report


def test_a_mismatched_collective_ends_without_checks_too(mismatch):
    with pytest.raises(dist.RankError, match="killed by SIGABRT") as caught:
        dist.run(mismatch, "shape", timeout_s=30)
    assert "in all_reduce, called here:" in caught.value.report
    assert "doesn't match expected size" in caught.value.report
    assert "checks=True" in caught.value.report
    with pytest.raises(
        dist.RankTimeout, match=r"(?m)^ranks 0 and 1 still ran after 3 s$"
    ) as caught:
        dist.run(mismatch, "operation", timeout_s=3)
    assert "Rank 0 was in all_reduce, called here:" in caught.value.report
    assert "Rank 1 was in broadcast, called here:" in caught.value.report


def test_a_rank_that_never_arrives_ends_in_the_stack_of_each():
    def work():
        rank = torch.distributed.get_rank()
        sleep_with_the_gil = ctypes.PyDLL(
            None
        ).sleep  # in C, and no Python code of the rank can run meanwhile
        if rank == 1:
            sleep_with_the_gil(60)
        if rank == 2:
            return
        if rank == 3:
            time.sleep(60)
        torch.distributed.recv(torch.ones(1), src=1)

    begin = time.monotonic()
    with pytest.raises(dist.RankTimeout) as caught:
        dist.run(work, ranks=4, timeout_s=3)
    assert time.monotonic() - begin < 30
    assert str(caught.value) == "ranks 0, 1 and 3 still ran after 3 s; rank 2 had finished"
    assert caught.value.rank == 0
    assert re.fullmatch(
        r"Rank 0 was in recv, called here:\n.*, in work\n    torch.distributed.recv\(.*\)\n"
        r"Rank 1 was here:\n.*, in work\n    sleep_with_the_gil\(60\)\n"
        r"Rank 3 was here:\n.*, in work\n    time.sleep\(60\)\n"
        r"Rank 2 had finished\.",
        caught.value.report,
    ), caught.value.report


def test_a_rank_that_is_stopped_cannot_answer_and_is_ended_all_the_same():
    with pytest.raises(dist.RankTimeout, match="rank 0 still ran after 1 s") as caught:
        dist.run(lambda: os.kill(os.getpid(), signal.SIGSTOP), ranks=1, timeout_s=1)
    assert "did not answer" in caught.value.report


def test_a_timeout_inside_fn_is_a_failure_of_its_own():
    def work():
        if torch.distributed.get_rank() == 1:
            time.sleep(100)
        torch.distributed.monitored_barrier(timeout=datetime.timedelta(seconds=0.5))

    with pytest.raises(dist.RankError) as caught:
        dist.run(work)
    assert str(caught.value).startswith(
        "rank 0 failed first: RuntimeError: [Rank 0]: Rank 1 failed to pass"
    )
    assert caught.value.report.endswith("Rank 1 still ran when everything was stopped.")


@pytest.mark.parametrize("kind", ["all ranks", "group", "mesh"])
def test_wait_s_holds_in_every_group_that_is_made_of_the_ranks(kind):
    def work():
        group = None
        if kind == "group":
            group = torch.distributed.new_group([0, 1])
        if kind == "mesh":
            group = torch.distributed.init_device_mesh("cpu", (1, 2)).get_group(1)
        if torch.distributed.get_rank() == 1:
            time.sleep(100)
        torch.distributed.all_reduce(torch.ones(1), group=group)

    with pytest.raises(dist.RankError, match=r"rank 0 failed first: .*Timed out waiting 2000ms"):
        dist.run(work, wait_s=2, timeout_s=30)


def test_waiting_for_a_rank_that_has_finished_ends_long_before_the_timeout():
    def work():
        if torch.distributed.get_rank() == 0:
            torch.distributed.barrier()

    begin = time.monotonic()
    with pytest.raises(
        dist.RankError, match="rank 0 failed first: RuntimeError: lost the connection"
    ) as caught:
        dist.run(work, timeout_s=100)
    assert time.monotonic() - begin < 30
    assert caught.value.report.endswith("Rank 1 had finished: a collective needs every rank.")


def test_a_rank_that_prints_without_end_still_meets_the_timeout(capsys):
    def work():
        while True:
            print("and again")

    with pytest.raises(dist.RankTimeout):
        dist.run(work, ranks=2, timeout_s=1)


def test_threads_and_processes_that_fn_leaves_behind_end_with_the_run():
    def work():
        threading.Thread(target=time.sleep, args=(100,)).start()
        child = subprocess.Popen(["sleep", "100"])
        worker = multiprocessing.Process(target=time.sleep, args=(100,))
        worker.start()
        return child.pid, worker.pid

    begin = time.monotonic()
    left = [pid for pids in dist.run(work, ranks=2) for pid in pids]
    assert time.monotonic() - begin < 30
    assert wait_until(lambda: gone(left)), left


def test_an_interrupt_stops_the_ranks_and_the_next_launch_works(tmp_path):
    def work():
        (tmp_path / str(torch.distributed.get_rank())).write_text(str(os.getpid()))
        time.sleep(100)

    def interrupt():
        wait_until(lambda: all((tmp_path / rank).exists() for rank in "01"))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        dist.run(work, ranks=2)
    thread.join()
    assert gone([int((tmp_path / rank).read_text()) for rank in "01"])
    assert dist.run(int, ranks=2) == [0, 0]


@pytest.mark.parametrize("delay_s", [0.1, 0.6])
def test_an_interrupt_while_the_server_loads_torch(tmp_path, delay_s):
    """Ctrl-C in a terminal goes to the whole group, the fork server included, at any moment of its start."""
    process = start(
        tmp_path,
        """
        from bigmodel_lab import dist
        print("go", flush=True)
        try:
            dist.run(int, ranks=2)
        except KeyboardInterrupt:
            print("interrupted")
        print(dist.run(int, ranks=2))
        """,
    )
    assert process.stdout.readline() == "go\n"
    time.sleep(delay_s)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, "interrupted\n[0, 0]\n"), err


def kill_when_here(process, limit_s: float) -> list[int]:
    """Kill a script that has said "here", see all that it started end within the limit, and return what that was."""
    assert process.stdout.readline() == "here\n"
    family = [p.pid for p in psutil.Process(process.pid).children(recursive=True)]
    process.kill()
    process.wait()
    assert wait_until(lambda: gone(family), limit_s), [p for p in family if not gone([p])]
    process.communicate()
    return family


def test_no_process_outlives_the_one_that_called_run(tmp_path):
    process = start(
        tmp_path,
        f"""
        import subprocess, tempfile, time
        import torch
        from bigmodel_lab import dist
        tempfile.tempdir = {str(tmp_path)!r}
        def work():
            subprocess.Popen(["sleep", "100"])
            if torch.distributed.get_rank() == 0:
                print("here", flush=True)
                time.sleep(100)
            torch.distributed.barrier()
        dist.run(work, ranks=3)
        """,
    )
    family = kill_when_here(process, limit_s=5.0)
    assert len(family) >= 5, "three ranks, the fork server and a sleep at least"
    assert [name for name in os.listdir(tmp_path) if name.startswith("bigmodel-lab")] == []


@pytest.mark.slow
def test_not_even_a_rank_that_holds_the_gil_outlives_it_by_much(tmp_path):
    process = start(
        tmp_path,
        f"""
        import ctypes, tempfile
        from bigmodel_lab import dist
        tempfile.tempdir = {str(tmp_path)!r}
        def work():
            print("here", flush=True)
            ctypes.PyDLL(None).sleep(100)
        dist.run(work, ranks=1, timeout_s=2)
        """,
    )
    kill_when_here(process, limit_s=20.0)


# Where torchrun started the ranks


@pytest.mark.slow
def test_under_torchrun_the_same_script_prints_the_same(tmp_path):
    source = """
        import os, torch
        from bigmodel_lab import dist
        def work(x):
            import torch.distributed
            rank = torch.distributed.get_rank()
            total = torch.tensor([rank + x])
            torch.distributed.all_reduce(total)
            print("sum on", rank, int(total))
            return rank, int(total), torch.get_num_threads()
        ranks = int(os.environ.get("WORLD_SIZE", 2))
        print(dist.run(work, 1, ranks=ranks))
        print(dist.run(work, 2, ranks=ranks, threads=2))
        """
    alone = script(tmp_path, source)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    (tmp_path / "script.py").write_text(textwrap.dedent(source))
    together = subprocess.run(
        [*torchrun, "--local-ranks-filter=0", "script.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert alone[0] == 0, alone[2]
    assert together.returncode == 0, together.stderr
    lines = [line.removeprefix("[default0]:") for line in together.stdout.splitlines()]
    assert lines == alone[1].splitlines()
    assert lines[:3] == ["sum on 0 3", "[rank 1] sum on 1 3", "[(0, 3, 1), (1, 3, 1)]"]


def test_under_torchrun_the_number_of_ranks_must_agree(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        ValueError, match=r"ranks=2, but torchrun started WORLD_SIZE=4: .*WORLD_SIZE"
    ):
        dist.run(int, ranks=2)
    with pytest.raises(
        ValueError, match=r"checks=True has no effect here: .*TORCH_DISTRIBUTED_DEBUG=DETAIL"
    ):
        dist.run(int, ranks=4, checks=True)


def test_under_torchrun_a_hang_ends_at_the_timeout(tmp_path):
    place = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    code, _, err = script(
        tmp_path,
        """
        import time
        from bigmodel_lab import dist
        dist.run(time.sleep, 100, ranks=1, timeout_s=1)
        """,
        env={**os.environ, **place},
    )
    assert code == 1
    assert "Timeout" in err
    assert "run_here" in err


# What is refused


def test_a_rank_cannot_start_ranks():
    with pytest.raises(
        dist.RankError,
        match=r"ranks 0 and 1 failed alike: RuntimeError: dist.run was called on a rank of another",
    ):
        dist.run(lambda: dist.run(int))


def takes_ranks(x, ranks=1):
    return x, ranks


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ([int], {"ranks": 0}, ValueError, "ranks must be between 1 and 64, got 0"),
        ([int], {"ranks": 65}, ValueError, "ranks must be between 1 and 64, got 65: .*torchrun"),
        ([int], {"ranks": 2.0}, TypeError, r"ranks must be a whole number, got 2\.0"),
        ([int], {"ranks": True}, TypeError, "ranks must be a whole number, got True"),
        ([int], {"threads": 0}, ValueError, "threads must be between 1 and 64, got 0"),
        (
            [int],
            {"timeout_s": 0},
            ValueError,
            "timeout_s must be a positive number of seconds, got 0",
        ),
        (
            [int],
            {"timeout_s": -1.5},
            ValueError,
            r"timeout_s must be a positive number of seconds, got -1\.5",
        ),
        (
            [int],
            {"timeout_s": float("nan")},
            ValueError,
            "timeout_s must be a positive number of seconds, got nan",
        ),
        ([int], {"timeout_s": "60"}, TypeError, "timeout_s must be a number of seconds, got '60'"),
        ([3], {}, TypeError, r"fn must be a function, got int: write dist.run\(f, x\)"),
        (
            [takes_ranks, 1],
            {"ranks": 2},
            TypeError,
            "takes_ranks.* has a parameter 'ranks', and so has dist.run",
        ),
        ([takes_ranks], {"rank": 2}, TypeError, "has a parameter 'ranks'"),
        (
            [lambda x: x],
            {"tiemout_s": 2},
            TypeError,
            "cannot be called like this: .*own options ranks, timeout_s",
        ),
    ],
)
def test_arguments_that_cannot_work_are_named(arguments, options, error, message):
    with pytest.raises(error, match=message):
        dist.run(*arguments, **options)


def test_a_parameter_named_like_an_option_can_be_passed_by_position():
    assert dist.run(takes_ranks, 1, 7, ranks=2) == [(1, 7)] * 2


def test_an_exception_without_words_is_still_reported():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")

    def work():
        raise Mute

    with pytest.raises(dist.RankError, match="rank 0 failed first: Mute"):
        dist.run(work, ranks=1, timeout_s=10**9)


def test_numpy_integers_are_whole_numbers():
    assert dist.run(int, ranks=np.int64(2), timeout_s=np.float32(30)) == [0, 0]


def test_what_cannot_be_sent_is_named(tmp_path):
    lock = threading.Lock()
    with open(tmp_path / "file", "w") as file:
        for call, name, kind in (
            (lambda: dist.run(lambda: lock), "the variable 'lock' that <lambda> captured", "lock"),
            (lambda: dist.run(print, file), "argument 1 of fn", "TextIOWrapper"),
            (
                lambda: dist.run(print, [0, {"log": file}]),
                r"argument 1 of fn\[1\]\['log'\]",
                "TextIOWrapper",
            ),
            (lambda: dist.run(lambda **kw: 0, log=file), "argument 'log' of fn", "TextIOWrapper"),
        ):
            with pytest.raises(
                TypeError, match=f"{name}, of type {kind}, cannot be sent to the ranks .*create it"
            ):
                call()


def test_a_global_that_cannot_be_sent_is_named(tmp_path):
    code, _, err = script(
        tmp_path,
        """
        import threading
        from bigmodel_lab import dist
        guard = threading.Lock()
        def inner(): return [guard for _ in range(3)]
        def work(): return (lambda: inner())()
        dist.run(work)
        """,
    )
    assert code == 1
    assert (
        "TypeError: the global 'guard' that inner uses, of type lock, cannot be sent to the ranks"
        in err
    )


@pytest.mark.parametrize(
    ("senders", "who"), [([1], "rank 1 failed first"), ([0, 1], "ranks 0 and 1 failed alike")]
)
def test_a_result_that_cannot_be_sent_back_is_named(senders, who):
    def work():
        return threading.Lock() if torch.distributed.get_rank() in senders else 0

    with pytest.raises(
        dist.RankError, match=f"{who}: TypeError: what fn returned, of type lock, cannot be sent"
    ):
        dist.run(work)


def test_a_module_that_the_rank_cannot_import_is_named(tmp_path, monkeypatch):
    (tmp_path / "vanishing.py").write_text("def f():\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    import vanishing

    (tmp_path / "vanishing.py").unlink()
    with pytest.raises(
        dist.RankError, match="ModuleNotFoundError: No module named 'vanishing'"
    ) as caught:
        dist.run(vanishing.f, ranks=1)
    assert "must be able to import" in caught.value.report


# What is printed


def test_output_is_grouped_by_rank_whatever_the_timing(capfd):
    def work(first):
        rank = torch.distributed.get_rank()
        for i in range(3):
            time.sleep(0.05 * (rank != first))
            print("line", i)
            print("warning", i, file=sys.stderr)
        print("no newline at the end", end="")

    lines = ["line 0", "line 1", "line 2", "no newline at the end"]
    want = "\n".join(lines + [f"[rank {rank}] {line}" for rank in (1, 2) for line in lines]) + "\n"
    for first in (0, 2):
        dist.run(work, first, ranks=3)
        out, err = capfd.readouterr()
        assert out == want
        assert err == "".join(
            f"{who}warning {i}\n" for who in ("", "[rank 1] ", "[rank 2] ") for i in range(3)
        )


def test_rank_0_is_heard_while_it_works(tmp_path, monkeypatch):
    answer = tmp_path / "answer"

    class Listener:
        def write(self, text):
            if "are you there?" in text:
                answer.write_text("yes")

        def flush(self):
            pass

    def work():
        print("are you there?", end="", flush=True)
        return wait_until(answer.exists)

    monkeypatch.setattr(sys, "stdout", Listener())
    assert dist.run(work, ranks=1, timeout_s=40) == [True]


def test_what_was_printed_is_shown_before_the_error(capsys):
    def work():
        print("so far")
        torch.distributed.barrier()
        time.sleep(100 if torch.distributed.get_rank() else 0)
        raise ValueError

    with pytest.raises(dist.RankError) as caught:
        dist.run(work)
    assert str(caught.value) == "rank 0 failed first: ValueError"
    assert capsys.readouterr().out == "so far\n[rank 1] so far\n"
    assert "Rank 1 still ran when everything was stopped." in caught.value.report


def test_output_below_python_disturbs_nothing(capfd):
    def work():
        os.write(1, b"from C\n")
        os.write(2, b"from C\n" * 100_000)  # more than a pipe holds
        subprocess.run(["echo", "from a subprocess"], check=True)
        subprocess.run(["echo", "to this stream"], check=True, stdout=sys.stdout)
        forked = multiprocessing.get_context("fork").Process(
            target=print, args=("from a forked process",)
        )
        forked.start()
        forked.join()
        print("from Python \u4f60\u597d " + "x" * 100_000)
        return forked.exitcode

    assert dist.run(work, ranks=2) == [0, 0]
    out, err = capfd.readouterr()
    line = "from Python \u4f60\u597d " + "x" * 100_000
    assert (out, err) == (f"{line}\n[rank 1] {line}\n", "")


def test_threads_of_a_rank_print_whole_lines(capsys):
    def work():
        threads = [
            threading.Thread(target=lambda: [print("x" * 20) for _ in range(200)]) for _ in range(4)
        ]
        [t.start() for t in threads]
        [t.join() for t in threads]

    dist.run(work, ranks=1)
    assert capsys.readouterr().out.replace("\n", "") == "x" * 20 * 800
