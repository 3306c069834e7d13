"""Ranks in a notebook cell, and what they do together.

`run`, `leave`, `warm`, the errors and the magic (`%load_ext bigmodel_lab.dist`, then `%%ranks 2`) need no torch in the process
that calls them. The rest does, and is imported when it is first asked for: importing torch takes seconds.
"""

import importlib

from bigmodel_lab.dist._report import RankError, RankTimeout
from bigmodel_lab.dist.launch import leave, run, warm

_NEEDS_TORCH = {  # public name: the module of this package that defines it
    "Composed": "composed",
    "ContextParallel": "context_parallel",
    "DataParallel": "data_parallel",
    "ExpertParallel": "expert_parallel",
    "KernelBytes": "wire",
    "MixtureOfExperts": "expert_parallel",
    "OverlappedDataParallel": "overlap",
    "Pipeline": "pipeline",
    "Recorder": "trace",
    "ShardedCheckpoints": "checkpoint",
    "ShardedGPT": "sharded_gpt",
    "SlowLink": "slow_link",
    "TensorParallel": "tensor_parallel",
    "Trace": "timeline",
    "Wire": "wire",
    "Zero": "zero",
    "same_everywhere": "agreement",
}

__all__ = ["RankError", "RankTimeout", "leave", "run", "warm", *_NEEDS_TORCH]


def __getattr__(name: str):
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_NEEDS_TORCH[name]}"), name)


def load_ipython_extension(ipython) -> None:
    """What `%load_ext bigmodel_lab.dist` does: add %%ranks, and start in the background what its first use needs."""
    from bigmodel_lab.dist import magic

    magic.load(ipython)
    warm()
