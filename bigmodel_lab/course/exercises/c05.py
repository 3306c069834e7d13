"""Exercises of chapter c05, neural networks: a safe sigmoid, dead units, one weight's gradient, a backward pass."""

import warnings

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: a sigmoid that never overflows ------------------------------------------------------------------------------

SIGMOID = '''
def safe_sigmoid(z):
    """Return 1 / (1 + exp(-z)) for an array z (any shape, float64), to 12 digits for every z.

    No overflow and no warning, even at z = -1000 and z = 1000.
    """
    ...
'''


def safe_sigmoid(z):
    e = np.exp(-np.abs(z))  # between 0 and 1, whatever z is
    return np.where(z >= 0, 1, e) / (1 + e)


def _sigmoid_naive(z):
    return 1 / (1 + np.exp(-z))


def _sigmoid_other(z):
    return np.exp(z) / (1 + np.exp(z))


def _sigmoid_clipped(z):
    return 1 / (1 + np.exp(-np.clip(z, -50, 50)))


def _sigmoid_tanh(z):
    return 0.5 * (1 + np.tanh(0.5 * z))


def _check_sigmoid(fn):
    middle = np.array([-2.0, 0.0, 0.5])
    expect("sigmoid", fn(middle), safe_sigmoid(middle), 1e-12, given={"z": middle})
    high = np.array([1000.0])
    if not np.isfinite(fn(high)).all():
        raise Miss(
            "exp(z) of a large z is infinite, and infinity over infinity is not a number: let exp see "
            "negative numbers only.",
            given={"z": high},
            got=fn(high),
            want=safe_sigmoid(high),
        )
    low = np.array([-100.0])
    got, want = np.asarray(fn(low)).item(), safe_sigmoid(low).item()
    if got > 10 * want:
        raise Miss(
            "clipping z keeps exp in range by changing the answer: below the clip every z gets the same value.",
            given={"z": low},
            got=got,
            want=want,
        )
    if abs(got - want) > 1e-12 * want:
        raise Miss(
            "1 plus something close to -1 leaves no correct digit: the tanh form is exact near 0 and loses "
            "small results to rounding.",
            given={"z": low},
            got=got,
            want=want,
        )
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        fn(np.array([-1000.0]))
    if warned:
        raise Miss(
            "the value at z = -1000 is right, by luck: exp(1000) overflowed on the way (1 / inf is 0). "
            "Use the other form of the formula for negative z."
        )
    spread = np.linspace(-700, 700, 1401)
    expect("sigmoid", fn(spread) / safe_sigmoid(spread), np.ones(1401), 1e-12)
    return "values from -1000 to 1000, with overflow treated as an error"


# --- b: find the dead units -----------------------------------------------------------------------------------------

DEAD = '''
def dead_units(h):
    """Return a boolean array (H,): True for each unit that no example of the batch activates.

    h : float array (N, H), outputs of a ReLU layer: N examples, H units
    """
    ...
'''


def dead_units(h):
    return (h == 0).all(axis=0)


def _dead_any(h):
    return (h == 0).any(axis=0)


def _dead_examples(h):
    return (h == 0).all(axis=1)


def _dead_small(h):
    return h.mean(axis=0) < 0.01


def _dead_negative(h):
    return (h < 0).all(axis=0)


def _check_dead(fn):
    h = np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.002]])
    want = np.array([True, False, False])
    got = np.asarray(fn(h.copy()))
    case = {"given": {"h": h}, "got": got, "want": want}
    if got.shape == (3,) and np.array_equal(got, [False, True, False]):
        raise Miss(
            "that asks which *examples* activate nothing: look down the columns, not along the rows.",
            **case,
        )
    if got.shape == (3,) and np.array_equal(got, [True, True, True]):
        raise Miss(
            "a unit that is off for one example is not dead: it must be off for all of them.",
            **case,
        )
    if got.shape == (3,) and np.array_equal(got, [True, False, True]):
        raise Miss(
            "a unit that is small is not dead: it still passes a gradient. Dead is exactly zero.",
            **case,
        )
    if got.shape == (3,) and not got.any():
        raise Miss("the output of a ReLU is never negative: an inactive unit shows a zero.", **case)
    g = generator(0, "c05-b")
    for n, width in ((1, 5), (40, 8), (7, 7)):
        h = np.maximum(g.normal(size=(n, width)) - np.linspace(0, 4, width), 0)
        expect("dead_units", fn(h), dead_units(h), 0, given={"h": h})
    return "four batches, one of a single example"


