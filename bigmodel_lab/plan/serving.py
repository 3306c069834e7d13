"""Serving a model: prefill and decode at the roofline, batching, fleets, and dollars per million tokens.

    prefill of T tokens     max(FLOP(T) / F, W / B)                  limited by arithmetic
    one decode step         max(b FLOP(1) / F, (W + b c kv) / B)     limited by memory until b is large

F and B are a replica's FLOP/s and byte/s, W the bytes of weights that a step reads, c the positions in the cache and kv its
bytes a token. A replica that is kept full works through cycles: while b requests decode n tokens each, b new ones are
prefilled, so that

    requests/s = b / (n step(b) + b prefill)

n counts decode steps: the token that prefill itself gives is left out. Of experts a step reads those that its tokens chose,
in the mean count (1 - (1 - k/count)^b) if choices are even. Sources: Pope et al. (2022), arXiv:2211.05102, section 2;
Williams et al. (2009) for the roofline. Told in lab L08.
"""

from dataclasses import dataclass
from functools import cached_property

from bigmodel_lab.plan.architecture import Architecture, require_architecture
from bigmodel_lab.plan.flops import forward_flops
from bigmodel_lab.plan.kv import kv_per_token
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.plan.tables import Device, require_device
from bigmodel_lab.plan.traffic import tensor_bytes
from bigmodel_lab.units import Q, Quantity, number, spell, whole

__all__ = ["Replica", "Service", "Workload", "decode_step", "largest_batch", "prefill", "serve"]


@dataclass(frozen=True)
class Replica:
    """One copy of a model on one or more devices that share every matrix (tensor parallel)."""

    arch: Architecture
    device: Device
    devices: int = 1
    weight_bytes: float = 2.0  # bytes a weight: 2 for 16 bits, 1 for 8, 0.5 for 4
    kv_bytes: float = 2.0  # bytes a number of the cache
    dtype: str = "bf16"  # number format of the products
    compute_share: float = 1.0  # of the peak; 1 is the roofline, an upper bound: 0.4-0.6 is usual
    bandwidth_share: float = 1.0  # of the memory's bandwidth; 0.6-0.8 is usual
    memory_share: float = 0.9  # of the memory that weights and cache may take
    overhead: float = 0.0  # s of every step that is neither (launches, sampling, scheduling)

    def __post_init__(self):
        require_architecture(self.arch)
        require_device(self.device).peak(self.dtype)  # raises for a format that the device has not
        whole("devices", self.devices, low=1, high=self.device.per_node)
        for name in ("compute_share", "bandwidth_share", "memory_share"):
            number(name, getattr(self, name), high=1, above=0)
        for name in ("weight_bytes", "kv_bytes"):
            number(name, getattr(self, name), above=0)
        number("overhead", self.overhead, "s")

    @cached_property
    def weights(self) -> Quantity:
        """Bytes of all weights."""
        return Q(count_parameters(self.arch).total * self.weight_bytes, "byte")

    @property
    def kv_copies(self) -> float:
        """How often a cached number is kept: heads are divided over the devices, a head or an MLA latent is not."""
        heads = 1 if self.arch.mla else self.arch.kv_heads
        return max(1.0, self.devices / heads)

    @cached_property
    def _rates(self) -> tuple[float, float, float]:
        d, n = self.device, self.devices
        flops = d.peak(self.dtype).to("FLOP/s").magnitude * n * self.compute_share
        moved = d.bandwidth.to("byte/s").magnitude * n * self.bandwidth_share
        return flops, moved, d.link.to("byte/s").magnitude

    def weights_read(self, batch: int) -> float:
        """Bytes of weights that a step with `batch` tokens reads: of experts only those that a token chose.

        The token embedding is counted whole, as published bounds count it, although a step reads only its tokens' rows.
        """
        count, e = count_parameters(self.arch), self.arch.experts
        if not e:
            return self.weights.magnitude
        routed = count.idle / (1 - e.per_token / e.count) if count.idle else 0.0
        unread = (1 - e.per_token / e.count) ** batch
        return (count.total - routed * unread) * self.weight_bytes

    def collectives_s(self, tokens: int) -> float:
        """Seconds of the all-reduces of one forward pass over `tokens` tokens."""
        if self.devices == 1:
            return 0.0
        sent = tensor_bytes(self.arch, tokens, self.devices, training=False).magnitude
        return sent / self._rates[2]


def prefill(replica: Replica, prompt: int, batch: int = 1) -> Quantity:
    """Return the seconds until the first token of `batch` prompts of `prompt` tokens, alone on the replica."""
    T = whole("prompt", prompt, "token", 1)
    b = whole("batch", batch, low=1)
    f = forward_flops(replica.arch, T, b, attention="causal")
    layers = (f.projections + f.core).magnitude
    work = layers + f.head.magnitude / T  # logits of the last position only
    flops, moved, _ = replica._rates
    step = max(work / flops, replica.weights_read(b * T) / moved)
    return Q(step + replica.collectives_s(b * T) + replica.overhead, "s")


