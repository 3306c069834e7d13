"""Roofline: whether arithmetic or memory traffic limits a kernel.

    attainable FLOP/s = min(peak, intensity x bandwidth),    ridge = peak / bandwidth  (FLOP / byte)

Source: Williams, Waterman and Patterson, CACM 52(4), 2009. Told in chapter 16.
"""

from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["attainable", "matmul_intensity", "peak_from_clock", "ridge"]


def ridge(peak, bandwidth) -> Quantity:
    """Return the intensity, FLOP / byte, above which `peak` (FLOP/s) limits and below which `bandwidth` (byte/s) does."""
    return Q(
        number("peak", peak, "FLOP/s", above=0) / number("bandwidth", bandwidth, "byte/s", above=0),
        "FLOP / byte",
    )


def attainable(intensity, peak, bandwidth) -> Quantity:
    """Return the FLOP/s that a kernel of `intensity` FLOP / byte can reach."""
    x = number("intensity", intensity, "FLOP / byte")
    top = number("peak", peak, "FLOP/s", above=0)
    return Q(min(top, x * number("bandwidth", bandwidth, "byte/s", above=0)), "FLOP/s")


def matmul_intensity(m: int, n: int, k: int, itemsize: float = 2) -> Quantity:
    """Return the FLOP / byte of (m, k) times (k, n), each matrix moved once."""
    m, n, k = whole("m", m, low=1), whole("n", n, low=1), whole("k", k, low=1)
    moved = number("itemsize", itemsize, above=0) * (m * k + k * n + m * n)
    return Q(2 * m * n * k / moved, "FLOP / byte")


def peak_from_clock(clock_hz: float, flops_per_cycle: float, units: int) -> Quantity:
    """Return a device's peak from its boost clock, the FLOP of one unit a cycle, and the number of units."""
    f = number("clock_hz", clock_hz, above=0) * number("flops_per_cycle", flops_per_cycle, above=0)
    return Q(f * whole("units", units, low=1), "FLOP/s")
