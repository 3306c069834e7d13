"""Exercises of lab L01, kernels: the roofline, which loop may run in parallel, merging two softmaxes, AdamW in one pass."""

import math
import tracemalloc
from itertools import pairwise

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: the roofline ------------------------------------------------------------------------------------------------

ROOFLINE = '''
def attainable(flop, moved_bytes, peak_flop_per_s, bytes_per_s):
    """Return the most operations a second that a kernel can reach, a float.

    The kernel does `flop` operations and moves `moved_bytes` bytes between memory and
    processor. The processor does at most `peak_flop_per_s`, the memory at most
    `bytes_per_s`, and the two work at the same time.
    """
    ...
'''


def attainable(flop, moved_bytes, peak_flop_per_s, bytes_per_s):
    return min(peak_flop_per_s, flop / moved_bytes * bytes_per_s)


def _attainable_no_overlap(flop, moved_bytes, peak_flop_per_s, bytes_per_s):
    return flop / (flop / peak_flop_per_s + moved_bytes / bytes_per_s)


def _attainable_peak(flop, moved_bytes, peak_flop_per_s, bytes_per_s):
    return peak_flop_per_s


def _attainable_memory(flop, moved_bytes, peak_flop_per_s, bytes_per_s):
    return flop / moved_bytes * bytes_per_s


def _attainable_upside_down(flop, moved_bytes, peak_flop_per_s, bytes_per_s):
    return min(peak_flop_per_s, moved_bytes / flop * bytes_per_s)


def _attainable_faster(flop, moved_bytes, peak_flop_per_s, bytes_per_s):
    return max(peak_flop_per_s, flop / moved_bytes * bytes_per_s)


def _check_attainable(fn):
    cases = [
        dict(flop=flop, moved_bytes=moved, peak_flop_per_s=peak, bytes_per_s=rate)
        for flop, moved, peak, rate in (
            (1, 4, 100, 20),
            (400, 4, 100, 20),
            (6, 3, 40, 20),
            (3e9, 12e9, 1e12, 5e10),
        )
    ]
    got, want = [fn(**c) for c in cases], [attainable(**c) for c in cases]
    off = [i for i, pair in enumerate(zip(got, want, strict=True)) if not np.isclose(*pair)]
    for wrong, message in (
        (_attainable_no_overlap, "that adds the two times up, but they run at the same time."),
        (_attainable_upside_down, "intensity is operations for each byte, not the inverse."),
        (_attainable_faster, "the slower of the two decides, not the faster."),
        (_attainable_peak, "that needs more bytes a second than the memory gives."),
        (_attainable_memory, "no memory makes a processor faster than its peak."),
    ):
        if off and np.allclose(got, [wrong(**c) for c in cases]):
            raise Miss(message, given=cases[off[0]], got=got[off[0]], want=want[off[0]])
    for case, ours, right in zip(cases, got, want, strict=True):
        expect("the attainable rate", ours, right, 1e-9, given=case)
    return "two kernels under the slope, one under the roof, one at the ridge"


# --- b: which loop may run in parallel --------------------------------------------------------------------------------

SHARED = '''
def shared_elements(writes):
    """Return the elements that two or more iterations write, as a sorted list.

    writes : list of lists of int; writes[i] holds the elements of an array that
        iteration i of a loop writes, in any order, some perhaps more than once.
        `prange` may run the loop only if the answer is [].
    """
    ...
'''


def shared_elements(writes):
    once, shared = set(), set()
    for elements in map(set, writes):
        shared |= once & elements
        once |= elements
    return sorted(shared)


def _shared_neighbours(writes):
    return sorted({e for a, b in pairwise(writes) for e in set(a) & set(b)})


def _shared_counts(writes):
    flat = [e for elements in writes for e in elements]
    return sorted({e for e in flat if flat.count(e) > 1})


def _shared_by_all(writes):
    return sorted(set.intersection(*map(set, writes))) if writes else []


def _shared_any(writes):
    return sorted({e for elements in writes for e in elements})


def _check_shared(fn):
    g = generator(0, "L01-b")
    loops = (
        ([[0, 1], [1, 2]], None),
        ([[0], [1], [2]], None),
        ([[0, 0], [1]], "one iteration may write its own element twice: only different iterations get in each other's way."),
        ([[0, 1], [1, 2], [2, 3]], "two iterations are enough: an element need not be written by all."),
        ([[3], [1], [3]], "iterations that are not neighbours may run at the same time, too."),
        ([], None),
        ([g.integers(0, 12, 3).tolist() for _ in range(6)], None),
    )  # fmt: skip
    for writes, message in loops:
        got, want = fn([list(w) for w in writes]), shared_elements(writes)
        case = dict(given={"writes": writes}, got=got, want=want)
        if list(got) == want:
            continue
        if list(got) == _shared_any(writes):
            raise Miss(
                "those are all elements written: keep those that two iterations write.", **case
            )
        if message and list(got) in (
            f(writes) for f in (_shared_neighbours, _shared_counts, _shared_by_all)
        ):
            raise Miss(message, **case)
        if list(got) == _shared_by_all(writes):
            raise Miss("two iterations are enough: an element need not be written by all.", **case)
        raise Miss("not those.", **case)
    return "seven loops, safe and unsafe"


