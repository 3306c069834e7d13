"""The pretrained model: its command, Ctrl-C and going on; and what is said of the one that ships."""

import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ctrl_c import stopped

from bigmodel_lab import models
from bigmodel_lab.text import NGram
from bigmodel_lab.train import RunRecord, evaluate, load_checkpoint, validation_curve, windows
from bigmodel_lab.train import pretrain as command
from bigmodel_lab.train.pretrain import (
    QUICK,
    Recipe,
    ended,
    finish,
    main,
    pretrain,
    readme,
    table,
)
from bigmodel_lab.train.pretrain_text import TEXTS, corpus, overlapping, part, split, tail_loss

LINES = re.findall(r"python -m bigmodel_lab\.train\.pretrain (.+)", command.__doc__)
SMALLEST = LINES[1].split()[1:]  # without its folder
RECIPE = Recipe(
    width=32, n_layers=1, n_heads=2, context=32, part=2048, warmup=4, steps=8, eval_every=4
)


@pytest.fixture(scope="module")
def text():
    return corpus(2048)


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the command, in a process, that was stopped by Ctrl-C, went on, and ended."""
    folder = tmp_path_factory.mktemp("pretrain")
    line = [sys.executable, "-m", "bigmodel_lab.train.pretrain", str(folder), *SMALLEST]
    out = stopped([*line, "--steps", "100000", "--eval-every", "1000"], b"/100000 steps")
    return folder, out


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_saves_and_the_same_command_goes_on(run, capsys):
    folder, out = run
    assert "Stopped by Ctrl-C after step" in out
    assert not (folder / "pretrained").exists()
    stopped = RunRecord.load(folder / "run.json")
    assert 0 < stopped.steps < 100000
    assert load_checkpoint(folder / "checkpoints").step == stopped.steps
    steps = stopped.steps + 5
    with pytest.warns(UserWarning, match=f"steps was 100000 and is {steps}"):
        main([str(folder), *SMALLEST, "--steps", str(steps), "--eval-every", "1000"])
    record = RunRecord.load(folder / "pretrained" / "record.json")
    assert record.steps == steps
    assert record.loss[: stopped.steps] == pytest.approx(stopped.loss, rel=1e-4)
    assert table(record) in capsys.readouterr().out
    model, tokenizer = models.pretrained(folder / "pretrained")
    assert model.config.width == 32
    assert tokenizer.vocab_size == 2048


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The smallest run, to its end, and its record."""
    folder = tmp_path_factory.mktemp("small")
    main([str(folder), *SMALLEST, "--steps", "8", "--eval-every", "4"])
    return folder, RunRecord.load(folder / "pretrained" / "record.json")


def test_the_smallest_run_writes_a_model_with_its_scores(small, text):
    folder, record = small
    files = {"README.md", "manifest.json", "model.safetensors", "record.json", "tokenizer.json"}
    assert {p.name for p in (folder / "pretrained").iterdir()} == files
    model, tokenizer = models.pretrained(folder / "pretrained")
    assert tokenizer == text.tokenizer
    assert record.tokens == 8 * 6 * 32
    assert validation_curve(record)[0] == [4, 8]
    assert record.parameters == sum(p.numel() for p in model.parameters())
    for language in TEXTS:
        ids, name = text.held_out[language], f"{language}: "
        loss = evaluate(model, overlapping(ids, 32), tail_loss)
        apart = evaluate(model, windows(ids, 16, 32))
        assert record.scores[name + "nats per token, windows apart"] == pytest.approx(
            apart, rel=1e-5
        )
        assert record.scores[name + "nats per token"] == pytest.approx(loss, rel=1e-5)
        nats = loss * (len(ids) - 1)
        bits = nats / np.log(2) / len("".join(split(language)[1]).encode())
        assert record.scores[name + "bits per byte"] == pytest.approx(bits, rel=1e-5)
        assert loss < np.log(2048)
    assert (folder / "pretrained" / "README.md").read_text("utf-8") == readme(RECIPE, record)
    assert f"{record.scores['English: nats per token']:.3f}" in readme(RECIPE, record)


def test_a_run_that_was_killed_ends_with_the_same_bits(small, text, tmp_path):
    folder, _ = small
    weights = load_checkpoint(folder / "checkpoints").model
    again = tmp_path / "again" / "checkpoints"
    shutil.copytree(folder / "checkpoints", again)
    shutil.rmtree(again / "step-00000008")  # all that there was when it was killed
    for pointer in ("latest", "best"):
        (again / pointer).write_text("step-00000004\n")
    repeated = pretrain(RECIPE, text, again.parent)
    assert repeated.loss == record_of(folder).loss
    for name, w in load_checkpoint(again).model.items():
        assert torch.equal(w, weights[name]), name


