"""What the tests of both forms of attention share: the forms, random arguments, and a run of both passes."""

import numpy as np

from bigmodel_lab import rng
from bigmodel_lab.ops.attention import attention, attention_backward
from bigmodel_lab.ops.flash_attention import flash_attention, flash_attention_backward

FORMS = {
    "plain": (attention, attention_backward),
    "tiled": (flash_attention, flash_attention_backward),
}


def inputs(B, H, G, T, S, K, dtype=np.float64):
    """q, k, v and an upstream gradient, from the normal distribution."""
    g = rng.generator(0, "attention_cases")
    shapes = (B, H, T, K), (B, G, S, K), (B, G, S, K), (B, H, T, K)
    return [g.standard_normal(s).astype(dtype) for s in shapes]


def both_ways(form, q, k, v, dy, **options):
    """y, dq, dk and dv by the form of that name."""
    op, op_backward = FORMS[form]
    y, cache = op(q, k, v, **options)
    return y, *op_backward(dy, cache)
