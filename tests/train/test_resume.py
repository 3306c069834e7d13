"""A run that was stopped and goes on ends with the same bits as one that never was."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.rng import generator
from bigmodel_lab.train import (
    SGD,
    Batches,
    CheckpointWarning,
    TrainConfig,
    fit,
    load_checkpoint,
    windows,
)

TOKENS = generator(0, "test_resume").integers(0, 20, 600) // 2
CONFIG = TrainConfig(steps=12, batch=6, lr=1e-2, warmup=3, accumulate=2, eval_every=4, seed=3)


class CharModel(torch.nn.Module):
    """Predict the next token from the last few; dropout from torch's generator, and noise from one of its own."""

    def __init__(self, seed, ops="numba"):
        super().__init__()
        self.ops = ops
        self.noise = generator(seed, "noise")
        self.embed = torch.nn.Embedding(10, 16)
        self.rnn = torch.nn.GRU(16, 16, batch_first=True)
        self.drop = torch.nn.Dropout(0.2)
        with torch.no_grad():
            for p in self.parameters():
                p.copy_(torch.from_numpy(generator(seed, str(p.shape)).normal(0, 0.3, p.shape)))

    def loss(self, x, y):
        h = self.drop(self.embed(x))
        if self.training:
            h = h + float(self.noise.normal(0, 0.01))
        h = self.drop(self.rnn(h)[0])
        return torch.nn.functional.cross_entropy(
            (h @ self.embed.weight.T).flatten(0, 1), y.flatten()
        )


def press_at(step, status):
    """Press Ctrl-C when the loop reports `step`."""
    if status.step == step:
        os.kill(os.getpid(), signal.SIGINT)


def train(folder=None, *, steps=None, seed=0, ops="numba", config=CONFIG, **options):
    """Train, all objects made anew; with `steps`, stop there as by Ctrl-C."""
    model = CharModel(seed, ops)
    progress = functools.partial(press_at, steps)
    batches = Batches(TOKENS, 6, 8, generator(seed, "draws"))
    record = fit(
        model, batches, config, validation=windows(TOKENS[:90], 6, 8), folder=folder, progress=progress, **options
    )  # fmt: skip
    return model, record


def same(one, other):
    (a, ra), (b, rb) = one, other
    assert ra.loss == rb.loss
    assert ra.scores == rb.scores
    assert ra.samples == rb.samples
    for name, t in a.state_dict().items():
        assert torch.equal(t, b.state_dict()[name]), name
    return True


MAKE = {
    "adamw": {},
    "torch's adamw": {"ops": "torch"},
    "sgd": {"optimizer": lambda groups, lr: SGD(groups, lr=lr, momentum=0.9)},
    "torch's own": {"optimizer": torch.optim.RMSprop},
}


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize("how", MAKE)
def test_stopped_twice_and_resumed(tmp_path, how):
    """The objects that resume begin with other weights and other generators: nothing of theirs may be left."""
    straight = train(**MAKE[how])
    _, first = train(tmp_path, steps=2, **MAKE[how])
    assert first.steps == 3  # the wish is seen when the next step is complete
    _, second = train(tmp_path, steps=7, seed=8, resume=True, **MAKE[how])
    assert second.loss[:3] == first.loss
    assert same(train(tmp_path, seed=9, resume=True, **MAKE[how]), straight)
    assert first.compute_s == second.compute_s[:3]


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize("ops", ["numba", "torch"])
def test_a_gpt_with_dropout_stopped_and_resumed(tmp_path, ops):
    form = GPTConfig.gpt2(10, 8, n_layers=2, width=16, n_heads=2, dropout=0.2)
    settings = TrainConfig(steps=6, batch=6, lr=1e-2, accumulate=2)

    def go(folder, steps=None, seed=0):
        model = GPT(form, ops, seed=seed)
        batches = Batches(TOKENS, 6, 8, generator(seed, "draws"))
        stop = functools.partial(press_at, steps)
        return model, fit(model, batches, settings, folder=folder, progress=stop, resume=True)

    straight = go(None)
    assert go(tmp_path, steps=2)[1].steps == 3
    assert same(go(tmp_path, seed=1), straight)
    assert (tmp_path / "step-00000006" / "model.safetensors").stat().st_size < 60_000  # tied once


