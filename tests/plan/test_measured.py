"""A RunRecord, saved and loaded, gives the planner's numbers."""

import pytest

from bigmodel_lab.plan import MODELS, count_parameters, measure, six_nd, training_flops
from bigmodel_lab.train import Layout, RunRecord
from bigmodel_lab.train.record import STEPS_ELSEWHERE
from bigmodel_lab.units import Q

TINY = MODELS["gpt2"].but(n_layers=2, width=64, n_heads=4, hidden=256, vocab=65, context=32)


def record(**changes):
    fields = dict(
        model="tiny",
        parameters=count_parameters(TINY).total,
        data="text",
        samples=640,
        tokens=640 * 32,
        seed=0,
        loss=(4.0,) * 18 + (2.0, 3.0),
        compute_s=(0.03,) * 20,
        communication_s=(0.01,) * 20,
        sent_bytes={},
        layout=Layout(dp=2),
        machine={},
        versions={},
    )
    return RunRecord(**fields | changes)


def test_from_file_to_rate(tmp_path):
    path = record().save(tmp_path / "run.json")
    m = measure(RunRecord.load(path))
    assert m.time.magnitude == pytest.approx(0.8)
    assert m.tokens_per_s.magnitude == pytest.approx(640 * 32 / 0.8)
    assert m.flops == six_nd(record().parameters, 640 * 32)
    assert m.flops_per_s.magnitude == pytest.approx(m.flops.magnitude / 1.6)
    assert m.mfu(Q(100, "TFLOP/s")) == pytest.approx(m.flops.magnitude / 1.6e14)
    assert m.communication_share == pytest.approx(0.25)
    assert m.loss == 2.5
    assert m.at_this_rate(m.flops).to("s").magnitude == pytest.approx(0.8)
    assert m.at_this_rate(m.flops, 8).to("s").magnitude == pytest.approx(0.2)


def test_exact_count():
    assert measure(record(), TINY, 32).flops == training_flops(TINY, 640 * 32, 32)


def test_samples_stand_for_tokens():
    assert measure(record(tokens=None)).tokens == Q(640, "token")


def test_refused():
    with pytest.raises(ValueError, match="record holds no time"):
        measure(record(compute_s=(0.0,) * 20, communication_s=(0.0,) * 20))
    with pytest.raises(ValueError, match="arch has 124,439,808 parameters and the record"):
        measure(record(), MODELS["gpt2"])


def test_a_run_of_two_layouts_is_refused():
    mixed = record(scores={STEPS_ELSEWHERE: 12})
    with pytest.raises(
        ValueError, match=r"one layout, and 12 of its 20 steps were taken in another"
    ):
        measure(mixed)
