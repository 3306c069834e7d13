"""Exercises of lab L03, ZeRO: bytes a parameter, the bill of an optimiser step, which part of which parameter is whose."""

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect

# --- a: bytes a parameter -------------------------------------------------------------------------------------------

STATE = '''
def state_bytes(stage, ranks):
    """Return the bytes that one rank keeps for each parameter of the model, a float.

    stage : 0 to 3; 1 shares out the optimiser's state, 2 the gradients too,
        3 the parameters too; 0 shares out nothing
    ranks : how many there are (W)

    Mixed precision with AdamW: parameters and gradients in bfloat16; a copy of the
    parameters and two means in float32, which only the optimiser touches.
    """
    ...
'''


def state_bytes(stage, ranks):
    parameters, gradients, optimiser = 2, 2, 4 + 4 + 4
    if stage >= 1:
        optimiser /= ranks
    if stage >= 2:
        gradients /= ranks
    if stage >= 3:
        parameters /= ranks
    return parameters + gradients + optimiser


def _state_everything(stage, ranks):
    return 16 / ranks if stage else 16


def _state_no_master(stage, ranks):
    return state_bytes(stage, ranks) - 4 / (ranks if stage else 1)


def _state_one_early(stage, ranks):
    return state_bytes(stage + 1, ranks) if stage else 16


def _state_one_late(stage, ranks):
    return state_bytes(max(stage - 1, 0), ranks)


def _state_float32(stage, ranks):
    return (
        4 / (ranks if stage >= 3 else 1)
        + 4 / (ranks if stage >= 2 else 1)
        + 8 / (ranks if stage else 1)
    )


def _state_total(stage, ranks):
    return state_bytes(stage, ranks) * ranks


def _state_parameters_first(stage, ranks):
    return 2 / (ranks if stage else 1) + 2 / (ranks if stage >= 2 else 1) + 12 / (ranks if stage >= 3 else 1)  # fmt: skip


_STATE_MISSES = {
    _state_everything: "not every stage cuts all 16 bytes: what does stage 1 leave whole on each rank?",
    _state_no_master: "the float32 copy of the parameters is missing: 4 bytes, and the optimiser's.",
    _state_one_early: "that is the next stage: 1 cuts the optimiser's state and nothing else.",
    _state_one_late: "that is the stage before: 0 cuts nothing, 1 the optimiser's state.",
    _state_float32: "that is float32 throughout: in mixed precision 12 of the 16 bytes are the optimiser's.",
    _state_parameters_first: "the other way round: stage 1 shares out the optimiser's state, stage 3 the parameters.",
    _state_total: "that is what all ranks keep together: one of them is asked for.",
}


def _check_state(fn):
    for ranks in (4, 1, 2, 8, 64):
        for stage in (1, 0, 2, 3):
            got, want = float(fn(stage, ranks)), state_bytes(stage, ranks)
            given = {"stage": stage, "ranks": ranks}
            if abs(got - want) < 1e-9:
                continue
            for mistake, message in _STATE_MISSES.items():
                if abs(got - mistake(stage, ranks)) < 1e-9:
                    raise Miss(message, given=given, got=got, want=float(want))
            expect("the bytes a parameter", got, float(want), 1e-12, given=given)
    return "four stages on 1 to 64 ranks"


# --- b: the bill of an optimiser step -------------------------------------------------------------------------------

BILL = '''
def step_bytes(n_bytes, stage, ranks, micro_batches):
    """Return the bytes that one rank sends for one optimiser step, a float.

    n_bytes : bytes of all parameters, and of all gradients; ranks divides it
    stage : 0 is data parallelism with one all-reduce after the last micro-batch;
        1, 2 and 3 as in the lab
    ranks : how many there are (W)
    micro_batches : forward and backward passes before the optimiser's step

    Stage 1 keeps whole gradients and reduce-scatters them once, after the last
    micro-batch. Stages 2 and 3 keep a piece of them only. Stage 3 gathers every
    parameter twice for each micro-batch, for its forward and its backward pass, and
    not after the step. A reduce-scatter or an all-gather of S bytes sends
    (W - 1) / W * S from each rank; an all-reduce is one of each.
    """
    ...
'''


