"""Exercises of chapter c27, case studies: sort a claim, weigh a trait, a day's margin, an alarm somewhere else."""

import math

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator


def _tell(messages, got, want, args, given):
    """Raise Miss with the message of the mistake that gives `got`, if one does and it is not right here by chance."""
    for mistake, message in messages.items():
        off = mistake(*args)
        if _equal(got, off) and not _equal(off, want):
            raise Miss(message, given=given, got=got, want=want)


def _equal(a, b):
    return bool(np.isclose(float(a), float(b), rtol=1e-9, atol=1e-12))


# --- a: measured or asserted ----------------------------------------------------------------------------------------

SORT = '''
def evidence(number, source, inputs):
    """Return "recomputable", "measured" or "asserted".

    number : float that the claim states, or None
    source : str, where the number can be looked up; "" if nothing is said
    inputs : dict of what the number follows from, name -> value;
             None for a value that is not given, {} if nothing is named
    A number with a source is measured; if all its inputs are there as
    well, it is recomputable.
    """
    ...
'''


def evidence(number, source, inputs):
    if number is None or not source:
        return "asserted"
    known = bool(inputs) and all(value is not None for value in inputs.values())
    return "recomputable" if known else "measured"


def _sort_truth(number, source, inputs):
    if not number or not source:
        return "asserted"
    known = bool(inputs) and all(value is not None for value in inputs.values())
    return "recomputable" if known else "measured"


def _sort_number(number, source, inputs):
    if number is None:
        return "asserted"
    known = bool(inputs) and all(value is not None for value in inputs.values())
    return "recomputable" if known else "measured"


def _sort_source(number, source, inputs):
    return "asserted" if not source else evidence(0.0 if number is None else number, source, inputs)


def _sort_empty(number, source, inputs):
    if number is None or not source:
        return "asserted"
    return "recomputable" if all(v is not None for v in inputs.values()) else "measured"


def _sort_some(number, source, inputs):
    if number is None or not source:
        return "asserted"
    return "recomputable" if inputs else "measured"


def _check_sort(fn):
    whole = {"revenue": 562_027.0, "cost": 87_072.0}
    cases = [
        ((84.5, "a report", whole), None),
        ((5.0, "a report", {"revenue": None}), "an input that is named but not given helps nobody: all must have a value."),
        ((5.0, "a report", {}), "nothing is named, so nothing can be computed: all() of nothing is True."),
        ((98.0, "", whole), "a number that nobody can look up is asserted, however exact it is."),
        ((None, "a report", whole), "a source without a number is still no measurement."),
        ((0.0, "a report", {"deaths": 0.0}), "zero is a number, and so is an input of zero: compare with None."),
        ((None, "", {}), "neither number nor source: asserted."),
        ((7.0, "a report", {"a": 1.0, "b": None}), "one of two inputs is missing: all must have a value."),
    ]  # fmt: skip
    for (number, source, inputs), message in cases:
        got, want = fn(number, source, dict(inputs)), evidence(number, source, inputs)
        given = {"number": number, "source": source, "inputs": inputs}
        if got not in ("recomputable", "measured", "asserted"):
            raise Miss("the answer is one of the three words.", given=given, got=got, want=want)
        if got != want:
            why = message or "number, source and all inputs are there."
            raise Miss(why, given=given, got=got, want=want)
    return "eight claims"


# --- b: what a trait says -------------------------------------------------------------------------------------------

BAYES = '''
def bayes_factor(winners_with, winners, losers_with, losers):
    """Return by what factor a trait multiplies the odds of winning,
    a float; infinity if no loser has the trait.

    winners, losers : how many companies of each, at least 1
    winners_with, losers_with : how many of them have the trait;
        at least one company has it
    """
    ...
'''


def bayes_factor(winners_with, winners, losers_with, losers):
    if losers_with == 0:
        return math.inf
    return (winners_with / winners) / (losers_with / losers)


def _bayes_winners(winners_with, winners, losers_with, losers):
    return winners_with / winners


def _bayes_counts(winners_with, winners, losers_with, losers):
    return winners_with / losers_with if losers_with else math.inf


def _bayes_lift(winners_with, winners, losers_with, losers):
    overall = (winners_with + losers_with) / (winners + losers)
    return winners_with / winners / overall


