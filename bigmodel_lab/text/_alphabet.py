"""GPT-2's order of the 256 bytes, and its way to write any bytes as printable characters.

The 188 bytes that print in Latin-1 stand for themselves and come first; the other 68, in order, are written as the
characters from U+0100 on. So the space, byte 32, is U+0120, a G with a dot above, and token number 220.

Source: the code published with Radford et al. (2019). `tokenizers` sorts its alphabet the same way.
"""

BYTE_ORDER = [*range(33, 127), *range(161, 173), *range(174, 256)]
N_PRINTING = len(BYTE_ORDER)
BYTE_ORDER += [byte for byte in range(256) if byte not in BYTE_ORDER]

CHARACTER = {
    byte: chr(byte if i < N_PRINTING else 0x100 + i - N_PRINTING)
    for i, byte in enumerate(BYTE_ORDER)
}
BYTE = {character: byte for byte, character in CHARACTER.items()}


def printable(token: bytes) -> str:
    """b" the" as the string in which GPT-2's files have it, without spaces or control characters."""
    return "".join(map(CHARACTER.__getitem__, token))


def from_printable(text: str) -> bytes:
    """The inverse of `printable`. Raises ValueError for a character that stands for no byte."""
    try:
        return bytes(map(BYTE.__getitem__, text))
    except KeyError as e:
        raise ValueError(f"{text!r} has {e.args[0]!r}, which stands for no byte.") from None
