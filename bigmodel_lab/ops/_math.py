"""exp, tanh, sigmoid and the normal distribution for use inside kernels, in a form that compilers can vectorise.

`math.exp` in a numba loop is a call into the C library, one element at a time. In float32 these functions are instead
multiplications, additions and at most one division, with no call and no branch, so LLVM turns a loop over them into
vector instructions: 10 to 20 times as fast. In float64, which serves gradient checks, they are the C library's.

    e^x = 2^n e^r,   n = round(x / ln 2),   r = x - n ln 2,   e^r - 1 = r + r^2 P(r)

The coefficients are our own fits: tools/fit_math.py. Largest relative errors, checked in tests/ops/test_math.py:
exp_nonpositive 1e-7, tanh 2e-7, sigmoid 2e-7, its slope 3e-7, normal_cdf 7e-7 (times x^2/16 below x = -4, where the
rounding of x^2/2 is what counts). NaN stays NaN, and infinities give the limits.

A kernel cached on disk does not notice that this file has changed: `_stale` does, at the next import.
"""

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

# What compilers may change. "contract" fuses a*b + c into one instruction with one rounding. "reassoc" also reorders
# sums, which is what lets a sum vectorise. NaN, infinity and signed zero keep their meaning, unlike in fastmath=True.
ELEMENTWISE = {"parallel": True, "cache": True, "error_model": "numpy", "fastmath": {"contract"}}
REDUCING = {**ELEMENTWISE, "fastmath": {"contract", "reassoc"}}
# The functions below rely on their order of evaluation: to an optimiser that may reorder, (t + ROUND) - ROUND is t.
_EXACT = {"fastmath": {"contract"}, "error_model": "numpy"}

# float32 constants: a bare 0.5 would be float64 and pull the whole expression up with it
_ZERO, _HALF, _ONE, _TWO = (np.float32(v) for v in (0, 0.5, 1, 2))
_LOG2_E = np.float32(1 / np.log(2))
_LN2_HIGH = np.float32(355 / 512)  # 9 bits, so n * _LN2_HIGH is exact
_LN2_LOW = np.float32(np.log(2) - 355 / 512)
# Added to a number, it leaves no bits for a fraction: the sum is rounded to a whole number, held in its lowest bits.
_ROUND = np.float32(1.5 * 2**23)
_ONE_BITS = np.int32(127 << 23)  # the bits of 1.0: exponent 127, fraction 0
_EXP_LOW = np.float32(-87.3365)  # e^x is below 2^-126, the smallest normal float32, and becomes 0
_TANH_ONE = np.float32(20)  # tanh is 1 to the last bit long before
_TAIL_SCALE = np.float32(0.3)
_EXPM1 = [0.499999982, 0.166665437, 0.0416671996, 0.00836651394, 0.00138825228]
_P0, _P1, _P2, _P3, _P4 = np.array(_EXPM1, np.float32)
_TAIL = [0.119625166, 0.120816882, 0.0995231309, 0.129843178]
_TAIL += [-0.0560953948, 0.20896402, -0.158713253, 0.0360362095]
_T0, _T1, _T2, _T3, _T4, _T5, _T6, _T7 = np.array(_TAIL, np.float32)


@njit(**_EXACT)
def _split_exp(x):
    """Return e^r - 1 and 2^n for e^x = 2^n e^r, x float32; -126 <= n <= 127 must hold, or x be NaN."""
    shifted = x * _LOG2_E + _ROUND
    n = shifted - _ROUND
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    q = r + r * r * (_P0 + r * (_P1 + r * (_P2 + r * (_P3 + r * _P4))))
    # the low bits of `shifted` are n: move them to where a float32 keeps its exponent
    bits = np.int32(np.int32(np.float32(shifted).view(np.int32) << np.int32(23)) + _ONE_BITS)
    return q, bits.view(np.float32)


def _exp_nonpositive32(x):
    inside = _EXP_LOW if x < _EXP_LOW else x  # NaN is not below, and passes through
    q, power = _split_exp(inside)
    return _ZERO if x < _EXP_LOW else power + power * q