# --- c: one weight's gradient, term by term -------------------------------------------------------------------------

ONE_WEIGHT = '''
def one_weight(i, j, W_next, delta_next, slope, a_prev):
    """Return dJ/dw_ij of the weight from unit j of the layer below to unit i of this layer, as a float.

    W_next : (K, I)    weights of the layer above: W_next[k, i] leads from unit i to unit k
    delta_next : (K,)  dJ/dz of the layer above
    slope : (I,)       sigma'(z) of this layer
    a_prev : (J,)      outputs of the layer below
    """
    ...
'''


def one_weight(i, j, W_next, delta_next, slope, a_prev):
    delta_i = (W_next[:, i] * delta_next).sum() * slope[i]
    return float(delta_i * a_prev[j])


def _weight_no_input(i, j, W_next, delta_next, slope, a_prev):
    return float((W_next[:, i] * delta_next).sum() * slope[i])


def _weight_no_sum(i, j, W_next, delta_next, slope, a_prev):
    k = min(i, len(delta_next) - 1)
    return float(W_next[k, i] * delta_next[k] * slope[i] * a_prev[j])


def _weight_no_slope(i, j, W_next, delta_next, slope, a_prev):
    return float((W_next[:, i] * delta_next).sum() * a_prev[j])


def _weight_input_i(i, j, W_next, delta_next, slope, a_prev):
    return float((W_next[:, i] * delta_next).sum() * slope[i] * a_prev[i % len(a_prev)])


def _weight_all_inputs(i, j, W_next, delta_next, slope, a_prev):
    return float((W_next[:, i] * delta_next).sum() * slope[i] * a_prev.sum())


def _check_one_weight(fn):
    messages = {
        _weight_no_input: "the factor a_prev[j] is missing: this is the gradient at z_i, where article 001 stops.",
        _weight_no_sum: "unit i acts on the loss through every unit k above it: sum over k.",
        _weight_no_slope: "the slope sigma'(z_i) is missing: the error must pass back through the activation.",
        _weight_input_i: "the signal is taken from unit i of the layer below: the weight ij carries a_prev[j].",
        _weight_all_inputs: "only unit j of the layer below sends through this weight: no sum over the inputs.",
    }
    g = generator(0, "c05-c")
    for _ in range(4):
        args = (
            g.normal(size=(3, 4)),
            g.normal(size=3),
            g.uniform(0.1, 0.9, size=4),
            g.normal(size=5),
        )
        for i in range(4):
            for j in range(5):
                got, want = fn(i, j, *args), one_weight(i, j, *args)
                for mistake, message in messages.items():
                    off = mistake(i, j, *args)
                    if np.isclose(got, off, rtol=1e-9) and not np.isclose(off, want, rtol=1e-6):
                        raise Miss(message, given={"i": i, "j": j}, got=float(got), want=want)
                expect(f"dJ/dw[{i},{j}]", np.asarray(got), np.asarray(want), 1e-12)
    return "every weight of four random layers"


# --- d: the backward pass of a whole network ------------------------------------------------------------------------

BACKWARD = '''
def two_layer_backward(x, W1, b1, W2, b2, dy):
    """Gradients of a two-layer tanh network, y = tanh(x W1' + b1) W2' + b2, for a batch of N examples.

    x : (N, D)   W1 : (H, D)   b1 : (H,)   W2 : (K, H)   b2 : (K,)
    dy : (N, K)  gradient of the loss with respect to y
    Returns dW1, db1, dW2, db2, each of its parameter's shape.
    """
    ...
'''


def two_layer_backward(x, W1, b1, W2, b2, dy):
    h = np.tanh(x @ W1.T + b1)
    delta = dy @ W2 * (1 - h**2)
    return delta.T @ x, delta.sum(axis=0), dy.T @ h, dy.sum(axis=0)


