"""Argument checks of this room beyond `units.number`: arrays with a unit, probabilities that must sum, like with like."""

import math
from collections.abc import Iterable

import numpy as np

from bigmodel_lab.units import Q, Quantity, number

__all__ = ["array", "counts", "probabilities", "ratio", "share"]


def array(name: str, value, unit: str = "", low: float = 0.0, high: float = math.inf) -> np.ndarray:
    """Return `value` as a float64 array in `unit`, each element checked as `units.number` checks one.

    value : a quantity around an array or a number, an array or list of numbers that are in `unit` already, or a list of
    quantities. Raises TypeError for another dimension, ValueError naming the first element outside [low, high].
    """
    if isinstance(value, Quantity):
        number(name, Q(1.0, str(value.units)), unit)  # the unit's kind
        value = Q(np.asarray(value.magnitude), str(value.units)).to(unit or "dimensionless")
        value = value.magnitude
    elif isinstance(value, list | tuple) and any(isinstance(v, Quantity) for v in value):
        value = [number(f"{name}[{i}]", v, unit, -math.inf) for i, v in enumerate(value)]
    x = np.asarray(value)
    if x.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} must hold numbers{f' in {unit}' if unit else ''}, got dtype {x.dtype}."
        )
    x = x.astype(np.float64)
    wrong = ~((x >= low) & (x <= high) & np.isfinite(x))
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        label = f"{name}[{', '.join(map(str, place))}]" if place else name
        number(label, float(x[place]), unit, low, high)  # raises, with the rule
    return x


def counts(
    name: str, value, unit: str = "", low: float = 0.0, high: float = math.inf
) -> np.ndarray:
    """Return `value` as an array of whole numbers, int64, checked as `array` does; 2.0 is whole, 2.5 is refused."""
    x = array(name, value, unit, low, high)
    wrong = x != np.floor(x)
    if wrong.any():
        place = ", ".join(map(str, map(int, np.argwhere(wrong)[0])))
        raise ValueError(f"{name}[{place}] must be a whole number, got {x[wrong][0]:g}.")
    return x.astype(np.int64)


def share(name: str, value) -> float:
    """Return a probability or a share: a pure number from 0 to 1."""
    return number(name, value, high=1)


def probabilities(name: str, value: Iterable[float]) -> np.ndarray:
    """Return probabilities that sum to one, as float64. Raises ValueError with the sum if they do not."""
    p = array(name, value if hasattr(value, "__len__") else list(value), high=1)
    if abs(p.sum() - 1) > 1e-9:
        raise ValueError(
            f"{name} must sum to 1, got {p.sum():.10g}: divide each by the sum if they are weights."
        )
    return p


def ratio(name: str, value, other_name: str, other) -> float:
    """Return value / other as a pure number; both plain numbers, or quantities of one kind, such as USD and USD.

    Raises TypeError if the kinds differ, ValueError if a number is negative or `other` is zero.
    """
    unit = str(other.units) if isinstance(other, Quantity) else ""
    below = number(other_name, other, unit, above=0)
    return number(name, value, unit) / below
