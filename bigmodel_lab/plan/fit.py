"""Fit L(N, D) = E + A / N^alpha + B / D^beta to runs, and say how sure the fit is.

As in Hoffmann et al. (2022), arXiv:2203.15556, section 3.3 and eq. 3: the Huber loss of the difference of log losses is
minimised by L-BFGS from many starts, over (log A, log B, log E, alpha, beta) through a log-sum-exp. Intervals: the runs are
drawn again with replacement, fitted again, and the percentiles of the refits taken (Efron 1979). Besiroglu et al. (2024),
arXiv:2404.10102, found that the constants published in 2022 do not fit the published points: so a fit here says whether its
optimiser converged, and how large the residuals are. Told in chapter 16.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
from threadpoolctl import threadpool_limits

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.scaling import ChinchillaLaw
from bigmodel_lab.rng import generator
from bigmodel_lab.units import number, whole

__all__ = ["Fit", "fit_chinchilla"]

_EXPONENTS = (0.01, 3)
_BOUNDS = [(-20, 60), (-20, 60), (-10, 10), _EXPONENTS, _EXPONENTS]
_FEW = 6


@dataclass(frozen=True)
class Fit:
    """A fitted law, its refits, and the ranges within which nothing was extrapolated."""

    law: ChinchillaLaw
    refits: tuple[ChinchillaLaw, ...]  # one a bootstrap sample
    error: float  # root mean square of the log-loss residuals: 0.01 is one per cent of the loss
    converged: bool
    runs: int
    sizes: tuple[float, float]  # smallest and largest N fitted
    tokens: tuple[float, float]  # smallest and largest D fitted

    def interval(self, what: str, level: float = 0.9) -> tuple[float, float]:
        """Return the bootstrap interval of "E", "A", "B", "alpha", "beta" or "a", the optimal N's exponent."""
        require_choice("what", what, ("E", "A", "B", "alpha", "beta", "a"))
        return self._percentiles([getattr(law, what) for law in self.refits], level)

    def predict(self, parameters, tokens, level: float = 0.9) -> tuple[float, float, float]:
        """Return the loss at (N, D) and its bootstrap interval: (loss, low, high), nats a token.

        The interval holds what drawing other runs would change, not that the law may fail outside `sizes` and `tokens`.
        """
        low, high = self._percentiles([x.loss(parameters, tokens) for x in self.refits], level)
        return self.law.loss(parameters, tokens), low, high

    def optimum(self, compute, level: float = 0.9) -> tuple[float, float, float]:
        """Return the optimal number of parameters for `compute` FLOP and its interval: (N, low, high)."""
        sizes = [law.optimum(compute).parameters.magnitude for law in self.refits]
        return self.law.optimum(compute).parameters.magnitude, *self._percentiles(sizes, level)

    def _percentiles(self, values, level):
        number("level", level, high=1)
        if not self.refits:
            raise ValueError("an interval needs refits: fit again with bootstrap=200, say.")
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def fit_chinchilla(
    parameters, tokens, loss, *, seed: int = 0, bootstrap: int = 200, delta: float = 1e-3
) -> Fit:
    """Fit the five constants to runs and refit `bootstrap` samples of them.

    Parameters
    ----------
    parameters, tokens : sequences (R,)   N and D of each run
    loss : sequence (R,)                  final loss, nats a token, over the same data
    bootstrap : refits for the intervals; 0 for none
    delta : where the Huber loss turns from square to absolute, in log loss

    Raises ValueError if the runs cannot tell the five constants apart, or the loss does not fall with both N and D.
    """
    N, D, L = (np.asarray(x, dtype=float) for x in (parameters, tokens, loss))
    for name, x in (("parameters", N), ("tokens", D), ("loss", L)):
        if x.shape != N.shape or x.ndim != 1:
            raise ValueError(f"{name} must have one number a run, {N.shape}, got {x.shape}.")
        for value in x:
            number(f"each of {name}", value, above=0)
    number("delta", delta, above=0)
    if len(N) < _FEW:
        raise ValueError(f"a fit of five constants needs at least {_FEW} runs, got {len(N)}.")
    for name, x in (("parameters", N), ("tokens", D)):
        if len(np.unique(x)) < 3:
            raise ValueError(
                f"{name} must take at least 3 values over the runs, got {len(np.unique(x))}: the constants of that term "
                "cannot be told apart. Run more sizes."
            )
    data = np.log(N), np.log(D), np.log(L)
    starts = [
        (a, b, e, alpha, beta)
        for a, b, e, alpha, beta in product(
            (-3, 0), (-3, 0), (data[2].min() - 1, data[2].min() - 0.1), (0.2, 0.6), (0.2, 0.6)
        )
    ]
    import scipy.optimize  # noqa: F401 - here, since it takes longer than all of plan; and before its BLAS is limited

    refits, wanted = [], whole("bootstrap", bootstrap)
    rng = generator(seed, "plan", "fit")
    # several threads on systems of five equations took sixty times as long as one, on a busy machine
    with threadpool_limits(1, "blas"):
        found = [_minimise(np.array(s), *data, delta) for s in starts]
        best = min(found, key=lambda r: r.fun)
        for name, exponent in (("parameters", best.x[3]), ("tokens", best.x[4])):
            low, high = _EXPONENTS
            if not low * 1.01 < exponent < high * 0.99:
                raise ValueError(
                    f"loss must fall with {name} as a power does: the best exponent is {exponent:.3g}, at the edge of "
                    f"{low} to {high}. Run more sizes and more tokens, over a wider range."
                )
        while len(refits) < wanted:
            pick = rng.integers(len(N), size=len(N))
            if min(len(np.unique(x[pick])) for x in (N, D)) < 3:
                continue  # this sample could not be fitted at all
            refits.append(_law(_minimise(best.x, *(x[pick] for x in data), delta, data).x, data))
    residual = _residual(best.x, *_centred(data, data))
    return Fit(
        law=_law(best.x, data),
        refits=tuple(refits),
        error=float(np.sqrt(np.mean(residual**2))),
        converged=bool(best.success),
        runs=len(N),
        sizes=(float(N.min()), float(N.max())),
        tokens=(float(D.min()), float(D.max())),
    )


