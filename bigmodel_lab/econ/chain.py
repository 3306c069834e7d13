"""From a run to a company: what one training run measured, fitted, scaled, priced, and handed to `simulate`.

    record -> measure -> share of the machine's roof ------------+-----------------+
    runs -> iso_flop -> anchor -> optimum(compute) -> grow -> plan_training -> bill      USD a training run
                                                            |              serve -> cost       USD / Mtoken
    price_for(cost) -> Plan over Usage -> plan_margin       |                                  USD / customer / month
    Company(price, serving_cost, fixed = team + training) <-+

    chain = follow(record, law, arch, Assumptions())
    paths = simulate(chain.company(cash=4e6, fixed=200e3, new_customers=40, churn=0.03))

Every link takes the object of the one before and its unit is checked; `rows` says of each number whether it was measured,
published, assumed or computed from those. What is assumed in between is in `Assumptions`, or a default of `Fleet` and `Replica`,
which `rows` shows too. The boldest of it:
a share of a laptop's roof carries over to the device rented, and the best size grows from small runs by a published
exponent. Told in lab L10.
"""

from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from math import isfinite

from bigmodel_lab.econ.company import Company
from bigmodel_lab.econ.pricing import Plan, PlanMargin, plan_margin, price_for
from bigmodel_lab.econ.usage import Usage
from bigmodel_lab.plan import tables
from bigmodel_lab.plan.architecture import Architecture
from bigmodel_lab.plan.flops import training_flops
from bigmodel_lab.plan.layout import Fleet
from bigmodel_lab.plan.measured import Measured, measure
from bigmodel_lab.plan.own_run import AnchoredLaw, grow, kernel_share, peak_of
from bigmodel_lab.plan.planner import Choice, plan_training
from bigmodel_lab.plan.run import Bill, bill
from bigmodel_lab.plan.scaling import ChinchillaLaw, KaplanLaw, Optimum
from bigmodel_lab.plan.serving import Replica, Service, Workload, serve
from bigmodel_lab.units import Q, Quantity, number, spell, whole

__all__ = ["Assumptions", "Chain", "follow"]

STEPS = 10  # the fewest of a run whose speed says something
TOKENS, PRICE = "token / customer / month", "USD / Mtoken"
_UNITS = dict(
    compute="FLOP", training_devices="device", vocab="token", context="token", retrain_every="month",
    prompt="token / request", output="token / request", usage=TOKENS,
)  # fmt: skip


