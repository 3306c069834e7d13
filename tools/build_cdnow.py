"""Make bigmodel_lab/econ/tables/cdnow.csv from the pinned package that carries the CDNOW sample.

    pip download --no-deps lifetimes==0.11.3 -d /tmp && python tools/build_cdnow.py /tmp/Lifetimes-0.11.3-py3-none-any.whl

Each of 2,357 customers (one in ten of those who first bought in the first quarter of 1997) becomes one line: days on which it
bought again until 1997-09-30, the first day of observation to the last of these, to the end, mean spend of such a day, and days
on which it bought in the 39 weeks after. The package is not imported: one text file of it is read.
"""

import csv
import hashlib
import sys
import zipfile
from collections import defaultdict
from datetime import date
from pathlib import Path

SHA256 = "261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8"
TABLE = Path(__file__).parent.parent / "bigmodel_lab" / "econ" / "tables" / "cdnow.csv"
END = date(1997, 9, 30)


def main(wheel: str) -> None:
    """Read the wheel, check its hash, write the table."""
    if hashlib.sha256(Path(wheel).read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{wheel} is not lifetimes 0.11.3: its SHA-256 differs.")
    text = zipfile.ZipFile(wheel).read("lifetimes/datasets/CDNOW_sample.txt").decode("ascii")
    spent = defaultdict(lambda: defaultdict(float))  # customer -> day -> USD
    for line in text.splitlines():
        _, customer, day, _, usd = line.split()
        spent[int(customer)][date.fromisoformat(day)] += float(usd)
    with TABLE.open("w", newline="", encoding="ascii") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(["repeats", "recency_days", "age_days", "mean_spend_USD", "later_repeats"])
        for _, days in sorted(spent.items()):
            first, *again = sorted(days)
            seen = [d for d in again if d <= END]
            mean = sum(days[d] for d in seen) / len(seen) if seen else 0
            recency = (seen[-1] - first).days if seen else 0
            out.writerow(
                [len(seen), recency, (END - first).days, f"{mean:.4f}", len(again) - len(seen)]
            )


if __name__ == "__main__":
    main(sys.argv[1])
