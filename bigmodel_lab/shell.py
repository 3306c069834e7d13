"""Commands made of frozen dataclasses: the fields become options, the docstring the help, `answer()` the result.

    @dataclass(frozen=True)
    class Double(Command):
        '''Twice a number of bytes.

        $ bml demo double --bytes 4G
        twice  8 GB
        '''
        bytes: float = option(1.0, "bytes to double")

        def answer(self) -> Answer:
            return Answer("twice", Q(2 * self.bytes, "byte"))

`run` prints an `Answer` as text, each number with its unit, or with --json as one object whose "value" and "unit" are the
main result. What an option or a library function refuses is printed as its one sentence, exit status 2.
"""

import argparse
import inspect
import json
import math
import os
import re
import sys
import types
import typing
import warnings
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from textwrap import indent

from bigmodel_lab.units import Quantity, number, spell

__all__ = ["Answer", "Command", "add_command", "add_options", "amount", "option", "run"]

_SUFFIXES = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9, "T": 1e12, "%": 1e-2}
_LARGEST = 10**18  # of a whole number: products of three still fit a float


def option(default, help: str, choices=None, group: str = "options", **limits):
    """Return a dataclass field that becomes the option --name; False becomes a switch, None means "not given".

    Options of one `group` stand together in the help. limits : `low`, `high` and `above` as in `units.number`, which a
    `Command` checks so that the message names the option.
    """
    metadata = {"help": help, "choices": choices, "group": group, "limits": limits}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Answer:
    """A result: the main one, and what belongs to it, each a quantity, a number or a text."""

    name: str
    value: Quantity | float
    details: dict[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # assumptions that a reader must know
    explanation: str = ""  # lines in words, below the numbers

    def text(self) -> str:
        """Return one line a result, then the explanation and the notes."""
        rows = {self.name: self.value} | self.details
        width = max(map(len, rows))
        lines = [f"{name.ljust(width)}  {spell(value)}" for name, value in rows.items()]
        lines += self.explanation.splitlines()
        return "\n".join([*lines, *(f"note: {n}" for n in self.notes)])

    def json(self, command: str, warned: list[str]) -> str:
        """Return one JSON object with "value" and "unit" of the main result, and all others under "details"."""
        content = {"command": command, "name": self.name} | _plain(self.value)
        content["details"] = {name: _plain(x) for name, x in self.details.items()}
        content |= {"notes": list(self.notes), "warnings": warned}
        if self.explanation:
            content["explanation"] = self.explanation.splitlines()
        return json.dumps(content, indent=1, allow_nan=False)


def _plain(x) -> dict[str, object]:
    value, unit = (x.magnitude, str(x.units)) if isinstance(x, Quantity) else (x, "dimensionless")
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, str):
        return {"value": value, "unit": None}
    return {"value": value if math.isfinite(value) else None, "unit": unit}


@dataclass(frozen=True)
class Command:
    """Base of all commands. Raises ValueError for an option outside its limits."""

    def __post_init__(self):
        for f in fields(self):
            if (limits := f.metadata.get("limits")) and (x := getattr(self, f.name)) is not None:
                number(_flag(f.name), x, **limits)

    def changed(self, *names: str) -> list[str]:
        """Return those of the options `names` that differ from their default, as they are typed."""
        default = {f.name: f.default for f in fields(self)}
        return [_flag(n) for n in names if getattr(self, n) != default[n]]

    def answer(self) -> Answer:
        """Compute the result."""
        raise NotImplementedError


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def amount(text: str) -> float:
    """Return the number that `text` says: 7e9, 7_000_000_000, 1,000, 7B, 7.5B, 300k, 1T, 40%.

    Raises argparse.ArgumentTypeError for another text, "1,5" among them: a comma parts thousands.
    """
    body = text.strip().replace("_", "")
    scale = _SUFFIXES.get(body[-1:], 1.0)
    body = body[:-1] if scale != 1.0 else body
    if re.fullmatch(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?", body):
        body = body.replace(",", "")
    try:
        value = float(body)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no number: write 7e9, 7B (10^9), 300k, 1.5M, 1T or 40%"
        ) from None
    return value * scale if scale >= 1 else value / 100


