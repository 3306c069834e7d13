"""The table of the articles is whole, and every notebook keeps its promise about its rows."""

import json
from collections import Counter
from pathlib import Path

import pytest

from bigmodel_lab.course import coverage

ROOT = Path(__file__).parents[2]
NOTEBOOKS = coverage.notebooks(ROOT)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_does_what_it_says_about_its_rows(path):
    assert not coverage.problems(coverage.read(path))


class TestTable:
    inventory = tuple(r for r in coverage.rows() if r.kind != "error")
    errors = tuple(r for r in coverage.rows() if r.kind == "error")

    def test_counts(self):
        assert Counter(r.priority for r in self.inventory) == {
            "core": 147,
            "supporting": 149,
            "mention": 35,
        }
        assert Counter(r.priority for r in self.errors) == {"A": 63, "B": 87, "C": 16}
        assert len(self.inventory) == 331
        assert len(self.errors) == 166

    def test_every_id_once(self):
        ids = [r.id for r in coverage.rows()]
        assert len(set(ids)) == len(ids)
        assert [r.id for r in self.errors] == [f"E-{n:03d}" for n in range(1, 167)]

    def test_every_home_is_a_chapter_or_lab(self):
        assert len(coverage.HOMES) == 38
        assert {home for r in coverage.rows() for home in r.home} == set(coverage.HOMES)
        assert all(r.home for r in coverage.rows())

    def test_every_row_says_what_and_where(self):
        for r in coverage.rows():
            assert r.title, r.id
            assert r.title.isascii(), r.id
            assert r.where[:3] in {"000", "001", "002", "003", "004"}, r.id
            assert " l." in r.where, r.id
        assert all(r.title_zh for r in self.inventory)
        assert all(len(r.statement) > 10 for r in self.errors)

    def test_homes_of_the_first_chapter_and_lab(self):
        at_home = Counter((home, r.priority) for r in coverage.rows() for home in r.home)
        assert at_home["c05", "core"] == 14
        assert sum(n for (home, p), n in at_home.items() if home == "c05" and p in "ABC") == 12
        assert [r.id for r in coverage.rows() if "L02" in r.home] == ["S0-41", "S1-67", "E-094"]


