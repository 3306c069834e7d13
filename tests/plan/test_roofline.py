"""Roofline: the ridge, both sides of it, and products counted by hand."""

import pytest

from bigmodel_lab.plan import attainable, device, matmul_intensity, ridge
from bigmodel_lab.units import Q

ON = "2026-11-22"


def test_a_4096_product():
    """4096^3 in 16 bits has 1365 FLOP/byte: limited by arithmetic on every device of the table."""
    assert matmul_intensity(4096, 4096, 4096).magnitude == pytest.approx(1365, abs=0.4)


def test_decode_is_limited_by_memory():
    """One row times a matrix has 1 FLOP/byte: an H100 reaches 0.34 % of its peak."""
    h100 = device("h100-sxm", ON)
    x = matmul_intensity(1, 4096, 4096)
    assert x.magnitude == pytest.approx(1, abs=1e-3)
    share = attainable(x, h100.peak(), h100.bandwidth) / h100.peak()
    assert share.magnitude == pytest.approx(0.0034, abs=1e-4)


def test_both_sides_of_the_ridge():
    peak, width = Q(100, "TFLOP/s"), Q(1, "TB/s")
    assert ridge(peak, width).magnitude == pytest.approx(100)
    assert attainable(50, peak, width).to("TFLOP/s").magnitude == pytest.approx(50)
    assert attainable(200, peak, width).to("TFLOP/s").magnitude == pytest.approx(100)


def test_refused():
    with pytest.raises(TypeError, match="bandwidth must be a quantity in byte/s, got 3 FLOP / s"):
        ridge(1e12, Q(3, "FLOP/s"))
    with pytest.raises(ValueError, match="m must be finite and at least 1, got 0"):
        matmul_intensity(0, 1, 1)
