"""Warm-up and cosine: end points, shape, torch's cosine, messages."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigmodel_lab.train import warmup_cosine


def curve(**settings):
    return [warmup_cosine(s, **settings) for s in range(settings["steps"])]


def test_end_points():
    rates = curve(lr=3e-4, steps=100, warmup=10, floor=0.1)
    assert rates[0] == pytest.approx(3e-5)  # the first step already moves
    assert max(rates) == rates[9] == 3e-4
    assert rates[54] == pytest.approx(3e-4 * 0.55)  # half way down: the mean of both ends
    assert rates[99] == pytest.approx(3e-5)
    assert warmup_cosine(1000, lr=3e-4, steps=100, warmup=10, floor=0.1) == pytest.approx(3e-5)


@given(st.integers(1, 60), st.integers(0, 60), st.floats(0, 1), st.floats(0, 10))
def test_rises_then_falls_within_its_bounds(steps, warmup, floor, lr):
    warmup = min(warmup, steps)
    rates = curve(lr=lr, steps=steps, warmup=warmup, floor=floor)
    assert all(0 <= r <= lr * (1 + 1e-12) for r in rates)
    assert rates[:warmup] == sorted(rates[:warmup])
    down = rates[max(warmup - 1, 0) :]
    assert all(b <= a * (1 + 1e-12) for a, b in pairwise(down))
    if warmup < steps:
        assert rates[-1] == pytest.approx(lr * floor, abs=1e-12)


def test_without_warm_up_it_is_torch_s_cosine_one_step_on():
    p = torch.nn.Parameter(torch.ones(1))
    o = torch.optim.SGD([p], lr=0.3)
    peer = torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=20, eta_min=0.03)
    for rate in curve(lr=0.3, steps=20, floor=0.1):
        o.step()
        peer.step()
        assert rate == pytest.approx(o.param_groups[0]["lr"], rel=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": -1}, "step must be at least 0, got -1"),
        ({"lr": math.nan}, "lr must be at least 0, got nan"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"warmup": 11}, "warmup must be between 0 and 10, got 11"),
        ({"floor": 1.5}, "floor must be between 0 and 1, got 1.5"),
    ],
)
def test_messages(change, message):
    with pytest.raises(ValueError, match=message):
        warmup_cosine(**{"step": 0, "lr": 0.1, "steps": 10} | change)
