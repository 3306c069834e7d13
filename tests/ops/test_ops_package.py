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
        q = q[..., : q.shape[-1] // 2 * 2]
        if q.size:
            out += [ops.rope(q, *ops.rope_tables(np.arange(N), q.shape[-1], dtype=dtype))[0]]
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


def test_importing_ops_does_not_import_torch():
    done = python(
        "import sys, bigmodel_lab.ops; print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    assert done.stdout == "False False\n", done.stderr[-2000:]
