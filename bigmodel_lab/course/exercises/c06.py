"""Exercises of chapter c06, optimisers: the largest stable step, momentum's memory, an honest choice, AdamW."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: the largest stable learning rate ----------------------------------------------------------------------------

STABLE = '''
def largest_stable_lr(H):
    """Return the learning rate, a float, above which gradient descent diverges on J = 1/2 theta' H theta.

    H : float array (D, D), symmetric, all eigenvalues above 0; not diagonal in general
    """
    ...
'''


def largest_stable_lr(H):
    return float(2 / np.linalg.eigvalsh(H).max())


def _stable_half(H):
    return float(1 / np.linalg.eigvalsh(H).max())


def _stable_smallest(H):
    return float(2 / np.linalg.eigvalsh(H).min())


def _stable_entry(H):
    return float(2 / np.abs(H).max())


def _stable_trace(H):
    return float(2 / np.trace(H))


def _stable_fastest(H):
    values = np.linalg.eigvalsh(H)
    return float(2 / (values.min() + values.max()))


def _check_stable(fn):
    messages = {
        _stable_half: "half of it: at 1 / lambda_max the steepest direction is solved in one step. The limit is where "
        "its factor 1 - lr * lambda reaches -1.",
        _stable_smallest: "that is the limit of the flattest direction; the steepest one diverges long before.",
        _stable_entry: "an entry of H is the curvature along one axis. The steepest direction need not be an axis: take "
        "the eigenvalues.",
        _stable_trace: "the trace adds up all curvatures: a safe rate, and needlessly small.",
        _stable_fastest: "that rate makes the slowest direction as fast as can be; a larger one is still stable.",
    }
    cases = [np.diag([1.0, 4.0]), np.array([[3.0, 1.0, 0.0], [1.0, 3.0, 0.0], [0.0, 0.0, 1.0]])]
    g = generator(0, "c06-a")
    for D in (1, 3, 6):
        a = g.normal(size=(D, D))
        cases.append(a @ a.T + 0.1 * np.eye(D))
    for H in cases[1:]:  # the first case alone would let the largest entry pass
        got, want = fn(H.copy()), largest_stable_lr(H)
        for mistake, message in messages.items():
            off = mistake(H)
            if np.isclose(got, off, rtol=1e-9) and not np.isclose(off, want, rtol=1e-6):
                raise Miss(message, given={"H": H}, got=float(got), want=want)
        expect("the largest stable rate", got, want, 1e-10, given={"H": H})
    expect("the largest stable rate", fn(cases[0].copy()), 0.5, 1e-10, given={"H": cases[0]})
    return "five curvatures, of one dimension to six"


# --- b: what momentum remembers -------------------------------------------------------------------------------------

MEMORY = '''
def momentum_weights(beta, t):
    """Return w (t,), so that u_t = w[0] g_1 + w[1] g_2 + ... + w[t-1] g_t, where u_t = beta u_(t-1) + g_t and u_0 = 0.

    beta : float, 0 <= beta < 1      t : int, at least 1
    """
    ...
'''


def momentum_weights(beta, t):
    return beta ** np.arange(t - 1, -1, -1.0)


def _memory_reversed(beta, t):
    return beta ** np.arange(0, t, 1.0)


def _memory_normalised(beta, t):
    return (1 - beta) * beta ** np.arange(t - 1, -1, -1.0)


def _memory_late(beta, t):
    return beta ** np.arange(t, 0, -1.0)


def _memory_flat(beta, t):
    return np.full(t, (1 - beta**t) / (1 - beta) / t)


def _check_memory(fn):
    messages = {
        _memory_reversed: "the newest gradient is the last entry: it has not been multiplied by beta yet.",
        _memory_normalised: "the factor 1 - beta makes an average of it, as in Adam. Here g_t enters whole.",
        _memory_late: "one power of beta too many: g_t is added after the old velocity was multiplied.",
        _memory_flat: "the sum is right and the weights are not equal: each step multiplies the old ones by beta.",
    }
    for beta, t in ((0.6, 3), (0.9, 5), (0.0, 2), (0.99, 200)):
        got, want = np.asarray(fn(beta, t)), momentum_weights(beta, t)
        case = {"given": {"beta": beta, "t": t}}
        for mistake, message in messages.items():
            off = mistake(beta, t)
            if (
                got.shape == off.shape
                and np.allclose(got, off, rtol=1e-9, atol=0)
                and not np.allclose(off, want)
            ):
                small = {"got": got, "want": want} if t <= 16 else {}
                raise Miss(message, **case, **small)
        expect("w", got, want, 1e-12, **case)
    return "four pairs of beta and t, one without memory"


# --- c: an honest choice of the learning rate -----------------------------------------------------------------------

CHOOSE = '''
def choose_lr(losses):
    """Return (k, at_edge) for runs at K learning rates, in rising order, with S seeds each.

    losses : float array (K, S), final validation losses; nan where a run diverged
    k : int, the rate with the lowest mean loss; a rate at which any seed diverged is out
    at_edge : bool, whether k is the smallest or the largest rate tried, so that the grid must be widened
    """
    ...
'''


def choose_lr(losses):
    mean = losses.mean(axis=1)  # nan if any seed diverged
    k = int(np.nanargmin(mean))
    return k, k in (0, len(losses) - 1)


def _choose_nanmean(losses):
    k = int(np.nanargmin(np.nanmean(losses, axis=1)))
    return k, k in (0, len(losses) - 1)


def _choose_luckiest(losses):
    k = int(np.nanargmin(np.nan_to_num(losses, nan=np.inf).min(axis=1)))
    return k, k in (0, len(losses) - 1)


def _choose_nan(losses):
    k = int(np.argmin(losses.mean(axis=1)))
    return k, k in (0, len(losses) - 1)


def _choose_one_edge(losses):
    k = int(np.nanargmin(losses.mean(axis=1)))
    return k, k == len(losses) - 1


def _choose_no_edge(losses):
    return int(np.nanargmin(losses.mean(axis=1))), False


def _choose_first_seed(losses):
    k = int(np.nanargmin(losses[:, 0]))
    return k, k in (0, len(losses) - 1)


def _check_choose(fn):
    nan = np.nan
    cases = (
        (
            [[0.9, 0.8], [0.5, 0.5], [0.6, 0.6], [nan, nan]],
            3,
            "np.argmin takes nan for the smallest number: a diverged run must never win.",
        ),
        (
            [[0.9, 0.8], [0.5, 0.6], [1.0, 0.3], [1.2, 1.1]],
            2,
            "the best single run is luck: average over the seeds first, then choose.",
        ),
        (
            [[0.9, 0.8], [0.5, 0.5], [0.4, 0.9], [1.2, 1.1]],
            2,
            "that looks at the first seed alone: all of them count.",
        ),
        (
            [[0.9, 0.8], [0.5, 0.5], [nan, 0.4], [nan, nan]],
            2,
            "a rate at which one seed diverged is unsafe, however good the seeds that survived: leave it out.",
        ),
    )
    for rows, bad, message in cases:
        losses = np.array(rows)
        got, want = fn(losses.copy()), choose_lr(losses)
        if not isinstance(got, tuple) or len(got) != 2:
            raise Miss("return two things: the index k, and whether it is at the edge.")
        if got[0] == bad:
            raise Miss(message, given={"losses": losses}, got=got, want=want)
        if got[0] != want[0]:
            raise Miss(
                "k is not the index of the lowest mean over the seeds.",
                given={"losses": losses},
                got=got,
                want=want,
            )
    edges = (
        ([[0.9, 0.8], [0.6, 0.6], [0.5, 0.4]], "the best rate is the largest one tried"),
        ([[0.4, 0.5], [0.6, 0.6], [0.7, 0.9]], "the best rate is the smallest one tried"),
        ([[0.9, 0.8], [0.5, 0.6], [nan, nan]], "the best rate has a worse one on either side"),
    )
    for rows, what in edges:
        losses = np.array(rows)
        got, want = fn(losses.copy()), choose_lr(losses)
        if bool(got[1]) is not want[1]:
            is_one = "that is" if want[1] else "that is not"
            raise Miss(
                f"{what}: {is_one} an edge of the grid.",
                given={"losses": losses},
                got=got,
                want=want,
            )
        expect("k", got[0], want[0], 0, given={"losses": losses})
    return "seven tables of runs, with diverged ones"


# --- d: one step of AdamW -------------------------------------------------------------------------------------------

ADAMW = '''
def adamw_step(p, g, m, v, t, lr, b1, b2, eps, decay):
    """Return the new p, m and v after step number t (1 for the first) of AdamW along the gradient g.

    p, g, m, v : float arrays of one shape; leave them as they are and return new ones
    decay : the parameter shrinks by the share lr * decay, whatever its gradient
    """
    ...
'''


def adamw_step(p, g, m, v, t, lr, b1, b2, eps, decay):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g**2
    m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
    return p - lr * decay * p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def _adamw_uncorrected(p, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return p - lr * decay * p - lr * m / (np.sqrt(v) + eps), m, v


def _adamw_eps_inside(p, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    step = m / (1 - b1**t) / np.sqrt(v / (1 - b2**t) + eps)
    return p - lr * decay * p - lr * step, m, v


def _adamw_l2(p, g, m, v, t, lr, b1, b2, eps, decay):
    return adamw_step(p, g + decay * p, m, v, t, lr, b1, b2, eps, 0)


def _adamw_decay_alone(p, g, m, v, t, lr, b1, b2, eps, decay):
    return adamw_step(p, g, m, v, t, lr, b1, b2, eps, decay / lr)


def _adamw_from_zero(p, g, m, v, t, lr, b1, b2, eps, decay):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
    return (
        p
        - lr * decay * p
        - lr * m / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - b2 ** (t + 1))) + eps),
        m,
        v,
    )


def _adamw_square_of_mean(p, g, m, v, t, lr, b1, b2, eps, decay):
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * m**2
    step = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p - lr * decay * p - lr * step, m, v


def _adamw_corrected_kept(p, g, m, v, t, lr, b1, b2, eps, decay):
    m = (b1 * m + (1 - b1) * g) / (1 - b1**t)
    v = (b2 * v + (1 - b2) * g**2) / (1 - b2**t)
    return p - lr * decay * p - lr * m / (np.sqrt(v) + eps), m, v


def _check_adamw(fn):
    messages = (
        (
            0,
            _adamw_uncorrected,
            "the bias correction is missing: that is the formula of article 003.",
        ),
        (0, _adamw_eps_inside, "eps belongs beside the root, not under it."),
        (
            0,
            _adamw_l2,
            "the decay went through the gradient: that is Adam with L2, in which a parameter with large gradients hardly "
            "shrinks.",
        ),
        (
            0,
            _adamw_decay_alone,
            "the decay must be multiplied by lr: a schedule then lowers both together.",
        ),
        (0, _adamw_from_zero, "t is 1 at the first step already: no t + 1."),
        (2, _adamw_square_of_mean, "v averages the squares of g, not of m."),
        (
            1,
            _adamw_corrected_kept,
            "the corrected m and v are for this step only: return the ones before the division, or the next step "
            "corrects them again.",
        ),
    )
    g = generator(0, "c06-d")
    for shape, t in (((3,), 1), ((3,), 7), ((2, 3), 40), ((1,), 5000)):
        p, grad, m = (g.normal(size=shape) for _ in range(3))
        v = g.uniform(0.1, 1, size=shape)
        if t == 1:
            m, v = np.zeros(shape), np.zeros(shape)
        args = (p, grad, m, v, t, 0.1, 0.9, 0.99, 0.01, 0.2)
        got, want = fn(*args), adamw_step(*args)
        if not isinstance(got, tuple | list) or len(got) != 3:
            raise Miss("return three arrays: the new p, m and v.")
        for at, mistake, message in messages:
            off = mistake(*args)[at]
            if (
                np.shape(got[at]) == off.shape
                and np.allclose(got[at], off, rtol=1e-9)
                and not np.allclose(off, want[at], rtol=1e-6)
            ):
                raise Miss(message)
        for name, a, b in zip(("p", "m", "v"), got, want, strict=True):
            expect(f"{name} at step {t}", np.asarray(a), b, 1e-12)
    return "four random steps, one of them the first"


_OPS = "bigmodel_lab.ops."

EXERCISES = (
    Exercise(
        id="c06-a",
        title="The largest stable learning rate",
        difficulty=1,
        minutes=5,
        stub=STABLE,
        reference=largest_stable_lr,
        wrong=(
            Wrong(_stable_half, "stable means no overshooting", "solved in one step"),
            Wrong(_stable_smallest, "the smallest curvature limits the step", "flattest direction"),
            Wrong(_stable_entry, "the steepest direction is an axis", "need not be an axis"),
            Wrong(_stable_trace, "curvatures add up", "the trace adds up"),
            Wrong(_stable_fastest, "the fastest rate is the largest", "a larger one is still"),
        ),
        hints=(
            "Along an eigenvector of H the error is multiplied by 1 - lr * eigenvalue in every step. When does it grow?",
            "np.linalg.eigvalsh gives the eigenvalues of a symmetric matrix. Which of them diverges first?",
        ),
        check=_check_stable,
    ),
    Exercise(
        id="c06-b",
        title="What momentum remembers",
        difficulty=1,
        minutes=8,
        stub=MEMORY,
        reference=momentum_weights,
        wrong=(
            Wrong(_memory_reversed, "the oldest gradient counts most", "newest gradient is the"),
            Wrong(_memory_normalised, "momentum is an average", "makes an average of it"),
            Wrong(_memory_late, "beta multiplies the new gradient too", "one power of beta"),
            Wrong(_memory_flat, "momentum is a moving window", "weights are not equal"),
        ),
        hints=(
            "Write u_1, u_2 and u_3 out by hand.",
            "How often has g_i been multiplied by beta when step t is done? g_t: not at all.",
        ),
        check=_check_memory,
        uses=("torch.optim.SGD",),
    ),
    Exercise(
        id="c06-c",
        title="An honest choice of the learning rate",
        difficulty=2,
        minutes=12,
        stub=CHOOSE,
        reference=choose_lr,
        wrong=(
            Wrong(_choose_nanmean, "diverged runs can be left out of the mean", "is unsafe"),
            Wrong(_choose_nan, "argmin passes over nan", "must never win"),
            Wrong(_choose_luckiest, "the best run shows the best rate", "best single run is luck"),
            Wrong(_choose_first_seed, "one seed is enough", "first seed alone"),
            Wrong(_choose_one_edge, "a rate can only be too small", "is the smallest one tried"),
            Wrong(_choose_no_edge, "a grid is always wide enough", "is the largest one tried"),
        ),
        hints=(
            "What is the mean of an array that holds a nan? Here that is just what is wanted.",
            "np.nanargmin passes over nan, np.argmin does not.",
            "k is at the edge if it is 0 or K - 1: nobody has seen whether the loss goes on falling beyond it.",
        ),
        check=_check_choose,
    ),
    Exercise(
        id="c06-d",
        title="One step of AdamW",
        difficulty=2,
        minutes=15,
        stub=ADAMW,
        reference=adamw_step,
        wrong=(
            Wrong(_adamw_uncorrected, "article 003: no correction", "bias correction is missing"),
            Wrong(_adamw_eps_inside, "eps guards the root", "not under it"),
            Wrong(_adamw_l2, "weight decay is an L2 penalty", "went through the gradient"),
            Wrong(_adamw_decay_alone, "the decay is a share by itself", "be multiplied by lr"),
            Wrong(_adamw_from_zero, "steps are counted from 0", "no t + 1"),
            Wrong(_adamw_square_of_mean, "v is the square of m, averaged", "squares of g"),
            Wrong(_adamw_corrected_kept, "the corrected means are the state", "corrects them"),
        ),
        hints=(
            "Four lines: m, v, their corrected copies, and p.",
            "m_hat = m / (1 - b1**t), v_hat = v / (1 - b2**t); return m and v themselves.",
            "The decay stands alone: p - lr * decay * p - lr * m_hat / (sqrt(v_hat) + eps).",
        ),
        check=_check_adamw,
        uses=(_OPS + "adamw",),
    ),
)
