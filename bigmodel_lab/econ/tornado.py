"""Which assumption decides: change one at a time between a low and a high value, and see how far the outcome moves.

All variants meet the same random numbers, so that a small difference is not drowned by luck. Told in lab L10.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
) -> list[Bar]:
    """Return one bar for each assumption of `ranges` (name -> low and high value), the widest first.

    outcome : a function from `Paths` to a number, such as Paths.survival. Raises ValueError for an unknown assumption.
    """
    known = company.numbers()
    bars = []
    for name, (low, high) in ranges.items():
        if name not in known:
            raise ValueError(
                f"ranges must name assumptions of a Company, {', '.join(known)}; got {name!r}."
            )
        ends = (company.but(**{name: value}) for value in (low, high))
        at = [float(outcome(simulate(c, paths, months, seed))) for c in ends]
        bars.append(Bar(name, low, high, *at))
    return sorted(bars, key=lambda bar: -bar.swing)
