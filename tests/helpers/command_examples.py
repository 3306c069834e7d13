"""The worked examples in the help of `bml` commands: each is run, and what it prints is compared."""

import inspect
import shlex

from bigmodel_lab.cli import main


def examples(commands):
    """Return (name of the command, arguments, what is printed) of every example in the commands' docstrings."""
    found = []
    for name, command in commands.items():
        for block in inspect.getdoc(command).split("$ bml ")[1:]:
            first, _, printed = block.partition("\n")
            found.append((name, shlex.split(first), printed.strip("\n")))
    return found


def check_example(group, name, arguments, printed, capsys):
    assert arguments[:2] == [group, name]
    assert main(arguments) == 0
    got = [x.rstrip() for x in capsys.readouterr().out.strip("\n").split("\n")]
    assert got == [x.rstrip() for x in printed.split("\n")]
    assert len(printed) > 40
