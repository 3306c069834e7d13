"""Is this gradient right? Central differences of every entry, in float64, against what a backward pass returns.

    dL/dx[i] ~ sum_j dy[j] (y(x + h e_i)[j] - y(x - h e_i)[j]) / (2 h),    L = sum_j dy[j] y[j]

Source: the error of a central difference is h^2/6 times the third derivative plus rounding of about 1e-16 / h; near
h = 1e-5 both are around 1e-11, so a right gradient of a smooth operation agrees to about 1e-10 and a wrong one not.
Derived in chapter 5.

The upstream gradient `dy` is random and not all ones: with ones, errors that cancel in a sum pass unseen (a softmax
whose backward pass is all zeros, for one). For the same reason give parameters that are neither all ones nor zeros.
"""

import inspect

import numpy as np

from bigmodel_lab import rng


def numerical_gradients(op, args, dy, *, step: float = 1e-5, **options) -> list:
    """Return the central-difference gradient of sum(dy * y), y = op(*args, **options)[0], for every float64 array.

    Parameters
    ----------
    op : function that returns (y, cache)
    args : tuple              float64 arrays are varied, one entry at a time; anything else is passed on
    dy : float64 array        upstream gradient, the shape of y; a number if y is one
    step : float              h, in units of the entries

    Returns a list with one array or None for each of `args`. Calls `op` twice for each entry. Not for points where `op`
    has a kink or a jump within `step`, such as relu near 0.
    """
    args = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    gradients = []
    for a in args:
        if not (isinstance(a, np.ndarray) and a.dtype == np.float64):
            gradients.append(None)
            continue
        gradient = np.empty(a.shape)
        for i in np.ndindex(a.shape):
            here, y = a[i], []
            for a[i] in (here + step, here - step):
                y.append(np.array(op(*args, **options)[0]))
            a[i] = here
            # the difference comes before the sum, which would round it away
            gradient[i] = np.sum(dy * (y[0] - y[1])) / (2 * step)
        gradients.append(gradient)
    return gradients


def gradient_error(
    op, op_backward, args, *, seed: int = 0, step: float = 1e-5, **options
) -> dict[str, float]:
    """Return by argument name how far `op_backward` is from central differences; below 1e-7 is right.

    Parameters
    ----------
    op : function             y, cache = op(*args, **options)
    op_backward : function    grads = op_backward(dy, cache): one array, or a tuple with one for each float64 array of
                              `args` in order; None says "not computed" and is left out
    args : tuple              float64 arrays are checked; integer arrays, None and numbers are passed on
    seed : int                of the random upstream gradient
    step : float              h of the central difference, in units of the entries

    Returns
    -------
    dict                      |dx - numerical| / |numerical| for each array, Euclidean norms over the whole array; 0 if
                              both are zero, infinity if only the numerical one is

    Raises TypeError for float32 arrays (rounding would hide any miss below 1e-2) and ValueError if the number or the
    shape of the gradients is not that of the arguments, or `op` or `op_backward` changed its arguments.

    >>> square = lambda x: (x**2, x)
    >>> gradient_error(square, lambda dy, x: 2 * x * dy, (np.array([1.0, -3.0]),))["x"] < 1e-7
    True
    """
    names = _names(op, len(args))
    for name, a in zip(names, args, strict=True):
        if isinstance(a, np.ndarray) and a.dtype.kind == "f" and a.dtype != np.float64:
            raise TypeError(
                f"{name} is {a.dtype}: a gradient check needs float64, convert with .astype(np.float64)."
            )
    checked = [i for i, a in enumerate(args) if isinstance(a, np.ndarray) and a.dtype == np.float64]
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]

    y, cache = op(*args, **options)
    dy = rng.generator(seed, "gradient_error").standard_normal(np.shape(y))
    dy_before = np.copy(dy)
    grads = op_backward(dy if np.ndim(y) else float(dy), cache)
    for name, now, then in zip([*names, "dy"], [*args, dy], [*before, dy_before], strict=True):
        if isinstance(now, np.ndarray) and now.tobytes() != then.tobytes():
            raise ValueError(
                f"{name} was changed by the operation or its backward pass: work on a copy."
            )

    grads = list(grads) if isinstance(grads, tuple | list) else [grads]
    while len(grads) > len(checked) and grads[-1] is None:  # such as db of a layer without bias
        grads.pop()
    if len(grads) != len(checked):
        raise ValueError(
            "the backward pass must return one gradient for each float64 array "
            f"({', '.join(names[i] for i in checked)}), got {len(grads)}."
        )
    numerical = numerical_gradients(op, args, dy, step=step, **options)
    errors = {}
    for i, grad in zip(checked, grads, strict=True):
        if grad is None:
            continue
        if np.shape(grad) != args[i].shape:
            raise ValueError(
                f"the gradient of {names[i]} must have its shape {args[i].shape}, got {np.shape(grad)}."
            )
        errors[names[i]] = _relative_error(np.asarray(grad), numerical[i])
    return errors


def _relative_error(grad, numerical) -> float:
    miss, size = np.linalg.norm(grad - numerical), np.linalg.norm(numerical)
    return float(miss / size) if size > 0 else (0.0 if miss == 0 else np.inf)


def _names(op, n: int) -> list[str]:
    """The names of the first n parameters of `op`, or arg0, arg1, ... where Python cannot tell."""
    try:
        names = list(inspect.signature(op).parameters)
    except (TypeError, ValueError):
        names = []
    return names[:n] if len(names) >= n else [f"arg{i}" for i in range(n)]
