"""Training: the loop, optimisers and schedules, batches, evaluation, checkpoints, and what a run measured (`RunRecord`).

`Layout` and `RunRecord` need no torch. The rest does, and is imported when it is first asked for: importing torch takes
seconds.
"""

import importlib

from bigmodel_lab.train.record import Layout, RunRecord

_FROM_TORCH = {  # public name: module of this package that defines it and imports torch, or leads to it
    "AdamW": "optim",
    "Batches": "batches",
    "Checkpoint": "checkpoint",
    "CheckpointWarning": "checkpoint",
    "SGD": "optim",
    "Samples": "batches",
    "Status": "progress",
    "TrainConfig": "config",
    "TrainingDiverged": "ending",
    "clip_gradients": "optim",
    "decay_groups": "optim",
    "evaluate": "evaluation",
    "fit": "loop",
    "gradients": "loop",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
    "validation_curve": "history",
    "warmup_cosine": "schedule",
    "windows": "batches",
}

__all__ = ["Layout", "RunRecord", *_FROM_TORCH]


def __getattr__(name: str):
    if name not in _FROM_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_FROM_TORCH[name]}"), name)