# --- c: two softmaxes become one --------------------------------------------------------------------------------------

MERGE = '''
def merge(one, two):
    """Return (m, l, a) of all keys, given that of two groups of keys.

    For the scores s_u and values v_u of a group: m = max_u s_u, a float;
    l = sum_u e^(s_u - m), a float; a = sum_u e^(s_u - m) v_u, a float array (K,).
    The attention output is a / l. A group may be empty: then m = -inf, l = 0, a = 0.
    Scores may be in the thousands. `one` and `two` must not be changed.
    """
    ...
'''


def merge(one, two):
    (m1, l1, a1), (m2, l2, a2) = one, two
    m = max(m1, m2)
    if m == -np.inf:
        return m, 0.0, np.zeros_like(a1)
    f1, f2 = math.exp(m1 - m), math.exp(m2 - m)
    return m, f1 * l1 + f2 * l2, f1 * a1 + f2 * a2


def _merge_no_factor(one, two):
    (m1, l1, a1), (m2, l2, a2) = one, two
    return max(m1, m2), l1 + l2, a1 + a2


def _merge_sign(one, two):
    (m1, l1, a1), (m2, l2, a2) = one, two
    m = max(m1, m2)
    if m == -np.inf:
        return m, 0.0, np.zeros_like(a1)
    f1, f2 = (math.exp(min(m - x, 700)) for x in (m1, m2))
    return m, f1 * l1 + f2 * l2, f1 * a1 + f2 * a2


def _merge_sum_only(one, two):
    (m1, l1, a1), (m2, l2, a2) = one, two
    m = max(m1, m2)
    if m == -np.inf:
        return m, 0.0, np.zeros_like(a1)
    return m, math.exp(m1 - m) * l1 + math.exp(m2 - m) * l2, a1 + a2


def _merge_normalised(one, two):
    m, l, a = merge(one, two)
    return m, l, a / l if l else a


def _merge_no_maximum(one, two):
    (m1, l1, a1), (m2, l2, a2) = one, two
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        e1, e2 = np.exp(m1), np.exp(m2)
        m = max(m1, m2)
        return m, (e1 * l1 + e2 * l2) / np.exp(m), (e1 * a1 + e2 * a2) / np.exp(m)


def _merge_empty(one, two):
    (m1, l1, a1), (m2, l2, a2) = one, two
    m = max(m1, m2)
    with np.errstate(invalid="ignore"):
        f1, f2 = np.exp(np.float64(m1) - m), np.exp(np.float64(m2) - m)
    return m, f1 * l1 + f2 * l2, f1 * a1 + f2 * a2


def _group(scores, values):
    """The triple of a group of keys, from its definition."""
    if len(scores) == 0:
        return -np.inf, 0.0, np.zeros(values.shape[1])
    e = np.exp(scores - scores.max())
    return float(scores.max()), float(e.sum()), e @ values


def _check_merge(fn):
    g = generator(0, "L01-c")
    s, v = np.array([0.0, 1.0, 3.0, 2.0]), np.array([[1.0], [2.0], [4.0], [8.0]])
    cases = [(s, v, 2), (s, v, 4), (s, v, 0), (s + 2000, v, 1), (s[:0], v[:0], 0)]
    cases += [(g.normal(0, 5, 9), g.normal(0, 1, (9, 3)), 4)]
    for scores, values, cut in cases:
        one, two = _group(scores[:cut], values[:cut]), _group(scores[cut:], values[cut:])
        m, l, a = fn(one, two)
        right = _group(scores, values)
        got, want = (np.hstack(x).astype(float) for x in ((m, l, a), right))
        case = dict(given={"one": one, "two": two}, got=(m, l, a), want=right)
        if got.shape == want.shape and np.allclose(got, want, rtol=1e-9, equal_nan=True):
            continue
        if len(scores) == 0:
            raise Miss("two empty groups: -inf - (-inf) is no number, so ask first.", **case)
        if np.isnan(got).any() and scores.max() > 1000:
            raise Miss(
                "e^2000 overflows: only differences from the maximum may go into exp.", **case
            )
        if np.isclose(got[1], want[1]) and np.allclose(got[2:] * want[1], want[2:]):
            raise Miss(
                "a is the sum before the division by l: dividing is for the very end.", **case
            )
        if np.isclose(got[1], want[1]):
            raise Miss("l is right; a must be rescaled by the same factors.", **case)
        if np.isclose(got[1], one[1] + two[1]):
            raise Miss(
                "each group counted from its own maximum: bring both to the common one first.",
                **case,
            )
        raise Miss(
            "a group whose maximum is smaller must shrink: mind the sign in exp(m1 - m).", **case
        )
    return "halves, empty groups, scores of 2000"


