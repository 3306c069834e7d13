"""Figures and sliders as they stand in the page. The figures are real ones, drawn by matplotlib."""

import io
import json
import re
from html.parser import HTMLParser

import matplotlib
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bigmodel_lab.book import figures
from bigmodel_lab.show import STYLE


def draw(**rc):
    """Return the SVG of a figure with lines, a filled area, labels, a formula and marks that are used many times."""
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "test", **rc}):
        fig, ax = plt.subplots(figsize=(4, 3))
        ax.plot(
            [0, 1, 2], [0, 1, 4], "o-", markerfacecolor="white", color=STYLE["measured"]["color"]
        )
        ax.plot([0, 1, 2], [1, 2, 3], **STYLE["predicted"])
        ax.axhspan(1, 2, color=STYLE["reference"]["color"], alpha=0.2)
        ax.bar([0.5], [1], color=STYLE["measured"]["color"])
        ax.text(0.5, 0.5, "7", color="white")
        ax.set_xlabel("time (s)")
        ax.set_ylabel(r"loss $L$ (nat)")
        ax.set_title("Loss & time")
        out = io.StringIO()
        fig.savefig(out, format="svg")
        plt.close(fig)
    return out.getvalue()


@pytest.fixture(scope="module")
def svg():
    return draw()


@pytest.fixture(scope="module")
def markup(svg):
    return figures.inline(svg)


def test_one_line_of_html_that_markdown_passes_through(markup):
    assert markup.startswith("<svg ")
    assert "\n" not in markup


def test_every_reference_within_the_figure_finds_its_id_and_no_other_figure_has_it(markup):
    ids = re.findall(r' id="([^"]+)"', markup)
    used = re.findall(r'(?:xlink:href="|url\()#([^")]+)', markup)
    assert used
    assert set(used) <= set(ids)
    assert len(ids) == len(set(ids))
    other = figures.inline(draw(**{"axes.labelsize": 14}))
    assert not set(ids) & set(re.findall(r' id="([^"]+)"', other))


def test_nothing_in_the_figure_styles_the_rest_of_the_page(markup):
    for style in re.findall(r"<style[^>]*>(.*?)</style>", markup):
        assert re.fullmatch(r"html:is\(\S+\) #f[0-9a-f]{8}\{(--c\d+:#[0-9a-f]{6};)+\}", style), (
            style
        )
    assert "<metadata" not in markup
    assert "font-family" not in markup


def test_the_figure_follows_the_theme(markup):
    assert (
        'fill="currentColor"' in markup
    )  # text, which matplotlib leaves black by naming no colour
    assert "stroke: currentColor" in markup  # axes
    assert "fill: var(--bg)" in markup  # the ground, and the hollow marks
    assert "#000000" not in markup
    assert re.search(r"<text[^>]*fill: white", markup)  # on a coloured bar: white in both themes
    assert re.search(r"stroke: var\(--c\d, #1b6ca8\)", markup)
    assert re.search(r"fill: var\(--c\d, #1b6ca8\)", markup)


def test_a_figure_whose_colours_are_a_scale_keeps_them():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        fig, ax = plt.subplots()
        ax.pcolormesh([[i * 10 + j for j in range(6)] for i in range(6)])
        out = io.StringIO()
        fig.savefig(out, format="svg")
        plt.close(fig)
    kept = re.findall(r"fill: (#[0-9a-f]{6})", figures.inline(out.getvalue()))
    assert len(set(kept)) > figures.COLOUR_SCALE


def test_screen_readers_are_told_the_words_and_not_the_tick_labels(markup):
    class Label(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag == "svg":
                self.label = dict(attrs)["aria-label"]

    parser = Label()
    parser.feed(markup)
    assert parser.label == "Figure: time (s); loss L (nat); Loss & time"


def test_a_figure_without_words_takes_what_it_is_given():
    bare = '<svg width="1" height="1"><path d="M 0 0"/></svg>'
    assert 'aria-label="Loss &lt; 1"' in figures.inline(bare, "Loss < 1")


def test_text_is_more_than_formula_letters():
    assert figures._words('<text x="1">3.0</text><text>a</text><text>ms</text>') == "Figure: ms"


@pytest.mark.parametrize("role", STYLE)
def test_each_role_can_be_told_from_dark_ground(role):
    colour = STYLE[role]["color"]
    twin = figures.night_twin(colour)
    rgb = [int(twin[i : i + 2], 16) for i in (1, 3, 5)]
    assert figures.contrast(rgb, figures.NIGHT) >= 4.5


def test_night_twin():
    assert figures.night_twin("#e5b567") == "#e5b567"  # light already
    grid, faint = (int(figures.night_twin(c)[1:3], 16) for c in ("#b0b0b0", "#e5e5e5"))
    assert figures.NIGHT[0] + 30 < faint < grid < 0xB0  # what is faint by day is faint by night
    assert figures.contrast((255, 255, 255), (0, 0, 0)) == pytest.approx(21)


def test_the_night_is_the_style_sheets():
    css = (figures.__file__.rpartition("/")[0]) + "/assets/book.css"
    with open(css, encoding="utf-8") as file:
        navy = re.search(r"\.navy \{\s*--bg: (#[0-9a-f]{6})", file.read())[1]
    assert navy == "#{:02x}{:02x}{:02x}".format(*figures.NIGHT)


def data(svg, **change):
    good = {
        "names": ["rate", "start"],
        "choices": [["0.1", "1 < 2"], ["-1", "0", "1"]],
        "frames": [svg] * 6,
        "captions": [f"state {i} & more" for i in range(6)],
    }
    return good | change


def test_slider(svg):
    stored = {}

    def add(content, suffix):
        stored[f"_assets/x{suffix}"] = content.decode()
        return f"_assets/x{suffix}"

    html = figures.slider(data(svg), "Slider over rate.\nrate = 0.1: falls", add)
    assert "\n" not in html
    assert html.count('type="range"') == html.count("<label>") == 2
    assert 'max="1"' in html
    assert 'max="2"' in html
    assert html.count("<svg ") == 1  # the first frame only
    assert '<figcaption aria-live="polite">state 0 &amp; more</figcaption>' in html
    assert '<p class="without-script">Slider over rate.<br>rate = 0.1: falls</p>' in html
    assert 'data-frames="_assets/x.js"' in html
    call = re.fullmatch(r"bookFrames\((.*)\);\n", stored["_assets/x.js"])[1]
    frames, captions = json.loads(call)
    assert len(frames) == 6
    assert all(frame.startswith("<svg ") for frame in frames)
    assert captions[5] == "state 5 & more"


def test_a_slider_with_missing_frames_is_an_error(svg):
    for change in ({"frames": [svg] * 5}, {"captions": ["a"]}):
        with pytest.raises(
            ValueError, match=r"rate, start has 6 states, but \d frames and \d captions"
        ):
            figures.slider(data(svg, **change), "", lambda *_: "")
