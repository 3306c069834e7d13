"""What operations that slide a window over an image share: their pairs of numbers and the size of what comes out."""

from operator import index

from bigmodel_lab.errors import require_in_range


def pair(name: str, value, low: int) -> tuple[int, int]:
    """Return (vertical, horizontal) for a whole number that serves as both or a pair of them, each at least `low`."""
    values = value if isinstance(value, tuple | list) else (value, value)
    try:
        vertical, horizontal = (index(v) for v in values)
    except (TypeError, ValueError):
        raise ValueError(
            f"{name} must be a whole number, or a pair of them for the vertical and the horizontal, got {value!r}."
        ) from None
    require_in_range(name, min(vertical, horizontal), low)
    return vertical, horizontal


def n_windows(image, kernel, stride, padding) -> tuple[int, int]:
    """Return how many positions of the window fit vertically and horizontally; all arguments are pairs.

    Raises ValueError if the window does not fit into the padded image.
    """
    for side, size, k, p in zip(("high", "wide"), image, kernel, padding, strict=True):
        if k > size + 2 * p:
            padded = f" + 2 * {p} of padding" if p else ""
            raise ValueError(
                f"The window is {k} {side} and the image {size}{padded}: it must fit at least once. "
                "Make the kernel smaller or the padding larger."
            )
    rows, columns = (
        (size + 2 * p - k) // s + 1
        for size, k, s, p in zip(image, kernel, stride, padding, strict=True)
    )
    return rows, columns
