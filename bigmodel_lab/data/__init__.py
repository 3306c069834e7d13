"""Data that ships with the package, and more on request: digits, MNIST, an English novel, Chinese poems, a shop's customers.

`load(name)` reads a shipped set, `names()` lists them, `fetch(name)` downloads a bigger one, `verify()` checks the files.
"""

from bigmodel_lab.data.fetch import fetch
from bigmodel_lab.data.load import Dataset, Images, Table, Text, load, names, verify
from bigmodel_lab.data.store import DataError

__all__ = ["DataError", "Dataset", "Images", "Table", "Text", "fetch", "load", "names", "verify"]
