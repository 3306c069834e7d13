"""The training loop: draw a batch, compute the gradient, take a step; now and then evaluate and save.

    model = MLP([64, 32, 10])
    batches = Samples(x, y, batch=32, generator=rng.generator(0, "batches"))
    record = fit(model, batches, TrainConfig(steps=200, batch=32), folder="runs/digits")

Told in chapter 6. One process; lab L02 takes the same steps on several.
"""

import functools
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import torch

from bigmodel_lab.train.config import TrainConfig
from bigmodel_lab.train.ending import diverged, say_why
from bigmodel_lab.train.evaluation import batch_loss, evaluate
from bigmodel_lab.train.history import is_text
from bigmodel_lab.train.interrupt import StopOnCtrlC
from bigmodel_lab.train.optim import AdamW, clip_gradients, decay_groups
from bigmodel_lab.train.progress import Pace, Status, TextProgress
from bigmodel_lab.train.random_state import private_randomness
from bigmodel_lab.train.record import RunRecord
from bigmodel_lab.train.resume import Run
from bigmodel_lab.train.schedule import warmup_cosine

__all__ = ["fit", "gradients"]


def fit(
    model: torch.nn.Module,
    batches: Iterator[tuple[torch.Tensor, ...]],
    config: TrainConfig,
    *,
    validation: Iterable[tuple[torch.Tensor, ...]] | None = None,
    loss: Callable[..., torch.Tensor] = batch_loss,
    optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[[int], float] | None = None,
    folder: str | os.PathLike | None = None,
    resume: bool = False,
    progress: Callable[[Status], object] | None = None,
    name: str | None = None,
    data: str = "not named",
) -> RunRecord:
    """Train `model`, in place, for `config.steps` steps, and return what was measured.

    Parameters
    ----------
    model : trained on the device that it is on; left in training mode
    batches : gives tuples of tensors of `config.batch` rows, such as `Batches` or `Samples`
    validation : batches to evaluate on, such as from `windows`, at the end and every `config.eval_every` steps
    loss : called as loss(model, *batch), gives the mean over the rows; if not given, `model.loss(*batch)` or
        `model(*batch)`, as `evaluation.batch_loss` says
    optimizer : called as optimizer(groups, lr=config.lr) with `decay_groups`; if not given, `AdamW` with betas
        (0.9, 0.95) on the kernels that `model.ops` names
    schedule : called with the step, counted from 0, gives its learning rate; if not given, `warmup_cosine` over
        `config.lr`, `config.warmup` and `config.floor`
    folder : where checkpoints go: every `config.checkpoint_every` steps, at the end, and with `config.patience` at each
        new best evaluation. `load_checkpoint(folder, "best")` reads the last one made right after a new best evaluation
    resume : go on from the folder's latest checkpoint, if there is one. On the same machine and versions the run ends
        with the same bits as one that was never stopped
    progress : called with a `Status` after every step, and its `close()`, if it has one, at the end; if not given, a line
        of text on stderr
    name, data : what the record calls model and data

    The first Ctrl-C stops the run when the step is complete, saves, and returns the record of what was done.
    torch's own generators are seeded with `config.seed` and put back as they were when `fit` returns.

    Raises TrainingDiverged before a step that a loss or gradient that is NaN or infinite would spoil: parameters and
    checkpoints are still those of the steps before. Raises ValueError if the batches are not of `config.batch` rows, run
    out, or settings do not fit each other; OSError if a checkpoint cannot be written.
    """
    if config.eval_every is not None and validation is None:
        raise ValueError(
            f"eval_every={config.eval_every} needs something to evaluate on: pass validation=..."
        )
    kernels = getattr(model, "ops", "torch")
    make = optimizer or functools.partial(AdamW, betas=(0.9, 0.95), ops=kernels)
    opt = make(decay_groups(model, config.weight_decay), lr=config.lr)
    schedule = schedule or functools.partial(
        warmup_cosine, lr=config.lr, steps=config.steps, warmup=config.warmup, floor=config.floor
    )
    run, draws = Run(model, opt, batches, config, folder), iter(batches)
    history, device = run.history, next(model.parameters()).device
    measured = functools.partial(
        history.record,
        model,
        opt,
        name=name,
        data=data,
        seed=config.seed,
    )
    report, stopped = progress or TextProgress(), False
    with ExitStack() as stack:
        stop = stack.enter_context(StopOnCtrlC())
        stack.enter_context(private_randomness(model))
        stack.callback(getattr(report, "close", lambda: None))
        torch.manual_seed(config.seed)
        run.start(resume)
        model.train()
        pace = Pace()
        while history.steps < config.steps and not _stale(history, config) and not stopped:
            step, start = history.steps, time.perf_counter()
            batch = tuple(t.to(device) for t in _draw(draws, step, config))
            lr = schedule(step)
            for group in opt.param_groups:
                group["lr"] = lr
            opt.zero_grad()
            value = gradients(model, batch, config.accumulate, loss)
            norm = clip_gradients(model.parameters(), config.clip)
            if not (math.isfinite(value) and math.isfinite(norm)):
                raise diverged(value, norm, lr, run, measured())
            opt.step()
            history.add(value, time.perf_counter() - start, batch)

            last = history.steps == config.steps
            new_best = False
            if validation is not None and (last or _due(history.steps, config.eval_every)):
                history.evaluations.append((history.steps, evaluate(model, validation, loss)))
                new_best = history.since_best == 0
            stopped = stop.asked
            ends = last or stopped or _stale(history, config)
            keep_best = new_best and config.patience is not None
            if run.folder and (ends or keep_best or _due(history.steps, config.checkpoint_every)):
                run.save(best=new_best)
            report(_status(history, config, lr, norm, pace, batch))
    say_why(run, stopped)
    return measured()


def gradients(
    model: torch.nn.Module,
    batch: tuple[torch.Tensor, ...],
    parts: int = 1,
    loss: Callable[..., torch.Tensor] = batch_loss,
) -> float:
    """Add the gradient of the mean loss over `batch` to the parameters' gradients, and return that loss.

    The batch is worked through in `parts` parts of nearly equal size, each weighted by its share of the rows, so that
    only one part's activations are in memory at a time. The sum of the parts' gradients is that of the whole batch, to
    rounding; batch normalisation, which looks at a part's statistics, is the exception.
    """
    rows, total = len(batch[0]), 0.0
    for part in zip(*(t.tensor_split(parts) for t in batch), strict=True):
        value = loss(model, *part) * (len(part[0]) / rows)
        value.backward()
        total += value.item()
    return total


def _draw(draws, step: int, config: TrainConfig) -> tuple[torch.Tensor, ...]:
    batch = next(draws, None)
    if batch is None:
        raise ValueError(f"batches ran out after {step} of {config.steps} steps: give more.")
    if len(batch[0]) != config.batch:
        raise ValueError(
            f"batches gave {len(batch[0])} rows and config.batch is {config.batch}: make them agree."
        )
    return batch


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _stale(history, config: TrainConfig) -> bool:
    return config.patience is not None and history.since_best >= config.patience


def _status(history, config: TrainConfig, lr: float, norm: float, pace: Pace, batch) -> Status:
    text = is_text(batch)
    rate, step_s = pace.add(batch[0].numel() if text else len(batch[0]))
    return Status(
        step=history.steps,
        steps=config.steps,
        loss=history.loss[-1],
        validation_loss=history.evaluations[-1][1] if history.evaluations else None,
        lr=lr,
        gradient_norm=norm,
        rate=rate,
        unit="tokens" if text else "samples",
        left_s=step_s * (config.steps - history.steps),
    )