def _backward_no_slope(x, W1, b1, W2, b2, dy):
    h = np.tanh(x @ W1.T + b1)
    delta = dy @ W2
    return delta.T @ x, delta.sum(axis=0), dy.T @ h, dy.sum(axis=0)


def _backward_slope_of_z(x, W1, b1, W2, b2, dy):
    z = x @ W1.T + b1
    h = np.tanh(z)
    delta = dy @ W2 * (1 - z**2)
    return delta.T @ x, delta.sum(axis=0), dy.T @ h, dy.sum(axis=0)


def _backward_relu_slope(x, W1, b1, W2, b2, dy):
    h = np.tanh(x @ W1.T + b1)
    delta = dy @ W2 * (h > 0)
    return delta.T @ x, delta.sum(axis=0), dy.T @ h, dy.sum(axis=0)


def _backward_mean(x, W1, b1, W2, b2, dy):
    return tuple(g / len(x) for g in two_layer_backward(x, W1, b1, W2, b2, dy))


def _backward_bias_per_example(x, W1, b1, W2, b2, dy):
    h = np.tanh(x @ W1.T + b1)
    delta = dy @ W2 * (1 - h**2)
    return delta.T @ x, delta, dy.T @ h, dy


def _backward_transposed(x, W1, b1, W2, b2, dy):
    dW1, db1, dW2, db2 = two_layer_backward(x, W1, b1, W2, b2, dy)
    return dW1.T, db1, dW2.T, db2


def _backward_pre_activation(x, W1, b1, W2, b2, dy):
    z = x @ W1.T + b1
    delta = dy @ W2 * (1 - np.tanh(z) ** 2)
    return delta.T @ x, delta.sum(axis=0), dy.T @ z, dy.sum(axis=0)


def _check_backward(fn):
    mistakes = (
        (
            0,
            _backward_no_slope,
            "the slope of tanh is missing: multiply what comes back by 1 - tanh(z)**2.",
        ),
        (
            0,
            _backward_slope_of_z,
            "the slope of tanh is 1 - a**2 with a the output; here z was squared instead.",
        ),
        (
            0,
            _backward_relu_slope,
            "that is the slope of a ReLU; this network's activation is tanh.",
        ),
        (
            2,
            _backward_mean,
            "divided by the batch size once too often: dy carries the 1/N of the loss already.",
        ),
        (
            2,
            _backward_pre_activation,
            "the layer's input is its signal: dW2 needs h = tanh(z1), not z1.",
        ),
    )
    names = ("dW1", "db1", "dW2", "db2")
    g = generator(0, "c05-d")
    for N, D, H, K in ((3, 2, 4, 5), (8, 5, 3, 2), (1, 4, 4, 4)):
        x, dy = g.normal(size=(N, D)), g.normal(size=(N, K))
        params = (g.normal(size=(H, D)), g.normal(size=H), g.normal(size=(K, H)), g.normal(size=K))
        got, want = fn(x, *params, dy), two_layer_backward(x, *params, dy)
        if not isinstance(got, tuple | list) or len(got) != 4:
            raise Miss("return four arrays: dW1, db1, dW2, db2.")
        for name, a, p, batch in zip(names, got, params, (0, N, 0, N), strict=True):
            if np.shape(a) == p.shape:
                continue
            if np.shape(a) == p.shape[::-1] and p.ndim == 2:
                raise Miss(
                    f"{name} is transposed: its shape must be that of its parameter, {p.shape}."
                )
            if batch and np.shape(a) == (N, *p.shape):
                raise Miss(
                    f"{name} has one row for each example: a bias serves all of them, so sum over the batch."
                )
            raise Miss(f"{name} has shape {np.shape(a)}; its parameter has {p.shape}.")
        for at, mistake, message in mistakes:
            off = mistake(x, *params, dy)[at]
            if np.allclose(got[at], off, rtol=1e-9) and not np.allclose(off, want[at], rtol=1e-6):
                raise Miss(message)
        for name, a, b in zip(names, got, want, strict=True):
            expect(name, np.asarray(a), b, 1e-10, batch=N)
    return "three random networks, one on a single example, against the delta rule"


_OPS = "bigmodel_lab.ops."

