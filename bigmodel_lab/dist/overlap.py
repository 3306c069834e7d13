"""Data parallelism that hides its communication: gradients leave in buckets while backward still works on the earlier layers.

Backward reaches the last layer first. As soon as all gradients of a bucket (some layers, from the back) are there, a
hook gives them to a second thread, which all-reduces one bucket after the other. Only what is still on its way when
backward ends costs time:

    after backward:     t = t_backward + t_all_reduce
    in k buckets:       t = max(t_backward, t_all_reduce) + min(t_backward, t_all_reduce) / k

for buckets that are equally large and a second thread that disturbs nobody: with few, much is left for the end; with many,
each pays the latency of its messages. All ranks send the same buckets in the same order, however their backward passes went:
a bucket that is complete waits for those before it.

Source: S. Li et al., "PyTorch Distributed" (2020), arXiv:2006.15704, section 3.2. Derived in lab L03. torch's own:
`torch.nn.parallel.DistributedDataParallel`, whose `bucket_cap_mb` and `no_sync` these are.
"""

import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future

import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab.dist.collectives import all_reduce
from bigmodel_lab.dist.courier import Courier
from bigmodel_lab.dist.data_parallel import DataParallel
from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.errors import require_in_range

__all__ = ["OverlappedDataParallel", "assign_buckets", "predicted_hidden"]


