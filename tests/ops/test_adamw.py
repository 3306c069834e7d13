"""AdamW's kernel: the equations in float64, torch over 50 steps, special values, layouts, threads, messages."""

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.adamw import adamw

SETTINGS = {"lr": 3e-3, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
# scalar, empty, one element, one dimension, rows, the largest that one thread does, and five pieces and a rest for more
SHAPES = [(), (0, 3), (1,), (7,), (5, 9), (2, 3, 4), (65536,), (5, 16387)]


def start(shape, dtype):
    g = rng.generator(0, "test_adamw")
    p = np.asarray(g.standard_normal(shape), dtype)
    return p, np.zeros_like(p), np.zeros_like(p), g


def by_the_equations(p, gradients, lr, betas, eps, weight_decay):
    """The equations of the docstring in float64, written with NumPy and no thought of speed."""
    p, (b1, b2) = p.astype(np.float64), betas
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        g = g.astype(np.float64)
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        p = p - lr * weight_decay * p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p, m, v


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("shape", SHAPES)
def test_follows_the_equations(shape, dtype, tolerance):
    p, m, v, g = start(shape, dtype)
    gradients = [np.asarray(g.standard_normal(shape), dtype) for _ in range(5)]
    want = by_the_equations(p, gradients, **SETTINGS)
    for t, dp in enumerate(gradients, 1):
        assert adamw(p, dp, m, v, t, **SETTINGS) is None
    for got, right in zip((p, m, v), want, strict=True):
        assert got.dtype == dtype
        assert (np.abs(got - right) <= tolerance * np.maximum(1, np.abs(right))).all()


# Weights as large as a model's. Most of the float32 difference is torch's: it multiplies p by the rounded 1 - lr *
# weight_decay in every step (with weights near 2 it is 1.5e-6 away from the float64 equations, and ours 0.7e-6).
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("fused", [False, True])
def test_agrees_with_torch_over_50_steps(dtype, tolerance, fused):
    torch = pytest.importorskip("torch")
    p, m, v, g = start((40, 50), dtype)
    p *= dtype(0.2)
    q = torch.from_numpy(p.copy()).requires_grad_()
    peer = torch.optim.AdamW([q], fused=fused, **SETTINGS)
    gradients = [
        (g.standard_normal(p.shape) * 10.0 ** g.integers(-6, 3)).astype(dtype) for _ in range(50)
    ]
    right, _, _ = by_the_equations(p, gradients, **SETTINGS)
    for t, dp in enumerate(gradients, 1):
        q.grad = torch.from_numpy(dp)
        peer.step()
        adamw(p, dp, m, v, t, **SETTINGS)
    assert np.abs(p - q.detach().numpy()).max() <= tolerance
    assert np.abs(p - right).max() <= tolerance / 2


def test_first_step_moves_by_lr_whatever_the_size_of_the_gradient():
    """Without bias correction it would move by lr * (1 - b1) / sqrt(1 - b2): 0.45 of that with these betas."""
    for scale in (1e-3, 1.0, 1e3):
        p, m, v, _ = start((50,), np.float64)
        before = p.copy()
        adamw(p, np.full(50, scale), m, v, 1, lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)
        np.testing.assert_allclose(before - p, 0.01, rtol=1e-4)


def test_decay_is_decoupled():
    """Under a zero gradient p shrinks by exactly lr * weight_decay; m and v, which L2 decay would move, stay 0."""
    p, m, v, _ = start((50,), np.float64)
    before = p.copy()
    adamw(p, np.zeros(50), m, v, 1, lr=0.1, weight_decay=0.5)
    np.testing.assert_allclose(p, before * 0.95, rtol=1e-15)
    assert not m.any()
    assert not v.any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_and_inf_stay_where_they_are(dtype):
    p, m, v, g = start((40,), dtype)
    dp = g.standard_normal(40).astype(dtype)
    dp[[3, 20, 30]] = np.nan, np.inf, -np.inf
    adamw(p, dp, m, v, 1, lr=1e-3)
    assert np.flatnonzero(np.isnan(p)).tolist() == [3, 20, 30]
    assert np.flatnonzero(~np.isfinite(m)).tolist() == [3, 20, 30]
    assert np.flatnonzero(~np.isfinite(v)).tolist() == [3, 20, 30]


def test_eps_zero_and_a_gradient_of_zero_give_nan():
    p, m, v, _ = start((2,), np.float32)
    adamw(p, np.array([0, 1], np.float32), m, v, 1, lr=1e-3, eps=0.0)
    assert np.isnan(p).tolist() == [True, False]


def test_the_gradient_may_have_any_layout_and_is_not_changed():
    p, m, v, g = start((6, 4), np.float32)
    plain = g.standard_normal((6, 4)).astype(np.float32)
    plain[:, 1:] = plain[:, :1]
    q, mq, vq = p.copy(), m.copy(), v.copy()
    adamw(q, plain, mq, vq, 1, lr=1e-3)
    for dp in (
        plain.T.copy().T,
        np.broadcast_to(plain[:, :1], (6, 4)),
        np.repeat(plain, 2, 1)[:, ::2],
    ):
        assert not dp.flags.carray
        pp, mp, vp = p.copy(), m.copy(), v.copy()
        before = dp.copy()
        adamw(pp, dp, mp, vp, 1, lr=1e-3)
        np.testing.assert_array_equal(pp, q)
        np.testing.assert_array_equal(dp, before)


def test_same_bits_with_one_and_two_threads():
    code = """
import numba, numpy as np
from bigmodel_lab.ops.adamw import adamw
def run(threads):
    numba.set_num_threads(threads)
    g = np.random.default_rng(0)
    p, m, v = g.standard_normal((3, 150_001)).astype(np.float32)
    v = v * v
    for t in range(1, 4):
        adamw(p, g.standard_normal(p.size).astype(np.float32), m, v, t, lr=1e-3)
    return p.tobytes(), m.tobytes(), v.tobytes()
print(run(1) == run(2))
"""
    env = {**os.environ, "NUMBA_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=env,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "True\n", done.stderr[-2000:]


def arrays(n=8, dtype=np.float32):
    return {k: np.zeros(n, dtype) for k in "pgmv"}


@pytest.mark.parametrize(
    ("change", "settings", "error", "message"),
    [
        ({"g": np.zeros(9, np.float32)}, {}, ValueError, r"g must have shape \(d0\) with d0=8, got d0=9"),
        ({"m": np.zeros((2, 4), np.float32)}, {}, ValueError, r"m must have shape \(d0\)"),
        ({"v": np.zeros(8)}, {}, TypeError, "share one dtype"),
        ({"p": [0.0] * 8}, {}, TypeError, "p must be a NumPy array, got list"),
        ({k: np.zeros(8, np.float16) for k in "pgmv"}, {}, TypeError, "float32 or float64, got float16"),
        ({"p": np.zeros(16, np.float32)[::2]}, {}, ValueError, "p is changed in place, so it must be C-contiguous"),
        ({"m": np.broadcast_to(np.float32(0), 8)}, {}, ValueError, "m is changed in place"),
        ({}, {"step": 0}, ValueError, "step must be at least 1, got 0"),
        ({}, {"lr": -1.0}, ValueError, "lr must be at least 0, got -1.0"),
        ({}, {"lr": math.nan}, ValueError, "lr must be at least 0, got nan"),
        ({}, {"eps": -1e-8}, ValueError, "eps must be at least 0"),
        ({}, {"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0"),
        ({}, {"betas": (1.0, 0.9)}, ValueError, r"betas\[0\] must be at least 0 and below 1, got 1.0"),
        ({}, {"betas": (0.9, -0.1)}, ValueError, r"betas\[1\] must be at least 0 and below 1"),
    ],
)  # fmt: skip
def test_messages(change, settings, error, message):
    settings = {"step": 1, "lr": 1e-3} | settings
    with pytest.raises(error, match=message):
        adamw(**arrays() | change, **settings)


def test_refuses_arrays_that_share_memory():
    a = arrays()
    a["v"] = a["m"]
    with pytest.raises(ValueError, match="m and v share memory"):
        adamw(**a, step=1, lr=1e-3)
