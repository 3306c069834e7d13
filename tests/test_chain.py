"""The chain from a training run to a runway: every link takes the object of the one before, and its unit is checked.

A tiny GPT is trained here by the program that made the shipped runs, and joins them. No number is typed over between the
links: what is assumed stands in `Assumptions` and in the company's own assumptions, RUNNING.
"""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from bigmodel_lab import econ, plan
from bigmodel_lab.train import RunRecord
from bigmodel_lab.train.pretrain_text import corpus
from bigmodel_lab.train.small_runs import VOCAB, Shape, Sweep, make_runs
from bigmodel_lab.units import Q, Quantity, registry

ON = "2026-11-22"
RECORDS = Path(__file__).parents[1] / "labs/records"
RUNNING = dict(
    cash=Q(2.2, "MUSD"), new_customers=15, churn=0.03, growth=0.03, cac=4000, shock=0.3, persistence=0.6,
    unsure=dict(new_customers=0.4, churn=0.3, price=0.1, serving_cost=0.3),
)  # fmt: skip
TEAM = Q(1.8, "MUSD / year")
SWEEP = Sweep(sizes="2x16", steps="20")
FORM = SWEEP.model(*SWEEP.shapes)


def shipped():
    """Chapter 16's runs and lab 10's smaller ones."""
    return (*plan.small_runs(), *plan.small_runs(RECORDS / "small_runs.csv"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Train a tiny GPT for 20 steps; return its row of the table and its record, read from its file."""
    folder = tmp_path_factory.mktemp("runs")
    (row,) = make_runs(SWEEP, corpus(VOCAB), folder, say=lambda _: None)
    return row, RunRecord.load(folder / row.name / "run.json")


@pytest.fixture(scope="module")
def record(made):
    return made[1]


@pytest.fixture(scope="module")
def law(made):
    """Our best size at a compute that the runs cover, and a published exponent from there."""
    best = plan.iso_flop(*plan.points([*shipped(), made[0]]))
    assert len(best.sizes) >= 3
    return plan.anchor(best)


@pytest.fixture(scope="module")
def chain(record, law):
    return econ.follow(record, law, plan.describe(FORM), on=ON)


def slower(record, times):
    """The same run on a machine that takes `times` as long for everything but its roof."""
    return dataclasses.replace(record, compute_s=[times * s for s in record.compute_s])


def futures(chain, **changes):
    company = chain.company(fixed=TEAM, **RUNNING).but(**changes)
    return econ.simulate(company, paths=4000, months=60)


def test_each_link_takes_the_object_of_the_one_before(record, law, chain):
    """The same chain by hand: only objects pass from line to line."""
    a = chain.assumptions
    measured = plan.measure(record, plan.describe(FORM))
    share = measured.mfu(plan.peak_of(record))
    assert 0 < share < 1
    best = law.optimum(a.compute)
    large = plan.grow(plan.describe(FORM), best.parameters, vocab=a.vocab, context=a.context)
    card, price = plan.device(a.device, on=ON), plan.price(a.device, on=ON)
    choice = plan.plan_training(
        large, plan.Fleet(card, a.training_devices, kernel_share=share), a.batch
    )
    training = plan.bill(
        plan.training_flops(large, best.tokens), card, choice.fleet.devices, choice.best.mfu, price=price, goodput=a.goodput
    )  # fmt: skip
    replica = plan.Replica(
        large, card, chain.replica.devices, compute_share=share, bandwidth_share=a.bandwidth_share
    )
    service = plan.serve(replica, plan.Workload(a.prompt, a.output))
    cost = service.cost_per_million(price.middle, a.busy)
    token_price = econ.price_for(cost, a.gross_margin)
    tariff = econ.Plan(blocks=((None, token_price),))
    margin = econ.plan_margin(tariff, econ.Usage(a.usage, a.spread), cost)
    assert margin.gross_margin == pytest.approx(a.gross_margin)
    monthly = training.cost / Q(a.retrain_every, "month")
    company = econ.Company(
        price=margin.revenue, serving_cost=margin.cost, fixed=TEAM + monthly, **RUNNING
    )
    assert company.numbers() == pytest.approx(chain.company(fixed=TEAM, **RUNNING).numbers())
    assert chain.training == training
    assert chain.service == service
    paths = econ.simulate(company, paths=2000, months=60)
    months = [paths.runway(p).magnitude for p in (0.1, 0.25, 0.5)]
    assert months == sorted(months)
    assert 1 < months[0] < 60


def test_units(chain):
    for value, unit in (
        (chain.measured.tokens_per_s, "token / s"), (chain.peak, "FLOP / s"), (chain.optimum.parameters, "parameter"),
        (chain.training.flops, "FLOP"), (chain.training.cost, "USD"), (chain.training_per_month, "USD / month"),
        (chain.service.output_per_s, "token / s"), (chain.token_cost, "USD / Mtoken"), (chain.token_price, "USD / Mtoken"),
        (chain.margin.revenue, "USD / customer / month"), (futures(chain).runway(0.1), "month"),
    ):  # fmt: skip
        assert isinstance(value, Quantity)
        assert value._REGISTRY is registry
        assert value.is_compatible_with(unit), unit
        assert value.magnitude > 0
    with pytest.raises(Exception, match="Cannot convert"):
        chain.training.cost + chain.token_cost
    with pytest.raises(TypeError, match="fixed must be a quantity in USD / month"):
        chain.company(fixed=chain.training.cost, **RUNNING)


def test_nothing_of_the_chain_is_typed_over(chain):
    """Every row says where it comes from, and those that the record gives are the record's."""
    rows = {what: (value, kind) for what, value, kind, _ in chain.rows()}
    assert {kind for _, kind in rows.values()} == {"measured", "published", "computed", "assumed"}
    assert rows["the run's tokens"] == (Q(20 * SWEEP.batch * FORM.context, "token"), "measured")
    assert rows["compute"] == (Q(chain.assumptions.compute, "FLOP"), "assumed")
    for f in dataclasses.fields(chain.assumptions):
        assert f.name in ("device", "token_price") or f.name.replace("_", " ") in rows
    assert rows["our runs' optimum"] == (Q(chain.law.parameters, "parameter"), "computed")
    assert rows["its exponent"] == (plan.EXPONENTS["approach 2"], "published")
    assert rows["price of tokens"][1] == "computed"
    defaults = plan.Fleet(chain.replica.device, 8), plan.Replica(chain.arch, chain.replica.device)
    for what, value in {
        "overlap": defaults[0].overlap,
        "latency of a message": Q(defaults[0].latency, "s"),
        "memory planned with": defaults[0].memory_share,
        "a weight, when served": Q(defaults[1].weight_bytes, "byte"),
        "overhead, when served": Q(defaults[1].overhead, "s"),
    }.items():
        assert rows[what] == (value, "assumed")
    assert chain.replica.memory_share == defaults[0].memory_share


def test_a_slower_run_costs_more_and_shortens_the_runway(record, law, chain):
    kept = chain.assumptions.but(
        token_price=chain.token_price
    )  # the market's price does not follow our costs
    arch = plan.describe(FORM)
    fast, slow = (econ.follow(slower(record, n), law, arch, kept, on=ON) for n in (1, 4))
    assert slow.share == pytest.approx(fast.share / 4)
    assert slow.training.cost.magnitude == pytest.approx(4 * fast.training.cost.magnitude, rel=0.25)
    assert slow.token_cost > fast.token_cost
    assert slow.margin.gross_margin < fast.margin.gross_margin
    assert slow.margin.revenue == fast.margin.revenue
    a, b = futures(fast), futures(slow)
    assert (b.month_out <= a.month_out).all()  # path by path: the same luck
    assert (b.month_out < a.month_out).any()
    assert b.survival(36) < a.survival(36)


def test_twice_the_token_price_lengthens_the_runway(record, law, chain):
    arch, once = plan.describe(FORM), chain.token_price
    one, two = (
        econ.follow(record, law, arch, chain.assumptions.but(token_price=n * once), on=ON)
        for n in (1, 2)
    )
    assert two.margin.revenue.magnitude == pytest.approx(2 * one.margin.revenue.magnitude)
    assert two.margin.cost == one.margin.cost
    a, b = futures(one), futures(two)
    assert (b.month_out >= a.month_out).all()
    assert b.survival(36) > a.survival(36)
    assert one.rows() != two.rows()


@pytest.mark.parametrize(
    ("change", "better"),
    [
        (dict(compute=2e23), False),
        (dict(retrain_every=24), True),
        (dict(goodput=0.45), False),
        (dict(busy=0.8), True),
        (dict(bandwidth_share=0.4), False),
        (dict(prompt=4000), False),
        (dict(gross_margin=0.8), True),
    ],
    ids=str,
)
def test_which_way_each_assumption_pulls(record, law, chain, change, better):
    """A change that costs more leaves no path of the company better off, and one that saves leaves none worse off."""
    held = {} if "gross_margin" in change else dict(token_price=chain.token_price)
    other = econ.follow(
        record, law, plan.describe(FORM), chain.assumptions.but(**change, **held), on=ON
    )
    a, b = futures(chain), futures(other)
    first, second = (b, a) if better else (a, b)
    assert (first.month_out >= second.month_out).all()
    assert (first.cash[first.month_out > 60].sum(), first.survival()) >= (
        second.cash[second.month_out > 60].sum(), second.survival(),
    )  # fmt: skip
    assert not np.array_equal(a.cash, b.cash)


def test_tornado_over_the_chain(record, law, chain):
    arch = plan.describe(FORM)
    kept = chain.assumptions.but(token_price=chain.token_price)
    bars = econ.tornado(
        kept, dict(busy=(0.3, 0.8), goodput=(0.89, 0.9)), paths=2000, months=36,
        build=lambda a: econ.follow(record, law, arch, a, on=ON).company(fixed=TEAM, **RUNNING),
    )  # fmt: skip
    assert [b.name for b in bars] == ["busy", "goodput"]
    assert bars[0].at_low < bars[0].at_high
    with pytest.raises(ValueError, match="ranges must name assumptions of a Assumptions"):
        econ.tornado(kept, dict(bussy=(0, 1)), build=lambda a: None)


def test_a_published_law_in_place_of_our_own(record):
    chain = econ.follow(record, plan.find_law("epoch"), plan.describe(FORM), on=ON)
    rows = {what: (value, kind) for what, value, kind, _ in chain.rows()}
    assert rows["law of the size"] == (plan.find_law("epoch").source, "published")
    assert 1e10 < chain.optimum.parameters.magnitude < 1e11
    assert math.isfinite(chain.training.cost.magnitude)


def test_who_does_not_train_pays_no_training(chain):
    all_, none = (chain.company(fixed=TEAM, trains=n, **RUNNING).numbers()["fixed"] for n in (1, 0))
    assert none == pytest.approx(TEAM.to("USD / month").magnitude)
    assert all_ - none == pytest.approx(chain.training_per_month.magnitude)


def test_refused(record, law):
    arch = plan.describe(FORM)
    with pytest.raises(ValueError, match="machine has no 'matmul_FLOP_per_s'"):
        econ.follow(dataclasses.replace(record, machine={}), law, arch)
    with pytest.raises(ValueError, match="device must be one of"):
        econ.follow(record, law, arch, econ.Assumptions(device="h100"), on=ON)
    with pytest.raises(ValueError, match="device with a price must be one of"):
        econ.follow(record, law, arch, econ.Assumptions(device="b200"), on=ON)
    with pytest.raises(ValueError, match="arch has 124,439,808 parameters and the record"):
        econ.follow(record, law, plan.MODELS["gpt2"])
    with pytest.raises(ValueError, match="busy must be a finite number above 0 and at most 1"):
        econ.Assumptions(busy=0)
    with pytest.raises(TypeError, match="compute must be a quantity in FLOP"):
        econ.Assumptions(compute=Q(1e23, "FLOP / s"))
    with pytest.raises(ValueError, match="does not fit on"):
        econ.follow(
            record,
            plan.find_law("epoch"),
            arch,
            econ.Assumptions(compute=1e27, training_devices=8),
            on=ON,
        )


def test_a_run_that_says_nothing_of_speed_or_size_is_refused(record, law):
    arch, steps = plan.describe(FORM), list(zip(record.loss, record.compute_s, strict=True))

    def cut(pairs):
        loss, seconds = zip(*pairs, strict=True)
        return dataclasses.replace(
            record, loss=loss, compute_s=seconds, communication_s=[0.0] * len(loss)
        )

    with pytest.raises(ValueError, match="got the loss nan at step 7: it diverged"):
        econ.follow(cut([*steps[:6], (math.nan, 0.1), *steps[7:]]), law, arch)
    with pytest.raises(ValueError, match="record must have at least 10 steps, got 1: the first"):
        econ.follow(cut(steps[:1]), law, arch)
    slow = plan.note_peak(record, Q(1, "MFLOP / s"))
    with pytest.raises(ValueError, match="utilisation must be at most 1"):
        econ.follow(slow, law, arch)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(usage=Q(3, "USD")), "mean must be a quantity in token / customer / month"),
        (dict(usage=-3), "mean must be a finite number above 0"),
        (dict(spread=-1), "spread must be"),
        (dict(gross_margin=1.5), "gross_margin must be"),
    ],
)
def test_assumptions_are_refused_where_they_are_made(change, message):
    with pytest.raises((ValueError, TypeError), match=message):
        econ.Assumptions(**change)


