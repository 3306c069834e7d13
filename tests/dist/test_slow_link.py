"""The slow link sums, counts once, and takes its time."""

import time

import pytest
import torch

from bigmodel_lab import dist
from bigmodel_lab.dist.slow_link import SlowLink
from bigmodel_lab.dist.trace import Recorder


def test_sums_and_takes_its_time():
    def fn():
        link, recorder = SlowLink(latency_s=0.01, bytes_per_s=2e5), Recorder()
        x = torch.arange(6000, dtype=torch.float64)
        start = time.monotonic()
        link(x, wire=recorder)
        took = time.monotonic() - start
        return x, took, link.predicted_s(x), recorder.spans, dict(recorder.sent_bytes)

    for x, took, predicted, spans, sent in dist.run(fn, ranks=3):
        assert torch.equal(x, 3 * torch.arange(6000, dtype=torch.float64))
        n_bytes = 2 * 2 * 2000 * 8
        assert sent == {"all_reduce": n_bytes}
        assert [(s.name, s.kind, s.n_bytes, s.ranks) for s in spans] == [
            ("all_reduce", "collective", n_bytes, (0, 1, 2))
        ]
        assert predicted == pytest.approx(4 * 0.01 + n_bytes / 2e5)
        assert predicted <= took + 1e-6
        assert predicted <= spans[0].end_s - spans[0].start_s + 1e-6


def test_what_cannot_be():
    with pytest.raises(ValueError, match="latency_s must be at least 0"):
        SlowLink(-1, 1)
    with pytest.raises(ValueError, match="bytes_per_s must be above 0, got 0"):
        SlowLink(0, 0)
