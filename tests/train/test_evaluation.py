"""Evaluation: the mean over all targets, modes left as they were, no gradients."""

import math

import pytest
import torch

from bigmodel_lab.models import MLP
from bigmodel_lab.train import evaluate

X = torch.randn(10, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(10) % 3


def test_does_not_depend_on_how_the_data_are_cut():
    model = MLP([6, 8, 3])
    whole = model.loss(X, Y).item()
    for cuts in ((10,), (3, 3, 3, 1), (1, 9)):
        batches = zip(X.split(cuts), Y.split(cuts), strict=True)
        assert evaluate(model, batches) == pytest.approx(whole, rel=1e-6)


def test_dropout_is_off_and_modes_come_back():
    model = torch.nn.Sequential(torch.nn.Linear(6, 3), torch.nn.Dropout(0.5), torch.nn.Dropout(0.5))
    model[2].eval()

    def loss(net, x, y):
        assert not torch.is_grad_enabled()
        return torch.nn.functional.cross_entropy(net(x), y)

    state = torch.get_rng_state()
    first, second = (evaluate(model, [(X, Y)], loss) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model] == [True, True, False]
    assert torch.is_grad_enabled()


def test_modes_come_back_after_an_error():
    model = torch.nn.Sequential(torch.nn.Linear(6, 3))
    with pytest.raises(
        TypeError, match=r"Sequential gave \(10, 3\) for a batch and no scalar: pass loss="
    ):
        evaluate(model, [(X,)])
    assert model.training


def test_a_model_that_gives_its_loss_when_called():
    class Called(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mlp = MLP([6, 3])

        def forward(self, x, y):
            return self.mlp.loss(x, y)

    assert evaluate(Called(), [(X, Y)]) == evaluate(MLP([6, 3]), [(X, Y)])


def test_nothing_to_evaluate_on_is_nan():
    assert math.isnan(evaluate(MLP([6, 3]), []))