EXERCISES = (
    Exercise(
        id="c05-a",
        title="A sigmoid that never overflows",
        difficulty=1,
        minutes=8,
        stub=SIGMOID,
        reference=safe_sigmoid,
        wrong=(
            Wrong(_sigmoid_naive, "a right value means a right program", "by luck"),
            Wrong(
                _sigmoid_other,
                "two forms equal on paper are equal in floating point",
                "infinity over infinity",
            ),
            Wrong(
                _sigmoid_clipped,
                "clipping is harmless",
                "clipping z keeps exp in range by changing the answer",
            ),
            Wrong(_sigmoid_tanh, "an identity has no rounding", "leaves no correct digit"),
        ),
        hints=(
            "Which of the two forms, 1/(1+exp(-z)) and exp(z)/(1+exp(z)), is safe for positive z? For negative z?",
            "exp(-abs(z)) is never above 1. Write both forms with it and choose by the sign of z with np.where.",
        ),
        check=_check_sigmoid,
        uses=(_OPS + "sigmoid",),
    ),
    Exercise(
        id="c05-b",
        title="Find the dead units",
        difficulty=1,
        minutes=5,
        stub=DEAD,
        reference=dead_units,
        wrong=(
            Wrong(_dead_any, "off once means dead", "off for one example is not dead"),
            Wrong(_dead_examples, "axis=1 runs over examples", "down the columns"),
            Wrong(_dead_small, "small means dead", "small is not dead"),
            Wrong(_dead_negative, "a dead unit's output is negative", "never negative"),
        ),
        hints=(
            "What does a ReLU return for an inactive unit?",
            "Compare h with that value, then ask whether it holds for *all* examples: which axis are they on?",
        ),
        check=_check_dead,
    ),
    Exercise(
        id="c05-c",
        title="Mend article 001's formula",
        difficulty=2,
        minutes=12,
        stub=ONE_WEIGHT,
        reference=one_weight,
        wrong=(
            Wrong(
                _weight_no_input,
                "article 001: the gradient at z is the gradient of w",
                "a_prev[j] is missing",
            ),
            Wrong(_weight_no_sum, "article 001: k is fixed, not summed", "sum over k"),
            Wrong(
                _weight_no_slope, "article 003: no sigma' anywhere", "slope sigma'(z_i) is missing"
            ),
            Wrong(_weight_input_i, "i and j swapped on the signal", "carries a_prev[j]"),
            Wrong(_weight_all_inputs, "all inputs act on one weight", "no sum over the inputs"),
        ),
        hints=(
            "Follow the weight's influence: w_ij changes z_i, z_i changes a_i, a_i changes every z_k above.",
            "dz_i/dw_ij = a_prev[j];  da_i/dz_i = slope[i];  dJ/da_i = sum over k of delta_next[k] * W_next[k, i].",
        ),
        check=_check_one_weight,
    ),
    Exercise(
        id="c05-d",
        title="A whole backward pass",
        difficulty=3,
        minutes=25,
        stub=BACKWARD,
        reference=two_layer_backward,
        wrong=(
            Wrong(
                _backward_no_slope,
                "article 003: no sigma' anywhere",
                "the slope of tanh is missing",
            ),
            Wrong(
                _backward_slope_of_z,
                "the slope is a function of z by the same formula",
                "z was squared",
            ),
            Wrong(_backward_relu_slope, "every activation is a gate", "slope of a ReLU"),
            Wrong(_backward_mean, "a gradient is always averaged over the batch", "once too often"),
            Wrong(_backward_bias_per_example, "a bias gradient per example", "sum over the batch"),
            Wrong(_backward_transposed, "W is stored (in, out)", "is transposed"),
            Wrong(
                _backward_pre_activation,
                "article 001: z is the layer's output",
                "needs h = tanh(z1)",
            ),
        ),
        hints=(
            "Recompute h = tanh(x W1' + b1) first; it gives both the signal for dW2 and the slope.",
            "Going back through y = h W2' + b2:  dW2 = dy' h,  db2 = the sum of dy over examples,  dh = dy W2.",
            "Through the tanh: delta = dh * (1 - h**2). Then the first layer is the same step again, with x below it.",
        ),
        check=_check_backward,
        uses=(_OPS + "linear_backward", _OPS + "tanh_backward"),
    ),
)
