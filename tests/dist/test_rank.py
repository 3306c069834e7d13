"""How a rank joins the others."""

import datetime

import pytest
import torch

from bigmodel_lab.dist import _rank


@pytest.mark.parametrize(("gpus", "backend"), [(False, "gloo"), (True, "cpu:gloo,cuda:nccl")])
def test_where_there_are_gpus_tensors_on_the_cpu_can_be_sent_as_well(gpus, backend, monkeypatch):
    """torch's own choice, without a backend, would be NCCL alone, and no gloo for --device cpu."""
    asked = {}
    c10d = torch.distributed.distributed_c10d
    for name in ("default_pg_timeout", "default_pg_nccl_timeout"):  # put back afterwards
        monkeypatch.setattr(c10d, name, getattr(c10d, name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus)
    monkeypatch.setattr(
        torch.distributed,
        "init_process_group",
        lambda backend=None, **options: asked.update(options, backend=backend),
    )
    _rank.join(3)
    assert asked == {"backend": backend, "timeout": datetime.timedelta(seconds=3)}
