"""The one way to seed: a generator named by what it is for.

Two parts of a program that ask for different names get independent streams from one seed, and adding a third changes
neither. Nothing in the library touches NumPy's or torch's global generator.
"""

import zlib

import numpy as np


def generator(seed: int, *names: str) -> np.random.Generator:
    """Return the generator of stream `names` under `seed`, such as generator(0, "init", "layer1").

    The stream depends on the seed and the names only, not on the process, the thread count or what ran before.
    """
    words = [zlib.crc32(name.encode()) for name in names]  # hash() differs from process to process
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=tuple(words)))
