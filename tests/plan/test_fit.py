"""The fit finds constants that made the data, its intervals hold them, and it refuses what cannot be fitted."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from bigmodel_lab.plan import LAWS, fit, fit_chinchilla
from bigmodel_lab.rng import generator

TRUE = LAWS["epoch"]


def runs(noise=0.0, seed=0, n=60):
    rng = generator(seed, "runs")
    N = np.exp(rng.uniform(np.log(5e7), np.log(2e10), n))
    D = N * np.exp(rng.uniform(np.log(2), np.log(300), n))
    loss = np.array([TRUE.loss(a, b) for a, b in zip(N, D, strict=True)])
    return N, D, loss * np.exp(noise * rng.normal(size=n))


def test_exact_data_give_the_constants_back():
    fit = fit_chinchilla(*runs(), bootstrap=0)
    assert fit.converged
    assert fit.error < 1e-5
    assert (fit.law.E, fit.law.alpha, fit.law.beta) == pytest.approx(
        (TRUE.E, TRUE.alpha, TRUE.beta), rel=2e-3
    )
    assert fit.law.A == pytest.approx(TRUE.A, rel=0.03)
    assert fit.law.B == pytest.approx(TRUE.B, rel=0.03)
    with pytest.raises(ValueError, match="an interval needs refits"):
        fit.interval("alpha")


def test_intervals_hold_the_truth():
    """Six data sets with 0.5 % noise: the 90 % interval of each constant holds the true one in at least 4."""
    held = dict.fromkeys(("E", "alpha", "beta", "a"), 0)
    for seed in range(6):
        fit = fit_chinchilla(*runs(0.005, seed), bootstrap=40)
        for name in held:
            low, high = fit.interval(name)
            held[name] += low <= getattr(TRUE, name) <= high
        assert fit.error == pytest.approx(0.005, rel=0.35)
    assert min(held.values()) >= 4, held


def test_prediction_and_optimum():
    fit = fit_chinchilla(*runs(0.003), bootstrap=40)
    loss, low, high = fit.predict(7e10, 1.4e12)
    assert low <= loss <= high
    assert low - 0.02 <= TRUE.loss(7e10, 1.4e12) <= high + 0.02
    size, small, large = fit.optimum(5.76e23)
    assert small <= size <= large
    assert size == pytest.approx(TRUE.optimum(5.76e23).parameters.magnitude, rel=0.3)


def test_one_wild_run_does_not_decide():
    N, D, loss = runs(0.003)
    loss[7] *= 1.5  # a run that diverged
    assert fit_chinchilla(N, D, loss, bootstrap=0).law.a == pytest.approx(TRUE.a, abs=0.03)


def test_same_seed_same_fit():
    data = runs(0.005)
    one, two = (fit_chinchilla(*data, bootstrap=5, seed=3) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda N, D, L: (N[:5], D[:5], L[:5]), "needs at least 6 runs, got 5"),
        (lambda N, D, L: (0 * N + 1e9, D, L), "parameters must take at least 3 values over the runs, got 1"),
        (lambda N, D, L: (N, D[:-1], L), r"tokens must have one number a run, \(60,\), got \(59,\)"),
        (lambda N, D, L: (N, D, -L), "each of loss must be a finite number above 0"),
        (lambda N, D, L: (N, D, L * np.nan), "each of loss must be a finite number above 0"),
    ],
)  # fmt: skip
def test_refused(change, message):
    with pytest.raises(ValueError, match=message):
        fit_chinchilla(*change(*runs()), bootstrap=0)


def test_a_loss_that_does_not_fall_is_refused():
    """Before any refit: two hundred of them would fit the same nothing."""
    N, D, _ = runs()
    for loss, name in [
        (np.full(60, 3.0), "parameters"), ((N / 1e9) ** 0.05 * 3, "parameters"), (1 + (N / 1e9) ** -0.3, "tokens"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=f"loss must fall with {name} as a power does"):
            fit_chinchilla(N, D, loss)


def blas_threads():
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


def test_one_thread_is_enough(monkeypatch):
    """BLAS threads on five equations cost far more than they bring: the search runs on one, and gives the rest back."""
    minimise, seen = fit._minimise, []

    def counting(*arguments):
        seen.append(max(blas_threads()))
        return minimise(*arguments)

    monkeypatch.setattr(fit, "_minimise", counting)
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        fit_chinchilla(*runs(), bootstrap=2)
        assert blas_threads() == before
    assert set(seen) == {1}


def test_a_wrong_question_is_refused():
    data = runs()
    with pytest.raises(ValueError, match="delta must be a finite number above 0, got 0"):
        fit_chinchilla(*data, bootstrap=0, delta=0)
    with pytest.raises(ValueError, match=r"what must be one of .* got 'gamma'"):
        fit_chinchilla(*data, bootstrap=1).interval("gamma")
