"""How fast are the operations beside torch, plain NumPy and a Python loop, and how near to what the machine can do?

    python benchmarks/ops.py             # about a minute; prints the tables and writes benchmarks/results/ops.md
    python benchmarks/ops.py --quick     # a few seconds, small sizes, one thread; prints only

Every case first checks that all its candidates agree, then times them in turns (see _harness.py for how and why).
"""

import itertools
import math
import os
import subprocess
import sys
import tempfile

import _harness as harness  # first: it decides how the threads of the libraries below wait
import numpy as np
import torch
import torch.nn.functional as F
from _harness import Case

from bigmodel_lab import ops
from bigmodel_lab.models import MLP


def numpy_activation(name: str):
    """Forward and backward as one would write them in NumPy."""

    def gelu_tanh(x, dy):
        a, b = math.sqrt(2 / math.pi), 0.044715
        t = np.tanh(a * (x + b * x**3))
        return 0.5 * x * (1 + t), dy * (
            0.5 * (1 + t) + 0.5 * x * (1 - t**2) * a * (1 + 3 * b * x**2)
        )

    def sigmoid(x, dy):
        y = 1 / (1 + np.exp(-x))
        return y, dy * y * (1 - y)

    def tanh(x, dy):
        y = np.tanh(x)
        return y, dy * (1 - y**2)

    def relu(x, dy):
        return np.maximum(x, 0), dy * (x > 0)

    return {"relu": relu, "sigmoid": sigmoid, "tanh": tanh, "gelu tanh form": gelu_tanh}.get(name)


def python_relu(x, dy):
    """Forward and backward one element at a time."""
    y, dx = np.empty_like(x), np.empty_like(x)
    for n in range(x.shape[0]):
        for d in range(x.shape[1]):
            y[n, d] = x[n, d] if x[n, d] > 0 else 0
            dx[n, d] = dy[n, d] if x[n, d] > 0 else 0
    return y, dx


ACTIVATIONS = {
    "relu": (ops.relu, ops.relu_backward, F.relu),
    "sigmoid": (ops.sigmoid, ops.sigmoid_backward, torch.sigmoid),
    "tanh": (ops.tanh, ops.tanh_backward, torch.tanh),
    "gelu": (ops.gelu, ops.gelu_backward, F.gelu),
    "gelu tanh form": (
        lambda x: ops.gelu(x, approximate="tanh"),
        ops.gelu_backward,
        lambda x: F.gelu(x, approximate="tanh"),
    ),
}


def activation(name: str, N: int, D: int, *, python: bool = False) -> Case:
    """An activation function, forward and backward: reads x, writes y; reads dy and y (gelu: x), writes dx."""
    forward, backward, peer = ACTIVATIONS[name]
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, N, D), dtype=np.float32)
    tx, tdy = torch.from_numpy(x).requires_grad_(), torch.from_numpy(dy)

    def ours():
        y, cache = forward(x)
        return y, backward(dy, cache)

    def in_torch():
        y = peer(tx)
        return y.detach(), torch.autograd.grad(y, tx, tdy)[0]

    candidates = {"ours": ours, "torch": in_torch}
    if naive := numpy_activation(name):
        candidates["numpy"] = lambda: naive(x, dy)
    if python:
        candidates["python"] = lambda: python_relu(x, dy)
    return Case(name, f"{N} x {D}", candidates, {"ours": 5 * x.nbytes}, "GB/s")


def numpy_cross_entropy(x, t):
    """Loss and gradient as one would write them in NumPy."""
    e = np.exp(x - x.max(1, keepdims=True))
    p = e / e.sum(1, keepdims=True)
    rows = np.arange(len(t))
    loss = -np.log(p[rows, t]).mean()
    p[rows, t] -= 1
    return loss, p / np.float32(len(t))


