"""Batches to train on, drawn at random with a state that can be saved, and batches to evaluate on.

Shapes: B = rows of a batch, T = positions of a row (tokens predicted), N = samples.
"""

import zlib
from collections.abc import Mapping

import numpy as np
import torch

from bigmodel_lab.errors import require_in_range

__all__ = ["Batches", "Samples", "windows"]


class Batches:
    """Windows of a long text at random places, without end: each draw is x (B, T) and y (B, T), x one token further.

    Parameters
    ----------
    tokens : integer array (N,)   the text; a memory-mapped file serves too, and is never read as a whole
    batch : int                   B, rows a draw
    length : int                  T, tokens a row, 1 <= T < N
    generator : numpy.random.Generator   where the places come from; draws advance it

    `state_dict` after a draw, loaded into an equal sampler, makes that one go on with the very same draws.
    """

    def __init__(self, tokens, batch: int, length: int, generator: np.random.Generator):
        self.tokens = _text(tokens)
        self.batch = int(require_in_range("batch", batch, 1))
        self.length = int(require_in_range("length", length, 1, len(self.tokens) - 1))
        self.generator = _generator(generator)

    def __iter__(self):
        return self

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return x and y, int64 (B, T); every window of the text is as likely as any other."""
        starts = self.generator.integers(0, len(self.tokens) - self.length, self.batch)
        rows = self.tokens[starts[:, None] + np.arange(self.length + 1)]
        return _pair(rows)

    def state_dict(self) -> dict:
        """Return what decides the next draws: the generator's state, and which text and sizes it belongs to."""
        return {"source": self._source(), "generator": self.generator.bit_generator.state}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from `state`. Raises ValueError if it belongs to another text or other sizes."""
        _require_same(self._source(), state["source"])
        self.generator.bit_generator.state = state["generator"]

    def _source(self) -> dict:
        return {"batch": self.batch, "length": self.length, "tokens": _fingerprint(self.tokens)}


class Samples:
    """Rows of arrays in random order, without end: each draw is one batch of every array, as tensors.

    Parameters
    ----------
    arrays : arrays (N, ...) of equal N   such as images (N, D) and labels (N,)
    batch : int                           B, rows a draw, 1 <= B <= N
    generator : numpy.random.Generator    where the order comes from

    An epoch goes through a new order and leaves out the last N mod B rows of it, so that all batches are of one size.
    The state is saved and loaded as that of `Batches`.
    """

    def __init__(self, *arrays, batch: int, generator: np.random.Generator):
        if not arrays or len({len(a) for a in arrays}) != 1:
            lengths = [len(a) for a in arrays]
            raise ValueError(f"arrays must be one or more of equal length, got lengths {lengths}.")
        self.arrays = [np.asarray(a) for a in arrays]
        self.batch = int(require_in_range("batch", batch, 1, len(arrays[0])))
        self.generator = _generator(generator)
        self._shuffle()

    def _shuffle(self) -> None:
        self._before = self.generator.bit_generator.state  # small, unlike the order itself
        self._order = self.generator.permutation(len(self.arrays[0]))
        self._next = 0

    def __iter__(self):
        return self

    def __next__(self) -> tuple[torch.Tensor, ...]:
        """Return the next B rows of each array, in the array's own dtype."""
        if self._next + self.batch > len(self._order):
            self._shuffle()
        rows = self._order[self._next : self._next + self.batch]
        self._next += self.batch
        return tuple(torch.from_numpy(np.asarray(a[rows])) for a in self.arrays)

    def state_dict(self) -> dict:
        """Return the generator's state before this epoch's order was drawn, and the place in it."""
        return {"source": self._source(), "generator": self._before, "next": self._next}

    def load_state_dict(self, state: Mapping) -> None:
        """Go on from `state`. Raises ValueError if it belongs to other arrays or another batch."""
        _require_same(self._source(), state["source"])
        self.generator.bit_generator.state = state["generator"]
        self._shuffle()
        self._next = state["next"]

    def _source(self) -> dict:
        return {"batch": self.batch, "arrays": [_fingerprint(a) for a in self.arrays]}


def windows(tokens, batch: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cut a text into consecutive windows for evaluation: every token but the first is predicted exactly once.

    Returns pairs x, y, int64 (B, T), in the order of the text; the last two may be smaller. The first token of a window
    is predicted from one token and the last from T, so the mean loss depends on T: say it beside the number.
    """
    tokens = _text(tokens)
    require_in_range("batch", batch, 1)
    require_in_range("length", length, 1)
    whole = (len(tokens) - 1) // length
    starts = np.arange(whole)[:, None] * length
    rows = [starts[i : i + batch] + np.arange(length + 1) for i in range(0, whole, batch)]
    if whole * length + 1 < len(tokens):
        rows.append(np.arange(whole * length, len(tokens))[None])
    return [_pair(tokens[r]) for r in rows]


def _pair(rows: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return x = all but the last token of each row, and y = all but the first."""
    x, y = (torch.from_numpy(rows[:, cut].astype(np.int64)) for cut in (np.s_[:-1], np.s_[1:]))
    return x, y


def _text(tokens) -> np.ndarray:
    tokens = tokens if isinstance(tokens, np.ndarray) else np.asarray(tokens)
    if tokens.ndim != 1 or tokens.dtype.kind not in "iu" or len(tokens) < 2:
        raise ValueError(
            "tokens must be an integer array (N,) with N at least 2, "
            f"got shape {tokens.shape} of {tokens.dtype}: encode the text first."
        )
    return tokens


def _generator(generator) -> np.random.Generator:
    if not isinstance(generator, np.random.Generator):
        raise TypeError(
            f"generator must be a numpy.random.Generator, got {type(generator).__name__}: "
            'such as bigmodel_lab.rng.generator(0, "batches").'
        )
    return generator


def _fingerprint(a: np.ndarray) -> dict:
    """Tell arrays apart by size, type and 1000 entries spread over them, without reading a large file."""
    spread = a[np.linspace(0, len(a) - 1, 1000).astype(np.int64)] if len(a) else a
    return {
        "shape": list(a.shape),
        "dtype": str(a.dtype),
        "crc32": zlib.crc32(np.ascontiguousarray(spread).tobytes()),
    }


def _require_same(here: Mapping, saved: Mapping) -> None:
    for name, value in here.items():
        if saved.get(name) != value:
            raise ValueError(
                f"The saved state belongs to other batches: {name} was {saved.get(name)} and is {value}. "
                "Make the sampler as it was, or start a new run."
            )
