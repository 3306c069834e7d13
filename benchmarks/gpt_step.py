"""How long is a whole training step of a GPT, and how much memory does it take, beside torch eager and torch.compile?

    python benchmarks/gpt_step.py            # about 90 s (the first time 60 s more, in which torch.compile compiles);
                                             # prints the tables and writes benchmarks/results/gpt_step.md
    python benchmarks/gpt_step.py --quick    # about 10 s, a small model, one thread, no torch.compile; prints only

A step is forward, backward and AdamW. The variants train copies of one model on the same tokens, must agree in loss and
gradients, and take turns in one process (see _harness.py); memory is the peak of a process of its own for each. Below
the step: those of its operations that no matrix product hides, each beside torch.compile, too, on one thread.
"""

import gc
import json
import subprocess
import sys
from collections.abc import Callable

import _harness as harness  # first: it decides how the threads of the libraries below wait
import numpy as np
import torch
from _harness import Case

from bigmodel_lab.models import GPT, GPTConfig
from bigmodel_lab.ops.torch import backend
from bigmodel_lab.train.optim import AdamW

BATCH, LR = 4, 3e-4
CONFIG = GPTConfig.gpt2(vocab_size=8192, context=256, n_layers=4, width=256, n_heads=4)
SMALL = GPTConfig.gpt2(vocab_size=512, context=64, n_layers=2, width=64, n_heads=4)


class Step:
    """A model, its optimiser and a batch: a call takes one training step and returns the loss."""

    def __init__(self, variant: str, config: GPTConfig):
        numba = variant == "numba"
        self.model = GPT(config, ops="numba" if numba else "torch")
        parameters = self.model.parameters()
        self.optimiser = (
            AdamW(parameters, lr=LR) if numba else torch.optim.AdamW(parameters, lr=LR, fused=True)
        )
        self.loss = torch.compile(self.model) if variant == "torch.compile" else self.model
        text = np.random.default_rng(0).integers(0, config.vocab_size, (BATCH, config.context + 1))
        self.tokens = torch.from_numpy(text[:, :-1].copy()), torch.from_numpy(text[:, 1:].copy())

    def gradients(self) -> float:
        """Forward and backward."""
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.loss(*self.tokens)
        loss.backward()
        return loss.item()

    def __call__(self) -> float:
        loss = self.gradients()
        self.optimiser.step()
        return loss


def compiler_missing() -> str:
    """Why torch.compile does not work here; empty if it does."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(8))
    except Exception as error:  # whatever it is, it is what the page says
        lines = [line for line in str(error).strip().splitlines() if line] or [repr(error)]
        return f"{type(error).__name__}: {lines[0][:200]}"
    return ""


def flop(config: GPTConfig) -> float:
    """Floating-point operations of a step's matrix products: 6 a weight and token, 7 T^2 D a causal attention."""
    c, n = config, BATCH * config.context
    block = c.width * (2 * c.width + 2 * c.kv_width) + 2 * c.width * c.hidden
    weights = c.n_layers * block + c.vocab_size * c.width
    return 6 * n * weights + 7 * BATCH * c.n_layers * c.context**2 * c.width


def step_rows(n_threads: int, variants: list[str], config: GPTConfig, limit_s: float):
    """Check that the variants agree, time them, and yield a table with a row for each."""
    torch._dynamo.reset()  # code compiled for another number of threads
    steps = {name: Step(name, config) for name in variants}
    losses = {name: step.gradients() for name, step in steps.items()}
    wanted = [p.grad for p in steps["torch"].model.parameters()]
    for name, step in steps.items():
        assert abs(losses[name] - losses["torch"]) < 1e-5, losses
        for got, want in zip(step.model.parameters(), wanted, strict=True):
            miss = ((got.grad - want).abs().max() / want.abs().max()).item()
            assert miss < 1e-4, f"{name}: a gradient of shape {tuple(want.shape)}: {miss:.1e}"
    times = harness.compare(
        {**steps, "products": products(config)},
        n_threads=n_threads,
        rounds=9,
        limit_s=limit_s,
    )
    mark = "" if times.quiet else " ~"
    n_tokens = BATCH * config.context
    yield "| training step | time (ms) | time / ours (quartiles) | tokens/s | its matrix products (GFLOP/s) |"
    yield "|---|--:|--:|--:|--:|"
    for name in variants:
        seconds = times.median(name)
        low, middle, high = times.ratio(name, "numba")
        yield harness.row(
            name + mark,
            f"{seconds * 1e3:.3g}",
            f"{middle:.3g} ({low:.2f}-{high:.2f})",
            f"{n_tokens / seconds:,.0f}",
            f"{flop(config) / seconds / 1e9:.3g}",
        )
    yield ""
    share = times.ratio("products", "numba")[1]
    yield (
        f"The matrix products of the linear layers alone, with torch's BLAS as in all variants, take {share:.0%} of our "
        "time."
    )


