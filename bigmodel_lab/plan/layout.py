"""One way to lay a training run over a fleet: its memory and its time for a step, part by part.

A device of `dp x tp x pp` does, for each of m micro-batches, its share of the products, waits for tensor-parallel
all-reduces and for the neighbour stage; then come the pipeline's idle slots and what of the data-parallel traffic did not
hide behind the backward pass:

    step = (m + (p - 1)/v) (compute + tensor + pipeline) + max(0, data - overlap x backward)

where each kind of traffic takes messages x latency + bytes / bandwidth. It is a model with three assumed numbers:
`Fleet.kernel_share`, `Fleet.overlap`, and `Fleet.latency`, which is 0 unless you set it. Against ten published runs it is,
without latency, within a fifth from 7 billion parameters on, and too hopeful below, by up to 37 %, since small matrices run
slower (tests/plan/test_planner.py). It leaves out stragglers, loading of data, checkpoints, and the traffic of experts
(`traffic.expert_bytes`).
Sources: those of plan.traffic, plan.activations and plan.memory. Told in chapters 16 and 17 and lab L08.
"""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.activations import KEEP, model_activations
from bigmodel_lab.plan.architecture import Architecture, require_architecture
from bigmodel_lab.plan.flops import training_flops
from bigmodel_lab.plan.memory import STATES, model_state
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.plan.tables import Device, require_device
from bigmodel_lab.plan.traffic import data_parallel_bytes, pipeline_bytes, tensor_bytes
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Estimate", "Fleet", "TrainingLayout", "check_layout", "estimate", "wires"]


@dataclass(frozen=True)
class Fleet:
    """Devices of one kind, and what we assume of them."""

    device: Device
    devices: int
    dtype: str = "bf16"
    kernel_share: float = 0.6  # of the peak that a layer's products reach alone: assumed
    overlap: float = 0.8  # of the backward pass, behind which data-parallel traffic hides: assumed
    memory_share: float = 0.9  # of the device's memory that may be planned with
    latency: float = (
        0.0  # s of a message on any link: assumed. 0 charges for bytes alone; 3e-6 to 3e-5 is usual
    )

    def __post_init__(self):
        require_device(self.device).peak(self.dtype)  # raises for a format that the device has not
        whole("devices", self.devices, low=1)
        for name in ("kernel_share", "memory_share"):
            number(name, getattr(self, name), high=1, above=0)
        number("overlap", self.overlap, high=1)
        number("latency", self.latency, "s")

    @cached_property
    def memory(self) -> Quantity:
        """Bytes of one device that may be planned with."""
        return (self.device.memory * self.memory_share).to("byte")

    @cached_property
    def rates(self) -> tuple[float, float, float]:
        """Peak FLOP/s of a device, byte/s of its link and of its network: magnitudes, for the loop of the search."""
        d = self.device
        speeds = (x.to("byte/s").magnitude for x in (d.link, d.network))
        return d.peak(self.dtype).to("FLOP/s").magnitude, *speeds


