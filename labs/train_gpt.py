"""Train a GPT on one process or many: data x tensor x pipeline parallel, with ZeRO, the same losses whatever the layout.

    python labs/train_gpt.py --steps 200 --dp 2 --record run.json
    python labs/train_gpt.py --steps 3 --layers 2 --width 32 --heads 2 --context 16 --batch 4        # some seconds

Alone, it starts dp x tp x pp processes on this machine. Under torchrun it runs in the ranks that are there:

    torchrun --nproc-per-node 4 labs/train_gpt.py --dp 2 --tp 2 --record run.json
    torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 labs/train_gpt.py --dp 2 --pp 2

The batch of a step depends on the seed and the step only, so the losses of two layouts can be compared line by line.
"""

import argparse
import dataclasses
import os
import sys
import time
from pathlib import Path

from bigmodel_lab import data, dist, rng
from bigmodel_lab.errors import require_choice, require_in_range
from bigmodel_lab.shell import add_options, option
from bigmodel_lab.train import Layout, RunRecord


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained, on what, and over which ranks."""

    steps: int = option(100, "optimiser steps")
    seed: int = option(0, "of the weights and of the batches")
    dp: int = option(1, "data-parallel replicas")
    tp: int = option(1, "ranks that share each matrix")
    pp: int = option(1, "pipeline stages")
    zero: int = option(0, "ZeRO stage 0-3 between the replicas")
    micros: int = option(0, "micro-batches a step; 0: as many as pipeline stages")
    schedule: str = option("1f1b", "of the pipeline: gpipe or 1f1b")
    sequence: int = option(
        0, "1: with --tp, also cut what is between the matrices along the positions"
    )
    form: str = option("llama", "of the GPT: gpt2 or llama")
    layers: int = option(4, "blocks")
    width: int = option(64, "channels")
    heads: int = option(4, "of attention")
    context: int = option(64, "tokens a row")
    vocab: int = option(512, "tokens that the tokenizer is trained to")
    data: str = option("moby-dick", "a text of bigmodel_lab.data")
    batch: int = option(16, "rows a step, over all replicas")
    lr: float = option(1e-3, "highest learning rate")
    warmup: int = option(10, "steps over which it rises, but no more than --steps")
    weight_decay: float = option(0.1, "of matrices")
    clip: float = option(1.0, "largest norm of the gradient")
    dtype: str = option("float32", "of the parameters: float32 or float64")
    ops: str = option("torch", "kernels: torch or numba")
    threads: int = option(1, "a rank")
    timeout_s: float = option(86400.0, "seconds after which all ranks are stopped")
    record: str = option("", "file for the RunRecord; none if not given")

    def __post_init__(self):
        for name, choices in {
            "schedule": ("gpipe", "1f1b"),
            "form": ("gpt2", "llama"),
            "dtype": ("float32", "float64"),
            "data": ("moby-dick", "tang-poems"),
        }.items():
            require_choice(name, getattr(self, name), choices)
        require_in_range("steps", self.steps, 1)
        least = self.dp * (self.micros or self.pp)
        if self.batch < least:
            raise ValueError(
                f"batch={self.batch} leaves a replica fewer rows than its micro-batches: use --batch {least} or more."
            )
        if self.record and not Path(self.record).absolute().parent.is_dir():
            raise ValueError(
                f"record={self.record}: its folder does not exist. Make it, or choose another."
            )

    @property
    def layout(self) -> Layout:
        return Layout(self.dp, self.tp, self.pp, self.zero)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_options(parser, Config)
    try:
        config = Config(**vars(parser.parse_args(arguments)))
        ranks = config.layout.ranks
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    try:
        results = dist.run(
            train, config, ranks=ranks, timeout_s=config.timeout_s, threads=config.threads
        )
    except dist.RankError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: all ranks have ended.")
    if config.record and int(os.environ.get("RANK", 0)) == 0:
        path = record(config, results).save(config.record)
        print(f"written: {path}")


def train(config: Config) -> dict:
    """Run the training on this rank and return what it measured."""
    import numpy as np
    import torch

    from bigmodel_lab.dist.composed import Composed
    from bigmodel_lab.dist.wire import Wire
    from bigmodel_lab.models import GPT, GPTConfig
    from bigmodel_lab.text import BPE
    from bigmodel_lab.train import AdamW, Batches, warmup_cosine

    text = data.load(config.data).text
    tokenizer = BPE.train(text, config.vocab)
    tokens = np.asarray(tokenizer.encode(text))
    batches = Batches(tokens, config.batch, config.context, rng.generator(config.seed, "batches"))
    form = getattr(GPTConfig, config.form)(
        tokenizer.vocab_size, config.context, config.layers, config.width, config.heads
    )
    wire = Wire()
    model = Composed(
        GPT(form, config.ops, seed=config.seed).to(getattr(torch, config.dtype)),
        config.layout,
        lambda groups: AdamW(groups, lr=config.lr, betas=(0.9, 0.95), ops=config.ops),
        weight_decay=config.weight_decay,
        clip=config.clip,
        micros=config.micros or config.pp,
        schedule=config.schedule,
        sequence=bool(config.sequence),
        wire=wire,
    )
    first = torch.distributed.get_rank() == 0
    if first:
        print(
            f"{form.n_parameters:,} parameters, {config.layout.ranks} ranks (dp {config.dp} x tp {config.tp} x pp {config.pp}, "
            f"ZeRO {config.zero}), {len(tokens):,} tokens of {config.data}",
            flush=True,
        )
    wire.sent_bytes.clear()  # what the start sent is no part of the steps
    measured = {"loss": [], "compute_s": [], "communication_s": [], "parameters": form.n_parameters}
    last_said = time.monotonic()
    for step in range(config.steps):
        lr = warmup_cosine(
            step, lr=config.lr, steps=config.steps, warmup=min(config.warmup, config.steps)
        )
        for group in model.optimizer.param_groups:
            group["lr"] = lr
        x, y = next(batches)
        waited, start = wire.waited_s, time.perf_counter()
        measured["loss"].append(model.step(x, y))
        waited = wire.waited_s - waited
        measured["communication_s"].append(waited)
        measured["compute_s"].append(max(0.0, time.perf_counter() - start - waited))
        if first and (step in (0, config.steps - 1) or time.monotonic() - last_said > 2):
            last_said = time.monotonic()
            spent = sum(measured["compute_s"]) + sum(measured["communication_s"])
            rate = (step + 1) * config.batch * config.context / spent
            left = (config.steps - step - 1) * spent / (step + 1)
            print(
                f"step {step + 1}/{config.steps}  loss {measured['loss'][-1]:.4f}  {rate:,.0f} tokens/s  {left:,.0f} s left",
                flush=True,
            )
    return measured | {
        "sent_bytes": dict(wire.sent_bytes),
        "memory_bytes": model.memory_bytes(),
    }


def record(config: Config, results: list[dict]) -> RunRecord:
    """Put what the ranks measured into one record; times are those of rank 0."""
    root = results[0]
    collectives = sorted({name for r in results for name in r["sent_bytes"]})
    kinds = sorted({kind for r in results for kind in r["memory_bytes"]})
    rows = config.steps * config.batch
    return RunRecord(
        model=f"GPT, {config.form}'s form, {config.layers} layers of {config.width}",
        parameters=root["parameters"],
        data=config.data,
        samples=rows,
        tokens=rows * config.context,
        seed=config.seed,
        loss=root["loss"],
        compute_s=root["compute_s"],
        communication_s=root["communication_s"],
        sent_bytes={name: [r["sent_bytes"].get(name, 0) for r in results] for name in collectives},
        memory_bytes={kind: max(r["memory_bytes"][kind] for r in results) for kind in kinds},
        layout=config.layout,
        dtype=config.dtype,
    )


if __name__ == "__main__":
    main()
