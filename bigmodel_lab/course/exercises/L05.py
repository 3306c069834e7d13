"""Exercises of lab L05, pipeline parallelism: the bubble, an order that keeps little, layers dealt to stages."""

from itertools import combinations, pairwise

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong

# --- a: how many micro-batches a small bubble takes ------------------------------------------------------------------

MICROS = '''
def micros_for(stages, share, chunks=1):
    """Return the fewest micro-batches that leave at most `share` of a step idle.

    stages : ranks of the pipeline (p); all stages are equally fast, messages take no
        time
    share : 0 < share < 1, idle time over the time of the whole step
    chunks : chunks of layers a rank (v), visited in turn; 1 without interleaving

    Any int from 1 will do; that an interleaved schedule wants a multiple of p
    is not asked here.
    """
    ...
'''


def micros_for(stages, share, chunks=1):
    micros = 1
    while (stages - 1) / (chunks * micros + stages - 1) > share * (1 + 1e-12):
        micros += 1
    return micros


def _fewest(idle_share):
    """The fewest micro-batches for which a function of them is at most the share asked for."""

    def search(stages, share, chunks=1):
        return next(m for m in range(1, 10**6) if idle_share(stages, m, chunks) <= share + 1e-12)

    return search


_micros_of_ideal = _fewest(lambda p, m, v: (p - 1) / (v * m))
_micros_all_stages = _fewest(lambda p, m, v: p / (v * m + p) if p > 1 else 0)
_micros_no_chunks = _fewest(lambda p, m, v: (p - 1) / (m + p - 1))


def _micros_busy(stages, share, chunks=1):
    return _fewest(lambda p, m, v: (p - 1) / (v * m + p - 1))(stages, 1 - share, chunks)


def _micros_rounded_down(stages, share, chunks=1):
    return max(1, int((stages - 1) * (1 - share) / (share * chunks)))


def _micros_times_chunks(stages, share, chunks=1):
    return micros_for(stages, share) * chunks


def _micros_none(stages, share, chunks=1):
    return 0 if stages == 1 else micros_for(stages, share, chunks)


def _check_micros(fn):
    mistakes = (
        (_micros_of_ideal, "that divides the idle time by the working time: here the whole step is the unit, which contains the idle time."),
        (_micros_all_stages, "p stages fill up in p - 1 turns: the first works from the start."),
        (_micros_busy, "then a stage works that share of the step, and is idle for the rest."),
        (_micros_no_chunks, "a chunk is 1/v of a rank's layers, so filling the pipeline takes 1/v of the time."),
        (_micros_times_chunks, "chunks make the pipeline fill faster, so that fewer micro-batches will do."),
        (_micros_rounded_down, "rounded down, the share is a little larger than was asked for."),
    )  # fmt: skip
    cases = ((2, 0.3, 1), (4, 0.1, 1), (8, 0.1, 1), (8, 0.1, 2), (4, 0.25, 1), (4, 0.2, 3))
    for stages, share, chunks in (*cases, (16, 0.05, 1), (1, 0.5, 1), (16, 0.05, 4)):
        given = dict(stages=stages, share=share, chunks=chunks)
        got, want = fn(**given), micros_for(**given)
        if got == want and float(got).is_integer():
            continue
        if got == 0:
            raise Miss("a step without any micro-batch trains nothing: at least 1.", given=given, got=got, want=want)  # fmt: skip
        if not float(got).is_integer():
            raise Miss("micro-batches come whole: which way do you round?", given=given, got=got, want=want)  # fmt: skip
        for mistake, message in mistakes:
            if got == mistake(**given):
                raise Miss(message, given=given, got=got, want=want)
        raise Miss("count the turns of one stage, and those of the step.", given=given, got=got, want=want)  # fmt: skip
    return "1 to 16 stages, with and without chunks"


# --- b: an order that keeps little ------------------------------------------------------------------------------------

