"""What does it cost to start ranks: `dist.run` with its fork server warm, beside torchrun and multiprocessing's spawn?

    python benchmarks/launch.py            # about three minutes; prints the table, writes benchmarks/results/launch.md
    python benchmarks/launch.py --quick    # half a minute; prints only

Each way starts the ranks, sums one number over them, checks the sum and is timed from the call until every process has
ended and the result is there. The ways take turns.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _harness as harness

from bigmodel_lab import dist
from bigmodel_lab.dist import launch

SCRIPT = """
import torch
torch.distributed.init_process_group("gloo")
total = torch.tensor([torch.distributed.get_rank()])
torch.distributed.all_reduce(total)
if torch.distributed.get_rank() == 0:
    print(int(total))
torch.distributed.destroy_process_group()
"""


def total_over_ranks() -> int:
    import torch

    total = torch.tensor([torch.distributed.get_rank()])
    torch.distributed.all_reduce(total)
    return int(total)


def by_dist_run(ranks: int) -> int:
    return dist.run(total_over_ranks, ranks=ranks)[0]


def by_spawn(ranks: int) -> int:
    """`dist.run` as it works where there is no fork server: every rank imports torch."""
    launch.METHOD, before = "spawn", launch.METHOD
    try:
        return by_dist_run(ranks)
    finally:
        launch.METHOD = before


def by_torchrun(ranks: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "total.py"
        path.write_text(SCRIPT)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command = [*torchrun, f"--nproc-per-node={ranks}", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def report(quick: bool):
    yield from harness.opening("Starting ranks", quick)
    begin = time.perf_counter()
    by_dist_run(1)
    yield f"The first launch, with the start of the fork server: {time.perf_counter() - begin:.1f} s."
    yield "Later ones, in seconds (median; least to most):"
    yield ""
    yield "| ranks | dist.run, warm | dist.run by spawn | torchrun |"
    yield "|--:|--:|--:|--:|"
    for ranks in (2,) if quick else (1, 2, 4):
        times = {by_dist_run: [], by_spawn: [], by_torchrun: []}
        for turn in range(2 if quick else 5):
            for way, seconds in times.items():
                for _ in range(5 if way is by_dist_run else 1):
                    begin = time.perf_counter()
                    total = way(ranks)
                    seconds.append(time.perf_counter() - begin)
                    assert total == ranks * (ranks - 1) // 2, (way.__name__, turn, total)
        cells = [
            f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in times.values()
        ]
        yield f"| {ranks} | {' | '.join(cells)} |"


if __name__ == "__main__":
    harness.main(report, __doc__)
