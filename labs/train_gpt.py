"""Train a GPT on one process or many: data x tensor x pipeline parallel, with ZeRO, the same losses whatever the layout.

    python labs/train_gpt.py --steps 200 --dp 2 --record run.json
    python labs/train_gpt.py --steps 3 --layers 2 --width 32 --heads 2 --context 16 --batch 4        # some seconds

Alone, it starts dp x tp x pp processes on this machine. Under torchrun it runs in the ranks that are there:

    torchrun --nproc-per-node 4 labs/train_gpt.py --dp 2 --tp 2 --record run.json
    torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d --rdzv-endpoint HOST:29500 labs/train_gpt.py --dp 2 --pp 2

labs/clusters has the files that do the same under Slurm and on Kubernetes.

The batch of a step depends on the seed and the step only, so the losses of two layouts can be compared line by line. With
--checkpoint FOLDER a run that ended early goes on from its last checkpoint when the same command is given again, in any other
layout, too: let torchrun restart it (--max-restarts 3, with TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1), and give --dp 0 for as many
replicas as there are ranks, so that it goes on with those that are left. One run at a time in a folder.
"""

import argparse
import dataclasses
import functools
import math
import os
import sys
import time
from pathlib import Path

from bigmodel_lab import data, dist, rng
from bigmodel_lab.dist.possible import require_possible
from bigmodel_lab.files import require_writable
from bigmodel_lab.models import GPTConfig
from bigmodel_lab.shell import add_options, option
from bigmodel_lab.train import Layout, RunRecord
from bigmodel_lab.train.record import STEPS_ELSEWHERE
from bigmodel_lab.units import number


