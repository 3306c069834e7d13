"""Tiled attention: gradients of every entry, the plain form, sizes around the tiles, memory, special values, messages."""

import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from attention_cases import both_ways as cases_both_ways
from attention_cases import inputs

from bigmodel_lab.ops.attention import attention, attention_backward
from bigmodel_lab.ops.flash_attention import flash_attention, flash_attention_backward
from bigmodel_lab.ops.gradcheck import gradient_error

# B, H, G, T, S, K, causal: one tile is 64 queries, 64 keys, and 8 to 32 channels
SIZES = [
    (1, 1, 1, 1, 1, 1, True),
    (2, 3, 3, 5, 5, 4, True),
    (1, 1, 1, 63, 63, 31, True),
    (2, 2, 2, 64, 64, 32, True),
    (1, 4, 2, 65, 65, 33, True),
    (1, 2, 1, 200, 200, 64, True),
    (1, 8, 2, 1, 130, 80, True),  # one query of decoding
    (1, 2, 2, 70, 199, 7, True),  # queries whose first keys are not at the edge of a tile
    (2, 4, 1, 130, 65, 16, False),
    (1, 1, 1, 3, 128, 8, False),
    (2, 2, 2, 0, 5, 8, True),
]


both_ways = partial(cases_both_ways, "tiled")


@pytest.mark.parametrize(
    ("size", "causal"), [((1, 2, 1, 3, 67, 2), True), ((2, 2, 2, 5, 4, 3), False)]
)
def test_gradient_of_every_entry(size, causal):
    *args, _ = inputs(*size)
    errors = gradient_error(
        flash_attention, flash_attention_backward, args, causal=causal, scale=0.7
    )
    assert errors.keys() == {"q", "k", "v"}
    assert max(errors.values()) < 1e-7, errors


# float32: sums of up to 200 products in another order; the largest entries are near 5
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 2e-14)])
@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_the_plain_form(size, dtype, tolerance):
    *sizes, causal = size
    q, k, v, dy = inputs(*sizes, dtype)
    y, cache = attention(q, k, v, causal=causal, scale=0.3)
    wanted = y, *attention_backward(dy, cache)
    for got, want in zip(both_ways(q, k, v, dy, causal=causal, scale=0.3), wanted, strict=True):
        assert got.dtype == dtype
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


# around the edges of tiles: a whole tile of padding, one key in the last tile, none
LENGTHS = [
    ((3, 4, 2, 70, 199, 7), [1, 199, 130]),
    ((4, 2, 1, 129, 129, 33), [64, 65, 128, 129]),
    ((2, 2, 2, 1, 130, 8), [129, 2]),
]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 2e-14)])
@pytest.mark.parametrize(("size", "lengths"), LENGTHS)
def test_agrees_with_the_plain_form_with_padding(size, lengths, dtype, tolerance, causal):
    q, k, v, dy = inputs(*size, dtype)
    options = dict(causal=causal, scale=0.3, lengths=np.array(lengths))
    y, cache = attention(q, k, v, **options)
    wanted = y, *attention_backward(dy, cache)
    for b, n in enumerate(lengths):
        k[b, :, n:], v[b, :, n:] = np.nan, np.inf
    for got, want in zip(both_ways(q, k, v, dy, **options), wanted, strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance)


@pytest.mark.parametrize("causal", [True, False])
def test_padding_does_not_outweigh_scores_far_below_its_own(causal):
    q, k, v, dy = inputs(2, 1, 1, 66, 70, 4)
    # scores of -1200 and less; the zeros that fill up a tile would count e^1200 times as much
    q[:], k[:] = 1, -1 - np.arange(70)[:, None] / 100
    options = dict(causal=causal, scale=300.0, lengths=np.array([67, 2]))
    y, cache = attention(q, k, v, **options)
    wanted = y, *attention_backward(dy, cache)
    for got, want in zip(both_ways(q, k, v, dy, **options), wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
def test_gradient_of_every_entry_with_padding(causal):
    *args, _ = inputs(2, 2, 1, 3, 67, 2)
    options = dict(causal=causal, scale=0.7, lengths=np.array([65, 2]))
    errors = gradient_error(flash_attention, flash_attention_backward, args, **options)
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 2e-14)])
def test_agrees_with_torch(dtype, tolerance):
    torch = pytest.importorskip("torch")
    q, k, v, dy = inputs(2, 4, 2, 100, 100, 20, dtype)
    tensors = [torch.from_numpy(a).requires_grad_() for a in (q, k, v)]
    y = torch.nn.functional.scaled_dot_product_attention(*tensors, is_causal=True, enable_gqa=True)
    wanted = y.detach(), *torch.autograd.grad(y, tensors, torch.from_numpy(dy))
    for got, want in zip(both_ways(q, k, v, dy), wanted, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=tolerance)


