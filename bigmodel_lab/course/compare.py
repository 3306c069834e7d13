"""Compare two arrays in one line that teaches: what is wrong, and where, rather than that something is.

Two arrays agree when the largest difference is at most `tol` times the largest entry of the expected one:

    max |got - want|  <=  tol * max |want|          (tol itself where `want` is all zero)

One relative error for the whole array, not one per entry: an entry that should be 0 and is 1e-17 is not an error.
"""

import numpy as np

from bigmodel_lab.errors import require_in_range


def compare(name: str, got, want, tol: float, *, batch: int | None = None) -> bool:
    """Print one line on how `got` compares with `want` and return whether they agree.

    Parameters
    ----------
    name : what is compared, for the line
    got, want : arrays, numbers or CPU tensors; `want` is taken to be right
    tol : largest relative error, dimensionless; 0 asks for equality
    batch : number of samples, so that a sum taken for a mean can be called by its name

    The line for arrays that agree does not print the difference: below the tolerance it depends on the
    machine and the number of threads, and a stored output must not.
    """
    miss = difference(name, got, want, tol, batch=batch)
    if miss is None:
        verdict = (
            f"agrees to a relative error of {tol:g}" if tol else "equals what is expected exactly"
        )
        shape = np.shape(_array(want))
        print(f"{name} {verdict}{f' (shape {shape})' if shape else ''}")
    else:
        print(miss)
    return miss is None


def difference(
    name: str, got, want, tol: float, *, batch: int | None = None, same_dtype: bool = False
) -> str | None:
    """Say how `got` misses `want`, or return None where they agree; arguments as for `compare`.

    same_dtype : also ask for the dtype of `want`, after the values agree

    The likely mistakes are tried first (wrong shape, transposed, not summed over the batch, NaN, sign, a constant
    factor, a constant offset); where none fits, the sentence names the largest miss and its place.
    """
    require_in_range("tol", tol, 0)
    want = _array(want)
    try:
        got = _array(got)
    except (TypeError, ValueError):
        return f"{name} must be an array of numbers, got {type(got).__name__}."
    if got.dtype.kind not in "biuf":
        kind = f"an array of {got.dtype}" if got.ndim else type(got.item()).__name__
        return f"{name} must be {'an array of real numbers' if want.ndim else 'a real number'}, got {kind}."
    g, w = got.astype(np.float64), want.astype(np.float64)
    limit = tol * (np.abs(w[np.isfinite(w)]).max(initial=0.0) or 1.0)
    if g.shape != w.shape:
        return _shape_miss(name, g, w, limit)
    bad = np.argwhere(~np.isfinite(g) & (g != w) & ~(np.isnan(g) & np.isnan(w)))
    if len(bad):
        kind = "NaN" if np.isnan(g[tuple(bad[0])]) else "infinite"
        if not g.ndim:
            return f"{name} is {kind}."
        return f"{name} has {len(bad)} of {g.size} entries NaN or infinite; the first, {kind}, at {_at(bad[0])}."
    if not _close(g, w, limit):
        return _value_miss(name, g, w, limit, tol, batch)
    if same_dtype and got.dtype != want.dtype:
        return f"{name} has the right values but dtype {got.dtype}: it should keep {want.dtype}."
    return None


def _shape_miss(name, g, w, limit) -> str:
    wrong = f"{name} has shape {g.shape} and should have {w.shape}"
    if g.ndim == 2 and _close(g.T, w, limit):
        return f"{wrong}: it is transposed."
    if g.size == w.size and _close(g.reshape(w.shape), w, limit):
        return f"{wrong}: the numbers are right, reshape them."
    for axis in range(g.ndim):
        for how in ("summed", "averaged"):
            folded = g.sum(axis) if how == "summed" else g.mean(axis)
            if _close(folded, w, limit):
                return f"{wrong}: it was not {how} over axis {axis}, of length {g.shape[axis]}."
    return f"{wrong}."


def _value_miss(name, g, w, limit, tol, batch) -> str:
    if np.isfinite(g).all() and np.isfinite(w).all():
        norm = (w * w).sum()
        ratio = (g * w).sum() / norm if norm else 0.0
        if ratio and _close(g, ratio * w, abs(ratio) * max(limit, 1e-12)):
            return f"{name} is {_factor(ratio, batch)}"
        if g.ndim == 2 and g.shape[0] == g.shape[1] and _close(g.T, w, limit):
            return f"{name} is transposed."
        shift = (g - w).mean()
        if g.size > 1 and _close(g - shift, w, limit):
            return f"{name} is {abs(shift):.3g} too {'large' if shift > 0 else 'small'} in every entry."
    with np.errstate(invalid="ignore"):
        off = np.where((g == w) | (np.isnan(g) & np.isnan(w)), 0.0, np.abs(g - w))
    worst = np.unravel_index(off.argmax(), off.shape)  # argmax takes a NaN for the largest
    many = f"{(~(off <= limit)).sum()} of {g.size} entries are off; the largest miss is at {_at(worst)}, "
    place = many if g.ndim else ""
    return (
        f"{name} differs: {place}{g[worst]:.6g} where {w[worst]:.6g} is right "
        f"(tolerance {tol:g} of the largest entry)."
    )


def _factor(ratio: float, batch: int | None) -> str:
    sign = "sign flipped" if ratio < 0 else ""
    size = abs(ratio)
    if abs(size - 1) < 1e-6:
        return f"{sign}: every entry is minus what it should be."
    up = size > 1
    times = size if up else 1 / size
    whole = abs(times - round(times)) < 1e-6 * times
    factor = f"{round(times)}" if whole else f"{times:.4g}"
    why = ""
    if whole and batch == round(times):
        why = ": that is the batch size, " + (
            "a sum where the mean is meant" if up else "a mean where the sum is meant"
        )
    elif whole and round(times) == 2:
        why = ": look for a square or a one-half"
    direction = "large" if up else "small"
    return f"{factor} times too {direction} in every entry{f', {sign}' if sign else ''}{why}."


def _array(x) -> np.ndarray:
    return np.asarray(x.detach() if hasattr(x, "detach") else x)


def _close(g, w, limit) -> bool:
    """Same shape, and no entry further off than `limit`; NaN and infinities must be in the same places."""
    if g.shape != w.shape:
        return False
    with np.errstate(invalid="ignore"):
        return bool(np.all((np.abs(g - w) <= limit) | (g == w) | (np.isnan(g) & np.isnan(w))))


def _at(index) -> str:
    return f"[{', '.join(str(int(i)) for i in index)}]"