def _bayes_posterior(winners_with, winners, losers_with, losers):
    return winners_with / (winners_with + losers_with)


def _bayes_odds(winners_with, winners, losers_with, losers):
    a, b, c, d = winners_with, winners - winners_with, losers_with, losers - losers_with
    return a * d / (b * c) if b * c else math.inf


def _bayes_upside_down(winners_with, winners, losers_with, losers):
    return (losers_with / losers) / (winners_with / winners) if winners_with else math.inf


def _check_bayes(fn):
    messages = {
        _bayes_winners: "that is how common the trait is among winners. It says nothing before you know how common it is "
        "among losers: divide by that.",
        _bayes_counts: "these are counts. There are many more losers than winners: compare shares of each group.",
        _bayes_lift: "you divided by the share among all companies, winners included; divide by the share among losers.",
        _bayes_odds: "that is the odds ratio of having the trait against not having it. Here we only learn that a company "
        "has it: the ratio of the two shares.",
        _bayes_posterior: "that is the share of winners among companies with the trait. It depends on how many losers there are "
        "in all; the factor does not.",
        _bayes_upside_down: "upside down: the share among winners goes on top.",
    }
    cases = [(9, 10, 450, 500), (9, 10, 100, 500), (1, 10, 300, 500), (3, 4, 0, 2), (4, 5, 7, 50)]
    g = generator(0, "c27-b")
    for _ in range(20):
        w, n = (int(x) for x in g.integers([2, 20], [40, 400]))
        cases.append((int(g.integers(1, w + 1)), w, int(g.integers(1, n + 1)), n))
    for case in cases:
        names = ("winners_with", "winners", "losers_with", "losers")
        given = dict(zip(names, case, strict=True))
        got, want = fn(*case), bayes_factor(*case)
        _tell(messages, got, want, case, given)
        if math.isinf(want):
            if not math.isinf(float(got)):
                raise Miss("no loser has the trait: infinity.", given=given, got=got, want=want)
            continue
        expect("the Bayes factor", got, want, 1e-9, given=given)
    return "25 pairs of groups"


# --- c: a day of serving under your own assumptions ------------------------------------------------------------------

DAY = '''
def day_margin(tokens, prices, paid, devices, device_price):
    """Return the gross margin of a day of serving, a float; negative
    for a loss.

    tokens : dict of the day's tokens in millions: "hit" and "miss" are
             input found and not found in a cache, "output" the answers
    prices : dict with the same keys, USD a million tokens
    paid : share of all tokens that somebody pays for, above 0
    devices : in use on average, day and night
    device_price : USD a device and hour
    """
    ...
'''


def day_margin(tokens, prices, paid, devices, device_price):
    revenue = paid * sum(tokens[kind] * prices[kind] for kind in tokens)
    cost = devices * 24 * device_price
    return 1 - cost / revenue


def _day_on_cost(tokens, prices, paid, devices, device_price):
    revenue = paid * sum(tokens[kind] * prices[kind] for kind in tokens)
    return revenue / (devices * 24 * device_price) - 1


def _day_all_paid(tokens, prices, paid, devices, device_price):
    return day_margin(tokens, prices, 1.0, devices, device_price)


def _day_no_cache(tokens, prices, paid, devices, device_price):
    return day_margin(tokens, prices | {"hit": prices["miss"]}, paid, devices, device_price)


def _day_one_hour(tokens, prices, paid, devices, device_price):
    return day_margin(tokens, prices, paid, devices / 24, device_price)


def _day_cheap_when_free(tokens, prices, paid, devices, device_price):
    return 1 - paid * (1 - day_margin(tokens, prices, 1.0, devices, device_price))


def _day_floor(tokens, prices, paid, devices, device_price):
    return max(0.0, day_margin(tokens, prices, paid, devices, device_price))


