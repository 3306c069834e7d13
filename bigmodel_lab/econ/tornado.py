"""Which assumption decides: change one at a time between a low and a high value, and see how far the outcome moves.

    tornado(company, dict(churn=(0.02, 0.08), price=(40, 60)))
    tornado(assumptions, dict(busy=(0.3, 0.7)), build=lambda a: follow(measured, law, arch, a).company())

All variants meet the same random numbers, so that a small difference is not drowned by luck. Told in lab L10.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from bigmodel_lab.econ.company import Company
from bigmodel_lab.econ.montecarlo import Paths, simulate

__all__ = ["Bar", "tornado"]


@dataclass(frozen=True)
class Bar:
    """One assumption's reach."""

    name: str
    low: object  # the value tried
    high: object
    at_low: float  # the outcome there
    at_high: float

    @property
    def swing(self) -> float:
        """Size of the change between the two."""
        return abs(self.at_high - self.at_low)


def tornado(
    company: Company,
    ranges: dict[str, tuple],
    outcome: Callable[[Paths], float] = Paths.survival,
    paths: int = 10_000,
    months: int = 60,
    seed: int = 0,
    build: Callable[[object], Company] | None = None,
) -> list[Bar]:
    """Return one bar for each assumption of `ranges` (name -> low and high value), the widest first.

    company : a Company, or whatever frozen dataclass `build` makes one of
    outcome : a function from `Paths` to a number, such as Paths.survival

    Raises ValueError for an unknown assumption.
    """
    known = company.numbers() if build is None else [f.name for f in fields(company)]
    kind = type(company).__name__
    bars = []
    for name, ends in ranges.items():
        if name not in known:
            raise ValueError(
                f"ranges must name assumptions of a {kind}, {', '.join(known)}; got {name!r}."
            )
        if not isinstance(ends, tuple | list) or len(ends) != 2:
            raise ValueError(f"ranges of {name!r} must be (low, high), got {ends!r}.")
        variants = (replace(company, **{name: value}) for value in ends)
        made = (build(c) if build else c for c in variants)
        at = [float(outcome(simulate(c, paths, months, seed))) for c in made]
        bars.append(Bar(name, *ends, *at))
    return sorted(bars, key=lambda bar: -bar.swing)
