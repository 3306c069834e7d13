"""The commands of `bml plan` about training: memory, train."""

from dataclasses import dataclass, fields

from bigmodel_lab.plan.activations import KEEP, model_activations
from bigmodel_lab.plan.failures import daly_interval, fleet_mtbf, goodput
from bigmodel_lab.plan.flops import six_nd, training_flops
from bigmodel_lab.plan.memory import STATES, model_state
from bigmodel_lab.plan.models import MODELS, find_model
from bigmodel_lab.plan.options import (
    DEVICE,
    DTYPE,
    DTYPES,
    ON,
    SEQUENCE,
    ModelCommand,
    device_price,
    training_sequence,
)
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.plan.run import bill
from bigmodel_lab.plan.tables import device, fits_on, grid, reliability, rows
from bigmodel_lab.shell import Answer, Command, option
from bigmodel_lab.units import Q, spell

__all__ = ["Memory", "Train"]


@dataclass(frozen=True)
class Memory(ModelCommand):
    """Bytes of training on one device: model state under ZeRO, and activations.

    $ bml plan memory --model llama2-7b --zero 2 --replicas 8 --device a100-sxm-80gb
    memory of one device  77.47 GB
    weights               13.48 GB
    gradients             1.685 GB
    optimiser             10.11 GB
    activations           52.2 GB
    sequence              4,096 token
    a100-sxm-80gb has     80 GB
    fits                  yes

    $ bml plan memory --parameters 7.5B --zero 1 --replicas 64
    memory of one device  31.41 GB
    weights               15 GB
    gradients             15 GB
    optimiser             1.406 GB
    fits on               v100-sxm-32gb, tpu-v4, a100-sxm-40gb, a100-sxm-80gb, h100-sxm, h800-sxm, h200-sxm, b200, mi300x, b300
    """

    parameters: float | None = option(
        None, "model state of so many parameters, instead of a model", above=0
    )
    zero: int = option(0, "ZeRO stage 0-3", low=0, high=3)
    replicas: int = option(1, "data-parallel ranks", low=1)
    tensor: int = option(1, "tensor-parallel ranks", low=1)
    pipeline: int = option(1, "pipeline stages", low=1)
    state: str = option("mixed-adam", "what is kept for a parameter", choices=tuple(STATES))
    batch: int = option(1, "sequences of a micro-batch", low=1)
    sequence: int | None = option(None, SEQUENCE, low=1)
    recompute: str = option("none", "what the backward pass runs again", choices=KEEP)
    sequence_parallel: bool = option(False, "shard norms and inputs over the tensor ranks, too")
    dropout: bool = option(False, "keep masks of dropout")
    device: str | None = option(None, DEVICE)
    on: str | None = option(None, ON)

    def answer(self) -> Answer:
        of_model = [f.name for f in fields(ModelCommand)]
        of_model += ["batch", "sequence", "recompute", "sequence_parallel", "dropout"]
        if self.parameters is not None and (given := self.changed(*of_model)):
            raise ValueError(
                f"give either --parameters or {given[0]}: a number alone has no shape."
            )
        arch = self.architecture()
        P = count_parameters(arch).total if self.parameters is None else self.parameters
        held = model_state(
            P, self.zero, self.replicas, shards=self.tensor * self.pipeline, state=self.state
        )
        details = {n: getattr(held, n) for n in ("weights", "gradients", "optimiser")}
        total = held.total
        if self.parameters is None:
            tokens = training_sequence(arch, self.sequence)
            kept = model_activations(
                arch,
                self.batch,
                tokens,
                pipeline=self.pipeline,
                tensor=self.tensor,
                sequence_parallel=self.sequence_parallel,
                recompute=self.recompute,
                dropout=self.dropout,
            )
            details |= {"activations": kept, "sequence": Q(tokens, "token")}
            total += kept
        if self.device:
            room = device(self.device, self.on).memory.to("byte")
            details[f"{self.device} has"] = room
            details["fits"] = "yes" if total <= room else "no"
        else:
            details["fits on"] = ", ".join(fits_on(total, on=self.on)) or "no device of the table"
        return Answer("memory of one device", total, details)


