"""ZeRO by hand: data parallelism in which no rank keeps what another one keeps already.

Training with AdamW keeps four numbers a parameter: itself, its gradient, and two means. Data parallelism keeps all four on
every rank. Each stage shares one more of them out, so that a rank keeps 1/W of it (P parameters, W ranks, in numbers):

    stage    parameters   gradients   means      a step sends, per rank
      0        P            P           2 P       all-reduce of gradients                         2 P (W-1)/W
      1        P            P           2 P/W     reduce-scatter gradients, all-gather parameters 2 P (W-1)/W
      2        P            P/W         2 P/W     the same, unit by unit while going backward     2 P (W-1)/W
      3        P/W          P/W         2 P/W     parameters gathered going forward and backward  3 P (W-1)/W

A unit is what is gathered or reduced at one time, a block of the model; while one is worked on, stages 2 and 3 hold
that unit's gradients, and stage 3 its parameters, whole. The unit of what is in no block stays whole from its forward
to its backward pass, and is gathered once.

Source: Rajbhandari et al. (2020), arXiv:1910.02054, sections 5 and 7; Zhao et al. (2023), arXiv:2304.11277, for units. Derived
in lab L03. torch's own: `torch.distributed.optim.ZeroRedundancyOptimizer`, `torch.distributed.fsdp.fully_shard`.
"""

from collections.abc import Callable, Iterable

import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab.dist.collectives import all_reduce
from bigmodel_lab.dist.data_parallel import DataParallel
from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.dist.zero_stage3 import GatheredUnit
from bigmodel_lab.dist.zero_unit import Unit
from bigmodel_lab.errors import require_choice, require_in_range

__all__ = ["Zero"]