def python_cross_entropy(x, t):
    """Loss and gradient one element at a time."""
    N, V = x.shape
    loss, dx = 0.0, np.empty_like(x)
    for n in range(N):
        largest = max(x[n])
        e = [math.exp(v - largest) for v in x[n]]
        total = sum(e)
        loss -= math.log(e[t[n]] / total) / N
        for v in range(V):
            dx[n, v] = (e[v] / total - (v == t[n])) / N
    return loss, dx


def cross_entropy(N: int, V: int, *, python: bool = False) -> Case:
    """Softmax and cross-entropy, loss and gradient: reads the logits, writes their gradient."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, V), dtype=np.float32) * 2
    t = rng.integers(0, V, N)
    tx, tt = torch.from_numpy(x).requires_grad_(), torch.from_numpy(t)
    spare = x.copy()
    in_place = ops.softmax_cross_entropy_with_gradient(spare, t, in_place=True)[1]
    assert np.array_equal(in_place, ops.softmax_cross_entropy_with_gradient(x, t)[1]), (
        "in place differs"
    )

    def two_calls():
        loss, cache = ops.softmax_cross_entropy(x, t)
        return loss, ops.softmax_cross_entropy_backward(1.0, cache)

    def overwrite():  # call after call on its own result: other values, the same cost
        ops.softmax_cross_entropy_with_gradient(spare, t, in_place=True)

    def in_torch():
        loss = F.cross_entropy(tx, tt)
        return loss.detach(), torch.autograd.grad(loss, tx)[0]

    candidates = {
        "ours": lambda: ops.softmax_cross_entropy_with_gradient(x, t),
        "ours, two calls": two_calls,
        "ours, in place": overwrite,
        "torch": in_torch,
        "numpy": lambda: numpy_cross_entropy(x, t),
    }
    if python:
        candidates["python"] = lambda: python_cross_entropy(x, t)
    nv = x.nbytes
    work = {"ours": 2 * nv, "ours, two calls": 3 * nv, "ours, in place": 2 * nv}
    return Case("softmax_cross_entropy", f"{N} x {V}", candidates, work, "GB/s")


def linear(N: int, D: int, O: int) -> Case:
    """A dense layer, forward and backward: three matrix products of 2 N D O floating-point operations."""
    rng = np.random.default_rng(0)
    x, w, b, dy = (rng.standard_normal(s, dtype=np.float32) for s in ((N, D), (O, D), (O,), (N, O)))
    tensors = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    tdy = torch.from_numpy(dy)

    def ours():
        y, cache = ops.linear(x, w, b)
        return y, *ops.linear_backward(dy, cache)

    def in_torch():
        y = F.linear(*tensors)
        return y.detach(), *torch.autograd.grad(y, tensors, tdy)

    def in_numpy():
        return x @ w.T + b, dy @ w, dy.T @ x, dy.sum(0)

    return Case(
        "linear",
        f"{N} x {D} -> {O}",
        {"ours": ours, "torch": in_torch, "numpy": in_numpy},
        {"ours": 6 * N * D * O},
        "GFLOP/s",
        agree=1e-4,  # sums of D or N products, in another order
    )


def mlp(N: int, widths: tuple[int, ...]) -> Case:
    """Loss and all gradients of an MLP, in torch modules: our kernels through autograd, and torch's own."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((N, widths[0]), dtype=np.float32))
    t = torch.from_numpy(rng.integers(0, widths[-1], N))
    models = {"ours": MLP(widths, ops="numba"), "torch": MLP(widths, ops="torch")}

    def run(model):
        def f():
            loss = model.loss(x, t)
            return loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))

        return f

    n_products = 6 * sum(a * b for a, b in itertools.pairwise(widths)) - 2 * widths[0] * widths[1]
    name = "MLP, loss and gradients"
    return Case(
        name,
        f"{N} x {'-'.join(map(str, widths))}",
        {k: run(m) for k, m in models.items()},
        {"ours": N * n_products},
        "GFLOP/s",
        agree=1e-4,
    )


