"""What a reader sees: one readable result for whatever the function does."""

import dataclasses
import itertools
import signal
import threading
import warnings

import numpy as np
import pytest

from bigmodel_lab.course import exercises, grade, grading, hint, solution
from bigmodel_lab.course.exercises import Exercise, Miss, Wrong, expect


def double(x):
    return 2 * x


def _check(fn):
    x = np.array([1.0, -2.0])
    expect("the double", fn(x), 2 * x, 1e-12, given={"x": x}, same_dtype=True)


EXERCISE = Exercise(
    id="c99-a",
    title="Double",
    difficulty=1,
    minutes=3,
    stub="def double(x):\n    ...",
    reference=double,
    wrong=(Wrong(lambda x: x, "nothing to do", "too small"),),
    hints=("Add x to itself.", "Multiply by 2."),
    check=_check,
)


@pytest.fixture(autouse=True)
def one_exercise(monkeypatch):
    monkeypatch.setattr(exercises, "get", lambda exercise_id: EXERCISE)
    monkeypatch.setattr(grading, "_hints_given", {})


def message(fn, **changes):
    return str(grading._grade(dataclasses.replace(EXERCISE, **changes), fn))


def test_prints_one_result_and_returns_it(capsys):
    result = grade("c99-a", double)
    assert result
    assert capsys.readouterr().out == "c99-a passed: Double. Checked: all cases.\n"
    assert (result.id, result.status) == ("c99-a", "passed")


def test_what_the_check_returns_says_what_a_pass_means():
    assert message(double, check=lambda fn: "nothing but your honour").endswith(
        "nothing but your honour."
    )


def test_as_the_last_line_of_a_cell_it_shows_nothing_more():
    from IPython.core.interactiveshell import InteractiveShell

    data, metadata = InteractiveShell.instance().display_formatter.format(
        grading.Grade("c99-a", "passed", "x")
    )
    InteractiveShell.clear_instance()
    assert (data, metadata) == ({}, {})


class TestNotAttempted:
    @pytest.mark.parametrize(
        "value", [None, ..., NotImplemented, (None, None), [..., ...], {"dw": ...}], ids=str
    )
    def test_placeholders(self, value):
        assert message(lambda x: value).startswith("c99-a not attempted: double return")

    def test_raises_not_implemented(self):
        def stub(x):
            raise NotImplementedError("your turn")

        assert message(stub).startswith("c99-a not attempted: double raises NotImplementedError")

    def test_a_forgotten_return_is_mentioned(self):
        assert "add a return" in message(lambda x: None)

    def test_half_an_answer_is_an_attempt(self):
        assert message(lambda x: (x, ...)).startswith("c99-a not yet")


