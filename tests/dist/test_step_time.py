"""A step's time from its parts, and against a training step over a link of known latency and rate."""

import time

import pytest
import torch

from bigmodel_lab import dist
from bigmodel_lab.dist.cost import AlphaBeta
from bigmodel_lab.dist.overlap import OverlappedDataParallel
from bigmodel_lab.dist.slow_link import SlowLink
from bigmodel_lab.dist.step_time import StepTime, predict_step


def test_the_parts_add_up():
    plain = predict_step(1.0, {"all_reduce": 0.4, "broadcast": 0.1})
    assert plain == StepTime(1.0, {"all_reduce": 0.4, "broadcast": 0.1}, 0.0)
    assert plain.step_s == pytest.approx(1.5)


def test_what_hides_behind_backward():
    sent = {"all_reduce": 0.4, "all_gather": 0.2}
    hidden = predict_step(1.0, sent, backward_s=0.6, buckets=4)
    assert hidden.hidden_s == pytest.approx(0.75 * 0.4)
    assert hidden.step_s == pytest.approx(1.0 + 0.2 + 0.1)
    # max(backward, sent) + min(backward, sent) / buckets, of `dist.overlap`, where less is computed than sent
    short = predict_step(1.0, {"all_reduce": 2.0}, backward_s=0.6, buckets=4)
    assert short.step_s == pytest.approx(0.4 + 2.0 + 0.6 / 4)
    assert predict_step(1.0, sent, backward_s=0.6, buckets=1).hidden_s == 0
    gathered = predict_step(1.0, sent, backward_s=0.6, buckets=2, hides="all_gather")
    assert gathered.hidden_s == pytest.approx(0.1)
    assert predict_step(1.0, {}, backward_s=0.6, buckets=4).hidden_s == 0


def test_what_cannot_be():
    with pytest.raises(ValueError, match=r"backward_s must be between 0 and 1\.0 s, got 2"):
        predict_step(1.0, {}, backward_s=2)
    with pytest.raises(ValueError, match="compute_s must be at least 0 s"):
        predict_step(-1.0, {})
    with pytest.raises(ValueError, match="buckets must be at least 1"):
        predict_step(1.0, {"all_reduce": 1.0}, buckets=0)


class Slow(torch.autograd.Function):
    """The identity, going backward for 20 ms: a layer that leaves the core to others."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dx):
        time.sleep(0.02)
        return dx


class SlowNet(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(100, 100) for _ in range(4))

    def forward(self, x):
        for layer in self.layers:
            x = Slow.apply(layer(x))
        return x.mean()


def train_slowly(link, bucket_bytes):
    """The fastest of 3 steps, in seconds, after one that does not count."""
    net = SlowNet()
    replicas = OverlappedDataParallel(net, bucket_bytes=bucket_bytes, collective=link)
    taken = []
    for _ in range(4):
        x = torch.ones(8, 100, requires_grad=True)
        start = time.perf_counter()
        replicas.backward(net(x))
        replicas.finish()
        taken.append(time.perf_counter() - start)
    return min(taken[1:]), len(replicas.buckets)


def test_a_step_over_a_slow_link():
    """Four layers of 20 ms each going backward; 160 kB at 4 MB/s take 40 ms more, or in buckets hide behind them."""
    link, n_bytes = AlphaBeta(1e-3, 4e6), 4 * 100 * 101 * 4
    for bucket_bytes, buckets in ((1 << 20, 1), (41_000, 4)):
        taken, found = dist.run(train_slowly, SlowLink(1e-3, 4e6), bucket_bytes, ranks=2)[0]
        assert found == buckets
        sent = {"all_reduce": link.predicted_s("all_reduce", n_bytes, 2, calls=buckets)}
        predicted = predict_step(0.08, sent, backward_s=0.08, buckets=buckets).step_s
        assert taken == pytest.approx(predicted, rel=0.4), buckets
