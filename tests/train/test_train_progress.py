"""What the loop tells while it runs, and the line of text that shows it."""

import math
import os
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
from bigmodel_lab.train.progress import Status, TextProgress
show = TextProgress()
for step in range(1, 9):
    show(Status(step, 8, 2.0, None, 1e-3, 1.0, 5000.0, "tokens", 8.0 - step))
    time.sleep(0.15)
show.close()
print("done")
"""


@pytest.mark.parametrize("disabled", [False, True])
def test_a_line_is_shown_and_taken_away(disabled):
    environ = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    if disabled:
        environ["TQDM_DISABLE"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", SHOW], env=environ, capture_output=True, timeout=60, check=True
    )
    assert done.stdout == b"done\n"
    if disabled:
        assert done.stderr == b""
    else:
        frames = done.stderr.decode().split("\r")
        assert any("8/8 steps" in f and "left, loss 2.000, 5.00k tokens/s" in f for f in frames)
        assert not frames[-1].strip()
