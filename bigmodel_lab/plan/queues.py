"""Waiting: Erlang's formula for c servers, and a discrete-event simulation of a replica that batches as it goes.

M/M/c with arrival rate r, mean service s, load a = r s < c (Erlang 1917; Kleinrock, Queueing Systems, 1975, section 3.5):

    P(wait) = C = (a^c/c!) c/(c-a) / (sum_k<c a^k/k! + (a^c/c!) c/(c-a)),    P(wait > t) = C exp(-(c-a) t / s)

More servers shorten the waiting, never the service: the floor of the latency stays. Told in lab L08.
"""

import heapq
import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from bigmodel_lab.plan.serving import Replica, Workload, decode_parts, prefill
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["Simulated", "Wait", "servers_for", "simulate_serving", "wait"]


@dataclass(frozen=True)
class Wait:
    """Waiting before service in a queue of c equal servers."""

    probability: float  # that a request waits at all
    mean: Quantity  # s, over all requests
    load: float  # a / c, 0 to 1
    decay: float  # 1/s: P(wait > t) = probability exp(-decay t)

    def quantile(self, share: float) -> Quantity:
        """Return the wait in s that `share` of the requests do not pass: share=0.95 for p95."""
        rest = 1 - number("share", share, high=1)
        if rest >= self.probability:
            return Q(0.0, "s")
        if rest == 0:
            raise ValueError("share must be below 1: no wait is never passed.")
        return Q(math.log(self.probability / rest) / self.decay, "s")


def wait(rate, service, servers: int) -> Wait:
    """Return the waiting of an M/M/c queue: `rate` in request/s, mean `service` in s, c = `servers`.

    Raises ValueError if the servers cannot keep up.
    """
    r, s = number("rate", rate, "request / s"), number("service", service, "s", above=0)
    c, a = whole("servers", servers, low=1), r * s
    if a >= c:
        raise ValueError(
            f"servers={c} cannot keep up with {a:.3g} seconds of work a second: take at least {math.floor(a) + 1}."
        )
    blocked = 1.0  # Erlang B by its recursion, which does not overflow
    for k in range(1, c + 1):
        blocked = a * blocked / (k + a * blocked)
    p = blocked / (1 - a / c * (1 - blocked))
    decay = (c - a) / s
    return Wait(p, Q(p / decay, "s"), a / c, decay)


def servers_for(rate, service, limit, share: float = 0.95) -> int:
    """Return the fewest servers with which `share` of the requests wait at most `limit` s."""
    most = number("limit", limit, "s")
    c = math.floor(number("rate", rate, "request / s") * number("service", service, "s")) + 1
    while wait(rate, service, c).quantile(share).magnitude > most:
        c += 1
    return c


@dataclass(frozen=True)
class Simulated:
    """What a simulated replica did once warm."""

    requests_per_s: float
    output_per_s: float
    batch: float  # sequences in flight, mean over time
    latency_s: np.ndarray  # of each request, from arrival to last token
    first_token_s: np.ndarray  # of each request, from arrival


def simulate_serving(
    replica: Replica,
    workload: Workload,
    rate: float | None,
    batch: int,
    requests: int,
    rng: np.random.Generator,
) -> Simulated:
    """Walk a replica through `requests` requests, step by step: continuous batching with at most `batch` in flight.

    rate : request/s, Poisson; None keeps it full. A step is either one prefill (a waiting request gets the free place) or
    one decode of all in flight, timed by the roofline at the cache's actual length. Outputs are all of one length if
    `workload.spread` is 0 and geometric if it is 1. The first fifth of the requests warm up and are not counted.
    """
    if workload.spread not in (0, 1):
        raise ValueError(
            f"workload.spread must be 0 (equal) or 1 (geometric) here, got {workload.spread}."
        )
    n, b = whole("requests", requests, low=10), whole("batch", batch, low=1)
    if rate is not None:
        number("rate", rate, "request / s", above=0)
    if rate is None and n < 5 * b:
        raise ValueError(
            f"requests={n} must be at least 5 x batch = {5 * b}, to fill the replica more than once."
        )
    arrivals = np.zeros(n) if rate is None else np.cumsum(rng.exponential(1 / rate, n))
    lengths = np.full(n, workload.output)
    if workload.spread:
        lengths = rng.geometric(1 / workload.output, n)
    first = prefill(replica, workload.prompt).magnitude
    at_zero = [decode_parts(replica, b, 0) for b in range(1, min(b, n) + 1)]
    slopes = [y - x for x, y in zip(at_zero[0], decode_parts(replica, 1, 1), strict=True)]
    fixed = [replica.collectives_s(b) + replica.overhead for b in range(1, min(b, n) + 1)]

    def decode_s(flying: int, positions: int) -> float:
        """Both parts of a step grow with the positions read, each at its own slope."""
        parts = (x + k * positions for x, k in zip(at_zero[flying - 1], slopes, strict=True))
        return max(parts) + fixed[flying - 1]

    clock, produced, positions, area, waiting, coming = 0.0, 0, 0, 0.0, deque(), 0
    ends: list[tuple[int, int]] = []  # heap of (decode step at which it ends, request)
    done, began, steps = np.full(n, np.nan), np.full(n, np.nan), 0
    warm, marks = n // 5, None
    finished = 0
    while finished < n:
        while coming < n and arrivals[coming] <= clock:
            waiting.append(coming)
            coming += 1
        if not ends and not waiting:
            clock = arrivals[coming]
            continue
        before, flying = clock, len(ends)
        if waiting and flying < b:
            i = waiting.popleft()
            clock += first
            began[i] = clock
            heapq.heappush(ends, (steps + int(lengths[i]), i))
            positions += workload.prompt
        else:
            clock += decode_s(flying, positions)
            steps += 1
            produced += flying
            positions += flying
            while ends and ends[0][0] <= steps:
                _, i = heapq.heappop(ends)
                done[i] = clock
                positions -= workload.prompt + int(lengths[i])
                finished += 1
        area += flying * (clock - before)
        if marks is None and finished >= warm:
            marks = clock, produced, finished, area
        if rate is None and marks and coming == n and not waiting:
            break  # the end, with places empty, is not what "kept full" means
    start, old, count, seen = marks
    span = clock - start
    ok = np.isfinite(done)
    ok[:warm] = False
    return Simulated(
        requests_per_s=(finished - count) / span,
        output_per_s=(produced - old) / span,
        batch=(area - seen) / span,
        latency_s=(done - arrivals)[ok],
        first_token_s=(began - arrivals)[ok],
    )
