"""The loss on data that the model is not trained on."""

import math
from collections.abc import Callable, Iterable

import torch

__all__ = ["batch_loss", "evaluate"]


def batch_loss(model: torch.nn.Module, *batch: torch.Tensor) -> torch.Tensor:
    """Return `model.loss(*batch)`, or without such a method `model(*batch)`, which must be the mean loss: a scalar.

    What `fit` and `evaluate` take unless told otherwise. `MLP` has the method; `GPT`, alone or inside torch's
    DistributedDataParallel, gives the loss when it is called with tokens and targets.
    """
    value = model.loss(*batch) if hasattr(model, "loss") else model(*batch)
    if not isinstance(value, torch.Tensor) or value.ndim:
        got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise TypeError(
            f"{type(model).__name__} gave {got} for a batch and no scalar: pass loss=..., called as loss(model, *batch)."
        )
    return value


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    batches: Iterable[tuple[torch.Tensor, ...]],
    loss: Callable[..., torch.Tensor] = batch_loss,
) -> float:
    """Return the mean loss over all targets in `batches`, with dropout off and no gradients; NaN if there are none.

    Parameters
    ----------
    model : left in the modes, training or evaluation, that its modules were in
    batches : finite; tuples of tensors whose last is the targets, such as from `windows`
    loss : called as loss(model, *batch), gives the mean over the batch's targets, in nats for cross-entropy

    A batch counts by its number of targets, so the result does not depend on how the data are cut into batches.
    """
    training = [m for m in model.modules() if m.training]
    device = next(model.parameters()).device
    total, count = 0.0, 0  # Python floats are float64
    model.eval()
    try:
        for batch in batches:
            n = batch[-1].numel()
            total += n * loss(model, *(t.to(device) for t in batch)).item()
            count += n
    finally:
        for m in training:
            m.training = True
    return total / count if count else math.nan
