"""How fast is our byte-pair encoding beside `tokenizers`, tiktoken and plain Python?

    python benchmarks/bpe.py             # under a minute; prints the tables and writes benchmarks/results/bpe.md
    python benchmarks/bpe.py --quick     # a few seconds, short texts; prints only

Every case first checks that all its candidates give the same merges or ids, then times them in turns (see _harness.py
for how and why).
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import _harness as harness  # first: it decides how the threads of the libraries below wait
import numpy as np
import tiktoken
import tokenizers

from bigmodel_lab import data
from bigmodel_lab.text import BPE, naive
from bigmodel_lab.text._alphabet import from_printable, printable
from bigmodel_lab.text._encode import encode_words
from bigmodel_lab.text._pretokenise import cut
from bigmodel_lab.text._train import learn
from bigmodel_lab.text._words import distinct
from bigmodel_lab.text.bpe import TOKEN_OF_BYTE

BYTE_LEVEL = tokenizers.pre_tokenizers.ByteLevel
PATTERN = (
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"  # tiktoken's
)


@dataclass(frozen=True)
class Case:
    """One task on one text: functions without arguments that do the same."""

    name: str
    n_bytes: int  # of the text
    candidates: dict[str, Callable]  # "ours" first
    same: Callable = list  # makes the results comparable

    def check(self) -> None:
        """Raise AssertionError unless all candidates give the same result."""
        ours = self.same(self.candidates["ours"]())
        for name, f in self.candidates.items():
            assert self.same(f()) == ours, f"{self.name}: {name} gives another result"


def train_tokenizers(texts: list[str], vocab_size: int) -> tokenizers.Tokenizer:
    """Hugging Face's trainer with our rules; one call trains in parallel over `texts` if it is allowed to."""
    tok = tokenizers.Tokenizer(tokenizers.models.BPE())
    tok.pre_tokenizer = BYTE_LEVEL(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        initial_alphabet=BYTE_LEVEL.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    return tok


def merges_of(tok) -> list[tuple[bytes, bytes]]:
    """The merges of ours, of `tokenizers` or of the plain version."""
    if isinstance(tok, BPE):
        return tok.merges
    if isinstance(tok, list):
        return tok
    merges = json.loads(tok.to_str())["model"]["merges"]
    return [(from_printable(a), from_printable(b)) for a, b in merges]


def training(name: str, documents: list[str], vocab_size: int, *, plain: bool = False) -> Case:
    """From the text to the merges."""
    candidates = {
        "ours": lambda: BPE.train(documents, vocab_size),
        "tokenizers": lambda: train_tokenizers(documents, vocab_size),
    }
    if plain:
        candidates["plain Python"] = lambda: naive.train(documents[0], vocab_size - 256)
    n_bytes = sum(len(text.encode()) for text in documents)
    return Case(f"train, {name}, {vocab_size:,} ids", n_bytes, candidates, merges_of)


def encoding(name: str, text: str, tok: BPE, *, plain: bool = False) -> Case:
    """From the text to the ids, with the same merges everywhere."""
    tokens = [tok.token_bytes(i) for i in range(256 + len(tok.merges))]
    their = tiktoken.Encoding(
        "bench",
        pat_str=PATTERN,
        mergeable_ranks={token: i for i, token in enumerate(tokens)},
        special_tokens={},
    )
    fast = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={printable(token): i for i, token in enumerate(tokens)},
            merges=[(printable(a), printable(b)) for a, b in tok.merges],
        )
    )
    fast.pre_tokenizer = BYTE_LEVEL(add_prefix_space=False)
    candidates = {
        "ours": lambda: tok.encode(text, disallowed_special=()),
        "tiktoken": lambda: their.encode_to_numpy(text, disallowed_special=()),
        "tokenizers": lambda: fast.encode(text).ids,
    }
    if plain:
        ids = {token: i for i, token in enumerate(tokens)}
        candidates["plain Python"] = lambda: [ids[t] for t in naive.encode(text, tok.merges)]
    return Case(f"encode, {name}", len(text.encode()), candidates)


def cases(quick: bool):
    """The cases, made one at a time."""
    novel, poems = data.load("moby-dick"), data.load("tang-poems")
    chapters, verses = novel.documents, poems.documents[:2500]
    if quick:
        chapters, verses = chapters[:12], verses[:200]
    small = novel.text[:10_000]
    yield training("English, 10 kB", [small], 306, plain=True)
    yield training("English novel", ["\n".join(chapters)], 1024 if quick else 8192)
    yield training("Chinese poems", verses, 1024 if quick else 4096)
    gpt2 = BPE.gpt2()
    own = BPE.train(verses, 1024 if quick else 4096)
    yield encoding("English, 10 kB, 50 merges", small, BPE.train(small, 306), plain=True)
    yield encoding("English novel, GPT-2's merges", "\n".join(chapters[:50]), gpt2)
    yield encoding("Chinese poems, GPT-2's merges", "\n".join(verses), gpt2)
    yield encoding("Chinese poems, their own merges", "\n".join(verses), own)