def _centred(data, around):
    """Return log N and log D about the means of `around`: A and alpha are then nearly independent."""
    return data[0] - around[0].mean(), data[1] - around[1].mean(), data[2]


def _terms(theta, n, d):
    a, b, e, alpha, beta = theta
    z = np.stack([a - alpha * n, b - beta * d, np.full_like(n, e)])
    top = z.max(0)
    parts = np.exp(z - top)
    return top + np.log(parts.sum(0)), parts / parts.sum(0)


def _residual(theta, n, d, log_loss):
    return _terms(theta, n, d)[0] - log_loss


def _minimise(start, log_n, log_d, log_loss, delta, around=None):
    from scipy.optimize import minimize

    n, d, _ = _centred((log_n, log_d, log_loss), around or (log_n, log_d, log_loss))

    def huber(theta):
        predicted, share = _terms(theta, n, d)
        r = predicted - log_loss
        size = np.abs(r)
        value = np.where(size <= delta, r * r / 2, delta * (size - delta / 2)).mean() / delta**2
        g = np.clip(r, -delta, delta) / delta**2 / len(r)
        gradient = [g @ share[0], g @ share[1], g @ share[2]]
        return value, np.array([*gradient, -(g @ (share[0] * n)), -(g @ (share[1] * d))])

    settings = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-13, "gtol": 1e-8}
    return minimize(huber, start, jac=True, method="L-BFGS-B", bounds=_BOUNDS, options=settings)


def _law(theta, data) -> ChinchillaLaw:
    a, b, e, alpha, beta = map(float, theta)
    return ChinchillaLaw(
        E=float(np.exp(e)),
        A=float(np.exp(a + alpha * data[0].mean())),
        B=float(np.exp(b + beta * data[1].mean())),
        alpha=alpha,
        beta=beta,
    )
