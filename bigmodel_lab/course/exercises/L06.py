"""Exercises of lab L06, fault tolerance: how often to save, a sampler that can go on, which checkpoint is sound."""

import json
import math
import zlib

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect

# --- a: how often to save -------------------------------------------------------------------------------------------

STEPS = '''
def steps_between(checkpoint_s, step_s, devices, device_hours_per_failure):
    """Return how many steps between two checkpoints waste least, after Young.

    An int, at least 1.

    checkpoint_s : seconds that training stands still for a checkpoint
    step_s : seconds a step
    devices : how many there are; the job fails when any of them does
    device_hours_per_failure : hours that one device alone runs between two failures,
        on average

    Young's interval, sqrt(2 * checkpoint * mean time between failures of the job), is
    time; round it to the nearest whole number of steps.
    """
    ...
'''


def steps_between(checkpoint_s, step_s, devices, device_hours_per_failure):
    mtbf_s = 3600 * device_hours_per_failure / devices
    return max(1, round(math.sqrt(2 * checkpoint_s * mtbf_s) / step_s))


def _steps_one_device(checkpoint_s, step_s, devices, device_hours_per_failure):
    return max(1, round(math.sqrt(2 * checkpoint_s * 3600 * device_hours_per_failure) / step_s))


def _steps_no_two(checkpoint_s, step_s, devices, device_hours_per_failure):
    mtbf_s = 3600 * device_hours_per_failure / devices
    return max(1, round(math.sqrt(checkpoint_s * mtbf_s) / step_s))


def _steps_hours(checkpoint_s, step_s, devices, device_hours_per_failure):
    return max(1, round(math.sqrt(2 * checkpoint_s * device_hours_per_failure / devices) / step_s))


def _steps_seconds(checkpoint_s, step_s, devices, device_hours_per_failure):
    return max(1, round(math.sqrt(2 * checkpoint_s * 3600 * device_hours_per_failure / devices)))


def _steps_mtbf(checkpoint_s, step_s, devices, device_hours_per_failure):
    return max(1, round(3600 * device_hours_per_failure / devices / step_s))


def _steps_zero(checkpoint_s, step_s, devices, device_hours_per_failure):
    mtbf_s = 3600 * device_hours_per_failure / devices
    return round(math.sqrt(2 * checkpoint_s * mtbf_s) / step_s)


def _steps_rarer(checkpoint_s, step_s, devices, device_hours_per_failure):
    return steps_between(checkpoint_s, step_s, 1, device_hours_per_failure * devices)


def _steps_no_root(checkpoint_s, step_s, devices, device_hours_per_failure):
    mtbf_s = 3600 * device_hours_per_failure / devices
    return max(1, round(2 * checkpoint_s * mtbf_s / step_s))


def _steps_root_of_steps(checkpoint_s, step_s, devices, device_hours_per_failure):
    mtbf_s = 3600 * device_hours_per_failure / devices
    return max(1, round(math.sqrt(2 * checkpoint_s * mtbf_s / step_s)))


def _steps_down(checkpoint_s, step_s, devices, device_hours_per_failure):
    mtbf_s = 3600 * device_hours_per_failure / devices
    return max(1, int(math.sqrt(2 * checkpoint_s * mtbf_s) / step_s))


_STEPS_WRONG = (
    (_steps_one_device, "the job fails when any device does: that is the interval of one device alone."),
    (_steps_no_two, "the failure comes in the middle of an interval on average: there is a 2 under the root."),
    (_steps_hours, "hours and seconds are mixed under the root."),
    (_steps_seconds, "that is the interval in seconds: how many steps fit into it?"),
    (_steps_mtbf, "that saves once for every failure: half of the work would be lost each time."),
    (_steps_rarer, "more devices fail more often, not less: divide the hours by their number."),
    (_steps_no_root, "the root is missing: seconds times seconds are no time."),
    (_steps_root_of_steps, "divide by the seconds of a step outside the root: it is the interval, a time, that is cut into steps."),
    (_steps_down, "round to the nearest whole number, and not down."),
    (_steps_zero, "saving after every 0 steps is not possible: at least 1."),
)  # fmt: skip


