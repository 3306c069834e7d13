"""Checkpoints of a model spread over ranks: each rank writes what it holds, and any other layout goes on from it.

Layouts cut the same model in different places: tensor parallelism into rows and columns, the pipeline into layers, ZeRO
into flat pieces of those. A checkpoint that only the layout that wrote it can read is of little use on the day when a node
is gone. So the N trainable numbers of the whole model are numbered (`bigmodel_lab.dist.numbered`), the file of a rank says
which ones it holds, in runs of consecutive numbers, and gives the parameters and what the optimiser keeps in that order:

    folder/step-00000100/rank-00000.safetensors     runs (R, 2): first number and length; parameter, exp_avg, ... (n,)
                         rank-00001.safetensors     n adds up to N, or to a little more: see below
                         state.json                 step, the layout that wrote it, and what the caller gave
                         manifest.json              size in bytes and CRC-32 of the others, written last

The directory appears with all its files or not at all, as in `bigmodel_lab.train.checkpoint`, whose pointers, pruning and
search for the newest sound checkpoint it shares. Replicas write a part each; a vector that the tensor-parallel ranks hold
in full (a norm's gain), and a tied embedding's second copy, are written once by each holder. torch's own:
`torch.distributed.checkpoint`. Told in lab L06.
"""

import json
import os
import warnings
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed as dist

from bigmodel_lab.dist.collectives import all_gather
from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.dist.numbered import numbers_of, runs_of, spelled_out, trained
from bigmodel_lab.errors import require_in_range
from bigmodel_lab.models.gpt import GPT
from bigmodel_lab.train import checkpoint_files as files
from bigmodel_lab.train.checkpoint import load_checkpoint, not_written, point_to, prune
from bigmodel_lab.train.tree import pack, unpack

__all__ = ["ShardedCheckpoints"]

KIND = "bigmodel-lab sharded checkpoint"


