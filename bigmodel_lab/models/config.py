"""What a GPT is made of: the sizes and the choices that tell GPT-2's form from Llama's; and an encoder-decoder's sizes."""

from dataclasses import dataclass

from bigmodel_lab.errors import require_choice, require_in_range


@dataclass(frozen=True)
class GPTConfig:
    """The form and the sizes of a `GPT`; `GPTConfig.gpt2()` and `GPTConfig.llama()` give the two well-known forms.

    Raises ValueError for sizes that do not fit each other.
    """

    vocab_size: int  # V, tokens
    context: int  # most positions that the model can look at, T <= context
    n_layers: int  # L
    width: int  # D, channels of the residual stream
    n_heads: int  # H, heads of queries; divides width
    n_kv_heads: int  # G, heads of keys and values; divides n_heads (fewer: grouped-query attention)
    hidden: int  # channels inside the feed-forward block
    norm: str = "layernorm"  # or "rmsnorm"
    mlp: str = "gelu_tanh"  # or "gelu" (exact), or "swiglu" (two matrices up, one down)
    positions: str = "learned"  # or "rotary"
    bias: bool = True  # of the linear layers; a layernorm always has its own
    tied: bool = True  # the output layer is the token embedding
    dropout: float = (
        0.0  # probability, of the embeddings and of what each block adds; not of attention
    )
    eps: float = 1e-5  # added to the variance or mean square inside the norms
    rope_base: float = 10000.0  # rotary positions only

    @classmethod
    def gpt2(
        cls,
        vocab_size: int = 50257,
        context: int = 1024,
        n_layers: int = 12,
        width: int = 768,
        n_heads: int = 12,
        **changes,
    ) -> "GPTConfig":
        """Return GPT-2's form: learned positions, layernorm, gelu (tanh). The defaults are GPT-2 small.

        Source: Radford et al. (2019), "Language Models are Unsupervised Multitask Learners", section 2.3.
        """
        sizes = dict(n_kv_heads=n_heads, hidden=4 * width)
        return cls(vocab_size, context, n_layers, width, n_heads, **(sizes | changes))

    @classmethod
    def llama(
        cls,
        vocab_size: int = 32000,
        context: int = 4096,
        n_layers: int = 32,
        width: int = 4096,
        n_heads: int = 32,
        **changes,
    ) -> "GPTConfig":
        """Return Llama's form: rotary positions, rmsnorm, swiglu, no biases, untied. The defaults are Llama 2 7B.

        Unless given, `hidden` is 8/3 of the width, rounded up to a multiple of 256 (of 8 below a width of 1024).
        Source: Touvron et al. (2023), arXiv:2302.13971, section 2.2, and arXiv:2307.09288.
        """
        step = 256 if width >= 1024 else 8
        form = dict(norm="rmsnorm", mlp="swiglu", positions="rotary", bias=False, tied=False)
        sizes = dict(n_kv_heads=n_heads, hidden=-(-(8 * width // 3) // step) * step)
        return cls(vocab_size, context, n_layers, width, n_heads, **(form | sizes | changes))

    def __post_init__(self):
        for name in ("vocab_size", "context", "n_layers", "width", "n_heads", "hidden"):
            require_in_range(name, getattr(self, name), 1)
        require_in_range("n_kv_heads", self.n_kv_heads, 1, self.n_heads)
        require_choice("norm", self.norm, ("layernorm", "rmsnorm"))
        require_choice("mlp", self.mlp, ("gelu", "gelu_tanh", "swiglu"))
        require_choice("positions", self.positions, ("learned", "rotary"))
        require_in_range("eps", self.eps, 0)
        _require_dropout(self.dropout)
        require_in_range("rope_base", self.rope_base, 1)
        D, H, G = self.width, self.n_heads, self.n_kv_heads
        _require_whole_heads(D, H)
        if H % G:
            fits = ", ".join(str(n) for n in range(1, H + 1) if H % n == 0)
            raise ValueError(
                f"n_kv_heads={G} does not divide n_heads={H}: each head of keys and values serves a whole number of "
                f"query heads. Numbers that work: {fits}."
            )
        if self.positions == "rotary" and self.head_width % 2:
            raise ValueError(
                f'positions="rotary" turns channels in pairs, and a head has width / n_heads = {self.head_width}: choose '
                f"n_heads so that it is even."
            )

    @property
    def head_width(self) -> int:
        """K, channels of a head."""
        return self.width // self.n_heads

    @property
    def kv_width(self) -> int:
        """Channels of the keys of all heads together, and of the values: G * K."""
        return self.n_kv_heads * self.head_width

    @property
    def n_parameters(self) -> int:
        """Numbers that are trained, in closed form; a tied embedding counts once."""
        D, H, b = self.width, self.hidden, int(self.bias)
        norm = D * (2 if self.norm == "layernorm" else 1)
        qkv = D + 2 * self.kv_width
        attention = (D + b) * qkv + (D + b) * D
        ups = 2 if self.mlp == "swiglu" else 1
        mlp = ups * (D + b) * H + (H + b) * D
        embeddings = self.vocab_size * D * (1 if self.tied else 2)
        if self.positions == "learned":
            embeddings += self.context * D
        return embeddings + self.n_layers * (2 * norm + attention + mlp) + norm

    def kv_cache_bytes(
        self, batch: int = 1, positions: int | None = None, itemsize: int = 4
    ) -> int:
        """Bytes of the keys and values kept for `batch` sequences of `positions` (default: the whole context)."""
        n = self.context if positions is None else positions
        return 2 * self.n_layers * batch * n * self.kv_width * itemsize


@dataclass(frozen=True)
class EncoderDecoderConfig:
    """The sizes of an `EncoderDecoder`; the defaults are those of the base model of Vaswani et al. (2017), table 3.

    Raises ValueError for sizes that do not fit each other.
    """

    vocab_size: int = 37000  # V, tokens of source and target together
    context: int = 512  # most positions of either side
    n_layers: int = 6  # blocks of the encoder, and again of the decoder
    width: int = 512  # D
    n_heads: int = 8  # H, divides width
    hidden: int = 2048  # channels inside the feed-forward block
    eps: float = 1e-5  # added to the variance inside the norms
    dropout: float = 0.0  # of the embeddings and of what is added to the stream; not of attention

    def __post_init__(self):
        for name in ("vocab_size", "context", "n_layers", "width", "n_heads", "hidden"):
            require_in_range(name, getattr(self, name), 1)
        require_in_range("eps", self.eps, 0)
        _require_dropout(self.dropout)
        _require_whole_heads(self.width, self.n_heads)

    @property
    def n_parameters(self) -> int:
        """Numbers that are trained, in closed form; the one embedding counts once."""
        D, H = self.width, self.hidden
        attention, norm = 4 * (D + 1) * D, 2 * D
        block = attention + (D + 1) * H + (H + 1) * D + 2 * norm
        embeddings = (self.vocab_size + 2 * self.context) * D
        return embeddings + self.n_layers * (2 * block + attention + norm) + 2 * norm


def _require_dropout(rate):
    if not 0 <= rate < 1:
        raise ValueError(
            f"dropout must be at least 0 and below 1, got {rate}: at 1 nothing is left."
        )


def _require_whole_heads(width, n_heads):
    if width % n_heads:
        below = width // n_heads * n_heads
        near = " and ".join(str(n) for n in (below, below + n_heads) if n)
        raise ValueError(
            f"n_heads={n_heads} does not divide width={width}: each head needs a whole number of channels. "
            f"Nearest widths that work: {near}."
        )