class TestKindWords:
    def test_miss_names_the_misconception_and_shows_the_case(self):
        assert message(lambda x: x) == (
            "c99-a not yet: the double is 2 times too small in every entry: look for a square or a one-half. "
            "For x=[1, -2] your function returns [1, -2]; right is [2, -4]."
        )

    def test_readers_own_exception_with_its_line(self):
        source = (
            "def helper(x):\n    return x + {}\n\ndef double(x):\n    y = x\n    return helper(y)\n"
        )
        namespace = {}
        exec(compile(source, "<a cell>", "exec"), namespace)
        text = message(namespace["double"])
        assert text.startswith("c99-a not yet: your function raised TypeError: unsupported operand")
        assert text.endswith("on line 2.")

    def test_exception_inside_numpy_is_told_at_the_readers_line(self):
        def double(x):
            return x @ np.ones(3)

        line = double.__code__.co_firstlineno + 1
        assert f"on line {line}, return x @ np.ones(3)." in message(double)

    def test_no_address_in_what_it_says(self):
        def fails(x):
            raise ValueError(f"{object()} and {double}")

        assert "0x" not in message(fails)
        assert "0x" not in message(lambda x: double)

    def test_exit_does_not_end_the_kernel(self):
        assert "your function raised SystemExit: 1" in message(lambda x: exit(1))

    def test_interrupt_goes_through(self):
        def interrupted(x):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            message(interrupted)

    def test_changed_argument(self):
        def inplace(values):
            values *= 2
            return values

        assert "your function changes its argument values in place" in message(inplace)

    def test_changed_argument_where_that_is_the_task(self):
        def check(fn):
            fn(x := np.ones(2))
            expect("x", x, np.full(2, 2.0), 0)

        def doubles(x):
            x *= 2

        assert message(doubles, inplace=True, check=check).startswith("c99-a passed")
        assert message(lambda x: None, inplace=True, check=check).startswith(
            "c99-a not yet: x is 2 times too small"
        )

    def test_changed_argument_by_keyword_and_inside_a_list(self):
        def check(fn):
            fn([np.ones(2)], k={"a": np.ones(2)})

        def changes(xs, k):
            xs[0][1] = k["a"][0] = 3.0
            return xs

        assert "changes its argument xs, k in place" in message(changes, check=check)

    def test_result_of_the_wrong_kind(self):
        assert "must be an array of real numbers, got str" in message(lambda x: "two")
        assert "must be an array of numbers, got list" in message(lambda x: [1, [2, 3]])
        assert "has shape (3,) and should have (2,)" in message(lambda x: np.ones(3))
        assert "has 1 of 2 entries NaN" in message(lambda x: np.array([2.0, np.nan]))
        assert "dtype float32: it should keep float64" in message(
            lambda x: (2 * x).astype(np.float32)
        )

    def test_check_that_cannot_work_with_the_result(self):
        def check(fn):
            fn(1).shape  # noqa: B018

        assert "double returned 1, which cannot be checked (AttributeError" in message(
            lambda x: x, check=check
        )

    def test_a_warning_becomes_part_of_the_sentence_and_nothing_leaks(self):
        def divides(x):
            return x / np.zeros(2)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert "(Python warned: divide by zero" in message(divides)

    def test_call_instead_of_function(self):
        assert 'pass the function itself, grade("c99-a", double); what arrived is 4' in message(4)


class TestTimeLimit:
    def test_loop_without_end(self):
        def forever(x):
            for _ in itertools.count():
                pass

        assert "did not finish within 0.2 s" in message(forever, limit_s=0.2)

    def test_a_bare_except_does_not_save_it(self):
        def stubborn(x):
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    return x

        assert message(stubborn, limit_s=0.2).startswith("c99-a not yet")

    def test_signal_is_given_back(self):
        before = signal.getsignal(signal.SIGVTALRM)
        message(double)
        assert signal.getsignal(signal.SIGVTALRM) is before
        assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)

    def test_grades_in_another_thread_too(self):
        found = []
        thread = threading.Thread(target=lambda: found.append(message(double)))
        thread.start()
        thread.join()
        assert found == ["c99-a passed: Double. Checked: all cases."]


class TestHintAndSolution:
    def test_next_hint_on_each_call(self, capsys):
        for _ in range(3):
            hint("c99-a")
        assert capsys.readouterr().out == (
            "c99-a hint 1 of 2: Add x to itself.\n"
            "c99-a hint 2 of 2: Multiply by 2.\n"
            'c99-a has 2 hints; solution("c99-a") shows an answer.\n'
        )

    def test_hint_by_number(self, capsys):
        hint("c99-a", 2)
        assert capsys.readouterr().out == "c99-a hint 2 of 2: Multiply by 2.\n"

    def test_solution_is_the_references_source(self, capsys):
        solution("c99-a")
        assert capsys.readouterr().out == "def double(x):\n    return 2 * x\n"


def test_miss_without_a_case_is_its_message():
    assert str(Miss("the sign is wrong.")) == "the sign is wrong."
    assert str(Miss("no.", got=1.0, want=2.0)) == "no. Your function returns 1; right is 2."
