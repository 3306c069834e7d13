"""The book's own JavaScript and style sheet, run by QuickJS without a browser; one test uses a browser if there is one."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import quickjs

from bigmodel_lab import book
from bigmodel_lab.book import figures

ASSETS = Path(book.__file__).parent / "assets"
SECTIONS = {
    "0": ("Start", "Start", "Where to begin. Optimisation comes later."),
    "1": (
        "Networks",
        "5 · Networks",
        "Loss, gradient, KV缓存 and the rest of it: backpropagation.",
    ),
    "2": (
        "你的猜测",
        "5 · Networks » 你的猜测",
        "反向传播从输出层开始，逐层应用链式法则。注意力与词元。",
    ),
    "3": ("Ranks", "Lab 2 » Ranks", "Each rank holds KV 缓存. Gradients are averaged (sum/P)."),
}


@pytest.fixture(scope="module")
def search():
    context = quickjs.Context()
    context.eval("globalThis.window = globalThis; globalThis.addEventListener = () => {};")
    for _ in range(2):  # the page loads it twice
        context.eval((ASSETS / "search.js").read_text("utf-8"))
    docs = {ref: {"title": t, "breadcrumbs": b, "body": s} for ref, (t, b, s) in SECTIONS.items()}
    # As mdBook's searcher does: first its own library, then the index, then a search.
    context.eval("elasticlunr = { Index: { load: () => { throw 'the built-in search' } } };")
    context.eval(
        f"globalThis.index = elasticlunr.Index.load({json.dumps({'documentStore': {'docs': docs}})});"
    )
    context.eval("globalThis.find = query => JSON.stringify(index.search(query));")
    find = context.get("find")
    return lambda query: json.loads(find(query))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("反向传播", ["2"]),
        ("链式法则", ["2"]),
        ("注意力 词元", ["2"]),
        ("KV缓存", ["1", "3"]),
        ("kv 缓存", ["1", "3"]),
        ("gradient", ["1", "3"]),  # a word's start is enough
        ("radient", []),  # its middle is not
        ("networks", ["1", "2"]),  # a title counts more than a path
        ("(sum/P)", ["3"]),
        ("gradient 链式", []),
        ("  ", []),
        ("nowhere", []),
    ],
)
def test_search(search, query, wanted):
    assert sorted(hit["ref"] for hit in search(query)) == wanted
    scores = [hit["score"] for hit in search(query)]
    assert scores == sorted(scores, reverse=True)


def test_a_title_comes_first(search):
    assert [hit["ref"] for hit in search("networks")] == ["1", "2"]


def test_found_text_is_shown_with_the_chinese_words_set_apart(search):
    (hit,) = search("链式法则")
    assert " 链式法则 " in hit["doc"]["body"]


PAGE = """
globalThis.made = [];
class Element {
  constructor(name) { Object.assign(this, { name, dataset: {}, attributes: {}, heard: {}, style: {}, childNodes: [] }); }
  addEventListener(kind, hear) { this.heard[kind] = hear; }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return this.attributes[name]; }
  append() {} prepend() {} before(element) { this.beforeIt = element; } click() { this.clicks = (this.clicks || 0) + 1; }
  querySelectorAll(what) { return what === "input" ? this.inputs : []; }
  querySelector(what) { return { ".frame": this.frame, figcaption: this.caption }[what]; }
  matches() { return false; }
}
const input = choices => {
  const element = new Element("input");
  element.value = "0"; element.dataset.choices = JSON.stringify(choices); element.nextElementSibling = new Element("output");
  return element;
};
globalThis.slider = new Element("figure");
Object.assign(slider, { inputs: [input(["0.1", "0.5"]), input(["-1", "0", "1"])], frame: new Element("div"), caption: new Element("figcaption") });
slider.dataset.frames = "_assets/x.js";
globalThis.byId = {};
globalThis.document = {
  body: new Element("body"), head: { append: script => { made.push(script); } }, fonts: { ready: { then() {} } },
  querySelectorAll: what => (what === ".slider" ? [slider] : []),
  querySelector: () => new Element("nav"), getElementById: id => (byId[id] ??= new Element(id)), createElement: name => new Element(name),
  addEventListener() {}, currentScript: null,
};
globalThis.addEventListener = () => {};
globalThis.move = (which, value) => { slider.inputs[which].value = String(value); slider.inputs[which].heard.input(); };
globalThis.arrive = () => { document.currentScript = made[0]; bookFrames([["a", "b", "c", "d", "e", "f"], ["A", "B", "C", "D", "E", "F"]]); };
globalThis.state = () => JSON.stringify([slider.frame.innerHTML, slider.caption.textContent, slider.inputs.map(i => i.nextElementSibling.textContent), slider.inputs.map(i => i.attributes["aria-valuetext"])]);
"""


@pytest.fixture
def page():
    context = quickjs.Context()
    context.eval(PAGE)
    context.eval((ASSETS / "book.js").read_text("utf-8") + "\nglobalThis.bookFrames = bookFrames;")
    return context


def test_slider_asks_for_its_frames_once_when_touched_and_shows_the_right_one(page):
    assert page.eval("made.length") == 0  # nothing is loaded with the page
    page.eval("slider.inputs[1].heard.focus(); move(1, 2); move(0, 1); move(1, 1)")
    assert page.eval("made.length") == 1
    assert page.eval("made[0].src") == "_assets/x.js"
    page.eval("arrive()")  # the last name runs fastest: frame 1 * 3 + 1
    assert json.loads(page.eval("state()")) == ["e", "E", ["0.5", "0"], ["0.5", "0"]]
    page.eval("move(1, 0)")
    assert json.loads(page.eval("state()"))[:2] == ["d", "D"]


def test_slider_keeps_the_arrow_keys_to_itself(page):
    page.eval(
        "globalThis.stopped = 0; slider.inputs[0].heard.keydown({ stopPropagation() { stopped += 1 } })"
    )
    assert page.eval("stopped") == 1


def test_slider_says_so_when_its_frames_are_missing_and_tries_again(page):
    page.eval("move(0, 1); made[0].onerror()")
    assert "could not be loaded" in json.loads(page.eval("state()"))[1]
    page.eval("move(0, 0)")
    assert page.eval("made.length") == 2


def test_sidebar_has_a_button_that_does_what_mdbooks_label_does(page):
    page.eval("globalThis.label = byId['mdbook-sidebar-toggle']; label.beforeIt.heard.click()")
    assert page.eval("label.beforeIt.name") == "button"
    assert page.eval("label.clicks") == 1  # mdBook shows the sidebar when the label is clicked


def rule(css, selector):
    return dict(
        re.findall(r"(--[\w-]+): ([^;]+);", css[css.index(f"{selector} {{") :].split("}")[0])
    )


@pytest.mark.parametrize("theme", [".light", ".navy"])
def test_every_text_colour_can_be_read_on_its_ground(theme):
    colours = rule((ASSETS / "book.css").read_text("utf-8"), theme)

    def rgb(name):
        return [int(colours[name][i : i + 2], 16) for i in (1, 3, 5)]

    code = [name for name in colours if name.startswith("--k-")]
    assert len(code) == 5
    pairs = [(name, "--soft") for name in (*code, "--fg", "--muted")]
    pairs += [(name, "--bg") for name in ("--fg", "--links", "--muted", "--bad", "--good")]
    pairs += [(name, "--sidebar-bg") for name in ("--sidebar-fg", "--sidebar-active", "--muted")]
    for text, ground in pairs:
        assert figures.contrast(rgb(text), rgb(ground)) >= 4.5, (text, ground)


CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_slider_in_a_browser(tmp_path):
    """A page opened from a file: the slider is moved by its own events, and the picture changes."""
    svg = '<svg width="10" height="10"><text>{}</text></svg>'
    data = {
        "names": ["rate"],
        "choices": [["0.1", "0.5"]],
        "frames": [svg.format("first"), svg.format("second")],
        "captions": ["one", "two"],
    }

    def add(content, suffix):
        (tmp_path / f"frames{suffix}").write_bytes(content)
        return f"frames{suffix}"

    slider = figures.slider(data, "words", add)
    shutil.copy(ASSETS / "book.js", tmp_path)
    (tmp_path / "page.html").write_text(
        f'<!DOCTYPE html><nav class="skip"></nav><div id="mdbook-menu-bar"><label id="mdbook-sidebar-toggle"></label></div>'
        f'<input type="checkbox" id="mdbook-sidebar-toggle-anchor"><main>{slider}</main><script src="book.js"></script>'
        "<script>const i = document.querySelector('.slider input'); i.value = 1; i.dispatchEvent(new Event('input'))</script>",
        "utf-8",
    )
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=3000",
        "--dump-dom",
    ]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    run = subprocess.run(
        [*command, profile, (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ">second<" in run.stdout
    assert ">first<" not in run.stdout
    assert '<figcaption aria-live="polite">two</figcaption>' in run.stdout
    assert '<button type="button"' in run.stdout
