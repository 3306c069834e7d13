"""What a folder of checkpoints holds on disk, and how one directory of it is written, checked and deleted.

    folder/latest                     the name of the checkpoint to go on from, and a line's end
    folder/best                       the same for the one with the lowest validation loss, if the run keeps it
    folder/step-00000100/             a checkpoint; step-00000100.1 is the second one that was made of that step
        model.safetensors             the weights, under the names of the model's state dict
        state.safetensors             every other tensor
        state.json                    the rest, as `bigmodel_lab.train.tree` lays it out
        manifest.json                 size in bytes and CRC-32 of the other three
    folder/.step-00000100.4711.part/  one that process 4711 is writing or deleting, or was when it ended

Any program that reads safetensors can take the weights. Nothing is pickled: loading runs no code from the files.
"""

import json
import os
import re
import shutil
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import safetensors.torch
import torch

from bigmodel_lab.train.tree import pack, unpack

KIND, SCHEMA = "bigmodel-lab checkpoint", 1
_FILES = ("model.safetensors", "state.safetensors", "state.json")
_NAME = re.compile(r"step-(\d{8,})(?:\.(\d+))?")
_PART = re.compile(r"\..+\.(\d+)\.part")


@dataclass(frozen=True)
class Checkpoint:
    """What one checkpoint holds. The tensors are on the CPU and belong to nothing else."""

    path: Path
    step: int  # optimiser steps taken when it was written
    model: dict  # for model.load_state_dict
    state: dict  # whatever else was given to `save_checkpoint`


def manifest(kind: str, sums: Mapping[str, tuple[int, int]]) -> bytes:
    """Return the content of manifest.json: size in bytes and CRC-32 of each file of the directory."""
    files = {name: {"bytes": size, "crc32": crc} for name, (size, crc) in sums.items()}
    return json.dumps({"kind": kind, "schema": SCHEMA, "files": files}, indent=1).encode()


def encode(step: int, model: Mapping, state: Mapping) -> dict[str, bytes]:
    """Return the content of each file of a checkpoint, the manifest last."""
    model_tree, model_tensors = pack(dict(model))
    state_tree, state_tensors = pack(dict(state))
    tree = {"step": step, "model": model_tree, "state": state_tree}
    content = {
        "model.safetensors": safetensors.torch.save(model_tensors),
        "state.safetensors": safetensors.torch.save(state_tensors),
        "state.json": json.dumps(tree, indent=1, allow_nan=False).encode(),
    }
    sums = {name: (len(c), zlib.crc32(c)) for name, c in content.items()}
    return content | {"manifest.json": manifest(KIND, sums)}


def read(path: Path) -> Checkpoint:
    """Read the checkpoint in the directory `path`. Raises ValueError, saying what is wrong, if a byte is."""
    content = dict(contents(path, KIND, _FILES))
    model, state = (_tensors(content[f"{name}.safetensors"]) for name in ("model", "state"))
    tree = json.loads(content["state.json"])
    return Checkpoint(
        path, tree["step"], unpack(tree["model"], model), unpack(tree["state"], state)
    )


def _tensors(content: bytes) -> dict[str, torch.Tensor]:
    # copies in memory that torch aligned: what `load` returns may start anywhere in a byte string
    return {name: t.clone() for name, t in safetensors.torch.load(content).items()}


def contents(path: Path, kind: str, needed: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each file that the manifest in the directory `path` names, one at a time, checked.

    Raises ValueError, saying what is wrong, if the manifest is not of `kind`, lacks a `needed` file, or a byte is wrong.
    """
    try:
        found = json.loads((path / "manifest.json").read_bytes())
        what = found["kind"], found["schema"]
        sums = {name: (of["bytes"], of["crc32"]) for name, of in found["files"].items()}
        if missing := set(needed) - sums.keys():
            raise LookupError(missing)
    except FileNotFoundError:
        raise ValueError("manifest.json is missing") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("manifest.json is damaged") from None  # no UTF-8, no JSON, other keys
    if what != (kind, SCHEMA):
        raise ValueError(f"it is {what[0]!r} of schema {what[1]}, not {kind!r} of schema {SCHEMA}")
    for name, (size, crc) in sums.items():
        yield name, _checked(path / name, size, crc)


def _checked(path: Path, size: int, crc32: int) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path.name} is missing") from None
    if len(content) != size:
        raise ValueError(f"{path.name} has {len(content):,} bytes of {size}")
    if zlib.crc32(content) != crc32:
        raise ValueError(f"{path.name} has other bytes than were written")
    return content


def write_directory(folder: Path, name: str, content: Mapping[str, bytes]) -> Path:
    """Write the files into a new directory `name` of `folder`, which appears with all of them or not at all."""
    part = folder / f".{name}.{os.getpid()}.part"
    try:
        part.mkdir()
        for file, data in content.items():
            write_file(part / file, data)
        sync(part)
        part.rename(folder / name)
        sync(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)  # not there any more if all went well
    return folder / name


def write_file(path: Path, data: bytes) -> None:
    """Write a new file and force its bytes to disk; `sync` its folder, too, before relying on its name."""
    with path.open("wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())


def sync(folder: Path) -> None:
    """Force the names in `folder` to disk; Windows offers no way to, and there they follow soon."""
    if os.name == "posix":
        f = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(f)
        finally:
            os.close(f)


def names(folder: Path) -> list[str]:
    """Return the names of the checkpoints in `folder`, the newest first."""
    found = (p.name for p in folder.glob("step-*") if _NAME.fullmatch(p.name))
    return sorted(found, key=rank, reverse=True)


def rank(name: str) -> tuple[int, int]:
    """Return the step in a checkpoint's name and how many of that step there were before it."""
    step, repeat = _NAME.fullmatch(name).groups()
    return int(step), int(repeat or 0)


def free_name(folder: Path, step: int) -> str:
    """Return a name for a new checkpoint of `step`: the old one of that step stays until the new one is complete."""
    taken = [rank(n)[1] for n in names(folder) if rank(n)[0] == step]
    return f"step-{step:08d}" + (f".{max(taken) + 1}" if taken else "")


def parts(folder: Path) -> list[Path]:
    """Return what is being written or deleted in `folder`, or was when a process ended."""
    return sorted(p for p in folder.glob(".*.part") if _PART.fullmatch(p.name))


def remove_parts(folder: Path) -> None:
    """Delete what processes that are no more, or this one, left unfinished."""
    for p in parts(folder):
        pid = int(_PART.fullmatch(p.name)[1])
        if pid == os.getpid() or not psutil.pid_exists(pid):
            shutil.rmtree(p) if p.is_dir() else p.unlink(missing_ok=True)


def delete(path: Path) -> None:
    """Delete a checkpoint, so that one deleted by half is not taken for one that is there."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    path.rename(part)
    shutil.rmtree(part)