ORDER = '''
def one_f_one_b(stage, stages, micros):
    """Return the passes of a stage in order, such as ["F0", "F1", "B0", "B1"].

    Fi is the forward pass of micro-batch i, Bi its backward pass; i counts from 0 to
    micros - 1, stage from 0 to stages - 1. micros may be smaller than stages. A forward
    pass waits for the stage before, a backward pass for the stage after.

    No step may take longer than GPipe's, and stage s may never hold more than
    min(micros, stages - s) micro-batches of which the forward pass has begun and the
    backward pass has not ended.
    """
    ...
'''


def one_f_one_b(stage, stages, micros):
    ahead = min(stages - 1 - stage, micros)
    order = [f"F{i}" for i in range(ahead)]
    for i in range(micros):
        if ahead + i < micros:
            order.append(f"F{ahead + i}")
        order.append(f"B{i}")
    return order


def _order_gpipe(stage, stages, micros):
    return [f"{kind}{i}" for kind in "FB" for i in range(micros)]


def _order_no_warm_up(stage, stages, micros):
    return [f"{kind}{i}" for i in range(micros) for kind in "FB"]


def _order_one_too_many(stage, stages, micros):
    ahead = min(stages - stage, micros)
    order = [f"F{i}" for i in range(ahead)]
    for i in range(micros):
        order += [f"B{i}", *([f"F{ahead + i}"] if ahead + i < micros else [])]
    if stage < stages - 1 and ahead < micros:  # one more forward pass before the first backward
        order.remove(f"F{ahead}")
        order.insert(ahead, f"F{ahead}")
    return order


def _order_no_cool_down(stage, stages, micros):
    order = one_f_one_b(stage, stages, micros)
    return order[: len(order) - min(stages - 1 - stage, micros)]


def _order_beyond(stage, stages, micros):
    ahead = stages - 1 - stage
    order = [f"F{i}" for i in range(ahead)]
    for i in range(micros):
        order += [*([f"F{ahead + i}"] if ahead + i < micros else []), f"B{i}"]
    return order


def _order_from_one(stage, stages, micros):
    return [f"{name[0]}{int(name[1:]) + 1}" for name in one_f_one_b(stage, stages, micros)]


def _order_last_first(stage, stages, micros):
    ahead = min(stages - 1 - stage, micros)
    order = [f"F{i}" for i in range(ahead)]
    waiting = list(range(ahead))
    for i in range(micros):
        if ahead + i < micros:
            order.append(f"F{ahead + i}")
            waiting.append(ahead + i)
        order.append(f"B{waiting.pop()}")
    return order


def _turns(orders):
    """Play the orders of all stages, F one turn and B two; return the turns of the step, None if it gets stuck."""
    p, done, clock, at = len(orders), {}, [0] * len(orders), [0] * len(orders)
    moved = True
    while moved:
        moved = False
        for s, order in enumerate(orders):
            if at[s] == len(order):
                continue
            kind, micro = order[at[s]]
            before = {"F": (s - 1, kind, micro), "B": (s + 1, kind, micro)}[kind]
            if kind == "B" and s == p - 1:
                before = (s, "F", micro)
            if 0 <= before[0] < p and before not in done:
                continue
            start = max(clock[s], done.get(before, 0))
            clock[s] = done[s, kind, micro] = start + (1 if kind == "F" else 2)
            at[s] += 1
            moved = True
    return max(clock) if all(a == len(o) for a, o in zip(at, orders, strict=True)) else None


