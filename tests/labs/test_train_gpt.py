"""labs/train_gpt.py gives the same losses in every layout, started alone or by torchrun; its errors are for people."""

import subprocess
import sys
from pathlib import Path

import pytest

from bigmodel_lab.train import RunRecord

PROGRAM = Path(__file__).resolve().parents[2] / "labs" / "train_gpt.py"
TINY = "--steps 3 --layers 2 --width 16 --heads 2 --context 8 --batch 4 --vocab 280 --dtype float64".split()


def started(*command):
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)


def losses(tmp_path, *options, launcher=(sys.executable,)):
    path = tmp_path / f"run{len(list(tmp_path.iterdir()))}.json"
    done = started(*launcher, PROGRAM, *TINY, *options, "--record", path)
    assert done.returncode == 0, done.stderr
    assert f"written: {path}" in done.stdout
    return RunRecord.load(path)


def test_every_layout_has_the_same_losses(tmp_path):
    alone = losses(tmp_path)
    assert alone.loss[0] == pytest.approx(5.6, abs=0.2)  # log 280
    for options in (
        ["--dp", "2", "--zero", "3"],
        ["--dp", "2", "--tp", "2", "--sequence", "1"],
        ["--pp", "2", "--ops", "numba"],
    ):
        shared = losses(tmp_path, *options)
        assert shared.loss == pytest.approx(alone.loss, abs=1e-9)
        assert shared.layout.ranks == len(next(iter(shared.sent_bytes.values())))


def test_under_torchrun(tmp_path):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    shared = losses(tmp_path, "--tp", "2", launcher=launcher)
    assert shared.loss == pytest.approx(losses(tmp_path, "--tp", "2").loss, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--batch", "1", "--dp", "2"],
            "batch=1 leaves a replica fewer rows than its micro-batches: use --batch 2",
        ),
        (["--form", "bert"], "form must be"),
        (["--dp", "0"], "dp must be"),
        (["--record", "nowhere/run.json"], "its folder does not exist"),
    ],
)
def test_errors_before_anything_starts(options, message):
    done = started(sys.executable, PROGRAM, *TINY, *options)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