def _check_day(fn):
    messages = {
        _day_on_cost: "that is profit over cost, what the famous 545 % is. A gross margin is profit over revenue.",
        _day_all_paid: "tokens that nobody pays for are served all the same: the share paid lowers revenue, and the cost "
        "stays.",
        _day_no_cache: "input found in the cache has its own, lower price.",
        _day_one_hour: "a day has 24 hours, and the price is for one.",
        _day_cheap_when_free: "you made the cost smaller, too: a token that nobody pays for costs as much as any other.",
        _day_floor: "a loss is a negative margin, not zero.",
    }
    g = generator(0, "c27-c")
    cases = [
        ({"hit": 4.0, "miss": 2.0, "output": 1.0}, {"hit": 1.0, "miss": 2.0, "output": 8.0}, 0.5, 1.0, 0.125),
        ({"hit": 4.0, "miss": 2.0, "output": 1.0}, {"hit": 1.0, "miss": 2.0, "output": 8.0}, 0.25, 2.0, 0.5),
    ]  # fmt: skip
    for _ in range(10):
        a, b, (paid, rate) = (
            g.uniform(1, 500, 3),
            g.uniform(0.1, 9, 3),
            g.uniform([0.1, 0.5], [0.95, 4]),
        )
        kinds = ("hit", "miss", "output")
        tokens, prices = (
            dict(zip(kinds, map(float, a), strict=True)),
            dict(zip(kinds, map(float, b), strict=True)),
        )
        cases.append((tokens, prices, float(paid), float(g.integers(1, 40)), float(rate)))
    names = ("tokens", "prices", "paid", "devices", "device_price")
    for case in cases:
        given = dict(zip(names, case, strict=True))
        got, want = fn(dict(case[0]), dict(case[1]), *case[2:]), day_margin(*case)
        _tell(messages, got, want, case, given)
        expect("the gross margin", got, want, 1e-9, given=given)
    return "twelve days, some of them losses"


# --- d: the same alarm in another hospital ----------------------------------------------------------------------------

ALARM = '''
def moved_precision(base, alarms, caught, new_base):
    """Return the precision of an alarm in another hospital: the share
    of its alarms that are right.

    base : share of patients who are ill in the first hospital
    alarms : share of its patients for whom the alarm sounds
    caught : share of its ill patients for whom it sounds
    new_base : share who are ill in the other hospital

    The alarm is as good there as here: it catches the same share of
    the ill and disturbs the same share of the well.
    """
    ...
'''


def moved_precision(base, alarms, caught, new_base):
    disturbed = (alarms - base * caught) / (1 - base)  # share of the well
    right, wrong = new_base * caught, (1 - new_base) * disturbed
    return right / (right + wrong)


def _alarm_same(base, alarms, caught, new_base):
    return base * caught / alarms


def _alarm_share_fixed(base, alarms, caught, new_base):
    return new_base * caught / alarms


def _alarm_not_of_the_well(base, alarms, caught, new_base):
    disturbed = alarms - base * caught
    return new_base * caught / (new_base * caught + (1 - new_base) * disturbed)


def _alarm_caught(base, alarms, caught, new_base):
    return caught


def _alarm_rest_disturbed(base, alarms, caught, new_base):
    return new_base * caught / (new_base * caught + (1 - new_base) * (1 - caught))


def _alarm_all_disturbed(base, alarms, caught, new_base):
    return new_base * caught / (new_base * caught + (1 - new_base) * alarms)


def _check_alarm(fn):
    messages = {
        _alarm_same: "that is the first hospital's precision. Precision does not travel: fewer ill patients, fewer right "
        "alarms among as many false ones.",
        _alarm_share_fixed: "you kept the share of alarms; with more or fewer ill patients it changes, too. Build it anew "
        "from both kinds of alarm.",
        _alarm_not_of_the_well: "alarms - base * caught is the share of false alarms among ALL patients; divide it by 1 - base "
        "to get the share of the well.",
        _alarm_caught: "that is the sensitivity: of the ill, how many are caught. Precision: of the alarms, how many are "
        "right.",
        _alarm_rest_disturbed: "1 - caught is the share of the ill who are missed; it says nothing about the well.",
        _alarm_all_disturbed: "the well are disturbed less often than all patients are: take the right alarms out first.",
    }
    cases = [
        (0.2, 0.3, 0.5, 0.05),
        (0.1, 0.1, 0.6, 0.3),
        (2552 / 38455, 6971 / 38455, 843 / 2552, 0.01),
    ]
    g = generator(0, "c27-d")
    for _ in range(20):
        base, caught, disturbed, new = g.uniform([0.02, 0.2, 0.02, 0.005], [0.4, 0.95, 0.4, 0.5])
        alarms = base * caught + (1 - base) * disturbed
        cases.append(tuple(float(x) for x in (base, alarms, caught, new)))
    for case in cases:
        given = dict(zip(("base", "alarms", "caught", "new_base"), case, strict=True))
        got, want = fn(*case), moved_precision(*case)
        _tell(messages, got, want, case, given)
        expect("the precision", got, want, 1e-9, given=given)
    return "23 pairs of hospitals"


