"""Which layouts train what one process trains: every rule, checked from the sizes alone, before a rank is started.

Needs no torch. Letters as in `bigmodel_lab.dist.composed`: D replicas, W ranks that share each matrix, P stages.
"""

from bigmodel_lab.models.config import GPTConfig
from bigmodel_lab.train.record import Layout

__all__ = ["require_possible"]


def require_possible(
    config: GPTConfig,
    layout: Layout,
    *,
    chunks: int = 1,
    sequence: bool = False,
    positions: int | None = None,
) -> None:
    """Raise ValueError for a combination that does not work, saying which one does.

    config, layout, chunks, sequence : as given to `Composed`
    positions : tokens a row, if they are known
    """
    W, P, zero = layout.tp, layout.pp, layout.zero
    for name in ("n_heads", "n_kv_heads", "hidden"):
        if (n := getattr(config, name)) % W:
            fits = ", ".join(str(w) for w in range(1, min(n, 64) + 1) if _divides(config, w))
            raise ValueError(f"tp={W} ranks cannot share {name}={n} in equal parts: use tp={fits}.")
    if (stages := P * chunks) > config.n_layers:
        raise ValueError(
            f"pp={P} stages{f' of chunks={chunks}' if chunks > 1 else ''} need {stages} layers, one each, and "
            f"n_layers={config.n_layers}: use fewer stages or more layers."
        )
    if sequence and positions is not None and positions % W:
        raise ValueError(
            f"sequence parallelism cuts {positions} positions over tp={W} ranks in equal parts: use a context of "
            f"{-(-positions // W) * W}, or leave it out."
        )
    if zero >= 2 and P > 1 and config.tied:
        raise ValueError(
            f"zero={zero} sums gradients before the two copies of a tied embedding could be added: use zero=1, "
            "pp=1, or an untied model."
        )
    if zero >= 2 and sequence and W > 1:
        raise ValueError(
            f"zero={zero} sums gradients before sequence parallelism's parts could be added: use zero=1, or "
            "sequence=False."
        )
    if zero == 3 and chunks > 1:
        raise ValueError("zero=3 needs chunks=1: use the schedule 1f1b, or zero=2.")
    if P == 1 and chunks > 1:
        raise ValueError(
            f"chunks={chunks} interleaves the stages of a pipeline, and pp=1 has none: use pp=2 or chunks=1."
        )


def _divides(config: GPTConfig, ranks: int) -> bool:
    return all(n % ranks == 0 for n in (config.n_heads, config.n_kv_heads, config.hidden))
