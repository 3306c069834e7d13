"""Exercises of chapter c24, funding and cash: today's runway, who owns what after SAFEs and a round, IRR, the smallest raise."""

import math

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator

# --- a: runway, as of today -----------------------------------------------------------------------------------------

RUNWAY = '''
def runway_months(cash, spent, earned):
    """Return for how many months `cash` lasts at the net burn of the last month, as a float.

    math.inf if the last month earned as much as it spent, or more.

    cash : USD, now
    spent, earned : float arrays (n_months,), USD a month, the oldest first
    """
    ...
'''


def runway_months(cash, spent, earned):
    burn = spent[-1] - earned[-1]
    return float(cash / burn) if burn > 0 else math.inf


def _runway_average(cash, spent, earned):
    burn = np.mean(spent - earned)
    return float(cash / burn) if burn > 0 else math.inf


def _runway_gross(cash, spent, earned):
    return float(cash / spent[-1])


def _runway_first(cash, spent, earned):
    burn = spent[0] - earned[0]
    return float(cash / burn) if burn > 0 else math.inf


def _runway_negative(cash, spent, earned):
    return float(cash / (spent[-1] - earned[-1]))


def _runway_whole_months(cash, spent, earned):
    burn = spent[-1] - earned[-1]
    return float(cash // burn) if burn > 0 else math.inf


def _check_runway(fn):
    spent, earned = np.array([100.0, 140.0, 180.0]), np.array([0.0, 10.0, 30.0])
    for mistake, message in (
        (
            _runway_average,
            "that divides by the average burn: the past was cheaper than the months that the cash must now pay for.",
        ),
        (
            _runway_gross,
            "that is the gross burn: what customers pay comes in, too, so subtract it.",
        ),
        (
            _runway_first,
            "that is the burn of the oldest month: the last entry of the array is the last month.",
        ),
        (
            _runway_whole_months,
            "those are the whole months only: the last one, in part, counts as well.",
        ),
    ):
        got = fn(3100.0, spent.copy(), earned.copy())
        if np.isclose(got, mistake(3100.0, spent, earned)):
            raise Miss(
                message,
                given={"cash": 3100.0, "spent": spent, "earned": earned},
                got=float(got),
                want=runway_months(3100.0, spent, earned),
            )
    rich = (1000.0, np.array([100.0, 90.0]), np.array([50.0, 95.0]))
    if (got := fn(*rich)) != math.inf:
        raise Miss(
            "a month that earns more than it spends does not empty the account: such a company has no end, not a "
            "negative one.",
            given=dict(zip(("cash", "spent", "earned"), rich, strict=True)),
            got=float(got),
            want=math.inf,
        )
    g = generator(0, "c24-a")
    for n in (1, 6, 24):
        spent, earned = g.uniform(50, 300, size=n), g.uniform(0, 300, size=n)
        cash = float(g.uniform(100, 5000))
        got, want = fn(cash, spent.copy(), earned.copy()), runway_months(cash, spent, earned)
        expect("runway", got, want, 1e-9, given={"cash": cash, "spent": spent, "earned": earned})
    return "rising burn, a profitable month, histories of 1, 6 and 24 months"


# --- b: post-money SAFEs and a priced round -------------------------------------------------------------------------

OWNERSHIP = '''
def ownership(investments, caps, sold):
    """Return who owns which share of the company after a priced round, as an array (n + 2,).

    In order: the founders, each SAFE, the fund.

    investments, caps : float arrays (n,), USD: post-money SAFEs, all converting at their caps
    sold : share of the company that the fund buys, 0 to 1; there is no option pool
    """
    ...
'''


def ownership(investments, caps, sold):
    safes = np.asarray(investments) / np.asarray(caps)  # of all that was there before the round
    return np.concatenate([[(1 - safes.sum()) * (1 - sold)], safes * (1 - sold), [sold]])


def _own_pre_money(investments, caps, sold):
    safes = investments / (caps + investments)
    return np.concatenate([[(1 - safes.sum()) * (1 - sold)], safes * (1 - sold), [sold]])


def _own_one_after_another(investments, caps, sold):
    f = investments / caps
    later = np.array([np.prod(1 - f[i + 1 :]) for i in range(len(f))])
    return np.concatenate([[np.prod(1 - f) * (1 - sold)], f * later * (1 - sold), [sold]])


def _own_added(investments, caps, sold):
    safes = investments / caps
    return np.concatenate([[1 - safes.sum() - sold], safes, [sold]])


def _own_average_cap(investments, caps, sold):
    safes = investments / caps.mean()
    return np.concatenate([[(1 - safes.sum()) * (1 - sold)], safes * (1 - sold), [sold]])


def _own_before(investments, caps, sold):
    safes = investments / caps
    return np.concatenate([[1 - safes.sum()], safes, [0.0]])


def _own_founders_only(investments, caps, sold):
    safes = investments / caps
    return np.concatenate([[(1 - safes.sum()) * (1 - sold)], safes, [sold]])


def _check_ownership(fn):
    invested, caps = np.array([500e3, 500e3]), np.array([5.5e6, 8.3e6])
    mistakes = (
        (
            _own_pre_money,
            "that is the pre-money division: a post-money cap has the SAFE's own money inside, so its share is "
            "investment / cap.",
        ),
        (
            _own_one_after_another,
            "that lets one SAFE dilute another: a post-money SAFE is promised its share with all other SAFEs counted, so "
            "the shares add up and the founders pay for each.",
        ),
        (
            _own_added,
            "that adds the fund's share to the SAFEs': the round dilutes everybody who was there, SAFEs and founders "
            "alike, by the factor 1 - sold.",
        ),
        (_own_average_cap, "that gives all SAFEs one cap: each has its own."),
        (_own_before, "that is the company before the round: the fund is not in it yet."),
    )
    want = ownership(invested, caps, 0.2)
    got = np.asarray(fn(invested.copy(), caps.copy(), 0.2))
    for mistake, message in mistakes:
        off = mistake(invested, caps, 0.2)
        if got.shape == off.shape and np.allclose(got, off, rtol=1e-9):
            raise Miss(
                message,
                given={"investments": invested, "caps": caps, "sold": 0.2},
                got=got,
                want=want,
            )
    if got.shape == want.shape and not math.isclose(got.sum(), 1):
        raise Miss(
            f"your shares add up to {got.sum():.3f}, not to 1: the round dilutes everybody who was there.",
            got=got,
            want=want,
        )
    expect("ownership", got, want, 1e-12)
    g = generator(0, "c24-b")
    for n in (1, 2, 4):
        invested, caps = g.uniform(1e5, 1e6, size=n), g.uniform(6e6, 2e7, size=n)
        sold = float(g.uniform(0.1, 0.3))
        got, want = fn(invested.copy(), caps.copy(), sold), ownership(invested, caps, sold)
        given = {"investments": invested, "caps": caps, "sold": sold}
        expect("ownership", got, want, 1e-12, given=given)
    return "the two SAFEs of Y Combinator's example, then one, two and four at random"


# --- c: internal rate of return by bisection ------------------------------------------------------------------------

IRR = '''
def irr_by_bisection(flows):
    """Return the rate a period at which `flows` have no net present value, right to 1e-9.

    flows : float array (n,), USD, one a period, the first now; negative ones first, then
        positive ones, so that there is one rate. It lies between -0.99 and 100.
    """
    ...
'''


def irr_by_bisection(flows):
    t = np.arange(len(flows))
    low, high = -0.99, 100.0
    for _ in range(100):
        middle = (low + high) / 2
        if np.sum(flows / (1 + middle) ** t) > 0:
            low = middle  # still worth something at this rate: the root lies above
        else:
            high = middle
    return float((low + high) / 2)


def _bisect(flows, low=-0.99, high=100.0, steps=100, upwards=True):
    t = np.arange(len(flows))
    for _ in range(steps):
        middle = (low + high) / 2
        if (np.sum(flows / (1 + middle) ** t) > 0) == upwards:
            low = middle
        else:
            high = middle
    return float((low + high) / 2)


def _irr_simple(flows):
    return float(flows.sum() / -flows[flows < 0].sum() / (len(flows) - 1))


def _irr_total(flows):
    return float(flows.sum() / -flows[flows < 0].sum())


def _irr_wrong_half(flows):
    return _bisect(flows, upwards=False)


def _irr_only_gains(flows):
    return _bisect(flows, low=0.0)


def _irr_below_one(flows):
    return _bisect(flows, high=1.0)


def _irr_coarse(flows):
    return _bisect(flows, steps=14)


def _check_irr(fn):
    lent = np.array([-100.0, 0.0, 144.0])

    def miss(message, flows, got):
        raise Miss(message, given={"flows": flows}, got=float(got), want=irr_by_bisection(flows))

    got = fn(lent.copy())
    if np.isclose(got, _irr_simple(lent)):
        miss(
            "that spreads the gain evenly over the periods: interest earns interest, so 44 % in two periods is 20 % each.",
            lent,
            got,
        )
    if np.isclose(got, _irr_total(lent)):
        miss(
            "that is the gain over the money put in: a rate also asks how long it took.", lent, got
        )
    if np.isclose(got, _irr_wrong_half(lent), atol=1e-6):
        miss(
            "the search ends at the edge of its range: where the value is still positive, the rate is too low, so the root "
            "lies in the upper half.",
            lent,
            got,
        )
    if 1e-9 < abs(got - 0.2) < 0.02:
        miss("close: go on halving until the range is shorter than 1e-9.", lent, got)
    expect("IRR", got, 0.2, 1e-8, given={"flows": lent})
    lost = np.array([-100.0, 0.0, 64.0])
    if (got := fn(lost.copy())) > -1e-6:
        miss(
            "money can be lost: the rate may be negative, and the search must look there.",
            lost,
            got,
        )
    fast = np.array([-1.0, 5.0])
    if abs((got := fn(fast.copy())) - 1) < 1e-6:
        miss("the search stops at 100 %: a rate may be larger.", fast, got)
    g = generator(0, "c24-c")
    for out, back in ((1, 3), (3, 5), (12, 48)):
        flows = np.concatenate([-g.uniform(1, 2, size=out), g.uniform(0.2, 3, size=back)])
        expect("IRR", fn(flows.copy()), irr_by_bisection(flows), 1e-7, given={"flows": flows})
    return "a gain, a loss, a rate of 400 %, and three longer streams"


# --- d: the smallest raise ------------------------------------------------------------------------------------------

RAISE = '''
def smallest_raise(paths, chance=0.1):
    """Return the least cash at the start, USD, with which few futures fall short.

    Few: at most the share `chance` of them.

    paths : float array (n_futures, n_months), USD: what each future has earned minus spent
        up to the end of each month, beginning from nothing. A future falls short if its
        cash is below zero at the end of any month.
    """
    ...
'''


def smallest_raise(paths, chance=0.1):
    hole = np.sort(np.maximum(-paths.min(axis=1), 0))  # what each future must have at the start
    allowed = math.floor(chance * len(hole) + 1e-9)  # so many may fall short
    return float(hole[len(hole) - 1 - allowed])


def _from_holes(hole, chance):
    hole = np.sort(np.maximum(hole, 0))
    return float(hole[len(hole) - 1 - math.floor(chance * len(hole) + 1e-9)])


def _raise_end(paths, chance=0.1):
    return _from_holes(-paths[:, -1], chance)


def _raise_mean(paths, chance=0.1):
    return float(max(0.0, -paths.mean(axis=0).min()))


def _raise_by_month(paths, chance=0.1):
    return max(_from_holes(-paths[:, t], chance) for t in range(paths.shape[1]))


def _raise_other_tail(paths, chance=0.1):
    return _from_holes(-paths.min(axis=1), 1 - chance)


def _raise_worst(paths, chance=0.1):
    return float(max(0.0, -paths.min()))


def _raise_pooled(paths, chance=0.1):
    months = np.sort(paths, axis=None)
    return float(max(0.0, -months[math.floor(chance * len(months))]))


def _raise_lowest(paths, chance=0.1):
    lowest = np.sort(paths.min(axis=1))
    return float(lowest[math.floor(chance * len(lowest))])


def _raise_negative(paths, chance=0.1):
    hole = np.sort(-paths.min(axis=1))
    return float(hole[len(hole) - 1 - math.floor(chance * len(hole) + 1e-9)])


def _futures(g, n, months):
    """Paths that fall until a month of their own and recover from it, so that no two are lowest together."""
    turn = g.integers(months // 4, months, size=(n, 1))
    falling = np.arange(months) < turn
    flows = np.where(
        falling, g.normal(-100.0, 30.0, size=(n, 1)), g.normal(150.0, 20.0, size=(n, 1))
    )
    return np.cumsum(flows + g.normal(0.0, 20.0, size=(n, months)), axis=1)


def _check_raise(fn):
    g = generator(0, "c24-d")
    paths = _futures(g, 200, 12)
    want = smallest_raise(paths, 0.1)
    got = float(fn(paths.copy(), 0.1))
    mistakes = (
        (
            _raise_end,
            "that looks at the last month only: a future that recovers later was broke on the way. Take each future's "
            "lowest point.",
        ),
        (
            _raise_mean,
            "that carries the mean future: about half of all futures are worse than it.",
        ),
        (
            _raise_by_month,
            "that asks month by month: the futures short in March and those short in May are not the same ones, and together "
            "they are more than the share allowed. First the lowest point of each future, then the quantile.",
        ),
        (
            _raise_other_tail,
            "that is the other tail: with so little, the share 1 - chance falls short.",
        ),
        (_raise_worst, "that saves every future: the share `chance` may fall short."),
        (
            _raise_pooled,
            "that puts the months of all futures into one pot: a future falls short if any one of its months does. First the "
            "lowest point of each future, then the quantile.",
        ),
    )
    for mistake, message in mistakes:
        if np.isclose(got, mistake(paths, 0.1), rtol=1e-9):
            short = np.mean(paths.min(axis=1) < -got)
            raise Miss(f"{message} With your {got:.0f} USD {short:.0%} of futures fall short.")
    if np.isclose(got, -want, rtol=0.02):
        raise Miss(
            "that is how low the futures fall: what must be raised is minus that.",
            got=got,
            want=want,
        )
    expect("the raise", got, want, 0.02)
    rich = np.abs(paths)
    if (got := float(fn(rich.copy(), 0.1))) != 0:
        raise Miss(
            "futures that never go below zero need nothing: the answer is 0, not a negative raise.",
            got=got,
            want=0.0,
        )
    for n, months, chance in (
        (1000, 24, 0.1),
        (400, 6, 0.25),
        (500, 12, 0.02),
    ):  # a quantile may round up or down
        paths = _futures(g, n, months)
        got = float(fn(paths.copy(), chance))
        if np.mean(paths.min(axis=1) + got * (1 + 1e-9) < 0) > chance + 1 / n + 1e-12:
            raise Miss(f"with {got:.1f} USD more than {chance:.0%} of {n} futures fall short.")
        expect("the raise", got, smallest_raise(paths, chance), 0.05)
    return "four sets of futures, one of which needs nothing; interpolated quantiles are accepted"


_ECON = "bigmodel_lab.econ."

EXERCISES = (
    Exercise(
        id="c24-a",
        title="Runway, as of today",
        difficulty=1,
        minutes=5,
        stub=RUNWAY,
        reference=runway_months,
        wrong=(
            Wrong(_runway_average, "the past year stands for the next", "the average burn"),
            Wrong(_runway_gross, "burn is what is spent", "that is the gross burn"),
            Wrong(_runway_first, "the first entry is the newest", "the oldest month"),
            Wrong(_runway_whole_months, "months are whole", "whole months only"),
            Wrong(_runway_negative, "a division always makes sense", "has no end, not a negative"),
        ),
        hints=(
            "Net burn is what is spent minus what is earned. Of which month?",
            "Use spent[-1] - earned[-1], and decide first what happens if it is zero or below.",
        ),
        check=_check_runway,
        uses=(_ECON + "cash.runway",),
    ),
    Exercise(
        id="c24-b",
        title="Two SAFEs and a round",
        difficulty=2,
        minutes=12,
        stub=OWNERSHIP,
        reference=ownership,
        wrong=(
            Wrong(_own_pre_money, "a cap is a pre-money value", "the pre-money division"),
            Wrong(
                _own_one_after_another, "later money dilutes earlier SAFEs", "lets one SAFE dilute"
            ),
            Wrong(_own_added, "percentages of different companies add", "adds the fund's share"),
            Wrong(_own_average_cap, "an average cap will do", "gives all SAFEs one cap"),
            Wrong(_own_founders_only, "a round dilutes the founders only", "not to 1"),
            Wrong(_own_before, "SAFEs are the whole story", "the company before the round"),
        ),
        hints=(
            "A post-money SAFE owns investment / cap of everything that is there just before the round.",
            "So all SAFEs together own the sum of those, and the founders the rest. Then the fund takes `sold` of the whole: "
            "what happens to everyone else's share?",
        ),
        check=_check_ownership,
        uses=(_ECON + "captable.priced_round",),
    ),
    Exercise(
        id="c24-c",
        title="IRR by bisection",
        difficulty=2,
        minutes=15,
        stub=IRR,
        reference=irr_by_bisection,
        wrong=(
            Wrong(_irr_simple, "gain / years is the rate", "interest earns interest"),
            Wrong(_irr_total, "a return is a multiple", "how long it took"),
            Wrong(
                _irr_wrong_half, "positive value means the rate is too high", "edge of its range"
            ),
            Wrong(_irr_only_gains, "rates are positive", "may be negative"),
            Wrong(_irr_below_one, "rates are below 100 %", "stops at 100 %"),
            Wrong(_irr_coarse, "two digits are enough", "go on halving"),
        ),
        hints=(
            "Write the net present value as a function of the rate: the sum of flows[t] / (1 + rate)**t.",
            "Money out first and back later: the value falls as the rate rises. Keep low where it is positive and high where "
            "it is negative, and halve until they meet.",
        ),
        check=_check_irr,
        uses=(_ECON + "cash.irr", "scipy.optimize.brentq"),
    ),
    Exercise(
        id="c24-d",
        title="The smallest raise with a shortfall below 10 %",
        difficulty=3,
        minutes=15,
        stub=RAISE,
        reference=smallest_raise,
        wrong=(
            Wrong(_raise_end, "only the end counts", "the last month only"),
            Wrong(_raise_mean, "plan for the mean", "carries the mean future"),
            Wrong(_raise_by_month, "quantile first, then the worst month", "asks month by month"),
            Wrong(_raise_other_tail, "the 10 % quantile", "the other tail"),
            Wrong(_raise_worst, "nothing may ever go wrong", "saves every future"),
            Wrong(_raise_pooled, "a bad month in ten is a bad future in ten", "into one pot"),
            Wrong(_raise_lowest, "the hole is the raise", "minus that"),
            Wrong(_raise_negative, "a quantile needs no thought", "not a negative raise"),
        ),
        hints=(
            "For one future: how much must it have at the start so that no month ends below zero?",
            "That is minus its lowest point, or nothing if it never goes below zero. You now have one number for each future: "
            "which of them, sorted, lets the share `chance` fall short?",
        ),
        check=_check_raise,
        uses=(_ECON + "montecarlo.simulate", "numpy.quantile"),
    ),
)
