"""Architecture: what decides how many parameters, FLOP and bytes a transformer has, and nothing else.

One frozen description covers GPT-2, BERT, OPT, BLOOM, Llama, Qwen, Gemma, Mixtral and DeepSeek-V3; `MODELS` in
`plan.models` has them ready. Told in chapter 16.
Letters: V vocabulary, T context, L layers, D width, H heads, G heads of keys and values, K head width, F hidden width.
"""

from dataclasses import dataclass, replace
from numbers import Integral

from bigmodel_lab.errors import require_choice, require_in_range

__all__ = ["MLA", "Architecture", "Experts", "require_architecture"]


def _check_sizes(thing, low: int, *names: str, within: str = "") -> None:
    """Raise TypeError for a size that is no int and ValueError for one below `low`; None is a size that is left out."""
    for name in names:
        if (x := getattr(thing, name)) is None:
            continue
        if isinstance(x, bool) or not isinstance(x, Integral):
            hint = f": write {x:.0f}" if isinstance(x, float) and x == x // 1 else ""
            raise TypeError(f"{within}{name} must be a whole number (int), got {x!r}{hint}.")
        require_in_range(within + name, x, low)


@dataclass(frozen=True)
class Experts:
    """A mixture of experts that takes the place of the feed-forward block. Experts have the block's form."""

    count: int  # routed experts in a layer
    per_token: int  # of them, how many work for one token
    hidden: int  # F of one expert
    shared: int = 0  # experts that work for every token
    shared_hidden: int | None = None  # F of one shared expert; None: as `hidden`
    shared_gate: bool = False  # a gain per token on the shared experts (Qwen2-MoE)
    dense_layers: int = 0  # first layers that keep the dense block
    every: int = 1  # of the layers after those, one in `every` has experts

    def __post_init__(self):
        _check_sizes(
            self, 1, "count", "per_token", "hidden", "shared_hidden", "every", within="experts."
        )
        _check_sizes(self, 0, "shared", "dense_layers", within="experts.")
        require_in_range("experts.per_token", self.per_token, 1, self.count)


@dataclass(frozen=True)
class MLA:
    """Multi-head latent attention: keys and values are kept as one short vector per token.

    Source: DeepSeek-V2 (2024), arXiv:2405.04434, section 2.1.
    """

    kv_rank: int  # channels of the latent of keys and values
    rope: int  # channels of the one rotary key that all heads share
    nope: int  # channels of a head's key without position
    value: int  # channels of a head's value
    q_rank: int | None = None  # latent of queries; None: they are projected directly

    def __post_init__(self):
        _check_sizes(self, 1, "kv_rank", "rope", "nope", "value", "q_rank", within="mla.")


