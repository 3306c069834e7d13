"""The gradient check must pass what is right, and must not pass any of the wrong answers people really give."""

import numpy as np
import pytest

from bigmodel_lab import ops, rng

G = rng.generator(0, "test_gradcheck")
X, W = G.standard_normal((3, 4)), G.standard_normal((2, 4))


def affine(x, w):
    return x @ w.T, (x, w)


def affine_backward(dy, cache):
    x, w = cache
    return dy @ w, dy.T @ x


def test_right_is_far_below_the_limit():
    errors = ops.gradient_error(affine, affine_backward, (X, W))
    assert list(errors) == ["x", "w"]
    assert max(errors.values()) < 1e-9


@pytest.mark.parametrize(
    ("wrong", "spoiled"),
    [
        (lambda dy, c: (dy @ c[1], 2 * dy.T @ c[0]), "w"),  # a factor
        (lambda dy, c: (np.ones_like(dy) @ c[1], dy.T @ c[0]), "x"),  # upstream gradient forgotten
        (lambda dy, c: (dy @ c[1], dy.T @ c[0] / len(dy)), "w"),  # mean instead of sum
        (lambda dy, c: (-(dy @ c[1]), dy.T @ c[0]), "x"),  # sign
        (lambda dy, c: (np.zeros_like(c[0]), dy.T @ c[0]), "x"),  # nothing
        (lambda dy, c: (dy @ c[1] * np.nan, dy.T @ c[0]), "x"),
    ],
)
def test_wrong_is_caught_in_the_argument_that_is_wrong(wrong, spoiled):
    errors = ops.gradient_error(affine, wrong, (X, W))
    assert not errors.pop(spoiled) < 0.1
    assert max(errors.values()) < 1e-7


def test_one_wrong_entry_of_many_is_caught():
    def one_wrong(dy, cache):
        dx, dw = affine_backward(dy, cache)
        dx[1, 2] += 1e-3
        return dx, dw

    assert ops.gradient_error(affine, one_wrong, (X, W))["x"] > 1e-5


def test_what_ones_upstream_would_hide():
    # the entries of a softmax add up to 1, so with dy all ones its gradient is 0, and so is this wrong one
    def softmax(x):
        e = np.exp(x - x.max())
        return e / e.sum(), x

    assert ops.gradient_error(softmax, lambda dy, x: np.zeros_like(x), (X[0],))[
        "x"
    ] == pytest.approx(1)


def test_scalar_result_and_whole_numbers_among_the_arguments():
    def pick(x, index):
        return x[index].sum(), (x, index)

    def pick_backward(dy, cache):
        assert isinstance(dy, float)
        x, index = cache
        dx = np.zeros_like(x)
        dx[index] = dy
        return dx

    assert ops.gradient_error(pick, pick_backward, (X, np.array([0, 2])))["x"] < 1e-9


def test_options_reach_the_operation_and_another_seed_another_dy():
    def power(x, exponent=1):
        return x**exponent, (x, exponent)

    seen = []

    def power_backward(dy, cache):
        seen.append(dy)
        x, exponent = cache
        return dy * exponent * x ** (exponent - 1)

    for seed in (0, 0, 1):
        assert ops.gradient_error(power, power_backward, (X,), seed=seed, exponent=3)["x"] < 1e-8
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0] != seen[2]).all()


def test_both_zero_is_right_and_only_one_zero_is_not():
    def constant(x):
        return np.ones(3), x

    assert ops.gradient_error(constant, lambda dy, x: np.zeros_like(x), (X,)) == {"x": 0}
    assert ops.gradient_error(constant, lambda dy, x: x, (X,)) == {"x": np.inf}


def test_numerical_gradients_leave_the_arguments_alone():
    before = X.copy()
    dx, none = ops.numerical_gradients(affine, (X, W.astype(np.float32)), np.ones((3, 2)))
    np.testing.assert_array_equal(X, before)
    assert none is None
    np.testing.assert_allclose(dx, np.ones((3, 2)) @ W, rtol=1e-6)


def test_errors():
    with pytest.raises(
        TypeError, match=r"^w is float32: a gradient check needs float64, .*astype\(np.float64\).$"
    ):
        ops.gradient_error(affine, affine_backward, (X, W.astype(np.float32)))
    with pytest.raises(
        ValueError, match=r"^the gradient of w must have its shape \(2, 4\), got \(4, 2\).$"
    ):
        ops.gradient_error(affine, lambda dy, c: (dy @ c[1], c[0].T @ dy), (X, W))
    with pytest.raises(
        ValueError, match=r"must return one gradient for each float64 array \(x, w\), got 1.$"
    ):
        ops.gradient_error(affine, lambda dy, c: dy @ c[1], (X, W))

    def greedy(dy, cache):
        dy *= 2
        return affine_backward(dy, cache)

    with pytest.raises(
        ValueError, match=r"^dy was changed by the operation or its backward pass: work on a copy.$"
    ):
        ops.gradient_error(affine, greedy, (X, W))

    def careless(x, w):
        x -= x.mean()
        return affine(x, w)

    with pytest.raises(ValueError, match=r"^x was changed"):
        ops.gradient_error(careless, affine_backward, (X.copy(), W))
