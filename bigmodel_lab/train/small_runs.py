"""Many small GPTs, each trained to its end: how the held-out loss depends on size and tokens.

    python -m bigmodel_lab.train.small_runs runs/small
    python -m bigmodel_lab.train.small_runs runs/tiny --sizes "1x8 1x16 1x24" --steps "4 8 16" --context 32 --batch 4

The first line made bigmodel_lab/plan/tables/small_runs.csv, in about ten minutes of one core. The second takes seconds. Ctrl-C
saves and stops; the same line again goes on from there, to the same bits. The table is written anew after each run.

Each run starts from the same seed and has a learning rate of its own that rises, then falls along half a cosine to its last
step: no run is a longer one stopped half way, whose rate would still be high and whose loss would mislead (Hoffmann et al.
2022, arXiv:2203.15556, section 3.1). The highest rate falls with the width as a power. All runs read the same text with the
shipped tokenizer, and all are scored on the same held-out tokens. Beside each stands the roof of its machine. Fitted by
`plan.fit_surface` (chapter 16) and `plan.iso_flop` (lab 10, which adds five runs made with --sizes 1x8).

Rounding differs from one machine or library to the next, and a run amplifies it: made again on another day, 2x16-256 came out
as in the table, 3x48-512 and 3x64-512 0.003 and 0.007 nats away from it, and 5x128-512 0.1.
"""

import argparse
import functools
import json
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np
import torch

from bigmodel_lab import rng
from bigmodel_lab.files import write_atomically
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.models.gpt import INIT_STD
from bigmodel_lab.plan import Architecture, matmul_peak, note_peak, six_nd, training_flops
from bigmodel_lab.plan.surface import SmallRun
from bigmodel_lab.shell import add_options, option
from bigmodel_lab.train.batches import Batches
from bigmodel_lab.train.config import TrainConfig
from bigmodel_lab.train.loop import fit
from bigmodel_lab.train.optim import AdamW
from bigmodel_lab.train.pretrain_text import TEXTS, Corpus, corpus, part
from bigmodel_lab.train.record import RunRecord

__all__ = ["Shape", "Sweep", "make_runs", "table"]

HEAD = 16  # channels of a head; a narrower model has one head
VOCAB = 2048  # tokens: the shipped tokenizer, which `corpus` makes afresh from the same documents
TABLE, SETTINGS = "small_runs.csv", "settings.json"


@dataclass(frozen=True)
class Shape:
    """One run: how large, how long."""

    n_layers: int
    width: int
    steps: int

    @property
    def name(self) -> str:
        """Such as "3x48-512": layers x width - steps."""
        return f"{self.n_layers}x{self.width}-{self.steps}"


