"""Scaling laws: the loss that N parameters and D tokens reach, and how to split compute C = 6 N D between them.

Chinchilla's parametric form and its optimum (Hoffmann et al. 2022, arXiv:2203.15556, eq. 2 and 4):

    L(N, D) = E + A / N^alpha + B / D^beta
    N* = G (C/6)^a,  D* = (C/6)^b / G,   G = (alpha A / (beta B))^(1/(alpha+beta)),  a = beta/(alpha+beta),  b = 1 - a

Kaplan's (Kaplan et al. 2020, arXiv:2001.08361, eq. 1.1-1.3, 1.5), N without embeddings:

    L(N) = (N_c/N)^alpha_N,   L(D) = (D_c/D)^alpha_D,   L(C) = (C_c/C)^alpha_C
    L(N, D) = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D

Losses are nats a token, on each paper's own data and tokenizer: not comparable from law to law. Told in chapter 16.
"""

from dataclasses import dataclass

from bigmodel_lab.errors import require_choice
from bigmodel_lab.units import Q, Quantity, number

__all__ = [
    "EXPONENTS",
    "LAWS",
    "ChinchillaLaw",
    "KaplanLaw",
    "Optimum",
    "find_law",
    "scaled_optimum",
]


_PF_DAY = 8.64e19  # FLOP of 10^15 FLOP/s for a day


@dataclass(frozen=True)
class Optimum:
    """The best split of a compute budget under a law."""

    compute: Quantity
    parameters: Quantity
    tokens: Quantity
    loss: float  # nat a token

    @property
    def tokens_per_parameter(self) -> float:
        """D / N."""
        return float(self.tokens.magnitude / self.parameters.magnitude)


@dataclass(frozen=True)
class ChinchillaLaw:
    """Constants of L = E + A / N^alpha + B / D^beta. All five are positive."""

    E: float  # nats a token that no model of this data gets below
    A: float
    B: float
    alpha: float
    beta: float
    source: str = "own fit"
    date: str = ""

    def __post_init__(self):
        number("E", self.E)
        for name in ("A", "B", "alpha", "beta"):
            number(name, getattr(self, name), above=0)

    @property
    def a(self) -> float:
        """Exponent of C in the optimal N; 1 - a is that of D."""
        return self.beta / (self.alpha + self.beta)

    def loss(self, parameters, tokens) -> float:
        """Return nats a token."""
        N = number("parameters", parameters, "parameter", above=0)
        D = number("tokens", tokens, "token", above=0)
        return self.E + self.A / N**self.alpha + self.B / D**self.beta

    def optimum(self, compute) -> Optimum:
        """Return the N and D with 6 N D = `compute` (FLOP) that reach the lowest loss."""
        C = number("compute", compute, "FLOP", above=0)
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        N = G * (C / 6) ** self.a
        D = C / 6 / N
        return Optimum(Q(C, "FLOP"), Q(N, "parameter"), Q(D, "token"), self.loss(N, D))

    def compute_for(self, parameters) -> Quantity:
        """Return the FLOP at which `parameters` is the optimal size."""
        N = number("parameters", parameters, "parameter", above=0)
        G = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        return Q(6 * (N / G) ** (1 / self.a), "FLOP")

    def tokens_for_loss(self, loss: float, parameters) -> Quantity:
        """Return the tokens with which `parameters` reach `loss`.

        Raises ValueError if no number of tokens does: E + A / N^alpha is the floor at this size.
        """
        N = number("parameters", parameters, "parameter", above=0)
        floor = self.E + self.A / N**self.alpha
        if number("loss", loss, above=0) <= floor:
            raise ValueError(
                f"loss must be above {floor:.4f}, the floor of {N:.3g} parameters under this law, got {loss:.4f}: "
                f"take more parameters."
            )
        return Q((self.B / (loss - floor)) ** (1 / self.beta), "token")


