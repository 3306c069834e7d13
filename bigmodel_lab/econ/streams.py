"""Random numbers by counter: path i of a simulation has its own stream, whoever computes it and in whatever order.

A stream is a 64-bit state that grows by a constant and is scrambled on the way out (SplitMix64: Steele, Lea and Flood, Fast
splittable pseudorandom number generators, OOPSLA 2014). Paths start at scrambled, so distant, states: that two of 10^5 paths
of a thousand numbers overlap has a probability below 10^-6. NumPy's generators are better and sequential; here the same
numbers must come out on any number of threads.
"""

import math

import numpy as np
from numba import njit

__all__ = ["bits", "normal_pair", "start", "uniform"]

STEP = np.uint64(0x9E3779B97F4A7C15)
M1, M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
S30, S27, S31, S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
UNIT = 2.0**-53
TWO_PI = 2 * math.pi


@njit(cache=True, inline="always")
def bits(state):
    """Scramble a state into 64 random bits."""
    z = (state ^ (state >> S30)) * M1
    z = (z ^ (z >> S27)) * M2
    return z ^ (z >> S31)


@njit(cache=True, inline="always")
def start(key, path):
    """Return the first state of stream `path` under the 64-bit `key`."""
    return bits(key ^ bits(np.uint64(path) * STEP + STEP))


@njit(cache=True, inline="always")
def uniform(state):
    """Return a number in (0, 1) and the next state."""
    state = state + STEP
    return ((bits(state) >> S11) + 0.5) * UNIT, state


@njit(cache=True, inline="always")
def normal_pair(state):
    """Return two independent standard normal numbers (Box and Muller) and the next state."""
    u, state = uniform(state)
    v, state = uniform(state)
    r = math.sqrt(-2.0 * math.log(u))
    return r * math.cos(TWO_PI * v), r * math.sin(TWO_PI * v), state
