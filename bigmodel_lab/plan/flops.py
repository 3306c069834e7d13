"""Training FLOPs: the exact count of the matrix products, the short formulas, and utilisation.

A product of (m, k) with (k, n) counts 2mkn FLOP; the backward pass costs twice the forward. Element-wise work (norms,
activations, softmax) is left out, as every published count does. For GPT-2's form, B sequences of T tokens,

    forward = 24 B T L D^2 (1 + T / 6D) + 2 B T D V,    training = 3 forward,    6 N D is the short form.

Model FLOPs are what the maths needs; hardware FLOPs add what recomputation runs again. MFU divides the first by the
peak, HFU the second. Sources: Kaplan et al. (2020), arXiv:2001.08361, table 1; Chowdhery et al. (2022),
arXiv:2204.02311, appendix B; Narayanan et al. (2021), arXiv:2104.04473, eq. 3; Korthikanti et al. (2022),
arXiv:2205.05198, appendix A. Told in chapter 16.
"""

from dataclasses import dataclass

from bigmodel_lab.errors import require_choice
from bigmodel_lab.plan.architecture import Architecture, require_architecture
from bigmodel_lab.plan.parameters import block_size, count_parameters
from bigmodel_lab.units import Q, Quantity, number, whole

__all__ = [
    "RECOMPUTE",
    "ForwardFlops",
    "forward_flops",
    "hfu",
    "mfu",
    "palm_flops_per_token",
    "six_nd",
    "training_flops",
    "utilisation",
    "whole_run_utilisation",
]

RECOMPUTE = {  # what the backward pass runs again -> how many more forward passes of (attention core, rest of the layers)
    "none": (0, 0),
    "selective": (1, 0),  # scores, softmax, scores times values: one more forward pass of them
    # Korthikanti's appendix A charges the core's forward and backward: s/6h, not s/18h
    "selective_published": (3, 0),
    "full": (1, 1),  # every layer; not the output layer
}


@dataclass(frozen=True)
class ForwardFlops:
    """FLOP of one forward pass, by part."""

    projections: Quantity  # attention's four matrices, feed-forward blocks, routers
    core: Quantity  # scores and scores times values: what grows with the square of the sequence
    head: Quantity  # the output layer

    @property
    def total(self) -> Quantity:
        """All of one forward pass."""
        return self.projections + self.core + self.head


def _sequence(arch: Architecture, sequence: int | None) -> int:
    T = require_architecture(arch).context if sequence is None else sequence
    return whole("sequence", T, "token", 1)


def forward_flops(
    arch: Architecture, sequence: int | None = None, batch: int = 1, *, attention: str = "full"
) -> ForwardFlops:
    """Return the FLOP of a forward pass over `batch` sequences of `sequence` tokens (default: the context).

    attention : "full" counts the T x T scores that published figures count; "causal" only the T(T+1)/2 that a
        causal model uses. Of experts, only those that work for a token count.
    """
    T = _sequence(arch, sequence)
    B = whole("batch", batch, low=1)
    require_choice("attention", attention, ("full", "causal"))
    D, H, G, K, L = arch.width, arch.n_heads, arch.kv_heads, arch.key_width, arch.n_layers
    if m := arch.mla:
        queries = D * H * K if m.q_rank is None else m.q_rank * (D + H * K)
        latent = D * (m.kv_rank + m.rope) + m.kv_rank * H * (m.nope + m.value)
        weights = queries + latent + H * m.value * D
    else:
        weights = D * (H + 2 * G) * K + H * K * D
    bare = arch.but(biases="none")
    weights = L * weights + (L - arch.expert_layers) * block_size(bare, arch.hidden)
    if e := arch.experts:
        working = e.per_token * block_size(bare, e.hidden)
        working += e.shared * block_size(bare, e.shared_hidden or e.hidden)
        weights += arch.expert_layers * (working + D * (e.count + int(e.shared_gate)))
    pairs = T * T if attention == "full" else T * (T + 1) // 2
    head = {"none": 0, "mlm": D * D + D * arch.padded_vocab}.get(arch.head, D * arch.padded_vocab)
    return ForwardFlops(
        projections=Q(2 * weights * B * T, "FLOP"),
        core=Q(2 * L * H * (K + arch.value_width) * pairs * B, "FLOP"),
        head=Q(2 * head * B * T, "FLOP"),
    )


