"""Bytes of the cache of keys and values that generation keeps.

    per token = 2 L G K itemsize    (MHA: G = H; MQA: G = 1)        L (kv_rank + rope) itemsize    (MLA)

Sources: Pope et al. (2022), arXiv:2211.05102, section 3.3; for MLA DeepSeek-V2, arXiv:2405.04434, table 1. Told in lab L08.
"""

from bigmodel_lab.plan.architecture import Architecture, require_architecture
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = ["kv_cache", "kv_per_token"]


def kv_per_token(arch: Architecture, itemsize: float = 2) -> Quantity:
    """Return byte / token of one sequence; `itemsize` is bytes a number: 2 for 16 bits, 1 for 8."""
    require_architecture(arch)
    size = number("itemsize", itemsize, "byte", above=0)
    if arch.mla:  # one latent for all heads, keys and values together
        numbers = arch.mla.kv_rank + arch.mla.rope
    else:
        numbers = arch.kv_heads * (arch.key_width + arch.value_width)
    return Q(arch.n_layers * numbers * (int(size) if size == int(size) else size), "byte / token")


def kv_cache(
    arch: Architecture, positions: int | None = None, batch: int = 1, itemsize: float = 2
) -> Quantity:
    """Return the bytes of `batch` sequences of `positions` tokens (default: the whole context)."""
    require_architecture(arch)
    n = whole("positions", arch.context if positions is None else positions, "token")
    return kv_per_token(arch, itemsize) * Q(n * whole("batch", batch), "token")
