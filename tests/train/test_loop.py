"""The training loop: beside one written by hand in torch, accumulation, evaluation, early stop, divergence, messages."""

import functools
import math
import os
import signal

import numpy as np
import pytest
import torch

from bigmodel_lab.models import MLP
from bigmodel_lab.rng import generator
from bigmodel_lab.train import (
    SGD,
    AdamW,
    Batches,
    Samples,
    TrainConfig,
    TrainingDiverged,
    fit,
    gradients,
    load_checkpoint,
    validation_curve,
    warmup_cosine,
    windows,
)

X = generator(0, "test_loop", "x").standard_normal((64, 12)).astype(np.float32)
Y = (X @ generator(0, "test_loop", "w").standard_normal((12, 4))).argmax(1)
VALIDATION = [(torch.from_numpy(X[:32]), torch.from_numpy(Y[:32]))]
CONFIG = TrainConfig(steps=12, batch=16, lr=1e-2, warmup=3)


def config(**changes):
    return TrainConfig(**vars(CONFIG) | changes)


def samples(batch=16, dtype=np.float32):
    return Samples(X.astype(dtype), Y, batch=batch, generator=generator(0, "draws"))


def quiet(status):
    pass


run = functools.partial(fit, progress=quiet)


def parameters(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize(
    ("dtype", "ops", "tolerance"),
    [
        (torch.float64, "torch", 1e-12),
        (torch.float64, "numba", 1e-12),
        (torch.float32, "torch", 1e-5),
        (torch.float32, "numba", 1e-5),
    ],
)
def test_is_the_loop_that_one_writes_by_hand_in_torch(dtype, ops, tolerance):
    as_numpy = torch.zeros(0, dtype=dtype).numpy().dtype
    ours = MLP([12, 16, 4], ops=ops).to(dtype)
    theirs = MLP([12, 16, 4]).to(dtype)
    record = run(ours, samples(dtype=as_numpy), config(clip=0.5))

    weights = [p for p in theirs.parameters() if p.ndim == 2]
    biases = [p for p in theirs.parameters() if p.ndim == 1]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": biases, "weight_decay": 0}]
    peer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    shape = functools.partial(warmup_cosine, lr=1.0, steps=12, warmup=3)
    schedule = torch.optim.lr_scheduler.LambdaLR(peer, shape)
    losses, clipped = [], 0
    for (x, y), _ in zip(samples(dtype=as_numpy), range(12), strict=False):
        peer.zero_grad()
        loss = torch.nn.functional.cross_entropy(theirs(x), y)
        loss.backward()
        clipped += torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5) > 0.5
        peer.step()
        schedule.step()
        losses.append(loss.item())
    assert clipped > 3
    assert losses[-1] < losses[0]
    np.testing.assert_allclose(record.loss, losses, atol=tolerance, rtol=0)
    assert (parameters(ours) - parameters(theirs)).abs().max() < tolerance


@pytest.mark.parametrize("ops", ["numba", "torch"])
def test_a_single_batch_is_learned_by_heart(ops):
    model = MLP([12, 32, 4], ops=ops)
    one = Samples(X[:8], Y[:8], batch=8, generator=generator(0))
    record = run(model, one, TrainConfig(steps=150, batch=8, lr=3e-2, weight_decay=0.0))
    assert record.loss[0] > 1
    assert record.loss[-1] < 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
@pytest.mark.parametrize("parts", [2, 3, 16])
def test_accumulated_gradients_are_those_of_the_whole_batch(dtype, tolerance, parts):
    x, y = torch.from_numpy(X[:16]).to(dtype), torch.from_numpy(Y[:16])
    whole, cut = MLP([12, 16, 4]).to(dtype), MLP([12, 16, 4]).to(dtype)
    loss = gradients(whole, (x, y))
    assert gradients(cut, (x, y), parts) == pytest.approx(loss, abs=tolerance)
    for p, q in zip(whole.parameters(), cut.parameters(), strict=True):
        assert (p.grad - q.grad).abs().max() < tolerance


