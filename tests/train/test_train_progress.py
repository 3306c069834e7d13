"""What the loop tells while it runs, and the line of text that shows it."""

import math
import os
import re
import subprocess
import sys

import pytest

from bigmodel_lab.train.progress import Pace, Status, describe

STATUS = Status(
    step=3,
    steps=100,
    loss=2.30951,
    validation_loss=None,
    lr=1e-3,
    gradient_norm=1.0,
    rate=12_345.6,
    unit="tokens",
    left_s=65.4,
)


def test_the_line_says_what_is_left_and_how_fast():
    assert describe(STATUS) == "01:05 left, loss 2.310, 12.3k tokens/s"
    with_validation = Status(
        **vars(STATUS) | {"validation_loss": 2.4, "unit": "samples", "rate": 7}
    )
    assert describe(with_validation) == "01:05 left, loss 2.310, validation 2.400, 7.00 samples/s"


def test_the_pace_is_that_of_the_last_50_steps(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    pace = Pace()
    now[0] = 100.0
    assert pace.add(10) == (0.1, 100.0)
    for _ in range(60):
        now[0] += 0.5
        rate, step_s = pace.add(10)
    assert (rate, step_s) == (20.0, 0.5)
    still = Pace()
    assert math.isfinite(still.add(1)[0])


SHOW = """
import time
from bigmodel_lab.train import progress
progress.LOG_EVERY_S = 0.4
show = progress.TextProgress()
for step in range(1, 9):
    show(progress.Status(step, 8, 2.0, None, 1e-3, 1.0, 5000.0, "tokens", 8.0 - step))
    time.sleep(0.15)
show.close()
print("done")
"""


def shown(stderr, **changes) -> subprocess.CompletedProcess:
    environ = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"} | changes
    command = [sys.executable, "-c", SHOW]
    return subprocess.run(
        command, env=environ, stdout=subprocess.PIPE, stderr=stderr, timeout=60, check=True
    )


@pytest.mark.skipif(os.name != "posix", reason="no pseudo-terminals")
def test_on_a_terminal_a_line_is_shown_and_taken_away():
    import termios

    reader, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    assert shown(terminal).stdout == b"done\n"
    frames = os.read(reader, 100_000).decode().split("\r")
    os.close(terminal)
    os.close(reader)
    assert any("8/8 steps" in f and "left, loss 2.000, 5.00k tokens/s" in f for f in frames)
    assert not frames[-1].strip()


def test_in_a_log_there_is_a_line_now_and_then():
    lines = shown(subprocess.PIPE).stderr.decode().splitlines(keepends=True)
    assert 1 <= len(lines) <= 3
    for line in lines:
        assert re.fullmatch(
            r"training: [1-8]/8 steps, 00:0\d left, loss 2\.000, 5\.00k tokens/s\r?\n", line
        )


def test_nothing_is_shown_where_that_is_wished():
    assert shown(subprocess.PIPE, TQDM_DISABLE="1").stderr == b""
