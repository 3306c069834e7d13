"""The compute-budget game: so many dollars and days; how large a model, on how many tokens, on how many devices?

    game = level("coffee", on="2026-11-22")            # a Budget; `plan.par` has the levels
    score(game, Move(parameters=1e8, tokens=4e9, devices=4)).regret      # nats a token above the best plan

The loss is that of a `Surface` fitted to real small runs, so a move is scored by a deterministic formula, and where it lies far
outside the runs the score says so. The rules of a budget: money, deadline, memory, text, devices. A move that breaks one is
refused with the rule, the value and a way out. Told in chapter 16.

The best plan is exact. Money and days allow C(n) FLOP on n devices. L falls with N and with D, so for each n the best N is
the law's optimum for C(n), moved to the nearest N that memory and text allow; the best n is found by trying all.
"""

import math
from dataclasses import dataclass, replace

import numpy as np

from bigmodel_lab.plan.flops import six_nd
from bigmodel_lab.plan.memory import STATES
from bigmodel_lab.plan.run import Bill, bill
from bigmodel_lab.plan.scaling import ChinchillaLaw
from bigmodel_lab.plan.surface import Surface, fit_surface
from bigmodel_lab.plan.tables import Device, Price
from bigmodel_lab.units import Q, Quantity, number, spell, whole

__all__ = ["Budget", "Infeasible", "Move", "Score", "best", "fastest", "play", "score"]

_EDGE = 1 + 1e-9  # the best plan spends the budget to the last cent; rounding must not refuse it


class Infeasible(ValueError):
    """A move breaks a rule of the budget; `rule` names it."""

    def __init__(self, rule: str, message: str):
        super().__init__(f"{rule}: {message}")
        self.rule = rule


@dataclass(frozen=True)
class Budget:
    """What may be spent. The last three are assumptions, not measurements: change them and see what the best plan does."""

    name: str
    cost: Quantity  # USD
    deadline: Quantity  # day
    device: Device
    price: Price  # dated; its middle is paid
    devices: int  # the most that can be rented
    text: Quantity  # tokens that there are to train on
    utilisation: float = 0.4  # MFU on one device
    kept: float = 0.97  # share of the MFU that remains at each doubling of the devices
    memory: float = 0.5  # share of a device's memory for the model's state

    def __post_init__(self):
        for name, unit in (("cost", "USD"), ("deadline", "day"), ("text", "token")):
            object.__setattr__(
                self, name, Q(number(name, getattr(self, name), unit, above=0), unit)
            )
        whole("devices", self.devices, "device", 1)
        number("utilisation", self.utilisation, high=1, above=0)
        number("kept", self.kept, low=0.5, high=1)  # below 0.5 a doubling would slow the run down
        number("memory", self.memory, high=1, above=0)

    def mfu(self, devices):
        """Return the utilisation on `devices` devices: utilisation x kept^(log2 devices)."""
        return self.utilisation * self.kept ** np.log2(devices)

    def compute(self, devices):
        """Return the FLOP that money and deadline allow on `devices` devices (number or array), as a plain number."""
        bought = (self.cost / self.price.middle).to("device * s").magnitude
        peak = self.device.peak().magnitude
        return (
            np.minimum(bought, devices * self.deadline.to("s").magnitude) * peak * self.mfu(devices)
        )

    def largest(self, devices):
        """Return the most parameters whose state, sharded evenly (ZeRO 3), `devices` devices hold."""
        room = self.memory * self.device.memory.to("byte").magnitude
        return devices * room / STATES["mixed-adam"].total


@dataclass(frozen=True)
class Move:
    """A plan: N, D, devices; the hours follow."""

    parameters: float  # N, with embeddings
    tokens: float  # D
    devices: int = 1

    def __post_init__(self):
        for name, unit in (("parameters", "parameter"), ("tokens", "token")):
            object.__setattr__(self, name, number(name, getattr(self, name), unit, low=1))
        object.__setattr__(self, "devices", whole("devices", self.devices, "device", 1))


@dataclass(frozen=True)
class Score:
    """What a move comes to; losses are nats a token on the surface's text."""

    move: Move
    best: Move
    loss: float
    regret: float  # loss above the best plan's, at least 0
    low: float  # 90 % interval of the regret: each refit of the law against that refit's own best plan
    high: float
    bill: Bill
    enough: Quantity  # USD with which the best plan, under the other rules, reaches the move's loss
    beyond: str  # how far outside the runs the move lies; "" inside them


