"""How fast are weights of 8 and 4 bits beside float32, and how near to the speed at which the memory can be read?

    python benchmarks/quantised.py            # some minutes, 2 GB of memory; prints, writes results/quantised.md
    python benchmarks/quantised.py --quick    # a few seconds, small sizes, one thread; prints only

First single products of a few rows with a matrix, most of which are larger than the processor's caches; then whole models
that produce one token after 128 others. Every product is first checked against the same one in float32 (see _harness.py).
"""

import warnings
from collections.abc import Callable, Iterator

import _harness as harness  # first: it decides how the threads of the libraries below wait
import numpy as np
import torch
from numba import njit, prange

from bigmodel_lab import ops
from bigmodel_lab.models import GPT, GPTConfig, quantise, weights_bytes
from bigmodel_lab.models.generate import KVCache

PEERS = "torch", "torch bf16", "torch packed", "torch W8A8", "naive"
NOTES = (
    "Weights of a Gaussian, one row of x or a few, as in decoding. `torch` is float32; `torch bf16` has half its bytes; "
    "`torch packed` is what torch has inside for weights of the same bits (`_weight_int8pack_mm`, `_weight_int4pack_mm_for_cpu`; "
    "x is bfloat16); `torch W8A8` is its dynamic quantisation, which rounds x to 8 bits as well; `naive` turns all weights into "
    "floats and multiplies, every time. The limit is reading as many bytes as ours reads.",
    "Accuracy beside the same weights as floats: ours 2e-5 (x has 16 bits in groups of 64), packed 3e-3, W8A8 8e-3. For one "
    "row the memory decides, and fewer bytes win. For several rows arithmetic does: W8A8 multiplies in 8 bits, and bf16 has "
    "instructions of its own on some processors; our kernels unpack the weights once for each row.",
)


@njit(parallel=True, cache=True, fastmath={"reassoc"})
def read(a, sums):
    """Add up each row of a (N, 16384): as fast as this memory can be read, or this cache where a is small."""
    for i in prange(len(a)):
        row = a[i]
        total = np.float32(0)
        for j in range(row.size):
            total += row[j]
        sums[i] = total


def reading(n_bytes: float) -> tuple[Callable, float]:
    """Return a function that reads about n_bytes, and how many it reads."""
    a = np.ones((max(1, round(n_bytes / 65536)), 16384), np.float32)
    sums = np.empty(len(a), np.float32)
    return lambda: read(a, sums), a.nbytes


class Product(harness.Case):
    """Rows times a quantised matrix; the limit is reading its bytes, as nothing to speak of is written."""

    def limit(self):
        return reading(self.work)


def product(bits: int, N: int, D: int, O: int) -> Product:
    """x (N, D) times a matrix (O, D) of 8 or 4 bits."""
    g = np.random.default_rng(0)
    x, w = (g.standard_normal(shape, dtype=np.float32) for shape in ((N, D), (O, D)))
    linear, quantise, floats = {
        8: (ops.linear_int8, ops.quantise_int8, ops.dequantise_int8),
        4: (ops.linear_int4, ops.quantise_int4, lambda *a: ops.dequantise_int4(*a, D)),
    }[bits]
    packed = quantise(w)
    w[:] = floats(*packed)
    tx, tw = torch.from_numpy(x), torch.from_numpy(w)
    half_x, half_w = tx.bfloat16(), tw.bfloat16()
    coarse = {"torch bf16": lambda: torch.nn.functional.linear(half_x, half_w)}
    if bits == 8:
        q, scale = map(torch.from_numpy, packed)
        half_scale, dynamic = scale.bfloat16(), _dynamic(q, scale)
        coarse["torch packed"] = lambda: torch._weight_int8pack_mm(half_x, q, half_scale)
        coarse["torch W8A8"] = lambda: torch.ops.quantized.linear_dynamic(tx, dynamic, False)
    elif O % 64 == 0:
        tiles, scales = _tiles(tw, packed[1])
        coarse["torch packed"] = lambda: torch.ops.aten._weight_int4pack_mm_for_cpu(
            half_x, tiles, 64, scales
        )
    want = tx @ tw.T
    for name, f in coarse.items():
        miss = float((f().float() - want).norm() / want.norm())
        assert miss < 0.02, f"{bits} bits, {N} x {D} -> {O}: {name} misses by {miss:.1e}"
    candidates = {
        "ours": lambda: (linear(x, *packed)[0],),
        "torch": lambda: (torch.nn.functional.linear(tx, tw),),
        "naive": lambda: (x @ floats(*packed).T,),
        # found near enough above; None, so that the narrow check leaves them out
        **{name: lambda f=f: _nothing(f()) for name, f in coarse.items()},
    }
    n_bytes = sum(a.nbytes for a in packed)
    return Product(f"{bits} bits", f"{N} x {D} -> {O}", candidates, n_bytes, agree=2e-4)


def _nothing(_):
    """Return None."""


