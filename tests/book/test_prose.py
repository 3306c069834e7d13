"""Markdown written for JupyterLab, turned into Markdown for mdBook."""

import pytest

from bigmodel_lab.book import prose


class Place:
    """Answers what `convert` asks, so that the tests can see what was asked."""

    def __init__(self):
        self.ids = iter(["one", "two", "three"])

    def formula(self, tex, display):
        return f"<{'DISPLAY' if display else 'INLINE'} {tex.strip()}>"

    def diagram(self, text):
        return f"<DIAGRAM {text.strip()}>"

    def href(self, url, *, picture=False):
        return f"{'P' if picture else 'L'}:{url}"

    def heading(self):
        return next(self.ids)

    def after_title(self):
        return "<DOWNLOAD>"


def convert(source):
    return prose.convert(source, Place())


@pytest.mark.parametrize(
    "source",
    [
        "plain *text* with [brackets] and a_b, 5 * 3",
        "`$x$ and [a](b.ipynb)`",
        "``a ` $b$ ` c``",
        "```python\n# not a heading\ncost = '$5' # [a](b.ipynb)\n$$x$$\n```",
        "~~~\n$$\n~~~",
        "> ```\n> $ make lab\n> ```",
        r"it costs \$5, or \$6",
        r"a tick \` is no code, nor is `this",
    ],
)
def test_left_alone(source):
    assert convert(source) == source


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("so $x$, $y_{1}$.", "so <INLINE x>, <INLINE y_{1}>."),
        ("so ($x$)", 'so <span class="together">(<INLINE x></span>)'),
        ("即（$x$）", '即<span class="together">（<INLINE x></span>）'),
        (f"so (${'x' * 25}$)", f"so (<INLINE {'x' * 25}>)"),
        ("**bold $x$**", "**bold <INLINE x>**"),
        ("| $|x|$ | b |", "| <INLINE |x|> | b |"),
        ("over\ntwo $a +\nb$ lines", "over\ntwo <INLINE a +\nb> lines"),
        ("$\\$5 + x$", "<INLINE \\$5 + x>"),
        ("the loss\n\n$$\nL = 1\n$$\n\nfalls", "the loss\n\n<DISPLAY L = 1>\n\nfalls"),
        ("> so\n> $$\n> L = 1\n> $$\n> end", "> so\n> <DISPLAY L = 1>\n> end"),
        ("$$\na\n> b\n$$", "<DISPLAY a\n> b>"),  # a formula may hold a > at a line's start
        (
            "\\begin{align*}a &= b\\end{align*}",
            "<DISPLAY \\begin{align*}a &= b\\end{align*}>",
        ),
        ("`$a$` and $b$ and `$c$`", "`$a$` and <INLINE b> and `$c$`"),
    ],
)
def test_formulas(source, wanted):
    assert convert(source) == wanted


@pytest.mark.parametrize(
    "source", ["it costs $5", "between $5 and $10", "some $5-$10", "a $ b", "$x"]
)
def test_a_dollar_that_is_no_formula_is_an_error(source):
    with pytest.raises(ValueError, match=r"ends no formula: write \\\$ for a dollar sign"):
        convert(source)


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("[a](b.ipynb#c) and [d](e.md)", "[a](L:b.ipynb#c) and [d](L:e.md)"),
        ('[a](b.ipynb "title")', '[a](L:b.ipynb "title")'),
        ("![alt](f.svg)", "![alt](P:f.svg)"),
        ("[![alt](f.svg)](b.ipynb)", "[![alt](P:f.svg)](L:b.ipynb)"),
        ('<a href="b.ipynb">x</a>', '<a href="L:b.ipynb">x</a>'),
        ('<img alt="" src="f.png">', '<img alt="" src="P:f.png">'),
        ("see [a][1]\n\n[1]: b.ipynb", "see [a][1]\n\n[1]: L:b.ipynb"),
        ("[`ops/linear.py`](../x.py)", "[`ops/linear.py`](L:../x.py)"),
    ],
)
def test_links(source, wanted):
    assert convert(source) == wanted


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("# A\n\ntext", "# A {#one}\n\n<DOWNLOAD>\n\n\ntext"),
        ("## A ##\n### B", "## A {#one}\n### B {#two}"),
        ("## The loss $L$ of [a](b.ipynb)", "## The loss <INLINE L> of [a](L:b.ipynb) {#one}"),
        ("#hashtag, not a heading", "#hashtag, not a heading"),
        ("> **Note.** Look.\n> Again.", "> [!NOTE]\n> Look.\n> Again."),
        ("> **Warning.**\n> Look.", "> [!WARNING]\n> \n> Look."),
        ("> **Notes.** are no note", "> **Notes.** are no note"),
        ("a **Note.** in a line", "a **Note.** in a line"),
        ("```mermaid\nflowchart LR\n  a-->b\n```\nend", "<DIAGRAM flowchart LR\n  a-->b>\n\nend"),
    ],
)
def test_headings_notes_and_diagrams(source, wanted):
    assert convert(source) == wanted


def test_titles_are_those_outside_code():
    source = "# One\n\n```\n# no\n```\n\n## The `x` of [a](b), *again*\n"
    assert prose.titles(source) == [(1, "One"), (2, "The x of a, again")]


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("Why does it work?", "why-does-it-work"),
        ("Forward & backward", "forward--backward"),
        ("反向传播：链式法则", "反向传播链式法则"),
        ("A_b-c", "a_b-c"),
    ],
)
def test_slug(title, wanted):
    assert prose.slug(title) == wanted


def test_code_cannot_end_its_fence():
    code = 'text = """\n````\n"""'
    lines = prose.fenced(code, "python").split("\n")
    assert lines[0] == "`````python"
    assert lines[-1] == "`````"
