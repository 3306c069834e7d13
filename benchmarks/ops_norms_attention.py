"""How fast are the operations of a Transformer beside torch and plain NumPy, and how near to what the machine can do?

    python benchmarks/ops_norms_attention.py            # under a minute; prints, writes results/ops_norms_attention.md
    python benchmarks/ops_norms_attention.py --quick    # a few seconds, small sizes, one thread; prints only

Every case first checks that all its candidates agree, then times them in turns (see _harness.py for how and why).
"""

import _harness as harness  # first: it decides how the threads of the libraries below wait
import numpy as np
import torch
from _harness import Case

from bigmodel_lab import ops
from bigmodel_lab.ops.torch import backend

TORCH = backend("torch")


def both_passes(op, op_backward, args, dy):
    """Return a function that runs our forward and backward pass."""

    def run():
        y, cache = op(*args)
        grads = op_backward(dy, cache)
        return y, *(grads if isinstance(grads, tuple) else (grads,))

    return run


def in_torch(f, args, dy):
    """Return a function that runs torch's; gradients are those of the float arguments."""
    tensors = [torch.from_numpy(np.asarray(a)) for a in args]
    wanted = [t.requires_grad_() for t in tensors if t.is_floating_point()]
    dy = torch.from_numpy(np.asarray(dy))

    def run():
        y = f(*tensors)
        return y.detach(), *torch.autograd.grad(y, wanted, dy)

    return run


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def numpy_layernorm(x, g, b, dy, eps=1e-5):
    r = 1 / np.sqrt(x.var(1, keepdims=True) + eps)
    z = (x - x.mean(1, keepdims=True)) * r
    h = dy * g
    dx = r * (h - h.mean(1, keepdims=True) - z * (h * z).mean(1, keepdims=True))
    return z * g + b, dx, (dy * z).sum(0), dy.sum(0)


def numpy_rmsnorm(x, g, dy, eps=1e-6):
    r = 1 / np.sqrt((x * x).mean(1, keepdims=True) + eps)
    h = dy * g
    dx = r * (h - x * r**2 * (h * x).mean(1, keepdims=True))
    return x * r * g, dx, (dy * x * r).sum(0)


def numpy_swiglu(a, b, dy):
    s = 1 / (1 + np.exp(-a))
    return a * s * b, dy * b * (s + a * s * (1 - s)), dy * a * s


def numpy_softmax(x, dy):
    e = np.exp(x - x.max(1, keepdims=True))
    y = e / e.sum(1, keepdims=True)
    return y, y * (dy - (dy * y).sum(1, keepdims=True))


def numpy_embedding(tokens, w, dy):
    dw = np.zeros_like(w)
    np.add.at(dw, tokens, dy)
    return w[tokens], dw


def rows_of(name: str, N: int, D: int) -> Case:
    """An operation on the rows of x (N, D), forward and backward."""
    x, dy, g, b = normal(N, D), normal(N, D, seed=1), 1 + normal(D), normal(D, seed=2)
    args, numpy, n_arrays = {
        "layernorm": ((x, g, b), numpy_layernorm, 5),  # x, y; x, dy, dx
        "rmsnorm": ((x, g), numpy_rmsnorm, 5),
        "silu": ((x,), None, 5),
        "swiglu": ((x, dy + 1), numpy_swiglu, 8),  # a, b, y; a, b, dy, da, db
        "softmax": ((x,), numpy_softmax, 5),
    }[name]
    candidates = {
        "ours": both_passes(getattr(ops, name), getattr(ops, name + "_backward"), args, dy),
        "torch": in_torch(getattr(TORCH, name), args, dy),
    }
    if numpy:
        candidates["numpy"] = lambda: numpy(*args, dy)
    return Case(name, f"{N} x {D}", candidates, n_arrays * x.nbytes, agree=1e-4)


def dropout(N: int, D: int) -> Case:
    """Dropout; torch's has another mask, so it returns what ours did after being timed doing its own."""
    x, dy = normal(N, D), normal(N, D, seed=1)
    ours = both_passes(lambda x: ops.dropout(x, 0.1, 7), ops.dropout_backward, (x,), dy)
    expected = ours()
    theirs = in_torch(lambda x: TORCH.dropout(x, 0.1, True), (x,), dy)

    def run():
        y, _ = theirs()
        assert abs(float((y == 0).float().mean()) - 0.1) < 0.05
        return expected

    return Case("dropout", f"{N} x {D}", {"ours": ours, "torch": run}, 4 * x.nbytes)