# --- d: AdamW in one pass ---------------------------------------------------------------------------------------------

ADAMW = '''
def adamw_step(p, g, m, v, step, lr, b1, b2, eps, decay):
    """Change p, m and v by one step of AdamW, in one loop, without temporary arrays.

    p, g, m, v : float64 arrays (n,); g is not changed. step counts from 1.
    m becomes b1 m + (1 - b1) g and v becomes b2 v + (1 - b2) g^2.
    With m' = m / (1 - b1^step) and v' = v / (1 - b2^step), p loses lr decay p, p as it
    was before the step, and lr m' / (sqrt(v') + eps).
    A plain loop passes; so does a numba kernel.
    """
    raise NotImplementedError("write the loop")
'''


def adamw_step(p, g, m, v, step, lr, b1, b2, eps, decay):
    c1, c2 = 1 - b1**step, 1 - b2**step
    for i in range(p.size):
        m[i] = b1 * m[i] + (1 - b1) * g[i]
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i]
        p[i] -= lr * decay * p[i] + lr * (m[i] / c1) / (math.sqrt(v[i] / c2) + eps)


def _adamw_no_correction(p, g, m, v, step, lr, b1, b2, eps, decay):
    for i in range(p.size):
        m[i] = b1 * m[i] + (1 - b1) * g[i]
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i]
        p[i] -= lr * decay * p[i] + lr * m[i] / (math.sqrt(v[i]) + eps)


def _adamw_l2(p, g, m, v, step, lr, b1, b2, eps, decay):
    c1, c2 = 1 - b1**step, 1 - b2**step
    for i in range(p.size):
        gi = g[i] + decay * p[i]
        m[i] = b1 * m[i] + (1 - b1) * gi
        v[i] = b2 * v[i] + (1 - b2) * gi * gi
        p[i] -= lr * (m[i] / c1) / (math.sqrt(v[i] / c2) + eps)


def _adamw_eps_inside(p, g, m, v, step, lr, b1, b2, eps, decay):
    c1, c2 = 1 - b1**step, 1 - b2**step
    for i in range(p.size):
        m[i] = b1 * m[i] + (1 - b1) * g[i]
        v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i]
        p[i] -= lr * decay * p[i] + lr * (m[i] / c1) / math.sqrt(v[i] / c2 + eps)


def _adamw_rebinds(p, g, m, v, step, lr, b1, b2, eps, decay):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    p -= lr * decay * p + lr * m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + eps)


def _adamw_temporaries(p, g, m, v, step, lr, b1, b2, eps, decay):
    m[:] = b1 * m + (1 - b1) * g
    v[:] = b2 * v + (1 - b2) * g * g
    p -= lr * decay * p + lr * m / (1 - b1**step) / (np.sqrt(v / (1 - b2**step)) + eps)


def _check_adamw(fn):
    r = generator(0, "L01-d")
    settings = dict(lr=0.1, b1=0.9, b2=0.99, eps=1e-3, decay=0.2)
    for n, steps in ((1, 1), (1, 3), (7, 2)):
        start = r.normal(0, 1, n), r.normal(0, 1, (steps, n))
        runs = {}
        for f in (fn, adamw_step, _adamw_no_correction, _adamw_l2, _adamw_eps_inside):
            p, m, v = start[0].copy(), np.zeros(n), np.zeros(n)
            for i, g in enumerate(start[1]):
                f(p, g.copy(), m, v, i + 1, **settings)
            runs[f] = p, m, v
        (p, m, v), want = runs[fn], runs[adamw_step]
        if not m.any() and not v.any():
            raise Miss(
                "m and v are still zeros: `m = ...` makes a new array, `m[i] = ...` changes the one given."
            )
        for wrong, message in (
            (_adamw_no_correction, "m and v start at 0: divide by 1 - b^step before you use them."),
            (
                _adamw_l2,
                "the decay goes to p directly, not through g into m and v: that is the W of AdamW.",
            ),
            (_adamw_eps_inside, "eps is added to the root, not under it."),
        ):
            if np.allclose(p, runs[wrong][0], rtol=1e-9) and not np.allclose(p, want[0], rtol=1e-9):
                raise Miss(message, got=p, want=want[0])
        for name, got, right in zip("pmv", runs[fn], want, strict=True):
            expect(f"{name} after {steps} steps", got, right, 1e-9)
    p, g = r.normal(0, 1, (2, 20_000))
    m, v = np.zeros((2, p.size))
    tracemalloc.start()
    try:
        fn(p, g, m, v, 1, **settings)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    held = peak / p.nbytes - 4  # `grade` itself keeps a copy of the four arguments
    if held > 0.5:
        raise Miss(
            f"right, but not in one pass: on arrays of {p.nbytes // 1000} kB it held {held:.0f} temporary arrays at "
            "once, each written to memory and read back."
        )
    return "three runs of up to three steps, and the memory of one step"


