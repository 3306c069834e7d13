"""Exercises of lab L10, the start-up simulator: 60 % within a budget, what a reserve buys, what turns a ranking round."""

import itertools

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong
from bigmodel_lab.rng import generator

# --- a: what a reserve buys -----------------------------------------------------------------------------------------

RESERVE = '''
def reserve(lowest_cash, target):
    """Return (extra, gained): the smallest extra cash, USD, with which the share
    `target` of companies never falls below zero, and what it gains.

    lowest_cash : float array (n,), USD, the lowest balance of each company, which
        went on below zero on credit
    target : share, above 0 and at most 1

    With `extra` more at the start, every balance is higher by that much. At least
    target * n companies must then have a lowest balance of 0 or more; extra is 0 if
    they have it already. gained : by how much the share that never falls below zero
    rises.
    """
    ...
'''


def reserve(lowest_cash, target):
    needed = np.sort(np.maximum(-lowest_cash, 0.0))
    enough = int(np.ceil(target * len(needed) - 1e-9))
    extra = needed[enough - 1]
    return float(extra), float(np.mean(lowest_cash + extra >= 0) - np.mean(lowest_cash >= 0))


def _reserve_mean(lowest_cash, target):
    extra = float(np.maximum(-lowest_cash, 0).mean())
    return extra, float(np.mean(lowest_cash + extra >= 0) - np.mean(lowest_cash >= 0))


def _reserve_other_side(lowest_cash, target):
    return reserve(lowest_cash, max(1 - target, 1 / len(lowest_cash)))


def _reserve_negative(lowest_cash, target):
    extra = float(np.sort(-lowest_cash)[int(np.ceil(target * len(lowest_cash) - 1e-9)) - 1])
    return extra, float(np.mean(lowest_cash + extra >= 0) - np.mean(lowest_cash >= 0))


def _reserve_after(lowest_cash, target):
    extra, _ = reserve(lowest_cash, target)
    return extra, float(np.mean(lowest_cash + extra >= 0))


def _reserve_smoothed(lowest_cash, target):
    extra = max(0.0, float(np.quantile(-lowest_cash, target)))
    return extra, float(np.mean(lowest_cash + extra >= 0) - np.mean(lowest_cash >= 0))


def _check_reserve(fn):
    rng = generator(0, "L10", "reserve")
    small = np.array([-30.0, 10.0, -5.0, 40.0, -50.0, 25.0, 5.0, -20.0, 60.0, 15.0])
    cases = [(small, 0.8), (small, 0.5), (small, 1.0), (np.array([3.0, -4.0]), 0.5)]
    cases += [(rng.normal(1e5, 3e5, n), t) for n, t in ((37, 0.9), (200, 0.65), (200, 0.3))]
    for lowest, target in cases:
        got, want = fn(lowest.copy(), target), reserve(lowest, target)
        case = dict(given={"lowest_cash": lowest, "target": target}, got=got, want=want)
        try:
            extra, gained = (float(x) for x in got)
        except (TypeError, ValueError):
            raise Miss("two numbers are asked for, (extra, gained).", **case) from None
        alive = np.mean(lowest + extra >= 0)
        if extra < 0:
            raise Miss("a reserve is never negative: 0 if so many do well already.", **case)
        if abs(extra - np.maximum(-lowest, 0).mean()) < 1e-9 and extra != want[0]:
            raise Miss("that is the mean of what is lacking: it helps those who lack little and is too little for the rest.", **case)  # fmt: skip
        needs = np.append(np.maximum(-lowest, 0), 0)
        if np.abs(needs - extra).min() > 1e-6 * max(1, extra):
            raise Miss("nobody lacks just that much: a quantile between two companies pays for more than one and not for the next.", **case)  # fmt: skip
        if alive < target - 1e-9:
            raise Miss(
                f"with that, {alive:.0%} do well: the share that may fail is not the target.",
                **case,
            )
        if abs(extra - want[0]) > 1e-6 * max(1, abs(want[0])):
            raise Miss(f"that is enough for {alive:.0%}, and less would do.", **case)
        if abs(gained - want[1]) > 1e-9:
            if abs(gained - alive) < 1e-9:
                raise Miss(
                    "gained is the rise of the share, and that is the share afterwards.", **case
                )
            raise Miss("extra is right, gained is not.", **case)
    return "seven sets of companies, from 2 to 200, against counting"


# --- b: sixty per cent within a budget ------------------------------------------------------------------------------

