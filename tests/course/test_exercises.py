"""Every exercise of the course keeps the registry's rules, and exercises that break them are found out."""

import dataclasses
import importlib
import inspect
import json
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from bigmodel_lab.course import exercises, grading
from bigmodel_lab.course.exercises import Exercise, Wrong

ROOT = Path(__file__).parents[2]
ALL = [e for chapter in exercises.chapters() for e in exercises.of_chapter(chapter)]


def run(exercise, fn):
    return grading._grade(exercise, fn)


def stub_function(exercise):
    namespace = {"np": np}
    exec(exercise.stub, namespace)
    return namespace[exercise.name]


def remove(monkeypatch, dotted):
    """Make the function `dotted` raise wherever a loaded module of ours, or its own, holds it."""
    module, _, name = dotted.rpartition(".")
    original = getattr(importlib.import_module(module), name)

    def removed(*_, **__):
        raise RuntimeError(f"the grader called {dotted}")

    holders = [
        m for k, m in list(sys.modules.items()) if k.startswith("bigmodel_lab") or k == module
    ]
    for holder in holders:
        for key, value in list(vars(holder).items()):
            if value is original:
                monkeypatch.setattr(holder, key, removed)


def wrong_answers(exercise):
    """Name what is amiss with the wrong answers of an exercise."""
    amiss = []
    if len(exercise.wrong) < 3:
        amiss.append("fewer than three wrong answers")
    grades = [run(exercise, w.fn) for w in exercise.wrong]
    for wrong, result in zip(exercise.wrong, grades, strict=True):
        if result.status != "not yet" or wrong.message not in result.message:
            amiss.append(f"{wrong.misconception!r} is answered with: {result}")
        others = [w for w in exercise.wrong if w is not wrong and w.message in result.message]
        amiss += [
            f"the message for {w.misconception!r} also answers {wrong.misconception!r}"
            for w in others
        ]
    return amiss


def own_function(exercise):
    """Name what is amiss with the way the grader uses the reader's function."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return exercise.reference(*args, **kwargs)

    with pytest.MonkeyPatch.context() as monkeypatch:
        for dotted in exercise.uses:
            remove(monkeypatch, dotted)
        result = run(exercise, counted)
        amiss = [] if result else [f"with the library's functions removed: {result}"]
        amiss += wrong_answers(exercise)
    return amiss if calls else ["the grader never called the function", *amiss]


@pytest.mark.parametrize("exercise", ALL, ids=lambda e: e.id)
class TestEveryExercise:
    def test_stub_is_not_attempted(self, exercise):
        assert run(exercise, stub_function(exercise)).status == "not attempted"

    def test_reference_passes(self, exercise):
        result = run(exercise, exercise.reference)
        assert result, result

    def test_wrong_answers_are_caught_each_with_its_own_message(self, exercise):
        assert not wrong_answers(exercise)

    def test_grader_calls_the_readers_function_and_not_the_librarys(self, exercise):
        assert not own_function(exercise)

    def test_grade_is_the_same_twice(self, exercise):
        for fn in (exercise.reference, *(w.fn for w in exercise.wrong)):
            assert run(exercise, fn) == run(exercise, fn)

    def test_there_are_hints_and_a_solution(self, exercise):
        assert exercise.hints
        assert f"def {exercise.name}(" in exercise.solution_source


def cells_by_exercise(path):
    found = {}
    for cell in json.loads(path.read_text())["cells"]:
        if "exercise" in cell["metadata"]:
            found.setdefault(cell["metadata"]["exercise"], []).append(cell)
        elif "exercise" in cell["metadata"].get("tags", []):
            found.setdefault(f"cell {cell.get('id')} without the metadata 'exercise'", []).append(
                cell
            )
    return found


def notebook_of(chapter):
    return [*ROOT.glob(f"chapters/{chapter}_*.ipynb"), *ROOT.glob(f"labs/{chapter}_*.ipynb")]


def in_notebook(path, wanted):
    """Name the differences between the exercises `wanted` and the cells of the notebook at `path`."""
    cells = cells_by_exercise(path)
    amiss = [f"{path.name} has no cell for {e.id}" for e in wanted if e.id not in cells]
    by_id = {e.id: e for e in wanted}
    for exercise_id, its_cells in cells.items():
        where = f"{path.name} {exercise_id}"
        if exercise_id not in by_id:
            amiss.append(f"{where}: no such exercise in its chapter's module")
            continue
        if len(its_cells) > 1:
            amiss.append(f"{where}: {len(its_cells)} cells")
        for cell in its_cells:
            exercise = by_id[exercise_id]
            if "".join(cell["source"]) not in (exercise.stub, exercise.cell):
                amiss.append(f"{where}: cell {cell.get('id')} is not the module's stub")
            if "exercise" not in cell["metadata"].get("tags", []):
                amiss.append(f"{where}: cell {cell.get('id')} has no tag 'exercise'")
    return amiss


NOTEBOOKS = sorted([*ROOT.glob("chapters/*.ipynb"), *ROOT.glob("labs/*.ipynb")])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_holds_each_exercise_of_its_chapter_once(path):
    chapter = path.stem.partition("_")[0]
    known = exercises.of_chapter(chapter) if chapter in exercises.chapters() else ()
    assert not in_notebook(path, known)


@pytest.mark.parametrize("chapter", exercises.chapters())
def test_chapter_of_every_exercise_has_a_notebook(chapter):
    assert len(notebook_of(chapter)) == 1
    assert [e.id.partition("-")[0] for e in exercises.of_chapter(chapter)] == [chapter] * len(
        exercises.of_chapter(chapter)
    )


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The example in the registry's docstring, as a chapter of its own."""
    doc = inspect.getdoc(exercises)
    block = doc[doc.index("    import numpy") : doc.index("Rules that")]
    (tmp_path / "c99.py").write_text(textwrap.dedent(block))
    monkeypatch.setattr(exercises, "__path__", [*exercises.__path__, str(tmp_path)])
    yield exercises.get("c99-a")
    sys.modules.pop("bigmodel_lab.course.exercises.c99")


