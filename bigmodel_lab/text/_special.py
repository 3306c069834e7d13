"""Special tokens: strings such as "<|end|>" that stand for one id and are never made from the bytes of a text."""

import re
from collections.abc import Collection, Iterator

from bigmodel_lab.text._pretokenise import to_utf8


def require_special(tokens: Collection[str]) -> tuple[str, ...]:
    """Check that `tokens` are distinct strings, not empty, fit for UTF-8, and return them as a tuple."""
    if isinstance(tokens, str):
        raise TypeError(
            f"special_tokens must be a collection of strings, got the string {tokens!r}: write ({tokens!r},)."
        )
    tokens = tuple(tokens)
    for i, token in enumerate(tokens):
        if not isinstance(token, str):
            raise TypeError(f"special_tokens[{i}] must be a string, got {token!r}.")
        if not token:
            raise ValueError(f"special_tokens[{i}] is empty: it would be found everywhere.")
        if token in tokens[:i]:
            raise ValueError(f"special_tokens[{i}]={token!r} is there twice.")
        to_utf8(f"special_tokens[{i}]", token)
    return tokens


def choose(name: str, chosen: Collection[str] | str, special: Collection[str]) -> frozenset[str]:
    """Those of the `special` tokens that an argument of `encode` names: "all" or a collection of them."""
    if isinstance(chosen, str):
        if chosen == "all":
            return frozenset(special)
        raise TypeError(
            f'{name} must be "all" or a collection of special tokens, got the string {chosen!r}: '
            f"write ({chosen!r},)."
        )
    if unknown := [token for token in chosen if token not in special]:
        raise ValueError(
            f"{name} has {unknown[0]!r}, which is none of this tokenizer's special tokens: {tuple(special)}."
        )
    return frozenset(chosen)


def occurrences(text: bytes, tokens: Collection[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, token) for each of `tokens` in `text`, from the left; of two that start together the longer."""
    wanted = {token.encode(): token for token in tokens}
    wanted = {raw: token for raw, token in wanted.items() if raw in text}  # far faster than `re`
    if wanted:
        longest_first = sorted(wanted, key=len, reverse=True)
        for match in re.finditer(b"|".join(map(re.escape, longest_first)), text):
            yield match.start(), match.end(), wanted[match[0]]


def split(text: bytes, tokens: Collection[str]) -> tuple[list[bytes], list[str]]:
    """What stands between the `tokens` in `text`, and these: piece, token, piece, ..., token, piece."""
    pieces, found, start = [], [], 0
    for stop, end, token in occurrences(text, tokens):
        pieces.append(text[start:stop])
        found.append(token)
        start = end
    return [*pieces, text[start:]], found
