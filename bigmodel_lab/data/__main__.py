"""python -m bigmodel_lab.data [NAME]: the table of data sets, or all about one; exit status 1 if a file is damaged."""

import sys

from bigmodel_lab.data.catalog import CATALOG
from bigmodel_lab.data.load import load, verify
from bigmodel_lab.data.store import manifest


def table() -> str:
    """One line a data set: name, size on the disk, what it is, licence, source."""
    rows = [("name", "kB", "what it is", "licence", "source")]
    for name, entry in CATALOG.items():
        size = f"{manifest()[entry.file]['bytes'] / 1e3:,.0f}" if entry.file else "on request"
        rows.append((name, size, entry.title, entry.licence, str(entry.source)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main(arguments: list[str]) -> int:
    problems = verify()
    if not problems:
        print("\n\n".join(map(repr, map(load, arguments))) or table())
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
