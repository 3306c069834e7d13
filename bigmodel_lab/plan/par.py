"""The levels of the compute-budget game, and par: what well-known rules of thumb score there.

    game = level("coffee", on="2026-11-22")
    par(game)["chinchilla"].regret         # nats a token above the best plan

A level's dollars, days, devices and text are ours, made up to span eleven decades of compute; its device and its price are
rows of the dated tables. Only "crumb" lies inside the small runs. Told in chapter 16.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.game import Budget, Move, Score, fastest, score
from bigmodel_lab.plan.scaling import find_law
from bigmodel_lab.plan.surface import Surface, fit_surface
from bigmodel_lab.plan.tables import device, price
from bigmodel_lab.units import Q

__all__ = ["LEVELS", "POLICIES", "Policy", "level", "par"]

LEVELS = {  # name: USD, days, device, most devices, tokens of text
    "crumb": (4e-6, 1.0, "h100-sxm", 1, 2_097_152),
    "penny": (0.01, 5 / 86400, "h100-sxm", 8, 1e9),
    "coffee": (5.0, 1 / 48, "h100-sxm", 8, 1e10),
    "grant": (5e3, 3.0, "a100-sxm-80gb", 64, 1e11),
    "round": (1e6, 30.0, "h100-sxm", 1024, 1.5e13),
}


@dataclass(frozen=True)
class Policy:
    """A rule of thumb."""

    says: str
    parameters: Callable[[float, Surface], float]  # N, of the FLOP there are and the surface


POLICIES = {
    "kaplan": Policy(
        "Kaplan's: N = 1.3e9 (C / PFLOP/s-day)^0.73",
        lambda C, _: find_law("kaplan").optimum(C).parameters.magnitude,
    ),
    "chinchilla": Policy("Chinchilla's: 20 tokens a parameter", lambda C, _: math.sqrt(C / 120)),
    "biggest": Policy(
        "the biggest model that fits: one token a parameter", lambda C, _: math.sqrt(C / 6)
    ),
    "longest": Policy(
        "train longest: the smallest size of the runs", lambda _, surface: surface.fit.sizes[0]
    ),
}


def level(name: str, on: str | date | None = None) -> Budget:
    """Return a level's budget, with the device and the price of the tables as of the day `on` (default: today)."""
    usd, days, kind, devices, text = LEVELS[require_choice("level", name, LEVELS)]
    return Budget(
        name,
        Q(usd, "USD"),
        Q(days, "day"),
        device(kind, on),
        price(kind, on),
        devices,
        Q(text, "token"),
    )


def par(budget: Budget, surface: Surface | None = None) -> dict[str, Score]:
    """Return each policy's score.

    All rent the number of devices that computes most. The rule gives N, which is cut to what memory holds; the tokens are
    all that money, days and text allow at that N.
    """
    surface = surface or fit_surface()
    n = fastest(budget)
    C, moves = float(budget.compute(n)), {}
    for name, policy in POLICIES.items():
        N = min(policy.parameters(C, surface), budget.largest(n))
        moves[name] = Move(N, min(C / 6 / N, budget.text.magnitude), n)
    return {name: score(budget, move, surface) for name, move in moves.items()}
