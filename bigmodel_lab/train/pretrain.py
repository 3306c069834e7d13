"""The course's own small GPT: train it on the shipped English novel and Chinese poems, and score it beside an n-gram model.

    python -m bigmodel_lab.train.pretrain runs/pretrained
    python -m bigmodel_lab.train.pretrain runs/tiny --steps 40 --warmup 4 --width 32 --n-layers 1 --n-heads 2 --context 32 --part 2048

The first line made the model of `models.pretrained()`, in 21 minutes on two cores (AMD EPYC, AVX-512). The second takes
seconds and learns next to nothing. Ctrl-C saves and
stops; the same line again goes on from there, to the same bits. `--finish` takes the best checkpoint of a run that will
not be ended. Every field of `Recipe` is an option.

`bigmodel_lab.train.pretrain_text` says what is held out: a tenth of each text, in whole chapters and runs of poems. Both
models are scored on the same held-out tokens, all but the first. The GPT predicts each from `context` / 2 to `context`
tokens before it, in windows that overlap by half; the n-gram model from four. "Windows apart" is the score in windows
that do not overlap, which the GPT enters with nothing before their first token. Each n-gram model is fitted to its own
language, the GPT to both. A part of the held-out text also chooses which checkpoint is taken: the README's curve shows
between how many.
"""

import argparse
import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from bigmodel_lab import rng
from bigmodel_lab.errors import require_in_range
from bigmodel_lab.files import write_atomically
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.models.shipped import pretrained, save_pretrained
from bigmodel_lab.shell import add_options
from bigmodel_lab.text import NGram
from bigmodel_lab.train.batches import Batches, windows
from bigmodel_lab.train.checkpoint import load_checkpoint
from bigmodel_lab.train.config import TrainConfig
from bigmodel_lab.train.evaluation import evaluate
from bigmodel_lab.train.history import validation_curve
from bigmodel_lab.train.loop import fit
from bigmodel_lab.train.optim import AdamW
from bigmodel_lab.train.pretrain_text import TEXTS, Corpus, corpus, overlapping, part, tail_loss
from bigmodel_lab.train.record import RunRecord

__all__ = ["Recipe", "ended", "finish", "pretrain", "readme", "table"]

QUICK = 4096  # held-out tokens a language of the part that is quick to score again


@dataclass(frozen=True)
class Recipe:
    """All that decides the model."""

    vocab_size: int = 2048  # V, of one tokenizer for both languages
    context: int = 256  # T, tokens
    n_layers: int = 4  # L
    width: int = 192  # D
    n_heads: int = 6
    dropout: float = 0.05  # probability; the run sees each token about six times
    steps: int = 4300
    batch: int = 6  # windows of `context` tokens a step
    lr: float = 3e-3  # highest learning rate
    warmup: int = 150  # steps
    floor: float = 0.02  # learning rate at the end, as a share of `lr`
    beta2: float = 0.99  # of AdamW; small batches give noisy squares, so average them over longer
    weight_decay: float = 0.1
    english: int = 2  # times that the English text, of fewer tokens, stands in what is drawn from
    eval_every: int = 250  # steps; a checkpoint is written as often
    patience: int = 8  # evaluations in a row without a new best before stopping early
    part: int = 8192  # held-out tokens a language that an evaluation looks at
    order: int = 5  # of the n-gram model
    seed: int = 0

    def __post_init__(self):
        require_in_range("part", self.part, self.context)
        require_in_range("english", self.english, 1)
        _ = self.model, self.training  # raise for what does not fit

    @property
    def model(self) -> GPTConfig:
        """Llama's form, with the output layer tied to the embedding."""
        return GPTConfig.llama(
            self.vocab_size,
            self.context,
            self.n_layers,
            self.width,
            self.n_heads,
            tied=True,
            dropout=self.dropout,
        )

    @property
    def training(self) -> TrainConfig:
        """What `fit` is given."""
        same = ("steps", "batch", "lr", "warmup", "floor", "weight_decay", "eval_every", "patience")
        return TrainConfig(
            **{name: getattr(self, name) for name in same},
            checkpoint_every=self.eval_every,
            seed=self.seed,
        )


