"""What each kind of parallelism puts on the wire, per device, and how long it takes; the pipeline's bubble.

Ring collectives over n devices of a payload of S bytes: a device sends

    all-reduce 2 (n-1)/n S,    all-gather and reduce-scatter (n-1)/n S,    all-to-all (n-1)/n S

in 2(n-1), n-1 and n-1 messages. Time is messages x latency + bytes / bandwidth. Sources: Thakur et al. (2005);
Rajbhandari et al. (2020), arXiv:1910.02054, section 7; Narayanan et al. (2021), arXiv:2104.04473, sections 2.2 and 3.
Told in chapter 17.
"""

from dataclasses import dataclass

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.activations import KEEP
from bigmodel_lab.plan.architecture import Architecture
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = [
    "COLLECTIVES",
    "Bubble",
    "collective_bytes",
    "collective_time",
    "data_parallel_bytes",
    "expert_bytes",
    "pipeline_bubble",
    "pipeline_bytes",
    "tensor_bytes",
]

COLLECTIVES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}


def collective_bytes(collective: str, payload, ranks: int) -> Quantity:
    """Return the bytes that each of `ranks` ranks sends in a ring; `payload` is the whole vector's bytes."""
    times = COLLECTIVES[require_choice("collective", collective, COLLECTIVES)]
    S, n = number("payload", payload, "byte"), whole("ranks", ranks, low=1)
    return Q(times * (n - 1) / n * S, "byte")


def collective_time(collective: str, payload, ranks: int, bandwidth, latency=0.0) -> Quantity:
    """Return the seconds of a ring collective; `bandwidth` in byte/s one way, `latency` in s a message."""
    sent = collective_bytes(collective, payload, ranks).magnitude
    width = number("bandwidth", bandwidth, "byte/s", above=0)
    messages = COLLECTIVES[collective] * (ranks - 1)
    return Q(messages * number("latency", latency, "s") + sent / width, "s")


def data_parallel_bytes(
    parameters, zero: int, replicas: int, *, itemsize: float = 2, micro_batches: int = 1
) -> Quantity:
    """Return the bytes that a device sends for one optimiser step of data parallelism.

    Stages 0-2 move two payloads (all-reduce; or reduce-scatter gradients, gather weights), stage 3 three (weights before
    forward, again before backward; gradients): 1.5 times as many. With gradient accumulation over `micro_batches`, stage
    2 scatters gradients and stage 3 does all three for every micro-batch, since no rank keeps them whole.
    itemsize : bytes of a weight and of a gradient on the wire
    """
    payload = number("parameters", parameters, "parameter") * number("itemsize", itemsize, above=0)
    stage, m = whole("zero", zero, high=3), whole("micro_batches", micro_batches, low=1)
    payloads = {0: 2, 1: 2, 2: 1 + m, 3: 3 * m}[stage]
    return payloads * collective_bytes("all_gather", payload, replicas)


def tensor_bytes(
    arch: Architecture,
    tokens: int,
    tensor: int,
    *,
    itemsize: int = 2,
    layers: int | None = None,
    recompute: str = "none",
    training: bool = True,
) -> Quantity:
    """Return the bytes that a device sends for `tokens` tokens (b s) of tensor parallelism.

    Each layer has two all-reduces of tokens x D forward and two backward; full recomputation runs the forward ones again.
    Sequence parallelism turns each into a reduce-scatter and an all-gather: the same bytes.
    """
    n = whole("tokens", tokens, "token") * arch.width * whole("itemsize", itemsize, low=1)
    require_choice("recompute", recompute, KEEP)
    L = arch.n_layers if layers is None else whole("layers", layers)
    times = 2 if not training else 6 if recompute == "full" else 4
    return L * times * collective_bytes("all_reduce", n, tensor)


def pipeline_bytes(
    arch: Architecture, tokens: int, *, itemsize: int = 2, chunks: int = 1
) -> Quantity:
    """Return the bytes over one boundary between stages for `tokens` tokens: activations on, gradients back."""
    n = whole("tokens", tokens, "token") * arch.width * whole("itemsize", itemsize, low=1)
    return Q(2 * n * whole("chunks", chunks, low=1), "byte")


def expert_bytes(
    arch: Architecture, tokens: int, expert_ranks: int, *, itemsize: int = 2
) -> Quantity:
    """Return the bytes that a device sends for its `tokens` tokens of expert parallelism in one training step.

    In each layer with experts every token goes out to `per_token` experts and comes back, forward and backward: four
    all-to-alls. Evenly loaded, (n-1)/n of it leaves the device. Raises ValueError without experts.
    """
    if not arch.experts:
        raise ValueError(f"arch must have experts, {arch.name} has none.")
    n = whole("tokens", tokens, "token") * arch.width * whole("itemsize", itemsize, low=1)
    payload = n * arch.experts.per_token
    return 4 * arch.expert_layers * collective_bytes("all_to_all", payload, expert_ranks)


@dataclass(frozen=True)
class Bubble:
    """Idle time of a pipeline in both conventions; each is called "the bubble fraction" somewhere."""

    of_ideal: float  # idle over useful time: (p-1)/(v m), can pass 1
    of_total: float  # idle over all time: (p-1)/(v m + p - 1), below 1


def pipeline_bubble(stages: int, micro_batches: int, chunks: int = 1) -> Bubble:
    """Return the bubble of GPipe and 1F1B (the same); `chunks` v model parts a device interleave it away."""
    p, m = whole("stages", stages, low=1), whole("micro_batches", micro_batches, low=1)
    v = whole("chunks", chunks, low=1)
    return Bubble((p - 1) / (v * m), (p - 1) / (v * m + p - 1))
