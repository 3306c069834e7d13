"""Exercises of chapter c21, business models: a subscription's ceiling, mean growth, lifetime value, a safe flat fee."""

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect
from bigmodel_lab.rng import generator


def _recognise(got, want, mistakes, given):
    """Raise Miss with the message of the mistake that gives `got`; mistakes: (wrong value, message) each."""
    for off, message in mistakes:
        if np.isclose(got, off, rtol=1e-9) and not np.isclose(off, want, rtol=1e-7):
            raise Miss(message, given=given, got=float(got), want=want)


# --- a: subscribers after t months, and in the end --------------------------------------------------------------------

SUBSCRIBERS = '''
def subscribers(new, churn, months):
    """Return (customers after `months` months, customers in the steady state), two floats.

    Each month first the share `churn` of those who are there leaves, then `new` join. At first
    nobody is there.
    new : customers a month      churn : share that leaves a month, above 0, up to 1
    months : int, at least 1
    """
    ...
'''


def subscribers(new, churn, months):
    ceiling = new / churn
    return ceiling * (1 - (1 - churn) ** months), ceiling


def _subscribers_straight(new, churn, months):
    return float(new * months), new / churn


def _subscribers_times(new, churn, months):
    return new * months * (1 - churn), new / churn


def _subscribers_linear(new, churn, months):
    return new * months * max(0.0, 1 - churn * months), new / churn


def _subscribers_join_first(new, churn, months):
    return (1 - churn) * subscribers(new, churn, months)[0], new / churn


def _subscribers_month_late(new, churn, months):
    return subscribers(new, churn, months - 1)[0], new / churn


def _subscribers_ceiling_late(new, churn, months):
    return subscribers(new, churn, months)[0], new * (1 - churn) / churn


def _subscribers_yearly(new, churn, months):
    return subscribers(new, churn, months)[0], new / (12 * churn)


def _check_subscribers(fn):
    first = (
        (_subscribers_straight, "nobody ever leaves in that count: after a long time it is far too high."),
        (_subscribers_times, "churn works every month on everybody who is there, not once on everybody who came."),
        (_subscribers_linear, "losses compound: a customer is there after t months with probability (1 - churn)^t."),
        (
            _subscribers_join_first,
            "you let this month's new customers leave at once: first some of the old ones leave, then the new ones join.",
        ),
        (_subscribers_month_late, "that is one month too early: after the first month `new` customers are there already."),
    )  # fmt: skip
    second = (
        (
            _subscribers_ceiling_late,
            "the steady state is counted after the new ones have joined: it loses churn * ceiling and wins `new`.",
        ),
        (_subscribers_yearly, "churn is a month's share already: dividing by 12 of them mixes months and years."),
    )  # fmt: skip
    for args in ((100, 0.05, 24), (10, 0.5, 2), (250, 0.03, 120), (7, 1.0, 5)):
        got, want = fn(*args), subscribers(*args)
        given = dict(zip(("new", "churn", "months"), args, strict=True))
        if not isinstance(got, tuple | list) or len(got) != 2:
            raise Miss("return two numbers: customers after `months`, and in the steady state.")
        for at, mistakes in ((0, first), (1, second)):
            _recognise(got[at], want[at], [(m(*args)[at], said) for m, said in mistakes], given)
        expect("customers after `months`", got[0], want[0], 1e-9, given=given)
        expect("customers in the steady state", got[1], want[1], 1e-9, given=given)
    return "four companies, one that loses everybody each month"


# --- b: mean growth ---------------------------------------------------------------------------------------------------

GROWTH = '''
def mean_growth(revenues):
    """Return the constant growth a year, a float, that leads from first to last revenue.

    revenues : float array (N,), N >= 2, revenue of consecutive years, all above 0
    """
    ...
'''


def mean_growth(revenues):
    return float((revenues[-1] / revenues[0]) ** (1 / (len(revenues) - 1)) - 1)


def _growth_arithmetic(revenues):
    return float(np.mean(revenues[1:] / revenues[:-1] - 1))


def _growth_total_over_years(revenues):
    return float((revenues[-1] / revenues[0] - 1) / (len(revenues) - 1))


def _growth_one_year_too_many(revenues):
    return float((revenues[-1] / revenues[0]) ** (1 / len(revenues)) - 1)


def _growth_factor(revenues):
    return mean_growth(revenues) + 1


def _growth_median(revenues):
    return float(np.median(revenues[1:] / revenues[:-1] - 1))


def _growth_total(revenues):
    return float(revenues[-1] / revenues[0] - 1)


def _growth_log(revenues):
    return float(np.log(revenues[-1] / revenues[0]) / (len(revenues) - 1))


