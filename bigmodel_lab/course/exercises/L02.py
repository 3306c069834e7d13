"""Exercises of lab L02, two ranks: bytes to the last one, the other ring, weights of a batch, who forgot, and buckets."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: bytes, to the last one --------------------------------------------------------------------------------------

BYTES = '''
def ring_bytes(n, ranks, rank, element_bytes):
    """Return the payload, in bytes, that `rank` sends in one ring
    all-reduce of n elements, as an int.

    n need not be a multiple of ranks: chunk c has n // ranks elements,
    and one more if c < n % ranks. The ring is the lab's: in the
    reduce-scatter a rank sends every chunk but its own, in the
    all-gather every chunk but that of the next rank.
    """
    ...
'''


def ring_bytes(n, ranks, rank, element_bytes):
    own, following = (n // ranks + (c < n % ranks) for c in (rank, (rank + 1) % ranks))
    return (2 * n - own - following) * element_bytes


def _bytes_one_round(n, ranks, rank, element_bytes):
    return (n - n // ranks - (rank < n % ranks)) * element_bytes


def _bytes_formula(n, ranks, rank, element_bytes):
    return 2 * (ranks - 1) / ranks * n * element_bytes


def _bytes_everyone(n, ranks, rank, element_bytes):
    return 2 * (ranks - 1) * n * element_bytes


def _bytes_cut(n, ranks, rank, element_bytes):
    return 2 * (ranks - 1) * (n // ranks) * element_bytes


def _bytes_two_own(n, ranks, rank, element_bytes):
    return 2 * (n - n // ranks - (rank < n % ranks)) * element_bytes


def _bytes_previous(n, ranks, rank, element_bytes):
    own, before = (n // ranks + (c < n % ranks) for c in (rank, (rank - 1) % ranks))
    return (2 * n - own - before) * element_bytes


def _bytes_up(n, ranks, rank, element_bytes):
    return 2 * (ranks - 1) * -(-n // ranks) * element_bytes


def _bytes_elements(n, ranks, rank, element_bytes):
    return ring_bytes(n, ranks, rank, 1)


def _check_bytes(fn):
    mistakes = (
        (_bytes_one_round, "that is one round of two: the sums must also get back to everyone."),
        (_bytes_everyone, "that is what all ranks send together."),
        (_bytes_formula, "right where ranks divides n, but a chunk has a whole number of elements."),
        (_bytes_cut, "n // ranks forgets the n % ranks elements that are left over."),
        (_bytes_up, "not every chunk has the element more: only the first n % ranks of them do."),
        (_bytes_two_own, "the two rounds do not leave out the same chunk."),
        (_bytes_previous, "in the all-gather a rank leaves out the next rank's chunk, not that of the one before."),
        (_bytes_elements, "those are elements: each has element_bytes bytes."),
    )  # fmt: skip
    sizes = ((8, 4), (6, 2), (10, 4), (7, 3), (3, 4), (0, 2), (101_770, 8), (5, 1))
    cases = [(n, ranks, rank, 4) for n, ranks in sizes for rank in range(ranks)]
    cases.append((10, 4, 1, 8))
    got = [fn(*case) for case in cases]
    for case, ours in zip(cases, got, strict=True):
        want = ring_bytes(*case)
        if ours == want:
            continue
        given = dict(zip(("n", "ranks", "rank", "element_bytes"), case, strict=True))
        for mistake, message in mistakes:
            if got == [mistake(*c) for c in cases]:
                raise Miss(message, given=given, got=ours, want=want)
        expect("the payload", ours, want, 0, given=given)
    return "every rank of eight rings, six of them uneven or empty"


# --- b: the ring the other way round --------------------------------------------------------------------------------

CHUNKS = '''
def chunks_to_pass(rank, step, ranks):
    """Return (out, into): the chunk that `rank` sends in a step of a
    reduce-scatter, and the one that it adds to.

    The ring runs the other way round: each rank sends to rank - 1 and
    receives from rank + 1 (modulo ranks). Steps are 0 .. ranks - 2;
    afterwards chunk c must be complete on rank c. All three arguments
    are integers.
    """
    ...
'''


def chunks_to_pass(rank, step, ranks):
    return (rank + step + 1) % ranks, (rank + step + 2) % ranks


def _chunks_same_direction(rank, step, ranks):
    return (rank - step - 1) % ranks, (rank - step - 2) % ranks


def _chunks_own_first(rank, step, ranks):
    return (rank + step) % ranks, (rank + step + 1) % ranks


def _chunks_swapped(rank, step, ranks):
    return (rank + step + 2) % ranks, (rank + step + 1) % ranks


def _chunks_no_modulo(rank, step, ranks):
    return rank + step + 1, rank + step + 2


def _check_chunks(fn):
    for ranks in (4, 3, 2, 5):
        moves = [[tuple(map(int, fn(r, s, ranks))) for r in range(ranks)] for s in range(ranks - 1)]
        _ring(moves, ranks)
    return "the ring played on 2, 3, 4 and 5 ranks"


def _ring(moves, ranks):
    """Play the moves[step][rank] = (out, into); parts[r][c] = whose parts are in chunk c of rank r."""
    parts = [[{r} for _ in range(ranks)] for r in range(ranks)]
    for step, row in enumerate(moves):
        for rank, (out, into) in enumerate(row):
            case = dict(given={"rank": rank, "step": step, "ranks": ranks}, got=(out, into))
            case["want"] = chunks_to_pass(rank, step, ranks)
            if not (0 <= out < ranks and 0 <= into < ranks):
                raise Miss(f"there are chunks 0 to {ranks - 1} only: count modulo ranks.", **case)
            sender = (rank + 1) % ranks
            if into != row[sender][0]:
                if (out, into) == _chunks_same_direction(rank, step, ranks):
                    raise Miss(
                        "that is the ring of the lab, which sends to rank + 1: here the chunks move the other way.",
                        **case,
                    )
                if (into, out) == chunks_to_pass(rank, step, ranks):
                    raise Miss(
                        "the two are swapped: first the chunk sent, then the chunk received.",
                        **case,
                    )
                raise Miss(
                    f"rank {sender} sends chunk {row[sender][0]} in that step and rank {rank} adds it to chunk {into}.",
                    **case,
                )
        before = [[set(p) for p in chunks] for chunks in parts]
        for rank, (_, into) in enumerate(row):
            parts[rank][into] |= before[(rank + 1) % ranks][into]
    for chunk in range(ranks):
        if len(parts[chunk][chunk]) < ranks:
            complete = [r for r in range(ranks) if len(parts[r][chunk]) == ranks]
            where = f"complete on rank {complete[0]}" if complete else "complete nowhere"
            raise Miss(
                f"on {ranks} ranks chunk {chunk} ends {where} and should end on rank {chunk}: which chunk must a rank "
                "send first if its own is to come home last?"
            )


# --- c: how much each micro-batch counts ----------------------------------------------------------------------------

SCALES = '''
def loss_scales(counts):
    """Return the factor for each micro-batch's loss, a float array (W, M).

    counts : int array (W, M), samples in micro-batch m of rank r; some
        may be 0

    Each loss is the mean over its own micro-batch. It is multiplied by
    its factor; gradients add up over the M micro-batches of a rank, and
    then an all-reduce *sums* them over the W ranks. The result must be
    the gradient of the mean over all samples of all ranks.
    """
    ...
'''


def loss_scales(counts):
    return counts / counts.sum()


def _scales_equal(counts):
    return np.full(counts.shape, 1 / counts.size)


def _scales_accumulation(counts):
    return np.full(counts.shape, 1 / counts.shape[1])


def _scales_per_rank(counts):
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _scales_ones(counts):
    return np.ones(counts.shape)


def _scales_samples(counts):
    return counts / counts.sum() * counts.size


def _scales_mean_of_ranks(counts):
    return _scales_per_rank(counts) / len(counts)


def _check_scales(fn):
    for counts in ([[3, 1], [2, 2]], [[4, 4], [4, 2], [4, 0]], [[2], [1]], [[3, 1]], [[5]]):
        counts = np.array(counts)
        W, M = counts.shape
        got, want = np.asarray(fn(counts.copy()), float), loss_scales(counts)
        case = dict(given={"counts": counts}, got=got, want=want)
        if got.shape == want.shape and not np.allclose(got, want, rtol=1e-12, atol=0):
            if np.array_equal(got, _scales_ones(counts)):
                raise Miss(f"with no factors the gradient is the sum of {W * M} means.", **case)
            if np.allclose(got, _scales_mean_of_ranks(counts)):
                raise Miss(
                    "that is the mean of the ranks' means: a sample on a rank with few would count more.",
                    **case,
                )
            if W > 1 and np.allclose(got.sum(axis=1), 1):
                if np.allclose(got, 1 / M):
                    raise Miss(
                        "1 / M averages over the micro-batches of one rank and forgets that the ranks are summed.",
                        **case,
                    )
                raise Miss(
                    "the factors of each rank add up to 1, so those of all ranks to W: divide by all samples.",
                    **case,
                )
            if np.allclose(got, _scales_equal(counts)):
                raise Miss(
                    "a micro-batch of one sample would count as much as one of three.", **case
                )
            if np.allclose(got, want * W * M):
                raise Miss(
                    f"right among themselves, {W * M} times too large: they must add up to 1.",
                    **case,
                )
        expect("loss_scales", got, want, 1e-12, given={"counts": counts})
    return "even, uneven and empty micro-batches on 1 to 3 ranks"


# --- d: find the rank that forgot -----------------------------------------------------------------------------------

FORGOT = '''
def who_forgot(prints):
    """Return (step, rank): the first step after which one rank's
    parameters differ, and the rank that caused it.

    prints : int array (S, W), a fingerprint of the parameters of each
        rank after each step; W is at least 3

    One rank took part in the all-reduce of that step and then went on
    with its own gradient. Equal fingerprints mean equal parameters;
    nothing else about the numbers means anything. Return (-1, -1) if the
    ranks never part.
    """
    ...
'''


def who_forgot(prints):
    for step, row in enumerate(prints):
        values, counts = np.unique(row, return_counts=True)
        if len(values) > 1:
            return step, int(np.argmax(row == values[np.argmin(counts)]))
    return -1, -1


def _forgot_rank_0(prints):
    for step, row in enumerate(prints):
        for rank, value in enumerate(row):
            if value != row[0]:
                return step, rank
    return -1, -1


def _forgot_last_step(prints):
    for step in reversed(range(len(prints))):
        values, counts = np.unique(prints[step], return_counts=True)
        if len(values) > 1:
            return step, int(np.argmax(prints[step] == values[np.argmin(counts)]))
    return -1, -1


def _forgot_largest(prints):
    for step, row in enumerate(prints):
        if len(set(row.tolist())) > 1:
            return step, int(np.argmax(row))
    return -1, -1


def _forgot_swapped(prints):
    return who_forgot(prints)[::-1]


def _forgot_always(prints):
    apart = [len(set(row.tolist())) > 1 for row in prints]
    step = apart.index(True) if any(apart) else 0
    values, counts = np.unique(prints[step], return_counts=True)
    return step, int(np.argmax(prints[step] == values[np.argmin(counts)]))


def _evidence(steps, ranks, guilty, at, g):
    """Fingerprints of a run in which rank `guilty` forgets at step `at`; nobody does if `at` is None."""
    prints = np.repeat(g.integers(10, 99, (steps, 1)), ranks, axis=1)
    if at is not None:
        prints[at:, guilty] = prints[at:, guilty] % 89 + 100 * (-1) ** np.arange(
            steps - at
        )  # above, below, above, ...
    return prints


def _check_forgot(fn):
    g = generator(0, "L02-d")
    cases = [
        (3, 3, 1, 1),
        (3, 3, 0, 0),
        (4, 3, 2, 0),
        (6, 4, 0, 2),
        (40, 8, 5, 17),
        (3, 3, 0, None),
    ]
    for steps, ranks, guilty, at in cases:
        prints = _evidence(steps, ranks, guilty, at, g)
        if steps == 4:
            prints[:, guilty] *= -1  # now the guilty one is the smallest in the first step
        want = (-1, -1) if at is None else (at, guilty)
        got = tuple(map(int, fn(prints.copy())))
        case = dict(given={"prints": prints} if prints.size <= 16 else None, got=got, want=want)
        if got == want:
            continue
        if at is None:
            raise Miss("these ranks never part.", **case)
        if got == (guilty, at):
            raise Miss("the two are swapped: first the step, then the rank.", **case)
        if got[0] > at:
            raise Miss("look for the first step: once apart, ranks stay apart.", **case)
        if got[0] == at and guilty == 0 and got[1] == 1:
            raise Miss("rank 0 is a suspect like the others: what do most ranks agree on?", **case)
        if got[0] == at and got[1] == int(np.argmax(prints[at])):
            raise Miss("a larger fingerprint means nothing, a lonely one does.", **case)
        raise Miss("that is not who parted first.", **case)
    return "five runs with a guilty rank, rank 0 among them, and one without"


# --- e: buckets -----------------------------------------------------------------------------------------------------

BUCKETS = '''
def buckets(sizes, most):
    """Return the buckets, a list of lists of indices into sizes.

    sizes : list of int, bytes of the parameters, in the order in which
        the forward pass uses them
    most : bytes that a bucket may hold at most; one larger parameter has
        a bucket to itself

    Backward reaches the last parameter first, and a bucket leaves when
    it is complete: the first bucket begins with the last index. A bucket
    is closed when the next parameter would make it too large; nothing is
    ever put into it again.
    """
    ...
'''


def buckets(sizes, most):
    found, held = [], most + 1  # as if a full bucket were open
    for i in reversed(range(len(sizes))):
        if held + sizes[i] > most:
            found.append([])
            held = 0
        found[-1].append(i)
        held += sizes[i]
    return found


def _buckets_forward(sizes, most):
    last = len(sizes) - 1
    return [[last - i for i in b] for b in buckets(sizes[::-1], most)]


def _buckets_overfull(sizes, most):
    found, held = [], most
    for i in reversed(range(len(sizes))):
        if held >= most:
            found.append([])
            held = 0
        found[-1].append(i)
        held += sizes[i]
    return found


def _buckets_empty(sizes, most):
    found, held = [[]], 0
    for i in reversed(range(len(sizes))):
        if held + sizes[i] > most:
            found.append([])
            held = 0
        found[-1].append(i)
        held += sizes[i]
    return found


def _buckets_first_fit(sizes, most):
    found, held = [], []
    for i in reversed(range(len(sizes))):
        fits = [k for k, h in enumerate(held) if h + sizes[i] <= most]
        if not fits:
            found.append([])
            held.append(0)
        k = fits[0] if fits else -1
        found[k].append(i)
        held[k] += sizes[i]
    return found


def _buckets_by_count(sizes, most):
    each = max(1, int(most // max(1, max(sizes, default=1))))
    order = list(reversed(range(len(sizes))))
    return [order[k : k + each] for k in range(0, len(order), each)]


def _buckets_inside(sizes, most):
    return [b[::-1] for b in buckets(sizes, most)]


def _buckets_not_full(sizes, most):
    return buckets(sizes, most - 1)


def _buckets_last_open(sizes, most):
    return buckets(sizes, most)[:-1]


def _buckets_of_sizes(sizes, most):
    return [[sizes[i] for i in b] for b in buckets(sizes, most)]


def _check_buckets(fn):
    mistakes = (
        (_buckets_not_full, "a bucket may hold exactly `most` bytes: only the next one is too many."),
        (_buckets_last_open, "the last bucket is missing: it leaves, too, though nothing comes after it."),
        (_buckets_of_sizes, "those are sizes: the indices are asked for."),
        (_buckets_forward, "these begin with the first parameter, whose gradient comes last: nothing could leave before the end."),
        (_buckets_overfull, "a bucket is closed after it has grown too large: look at the size before you put a parameter in."),
        (_buckets_empty, "there is an empty bucket: a parameter larger than the limit opens its own, and closes none before it."),
        (_buckets_first_fit, "a parameter went back into a bucket that was closed: it may have left already."),
        (_buckets_by_count, "every bucket has the same number of parameters: what counts is their bytes."),
        (_buckets_inside, "the right buckets, but inside each the indices rise: list them as backward reaches them."),
    )  # fmt: skip
    g = generator(0, "L02-e")
    cases = [([3, 1, 4, 1, 5], 5), ([1, 9, 2, 4, 4], 5), ([2, 2, 6], 5), ([], 5), ([7], 7)]
    cases += [(g.integers(1, 20, size=30).tolist(), 32)]
    for sizes, most in cases:
        given = dict(sizes=sizes, most=most)
        got, want = [[int(i) for i in b] for b in fn(list(sizes), most)], buckets(sizes, most)
        if got == want:
            continue
        for mistake, message in mistakes:
            if got == mistake(sizes, most):
                raise Miss(message, given=given, got=got, want=want)
        raise Miss("those are other buckets.", given=given, got=got, want=want)
    return "six lists of sizes, with large parameters, one, and none"


EXERCISES = (
    Exercise(
        id="L02-a",
        title="Bytes to the last one",
        difficulty=1,
        minutes=8,
        stub=BYTES,
        reference=ring_bytes,
        wrong=(
            Wrong(_bytes_one_round, "an all-reduce is a reduce-scatter", "one round of two"),
            Wrong(
                _bytes_formula, "2 (W - 1) / W n holds for every n", "right where ranks divides n"
            ),
            Wrong(
                _bytes_everyone,
                "the bytes of the ring are those of a rank",
                "all ranks send together",
            ),
            Wrong(_bytes_cut, "chunks have n // W elements", "forgets the"),
            Wrong(
                _bytes_two_own,
                "both rounds leave out a rank's own chunk",
                "do not leave out the same chunk",
            ),
        ),
        hints=(
            "Add up all chunks, twice: 2 n. Which two are not sent?",
            "The last rank's next rank is rank 0.",
        ),
        check=_check_bytes,
        uses=("bigmodel_lab.dist.wire.predicted_bytes",),
    ),
    Exercise(
        id="L02-b",
        title="The ring the other way round",
        difficulty=2,
        minutes=10,
        stub=CHUNKS,
        reference=chunks_to_pass,
        wrong=(
            Wrong(_chunks_same_direction, "the direction does not matter", "the ring of the lab"),
            Wrong(
                _chunks_own_first,
                "a rank starts with its own chunk",
                "if its own is to come home last",
            ),
            Wrong(_chunks_swapped, "what arrives is named first", "the two are swapped"),
            Wrong(_chunks_no_modulo, "the ring has no end", "count modulo ranks"),
        ),
        hints=(
            "Chunk c makes its last hop in step ranks - 2. From which rank does it leave then, if it is to end on c?",
            "So it leaves rank c + 1 last, rank c + 2 one step earlier: which rank does it leave in step 0?",
            "What you receive is what the rank on your right sends: replace rank by rank + 1 in your formula for out.",
        ),
        check=_check_chunks,
    ),
    Exercise(
        id="L02-c",
        title="How much a micro-batch counts",
        difficulty=2,
        minutes=10,
        stub=SCALES,
        reference=loss_scales,
        wrong=(
            Wrong(_scales_equal, "all micro-batches count the same", "as much as one of three"),
            Wrong(
                _scales_accumulation,
                "accumulation divides by M and that is all",
                "forgets that the ranks are summed",
            ),
            Wrong(
                _scales_per_rank,
                "each rank takes the mean over its own samples",
                "so those of all ranks to W",
            ),
            Wrong(
                _scales_mean_of_ranks,
                "ranks are averaged, so each counts 1 / W",
                "the mean of the ranks' means",
            ),
            Wrong(_scales_ones, "means add up to a mean", "with no factors"),
            Wrong(_scales_samples, "only the proportions matter", "right among themselves"),
        ),
        hints=(
            "Write the mean over all samples as one sum, and group its terms by micro-batch.",
            "What do all W * M factors add up to?",
        ),
        check=_check_scales,
        uses=("bigmodel_lab.dist.data_parallel.share",),
    ),
    Exercise(
        id="L02-d",
        title="Who forgot to average",
        difficulty=2,
        minutes=12,
        stub=FORGOT,
        reference=who_forgot,
        wrong=(
            Wrong(_forgot_rank_0, "rank 0 is right", "rank 0 is a suspect"),
            Wrong(_forgot_last_step, "the end of the run shows it best", "look for the first step"),
            Wrong(_forgot_largest, "the odd one is the largest", "a lonely one does"),
            Wrong(_forgot_swapped, "the order does not matter", "first the step"),
            Wrong(_forgot_always, "somebody is always guilty", "these ranks never part"),
        ),
        hints=(
            "Compare the ranks of one step with each other, not the steps of one rank.",
            "np.unique(row, return_counts=True) tells how many ranks agree on each value.",
        ),
        check=_check_forgot,
        uses=("bigmodel_lab.dist.data_parallel.fingerprint",),
    ),
    Exercise(
        id="L02-e",
        title="Buckets",
        difficulty=2,
        minutes=12,
        stub=BUCKETS,
        reference=buckets,
        wrong=(
            Wrong(_buckets_forward, "parameters come in the order of the model", "comes last"),
            Wrong(_buckets_overfull, "a limit is a target", "after it has grown too large"),
            Wrong(_buckets_empty, "one starts with an empty bucket", "an empty bucket"),
            Wrong(_buckets_first_fit, "fill every gap", "a bucket that was closed"),
            Wrong(_buckets_not_full, "full is too full", "exactly `most` bytes"),
            Wrong(_buckets_last_open, "a bucket leaves when the next opens", "the last bucket is"),
            Wrong(_buckets_of_sizes, "parameters are their sizes", "those are sizes"),
            Wrong(_buckets_by_count, "parameters are alike", "the same number of parameters"),
            Wrong(_buckets_inside, "inside a bucket the order is free", "inside each the indices"),
        ),
        hints=(
            "Walk through the indices from the last to the first, with one open bucket and the bytes that it holds.",
            "Open a new bucket when there is none, or when the open one is not empty and would exceed `most`.",
        ),
        check=_check_buckets,
        uses=("bigmodel_lab.dist.overlap.assign_buckets",),
    ),
)
