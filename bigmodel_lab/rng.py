"""The one way to seed: a generator named by what it is for.

Two parts of a program that ask for different names get independent streams from one seed, and adding a third changes
neither. Nothing in the library touches NumPy's or torch's global generator.
"""

import zlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of stream `names` under `seed`, such as generator(0, "init", "layer1").

    The stream depends on the seed and the names only, not on the process, the thread count or what ran before. Raises
    ValueError for a seed that is no whole number of 0 or more.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed must be a whole number, 0 or more, got {seed!r}.")
    words = [zlib.crc32(name.encode()) for name in names]  # hash() differs from process to process
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(words)))