def decode_parts(replica: Replica, batch: float, context: float) -> tuple[float, float]:
    """Return the seconds of arithmetic and of memory traffic of one decode step; each is linear in `context`."""
    arch, one = replica.arch, forward_flops(replica.arch, 1)
    core = one.core.magnitude
    if m := arch.mla:
        # scores and sums are taken in the latent space: nothing is expanded for past positions
        core = 2 * arch.n_layers * arch.n_heads * (2 * m.kv_rank + m.rope)
    work = batch * ((one.projections + one.head).magnitude + core * context)
    kv = kv_per_token(arch, replica.kv_bytes).magnitude * replica.kv_copies
    flops, moved, _ = replica._rates
    return work / flops, (replica.weights_read(batch) + batch * context * kv) / moved


def decode_step(replica: Replica, batch: int = 1, context: float = 0) -> Quantity:
    """Return the seconds in which `batch` sequences of `context` cached positions each get one more token."""
    b, c = whole("batch", batch, low=1), number("context", context, "token")
    return Q(max(decode_parts(replica, b, c)) + replica.collectives_s(b) + replica.overhead, "s")


def largest_batch(replica: Replica, context: float) -> int:
    """Return how many sequences of `context` positions fit beside the weights.

    Raises ValueError, naming what is lacking, if not even one does.
    """
    room = replica.device.memory.to("byte").magnitude * replica.devices * replica.memory_share
    length = number("context", context, "token", above=0)
    each = kv_per_token(replica.arch, replica.kv_bytes).magnitude * length * replica.kv_copies
    fits = int((room - replica.weights.magnitude) // each)
    if fits < 1:
        raise ValueError(
            f"{replica.arch.name} with one sequence of {context:g} tokens needs {spell(replica.weights + Q(each, 'byte'))} and "
            f"{replica.devices} x {replica.device.name} have {spell(Q(room, 'byte'))} to plan with: take more devices or "
            f"fewer bytes a weight."
        )
    return fits


@dataclass(frozen=True)
class Workload:
    """What one request asks for, in the mean."""

    prompt: int  # tokens
    output: int  # tokens
    spread: float = 0.0  # standard deviation of the output's length over its mean: 0 if all are equal, 1 if geometric

    def __post_init__(self):
        whole("prompt", self.prompt, "token", 1)
        whole("output", self.output, "token", 1)
        number("spread", self.spread)

    @property
    def context(self) -> float:
        """Cached positions of a sequence in flight, in the mean: long outputs are in flight longer, so they count more."""
        return self.prompt + self.output * (1 + self.spread**2) / 2


@dataclass(frozen=True)
class Service:
    """What one replica does when it is kept full with `batch` sequences."""

    batch: int
    requests_per_s: Quantity
    output_per_s: Quantity  # token/s of all sequences together
    per_token: Quantity  # s between two tokens of one sequence, others' prefills included
    first_token: Quantity  # s, without waiting for a place
    latency: Quantity  # s from prefill to last token, without waiting for a place
    limit: str  # of the decode step: "memory" or "arithmetic"
    devices: int

    def cost_per_million(self, price, utilisation: float = 1.0) -> Quantity:
        """Return USD per million output tokens; `price` in USD / (device hour), `utilisation` the share of time kept full.

        Prompts are not charged for: all cost falls on the output.
        """
        rate = number("price", price, "USD / device / hour")
        share = number("utilisation", utilisation, high=1, above=0)
        per_s = rate * self.devices / 3600
        return Q(1e6 * per_s / (self.output_per_s.magnitude * share), "USD / Mtoken")


def serve(replica: Replica, workload: Workload, batch: int | None = None) -> Service:
    """Return throughput and latency of a replica that is kept full with `batch` sequences (default: what fits).

    Raises ValueError if `batch` sequences do not fit at their full length.
    """
    most = largest_batch(replica, workload.prompt + workload.output)
    b = most if batch is None else whole("batch", batch, low=1)
    if b > most:
        raise ValueError(
            f"batch={b} does not fit: beside the weights there is room for {most} sequences of "
            f"{workload.prompt + workload.output} tokens."
        )
    first = prefill(replica, workload.prompt).magnitude
    step = decode_step(replica, b, workload.context).magnitude
    arithmetic, memory = decode_parts(replica, b, workload.context)
    cycle = workload.output * step + b * first
    return Service(
        batch=b,
        requests_per_s=Q(b / cycle, "request / s"),
        output_per_s=Q(b * workload.output / cycle, "token / s"),
        per_token=Q(step + (b - 1) * first / workload.output, "s"),
        first_token=Q(first, "s"),
        latency=Q(cycle, "s"),
        limit="arithmetic" if arithmetic > memory else "memory",
        devices=replica.devices,
    )
