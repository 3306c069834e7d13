"""The ledger keeps the guess that came first, survives damage, and scores what can be scored."""

import json
import os
import threading

import numpy as np
import pytest

from bigmodel_lab.course import calibration, measured, predict
from bigmodel_lab.course.predict import ratios

QUESTION = "How long does a step take?"


@pytest.fixture(autouse=True)
def ledger(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGMODEL_LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "predictions.json"


def entries(ledger):
    return json.loads(ledger.read_text())["predictions"]


def ask(guess, key="c05-step"):
    predict(key, guess, "s", QUESTION)


def said(capsys):
    """What was printed, with the lines that were folded for the page's width unfolded."""
    return capsys.readouterr().out.replace("\n  ", " ")


def test_guess_then_measurement(ledger, capsys):
    ask(0.1)
    measured("c05-step", np.float32(0.25))
    assert said(capsys) == (
        f"your guess: 0.1 (s). {QUESTION}\nyour guess: 0.1 (s); measured 0.25; ratio 2.5x, too low\n"
    )
    assert entries(ledger) == {
        "c05-step": {"question": QUESTION, "unit": "s", "guess": 0.1, "measured": 0.25}
    }


@pytest.mark.parametrize(
    ("guess", "value", "verdict"),
    [
        (4, 4, "exactly right"),
        (4, 4.2, "right to within 10 %"),
        (30, 4, "ratio 7.5x, too high"),
        (-1, -4, "ratio 4x, too low"),
        (0, 3, "off by 3"),
        (-1, 3, "off by 4"),
    ],
)
def test_verdicts(guess, value, verdict, capsys):
    ask(guess)
    measured("c05-step", value)
    assert said(capsys).endswith(f"; {verdict}\n")


def test_no_guess(ledger, capsys):
    ask(None)
    measured("c05-step", 3)
    assert said(capsys) == (
        f"no guess written: {QUESTION} Put your number (s) in place of None and run this cell again.\n"
        "no guess written; measured 3 (s)\n"
    )
    assert ratios() == {}


def test_last_guess_before_the_measurement_counts():
    ask(1)
    ask(2)
    measured("c05-step", 4)
    assert ratios() == {"c05-step": 0.5}


def test_guess_after_the_fact_is_not_scored(ledger, capsys):
    ask(1)
    measured("c05-step", 4)
    ask(4)
    assert said(capsys).endswith(
        f"your guess: 4 (s). {QUESTION} It is after the fact and is not scored.\n"
    )
    assert ratios() == {"c05-step": 0.25}
    assert entries(ledger)["c05-step"]["after_the_fact"] == 4


def test_first_guess_after_the_fact_is_not_scored_either(capsys):
    ask(None)
    measured("c05-step", 4)
    ask(4)
    assert "after the fact" in said(capsys)
    assert ratios() == {}


def test_running_the_notebook_again_changes_nothing(ledger, capsys):
    for _ in range(2):
        ask(1)
        measured("c05-step", 4)
    first, again = np.array_split(said(capsys).splitlines(), 2)
    assert list(first) == list(again)
    assert "after_the_fact" not in entries(ledger)["c05-step"]


def test_taking_a_guess_back_does_not_lose_it(ledger):
    ask(1)
    ask(None)
    assert entries(ledger)["c05-step"]["guess"] == 1


@pytest.mark.parametrize("bad", ["3", [1], object()], ids=["text", "list", "object"])
def test_guess_must_be_a_number(bad):
    with pytest.raises(TypeError, match="guess must be a number"):
        ask(bad)


def test_numbers_must_be_finite():
    with pytest.raises(ValueError, match="guess must be finite, got nan"):
        ask(float("nan"))
    ask(1)
    with pytest.raises(ValueError, match="value must be finite, got inf"):
        measured("c05-step", float("inf"))


def test_measurement_that_nobody_asked_for():
    ask(1)
    with pytest.raises(
        ValueError,
        match=r"key must be one of 'c05-step', got 'c05-stop'\. Did you mean 'c05-step'\?",
    ):
        measured("c05-stop", 3)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"predictions": 3}',
        '{"predictions": {"a": 1}}',
        '{"predictions": {"a": {"guess": "1", "unit": "s", "question": "?"}}}',
        '{"predictions": {"a": {"guess": 1.0}}}',
    ],
)
def test_damaged_ledger_is_kept_aside_and_said_so(ledger, capsys, text):
    for n in ("", "2"):
        ledger.parent.mkdir(exist_ok=True)
        ledger.write_text(text)
        ask(1)
        assert f"it is kept as predictions.json.damaged{n}, and a new one begins" in said(capsys)
        assert ledger.with_name(f"predictions.json.damaged{n}").read_text() == text
        assert list(entries(ledger)) == ["c05-step"]


def test_failed_write_leaves_the_old_ledger(ledger, monkeypatch):
    ask(1)
    before = ledger.read_text()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"\(No space left on device\): set BIGMODEL_LAB_HOME"):
        ask(2)
    assert ledger.read_text() == before
    assert sorted(p.name for p in ledger.parent.iterdir()) == [".lock", "predictions.json"]


def test_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BIGMODEL_LAB_HOME", str(tmp_path / "file"))
    with pytest.raises(OSError, match="set BIGMODEL_LAB_HOME to a folder of your own"):
        ask(1)


def test_two_notebooks_side_by_side_take_turns(ledger):
    fcntl = pytest.importorskip("fcntl")
    ask(1)
    with open(ledger.with_name(".lock")) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        other = threading.Thread(target=ask, args=(2, "c05-other"))
        other.start()
        other.join(0.3)
        assert other.is_alive()  # it waits for us
        assert list(entries(ledger)) == ["c05-step"]
    other.join(10)
    assert list(entries(ledger)) == ["c05-step", "c05-other"]


class TestCalibration:
    def test_scores_in_words_and_on_the_axes(self, capsys):
        from matplotlib.figure import Figure

        for key, guess, value in (
            ("a", 1, 1.5),
            ("b", 8, 1),
            ("c", 1, 3),
            ("d", 0, 3),
            ("e", None, 3),
        ):
            ask(guess, key)
            measured(key, value)
        said(capsys)
        ax = Figure().subplots()
        assert calibration(ax) is ax
        assert said(capsys) == (
            "1 of 3 guesses (33%) within a factor of 2; the median guess is off by a factor of 3\n"
        )
        points = ax.lines[-1]
        assert list(points.get_xdata()) == pytest.approx([1 / 1.5, 8, 1 / 3])
        assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
        assert ax.get_xscale() == "log"
        low, high = ax.get_xlim()
        assert low < 1 / 8
        assert high > 8
        assert ax.get_xlabel() == "guess / measured (1)"

    def test_nothing_to_score(self, capsys):
        from matplotlib.figure import Figure

        calibration(Figure().subplots())
        assert said(capsys) == "no prediction has both a guess and a measurement yet\n"
