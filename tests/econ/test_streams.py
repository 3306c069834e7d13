"""Random streams: the published sequence, and the laws that the numbers should follow."""

import numpy as np
from numba import njit
from scipy.stats import kstest

from bigmodel_lab.econ.streams import STEP, bits, normal_pair, start, uniform


def test_splitmix64_reference_sequence():
    """The first outputs of SplitMix64 from seed 1234567, as its reference implementation prints them (Vigna, splitmix64.c;
    Rosetta Code, Pseudo-random numbers/Splitmix64). Exact."""
    state, got = np.uint64(1234567), []
    for _ in range(5):
        with np.errstate(over="ignore"):
            state = np.uint64(state + STEP)
        got.append(int(bits(state)))
    assert got == [
        6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
        16408922859458223821,
    ]  # fmt: skip


@njit
def drawn(paths, each):
    u, z, firsts = np.empty((paths, each)), np.empty((paths, 2 * each)), np.empty(paths, np.uint64)
    for i in range(paths):
        state = start(np.uint64(42), i)
        firsts[i] = state
        for j in range(each):
            u[i, j], state = uniform(state)
        for j in range(each):
            z[i, 2 * j], z[i, 2 * j + 1], state = normal_pair(state)
    return u, z, firsts


def test_laws_and_independence():
    """Kolmogorov and Smirnov at 1 %, along a path and across paths; correlations within 5 standard errors."""
    u, z, firsts = drawn(2000, 50)
    assert len(np.unique(firsts)) == 2000
    assert 0 < u.min() < u.max() < 1
    assert min(kstest(u.ravel(), "uniform").pvalue, kstest(z.ravel(), "norm").pvalue) > 0.01
    assert kstest(u[:, 0], "uniform").pvalue > 0.01
    for a, b in [(u[:-1], u[1:]), (u[:, :-1], u[:, 1:]), (z[:, ::2], z[:, 1::2]), (z[:-1], z[1:])]:
        r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(r) < 5 / np.sqrt(a.size)
