"""Exercises of chapter c08, text and sequences: a BPE merge, perplexity, a GRU cell, a Kneser-Ney bigram."""

from itertools import pairwise

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: one merge of byte-pair encoding -----------------------------------------------------------------------------

MERGE = '''
def best_merge(words, counts):
    """Return the pair of neighbouring tokens that byte-pair encoding merges next, as a tuple of two bytes.

    words : list of tuples of bytes, each word cut into its tokens, such as (b"t", b"he")
    counts : list of int, how often each word occurs in the text
    Of pairs that are equally frequent take the one that is met first, reading the words in order.
    """
    ...
'''


def best_merge(words, counts):
    pairs = {}
    for word, count in zip(words, counts, strict=True):
        for i in range(len(word) - 1):
            pair = word[i], word[i + 1]
            pairs[pair] = pairs.get(pair, 0) + count
    return max(pairs, key=pairs.get)  # the first of several largest: a dict keeps its order


def _merge_ignores_counts(words, counts):
    return best_merge(words, [1] * len(words))


def _merge_across_words(words, counts):
    pairs, text = {}, [token for word, n in zip(words, counts, strict=True) for token in word * n]
    for pair in pairwise(text):
        pairs[pair] = pairs.get(pair, 0) + 1
    return max(pairs, key=pairs.get)


def _merge_once_a_word(words, counts):
    pairs = {}
    for word, count in zip(words, counts, strict=True):
        for pair in dict.fromkeys(pairwise(word)):
            pairs[pair] = pairs.get(pair, 0) + count
    return max(pairs, key=pairs.get)


def _merge_joined(words, counts):
    a, b = best_merge(words, counts)
    return a + b


def _merge_rarest(words, counts):
    pairs = {}
    for word, count in zip(words, counts, strict=True):
        for i in range(len(word) - 1):
            pair = word[i], word[i + 1]
            pairs[pair] = pairs.get(pair, 0) + count
    return min(pairs, key=pairs.get)


def _check_merge(fn):
    a, b, c, d = b"a", b"b", b"c", b"d"
    cases = (
        (
            [(a, b), (a, c), (c, a, c)],
            [5, 2, 1],
            (
                (
                    _merge_ignores_counts,
                    "each pair counts as often as its word occurs, not once for each distinct word.",
                ),
                (_merge_rarest, "that is the rarest pair: merge the most frequent one."),
            ),
        ),
        (
            [(a, b), (c, d, c, d, c, d)],
            [2, 1],
            (
                (
                    _merge_once_a_word,
                    "a pair that stands three times in a word counts three times for it.",
                ),
            ),
        ),
        (
            [(a, b), (b, a, d)],  # (b, a) also stands where two copies of the first word touch
            [4, 2],
            (
                (
                    _merge_across_words,
                    "that pair spans the end of a word: merges stay inside words.",
                ),
            ),
        ),
        ([(b"t", b"he"), (b"he", b"r"), (b"t", b"he", b"r")], [1, 2, 4], ()),
    )
    for words, counts, mistakes in cases:
        got, want = fn([*words], [*counts]), best_merge(words, counts)
        case = {"given": {"words": words, "counts": counts}, "got": got, "want": want}
        if isinstance(got, bytes) and got == b"".join(want):
            raise Miss("return the two tokens as a pair, not what they become.", **case)
        if not isinstance(got, tuple) or len(got) != 2:
            raise Miss("return one pair: a tuple of two bytes.", **case)
        for mistake, message in mistakes:
            if got == mistake(words, counts) != want:
                raise Miss(message, **case)
        if got != want:
            raise Miss("another pair is more frequent.", **case)
    g = generator(0, "c08-a")
    for _ in range(5):
        words = [tuple(bytes([97 + int(t)]) for t in g.integers(3, size=4)) for _ in range(6)]
        counts = g.integers(1, 9, size=6).tolist()
        got, want = fn([*words], [*counts]), best_merge(words, counts)
        if got != want:
            raise Miss(
                "another pair is more frequent, or as frequent and met earlier.",
                given={"words": words, "counts": counts},
                got=got,
                want=want,
            )
    return "nine small vocabularies, ties and repeats among them"


# --- b: perplexity, bits and bytes ----------------------------------------------------------------------------------

PERPLEXITY = '''
def scores(log_probs, n_bytes):
    """Return (nats per token, perplexity per token, bits per byte) of a language model on a text, as three floats.

    log_probs : float array (N,), natural logarithm of the probability that the model gave each token of the text
    n_bytes : int, length of the text in bytes
    """
    ...
'''


def scores(log_probs, n_bytes):
    nats = -log_probs.mean()
    bits = -log_probs.sum() / np.log(2)
    return float(nats), float(np.exp(nats)), float(bits / n_bytes)


