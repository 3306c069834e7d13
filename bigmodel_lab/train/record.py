"""RunRecord: what a training run measured, as one small JSON file with units.

`train` and `dist` write it, `plan` reads it, and nothing is typed over by hand. In the file each measured quantity is
{"value": ..., "unit": "..."}, so that nobody takes milliseconds for seconds. The record says what the machine can do,
not whose it is: no host name, user name or path goes into it.

Shapes: S = optimiser steps, W = ranks. First told in lab L02.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from bigmodel_lab.errors import require_in_range
from bigmodel_lab.files import write_atomically
from bigmodel_lab.train.machine import machine, versions

__all__ = ["STEPS_ELSEWHERE", "Layout", "RunRecord"]

SCHEMA = (
    1  # raised when a field changes its meaning; `RunRecord.load` refuses what it does not know
)
KIND = "bigmodel-lab run"
# The score of a run that went on in another layout: so many of its steps were before, and `sent_bytes` leaves them out.
STEPS_ELSEWHERE = "steps in another layout"


def _in(unit: str, **default):
    return field(metadata={"unit": unit}, **default)


@dataclass(frozen=True)
class Layout:
    """How one model is laid over the ranks; their number is the product of the three ways of being parallel."""

    dp: int = 1  # data parallel: replicas that share each batch
    tp: int = 1  # tensor parallel: ranks that share each matrix
    pp: int = 1  # pipeline parallel: stages
    zero: int = 0  # ZeRO stage 0-3: what the replicas shard between them

    def __post_init__(self):
        for name, low, high in (("dp", 1, 1e9), ("tp", 1, 1e9), ("pp", 1, 1e9), ("zero", 0, 3)):
            require_in_range(name, _whole(name, getattr(self, name)), low, high)

    @property
    def ranks(self) -> int:
        """Number of processes."""
        return self.dp * self.tp * self.pp


@dataclass(frozen=True)
class RunRecord:
    """What one run measured. Sequences become tuples and mappings copies; treat both as constants.

    Raises ValueError or TypeError if a field cannot be what its comment says.
    """

    model: str  # such as "MLP 784-128-10"
    parameters: int = _in("parameter")
    data: str  # such as "mnist"
    samples: int = _in("sample")  # processed in the whole run, over all ranks
    seed: int
    loss: tuple[float, ...] = _in("nat")  # (S,) of every step, over the global batch
    compute_s: tuple[float, ...] = _in("s")  # (S,) on rank 0
    communication_s: tuple[float, ...] = _in("s")  # (S,) on rank 0: what it added, waiting included
    sent_bytes: Mapping[str, tuple[int, ...]] = _in("byte")  # payload by collective, each (W,)
    layout: Layout = field(default_factory=Layout)
    dtype: str = "float32"  # of the parameters
    tokens: int | None = _in("token", default=None)  # None where the data are no text
    memory_bytes: Mapping[str, int] = _in("byte", default_factory=dict)  # by kind, largest rank
    scores: Mapping[str, float] = _in("1", default_factory=dict)  # such as "test accuracy"
    machine: Mapping[str, str | int] = field(default_factory=machine)
    versions: Mapping[str, str] = field(default_factory=versions)

    def __post_init__(self):
        def clean(check, *names):
            for name in names:  # object.__setattr__ is the way into a frozen dataclass
                object.__setattr__(self, name, check(name, getattr(self, name)))

        clean(_text, "model", "data", "dtype")
        clean(_whole, "parameters", "samples", "seed", *(["tokens"] * (self.tokens is not None)))
        clean(_row(_real), "loss", "compute_s", "communication_s")
        clean(_table(_row(_whole)), "sent_bytes")
        clean(_table(_whole), "memory_bytes")
        clean(_table(_real), "scores")
        clean(_table(lambda _, x: x), "machine", "versions")
        if not isinstance(self.layout, Layout):
            raise TypeError(f"layout must be a Layout, such as Layout(dp=2), got {self.layout!r}.")
        for name in ("compute_s", "communication_s"):
            _one_each(name, getattr(self, name), "a step, as loss has", self.steps)
            for x in getattr(self, name):
                require_in_range(name, x, 0, 1e9, unit="s")
        for name, by_rank in self.sent_bytes.items():
            _one_each(f"sent_bytes[{name!r}]", by_rank, "a rank", self.layout.ranks)

    @property
    def steps(self) -> int:
        """Optimiser steps taken."""
        return len(self.loss)

    @property
    def steps_elsewhere(self) -> int:
        """Steps that were taken in another layout than `layout`, before the run went on in this one."""
        return int(self.scores.get(STEPS_ELSEWHERE, 0))

    @property
    def communication_share(self) -> float:
        """Part of the measured time that went into communication, 0 to 1; NaN if no time was measured."""
        total = sum(self.compute_s) + sum(self.communication_s)
        return sum(self.communication_s) / total if total else math.nan

    def save(self, path: str | os.PathLike) -> Path:
        """Write the record to `path`, whole or not at all, and return the path."""
        content: dict[str, object] = {"kind": KIND, "schema": SCHEMA}
        for f in fields(self):
            value, unit = _each(_spell, asdict(self)[f.name]), f.metadata.get("unit")
            content[f.name] = {"value": value, "unit": unit} if unit else value
        return write_atomically(
            path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()
        )

    @classmethod
    def load(cls, path: str | os.PathLike) -> "RunRecord":
        """Read a record that `save` wrote. Raises ValueError, saying what is wrong, for anything else."""
        path = Path(path)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:  # not UTF-8, or not JSON
            raise ValueError(f"{path.name} is damaged: {error}. Repeat its run.") from None
        if not isinstance(content, dict) or content.pop("kind", None) != KIND:
            raise ValueError(f'{path.name} is no run record: it does not say "kind": "{KIND}".')
        if (schema := content.pop("schema", None)) != SCHEMA:
            raise ValueError(
                f"{path.name} has schema {schema!r} and this bigmodel-lab reads schema {SCHEMA}: "
                'read it with the version that it names under "versions", or repeat the run.'
            )
        if odd := ", ".join(sorted(cls.__dataclass_fields__.keys() ^ content.keys())):
            raise ValueError(f"{path.name} is damaged: fields missing or unknown: {odd}.")
        try:
            values = {f.name: _value(f, content[f.name]) for f in fields(cls)}
            return cls(**values | {"layout": Layout(**values["layout"])})
        except (TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path.name} is damaged: {error}") from None


_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # JSON has no words for them


def _spell(x):
    return str(x) if isinstance(x, float) and not math.isfinite(x) else x


def _unspell(x):
    return _NOT_FINITE.get(x, x) if isinstance(x, str) else x


def _each(change, value):
    """Apply `change` to every leaf of nested tuples, lists and dicts."""
    if isinstance(value, dict):
        return {k: _each(change, v) for k, v in value.items()}
    return [_each(change, v) for v in value] if isinstance(value, tuple | list) else change(value)


def _value(f, value):
    """Return what the file holds for field `f`, its unit checked and taken off."""
    if not (unit := f.metadata.get("unit")):
        return value
    if not isinstance(value, dict) or value.keys() != {"value", "unit"}:
        raise ValueError(f'{f.name} has no unit: it must be {{"value": ..., "unit": "{unit}"}}.')
    if value["unit"] != unit:
        raise ValueError(f"{f.name} must be in {unit}, got {value['unit']!r}.")
    return _each(_unspell, value["value"])


def _one_each(name: str, values, of: str, n: int) -> None:
    if len(values) != n:
        raise ValueError(f"{name} must have one entry {of}: {n}, got {len(values)}.")


def _text(name: str, value) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name} must be a text, not empty, got {value!r}.")
    return value


def _real(name: str, value) -> float:
    if isinstance(value, str | bool):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    return float(value)


def _whole(name: str, value) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, got {value!r}.")
    return int(require_in_range(name, value.__index__(), 0))


def _row(check):
    return lambda name, values: tuple(check(name, x) for x in values)


def _table(check):
    return lambda name, values: {k: check(f"{name}[{k!r}]", x) for k, x in values.items()}
