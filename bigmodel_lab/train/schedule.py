"""The learning rate of each step: a linear rise, then half a cosine down.

    s < warmup:   lr (s + 1) / warmup
    after:        lr (floor + (1 - floor) (1 + cos(pi f)) / 2),    f = (s + 1 - warmup) / (steps - warmup)

Source: Goyal et al. (2017), arXiv:1706.02677, section 2.2, for the rise; Loshchilov and Hutter (2017), arXiv:1608.03983,
eq. 5, for the cosine, here without restarts. Told in chapter 6.
"""

import math

from bigmodel_lab.errors import require_in_range

__all__ = ["warmup_cosine"]


def warmup_cosine(
    step: int, *, lr: float, steps: int, warmup: int = 0, floor: float = 0.1
) -> float:
    """Return the learning rate of `step`, counted from 0; a pure function, so a resumed run needs no state for it.

    Parameters
    ----------
    step : which step, >= 0; from `steps` on the rate stays at its end
    lr : the highest rate, reached at step warmup - 1 (without warm-up nearly so at step 0)
    steps : length of the run; the last step, steps - 1, has the rate floor * lr
    warmup : steps of the rise, 0 <= warmup <= steps; the first of them already moves
    floor : rate at the end as a share of `lr`, 0 to 1

    Raises ValueError if one is out of range.
    """
    require_in_range("step", step, 0)
    require_in_range("lr", lr, 0)
    require_in_range("steps", steps, 1)
    require_in_range("warmup", warmup, 0, steps)
    require_in_range("floor", floor, 0, 1)
    if step < warmup:
        return lr * (step + 1) / warmup
    done = min(1.0, (step + 1 - warmup) / (steps - warmup)) if steps > warmup else 1.0
    return lr * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)
