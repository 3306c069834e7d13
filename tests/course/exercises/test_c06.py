"""The references of chapter c06 against programs that know nothing of them: a simulation, and torch's optimisers.

`tests/course/test_exercises.py` holds the graders to the references; this file holds the references to the truth.
"""

import numpy as np
import pytest
import torch

from bigmodel_lab.course.exercises import c06
from bigmodel_lab.rng import generator


@pytest.mark.parametrize("size", [1, 2, 5])
def test_largest_stable_lr_is_where_descent_turns_from_falling_to_growing(size):
    g = generator(0, "stable", str(size))
    a = g.normal(size=(size, size))
    H = a @ a.T + 0.1 * np.eye(size)
    steepest = np.linalg.eigh(H)[1][:, -1]
    limit = c06.largest_stable_lr(H)
    for share, grows in ((0.99, False), (1.01, True)):
        theta = steepest
        for _ in range(50):
            theta = theta - share * limit * H @ theta
        assert (np.linalg.norm(theta) > 1) is np.bool_(grows)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.95])
def test_momentum_weights_give_the_velocity_of_torch(beta):
    grads = generator(0, "momentum").normal(size=(9, 4))
    p = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    sgd = torch.optim.SGD([p], lr=1.0, momentum=beta)
    for t, g in enumerate(grads, start=1):
        before = p.detach().clone()
        p.grad = torch.from_numpy(g)
        sgd.step()
        velocity = (before - p.detach()).numpy()
        np.testing.assert_allclose(c06.momentum_weights(beta, t) @ grads[:t], velocity, atol=1e-12)


def test_adamw_step_equals_torch_over_many_steps():
    g = generator(0, "adamw")
    p = g.normal(size=(3, 4))
    settings = dict(lr=0.05, betas=(0.9, 0.99), eps=1e-6, weight_decay=0.3)
    q = torch.nn.Parameter(torch.from_numpy(p.copy()))
    adamw = torch.optim.AdamW([q], **settings)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t in range(1, 31):
        push = g.normal(size=p.shape) * 10.0 ** g.integers(-3, 3, p.shape)
        q.grad = torch.from_numpy(push)
        adamw.step()
        p, m, v = c06.adamw_step(p, push, m, v, t, 0.05, 0.9, 0.99, 1e-6, 0.3)
    np.testing.assert_allclose(p, q.detach().numpy(), rtol=1e-11)
    np.testing.assert_allclose(m, adamw.state[q]["exp_avg"].numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(v, adamw.state[q]["exp_avg_sq"].numpy(), rtol=1e-11)


@pytest.mark.parametrize(
    ("losses", "want"),
    [
        ([[3.0, 3.0], [2.0, 2.2], [2.1, 1.8], [np.nan, np.nan]], (2, False)),
        ([[3.0, 3.0], [2.0, 2.2], [1.0, np.nan], [np.nan, np.nan]], (1, False)),
        ([[1.0, 3.0], [2.0, 2.2], [2.1, 2.1]], (0, True)),
        ([[3.0], [2.0], [1.0]], (2, True)),
        ([[1.0, 1.0]], (0, True)),
    ],
)
def test_choose_lr(losses, want):
    assert c06.choose_lr(np.array(losses)) == want
