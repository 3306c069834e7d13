"""Inputs of the products with weights of 8 and 4 bits, and the product in float64."""

import numpy as np

from bigmodel_lab import rng


def inputs(N, D, O, dtype=np.float64):
    g = rng.generator(0, "packed weights")
    return [g.standard_normal(s).astype(dtype) for s in ((N, D), (O, D), (O,), (N, O))]


def exact(x, w, b):
    return x.astype(np.float64) @ w.astype(np.float64).T + b
