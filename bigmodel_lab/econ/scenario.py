"""A company's assumptions as one file that people read and edit, each with its unit and where it came from.

    save_scenario(Scenario("base", company, sources={"price": "list price, 2026-11"}), "base.json")
    again = load_scenario("base.json")                      # equal to what was saved, to the last bit

The file is JSON: "kind", "version", "name", "months", and under "company" one line an assumption,
{"value": 0.03, "unit": "1", "source": "assumed"}. A value may be in another unit of the same kind, such as kUSD / month. A
file with a key too many or too few, another kind of unit or a number that cannot be is refused: the error names the file,
the key, the rule, what was there, and what to write. Told in lab L10.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bigmodel_lab.econ.company import UNCERTAIN, UNITS, Company, FundingRound
from bigmodel_lab.errors import require_choice
from bigmodel_lab.files import write_atomically
from bigmodel_lab.units import Q, number, whole

__all__ = ["Scenario", "load_scenario", "save_scenario"]

KIND = "bigmodel-lab scenario"
VERSION = 1  # raised when a key changes its meaning
ROUND = {"month": "month", "amount": "USD", "probability": "", "needs": "USD / year"}
KEYS = ("kind", "version", "name", "months", "company", "rounds", "unsure")


@dataclass(frozen=True)
class Scenario:
    """A company, how far to look ahead, and where each assumption comes from. Quantities are kept as floats in their unit."""

    name: str
    company: Company
    months: int = 36
    sources: Mapping[str, str] = field(default_factory=dict)  # by assumption; "assumed" if absent

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name.strip():
            raise TypeError(f"name must be a text, not empty, got {self.name!r}.")
        if not isinstance(self.company, Company):
            raise TypeError(f"company must be a Company, got {self.company!r}.")
        object.__setattr__(self, "company", self.company.plain())
        object.__setattr__(self, "months", whole("months", self.months, "month", 1, 1200))
        for name, text in self.sources.items():
            require_choice("a name in sources", name, UNITS)
            if not isinstance(text, str) or not text.strip():
                raise TypeError(f"sources[{name!r}] must be a text, not empty, got {text!r}.")
        said = {name: self.sources.get(name, "assumed") for name in UNITS}
        object.__setattr__(self, "sources", said)


def save_scenario(scenario: Scenario, path: str | os.PathLike) -> Path:
    """Write the scenario to `path`, whole or not at all, and return the path."""
    c = scenario.company
    company = {
        name: _spelled(getattr(c, name), unit) | {"source": scenario.sources[name]}
        for name, unit in UNITS.items()
    }
    rounds = [
        {key: _spelled(getattr(r, key), unit) for key, unit in ROUND.items()} for r in c.rounds
    ]
    lines = [
        "{",
        f' "kind": {_line(KIND)},',
        f' "version": {VERSION},',
        f' "name": {_line(scenario.name)},',
        f' "months": {_line(_spelled(scenario.months, "month"))},',
        *_block("company", company, "{}"),
        *_block("unsure", {name: _spelled(x, "") for name, x in c.unsure.items()}, "{}"),
        *_block("rounds", rounds, "[]"),
    ]
    lines[-1] = lines[-1].rstrip(",")
    return write_atomically(path, ("\n".join([*lines, "}"]) + "\n").encode())


def load_scenario(path: str | os.PathLike) -> Scenario:
    """Read a scenario. Raises ValueError for a file that is none, saying what to mend; OSError if it cannot be read."""
    path = Path(path)
    try:
        return _read(_parse(path))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path.name}: {error}") from None


def _spelled(value, unit: str) -> dict[str, object]:
    return {"value": value, "unit": unit or "1"}


def _line(x) -> str:
    return json.dumps(x, ensure_ascii=False, allow_nan=False)


def _block(name: str, items, brackets: str) -> list[str]:
    """Return a mapping or a list with one line an item."""
    if isinstance(items, dict):
        rows = [f"  {_line(key)}: {_line(x)}" for key, x in items.items()]
    else:
        rows = [f"  {_line(x)}" for x in items]
    if not rows:
        return [f' "{name}": {brackets},']
    return [
        f' "{name}": {brackets[0]}',
        *(f"{r}," for r in rows[:-1]),
        rows[-1],
        f" {brackets[1]},",
    ]


def _parse(path: Path) -> dict:
    def refuse(word):
        raise ValueError(f"a value must be a finite number, got {word}: write the number meant.")

    def once(pairs):
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(n for n in names if names.count(n) > 1)
            raise ValueError(f"key {twice!r} must stand there once, got it twice: delete one.")
        return found

    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors write a mark at the start
        content = json.loads(text, parse_constant=refuse, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno} must be JSON, got {error.msg.lower()} at column {error.colno}: save_scenario writes a "
            "file to start from."
        ) from None
    except UnicodeDecodeError:
        raise ValueError("must be UTF-8 text, got other bytes: save it as UTF-8.") from None
    except RecursionError:
        raise ValueError("must be JSON of a few levels, got brackets without end.") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise ValueError(f'"kind" must be {KIND!r}: this file is something else.')
    if (version := content.get("version")) != VERSION or isinstance(version, bool):
        raise ValueError(
            f'"version" must be {VERSION}, which is what this bigmodel-lab reads, got {version!r}: save it anew with the '
            "version that wrote it."
        )
    return content


def _read(content: dict) -> Scenario:
    _require_keys("the file", content, KEYS)
    company = _require_keys("company", content["company"], UNITS)
    values, sources = {}, {}
    for key, unit in UNITS.items():
        where = f"company.{key}"
        entry = _require_keys(where, company[key], ("value", "unit", "source"))
        values[key], sources[key] = _number(where, entry, unit), entry["source"]
        if not isinstance(entry["source"], str) or not entry["source"].strip():
            raise ValueError(
                f'{where}.source must be a text, got {entry["source"]!r}: write "assumed" if nobody knows better.'
            )
    if not isinstance(content["rounds"], list):
        raise ValueError(f"rounds must be a list, got {content['rounds']!r}: write [] for none.")
    rounds = []
    for i, entry in enumerate(content["rounds"]):
        _require_keys(f"rounds[{i}]", entry, ROUND)
        x = {key: _number(f"rounds[{i}].{key}", entry[key], unit) for key, unit in ROUND.items()}
        x["month"] = whole(f"rounds[{i}].month", x["month"], "month", 1)
        rounds.append(_made(f"rounds[{i}]", FundingRound, x))
    if not isinstance(content["unsure"], dict):
        raise ValueError(
            f"unsure must be an object, got {content['unsure']!r}: write {{}} for none."
        )
    spreads = {}
    for key, entry in content["unsure"].items():
        require_choice("a key of unsure", key, UNCERTAIN)
        spreads[key] = _number(f"unsure.{key}", entry, "")
    made = _made("company", Company, values | {"rounds": tuple(rounds), "unsure": spreads})
    months = whole("months", _number("months", content["months"], "month"), "month", 1, 1200)
    return Scenario(content["name"], made, months, sources)


def _made(where: str, kind: type, values: dict):
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}.{error} Mend its value in the file.") from None


def _require_keys(where: str, given, keys) -> dict:
    """Check that `given` is a mapping with exactly these keys, and return it."""
    if not isinstance(given, dict):
        raise ValueError(f"{where} must be an object with {', '.join(keys)}, got {given!r}.")
    for name in given:
        require_choice(f"a key of {where}", name, tuple(keys))
    if missing := [name for name in keys if name not in given]:
        raise ValueError(
            f"{where} must have every one of {', '.join(keys)}, got none called {', '.join(missing)}: add it. Nothing is "
            "filled in silently."
        )
    return given


def _number(where: str, entry, unit: str) -> float:
    """Return the number of {"value": ..., "unit": ...} in `unit`; numbers in that very unit keep every bit."""
    shown = unit or "1"
    pattern = f'write {{"value": ..., "unit": "{shown}"}}'
    if not isinstance(entry, dict) or not {"value", "unit"} <= entry.keys() <= {
        "value",
        "unit",
        "source",
    }:
        raise ValueError(f"{where} must have a value and a unit, got {entry!r}: {pattern}.")
    value, given = entry["value"], entry["unit"]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{where}.value must be a number, got {value!r}: {pattern}.")
    if not abs(value) < 1e300:
        raise ValueError(
            f"{where}.value must be a finite number below 1e300, got one that is not: {pattern}."
        )
    if given == shown:
        return value
    try:
        if not isinstance(given, str) or not unit:
            raise ValueError
        return number(where, Q(float(value), given), unit, low=-float("inf"))
    except Exception:  # what pint's parser raises for a text that is no unit is of many kinds
        raise ValueError(
            f"{where}.unit must be {shown!r}{' or convert to it' if unit else ''}, got {given!r}: {pattern}."
        ) from None