@dataclass(frozen=True)
class Assumptions:
    """What stands between a run and a price and is neither measured nor in a table; plain numbers are in the units named."""

    compute: Quantity | float = 1e23  # FLOP of the large model's training run
    device: str = (
        "h100-sxm"  # rented for training and for serving, by the middle of the price table
    )
    training_devices: int = 256
    batch: int = 512  # sequences a step
    vocab: int = 32000  # of the large model
    context: int = 2048  # tokens; training sequences have that length
    goodput: float = 0.9  # share of the rented time in which steps run
    retrain_every: Quantity | float = 12.0  # month: the model is trained anew that often
    prompt: int = 1000  # tokens a request
    output: int = 500  # tokens a request; they alone are sold and counted
    bandwidth_share: float = 0.7  # of the memory's, that decoding reaches
    busy: float = 0.5  # share of the time in which a serving device is kept full
    usage: Quantity | float = 250e6  # token / customer / month, in the mean
    spread: float = 1.5  # sigma of the logarithm of use: a few use most
    gross_margin: float = 0.7  # that the price is made for, if token_price is None
    token_price: Quantity | float | None = None  # USD / Mtoken, of output

    def __post_init__(self):
        number("compute", self.compute, "FLOP", above=0)
        for name in ("training_devices", "batch", "vocab", "context", "prompt", "output"):
            whole(name, getattr(self, name), low=1)
        for name in ("goodput", "bandwidth_share", "busy"):
            number(name, getattr(self, name), high=1, above=0)
        number("retrain_every", self.retrain_every, "month", above=0)
        number("gross_margin", self.gross_margin, high=1)
        Usage(self.usage, self.spread)  # raises for what it cannot be
        if self.token_price is not None:
            number("token_price", self.token_price, PRICE, above=0)

    def but(self, **changes) -> "Assumptions":
        """Return the assumptions with some changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Chain:
    """Every link, as the object that the room before it returned."""

    assumptions: Assumptions
    measured: Measured
    peak: Quantity  # FLOP/s of the machine of the run
    law: AnchoredLaw | ChinchillaLaw | KaplanLaw
    optimum: Optimum
    arch: Architecture  # of the large model
    choice: Choice  # of the layout
    price: tables.Price
    training: Bill
    replica: Replica
    service: Service
    token_cost: Quantity  # USD / Mtoken, idle time included
    token_price: Quantity  # USD / Mtoken
    margin: PlanMargin

    @property
    def share(self) -> float:
        """Share of its machine's roof that the run reached."""
        return self.replica.compute_share

    @cached_property
    def training_per_month(self) -> Quantity:
        """What training costs, USD / month, spread over the time until the next one."""
        every = Q(number("retrain_every", self.assumptions.retrain_every, "month"), "month")
        return (self.training.cost / every).to("USD / month")

    def company(self, *, fixed, trains: float = 1.0, **rest) -> Company:
        """Return the company that sells the large model's tokens.

        fixed : USD / month of people and rent; the training bill is added to it
        trains : share of the training bill that it pays itself
        rest : the other assumptions of `Company`, without price and serving_cost, which come from here
        """
        if given := [name for name in ("price", "serving_cost") if name in rest]:
            raise ValueError(
                f"{' and '.join(given)} must not be given, since the chain computes it: change its Assumptions, of which "
                "token_price sets the price."
            )
        paid = number("fixed", fixed, "USD / month")
        paid += number("trains", trains) * self.training_per_month.magnitude
        return Company(
            price=self.margin.revenue,
            serving_cost=self.margin.cost,
            fixed=Q(paid, "USD / month"),
            **rest,
        )

    def rows(self) -> list[tuple[str, Quantity | float | str, str, str]]:
        """Return (what, value, kind, how) of every number of the chain; kind: measured, published, computed or assumed."""
        a, m, d = self.assumptions, self.measured, self.replica.device
        out = [
            ("the run's parameters", m.parameters, "measured", "RunRecord"),
            ("the run's tokens", m.tokens, "measured", "RunRecord"),
            ("the run's speed", m.tokens_per_s, "measured", "RunRecord: tokens over the time of its steps"),
            ("its machine's roof", self.peak, "measured", "a float32 product of two matrices"),
            ("share of that roof", self.share, "computed", "model FLOP over roof x time"),
            *self._law(),
            ("large model's parameters", self.optimum.parameters, "computed", "the law's optimum for the compute"),
            ("large model's tokens", self.optimum.tokens, "computed", "the law's optimum for the compute"),
            ("peak of a device", d.peak(self.replica.dtype), "published", d.source),
            ("price of a device", self.price.middle, "published", self.price.source),
            ("training run", self.training.cost, "computed", "device-hours x price"),
            ("training a month", self.training_per_month, "computed", "over the time until the next training"),
            ("cost of tokens", self.token_cost, "computed", "device-hours x price over tokens served"),
            ("price of tokens", self.token_price, *self._price_from()),
            ("a customer pays", self.margin.revenue, "computed", "price x use"),
            ("a customer costs", self.margin.cost, "computed", "cost x use"),
        ]  # fmt: skip
        for f in fields(a):
            if f.name not in ("device", "token_price"):
                value, unit = getattr(a, f.name), _UNITS.get(f.name)
                value = Q(number(f.name, value, unit), unit) if unit else value
                out.append((f.name.replace("_", " "), value, "assumed", "Assumptions"))
        fleet, replica = self.choice.fleet, self.replica
        return [
            *out,
            ("overlap", fleet.overlap, "assumed", "Fleet: of the backward pass, with traffic"),
            ("latency of a message", Q(fleet.latency, "s"), "assumed", "Fleet"),
            ("memory planned with", fleet.memory_share, "assumed", "Fleet; Replica has the same"),
            ("a weight, when served", Q(replica.weight_bytes, "byte"), "assumed", "Replica"),
            ("overhead, when served", Q(replica.overhead, "s"), "assumed", "Replica: of a step"),
        ]

    def _law(self):
        if not isinstance(self.law, AnchoredLaw):
            kind = "computed" if self.law.source == ChinchillaLaw.source else "published"
            return [("law of the size", self.law.source, kind, "as it is")]
        at = Q(self.law.compute, "FLOP")
        return [
            ("our runs' optimum", Q(self.law.parameters, "parameter"), "computed", f"best size at {spell(at, 2)}"),
            ("its exponent", self.law.exponent, "published", self.law.source),
        ]  # fmt: skip

    def _price_from(self) -> tuple[str, str]:
        if self.assumptions.token_price is None:
            return "computed", "cost / (1 - gross margin)"
        return "assumed", "Assumptions"


