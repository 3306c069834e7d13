"""The texts of the pretrained model: which documents it learns from, which are held out, and both as tokens.

Held out: of every ten parts of a text in order, the last, where a part is a chapter of Moby-Dick or 20 poems. A training
document of which a quarter or more of the runs of n characters occur in a held-out one is left out (n = 40 in English, 6
in Chinese): such poems are variants of each other. The tokenizer sees the training documents only.

Shapes: B = windows of a batch, T = tokens of a window.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from bigmodel_lab import data
from bigmodel_lab.errors import require_choice
from bigmodel_lab.text import BPE
from bigmodel_lab.train.batches import windows

__all__ = ["END", "TEXTS", "Corpus", "corpus", "overlapping", "part", "split", "tail_loss"]

END = "<|end|>"  # after each document
TEXTS = {  # language: name of the data set, documents of a part, characters of a run (see above)
    "English": ("moby-dick", 1, 40),
    "Chinese": ("tang-poems", 20, 6),
}


@dataclass(frozen=True)
class Corpus:
    """Both texts as tokens; the keys of the dicts are the languages."""

    tokenizer: BPE
    train: dict[str, np.ndarray]  # int32 (N,), END after each document
    held_out: dict[str, np.ndarray]  # int32 (N,)
    held_out_bytes: dict[str, int]  # of UTF-8, without the ENDs


def split(language: str) -> tuple[list[str], list[str]]:
    """Return the training and the held-out documents of "English" or "Chinese", as this module's docstring says."""
    name, size, run = TEXTS[require_choice("language", language, TEXTS)]
    documents = data.load(name).documents
    held = [i // size % 10 == 9 for i in range(len(documents))]
    held_out = [d for d, h in zip(documents, held, strict=True) if h]
    known = set().union(*(_runs(d, run) for d in held_out))
    train = [
        d
        for d, h in zip(documents, held, strict=True)
        if not h and 4 * len(_runs(d, run) & known) < max(1, len(_runs(d, run)))
    ]
    return train, held_out


def _runs(document: str, n: int) -> set[str]:
    return {document[i : i + n] for i in range(len(document) - n + 1)}


def corpus(vocab_size: int) -> Corpus:
    """Return the split texts as tokens, by a tokenizer of `vocab_size` that is trained on the training documents."""
    texts = {language: split(language) for language in TEXTS}
    documents = [d for train, _ in texts.values() for d in train]
    tokenizer = BPE.train(documents, vocab_size, special_tokens=(END,))
    ids = [
        {
            language: tokenizer.encode("".join(d + END for d in both[i]), allowed_special=(END,))
            for language, both in texts.items()
        }
        for i in (0, 1)
    ]
    size = {language: sum(len(d.encode()) for d in both[1]) for language, both in texts.items()}
    return Corpus(tokenizer, *ids, size)


def part(ids: np.ndarray, context: int, tokens: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return about `tokens` of the text `ids` as windows spread evenly over it: batches x, y, int64 (B, T)."""
    x, y = (torch.cat(t) for t in zip(*_whole_windows(ids, context), strict=True))
    n = min(len(x), math.ceil(tokens / context))
    rows = torch.from_numpy(np.linspace(0, len(x) - 1, n).astype(np.int64))
    return list(zip(x[rows].split(16), y[rows].split(16), strict=True))


def _whole_windows(ids, context):
    return [(x, y) for x, y in windows(ids, 16, context) if x.shape[1] == context]


def overlapping(ids: np.ndarray, context: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cut a text so that every token but the first is predicted once, from at least half a window that is before it.

    Returns batches x, int64 (B, T), and y, int64 (B, S), S <= T: what follows the last S tokens of x. The first window has
    S = T, as nothing is before it; the others start half a window after one another and have S = T / 2, the last one
    fewer. `tail_loss` is the loss to evaluate them with.
    """
    ids = torch.from_numpy(ids.astype(np.int64))
    if len(ids) <= context + 1:
        return [(ids[None, :-1], ids[None, 1:])]
    new = context // 2
    found = [(ids[None, :context], ids[None, 1 : context + 1])]
    starts = torch.arange(new, max(new, len(ids) - context), new)
    for s in starts.split(16):
        rows = ids[s[:, None] + torch.arange(context + 1)]
        found.append((rows[:, :-1], rows[:, -new:]))
    if left := (len(ids) - 1 - context) % new:
        found.append((ids[None, -context - 1 : -1], ids[None, -left:]))
    return found


def tail_loss(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy in nats, a scalar, of y (B, S) after the last S tokens of x (B, T)."""
    return F.cross_entropy(model(x)[:, -y.shape[1] :].flatten(0, 1), y.flatten())
