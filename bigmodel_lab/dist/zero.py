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

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab.dist.collectives import (
    all_gather,
    all_reduce,
    broadcast,
    chunk_sizes,
    reduce_scatter,
)
from bigmodel_lab.dist.wire import Wire
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
    model : the same architecture on every rank; rank 0's parameters are taken. Changed in place: its trainable
        parameters become views of flat tensors, and with stage 3 have no memory but while they are needed
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
        modules = list(getattr(model, "blocks", model.children()) if units is None else units)
        self.units, seen = [], set()
        for module in [*modules, model]:
            params = [p for p in module.parameters() if p.requires_grad and p not in seen]
            seen.update(params)
            if params:
                self.units.append(_Unit(module, params, self))
        self._backward_order = [u for u in self.units[::-1] if u.module is not model]
        self._backward_order += [u for u in self.units if u.module is model]
        pieces = [(p, piece) for u in self.units for p, piece in u.pieces]
        groups = [
            {"params": [s for p, s in pieces if p.ndim >= 2], "weight_decay": weight_decay},
            {"params": [s for p, s in pieces if p.ndim < 2], "weight_decay": 0.0},
        ]
        self.optimizer = optimizer(groups)
        self._reduced = 0  # how many of _backward_order have been reduced in this backward pass
        if stage >= 2:
            for u in self.units:
                u.reduce_when_complete()
        if stage == 3:
            for u in self.units:
                u.gather_when_needed()

    def backward(self, loss: torch.Tensor, weight: float | None = None) -> None:
        """Go backward from the mean loss over this rank's rows.

        weight : these rows' share of the global batch; the weights of all ranks add up to 1. None: equal shares. A rank
            without rows passes the loss of any one row and weight 0: with stages 2 and 3 all ranks must take part

        Several calls before a `step` accumulate, their weights adding up to 1 over all of them.
        """
        weight = 1 / dist.get_world_size(self.group) if weight is None else weight
        require_in_range("weight", weight, 0, 1)
        (loss * weight).backward()

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
        return torch.stack([torch.zeros((), dtype=torch.float64), *parts]).sum().reshape(1)

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
            if self.stage < 3:
                all_gather(u.flat, self.group, wire=self.wire)

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

    def _reduce_rest(self) -> None:
        for u in self._backward_order:
            if u.gradient is None or any(p.grad is not None for p in u.params):
                u.reduce()
        self._reduced = 0


class _Unit:
    """Parameters in one flat tensor, of which this rank owns a slice, the shard."""

    def __init__(self, module, params: Sequence[nn.Parameter], zero: Zero):
        if len({p.dtype for p in params}) > 1:
            raise TypeError(
                f"the parameters of a unit must have one dtype, got {sorted({str(p.dtype) for p in params})}: "
                "convert the model, or pass units=... that keep them apart."
            )
        self.module, self.params, self.zero = module, list(params), zero
        self.group, self.wire = zero.group, zero.wire
        self.flat = torch.cat([p.detach().reshape(-1) for p in params])
        broadcast(self.flat, 0, self.group, wire=self.wire)
        self.size, ends = len(self.flat), list(accumulate(p.numel() for p in params))
        self._places = [slice(end - p.numel(), end) for p, end in zip(params, ends, strict=True)]
        self._show()
        sizes = chunk_sizes(self.size, dist.get_world_size(self.group))
        rank = dist.get_rank(self.group)
        self.start, self.stop = sum(sizes[:rank]), sum(sizes[: rank + 1])
        own = self.flat[self.start : self.stop]
        self.shard = own.clone() if zero.stage == 3 else own
        self.gradient, self.missing = None, len(params)
        self.pieces = []  # (parameter, the part of it that is in the shard)
        self.spans = []  # where in the shard
        for p, place in zip(params, self._places, strict=True):
            lo, hi = max(place.start, self.start), min(place.stop, self.stop)
            if lo < hi:
                span = slice(lo - self.start, hi - self.start)
                self.pieces.append((p, nn.Parameter(self.shard[span])))
                self.spans.append(span)
        if zero.stage == 3:
            self.release()

    def gather(self, *_) -> None:
        """Fill a flat tensor from all ranks' shards and show its parts as the parameters."""
        if self.flat is None:
            self.flat = self.shard.new_empty(self.size)
            self.flat[self.start : self.stop] = self.shard.detach()
            all_gather(self.flat, self.group, wire=self.wire)
            self._show()

    def release(self, *_) -> None:
        """Give the flat tensor's memory back; the parameters keep their shapes, over one number."""
        if self.zero.stage == 3:
            self.flat = None
            for p in self.params:
                p.data = p.new_zeros(1).expand(p.shape)

    def _show(self):
        for p, place in zip(self.params, self._places, strict=True):
            p.data = self.flat[place].view(p.shape)

    def gather_when_needed(self) -> None:
        root = self.module is self.zero.model

        # Autograd saves parameters for the backward pass, and would keep the flat tensor alive: save their place instead.
        saving = torch.autograd.graph.saved_tensors_hooks(self._place_of, self._at_place)

        def before_forward(*_):
            self.gather()
            saving.__enter__()

        def after_forward(*_):
            saving.__exit__()
            if not root or not torch.is_grad_enabled():
                self.release()

        self.module.register_forward_pre_hook(before_forward)
        self.module.register_forward_hook(after_forward, always_call=True)
        if not root:
            self.module.register_full_backward_pre_hook(self.gather)

    def _place_of(self, t):
        same = (
            self.flat is not None
            and t.untyped_storage()._cdata == self.flat.untyped_storage()._cdata
        )
        return (t.shape, t.stride(), t.storage_offset()) if same else t

    def _at_place(self, t):
        if not isinstance(t, tuple):
            return t
        self.gather()  # another micro-batch's backward pass may have let it go
        return self.flat.as_strided(*t)

    def reduce_when_complete(self) -> None:
        def one_more(_):
            self.missing -= 1
            if self.missing == 0:
                self.zero._unit_complete()

        for p in self.params:
            p.register_post_accumulate_grad_hook(one_more)

    @torch.no_grad()
    def reduce(self) -> None:
        """Sum the gradients over the ranks and keep this rank's slice of the sum."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.params]
        whole = torch.cat([g.reshape(-1) for g in gradients])
        for p in self.params:
            p.grad = None
        own = reduce_scatter(whole, self.group, wire=self.wire).clone()
        self.gradient = own if self.gradient is None else self.gradient.add_(own)
        self.missing = len(self.params)
        self.release()

    def hand_out_gradient(self) -> None:
        for (_, piece), span in zip(self.pieces, self.spans, strict=True):
            piece.grad = self.gradient[span]

    def drop_gradient(self) -> None:
        self.gradient = None
        for _, piece in self.pieces:
            piece.grad = None


def _storage_bytes(tensors) -> int:
    """Bytes of the storages behind the tensors, each counted once."""
    storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors if t is not None}
    return sum(s.nbytes() for s in storages.values())