def test_what_is_no_link_is_told_what_would_be_one(record, law, chain, tmp_path):
    arch = plan.describe(FORM)
    for given, message in (
        ((tmp_path, law, arch), r"record must be a RunRecord, such as RunRecord.load\(path\)"),
        (
            (record, "epoch", arch),
            r"law must be a law of the best size, such as .* or find_law\(\"epoch\"\), got 'epoch'",
        ),
        ((record, law, FORM), r"arch must be an Architecture, such as describe\(model.config\)"),
    ):
        with pytest.raises(TypeError, match=message):
            econ.follow(*given, on=ON)
    with pytest.raises(ValueError, match="price must not be given, since the chain computes it"):
        chain.company(fixed=TEAM, price=7, **RUNNING)


def test_the_shipped_smaller_runs_are_the_program_s_work():
    runs = plan.small_runs(RECORDS / "small_runs.csv")
    sweep = Sweep(sizes="1x8")
    head = (RECORDS / "small_runs.csv").read_text("utf-8").splitlines()
    assert head[1] == "# command: python -m bigmodel_lab.train.small_runs runs/small --sizes 1x8"
    assert [r.name for r in runs] == [s.name for s in sweep.shapes]
    for r, shape in zip(runs, sweep.shapes, strict=True):
        assert (r.parameters, r.tokens) == (sweep.model(shape).n_parameters, sweep.tokens(shape))
    assert [r.loss for r in runs] == sorted((r.loss for r in runs), reverse=True)
    with pytest.raises(ValueError, match="run smaller models too"):  # that is what they are for
        plan.iso_flop(*plan.points(plan.small_runs()))


