"""Mixture of experts, and expert parallelism by hand: each rank holds some experts, and tokens travel to theirs.

A router sends each token to its k best of E feed-forward networks:

    p = softmax(x W^T),    y = sum_{e in top k of p} p_e / (sum_{e' in top k} p_e') * expert_e(x)

so that a layer has E times the parameters and k times the work of one expert. With E / W experts a rank, tokens go to
the ranks of their experts and come back, by two all-to-alls forward and two backward; how many go where depends on
the tokens, so the counts are exchanged first. No token is dropped: there is no capacity limit.

Source: Shazeer et al. (2017), arXiv:1701.06538; Lepikhin et al. (2020), arXiv:2006.16668, for the all-to-alls; weights of
the top k renormalised as in Jiang et al. (2024), arXiv:2401.04088 (Mixtral). Derived in lab L04.
Shapes: N tokens here, D width, F hidden channels, E experts in all, n = E / W here, k experts a token.
"""

import torch
import torch.distributed as dist
from torch import nn

from bigmodel_lab import rng
from bigmodel_lab.dist.collectives import all_to_all
from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.errors import require_in_range

__all__ = ["ExpertParallel", "MixtureOfExperts"]


class MixtureOfExperts(nn.Module):
    """All experts in one process: what expert parallelism is compared with.

    Parameters
    ----------
    width, hidden : D, F
    experts, k : E, and how many of them a token goes to
    seed : of the initial weights, normal with variance 1 / inputs
    """

    def __init__(self, width: int, hidden: int, experts: int, k: int, *, seed: int = 0):
        super().__init__()
        require_in_range("k", k, 1, experts)
        self.k = k

        def weights(name, *shape):
            w = rng.generator(seed, "moe", name).standard_normal(shape, dtype="float32")
            return nn.Parameter(torch.from_numpy(w) / shape[-1] ** 0.5)

        self.router = weights("router", experts, width)
        self.up, self.down = (
            weights("up", experts, hidden, width),
            weights("down", experts, width, hidden),
        )

    def route(self, x):
        """Experts (N, k) of each token, best first, and their weights (N, k), which add up to 1."""
        p, experts = (x @ self.router.T).softmax(-1).topk(self.k, -1)
        return experts, p / p.sum(-1, keepdim=True)

    def work(self, x, counts):
        """Let expert e work on its counts[e] consecutive rows of x."""
        rows = x.split(counts)
        return torch.cat(
            [
                torch.relu(r @ up.T) @ down.T
                for r, up, down in zip(rows, self.up, self.down, strict=True)
            ]
        )

    def forward(self, x):
        """x (N, D) -> y (N, D)."""
        chosen, weights = self.route(x)
        order = chosen.flatten().argsort(stable=True)  # pairs (token, choice), by expert
        counts = chosen.flatten().bincount(minlength=len(self.router))
        y = self._exchange(x[order // self.k], counts)
        back = torch.empty_like(y).index_copy(0, order, y)  # to the order of the pairs
        return (back.view(len(x), self.k, x.shape[1]) * weights[..., None]).sum(1)

    def _exchange(self, x, counts):
        return self.work(x, counts.tolist())


class ExpertParallel(MixtureOfExperts):
    """The experts of `whole` shared out over a group; every rank has tokens of its own and the whole router.

    After backward the gradients of the experts here hold what the tokens of all ranks asked for; that of the router holds
    this rank's tokens only, and is to be summed like any data-parallel gradient.
    """

    def __init__(self, whole: MixtureOfExperts, group=None, *, wire: Wire | None = None):
        nn.Module.__init__(self)
        self.group, self.wire, self.k = group, wire, whole.k
        self.ranks, E = dist.get_world_size(group), len(whole.router)
        if E % self.ranks:
            raise ValueError(f"experts={E} cannot be shared by {self.ranks} ranks in equal parts.")
        self.n = E // self.ranks
        mine = slice(dist.get_rank(group) * self.n, (dist.get_rank(group) + 1) * self.n)
        self.router = nn.Parameter(whole.router.detach().clone())
        self.up, self.down = (
            nn.Parameter(w.detach()[mine].clone()) for w in (whole.up, whole.down)
        )

    def _exchange(self, x, counts):
        to = list(counts.view(self.ranks, self.n))  # how many rows go to each expert of each rank
        come = all_to_all(
            to, [torch.empty_like(c) for c in to], self.group, wire=self.wire, name="counts"
        )
        out, into = [int(c.sum()) for c in to], [int(c.sum()) for c in come]
        rows = _AllToAll.apply(x, out, into, self)
        # They came by rank and in it by expert; the experts want them by expert.
        expert = torch.cat([torch.arange(self.n).repeat_interleave(c) for c in come])
        order = expert.argsort(stable=True)
        y = self.work(rows[order], torch.stack(come).sum(0).tolist())
        y = torch.empty_like(y).index_copy(0, order, y)
        return _AllToAll.apply(y, into, out, self)


class _AllToAll(torch.autograd.Function):
    """Rows to other ranks; the gradient takes the way back."""

    @staticmethod
    def forward(ctx, x, out, into, moe):
        ctx.way = into, out, moe
        received = x.new_empty(sum(into), x.shape[1])
        all_to_all(list(x.split(out)), list(received.split(into)), moe.group, wire=moe.wire)
        return received

    @staticmethod
    def backward(ctx, dy):
        return _AllToAll.forward(_Nothing(), dy.contiguous(), *ctx.way), None, None, None


class _Nothing:
    """A context for the way back, which keeps nothing."""