def test_accumulation_changes_neither_the_draws_nor_the_run():
    models = [MLP([12, 16, 4]).double() for _ in range(2)]
    records = [
        run(m, samples(dtype=np.float64), config(accumulate=a))
        for m, a in zip(models, (1, 5), strict=True)
    ]
    np.testing.assert_allclose(records[0].loss, records[1].loss, rtol=1e-12)
    assert (parameters(models[0]) - parameters(models[1])).abs().max() < 1e-12


def test_what_progress_is_told_and_what_the_record_holds():
    told, closed = [], []

    class Progress:
        def __call__(self, status):
            told.append(status)

        def close(self):
            closed.append(True)

    tokens = np.arange(100) % 7
    model = Bigram()
    record = fit(
        model, Batches(tokens, 4, 8, generator(0)), TrainConfig(steps=6, batch=4, lr=0.1, warmup=2, eval_every=3, seed=5),
        validation=windows(tokens, 4, 8), progress=Progress(), name="bigram", data="counting",
    )  # fmt: skip
    assert closed == [True]
    assert [s.step for s in told] == [1, 2, 3, 4, 5, 6]
    assert [s.loss for s in told] == list(record.loss)
    assert [s.lr for s in told] == [warmup_cosine(i, lr=0.1, steps=6, warmup=2) for i in range(6)]
    steps, losses = validation_curve(record)
    assert steps == [3, 6]
    assert [s.validation_loss for s in told] == [
        None,
        None,
        losses[0],
        losses[0],
        losses[0],
        losses[1],
    ]
    assert all(
        s.unit == "tokens" and s.rate > 0 and s.steps == 6 and s.gradient_norm > 0 for s in told
    )
    assert told[-1].left_s == 0 < told[0].left_s
    assert (record.model, record.data, record.seed) == ("bigram", "counting", 5)
    assert (record.samples, record.tokens, record.parameters) == (24, 192, 49)
    assert record.scores["validation loss"] == losses[1] < losses[0]
    assert len(record.compute_s) == 6
    assert record.memory_bytes == {"parameters": 196, "gradients": 196, "optimizer states": 392}


class Bigram(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(7, 7))

    def loss(self, x, y):
        return torch.nn.functional.cross_entropy(self.logits[x].flatten(0, 1), y.flatten())


def test_own_loss_optimiser_and_schedule():
    rates, made = [], []

    def optimizer(groups, lr):
        made.append(SGD(groups, lr=lr, momentum=0.9))
        return made[0]

    model = torch.nn.Linear(12, 4)
    run(
        model, samples(), config(), loss=lambda m, x, y: torch.nn.functional.cross_entropy(m(x), y),
        optimizer=optimizer, schedule=lambda step: 0.1 / (step + 1), progress=lambda s: rates.append(s.lr),
    )  # fmt: skip
    assert rates == [0.1 / (step + 1) for step in range(12)]
    assert [g["weight_decay"] for g in made[0].param_groups] == [0.1, 0.0]
    assert isinstance(made[0], SGD)


def test_seeded_runs_are_equal_and_torch_s_generator_is_left_alone():
    before = torch.get_rng_state()
    records = []
    for seed in (1, 1, 2):
        model = Droppy()
        records.append(run(model, samples(), config(seed=seed)))
        torch.rand(1)  # what happens in between does not matter
        torch.set_rng_state(before)
    assert records[0].loss == records[1].loss != records[2].loss
    run(Droppy(), samples(), CONFIG)
    assert torch.equal(torch.get_rng_state(), before)


class Droppy(MLP):
    def __init__(self):
        super().__init__([12, 16, 4])

    def forward(self, x):
        return super().forward(torch.nn.functional.dropout(x, 0.3, self.training))


def test_early_stop_and_the_best_checkpoint(tmp_path, capsys):
    """A rate that rises far too high: the validation loss falls, then grows."""
    model = MLP([12, 32, 4])
    record = run(
        model, samples(), config(steps=400, eval_every=2, patience=3, keep=1, clip=math.inf, warmup=0),
        validation=VALIDATION, schedule=lambda step: 0.01 if step < 20 else 0.5, folder=tmp_path,
    )  # fmt: skip
    steps, losses = validation_curve(record)
    best = steps[int(np.argmin(losses))]
    assert record.steps == steps[-1] == best + 6 < 400
    said = f"Stopped early after step {record.steps} of 400: no evaluation was better than that of step {best} "
    assert said in capsys.readouterr().out
    kept = load_checkpoint(tmp_path, "best")
    assert kept.step == best
    assert record.scores["best validation loss"] == min(losses) < record.scores["validation loss"]
    model.load_state_dict(kept.model)
    assert model.loss(*VALIDATION[0]).item() == pytest.approx(min(losses), rel=1e-6)
    assert load_checkpoint(tmp_path).step == record.steps


