"""labs/train_gpt.py gives the same losses in every layout, started alone or by torchrun; its errors are for people."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from bigmodel_lab.train import RunRecord

PROGRAM = Path(__file__).resolve().parents[2] / "labs" / "train_gpt.py"
sys.path.insert(0, str(PROGRAM.parent))
import train_gpt  # noqa: E402

TINY = "--steps 3 --layers 2 --width 16 --heads 2 --context 8 --batch 4 --vocab 280 --dtype float64".split()
TORCHRUN = [sys.executable, *"-m torch.distributed.run --standalone --nproc-per-node 2".split()]


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
        ["--dp", "2", "--tp", "2", "--sequence"],
        ["--pp", "2", "--ops", "numba"],
    ):
        shared = losses(tmp_path, *options)
        assert shared.loss == pytest.approx(alone.loss, abs=1e-9)
        assert shared.layout.ranks == len(next(iter(shared.sent_bytes.values())))


def test_a_picture_of_the_last_step(tmp_path):
    losses(tmp_path, "--pp", "2", "--dp", "2", "--batch", "8", "--trace", tmp_path / "trace.svg")
    picture = (tmp_path / "trace.svg").read_text()
    assert all(f"rank {rank}" in picture for rank in range(4))


def test_under_torchrun(tmp_path):
    shared = losses(tmp_path, "--tp", "2", launcher=TORCHRUN)
    assert shared.loss == pytest.approx(losses(tmp_path, "--tp", "2").loss, abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            "--batch 1 --dp 2",
            "--batch 1 leaves a replica fewer rows than its micro-batches: use --batch 2",
        ),
        ("--form bert", "argument --form: invalid choice: 'bert'"),
        ("--dp -1", "--dp must be finite and at least 0, got -1"),
        ("--dp 65 --batch 65", "65 ranks are more than the 64 that one machine is asked to start"),
        ("--heads 3", "n_heads=3 does not divide width=16"),
        ("--tp 4", "tp=4 ranks cannot share n_heads=2 in equal parts: use tp=1, 2"),
        ("--clip 0", "--clip must be a finite number above 0, got 0"),
        ("--timeout-s nan", "--timeout-s must be a finite number above 0, got nan"),
        ("--record nowhere/run.json", "its folder does not exist"),
        ("--record /", "it is a folder"),
        ("--checkpoint /dev/null/ck", "--checkpoint /dev/null/ck: it cannot be written"),
        ("--trace trace.jpg", "must end in .png or .svg"),
    ],
)
def test_errors_before_anything_starts(options, message, capsys):
    assert message in refused(capsys, *options.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_cuda_is_refused(capsys):
    message = "--device cuda needs a GPU for each of the 1 ranks on this machine"
    assert message in refused(capsys, "--device", "cuda")


def refused(capsys, *options) -> str:
    with pytest.raises(SystemExit) as caught:
        train_gpt.main([*TINY, *options])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_under_torchrun_one_rank_says_what_is_wrong():
    done = started(*TORCHRUN, PROGRAM, *TINY, "--dp", "3")
    assert done.returncode == 1
    assert done.stderr.count("makes 3 ranks, and torchrun started 2: make them agree") == 1
    assert 'train_gpt.py", line' not in done.stderr


def test_a_run_that_diverges_stops_and_leaves_its_checkpoints_as_they_were(tmp_path):
    folder = tmp_path / "ck"
    options = "--lr 1e300 --warmup 0 --every 1 --checkpoint".split()
    done = started(
        sys.executable, PROGRAM, *TINY, *options, folder, "--record", tmp_path / "r.json"
    )
    assert done.returncode == 1
    assert "the norm of its gradient nan. Usual causes: --lr too high" in done.stderr
    assert "Traceback" not in done.stderr
    assert [p.name for p in folder.glob("step*")] == ["step-00000001"]
    assert not (tmp_path / "r.json").exists()


def test_goes_on_from_its_checkpoint_in_another_layout(tmp_path):
    folder, straight = tmp_path / "ck", losses(tmp_path, "--steps", "5")
    first = losses(
        tmp_path, "--steps", "5", "--dp", "2", "--tp", "2", "--checkpoint", folder, "--every", "2"
    )
    assert sorted(p.name for p in folder.glob("step*")) == ["step-00000004", "step-00000005"]
    shutil.rmtree(folder / "step-00000005")  # as if it had ended before
    again = losses(tmp_path, "--steps", "5", "--pp", "2", "--checkpoint", folder)
    for record in (first, again):
        assert record.loss == pytest.approx(straight.loss, abs=1e-9)
    assert again.loss[:4] == first.loss[:4]  # the record is of the whole run
    assert len(again.compute_s) == 5
    # what cannot be told of the first layout's ranks is not told: one step is counted, and the record says so
    assert again.scores == {"steps in another layout": 4}
    assert again.sent_bytes["activations"] == (4 * 8 * 16 * 8, 0)


def test_the_checkpoints_of_another_run_are_refused(tmp_path):
    losses(tmp_path, "--checkpoint", tmp_path / "ck")
    done = started(sys.executable, PROGRAM, *TINY, "--seed", 1, "--checkpoint", tmp_path / "ck")
    assert done.returncode == 1
    assert (
        "of a run with other settings (seed was 0 and is 1): give those, or another folder"
        in done.stderr
    )


def children(pid):
    """The processes below `pid`, with what they were started as."""
    return [p for p in psutil.Process(pid).children(recursive=True) if p.is_running()]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_torchrun_restarts_a_run_whose_rank_dies_or_hangs(how, tmp_path):
    """The losses are those of a run to which nothing happened, every digit; no process is left."""
    steps = ["--steps", "200", "--dp", "2", "--every", "20", "--wait-s", "5"]
    whole = losses(tmp_path, *steps, "--checkpoint", tmp_path / "whole")
    folder, path = tmp_path / "ck", tmp_path / "run.json"
    command = [
        *TORCHRUN,
        "--max-restarts",
        "2",
        PROGRAM,
        *TINY,
        *steps,
        "--checkpoint",
        folder,
        "--record",
        path,
    ]
    job = subprocess.Popen(
        list(map(str, command)),
        env=os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        end = time.monotonic() + 60
        while not (folder / "step-00000040").exists() and time.monotonic() < end:
            time.sleep(0.02)
        ranks = [p for p in children(job.pid) if p.environ().get("RANK") == "1"]
        os.kill(ranks[0].pid, how)
        said, _ = job.communicate(timeout=120)
    finally:
        left = children(job.pid) if job.poll() is None else []
        for p in [*left, *([job] if job.poll() is None else [])]:
            p.kill()
    assert job.returncode == 0, said
    assert said.count("going on after step") == 1
    assert RunRecord.load(path).loss == whole.loss
    assert not any(psutil.pid_exists(p.pid) for p in ranks)