def row(case: Case, n_threads: int, *, quick: bool) -> str:
    """Check a case, time it, and say it in one line of the table."""
    case.check()
    times = harness.compare(
        case.candidates, n_threads=n_threads, rounds=7, limit_s=0.3 if quick else 2.0
    )
    ours_s = times.median("ours")
    cells = []
    for name in ("tokenizers", "tiktoken", "plain Python"):
        cells.append("")
        if name in case.candidates:
            low, middle, high = times.ratio(name, "ours")
            cells[-1] = f"{middle:.3g} ({low:.3g} to {high:.3g})"
    mark = "" if times.quiet else " ~"
    return (
        f"| {case.name} | {case.n_bytes / 1e6:.2f} | {ours_s * 1e3:.3g}{mark} | {case.n_bytes / 1e6 / ours_s:.3g} | "
        f"{' | '.join(cells)} |"
    )


def stages(name: str, text: str, vocab_size: int) -> str:
    """Where the time goes: each kernel alone, in megabytes of text per second."""
    raw = np.frombuffer(text.encode(), np.uint8)
    piece = np.array([raw.size])
    ends = cut(raw, piece)
    words, which = distinct(raw, ends)
    tok = BPE.train(text, vocab_size)
    n = vocab_size - 256
    times = harness.compare(
        {
            "cut": lambda: cut(raw, piece),
            "distinct": lambda: distinct(raw, ends),
            "learn": lambda: learn(raw, words, TOKEN_OF_BYTE, n, 2),
            "merge": lambda: encode_words(raw, words, which, TOKEN_OF_BYTE, tok._table),
        },
        n_threads=1,
        rounds=7,
        limit_s=1.5,
    )
    cells = [f"{raw.size / 1e6 / times.median(k):.3g}" for k in times.seconds]
    return f"| {name} | {ends.size:,} | {words.size:,} | {' | '.join(cells)} |"


FIRST_CALL = """
import time
start = time.process_time()
from bigmodel_lab.text import BPE
middle = time.process_time()
BPE.train("aa bb aa bb", 258).encode("aa bb")
print(middle - start, time.process_time() - middle)
"""


def first_calls() -> str:
    """CPU seconds of the first training and encoding in a new process: compiling, then from the cache."""
    with tempfile.TemporaryDirectory() as cache:
        runs = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", FIRST_CALL],
                env=os.environ | {"NUMBA_CACHE_DIR": cache},
                capture_output=True,
                text=True,
                check=True,
            )
            runs.append([float(x) for x in done.stdout.split()])
    return (
        f"First call in a new process: {runs[0][1]:.1f} s of compiling; afterwards {runs[1][1]:.2f} s from numba's cache, "
        f"and {runs[1][0]:.2f} s for the import."
    )


HEADER = """\
| task | text (MB) | ours (ms) | ours (MB/s) | tokenizers / ours (quartiles) | tiktoken / ours | plain Python / ours |
|---|--:|--:|--:|--:|--:|--:|"""


def report(quick: bool):
    """Yield the lines of the report as they are found."""
    yield from harness.opening(
        "Byte-pair encoding beside tokenizers, tiktoken and plain Python",
        quick,
        f"tokenizers {tokenizers.__version__}, tiktoken {tiktoken.__version__}",
    )
    yield (
        "A ratio above 1 means that ours is faster; medians over rounds in which the candidates take turns, in CPU time "
        "with one thread. All candidates gave the same merges or ids, which was checked first. Training goes from the text "
        "to the merges, encoding from a string to the ids. tokenizers also works out where in the text each token stands, "
        "which we do not."
    )
    yield ""
    yield HEADER
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with harness.threads(1):
        for case in cases(quick):
            yield row(case, 1, quick=quick)
    if quick:
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    yield ""
    yield (
        "Training in wall time, where tokenizers works on the documents with all cores and we with one "
        "(~: disturbed by other programs):"
    )
    yield ""
    yield HEADER
    chapters = data.load("moby-dick").documents[:60]
    yield row(training("60 chapters of the novel", chapters, 8192), os.cpu_count(), quick=quick)
    yield ""
    yield "Where our time goes, each step alone, in MB of text per second with 8,192 ids:"
    yield ""
    yield "| text | words | distinct words | cut | count distinct words | learn merges | merge and write ids |"
    yield "|---|--:|--:|--:|--:|--:|--:|"
    yield stages("English novel", data.load("moby-dick").text, 8192)
    yield stages("Chinese poems", data.load("tang-poems").text[:300_000], 8192)
    yield ""
    yield first_calls()


if __name__ == "__main__":
    harness.main(report, __doc__)