def _exp_nonpositive64(x):
    return math.exp(x)


def exp_nonpositive(x):
    """e^x for x <= 0, which is all that a softmax or a sigmoid needs; in float32, results below 2^-126 are 0."""
    return _exp_nonpositive32(x) if isinstance(x, np.float32) else _exp_nonpositive64(x)


def _tanh32(x):
    size = abs(x)
    size = _TANH_ONE if size > _TANH_ONE else size
    q, power = _split_exp(-_TWO * size)
    # m = e^(-2|x|) - 1, from e^r - 1 and not from e^r: so nothing cancels near 0
    m = power * q + (power - _ONE)
    return math.copysign(m / (m + _TWO), x)


def _tanh64(x):
    return math.tanh(x)


def tanh(x):
    """The hyperbolic tangent, to full relative accuracy near 0 too."""
    return _tanh32(x) if isinstance(x, np.float32) else _tanh64(x)


def _sigmoid32(x):
    e = exp_nonpositive(-abs(x))
    return (e if x < _ZERO else _ONE) / (_ONE + e)


def _sigmoid64(x):
    e = math.exp(-abs(x))
    return (e if x < 0.0 else 1.0) / (1.0 + e)


def sigmoid(x):
    """1 / (1 + e^-x), written as e^x / (1 + e^x) where x < 0: so nothing overflows and no digits are lost."""
    return _sigmoid32(x) if isinstance(x, np.float32) else _sigmoid64(x)


def _sigmoid_and_slope32(x):
    e = exp_nonpositive(-abs(x))
    r = _ONE / (_ONE + e)
    return (e if x < _ZERO else _ONE) * r, e * r * r


def _sigmoid_and_slope64(x):
    e = math.exp(-abs(x))
    r = 1.0 / (1.0 + e)
    return (e if x < 0.0 else 1.0) * r, e * r * r


def sigmoid_and_slope(x):
    """The pair s = sigmoid(x), s (1 - s); the second as e^-|x| / (1 + e^-|x|)^2, where nothing cancels."""
    return _sigmoid_and_slope32(x) if isinstance(x, np.float32) else _sigmoid_and_slope64(x)


def _normal_cdf32(x):
    # Phi(-a) = e^(-a^2/2) t P(t), t = 1 / (1 + 0.3 a): the form of Abramowitz and Stegun 7.1.26, fitted anew. The
    # small tail is computed, never 1 minus nearly 1, so gelu keeps its digits far to the left.
    e = exp_nonpositive(-_HALF * x * x)
    t = _ONE / (_ONE + _TAIL_SCALE * abs(x))
    p = _T4 + t * (_T5 + t * (_T6 + t * _T7))
    tail = e * t * (_T0 + t * (_T1 + t * (_T2 + t * (_T3 + t * p))))
    return (tail if x < _ZERO else _ONE - tail), e


def _normal_cdf64(x):
    return 0.5 * math.erfc(-x * math.sqrt(0.5)), math.exp(-0.5 * x * x)


def normal_cdf(x):
    """The pair Phi(x), e^(-x^2/2): the chance that a standard normal is below x; sqrt(2 pi) times its density at x."""
    return _normal_cdf32(x) if isinstance(x, np.float32) else _normal_cdf64(x)


def _choose_by_type(function, in32, in64):
    """Make `function` mean `in32` on a float32 and `in64` on a float64 inside a kernel."""

    @overload(function, jit_options=_EXACT)
    def choose(x):
        return {types.float32: in32, types.float64: in64}.get(x)


_choose_by_type(exp_nonpositive, _exp_nonpositive32, _exp_nonpositive64)
_choose_by_type(tanh, _tanh32, _tanh64)
_choose_by_type(sigmoid, _sigmoid32, _sigmoid64)
_choose_by_type(sigmoid_and_slope, _sigmoid_and_slope32, _sigmoid_and_slope64)
_choose_by_type(normal_cdf, _normal_cdf32, _normal_cdf64)