def record_of(folder):
    return RunRecord.load(folder / "run.json")


def test_finish_takes_the_best_model_and_not_the_last(small, text):
    folder, record = small
    (folder / "checkpoints" / "best").write_text("step-00000004\n")
    try:
        finished = finish(RECIPE, text, folder)
        best = load_checkpoint(folder / "checkpoints", "best").model
    finally:
        (folder / "checkpoints" / "best").write_text("step-00000008\n")
    last = load_checkpoint(folder / "checkpoints").model
    model, _ = models.pretrained(folder / "pretrained")
    assert finished.scores["step of the best validation loss"] == 4
    assert finished.steps == record.steps
    assert torch.equal(model.norm.weight, best["norm.weight"].half().float())
    assert not torch.equal(model.norm.weight, last["norm.weight"].half().float())


def test_finish_without_a_run_says_what_to_do(text, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no run\.json: a run writes it when it ends"):
        finish(Recipe(), text, tmp_path)


def test_ended_tells_an_early_stop_from_ctrl_c(small):
    _, record = small

    def after(losses):
        scores = {f"validation loss at step {i + 1}": x for i, x in enumerate(losses)}
        return RunRecord(**{**vars(record), "scores": scores})

    recipe = Recipe(steps=100, warmup=2, patience=2)
    assert not ended(recipe, after([3.0, 2.0, 2.5]))
    assert ended(recipe, after([3.0, 2.0, 2.5, 2.1]))
    assert not ended(recipe, after([]))
    assert ended(Recipe(steps=8, warmup=2), after([]))


def test_the_lines_to_paste_are_the_recipe_and_the_smallest_run():
    assert LINES[0].split() == ["runs/pretrained"]
    assert SMALLEST[:2] == ["--steps", "40"]


def test_a_recipe_that_cannot_be_says_so(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--n-heads", "7"])
    assert "n_heads=7 does not divide width=192" in capsys.readouterr().err
    with pytest.raises(ValueError, match="part"):
        Recipe(part=100)
    with pytest.raises(ValueError, match="warmup"):
        Recipe(steps=10)


# --- what is said of the shipped model --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    model, tokenizer = models.pretrained(ops="numba")
    return model, tokenizer, RunRecord.load(models.PRETRAINED / "record.json")


def test_the_default_recipe_is_the_shipped_model(shipped, text):
    model, tokenizer, record = shipped
    assert model.config == Recipe().model
    assert tokenizer == text.tokenizer
    assert record.parameters == model.config.n_parameters
    assert record.tokens == record.steps * Recipe().batch * Recipe().context
    assert len(record.loss) == record.steps <= Recipe().steps
    assert not re.search("/(home|root|tmp|work)", str(vars(record)))


def test_the_shipped_readme_is_that_of_the_record(shipped):
    """And one paragraph more, on what the command cannot know."""
    written = (Path(models.PRETRAINED) / "README.md").read_text("utf-8")
    for paragraph in readme(Recipe(), shipped[2]).split("\n\n"):
        assert paragraph.strip() in written


@pytest.mark.parametrize("language", TEXTS)
def test_the_shipped_weights_give_the_shipped_loss(shipped, text, language):
    model, _, record = shipped
    few = part(text.held_out[language], model.config.context, QUICK)
    score = record.scores[f"{language}: nats per token on a part"]
    assert evaluate(model, few) == pytest.approx(score, abs=1e-4)
    exact = record.scores[f"{language}: nats per token on a part, in float32"]
    assert score == pytest.approx(exact, abs=5e-3)  # what float16 costs


@pytest.mark.parametrize("language", TEXTS)
def test_the_shipped_model_beats_the_ngram_model(shipped, text, language):
    """Of every order: more tokens before a token would not help the n-gram model."""
    _, tokenizer, record = shipped
    ids = text.held_out[language]
    losses = {
        order: NGram.fit(text.train[language], tokenizer.vocab_size, order).nll(ids)[1:].mean()
        for order in (3, 5, 7)
    }
    assert record.scores[f"{language}: nats per token"] < min(losses.values())


@pytest.mark.parametrize("language", TEXTS)
def test_the_ngram_loss_of_the_record_is_computed_again(shipped, text, language):
    _, tokenizer, record = shipped
    ids = text.held_out[language]
    loss = NGram.fit(text.train[language], tokenizer.vocab_size).nll(ids)[1:].mean()
    assert record.scores[f"{language}: n-gram, nats per token"] == pytest.approx(loss, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("language", TEXTS)
def test_the_shipped_loss_on_all_held_out_text(shipped, text, language):
    model, _, record = shipped
    loss = evaluate(model, overlapping(text.held_out[language], model.config.context), tail_loss)
    assert loss == pytest.approx(record.scores[f"{language}: nats per token"], abs=1e-4)
