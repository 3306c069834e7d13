"""The two ends of a GPT cut along the vocabulary: embedding and cross-entropy where each rank knows some of the words.

    embedding:      a rank looks up the tokens whose rows it has and gives zeros for the others; then a sum over the ranks
    cross-entropy:  log sum_v exp(l_v) - l_target = log sum_r sum_{v of r} exp(l_v - m) + m - l_target,   m = max_v l_v

so that of the logits, N V numbers, no rank ever holds more than its columns, and the ranks exchange 3 N numbers: the largest
logits, the sums, and the targets' logits.

Source: Shoeybi et al. (2019), arXiv:1909.08053, section 3. Derived in lab L04.
torch's own: `torch.distributed.tensor.parallel.loss_parallel`.
Shapes: B sequences, T positions, N = B T tokens, D width, V vocabulary, V_r this rank's part of it, as `chunk_sizes` cuts.
"""

import torch

from bigmodel_lab.dist.collectives import chunk_sizes

__all__ = ["cross_entropy", "embedding"]


def embedding(tensor, tokens, rows, vocab_size: int, ops):
    """Look tokens (B, T) up in an embedding of which this rank has `rows` (V_r, D); gives the stream of the blocks.

    tensor : the `TensorParallel` group, whose `leave` sums (and, with sequence parallelism, scatters)
    ops : the operations to use (from `ops.torch.backend`)
    """
    local = tokens - _start(tensor, vocab_size)
    mine = (local >= 0) & (local < len(rows))
    if len(rows):
        x = ops.embedding(torch.where(mine, local, 0), rows)
    else:  # more ranks than words; the sum is 0, and gives the rows a gradient as everywhere
        x = rows.sum().expand(*tokens.shape, rows.shape[1])
    return tensor.leave(x * mine[..., None])


def cross_entropy(tensor, logits, targets, vocab_size: int):
    """Mean cross-entropy, in nats, a scalar, of logits (N, V_r) whose columns are shared, and targets (N,).

    Sends 3 N numbers in place of the N V that gathering the logits would.
    """
    return _CrossEntropy.apply(logits, targets - _start(tensor, vocab_size), tensor)


def _start(tensor, vocab_size: int) -> int:
    """The first word that this rank knows."""
    return sum(chunk_sizes(vocab_size, tensor.ranks)[: tensor.rank])


class _CrossEntropy(torch.autograd.Function):
    """log sum_v exp(l_v) - l_target, where each rank knows some of the v; targets count from this rank's first."""

    @staticmethod
    def forward(ctx, logits, targets, tensor):
        N, n_own = logits.shape
        top = logits.max(1).values if n_own else logits.new_full((N,), -torch.inf)
        top = tensor.all_reduce(top, "max")
        p = (logits - top[:, None]).exp_()
        mine = ((targets >= 0) & (targets < n_own)).nonzero()[:, 0]
        hit = logits.new_zeros(N)
        hit[mine] = logits[mine, targets[mine]]
        total, hit = tensor.all_reduce(torch.stack([p.sum(1), hit]))
        p /= total[:, None]
        p[mine, targets[mine]] -= 1
        ctx.save_for_backward(p.div_(N))
        return (total.log() + top - hit).mean()

    @staticmethod
    def backward(ctx, dloss):
        (dlogits,) = ctx.saved_tensors
        return dlogits * dloss, None, None