def follow(
    record,
    law: AnchoredLaw | ChinchillaLaw | KaplanLaw,
    arch: Architecture,
    assumptions: Assumptions | None = None,
    *,
    on: str | None = None,
) -> Chain:
    """Follow the chain from a run to a customer's margin.

    record : RunRecord with its machine's roof (`plan.note_peak`); arch : of the model that ran (`plan.describe`)
    law : such as `anchor(iso_flop(*points(small_runs())))`, or a published one; on : day, for rows that may be out of date

    Raises ValueError from the link that cannot be made: a run that diverged, a model that does not fit the devices, ...
    """
    a = assumptions or Assumptions()
    _require(record, law, arch)
    measured, peak, share = measure(record, arch), peak_of(record), kernel_share(record, arch)
    device, price = tables.device(a.device, on=on), tables.price(a.device, on=on)
    optimum = law.optimum(a.compute)
    large = grow(arch, optimum.parameters, vocab=a.vocab, context=a.context)
    choice = _plan(large, a.device, a.training_devices, share, a.batch, on)
    training = bill(
        training_flops(large, optimum.tokens),
        device,
        choice.fleet.devices,
        choice.best.mfu,
        price=price,
        goodput=a.goodput,
    )
    replica, service = _served(large, device, share, a)
    cost = service.cost_per_million(price.middle, a.busy)
    token_price = a.token_price
    if token_price is None:
        token_price = price_for(cost, a.gross_margin)
    token_price = Q(number("token_price", token_price, PRICE), PRICE)
    margin = plan_margin(Plan(blocks=((None, token_price),)), Usage(a.usage, a.spread), cost)
    return Chain(
        a, measured, peak, law, optimum, large, choice, price, training, replica, service, cost, token_price, margin,
    )  # fmt: skip


def _require(record, law, arch) -> None:
    for name, value, kind, way in (
        ("record", record, "loss", "a RunRecord, such as RunRecord.load(path)"),
        ("law", law, "optimum", 'a law of the best size, such as anchor(iso_flop(*points(small_runs()))) or find_law("epoch")'),
        ("arch", arch, "padded_vocab", "an Architecture, such as describe(model.config)"),
    ):  # fmt: skip
        if not hasattr(value, kind):
            raise TypeError(f"{name} must be {way}, got {value!r}.")
    if bad := [i + 1 for i, loss in enumerate(record.loss) if not isfinite(loss)]:
        raise ValueError(
            f"record must be of a run that stayed finite, got the loss {record.loss[bad[0] - 1]} at step {bad[0]}: it "
            "diverged. Repeat it with a lower learning rate."
        )
    if record.steps < STEPS:
        raise ValueError(
            f"record must have at least {STEPS} steps, got {record.steps}: the first ones start the kernels, and their speed "
            "is not that of a run. Repeat it with more."
        )


@lru_cache(maxsize=64)
def _plan(arch, device, devices, share, batch, on) -> Choice:
    """The search takes about a second and most changes of the assumptions do not touch it."""
    fleet = Fleet(tables.device(device, on=on), devices, kernel_share=share)
    return plan_training(arch, fleet, batch)


def _served(arch, device, share, a: Assumptions) -> tuple[Replica, Service]:
    """Serve from as many devices of a node as make a token cheapest."""
    work, found = Workload(a.prompt, a.output), []
    sizes = [n for n in (1, 2, 4, 8, 16) if n <= device.per_node]
    for n in sizes:
        replica = Replica(arch, device, n, compute_share=share, bandwidth_share=a.bandwidth_share)
        try:
            service = serve(replica, work)
        except ValueError:
            if n == sizes[-1] and not found:
                raise  # says what is lacking even on the whole node
            continue
        found.append((n / service.output_per_s.magnitude, n, replica, service))
    return min(found)[2:]
