"""Case studies: what the articles and the public reports claim, and published figures with source and confidence.

Two tables. `claims.csv` holds every claim of the articles about the companies they tell of, and some about public companies,
as our paraphrase: does it give a number, does it give a source, are the inputs there, in the second table, from which the
number follows again? `cases.csv` holds published figures, each with source, date and how sure one can be.

    recomputable   a number, its source, and what it follows from
    measured       a number and its source
    asserted       anything else, a number that nobody can look up included

Whether a claim is true is another question: a measured one can be wrong, and is then found out. Told in chapter 27.
"""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Q, Quantity

__all__ = ["CONFIDENCE", "GRADES", "KINDS", "Claim", "Published", "claims", "published"]

GRADES = ("recomputable", "measured", "asserted")
KINDS = ("fact", "result", "cause", "lesson")
CONFIDENCE = ("filed", "official", "paper", "press", "unverified")  # from the surest down


@dataclass(frozen=True)
class Claim:
    """One claim, in our words."""

    article: str  # "000" to "002", or "public"
    lines: str  # of the article, such as "l.360"; of a public case its number in our list of cases
    company: str  # as the article calls it
    kind: str  # fact: what it is or does; result; cause: why it went well or ill; lesson: what others should do
    claim: str
    number: bool  # it states one
    source: bool  # it says where that comes from
    inputs: bool  # and from what it can be computed again

    @property
    def grade(self) -> str:
        """One of GRADES."""
        if not (self.number and self.source):
            return "asserted"
        return "recomputable" if self.inputs else "measured"


@dataclass(frozen=True)
class Published:
    """One published figure."""

    name: str
    company: str
    what: str
    value: (
        Quantity | float
    )  # a plain number where it has no unit, or one that we have not, such as RMB
    source: str
    date: str  # of the source: a year, a month or a day, as far as known
    confidence: str  # one of CONFIDENCE


def _rows(table: str) -> list[dict[str, str]]:
    text = files(__package__).joinpath("tables", table).read_text("utf-8")
    return list(csv.DictReader(text.splitlines()))


@cache
def claims() -> tuple[Claim, ...]:
    """Return all claims, the articles' first, in their order."""
    flags = ("number", "source", "inputs")
    return tuple(Claim(**row | {f: row[f] == "yes" for f in flags}) for row in _rows("claims.csv"))


@cache
def _published() -> dict[str, Published]:
    out = {}
    for row in _rows("cases.csv"):
        unit, value = row.pop("unit"), float(row.pop("value"))
        out[row["name"]] = Published(**row, value=Q(value, unit) if unit else value)
    return out


def published(name: str | None = None) -> Published | tuple[Published, ...]:
    """Return the published figure `name`, or all of them in the table's order.

    Raises ValueError, with the nearest spelling, for a name that the table has not.
    """
    rows = _published()
    if name is None:
        return tuple(rows.values())
    return rows[require_choice("published figure", name, rows)]
