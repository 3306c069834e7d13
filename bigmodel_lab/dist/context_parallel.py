"""Context parallelism by hand: each rank holds some positions of every sequence, and keys and values travel in a ring.

All of a Transformer but attention works on positions one by one. In attention, a query needs every key before it; the
softmax over keys that arrive block by block is put together as it goes (m: largest score so far, l: sum, o: mean):

    m' = max(m, max_j s_j),   l' = l e^{m - m'} + sum_j e^{s_j - m'},   o' = (o l e^{m - m'} + sum_j e^{s_j - m'} v_j) / l'

After W - 1 passes every query has met every key, and no rank has ever held more than 1/W of them, or of the scores. Going
backward, keys and values travel once more, with their gradients, which come home after W passes.

With a causal mask the rank of the last positions has the most to do. Zig-zag deals the positions out so that all have
the same: of 2 W pieces, rank r holds piece r and piece 2 W - 1 - r.

Source: Liu et al. (2023), arXiv:2310.01889; the softmax: Milakov and Gimelshein (2018), arXiv:1805.02867; zig-zag:
Grattafiori et al. (2024), arXiv:2407.21783, section 3.3.2. Derived in lab L04. torch's own: `torch.distributed.tensor.experimental.context_parallel`
(not on CPU).
Shapes: B sequences, T positions in all, t = T / W here, H heads of queries, G of keys and values, K head width.
"""

from types import SimpleNamespace

import torch
import torch.distributed as dist

from bigmodel_lab.dist.wire import Wire
from bigmodel_lab.errors import require_choice
from bigmodel_lab.models.gpt import rope_angles
from bigmodel_lab.ops.torch import backend

__all__ = ["ContextParallel"]


class ContextParallel:
    """The group of ranks that share the positions, and the attention between them.

    Parameters
    ----------
    group : process group; None for all ranks
    order : "contiguous" or "zigzag": which positions a rank holds
    wire : counts the payload of "ring_attention"
    """

    def __init__(self, group=None, *, order: str = "zigzag", wire: Wire | None = None):
        self.group, self.wire = group, wire
        self.order = require_choice("order", order, ("contiguous", "zigzag"))
        self.rank, self.ranks = dist.get_rank(group), dist.get_world_size(group)

    def positions(self, T: int, rank: int | None = None) -> torch.Tensor:
        """The positions (t,) that a rank holds of T, int64, rising; this rank's if none is named."""
        rank = self.rank if rank is None else rank
        pieces = self.ranks if self.order == "contiguous" else 2 * self.ranks
        if T % pieces:
            raise ValueError(
                f"T={T} positions cannot be cut into {pieces} equal pieces: pad to {-(-T // pieces) * pieces}."
            )
        piece = torch.arange(T).view(pieces, -1)
        held = [rank] if self.order == "contiguous" else [rank, pieces - 1 - rank]
        return piece[held].flatten()

    def attention(self, q, k, v, causal: bool = True, scale: float | None = None):
        """Attention of this rank's queries (B, H, t, K) to the keys and values (B, G, t, K) of all ranks."""
        scale = q.shape[-1] ** -0.5 if scale is None else scale
        return _RingAttention.apply(q, k, v, causal, scale, self)

    def over(self, ops: SimpleNamespace) -> SimpleNamespace:
        """The operations `ops` (from `ops.torch.backend`), with attention between the ranks."""
        return SimpleNamespace(**(vars(ops) | {"attention": self.attention}))

    def loss(self, gpt, tokens, targets):
        """This rank's share of the mean cross-entropy of a `models.GPT`; the shares of all ranks add up to it.

        tokens, targets (B, T) whole on every rank. Its gradients add up too: sum them over the group, such as with
        `DataParallel(gpt, group).average_gradients()` after multiplying by W, or with `collectives.all_reduce`. Dropout
        draws other masks than one process would.
        """
        mine, ops, c = self.positions(tokens.shape[1]), self.over(backend(gpt.ops)), gpt.config
        x, angles = ops.embedding(tokens[:, mine], gpt.tokens.weight), None
        if c.positions == "learned":
            x = x + gpt.positions[mine]
        else:
            angles = tuple(a[mine] for a in rope_angles(c, 0, tokens.shape[1], x))
        x = ops.dropout(x, c.dropout, gpt.training)
        for block in gpt.blocks:
            x = block(x, ops, angles)
        head = gpt.tokens.weight if c.tied else gpt.head.weight
        x = gpt.norm(x, ops).flatten(0, 1)
        return ops.linear_cross_entropy(x, head, targets[:, mine].flatten()) / self.ranks

    def _pass_on(self, tensors):
        """Start sending `tensors` to the next rank and receiving as much from the one before; call the result to wait."""
        sent = torch.stack(tensors)
        received = torch.empty_like(sent)
        after, before = (self.rank + 1) % self.ranks, (self.rank - 1) % self.ranks
        receiving = dist.irecv(received, group=self.group, group_src=before)
        if self.wire is not None:
            self.wire.add("ring_attention", sent.numel() * sent.element_size(), after)
        sending = dist.isend(sent, group=self.group, group_dst=after)

        def wait():
            receiving.wait()
            sending.wait()
            return list(received)

        return wait


