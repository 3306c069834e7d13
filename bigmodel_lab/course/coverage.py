"""Which rows of the five articles the notebooks cover, and which of their errors they correct.

`articles/inventory.csv` has a row for everything the articles treat, `articles/errata.csv` one for every error found in
them, each with the chapters and labs that are its home. A notebook names its rows in its metadata and in the tags of
the code cells that do the work:

    "bigmodel_lab": {"id": "c05", "covers": ["S0-06"], "corrects": ["E-004"], "defers": {"E-094": "the second half"}}
    cell tags:  covers:S0-06   corrects:E-004

A row counts only if such a cell was executed without an error and is shown (no tag remove-cell). Every row whose home
a notebook is must be covered by it, or deferred with a reason.

    python -m bigmodel_lab.course.coverage           what is covered, part by part, and what has no home yet
    python -m bigmodel_lab.course.coverage --all     every row that is missing
"""

import argparse
import csv
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path

PARTS = {
    "I Overview": "c01 c02 c03",
    "II Technical principles": "c04 c05 c06 c07 c08 c09 c10 c11",
    "III Training": "c12 c13 c14 c15",
    "IV Distributed computing": "c16 c17 c18",
    "V Advantages and business models": "c19 c20 c21 c22",
    "VI Projects, money and risk": "c23 c24 c25 c26",
    "VII Cases and outlook": "c27 c28",
    "Labs": "L01 L02 L03 L04 L05 L06 L07 L08 L09 L10",
}
HOMES = tuple(home for homes in PARTS.values() for home in homes.split())
PRIORITIES = (
    "core",
    "supporting",
    "mention",
    "A",
    "B",
    "C",
)  # of rows; then of errors: wrong, misleading, slip


@dataclass(frozen=True)
class Row:
    """A row of the inventory, or an error."""

    id: str  # S0-06: article 000; E-004: an error
    kind: str  # formula, algorithm, case, ...; "error"
    priority: str  # one of PRIORITIES
    title: str
    title_zh: str
    where: str  # article and lines, such as "001 l.118; 003 l.250-289"
    home: tuple[str, ...]
    statement: str = ""  # of an error: what is right, in our words


@dataclass
class Notebook:
    """What one notebook says about its rows."""

    name: str
    id: str
    covers: list[str]
    corrects: list[str]
    defers: dict[str, str]  # row -> why not here, not yet
    shown: dict[str, str] = field(
        default_factory=dict
    )  # tag, such as covers:S0-06 -> id of a cell that counts
    idle: dict[str, str] = field(
        default_factory=dict
    )  # tag -> why the cell that bears it does not count

    @property
    def tags(self) -> list[str]:
        return [f"covers:{r}" for r in self.covers] + [f"corrects:{r}" for r in self.corrects]

    @property
    def done(self) -> set[str]:
        """Rows that count as covered or corrected here."""
        return {tag.partition(":")[2] for tag in self.tags if tag in self.shown}


@cache
def rows() -> tuple[Row, ...]:
    """Return the rows of the inventory, then the errors."""
    made = []
    for r in _table("inventory.csv"):
        home = tuple(r["home"].split())
        made.append(
            Row(r["id"], r["kind"], r["priority"], r["title_en"], r["title_zh"], r["where"], home)
        )
    for r in _table("errata.csv"):
        home = tuple(r["home"].split())
        made.append(
            Row(r["id"], "error", r["class"], r["topic"], "", r["where"], home, r["statement"])
        )
    return tuple(made)


def notebooks(root: str | Path = ".") -> list[Path]:
    """Return the notebooks of a checkout of the course, chapters first."""
    return [
        p for folder in ("chapters", "labs") for p in sorted(Path(root, folder).glob("*.ipynb"))
    ]


def read(path: str | Path) -> Notebook:
    """Read what a notebook says about its rows; an absent entry reads as empty, `problems` names it."""
    content = json.loads(Path(path).read_text("utf-8"))
    own = content["metadata"].get("bigmodel_lab", {})
    book = Notebook(
        Path(path).name,
        own.get("id", ""),
        own.get("covers", []),
        own.get("corrects", []),
        own.get("defers", {}),
    )
    for number, cell in enumerate(content["cells"], 1):
        tags = cell["metadata"].get("tags", [])
        for tag in tags:
            if re.match(r"(covers|corrects):", tag):
                name = cell.get("id", f"number {number}")
                reason = _not_counted(cell, tags)
                (book.idle if reason else book.shown)[tag] = (
                    f"cell {name} {reason}" if reason else name
                )
    return book


