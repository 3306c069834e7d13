"""How fast are a hundred thousand futures of a company beside the same in plain NumPy?

    python benchmarks/monte_carlo.py            # about a minute; prints, and writes benchmarks/results/monte_carlo.md
    python benchmarks/monte_carlo.py --quick    # a few seconds, few paths, one thread; prints only

Two peers, both a loop over months with arrays over companies. "numpy" draws from the same counters as ours and must give the
same arrays, which is checked first; "numpy, own generator" draws with NumPy's own generator, which is faster, so that the
figure does not depend on our choice of random numbers; it gives other numbers, so only how many companies survive is
checked, in tests/. Both go on with companies that have ended, 28 % of the months here; one that copies the living into
shorter arrays after each month took 0.78 of the second's time. Work is counted as 30 operations in a month that a company
sees, an exponential or a cosine as one.
"""

import numpy as np
from _harness import TABLE_NOTE, Case, by_threads, keep_freed_memory, main, opening, table

from bigmodel_lab.econ import UNCERTAIN, Company, FundingRound, simulate
from bigmodel_lab.econ.montecarlo import EVENTS
from bigmodel_lab.econ.streams import M1, M2, S11, S27, S30, S31, STEP
from bigmodel_lab.rng import generator

COMPANY = Company(
    cash=3e6, price=50, serving_cost=20, fixed=150e3, new_customers=400, churn=0.04, growth=0.03, cac=200,
    serving_decline=0.02, fixed_growth=0.01, shock=0.3, persistence=0.6, incident_probability=0.02, incident_cost=2e5,
    rounds=(FundingRound(18, 4e6, 0.6, needs=5e5),),
    unsure=dict(new_customers=0.5, churn=0.3, price=0.1, serving_cost=0.4, cac=0.3, fixed=0.1),
)  # fmt: skip
AGREE = (
    1e-9  # relative to the largest value: the same operations, with other libraries' exp and log
)


def bits(state):
    """SplitMix64's scrambler for a whole array."""
    z = (state ^ (state >> S30)) * M1
    z = (z ^ (z >> S27)) * M2
    return z ^ (z >> S31)


class Counters:
    """The streams of `bigmodel_lab.econ.streams`, all paths at once."""

    def __init__(self, seed, n):
        key = generator(seed, "econ", "company").integers(2**64, dtype=np.uint64)
        path = bits(np.arange(n, dtype=np.uint64) * STEP + STEP)
        self.state, self.events = bits(key ^ path), bits(key ^ EVENTS ^ path)

    def uniform(self):
        self.state = self.state + STEP
        return ((bits(self.state) >> S11) + 0.5) * 2.0**-53

    def normal_pair(self):
        r, angle = np.sqrt(-2 * np.log(self.uniform())), 2 * np.pi * self.uniform()
        return r * np.cos(angle), r * np.sin(angle)

    def event(self, number):
        """Draw `number` of the stream that demand does not touch."""
        steps = (
            np.full(1, number + 1, np.uint64) * STEP
        )  # an array: a scalar that wraps round would warn
        return ((bits(self.events + steps) >> S11) + 0.5) * 2.0**-53


class Own:
    """The same interface over NumPy's generator."""

    def __init__(self, seed, n):
        self.rng, self.n = np.random.default_rng(seed), n

    def uniform(self):
        return self.rng.random(self.n)

    def normal_pair(self):
        return self.rng.standard_normal((2, self.n))

    def event(self, number):
        return self.rng.random(self.n)


def by_numpy(company, n, months, seed, source=Counters):
    """Return (month_out, cash, customers), each (n,), as `simulate` does."""
    x, draw = company.numbers(), source(seed, n)
    own = {}
    for pair in zip(UNCERTAIN[::2], UNCERTAIN[1::2], strict=True):
        for name, z in zip(pair, draw.normal_pair(), strict=True):
            s = company.unsure.get(name, 0.0)
            own[name] = x[name] * np.exp(s * z - 0.5 * s**2)
    churn, new, fixed, serving = (
        np.minimum(own["churn"], 1),
        own["new_customers"],
        own["fixed"],
        own["serving_cost"],
    )
    rounds = {r.month - 1: r for r in company.rounds}
    cash, customers = np.full(n, x["cash"]), np.full(n, x["customers"])
    alive, out, log_shock = np.ones(n, bool), np.full(n, months + 1, np.int32), np.zeros(n)
    for t in range(months):
        if t % 2 == 0:
            z, spare = draw.normal_pair()
        else:
            z = spare
        log_shock = x["persistence"] * log_shock + x["shock"] * z
        won = new * np.maximum(0, 1 - customers / x["market"]) * np.exp(log_shock)
        won = np.minimum(won, x["market"])
        after = customers * (1 - churn) + won
        revenue = after * own["price"]
        flow = revenue - after * serving - own["cac"] * won - fixed
        if x["incident_probability"]:
            flow = flow - x["incident_cost"] * (draw.event(2 * t) < x["incident_probability"])
        if t in rounds:
            closes = (draw.event(2 * t + 1) < rounds[t].probability) & (
                revenue * 12 >= rounds[t].needs
            )
            flow = flow + rounds[t].amount * closes
        customers, cash = np.where(alive, after, customers), np.where(alive, cash + flow, cash)
        ended = alive & (cash < 0)
        out[ended] = t + 1
        alive &= ~ended
        new, serving, fixed = (
            new * (1 + x["growth"]), serving * (1 - x["serving_decline"]), fixed * (1 + x["fixed_growth"])
        )  # fmt: skip
    return out, cash, customers


def case(n, months) -> Case:
    """Simulate n companies over some months."""

    def ours():
        got = simulate(COMPANY, n, months, seed=1)
        return got.month_out, got.cash, got.customers

    def own_generator():
        by_numpy(COMPANY, n, months, 1, Own)  # other numbers: nothing to compare one by one

    candidates = {
        "ours": ours,
        "numpy": lambda: by_numpy(COMPANY, n, months, 1),
        "numpy, own generator": own_generator,
    }
    lived = int(np.minimum(ours()[0], months).sum())
    size = f"{n:,} x {months} months"
    return Case("company paths", size, candidates, 30.0 * lived, "GFLOP/s", AGREE)


def report(quick: bool):
    """Yield the lines of the page."""
    yield from opening("Company paths", quick, keep_freed_memory())
    yield TABLE_NOTE
    sizes = [(2000, 60)] if quick else [(10_000, 60), (100_000, 60)]
    yield from by_threads(
        quick,
        lambda n: table(
            [lambda size=size: case(*size) for size in sizes],
            n,
            peers=("numpy", "numpy, own generator"),
            first="simulation",
            limit_s=1 if quick else 8,
            rounds=7,
        ),
    )


if __name__ == "__main__":
    main(report, __doc__)
