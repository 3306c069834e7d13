"""bigmodel_lab/show/progress.py: seen while work runs, gone afterwards, in a notebook and in a terminal."""

import asyncio
import os
import subprocess
import sys

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from bigmodel_lab.book.notebooks import normalise, parse
from bigmodel_lab.show import progress

LOOP = """\
import time
from bigmodel_lab.show import progress
for k in progress(iter(range(12)), "epochs", total=12):
    time.sleep(0.1)
    if k in (0, 11):
        print("epoch", k)
"""
QUICK = "from bigmodel_lab.show import progress\nprint(sum(progress(range(1000), 'steps')))"


def without_tqdm_disable():
    return {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}


def test_it_yields_what_it_is_given():
    assert list(progress(range(5), "steps")) == [0, 1, 2, 3, 4]
    assert list(progress((k for k in "abc"), "letters", total=3)) == ["a", "b", "c"]


@pytest.mark.parametrize("disabled", [False, True])
def test_a_notebook_shows_it_and_keeps_nothing(disabled):
    shown = []

    class Client(NotebookClient):
        def process_message(self, msg, cell, cell_index):
            if msg["msg_type"] in ("display_data", "update_display_data"):
                shown.append(msg["content"]["data"]["text/plain"])
            return super().process_message(msg, cell, cell_index)

    env = without_tqdm_disable() | ({"TQDM_DISABLE": "1"} if disabled else {})
    nb = new_notebook(
        cells=[new_code_cell(LOOP, id="c98-loop"), new_code_cell(QUICK, id="c98-quick")]
    )
    asyncio.run(Client(nb, extra_arguments=["--log-level=40"]).async_execute(env=env))
    if disabled:
        assert shown == []
    else:
        assert len(shown) >= 3
        assert any("epochs:" in text and "/12 [" in text for text in shown)
        assert shown[-1] == ""
        assert not any("steps" in text for text in shown)  # too quick to be worth a line
    loop, quick = parse(normalise(nb, "c98")).cells
    assert [output.get("text") for output in loop.outputs] == ["epoch 0\nepoch 11\n"]
    assert [output.get("text") for output in quick.outputs] == ["499500\n"]


def test_a_terminal_shows_it_on_stderr_and_wipes_it():
    run = subprocess.run(
        [sys.executable, "-c", LOOP],
        env=without_tqdm_disable(),
        capture_output=True,
        check=True,
    )
    assert run.stdout == b"epoch 0\nepoch 11\n"
    assert b"epochs:" in run.stderr
    assert run.stderr.split(b"\r")[-2].strip() == b""  # the last thing written is blanks
