"""Exercises of lab L08, serving: the cache of keys and values, break-even, the cost of a day, the smallest fleet for a p95."""

import math

import numpy as np

from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect


def _explain(fn, wrong, cases, right, name):
    """Raise Miss for the first case that `fn` gets wrong, with the message of the wrong answer that it agrees with."""
    got, want = ([float(f(**case)) for case in cases] for f in (fn, right))
    off = [i for i, pair in enumerate(zip(got, want, strict=True)) if not np.isclose(*pair, 1e-9)]
    for theirs, message in wrong:
        if off and np.allclose(got, [theirs(**case) for case in cases], 1e-9):
            raise Miss(message, given=cases[off[0]], got=got[off[0]], want=want[off[0]])
    for case, ours, answer in zip(cases, got, want, strict=True):
        expect(name, ours, answer, 1e-9, given=case)


# --- a: the cache of keys and values --------------------------------------------------------------------------------

CACHE = '''
def cache_bytes(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    """Return the bytes of the cache of keys and values, a number.

    A model of `layers` layers has `heads` heads of queries and `kv_heads` heads of keys
    and values, each `head_width` wide. It serves `batch` sequences of `positions` tokens.
    """
    ...
'''


def cache_bytes(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return 2 * layers * kv_heads * head_width * positions * batch * bytes_a_number


def _cache_keys_only(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return layers * kv_heads * head_width * positions * batch * bytes_a_number


def _cache_all_heads(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return 2 * layers * heads * head_width * positions * batch * bytes_a_number


def _cache_both(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return layers * heads * head_width * positions * batch * bytes_a_number


def _cache_one_layer(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return 2 * kv_heads * head_width * positions * batch * bytes_a_number


def _cache_one_sequence(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return 2 * layers * kv_heads * head_width * positions * bytes_a_number


def _cache_numbers(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return 2 * layers * kv_heads * head_width * positions * batch


def _cache_scores(layers, heads, kv_heads, head_width, positions, batch, bytes_a_number):
    return layers * heads * positions**2 * batch * bytes_a_number


def _check_cache(fn):
    names = (
        "layers",
        "heads",
        "kv_heads",
        "head_width",
        "positions",
        "batch",
        "bytes_a_number",
    )
    shapes = ((3, 6, 2, 5, 7, 11, 2), (32, 32, 8, 128, 700, 64, 2), (4, 6, 6, 32, 256, 1, 4))
    cases = [dict(zip(names, shape, strict=True)) for shape in shapes]
    wrong = (
        (_cache_keys_only, "the values are kept as well as the keys."),
        (_cache_all_heads, "grouped heads share their keys and values: count kv_heads."),
        (_cache_both, "two slips: heads where kv_heads is kept, and keys without values."),
        (_cache_one_layer, "every layer keeps its own."),
        (_cache_one_sequence, "every sequence of the batch keeps its own."),
        (_cache_numbers, "that counts numbers: each of them has bytes_a_number bytes."),
        (_cache_scores, "scores between positions are not kept: only keys and values."),
    )
    _explain(fn, wrong, cases, cache_bytes, "the cache")
    return "grouped heads, Llama 3 8B with 64 sequences, and our own GPT"


# --- b: break-even ----------------------------------------------------------------------------------------------------

BREAK_EVEN = '''
def break_even(
    device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd
):
    """Return the utilisation at which a replica earns what it costs, as a share.

    Above 1 it never does. The replica's `devices` devices cost device_usd_per_h an hour
    each, busy or not. Kept full it answers `requests_per_s`. A request has `prompt` and
    `output` tokens, which are sold at input_usd and output_usd a million.
    """
    ...
'''


def break_even(device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd):
    earned = 3600 * requests_per_s * (prompt * input_usd + output * output_usd) / 1e6
    return devices * device_usd_per_h / earned


def _even_upside_down(
    device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd
):
    args = (device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd)
    return 1 / break_even(*args)


def _even_output_only(
    device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd
):
    return break_even(device_usd_per_h, devices, requests_per_s, 0, output, input_usd, output_usd)


def _even_one_device(
    device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd
):
    return break_even(device_usd_per_h, 1, requests_per_s, prompt, output, input_usd, output_usd)


def _even_mean_price(
    device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd
):
    mean = (input_usd + output_usd) / 2
    return break_even(device_usd_per_h, devices, requests_per_s, prompt, output, mean, mean)


def _even_clipped(device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd):
    args = (device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd)
    return min(1.0, break_even(*args))


def _even_seconds(device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd):
    args = (device_usd_per_h, devices, requests_per_s, prompt, output, input_usd, output_usd)
    return 3600 * break_even(*args)


def _check_break_even(fn):
    names = (
        "device_usd_per_h",
        "devices",
        "requests_per_s",
        "prompt",
        "output",
        "input_usd",
        "output_usd",
    )
    rows = (
        (3.6, 2, 10.0, 500, 200, 0.2, 0.5),
        (3.0, 1, 35.0, 500, 200, 0.15, 0.45),
        (3.0, 4, 5.0, 1000, 100, 0.05, 0.1),
    )
    cases = [dict(zip(names, row, strict=True)) for row in rows]
    wrong = (
        (_even_clipped, "above 1 the replica loses money even when full: say so, do not clip it."),
        (_even_upside_down, "that is earnings over cost: at break-even, cost / (full earnings)."),
        (_even_output_only, "prompts are sold, too: they are most of the tokens."),
        (_even_one_device, "all devices of the replica are paid for."),
        (_even_mean_price, "a mean of two prices counts prompts and outputs as equally many."),
        (_even_seconds, "the rent is for an hour and the rate is for a second."),
    )
    _explain(fn, wrong, cases, break_even, "the utilisation")
    return "three services, one of which can never pay"


# --- c: what a day's tokens cost ----------------------------------------------------------------------------------------

DAY = '''
def day_cost_per_million(devices, output_per_s, device_usd_per_h):
    """Return the USD for a million output tokens, over a whole day.

    devices, output_per_s : float arrays (24,); in each hour, the devices that are paid for,
        and the output tokens a second that they really produced (0 in a dead hour)
    """
    ...
'''


def day_cost_per_million(devices, output_per_s, device_usd_per_h):
    return 1e6 * device_usd_per_h * np.sum(devices) / np.sum(3600 * output_per_s)


def _hourly(devices, output_per_s, device_usd_per_h):
    """Cost per million of each hour that produced something."""
    on = output_per_s > 0
    return 1e6 * device_usd_per_h * devices[on] / (3600 * output_per_s[on])


def _day_mean_of_hours(devices, output_per_s, device_usd_per_h):
    return _hourly(devices, output_per_s, device_usd_per_h).mean()


def _day_no_idle(devices, output_per_s, device_usd_per_h):
    on = output_per_s > 0
    return day_cost_per_million(devices[on], output_per_s[on], device_usd_per_h)


def _day_best_hour(devices, output_per_s, device_usd_per_h):
    return _hourly(devices, output_per_s, device_usd_per_h).min()


def _day_peak_rate(devices, output_per_s, device_usd_per_h):
    full = np.full_like(output_per_s, np.max(output_per_s))
    return day_cost_per_million(devices, full, device_usd_per_h)


def _day_largest_fleet(devices, output_per_s, device_usd_per_h):
    full = np.full_like(devices, np.max(devices))
    return day_cost_per_million(full, output_per_s, device_usd_per_h)


def _day_seconds(devices, output_per_s, device_usd_per_h):
    return 3600 * day_cost_per_million(devices, output_per_s, device_usd_per_h)


def _check_day(fn):
    hours = np.arange(24)
    waves = 3000 + 2500 * np.sin(2 * np.pi * (hours - 9) / 24)
    some_dead = np.where(hours < 6, 0.0, 2000 + 100.0 * hours)
    rounds = (
        (np.full(24, 4.0), some_dead, 3.0),
        (np.ceil(waves / 1500), waves, 2.0),
        (np.where(hours < 12, 1.0, 3.0), np.where(hours < 12, 100.0, 5000.0), 2.5),
    )
    cases = [
        dict(zip(("devices", "output_per_s", "device_usd_per_h"), r, strict=True)) for r in rounds
    ]
    wrong = (
        (_day_mean_of_hours, "a mean of hourly prices counts a quiet hour as much as a busy one: divide the sums."),
        (_day_no_idle, "devices that stand idle are paid for as well."),
        (_day_best_hour, "that is the price of the best hour only."),
        (_day_peak_rate, "the tokens of the peak are not produced all day."),
        (_day_largest_fleet, "the largest fleet is not paid for all day: each hour has its own number of devices."),
        (_day_seconds, "an hour has 3600 seconds' worth of tokens."),
    )  # fmt: skip
    _explain(fn, wrong, cases, day_cost_per_million, "the cost")
    return "a day with dead hours, a wave with a fleet that follows, and a day of two halves"


# --- d: the smallest fleet for a p95 -----------------------------------------------------------------------------------

FLEET = '''
def servers_for_p95(rate, service_s, limit_s):
    """Return the fewest servers, an int, with which 95 % of requests wait at most limit_s.

    Requests come by chance at `rate` a second (Poisson) into one line; each keeps a server
    busy for service_s seconds in the mean (exponential). With a = rate service_s and c > a
    servers a request waits longer than t with the probability
    C e^(-(c - a) t / service_s), where

        C = B / (1 - (a / c) (1 - B)),   B = B_c,
        B_0 = 1,   B_k = a B_(k-1) / (k + a B_(k-1)).
    """
    ...
'''


def servers_for_p95(rate, service_s, limit_s):
    load = rate * service_s
    blocked, servers = 1.0, 0
    while True:
        servers += 1
        blocked = load * blocked / (servers + load * blocked)
        if servers > load:
            waits = blocked / (1 - load / servers * (1 - blocked))
            if waits * math.exp(-(servers - load) * limit_s / service_s) <= 0.05:
                return servers


def _erlang(load, servers):
    """B and C of `servers` servers under `load`."""
    blocked = 1.0
    for k in range(1, servers + 1):
        blocked = load * blocked / (k + load * blocked)
    return blocked, blocked / (1 - load / servers * (1 - blocked))


def _first(load, good):
    servers = math.floor(load) + 1
    while not good(servers):
        servers += 1
    return servers


def _fleet_busy(rate, service_s, limit_s):
    return math.floor(rate * service_s) + 1


def _fleet_mean(rate, service_s, limit_s):
    a = rate * service_s
    return _first(a, lambda c: _erlang(a, c)[1] * service_s / (c - a) <= limit_s)


def _fleet_given_waiting(rate, service_s, limit_s):
    a = rate * service_s
    return _first(a, lambda c: math.exp(-(c - a) * limit_s / service_s) <= 0.05)


def _fleet_lost(rate, service_s, limit_s):
    a = rate * service_s
    return _first(a, lambda c: _erlang(a, c)[0] * math.exp(-(c - a) * limit_s / service_s) <= 0.05)


def _fleet_own_lines(rate, service_s, limit_s):
    a = rate * service_s

    def good(c):
        return a / c * math.exp(-(1 - a / c) * limit_s / service_s) <= 0.05

    return _first(a, good)


def _fleet_seven_tenths(rate, service_s, limit_s):
    return math.ceil(rate * service_s / 0.7)


def _fleet_nobody_waits(rate, service_s, limit_s):
    a = rate * service_s
    return _first(a, lambda c: _erlang(a, c)[1] <= 0.05)


def _fleet_latency(rate, service_s, limit_s):
    return servers_for_p95(rate, service_s, max(limit_s - service_s, 0))


def _check_fleet(fn):
    cases = [
        dict(rate=rate, service_s=service, limit_s=limit)
        for rate, service, limit in (
            (2.0, 1.0, 1.5),
            (5.0, 1.4, 1.0),
            (8.0, 1.0, 0.5),
            (40.0, 1.0, 0.1),
            (90.0, 0.5, 2.0),
        )
    ]
    wrong = (
        (_fleet_busy, "that only keeps up in the mean: the line is as good as endless then."),
        (_fleet_mean, "that holds the mean wait to the limit, not the 95th percentile."),
        (_fleet_given_waiting, "not all wait: the exponential counts only the share C that does."),
        (
            _fleet_lost,
            "B is the share turned away where nobody may wait: here they wait, so take C.",
        ),
        (_fleet_own_lines, "one line for all: that gives each server a line of its own."),
        (
            _fleet_seven_tenths,
            "70 % busy is a rule of thumb: a small fleet waits long at it, a large one hardly ever.",
        ),
        (
            _fleet_nobody_waits,
            "95 % need not wait at all in that fleet: they may wait up to limit_s.",
        ),
        (_fleet_latency, "limit_s is on the waiting alone: the service comes on top of it."),
    )
    _explain(fn, wrong, cases, servers_for_p95, "the number of servers")
    return "five fleets, from a single line of 5 to one of 50"


EXERCISES = (
    Exercise(
        id="L08-a",
        title="The cache of keys and values",
        difficulty=1,
        minutes=5,
        stub=CACHE,
        reference=cache_bytes,
        wrong=(
            Wrong(_cache_keys_only, "keys are all that is kept", "the values are kept as well"),
            Wrong(_cache_all_heads, "every head of queries has its own keys", "grouped heads share"),
            Wrong(_cache_both, "keys of all heads", "two slips"),
            Wrong(_cache_one_layer, "the cache is one table for the model", "every layer keeps its own"),
            Wrong(_cache_one_sequence, "the cache is shared by the batch", "every sequence of the batch"),
            Wrong(_cache_numbers, "a number is a byte", "that counts numbers"),
            Wrong(_cache_scores, "the attention matrix is cached", "scores between positions are not kept"),
        ),
        hints=(
            "What does one layer keep of one token of one sequence? How many heads, how wide, how many kinds?",
            "Two kinds (keys and values), times kv_heads, times head_width; then times everything that there is several of.",
        ),
        check=_check_cache,
        uses=("bigmodel_lab.plan.kv.kv_cache", "bigmodel_lab.plan.kv.kv_per_token"),
    ),
    Exercise(
        id="L08-b",
        title="Break-even",
        difficulty=1,
        minutes=8,
        stub=BREAK_EVEN,
        reference=break_even,
        wrong=(
            Wrong(_even_upside_down, "utilisation is earnings over cost", "that is earnings over cost"),
            Wrong(_even_output_only, "only output tokens earn", "prompts are sold, too"),
            Wrong(_even_one_device, "a replica is a device", "all devices of the replica"),
            Wrong(_even_mean_price, "the price of a token is the mean of the two prices", "equally many"),
            Wrong(_even_clipped, "a utilisation is at most 1", "do not clip it"),
            Wrong(_even_seconds, "the units will work out", "the rent is for an hour"),
        ),
        hints=(
            "What does the replica cost in an hour? What does it earn in an hour if it is full all the time?",
            "At a utilisation u it earns u times that: set both equal.",
        ),
        check=_check_break_even,
    ),
    Exercise(
        id="L08-c",
        title="What a day's tokens cost",
        difficulty=1,
        minutes=8,
        stub=DAY,
        reference=day_cost_per_million,
        wrong=(
            Wrong(_day_mean_of_hours, "the day's price is the mean of its hours' prices", "divide the sums"),
            Wrong(_day_no_idle, "idle hours cost nothing", "stand idle"),
            Wrong(_day_best_hour, "the price is what a busy hour shows", "the best hour only"),
            Wrong(_day_peak_rate, "the peak lasts all day", "tokens of the peak"),
            Wrong(_day_largest_fleet, "a fleet has one size", "not paid for all day"),
            Wrong(_day_seconds, "tokens a second over dollars an hour", "3600 seconds' worth"),
        ),
        hints=(
            "How many dollars does the whole day cost? How many tokens does it produce?",
            "Add up both, over all 24 hours, before you divide.",
        ),
        check=_check_day,
    ),
    Exercise(
        id="L08-d",
        title="The smallest fleet for a p95",
        difficulty=2,
        minutes=15,
        stub=FLEET,
        reference=servers_for_p95,
        wrong=(
            Wrong(_fleet_busy, "a fleet that keeps up is enough", "only keeps up in the mean"),
            Wrong(_fleet_mean, "the mean is what customers feel", "holds the mean wait"),
            Wrong(_fleet_given_waiting, "everyone waits", "only the share C"),
            Wrong(_fleet_lost, "B and C are the same", "turned away where nobody may wait"),
            Wrong(_fleet_own_lines, "c servers are c times one server", "a line of its own"),
            Wrong(_fleet_seven_tenths, "70 % busy is right for every fleet", "a rule of thumb"),
            Wrong(_fleet_nobody_waits, "the limit is on having to wait", "need not wait at all"),
            Wrong(_fleet_latency, "the limit is on the whole latency", "limit_s is on the waiting alone"),
        ),
        hints=(
            "B needs a loop over k = 1 ... c. As you try one server more, the loop goes on by a single step.",
            "For each c > a: is C e^(-(c - a) limit_s / service_s) at most 0.05? The first c that says yes is the answer.",
        ),
        check=_check_fleet,
        uses=("bigmodel_lab.plan.queues.servers_for", "bigmodel_lab.plan.queues.wait"),
    ),
)  # fmt: skip