def pretrain(recipe: Recipe, text: Corpus, folder: str | os.PathLike) -> RunRecord:
    """Run the recipe on `text` in `folder`, or go on with the run that is there, and return its record.

    The checkpoints are in folder/checkpoints, the record is folder/run.json. Ctrl-C stops the run when a step is
    complete; `ended` tells whether it was stopped. On settings that differ from those the run began with, see `fit`.
    """
    folder = Path(folder)
    generator = rng.generator(recipe.seed, "pretrain", "batches")
    stream = np.concatenate([*[text.train["English"]] * recipe.english, text.train["Chinese"]])
    looks = [b for ids in text.held_out.values() for b in part(ids, recipe.context, recipe.part)]
    record = fit(
        GPT(recipe.model, "numba", seed=recipe.seed),
        Batches(stream, recipe.batch, recipe.context, generator),
        recipe.training,
        validation=looks,
        optimizer=functools.partial(AdamW, betas=(0.9, recipe.beta2), ops="numba"),
        folder=folder / "checkpoints",
        resume=True,
        name=f"GPT, Llama's form, {recipe.n_layers} layers of {recipe.width}",
        data=" and ".join(name for name, _, _ in TEXTS.values()),
    )
    record.save(folder / "run.json")
    return record


def ended(recipe: Recipe, record: RunRecord) -> bool:
    """Whether the run took all its steps, or stopped early because it got no better; not so after Ctrl-C."""
    losses = validation_curve(record)[1]
    stale = bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= recipe.patience
    return record.steps == recipe.steps or stale


def finish(recipe: Recipe, text: Corpus, folder: str | os.PathLike) -> RunRecord:
    """Write the best model of the run in `folder` to folder/pretrained, and return its record with the scores.

    Beside what `save_pretrained` writes there are record.json and README.md. The scores are those of the model as it
    is stored, in float16, and are explained in the README. Raises FileNotFoundError if there is no run.
    """
    folder = Path(folder)
    if not (folder / "run.json").exists():
        raise FileNotFoundError(
            f"{folder} has no run.json: a run writes it when it ends or is stopped by Ctrl-C. Start the run again to go "
            "on from its last checkpoint, and stop it."
        )
    run, best = RunRecord.load(folder / "run.json"), load_checkpoint(folder / "checkpoints", "best")
    model = GPT(recipe.model, "numba")
    model.load_state_dict(best.model)
    out = save_pretrained(folder / "pretrained", model, text.tokenizer)
    stored, _ = pretrained(out, ops="numba")
    scores = {"step of the best validation loss": best.step} | dict(run.scores)
    for language in TEXTS:
        scores |= _score(recipe, text, language, stored, model)
    record = replace(
        run,
        loss=[float(f"{x:.5g}") for x in run.loss],  # a small file, and as much as one can read
        compute_s=[float(f"{x:.3g}") for x in run.compute_s],
        scores=scores,
    )
    record.save(out / "record.json")
    write_atomically(out / "README.md", readme(recipe, record).encode())
    return record


def _score(
    recipe: Recipe, text: Corpus, language: str, stored: GPT, exact: GPT
) -> dict[str, float]:
    """Return what is said of one language: held-out loss of the stored GPT, of the one in float32, of the n-gram model."""
    ids = text.held_out[language]
    bits = (len(ids) - 1) / text.held_out_bytes[language] / math.log(2)  # a byte, per nat a token
    ngram = NGram.fit(text.train[language], recipe.vocab_size, recipe.order)
    theirs = float(ngram.nll(ids)[1:].mean())  # the GPT cannot predict the first token
    ours = evaluate(stored, overlapping(ids, recipe.context), tail_loss)
    few = part(ids, recipe.context, QUICK)
    return {
        f"{language}: nats per token": ours,
        f"{language}: bits per byte": ours * bits,
        f"{language}: nats per token, windows apart": evaluate(
            stored, windows(ids, 16, recipe.context)
        ),
        f"{language}: n-gram, nats per token": theirs,
        f"{language}: n-gram, bits per byte": theirs * bits,
        f"{language}: nats per token on a part": evaluate(stored, few),
        f"{language}: nats per token on a part, in float32": evaluate(exact, few),
        f"{language}: held-out tokens": len(ids) - 1,
    }


