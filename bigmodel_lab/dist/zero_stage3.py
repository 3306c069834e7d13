"""ZeRO's third stage: a unit whose parameters exist on each rank only while they are needed.

    before the unit's forward pass      all-gather: flat is filled from all ranks' shards
    after it                            flat is let go
    when its backward pass needs them   all-gather again
    after it                            reduce-scatter of the gradients, and flat is let go

Autograd saves parameters for the backward pass, and would so keep every flat tensor alive from forward to backward. So
what it saves is only where in the flat tensor they were; when it asks for the first of them, the unit is gathered.

Source: Zhao et al. (2023), arXiv:2304.11277. Derived in lab L03. torch's own: `torch.distributed.fsdp.fully_shard`.
"""

import contextlib

import torch

from bigmodel_lab.dist.collectives import all_gather
from bigmodel_lab.dist.zero_unit import Unit

__all__ = ["GatheredUnit"]


class GatheredUnit(Unit):
    """A unit of which a rank holds its shard (a tensor of its own), and `flat`, (n,), only now and then: else None."""

    def gather(self, *_) -> None:
        """Fill a flat tensor from all ranks' shards and show its parts as the parameters."""
        if self.flat is None:
            self.flat = self.shard.new_empty(self.size)
            self.flat[self.start : self.stop] = self.shard.detach()
            all_gather(self.flat, self.group, wire=self.wire)
            self._show()

    def release(self, *_) -> None:
        """Give the flat tensor's memory back; the parameters keep their shapes, over one number."""
        self.flat = None
        for p in self.params:
            p.data = p.new_zeros(()).expand(p.shape)

    def exchange(self) -> None:
        """Nothing: the other ranks are told when they gather."""

    def gather_when_needed(self, *, is_root: bool) -> None:
        """Hook gather and release into the module's passes.

        is_root : the module is the whole model, whose unit stays gathered from its forward to its backward pass
        """
        saving = torch.autograd.graph.saved_tensors_hooks(self._place_of, self._at_place)
        entered = contextlib.ExitStack()

        def before_forward(*_):
            self.gather()
            entered.enter_context(saving)

        def after_forward(*_):  # called also where gather failed, because another rank is gone
            entered.close()
            if not is_root or not torch.is_grad_enabled():
                self.release()

        self.module.register_forward_pre_hook(before_forward)
        self.module.register_forward_hook(after_forward, always_call=True)

    def _own(self, part):
        return part.clone()

    def _place_of(self, t):
        same = (
            self.flat is not None
            and t.untyped_storage()._cdata == self.flat.untyped_storage()._cdata
        )
        return (t.shape, t.stride(), t.storage_offset()) if same else t

    def _at_place(self, t):
        if not isinstance(t, tuple):
            return t
        self.gather()
        return self.flat.as_strided(*t)