def _scores_base_two(log_probs, n_bytes):
    nats, _, bits = scores(log_probs, n_bytes)
    return nats, float(2**nats), bits


def _scores_per_token(log_probs, n_bytes):
    nats, perplexity, _ = scores(log_probs, n_bytes)
    return nats, perplexity, float(nats / np.log(2))


def _scores_nats_per_byte(log_probs, n_bytes):
    nats, perplexity, bits = scores(log_probs, n_bytes)
    return nats, perplexity, float(bits * np.log(2))


def _scores_mean_of_inverse(log_probs, n_bytes):
    nats, _, bits = scores(log_probs, n_bytes)
    return nats, float(np.exp(-log_probs).mean()), bits


def _scores_sign(log_probs, n_bytes):
    return scores(-log_probs, n_bytes)


def _scores_sum(log_probs, n_bytes):
    nats = -log_probs.sum()
    return float(nats), float(np.exp(nats)), float(nats / np.log(2) / n_bytes)


def _check_scores(fn):
    mistakes = (
        (0, _scores_sign, "a log-probability is negative and a loss is not: mind the sign."),
        (
            0,
            _scores_sum,
            "that is the loss of the whole text: per token means divided by their number.",
        ),
        (1, _scores_base_two, "nats go with the base e: perplexity is exp(nats), or 2 ** bits."),
        (
            1,
            _scores_mean_of_inverse,
            "that is the mean of 1/p, which one surprising token rules: perplexity is exp of the mean of -log p.",
        ),
        (
            2,
            _scores_per_token,
            "those are bits per token: the total in bits, over the bytes of the text.",
        ),
        (2, _scores_nats_per_byte, "those are nats per byte: a bit is ln 2 nats."),
    )
    names = ("nats per token", "perplexity", "bits per byte")
    g = generator(0, "c08-b")
    for n, n_bytes in ((2, 5), (1, 1), (7, 20), (40, 90)):
        log_probs = np.log(g.uniform(0.05, 0.9, size=n))
        got, want = fn(log_probs, n_bytes), scores(log_probs, n_bytes)
        case = {"given": {"log_probs": log_probs, "n_bytes": n_bytes}, "got": got, "want": want}
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Miss("return three numbers: nats per token, perplexity, bits per byte.", **case)
        for at, mistake, message in mistakes:
            off = mistake(log_probs, n_bytes)[at]
            if np.isclose(got[at], off, rtol=1e-9) and not np.isclose(off, want[at], rtol=1e-6):
                raise Miss(message, **case)
        for name, a, b in zip(names, got, want, strict=True):
            expect(name, a, b, 1e-10, given=case["given"])
    return "four texts, one of a single token"


# --- c: a GRU cell --------------------------------------------------------------------------------------------------

CELL = '''
def gru_cell(x, h, W, U, b, c):
    """Return the next state (D,) of a GRU with torch's weights, in the order r, z, n.

    x : (E,) input     h : (D,) state
    W : (3 D, E)   U : (3 D, D)   b, c : (3 D,)    biases of W x and of U h
    r, z = sigmoid(W x + b + U h + c), n = tanh(W x + b + r * (U h + c)), and z = 1 keeps the old state
    """
    ...
'''


def gru_cell(x, h, W, U, b, c):
    (xr, xz, xn), (hr, hz, hn) = np.split(W @ x + b, 3), np.split(U @ h + c, 3)
    r, z = 1 / (1 + np.exp(-(xr + hr))), 1 / (1 + np.exp(-(xz + hz)))
    n = np.tanh(xn + r * hn)
    return (1 - z) * n + z * h


def _gates(x, h, W, U, b, c):
    (xr, xz, xn), (hr, hz, hn) = np.split(W @ x + b, 3), np.split(U @ h + c, 3)
    return 1 / (1 + np.exp(-(xr + hr))), 1 / (1 + np.exp(-(xz + hz))), xn, hn


def _cell_z_swapped(x, h, W, U, b, c):
    r, z, xn, hn = _gates(x, h, W, U, b, c)
    return z * np.tanh(xn + r * hn) + (1 - z) * h


def _cell_paper(x, h, W, U, b, c):
    r, z, xn, _ = _gates(x, h, W, U, b, c)
    D = len(h)
    n = np.tanh(xn + U[2 * D :] @ (r * h) + c[2 * D :])
    return (1 - z) * n + z * h


def _cell_no_reset(x, h, W, U, b, c):
    _, z, xn, hn = _gates(x, h, W, U, b, c)
    return (1 - z) * np.tanh(xn + hn) + z * h


def _cell_order(x, h, W, U, b, c):
    z, r, xn, hn = _gates(x, h, W, U, b, c)
    return (1 - z) * np.tanh(xn + r * hn) + z * h


