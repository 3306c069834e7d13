"""Exercises of chapter c16, compute and memory: days of training, does it fit, the optimal size, utilisation with the right peak."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect

_DAY_S = 86400


def _recognise(messages, got, want, args, given, right):
    """Raise the message of the first mistake whose answer `got` is, where that answer differs from the right one."""
    for mistake, message in messages.items():
        off = mistake(*args)
        if np.isclose(off, want, rtol=1e-6):
            continue
        if np.isclose(got, off, rtol=1e-9):
            raise Miss(message, given=given, got=got, want=right)


# --- a: days of training --------------------------------------------------------------------------------------------

DAYS = '''
def train_days(parameters, tokens, devices, peak, mfu):
    """Return the days of a training run, a float, from the 6 N D rule.

    parameters : N      tokens : D      devices : how many work at the same time
    peak : dense FLOP/s of one device
    mfu : share of the peak that becomes model FLOP, 0 to 1
    """
    ...
'''


def train_days(parameters, tokens, devices, peak, mfu):
    return 6 * parameters * tokens / (devices * peak * mfu) / 86400


def _days_forward(N, D, n, peak, u):
    return train_days(N, D, n, peak, u) / 3


def _days_recompute(N, D, n, peak, u):
    return train_days(N, D, n, peak, u) * 8 / 6


def _days_peak(N, D, n, peak, u):
    return train_days(N, D, n, peak, 1)


def _days_times(N, D, n, peak, u):
    return 6 * N * D / (n * peak) * u / _DAY_S


def _days_hours(N, D, n, peak, u):
    return train_days(N, D, n, peak, u) * 24


def _days_one(N, D, n, peak, u):
    return train_days(N, D, 1, peak, u)


def _check_days(fn):
    messages = {
        _days_forward: "2 N D is a forward pass: training runs backward too, which costs twice as much again.",
        _days_recompute: "the factor 8 counts recomputed forward passes. MFU is of model FLOP alone: 6 N D.",
        _days_peak: "that run goes at its peak: no run does. Where is mfu?",
        _days_times: "a lower utilisation must make the run longer: divide by mfu.",
        _days_hours: "that is in hours: a day has 86,400 seconds.",
        _days_one: "that is the time on one device: all of them work at the same time.",
    }
    for args in (
        (1e9, 2e10, 8, 312e12, 0.5),
        (175e9, 300e9, 1024, 312e12, 0.4),
        (101770, 6e5, 1, 5e10, 0.9),
    ):
        given = dict(zip(("parameters", "tokens", "devices", "peak", "mfu"), args, strict=True))
        got, want = fn(*args), train_days(*args)
        _recognise(messages, got, want, args, given, want)
        expect("the time", got, want, 1e-12, given=given)
    return "a laptop's network, a small model and GPT-3"


# --- b: does it fit? ------------------------------------------------------------------------------------------------

FITS = '''
def state_bytes(parameters, zero, replicas):
    """Return the bytes of model state on each of `replicas` devices, a float.

    Mixed precision with Adam, bytes a parameter: weights 2, gradients 2, optimiser 12.
    zero : 0 keeps all of it on every device; 1 divides the optimiser's state over the
        devices, 2 the gradients too, 3 the weights too
    """
    ...
'''


def state_bytes(parameters, zero, replicas):
    weights = 2 / (replicas if zero >= 3 else 1)
    gradients = 2 / (replicas if zero >= 2 else 1)
    optimiser = 12 / (replicas if zero >= 1 else 1)
    return parameters * (weights + gradients + optimiser)


def _fits_weights(P, z, n):
    return 2.0 * P / (n if z >= 3 else 1)


def _fits_no_master(P, z, n):
    return state_bytes(P, z, n) - 4 * P / (n if z >= 1 else 1)


def _fits_all_shared(P, z, n):
    return 16 * P / n if z else 16.0 * P


def _fits_order(P, z, n):
    return P * (2 / (n if z >= 1 else 1) + 2 / (n if z >= 2 else 1) + 12 / (n if z >= 3 else 1))


def _fits_late(P, z, n):
    return state_bytes(P, z - 1, n)


def _fits_float32(P, z, n):
    return state_bytes(P, z, n) + 2 * P / (n if z >= 2 else 1) + 2 * P / (n if z >= 3 else 1)


def _check_fits(fn):
    messages = {
        _fits_weights: "those are the weights alone, as for inference: training keeps gradients and the optimiser's state.",
        _fits_no_master: "12 bytes of optimiser state are three float32 numbers: two moments and the master copy of the weight.",
        _fits_all_shared: "stages 1 and 2 leave something whole on every device: only stage 3 divides everything.",
        _fits_order: "stage 1 divides the optimiser's state, which is the largest part, and the weights come last.",
        _fits_late: "one stage too late: 1 divides the optimiser's state already.",
        _fits_float32: "weights and gradients are in 16 bits: 2 bytes each, not 4.",
    }
    for args in (
        (7e9, 0, 1),
        (7e9, 1, 4),
        (7.5e9, 2, 64),
        (7.5e9, 3, 64),
        (7e9, 0, 8),
        (70e9, 1, 512),
    ):
        given = dict(zip(("parameters", "zero", "replicas"), args, strict=True))
        got, want = fn(*args), state_bytes(*args)
        _recognise(messages, got, want, args, given, want)
        expect("the model state", got, want, 1e-12, given=given)
    return "all four stages, on 1 to 512 devices. A 7 B model with its optimiser takes 112 GB: on no device of 80 GB, but on each of 8 with any stage above 0"


# --- c: utilisation from a data sheet -------------------------------------------------------------------------------

SHEET = '''
def mfu(parameters, tokens_per_s, devices, sheet_flops, sparse):
    """Return the model-FLOP utilisation of a run, 0 to 1, against the dense peak.

    tokens_per_s : of the whole fleet
    sheet_flops : FLOP/s of one device as its data sheet prints it
    sparse : whether the sheet counts 2:4 sparsity, which doubles the dense number
    """
    ...
'''


def mfu(parameters, tokens_per_s, devices, sheet_flops, sparse):
    dense = sheet_flops / 2 if sparse else sheet_flops
    return 6 * parameters * tokens_per_s / (devices * dense)


def _mfu_sparse(N, rate, n, sheet, sparse):
    return 6 * N * rate / (n * sheet)


def _mfu_doubled(N, rate, n, sheet, sparse):
    return 6 * N * rate / (n * sheet * (2 if sparse else 1))


def _mfu_always_half(N, rate, n, sheet, sparse):
    return 6 * N * rate / (n * sheet / 2)


def _mfu_hardware(N, rate, n, sheet, sparse):
    return mfu(N, rate, n, sheet, sparse) * 8 / 6


def _mfu_forward(N, rate, n, sheet, sparse):
    return mfu(N, rate, n, sheet, sparse) / 3


def _mfu_one(N, rate, n, sheet, sparse):
    return mfu(N, rate, 1, sheet, sparse)


def _check_sheet(fn):
    messages = {
        _mfu_sparse: "that divides by the sparse peak, which a dense product can never reach: the share comes out half as large.",
        _mfu_doubled: "sparsity doubles the number on the sheet: the dense peak is half of it, not twice.",
        _mfu_always_half: "this sheet is dense already: halve only where sparse is True.",
        _mfu_hardware: "8 N counts the recomputed forward pass: that is HFU.",
        _mfu_forward: "2 N is a forward pass; a training step is three of them.",
        _mfu_one: "the tokens are those of the whole fleet: divide by all devices.",
    }
    for args in (
        (70e9, 250e3, 256, 1978.9e12, True),
        (540e9, 238.3e3, 6144, 275e12, False),
        (7e9, 3.4e3, 1, 312e12, False),
        (405e9, 2.8e6, 16384, 1978.9e12, True),
    ):
        given = dict(
            zip(
                ("parameters", "tokens_per_s", "devices", "sheet_flops", "sparse"),
                args,
                strict=True,
            )
        )
        got, want = fn(*args), mfu(*args)
        _recognise(messages, got, want, args, given, want)
        expect("the utilisation", got, want, 1e-12, given=given)
    return "four runs, one of them PaLM's: 45.7 %"


# --- d: the optimal size --------------------------------------------------------------------------------------------

OPTIMUM = '''
def optimal_size(compute, A, B, alpha, beta):
    """Return the N of the lowest E + A / N^alpha + B / D^beta with 6 N D = compute.

    compute : FLOP      A, B, alpha, beta : floats above 0
    """
    ...
'''


def optimal_size(compute, A, B, alpha, beta):
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return G * (compute / 6) ** (beta / (alpha + beta))


def _opt_swapped(C, A, B, alpha, beta):
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return G * (C / 6) ** (alpha / (alpha + beta))


def _opt_no_six(C, A, B, alpha, beta):
    return optimal_size(6 * C, A, B, alpha, beta)


def _opt_twenty(C, A, B, alpha, beta):
    return (C / 6 / 20) ** 0.5


def _opt_tokens(C, A, B, alpha, beta):
    return C / 6 / optimal_size(C, A, B, alpha, beta)


def _opt_equal_terms(C, A, B, alpha, beta):
    return (A / B) ** (1 / (alpha + beta)) * (C / 6) ** (beta / (alpha + beta))


def _opt_root(C, A, B, alpha, beta):
    G = (alpha * A / (beta * B)) ** (1 / (alpha + beta))
    return G * (C / 6) ** 0.5


def _check_optimum(fn):
    messages = {
        _opt_swapped: "the exponents are swapped: the larger beta is, the faster data stop mattering, and the faster N grows.",
        _opt_no_six: "D is compute / (6 N): the 6 is lost.",
        _opt_twenty: "that is the rule of 20 tokens a parameter: it follows from no constants, and these ask for something else.",
        _opt_tokens: "that is the number of tokens: N is asked for.",
        _opt_equal_terms: "that makes the two terms equal. At the minimum their slopes cancel: alpha A / N^alpha = beta B / D^beta.",
        _opt_root: "N grows like the square root of compute only where alpha equals beta.",
    }
    for args in (
        (1e21, 400.0, 2000.0, 0.35, 0.40),
        (1e20, 406.4, 410.7, 0.34, 0.28),
        (3e23, 482.0, 2085.4, 0.348, 0.366),
    ):
        given = dict(zip(("compute", "A", "B", "alpha", "beta"), args, strict=True))
        got, want = fn(*args), optimal_size(*args)
        _recognise(messages, got, want, args, given, want)
        expect("the optimal N", got, want, 1e-4, given=given)  # a fine search passes, too
    return "three sets of constants, two of them published, to a tolerance that a fine grid meets"


_PLAN = "bigmodel_lab.plan."

EXERCISES = (
    Exercise(
        id="c16-a",
        title="Days of training",
        difficulty=1,
        minutes=5,
        stub=DAYS,
        reference=train_days,
        wrong=(
            Wrong(_days_forward, "a token costs 2 N", "forward pass: training runs backward"),
            Wrong(_days_recompute, "recomputation is part of MFU", "factor 8 counts"),
            Wrong(_days_peak, "the data sheet is the speed", "no run does"),
            Wrong(_days_times, "the time is multiplied by the utilisation", "divide by mfu"),
            Wrong(_days_hours, "hours for days", "in hours"),
            Wrong(_days_one, "device-days are days", "time on one device"),
        ),
        hints=(
            "How many FLOP is the run, and how many does the fleet do in a second?",
            "The fleet does devices * peak * mfu model FLOP a second; the run is 6 N D.",
        ),
        check=_check_days,
        uses=(_PLAN + "run.training_time", _PLAN + "flops.six_nd"),
    ),
    Exercise(
        id="c16-b",
        title="Does it fit?",
        difficulty=1,
        minutes=8,
        stub=FITS,
        reference=state_bytes,
        wrong=(
            Wrong(_fits_weights, "a model is its weights", "weights alone"),
            Wrong(_fits_no_master, "Adam keeps two numbers", "master copy"),
            Wrong(_fits_all_shared, "ZeRO divides everything", "only stage 3"),
            Wrong(_fits_order, "weights are divided first", "weights come last"),
            Wrong(_fits_late, "stage 1 divides nothing yet", "one stage too late"),
            Wrong(_fits_float32, "weights and gradients are float32", "2 bytes each, not 4"),
        ),
        hints=(
            "Three parts, each of which is divided by `replicas` from some stage on, or not.",
            "At stage 1 a device keeps 2 + 2 + 12 / replicas bytes for each parameter.",
        ),
        check=_check_fits,
        uses=(_PLAN + "memory.model_state",),
    ),
    Exercise(
        id="c16-c",
        title="Utilisation from a data sheet",
        difficulty=2,
        minutes=8,
        stub=SHEET,
        reference=mfu,
        wrong=(
            Wrong(_mfu_sparse, "the peak is what the sheet prints", "divides by the sparse peak"),
            Wrong(_mfu_doubled, "sparsity halves the peak", "half of it, not twice"),
            Wrong(_mfu_always_half, "every sheet is sparse", "dense already"),
            Wrong(_mfu_hardware, "recomputation is useful work", "that is HFU"),
            Wrong(_mfu_forward, "a token costs 2 N in training", "is three of them"),
            Wrong(_mfu_one, "throughput is per device", "whole fleet"),
        ),
        hints=(
            "Model FLOP a second over dense FLOP a second, both of the whole fleet.",
            "A training token is 6 N FLOP. With sparse=True the dense peak is sheet_flops / 2.",
        ),
        check=_check_sheet,
        uses=(_PLAN + "flops.mfu", _PLAN + "flops.utilisation"),
    ),
    Exercise(
        id="c16-d",
        title="The optimal size",
        difficulty=2,
        minutes=15,
        stub=OPTIMUM,
        reference=optimal_size,
        wrong=(
            Wrong(
                _opt_swapped, "alpha belongs to N, so N grows with alpha", "exponents are swapped"
            ),
            Wrong(_opt_no_six, "compute is N D", "the 6 is lost"),
            Wrong(_opt_twenty, "20 tokens a parameter is a law", "20 tokens a parameter"),
            Wrong(_opt_tokens, "N and D exchanged", "number of tokens"),
            Wrong(_opt_equal_terms, "the two terms are equal at the optimum", "slopes cancel"),
            Wrong(_opt_root, "N and D always share compute evenly", "only where alpha equals beta"),
        ),
        hints=(
            "Put D = compute / (6 N) into the loss: one unknown is left. A fine search over log N is a correct answer.",
            "Setting the derivative to zero gives alpha A / N^alpha = beta B / D^beta.",
            "N = G (compute / 6)^(beta / (alpha + beta)) with G = (alpha A / (beta B))^(1 / (alpha + beta)).",
        ),
        check=_check_optimum,
        uses=(
            _PLAN + "scaling.ChinchillaLaw",
            _PLAN + "scaling.find_law",
        ),
    ),
)
