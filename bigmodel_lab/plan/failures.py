"""Failures of many devices, how often to save, and goodput: the share of the time that ends up in the model.

With failures at rate 1/M (M: mean time between failures of the whole fleet), checkpoints of length d after every tau of
work, and R to restart,

    Young (1974)    tau = sqrt(2 d M)
    Daly (2006)     tau = sqrt(2 d M) (1 + (d/2M)^(1/2) / 3 + (d/2M) / 9) - d      for d < 2M, else M
    goodput         tau / (M exp(R/M) (exp((tau + d)/M) - 1))                      Daly's eq. 13, exact for this model

Sources: J. Young, CACM 17(9), 1974; J. Daly, Future Generation Computer Systems 22, 2006. Told in chapter 16.
"""

import math

from bigmodel_lab.units import Q, Quantity, number

__all__ = ["daly_interval", "fleet_mtbf", "goodput", "young_interval"]


def fleet_mtbf(device_time_per_failure, devices) -> Quantity:
    """Return the mean time between failures of `devices` devices: (device hour per failure) / devices, as hours."""
    hours = number("device_time_per_failure", device_time_per_failure, "device * hour", above=0)
    return Q(hours / number("devices", devices, "device", above=0), "hour")


def young_interval(checkpoint, mtbf) -> Quantity:
    """Return the work between checkpoints that wastes least to first order; `checkpoint` and `mtbf` in s."""
    d, M = number("checkpoint", checkpoint, "s", above=0), number("mtbf", mtbf, "s", above=0)
    return Q(math.sqrt(2 * d * M), "s")


def daly_interval(checkpoint, mtbf) -> Quantity:
    """Return Daly's interval, which stays good where a checkpoint is not short against `mtbf`; both in s."""
    d, M = number("checkpoint", checkpoint, "s", above=0), number("mtbf", mtbf, "s", above=0)
    if d >= 2 * M:
        return Q(M, "s")
    x = d / (2 * M)
    return Q(math.sqrt(2 * d * M) * (1 + math.sqrt(x) / 3 + x / 9) - d, "s")


def goodput(interval, checkpoint, restart, mtbf) -> float:
    """Return useful work over wall time, 0 to 1.

    interval : work between checkpoints, checkpoint : time to save (training stands still), restart : from the failure
    to the first step, mtbf : of the whole fleet; all in s. A failure loses the work since the last checkpoint, and
    failures strike during checkpoints and restarts, too.
    """
    tau, M = number("interval", interval, "s", above=0), number("mtbf", mtbf, "s", above=0)
    d, R = number("checkpoint", checkpoint, "s"), number("restart", restart, "s")
    try:
        return tau / (M * math.exp(R / M) * math.expm1((tau + d) / M))
    except OverflowError:  # no interval of this length is ever finished
        return 0.0
