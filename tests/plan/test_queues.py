"""Waiting: Erlang's formula against a simulation, known values, and the latency floor that more servers do not move."""

import numpy as np
import pytest

from bigmodel_lab.plan import MODELS, Replica, Workload, device, servers_for, simulate_serving, wait
from bigmodel_lab.rng import generator

ON = "2026-11-22"


def simulated(rate, service, c, n, rng):
    """Waits of n requests at c servers, first come first served, walked one by one."""
    arrivals = np.cumsum(rng.exponential(1 / rate, n))
    work = rng.exponential(service, n)
    free, waits = np.zeros(c), np.empty(n)
    for i in range(n):
        k = free.argmin()
        start = max(arrivals[i], free[k])
        waits[i], free[k] = start - arrivals[i], start + work[i]
    return waits[n // 10 :]


def test_one_server_is_textbook():
    """M/M/1 at load 0.8: 80 % wait, 4 services in the mean."""
    w = wait(0.8, 1, 1)
    assert w.probability == pytest.approx(0.8)
    assert w.mean.magnitude == pytest.approx(4)
    assert w.quantile(0.95).magnitude == pytest.approx(np.log(0.8 / 0.05) / 0.2)


@pytest.mark.parametrize(
    ("load", "c", "waits"), [(1, 2, 1 / 3), (2, 3, 4 / 9), (4, 5, 0.5541), (8, 10, 0.4092)]
)
def test_tabulated_values(load, c, waits):
    """Erlang's C as any table of it prints it."""
    assert wait(load, 1, c).probability == pytest.approx(waits, abs=5e-5)


@pytest.mark.parametrize(("rate", "service", "c"), [(8, 1, 10), (1.5, 1, 2), (95, 1, 100)])
def test_erlang_c_is_what_a_simulation_finds(rate, service, c):
    waits = simulated(rate, service, c, 60_000, generator(0, "erlang", str(c)))
    w = wait(rate, service, c)
    assert np.mean(waits > 0) == pytest.approx(w.probability, rel=0.12)
    assert waits.mean() == pytest.approx(w.mean.magnitude, rel=0.2)
    assert np.quantile(waits, 0.95) == pytest.approx(w.quantile(0.95).magnitude, rel=0.2)


def test_many_servers_do_not_overflow():
    assert 0 < wait(990, 1, 1000).probability < 1


def test_servers_for_a_p95():
    c = servers_for(8, 1, 0.5)
    assert (
        wait(8, 1, c).quantile(0.95).magnitude <= 0.5 < wait(8, 1, c - 1).quantile(0.95).magnitude
    )


def test_more_servers_do_not_make_a_request_quicker():
    """errata E-095: at low load the latency is the service time, with 4 servers as with 40."""
    few, many = wait(1, 1, 4), wait(1, 1, 40)
    assert few.mean.magnitude < 0.01
    assert many.mean.magnitude < few.mean.magnitude
    assert 1 + few.mean.magnitude == pytest.approx(1 + many.mean.magnitude, rel=0.01)


def test_simulation_is_seeded():
    r = Replica(MODELS["llama3-8b"], device("h100-sxm", ON))
    one, two = (
        simulate_serving(r, Workload(100, 50, 1.0), 5.0, 8, 200, generator(3)) for _ in range(2)
    )
    assert np.array_equal(one.latency_s, two.latency_s)
    assert len(one.latency_s) == 160


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wait(10, 1, 10), "servers=10 cannot keep up with 10 seconds of work a second: take at least 11"),
        (lambda: wait(1, 1, 4).quantile(1), "share must be below 1"),
        (lambda: simulate_serving(None, Workload(1, 1), None, 8, 30, None), "requests=30 must be at least 5 x batch = 40"),
        (lambda: simulate_serving(None, Workload(1, 1), 0, 8, 30, None), "rate must be a finite number above 0 in request / s, got 0"),
        (lambda: wait(1, 1, 0), "servers must be finite and at least 1"),
        (lambda: simulate_serving(None, Workload(1, 1, 0.5), 1, 1, 10, None), r"workload.spread must be 0 \(equal\) or 1"),
    ],
)  # fmt: skip
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
