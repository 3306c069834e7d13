"""Generation, one token after another, with the keys and values of earlier positions kept or computed again.

    p = softmax(logits / temperature), over the top_k largest, then over the fewest that together reach top_p

Without a cache the step at position T runs the model over all T positions; with it, over one, and attention reads the
2 L G K numbers a position that the cache keeps. Both give the same tokens.
Source: Fan, Lewis and Dauphin (2018), arXiv:1805.04833, section 5.2 (top-k); Holtzman et al. (2020), arXiv:1904.09751,
section 3.1 (top-p). Told in chapter 9.
Shapes: B sequences, T positions, V vocabulary, G heads of keys and values, K head width.
"""

import numpy as np
import torch

from bigmodel_lab.errors import require_in_range


class KVCache:
    """The keys and values of the positions seen so far, for each layer; hand it to `GPT.forward` as `cache`.

    Parameters
    ----------
    config : GPTConfig
    batch : int                B, sequences
    like : tensor              dtype and device of the memory, such as a weight of the model

    The memory for the whole context is taken at once, `config.kv_cache_bytes(batch)`. `len(cache)` is the number of
    positions kept, `cache[l]` the part of layer l. For inference only: autograd cannot go back through it.
    """

    def __init__(self, config, batch: int, like: torch.Tensor):
        shape = (2, batch, config.n_kv_heads, config.context, config.head_width)
        self._layers = [_LayerCache(like.new_empty(shape)) for _ in range(config.n_layers)]

    def __len__(self) -> int:
        return self._layers[0].length

    def __getitem__(self, layer: int) -> "_LayerCache":
        return self._layers[layer]


class _LayerCache:
    def __init__(self, memory):
        self.memory, self.length = memory, 0  # (2, B, G, context, K), keys first

    def append(self, k, v):
        """Add k and v (B, G, T, K); return all kept so far, (B, G, S, K) each, as views of the memory."""
        start, self.length = self.length, self.length + k.shape[2]
        self.memory[0, :, :, start : self.length] = k
        self.memory[1, :, :, start : self.length] = v
        return self.memory[0, :, :, : self.length], self.memory[1, :, :, : self.length]


def probabilities(
    logits, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
):
    """Return what to draw the next token from.

    Parameters
    ----------
    logits : float tensor (B, V)
    temperature : float   > 0, dimensionless; below 1 sharpens, above 1 flattens
    top_k : int           keep the k likeliest tokens (of equal ones those with the lower number); None keeps all
    top_p : float         then keep the fewest likeliest that together have at least this share, 0 < top_p <= 1

    Returns p, float64 (B, V), each row summing to 1, and 0 for what is not kept. Raises ValueError for an argument out of
    range.
    """
    require_in_range("temperature", temperature, np.nextafter(0, 1))
    V = logits.shape[-1]
    ranked, order = logits.double().sort(dim=-1, descending=True, stable=True)
    p = ((ranked - ranked[..., :1]) / temperature).softmax(-1)
    if top_k is not None:
        p[..., int(require_in_range("top_k", top_k, 1, V)) :] = 0
    if top_p is not None:
        require_in_range("top_p", top_p, np.nextafter(0, 1), 1)
        before = (
            p.cumsum(-1) - p
        )  # share of the likelier ones; 0 for the first, which therefore always stays
        p = p.where(before < top_p * p.sum(-1, keepdim=True), 0)
    return torch.zeros_like(p).scatter(-1, order, p / p.sum(-1, keepdim=True))


@torch.no_grad()
def generate(
    model,
    tokens,
    n_new: int,
    generator: np.random.Generator | torch.Generator | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | None = None,
    use_cache: bool = True,
):
    """Continue `tokens` by `n_new` tokens.

    Parameters
    ----------
    model : GPT
    tokens : int64 tensor (B, T), T >= 1
    n_new : int              >= 0; T + n_new may pass the context by one, as the last token is not read
    generator : numpy.random.Generator or torch.Generator   where the draws come from; None takes the likeliest token
    temperature, top_k, top_p : see `probabilities`; only with a generator
    stop : int               a sequence that reaches this token repeats it; ends when all have reached it
    use_cache : bool         keep keys and values (faster), or compute them again at each step (to compare)

    Returns int64 (B, T + n_new), fewer columns if all sequences stopped. Dropout is off; the model's training mode is as
    before afterwards. Raises ValueError if the tokens do not fit the context, or a setting would be ignored.
    """
    if tokens.ndim != 2 or tokens.shape[1] == 0:
        raise ValueError(
            f"tokens must have shape (B, T) with T >= 1, got {tuple(tokens.shape)}: start from a special token if there "
            "is no text."
        )
    B, T = tokens.shape
    require_in_range("n_new", n_new, 0)
    if T + n_new - 1 > model.config.context:
        raise ValueError(
            f"{T} tokens and n_new={n_new} do not fit context={model.config.context}: pass only the last "
            f"tokens, or n_new up to {max(0, model.config.context - T + 1)}."
        )
    if generator is None and (temperature, top_k, top_p) != (1.0, None, None):
        raise ValueError(
            "temperature, top_k and top_p have no effect without a generator, which takes the likeliest token: pass "
            'generator=rng.generator(seed, "sample").'
        )
    cache = KVCache(model.config, B, model.norm.weight) if use_cache else None
    was_training = model.training
    model.eval()
    try:
        for _ in range(n_new):
            unread = tokens if cache is None else tokens[:, len(cache) :]
            logits = model(unread, cache=cache)[:, -1]
            if generator is None:
                new = logits.argmax(-1)
            else:
                new = _draw(probabilities(logits, temperature, top_k, top_p), generator)
            if stop is not None:
                new = torch.where(tokens[:, -1] == stop, stop, new)
            tokens = torch.cat([tokens, new[:, None]], 1)
            if stop is not None and (new == stop).all():
                break
    finally:
        model.train(was_training)
    return tokens


def _draw(p, generator):
    """Return one token a row of p (B, V): the first at which the running sum passes a uniform number, one a row."""
    if isinstance(generator, torch.Generator):
        u = torch.rand(len(p), 1, dtype=p.dtype, device=generator.device, generator=generator)
    elif isinstance(generator, np.random.Generator):
        u = torch.from_numpy(generator.random((len(p), 1)))
    else:
        raise TypeError(
            f"generator must be a numpy.random.Generator or a torch.Generator, got {type(generator).__name__}."
        )
    total = p.cumsum(-1)
    # scaled by the sum, which is 1 only to rounding: u < 1 then finds a token, and never one of probability 0
    return (total > u.to(p.device) * total[:, -1:]).to(torch.uint8).argmax(-1)