BUY = '''
def buy(prices, budget, survival):
    """Return the set of measures with the highest survival that the budget pays for,
    as a list of names.

    prices : dict from a measure's name to its price, USD
    budget : USD; the prices of the set must not add up to more
    survival : survival(names) simulates the company with these measures, paid from
        its cash, and returns the share that is alive after 36 months; survival([]) is
        the company as it is

    There are at most six measures. What one does may depend on the others. Some set
    within the budget reaches 60 %.
    """
    ...
'''


def buy(prices, budget, survival):
    sets = [list(s) for n in range(len(prices) + 1) for s in itertools.combinations(prices, n)]
    affordable = [s for s in sets if sum(prices[name] for name in s) <= budget]
    return max(affordable, key=survival)


def _buy_enough(prices, budget, survival):
    sets = [list(s) for n in range(len(prices) + 1) for s in itertools.combinations(prices, n)]
    for names in sorted(sets, key=lambda s: sum(prices[name] for name in s)):
        if survival(names) >= 0.6:
            return names


def _buy_rich(prices, budget, survival):
    return buy(prices, float("inf"), survival)


def _buy_one_at_a_time(prices, budget, survival):
    base, chosen = survival([]), []
    gains = {name: survival([name]) - base for name in prices}
    for name in sorted(prices, key=lambda n: -gains[n] / prices[n]):
        if sum(prices[n] for n in chosen) + prices[name] <= budget:
            chosen.append(name)
    return chosen


def _buy_cheapest_first(prices, budget, survival):
    chosen = []
    for name in sorted(prices, key=prices.get):
        if sum(prices[n] for n in chosen) + prices[name] <= budget:
            chosen.append(name)
    return chosen


def _menus():
    """Prices, budget and survival: three by formula, where measures help or hinder each other, and a simulated company."""
    prices = {"support": 50e3, "sales": 100e3, "cache": 150e3}

    def table(alone, together):
        def survival(names):
            names = frozenset(names)
            return (
                0.4
                + sum(alone[n] for n in names)
                + sum(x for s, x in together.items() if set(s) <= names)
            )

        return survival

    yield (
        prices,
        250e3,
        table({"support": 0.02, "sales": 0.05, "cache": 0.22}, {("sales", "cache"): 0.05}),
    )
    yield (
        prices,
        250e3,
        table({"support": 0.05, "sales": 0.02, "cache": 0.2}, {("support", "cache"): -0.15}),
    )
    yield (
        prices,
        300e3,
        table({"support": 0.11, "sales": 0.12, "cache": 0.1}, {("sales", "cache"): -0.2}),
    )
    yield simulated()


def simulated():
    """The company of exercise b in the lab: prices, budget, survival(names)."""
    from bigmodel_lab.econ import Company, simulate

    company = Company(
        cash=2e6, price=1400, serving_cost=450, fixed=165e3, new_customers=14, churn=0.035, growth=0.03, cac=4000,
        market=5000, shock=0.3, persistence=0.6, incident_probability=0.03, incident_cost=150e3,
        unsure=dict(new_customers=0.4, churn=0.3, price=0.1, serving_cost=0.3),
    )  # fmt: skip
    effect = {  # price, and the assumption that it multiplies
        "onboarding": (60e3, "churn", 0.75),
        "security": (90e3, "incident_probability", 0.3),
        "caching": (150e3, "serving_cost", 0.7),
        "referrals": (120e3, "cac", 0.6),
        "sales": (260e3, "new_customers", 1.35),
    }

    def survival(names):
        x = company.numbers()
        paid = sum(effect[name][0] for name in names)
        changes = {effect[n][1]: x[effect[n][1]] * effect[n][2] for n in names}
        return simulate(company.but(**changes, cash=x["cash"] - paid), 4000, 36).survival()

    return {name: row[0] for name, row in effect.items()}, 500e3, survival