def _check_order(fn):
    for stages, micros in ((2, 4), (2, 2), (3, 5), (4, 2), (4, 8), (1, 3), (8, 20)):
        orders = []
        for stage in range(stages):
            given = dict(stage=stage, stages=stages, micros=micros)
            got, want = fn(**given), one_f_one_b(**given)
            case = dict(given=given, got=got, want=want)
            order = [(str(name)[:1], str(name)[1:]) for name in got]
            if any(kind not in ("F", "B") or not number.isdigit() for kind, number in order):
                raise Miss("a pass is written as in F0 or B12.", **case)
            order = [(kind, int(number)) for kind, number in order]
            if min((i for _, i in order), default=0) == 1 and max(i for _, i in order) == micros:
                raise Miss("micro-batches count from 0.", **case)
            if any(i >= micros for _, i in order):
                raise Miss(f"there are micro-batches 0 to {micros - 1} only: with few of them the forward passes run out before the pipeline is full.", **case)  # fmt: skip
            wanted = [(kind, i) for kind in "FB" for i in range(micros)]
            if missing := [f"{k}{i}" for k, i in wanted if (k, i) not in order]:
                raise Miss(f"{missing[0]} is missing: when the forward passes have run out, backward passes remain.", **case)  # fmt: skip
            if len(order) != len(wanted):
                raise Miss("each pass comes once.", **case)
            held = most = 0
            for i, (kind, micro) in enumerate(order):
                if kind == "B" and ("F", micro) not in order[:i]:
                    raise Miss(f"B{micro} comes before F{micro}.", **case)
                held += 1 if kind == "F" else -1
                most = max(most, held)
            if most > min(micros, stages - stage):
                if order == wanted:
                    raise Miss(f"that is GPipe, which holds all {micros} micro-batches.", **case)
                raise Miss(f"stage {stage} holds {most} micro-batches at a time, and {min(micros, stages - stage)} are enough: how many forward passes until the first gradient comes back?", **case)  # fmt: skip
            orders.append(order)
        turns, best = _turns(orders), 3 * (micros + stages - 1)
        if turns != best:
            for stage, order in enumerate(orders):
                back = [i for kind, i in order if kind == "B"]
                if back != sorted(back):
                    raise Miss(f"stage {stage} of {stages} takes gradients in another order than they come: they leave the last stage in the order in which the micro-batches arrived. It has {_text(order)}.")  # fmt: skip
        if turns is None:
            raise Miss(f"on {stages} stages with {micros} micro-batches everybody waits for somebody. Stage 0 has {_text(orders[0])}.")  # fmt: skip
        if turns > best:
            raise Miss(f"the step takes {turns} turns on {stages} stages with {micros} micro-batches, and GPipe's takes {best} (a backward pass is two): the early stages must run ahead before they take turns. Stage 0 has {_text(orders[0])}.")  # fmt: skip
    return "1 to 8 stages, played through, also with fewer micro-batches than stages"


def _text(order):
    return " ".join(f"{kind}{micro}" for kind, micro in order[:12])


# --- c: layers dealt to stages ----------------------------------------------------------------------------------------

BALANCE = '''
def balance(loads, stages):
    """Return how many layers each stage takes: a list of `stages` ints from 1.

    loads : float array (L,), L >= stages, the time of each layer; some may be far from
        the others, such as the last, which holds the loss over the whole vocabulary

    Stages take layers that follow each other: stage 0 the first ones, and so on. The
    slowest stage sets the pace of all: its load must be as small as can be. If several
    cuts have that, any will do.
    """
    ...
'''


def balance(loads, stages):
    sums = np.concatenate([[0], np.cumsum(loads)])
    L = len(loads)
    best = np.full((stages + 1, L + 1), np.inf)  # of the first l layers on s stages
    best[0, 0], cut = 0, {}
    for s in range(1, stages + 1):
        for l in range(s, L + 1):
            for k in range(s - 1, l):
                worst = max(best[s - 1, k], sums[l] - sums[k])
                if worst < best[s, l]:
                    best[s, l], cut[s, l] = worst, k
    sizes, l = [], L
    for s in range(stages, 0, -1):
        sizes.append(l - cut[s, l])
        l = cut[s, l]
    return sizes[::-1]


def _balance_equal(loads, stages):
    return [len(part) for part in np.array_split(np.zeros(len(loads)), stages)]