def _check_steps(fn):
    cases = (
        (2.0, 1.0, 1, 1.0),
        (120.0, 5.0, 16384, 50677.0),
        (30.0, 10.0, 1024, 9011.0),
        (0.5, 40.0, 4096, 500.0),
        (0.01, 60.0, 100_000, 9000.0),
    )
    for case in cases:
        got, want = fn(*case), steps_between(*case)
        if got == want:
            continue
        given = dict(
            zip(
                ("checkpoint_s", "step_s", "devices", "device_hours_per_failure"), case, strict=True
            )
        )
        for theirs, message in _STEPS_WRONG:
            alike = all(fn(*c) == theirs(*c) for c in cases)
            if alike:
                raise Miss(message, given=given, got=got, want=want)
        expect("the number of steps", got, want, 0, given=given)
    return "five fleets, from one device to 100,000"


# --- b: a sampler that can go on ------------------------------------------------------------------------------------

ROWS = '''
def rows_of_step(step, rank, ranks, samples, batch, seed):
    """Return the sample numbers that a rank trains on in a step, an int array.

    In epoch e the samples are taken in the order
    np.random.default_rng([seed, e]).permutation(samples), cut into batches of `batch`
    samples for all ranks together; what is left at the end of an epoch, fewer than
    `batch`, is left out. Ranks take consecutive pieces of a batch, as np.array_split
    cuts it: array_split(the samples of the batch, ranks)[rank].
    Steps count from 0 and go on through the epochs. Nothing may be remembered from one
    call to the next: a run that was killed starts again in the middle.
    """
    ...
'''


def rows_of_step(step, rank, ranks, samples, batch, seed):
    epoch, place = divmod(step, samples // batch)
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order[place * batch : (place + 1) * batch], ranks)[rank]


def _rows_start_again(step, rank, ranks, samples, batch, seed):
    epoch = step // (samples // batch)
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order[:batch], ranks)[rank]


