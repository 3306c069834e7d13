"""A notebook's cells and tags, page by page."""

import pytest

from bigmodel_lab.book import BookError
from bigmodel_lab.book.links import Assets, Site
from bigmodel_lab.book.maths import Maths
from bigmodel_lab.book.page import Page
from bigmodel_lab.course import exercises

FILE = "labs/L09_test.ipynb"


def markdown(source, **cell):
    tags = cell.pop("tags", [])
    return {
        "cell_type": "markdown",
        "metadata": {"tags": tags},
        "source": source,
        "id": "md",
    } | cell


def code(source, *outputs, tags=(), count=1, **metadata):
    return {
        "cell_type": "code",
        "id": "L09-code",
        "metadata": {"tags": list(tags), **metadata},
        "source": source,
        "outputs": list(outputs),
        "execution_count": count,
    }


def stdout(text):
    return {"output_type": "stream", "name": "stdout", "text": text}


ERROR = {"output_type": "error", "ename": "KeyError", "evalue": "'x'", "traceback": ["Cell In[1]"]}


@pytest.fixture
def page(tmp_path):
    def make(*cells):
        site = Site(tmp_path, {FILE: "labs/L09_test.html"}, Assets(tmp_path / "_assets"))
        return Page(FILE, {"cells": list(cells)}, site, Maths(tmp_path), tmp_path)

    return make


def test_code_and_what_it_printed_stand_in_one_frame(page):
    text = page(code("print(1)", stdout("1\n"), stdout("2\n"))).markdown()
    assert text == (
        '<div class="cell" id="L09-code">\n\n```python\nprint(1)\n```\n\n'
        '<div class="output"><pre class="stdout">1</pre><pre class="stdout">2</pre></div>\n\n</div>\n'
    )


def test_hidden_input_is_folded_below_the_output(page):
    text = page(code("plot()", stdout("x"), tags=["hide-input"])).markdown()
    assert (
        text.index('class="output"') < text.index("<summary>Code</summary>") < text.index("plot()")
    )


def test_removed_cells_leave_nothing_and_need_no_run(page):
    cells = (
        code("secret()", tags=["remove-cell"], count=None),
        markdown("# gone $", tags=["remove-cell"]),
    )
    assert page(*cells, markdown("stays")).markdown() == '<a id="md"></a>\n\nstays\n'


@pytest.mark.parametrize(
    "cell", [markdown("the answer", tags=["solution"]), code("1", tags=["solution"])]
)
def test_solutions_are_folded(page, cell):
    text = page(cell).markdown()
    assert text.startswith('<details class="solution">\n<summary>Solution</summary>\n\n')
    assert text.endswith("\n\n</details>\n")


def test_a_cell_that_was_not_run_stops_the_build(page):
    with pytest.raises(
        BookError, match=rf"{FILE}, cell L09-code: the cell has not been run.*make notebooks"
    ):
        page(code("1", count=None)).markdown()
    assert page(code("  ", count=None)).markdown() == "\n"  # an empty cell has nothing to run


def test_a_stored_exception_stops_the_build_unless_it_is_meant(page):
    with pytest.raises(
        BookError, match=r"cell L09-code: the stored output is an error \(KeyError: 'x'\)"
    ):
        page(code("1", ERROR)).markdown()
    assert (
        "<strong>KeyError</strong>" in page(code("1", ERROR, tags=["raises-exception"])).markdown()
    )


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (r"so $\nosuch{x}$", r"KaTeX does not understand the formula '\\\\nosuch{x}'"),
        ("costs $5", "ends no formula"),
        ("[a](gone.ipynb)", "leads to labs/gone.ipynb"),
        ("[a](#No-such)", "names no heading"),
        ("```mermaid\nnonsense\n```", "Mermaid does not understand"),
    ],
)
def test_what_stops_the_build_names_file_and_cell(page, source, message):
    with pytest.raises(BookError, match=f"^{FILE}, cell md: .*{message}"):
        page(markdown(source)).markdown()


def test_headings_have_the_ids_that_links_find(page):
    made = page(
        markdown("# One\n\n## Again\n\n[first](#Again) [code](#cell-id=L09-code)"),
        code("1"),
        markdown("## Again\n\n## L09-code", id="md2"),
    )
    text = made.markdown()
    assert "# One {#one}" in text
    assert "## Again {#again}" in text
    assert "## Again {#again-1}" in text
    assert "## L09-code {#l09-code}" in text
    assert "[first](#again) [code](#L09-code)" in text


def test_download_stands_once_below_the_title(page):
    made = page(markdown("# One\n\ntext\n\n# Two"))
    assert (
        made.markdown("../L09_test.ipynb").count(
            '<a href="../L09_test.ipynb" download="L09_test.ipynb">'
        )
        == 1
    )


def test_attachment_becomes_a_file_of_the_book(page, tmp_path):
    cell = markdown("![x](attachment:x.png)", attachments={"x.png": {"image/png": "UE5H"}})
    text = page(cell).markdown()
    (stored,) = (tmp_path / "_assets").iterdir()
    assert f"![x](../_assets/{stored.name})" in text
    assert stored.read_bytes() == b"PNG"


def test_exercise_shows_what_its_module_says(page, monkeypatch):
    def halve(x):
        return x / 2  # half

    exercise = exercises.Exercise(
        id="c99-a",
        title="Halve < it",
        difficulty=2,
        minutes=7,
        stub="def halve(x):\n    ...",
        reference=halve,
        wrong=(),
        hints=("Think of $\\frac{1}{2}$.", "Divide."),
        check=lambda fn: None,
    )
    monkeypatch.setattr(exercises, "get", {"c99-a": exercise}.__getitem__)
    text = page(code("stub", tags=["exercise"], exercise="c99-a")).markdown()
    assert text.index("stub") < text.index("Exercise c99-a")
    assert "Halve &lt; it: difficulty 2 of 3 (a derivation), about 7 minutes." in text
    assert text.count("<details") == 3
    assert "<summary>Hint 2 of 2</summary>\n\nDivide." in text
    assert "katex" in text
    assert "```python\ndef halve(x):\n    return x / 2  # half\n```" in text


def test_an_exercise_that_is_not_there_stops_the_build(page):
    with pytest.raises(BookError, match="cell L09-code: exercise must be one of"):
        page(code("stub", tags=["exercise"], exercise="c99-z")).markdown()
    with pytest.raises(BookError, match="metadata must name it"):
        page(code("stub", tags=["exercise"])).markdown()
