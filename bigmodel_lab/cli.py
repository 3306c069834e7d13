"""bml: the calculators from a shell.

    bml plan params --model gpt2
    bml plan kv --model llama3-70b --positions 8192 --batch 16 --json

`python -m bigmodel_lab.cli` is the same. A group of commands is a module with `COMMANDS`, a dict from name to
`shell.Command`; only the group that is asked for is imported. `bml GROUP COMMAND --help` shows a worked example.
"""

import argparse
import importlib
import importlib.util
import sys

__all__ = ["GROUPS", "main"]

GROUPS = {
    "plan": ("bigmodel_lab.plan.commands", "what a model, a run and a service take"),
    "econ": ("bigmodel_lab.econ.commands", "what a company earns, owes and risks"),
}


def _there(module: str) -> bool:
    """Whether the group's room exists; the question imports nothing of it."""
    return importlib.util.find_spec(module.rpartition(".")[0]) is not None


def main(arguments: list[str] | None = None) -> int:
    """Run `bml` with `arguments` (default: the process's) and return the exit status; 130 after Ctrl-C."""
    try:
        return _main(arguments)
    except KeyboardInterrupt:
        print("bml: stopped.", file=sys.stderr)
        return 130


def _main(arguments: list[str] | None) -> int:
    from bigmodel_lab.shell import (
        add_command,
        run,
    )  # takes a while to import: Ctrl-C may come during it

    given = sys.argv[1:] if arguments is None else list(arguments)
    asked = next((x for x in given if not x.startswith("-")), "")
    groups = {name: it for name, it in GROUPS.items() if _there(it[0])}
    parser = argparse.ArgumentParser(prog="bml", description="Calculators of bigmodel-lab.")
    chosen = parser.add_subparsers(required=True, metavar="GROUP")
    for name, (module, about) in groups.items():
        group = chosen.add_parser(name, help=about, description=about)
        if asked == name:
            commands = group.add_subparsers(required=True, metavar="COMMAND")
            for command, how in importlib.import_module(module).COMMANDS.items():
                add_command(commands, command, how)
    return run(parser, given, asked)


if __name__ == "__main__":
    sys.exit(main())
