"""Grade a reader's function, hint, and show a solution: always plain words, never a traceback of ours.

The grader calls the reader's function, and nothing of the library that does the same. What is printed depends on the
function only: no times, no addresses.
"""

import contextlib
import inspect
import linecache
import re
import signal
import textwrap
import threading
import traceback
import warnings
from dataclasses import dataclass

import numpy as np

from bigmodel_lab.course import exercises
from bigmodel_lab.course.exercises import Exercise, Miss, show

NOTHING = (None, Ellipsis, NotImplemented)
_hints_given: dict[str, int] = {}


@dataclass(frozen=True)
class Grade:
    """What `grade` found; true if passed. As the last line of a cell it shows nothing: it has been printed."""

    id: str
    status: str  # "not attempted", "not yet" or "passed"
    message: str

    def __bool__(self) -> bool:
        return self.status == "passed"

    def __str__(self) -> str:
        return f"{self.id} {self.status}: {self.message}"

    def _ipython_display_(self) -> None:
        pass


def grade(exercise_id: str, fn) -> Grade:
    """Check the function `fn` as an answer to an exercise, print the result and return it.

    Raises ValueError for an exercise that does not exist; whatever `fn` does becomes a sentence.
    """
    result = _grade(exercises.get(exercise_id), fn)
    _print(str(result))
    return result


def hint(exercise_id: str, number: int | None = None) -> None:
    """Print the next hint, or hint `number`, counted from 1."""
    exercise = exercises.get(exercise_id)
    total = len(exercise.hints)
    number = _hints_given.get(exercise_id, 0) + 1 if number is None else number
    if not 1 <= number <= total:
        print(f'{exercise_id} has {total} hints; solution("{exercise_id}") shows an answer.')
        return
    _hints_given[exercise_id] = number
    _print(f"{exercise_id} hint {number} of {total}: {exercise.hints[number - 1]}")


def solution(exercise_id: str) -> None:
    """Print the source of an answer that passes."""
    print(exercises.get(exercise_id).solution_source)


def _print(text: str) -> None:
    print(textwrap.fill(text, 84, subsequent_indent="  ", break_long_words=False))


def _grade(exercise: Exercise, fn) -> Grade:
    def result(status, message):
        return Grade(exercise.id, status, message)

    if not callable(fn):
        call = f'grade("{exercise.id}", {exercise.name})'
        return result("not yet", f"pass the function itself, {call}; what arrived is {show(fn)}.")
    guard = _Guard(fn, exercise)
    try:
        with _time_limit(exercise.limit_s), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            checked = exercise.check(guard)
    except _Stop as stop:
        return result(stop.status, stop.message)
    except Miss as miss:
        also = f" (Python warned: {warned[0].message}.)" if warned else ""
        return result("not yet", f"{miss}{also}")
    except Exception as error:  # the check could not work with what it was given
        return result(
            "not yet",
            f"{exercise.name} returned {show(guard.last)}, which cannot be checked ({_say(error)}). "
            "Return what the docstring says.",
        )
    return result("passed", f"{exercise.title}. Checked: {checked or 'all cases'}.")


class _Stop(BaseException):
    """Ends a check at once. Not an Exception, so that an `except Exception` on the way does not swallow it."""

    def __init__(self, status: str, message: str):
        super().__init__(status, message)
        self.status, self.message = status, message


