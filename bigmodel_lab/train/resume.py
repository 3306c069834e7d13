"""What a training run puts into a checkpoint, and how it goes on from one: all that its next step depends on."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from bigmodel_lab.train import checkpoint_files
from bigmodel_lab.train.checkpoint import load_checkpoint, save_checkpoint
from bigmodel_lab.train.config import TrainConfig
from bigmodel_lab.train.history import History
from bigmodel_lab.train.random_state import random_state, set_random_state

__all__ = ["Run"]


class Run:
    """The parts of a run that change as it trains, and the folder where they are saved, None for nowhere.

    Raises TypeError if a folder is given and the sampler has no state to save.
    """

    def __init__(self, model, optimizer, batches, config: TrainConfig, folder):
        self.model, self.optimizer, self.batches, self.config = model, optimizer, batches, config
        self.folder = None if folder is None else Path(folder)
        self.history = History()
        self.saved: str | None = None  # name of the last checkpoint written or read
        if folder is not None and not hasattr(batches, "load_state_dict"):
            raise TypeError(
                f"batches is a {type(batches).__name__} without state_dict and load_state_dict, so a run on it cannot be "
                "resumed: use Batches or Samples, or give no folder."
            )
        if folder is None and config.checkpoint_every is not None:
            raise ValueError(
                f"checkpoint_every={config.checkpoint_every} needs a folder to write to: pass folder=..."
            )

    def save(self, best: bool) -> None:
        """Write a checkpoint, and point `best` to it if it is the best so far."""
        state = {
            "config": asdict(self.config),
            "optimizer": self.optimizer.state_dict(),
            "batches": self.batches.state_dict(),
            "random": random_state(self.model),
            "history": self.history.state_dict(),
        }
        path = save_checkpoint(
            self.folder,
            self.history.steps,
            self.model.state_dict(),
            state,
            keep=self.config.keep,
            best=best,
        )
        self.saved = path.name

    def start(self, resume: bool) -> None:
        """Go on from the folder's checkpoint, if it holds one.

        Warns if the settings are not those that the run began with. Raises ValueError if there are checkpoints and
        `resume` is False: a new run would mix with the old one's.
        """
        if self.folder is None or not checkpoint_files.names(self.folder):
            return
        if not resume:
            raise ValueError(
                f"{self.folder} holds checkpoints of another run: pass resume=True to go on from them, or another folder."
            )
        found = load_checkpoint(self.folder)
        _compare(asdict(self.config), found.state["config"])
        self.model.load_state_dict(found.model)
        _load_optimizer(self.optimizer, found.state["optimizer"])
        self.batches.load_state_dict(found.state["batches"])
        set_random_state(self.model, found.state["random"])
        self.history.load_state_dict(found.state["history"])
        self.saved = found.path.name


def _load_optimizer(optimizer, state: Mapping) -> None:
    """Load what the optimiser remembers; its settings stay those that it was made with now."""
    now = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, settings in zip(optimizer.param_groups, now, strict=True):
        group.update(settings)


def _compare(now: Mapping, then: Mapping) -> None:
    changed = [f"{n} was {then.get(n)} and is {x}" for n, x in now.items() if then.get(n) != x]
    if changed:
        warnings.warn(
            f"The run goes on with other settings than it began with: {', '.join(changed)}.",
            UserWarning,
            stacklevel=4,
        )
