"""Rotary positions: gradients of every entry, complex numbers, relative distance, transformers, layouts, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.gradcheck import gradient_error
from bigmodel_lab.ops.rope import rope, rope_backward, rope_tables

SHAPES = [(1, 2), (5, 4), (2, 3, 7, 10), (1, 1, 33, 64), (0, 3, 4), (2, 0, 4)]


def inputs(shape, dtype=np.float64):
    g = rng.generator(0, "test_rope")
    x = g.standard_normal(shape).astype(dtype)
    return x, *rope_tables(3 + np.arange(shape[-2]), shape[-1], dtype=dtype)


def test_gradient_of_every_entry():
    x, cos, sin = inputs((2, 5, 6))
    error = gradient_error(lambda x: rope(x, cos, sin), rope_backward, (x,))
    assert error["x"] < 1e-7


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_a_product_with_complex_numbers(shape, dtype, tolerance):
    x, cos, sin = inputs(shape, dtype)
    half = shape[-1] // 2
    angle = np.outer(3 + np.arange(shape[-2]), 10000.0 ** (-np.arange(half) / half))
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    y, cache = rope(x, cos, sin)
    assert y.dtype == dtype
    np.testing.assert_allclose(
        y, np.concatenate([turned.real, turned.imag], -1), rtol=0, atol=5 * tolerance
    )
    np.testing.assert_allclose(
        rope_backward(y, cache), x, rtol=0, atol=5 * tolerance
    )  # turned back


def test_the_product_of_query_and_key_depends_on_their_distance_alone():
    g = rng.generator(1, "test_rope")
    q, k = g.standard_normal((2, 1, 8))

    def product(at, to):
        turned = [
            rope(x, *rope_tables(np.array([t]), 8, dtype=np.float64))[0]
            for x, t in ((q, at), (k, to))
        ]
        return float(turned[0][0] @ turned[1][0])

    assert abs(product(7, 3) - product(1007, 1003)) < 1e-12
    assert abs(product(7, 3) - product(7, 4)) > 1e-3


def test_position_0_is_left_as_it_is_and_far_positions_keep_their_digits():
    x = rng.generator(2, "test_rope").standard_normal((1, 6))
    np.testing.assert_array_equal(rope(x, *rope_tables(np.array([0]), 6, dtype=np.float64))[0], x)
    cos, _ = rope_tables(np.array([100_000]), 64)
    assert abs(cos[0, 0] - np.cos(100_000.0)) < 1e-7
    cos, _ = rope_tables(np.array([7]), 4, base=100.0)
    np.testing.assert_allclose(cos[0], np.cos([7, 0.7]), rtol=1e-6)


def test_agrees_with_transformers():
    torch = pytest.importorskip("torch")
    llama = pytest.importorskip("transformers.models.llama.modeling_llama")
    x, cos, sin = inputs((2, 3, 7, 10))
    tables = [torch.from_numpy(np.concatenate([a, a], -1))[None] for a in (cos, sin)]
    want, _ = llama.apply_rotary_pos_emb(torch.from_numpy(x), torch.from_numpy(x), *tables)
    np.testing.assert_allclose(rope(x, cos, sin)[0], want.numpy(), rtol=0, atol=1e-14)


def test_nan_reaches_its_pair_alone():
    x, cos, sin = inputs((2, 5, 6))
    x[1, 2, 4] = np.nan
    y, _ = rope(x, cos, sin)
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 2, 1], [1, 2, 4]]


def test_other_layouts_give_the_same_and_the_cache_keeps_no_x():
    x, cos, sin = inputs((2, 3, 5, 6))
    y, cache = rope(x, cos, sin)
    across = np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(
        0, 2, 1, 3
    )  # (B, T, H, K) in memory
    np.testing.assert_array_equal(rope(across, np.asfortranarray(cos), sin)[0], y)
    assert cache[0] is cos
    assert cache[1] is sin
    assert len(cache) == 2


def test_errors():
    x, cos, sin = inputs((2, 5, 6))
    with pytest.raises(ValueError, match=r"^head_width must be even and at least 2, got 7"):
        rope_tables(np.arange(3), 7)
    with pytest.raises(ValueError, match=r"^base must be at least .*, got 0"):
        rope_tables(np.arange(3), 6, base=0)
    with pytest.raises(ValueError, match=r"^positions must have shape \(T\), got 2 dimensions"):
        rope_tables(np.zeros((2, 3), int), 6)
    with pytest.raises(
        ValueError, match=r"^x must have shape \(..., T, K\) with K even, got shape \(2, 5, 5\)"
    ):
        rope(x[..., :5], cos, sin)
    with pytest.raises(
        ValueError, match=r"^sin must have shape \(T, K/2\) with T=5, K/2=3, got T=4"
    ):
        rope(x, cos, sin[:4])
    with pytest.raises(TypeError, match=r"^x and cos and sin must share one dtype"):
        rope(x.astype(np.float32), cos, sin)
    _, cache = rope(x, cos, sin)
    with pytest.raises(
        ValueError, match=r"^dy must have shape \(..., T, K\) with T=5, K=6, got \(2, 4, 6\)"
    ):
        rope_backward(x[:, :4], cache)
