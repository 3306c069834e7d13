"""Exercises of lab L04, tensor parallelism: a rank's part of a product, the conjugate operators, log-sum-exp from parts."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: a rank's part of a linear layer cut by inputs ---------------------------------------------------------------

PART = '''
def my_part(x, w, bias, rank, ranks):
    """Return what this rank puts into the all-reduce, a sum: a float array (N, F).

    The layer is linear and cut by inputs.

    x : float array (N, D_r), this rank's channels of the input
    w : float array (F, D_r), its columns of the weight
    bias : float array (F,), the whole bias, the same on every rank

    The sum over all ranks must be x_whole @ w_whole.T + bias. D_r may differ from rank
    to rank.
    """
    ...
'''


def my_part(x, w, bias, rank, ranks):
    y = x @ w.T
    return y + bias if rank == 0 else y


def _part_bias_everywhere(x, w, bias, rank, ranks):
    return x @ w.T + bias


def _part_no_bias(x, w, bias, rank, ranks):
    return x @ w.T


def _part_mean(x, w, bias, rank, ranks):
    return (x @ w.T + bias) / ranks


def _part_bias_rank_1(x, w, bias, rank, ranks):
    y = x @ w.T
    return y + bias if rank == 1 else y


def _part_bias_slice(x, w, bias, rank, ranks):
    y = x @ w.T
    mine = np.array_split(np.arange(len(bias)), ranks)[rank]
    y[:, : len(mine)] += bias[mine]
    return y


def _part_slice(x, w, bias, rank, ranks):
    mine = np.array_split(np.arange(len(bias)), ranks)[rank]
    return (x @ w.T + bias)[:, mine]


def _check_part(fn):
    for N, sizes, F in ((1, (1, 1), 2), (2, (3, 2), 4), (3, (5,), 2), (2, (2, 2, 1, 3), 5)):
        ranks, g = len(sizes), generator(0, "L04-a", str(sizes))
        w, x, bias = (
            g.integers(1, 9, s).astype(float) for s in ((F, sum(sizes)), (N, sum(sizes)), F)
        )
        cuts = np.cumsum(sizes)[:-1]
        xs, ws = np.split(x, cuts, axis=1), np.split(w, cuts, axis=1)
        parts = [
            np.asarray(fn(xs[r].copy(), ws[r].copy(), bias.copy(), r, ranks)) for r in range(ranks)
        ]
        if any(p.shape != (N, F) for p in parts):
            raise Miss(
                f"the part has shape {parts[0].shape}, but every rank has all {F} channels of the output, unfinished."
            )
        got, product = sum(parts), x @ w.T
        want = product + bias
        case = dict(got=got, want=want) if N == 1 else {}
        if ranks > 1:
            if np.allclose(got, product + ranks * bias):
                raise Miss(f"{ranks} ranks add the bias, and the sum has it {ranks} times.", **case)
            if np.allclose(got, product):
                raise Miss("nobody adds the bias.", **case)
            if np.allclose(got, product / ranks + bias):
                raise Miss("parts of a product are added, not averaged.", **case)
        elif np.allclose(got, product):
            raise Miss("a single rank leaves the bias out: let one add it that is always there.")
        expect("the sum of all parts", got, want, 1e-12, batch=N)
    return "one to four ranks with even and uneven slices"


# --- b: the conjugate operators -------------------------------------------------------------------------------------

CONJUGATES = '''
def through(operator, direction, parts):
    """Return what each rank holds behind an operator: a list of float arrays.

    operator : "enter", which stands before a product that is cut by outputs, or
        "leave", which stands behind one that is cut by inputs
    direction : "forward" (parts are activations) or "backward" (parts are gradients
        with respect to what the operator gave out)
    parts : list of float arrays of one shape, what each rank hands to the operator
    """
    ...
'''


def through(operator, direction, parts):
    if (operator, direction) in (("leave", "forward"), ("enter", "backward")):
        return [sum(parts) for _ in parts]
    return [p.copy() for p in parts]


def _through_swapped(operator, direction, parts):
    return through("enter" if operator == "leave" else "leave", direction, parts)


def _through_leave_twice(operator, direction, parts):
    return [sum(parts)] * len(parts) if operator == "leave" else through(operator, direction, parts)


def _through_no_backward(operator, direction, parts):
    return through(operator, direction, parts) if direction == "forward" else list(parts)


def _through_mean(operator, direction, parts):
    out = through(operator, direction, parts)
    summed = (operator == "leave") == (direction == "forward")
    return [p / len(parts) for p in out] if summed else out


def _through_nothing(operator, direction, parts):
    return list(parts)


def _through_all_sums(operator, direction, parts):
    return [sum(parts)] * len(parts)


def _through_share(operator, direction, parts):
    if (operator, direction) == ("leave", "backward"):
        return [p / len(parts) for p in parts]
    return through(operator, direction, parts)


def _through_root(operator, direction, parts):
    if (operator == "leave") == (direction == "forward"):
        return [sum(parts), *parts[1:]]
    return list(parts)


def _check_conjugates(fn):
    cases = [
        ("leave", "forward"),
        ("enter", "forward"),
        ("leave", "backward"),
        ("enter", "backward"),
    ]
    for operator, direction in cases:
        for ranks in (2, 3, 1):
            g = generator(0, "L04-b", str(ranks))
            parts = [g.integers(1, 99, 2).astype(float) for _ in range(ranks)]
            got = [np.asarray(p) for p in fn(operator, direction, [p.copy() for p in parts])]
            want, total = through(operator, direction, parts), sum(parts)
            given = {"operator": operator, "direction": direction, "parts": parts}
            case = dict(given=given, got=got, want=want)
            if len(got) != ranks:
                raise Miss(f"a list of {len(got)} for {ranks} ranks.", **case)
            if all(np.allclose(a, b) for a, b in zip(got, want, strict=True)):
                continue
            all_sum = all(np.allclose(p, total) for p in got)
            if np.allclose(got[0], total) and not all_sum:
                raise Miss("only rank 0 has the sum: an all-reduce gives it to all.", **case)
            if all(np.allclose(p, total / ranks) for p in got):
                raise Miss("that is the mean: the ranks hold parts of one sum.", **case)
            if operator == "leave" and direction == "backward" and all_sum:
                raise Miss(
                    "every rank already has the same gradient of y: adding them makes it W times too large.",
                    **case,
                )
            if operator == "enter" and direction == "backward":
                raise Miss(
                    "every rank used all of x, so that x has an influence through each of them: what of their gradients?",
                    **case,
                )
            if (operator, direction) == ("leave", "backward") and np.allclose(
                sum(got), sum(parts) / ranks
            ):
                raise Miss("the gradient of a sum goes to each of its terms as it is.", **case)
            if operator == "leave" and np.allclose(got, parts):
                if np.allclose(fn("enter", "forward", parts)[0], total):
                    raise Miss("the two are exchanged: x goes in as it is, and what comes out is a sum.", **case)  # fmt: skip
                raise Miss("each rank has a part of every channel of y: somebody must add them.", **case)  # fmt: skip
            if (operator, direction) == ("enter", "forward") and all_sum:
                raise Miss("x goes in as it is: every rank needs it, and nobody a multiple.", **case)  # fmt: skip
            raise Miss("that is not what the ranks hold.", **case)
    return "both operators, both ways, on 1, 2 and 3 ranks"


# --- c: log-sum-exp from parts --------------------------------------------------------------------------------------

COMBINE = '''
def combine(tops, sums):
    """Return log(sum over all words of exp(logit)) for each token: a float array (N,).

    tops : float array (W, N), the largest logit among the words of each rank
    sums : float array (W, N), the sum over the rank's words of
        exp(logit - the rank's own largest logit)

    Logits may be in the hundreds, where exp of them is infinite. A rank without words
    has top -inf and sum 0; at least one rank has some.
    """
    ...
'''


def combine(tops, sums):
    m = tops.max(0)
    return m + np.log((sums * np.exp(tops - m)).sum(0))


def _combine_no_rescale(tops, sums):
    return tops.max(0) + np.log(sums.sum(0))


def _combine_logs(tops, sums):
    with np.errstate(divide="ignore"):
        return (tops + np.log(sums)).sum(0)


def _combine_plain(tops, sums):
    with np.errstate(over="ignore"):
        return np.log((sums * np.exp(tops)).sum(0))


def _combine_largest(tops, sums):
    with np.errstate(divide="ignore"):
        return (tops + np.log(sums)).max(0)


def _combine_no_top(tops, sums):
    return combine(tops, sums) - tops.max(0)


def _combine_upside_down(tops, sums):
    m = tops.max(0)
    with np.errstate(over="ignore", invalid="ignore"):
        return m + np.log((sums * np.exp(m - tops)).sum(0))


_COMBINE_MISSES = (
    (
        _combine_no_rescale,
        "the sums were taken with different maxima: bring them to one before adding.",
    ),
    (_combine_logs, "logarithms of sums do not add up: add the sums, then take the logarithm."),
    (_combine_largest, "that is the largest of the ranks' results: the other words count as well."),
    (_combine_no_top, "the maximum was taken out of the exponentials: add it again at the end."),
    (
        _combine_upside_down,
        "the correction is upside down: exp(logit - m) is exp(logit - top) times exp(top - m).",
    ),
)


def _check_combine(fn):
    g = generator(0, "L04-c")
    cases = [
        [[[1.0, 2.0]], [[4.0, 3.0, 0.0]]],  # rank, token, word
        [[[0.5]]],
        [g.normal(0, 3, (4, 5)), g.normal(2, 3, (4, 7)), g.normal(0, 3, (4, 2))],
        [[[800.0, 801.0]], [[790.0, 802.0]]],
        [[[3.0, 1.0]], np.zeros((1, 0))],
    ]
    for ranks in cases:
        ranks = [np.asarray(r, float) for r in ranks]
        tops = np.stack([r.max(1, initial=-np.inf) for r in ranks])
        sums = np.stack([np.exp(r - t[:, None]).sum(1) for r, t in zip(ranks, tops, strict=True)])
        with np.errstate(all="ignore"):
            got = np.asarray(fn(tops.copy(), sums.copy()), float)
        want = combine(tops, sums)
        given = {"tops": tops, "sums": sums} if tops.size <= 4 else None
        case = dict(given=given, got=got, want=want)
        if got.shape == want.shape and not np.allclose(got, want, rtol=1e-10):
            if tops.max() > 700 and not np.isfinite(got).all():
                raise Miss(
                    "exp of a logit in the hundreds overflows: take the largest out first.", **case
                )
            for mistake, message in _COMBINE_MISSES:
                with np.errstate(all="ignore"):
                    if np.allclose(got, mistake(tops, sums), rtol=1e-10):
                        raise Miss(message, **case)
        expect("the log-sum-exp", got, want, 1e-10, given=given)
    return "one to three ranks, uneven, large logits, and a rank without words"


EXERCISES = (
    Exercise(
        id="L04-a",
        title="A rank's part",
        difficulty=1,
        minutes=6,
        stub=PART,
        reference=my_part,
        wrong=(
            Wrong(_part_bias_everywhere, "a linear layer adds its bias", "ranks add the bias"),
            Wrong(_part_no_bias, "the bias is somebody else's", "nobody adds the bias"),
            Wrong(_part_mean, "ranks are averaged", "not averaged"),
            Wrong(_part_bias_rank_1, "another rank can add it", "that is always there"),
            Wrong(_part_slice, "a rank has some of the output channels", "the part has shape"),
            Wrong(_part_bias_slice, "the bias is cut like the weight", "the sum of all parts"),
        ),
        hints=(
            "What is in the sum of all parts, if every rank adds the bias?",
            "One rank adds it, or each adds a W-th of it.",
        ),
        check=_check_part,
    ),
    Exercise(
        id="L04-b",
        title="Conjugates",
        difficulty=2,
        minutes=8,
        stub=CONJUGATES,
        reference=through,
        wrong=(
            Wrong(_through_swapped, "what goes in is summed", "the two are exchanged"),
            Wrong(_through_leave_twice, "the backward of a sum is a sum", "W times too large"),
            Wrong(
                _through_no_backward, "going backward nothing is to be done", "through each of them"
            ),
            Wrong(_through_nothing, "autograd does it all", "somebody must add them"),
            Wrong(
                _through_all_sums, "an operator is an all-reduce", "x goes in as it is: every rank"
            ),
            Wrong(
                _through_share,
                "each term gets its share of the gradient",
                "each of its terms as it is",
            ),
            Wrong(_through_mean, "an all-reduce averages", "that is the mean"),
            Wrong(_through_root, "the sum is at rank 0", "only rank 0 has the sum"),
        ),
        hints=(
            "Two of the four cases change nothing.",
            "y = y_0 + y_1: what is the gradient of y_0, given that of y? And x is used by rank 0 and by rank 1: what is its gradient?",
        ),
        check=_check_conjugates,
        uses=("bigmodel_lab.dist.tensor_parallel.TensorParallel",),
    ),
    Exercise(
        id="L04-c",
        title="Logarithms of sums",
        difficulty=2,
        minutes=10,
        stub=COMBINE,
        reference=combine,
        wrong=(
            Wrong(_combine_no_rescale, "sums add up", "different maxima"),
            Wrong(_combine_logs, "results of ranks add up", "logarithms of sums do not add up"),
            Wrong(_combine_plain, "the formula as it stands", "overflows"),
            Wrong(_combine_largest, "the largest decides", "the other words count"),
            Wrong(_combine_no_top, "the maximum cancels", "add it again at the end"),
            Wrong(_combine_upside_down, "the correction is exp(m - top)", "upside down"),
        ),
        hints=(
            "With one maximum m for all, the sum over a rank's words is sum exp(logit - m).",
            "exp(logit - m) = exp(logit - top) * exp(top - m): multiply each rank's sum by the second factor.",
        ),
        check=_check_combine,
        uses=("numpy.logaddexp",),
    ),
)
