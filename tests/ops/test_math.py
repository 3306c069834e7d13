"""The vectorisable functions against the C library in float64, over all of their range."""

import math

import numpy as np
import pytest
from numba import njit

from bigmodel_lab.ops import _math


@njit
def _over_exp(x, y):
    for i in range(x.size):
        y[i] = _math.exp_nonpositive(x[i])


@njit
def _over_tanh(x, y):
    for i in range(x.size):
        y[i] = _math.tanh(x[i])


@njit
def _over_sigmoid(x, y):
    for i in range(x.size):
        y[i] = _math.sigmoid(x[i])


@njit
def _over_slope(x, y):
    for i in range(x.size):
        y[i] = _math.sigmoid_and_slope(x[i])[1]


@njit
def _over_cdf(x, y):
    for i in range(x.size):
        y[i] = _math.normal_cdf(x[i])[0]


LOOPS = {
    "exp_nonpositive": _over_exp,
    "tanh": _over_tanh,
    "sigmoid": _over_sigmoid,
    "sigmoid_and_slope": _over_slope,
    "normal_cdf": _over_cdf,
}


def compiled(name, x):
    y = np.empty_like(x)
    LOOPS[name](x, y)
    return y


def sigmoid64(x):
    return np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x)))


def slope64(x):
    return np.exp(-np.abs(x)) / (1 + np.exp(-np.abs(x))) ** 2


def normal_cdf64(x):
    return np.array([0.5 * math.erfc(-v * math.sqrt(0.5)) for v in x])


TRUTH = {
    "exp_nonpositive": np.exp,
    "tanh": np.tanh,
    "sigmoid": sigmoid64,
    "sigmoid_and_slope": slope64,
    "normal_cdf": normal_cdf64,
}

# name, points, largest relative error, which the docstring of _math promises
GRIDS = [
    ("exp_nonpositive", -np.linspace(0, 87.33, 200_001), 1e-7),
    ("exp_nonpositive", -np.geomspace(1e-30, 87, 100_001), 1e-7),
    ("tanh", np.linspace(-12, 12, 200_001), 2e-7),
    ("tanh", np.geomspace(1e-30, 1, 100_001), 2e-7),
    ("sigmoid", np.linspace(-87, 87, 200_001), 2e-7),
    ("sigmoid_and_slope", np.linspace(-87, 87, 200_001), 3e-7),
    ("normal_cdf", np.linspace(-4, 13, 50_001), 7e-7),
]


@pytest.mark.parametrize(("name", "points", "tolerance"), GRIDS)
def test_float32_error_is_what_the_docstring_says(name, points, tolerance):
    x = points.astype(np.float32)
    truth = TRUTH[name](x.astype(np.float64))
    error = np.abs(compiled(name, x) - truth) / np.maximum(np.abs(truth), 1e-300)
    assert error.max() < tolerance


def test_left_tail_of_the_normal_keeps_its_digits():
    x = np.linspace(-13, -4, 20_001).astype(np.float32)
    truth = normal_cdf64(x.astype(np.float64))
    error = np.abs(compiled("normal_cdf", x) / truth - 1)
    assert (error / (x**2 / 16)).max() < 7e-7


LIMITS = {
    "exp_nonpositive": [(-np.inf, 0), (-1e30, 0), (-88, 0), (0, 1), (-0.0, 1)],
    "tanh": [(-np.inf, -1), (np.inf, 1), (-1e30, -1), (1e30, 1), (0, 0)],
    "sigmoid": [(-np.inf, 0), (np.inf, 1), (-1e30, 0), (1e30, 1), (0, 0.5)],
    "sigmoid_and_slope": [(-np.inf, 0), (np.inf, 0), (0, 0.25)],
    "normal_cdf": [(-np.inf, 0), (np.inf, 1), (-1e30, 0), (1e30, 1)],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LIMITS)
def test_limits_and_nan(name, dtype):
    x, want = np.array([*LIMITS[name], (np.nan, np.nan)], dtype).T
    if dtype == np.float64 and name == "exp_nonpositive":
        want = np.exp(x)  # float64 does not round e^-88 to 0
    np.testing.assert_array_equal(compiled(name, np.ascontiguousarray(x)), want)


def test_tanh_keeps_the_sign_of_zero():
    assert np.signbit(compiled("tanh", np.array([-0.0], np.float32)))[0]


@pytest.mark.parametrize("name", LOOPS)
def test_float64_is_the_c_library(name):
    x = -np.geomspace(1e-12, 30, 1001)
    np.testing.assert_allclose(
        compiled(name, x), TRUTH[name](x), rtol=1e-15 if name != "sigmoid" else 1e-14
    )


@pytest.mark.parametrize("name", LOOPS)
def test_outside_a_kernel_it_is_the_same_function(name):
    for dtype in (np.float32, np.float64):
        x = np.array([-3.5, -0.25], dtype)
        plain = [getattr(_math, name)(v) for v in x]
        plain = [p[name == "sigmoid_and_slope"] if isinstance(p, tuple) else p for p in plain]
        np.testing.assert_allclose(plain, compiled(name, x), rtol=3e-7)