def _check_buy(fn):
    for prices, budget, survival in _menus():
        want = buy(prices, budget, survival)
        assert survival(want) >= 0.6, "a menu must hold what its stub promises"
        got = fn(dict(prices), budget, survival)
        case = dict(given={"prices": prices, "budget": budget}, got=got, want=want)
        names = list(got)
        if not set(names) <= prices.keys() or len(set(names)) < len(names):
            raise Miss("each name must be one of prices, and once.", **case)
        cost, alive, best = sum(prices[n] for n in names), survival(names), survival(want)
        if cost > budget:
            raise Miss(f"it costs {cost:,.0f} USD: more than the budget.", **case)
        if alive >= best - 1e-12:
            continue
        said = f"with it {alive:.1%} survive and {best:.1%} could"
        if sorted(names) == sorted(_buy_cheapest_first(prices, budget, survival)):
            raise Miss(f"{said}: what is cheap is not what helps.", **case)
        if sorted(names) == sorted(_buy_one_at_a_time(prices, budget, survival)):
            raise Miss(f"{said}: gains seen one at a time do not add up.", **case)
        if alive >= 0.6:
            raise Miss(f"{said}: 60 % is the least, and the budget buys more.", **case)
        raise Miss(f"{said}.", **case)
    return "three small menus, and a simulated company"


# --- c: what turns a ranking round ----------------------------------------------------------------------------------

DRIVER = '''
def driver(lead, base, ranges):
    """Return (name, value): the assumption that turns the ranking round, and the value
    at which it turns.

    lead : lead(assumptions) is the survival of strategy A minus that of B; it rises or
        falls all the way along each assumption
    base : dict from an assumption's name to its value
    ranges : dict from a name to (low, high), between which it may lie; the others stay
        as in base

    An assumption turns the ranking round if A leads at one end of its range and B at
    the other. Of those take the one with the largest swing, |lead(high) - lead(low)|.
    value : where lead is zero, right to 1 % of the range. At least one assumption does.
    """
    ...
'''


def driver(lead, base, ranges):
    found = (0.0, None, None)
    for name, (low, high) in ranges.items():
        at_low, at_high = (lead(base | {name: x}) for x in (low, high))
        if at_low * at_high < 0 and abs(at_high - at_low) > found[0]:
            a, b = low, high
            while abs(b - a) > 0.01 * abs(high - low):
                middle = (a + b) / 2
                if lead(base | {name: middle}) * at_low > 0:
                    a = middle
                else:
                    b = middle
            found = abs(at_high - at_low), name, (a + b) / 2
    return found[1:]


def _driver_widest(lead, base, ranges):
    swing = {n: abs(np.subtract(*(lead(base | {n: x}) for x in ranges[n]))) for n in ranges}
    name = max(swing, key=swing.get)
    return driver(lead, base, {name: ranges[name]})[0] or name, driver(lead, base, {name: ranges[name]})[1] or np.mean(ranges[name])  # fmt: skip


def _driver_first(lead, base, ranges):
    for name in ranges:
        if driver(lead, base, {name: ranges[name]})[0]:
            return driver(lead, base, {name: ranges[name]})
    return None, None


def _driver_line(lead, base, ranges):
    name, _ = driver(lead, base, ranges)
    if name is None:
        return None, None
    (low, high), (a, b) = ranges[name], (lead(base | {name: x}) for x in ranges[name])
    return name, low + (high - low) * a / (a - b)


def _driver_middle(lead, base, ranges):
    name, _ = driver(lead, base, ranges)
    return name, None if name is None else sum(ranges[name]) / 2


def _driver_cases():
    def formula(terms, constant):
        return lambda x: constant + sum(f(x[name]) for name, f in terms.items())

    base = {"churn": 0.03, "training": 3e4, "cash": 2e6}
    ranges = {"churn": (0.01, 0.09), "training": (0.0, 1.2e5), "cash": (1e6, 4e6)}
    bend = {"churn": lambda c: -0.3 * np.tanh(40 * (c - 0.02)), "training": lambda t: 0.1 - 2.5e-6 * t,
            "cash": lambda c: 0.05 * np.log(c / 2e6)}  # fmt: skip
    yield formula(bend, 0.1), base, ranges
    strong = bend | {"cash": lambda c: 0.9 * c / 1e6}  # moves most and never turns it
    yield formula(strong, -0.75), base | {"cash": 1e6}, ranges | {"training": (0.0, 3e5)}
    both = {
        "churn": lambda c: -3 * (c - 0.03),
        "training": lambda t: -((t / 1e5) ** 3) + 0.02,
        "cash": lambda c: 0,
    }
    yield formula(both, 0.0), base, ranges
    yield _simulated_lead()