def _dynamic(q, scale):
    """The weights as torch's dynamic quantisation keeps them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is deprecated, and still the only one that rounds x
        zeros = torch.zeros(len(q), dtype=torch.int64)
        w = torch._make_per_channel_quantized_tensor(q, scale.double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(w, None)


def _tiles(w, scale):
    """The weights and scales as torch's product of 4-bit weights wants them, for w (O, D) and scale (O, D / 64)."""
    scale = torch.from_numpy(scale)
    n = (w.unflatten(1, (-1, 64)) / scale[..., None]).round().flatten(1).int() + 8
    scales = torch.stack([scale.T, torch.zeros_like(scale.T)], -1).bfloat16().contiguous()
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(n, 1), scales


def products(quick: bool):
    """Yield the cases as functions, so that the arrays of only one exist at a time."""
    sizes = [(1, 256, 512), (3, 128, 192)]
    if not quick:
        sizes = [(1, 4096, 28672), (1, 8192, 8192), (1, 4096, 4096), (1, 768, 3072)]
        sizes += [(4, 4096, 28672), (16, 4096, 4096)]
    for size in sizes:
        for bits in (8, 4):
            yield lambda size=size, bits=bits: product(bits, *size)


def decoding(config: GPTConfig, n_threads: int, before: int, *, limit_s: float) -> Iterator[str]:
    """Yield the rows of a table: the time of one token after `before` others, by one model in several forms."""
    with torch.no_grad():
        model = GPT(config)
        forms = {
            "float32, torch": model,
            "float32, our kernels": GPT(config, "numba"),
            "8 bits": quantise(model, 8),
            "4 bits": quantise(model, 4),
        }
        forms["float32, our kernels"].load_state_dict(model.state_dict())
        tokens = torch.randint(config.vocab_size, (1, before + 1))
        steps = {name: step(form, tokens) for name, form in forms.items()}
        logits = {name: f() for name, f in steps.items()}
        want = logits["float32, torch"]
        misses = {name: float((y - want).norm() / want.norm()) for name, y in logits.items()}
        assert misses["float32, our kernels"] < 1e-4, misses
        assert misses["8 bits"] < 0.05, misses
        steps["float32, torch, all computed again"] = lambda: model(tokens)[:, -1]
        steps["limit"], n_bytes = reading(weights_bytes(forms["8 bits"]))
        times = harness.compare(steps, n_threads=n_threads, limit_s=limit_s, rounds=15)
    limit = n_bytes / times.median("limit")
    for name in steps:
        if name == "limit":
            continue
        size = weights_bytes(forms.get(name, model))
        low, middle, high = times.ratio("float32, torch", name)
        yield harness.row(
            name + ("" if times.quiet else " ~"),
            f"{size / 1e6:.0f}",
            f"{1 / times.median(name):.3g}",
            f"{middle:.3g} ({low:.2f}-{high:.2f})",
            f"{size / times.median(name) / limit:.0%}",
            f"{misses[name]:.1e}" if name in misses else "-",
        )


def step(model, tokens):
    """Return a function that computes the logits after the last of `tokens` (1, T), the others being in a cache."""
    cache = KVCache(model.config, 1, model.norm.weight)
    model(tokens[:, :-1], cache=cache)

    def run():
        y = model(tokens[:, -1:], cache=cache)[:, -1]
        for l in range(model.config.n_layers):
            cache[l].length -= 1  # forget this one, so that the next call does the same
        return y

    return run


MODELS = {
    "GPT-2 small's shape, 124 million parameters": GPTConfig.gpt2(),
    "4 layers, 256 wide, vocabulary 4096": GPTConfig.gpt2(4096, 256, 4, 256, 4),
}


def section(quick: bool, n_threads: int) -> Iterator[str]:
    yield from harness.table(
        products(quick),
        n_threads,
        peers=PEERS,
        first="product",
        limit_s=0.3 if quick else 2,
        rounds=11,
    )
    models = {"tiny": GPTConfig.gpt2(64, 64, 2, 64, 2)} if quick else MODELS
    for title, config in models.items():
        yield ""
        yield f"One token after {32 if quick else 128} others, one sequence: {title}."
        yield ""
        yield harness.row(
            "model",
            "weights (MB)",
            "tokens/s",
            "times as fast as float32, torch (quartiles)",
            "weights read, share of the limit",
            "logits moved by (share)",
        )
        yield "|---|" + "--:|" * 5
        yield from decoding(config, n_threads, 32 if quick else 128, limit_s=0.5 if quick else 8)


def report(quick: bool):
    """Yield the lines of the report as they are found."""
    yield from harness.opening("Weights of 8 and 4 bits beside float32", quick)
    yield harness.TABLE_NOTE
    for note in NOTES:
        yield ""
        yield note
    yield ""
    yield harness.keep_freed_memory()
    yield from harness.by_threads(quick, lambda n: section(quick, n))


if __name__ == "__main__":
    harness.main(report, __doc__)