@dataclass(frozen=True)
class KaplanLaw:
    """Kaplan's constants. N counts no embeddings; `optimum` takes the paper's own fit to compute."""

    N_c: float = 8.8e13
    D_c: float = 5.4e13
    alpha_N: float = 0.076
    alpha_D: float = 0.095
    N_e: float = 1.3e9  # optimal parameters at one PFLOP/s-day
    exponent: float = 0.73  # of the optimal N in compute
    C_c: float = 3.1e8  # PFLOP/s-days
    alpha_C: float = 0.050
    source: str = "Kaplan et al. (2020), arXiv:2001.08361, eq. 1.1-1.5; N_e and exponent from its table 6 (unverified)"
    date: str = "2020-01-23"

    def __post_init__(self):
        for name in ("N_c", "D_c", "alpha_N", "alpha_D", "N_e", "C_c", "alpha_C"):
            number(name, getattr(self, name), above=0)
        number("exponent", self.exponent, high=1)

    def loss(self, parameters=None, tokens=None) -> float:
        """Return nats a token; leave one out for the other's law alone (that one without limit)."""
        if parameters is None and tokens is None:
            raise ValueError("loss needs parameters, tokens, or both.")
        data = self.D_c / number("tokens", tokens, "token", above=0) if tokens is not None else 0.0
        if parameters is None:
            return data**self.alpha_D
        N = number("parameters", parameters, "parameter", above=0)
        return ((self.N_c / N) ** (self.alpha_N / self.alpha_D) + data) ** self.alpha_D

    def loss_for(self, compute) -> float:
        """Return nats a token that `compute` FLOP reach if spent best: (C_c/C)^alpha_C, eq. 1.3."""
        return (self.C_c * _PF_DAY / number("compute", compute, "FLOP", above=0)) ** self.alpha_C

    def optimum(self, compute) -> Optimum:
        """Return Kaplan's split: N = N_e (C / PFLOP/s-day)^0.73, and D = C / 6N."""
        C = number("compute", compute, "FLOP", above=0)
        N = self.N_e * (C / _PF_DAY) ** self.exponent
        D = C / 6 / N
        return Optimum(Q(C, "FLOP"), Q(N, "parameter"), Q(D, "token"), self.loss(N, D))


EXPONENTS = {  # of the optimal N in compute, as printed: Hoffmann et al. (2022), table 2
    "approach 1": 0.50,  # the lowest point of training curves
    "approach 2": 0.49,  # parabolas through runs of equal FLOP
    "approach 3": 0.46,  # the parametric loss
    "kaplan": 0.73,
}


def scaled_optimum(compute, exponent: float, *, anchor: tuple) -> tuple[Quantity, Quantity]:
    """Return the N and D of a power law N ~ C^exponent through one known point, with D = C / 6N.

    anchor : (compute, parameters) of the known point. `EXPONENTS` has the published ones.
    """
    if not isinstance(anchor, tuple) or len(anchor) != 2:
        raise TypeError(f"anchor must be a pair (compute, parameters), got {anchor!r}.")
    C, a = number("compute", compute, "FLOP", above=0), number("exponent", exponent, high=1)
    C0, N0 = (
        number("anchor compute", anchor[0], "FLOP", above=0),
        number("anchor parameters", anchor[1], "parameter", above=0),
    )
    N = N0 * (C / C0) ** a
    return Q(N, "parameter"), Q(C / 6 / N, "token")


_PAPER = "Hoffmann et al. (2022), arXiv:2203.15556, eq. 10"
LAWS = {
    "chinchilla-rounded": ChinchillaLaw(1.69, 406.4, 410.7, 0.34, 0.28, f"{_PAPER}, as printed", "2022-03-29"),
    "chinchilla-tex": ChinchillaLaw(
        1.69337368, 406.401018, 410.722827, 0.33917084, 0.2849083, f"{_PAPER}, digits of its TeX source", "2022-03-29"
    ),
    "epoch": ChinchillaLaw(
        1.81686,
        482.006,
        2085.434,
        0.34781,
        0.36585,
        "Besiroglu et al. (2024), arXiv:2404.10102: refit of approach 3",
        "2024-04-15",
    ),
    "kaplan": KaplanLaw(),
}  # fmt: skip


def find_law(name: str) -> ChinchillaLaw | KaplanLaw:
    """Return the law called `name`. Raises ValueError, with the nearest spelling, for another name."""
    return LAWS[require_choice("law", name, LAWS)]
