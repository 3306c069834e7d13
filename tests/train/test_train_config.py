"""TrainConfig: every check's message, and that it is frozen and plain."""

import dataclasses
import math

import pytest

from bigmodel_lab.train import TrainConfig


def test_defaults_and_limits_are_accepted():
    TrainConfig(steps=1, batch=1)
    TrainConfig(steps=5, batch=4, warmup=5, accumulate=4, clip=math.inf, lr=0.0, floor=1.0)
    TrainConfig(steps=5, batch=4, eval_every=1, patience=1, checkpoint_every=9)
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig(steps=1, batch=1).steps = 2


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1, got 0"),
        ({"steps": 1.5}, TypeError, "steps must be a whole number, got 1.5"),
        ({"batch": True}, TypeError, "batch must be a whole number, got True"),
        ({"batch": 0}, ValueError, "batch must be at least 1"),
        ({"lr": -1.0}, ValueError, "lr must be at least 0, got -1.0"),
        ({"lr": math.nan}, ValueError, "lr must be at least 0, got nan"),
        ({"lr": math.inf}, ValueError, "lr must be finite, got inf"),
        ({"warmup": 11}, ValueError, "warmup must be between 0 and 10, got 11"),
        ({"floor": 1.1}, ValueError, "floor must be between 0 and 1, got 1.1"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0"),
        ({"accumulate": 9}, ValueError, "accumulate must be between 1 and 8, got 9"),
        ({"clip": 0.0}, ValueError, "clip must be above 0, got 0.0: math.inf turns clipping off"),
        ({"clip": math.nan}, ValueError, "clip must be above 0, got nan"),
        ({"eval_every": 0}, ValueError, "eval_every must be at least 1"),
        ({"patience": 3}, ValueError, "patience=3 counts evaluations, and eval_every is None"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every must be at least 1"),
        ({"keep": 0}, ValueError, "keep must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
    ],
)
def test_messages(change, error, message):
    with pytest.raises(error, match=message):
        TrainConfig(**{"steps": 10, "batch": 8} | change)