def _rows_one_order(step, rank, ranks, samples, batch, seed):
    place = step % (samples // batch)
    order = np.random.default_rng([seed, 0]).permutation(samples)
    return np.array_split(order[place * batch : (place + 1) * batch], ranks)[rank]


def _rows_with_the_rest(step, rank, ranks, samples, batch, seed):
    epoch, place = divmod(step, math.ceil(samples / batch))
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return np.array_split(order[place * batch : (place + 1) * batch], ranks)[rank]


def _rows_seeded_by_rank(step, rank, ranks, samples, batch, seed):
    epoch, place = divmod(step, samples // batch)
    order = np.random.default_rng([seed + rank, epoch]).permutation(samples)
    return np.array_split(order[place * batch : (place + 1) * batch], ranks)[rank]


def _rows_batch_each(step, rank, ranks, samples, batch, seed):
    epoch, place = divmod(step, samples // batch)
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    start = ((place * ranks + rank) * batch) % samples
    return order[start : start + batch]


def _rows_dealt_out(step, rank, ranks, samples, batch, seed):
    return rows_of_step(step, 0, 1, samples, batch, seed)[rank::ranks]


def _rows_equal_pieces(step, rank, ranks, samples, batch, seed):
    each = batch // ranks
    return rows_of_step(step, 0, 1, samples, batch, seed)[rank * each : (rank + 1) * each]


def _rows_other_seed(step, rank, ranks, samples, batch, seed):
    epoch, place = divmod(step, samples // batch)
    order = np.random.default_rng(seed + epoch).permutation(samples)
    return np.array_split(order[place * batch : (place + 1) * batch], ranks)[rank]


def _rows_from_one(step, rank, ranks, samples, batch, seed):
    return rows_of_step(step + 1, rank, ranks, samples, batch, seed)


def _check_rows(fn):
    def all_rows(step, ranks, samples, batch):
        return [np.asarray(fn(step, r, ranks, samples, batch, 7)).tolist() for r in range(ranks)]

    def right(step, ranks, samples, batch):
        return [rows_of_step(step, r, ranks, samples, batch, 7).tolist() for r in range(ranks)]

    for step, ranks, samples, batch in (
        (0, 1, 6, 3), (0, 2, 12, 4), (1, 1, 6, 3), (2, 1, 6, 3), (2, 1, 7, 3), (3, 1, 7, 3), (5, 1, 7, 3), (4, 2, 10, 3), (11, 3, 23, 5)
    ):  # fmt: skip
        got, want = (
            [x for rows in f(step, ranks, samples, batch) for x in rows] for f in (all_rows, right)
        )
        if got == want:
            continue
        given = {"step": step, "ranks": ranks, "samples": samples, "batch": batch, "seed": 7}
        case = dict(given=given, got=got, want=want)
        if len(got) == ranks * len(want) and ranks > 1:
            raise Miss(
                "a batch is for all ranks together: with another number of ranks the run would be another one.",
                **case,
            )
        if sorted(got) == sorted(want):
            raise Miss("the right samples, dealt out to the ranks in another way: each takes a consecutive piece.", **case)  # fmt: skip
        if ranks > 1 and set(got) < set(want) and len(got) < len(want):
            raise Miss("some samples of the batch go to no rank: np.array_split makes pieces that differ by one where they must.", **case)  # fmt: skip
        if got == [x for rows in right(step + 1, ranks, samples, batch) for x in rows]:
            raise Miss("that is the next step's: steps count from 0.", **case)
        if len(set(got)) < len(got) or (ranks > 1 and sorted(got) != sorted(want)):
            raise Miss(
                "ranks that draw from different orders take some samples twice and leave others out.",
                **case,
            )
        if got == right(step // (samples // batch) * (samples // batch), ranks, samples, batch)[0]:
            raise Miss(
                "that is the first batch of the epoch: a run that goes on must not start its epoch again.",
                **case,
            )
        if got == right(step % (samples // batch), ranks, samples, batch)[0]:
            raise Miss("every epoch has an order of its own: put e into the seed.", **case)
        if got == [
            x for r in range(ranks) for x in _rows_other_seed(step, r, ranks, samples, batch, 7)
        ]:
            raise Miss("the seed of an epoch's order is the list [seed, e]: with seed + e, run 1's second epoch is run 2's first.", **case)  # fmt: skip
        if len(got) < len(want) or samples % batch:
            raise Miss(
                f"an epoch of {samples} samples has {samples // batch} whole batches; the rest is left out.",
                **case,
            )
        raise Miss("not the samples of that step.", **case)
    for samples, batch in ((7, 3), (30, 4)):
        expect(
            "the rows of 20 steps",
            np.array([x for s in range(20) for r in all_rows(s, 2, samples, batch) for x in r]),
            np.array([x for s in range(20) for r in right(s, 2, samples, batch) for x in r]),
            0,
        )
    return "28 places in runs of 1 to 3 ranks, with epochs that do not divide evenly"


# --- c: which checkpoint is sound -----------------------------------------------------------------------------------

SOUND = '''
def newest_sound(checkpoints):
    """Return the name of the newest checkpoint that is whole, or "" if there is none.

    checkpoints : dict from a name, such as "step-900", to the files of that checkpoint:
        a dict from file name to bytes. One that was finished has a file
        "manifest.json": a JSON object that gives the size and the CRC-32 (zlib.crc32)
        of each other file, such as {"rank-0": [1024, 3421780262], ...}

    The newest is the one of the highest step. Files may be missing, or cut, or have
    other bytes in them. The manifest may be missing or cut.
    """
    ...
'''


def newest_sound(checkpoints):
    def is_sound(files):
        try:
            manifest = json.loads(files["manifest.json"])
            return all(
                len(files[name]) == size and zlib.crc32(files[name]) == crc
                for name, (size, crc) in manifest.items()
            )
        except (KeyError, ValueError):
            return False

    sound = [name for name, files in checkpoints.items() if is_sound(files)]
    return max(sound, key=lambda name: int(name.removeprefix("step-")), default="")


def _latest(names):
    return max(names, key=lambda name: int(name.removeprefix("step-")), default="")


def _judge(files, fault=None):
    """Whether a checkpoint is sound to somebody who overlooks one fault."""
    if "manifest.json" not in files:
        return fault == "no manifest"
    try:
        manifest = json.loads(files["manifest.json"])
    except ValueError:
        return fault == "manifest"
    for name, (size, crc) in manifest.items():
        if name not in files:
            if fault != "missing":
                return False
        elif len(files[name]) != size or zlib.crc32(files[name]) != crc:
            if fault == "size only" and len(files[name]) == size:
                continue
            return False
        if fault == "first":
            return True
    return True


def _sound_newest(checkpoints):
    return _latest(checkpoints)


def _sound_size(checkpoints):
    return _latest([n for n, files in checkpoints.items() if _judge(files, "size only")])


def _sound_no_manifest(checkpoints):
    return _latest([n for n, files in checkpoints.items() if _judge(files, "no manifest")])


def _sound_first_file(checkpoints):
    return _latest([n for n, files in checkpoints.items() if _judge(files, "first")])


def _sound_missing(checkpoints):
    return _latest([n for n, files in checkpoints.items() if _judge(files, "missing")])


def _sound_by_text(checkpoints):
    return max((n for n, files in checkpoints.items() if _judge(files)), default="")


def _sound_only_the_newest(checkpoints):
    newest = _latest(checkpoints)
    return newest if newest and _judge(checkpoints[newest]) else ""


def _whole(text: bytes) -> dict[str, bytes]:
    files = {"rank-0": text * 3, "rank-1": text * 5}
    sums = {name: [len(c), zlib.crc32(c)] for name, c in files.items()}
    return files | {"manifest.json": json.dumps(sums).encode()}


def _check_sound(fn):
    good, older = _whole(b"weights "), _whole(b"before ")
    flipped = good | {"rank-1": b"Weights " + good["rank-1"][8:]}
    cases = (  # what is the matter with the newest; what is there; what is right; what a miss means
        ("two that are whole", {"step-100": older, "step-200": good}, "step-200", "take the newer one."),
        ("names of different lengths", {"step-1000": good, "step-900": older}, "step-1000",
         "1000 steps are more than 900: compare the numbers, not the texts."),
        ("a file that is cut", {"step-100": older, "step-200": good | {"rank-0": b"weig"}}, "step-100",
         "its first file is cut short: the newest is not always whole."),
        ("two that are cut", {"step-1": older, "step-2": good | {"rank-0": b""}, "step-3": good | {"rank-0": b"w"}}, "step-1",
         "go back further than one."),
        ("a byte that is another one", {"step-100": older, "step-200": flipped | {"rank-0": flipped["rank-0"]}}, "step-100",
         "one byte of rank-1 is another one: not all files were held against the manifest in full."),
        ("a file that is missing", {"step-100": older, "step-200": {k: v for k, v in good.items() if k != "rank-1"}}, "step-100",
         "rank-1 is named in the manifest and is not there."),
        ("no manifest", {"step-100": older, "step-200": {k: v for k, v in good.items() if k != "manifest.json"}}, "step-100",
         "without a manifest its writing never finished."),
        ("a manifest that is cut", {"step-100": older, "step-200": good | {"manifest.json": good["manifest.json"][:20]}}, "step-100",
         "the manifest itself can be cut: json.loads raises ValueError then."),
        ("none that is whole", {"step-7": {"rank-0": b"?"}}, "", "none is whole, and the answer an empty text."),
        ("none at all", {}, "", "there is none, and the answer an empty text."),
    )  # fmt: skip
    for what, checkpoints, want, message in cases:
        got = fn(checkpoints)
        if got != want:
            if what == "a byte that is another one" and fn(
                {"step-1": good | {"rank-0": b"W" + good["rank-0"][1:]}}
            ):
                message = "the sizes are right and one byte is not: that is what the CRC-32 is for."
            if what == "a file that is cut" and not got:
                message = "the newest is damaged, and there is an older one that is whole: go on from that."
            raise Miss(f"{what}: {message}", got=got, want=want)
    return "ten folders, seven of them with damage"


EXERCISES = (
    Exercise(
        id="L06-a",
        title="How often to save",
        difficulty=1,
        minutes=8,
        stub=STEPS,
        reference=steps_between,
        wrong=(
            Wrong(_steps_one_device, "failures are a matter of one device", "one device alone"),
            Wrong(_steps_no_two, "a failure loses the whole interval", "2 under the root"),
            Wrong(_steps_hours, "an hour is an hour", "hours and seconds are mixed"),
            Wrong(_steps_seconds, "the interval is a number of steps", "how many steps fit"),
            Wrong(_steps_mtbf, "save as often as it fails", "saves once for every failure"),
            Wrong(_steps_rarer, "devices share out the failures", "fail more often"),
            Wrong(_steps_no_root, "the product is the interval", "the root is missing"),
            Wrong(_steps_root_of_steps, "all goes under the root", "outside the root"),
            Wrong(_steps_down, "int() rounds", "and not down"),
            Wrong(_steps_zero, "rounding is harmless", "at least 1"),
        ),
        hints=(
            "With twice as many devices something fails twice as often.",
            "All under the root in seconds; then divide by the seconds of a step.",
        ),
        check=_check_steps,
        uses=("bigmodel_lab.plan.failures.young_interval", "bigmodel_lab.plan.failures.fleet_mtbf"),
    ),
    Exercise(
        id="L06-b",
        title="A sampler that can go on",
        difficulty=2,
        minutes=10,
        stub=ROWS,
        reference=rows_of_step,
        wrong=(
            Wrong(_rows_start_again, "going on means a new epoch", "first batch of the epoch"),
            Wrong(_rows_one_order, "one shuffle is enough", "an order of its own"),
            Wrong(_rows_with_the_rest, "the last, short batch counts too", "whole batches"),
            Wrong(_rows_seeded_by_rank, "every rank needs its own seed", "take some samples twice"),
            Wrong(_rows_dealt_out, "ranks are dealt samples like cards", "a consecutive piece"),
            Wrong(_rows_equal_pieces, "pieces are equal", "go to no rank"),
            Wrong(_rows_other_seed, "seed + epoch is a seed as well", "the list [seed, e]"),
            Wrong(_rows_from_one, "steps count from 1", "count from 0"),
            Wrong(_rows_batch_each, "each rank takes a batch", "for all ranks together"),
        ),
        hints=(
            "How many steps has an epoch? Then divmod tells in which epoch a step is, and how many steps of that epoch came before it.",
            "All ranks make the same order and cut the same batch out of it; only the last line knows the rank.",
        ),
        check=_check_rows,
    ),
    Exercise(
        id="L06-c",
        title="Which checkpoint is sound",
        difficulty=2,
        minutes=12,
        stub=SOUND,
        reference=newest_sound,
        wrong=(
            Wrong(_sound_newest, "the newest will do", "first file is cut short"),
            Wrong(_sound_only_the_newest, "damaged means lost", "an older one that is whole"),
            Wrong(_sound_by_text, "names sort as numbers do", "not the texts"),
            Wrong(_sound_size, "the right size is the right file", "what the CRC-32 is for"),
            Wrong(_sound_first_file, "one file stands for all", "not all files were held"),
            Wrong(_sound_missing, "look at the files that are there", "is not there"),
            Wrong(_sound_no_manifest, "no manifest, no complaint", "writing never finished"),
        ),
        hints=(
            "Write a function that says whether one checkpoint is whole; then take the newest of those that are.",
            "json.loads raises ValueError on a text that is cut, a dict KeyError on a name that it does not hold.",
        ),
        check=_check_sound,
        uses=("bigmodel_lab.train.checkpoint_files.contents",),
    ),
)