def stored():
    """The shipped record, its shape, and its row of chapter 16's table."""
    (path,) = RECORDS.glob("*.json")
    (row,) = (r for r in plan.small_runs() if r.name == path.stem)
    return RunRecord.load(path), Shape(row.n_layers, row.width, row.tokens // 512), row


def test_the_shipped_record_is_of_a_run_of_the_table():
    record, shape, row = stored()
    assert (record.steps, record.tokens, record.parameters) == (shape.steps, row.tokens, row.parameters)  # fmt: skip
    assert record.scores["validation loss"] == pytest.approx(row.loss, abs=0.02)  # another CPU
    assert 0.02 < plan.kernel_share(record, plan.describe(Sweep().model(shape))) < 1


def test_the_shipped_scenario_is_what_the_chain_of_the_stored_runs_gives():
    """labs/scenarios/base.json is no list of typed numbers: lab L10 wrote it from labs/records. To 1 %, since others may fit
    the parabola on another machine."""
    record, shape, _ = stored()
    law = plan.anchor(plan.iso_flop(*plan.points(shipped())))
    chain = econ.follow(record, law, plan.describe(Sweep().model(shape)), on=ON)
    scenarios = RECORDS.parent / "scenarios"
    scenario = econ.load_scenario(scenarios / "base.json")
    company = scenario.company
    assert company.price == pytest.approx(chain.margin.revenue.magnitude, rel=0.01)
    assert company.serving_cost == pytest.approx(chain.margin.cost.magnitude, rel=0.01)
    team = company.fixed - chain.training_per_month.magnitude
    assert team == pytest.approx(150e3, rel=0.01)
    assert scenario.sources["price"].startswith("chain")
    for other in ("up", "down"):
        assert econ.load_scenario(scenarios / f"{other}.json").name == other