@dataclass(frozen=True)
class Train(Command):
    """Days, dollars, energy and carbon of a training run.

    $ bml plan train --parameters 8B --tokens 1T --device h100-sxm --devices 512 --mfu 0.4
    time                        2.767 day
    compute                     4.8e+22 FLOP
    device time                 34,001 device * h
    cost                        100,304 USD
    energy                      26.18 MWh
    carbon                      11.23 tCO2e
    mean time between failures  98.98 h
    checkpoint every            44.38 min
    goodput                     0.9909
    note: energy takes each device at its rated power, an upper end; cost is rent of devices alone
    note: time and all that follows from it include failures; without them, take --failures none

    $ bml plan train --parameters 175B --tokens 300B --device a100-sxm-80gb --devices 1024 --mfu 0.45 --failures none
    time         25.36 day
    compute      3.15e+23 FLOP
    device time  623,219 device * h
    cost         1,240,207 USD
    energy       274.2 MWh
    carbon       117.6 tCO2e
    note: energy takes each device at its rated power, an upper end; cost is rent of devices alone
    """

    parameters: float | None = option(
        None, "parameters that work for a token: FLOP are 6ND", above=0
    )
    model: str | None = option(
        None, f"instead a known model, its FLOP counted exactly: {', '.join(MODELS)}"
    )
    sequence: int | None = option(None, f"with --model, {SEQUENCE}", low=1)
    tokens: float = option(1e12, "tokens of training, repeats included", above=0)
    device: str = option("h100-sxm", DEVICE)
    devices: int = option(512, "how many", low=1)
    mfu: float = option(
        0.4, "model-FLOP utilisation while steps run, of the dense peak, 0 to 1", above=0, high=1
    )
    dtype: str = option("bf16", DTYPE, choices=DTYPES)
    price: float | None = option(None, "USD a device-hour (default: the table's)", low=0)
    grid: str = option("us-2020", f"power grid, one of {', '.join(rows('grids'))}")
    pue: float = option(1.1, "power usage effectiveness of the building", low=1)
    failures: str = option(
        "llama3-405b",
        f"run whose failures to assume, one of {', '.join(rows('reliability'))}, or none",
    )
    checkpoint_s: float = option(10.0, "s that a checkpoint stops training", above=0)
    restart_s: float = option(600.0, "s from a failure to the next step", low=0)
    on: str | None = option(None, ON)

    def answer(self) -> Answer:
        d = device(self.device, self.on)
        if (self.parameters is None) == (self.model is None):
            raise ValueError("give either --parameters or --model.")
        if self.model is None and self.sequence is not None:
            raise ValueError("--sequence goes with --model: 6ND of --parameters knows no sequence.")
        good, lost, notes = 1.0, {}, ()
        if self.failures != "none":
            good, lost = self._failures()
            notes = (
                "time and all that follows from it include failures; without them, take --failures none",
            )
        if self.model is None:
            flops = six_nd(self.parameters, self.tokens)
        else:
            arch = find_model(self.model)
            flops = training_flops(arch, self.tokens, training_sequence(arch, self.sequence))
        b = bill(
            flops,
            d,
            self.devices,
            self.mfu,
            dtype=self.dtype,
            price=device_price(self.price, self.device, self.on),
            grid=grid(self.grid, self.on),
            pue=self.pue,
            goodput=good,
        )
        details = {
            "compute": b.flops,
            "device time": b.device_time,
            "cost": b.cost,
            "energy": b.energy.to("MWh"),
            "carbon": b.carbon,
        }
        note = "energy takes each device at its rated power, an upper end; cost is rent of devices alone"
        return Answer("time", b.time, details | lost, (note, *notes))

    def _failures(self) -> tuple[float, dict[str, object]]:
        """Return the goodput, and what it follows from. Raises ValueError if nothing is ever finished."""
        each = reliability(self.failures, self.on).device_time_per_failure
        mtbf = fleet_mtbf(each, self.devices)
        every = daly_interval(self.checkpoint_s, mtbf)
        good = goodput(every, self.checkpoint_s, self.restart_s, mtbf)
        if good < 1e-6:
            raise ValueError(
                f"a failure every {spell(mtbf.to('s'), 3)} leaves no time for work, with --checkpoint-s {self.checkpoint_s:g} "
                f"and --restart-s {self.restart_s:g}: take shorter ones, fewer --devices, or --failures none."
            )
        return good, {
            "mean time between failures": mtbf,
            "checkpoint every": every.to("min"),
            "goodput": good,
        }
