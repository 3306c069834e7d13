"""The sweep of small runs: its command, Ctrl-C and going on, its table, and that the shipped table is its work."""

import os
import re
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ctrl_c import stopped

from bigmodel_lab.models import GPT, pretrained
from bigmodel_lab.plan import Architecture, kernel_share, small_runs, training_flops
from bigmodel_lab.plan.tables import __file__ as TABLES
from bigmodel_lab.train import RunRecord
from bigmodel_lab.train import small_runs as command
from bigmodel_lab.train.pretrain_text import corpus
from bigmodel_lab.train.small_runs import Shape, Sweep, main, make_runs

LINES = re.findall(r"python -m bigmodel_lab\.train\.small_runs (.+)", command.__doc__)
SMALL = Sweep(sizes="1x8 1x16 1x24", steps="4 8 16", context=32, batch=4, part=1024)


@pytest.fixture(scope="module")
def text():
    return corpus(command.VOCAB)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What the smallest line to paste makes."""
    folder = tmp_path_factory.mktemp("sweep")
    main([str(folder), *shlex.split(LINES[1])[1:], "--part", "1024"])
    return folder, small_runs(folder / "small_runs.csv")


def test_each_run_is_measured(made, text):
    folder, runs = made
    assert {r.name for r in runs} == {f"1x{w}-{n}" for w in (8, 16, 24) for n in (4, 8, 16)}
    cost = [r.parameters * r.tokens for r in runs]
    assert cost == sorted(cost)
    for r in runs:
        record = RunRecord.load(folder / r.name / "run.json")
        config = SMALL.model(Shape(1, r.width, record.steps))
        assert r.parameters == config.n_parameters == record.parameters
        assert r.non_embedding == r.parameters - 2048 * r.width
        assert r.tokens == record.tokens == record.steps * 4 * 32
        assert r.flops == training_flops(Architecture.of(config), r.tokens).magnitude
        assert r.loss == pytest.approx(record.scores["validation loss"], abs=5e-5)
        assert next(iter(record.scores)) == f"validation loss at step {record.steps}"
        assert not (folder / r.name / "checkpoints").exists()
        assert 0 < kernel_share(record, Architecture.of(config)) < 1  # the roof is in the record
    at = {r.name: r.loss for r in runs}
    assert at["1x24-16"] < at["1x24-4"] < np.log(2048) + 0.1


def test_made_again_from_the_start_it_is_the_same(made, text, tmp_path):
    _, runs = made
    again = make_runs(replace(SMALL, sizes="1x24", steps="16"), text, tmp_path)
    assert [(r.name, r.loss) for r in again] == [(r.name, r.loss) for r in runs[-1:]]


def test_more_runs_are_added_and_the_old_are_kept(made, text, tmp_path):
    folder = shutil.copytree(made[0], tmp_path / "more")
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*/run.json")}
    more = make_runs(replace(SMALL, sizes="1x8 1x32", steps="4 8", limit=3e8), text, folder)
    assert [r.name for r in more] == ["1x8-4", "1x8-8", "1x32-4"]  # the fourth is above the limit
    assert len(before) == 9
    assert all(p.stat().st_mtime_ns == t for p, t in before.items())
    assert list(small_runs(folder / "small_runs.csv")) == more


def test_other_settings_do_not_mix(made, text):
    folder, _ = made
    with pytest.raises(ValueError, match=r"holds runs with lr=0.012 and not 0.02, which do not"):
        make_runs(replace(SMALL, lr=0.02), text, folder)


def test_the_table_says_how_it_was_made(made):
    folder, _ = made
    head = [x for x in (folder / "small_runs.csv").read_text("utf-8").splitlines() if x[0] == "#"]
    assert head[1].endswith(
        "small --sizes '1x8 1x16 1x24' --steps '4 8 16' --context 32 --part 1024"
    )
    assert re.match(r"# date: \d{4}-\d\d-\d\d, on .+; bigmodel_lab ", head[2])
    assert "1,025,443 training tokens" in head[4]
    assert "2,048 held out" in head[4]


def test_a_run_reaches_its_own_end_of_the_learning_rate():
    sweep = Sweep()
    short, long = (sweep.training(Shape(3, 48, n)) for n in (256, 4096))
    assert (short.steps, long.steps) == (256, 4096)
    assert short.floor == long.floor < 0.05
    assert short.lr == pytest.approx(0.012 * (16 / 48) ** 0.5)
    assert long.lr == pytest.approx(short.lr / 16**0.3)


def test_layers_pass_on_what_they_get():
    """With GPT's own initial weights, meant for wide models, a narrow block adds next to nothing to the stream."""
    sweep, shape = Sweep(), Shape(2, 16, 256)
    ours, plain = command._model(sweep, shape), GPT(sweep.model(shape), "numba", seed=0)
    assert ours.blocks[0].mlp.up.weight.std().item() == pytest.approx(16**-0.5, rel=0.1)
    assert plain.blocks[0].mlp.up.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert ours.tokens.weight.equal(plain.tokens.weight)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_saves_and_the_same_line_goes_on(tmp_path):
    options = ["--sizes", "1x8", "--context", "32", "--part", "1024"]
    line = [sys.executable, "-m", "bigmodel_lab.train.small_runs", str(tmp_path), *options]
    out = stopped([*line, "--steps", "2 100000"], b"/100000 steps")
    assert "1 of 2: 1x8-2, 17,240 parameters, 256 tokens, loss" in out
    assert "1 runs are in" in out
    assert "1 to go: the same line again goes on" in out
    assert (tmp_path / "1x8-100000" / "checkpoints" / "latest").exists()
    assert [r.name for r in small_runs(tmp_path / "small_runs.csv")] == ["1x8-2"]


