"""The data sets that ship with the package: offline, in a fixed order, checked by hash.

    digits = data.load("digits")
    x, y = digits.pixels("train")       # float32 (N, 64) in [0, 1], int64 (N,)
    text = data.load("moby-dick").text
    repeats = data.load("cdnow").columns["repeats"]    # int64 (N,)

What each is, how it was selected and on what terms: `python -m bigmodel_lab.data`, `print(data.load(name))`, `NOTICE`.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from bigmodel_lab.data.catalog import CATALOG, Entry, Source
from bigmodel_lab.data.store import DataError, read_asset
from bigmodel_lab.errors import require_choice


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """A data set with its origin and terms. Frozen and shared: every `load` of one name gives the same object."""

    name: str
    title: str  # what it is
    selection: str  # what was taken from the source, what was changed, and in which order it is
    licence: str  # in a few words; NOTICE has the whole
    citation: str
    source: Source  # package, version and hash of its archive

    def contents(self) -> str:
        """What the arrays or the text are: counts, shapes, types, ranges."""
        raise NotImplementedError

    def __repr__(self):
        lines = (
            f"chosen: {self.selection}",
            f"licence: {self.licence}",
            f"source: {self.source}",
            f"cite: {self.citation}",
        )
        return "\n  ".join((f"{self.name}: {self.title}", self.contents(), *lines))


@dataclass(frozen=True, eq=False, repr=False)
class Images(Dataset):
    """Grey images of `classes` kinds of things, with a fixed training set and test set. The arrays are read-only."""

    x_train: np.ndarray  # uint8 (N, height, width), ink: 0 is paper, `white` is full ink
    y_train: np.ndarray  # int64 (N,), class 0 .. classes-1
    x_test: np.ndarray  # uint8 (M, height, width)
    y_test: np.ndarray  # int64 (M,)
    white: int  # the largest value of a pixel: 255, or 16 for "digits"

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.y_train.max()) + 1

    def pixels(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The images of `split` ("train" or "test") as rows of numbers, and their labels.

        Returns
        -------
        x : float32 array (N, height*width)   x_train or x_test divided by `white`, so 0 (paper) to 1 (ink)
        y : int64 array (N,)                  labels

        Both are fresh, writable copies, fit for torch.from_numpy.
        """
        require_choice("split", split, ("train", "test"))
        x, y = (self.x_train, self.y_train) if split == "train" else (self.x_test, self.y_test)
        return x.reshape(len(x), -1) / np.float32(self.white), y.copy()

    def contents(self) -> str:
        n, m, shape = (
            len(self.x_train),
            len(self.x_test),
            "x".join(map(str, self.x_train.shape[1:])),
        )
        return (
            f"{n:,} training and {m:,} test images of {shape} pixels, {self.x_train.dtype}, 0 paper to {self.white} ink; "
            f"{self.classes} classes"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Text(Dataset):
    """A text in Unicode normal form C, lines ended by a line feed, no byte order mark."""

    text: str
    separator: str  # what stands between two documents, and nowhere else

    @property
    def documents(self) -> list[str]:
        """The documents (chapters, poems) in order: the units to split by, so that no document is on both sides."""
        return self.text.rstrip("\n").split(self.separator)

    def contents(self) -> str:
        n, c, d = len(self.documents), len(self.text), len(set(self.text))
        return f"{n:,} documents, {c:,} characters, {d:,} distinct"


@dataclass(frozen=True, eq=False, repr=False)
class Table(Dataset):
    """Columns of numbers, one row a thing. Neither the arrays nor the mapping can be written to."""

    columns: Mapping[str, np.ndarray]  # name -> int64 or float64 (N,), the unit in the name
    meanings: Mapping[str, str]  # name -> what the column says

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def contents(self) -> str:
        lines = (
            f"{name}, {x.dtype}, {x.min():g} to {x.max():g}: {self.meanings[name]}"
            for name, x in self.columns.items()
        )
        return "\n  ".join((f"{len(self):,} rows", *lines))


@functools.cache  # after an error nothing is kept: once the file is mended the next call reads it
def load(name: str) -> Images | Text | Table:
    """The shipped data set `name`: "digits", "mnist", "moby-dick", "tang-poems" or "cdnow".

    The file is checked against the manifest when it is first read in a process; it takes less than 0.3 s.

    Raises ValueError for a name we do not ship, offering the nearest, and `DataError` if the file is missing or damaged,
    saying what was expected, what was found and how to restore it.
    """
    entry = CATALOG.get(name)
    if entry is not None and entry.file is None:
        raise ValueError(
            f"name={name!r} does not ship with the package: bigmodel_lab.data.fetch({name!r}) downloads it."
        )
    require_choice("name", name, names())
    return make(name, entry, read_asset(entry.file))


def names() -> list[str]:
    """What `load` knows."""
    return [name for name, entry in CATALOG.items() if entry.file]


def make(name: str, entry: Entry, content: dict[str, np.ndarray] | str) -> Images | Text | Table:
    """Join what the catalogue says with the decoded content."""
    about = {f: getattr(entry, f) for f in ("title", "selection", "licence", "citation", "source")}
    if isinstance(content, str):
        return Text(name, **about, text=content, separator=entry.separator)
    # uint8 labels would overflow in the reader's arithmetic
    arrays = {k: v.astype(np.int64 if k.startswith("y_") else v.dtype) for k, v in content.items()}
    for array in arrays.values():
        array.setflags(write=False)
    # views of copies: the flag can be set back on whatever rests on memory that may be written to
    views = {k: v.view() for k, v in arrays.items()}
    if entry.columns:
        columns = MappingProxyType({column: views[column] for column, _ in entry.columns})
        return Table(name, **about, columns=columns, meanings=MappingProxyType(dict(entry.columns)))
    return Images(name, **about, **views, white=entry.white)


def verify() -> list[str]:
    """Read every shipped file again and return what is wrong with them, in words; [] if all are intact."""
    problems = []
    for name in names():
        try:
            read_asset(CATALOG[name].file)
        except DataError as e:
            problems.append(f"{name}: {e}")
    return problems
