"""The activation functions: gradients of every entry, torch, special values, odd shapes, messages."""

import functools

import numpy as np
import pytest

from bigmodel_lab import ops, rng

FORMS = {
    "relu": (ops.relu, ops.relu_backward),
    "sigmoid": (ops.sigmoid, ops.sigmoid_backward),
    "tanh": (ops.tanh, ops.tanh_backward),
    "gelu": (ops.gelu, ops.gelu_backward),
    "gelu_tanh": (functools.partial(ops.gelu, approximate="tanh"), ops.gelu_backward),
}
# empty, one element, one dimension, rows, three dimensions, more than one piece of work and a rest
SHAPES = [(0, 3), (1,), (1, 1), (7,), (5, 9), (2, 3, 4), (16384,), (3, 16387)]


def in_torch(name, x, dy):
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    peers = {
        "relu": F.relu,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "gelu": F.gelu,
        "gelu_tanh": lambda t: F.gelu(t, approximate="tanh"),
    }
    t = torch.from_numpy(x).requires_grad_()
    y = peers[name](t)
    return y.detach().numpy(), torch.autograd.grad(y, t, torch.from_numpy(dy))[0].numpy()


def inputs(shape, dtype):
    g = rng.generator(0, "test_activations")
    return (3 * g.standard_normal(shape)).astype(dtype), g.standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("name", FORMS)
def test_gradient_of_every_entry(name):
    x = rng.generator(1, "test_activations").uniform(-4, 4, (4, 25))
    assert (
        np.abs(x).min() > 1e-3
    )  # relu has a kink at 0, where a difference over it is no derivative
    forward, backward = FORMS[name]
    assert ops.gradient_error(forward, backward, (x,))["x"] < 1e-7


# float32: both sides are within 4 units in the last place, 2.4e-7, of the truth for |x| near 1; gelu grows as x, and
# torch's 1 + erf loses what the other side keeps
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-12)])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", FORMS)
def test_agrees_with_torch(name, shape, dtype, tolerance):
    x, dy = inputs(shape, dtype)
    forward, backward = FORMS[name]
    y, cache = forward(x)
    for got, want in zip((y, backward(dy, cache)), in_torch(name, x, dy), strict=True):
        assert got.dtype == dtype
        assert got.shape == shape
        assert (np.abs(got - want) <= tolerance * np.maximum(1, np.abs(x))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FORMS)
def test_nan_stays_nan_and_alone(name, dtype):
    x, dy = inputs((40,), dtype)
    x[[3, 20]] = np.nan, -np.nan
    forward, backward = FORMS[name]
    y, cache = forward(x)
    assert np.flatnonzero(np.isnan(y)).tolist() == [3, 20]
    dx = backward(dy, cache)
    if name == "relu":
        np.testing.assert_array_equal(dx[[3, 20]], dy[[3, 20]])
    else:
        assert np.flatnonzero(np.isnan(dx)).tolist() == [3, 20]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("relu", [0, np.inf, 0, 1e30, 0]),
        ("sigmoid", [0, 1, 0, 1, 0.5]),
        ("tanh", [-1, 1, -1, 1, 0]),
        ("gelu", [np.nan, np.inf, 0, 1e30, 0]),
        ("gelu_tanh", [np.nan, np.inf, 0, 1e30, 0]),
    ],
)
def test_infinite_and_huge(name, wanted, dtype):
    x = np.array([-np.inf, np.inf, -1e30, 1e30, 0], dtype)
    np.testing.assert_array_equal(FORMS[name][0](x)[0], np.array(wanted, dtype))


def test_gelu_keeps_its_digits_on_the_left():
    x = np.array([-5.0], np.float32)
    assert abs(ops.gelu(x)[0][0] / -1.4332579e-6 - 1) < 1e-6  # torch's 1 + erf gives -1.19e-6


def test_the_two_forms_of_gelu_differ_by_what_the_docstring_says():
    x = np.linspace(-6, 6, 10001)
    largest = np.abs(ops.gelu(x)[0] - ops.gelu(x, approximate="tanh")[0]).max()
    assert 4.7e-4 < largest < 4.8e-4


@pytest.mark.parametrize("name", FORMS)
def test_other_layouts_give_the_same(name):
    x, dy = inputs((6, 10), np.float32)
    forward, backward = FORMS[name]
    y, cache = forward(x)
    y_t, cache_t = forward(np.asfortranarray(x))
    np.testing.assert_array_equal(y_t, y)
    np.testing.assert_array_equal(backward(np.asfortranarray(dy), cache_t), backward(dy, cache))
    np.testing.assert_array_equal(forward(x[:, ::2])[0], y[:, ::2])


def test_what_the_cache_keeps():
    x, _ = inputs((4, 5), np.float32)
    for name in ("relu", "sigmoid", "tanh"):
        y, cache = FORMS[name][0](x)
        assert len(cache) == 1
        assert cache[0] is y
    assert ops.gelu(x)[1][0] is x


def test_errors():
    x, dy = inputs((4, 5), np.float32)
    with pytest.raises(
        ValueError,
        match=r"^approximate must be one of 'none', 'tanh', got 'tan'. Did you mean 'tanh'",
    ):
        ops.gelu(x, approximate="tan")
    with pytest.raises(TypeError, match=r"^x must be a NumPy array, got float"):
        ops.relu(1.0)
    for forward, backward in FORMS.values():
        _, cache = forward(x)
        with pytest.raises(
            ValueError, match=r"^dy must have shape \(d0, d1\) with d0=4, d1=5, got d1=4"
        ):
            backward(dy[:, :4], cache)
        with pytest.raises(TypeError, match=r"^dy and x must share one dtype"):
            backward(dy.astype(np.float64), cache)