def embedding(N: int, V: int, D: int) -> Case:
    """Rows of a table and their gradient: reads N rows, writes N; sets dw to 0, reads N rows and adds N to dw."""
    tokens = np.random.default_rng(0).integers(0, V, N)
    w, dy = normal(V, D), normal(N, D, seed=1)
    backward = ops.embedding_backward
    candidates = {
        "ours": both_passes(ops.embedding, backward, (tokens, w), dy),
        "torch": in_torch(TORCH.embedding, (tokens, w), dy),
        "numpy": lambda: numpy_embedding(tokens, w, dy),
    }
    return Case("embedding", f"{N} of {V} x {D}", candidates, 5 * dy.nbytes + w.nbytes)


def rope(B: int, H: int, T: int, K: int) -> Case:
    """Rotary positions, there and back."""
    x, dy = normal(B, H, T, K), normal(B, H, T, K, seed=1)
    cos, sin = ops.rope_tables(np.arange(T), K)
    tables = torch.from_numpy(cos), torch.from_numpy(sin)
    candidates = {
        "ours": both_passes(lambda x: ops.rope(x, cos, sin), ops.rope_backward, (x,), dy),
        "torch": in_torch(lambda x: TORCH.rope(x, *tables), (x,), dy),
    }
    return Case("rope", f"{B} x {H} x {T} x {K}", candidates, 4 * x.nbytes)


def attention(B: int, H: int, G: int, T: int, K: int) -> Case:
    """Causal attention: 2 products of 2 T^2 K / 2 forward and 5 backward (scores again, dv, dp, dq, dk) for each head."""
    args = normal(B, H, T, K), normal(B, G, T, K, seed=1), normal(B, G, T, K, seed=2)
    dy = normal(B, H, T, K, seed=3)
    candidates = {
        "ours": both_passes(ops.flash_attention, ops.flash_attention_backward, args, dy),
        "ours, plain": both_passes(ops.attention, ops.attention_backward, args, dy),
        "torch": in_torch(TORCH.attention, args, dy),
    }
    size = f"{B} x {H} x {T} x {K}" + (f", {G} key heads" if G != H else "")
    return Case("attention", size, candidates, 7 * B * H * T**2 * K, "GFLOP/s", 1e-4)


def linear_cross_entropy(N: int, D: int, V: int) -> Case:
    """The last layer with its loss: three products of 2 N D V."""
    h, w = normal(N, D), normal(V, D, seed=1) / np.float32(D**0.5)
    t = np.random.default_rng(0).integers(0, V, N)
    th, tw = (torch.from_numpy(a).requires_grad_() for a in (h, w))
    tt = torch.from_numpy(t)
    ours = backend("numba").linear_cross_entropy

    def run(f):
        loss = f(th, tw, tt)
        return loss.detach(), *torch.autograd.grad(loss, (th, tw))

    candidates = {
        "ours": lambda: ops.linear_cross_entropy_with_gradient(h, w, t),
        "ours, torch's products": lambda: run(ours),
        "torch": lambda: run(TORCH.linear_cross_entropy),
    }
    name = "linear_cross_entropy"
    return Case(name, f"{N} x {D} -> {V}", candidates, 6 * N * D * V, "GFLOP/s", 1e-4)


def cases(quick: bool):
    """Yield the cases as functions, so that the arrays of only one exist at a time."""
    n = 256 if quick else 2048
    for name in ("layernorm", "rmsnorm", "silu", "swiglu", "softmax"):
        yield lambda name=name: rows_of(name, n, 1024)
    if not quick:
        yield lambda: rows_of("layernorm", n, 256)
        yield lambda: rows_of("rmsnorm", n, 256)
    yield lambda: dropout(n, 1024)
    yield lambda: embedding(n, 4 * n, 256)
    yield lambda: rope(n // 256, 4, 256, 64)
    yield lambda: attention(n // 256, 4, 4, 256, 64)
    if not quick:
        yield lambda: attention(2, 4, 4, 1024, 64)
        yield lambda: attention(1, 8, 2, 1024, 64)
        yield lambda: attention(1, 4, 4, 1000, 80)
    yield lambda: linear_cross_entropy(n // 2, 256, 8 * n // 2)


def report(quick: bool):
    """Yield the lines of the report as they are found."""
    yield from harness.opening(
        "Norms, activations, attention and the last layer beside torch and NumPy", quick
    )
    yield harness.TABLE_NOTE
    yield ""
    yield (
        "torch is eager torch: scaled_dot_product_attention for attention, whose work is the products that a causal mask "
        "needs."
    )
    yield ""
    yield harness.keep_freed_memory()
    yield from harness.by_threads(
        quick,
        lambda n: harness.table(cases(quick), n, limit_s=0.3 if quick else 0.9, rounds=9),
    )


if __name__ == "__main__":
    harness.main(report, __doc__)
