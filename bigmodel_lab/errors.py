"""Argument checks whose message says which argument, what must hold, what arrived and the way out.

Every public function checks its arguments with these before any kernel runs: a kernel that is handed an array of the
wrong shape raises nothing and returns a different wrong number from run to run.
"""

from collections.abc import Collection
from difflib import get_close_matches

import numpy as np


def require_shape(name: str, x, dims: str, **known: int) -> dict[str, int]:
    """Check that the array `x` has the dimensions `dims` and return their lengths by letter.

    Parameters
    ----------
    name : the argument's name, for the message
    x : array
    dims : dimension letters separated by spaces, such as "N D"; "" for a scalar array
    known : lengths that are already fixed, such as D=64

    Returns
    -------
    dict from letter to length, in the order of `dims`

    Raises TypeError if `x` is not an array and ValueError if a dimension differs.
    """
    if not isinstance(x, np.ndarray):
        raise TypeError(
            f"{name} must be a NumPy array, got {type(x).__name__}: wrap it in np.asarray(...)."
        )
    letters = dims.split()
    lengths = dict(zip(letters, x.shape, strict=False))
    repeated = x.ndim == len(letters) and any(
        x.shape[i] != lengths[d] for i, d in enumerate(letters)
    )
    wrong = {d: n for d, n in lengths.items() if known.get(d, n) != n}
    if x.ndim == len(letters) and not wrong and not repeated:
        return lengths
    want = f"{name} must have shape ({', '.join(letters)})"
    fixed = ", ".join(f"{d}={known[d]}" for d in dict.fromkeys(letters) if d in known)
    got = ", ".join(f"{d}={n}" for d, n in wrong.items())
    if repeated and not got:
        twice = next(d for i, d in enumerate(letters) if x.shape[i] != lengths[d])
        got = f"more than one length for {twice}"
    got = got or f"{x.ndim} dimension{'s' if x.ndim != 1 else ''}"
    raise ValueError(f"{want}{f' with {fixed}' if fixed else ''}, got {got}: {x.shape}.")


def require_float(name: str, *arrays) -> None:
    """Check that every array is floating point and that they share one dtype."""
    dtypes = {a.dtype for a in arrays}
    if any(d.kind != "f" for d in dtypes):
        bad = next(d for d in dtypes if d.kind != "f")
        raise TypeError(
            f"{name} must be floating point, got dtype {bad}: convert with .astype(np.float32)."
        )
    if len(dtypes) > 1:
        raise TypeError(
            f"{name} must share one dtype, got {sorted(map(str, dtypes))}: convert the others with .astype(...)."
        )


def require_in_range(
    name: str, value: float, low: float, high: float = np.inf, *, unit: str = ""
) -> float:
    """Check low <= value <= high and return the value; NaN is out of every range."""
    if not low <= value <= high:
        rule = f"at least {low}" if high == np.inf else f"between {low} and {high}"
        raise ValueError(f"{name} must be {rule}{f' {unit}' if unit else ''}, got {value}.")
    return value


def require_choice(name: str, value, choices: Collection):
    """Check that `value` is one of `choices` and return it; the message offers the nearest spelling."""
    if value in choices:
        return value
    spelled = {str(choice).lower(): str(choice) for choice in choices}
    near = get_close_matches(str(value).lower(), spelled, n=1)
    hint = f" Did you mean {spelled[near[0]]!r}?" if near else ""
    raise ValueError(
        f"{name} must be one of {', '.join(map(repr, sorted(choices, key=str)))}, got {value!r}.{hint}"
    )