def step_bytes(n_bytes, stage, ranks, micro_batches):
    one = (ranks - 1) / ranks * n_bytes
    if stage <= 1:
        return 2 * one  # reduce-scatter (or its half of an all-reduce) and all-gather
    if stage == 2:
        return (micro_batches + 1) * one  # reduce each micro-batch's gradients, gather once
    return 3 * micro_batches * one


def _bill_same(n_bytes, stage, ranks, micro_batches):
    return 2 * (ranks - 1) / ranks * n_bytes


def _bill_all_reduce(n_bytes, stage, ranks, micro_batches):
    if stage < 3:
        return step_bytes(n_bytes, stage, ranks, micro_batches)
    return 4 * micro_batches * (ranks - 1) / ranks * n_bytes


def _bill_once(n_bytes, stage, ranks, micro_batches):
    return (3 if stage == 3 else 2) * (ranks - 1) / ranks * n_bytes


def _bill_every(n_bytes, stage, ranks, micro_batches):
    one = (ranks - 1) / ranks * n_bytes
    return 2 * one if stage <= 1 else (2 if stage == 2 else 3) * micro_batches * one


def _bill_stage_1_each(n_bytes, stage, ranks, micro_batches):
    if stage >= 2:
        return step_bytes(n_bytes, stage, ranks, micro_batches)
    return (micro_batches + 1) * (ranks - 1) / ranks * n_bytes


def _bill_from_everyone(n_bytes, stage, ranks, micro_batches):
    return step_bytes(n_bytes, stage, ranks, micro_batches) * ranks


def _bill_no_share(n_bytes, stage, ranks, micro_batches):
    return step_bytes(n_bytes, stage, ranks, micro_batches) * ranks / max(ranks - 1, 1)


def _bill_gather_kept(n_bytes, stage, ranks, micro_batches):
    one = (ranks - 1) / ranks * n_bytes
    return (
        (2 + micro_batches) * one
        if stage == 3
        else step_bytes(n_bytes, stage, ranks, micro_batches)
    )


_BILL_MISSES = {
    _bill_same: "so stage 3 would be free: count its gathers, forward and backward.",
    _bill_all_reduce: "stage 3 reduce-scatters its gradients and needs no all-reduce, for nobody wants them whole; after the step it gathers nothing.",
    _bill_once: "the micro-batches are missing: who keeps no whole gradients must send them after each.",
    _bill_every: "stage 2 gathers parameters after the optimiser's step, once, and not after each micro-batch.",
    _bill_stage_1_each: "stages 0 and 1 keep whole gradients: they add up those of all micro-batches and send them once.",
    _bill_from_everyone: "that is what all ranks send together: each of them sends a W-th of it.",
    _bill_no_share: "a rank's own piece stays at home: (W - 1) / W of the payload leaves.",
    _bill_gather_kept: "in stage 3 nothing stays gathered: the next micro-batch gathers again.",
}


def _check_bill(fn):
    for micro_batches in (1, 4):
        for stage in (0, 1, 3, 2):
            for ranks in (4, 1, 2, 64):
                args = 6400, stage, ranks, micro_batches
                got, want = float(fn(*args)), float(step_bytes(*args))
                given = dict(zip(("n_bytes", "stage", "ranks", "micro_batches"), args, strict=True))
                if abs(got - want) < 1e-6:
                    continue
                for mistake, message in _BILL_MISSES.items():
                    if abs(got - mistake(*args)) < 1e-6:
                        raise Miss(message, given=given, got=got, want=want)
                expect("the bytes of a step", got, want, 1e-12, given=given)
    return "four stages, with and without accumulation, on 1 to 64 ranks"


# --- c: whose part of which parameter -------------------------------------------------------------------------------