@dataclass(frozen=True)
class TrainingLayout:
    """How one training step is divided. Sequence parallelism goes with tensor parallelism."""

    dp: int = 1  # data-parallel replicas
    tp: int = 1  # ranks that share each matrix; they stay in a node
    pp: int = 1  # pipeline stages, 1F1B
    chunks: int = 1  # v, parts of the model on each stage; more than 1 interleaves them
    zero: int = 0  # stage 0-3, over the replicas
    micro_batch: int = 1  # sequences that a replica takes at a time
    recompute: str = "none"

    def __post_init__(self):
        for name in ("dp", "tp", "pp", "chunks", "micro_batch"):
            whole(name, getattr(self, name), low=1)
        whole("zero", self.zero, high=3)
        require_choice("recompute", self.recompute, KEEP)

    @property
    def devices(self) -> int:
        """dp x tp x pp."""
        return self.dp * self.tp * self.pp

    def but(self, **changes) -> "TrainingLayout":
        """Return a copy with fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Estimate:
    """What one layout takes, on its fullest device and for one optimiser step."""

    layout: TrainingLayout
    micro_batches: int
    state: Quantity  # weights, gradients, optimiser
    activations: Quantity
    fits: bool
    compute: Quantity  # s, recomputation included
    tensor: Quantity  # s of tensor-parallel collectives
    pipeline: Quantity  # s of sends between stages
    bubble: Quantity  # s idle at the ends of the pipeline
    data: Quantity  # s of data-parallel traffic that nothing hides
    tokens_per_s: Quantity  # of the whole fleet
    mfu: float

    @property
    def memory(self) -> Quantity:
        """Bytes on the fullest device."""
        return self.state + self.activations

    @property
    def step(self) -> Quantity:
        """Time of one optimiser step."""
        return self.compute + self.tensor + self.pipeline + self.bubble + self.data


def check_layout(arch: Architecture, device: Device, layout: TrainingLayout, batch: int) -> int:
    """Return the micro-batches of a step.

    Raises ValueError if the layout does not divide the batch, the heads, the layers or a node of `device`.
    """
    dp, tp, pp, b = layout.dp, layout.tp, layout.pp, layout.micro_batch
    m, rest = divmod(whole("batch", batch, low=1), dp * b)
    if rest:
        raise ValueError(
            f"batch={batch} must be a multiple of dp x micro_batch = {dp} x {b}: each replica takes whole micro-batches."
        )
    if tp > device.per_node:
        raise ValueError(
            f"tp={tp} must be at most the {device.per_node} devices of a {device.name} node: its traffic cannot wait for "
            f"the network."
        )
    if arch.n_heads % tp:
        raise ValueError(
            f"tp={tp} must divide the {arch.n_heads} heads of {arch.name}: each device takes whole heads."
        )
    if pp > arch.n_layers:
        raise ValueError(
            f"pp={pp} must be at most the {arch.n_layers} layers of {arch.name}: each stage takes whole layers."
        )
    if layout.chunks > 1 and (pp == 1 or m % pp):
        raise ValueError(
            f"chunks={layout.chunks} needs a pipeline whose stages, pp={pp}, divide the {m} micro-batches of a step."
        )
    return m


def wires(layout: TrainingLayout, per_node: int, link, network) -> tuple:
    """Return `link` or `network`, whichever the data-parallel traffic takes, and the same for the pipeline's.

    Ranks that share a matrix sit side by side, then replicas, then stages: a ring is as fast as its slowest hop.
    """
    data = link if layout.dp * layout.tp <= per_node else network
    return data, link if layout.devices <= per_node else network


def _messages(layout: TrainingLayout, layers: int, micro_batches: int) -> tuple[int, int, int]:
    """Messages that wait for each other: of tensors and of stages for a micro-batch, of replicas (rings) for a step.

    ZeRO 3 gathers layer by layer, since it has room for no more; the other stages are charged with one ring.
    """
    all_reduces = 6 if layout.recompute == "full" else 4
    tensor = layers * all_reduces * 2 * (layout.tp - 1)
    pipeline = 2 * layout.chunks if layout.pp > 1 else 0
    rings = {0: 2, 1: 2, 2: 1 + micro_batches, 3: 3 * micro_batches * layers}[layout.zero]
    return tensor, pipeline, rings * (layout.dp - 1)


@lru_cache(maxsize=256)
def _size(arch: Architecture) -> int:
    return count_parameters(arch).total


@lru_cache(maxsize=256)
def _flops(arch: Architecture, sequence: int, recompute: str) -> float:
    """FLOP of one sequence of training."""
    return training_flops(arch, sequence, sequence, recompute=recompute).magnitude


def estimate(
    arch: Architecture,
    fleet: Fleet,
    layout: TrainingLayout,
    batch: int,
    sequence: int | None = None,
    *,
    state: str = "mixed-adam",
) -> Estimate:
    """Return memory and time of `layout` for steps of `batch` sequences.

    Raises ValueError if the layout does not divide the devices, the batch, the heads, the layers or a node.
    """
    s = require_architecture(arch).context if sequence is None else sequence
    s = whole("sequence", s, "token", 1)
    dp, tp, pp, b = layout.dp, layout.tp, layout.pp, layout.micro_batch
    if layout.devices != fleet.devices:
        raise ValueError(
            f"layout needs dp x tp x pp = {dp} x {tp} x {pp} = {layout.devices} devices and the fleet has {fleet.devices}."
        )
    m = check_layout(arch, fleet.device, layout, batch)
    parameters, v = _size(arch), layout.chunks
    split = dict(tensor=tp, sequence_parallel=tp > 1, recompute=layout.recompute, dropout=False)
    kept = model_activations(arch, b, s, pipeline=pp, micro_batches=m, chunks=v, **split)
    held = model_state(parameters, layout.zero, dp, shards=tp * pp, state=state).total
    if layout.zero == 3:  # the layer at work is gathered whole, and the next one fetched
        held += Q(2 * STATES[state].weights * parameters / arch.n_layers / tp, "byte")
    layers = -(-arch.n_layers // pp)
    longest = layers * pp / arch.n_layers  # the longest stage sets the pace
    model_flops, run = b * _flops(arch, s, "none"), b * _flops(arch, s, layout.recompute)
    peak, link, network = fleet.rates
    ring, hop = wires(layout, fleet.device.per_node, link, network)
    waits = [n * fleet.latency for n in _messages(layout, layers, m)]
    compute = run * longest / (tp * pp) / (peak * fleet.kernel_share)
    sent = tensor_bytes(arch, b * s, tp, layers=layers, recompute=layout.recompute)
    tensor = waits[0] + sent.magnitude / link
    passed = pipeline_bytes(arch, b * s, chunks=v).magnitude / tp if pp > 1 else 0.0
    pipe = waits[1] + passed / hop
    synced = data_parallel_bytes(
        parameters / (tp * pp), layout.zero, dp, itemsize=2, micro_batches=m
    )
    wire = waits[2] + synced.magnitude / ring
    data = max(0.0, wire - fleet.overlap * m * compute * 2 / 3)
    once = compute + tensor + pipe
    step = (m + (pp - 1) / v) * once + data
    return Estimate(
        layout=layout,
        micro_batches=m,
        state=held,
        activations=kept,
        fits=held.magnitude + kept.magnitude <= fleet.memory.magnitude,
        compute=Q(m * compute, "s"),
        tensor=Q(m * tensor, "s"),
        pipeline=Q(m * pipe, "s"),
        bubble=Q((pp - 1) / v * once, "s"),
        data=Q(data, "s"),
        tokens_per_s=Q(batch * s / step, "token/s"),
        mfu=model_flops * m * dp / (step * fleet.devices * peak),
    )
