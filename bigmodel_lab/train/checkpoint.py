"""Checkpoints: whole or not there, whatever happens while one is written.

A checkpoint is written into a new directory, each file and the directory forced to disk (fsync), the directory renamed,
and last the pointer `latest` replaced: at any moment the previous checkpoint is untouched and `latest` names a complete
one. Writing over the only copy instead destroys it whenever the process dies meanwhile. Loading checks every byte, and
where a checkpoint is damaged or was never finished takes the newest that is sound, and warns.

`bigmodel_lab.train.checkpoint_files` says what a directory holds. Told in lab L06.
"""

import errno
import os
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from bigmodel_lab.errors import require_choice, require_in_range
from bigmodel_lab.files import write_atomically
from bigmodel_lab.train import checkpoint_files as files
from bigmodel_lab.train.checkpoint_files import Checkpoint

__all__ = ["Checkpoint", "CheckpointWarning", "load_checkpoint", "save_checkpoint"]

_POINTERS = ("latest", "best")


class CheckpointWarning(UserWarning):
    """A checkpoint was skipped: it is damaged, or its writing never finished."""


def save_checkpoint(
    folder: str | os.PathLike,
    step: int,
    model: Mapping,
    state: Mapping,
    *,
    keep: int = 2,
    best: bool = False,
) -> Path:
    """Write a checkpoint, point `latest` to it, delete the oldest ones, and return its directory.

    Parameters
    ----------
    folder : made if missing; holds one run's checkpoints, written by one process
    step : optimiser steps taken so far, >= 0
    model : the model's state dict
    state : nested dicts, lists and tuples of tensors, arrays, numbers, texts and None
    keep : how many to keep, this one included, >= 1; the one that `best` names is kept besides
    best : point `best` to this one too

    Needs room on the disk for one more than it keeps, and in memory for a copy of one. If it fails or is interrupted, what
    it wrote so far is removed and the older checkpoints are as they were. Raises OSError, saying how much room is needed
    and left, if the disk is full or cannot be written to; TypeError for a state that cannot be written.
    """
    require_in_range("keep", keep, 1)
    require_in_range("step", step, 0)
    content = files.encode(step, model, state)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        files.remove_parts(folder)
        path = files.write_directory(folder, files.free_name(folder, step), content)
        point_to(path, best=best)
    except OSError as error:
        raise not_written(error, folder, step, sum(map(len, content.values()))) from error
    prune(folder, path.name, keep)
    return path


def point_to(path: Path, *, best: bool = False) -> None:
    """Make the checkpoint in `path` the one to go on from (and the best one)."""
    for pointer in _POINTERS[: 1 + best]:
        write_atomically(path.parent / pointer, f"{path.name}\n".encode())
    files.sync(path.parent)


def not_written(error: OSError, folder: Path, step: int, size: int) -> OSError:
    """Return the error that tells a person what `error` means for the checkpoint of `step`, of `size` bytes."""
    if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
        what = "another run writes to this folder at the same time. Give each a folder of its own"
    elif error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        free = shutil.disk_usage(folder).free
        what = (
            f"it needs {size:,} bytes and {free:,} are free on that disk. Make room, or keep fewer"
        )
    else:
        what = "choose a folder that can be written to"
    return OSError(
        error.errno,
        f"The checkpoint of step {step} was not written ({error.strerror}): {what}. Those written before are untouched",
        str(folder),
    )


def load_checkpoint(
    folder: str | os.PathLike,
    which: str = "latest",
    read: Callable[[Path], Checkpoint] = files.read,
) -> Checkpoint:
    """Read the checkpoint that `which`, "latest" or "best", points to, every byte checked.

    If "latest" is damaged, the newest that is sound is read instead. Whatever was skipped, also because its writing never
    finished, is named with its fault in a CheckpointWarning. Raises FileNotFoundError if the folder holds no checkpoint,
    and ValueError, naming each with its fault, if none can be read. `read` is how one directory is read; it raises
    ValueError or OSError if that one is damaged (`bigmodel_lab.dist.checkpoint` has another way than this file's).
    """
    require_choice("which", which, _POINTERS)
    folder = Path(folder)
    pointed, faults = _pointed(folder, which)
    others = [n for n in files.names(folder) if n != pointed] if which == "latest" else []
    names = [*([pointed] if pointed else []), *others]
    parts = {p.name: "its writing, or its deletion, never finished" for p in files.parts(folder)}
    if not names and (which == "best" or not parts):
        raise FileNotFoundError(f"{folder} holds no checkpoint that could be the {which} one.")
    for name in names:
        try:
            found = read(folder / name)
            break
        except (OSError, ValueError) as error:
            faults[name] = str(error)
    else:
        raise ValueError(f"No checkpoint in {folder} can be read. {_list(faults | parts)}")
    if which == "latest":
        newer = [n for n in names if files.rank(n) > files.rank(found.path.name)]
        faults = {n: "newer, but `latest` does not name it" for n in newer} | faults | parts
    if faults:
        message = f"Loaded {found.path.name} and skipped others. {_list(faults)}"
        warnings.warn(message, CheckpointWarning, stacklevel=2)
    return found


def _pointed(folder: Path, which: str) -> tuple[str | None, dict[str, str]]:
    """Return the name in the pointer `which`, or None, and what is wrong with the pointer."""
    try:
        text = (folder / which).read_bytes().decode("ascii", "replace")
    except FileNotFoundError:
        return None, {which: "missing"} if files.names(folder) else {}
    # a whole line: a name cut short might be the name of another checkpoint
    if text.endswith("\n") and text[:-1] in files.names(folder):
        return text[:-1], {}
    return None, {which: f"holds no name of a checkpoint that is here, but {text!r}"}


def prune(folder: Path, newest: str, keep: int) -> None:
    """Delete the checkpoints that are neither among the last `keep` of this run nor the best.

    After going back to an older one, those of later steps belong to a past that this run has left: they go first.
    """
    step = files.rank(newest)[0]
    order = sorted(files.names(folder), key=lambda n: (files.rank(n)[0] <= step, files.rank(n)))
    best, _ = _pointed(folder, "best")
    for name in order[:-keep]:
        if name != best:
            files.delete(folder / name)


def _list(faults: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {fault}" for name, fault in faults.items()) + "."