def _cell_bias_outside(x, h, W, U, b, c):
    r, z, xn, hn = _gates(x, h, W, U, b, c)
    cn = c[2 * len(h) :]
    return (1 - z) * np.tanh(xn + r * (hn - cn) + cn) + z * h


def _check_cell(fn):
    mistakes = (
        (_cell_z_swapped, "z and 1 - z have changed places: here z says how much is kept."),
        (
            _cell_paper,
            "r multiplies the state before U_n, as in the paper of 2014; torch multiplies after the product.",
        ),
        (_cell_no_reset, "the reset gate r is computed and never used."),
        (_cell_order, "the first D rows are r and the next D are z, not the other way round."),
        (_cell_bias_outside, "r multiplies the whole of U_n h + c_n, with its bias."),
    )
    g = generator(0, "c08-c")
    for E, D in ((2, 3), (5, 2), (1, 1), (4, 6)):
        args = [g.normal(size=s) for s in (E, D, (3 * D, E), (3 * D, D), 3 * D, 3 * D)]
        got, want = fn(*args), gru_cell(*args)
        if np.shape(got) == np.shape(want):
            for mistake, message in mistakes:
                off = mistake(*args)
                if np.allclose(got, off, rtol=1e-9) and not np.allclose(off, want, rtol=1e-6):
                    raise Miss(message)
        expect("the next state", np.asarray(got), want, 1e-12)
    return "four sizes, a single unit among them, in the form of torch.nn.GRUCell"


# --- d: a Kneser-Ney bigram -----------------------------------------------------------------------------------------

BIGRAM = '''
def kneser_ney(C, d):
    """Return P (V, V): the probability of token w after token v, by a bigram with interpolated Kneser-Ney smoothing.

    C : int array (V, V), C[v, w] = how often w followed v; every row has a count
    d : the discount, 0 < d < 1

    P[v, w] = max(C[v, w] - d, 0) / C[v].sum()  +  g[v] * q[w]
    q[w] is the share of w among the distinct pairs that were seen, and g[v] makes each row sum to one.
    """
    ...
'''


def kneser_ney(C, d):
    seen = C > 0
    q = seen.sum(axis=0) / seen.sum()  # different tokens before w, not occurrences of w
    g = d * seen.sum(axis=1) / C.sum(axis=1)
    return np.maximum(C - d, 0) / C.sum(axis=1)[:, None] + g[:, None] * q


def _bigram_counts(C, d):
    g = d * (C > 0).sum(axis=1) / C.sum(axis=1)
    return np.maximum(C - d, 0) / C.sum(axis=1)[:, None] + g[:, None] * C.sum(axis=0) / C.sum()


def _bigram_no_backoff(C, d):
    return np.maximum(C - d, 0) / C.sum(axis=1)[:, None]


def _bigram_constant_g(C, d):
    q = (C > 0).sum(axis=0) / (C > 0).sum()
    return np.maximum(C - d, 0) / C.sum(axis=1)[:, None] + d * q


def _bigram_negative(C, d):
    seen = C > 0
    q = seen.sum(axis=0) / seen.sum()
    return (C - d) / C.sum(axis=1)[:, None] + (d * len(C) / C.sum(axis=1))[:, None] * q


def _bigram_uniform(C, d):
    g = d * (C > 0).sum(axis=1) / C.sum(axis=1)
    return np.maximum(C - d, 0) / C.sum(axis=1)[:, None] + g[:, None] / len(C)


def _bigram_wrong_side(C, d):
    seen = C > 0
    q = seen.sum(axis=1) / seen.sum()
    g = d * seen.sum(axis=1) / C.sum(axis=1)
    return np.maximum(C - d, 0) / C.sum(axis=1)[:, None] + g[:, None] * q


def _check_bigram(fn):
    mistakes = (
        (
            _bigram_counts,
            "q is how often w occurs: Kneser-Ney asks how many different tokens w was seen after.",
        ),
        (
            _bigram_no_backoff,
            "what the discount took away was not handed out: rows sum to less than one.",
        ),
        (
            _bigram_constant_g,
            "g is not d itself: each distinct successor of v gave d, out of C[v].sum().",
        ),
        (
            _bigram_negative,
            "pairs that were never seen got a negative count: nothing can be taken from zero.",
        ),
        (_bigram_uniform, "q is not uniform: a token seen in many places is the better guess."),
        (_bigram_wrong_side, "q counts the tokens after w: it must count those before it."),
    )
    g = generator(0, "c08-d")
    for V, d in ((3, 0.5), (5, 0.75), (12, 0.9)):
        C = g.poisson(g.gamma(0.5, 2.0, size=(V, V)))
        C[:, 0] += 1  # every row has a count
        got, want = np.asarray(fn(C.copy(), d)), kneser_ney(C, d)
        case = {"given": {"C": C, "d": d}} if V < 5 else {}
        if got.shape == want.shape:
            for mistake, message in mistakes:
                off = mistake(C, d)
                if np.allclose(got, off, rtol=1e-9) and not np.allclose(off, want, rtol=1e-6):
                    raise Miss(message, **case)
        expect("P", got, want, 1e-12, **case)
    return "three tables of counts with many zeros; every row sums to one"


