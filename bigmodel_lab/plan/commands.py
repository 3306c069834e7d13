"""The commands of `bml plan`. Each one's help shows an example, which a test runs and compares."""

from dataclasses import dataclass, fields

from bigmodel_lab.plan.capacity import plan_serving
from bigmodel_lab.plan.commands_layout import Layout, TrafficOnWire
from bigmodel_lab.plan.commands_training import Memory, Train
from bigmodel_lab.plan.flops import forward_flops
from bigmodel_lab.plan.kv import kv_cache, kv_per_token
from bigmodel_lab.plan.options import (
    DEVICE,
    DTYPE,
    DTYPES,
    ON,
    ModelCommand,
    device_price,
    training_sequence,
)
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.plan.scaling import LAWS, find_law
from bigmodel_lab.plan.serving import Replica, Workload
from bigmodel_lab.plan.tables import device
from bigmodel_lab.shell import Answer, Command, option
from bigmodel_lab.units import Q

__all__ = ["COMMANDS"]


@dataclass(frozen=True)
class Params(ModelCommand):
    """Exact number of parameters of a transformer.

    $ bml plan params --model llama3-8b
    parameters          8,030,261,248 parameter
    token embedding     525,336,576 parameter
    attention           1,342,177,280 parameter
    feed forward        5,637,144,576 parameter
    norms               266,240 parameter
    head                525,336,576 parameter
    active for a token  8,030,261,248 parameter
    without embeddings  6,979,588,096 parameter
    forward pass        1.93e+10 FLOP / token
    at a sequence of    8,192 token
    """

    def answer(self) -> Answer:
        arch = self.architecture()
        count, tokens = count_parameters(arch), training_sequence(arch, None)
        parts = {
            f.name.replace("_", " "): Q(x, "parameter")
            for f in fields(count)
            if (x := getattr(count, f.name))
        }
        parts |= {
            "active for a token": Q(count.active, "parameter"),
            "without embeddings": Q(count.non_embedding, "parameter"),
            "forward pass": Q(forward_flops(arch, tokens).total.magnitude / tokens, "FLOP / token"),
            "at a sequence of": Q(tokens, "token"),
        }
        return Answer("parameters", Q(count.total, "parameter"), parts)


