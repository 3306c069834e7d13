"""Ranks that torchrun started."""

import subprocess
import sys
import time

import psutil

SCRIPT = """
import time
from bigmodel_lab import dist

def work():
    print("at work", flush=True)
    time.sleep(100)

dist.run(work)
"""


def test_ranks_end_when_torchrun_is_killed(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    command = "-m torch.distributed.run --standalone --nproc-per-node=2 script.py".split()
    pipe = dict(stdout=subprocess.PIPE, text=True)
    with psutil.Popen([sys.executable, *command], cwd=tmp_path, **pipe) as job:
        try:
            assert job.stdout.readline() == "at work\n"
            ranks = job.children()
        finally:
            job.kill()
        end = time.monotonic() + 20
        while any(map(alive, ranks)) and time.monotonic() < end:
            time.sleep(0.1)
        left = list(filter(alive, ranks))
        for rank in left:
            rank.kill()
    assert len(ranks) == 2
    assert left == []


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