def cell(*tags, kind="code", count=1, error=False, cell_id="x"):
    made = {"cell_type": kind, "id": cell_id, "metadata": {"tags": list(tags)}, "source": ""}
    if kind == "code":
        made |= {"execution_count": count, "outputs": [{"output_type": "error"}] if error else []}
    return made


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook for lab L02 and read it; by default everything in it is well."""

    def write(*cells, name="L02_x.ipynb", **changes):
        own = {
            "id": "L02",
            "covers": ["S0-41", "S1-67"],
            "corrects": [],
            "defers": {"E-094": "second half"},
        } | changes
        whole = [cell("covers:S0-41", cell_id="a"), cell("covers:S1-67", "hide-input", cell_id="b")]
        path = tmp_path / name
        content = {"metadata": {"bigmodel_lab": own}, "cells": [*cells] if cells else whole}
        path.write_text(json.dumps(content), "utf-8")
        return path

    return write


def amiss(path):
    return "\n".join(coverage.problems(coverage.read(path)))


class TestProblems:
    def test_none(self, notebook):
        assert amiss(notebook()) == ""

    @pytest.mark.parametrize(
        ("bad", "why"),
        [
            (cell("covers:S1-67", count=None, cell_id="b"), "cell b was not executed"),
            (cell("covers:S1-67", error=True, cell_id="b"), "cell b ends in an error"),
            (cell("covers:S1-67", "remove-cell", cell_id="b"), "cell b is not shown (remove-cell)"),
            (cell("covers:S1-67", kind="markdown", cell_id="b"), "cell b is not a code cell"),
            (cell(cell_id="b"), "no code cell has that tag"),
        ],
        ids=lambda v: v if isinstance(v, str) else "",
    )
    def test_row_that_no_good_cell_names(self, notebook, bad, why):
        said = amiss(notebook(cell("covers:S0-41"), bad))
        assert said.startswith("L02_x.ipynb covers S1-67 (Distributed frameworks")
        assert said.endswith(why)
        assert coverage.read(notebook(cell("covers:S0-41"), bad)).done == {"S0-41"}

    def test_one_good_cell_is_enough(self, notebook):
        two = (cell("covers:S1-67", count=None), cell("covers:S1-67"))
        assert amiss(notebook(cell("covers:S0-41"), *two)) == ""
        assert amiss(notebook(cell("covers:S0-41"), *reversed(two))) == ""

    def test_tag_that_the_metadata_does_not_name(self, notebook):
        said = amiss(
            notebook(cell("covers:S0-41", "covers:S1-67"), cell("corrects:E-094", cell_id="c"))
        )
        assert said == "L02_x.ipynb cell c is tagged corrects:E-094: not in the metadata"

    def test_unknown_row(self, notebook):
        assert "covers S9-99: no such row" in amiss(notebook(covers=["S0-41", "S1-67", "S9-99"]))
        assert "covers E-094: no such row" in amiss(
            notebook(covers=["S0-41", "S1-67", "E-094"], defers={})
        )

    def test_row_of_another_home(self, notebook):
        said = amiss(notebook(covers=["S0-41", "S1-67", "S0-09"]))
        assert (
            "covers S0-09 (Optimisation algorithms as a family: GD, SGD, Adam), whose home is c06"
            in said
        )

    def test_row_named_twice(self, notebook):
        assert "covers S0-41 twice" in amiss(notebook(covers=["S0-41", "S0-41", "S1-67"]))

    def test_row_left_out(self, notebook):
        said = amiss(notebook(defers={}))
        assert (
            "is the home of E-094 (B: Horovod and MXNet make it faster) and neither names nor defers it"
            in said
        )

    def test_deferring(self, notebook):
        assert "defers E-094 without a reason" in amiss(notebook(defers={"E-094": " "}))
        assert "defers S0-41 and also names it" in amiss(
            notebook(defers={"E-094": "later", "S0-41": "later"})
        )
        assert "defers S0-09, which has no home here" in amiss(
            notebook(defers={"E-094": "later", "S0-09": "later"})
        )

    def test_id_and_file_name(self, notebook):
        assert "bigmodel_lab.id is 'L02'" in amiss(notebook(name="L03_x.ipynb"))
        path = notebook()
        path.write_text(json.dumps({"metadata": {}, "cells": []}))
        assert "bigmodel_lab.id is ''" in amiss(path)


class TestReport:
    def test_shares_by_part_and_what_has_no_home(self, notebook):
        text = coverage.report([notebook()])
        lines = {line[:34].strip(): line[34:].split("  ") for line in text.splitlines()}
        assert [w.strip() for w in lines["IV Distributed computing"] if w] == [
            "2 of 16",
            "1 of 10",
            "0 of 16",
        ]
        assert [w.strip() for w in lines["all"] if w] == ["2 of 331", "1 of 147", "0 of 166"]
        assert "L02 defers E-094: second half" in text
        assert "494 rows have no home yet" in text
        assert "and 474 more (--all lists them)" in text

    def test_core_rows_come_first(self):
        listed = [
            line.split()[1]
            for line in coverage.report([], None).splitlines()
            if line.startswith("  ")
        ]
        assert len(listed) == 497
        assert listed[:147] == ["core"] * 147
        assert listed[-51:] == ["mention"] * 35 + ["C"] * 16

    def test_command(self, notebook, tmp_path, capsys):
        (tmp_path / "labs").mkdir()
        notebook(name="labs/L02_x.ipynb")
        assert coverage.main(["--root", str(tmp_path)]) == 0
        assert "1 of 10" in capsys.readouterr().out
        notebook(name="labs/L02_x.ipynb", defers={})
        assert coverage.main(["--root", str(tmp_path)]) == 1
        assert "L02_x.ipynb is the home of E-094" in capsys.readouterr().out