@dataclasses.dataclass(frozen=True)
class Config:
    """What is trained, on what, and over which ranks."""

    steps: int = option(100, "optimiser steps", low=1)
    seed: int = option(0, "of the weights and of the batches", low=0)
    dp: int = option(
        1, "data-parallel replicas; 0: as many as the ranks that torchrun started allow", low=0
    )
    tp: int = option(1, "ranks that share each matrix", low=1)
    pp: int = option(1, "pipeline stages", low=1)
    zero: int = option(0, "ZeRO stage between the replicas", choices=(0, 1, 2, 3))
    micros: int = option(0, "micro-batches a step; 0: as many as pipeline stages", low=0)
    schedule: str = option("1f1b", "of the pipeline", choices=("gpipe", "1f1b"))
    sequence: bool = option(
        False, "with --tp, also cut what is between the matrices along the positions"
    )
    form: str = option("llama", "of the GPT", choices=("gpt2", "llama"))
    layers: int = option(4, "blocks", low=1)
    width: int = option(64, "channels", low=1)
    heads: int = option(4, "of attention", low=1)
    context: int = option(64, "tokens a row", low=1)
    vocab: int = option(512, "tokens that the tokenizer is trained to", low=256)
    data: str = option("moby-dick", "the text", choices=("moby-dick", "tang-poems"))
    batch: int = option(16, "rows a step, over all replicas", low=1)
    lr: float = option(1e-3, "highest learning rate", low=0)
    warmup: int = option(10, "steps over which it rises, but no more than --steps", low=0)
    weight_decay: float = option(0.1, "of matrices", low=0)
    clip: float = option(1.0, "largest norm of the gradient", above=0)
    dtype: str = option("float32", "of the parameters", choices=("float32", "float64"))
    ops: str = option("torch", "kernels", choices=("torch", "numba"))
    device: str = option(
        "cpu",
        "cuda: a GPU a rank, NCCL between them; the record then counts waiting as computing",
        choices=("cpu", "cuda"),
    )
    threads: int = option(1, "a rank", low=1, high=64)
    timeout_s: float = option(86400.0, "seconds after which all ranks are stopped", above=0)
    wait_s: float = option(
        300.0, "longest wait for another rank, in seconds: after it, the rank fails", low=0.1
    )
    checkpoint: str = option("", "folder for checkpoints, which all ranks see; none if not given")
    every: int = option(0, "steps between two checkpoints; 0: one at the end", low=0)
    record: str = option("", "file for the RunRecord; none if not given")
    trace: str = option(
        "", "picture (.png, .svg) of who did what when in the last step; one machine"
    )

    def __post_init__(self):
        for f in dataclasses.fields(self):
            if limits := f.metadata["limits"]:
                number(f"--{f.name.replace('_', '-')}", getattr(self, f.name), **limits)
        started = int(os.environ.get("WORLD_SIZE", 0))  # 0: not under torchrun
        if self.dp == 0:
            object.__setattr__(self, "dp", max(1, started // (self.tp * self.pp)))
        if started not in (0, self.layout.ranks):
            raise ValueError(
                f"--dp {self.dp} x --tp {self.tp} x --pp {self.pp} makes {self.layout.ranks} ranks, and torchrun started "
                f"{started}: make them agree, or give --dp 0 and start a multiple of tp x pp."
            )
        if not started and self.layout.ranks > 64:
            raise ValueError(
                f"{self.layout.ranks} ranks are more than the 64 that one machine is asked to start: use torchrun."
            )
        require_possible(
            self.model(self.vocab),
            self.layout,
            sequence=self.sequence,
            positions=self.context,
        )
        least = self.dp * (self.micros or self.pp)
        if self.batch < least:
            raise ValueError(
                f"--batch {self.batch} leaves a replica fewer rows than its micro-batches: use --batch {least} or more."
            )
        if self.trace and Path(self.trace).suffix not in (".png", ".svg"):
            raise ValueError(f"--trace {self.trace} must end in .png or .svg.")
        if self.trace and int(os.environ.get("LOCAL_WORLD_SIZE", started)) != started:
            raise ValueError(
                "--trace puts all ranks on one clock, and these are on several machines: leave it out."
            )
        if int(os.environ.get("RANK", 0)) == 0:  # who writes them
            for name in ("record", "trace", "checkpoint"):
                if path := getattr(self, name):
                    require_writable(f"--{name}", path, folder=name == "checkpoint")
        if self.device == "cuda":
            self._require_gpus()

    def _require_gpus(self) -> None:
        import torch

        here = int(os.environ.get("LOCAL_WORLD_SIZE", self.layout.ranks))
        if (gpus := torch.cuda.device_count()) < here:
            raise ValueError(
                f"--device cuda needs a GPU for each of the {here} ranks on this machine, and torch {torch.__version__} sees "
                f"{gpus}: start fewer ranks, or use --device cpu."
            )
        if self.ops == "numba":
            raise ValueError("--ops numba computes on the CPU: with --device cuda use --ops torch.")

    @property
    def layout(self) -> Layout:
        return Layout(self.dp, self.tp, self.pp, self.zero)

    @property
    def fixed(self) -> dict:
        """The settings that decide the losses: a run that goes on must have begun with the same."""
        free = "dp tp pp zero micros schedule sequence ops device threads timeout_s wait_s checkpoint every record trace"
        return {k: x for k, x in dataclasses.asdict(self).items() if k not in free.split()}

    def model(self, vocab_size: int) -> GPTConfig:
        form = getattr(GPTConfig, self.form)
        return form(vocab_size, self.context, self.layers, self.width, self.heads)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and under torchrun once a machine."""

    def error(self, message: str):
        if int(os.environ.get("LOCAL_RANK", 0)):
            time.sleep(10)  # torchrun ends this process when rank 0 has spoken
        self.exit(2, f"{self.prog}: {message} (--help lists the options)\n")


class Stop(Exception):
    """What makes all ranks stop alike, in words for the person who started them."""


def main(arguments: list[str] | None = None) -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, Config)
    try:
        config = Config(**vars(parser.parse_args(arguments)))
    except (ValueError, TypeError) as error:
        parser.error(str(error))
    first = int(os.environ.get("RANK", 0)) == 0
    try:
        results = dist.run(
            train,
            config,
            ranks=config.layout.ranks,
            timeout_s=config.timeout_s,
            wait_s=config.wait_s,
            threads=config.threads,
        )
    except dist.RankError as error:
        sys.exit(f"{error.report}\n{error}".strip())
    except KeyboardInterrupt:
        sys.exit("stopped by Ctrl-C." * first or 1)
    if results[0] is None:
        sys.exit(1)
    if config.record and first:
        try:
            print(f"written: {record(config, results).save(config.record)}", flush=True)
        except OSError as error:
            sys.exit(f"--record {config.record} was not written: {error}.")
    dist.leave()


def train(config: Config) -> dict | None:
    """Run the training on this rank and return what it measured, or None if all ranks had to stop; rank 0 has said why."""
    from torch import distributed

    first = distributed.get_rank() == 0
    try:
        return steps(config, functools.partial(print, flush=True) if first else lambda text: None)
    except Stop as why:
        if first:
            print(f"stopped: {why}", file=sys.stderr, flush=True)
        return None


def steps(config: Config, say) -> dict:
    """Build this rank's part of the run, go on where it was, and take the steps that are left."""
    import numpy as np
    import torch

    from bigmodel_lab.dist.checkpoint import ShardedCheckpoints
    from bigmodel_lab.dist.composed import Composed
    from bigmodel_lab.dist.trace import Recorder
    from bigmodel_lab.dist.wire import Wire
    from bigmodel_lab.models import GPT
    from bigmodel_lab.text import BPE
    from bigmodel_lab.train import AdamW, Batches, warmup_cosine
    from bigmodel_lab.train.progress import Pace

    text = data.load(config.data).text
    tokenizer = BPE.train(text, config.vocab)
    tokens = np.asarray(tokenizer.encode(text))
    batches = Batches(tokens, config.batch, config.context, rng.generator(config.seed, "batches"))
    device = torch.device(config.device)
    if config.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    wire = Recorder() if config.trace else Wire()
    gpt = GPT(config.model(tokenizer.vocab_size), config.ops, seed=config.seed)
    gpt = gpt.to(device, getattr(torch, config.dtype))
    model = Composed(
        gpt,
        config.layout,
        lambda groups: AdamW(groups, lr=config.lr, betas=(0.9, 0.95), ops=config.ops),
        weight_decay=config.weight_decay,
        clip=config.clip,
        micros=config.micros or config.pp,
        schedule=config.schedule,
        sequence=config.sequence,
        wire=wire,
    )
    parameters, ranks = gpt.config.n_parameters, config.layout.ranks
    say(
        f"{parameters:,} parameters, {ranks} rank{'s' * (ranks > 1)} (dp {config.dp} x tp {config.tp} x pp {config.pp}, "
        f"ZeRO {config.zero}), {len(tokens):,} tokens of {config.data}"
    )
    measured = {"loss": [], "compute_s": [], "communication_s": [], "elsewhere": 0}
    checkpoints = ShardedCheckpoints(config.checkpoint, gpt, model) if config.checkpoint else None
    del gpt
    sent = go_on(checkpoints, config, batches, measured) if checkpoints else {}
    wire.sent_bytes.clear()  # what the start sent is no part of the steps
    wire.sent_bytes.update(sent)
    if begin := len(measured["loss"]):
        other = ", in another layout than before" * (measured["elsewhere"] == begin)
        say(f"going on after step {begin} of {config.steps}{other}")
    last_said, pace = time.monotonic(), Pace()
    for step in range(begin, config.steps):
        warmup = min(config.warmup, config.steps)
        lr = warmup_cosine(step, lr=config.lr, steps=config.steps, warmup=warmup)
        for group in model.optimizer.param_groups:
            group["lr"] = lr
        x, y = next(batches)
        if config.trace:
            wire.clear()  # only the last step stays
        waited, start = wire.waited_s, time.perf_counter()
        loss = model.step(x.to(device), y.to(device))
        waited = wire.waited_s - waited
        if not math.isfinite(loss + model.gradient_norm):
            raise Stop(
                f"the loss of step {step + 1} is {loss:g}, the norm of its gradient {model.gradient_norm:g}. Usual causes: "
                "--lr too high, or too few steps of --warmup. Checkpoints are of steps before."
            )
        measured["loss"].append(loss)
        measured["communication_s"].append(waited)
        measured["compute_s"].append(max(0.0, time.perf_counter() - start - waited))
        rate, step_s = pace.add(config.batch * config.context)
        done = step + 1 == config.steps
        if step == 0 or done or time.monotonic() - last_said > 2:
            last_said = time.monotonic()
            say(
                f"step {step + 1}/{config.steps}  loss {loss:.4f}  {rate:,.0f} tokens/s  "
                f"{step_s * (config.steps - step - 1):,.0f} s left"
            )
        if checkpoints and (done or (config.every and (step + 1) % config.every == 0)):
            save(checkpoints, config, batches, measured, wire)
    if config.trace and begin < config.steps and (seen := wire.gather()):
        draw(seen, config.trace)
    return measured | {
        "parameters": parameters,
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


def save(checkpoints, config: Config, batches, measured: dict, wire) -> None:
    """Write a checkpoint; what was measured is that of rank 0, which writes it, but for the bytes, which are everyone's."""
    from torch import distributed

    sent_bytes: list = [None] * config.layout.ranks
    distributed.all_gather_object(sent_bytes, dict(wire.sent_bytes))
    state = {
        "config": config.fixed,
        "layout": dataclasses.asdict(config.layout),
        "batches": batches.state_dict(),
        "measured": measured,
        "sent_bytes": sent_bytes,
    }
    try:
        checkpoints.save(len(measured["loss"]), state)
    except OSError as error:  # the same one on all ranks
        raise Stop(" ".join([str(error), *error.__notes__])) from error


def go_on(checkpoints, config: Config, batches, measured: dict) -> dict[str, int]:
    """Load the newest checkpoint, if there is one, and return what this rank had sent by then, by collective.

    In another layout bytes are counted from here on: measured["elsewhere"] says how many steps were taken before.
    """
    from torch import distributed

    try:
        found = checkpoints.load()
    except ValueError as error:  # the same one on all ranks
        raise Stop(f"{error} Another folder begins anew.") from error
    if found is None:
        return {}
    _, state = found
    then, now = state["config"], config.fixed
    if changed := [f"{k} was {then.get(k)} and is {x}" for k, x in now.items() if then.get(k) != x]:
        raise Stop(
            f"the checkpoints in {config.checkpoint} are of a run with other settings ({', '.join(changed)}): give those, or "
            "another folder."
        )
    batches.load_state_dict(state["batches"])
    measured.update(state["measured"])
    if state["layout"] == dataclasses.asdict(config.layout):
        return state["sent_bytes"][distributed.get_rank()]
    measured["elsewhere"] = len(measured["loss"])
    return {}


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
        scores={STEPS_ELSEWHERE: root["elsewhere"]} if root["elsewhere"] else {},
    )


if __name__ == "__main__":
    main()
