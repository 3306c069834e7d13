"""Fleets for a target: how many devices serve a rate within a latency, and what a million tokens then costs.

A fleet is planned to be busy only part of the time, since requests do not come evenly: `busy` is that share. Told in L08.
"""

import math
from dataclasses import dataclass

from bigmodel_lab.plan.serving import Replica, Service, Workload, largest_batch, serve
from bigmodel_lab.units import Q, Quantity, number, spell

__all__ = ["ServingFleet", "plan_serving"]


@dataclass(frozen=True)
class ServingFleet:
    """Replicas that serve a rate within a latency."""

    replicas: int
    service: Service  # of one replica, kept full
    rate: Quantity  # request / s that arrive
    busy: float  # share of its full throughput at which the fleet then runs
    output: int  # tokens a request

    @property
    def devices(self) -> int:
        """Devices of all replicas."""
        return self.replicas * self.service.devices

    def cost_per_million(self, price) -> Quantity:
        """Return USD per million output tokens at `price` (USD / (device hour)), idle time included."""
        return self.service.cost_per_million(price, self.busy)

    def cost_per_month(self, price) -> Quantity:
        """Return USD a month (30.4 days) for all devices, which are paid for whether they work or not."""
        rate = number("price", price, "USD / device / hour")
        return Q(rate * self.devices * 365.25 / 12 * 24, "USD / month")


def plan_serving(
    replica: Replica,
    workload: Workload,
    rate,
    *,
    per_token=None,
    first_token=None,
    busy: float = 0.7,
) -> ServingFleet:
    """Return the smallest fleet that serves `rate` requests/s.

    per_token, first_token : limits in s (waiting for a place excluded: see `plan.queues`); the largest batch within them
        is taken. Smaller batches are quicker for each and dearer for all.
    busy : largest share of the full throughput to plan for

    Raises ValueError, with the best that the replica can do, if no batch keeps the limits.
    """
    wanted = number("rate", rate, "request / s", above=0)
    share = number("busy", busy, high=1, above=0)
    limits = {"per_token": per_token, "first_token": first_token}
    limits = {k: number(k, x, "s", above=0) for k, x in limits.items() if x is not None}

    def keeps(service: Service) -> bool:
        return all(getattr(service, k).magnitude <= x for k, x in limits.items())

    low, high = 1, largest_batch(replica, workload.prompt + workload.output)
    best = serve(replica, workload, low)
    if not keeps(best):
        reached = ", ".join(f"{k} {spell(getattr(best, k), 3)}" for k in limits)
        raise ValueError(
            f"no batch of {replica.arch.name} on {replica.devices} x {replica.device.name} keeps "
            f"{', '.join(f'{k} <= {x:g} s' for k, x in limits.items())}: alone a request has {reached}. Take more devices a "
            f"replica, faster ones, or fewer bytes a weight."
        )
    while low < high:  # per_token grows with the batch, so halving finds the largest that keeps it
        middle = (low + high + 1) // 2
        service = serve(replica, workload, middle)
        low, high, best = (middle, high, service) if keeps(service) else (low, middle - 1, best)
    full = best.requests_per_s.magnitude
    replicas = math.ceil(wanted / (full * share))
    return ServingFleet(
        replicas, best, Q(wanted, "request / s"), wanted / (replicas * full), workload.output
    )