def cases(quick: bool):
    """Yield the cases as functions, so that the arrays of only one exist at a time."""
    yield lambda: activation("relu", 64, 128, python=True)
    yield lambda: cross_entropy(128, 10, python=True)
    if quick:
        for name in ACTIVATIONS:
            yield lambda name=name: activation(name, 512, 1024)
        yield lambda: cross_entropy(256, 4096)
        yield lambda: linear(128, 784, 128)
        yield lambda: mlp(128, (784, 256, 10))
        return
    for shape in ((2048, 256), (8192, 1024)):
        for name in ACTIVATIONS:
            yield lambda name=name, shape=shape: activation(name, *shape)
    yield lambda: cross_entropy(2048, 8192)
    yield lambda: cross_entropy(512, 50257)
    yield lambda: linear(128, 784, 128)
    yield lambda: linear(2048, 256, 1024)
    yield lambda: mlp(128, (784, 256, 10))
    yield lambda: mlp(512, (784, 1024, 1024, 10))


FIRST_CALLS = """
import time, numpy as np
start = time.process_time()
from bigmodel_lab import ops
print("import", time.process_time() - start)
x = np.ones((4, 8), np.float32); t = np.zeros(4, np.int64); w = np.ones((3, 8), np.float32); b = np.ones(3, np.float32)
pairs = [("relu", x), ("sigmoid", x), ("tanh", x), ("gelu", x), ("linear", x, w, b), ("softmax_cross_entropy", x, t)]
for name, *args in pairs:
    start = time.process_time()
    y, cache = getattr(ops, name)(*args)
    getattr(ops, name + "_backward")(y, cache)
    print(name, time.process_time() - start)
"""


def first_calls() -> list[str]:
    """Seconds of the first forward and backward call in a fresh process: nothing cached, then everything."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            command = [sys.executable, "-c", FIRST_CALLS]
            environ = {**os.environ, "NUMBA_CACHE_DIR": folder}
            out = subprocess.run(
                command, env=environ, check=True, capture_output=True, text=True
            ).stdout
            found.append(dict(line.split() for line in out.splitlines()))
    cold, cached = found
    lines = [
        "| first call, forward and backward | compiling (s) | from the cache (s) |",
        "|---|--:|--:|",
    ]
    lines += [f"| {name} | {float(cold[name]):.2f} | {float(cached[name]):.2f} |" for name in cold]
    return lines


def default_heap() -> str:
    """What the ratio to torch would be had we not told the C library to keep freed memory. Call before retain_heap."""
    case = cross_entropy(512, 50257)
    pair = {name: case.candidates[name] for name in ("ours", "torch")}
    _, ratio, _ = harness.compare(pair, n_threads=1, limit_s=1.5).ratio("torch", "ours")
    return (
        f"Without that, a user's default, torch needs {ratio:.3g} times our time for {case.name} {case.size} with one "
        "thread: true, and a property of the memory allocator rather than of torch."
    )


def report(quick: bool):
    """Yield the lines of the report as they are found."""
    yield from harness.opening("The operations beside torch, NumPy and a Python loop", quick)
    yield harness.TABLE_NOTE
    yield ""
    yield (
        "MLP goes through torch's autograd on both sides: a call into Python costs 0.02 to 0.3 ms there, which shows at "
        "the small size."
    )
    yield ""
    if not quick:
        with harness.threads(1):
            note = default_heap()
    yield harness.keep_freed_memory()
    if not quick:
        yield note
    peers = "torch", "numpy", "python"
    yield from harness.by_threads(
        quick,
        lambda n: harness.table(cases(quick), n, peers=peers, limit_s=0.4 if quick else 0.8),
    )
    if not quick:
        yield ""
        yield "## Compiling"
        yield ""
        yield from first_calls()


if __name__ == "__main__":
    harness.main(report, __doc__)
