"""labs/gpt_ladder.py makes a ladder of records that the planner can read; its errors are for people."""

import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel_lab import plan
from bigmodel_lab.train import RunRecord

PROGRAM = Path(__file__).resolve().parents[2] / "labs" / "gpt_ladder.py"


def started(*options):
    command = [sys.executable, PROGRAM, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)


def test_a_ladder(tmp_path):
    done = started(
        "--widths",
        "8,16",
        "--steps",
        "2,4",
        "--layers",
        1,
        "--context",
        8,
        "--vocab",
        270,
        "--folder",
        tmp_path / "runs",
    )
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "runs").iterdir())
    assert [p.stem for p in files] == [
        "width16-steps2",
        "width16-steps4",
        "width8-steps2",
        "width8-steps4",
    ]
    for path in files:
        record = RunRecord.load(path)
        assert path.stem.endswith(f"steps{record.steps}")
        assert record.tokens == record.steps * 4 * 8
        assert 0 < plan.kernel_share(record) < 1
    N, D, L = plan.points(map(RunRecord.load, files))
    assert len(set(N)) == len(set(D)) == 2
    assert all(5 < x < 6.5 for x in L)  # log 270 = 5.6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--widths", "12"], "head=8 does not divide a width of 12"),
        (["--steps", "1,x"], "steps must be whole numbers with commas, such as 16,32, got '1,x'"),
        (["--steps", "0"], "each of steps must be"),
        (["--batch", "0"], "batch"),
    ],
)
def test_refused(options, said):
    done = started(*options)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
