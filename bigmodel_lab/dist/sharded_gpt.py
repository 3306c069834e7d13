"""One rank's share of a GPT: some of its layers (pipeline), and a slice of each (tensor parallel).

    whole = GPT(config, seed=0)                                  # the same on every rank
    mine = ShardedGPT(whole, TensorParallel(group), layers=range(0, 2))

A first stage turns tokens into the stream of activations, a middle stage takes and gives the stream, a last stage gives
the loss. With all layers and no group it is the GPT itself. Built for labs L04 and L05.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn

from bigmodel_lab.dist.tensor_parallel import (
    Sharded,
    TensorParallel,
    shard_attention,
    shard_mlp,
    slice_rows,
)
from bigmodel_lab.models.gpt import GPT, rope_angles
from bigmodel_lab.ops.torch import backend

__all__ = ["ShardedGPT", "cut_layers"]


def cut_layers(n_layers: int, stages: int) -> list[range]:
    """Cut the layers into consecutive stages whose lengths differ by one at most.

    What is left over goes to the stages in the middle first: the outer ones also hold the embedding and the loss.
    """
    if not 1 <= stages <= n_layers:
        raise ValueError(
            f"stages={stages} must be 1 to n_layers={n_layers}: each stage needs a layer."
        )
    least, left = divmod(n_layers, stages)
    order = [*range(1, stages - 1), 0, stages - 1][:left] if stages > 1 else []
    sizes = [least + (s in order) for s in range(stages)]
    ends = [sum(sizes[: s + 1]) for s in range(stages)]
    return [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]


class _Alone(TensorParallel):
    """A group of one, which needs no process group."""

    def __init__(self):
        self.group, self.sequence, self.wire, self.rank, self.ranks = None, False, None, 0, 1


class ShardedGPT(nn.Module):
    """The layers `layers` of `gpt`, each cut over the ranks of `tensor`; a copy, `gpt` stays as it is.

    Parameters
    ----------
    gpt : the whole model, with the same weights on every rank
    tensor : the tensor-parallel group; None keeps whole layers
    layers : consecutive layers, all of them if not given; the first stage has layer 0, the last the last one

    Dropout draws other masks than one process would; the ranks of `tensor` must draw alike, so seed torch the same on
    them. Raises ValueError where the layers cannot be cut.
    """

    def __init__(self, gpt: GPT, tensor: TensorParallel | None = None, layers: range | None = None):
        super().__init__()
        c, tensor = gpt.config, tensor or _Alone()
        self.config, self.ops, self.tensor = c, gpt.ops, tensor
        self.layers = layers = range(c.n_layers) if layers is None else layers
        self.is_first, self.is_last = layers.start == 0, layers.stop == c.n_layers
        self.blocks = nn.ModuleList(copy.deepcopy(gpt.blocks[l]) for l in layers)
        if tensor.ranks > 1:
            for block in self.blocks:
                block.attention = shard_attention(block.attention, tensor)
                block.mlp = shard_mlp(block.mlp, tensor)

        def rows(w):
            own = slice_rows(w.detach(), tensor.rank, tensor.ranks)
            return nn.Parameter(own, requires_grad=w.requires_grad)

        if self.is_first:
            self.tokens = rows(gpt.tokens.weight)
            if c.positions == "learned":
                self.positions = copy.deepcopy(gpt.positions)
        if self.is_last:
            self.norm = copy.deepcopy(gpt.norm)
            tied_here = c.tied and self.is_first
            self.head = (
                self.tokens if tied_here else rows(gpt.tokens.weight if c.tied else gpt.head.weight)
            )

    def forward(self, x, targets=None):
        """Give the stream after this stage's layers, or on the last stage the loss of targets (B, T).

        x : tokens (B, T) on the first stage, elsewhere the stream (B, T, D), or with sequence parallelism (B, T/W, D)
        """
        ops, c = backend(self.ops), self.config
        if self.is_first:
            if (T := x.shape[1]) > c.context:
                raise ValueError(f"T={T} positions are more than the context={c.context}.")
            x = self.tensor.embedding(x, self.tokens, c.vocab_size, ops)
            if c.positions == "learned":
                x = x + self.positions[:T][self.tensor.positions(T)]
            x = ops.dropout(x, c.dropout, self.training)
        angles = None
        if c.positions == "rotary":
            T = x.shape[1] * (self.tensor.ranks if self.tensor.sequence else 1)
            angles = rope_angles(c, 0, T, x)
        for block in self.blocks:
            x = block(x, ops, angles)
        if not self.is_last:
            return x
        if targets is None:
            raise ValueError("the last stage gives the loss: pass targets.")
        x = self.tensor.enter(self.norm(x, ops))
        logits = ops.linear(x.flatten(0, 1), self.head)
        return self.tensor.cross_entropy(logits, targets.flatten(), c.vocab_size)

    def cut(self) -> Iterator[nn.Parameter]:
        """The parameters of which this rank holds a slice."""
        inner = [m.inner.parameters() for m in self.modules() if isinstance(m, Sharded)]
        ends = [
            p for p in (getattr(self, "tokens", None), getattr(self, "head", None)) if p is not None
        ]
        yield from dict.fromkeys(p for ps in [*inner, ends] for p in ps)

    def whole(self) -> list[nn.Parameter]:
        """The parameters that every rank of the tensor-parallel group holds in full."""
        cut = set(self.cut())
        return [p for p in self.parameters() if p not in cut]

    def sum_whole_gradients(self) -> None:
        """With sequence parallelism, sum the gradients of `whole()`, of which each rank saw its own positions only.

        Without, nothing is to be done: every rank has computed the same. Call once a step, after backward.
        """
        if not self.tensor.sequence or self.tensor.ranks == 1:
            return
        gradients = [p.grad for p in self.whole() if p.grad is not None]
        flat = self.tensor.all_reduce(torch.cat([g.reshape(-1) for g in gradients]))
        for g, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            g.copy_(part.view_as(g))
