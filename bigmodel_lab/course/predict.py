"""Predict, then measure: the reader's numbers, written before anything runs, and how far off they were.

The guesses and what was measured live in one small JSON file, `predictions.json` in $BIGMODEL_LAB_HOME (default
~/.bigmodel-lab), so that a later chapter can plot all of them. A guess counts if it was written before the first
measurement; a later one is kept as "after the fact" and never scored. Delete the file to begin again.
"""

import contextlib
import json
import math
import os
import textwrap
from pathlib import Path
from statistics import median

from bigmodel_lab.errors import require_choice
from bigmodel_lab.files import home, write_atomically

FIELDS = {"question": str, "unit": str, "guess": float, "measured": float, "after_the_fact": float}


def predict(key: str, guess: float | None, unit: str, question: str) -> None:
    """Write down a guess and print it.

    Parameters
    ----------
    key : name of the prediction, chapter first, such as "c05-accuracy"
    guess : the reader's number in `unit`; None while there is none
    unit : unit of the number, "1" for a pure number
    question : what is asked, one sentence

    Raises TypeError or ValueError for a guess that is no finite number.
    """
    guess = None if guess is None else _number("guess", guess)
    with _ledger() as entries:
        entry = entries.setdefault(key, {})
        entry.update(question=question, unit=unit)
        late = guess is not None and "measured" in entry and guess != entry.get("guess")
        if late:
            entry["after_the_fact"] = guess
        elif guess is not None:
            entry["guess"] = guess
    if guess is None:
        text = (
            f"no guess written: {question} Put your number ({unit}) in place of None and run this "
            "cell again."
        )
    else:
        said = " It is after the fact and is not scored." if late else ""
        text = f"your guess: {guess:.4g} ({unit}). {question}{said}"
    print(textwrap.fill(text, 84, subsequent_indent="  ", break_long_words=False))


def measured(key: str, value: float) -> None:
    """Keep the measured value of a prediction and print it beside the guess.

    Raises ValueError where nothing of that key was predicted, TypeError or ValueError for a value that is no finite
    number.
    """
    value = _number("value", value)
    with _ledger() as entries:
        require_choice("key", key, entries)
        entry = entries[key]
        entry["measured"] = value
    found = f"measured {value:.4g}"
    if "guess" not in entry:
        print(f"no guess written; {found} ({entry['unit']})")
    else:
        print(
            f"your guess: {entry['guess']:.4g} ({entry['unit']}); {found}; {_verdict(entry['guess'], value)}"
        )


def ratios() -> dict[str, float]:
    """Return guess / measured of every scored prediction, by key, in the order in which they were asked.

    Where either is zero or they differ in sign no ratio exists, and the prediction is left out.
    """
    with _ledger(write=False) as entries:
        pairs = {
            k: (e["guess"], e["measured"])
            for k, e in entries.items()
            if "guess" in e and "measured" in e
        }
    return {k: g / m for k, (g, m) in pairs.items() if g * m > 0}


def calibration(ax=None):
    """Draw guess / measured of every scored prediction on a log axis, print the scores, and return the axes.

    The band holds the guesses that are within a factor of 2; the scores are their share and the median factor by
    which a guess is off, either way.
    """
    scored = ratios()
    factors = [max(r, 1 / r) for r in scored.values()]
    if factors:
        near = sum(f <= 2 for f in factors)
        print(
            f"{near} of {len(factors)} guesses ({near / len(factors):.0%}) within a factor of 2; "
            f"the median guess is off by a factor of {median(factors):.2g}"
        )
    else:
        print("no prediction has both a guess and a measurement yet")
    return _draw(scored, ax)


def _draw(scored, ax):
    from bigmodel_lab import show

    if ax is None:
        from matplotlib import pyplot as plt

        _, ax = plt.subplots(figsize=(6, 1.5 + 0.3 * len(scored)))
    factor = 1.3 * max([3.0, *scored.values(), *(1 / r for r in scored.values())])
    ax.set(xscale="log", xlim=(1 / factor, factor), ylim=(max(len(scored), 1) - 0.5, -0.5))
    ax.axvspan(0.5, 2, color=show.STYLE["reference"]["color"], alpha=0.15, lw=0)
    ax.axvline(1, **show.STYLE["reference"])
    ax.plot(list(scored.values()), range(len(scored)), "o", color=show.STYLE["measured"]["color"])
    ax.set_yticks(range(len(scored)), list(scored))
    if factor < 20:
        marks = [m for m in (0.1, 0.25, 0.5, 1, 2, 4, 10) if 1 / factor <= m <= factor]
    else:  # whole decades, and no more than the axis has room for
        decades = math.floor(math.log10(factor))
        marks = [10.0**d for d in range(-decades, decades + 1) if d % (1 + decades // 5) == 0]
    ax.set_xticks(marks, [f"{m:g}x" for m in marks])
    ax.minorticks_off()
    return show.finish(ax, "guess / measured (1)")


def _verdict(guess: float, value: float) -> str:
    if guess == value:
        return "exactly right"
    if guess * value <= 0:
        return f"off by {abs(value - guess):.3g}"
    factor = max(guess / value, value / guess)
    if factor < 1.1:
        return "right to within 10 %"
    return f"ratio {factor:.2g}x, too {'low' if abs(guess) < abs(value) else 'high'}"


def _number(name: str, value) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = None
    if number is None or isinstance(value, str):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number}.")
    return number


@contextlib.contextmanager
def _ledger(write: bool = True):
    """Give the ledger's entries; what the block changes is written back at once, or not at all.

    Two notebooks may run side by side: the file is locked meanwhile, where the system has locks. Raises OSError that
    names the way out where the folder cannot be written.
    """
    folder = home()
    path = folder / "predictions.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / ".lock", "a") as lock:
            _lock(lock)
            entries = _read(path)
            yield entries
            if write:
                text = json.dumps(
                    {"version": 1, "predictions": entries}, indent=1, ensure_ascii=False
                )
                write_atomically(path, text.encode())
    except OSError as error:
        raise OSError(
            f"the ledger of predictions cannot be written ({error.strerror}): "
            "set BIGMODEL_LAB_HOME to a folder of your own."
        ) from error


def _lock(file) -> None:
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX)  # given back when the file closes
    except (ImportError, OSError):  # Windows; a network file system without locks
        pass


def _read(path: Path) -> dict[str, dict]:
    if not path.exists():
        return {}
    try:
        entries = json.loads(path.read_text("utf-8"))["predictions"]
        whole = all(isinstance(v, FIELDS[k]) for e in entries.values() for k, v in e.items())
        if whole and all({"question", "unit"} <= e.keys() for e in entries.values()):
            return entries
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    aside = next(
        p
        for n in range(1, 1000)
        if not (p := path.with_name(f"{path.name}.damaged{'' if n == 1 else n}")).exists()
    )
    os.replace(path, aside)
    print(
        f"the ledger of predictions was damaged: it is kept as {aside.name}, and a new one begins"
    )
    return {}
