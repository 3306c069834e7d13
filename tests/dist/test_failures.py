"""Jobs that really break: each failure is noticed, by what should notice it, and the rank that caused it is named."""

import re
import shutil
import subprocess
import sys
import textwrap

import pytest

from bigmodel_lab import dist
from bigmodel_lab.dist import drill_jobs, drills
from bigmodel_lab.dist.agreement import same_everywhere

AFTER_S = 60  # far more than any of them needs: only that it ends is promised

EXPECTED = {  # failure: the rank that is named, and what is said
    "a rank is killed in a step": (1, r"rank 1 failed first: killed by SIGKILL"),
    "a rank raises": (1, r"rank 1 failed first: FloatingPointError: the loss is NaN"),
    "a rank hangs": (1, r"rank 0 failed first: .*Timed out waiting 3000ms.*; rank 1 still ran"),
    "a rank is stopped": (1, r".*Timed out waiting 3000ms.*; rank 1 still ran"),
    "other collectives, checked": (
        None,
        r"rank 0 called allreduce of shape \[3\], float, but rank 1 called broadcast of shape .*",
    ),
    "other collectives, unchecked": (None, r"ranks 0 and 1 still ran after 2 s"),
    "a rank is slow": (1, r"all others wait for rank 1 more than half of the time"),
    "other weights on a rank": (2, r"parameters: rank 2 differs from ranks 0 and 1"),
    "another batch on a rank": (2, r"batch: rank 2 differs from ranks 0 and 1"),
    "a bit flips in a gradient": (2, r"parameters: rank 2 differs from ranks 0 and 1"),
    "a checkpoint is torn": (1, r"rank-00001.safetensors has 100 bytes of \d+"),
    "a disk is full": (1, r"This happened on rank 1. The checkpoint of step 2 was not written .*"),
}


def test_every_drill_is_expected_here():
    assert EXPECTED.keys() == drills.DRILLS.keys()


@pytest.mark.parametrize("failure", EXPECTED)
def test_the_failure_is_noticed_and_its_rank_named(failure):
    rank, says = EXPECTED[failure]
    found = drills.drill(failure)
    assert (found.failure, found.rank) == (failure, rank)
    assert re.fullmatch(says, found.says), found.says
    assert 0 < found.after_s < AFTER_S


def test_nothing_is_noticed_where_nothing_happens(tmp_path):
    assert dist.run(drill_jobs.train, str(tmp_path), "nothing", ranks=2) == [None, None]
    assert dist.run(drill_jobs.train_and_compare, str(tmp_path), "nothing", ranks=3) == [None] * 3
    with pytest.raises(AssertionError, match="nobody noticed: all is well"):
        drills._loud("all is well", "nothing", "", str(tmp_path))
    with pytest.raises(AssertionError, match="nobody noticed, or not all: all is well"):
        drills._silent("all is well", "nothing", str(tmp_path))


def test_comparing_parameters_does_not_see_that_the_batches_differ(tmp_path):
    """The gradients are averaged: replicas that learn from the wrong rows are equal replicas."""

    def work(folder):
        import torch.distributed as td

        job = drill_jobs.Job(folder, batch_seed=td.get_rank())
        for step in range(3):
            job.backward(step)
            job.average()
            job.update()
        return same_everywhere({"parameters": job.model.parameters(), "batch": job.batch(3)}).names

    assert dist.run(work, str(tmp_path), ranks=3) == [("batch",)] * 3


def test_an_unknown_drill_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match="a rank hangs"):
        drills.drill("a rank sleeps")


FULL = """
    import sys
    from pathlib import Path

    from bigmodel_lab import dist
    from bigmodel_lab.dist import drill_jobs


    def fill(folder):
        checkpoints = drill_jobs.open_checkpoints(folder)
        saved = []
        try:
            for step in range(1, 50):
                checkpoints.save(step, {})
                saved.append(step)
                checkpoints.keep += 1  # keep them all
        except OSError as error:
            return saved, error.errno, error.args[1].split(":")[0]


    if __name__ == "__main__":
        (saved, number, said), other = dist.run(fill, sys.argv[1], ranks=2)
        here = sorted(p.name for p in Path(sys.argv[1], "checkpoints").iterdir())
        sound, _ = dist.run(lambda folder: drill_jobs.open_checkpoints(folder).load()[0], sys.argv[1], ranks=2)
        print(number, said, other == (saved, number, said), sound == saved[-1], len(here) - len(saved), len(saved))
"""


def test_a_disk_that_is_really_full(tmp_path):
    """A file system of 200 kB, mounted for this test alone: checkpoints fit until one does not, and that one leaves nothing."""
    spaces = "unshare --user --map-root-user --mount".split()
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=200k none {disk}"
    if not shutil.which("unshare") or subprocess.run([*spaces, *mount.split()]).returncode:
        pytest.skip("this system lets no user mount a file system of his own")
    program = tmp_path / "full.py"
    program.write_text(textwrap.dedent(FULL))
    command = f"{mount} && exec {sys.executable} {program} {disk}"
    done = subprocess.run(
        [*spaces, "sh", "-c", command], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    # errno ENOSPC; said alike on both ranks; the last one is sound; besides them only `latest` is there; how many fitted
    said = (
        r"28 The checkpoint of step \d was not written \(No space left on device\) True True 1 \d\n"
    )
    assert re.fullmatch(said, done.stdout), done.stdout
