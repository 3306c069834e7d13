"""From a RunRecord to the planner's numbers: what a run did, in token/s, FLOP/s and nats, with nothing typed over.

A record is read by its fields, so that this room needs no torch: `train.RunRecord.load(path)` gives one. Told in lab L08.
"""

import math
from dataclasses import dataclass

from bigmodel_lab.plan.architecture import Architecture
from bigmodel_lab.plan.flops import six_nd, training_flops, utilisation
from bigmodel_lab.plan.parameters import count_parameters
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Measured", "measure"]


@dataclass(frozen=True)
class Measured:
    """What one run did, over all its ranks."""

    model: str
    parameters: Quantity
    tokens: Quantity  # samples, where the data are no text
    ranks: int
    time: Quantity  # of the steps alone: compute and communication
    flops: Quantity  # model FLOPs
    communication_share: float  # of the time, 0 to 1
    loss: float  # mean of the last tenth of the steps, nats

    @property
    def tokens_per_s(self) -> Quantity:
        """Throughput of all ranks together."""
        return (self.tokens / self.time).to("token / s")

    @property
    def flops_per_s(self) -> Quantity:
        """Achieved model FLOP/s of one rank."""
        return (self.flops / self.time / self.ranks).to("FLOP / s")

    def mfu(self, peak) -> float:
        """Return the share of `peak` (FLOP/s of one rank's device) that became model FLOPs."""
        return utilisation(self.flops, self.ranks, self.time, peak)

    def at_this_rate(self, flops, ranks: int | None = None) -> Quantity:
        """Return the days that `flops` model FLOP would take on `ranks` such ranks at this utilisation.

        It assumes that a rank keeps its rate: true neither for much larger matrices (they run faster) nor for many more
        ranks (they wait more).
        """
        n = self.ranks if ranks is None else whole("ranks", ranks, low=1)
        F = number("flops", flops, "FLOP")
        return Q(F / (n * self.flops_per_s.magnitude) / 86400, "day")


def measure(record, arch: Architecture | None = None, sequence: int | None = None) -> Measured:
    """Return what the run of `record` (a RunRecord) did.

    arch, sequence : if given, FLOP are counted exactly; otherwise they are 6 N D, the samples standing for tokens where
    the data are no text (exact for an MLP up to its biases and its first layer's unused input gradient).

    Raises ValueError if the record timed nothing, if part of the run was in another layout, or if `arch` is not of the size
    that the record says.
    """
    if record.steps_elsewhere:
        raise ValueError(
            f"record must be of one layout, and {record.steps_elsewhere} of its {record.steps} steps were taken in another: "
            "their times belong to another number of ranks. Measure a run that began and ended in the same layout."
        )
    seconds = math.fsum(record.compute_s) + math.fsum(record.communication_s)
    if not seconds:
        raise ValueError("record holds no time: compute_s and communication_s add up to 0 s.")
    D = record.samples if record.tokens is None else record.tokens
    flops = six_nd(record.parameters, D)
    if arch is not None:
        if (counted := count_parameters(arch).total) != record.parameters:
            raise ValueError(
                f"arch has {counted:,} parameters and the record {record.parameters:,}: describe the model that ran."
            )
        flops = training_flops(arch, D, sequence)
    tail = record.loss[-max(1, len(record.loss) // 10) :]
    return Measured(
        model=record.model,
        parameters=Q(record.parameters, "parameter"),
        tokens=Q(D, "token"),
        ranks=record.layout.ranks,
        time=Q(seconds, "s"),
        flops=flops,
        communication_share=record.communication_share,
        loss=math.fsum(tail) / len(tail),
    )
