"""bml: groups, and what a shell sees."""

import json
import subprocess
import sys

import pytest

from bigmodel_lab import cli


def bml(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "bigmodel_lab.cli", *arguments], capture_output=True, text=True
    )


def test_from_a_shell():
    done = bml("plan", "kv", "--model", "llama2-7b", "--json")
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    assert (got["value"], got["unit"]) == (2**31, "byte")


def test_without_arguments_the_groups_are_named():
    done = bml()
    assert done.returncode == 2
    assert "GROUP" in done.stderr
    shown = bml("--help").stdout
    assert "plan" in shown


def test_a_group_that_is_not_there_is_not_offered(monkeypatch, capsys):
    monkeypatch.setitem(cli.GROUPS, "moon", ("bigmodel_lab.moon.commands", "the moon"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["moon"])
    assert stopped.value.code == 2
    assert "invalid choice: 'moon'" in capsys.readouterr().err


@pytest.mark.parametrize("order", ["--json plan params", "plan --json params"])
def test_options_stand_behind_the_command(order, capsys):
    assert cli.main(order.split()) == 2
    said = "bml plan params: --json must stand behind the command: bml plan params --json\n"
    assert capsys.readouterr().err == said


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("bigmodel_lab.shell.run", stopped)
    assert cli.main(["plan", "kv"]) == 130
    assert capsys.readouterr().err == "bml: stopped.\n"


def test_asking_plan_imports_no_econ():
    code = (
        "import sys; from bigmodel_lab.cli import main; main(['plan', 'kv']); "
        "print([m for m in sys.modules if m.startswith(('bigmodel_lab.econ', 'torch', 'scipy.optimize', 'numba'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
