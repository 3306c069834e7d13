"""FMEA: failure modes by severity, occurrence and detection, 1 to 10 each; RPN is their product.

The product of three ranks looks like a measurement and is none: of the 1000 combinations only 120 numbers arise, most below
200, and 10 x 1 x 10 equals 1 x 10 x 10. So `rank` also gives the action order that looks at severity first (the idea of the
AIAG and VDA handbook, 2019, whose own table it does not copy). Told in chapter 23.
"""

from dataclasses import dataclass

from bigmodel_lab.units import whole

__all__ = ["FailureMode", "rank"]


@dataclass(frozen=True)
class FailureMode:
    """One way to fail; 10 is the worst of each, and of detection: never noticed before the customer does."""

    name: str
    severity: int
    occurrence: int
    detection: int

    def __post_init__(self):
        for what in ("severity", "occurrence", "detection"):
            whole(f"{what} of {self.name!r}", getattr(self, what), low=1, high=10)

    @property
    def rpn(self) -> int:
        """Risk priority number, 1 to 1000."""
        return self.severity * self.occurrence * self.detection


def rank(modes: tuple[FailureMode, ...], by: str = "rpn") -> list[FailureMode]:
    """Return the modes, worst first: by "rpn", or by "severity", then occurrence, then detection."""
    if by not in ("rpn", "severity"):
        raise ValueError(f"by must be 'rpn' or 'severity', got {by!r}.")
    if by == "rpn":
        return sorted(modes, key=lambda m: -m.rpn)
    return sorted(modes, key=lambda m: (-m.severity, -m.occurrence, -m.detection))