def _growth_percent(revenues):
    return 100 * mean_growth(revenues)


def _check_growth(fn):
    mistakes = (
        (
            _growth_arithmetic,
            "that averages the yearly rates. Rates multiply: +100 % and then -50 % are no growth, and average 25 %.",
        ),
        (
            _growth_total_over_years,
            "that spreads the whole growth evenly, as if it did not compound: take the root, not a part.",
        ),
        (_growth_one_year_too_many, "N revenues have N - 1 years between them."),
        (_growth_factor, "that is the factor a year; growth is the factor less 1."),
        (_growth_median, "a median year is not the mean: the other years have happened, too."),
        (_growth_total, "that is the growth of all years together: how much is it a year?"),
        (_growth_log, "that is the mean growth of the logarithm: take exp of it, less 1."),
        (_growth_percent, "right in percent; the rate is a share: 0.75 and not 75."),
    )
    g = generator(0, "c21-b")
    cases = [[1.0, 3.0, 2.0, 10.0], [2.0, 5.0], [100.0, 200.0, 100.0]]
    cases += [list(np.exp(np.cumsum(g.normal(0.2, 0.6, size=n)))) for n in (5, 9)]
    for case in cases:
        x = np.array(case)
        got, want, given = fn(x.copy()), mean_growth(x), {"revenues": x}
        _recognise(got, want, [(m(x), said) for m, said in mistakes], given)
        expect("mean growth", got, want, 1e-9, given=given)
    return "five series, one of which ends where it began"


# --- c: lifetime value ------------------------------------------------------------------------------------------------

LTV = '''
def lifetime_value(arpa, serving_cost, annual_churn):
    """Return the gross profit that a customer brings over its lifetime, in USD, a float.

    arpa, serving_cost : what a customer pays and costs, USD a month, both at each month's
        beginning, the first included
    annual_churn : share of customers that has left after a year; of those still there the same
        share leaves every month
    """
    ...
'''


def lifetime_value(arpa, serving_cost, annual_churn):
    monthly = 1 - (1 - annual_churn) ** (1 / 12)
    return (arpa - serving_cost) / monthly


def _ltv_revenue(arpa, serving_cost, annual_churn):
    return lifetime_value(arpa, 0.0, annual_churn)


def _ltv_twelfth(arpa, serving_cost, annual_churn):
    return (arpa - serving_cost) / (annual_churn / 12)


def _ltv_annual(arpa, serving_cost, annual_churn):
    return (arpa - serving_cost) / annual_churn


def _ltv_markup(arpa, serving_cost, annual_churn):
    return arpa * (arpa - serving_cost) / serving_cost / _ltv_rate(annual_churn)


def _ltv_late(arpa, serving_cost, annual_churn):
    return lifetime_value(arpa, serving_cost, annual_churn) - (arpa - serving_cost)


def _ltv_yearly(arpa, serving_cost, annual_churn):
    return 12 * (arpa - serving_cost) / annual_churn * (1 - annual_churn)


def _ltv_hazard(arpa, serving_cost, annual_churn):
    return (arpa - serving_cost) / (-np.log(1 - annual_churn) / 12)


def _ltv_rate(annual_churn):
    return 1 - (1 - annual_churn) ** (1 / 12)


def _check_ltv(fn):
    mistakes = (
        (_ltv_revenue, "that is lifetime revenue: what the customer costs to serve is not yours to keep."),
        (
            _ltv_twelfth,
            "a year's churn is not twelve times a month's: what is left after a year is (1 - monthly)^12.",
        ),
        (_ltv_annual, "a monthly profit over a yearly churn: bring both to one period."),
        (
            _ltv_markup,
            "margin was taken over the cost, the mark-up: gross margin divides profit by revenue.",
        ),
        (_ltv_late, "the first payment is due at once: the sum begins with month 0, when nobody has left."),
        (
            _ltv_yearly,
            "that counts whole years that the customer survives: it pays by the month until the month it leaves.",
        ),
        (
            _ltv_hazard,
            "-log(1 - annual) / 12 is for customers who leave at any moment: here they go once a month, the share "
            "1 - (1 - annual)^(1/12) of them.",
        ),
    )  # fmt: skip
    for args in ((100.0, 40.0, 0.3), (20.0, 11.0, 0.5), (500.0, 350.0, 0.08)):
        got, want = fn(*args), lifetime_value(*args)
        given = dict(zip(("arpa", "serving_cost", "annual_churn"), args, strict=True))
        _recognise(got, want, [(m(*args), said) for m, said in mistakes], given)
        expect("lifetime value", got, want, 1e-9, given=given)
    return "three products; the hand-made sum over months says the same"