def test_a_damaged_checkpoint_costs_steps_and_not_the_result(tmp_path):
    config = TrainConfig(**vars(CONFIG) | {"checkpoint_every": 4, "keep": 3})
    straight = train(tmp_path / "a", config=config)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "step-00000012" / "state.safetensors").write_bytes(b"cut")
    with pytest.warns(
        CheckpointWarning,
        match=r"Loaded step-00000008 .* step-00000012: state\.safetensors has 3 by",
    ):
        again = train(tmp_path / "b", seed=5, config=config, resume=True)
    assert same(again, straight)
    assert load_checkpoint(tmp_path / "b").path.name == "step-00000012.1"


def test_a_finished_run_is_read_and_not_trained_on(tmp_path):
    done = train(tmp_path)
    before = load_checkpoint(tmp_path).path
    assert same(train(tmp_path, seed=4, resume=True), done)
    assert load_checkpoint(tmp_path).path == before


def test_resume_without_a_checkpoint_begins_anew(tmp_path):
    assert same(train(tmp_path / "none", resume=True), train())


def test_a_run_that_stopped_early_stays_stopped(tmp_path, capsys):
    config = TrainConfig(**vars(CONFIG) | {"eval_every": 1, "patience": 1, "lr": 0.0})
    _, record = train(tmp_path, config=config)
    assert record.steps == 2
    _, again = train(tmp_path, config=config, resume=True)
    assert again.steps == 2
    assert capsys.readouterr().out.count("Stopped early after step 2 of 12") == 2


def test_another_run_s_folder_is_refused(tmp_path):
    train(tmp_path)
    with pytest.raises(ValueError, match="holds checkpoints of another run: pass resume=True"):
        train(tmp_path)


def test_changed_settings_are_named_and_hold(tmp_path):
    train(tmp_path)
    longer = TrainConfig(**vars(CONFIG) | {"steps": 14, "weight_decay": 0.5})
    seen = []

    def optimizer(groups, lr):
        seen.append(torch.optim.AdamW(groups, lr=lr))
        return seen[0]

    with pytest.warns(
        UserWarning,
        match=r"other settings .*: steps was 12 and is 14, weight_decay was 0\.1 and is 0\.5",
    ):
        _, record = train(tmp_path, config=longer, resume=True, optimizer=optimizer)
    assert record.steps == 14
    assert seen[0].param_groups[0]["weight_decay"] == 0.5


def test_other_data_are_refused(tmp_path):
    train(tmp_path)
    model, batches = CharModel(0), Batches(TOKENS[::-1].copy(), 6, 8, generator(0))
    with pytest.raises(ValueError, match="belongs to other batches: tokens was"):
        fit(model, batches, CONFIG, validation=[], folder=tmp_path, resume=True)


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from pathlib import Path
import test_resume as t
from bigmodel_lab.train import AdamW, TrainConfig, fit, windows, Batches
from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.rng import generator

config = TrainConfig(**vars(t.CONFIG) | {"checkpoint_every": 2})
AdamW([torch.nn.Parameter(torch.zeros(1))]).zero_grad()  # imports once what every child would; starts no thread

def train(folder, kill, report):
    model = t.CharModel(0)
    def progress(status):
        if status.step == kill:
            os.kill(os.getpid(), signal.SIGKILL)
    batches = Batches(t.TOKENS, 6, 8, generator(0, "draws"))
    record = fit(model, batches, config, validation=windows(t.TOKENS[:90], 6, 8), folder=folder, progress=progress, resume=True)
    report.write_bytes(b"".join(p.detach().numpy().tobytes() for p in model.parameters()) + repr(record.loss).encode())

def in_child(*arguments):
    pid = os.fork()
    if pid == 0:
        try:
            train(*arguments)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])

base = Path(sys.argv[2])
killed = [in_child(base / "run", kill, base / "resumed") for kill in (3, 5, 10, None)]
killed.append(in_child(base / "straight", None, base / "whole"))
print(killed, (base / "resumed").read_bytes() == (base / "whole").read_bytes())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_processes_killed_three_times_end_as_one_that_was_not(tmp_path):
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        KILLED,
        os.path.dirname(__file__),
        str(tmp_path),
    ]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stdout == "[True, True, True, False, False] True\n", done.stderr[-2000:]


def test_the_state_file_can_be_read_by_a_person(tmp_path):
    train(tmp_path)
    state = json.loads((tmp_path / "step-00000012" / "state.json").read_text("utf-8"))["state"]
    assert state["config"]["lr"] == 1e-2
    assert state["batches"]["source"]["length"] == 8
    assert np.isfinite(state["history"]["evaluations"][0]["items"][1])