def _whole(text: str) -> int:
    value = amount(text)
    if not (abs(value) <= _LARGEST and value == int(value)):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number, at most 10^18")
    return int(value)


def add_command(subparsers, name: str, command: type[Command]) -> None:
    """Add a parser for `command` to an argparse sub-parser group; its docstring must show an example."""
    first, _, example = inspect.getdoc(command).partition("\n")
    parser = subparsers.add_parser(
        name,
        help=first,
        description=f"{first}\n\n{indent(example.strip(), '  ')}",
        usage="%(prog)s [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_options(parser, command)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(_command=command, _name=name)


def add_options(parser: argparse.ArgumentParser, kind: type) -> None:
    """Add an option to `parser` for each field of the dataclass `kind`; what `option` says of a field is in its help."""
    groups, types_of = {"options": parser}, typing.get_type_hints(kind)
    for f in fields(kind):
        label = f.metadata.get("group", "options")
        if label not in groups:
            groups[label] = parser.add_argument_group(label)
        _add_option(groups[label], f, types_of[f.name])


def _add_option(parser, f, kind) -> None:
    if isinstance(kind, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not types.NoneType)
    flag = _flag(f.name)
    shown = f"{f.default:g}" if isinstance(f.default, float) else f.default
    default = "" if f.default in (None, "") or f.default is False else f"(default: {shown})"
    said = f"{f.metadata.get('help', '')} {default}".strip()
    how = {"default": f.default, "help": said}
    if kind is bool:
        action = "store_true" if f.default is False else argparse.BooleanOptionalAction
        parser.add_argument(flag, action=action, **how)
        return
    choices = f.metadata.get("choices")
    how |= {"choices": choices} if choices else {"metavar": "TEXT" if kind is str else "N"}
    parser.add_argument(flag, type={int: _whole, float: amount, str: str}[kind], **how)


def run(parser: argparse.ArgumentParser, arguments: list[str], group: str) -> int:
    """Parse, compute and print; return the exit status: 0, 2 if the arguments cannot be, 1 if nothing can be printed."""
    parsed, unknown = parser.parse_known_args(_joined(arguments))
    values = vars(parsed)
    flags = [_flag(name) for name in values]
    command, name, as_json = values.pop("_command"), values.pop("_name"), values.pop("json")
    if unknown:
        given = unknown[0].partition("=")[0]
        near = get_close_matches(given, flags, n=1)
        hint = f"did you mean {near[0]}?" if near else f"see bml {group} {name} --help."
        said = f"{unknown[0]!r} is no option: {hint}"
        if given in flags:
            said = f"{given} must stand behind the command: bml {group} {name} {given}"
        print(f"bml {group} {name}: {said}", file=sys.stderr)
        return 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            answer = command(**values).answer()
        except (ValueError, TypeError) as error:
            print(f"bml {group} {name}: {error}", file=sys.stderr)
            return 2
    warned = [str(w.message) for w in caught]
    for message in warned:
        print(f"warning: {message}", file=sys.stderr)
    try:
        print(answer.json(f"{group} {name}", warned) if as_json else answer.text(), flush=True)
    except OSError as error:
        # what is left in the buffer goes nowhere, or the interpreter complains once more when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
            print(f"bml {group} {name}: cannot print: {error.strerror}.", file=sys.stderr)
            return 1
    return 0


def _joined(arguments: list[str]) -> list[str]:
    """Return "--x -1B" as "--x=-1B": argparse takes -1B for an option, and would say that --x lacks its number."""
    joined: list[str] = []
    for x in arguments:
        if re.match(r"-[\d.]", x) and joined and re.fullmatch(r"--[a-z-]+", joined[-1]):
            joined[-1] += f"={x}"
        else:
            joined.append(x)
    return joined