@dataclass(frozen=True)
class Architecture:
    """A transformer's shape. Raises TypeError for a size that is no int, ValueError if sizes do not fit each other."""

    name: str
    vocab: int  # V, tokens in use
    n_layers: int  # L
    width: int  # D, channels of the residual stream
    n_heads: int  # H, heads of queries
    hidden: int  # F, channels inside the (dense) feed-forward block
    context: int = 2048  # T, rows of learned positions, and the default sequence
    n_kv_heads: int | None = None  # G; None: as many as n_heads (MHA); 1 is MQA, between is GQA
    head_width: int | None = None  # K; None: width / n_heads
    gated: bool = False  # three matrices in the feed-forward block (SwiGLU, GeGLU) instead of two
    biases: str = "all"  # linear layers with a bias: "all", "qkv", "mlp", "none"
    norm: str = "layernorm"  # or "layernorm_no_bias", "rmsnorm", "none" (without trained numbers)
    norms_per_layer: int = 2  # 1 where attention and feed-forward run in parallel, 4 in Gemma 2
    final_norm: bool = True  # False in post-norm models such as BERT
    embedding_norm: bool = False
    qk_norm: str = "none"  # or "head": gains of K for queries and for keys; "all": H*K and G*K
    positions: str = "learned"  # or "rotary", "alibi", "sinusoidal", "none", without parameters
    position_offset: int = 0  # extra rows of learned positions (OPT: 2)
    token_types: int = 0  # rows of the segment embedding (BERT: 2)
    head: str = "tied"  # output layer; or "untied", "none", "mlm" (dense, norm, tied, bias: BERT)
    head_bias: bool = False  # of a tied or untied output layer
    pooler: bool = False  # BERT's dense layer on the first token
    pad_vocab_to: int = 1  # the vocabulary is rounded up to a multiple of this
    experts: Experts | None = None
    mla: MLA | None = None  # in place of grouped heads

    def __post_init__(self):
        _check_sizes(self, 1, "vocab", "n_layers", "width", "n_heads", "n_kv_heads", "head_width")
        _check_sizes(self, 1, "hidden", "context", "pad_vocab_to")
        _check_sizes(self, 0, "norms_per_layer", "position_offset", "token_types")
        require_choice("biases", self.biases, ("all", "qkv", "mlp", "none"))
        require_choice("norm", self.norm, ("layernorm", "layernorm_no_bias", "rmsnorm", "none"))
        require_choice("qk_norm", self.qk_norm, ("none", "head", "all"))
        require_choice(
            "positions", self.positions, ("learned", "rotary", "alibi", "sinusoidal", "none")
        )
        require_choice("head", self.head, ("tied", "untied", "mlm", "none"))
        wrong = [n for n in ("n_kv_heads", "head_width") if getattr(self, n) is not None]
        wrong += ["biases"] if self.biases in ("all", "qkv") else []
        wrong += ["qk_norm"] if self.qk_norm != "none" else []
        if self.mla and wrong:
            raise ValueError(
                f"{wrong[0]}={getattr(self, wrong[0])!r} has no meaning with mla, which sets the heads' widths and has neither "
                f"biases nor norms of heads: leave it out (biases: 'none' or 'mlp')."
            )
        if self.head_width is None and self.mla is None and self.width % self.n_heads:
            raise ValueError(
                f"n_heads={self.n_heads} does not divide width={self.width}: choose one that does, or give head_width."
            )
        require_in_range("n_kv_heads", self.kv_heads, 1, self.n_heads)
        if self.n_heads % self.kv_heads:
            fits = ", ".join(str(n) for n in range(1, self.n_heads + 1) if self.n_heads % n == 0)
            raise ValueError(
                f"n_kv_heads={self.kv_heads} does not divide n_heads={self.n_heads}. Numbers that work: {fits}."
            )
        if self.experts:
            require_in_range("experts.dense_layers", self.experts.dense_layers, 0, self.n_layers)

    @property
    def kv_heads(self) -> int:
        """G, heads of keys and values."""
        return self.n_heads if self.n_kv_heads is None else self.n_kv_heads

    @property
    def key_width(self) -> int:
        """Channels of one head's query and key."""
        if self.mla:
            return self.mla.nope + self.mla.rope
        return self.head_width or self.width // self.n_heads

    @property
    def value_width(self) -> int:
        """Channels of one head's value."""
        return self.mla.value if self.mla else self.key_width

    @property
    def padded_vocab(self) -> int:
        """Rows of the token embedding."""
        return -(-self.vocab // self.pad_vocab_to) * self.pad_vocab_to

    @property
    def expert_layers(self) -> int:
        """Layers with experts."""
        e = self.experts
        return (self.n_layers - e.dense_layers) // e.every if e else 0

    def but(self, **changes) -> "Architecture":
        """Return a copy with fields changed: `MODELS["gpt2"].but(vocab=65, context=256)`."""
        return replace(self, **changes)

    @classmethod
    def of(cls, config, name: str = "own model") -> "Architecture":
        """Return the description of a `models.GPTConfig`, or of anything with its fields."""
        return cls(
            name=name,
            vocab=config.vocab_size,
            n_layers=config.n_layers,
            width=config.width,
            n_heads=config.n_heads,
            hidden=config.hidden,
            context=config.context,
            n_kv_heads=config.n_kv_heads,
            gated=config.mlp == "swiglu",
            biases="all" if config.bias else "none",
            norm=config.norm,
            positions=config.positions,
            head="tied" if config.tied else "untied",
        )


def require_architecture(arch) -> Architecture:
    """Return `arch`. Raises TypeError, with the way out, for another thing, such as a model's name."""
    if not isinstance(arch, Architecture):
        hint = f": take plan.find_model({arch!r})" if isinstance(arch, str) else ""
        raise TypeError(f"arch must be an Architecture, got {arch!r}{hint}.")
    return arch
