"""Checkpoints of many ranks: another layout goes on as if nothing had happened, damage is seen, a failed write leaves nothing."""

import dataclasses
import errno
import json
from pathlib import Path

import pytest
import torch
import torch.distributed
from gpt_cases import GptCase, adamw

from bigmodel_lab import dist
from bigmodel_lab.dist.checkpoint import ShardedCheckpoints
from bigmodel_lab.dist.composed import Composed
from bigmodel_lab.models import GPTConfig
from bigmodel_lab.train import Layout

T, BEFORE, AFTER, CLIP = 8, 2, 2, 0.3
FORMS = {  # 13 tokens: a vocabulary that two ranks cannot share evenly
    "gpt2": GPTConfig.gpt2(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),  # tied
    "llama": GPTConfig.llama(vocab_size=13, context=T, n_layers=4, width=16, n_heads=4),
}
CASES = {
    form: GptCase(config, (8,) * (BEFORE + AFTER), frozen_layer=2, clip=CLIP)
    for form, config in FORMS.items()
}
CASES["frozen"] = dataclasses.replace(CASES["gpt2"], frozen=("tokens", "positions", "blocks.0"))


def go_on(form, layout, folder, steps, *, save=False, chunks=1):
    """Train from the folder's checkpoint, or from the start, up to `steps`; return the losses and where it began."""
    gpt = CASES[form].model()
    schedule = "interleaved" if chunks > 1 else "1f1b"
    options = dict(micros=max(1, layout.pp), schedule=schedule, chunks=chunks)
    model = Composed(gpt, layout, adamw, weight_decay=0.1, clip=CLIP, **options)
    checkpoints = ShardedCheckpoints(folder, gpt, model)
    begin, state = checkpoints.load() or (0, {"said": 0})
    losses = [model.step(*CASES[form].batch(step)) for step in range(begin, steps)]
    if save:
        path = checkpoints.save(steps, {"said": state["said"] + 1})
        assert path.is_dir()
    return begin, state, losses


@pytest.mark.parametrize(
    ("form", "written", "chunks", "read"),
    [
        ("gpt2", Layout(dp=2, tp=2, zero=1), 1, [Layout(), Layout(tp=2)]),
        ("llama", Layout(dp=4, zero=3), 1, [Layout(dp=2, zero=2), Layout(tp=2, pp=2)]),
        ("gpt2", Layout(dp=2, pp=2), 1, [Layout(dp=2, zero=3), Layout()]),
        ("llama", Layout(tp=2, pp=2), 2, [Layout(dp=2, zero=1)]),
        ("frozen", Layout(pp=4), 1, [Layout(tp=2)]),  # rank 0 has nothing to train
    ],
    ids=str,
)
def test_any_layout_goes_on_from_any_other(form, written, chunks, read, tmp_path):
    alone, want, _ = CASES[form].alone()
    steps = BEFORE + AFTER
    dist.run(go_on, form, written, tmp_path, BEFORE, save=True, chunks=chunks, ranks=4)
    size = sum(p.stat().st_size for p in tmp_path.rglob("*.safetensors"))
    for layout in read:
        for begin, state, losses in dist.run(
            go_on, form, layout, tmp_path, steps, ranks=layout.ranks
        ):
            assert (begin, state) == (BEFORE, {"said": 1})
            assert losses == pytest.approx(want[BEFORE:], abs=1e-12)
    n = sum(p.numel() for p in alone.parameters() if p.requires_grad)
    assert (
        24 * n < size < 1.35 * 24 * n
    )  # three float64 a number; norms and tied copies are in it twice


def test_the_same_layout_goes_on_bit_for_bit(tmp_path):
    layout, steps = Layout(dp=2, tp=2), BEFORE + AFTER
    whole = dist.run(go_on, "gpt2", layout, tmp_path / "none", steps, ranks=4)
    dist.run(go_on, "gpt2", layout, tmp_path, BEFORE, save=True, ranks=4)
    rest = dist.run(go_on, "gpt2", layout, tmp_path, steps, ranks=4)
    assert [r[2] for r in rest] == [w[2][BEFORE:] for w in whole]


def test_a_torn_checkpoint_is_skipped_and_named(tmp_path, capfd):
    for steps in (1, 2):
        dist.run(go_on, "gpt2", Layout(dp=2), tmp_path, steps, save=True, ranks=2)
    (tmp_path / "step-00000002" / "rank-00001.safetensors").write_bytes(b"torn")
    for begin, _, losses in dist.run(go_on, "gpt2", Layout(dp=2), tmp_path, 3, ranks=2):
        assert (begin, len(losses)) == (1, 2)
    said = capfd.readouterr().out
    assert "skipped others" in said
    assert "rank-00001.safetensors has 4 bytes of" in said


def test_checkpoints_of_another_model_are_refused(tmp_path):
    dist.run(go_on, "gpt2", Layout(dp=2), tmp_path, 1, save=True, ranks=2)
    with pytest.raises(dist.RankError, match="is not of this model, which trains"):
        dist.run(go_on, "llama", Layout(dp=2), tmp_path, 2, ranks=2)


def write_on_a_full_disk(folder, sick):
    gpt = CASES["gpt2"].model()
    model = Composed(gpt, Layout(dp=2), adamw)
    checkpoints = ShardedCheckpoints(folder, gpt, model)
    checkpoints.save(1, {})
    if torch.distributed.get_rank() == sick:
        from bigmodel_lab.train import checkpoint_files

        def full(path, data):
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        checkpoint_files.write_file = full
    with pytest.raises(OSError, match="step 2") as caught:
        checkpoints.save(2, {})
    return str(caught.value), caught.value.__notes__


@pytest.mark.parametrize("sick", [0, 1])
def test_a_full_disk_on_one_rank_is_told_on_all_and_leaves_nothing(sick, tmp_path):
    for message, notes in dist.run(write_on_a_full_disk, tmp_path, sick, ranks=2):
        assert "The checkpoint of step 2 was not written (No space left on device)" in message
        assert "Those written before are untouched" in message
        assert notes == [f"This happened on rank {sick}."]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latest", "step-00000001"]
    assert (tmp_path / "latest").read_text() == "step-00000001\n"


def test_old_checkpoints_go_and_the_layout_is_told(tmp_path):
    for steps in (1, 2, 3):
        dist.run(go_on, "llama", Layout(dp=2, zero=1), tmp_path, steps, save=True, ranks=2)
    assert sorted(p.name for p in Path(tmp_path).glob("step*")) == [
        "step-00000002",
        "step-00000003",
    ]
    told = json.loads((tmp_path / "step-00000003" / "state.json").read_text())
    assert told["layout"] == {"dp": 2, "tp": 1, "pp": 1, "zero": 1}
    assert told["scalars"] == {"step": 3.0}
