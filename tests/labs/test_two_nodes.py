"""Two nodes with addresses of their own: times follow latency and rate, training equals one process, a cut link is survived."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bigmodel_lab.train import RunRecord

LABS = Path(__file__).resolve().parents[2] / "labs"
TINY = "--steps 3 --layers 2 --width 16 --heads 2 --context 8 --batch 4 --vocab 280 --dtype float64".split()
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "1"]
TIMES = """
import json, os, time
import torch, torch.distributed as dist
from bigmodel_lab.dist.collectives import all_reduce
torch.set_num_threads(1)
rank = os.environ["NODE_RANK"]
dist.init_process_group("gloo", init_method="tcp://10.78.0.1:29501", rank=int(rank), world_size=2)
for n in (2, 250_000, 1_000_000):
    times = []
    for _ in range(5):
        x = torch.ones(n)
        dist.barrier()
        start = time.perf_counter()
        all_reduce(x)
        times.append(time.perf_counter() - start)
        assert (x == 2).all()
    if rank == "0":
        print("took", json.dumps([4 * n, sorted(times)[2]]), flush=True)
dist.barrier()
os._exit(0)
"""

sys.path.insert(0, str(LABS))
import two_nodes  # noqa: E402

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or bool(reason := two_nodes.impossible()),
    reason=f"two nodes are not possible here: {reason}" if sys.platform == "linux" else "not Linux",
)


@contextlib.contextmanager
def nodes(*command, options=(), env=None):
    """The command running on both nodes; whatever happens, it has ended afterwards."""
    with subprocess.Popen(
        [sys.executable, LABS / "two_nodes.py", *options, "--", *map(str, command)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | (env or {}),
    ) as job:
        try:
            yield job
        finally:
            job.kill()  # and all that it started: see test_nothing_is_left


def finished(job, timeout_s=150) -> str:
    said, _ = job.communicate(timeout=timeout_s)
    assert job.returncode == 0, said
    return said


def test_a_ring_all_reduce_takes_the_time_that_latency_and_rate_say():
    latency_ms, mbit = 20, 200
    link = ["--latency-ms", str(latency_ms), "--mbit", str(mbit)]
    with nodes(sys.executable, "-c", TIMES, options=link) as job:
        said = finished(job)
    times = dict(json.loads(l[5:]) for l in said.splitlines() if l.startswith("took "))
    print(times)
    # Between two ranks the ring takes two exchanges, each of half the payload. Over and above the latency of the payload
    # itself gloo asks "ready?" before each, which costs another: twice the textbook's alpha.
    for size, seconds in times.items():
        alpha_s, bytes_per_s = latency_ms / 1e3, mbit * 1e6 / 8
        textbook = 2 * alpha_s + size / bytes_per_s
        assert (
            textbook * 0.97
            < seconds
            < (2 * textbook if size < 1000 else textbook + 3 * alpha_s) + 0.05
        )
    assert times[8] < times[1_000_000] < times[4_000_000]


def test_training_on_two_nodes_is_training_on_one(tmp_path):
    path = tmp_path / "two.json"
    with nodes(*TORCHRUN, LABS / "train_gpt.py", *TINY, "--dp", "2", "--record", path) as job:
        finished(job)
    alone = subprocess.run(
        [sys.executable, LABS / "train_gpt.py", *TINY, "--record", tmp_path / "one.json"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert alone.returncode == 0, alone.stderr
    one, two = RunRecord.load(tmp_path / "one.json"), RunRecord.load(path)
    assert two.loss == pytest.approx(one.loss, abs=1e-9)
    assert two.layout.ranks == 2


@pytest.mark.parametrize("comes_back", [True, False])
def test_a_run_outlives_a_link_that_is_cut(comes_back, tmp_path):
    """Each node notices within the time that a rank may wait. They meet again if they can; if not, one goes on alone."""
    steps = ["--steps", "150", "--every", "20", "--wait-s", "4"]
    alone, path, folder = tmp_path / "alone.json", tmp_path / "run.json", tmp_path / "ck"
    program = [LABS / "train_gpt.py", *TINY, *steps]
    subprocess.run([sys.executable, *program, "--record", alone], check=True, capture_output=True)
    program += ["--dp", "2" if comes_back else "0", "--record", path, "--checkpoint", folder]
    with nodes(
        *[*TORCHRUN, "--max-restarts", "5", *program],
        options=["--elastic"],
        env={"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
    ) as job:
        end = time.monotonic() + 60
        while not (folder / "step-00000040").exists() and time.monotonic() < end:
            time.sleep(0.02)
        print("cut", file=job.stdin, flush=True)
        if comes_back:
            time.sleep(8)
            print("mend", file=job.stdin, flush=True)
            said = finished(job)
        else:  # the other node goes on looking for this one for minutes
            while not path.exists() and time.monotonic() < end + 60:
                time.sleep(0.1)
            job.kill()
            said, _ = job.communicate(timeout=10)
    assert "Timed out waiting 4000ms" in said
    assert "going on after step" in said
    record = RunRecord.load(path)
    assert record.loss == pytest.approx(RunRecord.load(alone).loss, abs=1e-9)
    assert record.layout.ranks == (2 if comes_back else 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mbit", "0", "--", "true"], "mbit must be between 0.1 and 10000 Mbit/s, got 0.0"),
        (["true"], "unrecognized arguments: true"),
        ([], "give the command to run on both nodes after --"),
        (["--", "no-such-command"], "the command no-such-command is not found"),
    ],
)
def test_what_is_not_possible_is_said_before_anything_starts(options, message):
    done = subprocess.run(
        [sys.executable, LABS / "two_nodes.py", *options], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "usage: two_nodes.py [options] -- command" in done.stderr


def test_a_line_that_is_not_understood_is_named_and_changes_nothing():
    with nodes("bash", "-c", "sleep 2; echo on node $NODE_RANK") as job:
        said, _ = job.communicate("cut off\n5 0\n", timeout=30)
    assert "'cut off' is not obeyed" in said
    assert "'5 0' is not obeyed (mbit must be between 0.1 and 10000 Mbit/s, got 0.0.)" in said
    assert "[node 1] on node 1" in said


def test_nothing_is_left_when_the_program_is_killed():
    with nodes("sleep", "1234.5") as job:
        time.sleep(2)
        os.kill(job.pid, signal.SIGKILL)
    time.sleep(0.5)
    left = subprocess.run(["pgrep", "-f", "sleep 1234.5"], capture_output=True, text=True).stdout
    assert left == ""