def _balance_fill(loads, stages):
    """Fill each stage until one more layer would bring it above the mean."""
    mean, sizes, start = np.sum(loads) / stages, [], 0
    for s in range(stages - 1):
        end, last = start + 1, len(loads) - (stages - 1 - s)
        while end < last and np.sum(loads[start : end + 1]) <= mean:
            end += 1
        sizes.append(end - start)
        start = end
    return [*sizes, len(loads) - start]


def _balance_empty(loads, stages):
    return [len(loads)] + [0] * (stages - 1)


def _cuts(loads, stages):
    for ends in combinations(range(1, len(loads)), stages - 1):
        edges = [0, *ends, len(loads)]
        sizes = [b - a for a, b in pairwise(edges)]
        yield sizes, [np.sum(loads[a:b]) for a, b in pairwise(edges)]


def _balance_even_ends(loads, stages):
    """Make the smallest stage as large as can be."""
    return max(_cuts(loads, stages), key=lambda c: min(c[1]))[0]


def _balance_sorted(loads, stages):
    """Deal the largest layers first, each to the stage that has least so far; layers do not stay neighbours."""
    totals, sizes = np.zeros(stages), [0] * stages
    for load in sorted(loads, reverse=True):
        s = int(np.argmin(totals))
        totals[s] += load
        sizes[s] += 1
    return sizes


def _balance_nearest(loads, stages):
    """Cut where the sum from the front is nearest to 1/p, 2/p, ... of all."""
    sums = np.cumsum(loads)
    ends = [int(np.argmin(abs(sums - sums[-1] * s / stages))) + 1 for s in range(1, stages)]
    return np.diff([0, *ends, len(loads)]).tolist()


def _check_balance(fn):
    gpt2 = np.array([1.0] * 12 + [5.4])
    cases = (
        (np.array([1.0, 1.0, 1.0, 3.0]), 2),
        (np.array([2.0, 2.0, 1.0, 3.0, 1.0]), 3),
        (np.array([2.0] * 7), 4),
        (np.array([3.0, 1.0, 3.0, 3.0, 2.0]), 3),
        (np.array([1.0, 4.0, 1.0, 1.0, 2.0]), 3),
        (gpt2, 4),
        (np.array([5.0, 1.0, 1.0]), 3),
        (np.array([4.0, 1.0, 2.0, 2.0, 3.0, 1.0, 6.0, 2.0]), 4),
        (np.array([2.0, 7.0]), 1),
    )
    for loads, stages in cases:
        sizes = [int(n) for n in fn(loads.copy(), stages)]
        given, want = dict(loads=loads, stages=stages), balance(loads, stages)
        case = dict(given=given, got=sizes, want=want)
        if len(sizes) != stages or sum(sizes) != len(loads):
            raise Miss(f"{stages} stages must hold all {len(loads)} layers between them.", **case)
        if min(sizes) < 1:
            raise Miss("a stage without layers would only pass messages on.", **case)
        ends = np.cumsum([0, *sizes])
        got, best = (
            max(np.sum(loads[a:b]) for a, b in pairwise(e)) for e in (ends, np.cumsum([0, *want]))
        )
        if got <= best * (1 + 1e-9):
            continue
        for mistake, message in (
            (_balance_equal, "equally many layers are not equal loads."),
            (_balance_fill, "filled up to the mean from the front, what is left over falls on the last stages."),
            (_balance_nearest, "a cut at the place nearest to its share of the sum is not always the best: try the neighbouring places, too."),
            (_balance_sorted, "a stage takes neighbouring layers: the largest cannot be dealt out first."),
            (_balance_even_ends, "that makes the least loaded stage as large as can be, and the most loaded one sets the pace."),
        ):  # fmt: skip
            if all(list(fn(ls.copy(), p)) == mistake(ls, p) for ls, p in cases[:5]):
                raise Miss(f"{message} Your slowest stage takes {got:g}, and {best:g} can be had.", **case)  # fmt: skip
        raise Miss(f"your slowest stage takes {got:g}, and {best:g} can be had.", **case)
    return "nine models, a GPT-2 with its large last layer among them"


