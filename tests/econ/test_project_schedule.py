"""PERT by hand and against simulation."""

import numpy as np
import pytest

from bigmodel_lab.econ import Task, pert, simulate_schedule
from bigmodel_lab.units import Q

PROJECT = (
    Task("data", 2, 4, 12),
    Task("train", 8, 10, 18, ("data",)),
    Task("app", 5, 9, 13),
    Task("launch", 1, 2, 3, ("train", "app")),
)


def test_by_hand():
    """Means 5, 11, 9, 2: data, train, launch take 18 days; variances (10/6)^2 twice and (2/6)^2; app may slip 7 days."""
    got = pert(PROJECT)
    assert got.mean.magnitude == pytest.approx(18)
    assert got.deviation.magnitude == pytest.approx(np.sqrt((100 + 100 + 4) / 36))
    assert got.critical == ("data", "train", "launch")
    assert {n: round(s.magnitude, 9) for n, s in got.slack.items()} == {
        "data": 0, "train": 0, "app": 7, "launch": 0,
    }  # fmt: skip
    assert got.by(18) == pytest.approx(0.5)
    assert got.by(Q(18 + got.deviation.magnitude, "day")) == pytest.approx(0.8413, abs=1e-4)


def test_a_single_chain_agrees_with_simulation():
    """On one path means add exactly: within 4 standard errors. PERT's deviation, (b - a)/6, is an approximation: to 20 %."""
    chain = (Task("a", 2, 4, 12), Task("b", 8, 10, 18, ("a",)))
    x = simulate_schedule(chain, 50_000).magnitude
    assert x.mean() == pytest.approx(16, abs=4 * x.std() / np.sqrt(len(x)))
    assert x.std() == pytest.approx(pert(chain).deviation.magnitude, rel=0.2)


def test_parallel_paths_end_later_than_pert_says():
    many = tuple(Task(f"t{i}", 5, 10, 21) for i in range(6))
    got = simulate_schedule(many, 20_000).magnitude
    assert got.mean() > pert(many).mean.magnitude + 2
    assert np.mean(got <= pert(many).mean.magnitude) < 0.1 < pert(many).by(pert(many).mean)


def test_certain_tasks():
    sure = (Task("a", 3, 3, 3), Task("b", 4, 4, 4, ("a",)))
    assert simulate_schedule(sure, 5).magnitude.tolist() == [7] * 5
    assert (pert(sure).by(6.9), pert(sure).by(7)) == (0, 1)


def test_refused():
    with pytest.raises(
        ValueError, match="likely of 'x' must be finite and at least 5 in day, got 3"
    ):
        Task("x", 5, 3, 9)
    with pytest.raises(ValueError, match="after of 'x' must name tasks, got 'y'"):
        pert((Task("x", 1, 2, 3, ("y",)),))
    with pytest.raises(ValueError, match="must not wait for each other in a circle: "):
        pert((Task("x", 1, 2, 3, ("y",)), Task("y", 1, 2, 3, ("x",))))
    with pytest.raises(TypeError, match=r"after of 'x' must be a tuple of names, such as \('y',\)"):
        pert((Task("x", 1, 2, 3, "y"), Task("y", 1, 2, 3)))
    with pytest.raises(ValueError, match="tasks must have different names"):
        pert(())


def test_milwaukee_paper():
    """J. Heizer and B. Render, Operations management: the filter of Milwaukee Paper. 15 weeks along A, C, E, G, H, variance
    3.11, 71.5 % to end within 16 (the book has 71.57 with z cut to 0.57); slack of B 1, D 1, F 6."""
    rows = [
        ("A", 1, 2, 3, ""), ("B", 2, 3, 4, ""), ("C", 1, 2, 3, "A"), ("D", 2, 4, 6, "AB"),
        ("E", 1, 4, 7, "C"), ("F", 1, 2, 9, "C"), ("G", 3, 4, 11, "DE"), ("H", 1, 2, 3, "FG"),
    ]  # fmt: skip
    got = pert(
        tuple(Task(n, *(Q(d, "week") for d in abc), tuple(after)) for n, *abc, after in rows)
    )
    assert got.mean.to("week").magnitude == pytest.approx(15)
    assert got.critical == tuple("ACEGH")
    assert got.deviation.to("week").magnitude ** 2 == pytest.approx(3.11, abs=5e-3)
    assert got.by(Q(16, "week")) == pytest.approx(0.7157, abs=2e-3)
    slack = {n: round(s.to("week").magnitude, 9) for n, s in got.slack.items()}
    assert slack == dict.fromkeys("ACEGH", 0) | {"B": 1, "D": 1, "F": 6}


def test_taylor_chain():
    """B. Taylor, Introduction to management science, a solved example: the critical chain takes 24 with a variance of 5, and
    ends within 28 with 0.9633 (z cut to 1.79). To 4 digits but for that."""
    rows = [(5, 8, 17), (3, 5, 7), (4, 6, 8), (3, 4, 5)]
    got = pert(tuple(Task(f"t{i}", *r, (f"t{i - 1}",) if i else ()) for i, r in enumerate(rows)))
    assert got.mean.magnitude == pytest.approx(24)
    assert got.deviation.magnitude**2 == pytest.approx(5)
    assert got.by(28) == pytest.approx(0.9633, abs=2e-4)
