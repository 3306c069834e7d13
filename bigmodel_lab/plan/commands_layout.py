"""The commands of `bml plan` about many devices: traffic, layout."""

from dataclasses import dataclass, fields

from bigmodel_lab.plan.activations import KEEP
from bigmodel_lab.plan.layout import Fleet, TrainingLayout, check_layout, wires
from bigmodel_lab.plan.memory import STATES
from bigmodel_lab.plan.options import (
    DEVICE,
    DTYPE,
    DTYPES,
    ON,
    SEQUENCE,
    ModelCommand,
    training_sequence,
)
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.plan.planner import plan_training
from bigmodel_lab.plan.tables import device
from bigmodel_lab.plan.traffic import (
    data_parallel_bytes,
    pipeline_bubble,
    pipeline_bytes,
    tensor_bytes,
)
from bigmodel_lab.shell import Answer, option
from bigmodel_lab.units import Q

__all__ = ["Layout", "TrafficOnWire"]


@dataclass(frozen=True)
class TrafficOnWire(ModelCommand):
    """Bytes that a device sends in one training step, and how long they take.

    $ bml plan traffic --model llama3-70b --dp 16 --tp 8 --pp 4 --zero 1 --batch 512 --device h100-sxm
    sent by a device in a step  610.6 GB
    data parallel               8.268 GB
    tensor parallel             601.3 GB
    pipeline parallel           1.074 GB
    time, data parallel         0.1654 s
    time, tensor parallel       1.336 s
    time, pipeline parallel     0.02147 s
    bubble, of the ideal time   0.09375
    bubble, of all time         0.08571
    """

    dp: int = option(8, "data-parallel replicas", low=1)
    tp: int = option(1, "tensor-parallel ranks", low=1)
    pp: int = option(1, "pipeline stages", low=1)
    zero: int = option(0, "ZeRO stage 0-3", low=0, high=3)
    batch: int = option(64, "sequences of a step, over all replicas", low=1)
    micro_batch: int = option(1, "sequences that a replica takes at a time", low=1)
    sequence: int | None = option(None, SEQUENCE, low=1)
    recompute: str = option("none", "what the backward pass runs again", choices=KEEP)
    itemsize: int = option(2, "bytes of a number on the wire", low=1)
    device: str = option("h100-sxm", DEVICE)
    on: str | None = option(None, ON)

    def answer(self) -> Answer:
        arch, d = self.architecture(), device(self.device, self.on)
        how = dict(zero=self.zero, micro_batch=self.micro_batch, recompute=self.recompute)
        layout = TrainingLayout(self.dp, self.tp, self.pp, **how)
        m = check_layout(arch, d, layout, self.batch)
        tokens = self.micro_batch * training_sequence(arch, self.sequence)
        shards = self.tp * self.pp
        data = data_parallel_bytes(
            count_parameters(arch).total / shards,
            self.zero,
            self.dp,
            itemsize=self.itemsize,
            micro_batches=m,
        )
        layers = -(-arch.n_layers // self.pp)
        tensor = m * tensor_bytes(
            arch, tokens, self.tp, itemsize=self.itemsize, layers=layers, recompute=self.recompute
        )
        pipe = Q(0, "byte")
        if self.pp > 1:
            pipe = m * pipeline_bytes(arch, tokens, itemsize=self.itemsize) / self.tp
        ring, hop = wires(layout, d.per_node, d.link, d.network)
        bubble = pipeline_bubble(self.pp, m)
        details = {
            "data parallel": data,
            "tensor parallel": tensor,
            "pipeline parallel": pipe,
            "time, data parallel": (data / ring).to("s"),
            "time, tensor parallel": (tensor / d.link).to("s"),
            "time, pipeline parallel": (pipe / hop).to("s"),
            "bubble, of the ideal time": bubble.of_ideal,
            "bubble, of all time": bubble.of_total,
        }
        return Answer("sent by a device in a step", data + tensor + pipe, details)


@dataclass(frozen=True)
class Layout(ModelCommand):
    """The fastest data x tensor x pipeline x ZeRO layout that fits a fleet, and why.

    $ bml plan layout --model llama2-7b --device a100-sxm-80gb --devices 8 --batch 64
    step         8.067 s
    dp           8
    tp           1
    pp           1
    chunks       1
    zero         3
    micro_batch  1
    recompute    none
    tokens       32,497 token / s
    MFU          0.6
    memory       66.52 GB
    dp=8 tp=1 pp=1 chunks=1 zero=3 micro_batch=1 recompute=none: 8.07 s a step, 8 micro-batches, MFU 60.0 %
      time: compute 100 %, tensor 0 %, pipeline 0 %, bubble 0 %, data 0 %
      memory: 14.3 GB state + 52.2 GB activations of 72 GB
      dp=1 instead of 8: 4.4 % slower (more tensor), as dp=1 tp=2 pp=4 chunks=4 zero=0 micro_batch=1 recompute=none
      dp=2 instead of 8: 3.8 % slower (more tensor), as dp=2 tp=2 pp=2 chunks=4 zero=0 micro_batch=1 recompute=none
      dp=4 instead of 8: 2.8 % slower (more tensor), as dp=4 tp=2 pp=1 chunks=1 zero=1 micro_batch=1 recompute=none
      tp=2 instead of 1: 2.8 % slower (more tensor), as dp=4 tp=2 pp=1 chunks=1 zero=1 micro_batch=1 recompute=none
      tp=4 instead of 1: 8.5 % slower (more tensor), as dp=2 tp=4 pp=1 chunks=1 zero=0 micro_batch=1 recompute=none
      tp=8 instead of 1: 19.9 % slower (more tensor), as dp=1 tp=8 pp=1 chunks=1 zero=0 micro_batch=1 recompute=none
      pp=2 instead of 1: 3.8 % slower (more tensor), as dp=2 tp=2 pp=2 chunks=4 zero=0 micro_batch=1 recompute=none
      pp=4 instead of 1: 4.4 % slower (more tensor), as dp=1 tp=2 pp=4 chunks=4 zero=0 micro_batch=1 recompute=none
      pp=8 instead of 1: 8.3 % slower (more compute), as dp=1 tp=1 pp=8 chunks=4 zero=0 micro_batch=1 recompute=selective
      chunks=2 instead of 1: 4.5 % slower (more tensor), as dp=2 tp=2 pp=2 chunks=2 zero=0 micro_batch=1 recompute=none
      chunks=4 instead of 1: 3.8 % slower (more tensor), as dp=2 tp=2 pp=2 chunks=4 zero=0 micro_batch=1 recompute=none
      zero=0 instead of 3: 3.8 % slower (more tensor), as dp=2 tp=2 pp=2 chunks=4 zero=0 micro_batch=1 recompute=none
      zero=1 instead of 3: 2.8 % slower (more tensor), as dp=4 tp=2 pp=1 chunks=1 zero=1 micro_batch=1 recompute=none
      zero=2 instead of 3: 2.8 % slower (more tensor), as dp=4 tp=2 pp=1 chunks=1 zero=2 micro_batch=1 recompute=none
      micro_batch=2 instead of 1: 2.8 % slower (more tensor), as dp=4 tp=2 pp=1 chunks=1 zero=2 micro_batch=2 recompute=none
      micro_batch=4 instead of 1: 7.5 % slower (more compute), as dp=4 tp=2 pp=1 chunks=1 zero=1 micro_batch=4 recompute=selective
      micro_batch=8 instead of 1: 13.2 % slower (more tensor), as dp=2 tp=4 pp=1 chunks=1 zero=0 micro_batch=8 recompute=selective
      micro_batch=16 instead of 1: 24.5 % slower (more tensor), as dp=1 tp=8 pp=1 chunks=1 zero=0 micro_batch=16 recompute=selective
      recompute=full instead of none: 32.8 % slower (more compute), as dp=8 tp=1 pp=1 chunks=1 zero=1 micro_batch=1 recompute=full
      recompute=selective instead of none: 4.7 % slower (more compute), as dp=8 tp=1 pp=1 chunks=1 zero=1 micro_batch=1 recompute=selective
    """

    device: str = option("h100-sxm", DEVICE)
    devices: int = option(8, "how many", low=1)
    batch: int = option(64, "sequences of a step, over all replicas", low=1)
    sequence: int | None = option(None, SEQUENCE, low=1)
    state: str = option(
        "mixed-adam",
        "what is kept for a parameter",
        choices=tuple(name for name, kept in STATES.items() if kept.gradients),
    )
    dtype: str = option("bf16", DTYPE, choices=DTYPES)
    kernel_share: float = option(0.6, "of the peak that products reach alone: assumed")
    latency: float = option(0.0, "s of a message on any link: assumed; 0 charges for bytes alone")
    on: str | None = option(None, ON)

    def answer(self) -> Answer:
        fleet = Fleet(
            device(self.device, self.on),
            self.devices,
            self.dtype,
            kernel_share=self.kernel_share,
            latency=self.latency,
        )
        arch = self.architecture()
        sequence = training_sequence(arch, self.sequence)
        choice = plan_training(arch, fleet, self.batch, sequence, state=self.state)
        b = choice.best
        details = {f.name: getattr(b.layout, f.name) for f in fields(b.layout)}
        details |= {"tokens": b.tokens_per_s, "MFU": b.mfu, "memory": b.memory}
        notes = ("the traffic of experts (all-to-all) is not in the times",) if arch.experts else ()
        return Answer("step", b.step, details, notes, choice.explain())