def test_documented_example_keeps_the_rules(example):
    TestEveryExercise().test_stub_is_not_attempted(example)
    TestEveryExercise().test_reference_passes(example)
    TestEveryExercise().test_there_are_hints_and_a_solution(example)
    assert not wrong_answers(example)
    assert not own_function(example)


class TestBrokenExercisesAreFound:
    def test_grader_that_runs_its_own_answer(self, example):
        def check(fn):
            exercises.expect("it", example.reference(np.ones(3)), 1.0, 1e-9)

        broken = dataclasses.replace(example, check=check)
        assert own_function(broken)[0] == "the grader never called the function"
        assert len(wrong_answers(broken)) == 3

    def test_grader_that_needs_the_library(self, example):
        def check(fn):
            exercises.expect("it", fn(np.ones(3)), np.square(np.ones(3)).mean(), 1e-9)

        amiss = own_function(dataclasses.replace(example, check=check))
        assert "the grader called numpy.square" in amiss[0]

    def test_two_wrong_answers_with_one_message(self, example):
        first, second, third = example.wrong
        same = dataclasses.replace(second, message="returns")
        amiss = wrong_answers(dataclasses.replace(example, wrong=(first, same, third)))
        assert any("also answers 'a mean is a sum'" in a for a in amiss)

    def test_wrong_answer_that_is_right(self, example):
        right = Wrong(example.reference, "none", "anything")
        amiss = wrong_answers(dataclasses.replace(example, wrong=(*example.wrong, right)))
        assert any("'none' is answered with: c99-a passed" in a for a in amiss)

    def test_two_wrong_answers_are_too_few(self, example):
        broken = dataclasses.replace(example, wrong=example.wrong[:2])
        assert "fewer than three wrong answers" in wrong_answers(broken)

    def test_notebook_cells(self, example, tmp_path):
        def notebook(*cells):
            path = tmp_path / "c99_x.ipynb"
            path.write_text(json.dumps({"cells": list(cells)}))
            return in_notebook(path, [example])

        def cell(source, exercise="c99-a", tags=("exercise",)):
            return {
                "id": "x",
                "source": source,
                "metadata": {"exercise": exercise, "tags": list(tags)},
            }

        assert notebook(cell(example.cell)) == notebook(cell(example.stub)) == []
        assert notebook() == ["c99_x.ipynb has no cell for c99-a"]
        assert "2 cells" in notebook(cell(example.cell), cell(example.cell))[0]
        assert "not the module's stub" in notebook(cell(example.cell + " "))[0]
        assert "no tag" in notebook(cell(example.cell, tags=()))[0]
        assert "no such exercise" in notebook(cell(example.cell), cell("x", "c99-b"))[0]
        untold = {"id": "x", "source": "", "metadata": {"tags": ["exercise"]}}
        assert "without the metadata" in notebook(cell(example.cell), untold)[0]


class TestRegistry:
    def test_unknown_exercise_offers_the_nearest(self, example):
        with pytest.raises(
            ValueError, match=r"exercise must be one of .*'c99-a', got 'c99-b'. Did you mean"
        ):
            exercises.get("c99-b")
        with pytest.raises(ValueError, match="exercise must be one of"):
            exercises.get("nonsense")

    def test_solution_must_bear_the_stubs_name(self, example):
        with pytest.raises(ValueError, match="give both one name"):
            dataclasses.replace(example, stub="def other(x):\n    ...")

    def test_stub_must_define_a_function(self, example):
        with pytest.raises(ValueError, match="the stub defines no function"):
            dataclasses.replace(example, stub="x = 1")

    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("id", "5-a", "id must look like"),
            ("difficulty", 4, "difficulty of c99-a"),
            ("minutes", 0, "minutes of"),
        ],
    )
    def test_fields_are_checked(self, example, field, value, message):
        with pytest.raises(ValueError, match=message):
            dataclasses.replace(example, **{field: value})

    def test_fields_are_frozen(self, example):
        assert isinstance(example, Exercise)
        with pytest.raises(dataclasses.FrozenInstanceError):
            example.minutes = 1


class TestShow:
    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (np.array([[1.0, 2.5]]), "[[1, 2.5]]"),
            (np.zeros((5, 5), np.float32), "<float32 array of shape (5, 5)>"),
            (1 / 3, "0.333333"),
            ((np.array([1]), {"a": 2.0}), "([1], {a: 2})"),
            ([1, "a"], "[1, 'a']"),
        ],
    )
    def test_text(self, value, text):
        assert exercises.show(value) == text

    def test_no_address_and_no_flood(self):
        assert "0x" not in exercises.show(object())
        assert len(exercises.show("a" * 1000)) == 80
