"""Conjoint analysis: what features are worth, from choices between offers (multinomial logit).

    P(choose k of a task) = exp(x_k beta) / sum over the task's offers of exp(x_l beta)

beta is found by maximum likelihood (scipy; the likelihood is concave), its standard errors from the information matrix. Worth
in dollars is -beta_feature / beta_price. Source: McFadden, Conditional logit analysis (1974). Told in chapter 21.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from bigmodel_lab.econ.values import array, counts
from bigmodel_lab.units import Q, Quantity

__all__ = ["Choices", "fit_choices"]


@dataclass(frozen=True, eq=False)
class Choices:
    """A fitted model of choice."""

    features: tuple[str, ...]
    beta: np.ndarray  # (n_features,) part-worths, in logits
    errors: np.ndarray  # (n_features,) standard errors
    log_likelihood: float

    def worth(
        self, feature: str, price: str = "price", unit: str = "USD / customer / month"
    ) -> Quantity:
        """Return what one unit of `feature` is worth in the unit of the feature `price`.

        Raises ValueError for an unknown feature or if a higher price does not lower the choice.
        """
        for name in (feature, price):
            if name not in self.features:
                raise ValueError(
                    f"feature must be one of {', '.join(self.features)}, got {name!r}."
                )
        slope = self.beta[self.features.index(price)]
        if slope >= 0:
            raise ValueError(
                f"beta of {price!r} must be below 0 to divide by, got {slope:.3g}: dearer offers were liked."
            )
        return Q(float(-self.beta[self.features.index(feature)] / slope), unit)

    def shares(self, offers) -> np.ndarray:
        """Return the share (n_offers,) that each of `offers` (n_offers, n_features) gets, all of them on sale together."""
        return softmax(array("offers", offers, low=-np.inf) @ self.beta)


def fit_choices(offers, chosen, features: tuple[str, ...]) -> Choices:
    """Return the part-worths that make the choices most likely.

    offers : (n_tasks, n_offers, n_features), chosen : (n_tasks,) index of the offer taken, features : names. Raises ValueError
    for shapes that do not fit, for features that the tasks do not tell apart, and for choices that one feature decides
    every time (its part-worth would be infinite).
    """
    x = array("offers", offers, low=-np.inf)
    if x.ndim != 3 or x.shape[2] != len(features):
        raise ValueError(
            f"offers must have shape (n_tasks, n_offers, {len(features)}) for features {features}, got {x.shape}."
        )
    if len(set(features)) < len(features):
        raise ValueError(f"features must have different names, got {', '.join(features)}.")
    y = counts("chosen", chosen, high=x.shape[1] - 1)
    if y.shape != x.shape[:1]:
        raise ValueError(f"chosen must have one entry a task, ({x.shape[0]},), got {y.shape}.")
    scale = np.sqrt(np.mean((x - x.mean(1, keepdims=True)) ** 2, axis=(0, 1)))
    within = (x - x.mean(1, keepdims=True)).reshape(-1, x.shape[2])
    if np.linalg.matrix_rank(within / np.where(scale > 0, scale, 1)) < len(features):
        raise ValueError(
            "features must vary within tasks and not together: some part-worths cannot be told apart."
        )
    z, rows = x / scale, np.arange(len(y))

    def loss(beta):
        u = z @ beta
        P = softmax(u, axis=1)
        value = logsumexp(u, axis=1).sum() - u[rows, y].sum()
        return value / len(y), (np.einsum("tk,tkf->f", P, z) - z[rows, y].sum(0)) / len(y)

    best = minimize(loss, np.zeros(len(features)), jac=True, method="BFGS", options={"gtol": 1e-9})
    if np.abs(best.x).max() > 15 or best.fun < 1e-6:  # or the model foresees every choice
        name = features[int(np.argmax(np.abs(best.x)))]
        raise ValueError(
            f"chosen must not be decided by one feature every time: the part-worth of {name!r} has no limit."
        )
    P = softmax(z @ best.x, axis=1)
    mean = np.einsum("tk,tkf->tf", P, z)
    information = np.einsum("tk,tkf,tkg->fg", P, z, z) - mean.T @ mean
    errors = np.sqrt(np.diag(np.linalg.inv(information)))
    return Choices(tuple(features), best.x / scale, errors / scale, float(-best.fun * len(y)))