@dataclass(frozen=True)
class Optimal(Command):
    """The model size and data that use a compute budget best, under a scaling law.

    $ bml plan optimal --flops 5.76e23 --law epoch
    parameters            7.235e+10 parameter
    tokens                1.327e+12 token
    tokens per parameter  18.34
    loss                  1.974 nat / token
    compute               5.76e+23 FLOP
    law                   Besiroglu et al. (2024), arXiv:2404.10102: refit of approach 3

    $ bml plan optimal --budget 1M --device h100-sxm --mfu 0.4
    parameters            6.61e+10 parameter
    tokens                1.218e+12 token
    tokens per parameter  18.42
    loss                  1.979 nat / token
    compute               4.83e+23 FLOP
    law                   Besiroglu et al. (2024), arXiv:2404.10102: refit of approach 3
    """

    flops: float | None = option(None, "FLOP of training", above=0)
    budget: float | None = option(None, "USD for devices, instead of --flops", above=0)
    parameters: float | None = option(
        None, "the size whose best compute is asked for, instead of --flops", above=0
    )
    law: str = option("epoch", "scaling law", choices=tuple(LAWS))
    device: str = option("h100-sxm", f"with --budget, {DEVICE}")
    dtype: str = option("bf16", f"with --budget, {DTYPE}", choices=DTYPES)
    mfu: float = option(0.4, "with --budget, model-FLOP utilisation, 0 to 1", above=0, high=1)
    price: float | None = option(
        None, "with --budget, USD a device-hour (default: the table's)", above=0
    )
    on: str | None = option(None, ON)

    def answer(self) -> Answer:
        law = find_law(self.law)
        given = [n for n in ("flops", "budget", "parameters") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of --flops, --budget and --parameters, got {len(given)}.")
        if self.budget is None and (idle := self.changed("device", "dtype", "mfu", "price")):
            raise ValueError(f"{idle[0]} goes with --budget: it turns USD into FLOP.")
        compute = self.flops
        if self.budget is not None:
            hours = Q(self.budget, "USD") / device_price(self.price, self.device, self.on)
            peak = device(self.device, self.on).peak(self.dtype)
            compute = Q(hours.to("device * s").magnitude * peak.magnitude * self.mfu, "FLOP")
        if self.parameters is not None:
            if not hasattr(law, "compute_for"):
                raise ValueError(
                    f"--parameters needs a law of Chinchilla's form, {self.law} is another."
                )
            compute = law.compute_for(self.parameters)
        best = law.optimum(compute)
        details = {
            "tokens": best.tokens,
            "tokens per parameter": best.tokens_per_parameter,
            "loss": Q(best.loss, "nat / token"),
            "compute": best.compute,
        }
        return Answer("parameters", best.parameters, details | {"law": law.source})


@dataclass(frozen=True)
class KV(ModelCommand):
    """Bytes of the cache of keys and values.

    $ bml plan kv --model llama2-7b --positions 4096 --batch 16
    cache      34.36 GB
    per token  524,288 B / token
    in GiB     32 GiB
    """

    positions: int | None = option(None, "tokens of a sequence (default: the context)", low=0)
    batch: int = option(1, "sequences", low=0)
    itemsize: float = option(2.0, "bytes of a number: 2 for 16 bits, 1 for 8", above=0)

    def answer(self) -> Answer:
        arch = self.architecture()
        whole = kv_cache(arch, self.positions, self.batch, self.itemsize)
        each = kv_per_token(arch, self.itemsize)
        return Answer("cache", whole, {"per token": each, "in GiB": whole.to("GiB")})


@dataclass(frozen=True)
class Serve(ModelCommand):
    """Devices, latency and dollars per million tokens of a service.

    $ bml plan serve --model llama3-8b --rate 50 --prompt 500 --output 200 --per-token 0.03
    devices                   3 device
    replicas                  3
    cost of output tokens     0.2458 USD / Mtoken
    cost                      6,465 USD / month
    busy                      0.4765
    batch of a replica        210
    output of a full replica  6,995 token / s
    first token               0.01424 s
    per token                 0.02995 s
    decode is limited by      memory
    note: waiting for a place is not in the latencies; prompts are paid for by the output tokens
    """

    rate: float = option(10.0, "requests a second", above=0)
    prompt: int = option(500, "tokens of a prompt", low=1)
    output: int = option(200, "tokens of an answer", low=1)
    spread: float = option(1.0, "standard deviation of an answer's length over its mean", low=0)
    per_token: float | None = option(None, "s between two tokens, at most", above=0)
    first_token: float | None = option(None, "s of prefill, at most", above=0)
    busy: float = option(0.7, "largest share of the full throughput to plan for", above=0, high=1)
    device: str = option("h100-sxm", DEVICE)
    dtype: str = option("bf16", DTYPE, choices=DTYPES)
    tensor: int = option(1, "devices of one replica", low=1)
    weight_bytes: float = option(2.0, "bytes of a weight")
    kv_bytes: float = option(2.0, "bytes of a number of the cache")
    compute_share: float = option(0.5, "of the peak that prefill reaches: assumed; 1 is the bound")
    bandwidth_share: float = option(0.7, "of the bandwidth that decode reaches: assumed")
    price: float | None = option(None, "USD a device-hour (default: the table's)", low=0)
    on: str | None = option(None, ON)

    def answer(self) -> Answer:
        arch, d = self.architecture(), device(self.device, self.on)
        if arch.head in ("none", "mlm"):
            raise ValueError(f"--model must be one that writes tokens: {arch.name} only reads.")
        if self.tensor > d.per_node or arch.n_heads % self.tensor:
            raise ValueError(
                f"--tensor must divide the {arch.n_heads} heads of {arch.name} and be at most the {d.per_node} devices of a "
                f"{d.name} node, got {self.tensor}."
            )
        replica = Replica(
            arch,
            d,
            self.tensor,
            self.weight_bytes,
            self.kv_bytes,
            self.dtype,
            compute_share=self.compute_share,
            bandwidth_share=self.bandwidth_share,
        )
        fleet = plan_serving(
            replica,
            Workload(self.prompt, self.output, self.spread),
            self.rate,
            per_token=self.per_token,
            first_token=self.first_token,
            busy=self.busy,
        )
        usd, one = device_price(self.price, self.device, self.on), fleet.service
        details = {
            "replicas": fleet.replicas,
            "cost of output tokens": fleet.cost_per_million(usd),
            "cost": fleet.cost_per_month(usd),
            "busy": fleet.busy,
            "batch of a replica": one.batch,
            "output of a full replica": one.output_per_s,
            "first token": one.first_token,
            "per token": one.per_token,
            "decode is limited by": one.limit,
        }
        note = (
            "waiting for a place is not in the latencies; prompts are paid for by the output tokens"
        )
        return Answer("devices", Q(fleet.devices, "device"), details, (note,))


COMMANDS = {
    "params": Params,
    "memory": Memory,
    "train": Train,
    "traffic": TrafficOnWire,
    "optimal": Optimal,
    "kv": KV,
    "serve": Serve,
    "layout": Layout,
}