# --- d: a flat fee that few users make a loss of --------------------------------------------------------------------

FEE = '''
def smallest_fee(tokens, cost, losing):
    """Return the smallest flat fee, USD a month, that loses money on few of these customers.

    Few: at most the share `losing` of them costs more than the fee.

    tokens : float array (n,), tokens that each customer uses a month
    cost : of serving, USD a million tokens      losing : from 0 to below 1, such as 0.02
    """
    ...
'''


def smallest_fee(tokens, cost, losing):
    spent = np.sort(tokens) * cost / 1e6
    may_lose = int(
        np.floor(losing * len(spent) + 1e-9)
    )  # so many of the heaviest; 1e-9 against rounding
    return float(spent[len(spent) - 1 - may_lose])


def _fee_mean(tokens, cost, losing):
    return float(tokens.mean() * cost / 1e6 / (1 - losing))


def _fee_light(tokens, cost, losing):
    return float(np.sort(tokens)[int(losing * len(tokens))] * cost / 1e6)


def _fee_unit(tokens, cost, losing):
    return 1e6 * smallest_fee(tokens, cost, losing)


def _fee_interpolated(tokens, cost, losing):
    return float(np.quantile(tokens, 1 - losing) * cost / 1e6)


def _fee_largest(tokens, cost, losing):
    return float(tokens.max() * cost / 1e6)


def _fee_one_more(tokens, cost, losing):
    spent = np.sort(tokens) * cost / 1e6
    return float(spent[len(spent) - max(1, int(np.floor(losing * len(spent) + 1e-9)))])


def _fee_rounded_up(tokens, cost, losing):
    spent = np.sort(tokens) * cost / 1e6
    return float(spent[len(spent) - 1 - int(np.ceil(losing * len(spent) - 1e-9))])


def _fee_tokens(tokens, cost, losing):
    spent = np.sort(tokens) * cost / 1e6
    return float(spent[np.searchsorted(np.cumsum(spent), (1 - losing) * spent.sum())])


def _check_fee(fn):
    mistakes = (
        (_fee_mean, "the mean customer says nothing about the tail, and it is the tail that loses you money."),
        (_fee_light, "that counts from the lightest customers: those who lose you money are the heaviest."),
        (_fee_unit, "cost is for a million tokens: divide by 1e6."),
        (_fee_largest, "with that fee nobody loses you money: a smaller one is allowed to lose the share `losing`."),
        (_fee_tokens, "you let the share `losing` of the cost go unpaid: the rule is about customers, not tokens."),
        (
            _fee_interpolated,
            "a quantile between two customers: the fee must be what one of them costs, or a smaller one will do, or too "
            "many lose.",
        ),
        (
            _fee_one_more,
            "one customer too careful: whoever costs exactly the fee loses you nothing, so the fee may be what the "
            "heaviest of the others costs.",
        ),
        (
            _fee_rounded_up,
            "one customer too many loses you money: the number that may is rounded down.",
        ),
    )  # fmt: skip
    g = generator(0, "c21-d")
    cases = [(np.array([4.0, 1.0, 2.0, 8.0, 3.0, 6.0]) * 1e6, 2.0, 0.4)]
    cases += [(g.lognormal(13, 1.6, size=n), c, share) for n, c, share in ((333, 6.0, 0.02), (50, 0.5, 0.1), (40, 3.0, 0.0))]  # fmt: skip
    right = [smallest_fee(*args) for args in cases]
    mine = [fn(args[0].copy(), *args[1:]) for args in cases]
    pairs = enumerate(zip(mine, right, strict=True))
    off = [i for i, (a, b) in pairs if np.ndim(a) == 0 and not np.isclose(a, b)]
    given = [dict(zip(("tokens", "cost", "losing"), args, strict=True)) for args in cases]
    for mistake, said in mistakes if off else ():  # told only if it explains all four answers
        if np.allclose(mine, [mistake(*args) for args in cases], rtol=1e-9):
            raise Miss(said, given=given[off[0]], got=float(mine[off[0]]), want=right[off[0]])
    for got, want, case in zip(mine, right, given, strict=True):
        expect("the smallest fee", got, want, 1e-9, given=case)
    return (
        "four groups of customers, from one in which two of six may lose to one in which nobody may"
    )


