"""The book: notebooks become pages (`preprocessor`), notebooks are executed and put in normal form (`notebooks`)."""


class BookError(Exception):
    """What stops the build: the message names the file, the cell, and what to do about it."""
