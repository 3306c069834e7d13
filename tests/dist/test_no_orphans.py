"""After a job that broke nothing is left: no process, no file; and a drill that does leave something is found out.

`python -m bigmodel_lab.dist.drills --runs 200` is the long form of this.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from bigmodel_lab.dist import drills


def test_every_drill_once_leaves_nothing(capsys):
    assert drills.main([]) == 0
    said = capsys.readouterr().out
    assert said.endswith(
        "12 runs: 0 hung, 0 went unnoticed, 0 processes or files were left behind\n"
    )
    assert all(failure in said for failure in drills.DRILLS)


@pytest.fixture
def only(monkeypatch):
    """Make `do` the only drill."""

    def put(do):
        monkeypatch.setattr(drills, "DRILLS", {"mine": do})

    return put


def test_a_process_and_a_file_that_stay_are_counted(only, capsys):
    started = []

    def leaves(folder):
        started.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
        Path(folder, f"pid-{started[0].pid}").touch()
        Path(folder).with_name("litter").touch()

    only(leaves)
    try:
        assert drills.main([]) == 1
    finally:
        os.kill(started[0].pid, signal.SIGKILL)
        started[0].wait()
    said = capsys.readouterr().out
    assert f"run 1: mine: left process {started[0].pid}\n" in said
    assert "run 1: mine: left file litter" in said
    assert said.endswith("0 hung, 0 went unnoticed, 2 processes or files were left behind\n")


def test_a_drill_that_hangs_and_one_that_nobody_notices_are_counted(only, capsys):
    only(lambda folder: time.sleep(600))
    assert drills.main(["--limit-s", "1"]) == 1
    assert "run 1: mine: hangs\n1 runs: 1 hung" in capsys.readouterr().out

    def unnoticed(folder):
        raise AssertionError("nobody noticed")

    only(unnoticed)
    assert drills.main([]) == 1
    assert "1 runs: 0 hung, 1 went unnoticed" in capsys.readouterr().out