class ShardedCheckpoints:
    """The checkpoints of one run over many ranks, in a folder that all of them see.

        checkpoints = ShardedCheckpoints("runs/a", gpt, model)       # model = Composed(gpt, ...)
        step, state = checkpoints.load() or (0, {})
        ...
        checkpoints.save(step, {"batches": batches.state_dict()})

    Parameters
    ----------
    folder : made if missing
    gpt : the whole model that `model` was made of: its architecture, and which of its parameters are trained. Those that
        are not are no part of a checkpoint
    model : of any layout
    keep : how many checkpoints to keep, the newest ones

    Every method is a collective: all ranks call it. While this object is made, a rank holds the whole model once more, in
    float64; while it loads, the whole training state.
    """

    def __init__(self, folder: str | os.PathLike, gpt: GPT, model: Composed, *, keep: int = 2):
        self.folder, self.model = Path(folder), model
        self.keep = int(require_in_range("keep", keep, 1))
        self.total, self._numbers = numbers_of(gpt, model)
        self._params = trained(model)
        self._first = dist.get_rank() == 0

    def save(self, step: int, state: Mapping) -> Path:
        """Write the checkpoint of `step` optimiser steps and return its directory, on every rank.

        state : what else the run needs to go on, the same on every rank, as for `train.save_checkpoint`

        Raises OSError on every rank, naming the one where it happened, if the disk is full or cannot be written to. What
        was written so far is then removed, and older checkpoints are as they were.
        """
        part = self._agreed(lambda: self._start(step) if self._first else None)[0]
        try:
            sums = self._agreed(lambda: self._write(part, step))
            scalars = next(filter(None, self._agreed(self._scalars)), {})
            (path,) = filter(
                None,
                self._agreed(
                    lambda: self._finish(part, step, state, scalars, sums) if self._first else None
                ),
            )
        except OSError:
            if self._first:
                files.remove_parts(self.folder)
            raise
        return path

    def load(self) -> tuple[int, dict] | None:
        """Go on from the newest sound checkpoint: return its step and state, or None if the folder holds none.

        Skips damaged checkpoints, as `train.load_checkpoint` does, and warns on rank 0. Raises ValueError, on every rank, if
        none can be read or it is of another model.
        """
        found = self._agreed(lambda: self._newest() if self._first else None)[0]
        if found is None:
            return None
        kept: dict[str, torch.Tensor] = {}
        missing = torch.ones(self.total, dtype=torch.bool)
        for name, content in files.contents(found, KIND, ["state.json"]):
            if name == "state.json":
                told = json.loads(content)
                continue
            tensors = safetensors.torch.load(content)
            numbers = spelled_out(tensors.pop("runs"))
            if len(numbers) and int(numbers.max()) >= self.total:
                raise ValueError(_other_model(found, self.total))
            missing[numbers] = False
            for kind, values in tensors.items():
                whole = kept.setdefault(kind, torch.zeros(self.total, dtype=values.dtype))
                whole[numbers] = values
        if told["total"] != self.total or missing.any():
            raise ValueError(_other_model(found, self.total))
        self._take(kept, told["scalars"])
        return told["step"], unpack(told["state"], {})

    def _take(self, kept: Mapping[str, torch.Tensor], scalars: Mapping[str, float]) -> None:
        """Fill this rank's parameters and optimiser state out of those of the whole model."""
        optimizer = self.model.optimizer
        for p, numbers in zip(self._params, self._numbers, strict=True):
            here = numbers >= 0

            def filled(kind, p=p, numbers=numbers, here=here):
                values = torch.zeros(p.numel(), dtype=p.dtype)
                values[here] = kept[kind][numbers[here]].to(p.dtype)
                return values.view(p.shape).to(p.device)

            p.detach().copy_(filled("parameter"))
            state = {kind: filled(kind) for kind in kept if kind != "parameter"}
            state |= {name: torch.tensor(value) for name, value in scalars.items()}
            if state:
                optimizer.state[p] = state
        if self.model.zero and self.model.layout.zero < 3:
            for u in self.model.zero.units:  # ZeRO 1 and 2: everybody needs everybody's piece
                all_gather(u.flat, self.model.grid.data, wire=self.model.wire)

    def _start(self, step: int) -> Path:
        require_in_range("step", step, 0)
        self.folder.mkdir(parents=True, exist_ok=True)
        files.remove_parts(self.folder)
        part = self.folder / f".{files.free_name(self.folder, step)}.{os.getpid()}.part"
        part.mkdir()
        return part

    def _write(self, part: Path, step: int) -> tuple[str, tuple[int, int]]:
        """Write this rank's file; return its name, and its size and CRC-32."""
        replicas = 1 if self.model.zero else self.model.layout.dp
        numbers, kept = [torch.empty(0, dtype=torch.long)], {}  # a frozen stage has no more
        for p, all_numbers in zip(self._params, self._numbers, strict=True):
            mine = torch.nonzero(all_numbers >= 0)[:, 0].tensor_split(replicas)
            mine = mine[self.model.grid.d if replicas > 1 else 0]
            numbers.append(all_numbers[mine])
            state = self.model.optimizer.state.get(p, {})
            arrays = {kind: t for kind, t in state.items() if t.ndim}
            for kind, t in ({"parameter": p.detach()} | arrays).items():
                kept.setdefault(kind, []).append(t.reshape(-1).cpu()[mine])
        content = safetensors.torch.save(
            {kind: torch.cat(ts) for kind, ts in kept.items()}
            | {"runs": runs_of(torch.cat(numbers))}
        )
        name = f"rank-{dist.get_rank():05d}.safetensors"
        try:
            files.write_file(part / name, content)
        except FileNotFoundError as error:
            raise OSError(
                error.errno,
                f"rank 0 made {part.name} and this rank does not see it: put the checkpoints on a disk that all nodes share",
                str(self.folder),
            ) from None
        except OSError as error:
            raise not_written(error, self.folder, step, len(content)) from error
        return name, (len(content), zlib.crc32(content))

    def _scalars(self) -> dict[str, float]:
        """What the optimiser keeps once for all parameters, such as the number of steps; nothing if this rank has none."""
        kept = (self.model.optimizer.state.get(p, {}) for p in self._params[:1])
        return {k: float(t) for s in kept for k, t in s.items() if not t.ndim}

    def _finish(self, part: Path, step: int, state: Mapping, scalars: dict, sums: list) -> Path:
        tree, tensors = pack(dict(state))
        if tensors:
            raise TypeError(f"state may hold no tensors, and holds {', '.join(sorted(tensors))}.")
        told = {
            "step": step,
            "total": self.total,
            "layout": asdict(self.model.layout),
            "scalars": scalars,
            "state": tree,
        }
        content = json.dumps(told, indent=1, allow_nan=False).encode()
        sums = dict(sums) | {"state.json": (len(content), zlib.crc32(content))}
        try:
            files.write_file(part / "state.json", content)
            files.write_file(part / "manifest.json", files.manifest(KIND, sums))
            files.sync(part)
            path = part.rename(self.folder / part.name[1:].rsplit(".", 2)[0])
            point_to(path)
        except OSError as error:
            raise not_written(error, self.folder, step, len(content)) from error
        prune(self.folder, path.name, self.keep)
        return path

    def _newest(self) -> Path | None:
        @dataclass
        class Sound:
            path: Path

        def check(path: Path) -> Sound:
            for _ in files.contents(path, KIND, ["state.json"]):
                pass
            return Sound(path)

        if not self.folder.is_dir() or not files.names(self.folder):
            return None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = load_checkpoint(self.folder, read=check)
        for warning in caught:
            print(f"warning: {warning.message}", flush=True)
        return found.path

    def _agreed(self, do) -> list:
        """Call `do` on every rank and return what all returned; if it failed on one, raise that error on all."""
        mine: tuple[str, object]
        try:
            mine = ("done", do())
        except (OSError, ValueError, TypeError) as error:
            mine = ("failed", error)
        said: list = [None] * dist.get_world_size()
        dist.all_gather_object(said, mine)
        for rank, (what, result) in enumerate(said):
            if what == "failed":
                result.add_note(f"This happened on rank {rank}.")
                raise result
        return [result for _, result in said]


def _other_model(path: Path, total: int) -> str:
    return f"{path.name} is not of this model, which trains {total:,} numbers: start with its settings, or in another folder."