class _Guard:
    """The reader's function as a check sees it: errors, empty answers and changed arguments end the check."""

    def __init__(self, fn, exercise: Exercise):
        self.fn, self.exercise, self.last = fn, exercise, None
        self.__name__ = exercise.name

    def __call__(self, *args, **kwargs):
        name, inplace = self.exercise.name, self.exercise.inplace
        before = _copy((args, kwargs))
        try:
            self.last = value = self.fn(*args, **kwargs)
        except NotImplementedError:
            raise _Stop(
                "not attempted", f"{name} raises NotImplementedError. {self._how()}"
            ) from None
        except (Exception, SystemExit) as error:
            raise _Stop(
                "not yet", f"your function raised {_say(error)}{self._line(error)}."
            ) from None
        items = list(value.values()) if isinstance(value, dict) else value
        if (
            not inplace
            and isinstance(items, tuple | list)
            and items
            and all(_empty(v) for v in items)
        ):
            raise _Stop("not attempted", f"{name} returns only placeholders. {self._how()}")
        if not inplace and _empty(value):
            raise _Stop(
                "not attempted",
                f"{name} returned {value}. {self._how()} If you have, add a return.",
            )
        if not inplace and not _same(before, (args, kwargs)):
            raise _Stop(
                "not yet", f"{self._changed(before, args, kwargs)} Write the result to a new array."
            )
        return value

    def _how(self) -> str:
        return f"Fill in its body and run the cell again (about {self.exercise.minutes} minutes)."

    def _line(self, error) -> str:
        """Where in the reader's own code it happened: the innermost frame of the file that defines the function."""
        code = getattr(inspect.unwrap(self.fn), "__code__", None)
        lines = [
            f.lineno
            for f in traceback.extract_tb(error.__traceback__)
            if code and f.filename == code.co_filename
        ]
        if not lines:
            return ""
        source = linecache.getline(code.co_filename, lines[-1]).strip()
        return f" on line {lines[-1]}{f', {source}' if source else ''}"

    def _changed(self, before, args, kwargs) -> str:
        old_args, old_kwargs = before
        which = [i for i, a in enumerate(args) if not _same(old_args[i], a)]
        names = [k for k, v in kwargs.items() if not _same(old_kwargs[k], v)]
        with contextlib.suppress(TypeError, ValueError, IndexError):
            parameters = list(inspect.signature(self.fn).parameters)
            names = [parameters[i] for i in which] + names
        return (
            f"your function changes its argument{' ' + ', '.join(names) if names else ''} in place."
        )


def _empty(value) -> bool:
    return any(value is nothing for nothing in NOTHING)


def _say(error: BaseException) -> str:
    """An exception in one line, without addresses, which differ from run to run."""
    text = re.sub(r" at 0x[0-9a-f]+", "", " ".join(str(error).split()))
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _copy(x):
    """Copy arrays and what holds them; anything else (a generator, a function) is not watched."""
    if isinstance(x, np.ndarray):
        return x.copy()
    if hasattr(x, "detach"):
        return x.detach().clone()
    if isinstance(x, tuple | list):
        return [_copy(v) for v in x]
    if isinstance(x, dict):
        return {k: _copy(v) for k, v in x.items()}
    return None


def _same(old, x) -> bool:
    if isinstance(x, np.ndarray) or hasattr(x, "detach"):
        old, x = (np.asarray(v.detach() if hasattr(v, "detach") else v) for v in (old, x))
        return old.shape == x.shape and old.dtype == x.dtype and old.tobytes() == x.tobytes()
    if isinstance(x, tuple | list):
        return len(old) == len(x) and all(map(_same, old, x))
    if isinstance(x, dict):
        return list(old) == list(x) and all(_same(old[k], x[k]) for k in x)
    return True


@contextlib.contextmanager
def _time_limit(seconds: float):
    """End the block after `seconds` of processor time, so that a loop without end becomes a sentence.

    Processor time, not the clock: a busy machine must not fail a right answer. Only in the main thread (where a
    notebook's cells run) and only where the system has such a timer; compiled code is not interrupted.
    """
    usable = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    if not usable:
        yield
        return

    def stop(*_):
        raise _Stop(
            "not yet",
            f"your function did not finish within {seconds:g} s: is there a loop without an end?",
        )

    old = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(
        signal.ITIMER_VIRTUAL, seconds, 0.5
    )  # again every 0.5 s: a bare `except:` may swallow one
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, old)
