"""Exercises of chapter c09, attention and Transformer: a block's FLOPs, robust attention, rotary positions, joined tiles."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: how much of a block is attention? ---------------------------------------------------------------------------

FLOPS = '''
def attention_share(width, kv_width, hidden, context):
    """Return the share, between 0 and 1, of a block's forward FLOPs
    that compares positions and mixes their values.

    width : D, of queries and of the stream
    kv_width : of the keys of all heads together, and of the values
    hidden : inside the feed-forward layer (two matrices)
    context : T, tokens that each token looks at
    A product with an (m, n) matrix costs 2 m n a token.
    Norms and softmax do not count.
    """
    ...
'''


def attention_share(width, kv_width, hidden, context):
    matrices = 2 * width * (2 * width + 2 * kv_width)  # queries and output; keys and values
    feed_forward = 2 * width * hidden * 2
    mix = 2 * context * width * 2  # q . k with T keys, then the weighted sum of T values
    return mix / (matrices + feed_forward + mix)


def _share_half_mix(width, kv_width, hidden, context):
    mix = 2 * context * width
    return mix / (4 * width * (width + kv_width) + 4 * width * hidden + mix)


def _share_of_attention(width, kv_width, hidden, context):
    mix, matrices = 4 * context * width, 4 * width * (width + kv_width)
    return (mix + matrices) / (matrices + 4 * width * hidden + mix)


def _share_kv_mix(width, kv_width, hidden, context):
    mix = 4 * context * kv_width
    return mix / (4 * width * (width + kv_width) + 4 * width * hidden + mix)


def _share_full_kv(width, kv_width, hidden, context):
    mix = 4 * context * width
    return mix / (8 * width**2 + 4 * width * hidden + mix)


def _share_squared(width, kv_width, hidden, context):
    mix = 4 * context**2 * width
    return mix / (4 * width * (width + kv_width) + 4 * width * hidden + mix)


def _check_share(fn):
    mistakes = (
        (_share_half_mix, "comparing costs 2 T D and mixing the values costs 2 T D again: count both."),
        (_share_of_attention, "that counts the four matrices of attention as well: only what compares and mixes grows with T."),
        (_share_kv_mix, "every head of queries compares and mixes, shared keys or not: grouping saves memory, not these FLOPs."),
        (_share_full_kv, "with grouped heads the matrices of keys and values are narrower: kv_width columns each."),
        (_share_squared, "T squared is for all tokens together; everything else here was counted for one token."),
    )  # fmt: skip
    for sizes in ((64, 16, 256, 100), (768, 768, 3072, 1024), (4096, 1024, 14336, 8192)):
        given = dict(zip(("width", "kv_width", "hidden", "context"), sizes, strict=True))
        got, want = fn(**given), attention_share(**given)
        for mistake, message in mistakes:
            off = mistake(**given)
            if np.isclose(got, off, rtol=1e-9) and not np.isclose(off, want, rtol=1e-9):
                raise Miss(message, given=given, got=got, want=want)
        expect("the share", got, want, 1e-9, given=given)
    return "a small block with grouped heads, GPT-2's, and one of Llama 3's sizes"


# --- b: attention that survives everything --------------------------------------------------------------------------

ATTENTION = '''
def masked_attention(q, k, v, mask):
    """Return y (T, K): scaled dot-product attention.

    q : float array (T, K)    k, v : (S, K)
    mask : bool (T, S), True where query t sees key u
    Finite for scores in the thousands; a query that may see nothing
    gets zeros. No warnings.
    """
    ...
'''


def masked_attention(q, k, v, mask):
    scores = np.where(mask, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    largest = scores.max(axis=1, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(largest), largest, 0))  # -inf - -inf would be NaN
    total = e.sum(axis=1, keepdims=True)
    return e @ v / np.where(total > 0, total, 1)


def _masked_no_root(q, k, v, mask):
    return masked_attention(q * np.sqrt(q.shape[1]), k, v, mask)


def _masked_keys_length(q, k, v, mask):
    return masked_attention(q * np.sqrt(q.shape[1] / len(k)), k, v, mask)


def _masked_zero_score(q, k, v, mask):
    scores = np.where(mask, q @ k.T / np.sqrt(q.shape[1]), 0)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True) @ v


def _masked_after(q, k, v, mask):
    scores = q @ k.T / np.sqrt(q.shape[1])
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True) * mask @ v


def _masked_inverted(q, k, v, mask):
    return masked_attention(q, k, v, ~mask)


def _masked_overflow(q, k, v, mask):
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(q @ k.T / np.sqrt(q.shape[1])) * mask
        total = e.sum(axis=1, keepdims=True)
        return e @ v / np.where(total > 0, total, 1)


def _masked_large_negative(q, k, v, mask):
    scores = np.where(mask, q @ k.T / np.sqrt(q.shape[1]), -1e9)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True) @ v


def _masked_nan(q, k, v, mask):
    scores = np.where(mask, q @ k.T / np.sqrt(q.shape[1]), -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True) @ v


def _check_attention(fn):
    mistakes = (
        (_masked_no_root, "the scores are not divided by the square root of K, the width of a query."),
        (_masked_keys_length, "divided by the square root of S, the number of keys: it is the width K of a query."),
        (_masked_zero_score, "a score of 0 still has a weight, e to the 0: hidden keys need a score of minus infinity."),
        (_masked_after, "hiding after the softmax leaves weights that do not sum to 1: hide before it."),
        (_masked_inverted, "True means that t may look at u: here it was hidden."),
    )  # fmt: skip
    g = generator(0, "c09-b")
    for T, S, K in ((2, 3, 2), (6, 6, 4), (5, 9, 16)):
        q, k, v = g.normal(size=(T, K)), g.normal(size=(S, K)), g.normal(size=(S, K))
        mask = np.tril(np.ones((T, S), bool), k=S - T)
        args = (q, k, v, mask)
        got, want = np.asarray(fn(*(a.copy() for a in args))), masked_attention(*args)
        for mistake, message in mistakes:
            off = mistake(*args)
            if got.shape == off.shape and np.allclose(got, off, rtol=1e-9, atol=0):
                raise Miss(message)
        expect("y", got, want, 1e-12)
    got = np.asarray(fn(q * 1000, k * 10, v, mask))
    if not np.isfinite(got).all():
        raise Miss("scores in the thousands overflow: subtract the row's largest score before the exponential.")  # fmt: skip
    expect("y of large scores", got, masked_attention(q * 1000, k * 10, v, mask), 1e-9)
    mask[1] = False
    got = np.asarray(fn(q, k, v, mask))
    if np.isnan(got[1]).any():
        raise Miss("a row that may see nothing has only scores of minus infinity, and infinity minus infinity is NaN.")  # fmt: skip
    if np.abs(got[1]).max() > 1e-6:
        raise Miss("a row that may see nothing got an average of values that are all hidden from it: a large negative number is not minus infinity.")  # fmt: skip
    expect("y with a row that sees nothing", got, masked_attention(q, k, v, mask), 1e-12)
    return "three shapes, scores in the thousands, and a query that sees nothing"


# --- c: rotary positions --------------------------------------------------------------------------------------------

ROTARY = '''
def turn_by_position(x, positions, base=10000.0):
    """Return x (T, K) with the channels (i, i + K/2) of row t turned
    by the angle positions[t] * base**(-2 i / K).

    x : float array (T, K), K even     positions : integer array (T,)
    """
    ...
'''


def turn_by_position(x, positions, base=10000.0):
    half = x.shape[1] // 2
    angle = positions[:, None] * base ** (-2 * np.arange(half) / x.shape[1])
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], 1)  # fmt: skip


def _turn_rows(x, positions, base=10000.0):
    return turn_by_position(x, np.arange(len(x)), base)


def _turn_one_speed(x, positions, base=10000.0):
    return turn_by_position(x, positions, 1.0)


def _turn_half_exponent(x, positions, base=10000.0):
    return turn_by_position(x, positions, base**0.5)


def _turn_back(x, positions, base=10000.0):
    return turn_by_position(x, -positions, base)


def _turn_neighbours(x, positions, base=10000.0):
    angle = positions[:, None] * base ** (-np.arange(0, x.shape[1], 2) / x.shape[1])
    y = np.empty_like(x)
    y[:, ::2] = x[:, ::2] * np.cos(angle) - x[:, 1::2] * np.sin(angle)
    y[:, 1::2] = x[:, 1::2] * np.cos(angle) + x[:, ::2] * np.sin(angle)
    return y


def _turn_added(x, positions, base=10000.0):
    angle = positions[:, None] * base ** (-np.arange(0, x.shape[1], 2) / x.shape[1])
    return x + np.concatenate([np.sin(angle), np.cos(angle)], 1)


def _turn_sign(x, positions, base=10000.0):
    half = x.shape[1] // 2
    angle = positions[:, None] * base ** (-2 * np.arange(half) / x.shape[1])
    a, b = x[:, :half], x[:, half:]
    return np.concatenate([a * np.cos(angle) + b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], 1)  # fmt: skip


def _check_turn(fn):
    mistakes = (
        (_turn_rows, "the angle of row t is that of positions[t]; rows were counted from 0."),
        (_turn_one_speed, "every pair turns at the same speed: then positions a turn apart look alike. The exponent needs i."),
        (_turn_half_exponent, "the exponent is -2 i / K: with i running over K/2 pairs the slowest must come near 1 / base."),
        (_turn_back, "turned the other way round: first' = first cos - second sin, second' = second cos + first sin."),
        (_turn_neighbours, "the pairs are (i, i + K/2) here; channels 2 i and 2 i + 1 were paired, the other convention."),
        (_turn_added, "the sines and cosines were added, as in the sinusoidal encoding: rotary positions turn x, by products."),
    )  # fmt: skip
    g = generator(0, "c09-c")
    for positions, K in ((np.array([3, 1]), 4), (np.arange(5, 12), 6), (np.array([0, 1000]), 16)):
        x = g.normal(size=(len(positions), K))
        got, want = np.asarray(fn(x.copy(), positions.copy())), turn_by_position(x, positions)
        for mistake, message in mistakes:
            off = mistake(x, positions)
            if got.shape == off.shape and np.allclose(got, off, rtol=1e-9):
                raise Miss(message)
        lengths = np.linalg.norm(x, axis=1)
        if got.shape == x.shape and not np.allclose(np.linalg.norm(got, axis=1), lengths):
            raise Miss("the length of a row has changed: a rotation has one plus and one minus.")
        expect("the turned rows", got, want, 1e-10)
    q, k = g.normal(size=(2, 1, 8))
    products = [(fn(q, np.array([t])) @ fn(k, np.array([t + 3])).T).item() for t in (0, 7, 500)]
    expect("products of pairs three apart", np.array(products), np.full(3, products[0]), 1e-9)
    return "values, lengths, and that a product depends on the distance alone"


# --- d: two halves of a softmax -------------------------------------------------------------------------------------

JOIN = '''
def join(y1, e1, y2, e2):
    """Return (y, e) of attention over all keys, from that over the
    first half of the keys and that over the second.

    y1, y2 : (T, K)   each half's answer under its own softmax
    e1, e2 : (T,)     each half's log of the sum of exp(score);
                      scores may be in the thousands
    """
    ...
'''


def join(y1, e1, y2, e2):
    largest = np.maximum(e1, e2)
    w1, w2 = np.exp(e1 - largest), np.exp(e2 - largest)  # at most 1: nothing overflows
    y = (w1[:, None] * y1 + w2[:, None] * y2) / (w1 + w2)[:, None]
    return y, largest + np.log(w1 + w2)


def _join_mean(y1, e1, y2, e2):
    return (y1 + y2) / 2, join(y1, e1, y2, e2)[1]


def _join_by_e(y1, e1, y2, e2):
    y = (e1[:, None] * y1 + e2[:, None] * y2) / (e1 + e2)[:, None]
    return y, join(y1, e1, y2, e2)[1]


def _join_sum(y1, e1, y2, e2):
    largest = np.maximum(e1, e2)
    w1, w2 = np.exp(e1 - largest), np.exp(e2 - largest)
    return w1[:, None] * y1 + w2[:, None] * y2, largest + np.log(w1 + w2)


def _join_overflow(y1, e1, y2, e2):
    with np.errstate(over="ignore", invalid="ignore"):
        w1, w2 = np.exp(e1), np.exp(e2)
        return (w1[:, None] * y1 + w2[:, None] * y2) / (w1 + w2)[:, None], np.log(w1 + w2)


def _join_e_sum(y1, e1, y2, e2):
    return join(y1, e1, y2, e2)[0], e1 + e2


def _check_join(fn):
    mistakes = (
        (0, _join_mean, "the two halves weigh the same here: a half whose scores are larger must weigh more."),
        (0, _join_by_e, "e is a logarithm: the weight of a half is exp(e), its sum of exponentials."),
        (0, _join_sum, "the weighted answers were added and not divided by the sum of the weights."),
        (1, _join_e_sum, "logarithms of sums do not add: the new e is log(exp(e1) + exp(e2))."),
    )  # fmt: skip
    g = generator(0, "c09-d")
    for n, size in ((3, 1.0), (4, 3.0), (5, 900.0)):
        s, v = g.normal(size=(n, 10)) * size, g.normal(size=(10, 2))
        halves = []
        for part in (slice(0, 4), slice(4, 10)):
            m = s[:, part].max(axis=1)
            e = np.exp(s[:, part] - m[:, None])
            halves += [e @ v[part] / e.sum(axis=1)[:, None], m + np.log(e.sum(axis=1))]
        got, want = fn(*(a.copy() for a in halves)), join(*halves)
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Miss("return two arrays: y and e.")
        if not all(np.isfinite(np.asarray(a)).all() for a in got):
            raise Miss("exp of a score in the thousands overflows: take the larger of e1 and e2 out first.")  # fmt: skip
        for at, mistake, message in mistakes:
            off = mistake(*halves)[at]
            same = np.shape(got[at]) == off.shape and np.allclose(got[at], off, rtol=1e-9)
            if same and not np.allclose(
                off, want[at], rtol=1e-6
            ):  # one half may have all the weight
                raise Miss(message)
        for name, a, b in zip(("y", "e"), got, want, strict=True):
            expect(name, np.asarray(a), b, 1e-10)
    return "three sizes of scores, up to the thousands, against a softmax over all keys"


_OPS = "bigmodel_lab.ops."

EXERCISES = (
    Exercise(
        id="c09-a",
        title="How much of a block is attention?",
        difficulty=1,
        minutes=8,
        stub=FLOPS,
        reference=attention_share,
        wrong=(
            Wrong(_share_half_mix, "attention multiplies once", "count both"),
            Wrong(_share_of_attention, "attention is all quadratic", "only what compares and mixes"),
            Wrong(_share_kv_mix, "grouped heads save arithmetic everywhere", "saves memory, not these FLOPs"),
            Wrong(_share_full_kv, "there are always four square matrices", "kv_width columns each"),
            Wrong(_share_squared, "attention costs T squared a token", "for all tokens together"),
        ),
        hints=(
            "Four matrices in attention: queries and output are (D, D), keys and values (D, kv_width).",
            "One query against T keys of total width D is 2 T D; so is the weighted sum of T values.",
        ),
        check=_check_share,
    ),
    Exercise(
        id="c09-b",
        title="Attention that survives everything",
        difficulty=2,
        minutes=15,
        stub=ATTENTION,
        reference=masked_attention,
        wrong=(
            Wrong(_masked_no_root, "the root is cosmetic", "not divided by the square root of K"),
            Wrong(_masked_keys_length, "the root is of the number of keys", "square root of S"),
            Wrong(_masked_zero_score, "a score of zero is no attention", "a score of 0 still has a weight"),
            Wrong(_masked_after, "a mask may be applied at the end", "hide before it"),
            Wrong(_masked_inverted, "True means masked", "True means that t may look at u"),
            Wrong(_masked_overflow, "scores are small", "scores in the thousands overflow"),
            Wrong(_masked_nan, "every row sees something", "infinity minus infinity"),
            Wrong(_masked_large_negative, "-1e9 is as good as -inf", "a large negative number is not"),
        ),
        hints=(
            "softmax(s) equals softmax(s - c) for any c: choose c so that exp never sees a large number.",
            "For a row of minus infinities take c = 0: then every exponential is 0, and so is their sum.",
            "Divide by np.where(total > 0, total, 1).",
        ),
        check=_check_attention,
        uses=(_OPS + "attention", _OPS + "flash_attention", _OPS + "softmax"),
    ),
    Exercise(
        id="c09-c",
        title="Rotary positions",
        difficulty=2,
        minutes=15,
        stub=ROTARY,
        reference=turn_by_position,
        wrong=(
            Wrong(_turn_rows, "rows are positions", "rows were counted from 0"),
            Wrong(_turn_one_speed, "one angle for all channels", "the same speed"),
            Wrong(_turn_half_exponent, "the exponent is -i / K", "the exponent is -2 i / K"),
            Wrong(_turn_back, "either direction is the same function", "the other way round"),
            Wrong(_turn_neighbours, "all libraries pair neighbours", "the other convention"),
            Wrong(_turn_added, "positions are added", "rotary positions turn x"),
            Wrong(_turn_sign, "cos plus sin", "one plus and one minus"),
        ),
        hints=(
            "Make the angles first: an array (T, K/2), from positions[:, None] times a row of K/2 speeds.",
            "With a = x[:, :K//2] and b = x[:, K//2:], each pair (a, b) is a point in the plane to be turned.",
        ),
        check=_check_turn,
        uses=(_OPS + "rope", _OPS + "rope_tables"),
    ),
    Exercise(
        id="c09-d",
        title="Two halves of a softmax",
        difficulty=3,
        minutes=20,
        stub=JOIN,
        reference=join,
        wrong=(
            Wrong(_join_mean, "two means average to the mean", "must weigh more"),
            Wrong(_join_by_e, "e is the weight", "e is a logarithm"),
            Wrong(_join_sum, "weights need no norm", "not divided by the sum"),
            Wrong(_join_e_sum, "log-sums add", "logarithms of sums do not add"),
            Wrong(_join_overflow, "exp(e) is a number", "overflows"),
        ),
        hints=(
            "Before it was divided, each half's answer was exp(e) times y: a sum over its keys of exp(score) v.",
            "Add those sums, and divide by exp(e1) + exp(e2).",
            "Multiply everything by exp(-max(e1, e2)): the ratio stays, and nothing overflows.",
        ),
        check=_check_join,
        uses=(_OPS + "attention", _OPS + "flash_attention"),
    ),
)  # fmt: skip
