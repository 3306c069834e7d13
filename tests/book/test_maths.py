"""Formulas: what KaTeX gives, how it survives Markdown, and what is remembered."""

import hashlib
import json
import re

import pytest

from bigmodel_lab.book import maths


@pytest.fixture(scope="module")
def katex(tmp_path_factory):
    return maths.Maths(tmp_path_factory.mktemp("cache"))


def visible(markup):
    """Return the text between the tags as it stands in the file."""
    return "".join(re.findall(r">([^<>]+)<", markup))


@pytest.mark.parametrize(
    "tex",
    [
        r"\frac{\partial L}{\partial z_{ij}} = \frac{1}{N}\left(p_{ij} - y_{ij}\right)",
        r"\begin{aligned} a &= b \\ c &= d \end{aligned}",
        r"\operatorname*{argmax}_{\text{中文}} \langle a | b \rangle * [x]",
        r"f'(x) \odot \mathbf{1}[k = y_n] \sim \`{a}",
    ],
)
@pytest.mark.parametrize("display", [False, True])
def test_formula_survives_markdown(katex, tex, display):
    markup = katex.render(tex, display=display)
    assert "<math" in markup
    assert 'aria-hidden="true"' in markup  # the copy for the eye is not read out twice
    assert ("katex-display" in markup) is display
    assert "\n" not in markup
    assert not set(visible(markup)) & set("*_[]|\\`'~^$")
    assert "annotation" not in markup


def test_chinese_stays_chinese(katex):
    assert "损失" in katex.render(r"\text{损失}", display=False)


@pytest.mark.parametrize("tex", [r"\frac{1}", r"\nosuchcommand x", "a_b_c", r"\begin{aligned} x"])
def test_what_is_no_formula_raises_with_katex_words(katex, tex):
    with pytest.raises(ValueError, match=r"KaTeX parse error|Double subscript|Undefined control"):
        katex.render(tex, display=False)


def test_a_formula_is_rendered_once_and_then_read_from_disk(tmp_path, monkeypatch):
    first = maths.Maths(tmp_path)
    markup = first.render("x^2", display=False)
    first.save()
    monkeypatch.setattr(maths.Maths, "_run", lambda *_: pytest.fail("KaTeX ran again"))
    again = maths.Maths(tmp_path)
    assert again.render(" x^2 ", display=False) == markup
    before = again.store.stat().st_mtime_ns
    again.save()
    assert again.store.stat().st_mtime_ns == before  # nothing new: nothing written
    with pytest.raises(pytest.fail.Exception):
        again.render("x^2", display=True)  # the same formula on a line of its own is another


def test_new_formulas_are_added_to_the_old_ones(tmp_path):
    for tex in ("a", "b"):
        book = maths.Maths(tmp_path)
        book.render(tex, display=False)
        book.save()
    (store,) = tmp_path.iterdir()
    assert json.loads(store.read_text("utf-8")).keys() == {"inline:a", "inline:b"}


def test_another_katex_starts_another_store(tmp_path, monkeypatch):
    name = maths.Maths(tmp_path).store.name
    other = tmp_path / "katex.js"
    other.write_text("// another version", "utf-8")
    monkeypatch.setattr(maths, "KATEX", other)
    assert maths.Maths(tmp_path).store.name != name


def test_notice_names_the_katex_that_is_here():
    notice = (maths.KATEX.parent.parent / "NOTICE").read_text("utf-8")
    assert hashlib.sha256(maths.KATEX.read_bytes()).hexdigest() in notice
    version = re.search(r'version:"([\d.]+)"', maths.KATEX.read_text("utf-8"))[1]
    assert f"KaTeX {version}" in notice
    assert (maths.KATEX.parent / "LICENSE").read_text("utf-8").startswith("The MIT License")