EXERCISES = (
    Exercise(
        id="c08-a",
        title="One merge of byte-pair encoding",
        difficulty=1,
        minutes=8,
        stub=MERGE,
        reference=best_merge,
        wrong=(
            Wrong(
                _merge_ignores_counts,
                "the vocabulary is the text",
                "not once for each distinct word",
            ),
            Wrong(_merge_once_a_word, "a word has a pair or has not", "counts three times"),
            Wrong(_merge_across_words, "the text is one string", "spans the end of a word"),
            Wrong(_merge_joined, "the merge is the new token", "not what they become"),
            Wrong(_merge_rarest, "rare pairs carry information", "the rarest pair"),
        ),
        hints=(
            "zip(word, word[1:]) gives the neighbouring pairs of a word.",
            "Add the word's count to its entry in a dict for each of them; max(pairs, key=pairs.get) is the first of the "
            "largest.",
        ),
        check=_check_merge,
        uses=("bigmodel_lab.text.naive.train",),
    ),
    Exercise(
        id="c08-b",
        title="Perplexity, bits and bytes",
        difficulty=1,
        minutes=8,
        stub=PERPLEXITY,
        reference=scores,
        wrong=(
            Wrong(_scores_sign, "a log-probability is a loss", "mind the sign"),
            Wrong(_scores_sum, "the loss of a text is a sum", "loss of the whole text"),
            Wrong(_scores_base_two, "perplexity is 2 to the loss", "the base e"),
            Wrong(
                _scores_mean_of_inverse, "perplexity is the mean of 1/p", "the mean of 1/p, which"
            ),
            Wrong(_scores_per_token, "a token is a byte", "those are bits per token"),
            Wrong(_scores_nats_per_byte, "a nat is a bit", "those are nats per byte"),
        ),
        hints=(
            "The loss in nats per token is the mean of -log p; how many equally likely tokens would cost as much?",
            "The whole text costs -log_probs.sum() nats. Turn that into bits, then share it out among the bytes.",
        ),
        check=_check_scores,
    ),
    Exercise(
        id="c08-c",
        title="A GRU cell, as torch computes it",
        difficulty=2,
        minutes=15,
        stub=CELL,
        reference=gru_cell,
        wrong=(
            Wrong(_cell_z_swapped, "z = 1 means new, as in Chung et al. (2014)", "changed places"),
            Wrong(_cell_paper, "r acts on the state itself", "as in the paper of 2014"),
            Wrong(_cell_no_reset, "one gate is enough", "never used"),
            Wrong(_cell_order, "the rows are in the order z, r, n", "the first D rows are r"),
            Wrong(_cell_bias_outside, "biases are added last", "with its bias"),
        ),
        hints=(
            "np.split(W @ x + b, 3) gives the three parts that come from the input, in the order r, z, n.",
            "Both gates are a sigmoid of (part from x) + (part from h). For the candidate, r multiplies the part from h.",
            "The state is a mixture: (1 - z) * n + z * h.",
        ),
        check=_check_cell,
    ),
    Exercise(
        id="c08-d",
        title="A Kneser-Ney bigram",
        difficulty=3,
        minutes=20,
        stub=BIGRAM,
        reference=kneser_ney,
        wrong=(
            Wrong(_bigram_counts, "the lower order is the unigram", "how often w occurs"),
            Wrong(_bigram_no_backoff, "discounting is smoothing", "sum to less than one"),
            Wrong(_bigram_constant_g, "the weight of the lower order is d", "g is not d itself"),
            Wrong(_bigram_negative, "every entry gives up d", "a negative count"),
            Wrong(_bigram_uniform, "an unseen token is as likely as any", "q is not uniform"),
            Wrong(_bigram_wrong_side, "q counts successors", "those before it"),
        ),
        hints=(
            "C > 0 marks the distinct pairs. Which axis of it counts the different tokens before w?",
            "A row gives up d for each of its distinct successors, out of C[v].sum(): that is g[v].",
            "q = (C > 0).sum(axis=0) / (C > 0).sum(). Check that every row of P sums to one.",
        ),
        check=_check_bigram,
        uses=("bigmodel_lab.text.ngram.NGram",),
    ),
)
