"""Train a GPT on one process or many: data x tensor x pipeline parallel, with ZeRO, the same losses whatever the layout.

    python labs/train_gpt.py --steps 200 --dp 2 --record run.json
    python labs/train_gpt.py --steps 3 --layers 2 --width 32 --heads 2 --context 16 --batch 4        # some seconds

Alone, it starts dp x tp x pp processes on this machine. Under torchrun it runs in the ranks that are there:

    torchrun --nproc-per-node 4 labs/train_gpt.py --dp 2 --tp 2 --record run.json
    torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 labs/train_gpt.py --dp 2 --pp 2

The batch of a step depends on the seed and the step only, so the losses of two layouts can be compared line by line. With
--checkpoint FOLDER a run that ended early goes on where it was when the same command is given again, in any other layout,
too: let torchrun restart it (--max-restarts 3, with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), and give --dp 0 for as many
replicas as there are ranks, so that it goes on with those that are left.
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
    dp: int = option(
        1, "data-parallel replicas; 0: as many as the ranks that torchrun started allow"
    )
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
    device: str = option("cpu", "cpu, or cuda: a GPU a rank, NCCL between them, --ops torch")
    threads: int = option(1, "a rank")
    timeout_s: float = option(86400.0, "seconds after which all ranks are stopped")
    wait_s: float = option(300.0, "longest wait for another rank: after it, the rank fails")
    checkpoint: str = option("", "folder for checkpoints, which all ranks see; none if not given")
    every: int = option(0, "steps between two checkpoints; 0: one at the end")
    record: str = option("", "file for the RunRecord; none if not given")
    trace: str = option(
        "", "picture (.png, .svg) of who did what when in the last step; one machine"
    )

    def __post_init__(self):
        for name, choices in {
            "schedule": ("gpipe", "1f1b"),
            "form": ("gpt2", "llama"),
            "dtype": ("float32", "float64"),
            "device": ("cpu", "cuda"),
            "data": ("moby-dick", "tang-poems"),
        }.items():
            require_choice(name, getattr(self, name), choices)
        require_in_range("steps", self.steps, 1)
        require_in_range("every", self.every, 0)
        require_in_range("wait_s", self.wait_s, 0.1, 1e6, unit="s")
        if self.device == "cuda" and self.ops == "numba":
            raise ValueError("ops=numba computes on the CPU: with --device cuda use --ops torch.")
        if self.dp == 0:
            object.__setattr__(self, "dp", _replicas(self.tp * self.pp))
        least = self.dp * (self.micros or self.pp)
        if self.batch < least:
            raise ValueError(
                f"batch={self.batch} leaves a replica fewer rows than its micro-batches: use --batch {least} or more."
            )
        for name in ("record", "trace"):
            path = getattr(self, name)
            if path and not Path(path).absolute().parent.is_dir():
                raise ValueError(
                    f"{name}={path}: its folder does not exist. Make it, or choose another."
                )
        if self.trace and Path(self.trace).suffix not in (".png", ".svg"):
            raise ValueError(f"trace={self.trace} must end in .png or .svg.")

    @property
    def layout(self) -> Layout:
        return Layout(self.dp, self.tp, self.pp, self.zero)

    @property
    def fixed(self) -> dict:
        """The settings that decide the losses: a run that goes on must have begun with the same."""
        free = "dp tp pp zero micros schedule sequence ops device threads timeout_s wait_s checkpoint every record trace"
        return {k: x for k, x in dataclasses.asdict(self).items() if k not in free.split()}


def _replicas(ranks_each: int) -> int:
    ranks = int(os.environ.get("WORLD_SIZE", ranks_each))
    if ranks % ranks_each:
        raise ValueError(
            f"dp=0 shares {ranks} ranks out to replicas of tp x pp = {ranks_each}, which does not go evenly: "
            f"start a multiple of {ranks_each}."
        )
    return ranks // ranks_each


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
            train,
            config,
            ranks=ranks,
            timeout_s=config.timeout_s,
            wait_s=config.wait_s,
            threads=config.threads,
        )
    except dist.RankError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("stopped: all ranks have ended.")
    if config.record and int(os.environ.get("RANK", 0)) == 0:
        path = record(config, results).save(config.record)
        print(f"written: {path}")
    dist.leave()


def train(config: Config) -> dict:
    """Run the training on this rank and return what it measured."""
    import numpy as np
    import torch

    from bigmodel_lab.dist.checkpoint import ShardedCheckpoints
    from bigmodel_lab.dist.composed import Composed
    from bigmodel_lab.dist.trace import Recorder
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
    wire = Recorder() if config.trace else Wire()
    device = torch.device(config.device)
    if config.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    gpt = GPT(form, config.ops, seed=config.seed).to(device, getattr(torch, config.dtype))
    model = Composed(
        gpt,
        config.layout,
        lambda groups: AdamW(groups, lr=config.lr, betas=(0.9, 0.95), ops=config.ops),
        weight_decay=config.weight_decay,
        clip=config.clip,
        micros=config.micros or config.pp,
        schedule=config.schedule,
        sequence=bool(config.sequence),
        wire=wire,
        wait_s=config.wait_s,
    )
    first = torch.distributed.get_rank() == 0
    if first:
        print(
            f"{form.n_parameters:,} parameters, {config.layout.ranks} ranks (dp {config.dp} x tp {config.tp} x pp {config.pp}, "
            f"ZeRO {config.zero}), {len(tokens):,} tokens of {config.data}",
            flush=True,
        )
    measured = {"loss": [], "compute_s": [], "communication_s": [], "parameters": form.n_parameters}
    checkpoints = ShardedCheckpoints(config.checkpoint, gpt, model) if config.checkpoint else None
    del gpt
    begin, sent = go_on(checkpoints, config, batches, measured)
    wire.sent_bytes.clear()  # what the start sent is no part of the steps
    wire.sent_bytes.update(sent)
    if first and begin:
        print(f"going on after step {begin} of {config.steps}", flush=True)
    last_said = time.monotonic()
    for step in range(begin, config.steps):
        lr = warmup_cosine(
            step, lr=config.lr, steps=config.steps, warmup=min(config.warmup, config.steps)
        )
        for group in model.optimizer.param_groups:
            group["lr"] = lr
        x, y = next(batches)
        if config.trace:
            wire.clear()  # only the last step stays
        waited, start = wire.waited_s, time.perf_counter()
        measured["loss"].append(model.step(x.to(device), y.to(device)))
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
        done = step + 1 == config.steps
        if checkpoints and (done or (config.every and (step + 1) % config.every == 0)):
            save(checkpoints, step + 1, config, batches, measured, wire)
    if config.trace and (seen := wire.gather()):
        draw(seen, config.trace)
    return measured | {
        "sent_bytes": dict(wire.sent_bytes),
        "memory_bytes": model.memory_bytes(),
    }


def draw(trace, path: str) -> None:
    """Draw the timeline of the ranks into a file."""
    from matplotlib.figure import Figure

    from bigmodel_lab import show

    figure = Figure(figsize=(9, 1 + 0.5 * len(trace.lanes)), layout="constrained")
    show.timeline(trace, figure.add_subplot())
    figure.savefig(path, dpi=150)
    print(f"written: {path}", flush=True)


def save(checkpoints, step: int, config: Config, batches, measured: dict, wire) -> None:
    """Write a checkpoint; times are those of rank 0, bytes those of each."""
    from torch import distributed

    everywhere: list = [None] * config.layout.ranks
    distributed.all_gather_object(everywhere, (dict(wire.sent_bytes), measured))
    state = {
        "config": config.fixed,
        "batches": batches.state_dict(),
        "measured": everywhere[0][1],
        "sent_bytes": [sent for sent, _ in everywhere],
    }
    checkpoints.save(step, state)


def go_on(checkpoints, config: Config, batches, measured: dict) -> tuple[int, dict]:
    """Load the newest checkpoint, if there is one; return the steps done and the bytes that this rank has sent in them.

    In another number of ranks than before, the bytes are counted from here on.
    """
    from torch import distributed

    if checkpoints is None or (found := checkpoints.load()) is None:
        return 0, {}
    step, state = found
    then, now = state["config"], config.fixed
    if changed := [f"{k} was {then.get(k)} and is {x}" for k, x in now.items() if then.get(k) != x]:
        raise ValueError(
            f"the checkpoints in {config.checkpoint} are of a run with other settings ({', '.join(changed)}): "
            "give those, or another folder."
        )
    batches.load_state_dict(state["batches"])
    measured.update(state["measured"])
    by_rank = state["sent_bytes"]
    same = len(by_rank) == config.layout.ranks
    return step, by_rank[distributed.get_rank()] if same else {}


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
