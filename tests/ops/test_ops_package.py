"""What holds for all operations together: bits at any number of threads, no access out of bounds, a light import."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Every operation, both passes, at sizes that divide into pieces, blocks and vectors and at some that do not.
RUN_ALL = """
import sys
import numpy as np
from bigmodel_lab import ops, rng

def run(dtype):
    out = []
    for N, D, V in ((1, 1, 1), (3, 5, 7), (64, 129, 10), (257, 300, 1000)):
        g = rng.generator(0, str(N))
        x, w, b = (g.standard_normal(s).astype(dtype) for s in ((N, D), (V, D), (V,)))
        t = g.integers(0, V, N)
        y, cache = ops.linear(x, w, b)
        out += [y, *ops.linear_backward(y, cache)]
        loss, cache = ops.softmax_cross_entropy(y, t)
        out += [loss, ops.softmax_cross_entropy_backward(1.5, cache), *ops.softmax_cross_entropy_with_gradient(y, t)]
        out += ops.softmax_cross_entropy_with_gradient(y.copy(), t, in_place=True)
        tanh_form = {"approximate": "tanh"}
        for name, options in (("relu", {}), ("sigmoid", {}), ("tanh", {}), ("gelu", {}), ("gelu", tanh_form)):
            a, cache = getattr(ops, name)(y, **options)
            out += [a, getattr(ops, name + "_backward")(y, cache)]
        gain, key = g.standard_normal((2, D)).astype(dtype)
        for name, args in (("layernorm", (x, gain, key)), ("rmsnorm", (x, gain)), ("silu", (x,)), ("swiglu", (x, x + 1)),
                           ("softmax", (x,)), ("dropout", (x, 0.3, N))):
            a, cache = getattr(ops, name)(*args)
            grads = getattr(ops, name + "_backward")(a, cache)
            out += [a, *(grads if isinstance(grads, tuple) else (grads,))]
        a, cache = ops.embedding(t[None], w)
        out += [a, ops.embedding_backward(a, cache), *ops.linear_cross_entropy_with_gradient(x, w, t, 50)]
        q, k, v = (g.standard_normal((2, heads, N, D // 2 + 1)).astype(dtype) for heads in (4, 2, 2))
        for attention in ("attention", "flash_attention"):
            a, cache = getattr(ops, attention)(q, k, v)
            out += [a, *getattr(ops, attention + "_backward")(a, cache)]
            a, cache = getattr(ops, attention)(q, k, v, lengths=np.array([1 + N // 2, N]))
            out += [a, *getattr(ops, attention + "_backward")(a, cache)]
        for bits in (8, 4):
            packed = getattr(ops, f"quantise_int{bits}")(w)
            for rows in (x[:3], np.tile(x, (40, 1))[:40]):  # the kernel, and a BLAS
                a, cache = getattr(ops, f"linear_int{bits}")(rows, *packed, b)
                out += [*packed, a, *getattr(ops, f"linear_int{bits}_backward")(a, cache)]
        out += [ops.dequantise_int8(*ops.quantise_int8(w)), ops.dequantise_int4(*ops.quantise_int4(w), D)]
        q = q[..., : q.shape[-1] // 2 * 2]
        if q.size:
            a, cache = ops.rope(q, *ops.rope_tables(np.arange(N), q.shape[-1], dtype=dtype))
            out += [a, ops.rope_backward(a, cache), ops.softmax(q[..., :1] * q[0, 0, :, 0], causal=True)[0]]
        p, m, v = x.copy(), np.zeros_like(x), np.zeros_like(x)
        for step in (1, 2):
            ops.adamw(p, x * x, m, v, step, lr=0.01)
        out += [p, m, v, ops.next_token_probabilities(y, 0.7, 5, 0.9), ops.sample_tokens(y, rng.generator(1))]
        h, u, c = (g.standard_normal(s).astype(dtype) for s in ((N, 9), (27, D), (27, 9)))
        for name, rows in (("rnn_cell", 9), ("gru_cell", 27)):
            a, cache = getattr(ops, name)(x, h, u[:rows], c[:rows], u[:rows, 0], c[:rows, 0])
            out += [a, *getattr(ops, name + "_backward")(a, cache)]
    for shape, filters in (((1, 1, 1, 1), (1, 1)), ((3, 5, 9, 70), (9, 3)), ((35, 2, 12, 13), (33, 4))):
        x, w = (g.standard_normal(s).astype(dtype) for s in (shape, (filters[0], shape[1], filters[1], filters[1])))
        for stride in (1, 2):
            a, cache = ops.conv2d(x, w, w[:, 0, 0, 0], stride, filters[1] // 2)
            out += [a, *ops.conv2d_backward(a, cache)]
        for kernel, stride, padding in ((1, 1, 0), (2, 2, 0), (3, 2, 1), ((3, 17), 3, (0, 8)), ((7, 40), 1, (3, 20))):
            if min(shape[2:]) > 1 or kernel == 1:
                a, cache = ops.maxpool2d(x, kernel, stride, padding)
                out += [a, ops.maxpool2d_backward(a, cache)]
    return [np.asarray(a).tobytes() for a in out]
"""


def python(code, **environ):
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(
        command,
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


def test_same_bits_with_one_and_two_threads():
    code = RUN_ALL + (
        "import numba\n"
        "for dtype in (np.float32, np.float64):\n"
        "    numba.set_num_threads(1); one = run(dtype)\n"
        "    numba.set_num_threads(2); two = run(dtype)\n"
        "    assert one == two, [i for i, (a, b) in enumerate(zip(one, two)) if a != b]\n"
        "print('same', len(one))\n"
    )
    done = python(code, NUMBA_NUM_THREADS="2", OPENBLAS_NUM_THREADS="1", OMP_WAIT_POLICY="passive")
    assert done.stdout.startswith("same"), done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("NUMBA_BOUNDSCHECK") == "1", reason="this whole run checks bounds"
)
def test_no_access_out_of_bounds(tmp_path):
    # a fresh cache: kernels cached without the checks would be taken as they are
    environ = {
        "NUMBA_BOUNDSCHECK": "1",
        "NUMBA_CACHE_DIR": str(tmp_path),
        "OMP_WAIT_POLICY": "passive",
    }
    planted = """
import numpy as np, numba
@numba.njit
def f(a): return a[3]
try: f(np.zeros(3))
except IndexError: print("caught", end=" ")
"""
    done = python(RUN_ALL + "run(np.float32)\n" + planted + "print('all')", **environ)
    assert done.stdout == "caught all\n", done.stderr[-2000:]


def test_the_list_above_is_complete():
    from bigmodel_lab import ops

    missing = [
        name
        for name in ops.__all__
        if name.removesuffix("_backward") not in RUN_ALL
        and not name.startswith("linear_int")  # these names are put together there
        and name not in ("gradient_error", "numerical_gradients", "rope_tables")
    ]
    assert missing == []


def test_importing_ops_does_not_import_torch():
    done = python(
        "import sys, bigmodel_lab.ops; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    assert done.stdout == "False False\n", done.stderr[-2000:]
