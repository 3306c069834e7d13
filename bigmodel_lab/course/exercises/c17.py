"""Exercises of chapter c17, distributed training: uneven shares, a broadcast's tree, bytes of a step, latency and bandwidth."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: shares of different sizes -----------------------------------------------------------------------------------

AVERAGE = '''
def gradient_of_batch(gradients, counts):
    """Return the gradient (P,) of the mean loss over all samples.

    gradients : float array (W, P), row r the gradient of the mean loss
        over the samples of rank r; zeros for a rank without samples
    counts : int array (W,), samples of each rank, not all 0
    """
    ...
'''


def gradient_of_batch(gradients, counts):
    return counts @ gradients / counts.sum()


def _batch_plain(gradients, counts):
    return gradients.mean(axis=0)


def _batch_busy(gradients, counts):
    return gradients[counts > 0].mean(axis=0)


def _batch_sum(gradients, counts):
    return counts @ gradients


def _batch_mean(gradients, counts):
    return (counts[:, None] * gradients).mean(axis=0)


def _batch_largest(gradients, counts):
    return counts @ gradients / counts.max() / len(counts)


def _check_average(fn):
    mistakes = (
        (_batch_plain, "that is the mean over ranks: a sample on a small share then counts more than one on a large share."),
        (_batch_busy, "that is the mean over the ranks that have samples: weigh each by how many it has."),
        (_batch_sum, "that is the sum over samples: divide by how many there are in all."),
        (_batch_mean, "weighted by samples, but divided by the number of ranks: divide by the number of samples."),
        (_batch_largest, "the weights must add up to 1: counts / counts.sum()."),
    )  # fmt: skip
    g = generator(0, "c17-a")
    for counts in ((5, 3, 0), (3, 1), (31, 31, 30, 30)):
        counts, gradients = np.array(counts), g.normal(size=(len(counts), 3))
        got = np.asarray(fn(gradients.copy(), counts.copy()), dtype=float)
        want = gradient_of_batch(gradients, counts)
        for mistake, message in mistakes:
            off = mistake(gradients, counts)
            if got.shape == off.shape and np.allclose(got, off, rtol=1e-9, atol=0):
                if not np.allclose(off, want, rtol=1e-9):
                    raise Miss(message, given={"counts": counts})
        expect("the gradient", got, want, 1e-12, given={"counts": counts})
    return "uneven shares, an idle rank, and 122 samples on four ranks"


# --- b: who tells whom ----------------------------------------------------------------------------------------------

TREE = '''
def neighbours(rank, root, ranks):
    """Return (source, targets): from whom a rank receives in a
    broadcast along a binomial tree, and to whom it sends, in order.

    source : int, or None for the root
    targets : list of int, one a round, first round first

    Call place = (rank - root) % ranks. In round k = 0, 1, ... the 2**k
    places 0 .. 2**k - 1 hold the data, and place p sends it to place
    p + 2**k, if there is one.
    """
    ...
'''


def neighbours(rank, root, ranks):
    place, have, source, targets = (rank - root) % ranks, 1, None, []
    while have < ranks:
        if place < have and place + have < ranks:
            targets.append((place + have + root) % ranks)
        elif have <= place < 2 * have:
            source = (place - have + root) % ranks
        have *= 2
    return source, targets


def _tree_places(rank, root, ranks):
    source, targets = neighbours((rank - root) % ranks, 0, ranks)
    return source, targets


def _tree_root_0(rank, root, ranks):
    return neighbours(rank, 0, ranks)


def _tree_reversed(rank, root, ranks):
    source, targets = neighbours(rank, root, ranks)
    return source, targets[::-1]


def _tree_flat(rank, root, ranks):
    if rank == root:
        return None, [(root + i) % ranks for i in range(1, ranks)]
    return root, []


def _tree_chain(rank, root, ranks):
    place = (rank - root) % ranks
    return (rank - 1) % ranks if place else None, [(rank + 1) % ranks] * (place < ranks - 1)


def _tree_wraps(rank, root, ranks):
    place, have, targets = (rank - root) % ranks, 1, []
    while have < ranks:
        if place < have:
            targets.append((place + have + root) % ranks)
        have *= 2
    return neighbours(rank, root, ranks)[0], targets


def _tree_halving(rank, root, ranks):
    place = (rank - root) % ranks
    hop = place & -place if place else 1 << (ranks - 1).bit_length()  # the lowest bit that is set
    source, targets = (place - hop + root) % ranks if place else None, []
    while hop := hop // 2:
        if place + hop < ranks:
            targets.append((place + hop + root) % ranks)
    return source, targets


def _tree_at_once(rank, root, ranks):
    place, have, targets = (rank - root) % ranks, 1, []
    while place + have < ranks:
        targets.append((place + have + root) % ranks)
        have *= 2
    return neighbours(rank, root, ranks)[0], targets


def _tree_own_source(rank, root, ranks):
    source, targets = neighbours(rank, root, ranks)
    return root if source is None else source, targets


def _check_tree(fn):
    mistakes = (
        (_tree_own_source, "the root receives from nobody: its source is None."),
        (_tree_halving, "that is the other binomial tree, which begins with the farthest places: here round k reaches 2**k places on."),
        (_tree_at_once, "a place below 2**k has the data in round k: one above it must not send yet."),
        (_tree_flat, "there the root sends to everybody, one after the other: W - 1 rounds instead of log2 W."),
        (_tree_chain, "there each rank passes the data on to the next, one after the other: W - 1 rounds instead of log2 W."),
        (_tree_root_0, "the tree must begin at root, not at rank 0."),
        (_tree_places, "these are places, counted from the root: turn them back into ranks, (place + root) % ranks."),
        (_tree_reversed, "the right ranks in the wrong order: the first round sends to the nearest place, the last to the farthest."),
        (_tree_wraps, "a place beyond the last one does not exist: it must not wrap round to a rank that has the data."),
    )  # fmt: skip
    for ranks, root in ((4, 0), (8, 3), (5, 2), (1, 0), (6, 5)):
        for rank in range(ranks):
            given = dict(rank=rank, root=root, ranks=ranks)
            source, targets = fn(rank, root, ranks)
            got, want = (source, [int(t) for t in targets]), neighbours(rank, root, ranks)
            if got == want:
                continue
            for mistake, message in mistakes:
                if all(
                    _same(fn, mistake, r, root, ranks) for r in range(ranks)
                ):  # the whole tree looks like that
                    raise Miss(message, given=given, got=got, want=want)
            raise Miss("that rank sends or receives otherwise.", given=given, got=got, want=want)
    return "trees of 1 to 8 ranks, from any root"


def _same(fn, mistake, rank, root, ranks):
    source, targets = fn(rank, root, ranks)
    return (source, list(targets)) == mistake(rank, root, ranks)


# --- c: what a step sends -------------------------------------------------------------------------------------------

VOLUME = '''
def sent_bytes(parameters, zero, replicas, itemsize, micro_batches):
    """Return the bytes that each replica sends in one optimiser step,
    a float, with the ring's collectives.

    zero = 0 : one all-reduce of the gradients
    zero = 3 : for each micro-batch the weights are gathered twice
        (forward, backward) and the gradients reduce-scattered once
    itemsize : bytes of a weight and of a gradient
    """
    ...
'''


def sent_bytes(parameters, zero, replicas, itemsize, micro_batches):
    once = (replicas - 1) / replicas * parameters * itemsize  # a gather, or a reduce-scatter
    return once * (2 if zero == 0 else 3 * micro_batches)


def _volume_whole(parameters, zero, replicas, itemsize, micro_batches):
    return parameters * itemsize * (2 if zero == 0 else 3 * micro_batches)


def _volume_one(parameters, zero, replicas, itemsize, micro_batches):
    return sent_bytes(parameters, zero, replicas, itemsize, micro_batches) / (2 - (zero == 3))


def _volume_once(parameters, zero, replicas, itemsize, micro_batches):
    return sent_bytes(parameters, zero, replicas, itemsize, 1)


def _volume_every(parameters, zero, replicas, itemsize, micro_batches):
    times = 1 if zero == 3 else micro_batches
    return times * sent_bytes(parameters, zero, replicas, itemsize, micro_batches)


def _volume_gathers_once(parameters, zero, replicas, itemsize, micro_batches):
    return sent_bytes(parameters, zero, replicas, itemsize, micro_batches) * (
        1 if zero == 0 else 2 / 3
    )


def _volume_all(parameters, zero, replicas, itemsize, micro_batches):
    return replicas * sent_bytes(parameters, zero, replicas, itemsize, micro_batches)


def _volume_reduces(parameters, zero, replicas, itemsize, micro_batches):
    return sent_bytes(parameters, zero, replicas, itemsize, micro_batches) * (4 / 3 if zero else 1)


def _volume_scatters_once(parameters, zero, replicas, itemsize, micro_batches):
    once = sent_bytes(parameters, 0, replicas, itemsize, 1) / 2
    return once * (2 * micro_batches + 1 if zero else 2)


def _check_volume(fn):
    mistakes = (
        (_volume_reduces, "stage 3 needs no all-reduce: each rank keeps the sum of its own shard only, a reduce-scatter."),
        (_volume_scatters_once, "a rank has no room for whole gradients at stage 3: it scatters them after each micro-batch."),
        (_volume_whole, "a rank never sends the chunk that it keeps: (W - 1) / W of the tensor, for each gather or scatter."),
        (_volume_one, "an all-reduce is a reduce-scatter and an all-gather: two times (W - 1) / W."),
        (_volume_once, "stage 3 throws the gathered weights away again: with accumulation it pays for every micro-batch."),
        (_volume_every, "without ZeRO gradients add up where they are: one all-reduce a step, however many micro-batches."),
        (_volume_gathers_once, "stage 3 gathers the weights before the forward pass and again before the backward pass."),
        (_volume_all, "that is what all replicas send together: the question is what each of them sends."),
    )  # fmt: skip
    for sizes in ((1000, 0, 8, 4, 1), (1000, 0, 2, 4, 3), (1000, 3, 8, 2, 1), (7e9, 3, 64, 2, 8)):
        names = ("parameters", "zero", "replicas", "itemsize", "micro_batches")
        given = dict(zip(names, sizes, strict=True))
        got, want = fn(*sizes), sent_bytes(*sizes)
        for mistake, message in mistakes:
            off = mistake(*sizes)
            if np.isclose(got, off, rtol=1e-9) and not np.isclose(off, want, rtol=1e-9):
                raise Miss(message, given=given, got=got, want=want)
        expect("the bytes", got, want, 1e-12, given=given)
    return "stages 0 and 3, with and without accumulation"


# --- d: a latency and a bandwidth -----------------------------------------------------------------------------------

LINK = '''
def fit_link(steps, n_bytes, seconds):
    """Return (latency_s, bytes_per_s), the alpha and 1 / beta that make
        predicted = steps * alpha + n_bytes * beta
    with the least sum of squared relative errors,
        ((predicted - seconds) / seconds) ** 2

    steps, n_bytes, seconds : float arrays (M,), of M measured
        collectives, all above 0
    """
    ...
'''


def fit_link(steps, n_bytes, seconds):
    A = np.stack([steps, n_bytes], axis=1) / seconds[:, None]
    alpha, beta = np.linalg.lstsq(A, np.ones(len(A)), rcond=None)[0]
    return alpha, 1 / beta


def _link_absolute(steps, n_bytes, seconds):
    alpha, beta = np.linalg.lstsq(np.stack([steps, n_bytes], axis=1), seconds, rcond=None)[0]
    return alpha, 1 / beta


def _link_beta(steps, n_bytes, seconds):
    alpha, bandwidth = fit_link(steps, n_bytes, seconds)
    return alpha, 1 / bandwidth


def _link_no_steps(steps, n_bytes, seconds):
    return fit_link(np.ones_like(steps), n_bytes, seconds)


def _link_root(steps, n_bytes, seconds):
    root = np.sqrt(seconds)
    A = np.stack([steps, n_bytes], axis=1) / root[:, None]
    alpha, beta = np.linalg.lstsq(A, root, rcond=None)[0]
    return alpha, 1 / beta


def _link_ends(steps, n_bytes, seconds):
    small, large = n_bytes.argmin(), n_bytes.argmax()
    return seconds[small] / steps[small], n_bytes[large] / seconds[large]


def _link_swapped(steps, n_bytes, seconds):
    return fit_link(steps, n_bytes, seconds)[::-1]


def _link_no_latency(steps, n_bytes, seconds):
    return 0.0, fit_link(steps, n_bytes, seconds)[1]


def _check_link(fn):
    mistakes = (
        (_link_absolute, "that is the least sum of squared errors in seconds: divide each equation by its seconds first."),
        (_link_beta, "the second number is beta, in seconds a byte: the bandwidth is 1 / beta."),
        (_link_no_steps, "one latency for each collective: a collective of many steps pays for each of them."),
        (_link_root, "each equation is divided by the root of its seconds: divide by the seconds themselves."),
        (_link_swapped, "the two are swapped: first the latency, then the bandwidth."),
        (_link_no_latency, "without a latency small messages would take no time: fit both numbers."),
        (_link_ends, "that reads alpha off the smallest and beta off the largest: use all of the measurements."),
    )  # fmt: skip
    g = generator(0, "c17-d")
    n = np.array([400.0, 4000, 40_000, 400_000, 4_000_000])
    for steps, noise in ((6, 0.0), (2, 0.1), (14, 0.1)):
        steps = np.array([steps, 2 * steps, steps, 3 * steps, steps], dtype=float)
        seconds = (steps * 2e-4 + n / 1e8) * g.uniform(1 - noise, 1 + noise, size=len(n))
        got = np.asarray(fn(steps.copy(), n.copy(), seconds.copy()), dtype=float)
        want = np.array(fit_link(steps, n, seconds))
        for mistake, message in mistakes:
            off = np.array(mistake(steps, n, seconds))
            if got.shape == off.shape and np.allclose(got, off, rtol=1e-7, atol=0):
                if not np.allclose(off, want, rtol=1e-7):
                    raise Miss(message, got=got, want=want)
        expect("(latency_s, bytes_per_s)", got.shape, want.shape, 0)
        expect("the latency", got[0], want[0], 1e-6)  # apart: beside 1e8 B/s any latency is small
        expect("the bandwidth", got[1], want[1], 1e-6)
    return "five sizes over four decades, without and with noise"


EXERCISES = (
    Exercise(
        id="c17-a",
        title="Shares of different sizes",
        difficulty=1,
        minutes=5,
        stub=AVERAGE,
        reference=gradient_of_batch,
        wrong=(
            Wrong(_batch_plain, "the mean of means is the mean", "mean over ranks:"),
            Wrong(_batch_busy, "idle ranks are the only problem", "ranks that have samples"),
            Wrong(_batch_sum, "weights need no norm", "the sum over samples"),
            Wrong(_batch_mean, "an average divides by the ranks", "divided by the number of ranks"),
            Wrong(_batch_largest, "the largest share counts 1", "must add up to 1"),
        ),
        hints=(
            "Undo each rank's mean: multiply its row by its samples, and you have a sum over samples.",
            "Add those sums up and divide once, by counts.sum().",
        ),
        check=_check_average,
    ),
    Exercise(
        id="c17-b",
        title="Who tells whom",
        difficulty=2,
        minutes=12,
        stub=TREE,
        reference=neighbours,
        wrong=(
            Wrong(_tree_flat, "a broadcast is a loop at the root", "the root sends to everybody"),
            Wrong(_tree_chain, "a broadcast is a chain", "on to the next"),
            Wrong(_tree_root_0, "the root is rank 0", "must begin at root"),
            Wrong(_tree_places, "places are ranks", "counted from the root"),
            Wrong(_tree_reversed, "the order does not matter", "in the wrong order"),
            Wrong(_tree_halving, "there is one binomial tree", "the other binomial tree"),
            Wrong(_tree_at_once, "who will have it may send it", "must not send yet"),
            Wrong(_tree_own_source, "the root has it from itself", "receives from nobody"),
            Wrong(_tree_wraps, "the number of ranks is a power of two", "must not wrap round"),
        ),
        hints=(
            "Write the tree of 8 ranks with root 0 on paper: three rounds, 1, 2 and 4 messages.",
            "Loop over have = 1, 2, 4, ...: places below have send; places from have to 2 have - 1 receive.",
            "Work with places all the way, and turn them into ranks at the end: (place + root) % ranks.",
        ),
        check=_check_tree,
    ),
    Exercise(
        id="c17-c",
        title="Data parallel against ZeRO-3",
        difficulty=2,
        minutes=8,
        stub=VOLUME,
        reference=sent_bytes,
        wrong=(
            Wrong(_volume_whole, "a collective sends the tensor", "the chunk that it keeps"),
            Wrong(_volume_one, "an all-reduce sends it once", "a reduce-scatter and an all-gather"),
            Wrong(_volume_once, "accumulation is free", "for every micro-batch"),
            Wrong(_volume_every, "each micro-batch is averaged", "one all-reduce a step"),
            Wrong(_volume_gathers_once, "weights are kept for backward", "again before the backward"),
            Wrong(_volume_reduces, "gradients are all-reduced", "needs no all-reduce"),
            Wrong(_volume_scatters_once, "gradients add up first", "after each micro-batch"),
            Wrong(_volume_all, "bytes are counted for the fleet", "all replicas send together"),
        ),
        hints=(
            "One all-gather or reduce-scatter of P weights: each rank sends (W - 1) / W of their bytes.",
            "Count them: two without ZeRO; three for each micro-batch at stage 3.",
        ),
        check=_check_volume,
        uses=("bigmodel_lab.plan.traffic.data_parallel_bytes", "bigmodel_lab.plan.traffic.collective_bytes"),
    ),
    Exercise(
        id="c17-d",
        title="A latency and a bandwidth",
        difficulty=3,
        minutes=15,
        stub=LINK,
        reference=fit_link,
        wrong=(
            Wrong(_link_absolute, "least squares is least squares", "squared errors in seconds"),
            Wrong(_link_beta, "beta is the bandwidth", "in seconds a byte"),
            Wrong(_link_no_steps, "a collective has one latency", "pays for each of them"),
            Wrong(_link_root, "relative means weights of 1 / seconds", "by the root of its seconds"),
            Wrong(_link_swapped, "the order does not matter", "first the latency"),
            Wrong(_link_no_latency, "a latency is too small to matter", "without a latency"),
            Wrong(_link_ends, "two points make a line", "use all of the measurements"),
        ),
        hints=(
            "With x = (alpha, beta) the errors are linear in x: A x - 1, with a row of A for each measurement.",
            "A row is (steps, n_bytes) divided by its seconds; the right side is 1 everywhere.",
            "np.linalg.lstsq(A, np.ones(M), rcond=None)[0] is (alpha, beta).",
        ),
        check=_check_link,
        uses=("bigmodel_lab.dist.cost.fit",),
    ),
)  # fmt: skip
