"""Plain attention: gradients of every entry, torch, a loop by hand, grouped heads, the mask, special values, messages."""

from functools import partial

import numpy as np
import pytest
from attention_cases import FORMS, inputs
from attention_cases import both_ways as cases_both_ways

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


both_ways = partial(cases_both_ways, "plain")


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


@pytest.mark.parametrize("size", [(3, 4, 2, 4, 5, 3, True), (3, 2, 2, 4, 5, 3, False)])
def test_gradient_of_every_entry_with_padding(size):
    *args, _ = inputs(*size[:-1])
    lengths = np.array([1, 5, 3])
    errors = gradient_error(
        attention, attention_backward, args, causal=size[-1], lengths=lengths, scale=0.7
    )
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 2e-6), (np.float64, 1e-13)])
def test_agrees_with_torch_with_padding(dtype, tolerance, causal):
    torch = pytest.importorskip("torch")
    q, k, v, dy = inputs(4, 4, 2, 5, 7, 3, dtype)
    lengths = np.array([7, 1, 4, 2], np.int32)
    seen = torch.arange(7) < torch.from_numpy(lengths)[:, None, None, None]
    if causal:
        seen = seen & torch.ones(5, 7, dtype=torch.bool).tril(2)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (q, k, v)]
    y = torch.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=seen, enable_gqa=True)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    got = both_ways(q, k, v, dy, causal=causal, lengths=lengths)
    for a, want in zip(got, wanted, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, want.numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("filling", [1e3, np.inf, np.nan])
def test_what_padding_holds_has_no_influence(filling):
    q, k, v, dy = inputs(2, 4, 2, 3, 6, 3)
    lengths = np.array([4, 6])
    clean = both_ways(q, k, v, dy, causal=False, lengths=lengths)
    short = both_ways(*(a[:1, :, :4] for a in (q, k, v, dy)), causal=False)
    k[0, :, 4:], v[0, :, 4:] = filling, -filling
    got = both_ways(q, k, v, dy, causal=False, lengths=lengths)
    for a, want, alone in zip(got, clean, short, strict=True):
        np.testing.assert_array_equal(a, want)
        np.testing.assert_allclose(a[:1, :, :4], alone, rtol=1e-12, atol=1e-15)
    for grad in got[2:]:
        assert not grad[0, :, 4:].any()


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


@pytest.mark.parametrize("form", FORMS)
def test_other_layouts_give_the_same_and_arguments_are_left_alone(form):
    args = inputs(2, 4, 2, 66, 66, 6)
    clean = cases_both_ways(form, *args)
    across = [np.ascontiguousarray(a.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3) for a in args]
    for got, want in zip(cases_both_ways(form, *across), clean, strict=True):
        np.testing.assert_array_equal(got, want)
    for a, b in zip(across, args, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_errors(form):
    op, op_backward = FORMS[form]
    q, k, v, dy = inputs(2, 4, 2, 5, 6, 3)
    with pytest.raises(ValueError, match=r"^q has H=4 heads and k has G=3: .* G must divide H"):
        op(q, *(np.concatenate([a, a[:, :1]], 1) for a in (k, v)))
    with pytest.raises(
        ValueError, match=r"^k must have shape \(B, G, S, K\) with B=2, K=3, got K=2"
    ):
        op(q, k[..., :2], v)
    with pytest.raises(
        ValueError, match=r"^v must have shape \(B, G, S, K\) with B=2, G=2, S=6, K=3, got S=5"
    ):
        op(q, k, v[:, :, :5])
    with pytest.raises(
        ValueError, match=r"^q has T=5 queries and k only S=4 keys.*Pass causal=False"
    ):
        op(q, k[:, :, :4], v[:, :, :4])
    with pytest.raises(
        ValueError, match=r"^k must have at least one key and one channel, got S=0 and K=3"
    ):
        op(q, k[:, :, :0], v[:, :, :0], causal=False)
    with pytest.raises(TypeError, match=r"^q and k and v must share one dtype"):
        op(q, k.astype(np.float32), v)
    with pytest.raises(TypeError, match=r"^q and k and v must be float32 or float64, got float16"):
        op(*(x.astype(np.float16) for x in (q, k, v)))
    for bad in ([0, 3], [1, 7], [-1, 6]):
        with pytest.raises(ValueError, match=r"^lengths must be between 1 and S=6, the number"):
            op(q, k, v, lengths=np.array(bad))
    with pytest.raises(ValueError, match=r"^lengths must have shape \(B\) with B=2, got B=3"):
        op(q, k, v, lengths=np.ones(3, int))
    with pytest.raises(TypeError, match=r"^lengths must be whole numbers, got dtype float64"):
        op(q, k, v, lengths=np.ones(2))
    _, cache = op(q, k, v)
    with pytest.raises(
        ValueError, match=r"^dy must have shape \(B, H, T, K\) with B=2, H=4, T=5, K=3, got T=4"
    ):
        op_backward(dy[:, :, :4], cache)
    with pytest.raises(TypeError, match=r"^dy and q must share one dtype"):
        op_backward(dy.astype(np.float32), cache)