class _RingAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, causal, scale, ring):
        m = q.new_full(q.shape[:-1], -torch.inf)
        l, o = torch.zeros_like(m), torch.zeros_like(q)
        travelling = [k.contiguous(), v.contiguous()]
        for step in range(ring.ranks):
            last = step == ring.ranks - 1
            arrive = None if last else ring._pass_on(travelling)  # while we compute
            s, _, vb = _scores(q, *travelling, causal, scale, ring, step)
            if s is not None:
                # finite: in step 0 each query meets the key of its own position
                top = torch.maximum(m, s.amax(-1))
                p, old = (s - top[..., None]).exp(), (m - top).exp()
                l = l * old + p.sum(-1)
                o = o * old[..., None] + p @ vb
                m = top
            travelling = travelling if last else arrive()
        y = o / l[..., None]
        ctx.save_for_backward(q, k, v, y, m + l.log())
        ctx.options = causal, scale, ring
        return y

    @staticmethod
    def backward(ctx, dy):
        q, k, v, y, log_sum = ctx.saved_tensors
        causal, scale, ring = ctx.options
        G, along = k.shape[1], (dy * y).sum(-1, keepdim=True)
        dq = torch.zeros_like(q)
        travelling = [k.contiguous(), v.contiguous(), torch.zeros_like(k), torch.zeros_like(v)]
        for step in range(ring.ranks):
            kb, vb, dk, dv = travelling
            s, k_heads, v_heads = _scores(q, kb, vb, causal, scale, ring, step)
            if s is not None:
                p = (s - log_sum[..., None]).exp()
                ds = p * (dy @ v_heads.mT - along) * scale
                dq += ds @ k_heads
                dk += _sum_heads(ds.mT @ q, G)
                dv += _sum_heads(p.mT @ dy, G)
            if ring.ranks > 1:  # the last pass brings the gradients home
                last = step == ring.ranks - 1
                arrived = ring._pass_on([dk, dv] if last else travelling)()
                travelling = [kb, vb, *arrived] if last else arrived
        return dq, travelling[2], travelling[3], None, None, None


def _scores(q, k, v, causal, scale, ring, step):
    """Scores (B, H, t, t) of the block that arrived in `step`, -inf where hidden, and its keys and values for each head.

    The scores are None if every query here stands before every key there.
    """
    T = q.shape[2] * ring.ranks
    here, there = ring.positions(T), ring.positions(T, (ring.rank - step) % ring.ranks)
    if causal and there.min() > here.max():
        return None, k, v
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    s = (q @ k.mT) * scale
    return (s.masked_fill(there > here[:, None], -torch.inf) if causal else s), k, v


def _sum_heads(x, G):
    """Sum (B, H, t, K) over the query heads that share one of G heads of keys and values."""
    B, H, t, K = x.shape
    return x.view(B, G, H // G, t, K).sum(2)