class Zero:
    """Trains replicas of `model` with the training state shared out over the ranks of a group.

        zero = Zero(model, lambda groups: AdamW(groups, lr=1e-3), stage=2)
        zero.backward(model(x[mine], y[mine]), weight)      # mean over this rank's rows; its share of the batch
        zero.clip(1.0)
        zero.step()                                         # then all ranks go on with the same parameters

    Parameters
    ----------
    model : the same architecture on every rank; rank 0's parameters and buffers are taken. Changed in place: its
        trainable parameters become views of flat tensors, and with stage 3 have no memory but while they are needed
    optimizer : called once with parameter groups (slices of parameters, matrices with `weight_decay`, vectors with 0),
        gives the optimiser
    stage : 1, 2 or 3
    group : process group; None for all ranks
    units : modules whose parameters go together; `model.blocks` if it has them, else its children
    wire : counts the payload
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Callable[[list[dict]], torch.optim.Optimizer],
        *,
        stage: int,
        weight_decay: float = 0.0,
        group=None,
        units: Iterable[nn.Module] | None = None,
        wire: Wire | None = None,
    ):
        self.stage = require_choice("stage", stage, (1, 2, 3))
        self.model, self.group, self.wire = model, group, wire
        DataParallel(model, group, bucket="tensor", wire=wire)  # the same start everywhere
        modules = list(getattr(model, "blocks", model.children()) if units is None else units)
        unit, self.units, seen = (GatheredUnit if stage == 3 else Unit), [], set()
        for module in [*modules, model]:
            params = [p for p in module.parameters() if p.requires_grad and p not in seen]
            seen.update(params)
            if params:
                self.units.append(unit(module, params, group, wire))
        self._backward_order = [u for u in self.units[::-1] if u.module is not model]
        self._backward_order += [u for u in self.units if u.module is model]
        pieces = [(p, piece) for u in self.units for p, piece in u.pieces]
        groups = [
            {"params": [s for p, s in pieces if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [s for p, s in pieces if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = optimizer(groups)
        self._reduced = 0  # how many of _backward_order have been reduced in this backward pass
        self._rounds = 0  # backward passes in which all of them have been
        for u in self.units:
            if stage >= 2:
                u.call_when_complete(self._unit_complete)
            if stage == 3:
                u.gather_when_needed(is_root=u.module is model)

    def backward(self, loss: torch.Tensor, weight: float | None = None) -> None:
        """Go backward from the mean loss over this rank's rows.

        weight : these rows' share of the global batch; the weights of all ranks add up to 1. None: equal shares. A rank
            without rows passes the loss of any one row and weight 0: with stages 2 and 3 all ranks must take part

        Several calls before a `step` accumulate, their weights adding up to 1 over all of them. A parameter that got no
        gradient counts as one whose gradient is zero.
        """
        weight = 1 / dist.get_world_size(self.group) if weight is None else weight
        require_in_range("weight", weight, 0, 1)
        rounds = self._rounds
        (loss * weight).backward()
        if self.stage >= 2 and self._rounds == rounds:
            # A parameter got no gradient here, and its unit and all behind it wait. Other ranks have reduced them.
            for u in self._backward_order[self._reduced :]:
                u.reduce()
            self._reduced = 0

    def clip(self, max_norm: float) -> float:
        """Scale the gradient so that its norm over all parameters of the model is at most `max_norm`; return the norm."""
        square = all_reduce(self.square_here(), self.group, wire=self.wire)
        norm = square.sqrt().item()
        if norm > max_norm:
            self.scale(max_norm / (norm + 1e-6))  # as train.clip_gradients
        return norm

    def square_here(self, counts: Callable[[nn.Parameter], bool] = lambda p: True) -> torch.Tensor:
        """The sum of squares (1,), float64, of the gradients that this rank keeps, of the parameters that count."""
        self._reduce_rest()
        parts = [
            u.gradient[span].double().square().sum()
            for u in self.units
            for (p, _), span in zip(u.pieces, u.spans, strict=True)
            if counts(p)
        ]
        device = next(self.model.parameters()).device
        zero_here = torch.zeros((), dtype=torch.float64, device=device)
        return torch.stack([zero_here, *parts]).sum().reshape(1)

    def scale(self, factor: float) -> None:
        """Multiply the whole gradient; every rank calls it with the same factor."""
        self._reduce_rest()
        for u in self.units:
            u.gradient.mul_(factor)

    def step(self) -> None:
        """Let the optimiser change this rank's share of the parameters, and tell the other ranks (stage 3: when asked)."""
        self._reduce_rest()
        for u in self.units:
            u.hand_out_gradient()
        self.optimizer.step()
        for u in self.units:
            u.drop_gradient()
            u.exchange()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The model's state, whole, as copies. A collective: every rank calls it."""
        for u in self.units:
            u.gather()
        state = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        for u in self.units:
            u.release()
        return state

    def memory_bytes(self) -> dict[str, int]:
        """Bytes that this rank holds now: parameters, gradients, and what the optimiser keeps."""
        params, grads = [], []
        for u in self.units:
            params += [u.flat, u.shard]
            grads += [u.gradient, *(p.grad for p in u.params)]
        kept = [t for s in self.optimizer.state.values() for t in s.values() if t.ndim]
        return {
            name: _storage_bytes(tensors)
            for name, tensors in (("parameters", params), ("gradients", grads), ("optimizer", kept))
        }

    def _unit_complete(self) -> None:
        """Reduce the units whose gradients are there, in the one order that all ranks follow."""
        order = self._backward_order
        while self._reduced < len(order) and order[self._reduced].missing == 0:
            order[self._reduced].reduce()
            self._reduced += 1
        if self._reduced == len(order):
            self._reduced = 0
            self._rounds += 1

    def _reduce_rest(self) -> None:
        for u in self._backward_order:
            if u.gradient is None or any(p.grad is not None for p in u.params):
                u.reduce()
        self._reduced = 0


def _storage_bytes(tensors) -> int:
    """Bytes of the storages behind the tensors, each counted once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors if t is not None}
    return sum(s.nbytes() for s in storages.values())
