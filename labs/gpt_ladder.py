"""Train a ladder of small GPTs and keep a RunRecord of each: the runs that lab L10 fits a scaling law to.

    python labs/gpt_ladder.py --folder labs/records/small_gpts                              # four minutes on one core
    python labs/gpt_ladder.py --widths 8,16,24 --steps 4,8,16 --folder runs                # some seconds

Every width is trained for every number of steps, each run with its own schedule to the end. The machine's roof, the
fastest float32 product of two matrices seen on as many threads, is kept in each record.
"""

import argparse
import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np

from bigmodel_lab import data, plan, rng
from bigmodel_lab.errors import require_in_range
from bigmodel_lab.shell import add_options, option


@dataclasses.dataclass(frozen=True)
class Config:
    """The ladder: widths x steps."""

    folder: str = option("labs/records/small_gpts", "where the records go; made if it is not there")
    widths: str = option("8,16,24,32,64", "channels of the models, separated by commas")
    steps: str = option("400,800,1600,3200", "optimiser steps of the runs, separated by commas")
    layers: int = option(2, "blocks")
    head: int = option(8, "channels of a head of attention; divides the widths")
    context: int = option(64, "tokens a row")
    batch: int = option(4, "rows a step")
    vocab: int = option(300, "tokens that the tokenizer is trained to")
    data: str = option("moby-dick", "a text of bigmodel_lab.data")
    lr: float = option(
        4e-3, "highest learning rate at 32 channels; it falls with the root of the width"
    )
    seed: int = option(0, "of the weights and of the batches")
    threads: int = option(1, "of torch and of the product that gives the roof")

    def __post_init__(self):
        for name in ("layers", "head", "context", "batch", "threads"):
            require_in_range(name, getattr(self, name), 1)
        for name in ("widths", "steps"):
            for n in self.numbers(name):
                require_in_range(f"each of {name}", n, 1)
        for width in self.numbers("widths"):
            if width % self.head:
                raise ValueError(
                    f"head={self.head} does not divide a width of {width}: choose widths that it divides."
                )

    def numbers(self, name: str) -> list[int]:
        """Return a list that was written with commas."""
        try:
            return [int(word) for word in getattr(self, name).split(",")]
        except ValueError:
            raise ValueError(
                f"{name} must be whole numbers with commas, such as 16,32, got {getattr(self, name)!r}."
            ) from None


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, Config)
    try:
        config = Config(**vars(parser.parse_args(arguments)))
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    run(config)


def run(config: Config) -> list[Path]:
    """Train the ladder, write the records and return their paths."""
    import threadpoolctl
    import torch

    from bigmodel_lab.text import BPE

    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = data.load(config.data).text
    tokenizer = BPE.train(text, config.vocab)
    tokens = np.asarray(tokenizer.encode(text))
    torch.set_num_threads(config.threads)
    paths = []
    for width, steps in itertools.product(config.numbers("widths"), config.numbers("steps")):
        with threadpoolctl.threadpool_limits(config.threads):
            peak = plan.matmul_peak()  # before each run: another program may be at work beside it
        record = plan.note_peak(train(config, tokens, tokenizer.vocab_size, width, steps), peak)
        paths.append(record.save(folder / f"width{width}-steps{steps}.json"))
        m = plan.measure(record)
        print(f"{paths[-1].name}: {record.parameters:,} parameters, {record.tokens:,} tokens, loss {m.loss:.3f} nats, "
              f"{m.tokens_per_s.magnitude:,.0f} tokens/s", file=sys.stderr)  # fmt: skip
    return paths


def train(config: Config, tokens, vocab: int, width: int, steps: int):
    """Train one model and return its RunRecord."""
    from bigmodel_lab.models import GPT, GPTConfig
    from bigmodel_lab.train import Batches, TrainConfig, fit

    form = GPTConfig.gpt2(vocab, config.context, config.layers, width, width // config.head)
    batches = Batches(tokens, config.batch, config.context, rng.generator(config.seed, "batches"))
    settings = TrainConfig(
        steps,
        config.batch,
        lr=config.lr * (32 / width) ** 0.5,
        warmup=max(1, steps // 20),
        seed=config.seed,
    )
    return fit(
        GPT(form, seed=config.seed), batches, settings,
        name=f"GPT-2's form, {config.layers} layers of {width}", data=config.data, progress=lambda status: None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