@pytest.mark.skipif(os.name != "posix", reason="sends itself a signal")
@pytest.mark.parametrize("folder", [None, "run"])
def test_ctrl_c_stops_when_the_step_is_complete(tmp_path, capsys, folder):
    folder = folder and tmp_path / folder

    class PressedDuringTheBackwardPass(MLP):
        def loss(self, x, y):
            loss = super().loss(x, y)
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 5:
                loss.register_hook(lambda g: os.kill(os.getpid(), signal.SIGINT))
            return loss

    model, before = PressedDuringTheBackwardPass([12, 16, 4]), signal.getsignal(signal.SIGINT)
    record = run(model, samples(), CONFIG, folder=folder)
    assert signal.getsignal(signal.SIGINT) is before
    assert record.steps == 5
    straight = MLP([12, 16, 4])
    whole = run(straight, samples(), CONFIG)
    assert record.loss == whole.loss[:5]
    said = capsys.readouterr().out
    if folder:
        assert said == (
            "Stopped by Ctrl-C after step 5 of 12, saved as step-00000005; resume=True goes on from there.\n"
        )
        assert load_checkpoint(folder).step == 5
        assert torch.equal(load_checkpoint(folder).model["layers.0.bias"], model.layers[0].bias)
    else:
        assert said == "Stopped by Ctrl-C after step 5 of 12, not saved.\n"


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (lambda loss, p: loss * math.nan, "loss is nan"),
        (lambda loss, p: loss * math.inf, "loss is inf"),
        (lambda loss, p: loss + (p * 0).abs().sqrt().sum(), "gradient's norm is nan"),  # the slope of sqrt at 0
    ],
)  # fmt: skip
def test_a_step_that_would_spoil_the_model_is_not_taken(tmp_path, spoil, what):
    model, before = MLP([12, 16, 4]), []

    def loss(m, x, y):
        before.append(parameters(m).clone())
        return spoil(m.loss(x, y), m.layers[0].bias) if len(before) == 8 else m.loss(x, y)

    message = rf"The {what} at step 8 of 12 \(learning rate 0\.0\d+\)\. That step was not taken: the parameters are those after step 7\. The last checkpoint is step-00000006\."
    with pytest.raises(TrainingDiverged, match=message) as caught:
        run(model, samples(), config(checkpoint_every=3), loss=loss, folder=tmp_path)
    assert torch.equal(parameters(model), before[-1])
    assert parameters(model).isfinite().all()
    assert caught.value.record.steps == 7
    found = load_checkpoint(tmp_path)
    assert found.step == 6
    assert torch.equal(torch.cat([t.reshape(-1) for t in found.model.values()]), before[6])


@pytest.mark.parametrize(
    ("settings", "options", "error", "message"),
    [
        ({"batch": 8}, {}, ValueError, "batches gave 16 rows and config.batch is 8"),
        ({"eval_every": 2}, {}, ValueError, "eval_every=2 needs something to evaluate on"),
        ({"checkpoint_every": 2}, {}, ValueError, "checkpoint_every=2 needs a folder"),
        ({}, {"batches": iter(VALIDATION * 3), "folder": "x"}, TypeError, "list_iterator without state_dict"),
        ({"batch": 32}, {"batches": iter(VALIDATION * 3)}, ValueError, "batches ran out after 3 of 12 steps"),
        ({}, {"optimizer": functools.partial(AdamW, ops="nunba")}, ValueError, "ops must be one of"),
    ],
)  # fmt: skip
def test_messages(settings, options, error, message):
    with pytest.raises(error, match=message):
        run(MLP([12, 4]), **{"batches": samples(), "config": config(**settings)} | options)
