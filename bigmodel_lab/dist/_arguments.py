"""What `dist.run` accepts: every check that can be made before a rank is started, and who cannot be sent to one."""

import inspect
import math
import numbers
import types

import cloudpickle

MAX_RANKS = 64
OPTIONS = ("ranks", "timeout_s", "threads", "wait_s", "checks")


def check(fn, args: tuple, kwargs: dict, *, ranks, timeout_s, threads, wait_s=None) -> None:
    """Raise TypeError or ValueError that names the argument, the rule, the value and the way out."""
    if not callable(fn):
        raise TypeError(
            f"fn must be a function, got {type(fn).__name__}: write dist.run(f, x), not dist.run(f(x))."
        )
    for name, value, otherwise in (
        (
            "ranks",
            ranks,
            "each rank is a process of its own; use torchrun to spread more over machines",
        ),
        (
            "threads",
            threads,
            "each rank starts that many, and more than the cores only slow each other down",
        ),
    ):
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(f"{name} must be a whole number, got {value!r}.")
        if not 1 <= value <= MAX_RANKS:
            raise ValueError(f"{name} must be between 1 and {MAX_RANKS}, got {value}: {otherwise}.")
    for name, seconds in {"timeout_s": timeout_s, "wait_s": wait_s}.items():
        if name == "wait_s" and seconds is None:
            continue
        if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
            raise TypeError(f"{name} must be a number of seconds, got {seconds!r}.")
        if not 0 < seconds < math.inf:
            raise ValueError(f"{name} must be a positive number of seconds, got {seconds}.")
    _check_call(fn, args, kwargs)


def _check_call(fn, args: tuple, kwargs: dict) -> None:
    """Check that fn(*args, **kwargs) is possible, and that no option was meant for a parameter of fn."""
    try:
        signature = inspect.signature(fn)
    except ValueError:  # a function written in C that does not say what it takes
        return
    call = f"{getattr(fn, '__name__', 'fn')}{signature}"
    for position, name in enumerate(signature.parameters):
        if name in OPTIONS and position >= len(args):
            raise TypeError(
                f"{call} has a parameter {name!r}, and so has dist.run, which keeps it to itself: "
                f"pass it by position, or let dist.run call a function of yours without it."
            )
    try:
        signature.bind(*args, **kwargs)
    except TypeError as e:
        raise TypeError(
            f"{call} cannot be called like this: {e}. "
            f"dist.run passes on everything but its own options {', '.join(OPTIONS)}."
        ) from None


def pack(value, named: dict) -> bytes:
    """Pickle `value`; raise TypeError naming which of its parts `named` {label: part}, and what in it, cannot travel."""
    try:
        return cloudpickle.dumps(value)
    except Exception as e:
        label = next((label for label, part in named.items() if not travels(part)), None)
        label, part = _culprit(label, named[label]) if label else ("the call", value)
        raise TypeError(
            f"{label}, of type {type(part).__name__}, cannot be sent to the ranks ({e}): "
            "create it in the code that the ranks run."
        ) from None


def travels(value) -> bool:
    """Whether `value` can be sent to another process."""
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def _culprit(label: str, value, depth: int = 8):
    """Return the innermost part of `value` that cannot be pickled, with a name for it that the reader knows."""
    for inner_label, inner in _parts(label, value) if depth else ():
        if not travels(inner):
            return _culprit(inner_label, inner, depth - 1)
    return label, value


def _parts(label: str, value):
    if isinstance(value, types.FunctionType):
        for name in sorted(_names(value.__code__) & value.__globals__.keys()):
            yield f"the global {name!r} that {value.__name__} uses", value.__globals__[name]
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if cell != types.CellType():  # an empty one: a variable that has no value yet
                yield f"the variable {name!r} that {value.__name__} captured", cell.cell_contents
    elif isinstance(value, dict):
        yield from ((f"{label}[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, list | tuple):
        yield from ((f"{label}[{i}]", part) for i, part in enumerate(value))
    else:
        yield from (
            (f"{label}.{name}", part) for name, part in getattr(value, "__dict__", {}).items()
        )


def _names(code: types.CodeType) -> set[str]:
    return set(code.co_names).union(
        *(_names(c) for c in code.co_consts if isinstance(c, types.CodeType))
    )