EXERCISES = (
    Exercise(
        id="L05-a",
        title="Enough micro-batches",
        difficulty=1,
        minutes=8,
        stub=MICROS,
        reference=micros_for,
        wrong=(
            Wrong(_micros_of_ideal, "there is one bubble fraction", "by the working time"),
            Wrong(_micros_all_stages, "p stages take p turns to fill", "in p - 1 turns"),
            Wrong(_micros_busy, "busy and idle shares are the same question", "and is idle for the rest"),
            Wrong(_micros_no_chunks, "interleaving changes the memory only", "takes 1/v of the time"),
            Wrong(_micros_times_chunks, "more chunks want more micro-batches", "fewer micro-batches will do"),
            Wrong(_micros_none, "one stage needs nothing", "at least 1"),
            Wrong(_micros_rounded_down, "int() rounds to what is needed", "a little larger than was asked for"),
        ),
        hints=(
            "Solve (p - 1) / (v m + p - 1) <= share for m.",
            "m must be whole, and at least 1. Which way do you round?",
        ),
        check=_check_micros,
        uses=(
            "bigmodel_lab.dist.pipeline_schedule.bubble",
            "bigmodel_lab.plan.traffic.pipeline_bubble",
        ),
    ),
    Exercise(
        id="L05-b",
        title="One forward, one backward",
        difficulty=2,
        minutes=15,
        stub=ORDER,
        reference=one_f_one_b,
        wrong=(
            Wrong(_order_gpipe, "all forward, then all backward", "that is GPipe"),
            Wrong(_order_no_warm_up, "taking turns from the start", "must run ahead"),
            Wrong(_order_one_too_many, "one forward pass more ahead does no harm", "until the first gradient comes back"),
            Wrong(_order_no_cool_down, "the last forward pass ends the work", "backward passes remain"),
            Wrong(_order_beyond, "there are always more micro-batches than stages", "run out before the pipeline is full"),
            Wrong(_order_from_one, "the first micro-batch has number 1", "count from 0"),
            Wrong(_order_last_first, "backward passes come in reverse order, as layers do", "in another order than they come"),
        ),
        hints=(
            "The last stage can go backward at once: F0 B0 F1 B1 ... What must the stage before it do while it waits for B0?",
            "Stage s runs stages - 1 - s forward passes ahead (or all, if there are fewer); then a forward and a backward pass in turn.",
            "When the forward passes have run out, write down the backward passes that are left.",
        ),
        check=_check_order,
        uses=("bigmodel_lab.dist.pipeline_schedule.schedule",),
    ),
    Exercise(
        id="L05-c",
        title="Layers dealt to stages",
        difficulty=2,
        minutes=20,
        stub=BALANCE,
        reference=balance,
        wrong=(
            Wrong(_balance_equal, "equally many layers are equal loads", "equally many layers"),
            Wrong(_balance_fill, "filling up to the mean is best", "filled up to the mean"),
            Wrong(_balance_nearest, "cut at equal shares of the sum", "nearest to its share"),
            Wrong(_balance_empty, "a stage may be empty", "without layers"),
            Wrong(_balance_even_ends, "the least loaded stage matters", "the least loaded stage"),
            Wrong(_balance_sorted, "layers can be dealt out like cards", "neighbouring layers"),
        ),
        hints=(
            "If the first l layers are cut over s stages in the best way, and the last of these stages takes layers k to l - 1, how are the first k cut over s - 1?",
            "best[s][l] = min over k of max(best[s - 1][k], sum of loads[k:l]). Remember each k that won.",
            "Another way: for a limit on the load, filling greedily up to it needs the fewest stages. Which limits need to be tried?",
        ),
        check=_check_balance,
        uses=("bigmodel_lab.dist.sharded_gpt.cut_layers",),
    ),
)  # fmt: skip