def play(budget: Budget, move: Move) -> Bill:
    """Return what the move takes. Raises Infeasible if it breaks a rule of the budget."""
    b, n, N, D = budget, move.devices, move.parameters, move.tokens
    if n > b.devices:
        raise Infeasible(
            "devices", f"{n} are more than the {b.devices} to be had. Take {b.devices} or fewer."
        )
    if (text := b.text.magnitude) * _EDGE < D:
        raise Infeasible(
            "text", f"{D:.4g} tokens are more than the {text:.4g} there are: take these."
        )
    if (most := b.largest(n)) * _EDGE < N:
        need = math.ceil(N / b.largest(1))
        way = f"Take at most {most:.4g}" + (f", or {need} devices" if need <= b.devices else "")
        raise Infeasible(
            "memory", f"{N:.4g} parameters do not fit on {n} x {b.device.name}. {way}."
        )
    taken = bill(six_nd(N, D), b.device, n, float(b.mfu(n)), price=b.price)
    plural = "s" * (n > 1)
    way = f"With {N:.4g} parameters on {n} device{plural} take at most {b.compute(n) / 6 / N:.4g} tokens"
    for rule, used, limit, instead in (
        ("money", taken.cost, b.cost, "fewer parameters or devices"),
        ("deadline", taken.time, b.deadline, "fewer parameters or more devices"),
    ):
        if used.magnitude > limit.magnitude * _EDGE:
            raise Infeasible(
                rule, f"{spell(used)} is more than the {spell(limit)} allowed. {way}, or {instead}."
            )
    return taken


def _plan(budget: Budget, wanted, devices):
    """Return N and D, arrays over `devices`: N as `wanted`, but at most what memory holds and enough to use the text up."""
    C, text = budget.compute(devices), budget.text.magnitude
    N = np.clip(np.maximum(wanted, C / 6 / text), 1, budget.largest(devices))
    return N, np.minimum(C / 6 / N, text)


def _best(budget: Budget, law: ChinchillaLaw) -> tuple[Move, float]:
    n = np.arange(1, budget.devices + 1)
    one = law.optimum(1.0).parameters.magnitude
    N, D = _plan(budget, one * budget.compute(n) ** law.a, n)
    i = int(np.argmin(_loss(law, N, D)))  # the first of equals: the fewest devices
    return Move(float(N[i]), float(D[i]), int(n[i])), float(_loss(law, N, D)[i])


def _loss(law, N, D):
    return law.E + law.A / N**law.alpha + law.B / D**law.beta


def fastest(budget: Budget) -> int:
    """Return the number of devices on which money and deadline allow the most FLOP, the fewest of equals."""
    return 1 + int(np.argmax(budget.compute(np.arange(1, budget.devices + 1))))


def best(budget: Budget, surface: Surface | None = None) -> Move:
    """Return the plan of the lowest loss on `surface` (default: that of the runs that ship)."""
    return _best(budget, (surface or fit_surface()).fit.law)[0]


def score(budget: Budget, move: Move, surface: Surface | None = None) -> Score:
    """Return what `move` comes to. Raises Infeasible, as `play` does; the interval needs a surface with refits."""
    surface = surface or fit_surface()
    taken, (plan, least) = play(budget, move), _best(budget, surface.fit.law)
    loss = surface.loss(move.parameters, move.tokens)
    regrets = [
        x.loss(move.parameters, move.tokens) - _best(budget, x)[1] for x in surface.fit.refits
    ]
    low, high = np.quantile(regrets, (0.05, 0.95)) if regrets else (math.nan, math.nan)
    beyond = surface.beyond(move.parameters, move.tokens)
    enough = _enough(budget, surface.fit.law, loss)
    return Score(move, plan, loss, loss - least, float(low), float(high), taken, enough, beyond)


def _enough(budget: Budget, law: ChinchillaLaw, loss: float) -> Quantity:
    """Return the USD at which the best plan's loss is `loss`, to 1e-6 of it, by halving the ratio."""
    low, high = 1e-9, 1.0  # shares of the budget: too little, and enough
    while high / low > 1 + 1e-6:
        share = math.sqrt(low * high)
        if _best(replace(budget, cost=budget.cost * share), law)[1] > loss:
            low = share
        else:
            high = share
    return budget.cost * high
