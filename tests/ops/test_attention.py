"""Plain attention: gradients of every entry, torch, a loop by hand, grouped heads, the mask, special values, messages."""

import numpy as np
import pytest

from bigmodel_lab import rng
from bigmodel_lab.ops.attention import attention, attention_backward
from bigmodel_lab.ops.gradcheck import gradient_error

# B, H, G, T, S, K, causal
SIZES = [
    (1, 1, 1, 1, 1, 1, True),
    (2, 3, 3, 5, 5, 4, True),
    (2, 4, 2, 7, 7, 3, True),
    (1, 6, 1, 1, 9, 5, True),  # one query of decoding
    (1, 2, 2, 3, 8, 4, True),
    (2, 2, 1, 6, 3, 4, False),
]


def inputs(B, H, G, T, S, K, dtype=np.float64):
    g = rng.generator(0, "test_attention")
    shapes = (B, H, T, K), (B, G, S, K), (B, G, S, K), (B, H, T, K)
    return [g.standard_normal(s).astype(dtype) for s in shapes]


def both_ways(q, k, v, dy, **options):
    y, cache = attention(q, k, v, **options)
    return y, *attention_backward(dy, cache)


def test_is_what_the_equation_says():
    q, k, v, _ = inputs(1, 4, 2, 3, 5, 3)
    y, cache = attention(q, k, v, scale=0.7)
    for h in range(4):
        for t in range(3):
            weights = [np.exp(0.7 * q[0, h, t] @ k[0, h // 2, u]) for u in range(5 - 3 + t + 1)]
            want = sum(w * v[0, h // 2, u] for u, w in enumerate(weights)) / sum(weights)
            np.testing.assert_allclose(y[0, h, t], want, rtol=1e-12)
            np.testing.assert_allclose(
                cache[-3][0, h, t, : len(weights)], weights / sum(weights), rtol=1e-12
            )
            assert not cache[-3][0, h, t, len(weights) :].any()


@pytest.mark.parametrize("size", SIZES)
def test_gradient_of_every_entry(size):
    *args, _ = inputs(*size[:-1])
    errors = gradient_error(attention, attention_backward, args, causal=size[-1])
    if size[4] == 1:  # with one key its score does not matter: both gradients are 0 up to rounding
        errors = {"v": errors["v"]}
    else:
        assert errors.keys() == {"q", "k", "v"}
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_torch(size, dtype, tolerance):
    torch = pytest.importorskip("torch")
    *sizes, causal = size
    q, k, v, dy = inputs(*sizes, dtype)
    T, S = sizes[3:5]
    tensors = [torch.from_numpy(a).requires_grad_() for a in (q, k, v)]
    mask = torch.ones(T, S, dtype=torch.bool).tril(S - T) if causal else None
    y = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=mask, enable_gqa=True)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(q, k, v, dy, causal=causal), wanted, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=tolerance)


def test_the_future_has_no_influence():
    q, k, v, _ = inputs(1, 2, 2, 6, 6, 4)
    y, _ = attention(q, k, v)
    k[:, :, 4:], v[:, :, 4:] = 100, -100
    changed, _ = attention(q, k, v)
    np.testing.assert_array_equal(changed[:, :, :4], y[:, :, :4])
    assert np.abs(changed[:, :, 4:] - y[:, :, 4:]).min() > 1e-3


def test_nan_in_a_query_spoils_its_row_alone_and_in_a_key_the_queries_that_see_it():
    q, k, v, _ = inputs(1, 2, 1, 6, 6, 4)
    y, _ = attention(q, k, v)
    q[0, 1, 2, 0] = np.nan
    got, _ = attention(q, k, v)
    np.testing.assert_array_equal(np.isnan(got).all(-1), np.isnan(got).any(-1))
    assert np.argwhere(np.isnan(got).any(-1)).tolist() == [[0, 1, 2]]
    q[0, 1, 2, 0], k[0, 0, 3, 1] = 0, np.nan
    got, _ = attention(q, k, v)
    np.testing.assert_array_equal(np.isnan(got).any((0, 1, 3)), [False] * 3 + [True] * 3)
    np.testing.assert_array_equal(got[0, 0, :3], y[0, 0, :3])


def test_huge_scores_pick_the_best_key():
    q, k, v, _ = inputs(1, 1, 1, 3, 3, 4, np.float32)
    y, _ = attention(1e4 * q, k, v)
    best = [(q[0, 0, t] @ k[0, 0, : t + 1].T).argmax() for t in range(3)]
    np.testing.assert_allclose(y[0, 0], v[0, 0, best], rtol=1e-6)


def test_other_layouts_give_the_same_and_arguments_are_left_alone():
    args = inputs(2, 4, 2, 5, 5, 6)
    clean = both_ways(*args)
    across = [np.ascontiguousarray(a.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for a in args]
    for got, want in zip(both_ways(*across), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    for a, b in zip(across, args, strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors():
    q, k, v, dy = inputs(2, 4, 2, 5, 6, 3)
    with pytest.raises(ValueError, match=r"^q has H=4 heads and k has G=3: .* G must divide H"):
        attention(q, *(np.concatenate([a, a[:, :1]], 1) for a in (k, v)))
    with pytest.raises(
        ValueError, match=r"^k must have shape \(B, G, S, K\) with B=2, K=3, got K=2"
    ):
        attention(q, k[..., :2], v)
    with pytest.raises(
        ValueError, match=r"^v must have shape \(B, G, S, K\) with B=2, G=2, S=6, K=3, got S=5"
    ):
        attention(q, k, v[:, :, :5])
    with pytest.raises(
        ValueError, match=r"^q has T=5 queries and k only S=4 keys.*Pass causal=False"
    ):
        attention(q, k[:, :, :4], v[:, :, :4])
    with pytest.raises(
        ValueError, match=r"^k must have at least one key and one channel, got S=0 and K=3"
    ):
        attention(q, k[:, :, :0], v[:, :, :0], causal=False)
    with pytest.raises(TypeError, match=r"^q and k and v must share one dtype"):
        attention(q, k.astype(np.float32), v)
    _, cache = attention(q, k, v)
    with pytest.raises(
        ValueError, match=r"^dy must have shape \(B, H, T, K\) with B=2, H=4, T=5, K=3, got T=4"
    ):
        attention_backward(dy[:, :, :4], cache)
    with pytest.raises(TypeError, match=r"^dy and q must share one dtype"):
        attention_backward(dy.astype(np.float32), cache)