EXERCISES = (
    Exercise(
        id="c21-a",
        title="The ceiling of a subscription",
        difficulty=1,
        minutes=8,
        stub=SUBSCRIBERS,
        reference=subscribers,
        wrong=(
            Wrong(_subscribers_straight, "subscribers only add up", "nobody ever leaves"),
            Wrong(_subscribers_times, "churn applies once", "not once on everybody"),
            Wrong(_subscribers_linear, "churn adds up over months", "losses compound"),
            Wrong(_subscribers_join_first, "new customers leave at once", "new customers leave at"),
            Wrong(_subscribers_month_late, "the first month brings nobody", "one month too early"),
            Wrong(
                _subscribers_ceiling_late, "the ceiling is before joining", "counted after the new"
            ),
            Wrong(_subscribers_yearly, "churn x 12 is the yearly rate", "mixes months and years"),
        ),
        hints=(
            "In the steady state as many leave as join: churn * ceiling = new.",
            "The gap to the ceiling shrinks by the factor 1 - churn each month. At first the gap is the whole ceiling.",
        ),
        check=_check_subscribers,
        uses=("bigmodel_lab.econ.growth.steady_customers",),
    ),
    Exercise(
        id="c21-b",
        title="Mean growth",
        difficulty=1,
        minutes=5,
        stub=GROWTH,
        reference=mean_growth,
        wrong=(
            Wrong(_growth_arithmetic, "growth rates can be averaged", "averages the yearly rates"),
            Wrong(_growth_total_over_years, "growth is spread evenly", "did not compound"),
            Wrong(_growth_one_year_too_many, "N revenues are N years", "years between them"),
            Wrong(_growth_factor, "a factor is a rate", "that is the factor a year"),
            Wrong(_growth_median, "the typical year is the mean", "a median year is not"),
            Wrong(_growth_total, "growth has no period", "of all years together"),
            Wrong(_growth_log, "logarithms grow as revenues do", "growth of the logarithm"),
            Wrong(_growth_percent, "a rate is a percentage", "right in percent"),
        ),
        hints=(
            "Revenue doubles, then halves. What is the mean growth? Does your formula say 0?",
            "Growing at rate r for n years multiplies revenue by (1 + r)^n. How many years lie between N revenues?",
        ),
        check=_check_growth,
        uses=("bigmodel_lab.econ.growth.cagr",),
    ),
    Exercise(
        id="c21-c",
        title="Lifetime value from a yearly churn",
        difficulty=2,
        minutes=10,
        stub=LTV,
        reference=lifetime_value,
        wrong=(
            Wrong(_ltv_revenue, "LTV is revenue", "that is lifetime revenue"),
            Wrong(_ltv_twelfth, "yearly churn is 12 monthly ones", "not twelve times a month"),
            Wrong(_ltv_annual, "churn has no period", "bring both to one period"),
            Wrong(_ltv_markup, "margin is profit over cost", "was taken over the cost"),
            Wrong(_ltv_late, "customers pay at a month's end", "first payment is due at"),
            Wrong(_ltv_yearly, "customers leave at a year's end", "counts whole years"),
            Wrong(_ltv_hazard, "customers leave at any moment", "leave at any moment: here"),
        ),
        hints=(
            "Which share of the customers leaves in a month, if (1 - monthly)^12 = 1 - annual?",
            "Sum monthly profit * (1 - monthly)^t over t = 0, 1, 2, ... without end: a geometric series.",
        ),
        check=_check_ltv,
        uses=(
            "bigmodel_lab.econ.unit_economics.ltv",
            "bigmodel_lab.econ.growth.monthly_churn",
        ),
    ),
    Exercise(
        id="c21-d",
        title="A flat fee that at most 2 % of users turn into a loss",
        difficulty=2,
        minutes=12,
        stub=FEE,
        reference=smallest_fee,
        wrong=(
            Wrong(_fee_mean, "the mean customer sets the fee", "the mean customer says"),
            Wrong(_fee_light, "the light users lose money", "from the lightest customers"),
            Wrong(_fee_unit, "cost is for one token", "divide by 1e6"),
            Wrong(_fee_largest, "nobody may lose money", "nobody loses you money"),
            Wrong(_fee_tokens, "2 % of the tokens are 2 % of the users", "not tokens"),
            Wrong(_fee_interpolated, "a quantile is a customer", "quantile between two"),
            Wrong(
                _fee_one_more, "the fee is what the last loser costs", "one customer too careful"
            ),
            Wrong(_fee_rounded_up, "a share of customers is rounded up", "one customer too many"),
        ),
        hints=(
            "Sort the customers by what they cost. How many of the heaviest may lose you money? A count, rounded down.",
            "The fee is then exactly what the heaviest of the others costs.",
        ),
        check=_check_fee,
        uses=("bigmodel_lab.econ.pricing.flat_fee",),
    ),
)