class OverlappedDataParallel:
    """Keeps the replicas of a model equal, as `DataParallel` does, and sends gradients while backward goes on.

        replicas = OverlappedDataParallel(model, bucket_bytes=1 << 20, wire=wire)
        with replicas.no_sync():                            # gradients of this micro-batch stay here
            replicas.backward(loss(model(x[a]), y[a]), weight_a)
        replicas.backward(loss(model(x[b]), y[b]), weight_b)        # the last one sends, bucket by bucket
        replicas.finish()                                   # now p.grad is that of the whole batch, on every rank
        optimizer.step()

    Parameters
    ----------
    model : the same architecture on every rank; rank 0's parameters and buffers are taken. Tied and frozen parameters
        are fine
    group : process group; None for all ranks. From the first bucket to `finish` nothing else may use it
    bucket_bytes : a bucket is closed before it would grow beyond this
    unused : parameters may go without a gradient: each bucket then carries a number more for each of its parameters,
        on how many ranks it got one; where none did, p.grad is None as in one process. False refuses them
    collective : called in the second thread as collective(flat, group, wire=wire) to sum a bucket (n,) in place
    wire : counts the payload

    While gradients are on their way, they take their memory a second time.
    """

    def __init__(
        self,
        model: nn.Module,
        group=None,
        *,
        bucket_bytes: int = 1 << 20,
        unused: bool = False,
        collective: Callable = all_reduce,
        wire: Wire | None = None,
    ):
        DataParallel(model, group, wire=wire)  # the same start everywhere
        self.group, self.unused, self.collective, self.wire = group, unused, collective, wire
        self.names = {p: name for name, p in model.named_parameters() if p.requires_grad}
        self.buckets = assign_buckets(self.names, bucket_bytes)
        self._bucket_of = {p: i for i, b in enumerate(self.buckets) for p in b}
        self._courier, self._sync = Courier(), True
        self._start_over()
        for p in self.names:
            p.register_post_accumulate_grad_hook(self._ready)

    def backward(self, loss: torch.Tensor, weight: float | None = None) -> None:
        """Go backward from the mean loss over this rank's rows, sending what is ready.

        weight : these rows' share of the global batch; the weights of all ranks and micro-batches add up to 1. None:
            equal shares, 1 / W. A rank without rows does not call this, but only `finish`.
        """
        weight = 1 / dist.get_world_size(self.group) if weight is None else weight
        require_in_range("weight", weight, 0, 1)
        (loss * weight).backward()

    @contextlib.contextmanager
    def no_sync(self):
        """Let the gradients of backward passes inside the block add up here; nothing is sent."""
        before, self._sync = self._sync, False
        try:
            yield
        finally:
            self._sync = before

    def finish(self) -> None:
        """Send what has not been sent, wait, and leave the gradient of the whole batch in every p.grad.

        Every rank calls it once a step. Raises ValueError, naming them, for parameters that got no gradient, unless
        `unused` allows it or this rank had no rows at all, which counts as zero.
        """
        missing = [name for p, name in self.names.items() if p.grad is None]
        if missing and len(missing) < len(self.names) and not self.unused:
            raise ValueError(
                f"{len(missing)} of {len(self.names)} parameters got no gradient, such as {missing[0]!r}: pass "
                "unused=True, or freeze them with requires_grad_(False) before."
            )
        while self._next < len(self.buckets):
            self._send()
        for bucket, flat, sent in self._under_way:
            with self._waiting():
                sent.result()
            self._hand_back(bucket, flat)
        self._start_over()

    def _start_over(self) -> None:
        self._left = [len(b) for b in self.buckets]  # parameters whose gradients are not there
        self._next = 0  # the bucket to be sent next
        self._under_way: list[tuple[list[nn.Parameter], torch.Tensor, Future]] = []

    def _ready(self, p: nn.Parameter) -> None:
        """The hook: autograd has just added to p.grad."""
        i = self._bucket_of[p]
        if i < self._next:
            raise RuntimeError(
                f"{self.names[p]!r} got another gradient after its bucket was sent: put all backward passes of a step "
                "but the last into no_sync(), and call finish() after the last."
            )
        if not self._sync:
            return
        self._left[i] -= 1
        while self._next < len(self.buckets) and self._left[self._next] == 0:
            self._send()

    @torch.no_grad()
    def _send(self) -> None:
        """Hand the next bucket to the second thread."""
        bucket = self.buckets[self._next]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        if self.unused:
            parts.append(bucket[0].new_tensor([p.grad is not None for p in bucket]))
        flat = torch.cat([part.reshape(-1) for part in parts])
        sent = self._courier.do(self.collective, flat, self.group, wire=self.wire)
        self._under_way.append((bucket, flat, sent))
        self._next += 1

    @torch.no_grad()
    def _hand_back(self, bucket, flat) -> None:
        sizes = [p.numel() for p in bucket]
        *parts, users = flat.split([*sizes, len(flat) - sum(sizes)])
        for i, (p, part) in enumerate(zip(bucket, parts, strict=True)):
            if self.unused and users[i] == 0:
                p.grad = None
            elif p.grad is None:
                p.grad = part.view_as(p).clone()
            else:
                p.grad.copy_(part.view_as(p))

    def _waiting(self):
        return contextlib.nullcontext() if self.wire is None else self.wire.waiting("gradients")


def assign_buckets(params: Iterable[nn.Parameter], bucket_bytes: int) -> list[list[nn.Parameter]]:
    """Put parameters into buckets, last one first, as backward reaches them; the same on every rank.

    A bucket is closed before it would exceed `bucket_bytes` (one larger parameter has a bucket to itself), and where the
    dtype or the device changes.
    """
    require_in_range("bucket_bytes", bucket_bytes, 1)
    buckets: list[list[nn.Parameter]] = []
    kind, size = None, 0
    for p in reversed(list(params)):
        n_bytes = p.numel() * p.element_size()
        if kind != (p.dtype, p.device) or size + n_bytes > bucket_bytes:
            buckets.append([])
            kind, size = (p.dtype, p.device), 0
        buckets[-1].append(p)
        size += n_bytes
    return buckets


def predicted_hidden(buckets: int, backward_s: float, all_reduce_s: float) -> float:
    """The share of the all-reduces' time that `buckets` equally large buckets hide behind backward; 0 for one bucket.

    From the module's formula: (t_backward + t_all_reduce - t) / t_all_reduce. To compare with `Trace.hidden`.
    """
    require_in_range("buckets", buckets, 1)
    return (1 - 1 / buckets) * min(1.0, backward_s / all_reduce_s)