def problems(book: Notebook) -> list[str]:
    """Name what is amiss with a notebook's rows: an empty list where all is well."""
    known = {r.id: r for r in rows()}
    amiss = []
    if not book.id or book.name.partition("_")[0] != book.id:
        amiss.append(
            f"metadata bigmodel_lab.id is {book.id!r}: it must be how the file's name begins"
        )
    for verb, named, letter in (("covers", book.covers, "S"), ("corrects", book.corrects, "E")):
        amiss += [f"{verb} {r} twice" for r in sorted(set(named)) if named.count(r) > 1]
        for r in dict.fromkeys(named):
            tag = f"{verb}:{r}"
            if r not in known or r[0] != letter:
                amiss.append(f"{verb} {r}: no such row in the table of the articles")
            elif book.id not in known[r].home:
                amiss.append(
                    f"{verb} {r} ({known[r].title}), whose home is {', '.join(known[r].home)}"
                )
            elif tag not in book.shown:
                why = book.idle.get(tag, "no code cell has that tag")
                amiss.append(
                    f"{verb} {r} ({known[r].title}) in its metadata, but not in a cell tagged {tag}: {why}"
                )
    for tag, cell in {**book.idle, **book.shown}.items():
        if tag not in book.tags:
            amiss.append(
                f"{cell if cell.startswith('cell') else f'cell {cell}'} is tagged {tag}: not in the metadata"
            )
    for r, reason in book.defers.items():
        if r not in known or book.id not in known[r].home:
            amiss.append(f"defers {r}, which has no home here")
        elif r in book.covers + book.corrects:
            amiss.append(f"defers {r} and also names it as done")
        elif not str(reason).strip():
            amiss.append(f"defers {r} without a reason")
    done = {*book.covers, *book.corrects, *book.defers}
    for r in known.values():
        if book.id in r.home and r.id not in done:
            amiss.append(
                f"is the home of {r.id} ({r.priority}: {r.title}) and neither names nor defers it"
            )
    return [f"{book.name} {a}" for a in amiss]


def report(paths: Iterable[str | Path], limit: int | None = 20) -> str:
    """Say what the notebooks at `paths` cover, part by part, and which rows have no home yet, core rows first.

    limit : how many of those rows to list; None for all
    """
    books = [read(p) for p in paths]
    done = set().union(*(b.done for b in books))
    inventory = [r for r in rows() if r.kind != "error"]
    errors = [r for r in rows() if r.kind == "error"]
    lines = [f"{'part':34}{'all rows':>12}{'core rows':>12}{'errors':>12}"]
    for part, homes in PARTS.items():
        here = [
            [r for r in group if r.home[0] in homes.split()]
            for group in (inventory, _core(inventory), errors)
        ]
        if any(here):
            lines.append(f"{part:34}" + "".join(f"{_share(g, done):>12}" for g in here))
    lines.append(
        f"{'all':34}"
        + "".join(f"{_share(g, done):>12}" for g in (inventory, _core(inventory), errors))
    )
    for book in books:
        lines += [f"{book.id} defers {r}: {reason}" for r, reason in book.defers.items()]
    present = {b.id for b in books}
    homeless = [r for r in rows() if not present & set(r.home)]
    homeless.sort(key=lambda r: (PRIORITIES.index(r.priority) % 3, PRIORITIES.index(r.priority)))
    if homeless:
        lines.append(f"\n{len(homeless)} rows have no home yet (their notebook does not exist):")
    for r in homeless[:limit]:
        lines.append(f"  {r.id:7}{r.priority:11}{'/'.join(r.home):12}{r.title}")
    if limit is not None and len(homeless) > limit:
        lines.append(f"  and {len(homeless) - limit} more (--all lists them)")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Print the report, then what is amiss; the exit status is 1 if anything is."""
    parser = argparse.ArgumentParser(description="What the notebooks cover of the five articles.")
    parser.add_argument("--all", action="store_true", help="list every row that has no home yet")
    parser.add_argument("--root", default=".", help="folder of the checkout (default: here)")
    options = parser.parse_args(argv)
    paths = notebooks(options.root)
    print(report(paths, None if options.all else 20))
    amiss = [a for p in paths for a in problems(read(p))]
    print("\n".join(["", *amiss]) if amiss else "")
    return bool(amiss)


def _not_counted(cell, tags) -> str:
    if cell["cell_type"] != "code":
        return "is not a code cell"
    if "remove-cell" in tags:
        return "is not shown (remove-cell)"
    if cell.get("execution_count") is None:
        return "was not executed"
    if any(o["output_type"] == "error" for o in cell["outputs"]):
        return "ends in an error"
    return ""


def _core(group) -> list[Row]:
    return [r for r in group if r.priority == "core"]


def _share(group, done) -> str:
    return f"{sum(r.id in done for r in group)} of {len(group)}" if group else "-"


def _table(name: str) -> list[dict[str, str]]:
    text = (files("bigmodel_lab.course") / "articles" / name).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


if __name__ == "__main__":
    raise SystemExit(main())