@dataclass(frozen=True)
class Sweep:
    """All that decides the runs. Raises ValueError for what cannot be."""

    sizes: str = option("2x16 2x32 3x48 3x64 4x96 5x128", "layers x width of the models")
    steps: str = option("256 512 1024 2048 4096", "lengths of the runs")
    limit: float = option(2.1e12, "runs of more FLOP, by 6 N D, are left out")
    context: int = option(128, "tokens a row")
    batch: int = option(4, "rows a step")
    lr: float = option(1.2e-2, "highest learning rate of 256 steps at a width of 16")
    by_width: float = option(0.5, "that rate falls with the width as its power -by_width")
    by_steps: float = option(0.3, "and with the steps as their power -by_steps")
    warmup: float = option(0.1, "share of the steps over which the rate rises")
    floor: float = option(0.02, "learning rate at the end, as a share of the highest")
    weight_decay: float = option(0.1, "of matrices")
    beta2: float = option(0.99, "of AdamW")
    part: int = option(16384, "held-out tokens a language that a run is scored on")
    seed: int = option(0, "of weights and batches, the same for all runs")

    def __post_init__(self):
        for shape in self.shapes:
            _ = self.model(shape), self.training(shape)  # raise for what does not fit
        if not self.shapes:
            raise ValueError(f"limit={self.limit:g} FLOP leaves no run: raise it.")

    @property
    def shapes(self) -> list[Shape]:
        """The runs, those of the fewest FLOP first."""
        try:
            sizes = [tuple(map(int, s.split("x"))) for s in self.sizes.split()]
            lengths = [int(n) for n in self.steps.split()]
            every = [Shape(layers, width, n) for layers, width in sizes for n in lengths]
        except ValueError:
            raise ValueError(
                f'sizes must read like "2x16 3x48" and steps like "128 256", got {self.sizes!r} and {self.steps!r}.'
            ) from None
        flops = {s: six_nd(self.model(s).n_parameters, self.tokens(s)).magnitude for s in every}
        return sorted((s for s in every if flops[s] <= self.limit), key=flops.get)

    def tokens(self, shape: Shape) -> int:
        """Tokens that the run sees, D."""
        return shape.steps * self.batch * self.context

    def model(self, shape: Shape) -> GPTConfig:
        """Llama's form, with the output layer tied to the embedding."""
        heads = max(1, shape.width // HEAD)
        return GPTConfig.llama(VOCAB, self.context, shape.n_layers, shape.width, heads, tied=True)

    def training(self, shape: Shape) -> TrainConfig:
        """What `fit` is given."""
        return TrainConfig(
            steps=shape.steps,
            batch=self.batch,
            lr=self.lr * (16 / shape.width) ** self.by_width * (256 / shape.steps) ** self.by_steps,
            warmup=round(self.warmup * shape.steps),
            floor=self.floor,
            weight_decay=self.weight_decay,
            checkpoint_every=512,
            keep=1,
            seed=self.seed,
        )


def make_runs(
    sweep: Sweep,
    text: Corpus,
    folder: str | os.PathLike,
    say: Callable[[str], None] = print,
) -> list[SmallRun]:
    """Make the runs that `folder` does not hold yet, and return all that are finished.

    Each leaves folder/NAME/run.json, a RunRecord with its machine's roof; folder/small_runs.csv is the table so far. `say` is
    given a line a run. After Ctrl-C fewer are returned than `sweep.shapes` has. Raises ValueError if the folder holds runs with other settings; sizes, steps and limit may differ.
    """
    folder = Path(folder)
    _require_same_settings(sweep, folder)
    done: list[SmallRun] = []
    for shape in sweep.shapes:
        file = folder / shape.name / "run.json"
        record = RunRecord.load(file) if file.exists() else _train(sweep, shape, text, file.parent)
        if record.steps < shape.steps:
            break  # by Ctrl-C; `fit` has said so, and saved
        if not file.exists():
            record.save(file)
            shutil.rmtree(file.parent / "checkpoints")
        done.append(_row(sweep, shape, record))
        write_atomically(folder / TABLE, table(sweep, text, record, done).encode())
        r = done[-1]
        say(
            f"{len(done)} of {len(sweep.shapes)}: {r.name}, {r.parameters:,} parameters, {r.tokens:,} tokens, "
            f"loss {r.loss:.4f}, {r.seconds:.0f} s"
        )
    return done


def _train(sweep: Sweep, shape: Shape, text: Corpus, folder: Path) -> RunRecord:
    stream = np.concatenate(list(text.train.values()))
    generator = rng.generator(sweep.seed, "small runs", "batches")
    roof = matmul_peak(threads=torch.get_num_threads())  # now: other work may be on the machine
    record = fit(
        _model(sweep, shape),
        Batches(stream, sweep.batch, sweep.context, generator),
        sweep.training(shape),
        validation=_held_out(sweep, text),
        optimizer=functools.partial(AdamW, betas=(0.9, sweep.beta2), ops="numba"),
        folder=folder / "checkpoints",
        resume=True,
        name=f"GPT, Llama's form, {shape.n_layers} layers of {shape.width}",
        data=" and ".join(name for name, _, _ in TEXTS.values()),
    )
    return note_peak(record, roof)


def _model(sweep: Sweep, shape: Shape) -> GPT:
    """Return the GPT with its matrices, but for the embedding, scaled to a standard deviation of width^-1/2.

    GPT's own 0.02 is meant for wide models: at these widths the layers would pass on next to nothing, and the loss would
    stand still for hundreds of steps, for another number of them at each size.
    """
    model = GPT(sweep.model(shape), "numba", seed=sweep.seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2 and name != "tokens.weight":
                p.mul_(shape.width**-0.5 / INIT_STD)
    return model


def _held_out(sweep: Sweep, text: Corpus) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [b for ids in text.held_out.values() for b in part(ids, sweep.context, sweep.part)]


def _row(sweep: Sweep, shape: Shape, record: RunRecord) -> SmallRun:
    config, D = sweep.model(shape), sweep.tokens(shape)
    return SmallRun(
        name=shape.name,
        n_layers=shape.n_layers,
        width=shape.width,
        parameters=record.parameters,
        non_embedding=record.parameters - config.vocab_size * config.width,
        tokens=record.tokens or 0,
        flops=float(training_flops(Architecture.of(config), D).magnitude),
        seconds=round(sum(record.compute_s), 1),
        loss=round(record.scores["validation loss"], 4),
        seed=record.seed,
    )


def _require_same_settings(sweep: Sweep, folder: Path) -> None:
    mine = {k: v for k, v in asdict(sweep).items() if k not in ("sizes", "steps", "limit")}
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / SETTINGS
    if not file.exists():
        write_atomically(file, (json.dumps(mine, indent=1) + "\n").encode())
    theirs = json.loads(file.read_text("utf-8"))
    if changed := [
        f"{k}={theirs.get(k)} and not {v}" for k, v in mine.items() if theirs.get(k) != v
    ]:
        raise ValueError(
            f"{folder} holds runs with {', '.join(changed)}, which do not belong to one surface with these: "
            "take another folder."
        )


def table(sweep: Sweep, text: Corpus, record: RunRecord, runs: Sequence[SmallRun]) -> str:
    """Return the runs as CSV, after lines that begin with "#" and say how they were made; `record` is of one of them."""
    said = [
        f"--{f.name.replace('_', '-')} {shlex.quote(str(value))}"
        for f in fields(Sweep)
        if (value := getattr(sweep, f.name)) != f.default
    ]
    command = " ".join(["python -m bigmodel_lab.train.small_runs runs/small", *said])
    train = sum(map(len, text.train.values()))
    held = sum(y.numel() for _, y in _held_out(sweep, text))
    made = ", ".join(f"{k} {v}" for k, v in record.versions.items())
    head = f"""Held-out loss of small GPTs by size and tokens. Ours: measured by the command below, on the day below.
command: {command}
date: {date.today()}, on {record.machine["cpu"]}, {torch.get_num_threads()} thread; {made}
model: Llama's form, {VOCAB} tokens of byte-pair encoding, context {sweep.context}; output layer tied to the embedding
data: {record.data}, {train:,} training tokens (runs longer than this see some of them again), scored on {held:,} held out
parameters: all that are trained, the embedding once, since as the output layer it does a product for every token
non_embedding: without it. tokens: seen in training. flops: of training, exact (plan.training_flops). loss: nats a held-out
token, after the last step, in windows apart. seconds: of the training steps, with other work on the machine: no benchmark"""
    names = ",".join(f.name for f in fields(SmallRun))
    rows = [",".join(map(str, astuple(r))) for r in runs]
    return "\n".join([*(f"# {line}" for line in head.splitlines()), names, *rows]) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigmodel_lab.train.small_runs", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the runs are, or go")
    add_options(parser, Sweep)
    options = vars(parser.parse_args(arguments))
    folder = options.pop("folder")
    try:
        sweep = Sweep(**options)
        done = make_runs(sweep, corpus(VOCAB), folder, functools.partial(print, flush=True))
    except ValueError as error:
        parser.error(str(error))
    left = len(sweep.shapes) - len(done)
    after = f", {left} to go: the same line again goes on" if left else ""
    print(f"{len(done)} runs are in {folder / TABLE}{after}.")


if __name__ == "__main__":
    main()