def test_a_stopped_run_ends_as_if_it_had_not_been(text, tmp_path, monkeypatch):
    """One is stopped after 3 of 8 steps and goes on: the same loss, to the last digit of the record."""
    sweep = replace(SMALL, sizes="1x8", steps="8")
    (whole,) = make_runs(sweep, text, tmp_path / "whole")
    real, calls = command.fit, []

    def stopped_at_3(*args, **kwargs):
        def press(status):
            if status.step == 3:
                signal.raise_signal(signal.SIGINT)

        calls.append(1)
        return real(*args, **kwargs, progress=press)

    monkeypatch.setattr(command, "fit", stopped_at_3)
    assert make_runs(sweep, text, tmp_path / "parts") == []
    monkeypatch.setattr(command, "fit", real)
    (resumed,) = make_runs(sweep, text, tmp_path / "parts")
    assert calls
    assert resumed.loss == whole.loss
    a, b = (RunRecord.load(tmp_path / x / "1x8-8" / "run.json").loss for x in ("whole", "parts"))
    assert a == b


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "2*16"], 'sizes must read like "2x16 3x48"'),
        (["--steps", "many"], 'steps like "128 256"'),
        (["--sizes", "2x24"], None),
        (["--sizes", "2x35"], "n_heads=2 does not divide width=35"),
        (["--limit", "10"], "limit=10 FLOP leaves no run: raise it"),
    ],
)
def test_what_cannot_be_says_so(options, message, tmp_path, capsys):
    if message is None:
        assert Sweep(sizes="2x24").shapes
        return
    with pytest.raises(SystemExit):
        main([str(tmp_path), *options])
    assert message in capsys.readouterr().err


def test_the_shipped_table_is_what_the_first_line_makes(text):
    """All but the losses, which take ten minutes: that of the cheapest is made again by a slow test."""
    sweep, runs = Sweep(), {r.name: r for r in small_runs()}
    assert LINES[0].split() == ["runs/small"]
    assert list(runs) == [s.name for s in sweep.shapes]
    for shape in sweep.shapes:
        run = runs[shape.name]
        assert run.tokens == sweep.tokens(shape)
        assert run.parameters == sweep.model(shape).n_parameters
        assert (
            run.flops == training_flops(Architecture.of(sweep.model(shape)), run.tokens).magnitude
        )
    head = Path(TABLES).with_name("small_runs.csv").read_text("utf-8").splitlines()
    assert head[1] == "# command: python -m bigmodel_lab.train.small_runs runs/small"
    assert text.tokenizer == pretrained()[1]


@pytest.mark.slow
def test_the_cheapest_shipped_run_can_be_made_again(text, tmp_path):
    """Another CPU rounds differently, and 256 steps make more of it: to 0.02 nats."""
    (again,) = make_runs(Sweep(sizes="2x16", steps="256"), text, tmp_path)
    assert again.loss == pytest.approx(small_runs()[0].loss, abs=0.02)