EXERCISES = (
    Exercise(
        id="c27-a",
        title="Measured or asserted",
        difficulty=1,
        minutes=8,
        stub=SORT,
        reference=evidence,
        wrong=(
            Wrong(_sort_some, "an input that is named is given", "named but not given"),
            Wrong(_sort_empty, "all() of nothing is False", "all() of nothing is True"),
            Wrong(_sort_number, "a precise number is a measurement", "nobody can look up"),
            Wrong(_sort_source, "a source is enough", "a source without a number"),
            Wrong(_sort_truth, "`if number` asks whether there is one", "zero is a number"),
        ),
        hints=(
            "There are two ways to be asserted. Deal with them first.",
            "None and 0.0 are different; so are {} and a dict whose values are all given.",
        ),
        check=_check_sort,
    ),
    Exercise(
        id="c27-b",
        title="What a trait says about winning",
        difficulty=1,
        minutes=10,
        stub=BAYES,
        reference=bayes_factor,
        wrong=(
            Wrong(_bayes_winners, "winners alone tell", "among winners. It says nothing"),
            Wrong(_bayes_counts, "counts compare", "many more losers than winners"),
            Wrong(_bayes_lift, "compare winners with everybody", "winners included"),
            Wrong(_bayes_odds, "the odds ratio is the Bayes factor", "odds ratio of having"),
            Wrong(_bayes_posterior, "the share of winners is the factor", "share of winners among"),
            Wrong(_bayes_upside_down, "losers go on top", "upside down"),
        ),
        hints=(
            "odds after = odds before * P(trait | winner) / P(trait | loser).",
            "If nine in ten of the losers have the trait as well, the answer is 1.",
        ),
        check=_check_bayes,
    ),
    Exercise(
        id="c27-c",
        title="A day of serving under your own assumptions",
        difficulty=2,
        minutes=12,
        stub=DAY,
        reference=day_margin,
        wrong=(
            Wrong(_day_on_cost, "margin is profit over cost", "profit over cost, what"),
            Wrong(_day_all_paid, "every token is paid for", "served all the same"),
            Wrong(_day_no_cache, "input has one price", "its own, lower price"),
            Wrong(_day_one_hour, "the hourly price is for the day", "a day has 24 hours"),
            Wrong(_day_cheap_when_free, "free tokens cost nothing", "made the cost smaller"),
            Wrong(_day_floor, "margins start at zero", "a loss is a negative margin"),
        ),
        hints=(
            "Three products make the revenue, one product of three factors the cost.",
            "With the published day and paid=1 the answer is 0.845; with a fifth of the tokens paid it is 0.225.",
        ),
        check=_check_day,
        uses=("bigmodel_lab.econ.pricing.gross_margin",),
    ),
    Exercise(
        id="c27-d",
        title="The same alarm in another hospital",
        difficulty=3,
        minutes=20,
        stub=ALARM,
        reference=moved_precision,
        wrong=(
            Wrong(_alarm_same, "precision belongs to the alarm", "Precision does not travel"),
            Wrong(_alarm_share_fixed, "as many alarms everywhere", "you kept the share of alarms"),
            Wrong(_alarm_not_of_the_well, "false alarms over all", "among ALL patients"),
            Wrong(_alarm_caught, "sensitivity is precision", "that is the sensitivity"),
            Wrong(
                _alarm_rest_disturbed,
                "1 - sensitivity is the false alarms",
                "the ill who are missed",
            ),
            Wrong(_alarm_all_disturbed, "all alarms are false", "disturbed less often"),
        ),
        hints=(
            "Draw a square: ill patients at the left, well ones at the right; shade the alarms in both parts.",
            "First, from the first hospital: what share of the WELL are disturbed?",
            "Then, in the other one: right alarms over right plus false ones.",
        ),
        check=_check_alarm,
    ),
)
