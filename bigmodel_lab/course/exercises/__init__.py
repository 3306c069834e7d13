"""The registry of exercises: one module a chapter, found by its name and imported when first asked for.

A chapter's module, such as `c05.py`, holds a tuple EXERCISES. A complete small one, which the tests run:

    import numpy as np

    from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect

    STUB = '''
    def mean_square(x):
        \"\"\"Return the mean of the squares of x (N,), as a float.\"\"\"
        ...
    '''

    def mean_square(x):  # bears the stub's name: the reader can paste it
        return float((x**2).mean())

    def _sum(x):  # wrong answers people really give
        return float((x**2).sum())

    def _square_of_mean(x):
        return float(x.mean() ** 2)

    def _root(x):
        return float(np.sqrt((x**2).mean()))

    def _check(fn):
        for x in (np.array([1.0, 3.0]), np.arange(7.0)):  # smallest case first: it is what a miss shows
            got, want = fn(x), mean_square(x)
            case = dict(given={"x": x}, got=got, want=want)
            if np.isclose(got, x.mean() ** 2):
                raise Miss("that is the square of the mean: square first, then average.", **case)
            if np.isclose(got, want**0.5):
                raise Miss("that is the root of it: leave out the square root.", **case)
            expect("the mean square", got, want, 1e-12, given={"x": x}, batch=len(x))
        return "two vectors, against the formula"  # optional: what a pass means

    EXERCISES = (
        Exercise(
            id="c99-a",
            title="Mean square",
            difficulty=1,
            minutes=5,
            stub=STUB,
            reference=mean_square,
            wrong=(
                Wrong(_sum, "a mean is a sum", "a sum where the mean is meant"),
                Wrong(_square_of_mean, "squaring and averaging commute", "square first"),
                Wrong(_root, "a mean square is a root mean square", "leave out the square root"),
            ),
            hints=("What is the unit of the result, if x is in metres?", "x has N entries."),
            check=_check,
            uses=("numpy.square",),  # such as "bigmodel_lab.ops.linear.linear_backward"
        ),
    )

Rules that tests/course/test_exercises.py holds every exercise to: the stub grades as not attempted; the reference
passes; at least three wrong answers, each caught with its own message; the grade is the same when the library
functions named in `uses` raise, so that it is the reader's function that was graded; and the cell in the notebook
is `Exercise.cell` or `Exercise.stub`, letter by letter.
"""

import ast
import importlib
import inspect
import pkgutil
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bigmodel_lab.course.compare import difference
from bigmodel_lab.errors import require_choice, require_in_range


@dataclass(frozen=True)
class Wrong:
    """A wrong answer that people really give, and what its grade must say."""

    fn: Callable
    misconception: str  # what someone who writes this believes
    message: str  # a fragment that the message must contain, and no other wrong answer's


@dataclass(frozen=True)
class Exercise:
    """One exercise; the module's docstring shows a complete one."""

    id: str  # chapter, dash, letter: "c05-a"
    title: str
    difficulty: int  # 1: a line or two, 2: a derivation, 3: an idea of your own
    minutes: int  # for a reader who followed the chapter
    stub: str  # source of the notebook's cell; its last function is the one graded
    reference: Callable  # bears the stub's name
    wrong: tuple[Wrong, ...]
    hints: tuple[str, ...]  # each says a little more than the one before
    check: Callable[[Callable], str | None]  # raises Miss; may return what was checked
    uses: tuple[str, ...] = ()  # dotted names of library functions that do the reader's task
    inplace: bool = False  # changes its arguments on purpose; the stub must then raise
    limit_s: float = 10.0  # processor seconds for one grade

    def __post_init__(self):
        object.__setattr__(self, "stub", textwrap.dedent(self.stub).strip())
        if not re.fullmatch(r"[cL]\d\d-[a-z]", self.id):
            raise ValueError(f"id must look like c05-a or L02-b, got {self.id!r}.")
        require_in_range(f"difficulty of {self.id}", self.difficulty, 1, 3)
        require_in_range(f"minutes of {self.id}", self.minutes, 1, 240, unit="min")
        if self.reference.__name__ != self.name:
            raise ValueError(
                f"{self.id}: the stub's last function is {self.name} and the reference is "
                f"{self.reference.__name__}: give both one name, so that a reader can paste the solution."
            )

    @property
    def name(self) -> str:
        """Name of the function that is graded: the stub's last top-level function."""
        names = [
            node.name for node in ast.parse(self.stub).body if isinstance(node, ast.FunctionDef)
        ]
        if not names:
            raise ValueError(f"{self.id}: the stub defines no function.")
        return names[-1]

    @property
    def cell(self) -> str:
        """Source of the notebook's cell where the call of `grade` sits below the stub."""
        return f'{self.stub}\n\n\ngrade("{self.id}", {self.name})'

    @property
    def solution_source(self) -> str:
        """Source text of the reference."""
        return textwrap.dedent(inspect.getsource(self.reference)).strip()


class Miss(Exception):
    """Raised by a check: what is wrong with the answer, in the reader's terms, and the smallest case that shows it.

    message : names the misconception
    given : the arguments of the case, by name
    got, want : what the function returned, and what is right; both or neither
    """

    def __init__(self, message: str, *, given: Mapping | None = None, got=None, want=None):
        case = f" For {', '.join(f'{k}={show(v)}' for k, v in given.items())}" if given else ""
        if want is not None:
            case += f"{' your' if case else ' Your'} function returns {show(got)}; right is {show(want)}"
        super().__init__(f"{message}{case}{'.' if case else ''}")


def expect(
    name: str,
    got,
    want,
    tol: float,
    *,
    given: Mapping | None = None,
    batch: int | None = None,
    same_dtype: bool = False,
):
    """Raise Miss, in the words of `compare`, unless `got` agrees with `want`; arguments as there."""
    miss = difference(name, got, want, tol, batch=batch, same_dtype=same_dtype)
    if miss:
        small = given is not None and np.size(want) <= 16
        raise Miss(miss, given=given, got=got if small else None, want=want if small else None)


def show(value) -> str:
    """Return a short text for a value: small arrays in full, on one line; large ones by dtype and shape."""
    if hasattr(value, "detach"):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray):
        if value.size > 16:
            return f"<{value.dtype} array of shape {value.shape}>"
        return show(value.tolist())
    if isinstance(value, float | np.floating):
        return f"{value:.6g}"
    if isinstance(value, tuple | list):
        inner = ", ".join(show(v) for v in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def chapters() -> list[str]:
    """Return the names of the chapters that have exercises, such as "c05"."""
    return sorted(
        m.name for m in pkgutil.iter_modules(__path__) if re.fullmatch(r"[cL]\d\d", m.name)
    )


def of_chapter(chapter: str) -> tuple[Exercise, ...]:
    """Return the exercises of one chapter, easiest first as its module lists them."""
    require_choice("chapter", chapter, chapters())
    return importlib.import_module(f"{__name__}.{chapter}").EXERCISES


def get(exercise_id: str) -> Exercise:
    """Return the exercise `exercise_id`; a name that does not exist is answered with the ones that do."""
    chapter = str(exercise_id).partition("-")[0]
    known = {e.id: e for e in of_chapter(chapter)} if chapter in chapters() else {}
    if not known:
        known = {e.id: e for name in chapters() for e in of_chapter(name)}
    return known[require_choice("exercise", exercise_id, known)]
