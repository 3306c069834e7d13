"""Choice models: known part-worths found again, and scikit-learn on choices between two."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from bigmodel_lab.econ import fit_choices
from bigmodel_lab.rng import generator

NAMES = ("private", "fast", "price")
TRUE = np.array([1.2, 0.5, -0.08])


def tasks(n, offers):
    rng = generator(0, "conjoint")
    x = np.stack(
        [
            rng.integers(0, 2, (n, offers)),
            rng.integers(0, 2, (n, offers)),
            rng.choice([10, 20, 40], (n, offers)),
        ],
        axis=2,
    ).astype(float)
    return x, (x @ TRUE + rng.gumbel(size=(n, offers))).argmax(1)


def test_part_worths_are_found_within_their_errors():
    x, y = tasks(6000, 3)
    got = fit_choices(x, y, NAMES)
    assert (np.abs(got.beta - TRUE) < 4 * got.errors).all()
    assert (got.errors / np.abs(TRUE) < 0.1).all()
    assert got.worth("private").to("USD/customer/month").magnitude == pytest.approx(15, rel=0.1)
    shares = got.shares(x[0])
    assert shares.sum() == pytest.approx(1)
    assert got.log_likelihood == pytest.approx(
        sum(np.log(got.shares(task)[k]) for task, k in zip(x, y, strict=True))
    )


def test_two_offers_are_a_logistic_regression_of_differences():
    x, y = tasks(800, 2)
    got = fit_choices(x, y, NAMES)
    ref = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=5000)
    ref.fit(x[:, 1] - x[:, 0], y)
    assert got.beta == pytest.approx(ref.coef_[0], rel=1e-3)
    d = x[:, 1] - x[:, 0]
    p = 1 / (1 + np.exp(-d @ got.beta))
    information = (d * (p * (1 - p))[:, None]).T @ d
    assert got.errors == pytest.approx(np.sqrt(np.diag(np.linalg.inv(information))), rel=1e-6)


def test_refused():
    x, y = tasks(60, 3)
    with pytest.raises(ValueError, match="features must vary within tasks"):
        fit_choices(np.concatenate([x, x[..., :1]], 2), y, (*NAMES, "again"))
    prices = x[..., 2:] + generator(0, "no ties").random((60, 3, 1))
    with pytest.raises(ValueError, match="must not be decided by one feature every time"):
        fit_choices(prices, prices[..., 0].argmin(1), ("price",))
    with pytest.raises(ValueError, match="must not be decided by one feature every time"):
        fit_choices(generator(0, "one").random((1, 3, 2)), [0], ("private", "price"))
    with pytest.raises(ValueError, match=r"chosen\[0\] must be a whole number, got 1.5"):
        fit_choices(x, np.full(60, 1.5), NAMES)
    with pytest.raises(ValueError, match="features must have different names, got a, b, a"):
        fit_choices(x, y, ("a", "b", "a"))
    with pytest.raises(ValueError, match="chosen must have one entry a task"):
        fit_choices(x, y[:5], NAMES)
    with pytest.raises(ValueError, match="offers must have shape"):
        fit_choices(x, y, ("a",))
    with pytest.raises(ValueError, match="feature must be one of private, fast, price, got 'slow'"):
        fit_choices(x, y, NAMES).worth("slow")