def products(config: GPTConfig) -> Callable[[], None]:
    """Return a function that does the matrix products of the linear layers of one step, and nothing else."""
    N, D, H = BATCH * config.context, config.width, config.hidden
    shapes = [(D, D + 2 * config.kv_width), (D, D), (D, H), (H, D)] * config.n_layers
    shapes.append((D, config.vocab_size))
    x = {d: torch.randn(N, d) for d in {d for shape in shapes for d in shape}}
    w = {shape: torch.randn(shape[::-1]) for shape in set(shapes)}

    def run():
        for d, o in shapes:
            x[d] @ w[d, o].T, x[o] @ w[d, o], x[o].T @ x[d]

    return run


# --- memory -------------------------------------------------------------------------------------------------------


def peak_bytes(variant: str, vocab_size: int) -> int:
    """Peak of resident memory over three steps, above what the process held before it made the model. For a child."""
    config = GPTConfig.gpt2(vocab_size, context=256, n_layers=4, width=256, n_heads=4)
    torch.set_num_threads(1)
    Step("numba" if variant == "numba" else "torch", SMALL)()  # loads the libraries' code
    gc.collect()
    before = _status("VmRSS")
    step = Step(variant, config)
    step()  # torch.compile compiles here, and takes memory that it gives back
    with open("/proc/self/clear_refs", "w") as f:
        f.write("5")  # sets VmHWM, the peak, to what is held now
    for _ in range(2):
        step()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    """A line of /proc/self/status, in bytes."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(name + ":"))


def memory_rows(variants: list[str]):
    """Yield a table of the peak memory of a step, each variant in a process of its own, for two vocabularies."""
    if not sys.platform.startswith("linux"):
        yield "Peak memory is measured on Linux only."
        return
    sizes = 8192, 50257
    yield harness.row("peak above what was held before (MB)", *(f"V = {v:,}" for v in sizes))
    yield "|---|--:|--:|"
    for name in variants:
        peaks = [_in_child(name, v) for v in sizes]
        yield harness.row(name, *(f"{p / 1e6:,.0f}" for p in peaks))
    state = [GPTConfig.gpt2(v, 256, 4, 256, 4).n_parameters * 16 for v in sizes]
    yield harness.row("parameters, gradients, moments", *(f"{s / 1e6:,.0f}" for s in state))


def _in_child(variant: str, vocab_size: int) -> int:
    command = [sys.executable, __file__, "--peak", variant, str(vocab_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return json.loads(done.stdout.splitlines()[-1])


# --- single operations --------------------------------------------------------------------------------------------


def with_gradients(f: Callable, inputs: tuple, dy: torch.Tensor | None):
    """Return a function that runs f on tensors and the gradients of those that want one."""
    wanted = [t for t in inputs if t.requires_grad]

    def run():
        y = f(*inputs)
        return y.detach(), *torch.autograd.grad(y, wanted, dy)

    return run


def operation(name: str, N: int, D: int, compiled: bool) -> Case:
    """One operation on tensors, forward and backward, by all three, through autograd in all three."""
    torch._dynamo.reset()
    g = torch.Generator().manual_seed(0)
    x = torch.randn(N, D, generator=g).requires_grad_()
    dy = torch.randn(N, D, generator=g)
    gain, bias = (torch.randn(D, generator=g).requires_grad_() for _ in range(2))
    target = torch.randint(0, D, (N,), generator=g)
    nx = 4 * N * D
    inputs, dy, work = {
        "layernorm": ((x, gain, bias), dy, 5 * nx),  # x, y; x, dy, dx
        "rmsnorm": ((x, gain), dy, 5 * nx),
        "gelu": ((x,), dy, 5 * nx),
        "gelu, tanh form": ((x,), dy, 5 * nx),
        "softmax_cross_entropy": ((x, target), None, 2 * nx),
    }[name]

    def of(backend_name):
        f = getattr(backend(backend_name), name.split(",")[0])
        return (lambda x: f(x, approximate="tanh")) if name.endswith("form") else f

    in_torch = of("torch")
    candidates = {
        "ours": with_gradients(of("numba"), inputs, dy),
        "torch": with_gradients(in_torch, inputs, dy),
    }
    if compiled:
        candidates["torch.compile"] = with_gradients(torch.compile(in_torch), inputs, dy)
    return Case(name, f"{N} x {D}", candidates, work, agree=1e-4)


def adamw(n: int, compiled: bool) -> Case:
    """One step of AdamW on n parameters: reads p, g, m and v, writes p, m and v."""
    torch._dynamo.reset()

    def start():
        g = torch.Generator().manual_seed(0)
        p = torch.nn.Parameter(torch.randn(n, generator=g))
        p.grad = torch.randn(n, generator=g)
        return p

    ours, theirs, unfused = start(), start(), start()
    steps = {
        "ours": AdamW([ours], lr=LR).step,
        "torch": torch.optim.AdamW([theirs], lr=LR, fused=True).step,
    }
    if compiled:
        plain = torch.optim.AdamW([unfused], lr=LR, foreach=True)
        steps["torch.compile"] = torch.compile(plain.step)
    for step in steps.values():
        step()
    assert (ours - theirs).abs().max() < 1e-6
    assert not compiled or (ours - unfused).abs().max() < 1e-6
    # they change their arrays, so there is nothing to compare call by call
    candidates = {name: lambda step=step: step() or () for name, step in steps.items()}
    return Case("adamw (torch: fused)", f"{n / 1e6:g} M", candidates, 28 * n)


def cases(quick: bool, compiled: bool):
    """Yield the operations as functions that make a Case."""
    n = 256 if quick else 2048
    for name in ("layernorm", "rmsnorm", "gelu", "gelu, tanh form"):
        yield lambda name=name: operation(name, n, 1024, compiled)
    if not quick:
        yield lambda: operation("layernorm", 8192, 1024, compiled)
    yield lambda: operation("softmax_cross_entropy", n, 4 * n, compiled)
    yield lambda: adamw(n * 4096, compiled)


def report(quick: bool):
    """Yield the lines of the report as they are found."""
    missing = "" if quick else compiler_missing()
    yield from harness.opening(
        "A training step of a GPT beside torch eager and torch.compile", quick
    )
    c = SMALL if quick else CONFIG
    yield (
        f"The model: {c.n_layers} layers, width {c.width}, {c.n_heads} heads, vocabulary {c.vocab_size:,}, output tied to "
        f"the embedding, {c.n_parameters / 1e6:.2g} M parameters; {BATCH} sequences of {c.context} tokens a step, float32. "
        "numba is this library's kernels in the forward and backward pass and in AdamW, through torch's autograd; its "
        "matrix products are torch's. torch is eager torch with scaled_dot_product_attention and the fused AdamW. All "
        "variants agree in the loss and to 1e-4 in every gradient before they are timed."
    )
    yield ""
    if missing:
        yield f"torch.compile does not work here and is left out. It says: {missing}"
        yield ""
    yield (
        f"{harness.TABLE_NOTE} AdamW passes 100 % because it changes arrays in place, where a copy pays for reading each "
        "line that it is about to overwrite."
    )
    yield ""
    yield harness.keep_freed_memory()
    compiled = not (quick or missing)
    variants = ["numba", "torch", *(["torch.compile"] if compiled else [])]

    def section(n_threads):
        yield from step_rows(n_threads, variants, c, 1.0 if quick else 10 / n_threads)
        if not quick:
            yield ""
            yield (
                f"The same for a small model, {SMALL.n_layers} layers of width {SMALL.width} on {BATCH} x {SMALL.context} "
                "tokens: what an operation costs in Python, several times as much in ours as in torch's, is all that counts."
            )
            yield ""
            yield from step_rows(n_threads, variants[:2], SMALL, 1.0)
        if n_threads > 1:  # ops.py has them at two threads, without torch.compile
            return
        yield ""
        yield from harness.table(
            cases(quick, compiled),
            n_threads,
            peers=("torch", "torch.compile"),
            limit_s=0.3 if quick else 0.6,
            rounds=9,
        )

    yield from harness.by_threads(quick, section)
    if not quick:
        yield ""
        yield "## Memory"
        yield ""
        yield (
            "One thread, the system's default heap, the peak over the second and third step. numba's last layer computes "
            "the loss in chunks of 256 rows and never holds the logits, which for the larger vocabulary are most of what "
            "torch needs."
        )
        yield ""
        yield from memory_rows(variants)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(peak_bytes(sys.argv[2], int(sys.argv[3])))
    else:
        harness.main(report, __doc__)
