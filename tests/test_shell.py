"""shell: fields become options, an answer becomes text and JSON with units, and a refusal one sentence."""

import argparse
import json
import math
import os
import subprocess
import sys
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

from bigmodel_lab.shell import Answer, Command, add_command, amount, option, run
from bigmodel_lab.units import Q


@dataclass(frozen=True)
class Double(Command):
    """Twice a number of bytes.

    $ bml demo double --bytes 4G
    twice  8 GB
    """

    bytes: float = option(1e12, "bytes to double", above=0)
    times: int | None = option(None, "instead of 2")
    loud: bool = option(False, "warn")
    strict: bool | None = option(None, "refuse more than one")
    how: str = option("sum", "way", choices=("sum", "product"), group="ways")

    def answer(self) -> Answer:
        if self.loud:
            warnings.warn("row 'x' is old", UserWarning, stacklevel=1)
        if self.strict and self.bytes > 1:
            raise ValueError(f"bytes must be at most 1, got {self.bytes:g}.")
        value = Q((self.times or 2) * self.bytes, "byte")
        return Answer("twice", value, {"way": self.how, "share": np.float64(0.5), "none": math.nan})


def bml(*arguments):
    parser = argparse.ArgumentParser(prog="bml")
    group = parser.add_subparsers().add_parser("demo").add_subparsers(required=True)
    add_command(group, "double", Double)
    return run(parser, ["demo", "double", *arguments], "demo")


def test_text(capsys):
    assert bml("--bytes", "4G") == 0
    assert capsys.readouterr().out == "twice  8 GB\nway    sum\nshare  0.5\nnone   nan\n"


def test_json(capsys):
    assert bml("--bytes", "4_000", "--times", "3", "--loud", "--json") == 0
    captured = capsys.readouterr()
    got = json.loads(captured.out)
    assert (got["value"], got["unit"], got["name"]) == (12000, "byte", "twice")
    assert got["command"] == "demo double"
    assert got["details"] == {
        "way": {"value": "sum", "unit": None},
        "share": {"value": 0.5, "unit": "dimensionless"},
        "none": {"value": None, "unit": "dimensionless"},
    }
    assert got["warnings"] == ["row 'x' is old"]
    assert captured.err == "warning: row 'x' is old\n"


def test_a_refusal_is_one_sentence(capsys):
    assert bml("--bytes", "7", "--strict") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "bml demo double: bytes must be at most 1, got 7.\n"
    assert bml("--bytes", "7", "--no-strict") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bytes", "many"], "'many' is no number: write 7e9, 7B"),
        (["--times", "1.5"], "'1.5' must be a whole number"),
        (["--how", "root"], "invalid choice: 'root'"),
        (["--times", "nan"], "'nan' must be a whole number"),
        (["--times", "inf"], "'inf' must be a whole number, at most 10^18"),
        (["--times", "1e300"], "'1e300' must be a whole number, at most 10^18"),
        (["--bytes", "1,5"], "'1,5' is no number"),
    ],
)
def test_bad_options(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        bml(*arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--byte", "7"], "'--byte' is no option: did you mean --bytes?"),
        (["--byte=7"], "did you mean --bytes?"),
        (["--jsno"], "did you mean --json?"),
        (["more"], "'more' is no option: see bml demo double --help."),
        (["--bytes", "-1B"], "--bytes must be a finite number above 0, got -1e+09."),
        (["--bytes", "nan"], "--bytes must be a finite number above 0, got nan."),
    ],
)
def test_options_are_refused_by_name(capsys, arguments, message):
    assert bml(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert captured.err.startswith("bml demo double: ")
    assert captured.err.count("\n") == 1


def test_changed_options():
    assert Double().changed("bytes", "how") == []
    assert Double(bytes=2.0, times=3).changed("bytes", "times", "how") == ["--bytes", "--times"]


def test_help_shows_the_example_and_the_groups(capsys):
    with pytest.raises(SystemExit):
        bml("--help")
    shown = capsys.readouterr().out
    assert "  $ bml demo double --bytes 4G\n  twice  8 GB\n" in shown
    assert "bytes to double (default: 1e+12)" in shown
    assert "ways:\n  --how {sum,product}" in shown


@pytest.mark.parametrize(
    ("text", "value"),
    [("7e9", 7e9), ("7B", 7e9), ("1.5T", 1.5e12), ("300k", 3e5), ("1,000", 1000), ("-2M", -2e6), ("0.4", 0.4), ("40%", 0.4), ("-1,234,567.5", -1234567.5)],
)  # fmt: skip
def test_amount(text, value):
    assert amount(text) == pytest.approx(value, rel=1e-15)


def test_a_reader_that_leaves_is_no_error():
    """`bml ... | head -1`: the rest is not printed and nothing complains."""
    command = f"{sys.executable} -m bigmodel_lab.cli plan params | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.strip() == "0"
    assert done.stderr == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "bigmodel_lab.cli", "plan", "params"], stdout=full, stderr=subprocess.PIPE, text=True
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "bml plan params: cannot print: No space left on device.\n"
