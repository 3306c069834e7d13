"""Fit the polynomials of bigmodel_lab/ops/_math.py and print their coefficients.

    python tools/fit_math.py        # a few seconds; needs SciPy (which scikit-learn brings)

Each is the polynomial of its degree with the smallest largest relative error on its interval, found by Lawson's
iteration: least squares, repeated with the weight of every point multiplied by the error found there, until the
worst points balance (Lawson 1961; Rice and Usow 1968).
"""

import numpy as np
from scipy.special import erfcx


def lawson(basis, wanted, weight, rounds=500):
    """Coefficients c that minimise max |weight * (basis @ c - wanted)|, and that maximum."""
    mass = np.full(len(wanted), 1 / len(wanted))
    best = (np.inf, None)
    for _ in range(rounds):
        w = np.sqrt(mass) * weight
        c = np.linalg.lstsq(basis * w[:, None], wanted * w, rcond=None)[0]
        error = np.abs(weight * (basis @ c - wanted))
        best = min(best, (error.max(), c), key=lambda pair: pair[0])
        mass *= error + 1e-3 * error.max()
        mass /= mass.sum()
    return best


def chebyshev(low, high, n=2000):
    """n points in (low, high), denser at the ends, where a polynomial strays first."""
    return low + (high - low) * (1 - np.cos(np.pi * (np.arange(n) + 0.5) / n)) / 2


def fit_expm1(degree=4):
    """P with e^r - 1 = r + r^2 P(r) for |r| <= ln(2) / 2."""
    r = chebyshev(-np.log(2) / 2, np.log(2) / 2)
    return lawson(
        np.vander(r, degree + 1, increasing=True),
        (np.expm1(r) - r) / r**2,
        r**2 / np.abs(np.expm1(r)),
    )


def fit_tail(scale, degree=8, furthest=13.3):
    """P with normal_cdf(-a) exp(a^2 / 2) = t P(t), t = 1 / (1 + scale a), for 0 <= a <= furthest."""
    t = chebyshev(1 / (1 + scale * furthest), 1)
    tail = erfcx((1 / t - 1) / scale / np.sqrt(2)) / 2
    return lawson(np.vander(t, degree, increasing=True) * t[:, None], tail, 1 / tail)


def main():
    error, c = fit_expm1()
    print(f"expm1: largest relative error {error:.1e}\n  {', '.join(f'{x:.9g}' for x in c)}")
    scales = np.arange(0.2, 0.41, 0.01)
    (error, c), scale = min(((fit_tail(s), s) for s in scales), key=lambda pair: pair[0][0])
    print(
        f"tail: scale {scale:.2f}, largest relative error {error:.1e}\n  {', '.join(f'{x:.9g}' for x in c)}"
    )


if __name__ == "__main__":
    main()
