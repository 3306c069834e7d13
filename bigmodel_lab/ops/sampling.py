"""Choosing the next token from logits: temperature, top-k, top-p.

    p = softmax(x / temperature) over the tokens that are kept, 0 for the others

    top-k keeps the k largest logits; top-p ("nucleus") then keeps the smallest set of the most likely of these whose
    probabilities, after top-k, add up to at least top_p. The largest is always kept.

Source: Fan, Lewis and Dauphin (2018), arXiv:1805.04833, for top-k; Holtzman et al. (2020), arXiv:1904.09751, eqs. 2 and 3,
for top-p. Told in chapters 9 and 14.
Shapes: N = sequences, V = vocabulary.

Of equal logits the one with the lower token number counts as larger, so exactly k are kept. There is no backward pass: a
choice has no gradient. -inf means "never"; a row that holds NaN or +inf, or nothing but -inf, raises ValueError.
"""

import numpy as np

from bigmodel_lab.errors import require_in_range, require_shape
from bigmodel_lab.ops._arrays import kernel_arrays


def next_token_probabilities(
    logits, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
):
    """Return the probabilities that `sample_tokens` draws from.

    Parameters
    ----------
    logits : float array (N, V)   V >= 1
    temperature : float           >= 0; below 1 sharper, above 1 flatter; 0 puts everything on the largest logit
    top_k : int or None           >= 1, keep so many tokens; more than V keeps all
    top_p : float or None         0 <= top_p <= 1, keep the most likely until they add up to this; 0 keeps one

    Returns float64 array (N, V), rows add up to 1. Raises ValueError for an argument out of range or a row of logits that
    is no distribution, naming it.
    """
    N, V = require_shape("logits", logits, "N V").values()
    (logits,) = kernel_arrays(logits=logits)
    require_in_range("the number V of logits in a row", V, 1)
    require_in_range("temperature", temperature, 0, np.finfo(np.float64).max)
    if top_k is not None:
        require_in_range("top_k", top_k, 1)
    if top_p is not None:
        require_in_range("top_p", top_p, 0, 1)
    largest = logits.max(1)
    for n in np.flatnonzero(~np.isfinite(largest)):
        raise ValueError(
            f"logits[{n}] is no distribution, its largest entry is {largest[n]}: a row must not hold NaN or inf, nor "
            "only -inf."
        )
    p = np.zeros((N, V))
    if temperature == 0:
        p[np.arange(N), logits.argmax(1)] = 1
        return p
    for n, row in enumerate(logits.astype(np.float64)):
        kept = _largest(row, V if top_k is None else top_k, ordered=top_p is not None)
        with np.errstate(
            over="ignore"
        ):  # at a temperature near 0 a quotient may become -inf, and e 0, as it should
            e = np.exp((row[kept] - largest[n]) / temperature)
        if top_p is not None:
            before = (np.cumsum(e) - e) / e.sum()  # what the more likely ones add up to
            more = before < top_p
            more[0] = True
            kept, e = kept[more], e[more]
        p[n, kept] = e / e.sum()
    return p


def sample_tokens(logits, generator, temperature=1.0, top_k=None, top_p=None):
    """Draw one token for each row of `logits`, with the probabilities of `next_token_probabilities`.

    Parameters
    ----------
    logits : float array (N, V)
    generator : numpy.random.Generator   gives one number in [0, 1) a row, at temperature 0 too
    temperature, top_k, top_p            as in `next_token_probabilities`

    Returns int64 array (N,); always a token whose probability is not 0.
    """
    p = next_token_probabilities(logits, temperature, top_k, top_p)
    below = np.cumsum(p, axis=1)
    u = generator.random(len(p)) * below[:, -1]  # the last sum is 1 up to rounding
    # the first token whose sum is above u; a token of probability 0 never is the first. Should u round up to the last
    # sum, no sum is above it: then the last token with a chance
    chosen = (below > u[:, None]).argmax(1)
    at_the_end = u >= below[:, -1]
    chosen[at_the_end] = (below >= below[:, -1:]).argmax(1)[at_the_end]
    return chosen.astype(np.int64)


def _largest(row, k, *, ordered):
    """The indices of the k largest; the lower index first among equals; largest first if `ordered`."""
    if k >= row.size:
        kept = np.arange(row.size)
    else:
        least = np.partition(row, row.size - k)[row.size - k]
        above, equal = np.flatnonzero(row > least), np.flatnonzero(row == least)
        kept = np.sort(np.concatenate([above, equal[: k - above.size]]))
    return kept[np.argsort(-row[kept], kind="stable")] if ordered else kept