def test_decoding_one_query_at_a_time_gives_the_rows_of_the_whole():
    q, k, v, _ = inputs(1, 4, 2, 70, 70, 8)
    whole, _ = flash_attention(q, k, v)
    for t in (0, 1, 63, 64, 69):
        y, _ = flash_attention(q[:, :, t : t + 1], k[:, :, : t + 1], v[:, :, : t + 1])
        np.testing.assert_allclose(y[:, :, 0], whole[:, :, t], rtol=0, atol=1e-15)


def test_the_future_has_no_influence():
    q, k, v, _ = inputs(1, 2, 2, 100, 100, 4)
    y, _ = flash_attention(q, k, v)
    k[:, :, 40:], v[:, :, 40:] = 100, -100
    changed, _ = flash_attention(q, k, v)
    np.testing.assert_array_equal(changed[:, :, :40], y[:, :, :40])
    assert np.abs(changed[:, :, 40:] - y[:, :, 40:]).max() > 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scores_far_apart_in_any_order_of_the_tiles(dtype):
    q, k, v, _ = inputs(1, 1, 1, 200, 200, 4, dtype)
    q[:] = 1
    k[:] = np.arange(200)[
        :, None
    ]  # the last key is always the best, by a factor of e^60: every tile rescales
    y, _ = flash_attention(q, k, v, scale=15)
    np.testing.assert_allclose(y, v, rtol=1e-6)
    y, _ = flash_attention(q, -k, v, scale=15)  # now the first
    np.testing.assert_allclose(y, np.broadcast_to(v[:, :, :1], v.shape), rtol=1e-6)


def test_nan_in_a_query_spoils_its_row_alone():
    q, k, v, _ = inputs(1, 2, 1, 70, 70, 4)
    y, _ = flash_attention(q, k, v)
    q[0, 1, 66, 0] = np.nan
    got, _ = flash_attention(q, k, v)
    assert np.isnan(got[0, 1, 66]).all()
    got[0, 1, 66] = y[0, 1, 66]
    np.testing.assert_array_equal(got, y)


@pytest.mark.parametrize("which", ["k", "v"])
def test_nan_in_a_key_or_value_reaches_whom_it_should(which):
    q, k, v, _ = inputs(1, 1, 1, 200, 200, 4)
    y, _ = flash_attention(q, k, v)
    {"k": k, "v": v}[which][0, 0, 130, 2] = np.nan
    got, _ = flash_attention(q, k, v)
    assert np.isnan(got[0, 0, 130:]).any(-1).all()
    untouched = (
        130 if which == "k" else 128
    )  # the tile of 64 that a query shares with the bad value
    np.testing.assert_array_equal(got[0, 0, :untouched], y[0, 0, :untouched])


def test_minus_infinity_in_a_whole_tile_of_scores_leaves_the_others():
    q, k, v = np.ones((3, 1, 1, 70, 1))
    v[0, 0, :, 0] = np.arange(70)
    k[0, 0, :64] = -np.inf
    y, _ = flash_attention(q, k, v)
    assert np.isnan(y[0, 0, :64]).all()  # nothing to see
    np.testing.assert_allclose(y[0, 0, 64:, 0], 64 + np.arange(6) / 2)


def test_memory_grows_with_t_not_with_its_square():
    # the scores of 8192 positions alone would be 256 MB
    code = """
import resource, numpy as np
from bigmodel_lab.ops.flash_attention import flash_attention, flash_attention_backward
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
def run(T):
    q, k, v, dy = np.random.default_rng(0).standard_normal((4, 1, 1, T, 8), dtype=np.float32)
    y, cache = flash_attention(q, k, v)
    return flash_attention_backward(dy, cache)
run(64)
before = peak()
run(8192)
print(peak() - before)
"""
    if sys.platform != "linux":
        pytest.skip("ru_maxrss is in KiB on Linux only")
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
        env=os.environ,
    )
    assert float(done.stdout) < 40, done.stdout  # MB


def test_what_the_cache_keeps():
    q, k, v, _ = inputs(2, 4, 2, 70, 70, 8)
    y, cache = flash_attention(q, k, v)
    assert [a is b for a, b in zip(cache, (q, k, v, y), strict=False)] == [True] * 4
    assert sum(a.size for a in cache[4:] if isinstance(a, np.ndarray)) == 2 * 4 * 70 + 2