def _simulated_lead():
    from bigmodel_lab.econ import STRATEGIES, Company, simulate

    company = Company(
        cash=2.2e6, price=1440, serving_cost=430, fixed=150e3, new_customers=15, churn=0.03, growth=0.03, market=5000,
        cac=4000, shock=0.3, persistence=0.6, unsure=dict(new_customers=0.4, churn=0.3),
    )  # fmt: skip

    def lead(x):
        alive = []
        for name in ("joint", "market-driven"):
            own = company.but(cash=x["cash"], new_customers=x["new_customers"])
            made = STRATEGIES[name].company(own, x["training"])
            alive.append(simulate(made, 3000, 36).survival())
        return alive[0] - alive[1]

    base = {"cash": 2.2e6, "new_customers": 15.0, "training": 2.7e4}
    return lead, base, {"cash": (1.8e6, 3e6), "new_customers": (12.0, 20.0), "training": (0.0, 2e5)}


def _check_driver(fn):
    for lead, base, ranges in _driver_cases():
        want = driver(lead, base, ranges)
        got = fn(lead, dict(base), dict(ranges))
        case = dict(given={"base": base, "ranges": ranges}, got=got, want=want)
        try:
            name, value = got
        except (TypeError, ValueError):
            raise Miss("a name and a value are asked for, or (None, None).", **case) from None
        if name not in ranges:
            raise Miss("the name must be one of ranges.", **case)
        low, high = ranges[name]
        at_low, at_high = (lead(base | {name: x}) for x in (low, high))
        if at_low * at_high >= 0:
            raise Miss(f"{name} moves the lead from {at_low:.2f} to {at_high:.2f}: far, and the same one stays ahead.", **case)  # fmt: skip
        if name != want[0]:
            raise Miss(f"{name} turns it round, and {want[0]} does with a larger swing.", **case)
        if abs(value - want[1]) > 0.0151 * (high - low):
            middle, line = (low + high) / 2, low + (high - low) * at_low / (at_low - at_high)
            if abs(value - middle) < 1e-9 * high:
                raise Miss(
                    "that is the middle of the range, not the place where lead is zero.", **case
                )
            if abs(value - line) < 1e-9 * high:
                raise Miss(
                    "a straight line between the ends misses: lead bends in between.", **case
                )
            raise Miss(f"lead there is {lead(base | {name: value}):.3f}, not zero.", **case)
    return "three leads by formula and one by simulation"


EXERCISES = (
    Exercise(
        id="L10-a",
        title="What a reserve buys",
        difficulty=1,
        minutes=10,
        stub=RESERVE,
        reference=reserve,
        wrong=(
            Wrong(
                _reserve_mean, "a reserve is the expected shortfall", "the mean of what is lacking"
            ),
            Wrong(
                _reserve_other_side, "a 80 % target is the 20 % quantile", "the share that may fail"
            ),
            Wrong(_reserve_negative, "spare cash is a negative reserve", "never negative"),
            Wrong(_reserve_after, "gained is the share afterwards", "that is the share afterwards"),
            Wrong(
                _reserve_smoothed,
                "an interpolated quantile will do",
                "a quantile between two companies",
            ),
        ),
        hints=(
            "What would company i alone need, so that its lowest balance is 0?",
            "Sort these needs. How many companies must be covered, if 80 % of 37 are?",
        ),
        check=_check_reserve,
    ),
    Exercise(
        id="L10-b",
        title="Sixty per cent within a budget",
        difficulty=2,
        minutes=15,
        stub=BUY,
        reference=buy,
        wrong=(
            Wrong(_buy_enough, "60 % is the goal", "the budget buys more"),
            Wrong(_buy_rich, "the budget is a wish", "more than the budget"),
            Wrong(_buy_one_at_a_time, "gains add up", "do not add up"),
            Wrong(_buy_cheapest_first, "cheap things first", "what is cheap is not what helps"),
        ),
        hints=(
            "Six measures have 64 sets: few enough to look at each of them.",
            "itertools.combinations(prices, n) gives the sets of n names.",
        ),
        check=_check_buy,
        limit_s=30.0,
    ),
    Exercise(
        id="L10-c",
        title="What turns a ranking round",
        difficulty=3,
        minutes=20,
        stub=DRIVER,
        reference=driver,
        wrong=(
            Wrong(
                _driver_widest, "the longest bar explains everything", "the same one stays ahead"
            ),
            Wrong(
                _driver_first, "the first that turns it is the reason", "does with a larger swing"
            ),
            Wrong(_driver_line, "survival is a straight line", "lead bends in between"),
            Wrong(_driver_middle, "it turns in the middle", "the middle of the range"),
        ),
        hints=(
            "A tornado's bar has two ends. What do their signs say?",
            "Halve the interval, and keep the half whose ends have different signs.",
        ),
        check=_check_driver,
        limit_s=30.0,
    ),
)