def table(record: RunRecord) -> str:
    """Return the scores beside those of the n-gram model as a Markdown table."""
    lines = [
        "| held-out text | tokens | GPT, nats per token | windows apart | n-gram | GPT, bits per byte | n-gram |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for language, (name, _, _) in TEXTS.items():
        s = {k.removeprefix(f"{language}: "): x for k, x in record.scores.items()}
        nats, bits = "nats per token", "bits per byte"
        kinds = [
            s[k]
            for k in (nats, f"{nats}, windows apart", f"n-gram, {nats}", bits, f"n-gram, {bits}")
        ]
        figures = " | ".join(f"{x:.3f}" for x in kinds)
        lines.append(f"| {language} ({name}) | {s['held-out tokens']:,.0f} | {figures} |")
    return "\n".join(lines)


def readme(recipe: Recipe, record: RunRecord) -> str:
    """Return the README of a folder that `finish` writes."""
    steps, losses = validation_curve(record)
    of_steps = np.diff([0, *steps])
    means = [float(np.mean(record.loss[s - n : s])) for s, n in zip(steps, of_steps, strict=True)]
    curve = "\n".join(
        f"| {s:,} | {m:.3f} | {v:.3f} |" for s, m, v in zip(steps, means, losses, strict=True)
    )
    changed = [
        f"--{f.name.replace('_', '-')} {getattr(recipe, f.name)}"
        for f in fields(Recipe)
        if getattr(recipe, f.name) != f.default
    ]
    command = " ".join(["python -m bigmodel_lab.train.pretrain runs/pretrained", *changed])
    cpu, cores = record.machine["cpu"], record.machine["cores"]
    return README.format(
        command=command,
        model=record.model,
        parameters=record.parameters,
        recipe=recipe,
        done=record.steps,
        tokens=record.tokens,
        best=record.scores["step of the best validation loss"],
        minutes=sum(record.compute_s) / 60,
        machine=f"{cores} cores of {cpu}",
        table=table(record),
        curve=curve,
        order=recipe.order,
    )


README = """# A small GPT of our own

{model}: {parameters:,} parameters, {recipe.vocab_size:,} tokens of byte-pair encoding for both languages, a context of
{recipe.context} tokens. Loaded by `bigmodel_lab.models.pretrained()`. Written by

    {command}

which took {done:,} of {recipe.steps:,} steps on {tokens:,} tokens, {minutes:.0f} minutes of computing on {machine}.
The weights are those after step {best:,.0f}, where the held-out loss was lowest, rounded to float16.

{table}

The n-gram model is interpolated modified Kneser-Ney of order {order} on the same tokens, fitted to one language at a time.
How the text is split and what the figures take in: the docstrings of `bigmodel_lab/train/pretrain.py` and its neighbour
`pretrain_text.py`. An end token is
counted as a token and not as a byte.

The loss in nats per token as it fell: the mean over the training batches since the line above, with dropout, and on a
part of the held-out text, as many tokens of each language. Every step's is in record.json.

| step | training | held out |
|--:|--:|--:|
{curve}

Where the texts come from and on what terms: `bigmodel_lab/data/NOTICE`. The model has seen nothing else.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bigmodel_lab.train.pretrain", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the run is, or begins")
    parser.add_argument(
        "--finish", action="store_true", help="train no more, and write the best model so far"
    )
    add_options(parser, Recipe)
    options = vars(parser.parse_args(arguments))
    folder, only_finish = options.pop("folder"), options.pop("finish")
    try:
        recipe = Recipe(**options)
    except ValueError as error:
        parser.error(str(error))
    text = corpus(recipe.vocab_size)
    if only_finish or ended(recipe, pretrain(recipe, text, folder)):
        print(table(finish(recipe, text, folder)))
        print(f"\nThe model is in {folder / 'pretrained'}.")


if __name__ == "__main__":
    main()