PIECES = '''
def my_pieces(sizes, ranks, rank):
    """Return what `rank` owns: a list of tuples (i, start, stop), in the order of i.

    sizes : list of int, how many numbers each parameter has; they lie one behind the
        other in the flat tensor, which has n = sum(sizes) numbers
    ranks : into how many chunks the flat tensor is cut; chunk r is rank r's

    Each chunk has n // ranks numbers, and each of the first n % ranks chunks one more.
    (i, start, stop) says that the rank owns the numbers start to stop - 1 of parameter
    i, counted from that parameter's own first. Parameters of which it owns nothing are
    left out.
    """
    ...
'''


def my_pieces(sizes, ranks, rank):
    n = sum(sizes)
    low = rank * (n // ranks) + min(rank, n % ranks)
    high = low + n // ranks + (rank < n % ranks)
    pieces, at = [], 0  # at: where the parameter begins in the flat tensor
    for i, size in enumerate(sizes):
        start, stop = max(low - at, 0), min(high - at, size)
        if start < stop:
            pieces.append((i, start, stop))
        at += size
    return pieces


def _pieces_whole(sizes, ranks, rank):
    return [(i, 0, size) for i, size in enumerate(sizes) if i % ranks == rank]


def _pieces_flat(sizes, ranks, rank):
    at = [sum(sizes[:i]) for i in range(len(sizes))]
    return [(i, at[i] + a, at[i] + b) for i, a, b in my_pieces(sizes, ranks, rank)]


def _pieces_empty(sizes, ranks, rank):
    kept = {i: (a, b) for i, a, b in my_pieces(sizes, ranks, rank)}
    return [(i, *kept.get(i, (0, 0))) for i in range(len(sizes))]


def _pieces_floor(sizes, ranks, rank):
    part = sum(sizes) // ranks
    low, pieces, at = rank * part, [], 0
    for i, size in enumerate(sizes):
        start, stop = max(low - at, 0), min(low + part - at, size)
        if start < stop:
            pieces.append((i, start, stop))
        at += size
    return pieces


def _pieces_rows(sizes, ranks, rank):
    return [
        (i, rank * (s // ranks), (rank + 1) * (s // ranks))
        for i, s in enumerate(sizes)
        if s >= ranks
    ]


def _pieces_inclusive(sizes, ranks, rank):
    return [(i, start, stop - 1) for i, start, stop in my_pieces(sizes, ranks, rank)]


def _pieces_lengths(sizes, ranks, rank):
    return [(i, start, stop - start) for i, start, stop in my_pieces(sizes, ranks, rank)]


def _pieces_padded(sizes, ranks, rank):
    part = -(-sum(sizes) // ranks)
    pieces, at = [], 0
    for i, size in enumerate(sizes):
        start, stop = max(rank * part - at, 0), min((rank + 1) * part - at, size)
        if start < stop:
            pieces.append((i, start, stop))
        at += size
    return pieces


_PIECES_MISSES = {
    _pieces_whole: "whole parameters, dealt out, are not equal shares: the chunks cut through parameters.",
    _pieces_flat: "these are places in the flat tensor: count from each parameter's own first number.",
    _pieces_empty: "leave out the parameters of which nothing is owned.",
    _pieces_floor: "those are n // ranks numbers for everybody: the numbers that are left over go to the first chunks, one each.",
    _pieces_padded: "those are n / ranks rounded up, so that the last chunk is short: here chunks differ by one number at most.",
    _pieces_inclusive: "stop is the number behind the last one, as in range(start, stop).",
    _pieces_lengths: "the third is where the piece stops, and not how long it is.",
    _pieces_rows: "that cuts every parameter in pieces, as FSDP2 does: here the flat tensor is cut.",
}


def _check_pieces(fn):
    cases = [([4, 2], 2), ([3, 5, 4], 3), ([2, 5], 4), ([1, 1], 3), ([7], 1), ([40, 8, 100, 1], 8)]
    for sizes, ranks in cases:
        for rank in range(ranks):
            want = my_pieces(sizes, ranks, rank)
            got = [tuple(int(v) for v in piece) for piece in fn(list(sizes), ranks, rank)]
            if got == want:
                continue
            given = {"sizes": sizes, "ranks": ranks, "rank": rank}
            for mistake, message in _PIECES_MISSES.items():
                off = mistake(sizes, ranks, rank)
                if got == off and off != want:
                    raise Miss(message, given=given, got=got, want=want)
            if sorted(got) == want:
                raise Miss(
                    "in the order of the parameters, please.", given=given, got=got, want=want
                )
            raise Miss("that is not this rank's chunk.", given=given, got=got, want=want)
    return "every rank of six cuts, four of them uneven"


EXERCISES = (
    Exercise(
        id="L03-a",
        title="Bytes a parameter",
        difficulty=1,
        minutes=6,
        stub=STATE,
        reference=state_bytes,
        wrong=(
            Wrong(_state_everything, "ZeRO divides everything by W", "cuts all 16 bytes"),
            Wrong(_state_no_master, "AdamW keeps two means", "float32 copy"),
            Wrong(_state_one_early, "stage 1 cuts gradients too", "that is the next stage"),
            Wrong(_state_one_late, "stages count from 1", "that is the stage before"),
            Wrong(_state_float32, "16 is always 4 + 4 + 8", "float32 throughout"),
            Wrong(_state_parameters_first, "stage 1 shares out parameters", "the other way round"),
            Wrong(_state_total, "a cluster keeps the state", "all ranks keep together"),
        ),
        hints=(
            "16 = 2 + 2 + 12. Which stage divides which of the three by W?",
            "At stage 1 the first 4 bytes stay: 4 + 12 / W.",
        ),
        check=_check_state,
        uses=("bigmodel_lab.plan.memory.model_state",),
    ),
    Exercise(
        id="L03-b",
        title="The bill of an optimiser step",
        difficulty=2,
        minutes=10,
        stub=BILL,
        reference=step_bytes,
        wrong=(
            Wrong(_bill_same, "ZeRO sends what data parallelism sends", "would be free"),
            Wrong(_bill_all_reduce, "gradients need an all-reduce", "needs no all-reduce"),
            Wrong(_bill_once, "accumulation is free", "the micro-batches are missing"),
            Wrong(_bill_every, "all is done for each micro-batch", "after the optimiser's step"),
            Wrong(
                _bill_stage_1_each,
                "every stage reduces after each backward pass",
                "and send them once",
            ),
            Wrong(_bill_from_everyone, "the bytes of a collective", "all ranks send together"),
            Wrong(_bill_no_share, "a gather sends the whole payload", "stays at home"),
            Wrong(
                _bill_gather_kept, "two gathers serve all micro-batches", "nothing stays gathered"
            ),
        ),
        hints=(
            "Take (W - 1) / W n_bytes as your unit. How many reduce-scatters does a step have, how many all-gathers?",
            "Stage 2: one reduce-scatter for each micro-batch, one all-gather for the step. And stage 3?",
        ),
        check=_check_bill,
        uses=("bigmodel_lab.plan.traffic.data_parallel_bytes",),
    ),
    Exercise(
        id="L03-c",
        title="Who owns what",
        difficulty=2,
        minutes=12,
        stub=PIECES,
        reference=my_pieces,
        wrong=(
            Wrong(_pieces_whole, "parameters are dealt out whole", "are not equal shares"),
            Wrong(_pieces_flat, "a place is a place", "places in the flat tensor"),
            Wrong(_pieces_empty, "every parameter has a piece", "of which nothing is owned"),
            Wrong(_pieces_floor, "chunks have n // ranks numbers", "that are left over"),
            Wrong(
                _pieces_padded, "chunks have n / ranks numbers, rounded up", "by one number at most"
            ),
            Wrong(_pieces_inclusive, "stop belongs to the piece", "behind the last one"),
            Wrong(_pieces_lengths, "a piece is a place and a length", "not how long it is"),
            Wrong(_pieces_rows, "every parameter is cut", "as FSDP2 does"),
        ),
        hints=(
            "First the chunk: where in the flat tensor does it begin and end? The first n % ranks chunks are longer.",
            "Then each parameter: its overlap with the chunk runs from the larger beginning to the smaller end.",
            "Subtract the parameter's own beginning from both, and keep it if start < stop.",
        ),
        check=_check_pieces,
        uses=("bigmodel_lab.dist.collectives.chunk_sizes",),
    ),
)
