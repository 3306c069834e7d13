"""Compiled kernels on disk that no longer are what their source says.

numba forgets a cached kernel when the file that defines it changes, not when a helper from another file that was compiled
into it does (numba 0.68: the index is keyed by that one file). A kernel would then go on computing with the old helper,
and say nothing.
"""

import contextlib
import hashlib
from pathlib import Path

from bigmodel_lab.files import write_atomically

STAMP = "helpers.sha256"


def forget_stale_kernels(room: Path) -> bool:
    """Delete the kernels cached beside the files of `room` if its helpers, `_*.py`, are not those they were made with.

    Returns whether any kernel was deleted. A cache elsewhere (NUMBA_CACHE_DIR) is the business of whoever chose it.
    """
    digest = hashlib.sha256()
    for helper in sorted(room.glob("_*.py")):
        digest.update(helper.name.encode() + b"\0" + helper.read_bytes())
    cache, now = room / "__pycache__", digest.hexdigest()
    kernels = [*cache.glob("*.nbi"), *cache.glob("*.nbc")]
    deleted = False
    with contextlib.suppress(
        OSError
    ):  # a folder that cannot be written: numba keeps its cache elsewhere then
        stamp = cache / STAMP
        if not stamp.exists() or stamp.read_text() != now:
            for kernel in kernels:
                kernel.unlink(missing_ok=True)
                deleted = True
            cache.mkdir(exist_ok=True)
            write_atomically(stamp, now.encode())
    return deleted
