"""The shipped runs are real and whole; the fit foretells the dearest of them; what lies outside is said to."""

import csv
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from bigmodel_lab.plan import LAWS, fit_chinchilla
from bigmodel_lab.plan.surface import SmallRun, fit_surface, points, small_runs
from bigmodel_lab.plan.tables import __file__ as TABLES

LAW = LAWS["epoch"]


def made_up(sizes=(1e5, 3e5, 1e6, 3e6), tokens=(1e6, 3e6, 1e7, 3e7)):
    """Runs that lie on a known law, exactly."""
    return tuple(
        SmallRun(f"{N:g}-{D:g}", 2, 32, int(N), int(N) // 2, int(D), 6 * N * D, 1.0, LAW.loss(N, D), 0)
        for N in sizes
        for D in tokens
    )  # fmt: skip


def test_the_shipped_runs_are_a_grid_with_their_origin():
    runs = small_runs()
    text = Path(TABLES).with_name("small_runs.csv").read_text("utf-8")
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert any("# command: python -m bigmodel_lab.train.small_runs" in line for line in head)
    assert any(line.startswith("# date: 20") for line in head)
    assert len(runs) == len({(r.parameters, r.tokens) for r in runs}) >= 18
    assert len({r.parameters for r in runs}) >= 5
    assert len({r.tokens for r in runs}) >= 4
    for r in runs:
        assert r.name == f"{r.n_layers}x{r.width}-{r.tokens // 512}"
        assert r.parameters - r.non_embedding == 2048 * r.width
        assert 0.98 < r.flops / (6 * r.parameters * r.tokens) < 1.35  # and attention's core
        assert 3 < r.loss < np.log(2048)
        assert r.seconds > 0


def test_longer_is_better_at_every_size():
    """A learning rate that ends where the run ends: otherwise the shorter runs would be unfinished, not short."""
    runs = small_runs()
    for size in {r.parameters for r in runs}:
        one = sorted((r.tokens, r.loss) for r in runs if r.parameters == size)
        losses = [loss for _, loss in one]
        assert losses == sorted(losses, reverse=True), size


def test_exact_runs_are_foretold():
    surface = fit_surface(made_up(), test=4, bootstrap=0)
    assert surface.test_error < 1e-4
    dearest = sorted(r.parameters * r.tokens for r in made_up())[-4:]
    assert [r.parameters * r.tokens for r, _ in surface.tested] == dearest
    assert surface.loss(1e6, 1e7) == pytest.approx(LAW.loss(1e6, 1e7), rel=1e-4)


def test_points_of_runs_can_be_fitted():
    fit = fit_chinchilla(*points(made_up()), bootstrap=0)
    assert (fit.law.alpha, fit.law.beta) == pytest.approx((LAW.alpha, LAW.beta), rel=1e-3)


def test_the_test_error_sees_runs_that_break_the_law():
    *cheap, last = sorted(made_up(), key=lambda r: r.parameters * r.tokens)
    broken = fit_surface([*cheap, replace(last, loss=last.loss * 1.1)], test=1, bootstrap=0)
    assert broken.test_error == pytest.approx(np.log(1.1), rel=1e-3)
    assert broken.tested[0][0].name == last.name


def test_what_is_beyond_the_runs():
    surface = fit_surface(made_up(), bootstrap=0)
    assert surface.beyond(3e6, 3e7) == ""
    assert surface.beyond(1e5, 1e6) == ""
    assert surface.beyond(6e6, 1e7) == "N 2 x the largest run's"
    assert surface.beyond(1e4, 1e7) == "N 0.1 x the smallest run's"
    assert (
        surface.beyond(7e9, 3e11)
        == "N 2,333 x the largest run's, D 10,000 x the largest run's, 6ND 2.3e+07 x the dearest run's"
    )


def test_the_count_decides_n():
    half = fit_surface(made_up(), count="non_embedding", bootstrap=0)
    assert half.fit.sizes == (5e4, 1.5e6)
    assert half.compute == 6 * 1.5e6 * 3e7


def test_refused(tmp_path):
    with pytest.raises(ValueError, match="count must be one of 'non_embedding', 'parameters'"):
        fit_surface(made_up(), count="all")
    with pytest.raises(ValueError, match="needs at least 6 runs"):
        fit_surface(made_up()[:9], test=6)
    wrong, damaged = tmp_path / "wrong.csv", tmp_path / "damaged.csv"
    wrong.write_text("# a comment\nname,loss\nx,1\n")
    with pytest.raises(ValueError, match=r"wrong.csv is no table of small runs: its columns must"):
        small_runs(wrong)
    with damaged.open("w") as f:
        csv.writer(f).writerows([[x.name for x in fields(SmallRun)], ["1x8-4", *"1" * 8, "one"]])
    with pytest.raises(ValueError, match=r"damaged.csv is damaged: invalid literal .* Make it"):
        small_runs(damaged)
