"""Stored outputs, one line of HTML each."""

import base64

import pytest

from bigmodel_lab.book import figures, outputs


class Place:
    def add(self, data, suffix):
        return f"_assets/{len(data)}{suffix}"

    def formula(self, tex, display):
        return f"<math>{tex}|{display}</math>"


def show(data):
    return outputs.render({"output_type": "display_data", "data": data, "metadata": {}}, Place())


def stream(text, name="stdout"):
    return outputs.render({"output_type": "stream", "name": name, "text": text}, Place())


def test_printed_text_keeps_its_lines_and_markdown_leaves_it_alone():
    assert (
        stream(["a\n", "\n", "  <b> & *c*\n"])
        == '<pre class="stdout">a&#10;&#10;  &lt;b&gt; &amp; *c*</pre>'
    )
    assert stream("warned", "stderr").startswith('<pre class="stderr">')


def test_colours_and_overwritten_lines_of_a_terminal_are_gone():
    shown = stream("\x1b[31mred\x1b[0m\n10%\r50%\r100%\r\ndone")
    assert shown == '<pre class="stdout">red&#10;100%&#10;done</pre>'


def test_nothing_printed_is_nothing_shown():
    assert stream(" \n") == ""
    assert show({"text/plain": ""}) == ""


def test_an_exception_shows_its_message_and_folds_the_way_there():
    html = outputs.render(
        {
            "output_type": "error",
            "ename": "ValueError",
            "evalue": "w must have shape (D)\nwith D=3",
            "traceback": ["\x1b[31m----\x1b[0m", "Cell In[3], line 1", "\n\nValueError: w <must>"],
        },
        Place(),
    )
    assert "\n" not in html
    message, fold = html.split("<details>")
    assert "<strong>ValueError</strong>: w must have shape (D)&#10;with D=3</pre>" in message
    assert fold.startswith("<summary>Traceback</summary>")
    assert "Cell In[3], line 1" in fold
    assert "w &lt;must&gt;" in fold
    assert "\x1b" not in html


def test_best_form_first():
    svg, png = '<svg width="1"><path/></svg>', base64.b64encode(b"PNG").decode()
    assert "<svg " in show({"text/plain": "f", "image/png": png, "image/svg+xml": svg})
    only_png = show({"text/plain": "f < g", "image/png": png})
    assert '<img src="_assets/3.png" alt="f &lt; g" loading="lazy">' in only_png
    frames = {"names": ["a"], "choices": [["1"]], "frames": [svg], "captions": ["c"]}
    assert 'class="slider"' in show(
        {figures.FRAMES: frames, "image/png": png, "text/plain": "a slider"}
    )
    assert show({"text/html": "<b>x</b>", "text/plain": "x"}) == '<div class="html"><b>x</b></div>'
    assert show({"text/latex": r"$\displaystyle x^2$", "text/plain": "x"}) == (
        '<div class="html"><math> x^2|True</math></div>'
    )
    view = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "Slider()"}
    assert show(view) == '<pre class="result">Slider()</pre>'


def test_html_that_a_library_wrote():
    table = (
        '<div>\n<style scoped>\n  td { color: red }\n\n</style>\n<script>alert(1)</script><table border="1">\n\n'
        "  <tr>\n<th></th><th>a</th></tr></table>\n<pre>x\n\n  y</pre></div>"
    )
    assert show({"text/html": table}) == (
        '<div class="html"><div> <table> <tr> <td></td><th>a</th></tr></table> <pre>x&#10;&#10;  y</pre></div></div>'
    )


@pytest.mark.parametrize(
    "markup",
    [
        '<img src="https://example.org/a.png">',
        "<iframe src=//example.org/x>",
        '<link rel="s" href="http://a/b.css">',
    ],
)
def test_html_that_loads_from_another_host_is_an_error(markup):
    with pytest.raises(ValueError, match="from another host"):
        show({"text/html": markup})


def test_html_may_link_elsewhere():
    assert "https://example.org" in show({"text/html": '<a href="https://example.org">x</a>'})
