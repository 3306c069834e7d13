"""Experts shared out over 2 and 4 real ranks equal all experts in one process, gradients included; bytes are exact."""

import pytest
import torch
import torch.distributed as td

from bigmodel_lab import dist, rng
from bigmodel_lab.dist.collectives import all_reduce, all_to_all
from bigmodel_lab.dist.expert_parallel import ExpertParallel, MixtureOfExperts
from bigmodel_lab.dist.wire import Wire

D, F, E, K = 6, 10, 8, 2
TOKENS = [5, 0, 7, 3]  # of each rank: one may have none


def whole(k=K):
    return MixtureOfExperts(D, F, E, k, seed=3).double()


def tokens(ranks):
    x, dy = torch.from_numpy(rng.generator(0, "x").standard_normal((2, sum(TOKENS[:ranks]), D)))
    return x.split(TOKENS[:ranks]), dy.split(TOKENS[:ranks])


def run_shared(k):
    rank, ranks, wire = td.get_rank(), td.get_world_size(), Wire()
    moe = ExpertParallel(whole(k), wire=wire)
    xs, dys = tokens(ranks)
    x = xs[rank].clone().requires_grad_()
    y = moe(x)
    y.backward(dys[rank])
    all_reduce(moe.router.grad)
    chosen, _ = moe.route(x)
    return (
        y.detach(),
        x.grad,
        moe.router.grad,
        moe.up.grad,
        moe.down.grad,
        dict(wire.sent_bytes),
        chosen,
    )


@pytest.mark.parametrize(("ranks", "k"), [(2, 2), (4, 2), (4, 1), (1, 3)])
def test_equals_one_process(ranks, k):
    moe, (xs, dys) = whole(k), tokens(ranks)
    x = torch.cat(xs).requires_grad_()
    y = moe(x)
    y.backward(torch.cat(dys))
    results = dist.run(run_shared, k, ranks=ranks)

    def same(got, want):
        return torch.allclose(got, want, rtol=0, atol=1e-13)

    assert same(torch.cat([r[0] for r in results]), y.detach())
    assert same(torch.cat([r[1] for r in results]), x.grad)
    assert all(same(r[2], moe.router.grad) for r in results)
    assert same(torch.cat([r[3] for r in results]), moe.up.grad)
    assert same(torch.cat([r[4] for r in results]), moe.down.grad)

    n = E // ranks
    sent_by = [
        [int((r[6] // n == to).sum()) for to in range(ranks)] for r in results
    ]  # rows, from rank to rank
    for rank, (*_, sent, _) in enumerate(results):
        out = sum(rows for to, rows in enumerate(sent_by[rank]) if to != rank)
        back = sum(sent_by[other][rank] for other in range(ranks) if other != rank)
        # forward: out and then back with the results; backward: the same two ways with gradients
        assert sent.get("all_to_all", 0) == 2 * (out + back) * D * 8
        assert sent.get("counts", 0) == (ranks - 1) * n * 8


def test_all_to_all_is_exact_on_integers_and_takes_uneven_and_empty_parts():
    def exchange():
        rank, ranks = td.get_rank(), td.get_world_size()
        parts = [torch.full((rank * to,), 10 * rank + to) for to in range(ranks)]
        into = [torch.empty(rank * of, dtype=torch.int64) for of in range(ranks)]
        return all_to_all(parts, into)

    for rank, got in enumerate(dist.run(exchange, ranks=3)):
        assert [g.tolist() for g in got] == [[10 * of + rank] * (rank * of) for of in range(3)]


def test_what_cannot_be():
    with pytest.raises(dist.RankError, match="experts=8 cannot be shared by 3 ranks"):
        dist.run(lambda: ExpertParallel(whole()), ranks=3)
    with pytest.raises(
        dist.RankError, match="parts must hold a tensor for each of the 1 ranks, got 2"
    ):
        dist.run(lambda: all_to_all([torch.ones(1)] * 2, [torch.ones(1)]), ranks=1)
    with pytest.raises(ValueError, match="k must be"):
        whole(9)