EXERCISES = (
    Exercise(
        id="L01-a",
        title="The roofline",
        difficulty=1,
        minutes=5,
        stub=ROOFLINE,
        reference=attainable,
        wrong=(
            Wrong(_attainable_no_overlap, "the processor waits for every byte", "adds the two times up"),
            Wrong(_attainable_peak, "the peak is what one gets", "more bytes a second than the memory gives"),
            Wrong(_attainable_memory, "every kernel is bound by memory", "no memory makes a processor faster"),
            Wrong(_attainable_upside_down, "intensity is bytes for each operation", "not the inverse"),
            Wrong(_attainable_faster, "the better of the two limits counts", "the slower of the two decides"),
        ),
        hints=(
            "How long does the arithmetic take at least? How long the memory?",
            "The kernel takes at least the longer of the two; divide its operations by that.",
        ),
        check=_check_attainable,
    ),
    Exercise(
        id="L01-b",
        title="May this loop run in parallel?",
        difficulty=1,
        minutes=8,
        stub=SHARED,
        reference=shared_elements,
        wrong=(
            Wrong(_shared_neighbours, "only neighbouring iterations meet", "not neighbours may run"),
            Wrong(_shared_counts, "writing an element twice is the problem", "may write its own element twice"),
            Wrong(_shared_by_all, "an element is shared if all write it", "need not be written by all"),
            Wrong(_shared_any, "every write is a danger", "those are all elements written"),
        ),
        hints=(
            "Make each iteration's writes a set first: what it does to its own elements is its own affair.",
            "Go through the sets and remember what has been seen; what you see again is shared.",
        ),
        check=_check_shared,
    ),
    Exercise(
        id="L01-c",
        title="Two softmaxes become one",
        difficulty=2,
        minutes=12,
        stub=MERGE,
        reference=merge,
        wrong=(
            Wrong(_merge_no_factor, "sums add up", "counted from its own maximum"),
            Wrong(_merge_sign, "the factor is e^(m - m1)", "mind the sign"),
            Wrong(_merge_sum_only, "only the normaliser depends on the maximum", "rescaled by the same factors"),
            Wrong(_merge_normalised, "a is the output so far", "before the division by l"),
            Wrong(_merge_no_maximum, "one may go back to plain exponentials", "e^2000 overflows"),
            Wrong(_merge_empty, "infinities take care of themselves", "is no number, so ask first"),
        ),
        hints=(
            "e^(s - m1) = e^(s - m) e^(m - m1): by which factor do sums counted from m1 change when counted from m?",
            "f1 = e^(m1 - m), f2 = e^(m2 - m) with m = max(m1, m2); both l and a take their group's factor.",
            "If both groups are empty, m1 - m is -inf + inf.",
        ),
        check=_check_merge,
        uses=("bigmodel_lab.ops.flash_attention.flash_attention",),
    ),
    Exercise(
        id="L01-d",
        title="AdamW in one pass",
        difficulty=2,
        minutes=12,
        stub=ADAMW,
        reference=adamw_step,
        wrong=(
            Wrong(_adamw_no_correction, "a running mean is unbiased from the start", "m and v start at 0"),
            Wrong(_adamw_l2, "weight decay is an L2 penalty", "the decay goes to p directly"),
            Wrong(_adamw_eps_inside, "eps may stand under the root", "not under it"),
            Wrong(_adamw_rebinds, "assignment changes the caller's array", "still zeros"),
            Wrong(_adamw_temporaries, "in place means no temporaries", "right, but not in one pass"),
        ),
        hints=(
            "Compute 1 - b1**step and 1 - b2**step once, before the loop.",
            "Inside: three lines, for m[i], v[i] and p[i], in this order.",
        ),
        check=_check_adamw,
        uses=("bigmodel_lab.ops.adamw.adamw",),
        inplace=True,
    ),
)  # fmt: skip
