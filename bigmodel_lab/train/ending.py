"""How a run that did not reach its last step ended, in words."""

import math

from bigmodel_lab.train.record import RunRecord

__all__ = ["TrainingDiverged", "diverged", "say_why"]


class TrainingDiverged(ArithmeticError):
    """The loss or the gradient is no finite number; `record` is the `RunRecord` of the steps before."""

    record: RunRecord


def diverged(loss: float, norm: float, lr: float, run, record: RunRecord) -> TrainingDiverged:
    """Return the error for a step whose loss or gradient norm is no finite number, and that was not taken."""
    taken = run.history.steps
    what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient's norm is {norm}"
    saved = f" The last checkpoint is {run.saved}." if run.saved else ""
    error = TrainingDiverged(
        f"The {what} at step {taken + 1} of {run.config.steps} (learning rate {lr:g}). That step was not taken: the "
        f"parameters are those after step {taken}.{saved} Usual causes: a learning rate that is too high or has no "
        f"warm-up, no clipping (clip={run.config.clip:g}), or NaN in the data."
    )
    error.record = record
    return error


def say_why(run, stopped: bool) -> None:
    """Print why the run ended before its last step, if it did, and where it can go on."""
    done, config = run.history.steps, run.config
    if done == config.steps:
        return
    if stopped:
        where = (
            f"saved as {run.saved}; resume=True goes on from there" if run.saved else "not saved"
        )
        print(f"Stopped by Ctrl-C after step {done} of {config.steps}, {where}.")
    else:
        step, loss = run.history.best or (0, math.nan)
        print(
            f"Stopped early after step {done} of {config.steps}: no evaluation was better than that of step {step} "
            f"({loss:.4g} nats) in {config.patience} evaluations."
        )