def training_flops(
    arch: Architecture,
    tokens,
    sequence: int | None = None,
    *,
    recompute: str = "none",
    attention: str = "full",
) -> Quantity:
    """Return the FLOP of training on `tokens` tokens, in sequences of `sequence`.

    recompute : a key of `RECOMPUTE`. "none" gives model FLOPs, the others hardware FLOPs.
    """
    D = number("tokens", tokens, "token")
    T = _sequence(arch, sequence)
    core, rest = RECOMPUTE[require_choice("recompute", recompute, RECOMPUTE)]
    forward = forward_flops(arch, T, attention=attention)
    per_sequence = 3 * forward.total + core * forward.core + rest * forward.projections
    return per_sequence * (D / T)


def six_nd(parameters, tokens) -> Quantity:
    """Return 6 N D: two FLOP for a multiply-add, forward once and backward twice.

    parameters : N, those that work for a token (for experts the active ones); tokens : D seen in training, repeats
    included. Attention's core is left out and the embedding, which does no product, is in: the errors partly cancel.
    """
    N, D = number("parameters", parameters, "parameter"), number("tokens", tokens, "token")
    return Q(6 * N * D, "FLOP")


def palm_flops_per_token(
    arch: Architecture, sequence: int | None = None, parameters=None
) -> Quantity:
    """Return PaLM's 6 N + 12 L H K T model FLOP per token (appendix B); N defaults to the active parameters."""
    T = _sequence(arch, sequence)
    N = count_parameters(arch).active if parameters is None else parameters
    N = number("parameters", N, "parameter")
    return Q(6 * N + 12 * arch.n_layers * arch.n_heads * arch.key_width * T, "FLOP / token")


def utilisation(flops, devices, time, peak) -> float:
    """Return FLOP / (devices x time x peak): MFU of model FLOPs, HFU of hardware FLOPs, 0 to 1.

    flops : FLOP done in `time` (s) by `devices` devices of `peak` FLOP/s each, dense

    Raises ValueError above 1: then the FLOP are counted twice or the peak is not the one of this number format.
    """
    F, t = number("flops", flops, "FLOP"), number("time", time, "s", above=0)
    n, top = number("devices", devices, "device", above=0), number("peak", peak, "FLOP/s", above=0)
    share = F / (n * t * top)
    if share > 1:
        raise ValueError(
            f"utilisation must be at most 1, got {share:.3g}: check that flops={F:.3g} FLOP are not counted twice and "
            f"that peak={top:.3g} FLOP/s is the peak of the number format used."
        )
    return share


def whole_run_utilisation(flops, device_time, peak) -> float:
    """Return FLOP / (device-time x peak), 0 to 1: failures, restarts and all that was paid for are in it.

    flops : of the run; device_time : such as Q(2.664e6, "device * hour"), a plain number being device-hours. It is below the
    MFU that a paper reports, which is of steps that run well.
    """
    hours = number("device_time", device_time, "device * hour", above=0)
    return utilisation(flops, 1, hours * 3600, peak)


def mfu(tokens_per_s, flops_per_token, devices, peak) -> float:
    """Return model-FLOP utilisation, 0 to 1: (token/s x model FLOP/token) / (devices x peak FLOP/s)."""
    rate = number("tokens_per_s", tokens_per_s, "token/s")
    per_token = number("flops_per_token", flops_per_token, "FLOP/token")
    return utilisation(rate * per_token, devices, 1.0, peak)


def hfu(
    mfu: float, arch: Architecture, sequence: int | None = None, *, recompute: str = "full"
) -> float:
    """Return the hardware-FLOP utilisation of a run with model-FLOP utilisation `mfu` and this recomputation.

    Raises ValueError if that would be above 1: no run recomputes so much at this MFU.
    """
    share = number("mfu", mfu, high=1)
    extra = training_flops(arch, 1, sequence, recompute=recompute)
    more = float((extra / training_flops(arch, 1, sequence)).magnitude)
    if share * more > 1:
        raise ValueError(
            f"mfu must be at most {1 / more:.3g} with recompute={recompute!r}, which does {more:.3g} times the work, got "
            f"{share:g}."
        )
    return share * more
