"""The planner: search data x tensor x pipeline (and its chunks) x ZeRO x micro-batch x recomputation, and say why the best is best.

Every layout that divides the fleet is estimated (`plan.layout`); of those that fit the fastest wins. The explanation
holds, for each choice, what the best layout with another value would take, and which part of the step takes most of it, or
how much memory it lacks. Told in lab L08.
"""

from dataclasses import dataclass, fields
from itertools import product

from bigmodel_lab.plan.activations import KEEP
from bigmodel_lab.plan.architecture import Architecture, require_architecture
from bigmodel_lab.plan.layout import Estimate, Fleet, TrainingLayout, estimate
from bigmodel_lab.units import spell, whole

__all__ = ["Choice", "plan_training"]

_PARTS = ("compute", "tensor", "pipeline", "bubble", "data")  # of a step's time


@dataclass(frozen=True)
class Choice:
    """The fastest layout that fits, and all others that were looked at."""

    best: Estimate
    tried: tuple[Estimate, ...]  # fitting ones first, each kind fastest first
    fleet: Fleet

    def others(self) -> dict[str, dict[object, Estimate]]:
        """Return, by choice and value, the best layout with that value; where none fits, the one that lacks least."""
        found: dict[str, dict[object, Estimate]] = {}
        lacking = sorted((e for e in self.tried if not e.fits), key=lambda e: e.memory.magnitude)
        for e in [e for e in self.tried if e.fits] + lacking:
            for f in fields(TrainingLayout):
                found.setdefault(f.name, {}).setdefault(getattr(e.layout, f.name), e)
        return found

    def explain(self) -> str:
        """Return the choice in words and numbers, one line an alternative."""
        b = self.best
        spent = ", ".join(
            f"{name} {100 * float((getattr(b, name) / b.step).magnitude):.0f} %" for name in _PARTS
        )
        lines = [
            f"{_say(b.layout)}: {spell(b.step, 3)} a step, {b.micro_batches} micro-batches, MFU {100 * b.mfu:.1f} %",
            f"  time: {spent}",
            f"  memory: {spell(b.state.to('byte'), 3)} state + {spell(b.activations.to('byte'), 3)} activations of "
            f"{spell(self.fleet.memory, 3)}",
        ]
        for name, table in self.others().items():
            chosen = getattr(b.layout, name)
            for value, e in sorted(table.items(), key=lambda item: str(item[0]).zfill(9)):
                if value == chosen:
                    continue
                if e.fits:
                    slower = float((e.step / b.step).magnitude) - 1
                    more = max(_PARTS, key=lambda part: getattr(e, part) - getattr(b, part))
                    how = f"{100 * slower:.1f} % slower (more {more})"
                    said = f"{how if slower > 5e-4 else 'as fast'}, as {_say(e.layout)}"
                else:
                    said = f"does not fit: at least {spell(e.memory.to('byte'), 3)}"
                lines.append(f"  {name}={value} instead of {chosen}: {said}")
        return "\n".join(lines)


def _say(layout: TrainingLayout) -> str:
    return " ".join(f"{f.name}={getattr(layout, f.name)}" for f in fields(layout))


def _complexity(x: TrainingLayout) -> tuple:
    return x.zero, x.tp * x.pp * x.chunks, KEEP.index(x.recompute), x.micro_batch


def _divisors(n: int) -> list[int]:
    return [k for k in range(1, n + 1) if n % k == 0]


def plan_training(
    arch: Architecture,
    fleet: Fleet,
    batch: int,
    sequence: int | None = None,
    *,
    state: str = "mixed-adam",
    largest_micro_batch: int = 16,
    most_stages: int = 64,
) -> Choice:
    """Return the fastest layout that trains `arch` on `fleet` in steps of `batch` sequences.

    Of layouts that take the same time (to 0.05 %), the one with the lower ZeRO stage, fewer shards and less
    recomputation wins: the simpler one. Raises ValueError, with what is lacking, if none fits.
    """
    n = fleet.devices
    require_architecture(arch)
    whole("batch", batch, low=1)
    whole("largest_micro_batch", largest_micro_batch, low=1)
    whole("most_stages", most_stages, low=1)
    tried: list[Estimate] = []
    for tp in _divisors(n):
        if tp > fleet.device.per_node or arch.n_heads % tp:
            continue
        for pp in _divisors(n // tp):
            dp = n // tp // pp
            if pp > min(arch.n_layers, most_stages) or batch % dp:
                continue
            sizes = [b for b in (1, 2, 4, 8, 16, 32, 64) if b <= largest_micro_batch]
            for b in (b for b in sizes if batch % (dp * b) == 0):
                chunks = (1, 2, 4) if pp > 1 and batch // (dp * b) % pp == 0 else (1,)
                ways = product(chunks, range(4 if dp > 1 else 1), KEEP)
                for v, zero, recompute in ways:
                    if v * pp <= arch.n_layers:
                        layout = TrainingLayout(dp, tp, pp, v, zero, b, recompute)
                        tried.append(estimate(arch, fleet, layout, batch, sequence, state=state))
    if not tried:
        raise ValueError(
            f"no layout divides {n} devices and a batch of {batch}: choose a batch that is a multiple of devices / "
            f"(tensor x pipeline), such as {n}."
        )
    tried.sort(key=lambda e: (not e.fits, e.step.magnitude))
    if not tried[0].fits:
        least = min(tried, key=lambda e: e.memory.magnitude)
        raise ValueError(
            f"{arch.name} does not fit on {n} x {fleet.device.name}: the leanest layout, {_say(least.layout)}, needs "
            f"{spell(least.memory.to('byte'), 3)} a device of {spell(fleet.memory, 3)}. Take more or larger devices, or a "
            f"shorter sequence."
        )
    limit = tried[0].step.magnitude * 1.0005
    near = [e for e in tried if e.fits and e.step.magnitude <= limit]
    best = min(near, key=lambda e: _complexity(e.layout))
    return Choice(best, tuple(tried), fleet)
